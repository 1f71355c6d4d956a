package handlers

import (
	"net/http"
	"strings"

	"nowserving/booking/access"
	"nowserving/models"
)

// The scopes of API keys that operations name. One that names none needs
// scopeRead to read and scopeWrite to change something.
const (
	scopeRead  = access.ScopeRead
	scopeWrite = access.ScopeWrite
	scopeAdmin = access.ScopeAdmin
)

// scopeNeeded is the scope an API key needs for the operation.
func (op operation) scopeNeeded() access.Scope {
	switch {
	case op.scope != "":
		return op.scope
	case op.method == http.MethodGet:
		return scopeRead
	}
	return scopeWrite
}

// description says what the operation is about, and for whom it is.
func (op operation) description() string {
	if op.who == nobody {
		return op.about
	}
	text := "For: " + strings.Join(op.who.names(), ", ")
	if op.who&anyKey != 0 {
		text += "; an API key needs the scope " + string(op.scopeNeeded())
	}
	return strings.TrimSpace(op.about + " " + text + ".")
}

// allows refuses an API key whose scopes don't reach to the operation, or that
// was made by a member who may not. People, tickets and displays have no scopes:
// what they are says what they may do.
func (op operation) allows(p access.Principal) error {
	if p.Kind != access.KindAccount && p.Kind != access.KindOrganization {
		return nil
	}
	if p.Role != "" && op.who&whoIs(access.Principal{Kind: access.KindMember, Role: p.Role}) == 0 {
		return models.Errorf(models.CodeForbidden, "Who made this API key may not do this.")
	}
	return requireScope(p, op.scopeNeeded())
}

// requires refuses an API key without the scope that a part of an operation
// needs.
func (c caller) requires(needed access.Scope) error { return requireScope(c.Principal, needed) }

func requireScope(p access.Principal, needed access.Scope) error {
	if p.Kind != access.KindAccount && p.Kind != access.KindOrganization || p.Scope.Includes(needed) {
		return nil
	}
	if p.Reduced && needed == scopeAdmin {
		return models.Errorf(models.CodeKeyReduced, "The member who made this API key is no owner or admin any more; it has only the scope write.")
	}
	return models.Errorf(models.CodeScope, "This needs an API key with the scope %s.", needed)
}
