package loadtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// state is one position of one patient: from a change on, until the next entry.
// Position zero means the patient does not wait: for good, or while held.
type state struct {
	change   *change
	position int
	held     bool
}

// shows tells whether two states look the same to the patient.
func (s state) shows(position int, held bool) bool { return s.position == position && s.held == held }

// watch is what was true for one patient and what its client was told.
// Everything in it is guarded by the line's mutex.
type watch struct {
	line    *line
	booking string
	ticket  string
	turn    int // in the order of joining, which a held patient keeps

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
	end       *change   // of the visit, once it was asked for
	outcome   string    // the stage in which it ends
	recalls   []*change // in the order they were asked for
	assigned  int       // MY_BOOKING_ASSIGNED received
	recalled  int       // the highest count of recalls that was told
	cancelled int       // MY_BOOKING_CANCELED received
	ended     int       // MY_BOOKING_ENDED received
	sawEnd    bool      // a snapshot showed that all is over
}

// The stages in which a visit ends, as the wire names them.
const (
	stageDone   = "DONE"
	stageNoShow = "NO_SHOW"
	stageHeld   = "HELD"
)

// fault counts a fault in what this patient's client was told.
func (w *watch) fault(kind faultKind, format string, args ...any) {
	w.line.tally.fault(kind, w.booking, format, args...)
}

// finish closes the books on one patient. It is called when the last news has
// come, or could no longer come in time.
func (w *watch) finish() {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	if !w.everLive {
		w.fault(missed, "never had a live connection")
		return
	}
	if !w.upToDate() && !w.reported {
		w.fault(missed, "never told that it was %s (position last told %s)", w.departure, w.toldPosition())
	}
	if w.end != nil && w.ended == 0 && !w.sawEnd {
		w.fault(missed, "never told that the service ended")
	}
}

// upToDate tells whether what the client knows is true now.
func (w *watch) upToDate() bool {
	last := w.history[len(w.history)-1]
	return w.told >= 0 && last.shows(w.history[w.told].position, w.history[w.told].held)
}

// OnSnapshot implements listener. The state it shows must have been true at some
// moment between the request and the reply.
func (w *watch) OnSnapshot(data []byte, asked, got time.Time) (done bool) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	w.liveSince, w.everLive, w.reported = got, true, false

	var s client.Snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		w.fault(malformed, "snapshot: %v", err)
		return false
	}
	b := s.Booking
	if s.Type != "SNAPSHOT" || b.ID != w.booking || b.Ticket != w.ticket {
		w.fault(malformed, "snapshot of type %q shows booking %q, ticket %q instead of %q", s.Type, b.ID, b.Ticket, w.ticket)
		return false
	}
	position := 0
	if b.Stage == "WAITING" {
		if b.QueuePosition == nil {
			w.fault(malformed, "snapshot of a waiting booking without queuePosition")
			return false
		}
		position = *b.QueuePosition
		w.checkEstimate(position, b.EstimatedWaitMinutes)
	} else if b.QueuePosition != nil {
		w.fault(malformed, "snapshot in stage %s shows position %d", b.Stage, *b.QueuePosition)
	}
	w.line.tally.checked.Add(1)
	w.line.tally.snapshots.Add(1)
	if b.RecallCount > len(w.recalls) {
		w.fault(wrongNews, "snapshot shows %d calls again, truth is %d", b.RecallCount, len(w.recalls))
	}
	w.recalled = max(w.recalled, b.RecallCount)
	if !w.checkSnapshot(position, b.Stage, asked, got) {
		return false
	}
	switch b.Stage {
	case stageDone, stageNoShow:
		w.sawEnd = w.end != nil && b.Stage == w.outcome
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
		if !s.shows(position, stage == stageHeld) || s.change.sent.After(got) {
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
		w.fault(outOfOrder, "snapshot shows %s, older than %s told before", describe(position, stage), w.toldPosition())
	case older >= 0:
		stale := asked.Sub(w.history[older+1].change.answered)
		w.line.tally.stale(stale)
		w.fault(staleSnapshot, "snapshot shows %s, which stopped being true %v before it was asked for", describe(position, stage), stale)
		w.told = max(w.told, older)
	default:
		w.fault(wrongPosition, "snapshot shows %s, truth is %s", describe(position, stage), w.truth())
		return false
	}
	return true
}

// OnPosition implements listener.
func (w *watch) OnPosition(p client.PositionUpdate, at time.Time) (done bool) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	w.checkEstimate(p.Position, &p.Minutes)
	w.tellPosition(p.Position, at)
	return false
}

// OnPublication implements listener.
func (w *watch) OnPublication(data []byte, at time.Time) (done bool) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	var p client.Publication
	if err := json.Unmarshal(data, &p); err != nil {
		w.fault(malformed, "publication: %v", err)
		return false
	}
	if p.Via != "scheduling-system" || p.BookingID != w.booking {
		w.fault(malformed, "publication %s via %q for booking %q", p.Type, p.Via, p.BookingID)
		return false
	}
	switch p.Type {
	case "QUEUE_POSITION_UPDATED":
		if p.QueuePosition == nil {
			w.fault(malformed, "%s without queuePosition", p.Type)
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
			w.fault(wrongNews, "told it was canceled, truth is %s", w.truth())
			return false
		case w.cancelled > 1:
			w.fault(duplicate, "told %d times that it was canceled", w.cancelled)
		default:
			w.advance(len(w.history)-1, at, nil)
		}
		return true
	case "MY_BOOKING_ENDED":
		w.ended++
		switch {
		case w.end == nil || p.Stage != w.outcome:
			w.fault(wrongNews, "told it ended as %q, truth is %s", p.Stage, w.truth())
			return false
		case w.ended > 1:
			w.fault(duplicate, "told %d times that it ended", w.ended)
		}
		return true
	case "MY_BOOKING_EXPIRED":
		w.fault(wrongNews, "told it expired, truth is %s", w.truth())
	case "MY_BOOKING_CALLED":
		w.tellRecalled(p)
	case "BOOKING_UPDATED":
		w.tellStage(p.Stage, at)
	default:
		w.fault(malformed, "unknown publication type %q", p.Type)
	}
	return false
}

// tellPosition checks a pushed position: it must be one the booking truly had,
// newer than the one told before. Skipping some is right, repeating is not.
func (w *watch) tellPosition(position int, at time.Time) {
	w.line.tally.checked.Add(1)
	w.tellState(position, false, at)
}

// tellStage checks news that is neither a call nor an end.
func (w *watch) tellStage(stage string, at time.Time) {
	switch stage {
	case stageHeld:
		w.tellState(0, true, at)
	case "WAITING":
		// The place follows by itself.
		if !slices.ContainsFunc(w.history, func(s state) bool { return s.held }) {
			w.fault(wrongNews, "told it waits again, truth is that it was never held")
		}
	case "SERVING":
		if w.departure != wasAssigned {
			w.fault(wrongNews, "told it is being served, truth is %s", w.truth())
		}
	}
}

// tellState finds the state a client was told among those newer than the one
// told before. Where people are held and come back, the same position may be
// true more than once: then the first is taken, so that nothing right is called
// wrong, and its time is not counted, because nobody knows which one was meant.
func (w *watch) tellState(position int, held bool, at time.Time) {
	found, matches := 0, 0
	for i := w.told + 1; i < len(w.history); i++ {
		if w.history[i].shows(position, held) {
			if matches++; matches == 1 {
				found = i
			}
		}
	}
	what := describe(position, "held")
	switch {
	case matches == 1 && !held:
		w.advance(found, at, &w.line.tally.latency)
	case matches > 0:
		w.advance(found, at, nil)
	case w.told >= 0 && w.history[w.told].shows(position, held):
		w.fault(duplicate, "told %s again", what)
	case slices.ContainsFunc(w.history[:max(w.told, 0)], func(s state) bool { return s.shows(position, held) }):
		w.fault(outOfOrder, "told %s after %s", what, w.toldPosition())
	default:
		w.fault(wrongPosition, "told %s, truth is %s", what, w.truth())
	}
}

func (w *watch) tellRecalled(p client.Publication) {
	switch {
	case p.RecallCount > len(w.recalls) || p.Ticket != w.ticket || p.ResourceID != w.resource:
		w.fault(wrongNews, "told of call again number %d, ticket %q, resource %q; truth is %d, %q, %q",
			p.RecallCount, p.Ticket, p.ResourceID, len(w.recalls), w.ticket, w.resource)
	case p.RecallCount <= w.recalled:
		w.fault(duplicate, "told of call again number %d after %d", p.RecallCount, w.recalled)
	}
	w.recalled = max(w.recalled, p.RecallCount)
}

func (w *watch) tellAssigned(p client.Publication, at time.Time) {
	w.assigned++
	switch {
	case w.departure != wasAssigned:
		w.fault(wrongNews, "told it was assigned, truth is %s", w.truth())
		return
	case p.BookingStatus != "CONFIRMED" || p.ResourceID != w.resource || p.Ticket != w.ticket:
		w.fault(wrongNews, "told it was assigned with status %q, resource %q, ticket %q; truth is CONFIRMED, %q, %q",
			p.BookingStatus, p.ResourceID, p.Ticket, w.resource, w.ticket)
	}
	if w.assigned > 1 {
		w.fault(duplicate, "told %d times that it was assigned", w.assigned)
		return
	}
	if last := len(w.history) - 1; w.told < last {
		w.advance(last, at, &w.line.tally.callLatency)
	}
}

// advance moves the client on to a newer state: it scores the time since the
// change that made it true and notices when the client had been stale too long.
func (w *watch) advance(to int, at time.Time, latency *report.Histogram) {
	if latency != nil {
		latency.Add(at.Sub(w.history[to].change.sent))
	}
	if stale := w.staleFor(at); stale > w.line.bound && !w.reported {
		// Either this very state comes too late, or one before it never came
		// and a newer change has brought the client up to date.
		if answered := w.history[to].change.answered; !answered.IsZero() && at.Sub(later(answered, w.liveSince)) > w.line.bound {
			w.fault(late, "told %s after %v", describe(w.history[to].position, string(w.departure)), stale)
		} else {
			w.fault(missed, "kept at %s for %v", w.toldPosition(), stale)
		}
	}
	w.reported = false
	if skipped := to - w.told - 1; w.told >= 0 {
		w.line.tally.conflated.Add(int64(skipped))
	}
	w.told = to
}

// OnDisconnect implements listener.
func (w *watch) OnDisconnect(at time.Time) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	if stale := w.staleFor(at); stale > w.line.bound && !w.reported {
		w.reported = true
		w.fault(missed, "kept at %s for %v, then cut off", w.toldPosition(), stale)
	}
	w.liveSince = time.Time{}
}

// staleFor is for how long, at the longest stretch, the client has held something
// that was not true. A stretch ends when the truth comes back to it.
func (w *watch) staleFor(now time.Time) time.Duration {
	if w.liveSince.IsZero() {
		return 0
	}
	told := state{position: -1} // nothing yet
	if w.told >= 0 {
		told = w.history[w.told]
	}
	var longest time.Duration
	var since time.Time
	for _, s := range w.history[w.told+1:] {
		same := s.shows(told.position, told.held)
		switch {
		case since.IsZero() && !same:
			if s.change.answered.IsZero() {
				return longest // both are true until the answer
			}
			since = later(s.change.answered, w.liveSince)
		case !since.IsZero() && same:
			longest = max(longest, s.change.sent.Sub(since))
			since = time.Time{}
		}
	}
	if !since.IsZero() {
		longest = max(longest, now.Sub(since))
	}
	return longest
}

func (w *watch) checkEstimate(position int, minutes *int) {
	want := position * w.line.minutes
	switch {
	case minutes == nil:
		w.fault(wrongEstimate, "no estimatedWaitMinutes with position %d", position)
	case *minutes != want:
		w.fault(wrongEstimate, "estimatedWaitMinutes is %d with position %d, want %d", *minutes, position, want)
	}
}

func (w *watch) truth() string { return w.describe(w.history[len(w.history)-1]) }

func (w *watch) toldPosition() string {
	if w.told < 0 {
		return "nothing"
	}
	return w.describe(w.history[w.told])
}

func (w *watch) describe(s state) string {
	if s.held {
		return "held"
	}
	return describe(s.position, string(w.departure))
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
