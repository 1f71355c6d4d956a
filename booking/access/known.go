package access

import (
	"sync"
	"time"

	"nowserving/booking/store"
)

const (
	// knownLife is how long a valid credential is not read again. A key or display
	// token that is revoked is dropped at once.
	knownLife = time.Minute
	// maxKnown bounds the cached credentials. Beyond it all are dropped.
	maxKnown = 10_000
)

// credentialCache holds credentials that were valid a moment ago, because checking one
// costs more than a request's own work. Refused credentials are not kept, so guesses
// cannot fill the memory.
type credentialCache struct {
	mu sync.RWMutex
	by map[string]cacheEntry // hash of the secret
	// changes counts the revocations. If it has grown during a reading, the result may
	// be outdated and is not kept.
	changes int
}

type cacheEntry struct {
	principal Principal
	until     time.Time
}

// find returns the cached principal of a secret. changes is for keep, after the caller
// has read the principal itself.
func (k *credentialCache) find(hash string, now time.Time) (p Principal, changes int, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	a, ok := k.by[hash]
	return a.principal, k.changes, ok && now.Before(a.until)
}

// wasGood reports whether a secret was found to be valid before, however long
// ago, and has not been revoked since.
func (k *credentialCache) wasGood(hash string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.by[hash]
	return ok
}

func (k *credentialCache) keep(hash string, p Principal, now time.Time, changes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if changes != k.changes {
		return
	}
	if k.by == nil || len(k.by) >= maxKnown {
		k.by = map[string]cacheEntry{}
	}
	k.by[hash] = cacheEntry{p, now.Add(knownLife)}
}

// forget drops the credentials that were revoked.
func (k *credentialCache) forget(list []store.Revocation) {
	ended := map[string]bool{}
	for _, r := range list {
		if r.Kind != store.RevokedSession { // a session is not presented here
			ended[r.Subject] = true
		}
	}
	if len(ended) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	for hash, a := range k.by {
		if ended[a.principal.SubjectID] || ended[a.principal.OrganizationID] || ended[a.principal.MemberID] {
			delete(k.by, hash)
		}
	}
}
