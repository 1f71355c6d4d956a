package access

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"nowserving/booking/clock"
	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// lookEvery is how often a node reads the newest revocations, and lookAgain the
	// pause after a failure.
	lookEvery = time.Second
	lookAgain = 250 * time.Millisecond
	// lookBack is how far a reading reaches behind the previous one, because a
	// revocation may commit later than it was made.
	lookBack = 20 * time.Second
	// trustedFor is the default of Options.TrustedFor. With lookAtLeast, the least
	// timeout of a reading, it ends credentials within 5 s.
	trustedFor  = 3500 * time.Millisecond
	lookAtLeast = time.Second
	// announceTimeout bounds the sending of an announcement, maxAnnouncements is how
	// many may wait for it, and maxAnnounced bounds the revocations in one.
	announceTimeout  = time.Second
	maxAnnouncements = 256
	maxAnnounced     = 1000
)

var errUnchecked = &models.Error{
	Code: models.CodeUnavailable, Detail: "Credentials can't be checked now: the database does not answer.", RetryAfter: 5 * time.Second,
}

// revocations are the ended credentials that this node knows. The database is the
// source, and each node reads it every second. A node also announces its own
// revocations and those it has read to all others over Redis, so a node without the
// database works as long as another one reads. If neither has happened for
// Options.TrustedFor, no credential is accepted.
type revocations struct {
	mu       sync.RWMutex
	watching bool
	looked   time.Time // when this node's last look began
	checked  time.Time // everything revoked before is known; not before looked
	// sessions are the ones that ended while an access token of theirs may still
	// be in use. Other credentials that ended can't be found in the database.
	sessions  map[string]time.Time // forgotten then
	learnt    map[learnt]time.Time // forgotten then
	onRevoked func(ids ...string)

	announcements chan announcement
}

// learnt identifies a revocation. A restored database uses ids again.
type learnt struct {
	id      int64
	subject string
}

// announcement is a message from one node to the others.
type announcement struct {
	// At is when the reading of Revoked began, which then has everything of the 20 s
	// before. Zero: Revoked has only the node's own new revocations.
	At      time.Time          `json:"at,omitzero"`
	Revoked []store.Revocation `json:"revoked"`
}

func newRevocations() revocations {
	return revocations{
		sessions: map[string]time.Time{}, learnt: map[learnt]time.Time{}, announcements: make(chan announcement, maxAnnouncements),
	}
}

// revoked reports whether a session has ended.
func (r *revocations) revoked(session string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ended := r.sessions[session]
	return ended
}

// unchecked reports whether the revocations were not read for so long that no
// credential can be trusted.
func (a *Access) unchecked(now time.Time) bool {
	r := &a.revocations
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.watching && now.Sub(r.checked) >= a.opts.TrustedFor
}

// committed records the revocations of a transaction on this node.
func (a *Access) committed(list []store.Revocation) {
	a.learn(list, false)
	a.announce(announcement{Revoked: list})
}

func (a *Access) announce(one announcement) {
	if len(one.Revoked) > maxAnnounced {
		one = announcement{Revoked: one.Revoked[len(one.Revoked)-maxAnnounced:]} // it does not have everything
	}
	select {
	case a.revocations.announcements <- one:
	default: // Redis does not take them; the others read the database
	}
}

// learn records revocations and reports them. It reports a known revocation again
// only if again is set: a client that connected just before the revocation is
// closed by a later look. A change of a member is reported once; otherwise their
// clients would reconnect all the time.
func (a *Access) learn(list []store.Revocation, again bool) {
	ids := make([]string, 0, len(list))
	fresh := make([]store.Revocation, 0, len(list))
	r := &a.revocations
	r.mu.Lock()
	for _, one := range list {
		name := learnt{one.ID, one.Subject}
		if _, known := r.learnt[name]; known && (!again || one.Kind == store.ChangedMember) {
			continue
		}
		until := one.At.Add(accessLife + lookBack)
		r.learnt[name] = until
		if one.Kind == store.RevokedSession {
			r.sessions[one.Subject] = until
		}
		ids, fresh = append(ids, one.Subject), append(fresh, one)
	}
	onRevoked := r.onRevoked
	r.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	a.known.forget(fresh)
	if onRevoked != nil {
		onRevoked(ids...)
	}
}

// Heard handles a message that Options.Announce of a node has sent.
func (a *Access) Heard(message []byte) {
	var one announcement
	if err := json.Unmarshal(message, &one); err != nil {
		a.opts.Log.Error("read an announcement of ended credentials", "error", err)
		return
	}
	r := &a.revocations
	now := a.opts.Now()
	r.mu.RLock()
	alone := now.Sub(r.looked) > 2*lookEvery // this node's own looks fail
	r.mu.RUnlock()
	a.learn(one.Revoked, alone)
	r.mu.Lock()
	defer r.mu.Unlock()
	// After a longer gap, revocations older than the announcement may be missing, so
	// only this node's own reading counts.
	if one.At.After(r.checked) && now.Sub(r.checked) < a.opts.TrustedFor {
		r.checked = one.At
		if now.Before(one.At) {
			r.checked = now
		}
	}
}

// Watch reads what other nodes revoke until ctx ends: at once over Redis, and within
// about a second from the database. revoked is called with the ids of the sessions,
// keys, displays, organizations and changed members, more than once. unchecked is
// called, again and again, while credentials can't be checked: all clients have to be
// disconnected, since Authenticate refuses every credential.
func (a *Access) Watch(ctx context.Context, revoked func(ids ...string), unchecked func()) {
	r := &a.revocations
	began := a.opts.Now()
	r.mu.Lock()
	// The first look reaches back as far as access tokens live.
	r.onRevoked, r.watching, r.checked, r.looked = revoked, true, began, began.Add(-accessLife)
	r.mu.Unlock()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { a.sendAnnouncements(ctx) })
	failing := false
	for {
		pause := lookEvery
		err := a.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause = lookAgain
		}
		if (err != nil) != failing {
			failing = err != nil
			a.opts.Log.Warn("reading revocations", "failing", failing, "error", err)
		}
		if a.unchecked(a.opts.Now()) {
			unchecked()
		}
		if !clock.Sleep(ctx, pause) {
			return
		}
	}
}

// look reads the revocations since the last reading and announces them. It takes at
// most until the last one is too old.
func (a *Access) look(ctx context.Context) error {
	r := &a.revocations
	r.mu.RLock()
	looked, left := r.looked, a.opts.TrustedFor-a.opts.Now().Sub(r.checked)
	r.mu.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, min(max(left, lookAtLeast), a.opts.TrustedFor))
	defer cancel()
	now, list, err := a.store.Revocations(ctx, looked.Add(-lookBack))
	if err != nil {
		return err
	}
	a.learn(list, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked = now
	if now.After(r.checked) || now.Sub(r.checked) < -a.opts.TrustedFor { // or the database's clock was set back
		r.checked = now
	}
	a.announce(announcement{At: now, Revoked: list})
	ended := func(until time.Time) bool { return until.Before(now) }
	maps.DeleteFunc(r.sessions, func(_ string, until time.Time) bool { return ended(until) })
	maps.DeleteFunc(r.learnt, func(_ learnt, until time.Time) bool { return ended(until) })
	return nil
}

func (a *Access) sendAnnouncements(ctx context.Context) {
	if a.opts.Announce == nil {
		return
	}
	failing := false
	for {
		var one announcement
		select {
		case one = <-a.revocations.announcements:
		case <-ctx.Done():
			return
		}
		err := a.send(ctx, one)
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			a.opts.Log.Warn("announcing ended credentials to other nodes", "failing", failing, "error", err)
		}
	}
}

func (a *Access) send(ctx context.Context, one announcement) error {
	message, err := json.Marshal(one)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	return a.opts.Announce(ctx, message)
}
