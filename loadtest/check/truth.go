package check

import (
	"slices"
	"sync"
	"time"

	"nowserving/loadtest/client"
)

// Queue has the truth about the queue of one service: the waiting patients in the order of
// joining, and the time of each change. Changes are made one after another, each awaited, so
// the states are a definite sequence. Between the request and the response of a change, both
// the old and the new state are true.
//
// It is safe for concurrent use: a scenario changes it while the connections of its patients
// are checked against it.
type Queue struct {
	minutes int // minutes of the booking type, for estimatedWaitMinutes
	bound   time.Duration
	tally   *Tally

	mu      sync.Mutex
	joined  int        // patients that joined so far
	waiting []*Watcher // without held patients
}

// Departure is the way in which a patient stopped waiting.
type Departure string

// The departures.
const (
	notDeparted Departure = ""
	Assigned    Departure = "assigned"
	Canceled    Departure = "canceled"
)

// NewQueue returns an empty queue. bound is the time after which an update is late.
func NewQueue(minutes int, bound time.Duration, t *Tally) *Queue {
	return &Queue{minutes: minutes, bound: bound, tally: t}
}

// Join adds a patient to the end and checks the response of the server.
func (q *Queue) Join(c *Change, b client.Booking) *Watcher {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &Watcher{Queue: q, Booking: b.ID, ticket: b.Ticket, joinOrder: q.joined, known: -1}
	q.joined++
	q.waiting = append(q.waiting, w)
	w.history = []state{{change: c, position: len(q.waiting)}}

	if b.Status != "PENDING_ASSIGNMENT" || b.Stage != "WAITING" || b.Ticket == "" || b.TicketToken == "" {
		w.fault(Malformed, "the join response has status %q, stage %q, ticket %q, token given: %t", b.Status, b.Stage, b.Ticket, b.TicketToken != "")
	}
	if b.QueuePosition == nil {
		w.fault(Malformed, "the join response has no queuePosition")
		return w
	}
	q.tally.Checked.Add(1)
	if received := *b.QueuePosition; received != len(q.waiting) {
		w.fault(WrongPosition, "the join response has position %d, truth is %d", received, len(q.waiting))
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
	return w
}

// Leave records that a request that removes a patient for good is about to be sent.
func (q *Queue) Leave(w *Watcher, how Departure, resource string, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.begin(sent)
	w.departure, w.resource = how, resource
	q.remove(w, state{change: c})
	return c
}

// Hold records that a patient is about to be held. A held patient does not count in positions
// and keeps its place in the order.
func (q *Queue) Hold(w *Watcher, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.begin(sent)
	q.remove(w, state{change: c, held: true})
	return c
}

// Return records that a held patient is about to return to its place.
func (q *Queue) Return(w *Watcher, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.begin(sent)
	place := slices.IndexFunc(q.waiting, func(other *Watcher) bool { return other.joinOrder > w.joinOrder })
	if place < 0 {
		place = len(q.waiting)
	}
	q.waiting = slices.Insert(q.waiting, place, w)
	q.addPositions(c, place)
	return c
}

// CheckReturn checks the response of the server to a return.
func (q *Queue) CheckReturn(w *Watcher, b client.Booking) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.Stage != "WAITING" || b.QueuePosition == nil {
		w.fault(Malformed, "the return response has stage %q, position given: %t", b.Stage, b.QueuePosition != nil)
		return
	}
	q.tally.Checked.Add(1)
	if truth := w.history[len(w.history)-1].position; *b.QueuePosition != truth {
		w.fault(WrongPosition, "the return response has position %d, truth is %d", *b.QueuePosition, truth)
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
}

// begin starts a change and keeps what Undo needs.
func (q *Queue) begin(sent time.Time) *Change {
	return &Change{Sent: sent, before: slices.Clone(q.waiting)}
}

// remove removes a patient and moves those behind it up.
func (q *Queue) remove(w *Watcher, after state) {
	w.history = append(w.history, after)
	place := slices.Index(q.waiting, w)
	if place < 0 {
		return // a held patient is not in the list
	}
	q.waiting = slices.Delete(q.waiting, place, place+1)
	q.addPositions(after.change, place)
}

// addPositions records the new positions from an index on.
func (q *Queue) addPositions(c *Change, place int) {
	for i, behind := range q.waiting[place:] {
		behind.history = append(behind.history, state{change: c, position: place + i + 1})
	}
}

// Confirm records that the server made a change.
func (q *Queue) Confirm(c *Change, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.Answered, c.before = at, nil
}

// Undo reverts a change that the server refused.
func (q *Queue) Undo(w *Watcher, c *Change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.departure, w.resource = notDeparted, ""
	touched := append(slices.Clone(c.before), w)
	q.waiting, c.before = c.before, nil
	for _, x := range touched {
		last := len(x.history) - 1
		if x.history[last].change != c {
			continue
		}
		x.history = x.history[:last]
		if x.known == last {
			x.known = last - 1
			x.fault(WrongPosition, "received the outcome of a change that the server refused")
		}
	}
}

// EndVisit records that the end of a visit is about to be requested. By then the client must
// have received every recall.
func (q *Queue) EndVisit(w *Watcher, outcome string, sent time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.end, w.outcome = &Change{Sent: sent}, outcome
	received := 0
	for i, c := range w.recalls {
		if !c.Answered.IsZero() && !w.connectedSince.IsZero() && sent.Sub(Later(c.Answered, w.connectedSince)) > q.bound {
			received = i + 1
		}
	}
	if w.recalled < received {
		w.fault(Missed, "received %d recalls, truth is %d", w.recalled, received)
	}
}

// Recall records that a patient is about to be called again.
func (q *Queue) Recall(w *Watcher, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &Change{Sent: sent}
	w.recalls = append(w.recalls, c)
	return c
}

// UndoRecall reverts a recall that the server refused.
func (q *Queue) UndoRecall(w *Watcher) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.recalls = w.recalls[:len(w.recalls)-1]
	if w.recalled > len(w.recalls) {
		w.fault(WrongNews, "received a recall that the server refused")
	}
}

// Change has the times of one request and its response. Between the two, both the old and the
// new state are true.
type Change struct {
	Sent     time.Time
	Answered time.Time  // zero while in flight
	before   []*Watcher // the patients that waited before it, for Undo
}
