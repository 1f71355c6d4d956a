package realtime

import (
	"math"

	"nowserving/booking/queue"
	"nowserving/models"
)

// change is a change that the subscribers of an organization may have to be sent. One
// of its fields is set, or delta and dirty.
type change struct {
	delta *queue.Delta
	dirty []queue.Dirty
	// loaded reports that the mirror was reloaded.
	loaded bool
	// state is the present state of a booking, from the source.
	state *models.BookingEvent
	// calls are the calls of the organization, from the source.
	calls []models.BookingEvent
}

// batch is the sum of several changes.
type batch struct {
	// from is the score from which on each queue has moved.
	from map[string]int64
	// moved are the bookings that have changed. everyone means all of them.
	moved    map[*booking]struct{}
	everyone bool
	// nearby: of the other bookings, only those near the head are sent their
	// positions yet.
	nearby bool
	// queues are those whose consoles get an update, with the last event.
	queues   map[string]*models.BookingEvent
	displays bool
}

func newBatch() *batch {
	return &batch{from: map[string]int64{}, moved: map[*booking]struct{}{}, queues: map[string]*models.BookingEvent{}}
}

// apply applies one change. o.mu must be held.
func (o *tenantHub) apply(c *change, b *batch) {
	switch {
	case c.delta != nil:
		o.applyDelta(c.delta, c.dirty, b)
	case c.loaded:
		o.applyLoad(b)
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

func (o *tenantHub) applyDelta(d *queue.Delta, dirty []queue.Dirty, b *batch) {
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
		// The booking was on hold, so no queue tells which consoles list it; or the
		// consoles show names that have changed.
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

// applyLoad handles a load of the mirror: anything may have changed.
func (o *tenantHub) applyLoad(b *batch) {
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

func valueOr(m map[string]int64, key string, otherwise int64) int64 {
	if v, ok := m[key]; ok {
		return v
	}
	return otherwise
}
