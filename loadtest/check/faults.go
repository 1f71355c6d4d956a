package check

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/report"
)

// FaultKind names one way in which a client was told something else than the truth.
type FaultKind int

const (
	WrongPosition FaultKind = iota // a position the booking never had
	WrongEstimate                  // not position × minutes
	WrongNews                      // assigned, canceled, ended or expired when it was not, or with wrong particulars
	StaleSnapshot                  // a state that stopped being true before the snapshot was asked for
	Missed                         // a change the client never learned
	late                           // a change it learned after the bound
	OutOfOrder                     // back in time
	Duplicate                      // the same told twice
	Malformed                      // not what the contract promises
	faultKinds
)

var faultNames = [faultKinds]string{
	"wrong position", "wrong estimate", "wrong news", "stale snapshot", "missed", "late", "out of order", "duplicate", "malformed",
}

// Tally collects what the checks find. It is safe for concurrent use.
type Tally struct {
	Latency     report.Histogram // change sent → new position received
	CallLatency report.Histogram // assign sent → MY_BOOKING_ASSIGNED received
	Checked     atomic.Int64
	Snapshots   atomic.Int64
	Conflated   atomic.Int64
	Total       atomic.Int64

	mu        sync.Mutex
	faults    [faultKinds]int64
	worstLag  time.Duration
	worstOld  time.Duration
	problems  []report.Problem
	described map[string]int
}

func NewTally() *Tally {
	return &Tally{described: map[string]int{}}
}

// AddFault counts one fault and keeps a description of the first few.
func (t *Tally) AddFault(kind FaultKind, booking, format string, args ...any) {
	t.Total.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[kind]++
	t.describe(faultNames[kind], booking, format, args...)
}

// AddProblem describes something that is counted elsewhere.
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
	t.worstOld = max(t.worstOld, d)
}

// AddLag notes how late a change was sent against the schedule.
func (t *Tally) AddLag(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.worstLag = max(t.worstLag, d)
}

// Faults returns the faults found in what clients were told.
func (t *Tally) Faults() report.Faults {
	t.mu.Lock()
	defer t.mu.Unlock()
	return report.Faults{
		WrongPositions: t.faults[WrongPosition],
		WrongEstimates: t.faults[WrongEstimate],
		WrongNews:      t.faults[WrongNews],
		StaleSnapshots: t.faults[StaleSnapshot],
		Missed:         t.faults[Missed],
		Late:           t.faults[late],
		OutOfOrder:     t.faults[OutOfOrder],
		Duplicates:     t.faults[Duplicate],
		Malformed:      t.faults[Malformed],
	}
}

// Worst returns the longest delay against the schedule and the oldest state
// that a stale snapshot showed.
func (t *Tally) Worst() (lag, old time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.worstLag, t.worstOld
}

func (t *Tally) Problems() []report.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]report.Problem{}, t.problems...) // a list in JSON even when empty
}
