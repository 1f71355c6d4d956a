package realtime

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"nowserving/booking/queue"
	"nowserving/models"
)

const (
	maxCalls  = 50 // remembered of an organization
	maxCalled = 10 // listed as called last
	maxNext   = 10 // tickets announced as next
)

// display is a display with watchers on this node.
type display struct {
	id       string
	watchers watchers
	// resources are the ids of those it shows. Nil means all.
	resources map[string]struct{}
	state     []byte // told last
}

func (d *display) shows(resourceID string) bool {
	_, ok := d.resources[resourceID]
	return ok || d.resources == nil
}

func (o *tenantHub) addDisplay(s *subscription) {
	d := o.displays[s.id]
	if d == nil {
		d = &display{id: s.id}
		o.displays[s.id] = d
	}
	d.watchers.add(s)
}

func (o *tenantHub) removeDisplay(s *subscription) {
	d := o.displays[s.id]
	if d.watchers.remove(s); len(d.watchers) == 0 {
		delete(o.displays, s.id)
	}
	if len(o.displays) == 0 {
		clear(o.calls)
		o.callsKnown, o.displaysDue = false, time.Time{}
	}
}

// settleDisplay makes the snapshot of a display.
func (o *tenantHub) settleDisplay(ctx context.Context, s *subscription, resourceIDs []string, reply replier) error {
	catalogue := o.readCatalogue(nil)
	o.awaitMirror(ctx)
	o.mu.Lock()
	known := o.callsKnown
	o.mu.Unlock()
	var calls []models.BookingEvent
	if !known {
		// Events are merged since the display was registered, so none is lost.
		var err error
		if calls, err = o.hub.opts.Source.Calls(ctx, o.id); err != nil {
			return fmt.Errorf("read the last calls: %w", err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	b := newBatch()
	o.renew(catalogue, b)
	o.broadcastPositions(b)
	if b.displays { // the others show names that have changed
		o.displaysDue = time.Now()
		o.put(change{})
	}
	o.mergeCalls(calls)
	o.callsKnown = true
	d := o.displays[s.id]
	d.resources = nil
	for _, id := range resourceIDs {
		if d.resources == nil {
			d.resources = make(map[string]struct{}, len(resourceIDs))
		}
		d.resources[id] = struct{}{}
	}
	state, at, err := o.screen(d)
	if err != nil {
		return err
	}
	if d.state == nil { // else the others may have yet to be told
		d.state = state
	}
	answer, ok := reply(o.withTime(`{"type":"`+string(models.EventSnapshot)+`",`, state), at)
	if !ok {
		return errors.New("the snapshot can't be encoded")
	}
	s.start(answer, 0)
	return nil
}

// withTime adds the type and the time to an encoded state.
func (o *tenantHub) withTime(head string, state []byte) []byte {
	data := append([]byte(head), state[1:len(state)-1]...)
	return append(data, `,"at":"`+o.now()+`"}`...)
}

// tellDisplays publishes the new state of the displays. o.mu must be held.
func (o *tenantHub) tellDisplays() {
	for _, d := range o.displays {
		state, _, err := o.screen(d)
		if err != nil {
			o.hub.opts.Log.Error("encode the state of a display", "display", d.id, "error", err)
			continue
		}
		if bytes.Equal(state, d.state) {
			continue
		}
		d.state = state
		data := o.withTime(`{"via":"`+models.Via+`","type":"`+string(models.EventDisplayUpdated)+`",`, state)
		for _, s := range d.watchers {
			if s.ready {
				s.conn.renew(s, data)
			}
		}
	}
}

// screen encodes the state of a display, without its type and time.
func (o *tenantHub) screen(d *display) ([]byte, queue.StreamPosition, error) {
	c := Screen{NowServing: []call{}, LastCalled: []call{}, Next: []string{}}
	for _, e := range o.newestCalls() {
		if !d.shows(e.ResourceID) {
			continue
		}
		if active(&e) {
			c.NowServing = append(c.NowServing, o.call(&e))
		}
		if len(c.LastCalled) < maxCalled {
			c.LastCalled = append(c.LastCalled, o.call(&e))
		}
	}
	var at queue.StreamPosition
	o.mirror.View(func(v queue.View) {
		at = v.At()
		c.Next = o.next(d, v)
		c.Waiting = v.Count(func(id string) bool { _, known := o.catalogue.Resources[id]; return known && d.shows(id) })
	})
	data, err := json.Marshal(c)
	return data, at, err
}

// next returns the next tickets of a display's resources.
func (o *tenantHub) next(d *display, v queue.View) []string {
	var first []*queue.Waiter
	for id := range o.catalogue.Resources {
		if d.shows(id) {
			first = append(first, v.First(id, maxNext)...)
		}
	}
	slices.SortFunc(first, func(a, b *queue.Waiter) int { return cmp.Compare(a.Score, b.Score) })
	first = slices.Compact(first) // a booking may wait at several of them
	tickets := []string{}
	for _, w := range first[:min(maxNext, len(first))] {
		tickets = append(tickets, w.Ticket)
	}
	return tickets
}

// active reports whether a visit is being called or served.
func active(e *models.BookingEvent) bool {
	return e.Stage == models.StageCalled || e.Stage == models.StageServing
}

// wasCalled reports whether a resource has called the booking.
func wasCalled(e *models.BookingEvent) bool { return e.CalledAt != nil && e.ResourceID != "" }

// newestCalls lists the calls, the newest first.
func (o *tenantHub) newestCalls() []models.BookingEvent {
	return slices.SortedFunc(maps.Values(o.calls), func(a, b models.BookingEvent) int {
		return cmp.Or(b.CalledAt.Compare(*a.CalledAt), cmp.Compare(a.BookingID, b.BookingID))
	})
}

func (o *tenantHub) call(e *models.BookingEvent) call {
	r := o.catalogue.Resources[e.ResourceID]
	return call{
		Ticket: e.Ticket, ResourceID: e.ResourceID, ResourceName: r.Name, Translations: r.Translations,
		CalledAt: e.CalledAt.UTC().Format(timeFormat), Stage: e.Stage, RecallCount: e.RecallCount,
	}
}

// mergeCalls merges the calls that the source returned.
func (o *tenantHub) mergeCalls(events []models.BookingEvent) {
	events = slices.Clone(events)
	events = slices.DeleteFunc(events, func(e models.BookingEvent) bool { return !wasCalled(&e) })
	slices.SortStableFunc(events, func(a, b models.BookingEvent) int { return a.CalledAt.Compare(*b.CalledAt) })
	for _, e := range events {
		o.mergeCall(e)
	}
}

// recallCalls is mergeCalls after a gap: a visit that was under way when the source
// was asked, and is not in its answer, has ended.
func (o *tenantHub) recallCalls(events []models.BookingEvent) {
	for i := range events {
		delete(o.callsAsked, events[i].BookingID)
	}
	for id, version := range o.callsAsked {
		if o.calls[id].Version == version {
			delete(o.calls, id)
		}
	}
	o.callsAsked = nil
	o.mergeCalls(events)
}

// active returns the versions of the calls being served.
func (o *tenantHub) active() map[string]int64 {
	versions := map[string]int64{}
	for id, e := range o.calls {
		if active(&e) {
			versions[id] = e.Version
		}
	}
	return versions
}

// mergeCall stores the newest state of a call, and publishes a call or recall that is
// new.
func (o *tenantHub) mergeCall(e models.BookingEvent) {
	old, known := o.calls[e.BookingID]
	if known && e.Version <= old.Version {
		return
	}
	o.calls[e.BookingID] = e
	o.forgetCalls()
	again := known && !e.CalledAt.After(*old.CalledAt)
	if !o.callsKnown || e.Stage != models.StageCalled || again {
		return
	}
	data := o.encode(nowServing{publication(models.EventNowServing), o.call(&e)})
	for _, d := range o.displays {
		if data == nil || !d.shows(e.ResourceID) {
			continue
		}
		for _, s := range d.watchers {
			if s.ready {
				s.conn.publish(s, data)
			}
		}
	}
}

// forgetCalls keeps the calls bounded: those being served, then the newest.
func (o *tenantHub) forgetCalls() {
	if len(o.calls) <= 2*maxCalls {
		return
	}
	newest := o.newestCalls()
	slices.SortStableFunc(newest, func(a, b models.BookingEvent) int {
		switch {
		case active(&a) == active(&b):
			return 0
		case active(&a):
			return -1
		default:
			return 1
		}
	})
	for _, e := range newest[maxCalls:] {
		if !active(&e) { // a display shows every visit under way
			delete(o.calls, e.BookingID)
		}
	}
}
