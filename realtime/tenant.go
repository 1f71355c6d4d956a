package realtime

import (
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"

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

// change is something to tell the subscribers of an organization. One of its
// fields is set, or delta and dirty.
type change struct {
	delta *queue.Delta
	dirty []queue.Dirty
	// loaded: the mirror was loaded anew.
	loaded bool
	// state is what the source says became of a booking.
	state *models.BookingEvent
	// calls are what the source says of those being served.
	calls []models.BookingEvent
}

// organization holds the subscriptions of one organization on this node. It
// exists while there are any.
type organization struct {
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
	places []place
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

// watchedQueue is a queue (of a resource, or of a type) that somebody watches.
type watchedQueue struct {
	waiting  []*booking // watched bookings whose position depends on it, in its order
	consoles map[*subscription]struct{}
}

// find returns where a score stands or would stand among the watched bookings.
func (q *watchedQueue) find(score int64) int {
	return sort.Search(len(q.waiting), func(i int) bool { return q.waiting[i].waiter.Score >= score })
}

func newOrganization(h *Hub, id string) *organization {
	return &organization{
		hub: h, id: id,
		bookings: map[string]*booking{}, queues: map[string]*watchedQueue{}, displays: map[string]*display{},
		nudge: make(chan struct{}, 1), far: map[string]int64{},
		calls: map[string]models.BookingEvent{}, unsure: map[string]struct{}{},
	}
}

// watchers lists the subscriptions.
func (o *organization) watchers() []*subscription {
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
		all = slices.AppendSeq(all, maps.Keys(q.consoles))
	}
	return all
}

// queue returns a watched queue. The caller holds the lock, and calls tidy
// when it has taken something out.
func (o *organization) queue(id string) *watchedQueue {
	q := o.queues[id]
	if q == nil {
		q = &watchedQueue{consoles: map[*subscription]struct{}{}}
		o.queues[id] = q
	}
	return q
}

func (o *organization) tidy(queueID string) {
	if q := o.queues[queueID]; q != nil && len(q.waiting) == 0 && len(q.consoles) == 0 {
		delete(o.queues, queueID)
	}
}

// awaitMirror waits a little until the mirror is fresh, so that what happens
// from now on is heard as it happens. When it fails, the state follows later.
func (o *organization) awaitMirror(ctx context.Context) {
	if fresh, _ := o.mirror.Fresh(); fresh {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mirrorPatience)
	defer cancel()
	o.mirror.Await(ctx, queue.Moment{})
}

// put hands a change to the organization's goroutine. It never blocks.
func (o *organization) put(c change) {
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
func (o *organization) work() {
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
func (o *organization) rest(least, most time.Duration) bool {
	if !wait(o.hub.ctx, least) {
		return false
	}
	for rested := least; rested < most && o.hub.sending.behind(); rested += debounce {
		if !wait(o.hub.ctx, debounce) {
			return false
		}
	}
	return true
}

// sleep waits for a time or the next change. It returns false when the hub ends.
func (o *organization) sleep(d time.Duration) bool {
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
func (o *organization) process(changes []change) time.Duration {
	catalogue := o.readCatalogue(changes)
	o.mu.Lock()
	defer o.mu.Unlock()
	b := newBatch()
	o.renew(catalogue, b)
	for i := range changes {
		o.take(&changes[i], b)
	}
	now := time.Now()
	o.holdBack(b, now)
	o.tellPositions(b)
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
	if left := o.farTold.Add(o.hub.o.PositionTick).Sub(now); len(o.far) > 0 && (later == 0 || left < later) {
		later = max(left, 1)
	}
	return later
}

// holdBack keeps the moves of distant positions for when the tick is due. The
// first after a quiet time are told at once.
func (o *organization) holdBack(b *batch, now time.Time) {
	if o.hub.o.PositionTick == 0 || b.everyone {
		clear(o.far)
		return
	}
	for id, score := range o.far {
		b.from[id] = min(score, valueOr(b.from, id, math.MaxInt64))
	}
	if len(b.from) == 0 {
		return
	}
	if now.Sub(o.farTold) >= o.hub.o.PositionTick {
		o.farTold = now
		clear(o.far)
		return
	}
	b.nearby = true
	maps.Copy(o.far, b.from)
}

// batch is what a number of changes adds up to.
type batch struct {
	// from says from which score on a queue has moved.
	from map[string]int64
	// moved are bookings that changed themselves; everyone says that all did.
	moved    map[*booking]struct{}
	everyone bool
	// nearby: of the others, only those near the head are told yet.
	nearby bool
	// queues are those whose consoles are told, with what happened last.
	queues   map[string]*models.BookingEvent
	displays bool
}

func newBatch() *batch {
	return &batch{from: map[string]int64{}, moved: map[*booking]struct{}{}, queues: map[string]*models.BookingEvent{}}
}

// take applies one change. The caller holds the lock.
func (o *organization) take(c *change, b *batch) {
	switch {
	case c.delta != nil:
		o.takeDelta(c.delta, c.dirty, b)
	case c.loaded:
		o.takeLoad(b)
	case c.state != nil:
		if w := o.bookings[c.state.BookingID]; w != nil {
			o.tell(w, c.state)
			b.moved[w] = struct{}{}
		}
	case c.calls != nil:
		o.recallCalls(c.calls)
		b.displays = true
	}
}

func (o *organization) takeDelta(d *queue.Delta, dirty []queue.Dirty, b *batch) {
	if w := o.bookings[d.BookingID]; w != nil {
		b.moved[w] = struct{}{}
		if d.Event != nil {
			o.tell(w, d.Event)
		} else {
			o.unsure[w.id] = struct{}{} // a repair: it does not say what happened
		}
	}
	for _, moved := range dirty {
		b.from[moved.Queue] = min(moved.Score, valueOr(b.from, moved.Queue, math.MaxInt64))
		b.queues[moved.Queue] = d.Event
	}
	for _, id := range d.Queues {
		b.queues[id] = d.Event
	}
	b.displays = b.displays || len(dirty) > 0
	if d.Event == nil {
		return
	}
	if d.Event.ResourceID != "" {
		b.queues[d.Event.ResourceID] = d.Event
	}
	if len(dirty) == 0 && !d.Waiting && (leftUnserved(d.Event) || isCatalogueChange(d.Event)) {
		// It was on hold, so no queue of ours says whose consoles list it; or they
		// show names that have changed.
		for id, q := range o.queues {
			if len(q.consoles) > 0 {
				b.queues[id] = d.Event
			}
		}
	}
	switch {
	case d.Event.Type == models.EventNewPending && d.Waiting:
		o.tellJoin(d)
	case d.Event.Stage == models.StageDone:
		o.tellAvailable(d.Event.ResourceID)
	}
	switch {
	case len(o.displays) == 0:
	case wasCalled(d.Event):
		o.mergeCall(*d.Event)
		b.displays = true
	default:
		if e, known := o.calls[d.Event.BookingID]; known && e.Version < d.Event.Version { // a call that was taken back
			delete(o.calls, d.Event.BookingID)
			b.displays = true
		}
	}
}

// leftUnserved reports whether the event ended a booking's wait.
func leftUnserved(e *models.BookingEvent) bool {
	switch e.Type {
	case models.EventAssigned, models.EventCanceled, models.EventExpired:
		return true
	default:
		return false
	}
}

// takeLoad follows a load of the mirror: anything may have changed unheard.
func (o *organization) takeLoad(b *batch) {
	b.everyone, b.displays = true, true
	for id, q := range o.queues {
		if len(q.consoles) > 0 {
			b.queues[id] = nil
		}
	}
	o.callsUnsure = len(o.displays) > 0
	o.mirror.View(func(v queue.View) {
		for id, w := range o.bookings {
			if v.Waiter(id) == nil || !w.knownToWait() {
				o.unsure[id] = struct{}{}
			}
		}
	})
}

// askSource starts to ask about what is unsure. The caller holds the lock.
func (o *organization) askSource() {
	if !o.asking && (len(o.unsure) > 0 || o.callsUnsure) {
		o.asking = o.hub.spawn(o.ask)
	}
}

// ask asks the source about what is unsure until nothing is. The answers come
// back as changes.
func (o *organization) ask() {
	pause := 50 * time.Millisecond
	for {
		ids, calls := o.questions()
		if len(ids) == 0 && !calls {
			return
		}
		if err := o.askAbout(ids, calls); err != nil {
			o.mu.Lock()
			for _, id := range ids {
				o.unsure[id] = struct{}{}
			}
			o.callsUnsure = o.callsUnsure || calls
			o.mu.Unlock()
			if !wait(o.hub.ctx, pause/2+rand.N(pause)) { //nolint:gosec // no secret
				return
			}
			o.hub.o.Log.Warn("ask what became of bookings", "organization", o.id, "error", err)
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// questions takes out what to ask next; asking ends when there is nothing.
func (o *organization) questions() (ids []string, calls bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.unsure {
		if len(ids) == maxStates {
			break
		}
		delete(o.unsure, id)
		if o.bookings[id] != nil {
			ids = append(ids, id)
		}
	}
	calls = o.callsUnsure && len(o.displays) > 0
	o.callsUnsure = false
	if calls {
		o.callsAsked = o.active()
	}
	o.asking = len(ids) > 0 || calls
	return ids, calls
}

func (o *organization) askAbout(ids []string, calls bool) error {
	ctx, cancel := context.WithTimeout(o.hub.ctx, o.hub.o.SourceTimeout)
	defer cancel()
	if calls {
		events, err := o.hub.o.Source.Calls(ctx, o.id)
		if err != nil {
			return err
		}
		o.put(change{calls: append([]models.BookingEvent{}, events...)})
	}
	if len(ids) == 0 {
		return nil
	}
	states, err := o.hub.o.Source.States(ctx, o.id, ids)
	if err != nil {
		return err
	}
	for i := range states {
		o.put(change{state: &states[i]})
	}
	return nil
}

func valueOr(m map[string]int64, key string, otherwise int64) int64 {
	if v, ok := m[key]; ok {
		return v
	}
	return otherwise
}

// wait waits for a time. It returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
