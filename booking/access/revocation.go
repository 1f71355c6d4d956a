package access

import (
	"context"
	"maps"
	"sync"
	"time"

	"nowserving/booking/store"
)

const (
	// lookEvery is how often a node asks what other nodes have revoked.
	lookEvery = time.Second
	// lookBack is how far a look reaches behind the one before: a revocation
	// may commit later than it was made.
	lookBack = 20 * time.Second
)

// revocations are the sessions that ended while an access token of theirs may
// still be about. Nothing else has to be remembered: what is not good any more
// can't be found in the database.
type revocations struct {
	mu       sync.RWMutex
	sessions map[string]time.Time // forgotten then
	changes  map[int64]time.Time  // of members, which are told once; forgotten then
	told     func(ids ...string)
}

// revoked reports whether a session has ended.
func (r *revocations) revoked(session string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ended := r.sessions[session]
	return ended
}

// learn takes note of revocations, again and again of the same: a client that
// was let in a moment before one is put out by a later look. Of a member's
// change it tells once, or they would be asked to come again all the time.
func (a *Access) learn(list []store.Revocation) {
	if len(list) == 0 {
		return
	}
	ids := make([]string, 0, len(list))
	r := &a.revocations
	r.mu.Lock()
	for _, one := range list {
		until := one.At.Add(accessLife + lookBack)
		if one.Kind == store.RevokedSession {
			r.sessions[one.Subject] = until
		}
		if one.Kind == store.ChangedMember {
			if _, known := r.changes[one.ID]; known {
				continue
			}
			r.changes[one.ID] = until
		}
		ids = append(ids, one.Subject)
	}
	told := r.told
	r.mu.Unlock()
	a.known.forget(list)
	if told != nil {
		told(ids...)
	}
}

// Watch learns what other nodes revoke, within about a second, until ctx ends.
// told is called for what any node has revoked since the process began, more
// than once, with the ids of the sessions, keys, displays, organizations and
// changed members.
func (a *Access) Watch(ctx context.Context, told func(ids ...string)) {
	a.revocations.mu.Lock()
	a.revocations.told = told
	a.revocations.mu.Unlock()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	reach := accessLife + lookBack // at first, as long as an access token lives
	for {
		if err := a.look(ctx, reach); err == nil {
			reach = lookBack
		} else if ctx.Err() == nil {
			// The next look that succeeds makes good for this one.
			reach += lookEvery
			a.o.Log.Warn("read what was revoked", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Access) look(ctx context.Context, reach time.Duration) error {
	now, err := a.store.Now(ctx)
	if err != nil {
		return err
	}
	list, err := a.store.Revocations(ctx, now.Add(-reach))
	if err != nil {
		return err
	}
	a.learn(list)
	r := &a.revocations
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := func(until time.Time) bool { return until.Before(now) }
	maps.DeleteFunc(r.sessions, func(_ string, until time.Time) bool { return ended(until) })
	maps.DeleteFunc(r.changes, func(_ int64, until time.Time) bool { return ended(until) })
	return nil
}
