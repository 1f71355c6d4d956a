package realtime

import (
	"context"
	"encoding/json"

	"nowserving/booking/queue"
	"nowserving/models"
)

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// settleQueue makes the snapshot of a console from the waiting list that was read.
// Changes since then follow in one message.
func (o *tenantHub) settleQueue(ctx context.Context, s *subscription, data json.RawMessage, reply replier) {
	o.awaitMirror(ctx)
	var at queue.StreamPosition
	o.mirror.View(func(v queue.View) { at = v.At() })
	answer, ok := reply(data, at)
	if !ok {
		return // the connection is closing
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.start(answer, 0)
	if s.stirred {
		o.renewConsole(s, o.queueUpdated(s.id, nil))
	}
}

// tellJoin publishes a new booking to the consoles of its queues.
func (o *tenantHub) tellJoin(d *queue.Delta) {
	for _, id := range d.Queues {
		o.tellPending(id, d.BookingID)
	}
}

// tellAvailable publishes the next waiting booking to the consoles of a resource that
// has just ended a visit ("End Booking" of the document).
func (o *tenantHub) tellAvailable(resourceID string) {
	var next string
	o.mirror.View(func(v queue.View) {
		for _, w := range v.First(resourceID, 1) {
			next = w.BookingID
		}
	})
	if next != "" {
		o.tellPending(resourceID, next)
	}
}

func (o *tenantHub) tellPending(resourceID, bookingID string) {
	q := o.queues[resourceID]
	if q == nil || len(q.consoles) == 0 {
		return
	}
	data := o.encode(bookingPending{publication(models.EventNewPending), bookingID, resourceID})
	for _, s := range q.consoles {
		if s.ready && data != nil {
			s.conn.publish(s, data)
		}
	}
}

// tellConsoles publishes the batch's queues to their consoles. o.mu must be held.
func (o *tenantHub) tellConsoles(b *batch) {
	for id, event := range b.queues {
		q := o.queues[id]
		if q == nil || len(q.consoles) == 0 {
			continue
		}
		data := o.queueUpdated(id, event)
		for _, s := range q.consoles {
			if s.ready {
				o.renewConsole(s, data)
			} else {
				s.stirred = true
			}
		}
	}
}

func (o *tenantHub) renewConsole(s *subscription, data []byte) {
	if data != nil {
		s.conn.renew(s, data)
	}
}

// queueUpdated is the publication about a queue. Without a last event, that is not
// known.
func (o *tenantHub) queueUpdated(resourceID string, event *models.BookingEvent) []byte {
	p := queueUpdated{Publication: publication(models.EventQueueUpdated), ResourceID: resourceID, At: o.now()}
	o.mirror.View(func(v queue.View) { p.Waiting = v.Len(resourceID) })
	if event != nil {
		p.BookingID, p.Ticket, p.Stage = event.BookingID, event.Ticket, event.Stage
	}
	return o.encode(p)
}

func (o *tenantHub) now() string { return o.hub.opts.Now().UTC().Format(timeFormat) }

// encode makes the data of a publication, or nil after an error, which it logs.
func (o *tenantHub) encode(p any) []byte {
	data, err := json.Marshal(p)
	if err != nil {
		o.hub.opts.Log.Error("encode a publication", "error", err)
		return nil
	}
	return data
}
