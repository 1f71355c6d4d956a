package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"nowserving/booking/queue"
	"nowserving/models"
)

// maxEarly bounds the events that are kept for a subscription while its state is
// being read.
const maxEarly = 16

// booking is a booking with watchers on this node.
type booking struct {
	id       string
	watchers watchers
	// waiter is the booking's entry in the mirror, or nil if it does not wait. queues
	// list it.
	waiter *queue.Waiter
	pass   uint64 // that looked at it last
}

// lastPosition is the position of a watched booking in a pass.
type lastPosition struct {
	booking  *booking
	position int
}

func (o *tenantHub) addBooking(s *subscription) {
	w := o.bookings[s.id]
	if w == nil {
		w = &booking{id: s.id}
		o.bookings[s.id] = w
	}
	w.watchers.add(s)
}

func (o *tenantHub) removeBooking(s *subscription) {
	w := o.bookings[s.id]
	if w.watchers.remove(s); len(w.watchers) == 0 {
		o.locate(w, nil)
		delete(o.bookings, s.id)
	}
}

// locate lists a booking in the queues that it now waits in.
func (o *tenantHub) locate(w *booking, waiter *queue.Waiter) {
	if w.waiter == waiter {
		return
	}
	for _, id := range waitsFor(w.waiter) {
		q := o.queue(id)
		for i := q.find(w.waiter.Score); i < len(q.waiting); i++ {
			if q.waiting[i] == w {
				q.waiting = slices.Delete(q.waiting, i, i+1)
				break
			}
		}
		o.tidy(id)
	}
	w.waiter = waiter
	for _, id := range waitsFor(waiter) {
		q := o.queue(id)
		q.waiting = slices.Insert(q.waiting, q.find(waiter.Score), w)
	}
}

// waitsFor is Waiter.WaitsFor, or nothing for nil.
func waitsFor(w *queue.Waiter) []string {
	if w == nil {
		return nil
	}
	return w.WaitsFor()
}

// knownToWait reports whether every watcher was last sent that the booking waits.
func (w *booking) knownToWait() bool {
	for _, s := range w.watchers {
		if !s.waits {
			return false
		}
	}
	return true
}

// settleBooking makes the snapshot of a new watcher: the state that was read, with
// the mirror's position. Later positions and newer events follow it.
func (o *tenantHub) settleBooking(ctx context.Context, s *subscription, snapshot BookingSnapshot, reply replier) error {
	o.awaitMirror(ctx)
	fresh, _ := o.mirror.Fresh()
	_, live := o.mirror.AsOf()
	var at queue.StreamPosition
	o.mu.Lock()
	s.marked, s.own = !live, snapshot.Own
	s.typeID, s.resourceID = snapshot.TypeID, snapshot.ResourceID
	s.learn(snapshot.Version, snapshot.Stage)
	if s.waits {
		s.told = snapshot.Position
	}
	o.mirror.View(func(v queue.View) {
		at = v.At()
		if position, ok := v.Position(s.id); ok && fresh && s.waits {
			s.told = position
		}
		if fresh {
			o.locate(o.bookings[s.id], v.Waiter(s.id))
		}
	})
	told := s.told
	o.mu.Unlock()

	data, err := snapshot.Data(told)
	if err != nil {
		return err
	}
	answer, ok := reply(data, at)
	if !ok {
		return errors.New("the snapshot can't be encoded")
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	s.start(answer, told)
	s.conn.worth(s, snapshot.Minutes)
	for i := range s.early {
		o.tellOne(s, &s.early[i], newEncodedEvent(&s.early[i], o.catalogue.Resources))
	}
	s.early = nil
	b := &batch{moved: map[*booking]struct{}{o.bookings[s.id]: {}}}
	o.broadcastPositions(b)
	return nil
}

// tell publishes an event to the watchers of a booking, once to each.
func (o *tenantHub) tell(w *booking, e *models.BookingEvent) {
	t := newEncodedEvent(e, o.catalogue.Resources)
	for _, s := range w.watchers {
		switch {
		case s.ready:
			o.tellOne(s, e, t)
		case len(s.early) < maxEarly:
			s.early = append(s.early, *e)
		default:
			o.unsure[w.id] = struct{}{}
		}
	}
}

// tellOne publishes an event to a watcher, unless it is not newer than what the
// watcher knows. A watcher that saw the booking wait gets its assignment exactly
// once, however the event arrives.
func (o *tenantHub) tellOne(s *subscription, e *models.BookingEvent, t *encodedEvent) {
	if e.Version <= s.version {
		return
	}
	typ := e.Type
	switch {
	case typ == models.EventNewPending:
		typ = models.EventUpdated // news for those who serve; to the customer, it waits now
	case typ == models.EventConfirmed, typ == models.EventRejected:
		typ = models.EventUpdated // phones are told in these words; the status says it here
	case typ == models.EventAssigned && s.taken:
		typ = models.EventUpdated // told before: assigned once is assigned for good
	}
	// A watcher that missed the assignment gets it before anything later. An
	// appointment has a resource from the start.
	missed := !s.taken && taken(e.Stage) && typ != models.EventAssigned && e.StartsAt == nil
	s.learn(e.Version, e.Stage)
	s.resourceID = e.ResourceID
	if !s.waits {
		s.told = 0
		s.conn.move(s, 0, 0, 0)
	}
	if missed {
		o.publish(s, t, models.EventAssigned)
	}
	o.publish(s, t, typ)
}

func (o *tenantHub) publish(s *subscription, t *encodedEvent, typ models.EventType) {
	data, err := t.as(typ)
	if err != nil {
		o.hub.opts.Log.Error("encode an event", "error", err)
		return
	}
	s.conn.publish(s, data)
}

// taken reports whether a booking in this stage has been assigned.
func taken(stage models.Stage) bool {
	switch stage {
	case models.StageCalled, models.StageServing, models.StageDone, models.StageNoShow:
		return true
	default:
		return false
	}
}

// broadcastPositions computes the positions that may have changed, all at one version
// of the mirror, and publishes each that has to its watchers. o.mu must be held.
func (o *tenantHub) broadcastPositions(b *batch) {
	if fresh, _ := o.mirror.Fresh(); !fresh {
		return // the load that follows brings everyone up to date
	}
	asOf := int64(0)
	if t, live := o.mirror.AsOf(); !live {
		asOf = o.hub.opts.Now().Add(-time.Since(t)).UnixMilli()
	}
	o.computePositions(b)
	o.publishPositions(asOf)
	clear(o.places)
}

// computePositions fills o.places with the positions that may have changed.
func (o *tenantHub) computePositions(b *batch) {
	o.pass++
	o.places = o.places[:0]
	var near queue.Cursor
	last := math.MaxInt
	o.mirror.View(func(v queue.View) {
		look := func(w *booking) {
			if w.pass == o.pass {
				return
			}
			w.pass = o.pass
			if w.waiter == nil {
				return
			}
			if position, ok := v.PositionOf(w.waiter, &near); ok && position <= last {
				o.places = append(o.places, lastPosition{w, position})
			}
		}
		if b.everyone {
			for id, w := range o.bookings {
				o.locate(w, v.Waiter(id))
				look(w)
			}
		}
		for w := range b.moved {
			o.locate(w, v.Waiter(w.id))
			look(w)
		}
		if b.nearby { // of the bookings that moved because others did
			last = nearby
		}
		for id, score := range b.from {
			q := o.queues[id]
			if q == nil {
				continue
			}
			for _, w := range q.waiting[q.find(score):] { // those served next first
				look(w)
			}
		}
	})
}

// publishPositions publishes o.places to those watchers that were last sent another
// position. asOf is when the mirror was right, or 0 if it is live.
func (o *tenantHub) publishPositions(asOf int64) {
	served := o.served[:0]
	typeID, minutes := "", 0
	for _, p := range o.places {
		for _, s := range p.booking.watchers {
			// A position that was sent with its age is sent again once the mirror is
			// live.
			news := s.told != p.position || s.marked && asOf == 0
			if !s.ready || !s.waits || !news {
				continue
			}
			s.told, s.marked = p.position, asOf != 0
			if t := p.booking.waiter.TypeID; t != typeID { // most are of the same
				typeID, minutes = t, o.catalogue.Types[t].Minutes
			}
			if s.conn.move(s, p.position, minutes, asOf) {
				served = append(served, s.conn)
			}
		}
		if len(served) >= blockSize { // the first are sent while the last are computed
			o.hub.writers.add(served...)
			served = served[:0]
		}
	}
	o.hub.writers.add(served...)
	clear(served)
	o.served = served
}

// encodedEvent is an event that is encoded once for all its watchers.
type encodedEvent struct {
	event *models.BookingEvent
	name  string
	typ   models.EventType
	data  []byte
}

func newEncodedEvent(e *models.BookingEvent, names map[string]Resource) *encodedEvent {
	return &encodedEvent{event: e, name: names[e.ResourceID].Name}
}

// as encodes the event with a type.
func (t *encodedEvent) as(typ models.EventType) ([]byte, error) {
	if t.typ == typ {
		return t.data, nil
	}
	e := t.event
	var p any
	switch head := publication(typ); typ {
	case models.EventAssigned:
		p = bookingAssigned{head, e.BookingID, e.Status, e.ResourceID, t.name, e.Ticket}
	case models.EventCalled:
		p = bookingCalled{head, e.BookingID, e.ResourceID, t.name, e.Ticket, e.RecallCount}
	case models.EventExpired, models.EventCanceled:
		p = bookingClosed{head, e.BookingID, e.Status}
	default:
		p = bookingUpdated{Publication: head, BookingID: e.BookingID, Status: e.Status, Stage: e.Stage}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	t.typ, t.data = typ, data
	return data, nil
}
