package queue

import (
	"context"
	"sync"
	"time"
)

const (
	// currentTimeout is how long a reader waits for Redis to report an index's
	// version, and then for a delta that is on its way. Many readers may slow both
	// down, and counting in the database for each of them would be slower still.
	currentTimeout = 2 * time.Second
	// recentLife is how old the positions of a stale mirror may be to be answered, with
	// their age. At least manyBookings have to wait for that: the positions of fewer
	// are counted in the database, which takes some milliseconds.
	recentLife   = 15 * time.Second
	manyBookings = 2000
	// loadPatience is how long a reader waits for a mirror that is being loaded. All
	// readers wait for the same load, and counting in the database for each of them
	// would delay it.
	loadPatience = 5 * time.Second
)

// Current returns an organization's mirror once it is as new as the index at the time
// of the call. It returns false after currentTimeout; then positions have to come
// from the database.
func (ms *Mirrors) Current(ctx context.Context, organizationID string) (*Mirror, bool) {
	if !ms.Subscribed(organizationID) {
		return nil, false
	}
	m := ms.hold(organizationID, 0)
	at, err := m.asked.ask(ctx, func(ctx context.Context) (StreamPosition, error) {
		at, err := ms.index.position(ctx, organizationID)
		if err == nil && at.Epoch == "" {
			ms.loadLost(m)
		}
		return at, err
	})
	if err == nil && at.Epoch == "" && m.recent() {
		return m, false
	}
	return m, err == nil && ms.reach(ctx, m, at)
}

// Recent returns an organization's stale mirror if it is at most recentLife old and at
// least manyBookings wait. Reading so many from the database takes a second or more,
// and would slow down the rebuilding of the index.
func (ms *Mirrors) Recent(organizationID string) (*Mirror, bool) {
	ms.mu.Lock()
	m := ms.mirrors[organizationID]
	ms.mu.Unlock()
	return m, m != nil && m.recent()
}

func (m *Mirror) recent() bool {
	asOf, _ := m.AsOf()
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sum.Waiting >= manyBookings && m.owner.now().Sub(asOf) < recentLife
}

// At is Current for a caller that has just made a change and got its position in the
// index's stream. It does not ask Redis again.
func (ms *Mirrors) At(ctx context.Context, organizationID string, at StreamPosition) (*Mirror, bool) {
	if !ms.Subscribed(organizationID) || at.Epoch == "" {
		return nil, false
	}
	m := ms.hold(organizationID, 0)
	return m, ms.reach(ctx, m, at)
}

// reach waits until a mirror has reached a stream position.
func (ms *Mirrors) reach(ctx context.Context, m *Mirror, at StreamPosition) bool {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	for {
		soon, cancel := context.WithTimeout(ctx, currentTimeout)
		reached := m.Await(soon, at)
		cancel()
		if fresh, _ := m.Fresh(); reached || fresh || ctx.Err() != nil || !ms.Subscribed(m.OrganizationID) {
			return reached
		}
	}
}

// Counted returns a mirror that is read from the database, with every change that was
// committed before the call. It is not updated later. Callers that come during a
// reading share the next one.
func (ms *Mirrors) Counted(ctx context.Context, organizationID string) (*Mirror, error) {
	ms.mu.Lock()
	c := ms.counts[organizationID]
	if c == nil {
		c = &count{inquiry: newInquiry[*Mirror](loadPatience)}
		ms.counts[organizationID] = c
	}
	c.waiting++
	ms.mu.Unlock()
	defer func() {
		ms.mu.Lock()
		defer ms.mu.Unlock()
		if c.waiting--; c.waiting == 0 {
			delete(ms.counts, organizationID)
		}
	}()
	return c.ask(ctx, func(ctx context.Context) (*Mirror, error) {
		m, asOf := newMirror(ms, organizationID), ms.now()
		s, err := ms.index.truthState(ctx, organizationID)
		if err != nil {
			return nil, err
		}
		m.show(s, asOf)
		return m, nil
	})
}

// count holds the readings of an organization's queues from the database.
type count struct {
	inquiry[*Mirror]
	waiting int // callers; guarded by Mirrors.mu
}

// inquiry shares the answers to a question among callers. Callers that come while it
// is being asked share the next answer, so each answer is newer than its caller's
// call, and many callers cost few questions.
type inquiry[T any] struct {
	timeout time.Duration // of one question
	asking  chan struct{} // holds one while a question is on its way

	mu   sync.Mutex
	next *answer[T] // to the question to be asked next
}

type answer[T any] struct {
	done chan struct{}
	is   T
	err  error
}

func newInquiry[T any](timeout time.Duration) inquiry[T] {
	return inquiry[T]{timeout: timeout, asking: make(chan struct{}, 1)}
}

func (q *inquiry[T]) ask(ctx context.Context, question func(context.Context) (T, error)) (T, error) {
	q.mu.Lock()
	a := q.next
	first := a == nil
	if first {
		a = &answer[T]{done: make(chan struct{})}
		q.next = a
	}
	q.mu.Unlock()
	if first {
		// Other callers wait for it too, so it does not end with this caller.
		q.send(context.WithoutCancel(ctx), a, question)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*q.timeout)
	defer cancel()
	select {
	case <-a.done:
		return a.is, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// send asks the question for all waiting callers.
func (q *inquiry[T]) send(ctx context.Context, a *answer[T], question func(context.Context) (T, error)) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	select {
	case q.asking <- struct{}{}:
		defer func() { <-q.asking }()
	case <-ctx.Done():
		a.err = ctx.Err()
	}
	q.mu.Lock()
	q.next = nil
	q.mu.Unlock()
	if a.err == nil {
		a.is, a.err = question(ctx)
	}
}
