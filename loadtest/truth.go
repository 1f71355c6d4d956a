package loadtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
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
	waiting []*watch
}

// state is one position of one patient: from a change on, until the next entry.
// Position zero means the patient no longer waits.
type state struct {
	change   *change
	position int
}

// watch is what was true for one patient and what its client was told.
// Everything in it is guarded by the line's mutex.
type watch struct {
	line    *line
	booking string
	ticket  string

	history []state
	// told is the index of the newest state the client knows, -1 before the first.
	told int
	// liveSince is zero while the client has no subscription: an update cannot
	// be late for somebody who is not there.
	liveSince time.Time
	everLive  bool
	// reported keeps one stale spell from being counted again and again.
	reported bool

	departure departure
	resource  string
	end       *change // of the service, once it was asked for
	assigned  int     // MY_BOOKING_ASSIGNED received
	cancelled int     // MY_BOOKING_CANCELED received
	ended     int     // MY_BOOKING_ENDED received
	sawEnd    bool    // a snapshot showed that all is over
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
func (l *line) join(c *change, b bookingDTO) *watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &watch{line: l, booking: b.ID, ticket: b.Ticket, told: -1}
	l.waiting = append(l.waiting, w)
	w.history = []state{{c, len(l.waiting)}}

	if b.Status != "PENDING_ASSIGNMENT" || b.Stage != "WAITING" || b.Ticket == "" || b.TicketToken == "" {
		l.tally.fault(malformed, w, "join answered status %q, stage %q, ticket %q, token given: %t", b.Status, b.Stage, b.Ticket, b.TicketToken != "")
	}
	if b.QueuePosition == nil {
		l.tally.fault(malformed, w, "join answered no queuePosition")
		return w
	}
	l.tally.checked.Add(1)
	if got := *b.QueuePosition; got != len(l.waiting) {
		l.tally.fault(wrongPosition, w, "join answered position %d, truth is %d", got, len(l.waiting))
	}
	w.checkEstimate(*b.QueuePosition, b.EstimatedWaitMinutes)
	return w
}

// leave says that a change which takes a patient out of the line is about to be
// sent. Its place among the waiting is returned for undo.
func (l *line) leave(w *watch, how departure, resource string, sent time.Time) (c *change, place int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c = &change{sent: sent}
	place = slices.Index(l.waiting, w)
	l.waiting = slices.Delete(l.waiting, place, place+1)
	w.departure, w.resource = how, resource
	w.history = append(w.history, state{c, 0})
	for i, behind := range l.waiting[place:] {
		behind.history = append(behind.history, state{c, place + i + 1})
	}
	return c, place
}

// answered says that the server confirmed a change.
func (l *line) answered(c *change, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.answered = at
}

// undo takes back a change that the server refused.
func (l *line) undo(w *watch, c *change, place int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.departure, w.resource = stillWaiting, ""
	l.waiting = slices.Insert(l.waiting, place, w)
	for _, x := range l.waiting[place:] {
		last := len(x.history) - 1
		if x.history[last].change != c {
			continue
		}
		x.history = x.history[:last]
		if x.told == last {
			x.told = last - 1
			l.tally.fault(wrongPosition, x, "was told the outcome of a change that the server refused")
		}
	}
}

// ending says that the end of a service is about to be sent.
func (l *line) ending(w *watch, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.end = &change{sent: sent}
}

// stillHere lists who waits, in order.
func (l *line) stillHere() []*watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.waiting)
}

// finish closes the books on one patient. It is called when the last news has
// come, or could no longer come in time.
func (w *watch) finish() {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	last := len(w.history) - 1
	if !w.everLive {
		w.line.tally.fault(missed, w, "never had a live connection")
		return
	}
	if w.told != last && !w.reported {
		w.line.tally.fault(missed, w, "never told that it was %s (position last told %s)", w.departure, w.toldPosition())
	}
	if w.end != nil && w.ended == 0 && !w.sawEnd {
		w.line.tally.fault(missed, w, "never told that the service ended")
	}
}

// snapshotDTO is the data of a subscribe reply.
type snapshotDTO struct {
	Type    string     `json:"type"`
	Booking bookingDTO `json:"booking"`
}

// publicationDTO holds the fields of every publication of a booking's channel.
type publicationDTO struct {
	Via                  string `json:"via"`
	Type                 string `json:"type"`
	BookingID            string `json:"bookingId"`
	BookingStatus        string `json:"bookingStatus"`
	Stage                string `json:"stage"`
	ResourceID           string `json:"resourceId"`
	Ticket               string `json:"ticket"`
	QueuePosition        *int   `json:"queuePosition"`
	EstimatedWaitMinutes *int   `json:"estimatedWaitMinutes"`
}

// snapshot implements subscriber. The state it shows must have been true at some
// moment between the request and the reply.
func (w *watch) snapshot(data []byte, asked, got time.Time) (done bool) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	w.liveSince, w.everLive, w.reported = got, true, false

	var s snapshotDTO
	if err := json.Unmarshal(data, &s); err != nil {
		w.line.tally.fault(malformed, w, "snapshot: %v", err)
		return false
	}
	b := s.Booking
	if s.Type != "SNAPSHOT" || b.ID != w.booking || b.Ticket != w.ticket {
		w.line.tally.fault(malformed, w, "snapshot of type %q shows booking %q, ticket %q instead of %q", s.Type, b.ID, b.Ticket, w.ticket)
		return false
	}
	position := 0
	if b.Stage == "WAITING" {
		if b.QueuePosition == nil {
			w.line.tally.fault(malformed, w, "snapshot of a waiting booking without queuePosition")
			return false
		}
		position = *b.QueuePosition
		w.checkEstimate(position, b.EstimatedWaitMinutes)
	} else if b.QueuePosition != nil {
		w.line.tally.fault(malformed, w, "snapshot in stage %s shows position %d", b.Stage, *b.QueuePosition)
	}
	w.line.tally.checked.Add(1)
	w.line.tally.snapshots.Add(1)
	if !w.checkSnapshot(position, b.Stage, asked, got) {
		return false
	}
	switch b.Stage {
	case "DONE", "NO_SHOW":
		w.sawEnd = w.end != nil
		return w.sawEnd
	case "LEFT":
		return w.departure == wasCanceled
	}
	return false
}

// checkSnapshot finds the state a snapshot shows. It reports whether it is one
// that this patient ever had.
func (w *watch) checkSnapshot(position int, stage string, asked, got time.Time) bool {
	last := len(w.history) - 1
	older, before := -1, -1
	for i, s := range w.history {
		if s.position != position || s.change.sent.After(got) {
			continue
		}
		current := i == last || w.history[i+1].change.answered.IsZero() || !w.history[i+1].change.answered.Before(asked)
		switch {
		case current && i >= w.told:
			w.told = i
			return true
		case current:
			before = i
		default:
			older = i
		}
	}
	switch {
	case before >= 0:
		w.line.tally.fault(outOfOrder, w, "snapshot shows %s, older than %s told before", describe(position, stage), w.toldPosition())
	case older >= 0:
		stale := asked.Sub(w.history[older+1].change.answered)
		w.line.tally.stale(stale)
		w.line.tally.fault(staleSnapshot, w, "snapshot shows %s, which stopped being true %v before it was asked for", describe(position, stage), stale)
		w.told = max(w.told, older)
	default:
		w.line.tally.fault(wrongPosition, w, "snapshot shows %s, truth is %s", describe(position, stage), w.truth())
		return false
	}
	return true
}

// publication implements subscriber.
func (w *watch) publication(data []byte, at time.Time) (done bool) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	var p publicationDTO
	if err := json.Unmarshal(data, &p); err != nil {
		w.line.tally.fault(malformed, w, "publication: %v", err)
		return false
	}
	if p.Via != "scheduling-system" || p.BookingID != w.booking {
		w.line.tally.fault(malformed, w, "publication %s via %q for booking %q", p.Type, p.Via, p.BookingID)
		return false
	}
	switch p.Type {
	case "QUEUE_POSITION_UPDATED":
		if p.QueuePosition == nil {
			w.line.tally.fault(malformed, w, "%s without queuePosition", p.Type)
			return false
		}
		w.checkEstimate(*p.QueuePosition, p.EstimatedWaitMinutes)
		w.tellPosition(*p.QueuePosition, at)
	case "MY_BOOKING_ASSIGNED":
		w.tellAssigned(p, at)
	case "MY_BOOKING_CANCELED":
		w.cancelled++
		switch {
		case w.departure != wasCanceled:
			w.line.tally.fault(wrongNews, w, "told it was canceled, truth is %s", w.truth())
			return false
		case w.cancelled > 1:
			w.line.tally.fault(duplicate, w, "told %d times that it was canceled", w.cancelled)
		default:
			w.advance(len(w.history)-1, at, nil)
		}
		return true
	case "MY_BOOKING_ENDED":
		w.ended++
		switch {
		case w.end == nil || p.Stage != "DONE":
			w.line.tally.fault(wrongNews, w, "told it ended as %q, truth is %s", p.Stage, w.truth())
			return false
		case w.ended > 1:
			w.line.tally.fault(duplicate, w, "told %d times that it ended", w.ended)
		}
		return true
	case "MY_BOOKING_EXPIRED":
		w.line.tally.fault(wrongNews, w, "told it expired, truth is %s", w.truth())
	case "MY_BOOKING_CALLED", "BOOKING_UPDATED":
		// Nothing about the place in the queue.
	default:
		w.line.tally.fault(malformed, w, "unknown publication type %q", p.Type)
	}
	return false
}

// tellPosition checks a pushed position: it must be one the booking truly had,
// newer than the one told before. Skipping some is right, repeating is not.
func (w *watch) tellPosition(position int, at time.Time) {
	w.line.tally.checked.Add(1)
	for i := w.told + 1; i < len(w.history); i++ {
		if w.history[i].position == position {
			w.advance(i, at, &w.line.tally.latency)
			return
		}
	}
	if w.told >= 0 && w.history[w.told].position == position {
		w.line.tally.fault(duplicate, w, "told position %d again", position)
		return
	}
	for i := range max(w.told, 0) {
		if w.history[i].position == position {
			w.line.tally.fault(outOfOrder, w, "told position %d after %s", position, w.toldPosition())
			return
		}
	}
	w.line.tally.fault(wrongPosition, w, "told position %d, truth is %s", position, w.truth())
}

func (w *watch) tellAssigned(p publicationDTO, at time.Time) {
	w.assigned++
	switch {
	case w.departure != wasAssigned:
		w.line.tally.fault(wrongNews, w, "told it was assigned, truth is %s", w.truth())
		return
	case p.BookingStatus != "CONFIRMED" || p.ResourceID != w.resource || p.Ticket != w.ticket:
		w.line.tally.fault(wrongNews, w, "told it was assigned with status %q, resource %q, ticket %q; truth is CONFIRMED, %q, %q",
			p.BookingStatus, p.ResourceID, p.Ticket, w.resource, w.ticket)
	}
	if w.assigned > 1 {
		w.line.tally.fault(duplicate, w, "told %d times that it was assigned", w.assigned)
		return
	}
	if last := len(w.history) - 1; w.told < last {
		w.advance(last, at, &w.line.tally.callLatency)
	}
}

// advance moves the client on to a newer state: it scores the time since the
// change that made it true and notices when the client had been stale too long.
func (w *watch) advance(to int, at time.Time, latency *histogram) {
	if latency != nil {
		latency.add(at.Sub(w.history[to].change.sent))
	}
	if stale := w.staleFor(at); stale > w.line.bound && !w.reported {
		// Either this very state comes too late, or one before it never came
		// and a newer change has brought the client up to date.
		if answered := w.history[to].change.answered; !answered.IsZero() && at.Sub(later(answered, w.liveSince)) > w.line.bound {
			w.line.tally.fault(late, w, "told %s after %v", describe(w.history[to].position, string(w.departure)), stale)
		} else {
			w.line.tally.fault(missed, w, "kept at %s for %v", w.toldPosition(), stale)
		}
	}
	w.reported = false
	if skipped := to - w.told - 1; w.told >= 0 {
		w.line.tally.conflated.Add(int64(skipped))
	}
	w.told = to
}

// dropped implements subscriber.
func (w *watch) dropped(at time.Time) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	if stale := w.staleFor(at); stale > w.line.bound && !w.reported {
		w.reported = true
		w.line.tally.fault(missed, w, "kept at %s for %v, then cut off", w.toldPosition(), stale)
	}
	w.liveSince = time.Time{}
}

// staleFor is for how long the client has held something that is no longer true.
func (w *watch) staleFor(now time.Time) time.Duration {
	if w.liveSince.IsZero() || w.told == len(w.history)-1 {
		return 0
	}
	answered := w.history[w.told+1].change.answered
	if answered.IsZero() {
		return 0
	}
	return now.Sub(later(answered, w.liveSince))
}

func (w *watch) checkEstimate(position int, minutes *int) {
	want := position * w.line.minutes
	switch {
	case minutes == nil:
		w.line.tally.fault(wrongEstimate, w, "no estimatedWaitMinutes with position %d", position)
	case *minutes != want:
		w.line.tally.fault(wrongEstimate, w, "estimatedWaitMinutes is %d with position %d, want %d", *minutes, position, want)
	}
}

func (w *watch) truth() string {
	return describe(w.history[len(w.history)-1].position, string(w.departure))
}

func (w *watch) toldPosition() string {
	if w.told < 0 {
		return "nothing"
	}
	return describe(w.history[w.told].position, string(w.departure))
}

func describe(position int, otherwise string) string {
	if position > 0 {
		return fmt.Sprintf("position %d", position)
	}
	if otherwise == "" {
		return "not waiting"
	}
	return otherwise
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
