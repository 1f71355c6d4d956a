package queue

import (
	"context"
	"sync"
	"time"
)

const (
	// currentTimeout is how long a reader waits for Redis to say where an index
	// stands, and then for a delta that is on its way. A crowd may slow both
	// down, and counting in the database for each of it would slow it for good.
	currentTimeout = 2 * time.Second
	// recentLife is how old the positions of a mirror may be that is not live, to
	// be answered with their age; crowd is how many must wait for that. Fewer are
	// read from the database, which is right and takes some milliseconds.
	recentLife = 15 * time.Second
	crowd      = 2000
	// loadPatience is how long a reader waits while the whole index is being read
	// into the mirror: all readers wait for the same, and to count for each of
	// them in the database would only delay it.
	loadPatience = 5 * time.Second
)

// Current returns an organization's mirror once it shows everything that the
// index holds at this moment, and false when it can't be had in time: then
// the index is not to be trusted, and the database has to answer.
func (ms *Mirrors) Current(ctx context.Context, organizationID string) (*Mirror, bool) {
	if !ms.Hears(organizationID) {
		return nil, false
	}
	m := ms.hold(organizationID, 0)
	at, err := m.asked.ask(ctx, func(ctx context.Context) (Moment, error) {
		at, err := ms.index.moment(ctx, organizationID)
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

// Recent returns an organization's mirror when it can't be had live, a crowd
// waits, and what it shows was right a few seconds ago. To read a crowd from the
// database takes a second or more, in which its index is to be rebuilt.
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
	return m.sum.Waiting >= crowd && m.owner.now().Sub(asOf) < recentLife
}

// At is Current for who has just been told a moment of the index, by a change
// of their own: Redis need not be asked again.
func (ms *Mirrors) At(ctx context.Context, organizationID string, at Moment) (*Mirror, bool) {
	if !ms.Hears(organizationID) || at.Epoch == "" {
		return nil, false
	}
	m := ms.hold(organizationID, 0)
	return m, ms.reach(ctx, m, at)
}

// reach waits until a mirror shows a moment.
func (ms *Mirrors) reach(ctx context.Context, m *Mirror, at Moment) bool {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	for {
		soon, cancel := context.WithTimeout(ctx, currentTimeout)
		reached := m.Await(soon, at)
		cancel()
		if fresh, _ := m.Fresh(); reached || fresh || ctx.Err() != nil || !ms.Hears(m.OrganizationID) {
			return reached
		}
	}
}

// Counted returns an organization's queues as the database has them, with every
// change that was committed before the call. Nothing feeds the mirror later.
// Those who ask while the database is being read share the next reading.
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

// count is the readings of an organization's queues from the database.
type count struct {
	inquiry[*Mirror]
	waiting int // callers; guarded by Mirrors.mu
}

// inquiry asks a question whose answer is the same for all. Callers that come
// while it is being asked share the next time, so a crowd costs a few questions,
// and each answer is to a question that was asked after its caller came.
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
		// Others wait for it too, so it is asked also when this caller has gone.
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

// send asks for all who wait for the answer.
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
