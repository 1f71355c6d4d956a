package queue

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"
)

// Waiter is one waiting booking in a mirror. Its exported fields never change.
type Waiter struct {
	BookingID string
	// Version is that of the booking when it came to wait here.
	Version int64
	Ticket  string
	TypeID  string
	Score   int64
	// Queues are the resources it waits for and, last, its type.
	Queues []string

	group *group
	left  bool // it does not wait any more; guarded by the mirror's lock
}

// group is the waiting bookings that stand in the very same queues: one for
// each type, unless filters make more. It exists while there are any.
type group struct {
	state  *state
	name   string // its queues, joined by commas
	queues []string
	lists  []*rankedList // of the queues
	size   int
}

// state is who waits where.
type state struct {
	waiters map[string]*Waiter
	queues  map[string]*rankedList
	groups  map[string]*group // by their queues, joined by commas
	sum     Sum
}

func newState(waiting int) *state {
	return &state{make(map[string]*Waiter, waiting), map[string]*rankedList{}, map[string]*group{}, Sum{}}
}

// WaitsFor returns the queues that count for its position: those of its
// resources or, when no active resource serves it, that of its type.
func (w *Waiter) WaitsFor() []string { return w.Queues[:w.group.counting()] }

// weight is what a waiting booking adds to Sum.Weight.
func (w *Waiter) weight() int64 {
	_, seq := PlaceOf(w.Score)
	return seq * w.Version
}

// counting is how many of the queues count for a position.
func (g *group) counting() int { return max(1, len(g.queues)-1) }

// Dirty names a queue in which the waiters with Score or more may have moved.
type Dirty struct {
	Queue string
	Score int64
}

// Listener is called when mirrors change. The calls for one mirror come one after
// another, in version order, and must not block.
type Listener interface {
	// Applied follows each delta.
	Applied(m *Mirror, d *Delta, dirty []Dirty)
	// Loaded follows each load of the whole index: anything may have changed.
	Loaded(m *Mirror)
	// Stale says that the link to Redis is lost or behind.
	Stale(m *Mirror)
}

// Mirror is this node's copy of one organization's index: for each queue the waiting
// bookings in order. Reading it costs no network.
type Mirror struct {
	OrganizationID string

	owner *Mirrors
	// telling is held while a change is made and the listener told of it, so
	// that the listener hears of changes in their order.
	telling sync.Mutex
	mu      sync.RWMutex
	at      StreamPosition
	fresh   bool
	// asOf is when the mirror was last known to be right, unless it follows the
	// index.
	asOf time.Time
	*state
	// moved is closed and replaced whenever at or fresh changes.
	moved chan struct{}
	// buffer holds deltas that arrive while the index is being read.
	buffer  []*Delta
	loading bool
	again   bool // a load was asked for while one was running

	asked inquiry[StreamPosition] // where the index stands

	// Guarded by owner.mu.
	holders    int
	lastUsed   time.Time
	link       *subscriber   // nil while the shards are unknown
	subscribed chan struct{} // closed while changes are heard of
}

func newMirror(owner *Mirrors, organizationID string) *Mirror {
	return &Mirror{
		OrganizationID: organizationID, owner: owner,
		state: newState(0), moved: make(chan struct{}), asked: newInquiry[StreamPosition](currentTimeout), subscribed: make(chan struct{}),
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

// AsOf returns the last moment at which the mirror was known to be current. That is now
// while it is live: while it follows the index and Redis answers.
func (m *Mirror) AsOf() (t time.Time, live bool) {
	now, received := m.owner.now(), m.owner.receivedUntil(m)
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case !m.follows():
		return m.asOf, false
	case now.Sub(received) < pongTimeout:
		return now, true
	default: // silent, though not noticed yet
		return received, false
	}
}

// Await waits until the mirror is fresh and has reached a position of the index's
// stream. It returns false if ctx ends first.
func (m *Mirror) Await(ctx context.Context, at StreamPosition) bool {
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

// PositionFor returns the position that a booking would have in the mirror.
func (m *Mirror) PositionFor(e Entry) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	queues := e.Resources
	if len(queues) == 0 {
		queues = []string{e.TypeID}
	}
	ahead := -1
	for _, q := range queues {
		n := 0
		if l := m.queues[q]; l != nil {
			n = l.rank(e.Score)
		}
		if ahead < 0 || n < ahead {
			ahead = n
		}
	}
	return ahead + 1
}

// View calls fn with a consistent view of the mirror. fn must be quick.
func (m *Mirror) View(fn func(View)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(View{m})
}

// View reads a mirror under its lock.
type View struct{ mirror *Mirror }

// At returns the position of the index's stream that the view shows.
func (v View) At() StreamPosition { return v.mirror.at }

// Position is Mirror.Position.
func (v View) Position(bookingID string) (int, bool) {
	w := v.mirror.waiters[bookingID]
	if w == nil {
		return 0, false
	}
	return v.mirror.position(w), true
}

// PositionOf is Position of a waiter that this mirror has shown before. Calls in the
// order of a queue, with the same near, take constant time.
func (v View) PositionOf(w *Waiter, near *Cursor) (int, bool) {
	if w.group.state != v.mirror.state {
		return v.Position(w.BookingID) // the mirror was loaded anew since
	}
	if w.left {
		return 0, false
	}
	ahead := -1
	for i, l := range w.group.lists[:w.group.counting()] {
		if n := l.rankFrom(w.Score, near, i); ahead < 0 || n < ahead {
			ahead = n
		}
	}
	return ahead + 1, true
}

// Waiter returns a waiting booking, or nil.
func (v View) Waiter(bookingID string) *Waiter { return v.mirror.waiters[bookingID] }

// Len returns how many bookings wait in the queue of a resource or a type.
func (v View) Len(id string) int {
	if l := v.mirror.queues[id]; l != nil {
		return l.len()
	}
	return 0
}

// First returns the waiting bookings of a resource or a type that are served
// next, n at most.
func (v View) First(id string, n int) []*Waiter {
	if l := v.mirror.queues[id]; l != nil {
		return l.first(n)
	}
	return nil
}

// Count returns how many bookings wait in at least one of some queues.
func (v View) Count(among func(queue string) bool) int {
	n := 0
	for _, g := range v.mirror.groups {
		if slices.ContainsFunc(g.queues, among) {
			n += g.size
		}
	}
	return n
}

func (m *Mirror) position(w *Waiter) int {
	lines := w.group.lists[:w.group.counting()]
	ahead := lines[0].rank(w.Score)
	for _, l := range lines[1:] {
		ahead = min(ahead, l.rank(w.Score))
	}
	return ahead + 1
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
		m.move()
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
	m.at = StreamPosition{d.Epoch, d.Version}
	m.move()
	dirty := m.apply(d)
	m.mu.Unlock()
	m.owner.listener.Applied(m, d, dirty)
}

// maxBuffer bounds the deltas kept while the index is being read.
const maxBuffer = 4096

// move wakes those who wait for a change of the mirror. The caller holds the
// lock.
func (m *Mirror) move() {
	close(m.moved)
	m.moved = make(chan struct{})
}

// apply makes one change and returns what it moved.
func (s *state) apply(d *Delta) []Dirty {
	var dirty []Dirty
	old := s.waiters[d.BookingID]
	stays := old != nil && d.Waiting && old.Score == d.Score && slices.Equal(old.Queues, d.Queues)
	if stays && old.Version == d.BookingVersion {
		return nil
	}
	if old != nil {
		s.leave(old)
		for _, q := range old.Queues {
			dirty = append(dirty, Dirty{q, old.Score})
		}
	}
	if d.Waiting {
		w := s.enter(&Waiter{
			BookingID: d.BookingID, Version: d.BookingVersion, Ticket: d.Ticket, Score: d.Score,
		}, strings.Join(d.Queues, ","))
		for i, q := range w.Queues {
			w.group.lists[i].insert(w)
			dirty = append(dirty, Dirty{q, w.Score})
		}
	}
	if stays {
		return nil // a newer version in the same place moves no booking
	}
	return dirty
}

// enter adds a waiter that stands in queues, joined by commas, its type last;
// to put it into their lines is up to the caller.
func (s *state) enter(w *Waiter, queues string) *Waiter {
	g := s.groups[queues]
	if g == nil {
		g = &group{state: s, name: queues, queues: strings.Split(queues, ",")}
		for _, q := range g.queues {
			if s.queues[q] == nil {
				s.queues[q] = &rankedList{}
			}
			g.lists = append(g.lists, s.queues[q])
		}
		s.groups[queues] = g
	}
	g.size++
	w.group, w.Queues, w.TypeID = g, g.queues, g.queues[len(g.queues)-1]
	s.waiters[w.BookingID] = w
	s.sum.Waiting++
	s.sum.Weight += w.weight()
	return w
}

// leave takes out a waiter.
func (s *state) leave(w *Waiter) {
	w.left = true
	delete(s.waiters, w.BookingID)
	s.sum.Waiting--
	s.sum.Weight -= w.weight()
	if w.group.size--; w.group.size == 0 {
		delete(s.groups, w.group.name)
	}
	for i, l := range w.group.lists {
		// A line that is empty has no group any more that knows it.
		if l.remove(w.Score); l.len() == 0 {
			delete(s.queues, w.Queues[i])
		}
	}
}

// show replaces everything by what was read from the database, while the
// index can't be had. The mirror goes on waiting to be loaded.
func (m *Mirror) show(s *state, asOf time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.at, m.fresh = s, StreamPosition{Epoch: rand.Text(), Version: 1}, true
	m.asOf = asOf
	m.move()
}

// arrived waits until every change up to a moment has come in. It returns false
// when ctx ends first.
func (m *Mirror) arrived(ctx context.Context, from, to StreamPosition) bool {
	for {
		m.mu.RLock()
		here := from == to || slices.ContainsFunc(m.buffer, func(d *Delta) bool {
			return d.Epoch == to.Epoch && d.Version >= to.Version
		})
		moved := m.moved
		m.mu.RUnlock()
		if here {
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// install replaces everything by what was read from the index between two
// moments, and applies what has changed from the first to the second. It
// returns the later changes, which are still to be applied, and false when a
// change is missing.
func (m *Mirror) install(s *state, from, to StreamPosition) (later []*Delta, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.again {
		return nil, false
	}
	ofThis := func(d *Delta) bool { return d.Epoch == from.Epoch }
	// Those of an earlier life of the index come before those of this one.
	buffer := m.buffer[max(0, slices.IndexFunc(m.buffer, ofThis)):]
	at := from
	for _, d := range buffer {
		if ofThis(d) && d.Version <= from.Version {
			continue
		}
		if !ofThis(d) || d.Version != at.Version+1 {
			return nil, false
		}
		at.Version = d.Version
		if d.Version <= to.Version {
			s.apply(d)
		} else {
			later = append(later, d)
		}
	}
	if at.Version < to.Version {
		return nil, false
	}
	m.state, m.at = s, to
	m.buffer, m.loading, m.fresh = nil, false, true
	m.move()
	return later, true
}

// suspect marks the mirror as not to be trusted. It returns true when it was.
func (m *Mirror) suspect() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.fresh
	if m.follows() {
		m.asOf = m.owner.receivedUntil(m)
	}
	m.fresh = false
	return was
}

// follows reports whether the mirror shows the index, delta by delta, rather
// than what it or the database was once. The caller holds the lock.
func (m *Mirror) follows() bool { return m.fresh && !m.loading }
