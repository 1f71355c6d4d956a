package access

import "slices"

// Scope is what an API key may do. Each scope includes those before it.
type Scope string

// The scopes, the narrowest first.
const (
	ScopeRead  Scope = "read"  // look at everything but how access is arranged
	ScopeWrite Scope = "write" // change bookings, queues, customers and the catalogue
	ScopeAdmin Scope = "admin" // everything: keys, members, organizations, webhooks, the audit
)

var scopes = []Scope{ScopeRead, ScopeWrite, ScopeAdmin}

// Includes reports whether a key with the scope may do what needs another.
func (s Scope) Includes(needed Scope) bool {
	return slices.Index(scopes, s) >= slices.Index(scopes, needed)
}
