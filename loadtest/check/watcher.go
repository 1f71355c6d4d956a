package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// state is a position of a patient from a change on. Position zero means that the patient does
// not wait: for good, or while held.
type state struct {
	change   *Change
	position int
	held     bool
}

// shows reports whether a state looks like this to the patient.
func (s state) shows(position int, held bool) bool { return s.position == position && s.held == held }

// Watcher is the listener of one patient's client. It has the patient's true states and what
// the client has received. The queue's mutex guards its fields.
type Watcher struct {
	Queue     *Queue
	Booking   string
	ticket    string
	joinOrder int // place in the order of joining; a held patient keeps it

	history []state
	// known is the index of the newest state that the client knows, -1 before the first.
	known int
	// connectedSince is zero while the client has no subscription. Updates cannot be late
	// then.
	connectedSince time.Time
	everConnected  bool
	// reported is set once a stale period has been counted.
	reported bool

	departure Departure
	resource  string
	end       *Change   // the end of the visit, once requested
	outcome   string    // the stage after the end
	recalls   []*Change // in the order of the requests
	assigned  int       // MY_BOOKING_ASSIGNED received
	recalled  int       // the highest recall count received
	canceled  int       // MY_BOOKING_CANCELED received
	ended     int       // MY_BOOKING_ENDED received
	sawEnd    bool      // a snapshot showed the end
}

// The stages after a visit, as named in the API.
const (
	StageDone   = "DONE"
	StageNoShow = "NO_SHOW"
	stageHeld   = "HELD"
)

// fault counts a fault in what the client received.
func (w *Watcher) fault(kind FaultKind, format string, args ...any) {
	w.Queue.tally.AddFault(kind, w.Booking, format, args...)
}

// Finish checks the final state of the patient's client. It is called after the last update,
// or when it would be late.
func (w *Watcher) Finish() {
	w.Queue.mu.Lock()
	defer w.Queue.mu.Unlock()
	if !w.everConnected {
		w.fault(Missed, "never had a live connection")
		return
	}
	if !w.upToDate() && !w.reported {
		w.fault(Missed, "received no update that it was %s (last received %s)", w.departure, w.knownPosition())
	}
	if w.end != nil && w.ended == 0 && !w.sawEnd {
		w.fault(Missed, "received no end of the visit")
	}
}

// upToDate reports whether the client shows the current state.
func (w *Watcher) upToDate() bool {
	last := w.history[len(w.history)-1]
	return w.known >= 0 && last.shows(w.history[w.known].position, w.history[w.known].held)
}

// OnSnapshot implements client.Listener. The state in the snapshot must have been true at some
// moment between the request and the reply.
func (w *Watcher) OnSnapshot(data []byte, requested, received time.Time) (done bool) {
	w.Queue.mu.Lock()
	defer w.Queue.mu.Unlock()
	w.connectedSince, w.everConnected, w.reported = received, true, false

	var snapshot client.Snapshot
	if err := json.Unmarshal(data, &snapshot); err != nil {
		w.fault(Malformed, "snapshot: %v", err)
		return false
	}
	b := snapshot.Booking
	if snapshot.Type != "SNAPSHOT" || b.ID != w.Booking || b.Ticket != w.ticket {
		w.fault(Malformed, "snapshot of type %q shows booking %q, ticket %q instead of %q", snapshot.Type, b.ID, b.Ticket, w.ticket)
		return false
	}
	position := 0
	if b.Stage == "WAITING" {
		if b.QueuePosition == nil {
			w.fault(Malformed, "snapshot of a waiting booking without queuePosition")
			return false
		}
		position = *b.QueuePosition
		w.checkEstimate(position, b.EstimatedWaitMinutes)
	} else if b.QueuePosition != nil {
		w.fault(Malformed, "snapshot in stage %s shows position %d", b.Stage, *b.QueuePosition)
	}
	w.Queue.tally.Checked.Add(1)
	w.Queue.tally.Snapshots.Add(1)
	if b.RecallCount > len(w.recalls) {
		w.fault(WrongNews, "snapshot shows %d recalls, truth is %d", b.RecallCount, len(w.recalls))
	}
	w.recalled = max(w.recalled, b.RecallCount)
	if !w.checkSnapshot(position, b.Stage, requested, received) {
		return false
	}
	switch b.Stage {
	case StageDone, StageNoShow:
		w.sawEnd = w.end != nil && b.Stage == w.outcome
		return w.sawEnd
	case "LEFT":
		return w.departure == Canceled
	}
	return false
}

// checkSnapshot finds the state that a snapshot shows. It reports whether the patient ever had
// it.
func (w *Watcher) checkSnapshot(position int, stage string, requested, received time.Time) bool {
	last := len(w.history) - 1
	older, before := -1, -1
	for i, s := range w.history {
		if !s.shows(position, stage == stageHeld) || s.change.Sent.After(received) {
			continue
		}
		current := i == last || w.history[i+1].change.Answered.IsZero() || !w.history[i+1].change.Answered.Before(requested)
		switch {
		case current && i >= w.known:
			w.known = i
			return true
		case current:
			before = i
		default:
			older = i
		}
	}
	switch {
	case before >= 0:
		w.fault(OutOfOrder, "snapshot shows %s, older than %s received before", describe(position, stage), w.knownPosition())
	case older >= 0:
		stale := requested.Sub(w.history[older+1].change.Answered)
		w.Queue.tally.addStale(stale)
		w.fault(StaleSnapshot, "snapshot shows %s, which stopped being true %v before the request", describe(position, stage), stale)
		w.known = max(w.known, older)
	default:
		w.fault(WrongPosition, "snapshot shows %s, truth is %s", describe(position, stage), w.truth())
		return false
	}
	return true
}

// OnPosition implements client.Listener.
func (w *Watcher) OnPosition(p client.PositionUpdate, at time.Time) (done bool) {
	w.Queue.mu.Lock()
	defer w.Queue.mu.Unlock()
	w.checkEstimate(p.Position, &p.Minutes)
	w.checkPosition(p.Position, at)
	return false
}

// OnPublication implements client.Listener.
func (w *Watcher) OnPublication(data []byte, at time.Time) (done bool) {
	w.Queue.mu.Lock()
	defer w.Queue.mu.Unlock()
	var p client.Publication
	if err := json.Unmarshal(data, &p); err != nil {
		w.fault(Malformed, "publication: %v", err)
		return false
	}
	if p.Via != "scheduling-system" || p.BookingID != w.Booking {
		w.fault(Malformed, "publication %s via %q for booking %q", p.Type, p.Via, p.BookingID)
		return false
	}
	switch p.Type {
	case "QUEUE_POSITION_UPDATED":
		if p.QueuePosition == nil {
			w.fault(Malformed, "%s without queuePosition", p.Type)
			return false
		}
		w.checkEstimate(*p.QueuePosition, p.EstimatedWaitMinutes)
		w.checkPosition(*p.QueuePosition, at)
	case "MY_BOOKING_ASSIGNED":
		w.checkAssigned(p, at)
	case "MY_BOOKING_CANCELED":
		w.canceled++
		switch {
		case w.departure != Canceled:
			w.fault(WrongNews, "received a cancellation, truth is %s", w.truth())
			return false
		case w.canceled > 1:
			w.fault(Duplicate, "received %d cancellations", w.canceled)
		default:
			w.advance(len(w.history)-1, at, nil)
		}
		return true
	case "MY_BOOKING_ENDED":
		w.ended++
		switch {
		case w.end == nil || p.Stage != w.outcome:
			w.fault(WrongNews, "received the end %q, truth is %s", p.Stage, w.truth())
			return false
		case w.ended > 1:
			w.fault(Duplicate, "received %d ends", w.ended)
		}
		return true
	case "MY_BOOKING_EXPIRED":
		w.fault(WrongNews, "received an expiry, truth is %s", w.truth())
	case "MY_BOOKING_CALLED":
		w.checkRecalled(p)
	case "BOOKING_UPDATED":
		w.checkStage(p.Stage, at)
	default:
		w.fault(Malformed, "unknown publication type %q", p.Type)
	}
	return false
}

// checkPosition checks a pushed position. The booking must have had it, and it must be newer
// than the previous one. Positions may be skipped but not repeated.
func (w *Watcher) checkPosition(position int, at time.Time) {
	w.Queue.tally.Checked.Add(1)
	w.checkState(position, false, at)
}

// checkStage checks an update that is neither a call nor an end.
func (w *Watcher) checkStage(stage string, at time.Time) {
	switch stage {
	case stageHeld:
		w.checkState(0, true, at)
	case "WAITING":
		// The position follows in its own publication.
		if !slices.ContainsFunc(w.history, func(s state) bool { return s.held }) {
			w.fault(WrongNews, "received a return, truth is that it was never held")
		}
	case "SERVING":
		if w.departure != Assigned {
			w.fault(WrongNews, "received a start, truth is %s", w.truth())
		}
	}
}

// checkState finds a received state among those newer than the previous one. With holds and
// returns the same position may be true more than once. Then the first match counts, so that a
// correct update is never a fault, and its latency is not counted, because the match is
// ambiguous.
func (w *Watcher) checkState(position int, held bool, at time.Time) {
	found, matches := 0, 0
	for i := w.known + 1; i < len(w.history); i++ {
		if w.history[i].shows(position, held) {
			if matches++; matches == 1 {
				found = i
			}
		}
	}
	what := describe(position, "held")
	switch {
	case matches == 1 && !held:
		w.advance(found, at, &w.Queue.tally.Latency)
	case matches > 0:
		w.advance(found, at, nil)
	case w.known >= 0 && w.history[w.known].shows(position, held):
		w.fault(Duplicate, "received %s again", what)
	case slices.ContainsFunc(w.history[:max(w.known, 0)], func(s state) bool { return s.shows(position, held) }):
		w.fault(OutOfOrder, "received %s after %s", what, w.knownPosition())
	default:
		w.fault(WrongPosition, "received %s, truth is %s", what, w.truth())
	}
}

func (w *Watcher) checkRecalled(p client.Publication) {
	switch {
	case p.RecallCount > len(w.recalls) || p.Ticket != w.ticket || p.ResourceID != w.resource:
		w.fault(WrongNews, "received recall %d, ticket %q, resource %q; truth is %d, %q, %q",
			p.RecallCount, p.Ticket, p.ResourceID, len(w.recalls), w.ticket, w.resource)
	case p.RecallCount <= w.recalled:
		w.fault(Duplicate, "received recall %d after %d", p.RecallCount, w.recalled)
	}
	w.recalled = max(w.recalled, p.RecallCount)
}

func (w *Watcher) checkAssigned(p client.Publication, at time.Time) {
	w.assigned++
	switch {
	case w.departure != Assigned:
		w.fault(WrongNews, "received an assignment, truth is %s", w.truth())
		return
	case p.BookingStatus != "CONFIRMED" || p.ResourceID != w.resource || p.Ticket != w.ticket:
		w.fault(WrongNews, "received an assignment with status %q, resource %q, ticket %q; truth is CONFIRMED, %q, %q",
			p.BookingStatus, p.ResourceID, p.Ticket, w.resource, w.ticket)
	}
	if w.assigned > 1 {
		w.fault(Duplicate, "received %d assignments", w.assigned)
		return
	}
	if last := len(w.history) - 1; w.known < last {
		w.advance(last, at, &w.Queue.tally.CallLatency)
	}
}

// advance moves the client to a newer state. It records the latency and reports a fault if the
// client had been stale for too long.
func (w *Watcher) advance(to int, at time.Time, latency *report.Histogram) {
	if latency != nil {
		latency.Add(at.Sub(w.history[to].change.Sent))
	}
	if stale := w.staleFor(at); stale > w.Queue.bound && !w.reported {
		// Either this state is late, or an earlier one never arrived and a newer change has
		// updated the client.
		if answered := w.history[to].change.Answered; !answered.IsZero() && at.Sub(Later(answered, w.connectedSince)) > w.Queue.bound {
			w.fault(Late, "received %s after %v", describe(w.history[to].position, string(w.departure)), stale)
		} else {
			w.fault(Missed, "kept at %s for %v", w.knownPosition(), stale)
		}
	}
	w.reported = false
	if skipped := to - w.known - 1; w.known >= 0 {
		w.Queue.tally.Conflated.Add(int64(skipped))
	}
	w.known = to
}

// OnDisconnect implements client.Listener.
func (w *Watcher) OnDisconnect(at time.Time) {
	w.Queue.mu.Lock()
	defer w.Queue.mu.Unlock()
	if stale := w.staleFor(at); stale > w.Queue.bound && !w.reported {
		w.reported = true
		w.fault(Missed, "kept at %s for %v, then disconnected", w.knownPosition(), stale)
	}
	w.connectedSince = time.Time{}
}

// staleFor returns the longest period in which the client has shown a state that was not true.
// A period ends when the state becomes true again.
func (w *Watcher) staleFor(now time.Time) time.Duration {
	if w.connectedSince.IsZero() {
		return 0
	}
	known := state{position: -1} // no state yet
	if w.known >= 0 {
		known = w.history[w.known]
	}
	var longest time.Duration
	var since time.Time
	for _, s := range w.history[w.known+1:] {
		same := s.shows(known.position, known.held)
		switch {
		case since.IsZero() && !same:
			if s.change.Answered.IsZero() {
				return longest // both are true until the answer
			}
			since = Later(s.change.Answered, w.connectedSince)
		case !since.IsZero() && same:
			longest = max(longest, s.change.Sent.Sub(since))
			since = time.Time{}
		}
	}
	if !since.IsZero() {
		longest = max(longest, now.Sub(since))
	}
	return longest
}

func (w *Watcher) checkEstimate(position int, minutes *int) {
	want := position * w.Queue.minutes
	switch {
	case minutes == nil:
		w.fault(WrongEstimate, "no estimatedWaitMinutes with position %d", position)
	case *minutes != want:
		w.fault(WrongEstimate, "estimatedWaitMinutes is %d with position %d, want %d", *minutes, position, want)
	}
}

func (w *Watcher) truth() string { return w.describe(w.history[len(w.history)-1]) }

func (w *Watcher) knownPosition() string {
	if w.known < 0 {
		return "nothing"
	}
	return w.describe(w.history[w.known])
}

func (w *Watcher) describe(s state) string {
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

// Later returns the later of two times.
func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
