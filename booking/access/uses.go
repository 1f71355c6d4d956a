package access

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"nowserving/booking/store"
)

const (
	// tallyEvery is how often a node stores the use of keys.
	tallyEvery = 5 * time.Second
	// tallyTimeout bounds storing it when the node stops.
	tallyTimeout = 5 * time.Second
)

// uses counts the use of API keys on this node since it was last stored. It has at
// most one entry for each existing key.
type uses struct {
	mu sync.Mutex
	of map[string]use // id of the key
}

type use struct {
	requests, errors int64
	last             time.Time
}

func (u *uses) add(id string, more use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = map[string]use{}
	}
	sum := u.of[id]
	sum.requests += more.requests
	sum.errors += more.errors
	if more.last.After(sum.last) {
		sum.last = more.last
	}
	u.of[id] = sum
}

// Used counts a request with an API key, and whether its answer was an error. Other
// principals are not counted.
func (a *Access) Used(p Principal, failed bool) {
	if p.Kind != KindAccount && p.Kind != KindOrganization || p.SubjectID == bootstrapID {
		return
	}
	one := use{requests: 1, last: a.opts.Now()}
	if failed {
		one.errors = 1
	}
	a.uses.add(p.SubjectID, one)
}

// Tally stores the use of keys every few seconds and when ctx ends, and deletes
// rotated keys after rotationGrace.
func (a *Access) Tally(ctx context.Context) {
	ticker := time.NewTicker(tallyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := a.writeUses(ctx); err != nil && ctx.Err() == nil {
				a.opts.Log.Warn("write down what keys were used for", "error", err)
			}
			if err := a.dropReplaced(ctx); err != nil && ctx.Err() == nil {
				a.opts.Log.Warn("delete replaced keys", "error", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), tallyTimeout)
			defer cancel()
			if err := a.writeUses(last); err != nil {
				a.opts.Log.Warn("write down what keys were used for", "error", err)
			}
			return
		}
	}
}

func (a *Access) writeUses(ctx context.Context) error {
	a.uses.mu.Lock()
	taken := a.uses.of
	a.uses.of = nil
	a.uses.mu.Unlock()
	if len(taken) == 0 {
		return nil
	}
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		for _, id := range slices.Sorted(maps.Keys(taken)) { // so that nodes don't wait for each other in a circle
			u := taken[id]
			last := u.last.UTC().Truncate(time.Microsecond)
			err := tx.Exec(`UPDATE api_keys SET requests = requests + ?, errors = errors + ?,
				last_used_at = CASE WHEN last_used_at > ? THEN last_used_at ELSE ? END WHERE id = ?`, u.requests, u.errors, last, last, id).Error
			if err != nil {
				return fmt.Errorf("count the use of an API key: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		for id, u := range taken {
			a.uses.add(id, u)
		}
	}
	return err
}
