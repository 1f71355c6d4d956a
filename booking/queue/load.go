package queue

import (
	"context"
	mathrand "math/rand/v2"
	"time"

	"nowserving/booking/clock"
)

const (
	// truthEvery is how often mirrors are read from the database while Redis
	// is away, and truthShare bounds the share of the time that this takes.
	truthEvery = time.Second
	truthShare = 5
	// loadTimeout bounds one attempt to compare and read an index.
	loadTimeout = 30 * time.Second
	// reloadSpread is the time over which nodes read the index again after Redis
	// was away, for they all notice at the same moment that it is back.
	reloadSpread = time.Second
)

// load compares the index with the database and reads it into the mirror, in
// the background. Deltas that arrive meanwhile are kept.
func (ms *Mirrors) load(m *Mirror) {
	if m.suspect() {
		ms.listener.Stale(m)
	}
	m.mu.Lock()
	running := m.loading && m.buffer != nil
	if running {
		m.again = true
		m.mu.Unlock()
		return
	}
	m.loading, m.again, m.buffer = true, false, []*Delta{}
	m.mu.Unlock()
	ms.mu.Lock()
	ctx := ms.ctx
	ms.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	ms.loads.Go(func() { ms.loading(ctx, m) })
}

// loading goes on until the mirror is loaded. Until then it shows what the
// database says.
func (ms *Mirrors) loading(ctx context.Context, m *Mirror) {
	pause := newBackoff()
	crowded := false // every node of ours is about to do the same
	for ctx.Err() == nil {
		again, lost := ms.awaitedSubscription(m)
		if again == nil && crowded {
			clock.Sleep(ctx, mathrand.N(reloadSpread)) //nolint:gosec // jitter, not a secret
			crowded = false
		}
		if again == nil {
			loaded, err := ms.tryLoad(ctx, m)
			if loaded {
				return
			}
			if err == nil {
				continue
			}
			if ctx.Err() == nil {
				ms.log.Warn("load the queue index", "organization", m.OrganizationID, "error", err)
			}
		}
		began := ms.now()
		if err := ms.showTruth(ctx, m); err != nil && ctx.Err() == nil {
			ms.log.Warn("read the queues from the database", "organization", m.OrganizationID, "error", err)
		}
		if again == nil {
			pause.wait(ctx)
			continue
		}
		crowded = lost
		select {
		case <-again:
		case <-time.After(max(truthEvery, truthShare*ms.now().Sub(began))):
		case <-ctx.Done():
		}
	}
}

// awaitedSubscription returns nil if the deltas of a mirror's organization arrive.
// Otherwise it returns a channel that is closed once they do, and whether they have
// arrived before.
func (ms *Mirrors) awaitedSubscription(m *Mirror) (again <-chan struct{}, lost bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.isSubscribed() {
		return nil, false
	}
	return m.subscribed, m.link != nil && m.link.once
}

// read takes a token for reading one organization. It returns false when ctx
// ends first; otherwise done gives the token back.
func (ms *Mirrors) read(ctx context.Context) (done func(), ok bool) {
	select {
	case ms.reading <- struct{}{}:
		return func() { <-ms.reading }, true
	case <-ctx.Done():
		return nil, false
	}
}

// showTruth puts the mirror in order from the database alone, while Redis is
// away. Live clients then get their positions every truthEvery, not at once.
func (ms *Mirrors) showTruth(ctx context.Context, m *Mirror) error {
	done, ok := ms.read(ctx)
	if !ok {
		return nil
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	asOf := ms.now()
	state, err := ms.index.truthState(ctx, m.OrganizationID)
	if err != nil {
		return err
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	m.show(state, asOf)
	ms.listener.Loaded(m)
	return nil
}

// tryLoad makes the index right and reads it into the mirror. It returns false
// when the index changed so that it has to be read again.
func (ms *Mirrors) tryLoad(ctx context.Context, m *Mirror) (bool, error) {
	done, ok := ms.read(ctx)
	if !ok {
		return false, nil
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	m.mu.Lock()
	m.again, m.buffer = false, []*Delta{}
	m.mu.Unlock()
	from, rebuilt, err := ms.begin(ctx, m.OrganizationID)
	if err != nil {
		return false, err
	}
	state, err := ms.index.read(ctx, m.OrganizationID)
	if err != nil {
		return false, err
	}
	if !rebuilt { // otherwise the database was read a moment ago
		suspects, err := ms.index.compareState(ctx, m.OrganizationID, state)
		if err != nil {
			return false, err
		}
		if _, err = ms.index.repair(ctx, m.OrganizationID, suspects, settleSoon); err != nil {
			return false, err
		}
	}
	to, err := ms.index.position(ctx, m.OrganizationID)
	if err != nil || to.Epoch != from.Epoch {
		return false, err
	}
	soon, cancelSoon := context.WithTimeout(ctx, currentTimeout)
	defer cancelSoon()
	if !m.arrived(soon, from, to) {
		return false, nil
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	later, ok := m.install(state, from, to)
	if !ok {
		return false, nil
	}
	ms.listener.Loaded(m)
	for _, d := range later {
		m.follow(d)
	}
	return true, nil
}

// begin returns where an index stands, which it rebuilds if it was lost.
func (ms *Mirrors) begin(ctx context.Context, organizationID string) (at StreamPosition, rebuilt bool, err error) {
	at, err = ms.index.position(ctx, organizationID)
	if err != nil || at.Epoch != "" {
		return at, false, err
	}
	if err = ms.index.Rebuild(ctx, organizationID); err != nil {
		return at, false, err
	}
	at, err = ms.index.position(ctx, organizationID)
	if err == nil && at.Epoch == "" {
		err = ErrLost
	}
	return at, true, err
}

// loadLost loads a mirror whose index was lost, unless that is under way.
func (ms *Mirrors) loadLost(m *Mirror) {
	m.mu.RLock()
	following := m.follows()
	m.mu.RUnlock()
	if following {
		ms.load(m)
	}
}
