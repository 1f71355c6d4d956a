package realtime

import (
	"context"
	"math/rand/v2"
	"time"

	"nowserving/booking/clock"
	"nowserving/models"
)

// askSource starts to ask the source about bookings and calls that are unsure. o.mu
// must be held.
func (o *tenantHub) askSource() {
	if !o.asking && (len(o.unsure) > 0 || o.callsUnsure) {
		o.asking = o.hub.spawn(o.ask)
	}
}

// ask asks the source about bookings and calls until none is unsure. The answers come
// back as changes.
func (o *tenantHub) ask() {
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
			if !clock.Sleep(o.hub.ctx, pause/2+rand.N(pause)) { //nolint:gosec // no secret
				return
			}
			o.hub.opts.Log.Warn("ask what became of bookings", "organization", o.id, "error", err)
			pause = min(2*pause, 5*time.Second)
		}
	}
}

// questions removes and returns the next bookings to ask about. If there are none,
// asking ends.
func (o *tenantHub) questions() (ids []string, calls bool) {
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

func (o *tenantHub) askAbout(ids []string, calls bool) error {
	ctx, cancel := context.WithTimeout(o.hub.ctx, o.hub.opts.SourceTimeout)
	defer cancel()
	if calls {
		events, err := o.hub.opts.Source.Calls(ctx, o.id)
		if err != nil {
			return err
		}
		o.put(change{calls: append([]models.BookingEvent{}, events...)})
	}
	if len(ids) == 0 {
		return nil
	}
	states, err := o.hub.opts.Source.States(ctx, o.id, ids)
	if err != nil {
		return err
	}
	for i := range states {
		o.put(change{state: &states[i]})
	}
	return nil
}
