package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxWaiting bounds the requests of a node that wait for a connection.
const maxWaiting = 10_000

// Why a request gets no connection. Both pass.
var (
	errCrowded = fmt.Errorf("%d requests wait for the database already", maxWaiting)
	errHung    = errors.New("the database does not answer")
)

type requestKey struct{}

// ForOrganization returns the context of a request on behalf of an organization, ""
// when none is known yet. An organization's requests use at most a part of a node's
// connections. Those that wait are served in turns, organization by organization. A
// context without an organization is the service's own work.
func ForOrganization(ctx context.Context, organizationID string) context.Context {
	return context.WithValue(ctx, requestKey{}, organizationID)
}

// requestOf returns the organization of a request; false when ctx is of the
// service's own work.
func requestOf(ctx context.Context) (organizationID string, ok bool) {
	organizationID, ok = ctx.Value(requestKey{}).(string)
	return organizationID, ok
}

// turns lend connections to organizations, so that one of them can't keep all.
type turns struct {
	mu      sync.Mutex
	free    int // connections
	share   int // of one organization at once
	used    map[string]int
	waiting map[string][]chan error // by organization; first come, first served
	order   []string                // those that wait, the next first
	queued  int                     // requests that wait
	refused error                   // why no connections are lent
}

func newTurns(connections, share int) *turns {
	return &turns{free: connections, share: max(1, share), used: map[string]int{}, waiting: map[string][]chan error{}}
}

// take waits for a connection until ctx ends. The caller gives it back by done.
func (t *turns) take(ctx context.Context, organizationID string) (done func(), err error) {
	given, err := t.ask(organizationID)
	if err != nil {
		return nil, err
	}
	done = sync.OnceFunc(func() { t.giveBack(organizationID) })
	select {
	case err := <-given:
		if err != nil {
			return nil, err
		}
		return done, nil
	case <-ctx.Done():
	}
	if !t.leave(organizationID, given) && <-given == nil {
		done() // it was given at the same moment
	}
	return nil, ctx.Err()
}

// ask returns a channel that gets nil with the connection, or the reason why
// there is none.
func (t *turns) ask(organizationID string) (given chan error, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.refused != nil:
		return nil, t.refused
	case t.queued == maxWaiting:
		return nil, errCrowded
	}
	given = make(chan error, 1)
	if len(t.waiting[organizationID]) == 0 {
		t.order = append(t.order, organizationID)
	}
	t.waiting[organizationID] = append(t.waiting[organizationID], given)
	t.queued++
	t.lend()
	return given, nil
}

// lend gives the free connections to those whose turn it is. The caller holds
// the lock.
func (t *turns) lend() {
	for t.free > 0 {
		i := slices.IndexFunc(t.order, func(id string) bool { return t.used[id] < t.share })
		if i < 0 {
			return
		}
		id := t.order[i]
		given := t.waiting[id][0]
		t.order = slices.Delete(t.order, i, i+1)
		if t.waiting[id] = t.waiting[id][1:]; len(t.waiting[id]) == 0 {
			delete(t.waiting, id)
		} else {
			t.order = append(t.order, id)
		}
		t.queued--
		t.free--
		t.used[id]++
		given <- nil
	}
}

func (t *turns) giveBack(organizationID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	if t.used[organizationID]--; t.used[organizationID] == 0 {
		delete(t.used, organizationID)
	}
	t.lend()
}

// leave takes back a question. It returns false when it was answered already.
func (t *turns) leave(organizationID string, given chan error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting[organizationID], given)
	if i < 0 {
		return false
	}
	t.queued--
	if t.waiting[organizationID] = slices.Delete(t.waiting[organizationID], i, i+1); len(t.waiting[organizationID]) == 0 {
		delete(t.waiting, organizationID)
		t.order = slices.DeleteFunc(t.order, func(id string) bool { return id == organizationID })
	}
	return true
}

// refuse makes take fail for a reason, also for those who wait; nil ends that.
func (t *turns) refuse(reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused = reason; reason == nil {
		return
	}
	for _, waiting := range t.waiting {
		for _, given := range waiting {
			given <- reason
		}
	}
	clear(t.waiting)
	t.order, t.queued = nil, 0
}
