package loadtest

import (
	"slices"
	"sync"
	"time"

	"nowserving/loadtest/client"
)

// line is the truth of one service: who waits, in the order they joined, and
// when each change happened. Changes of one line are made one after another,
// each awaited, so its states are a definite sequence. From the moment a change
// is sent until it is answered, both the old and the new state are true.
//
// It is safe for concurrent use: the scenario changes it while the connections
// of its patients are checked against it.
type line struct {
	minutes int // of the type, for estimatedWaitMinutes
	bound   time.Duration
	tally   *tally

	mu      sync.Mutex
	joined  int      // so far
	waiting []*watch // without those who are held
}

// departure is how a patient's wait ended.
type departure string

const (
	stillWaiting departure = ""
	wasAssigned  departure = "assigned"
	wasCanceled  departure = "canceled"
)

func newLine(minutes int, bound time.Duration, t *tally) *line {
	return &line{minutes: minutes, bound: bound, tally: t}
}

// join appends a patient and checks what the server answered.
func (l *line) join(c *change, b client.Booking) *watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &watch{line: l, booking: b.ID, ticket: b.Ticket, turn: l.joined, told: -1}
	l.joined++
	l.waiting = append(l.waiting, w)
	w.history = []state{{change: c, position: len(l.waiting)}}

	if b.Status != "PENDING_ASSIGNMENT" || b.Stage != "WAITING" || b.Ticket == "" || b.TicketToken == "" {
		w.fault(malformed, "join answered status %q, stage %q, ticket %q, token given: %t", b.Status, b.Stage, b.Ticket, b.TicketToken != "")
	}
	if b.QueuePosition == nil {
		w.fault(malformed, "join answered no queuePosition")
		return w
	}
	l.tally.checked.Add(1)
	if got := *b.QueuePosition; got != len(l.waiting) {
		w.fault(wrongPosition, "join answered position %d, truth is %d", got, len(l.waiting))
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
	return w
}

// leave says that a change which takes a patient out of the line for good is
// about to be sent.
func (l *line) leave(w *watch, how departure, resource string, sent time.Time) *change {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.begin(sent)
	w.departure, w.resource = how, resource
	l.remove(w, state{change: c})
	return c
}

// hold says that a patient is about to step aside: it counts ahead of nobody
// and keeps its turn.
func (l *line) hold(w *watch, sent time.Time) *change {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.begin(sent)
	l.remove(w, state{change: c, held: true})
	return c
}

// back says that a held patient is about to come back to its place.
func (l *line) back(w *watch, sent time.Time) *change {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.begin(sent)
	place := slices.IndexFunc(l.waiting, func(other *watch) bool { return other.turn > w.turn })
	if place < 0 {
		place = len(l.waiting)
	}
	l.waiting = slices.Insert(l.waiting, place, w)
	l.moved(c, place)
	return c
}

// returned checks what the server answered to a return.
func (l *line) returned(w *watch, b client.Booking) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Stage != "WAITING" || b.QueuePosition == nil {
		w.fault(malformed, "return answered stage %q, position given: %t", b.Stage, b.QueuePosition != nil)
		return
	}
	l.tally.checked.Add(1)
	if truth := w.history[len(w.history)-1].position; *b.QueuePosition != truth {
		w.fault(wrongPosition, "return answered position %d, truth is %d", *b.QueuePosition, truth)
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
}

// begin starts a change of the line, and keeps what undo needs.
func (l *line) begin(sent time.Time) *change {
	return &change{sent: sent, before: slices.Clone(l.waiting)}
}

// remove takes a patient out; everybody behind moves up.
func (l *line) remove(w *watch, after state) {
	w.history = append(w.history, after)
	place := slices.Index(l.waiting, w)
	if place < 0 {
		return // it was held, and counted ahead of nobody
	}
	l.waiting = slices.Delete(l.waiting, place, place+1)
	l.moved(after.change, place)
}

// moved notes the new positions from a place on.
func (l *line) moved(c *change, place int) {
	for i, behind := range l.waiting[place:] {
		behind.history = append(behind.history, state{change: c, position: place + i + 1})
	}
}

// answered says that the server confirmed a change.
func (l *line) answered(c *change, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.answered, c.before = at, nil
}

// undo takes back a change that the server refused.
func (l *line) undo(w *watch, c *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.departure, w.resource = stillWaiting, ""
	touched := append(slices.Clone(c.before), w)
	l.waiting, c.before = c.before, nil
	for _, x := range touched {
		last := len(x.history) - 1
		if x.history[last].change != c {
			continue
		}
		x.history = x.history[:last]
		if x.told == last {
			x.told = last - 1
			x.fault(wrongPosition, "was told the outcome of a change that the server refused")
		}
	}
}

// ending says that the end of a visit is about to be sent. By then a patient
// has heard every call.
func (l *line) ending(w *watch, outcome string, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.end, w.outcome = &change{sent: sent}, outcome
	heard := 0
	for i, c := range w.recalls {
		if !c.answered.IsZero() && !w.liveSince.IsZero() && sent.Sub(later(c.answered, w.liveSince)) > l.bound {
			heard = i + 1
		}
	}
	if w.recalled < heard {
		w.fault(missed, "told of %d calls again, truth is %d", w.recalled, heard)
	}
}

// recalling says that a patient is about to be called again.
func (l *line) recalling(w *watch, sent time.Time) *change {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &change{sent: sent}
	w.recalls = append(w.recalls, c)
	return c
}

// notRecalled takes back a call that the server refused.
func (l *line) notRecalled(w *watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.recalls = w.recalls[:len(w.recalls)-1]
	if w.recalled > len(w.recalls) {
		w.fault(wrongNews, "was told of a call again that the server refused")
	}
}

// stillHere lists who waits, in order.
func (l *line) stillHere() []*watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.waiting)
}

// change is one request as the truth sees it: when it was first sent and when it
// was answered. Between the two, both the old and the new state are true.
type change struct {
	sent     time.Time
	answered time.Time // zero while in flight
	before   []*watch  // who waited before it, while it may have to be undone
}
