package check

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/report"
)

// FaultKind is a way in which what a client received differs from the truth.
type FaultKind int

// The kinds of faults.
const (
	WrongPosition FaultKind = iota // a position that the booking never had
	WrongEstimate                  // not position × minutes
	WrongNews                      // an event that did not happen, or with wrong fields
	StaleSnapshot                  // a state that was no longer true at the subscribe request
	Missed                         // a change that the client never received
	Late                           // a change received after the bound
	OutOfOrder                     // an older state after a newer one
	Duplicate                      // the same update twice
	Malformed                      // a message that violates the API
	faultKinds
)

var faultNames = [faultKinds]string{
	"wrong position", "wrong estimate", "wrong news", "stale snapshot", "missed", "late", "out of order", "duplicate", "malformed",
}

// Tally collects the faults that the checks find. It is safe for concurrent use.
type Tally struct {
	Latency     report.Histogram // change sent → new position received
	CallLatency report.Histogram // assign sent → MY_BOOKING_ASSIGNED received
	Checked     atomic.Int64
	Snapshots   atomic.Int64
	Conflated   atomic.Int64
	Total       atomic.Int64

	mu         sync.Mutex
	faults     [faultKinds]int64
	worstLag   time.Duration
	worstStale time.Duration
	problems   []report.Problem
	described  map[string]int
}

// NewTally returns an empty Tally.
func NewTally() *Tally {
	return &Tally{described: map[string]int{}}
}

// AddFault counts one fault and describes the first report.MaxProblems of each kind.
func (t *Tally) AddFault(kind FaultKind, booking, format string, args ...any) {
	t.Total.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[kind]++
	t.describe(faultNames[kind], booking, format, args...)
}

// AddProblem describes a problem that is counted elsewhere.
func (t *Tally) AddProblem(kind, booking, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.describe(kind, booking, format, args...)
}

func (t *Tally) describe(kind, booking, format string, args ...any) {
	if t.described[kind] == report.MaxProblems {
		return
	}
	t.described[kind]++
	t.problems = append(t.problems, report.Problem{Kind: kind, Booking: booking, Detail: fmt.Sprintf(format, args...)})
}

func (t *Tally) addStale(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.worstStale = max(t.worstStale, d)
}

// AddLag records the delay of a change against the schedule.
func (t *Tally) AddLag(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.worstLag = max(t.worstLag, d)
}

// Faults returns the number of faults of each kind.
func (t *Tally) Faults() report.Faults {
	t.mu.Lock()
	defer t.mu.Unlock()
	return report.Faults{
		WrongPositions: t.faults[WrongPosition],
		WrongEstimates: t.faults[WrongEstimate],
		WrongNews:      t.faults[WrongNews],
		StaleSnapshots: t.faults[StaleSnapshot],
		Missed:         t.faults[Missed],
		Late:           t.faults[Late],
		OutOfOrder:     t.faults[OutOfOrder],
		Duplicates:     t.faults[Duplicate],
		Malformed:      t.faults[Malformed],
	}
}

// Worst returns the longest delay against the schedule and the age of the oldest stale
// snapshot.
func (t *Tally) Worst() (lag, old time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.worstLag, t.worstStale
}

// Problems returns the described problems.
func (t *Tally) Problems() []report.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]report.Problem{}, t.problems...) // a list in JSON even when empty
}
