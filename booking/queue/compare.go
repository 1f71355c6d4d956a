package queue

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"nowserving/booking/clock"
)

const (
	// looks is how often the sums are compared before everything is.
	looks = 6
	// watchEvery is how often each node reads the version of each mirrored index. It
	// bounds how long a lost index goes unnoticed.
	watchEvery = time.Second
	// compareEvery is how often each mirrored organization's index is compared
	// with the database, by one of the nodes.
	compareEvery = 2 * time.Second
	// wholeEvery is how often everything is compared even if the sums agree:
	// something else may have changed the sorted sets.
	wholeEvery = 15 * time.Second
)

// compare compares the mirrored organizations' indexes with the database and mirrors
// with their index, and drops unused mirrors.
func (ms *Mirrors) compare(ctx context.Context) {
	for {
		// Jitter keeps the nodes from comparing at the same moment.
		clock.Sleep(ctx, watchEvery*3/4+mathrand.N(watchEvery/2)) //nolint:gosec // jitter, not a secret
		if ctx.Err() != nil {
			return
		}
		ms.attach() // those that had no link
		var comparing sync.WaitGroup
		for _, m := range ms.inUse() {
			done, ok := ms.read(ctx)
			if !ok {
				break
			}
			comparing.Go(func() {
				defer done()
				if err := ms.compareOne(ctx, m); err != nil && ctx.Err() == nil {
					ms.log.Warn("compare the queue index", "organization", m.OrganizationID, "error", err)
				}
			})
		}
		comparing.Wait()
	}
}

// inUse drops the mirrors that were not read for idleLife, and returns the others.
func (ms *Mirrors) inUse() []*Mirror {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	used := make([]*Mirror, 0, len(ms.mirrors))
	for _, m := range ms.mirrors {
		if m.holders > 0 || ms.now().Sub(m.lastUsed) <= idleLife {
			used = append(used, m)
			continue
		}
		ms.forget(m)
	}
	return used
}

// compareOne compares one organization. One node at a time compares its database with
// its index. The sums of waiting bookings and versions are compared every time, and
// everything if they differ or wholeEvery has passed.
func (ms *Mirrors) compareOne(ctx context.Context, m *Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	if !ms.Subscribed(m.OrganizationID) {
		return nil // its load goes on
	}
	at, err := ms.follows(ctx, m)
	if err != nil {
		return err
	}
	if at.Epoch == "" {
		return nil // its load rebuilds the index
	}
	first, err := ms.lease(ctx, m, "compared", compareEvery*3/4)
	if err != nil || !first {
		return err
	}
	whole, err := ms.lease(ctx, m, "whole", wholeEvery)
	if !whole && err == nil {
		whole, err = ms.differs(ctx, m)
	}
	if whole && err == nil {
		_, err = ms.index.Repair(ctx, m.OrganizationID, settleTime)
	}
	return err
}

// follows returns the stream position of the index. A mirror that does not reach it
// soon, or is ahead of it, has missed something and is loaded.
func (ms *Mirrors) follows(ctx context.Context, m *Mirror) (StreamPosition, error) {
	m.mu.RLock()
	before, following := m.at, m.follows()
	m.mu.RUnlock()
	at, err := ms.index.position(ctx, m.OrganizationID)
	if err != nil || !following {
		return at, err
	}
	if at.Epoch == "" {
		ms.loadLost(m)
		return at, nil
	}
	soon, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	if before.Epoch == at.Epoch && before.Version > at.Version || !m.Await(soon, at) {
		ms.load(m)
	}
	return at, nil
}

// lease reports whether this node gets the lease for a task, which keeps other nodes
// from it for a while.
func (ms *Mirrors) lease(ctx context.Context, m *Mirror, name string, life time.Duration) (bool, error) {
	key := keysOf(m.OrganizationID).all + name
	err := ms.rdb.SetArgs(ctx, key, "1", redis.SetArgs{Mode: "NX", TTL: life}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lease the comparison: %w", err)
	}
	return true, nil
}

// differs reports whether the sums of database and mirror differ for longer than a
// change is on its way. It compares several times, because some comparisons fall
// between the commit and the delta of a change.
func (ms *Mirrors) differs(ctx context.Context, m *Mirror) (bool, error) {
	for look := range looks {
		if look > 0 {
			clock.Sleep(ctx, settleTime/looks+mathrand.N(settleTime/looks)) //nolint:gosec // jitter, not a secret
		}
		sum, err := ms.index.source.Sum(ctx, m.OrganizationID)
		if err != nil {
			return false, fmt.Errorf("sum up who waits: %w", err)
		}
		m.mu.RLock()
		same := !m.follows() || m.sum == sum
		m.mu.RUnlock()
		if same {
			return false, nil
		}
	}
	return true, nil
}
