package realtime

import (
	"context"
	"maps"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"nowserving/booking/clock"
	"nowserving/booking/queue"
	"nowserving/models"
)

const (
	// debounce is the least rest after a pass over the changes that have come:
	// the first change after a quiet time is told at once, those of a burst are
	// gathered. While there is much to send, the rest is longer, in times of what
	// the pass took: soon after the first, so that a burst is sent once and not
	// twice, and from then on about as long as everything takes to be sent, for a
	// newer position only replaces an unsent one.
	debounce  = 3 * time.Millisecond
	firstRest = 2.0
	laterRest = 12.0
	// nearby is up to which position PositionTick holds nothing back.
	nearby = 20
	// displayPause is the least time between two states of a display.
	displayPause = 100 * time.Millisecond
	// mirrorPatience is how long a subscriber waits for the mirror to be loaded.
	mirrorPatience = 500 * time.Millisecond
	// maxInbox bounds the changes that wait; beyond it they are given up for a
	// look at the database, as after a lost link.
	maxInbox = 8192
	// maxStates is how many bookings the source is asked about at once.
	maxStates = 1000
)

// tenantHub holds the subscriptions of one organization on this node. It
// exists while there are any.
type tenantHub struct {
	hub     *Hub
	id      string
	mirror  *queue.Mirror // held until release
	release func()
	users   int // subscriptions; guarded by hub.mu

	inboxMu sync.Mutex
	inbox   []change
	working bool          // the goroutine that empties the inbox exists
	nudge   chan struct{} // wakes it while it waits for a display's time

	mu       sync.Mutex
	bookings map[string]*booking
	queues   map[string]*watchedQueue
	// Of the pass over the watched positions: its number, and room for what it
	// finds.
	pass   uint64
	places []lastPosition
	served []*conn
	// far says from which score on a queue has moved since positions that are
	// not nearby were told, at farTold.
	far      map[string]int64
	farTold  time.Time
	displays map[string]*display
	// calls are the bookings being served or called last, by id, while there
	// are displays and once the source was asked for them.
	calls      map[string]models.BookingEvent
	callsKnown bool
	// callsAsked are those being served, with their versions, when the source
	// was last asked.
	callsAsked map[string]int64
	// catalogue is what the source last gave.
	catalogue Catalogue
	// displaysDue is when displays whose state may have changed are next told;
	// zero when none has.
	displaysDue, displaysTold time.Time
	// What the source has to be asked about after a gap.
	unsure      map[string]struct{}
	callsUnsure bool
	asking      bool
}

// watchedQueue is a queue (of a resource, or of a type) that a client watches.
type watchedQueue struct {
	waiting  []*booking // watched bookings whose position depends on it, in its order
	consoles watchers
}

// watchers are the subscriptions to a booking, a queue or a display.
type watchers []*subscription

func (w *watchers) add(s *subscription) { *w = append(*w, s) }

func (w *watchers) remove(s *subscription) {
	if i := slices.Index(*w, s); i >= 0 {
		*w = slices.Delete(*w, i, i+1)
	}
}

// find returns where a score stands or would stand among the watched bookings.
func (q *watchedQueue) find(score int64) int {
	return sort.Search(len(q.waiting), func(i int) bool { return q.waiting[i].waiter.Score >= score })
}

func newTenantHub(h *Hub, id string) *tenantHub {
	return &tenantHub{
		hub: h, id: id,
		bookings: map[string]*booking{}, queues: map[string]*watchedQueue{}, displays: map[string]*display{},
		nudge: make(chan struct{}, 1), far: map[string]int64{},
		calls: map[string]models.BookingEvent{}, unsure: map[string]struct{}{},
	}
}

// subscriptions lists the subscriptions of the organization.
func (o *tenantHub) subscriptions() []*subscription {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []*subscription
	for _, b := range o.bookings {
		all = append(all, b.watchers...)
	}
	for _, d := range o.displays {
		all = append(all, d.watchers...)
	}
	for _, q := range o.queues {
		all = append(all, q.consoles...)
	}
	return all
}

// queue returns a watched queue. The caller holds the lock, and calls tidy
// when it has taken something out.
func (o *tenantHub) queue(id string) *watchedQueue {
	q := o.queues[id]
	if q == nil {
		q = &watchedQueue{}
		o.queues[id] = q
	}
	return q
}

func (o *tenantHub) tidy(queueID string) {
	if q := o.queues[queueID]; q != nil && len(q.waiting) == 0 && len(q.consoles) == 0 {
		delete(o.queues, queueID)
	}
}

// awaitMirror waits up to mirrorPatience until the mirror is fresh, so that later
// changes are received at once. If it is not, the state follows later.
func (o *tenantHub) awaitMirror(ctx context.Context) {
	if fresh, _ := o.mirror.Fresh(); fresh {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mirrorPatience)
	defer cancel()
	o.mirror.Await(ctx, queue.StreamPosition{})
}

// put hands a change to the organization's goroutine. It never blocks.
func (o *tenantHub) put(c change) {
	o.inboxMu.Lock()
	defer o.inboxMu.Unlock()
	if len(o.inbox) >= maxInbox {
		o.inbox = []change{{loaded: true}}
	}
	o.inbox = append(o.inbox, c)
	if !o.working {
		o.working = o.hub.spawn(o.work)
		return
	}
	select {
	case o.nudge <- struct{}{}:
	default:
	}
}

// work tells the subscribers of what is in the inbox until it is empty.
func (o *tenantHub) work() {
	for ratio := firstRest; ; ratio = laterRest {
		o.inboxMu.Lock()
		changes := o.inbox
		o.inbox = nil
		o.inboxMu.Unlock()

		began := time.Now()
		later := o.process(changes)
		if took := time.Since(began); !o.rest(max(debounce, took), time.Duration(float64(took)*ratio)) {
			return
		}

		o.inboxMu.Lock()
		idle := len(o.inbox) == 0
		done := idle && later <= 0
		o.working = !done
		o.inboxMu.Unlock()
		if done {
			return
		}
		if idle && !o.sleep(later-time.Since(began)) {
			return
		}
	}
}

// rest lets changes gather after a pass: for a time and, while there is much
// to send, up to another. It returns false when the hub ends.
func (o *tenantHub) rest(least, most time.Duration) bool {
	if !clock.Sleep(o.hub.ctx, least) {
		return false
	}
	for rested := least; rested < most && o.hub.writers.saturated(); rested += debounce {
		if !clock.Sleep(o.hub.ctx, debounce) {
			return false
		}
	}
	return true
}

// sleep waits for a time or the next change. It returns false when the hub ends.
func (o *tenantHub) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-o.nudge:
	case <-o.hub.ctx.Done():
		return false
	}
	return true
}

// process tells the subscribers of changes. It returns after what time there
// is more to tell without another change, 0 when there is nothing.
func (o *tenantHub) process(changes []change) time.Duration {
	catalogue := o.readCatalogue(changes)
	o.mu.Lock()
	defer o.mu.Unlock()
	b := newBatch()
	o.renew(catalogue, b)
	for i := range changes {
		o.apply(&changes[i], b)
	}
	now := time.Now()
	o.throttle(b, now)
	o.broadcastPositions(b)
	o.tellConsoles(b)
	if b.displays && o.displaysDue.IsZero() && len(o.displays) > 0 {
		o.displaysDue = o.displaysTold.Add(displayPause)
	}
	if !o.displaysDue.IsZero() && !now.Before(o.displaysDue) {
		o.displaysDue, o.displaysTold = time.Time{}, now
		o.tellDisplays()
	}
	o.askSource()
	later := time.Duration(0)
	if !o.displaysDue.IsZero() {
		later = min(o.displaysDue.Sub(now), displayPause)
	}
	if left := o.farTold.Add(o.hub.opts.PositionTick).Sub(now); len(o.far) > 0 && (later == 0 || left < later) {
		later = max(left, 1)
	}
	return later
}

// throttle keeps the moves of distant positions for when the tick is due. The
// first after a quiet time are told at once.
func (o *tenantHub) throttle(b *batch, now time.Time) {
	if o.hub.opts.PositionTick == 0 || b.everyone {
		clear(o.far)
		return
	}
	for id, score := range o.far {
		b.from[id] = min(score, valueOr(b.from, id, math.MaxInt64))
	}
	if len(b.from) == 0 {
		return
	}
	if now.Sub(o.farTold) >= o.hub.opts.PositionTick {
		o.farTold = now
		clear(o.far)
		return
	}
	b.nearby = true
	maps.Copy(o.far, b.from)
}
