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
	// counted in the database, which is right and costs little.
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
// waits, and what it shows was right a few seconds ago. To count in the database
// for every reader would then keep it from everything else.
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

// inquiry finds out where an index stands. Whoever asks while a command is on
// its way shares the next one with all others who do, so a crowd costs a few
// commands, and each answer was given after it was asked for.
type inquiry struct {
	asking chan struct{} // holds one while a command is on its way

	mu   sync.Mutex
	next *answer // of the command to be sent next
}

type answer struct {
	done chan struct{}
	at   Moment
	err  error
}

func (q *inquiry) ask(ctx context.Context, read func(context.Context) (Moment, error)) (Moment, error) {
	q.mu.Lock()
	a := q.next
	first := a == nil
	if first {
		a = &answer{done: make(chan struct{})}
		q.next = a
	}
	q.mu.Unlock()
	if first {
		// Others wait for it too, so it is sent also when this caller has gone.
		q.send(context.WithoutCancel(ctx), a, read)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*currentTimeout)
	defer cancel()
	select {
	case <-a.done:
		return a.at, a.err
	case <-ctx.Done():
		return Moment{}, ctx.Err()
	}
}

// send asks for everybody who waits for the answer.
func (q *inquiry) send(ctx context.Context, a *answer, read func(context.Context) (Moment, error)) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(ctx, currentTimeout)
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
		a.at, a.err = read(ctx)
	}
}
