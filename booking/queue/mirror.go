package queue

import (
	"context"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Waiter is one waiting booking as a mirror knows it. It is never changed
// after it was made.
type Waiter struct {
	BookingID string
	// Version is that of the booking when it came to wait here.
	Version int64
	Ticket  string
	TypeID  string
	Score   int64
	// Queues are the resources it waits for and, last, its type.
	Queues []string
}

// waitsFor returns the queues that count for its position: those of its
// resources or, when no active resource serves it, that of its type.
func (w *Waiter) waitsFor() []string {
	if len(w.Queues) > 1 {
		return w.Queues[:len(w.Queues)-1]
	}
	return w.Queues
}

// Dirty says that in one queue everybody with Score or more may have moved.
type Dirty struct {
	Queue string
	Score int64
}

// Listener is told what happens to mirrors. Calls for one mirror come one
// after another, in version order, and must not block.
type Listener interface {
	// Applied follows each delta.
	Applied(m *Mirror, d *Delta, dirty []Dirty)
	// Loaded follows each load of the whole index: anything may have changed.
	Loaded(m *Mirror)
	// Stale says that the link to Redis is lost or behind.
	Stale(m *Mirror)
}

// Mirror is one organization's index as this node knows it: for each queue the
// waiting bookings in order. Reading it costs no network.
type Mirror struct {
	OrganizationID string

	owner *Mirrors
	// telling is held while a change is made and the listener told of it, so
	// that the listener hears of changes in their order.
	telling sync.Mutex
	mu      sync.RWMutex
	at      Moment
	fresh   bool
	// asOf is when the mirror was last known to be right.
	asOf    time.Time
	waiters map[string]*Waiter
	queues  map[string][]*Waiter
	// moved is closed and replaced whenever at or fresh changes.
	moved chan struct{}
	// buffer holds deltas that arrive while the index is being read.
	buffer  []*Delta
	loading bool
	again   bool // a load was asked for while one was running
	behind  int  // comparisons in a row that found Redis ahead

	// Guarded by owner.mu.
	holders  int
	lastUsed time.Time
}

func newMirror(owner *Mirrors, organizationID string) *Mirror {
	return &Mirror{
		OrganizationID: organizationID, owner: owner,
		waiters: map[string]*Waiter{}, queues: map[string][]*Waiter{}, moved: make(chan struct{}),
	}
}

// Fresh reports whether the mirror follows the index, and when it last did.
func (m *Mirror) Fresh() (bool, time.Time) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.fresh {
		return true, m.owner.now()
	}
	return false, m.asOf
}

// Await waits until the mirror is fresh and has seen a moment of the index.
// It returns false when ctx ends first.
func (m *Mirror) Await(ctx context.Context, at Moment) bool {
	for {
		m.mu.RLock()
		reached := m.fresh && (at.Epoch == "" || m.at.Epoch == at.Epoch && m.at.Version >= at.Version)
		moved := m.moved
		m.mu.RUnlock()
		if reached {
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// Position returns 1 + the smallest number of bookings ahead of this one in
// any queue it waits in. ok is false when it does not wait.
func (m *Mirror) Position(bookingID string) (position int, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	w := m.waiters[bookingID]
	if w == nil {
		return 0, false
	}
	return m.position(w), true
}

// View calls fn with a consistent view of the mirror. fn must be quick.
func (m *Mirror) View(fn func(View)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(View{m})
}

// View reads a mirror under its lock.
type View struct{ m *Mirror }

// At is the moment of the index the view shows.
func (v View) At() Moment { return v.m.at }

// Position is Mirror.Position.
func (v View) Position(bookingID string) (int, bool) {
	w := v.m.waiters[bookingID]
	if w == nil {
		return 0, false
	}
	return v.m.position(w), true
}

// Waiter returns a waiting booking, or nil.
func (v View) Waiter(bookingID string) *Waiter { return v.m.waiters[bookingID] }

// Queue returns the waiting bookings of a resource or a type, the next to be
// served first. The slice is only valid inside View and must not be changed.
func (v View) Queue(id string) []*Waiter { return v.m.queues[id] }

func (m *Mirror) position(w *Waiter) int {
	ahead := -1
	for _, q := range w.waitsFor() {
		if n := rank(m.queues[q], w.Score); ahead < 0 || n < ahead {
			ahead = n
		}
	}
	return ahead + 1
}

// rank is how many stand before a score.
func rank(queue []*Waiter, score int64) int {
	return sort.Search(len(queue), func(i int) bool { return queue[i].Score >= score })
}

// receive takes a delta as it comes from Redis.
func (m *Mirror) receive(d *Delta) {
	m.telling.Lock()
	defer m.telling.Unlock()
	m.mu.Lock()
	if m.loading {
		if len(m.buffer) < maxBuffer {
			m.buffer = append(m.buffer, d)
		} else {
			m.again = true // too far behind: read it all once more
		}
		m.mu.Unlock()
		return
	}
	if d.Epoch == m.at.Epoch && d.Version <= m.at.Version {
		m.mu.Unlock()
		return
	}
	if d.Epoch != m.at.Epoch || d.Version != m.at.Version+1 {
		m.mu.Unlock()
		m.owner.load(m)
		return
	}
	m.mu.Unlock()
	m.follow(d)
}

// follow makes the next change and tells of it. The caller holds telling.
func (m *Mirror) follow(d *Delta) {
	m.mu.Lock()
	dirty := m.apply(d)
	m.mu.Unlock()
	m.owner.listener.Applied(m, d, dirty)
}

// maxBuffer bounds the deltas kept while the index is being read.
const maxBuffer = 4096

// apply makes one change. The caller holds the lock.
func (m *Mirror) apply(d *Delta) []Dirty {
	m.at = Moment{d.Epoch, d.Version}
	close(m.moved)
	m.moved = make(chan struct{})
	var dirty []Dirty
	old := m.waiters[d.BookingID]
	if old != nil && d.Waiting && old.Version == d.BookingVersion && old.Score == d.Score && slices.Equal(old.Queues, d.Queues) {
		return nil
	}
	if old != nil {
		delete(m.waiters, d.BookingID)
		for _, q := range old.Queues {
			queue := m.queues[q]
			i := rank(queue, old.Score)
			if queue = slices.Delete(queue, i, i+1); len(queue) == 0 {
				delete(m.queues, q)
			} else {
				m.queues[q] = queue
			}
			dirty = append(dirty, Dirty{q, old.Score})
		}
	}
	if d.Waiting {
		w := &Waiter{d.BookingID, d.BookingVersion, d.Ticket, d.TypeID, d.Score, d.Queues}
		m.waiters[d.BookingID] = w
		for _, q := range w.Queues {
			queue := m.queues[q]
			m.queues[q] = slices.Insert(queue, rank(queue, w.Score), w)
			dirty = append(dirty, Dirty{q, w.Score})
		}
	}
	return dirty
}

// ordered puts the contents of an index in the form of a mirror.
func (c *contents) ordered() (map[string]*Waiter, map[string][]*Waiter) {
	waiters := make(map[string]*Waiter, len(c.members))
	queues := make(map[string][]*Waiter, len(c.queues))
	for id, record := range c.members {
		ids := strings.Split(record.queues, ",")
		waiters[id] = &Waiter{id, record.version, record.ticket, record.typeID, c.queues[record.typeID][id], ids}
	}
	for q, set := range c.queues {
		queue := make([]*Waiter, 0, len(set))
		for id := range set {
			if w := waiters[id]; w != nil && slices.Contains(w.Queues, q) {
				queue = append(queue, w)
			}
		}
		slices.SortFunc(queue, func(a, b *Waiter) int { return int(a.Score - b.Score) })
		queues[q] = queue
	}
	return waiters, queues
}

// show replaces everything by what was read from the database, while the
// index can't be had. The mirror goes on waiting to be loaded.
func (m *Mirror) show(c *contents) {
	waiters, queues := c.ordered()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters, m.queues, m.at, m.fresh = waiters, queues, c.at, true
	close(m.moved)
	m.moved = make(chan struct{})
}

// install replaces everything by what was read. It returns the changes that
// arrived meanwhile and are still to be applied, and false when there is a gap
// between the two.
func (m *Mirror) install(c *contents) (later []*Delta, ok bool) {
	waiters, queues := c.ordered()
	m.mu.Lock()
	defer m.mu.Unlock()
	at := c.at
	for _, d := range m.buffer {
		if d.Epoch == at.Epoch && d.Version <= at.Version {
			continue
		}
		if d.Epoch != at.Epoch || d.Version != at.Version+1 {
			return nil, false
		}
		at.Version = d.Version
		later = append(later, d)
	}
	if m.again {
		return nil, false
	}
	m.waiters, m.queues, m.at = waiters, queues, c.at
	m.buffer, m.loading, m.fresh, m.behind = nil, false, true, 0
	close(m.moved)
	m.moved = make(chan struct{})
	return later, true
}

// suspect marks the mirror as not to be trusted. It returns true when it was.
func (m *Mirror) suspect() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.fresh
	if was {
		m.fresh, m.asOf = false, m.owner.now()
	}
	return was
}
