package check

import (
	"slices"
	"sync"
	"time"

	"nowserving/loadtest/client"
)

// Queue is the truth of one service: who waits, in the order they joined, and
// when each change happened. Changes of one line are made one after another,
// each awaited, so its states are a definite sequence. From the moment a change
// is sent until it is answered, both the old and the new state are true.
//
// It is safe for concurrent use: the scenario changes it while the connections
// of its patients are checked against it.
type Queue struct {
	minutes int // of the type, for estimatedWaitMinutes
	bound   time.Duration
	tally   *Tally

	mu      sync.Mutex
	joined  int        // so far
	waiting []*Watcher // without those who are held
}

// Departure is how a patient's wait ended.
type Departure string

const (
	notDeparted Departure = ""
	Assigned    Departure = "assigned"
	Canceled    Departure = "canceled"
)

func NewQueue(minutes int, bound time.Duration, t *Tally) *Queue {
	return &Queue{minutes: minutes, bound: bound, tally: t}
}

// Join appends a patient and checks what the server answered.
func (q *Queue) Join(c *Change, b client.Booking) *Watcher {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &Watcher{Queue: q, Booking: b.ID, ticket: b.Ticket, joinOrder: q.joined, known: -1}
	q.joined++
	q.waiting = append(q.waiting, w)
	w.history = []state{{change: c, position: len(q.waiting)}}

	if b.Status != "PENDING_ASSIGNMENT" || b.Stage != "WAITING" || b.Ticket == "" || b.TicketToken == "" {
		w.fault(Malformed, "join answered status %q, stage %q, ticket %q, token given: %t", b.Status, b.Stage, b.Ticket, b.TicketToken != "")
	}
	if b.QueuePosition == nil {
		w.fault(Malformed, "join answered no queuePosition")
		return w
	}
	q.tally.Checked.Add(1)
	if got := *b.QueuePosition; got != len(q.waiting) {
		w.fault(WrongPosition, "join answered position %d, truth is %d", got, len(q.waiting))
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
	return w
}

// Leave says that a change which takes a patient out of the line for good is
// about to be sent.
func (q *Queue) Leave(w *Watcher, how Departure, resource string, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.begin(sent)
	w.departure, w.resource = how, resource
	q.remove(w, state{change: c})
	return c
}

// Hold says that a patient is about to step aside: it counts ahead of nobody
// and keeps its turn.
func (q *Queue) Hold(w *Watcher, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.begin(sent)
	q.remove(w, state{change: c, held: true})
	return c
}

// Return says that a held patient is about to come back to its place.
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

// CheckReturn checks what the server answered to a return.
func (q *Queue) CheckReturn(w *Watcher, b client.Booking) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.Stage != "WAITING" || b.QueuePosition == nil {
		w.fault(Malformed, "return answered stage %q, position given: %t", b.Stage, b.QueuePosition != nil)
		return
	}
	q.tally.Checked.Add(1)
	if truth := w.history[len(w.history)-1].position; *b.QueuePosition != truth {
		w.fault(WrongPosition, "return answered position %d, truth is %d", *b.QueuePosition, truth)
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
}

// begin starts a change of the line, and keeps what undo needs.
func (q *Queue) begin(sent time.Time) *Change {
	return &Change{Sent: sent, before: slices.Clone(q.waiting)}
}

// remove takes a patient out; everybody behind moves up.
func (q *Queue) remove(w *Watcher, after state) {
	w.history = append(w.history, after)
	place := slices.Index(q.waiting, w)
	if place < 0 {
		return // it was held, and counted ahead of nobody
	}
	q.waiting = slices.Delete(q.waiting, place, place+1)
	q.addPositions(after.change, place)
}

// addPositions notes the new positions from a place on.
func (q *Queue) addPositions(c *Change, place int) {
	for i, behind := range q.waiting[place:] {
		behind.history = append(behind.history, state{change: c, position: place + i + 1})
	}
}

// Confirm says that the server confirmed a change.
func (q *Queue) Confirm(c *Change, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.Answered, c.before = at, nil
}

// Undo takes back a change that the server refused.
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
			x.fault(WrongPosition, "was told the outcome of a change that the server refused")
		}
	}
}

// EndVisit says that the end of a visit is about to be sent. By then a patient
// has heard every call.
func (q *Queue) EndVisit(w *Watcher, outcome string, sent time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.end, w.outcome = &Change{Sent: sent}, outcome
	heard := 0
	for i, c := range w.recalls {
		if !c.Answered.IsZero() && !w.connectedSince.IsZero() && sent.Sub(Later(c.Answered, w.connectedSince)) > q.bound {
			heard = i + 1
		}
	}
	if w.recalled < heard {
		w.fault(Missed, "told of %d calls again, truth is %d", w.recalled, heard)
	}
}

// Recall says that a patient is about to be called again.
func (q *Queue) Recall(w *Watcher, sent time.Time) *Change {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &Change{Sent: sent}
	w.recalls = append(w.recalls, c)
	return c
}

// UndoRecall takes back a call that the server refused.
func (q *Queue) UndoRecall(w *Watcher) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.recalls = w.recalls[:len(w.recalls)-1]
	if w.recalled > len(w.recalls) {
		w.fault(WrongNews, "was told of a call again that the server refused")
	}
}

// Change is one request as the truth sees it: when it was first sent and when it
// was answered. Between the two, both the old and the new state are true.
type Change struct {
	Sent     time.Time
	Answered time.Time  // zero while in flight
	before   []*Watcher // who waited before it, while it may have to be undone
}
