package loadtest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/report"
)

// faultKind names one way in which a client was told something else than the truth.
type faultKind int

const (
	wrongPosition faultKind = iota // a position the booking never had
	wrongEstimate                  // not position × minutes
	wrongNews                      // assigned, canceled, ended or expired when it was not, or with wrong particulars
	staleSnapshot                  // a state that stopped being true before the snapshot was asked for
	missed                         // a change the client never learned
	late                           // a change it learned after the bound
	outOfOrder                     // back in time
	duplicate                      // the same told twice
	malformed                      // not what the contract promises
	faultKinds
)

var faultNames = [faultKinds]string{
	"wrong position", "wrong estimate", "wrong news", "stale snapshot", "missed", "late", "out of order", "duplicate", "malformed",
}

// tally collects what the checks find. It is safe for concurrent use.
type tally struct {
	latency     report.Histogram // change sent → new position received
	callLatency report.Histogram // assign sent → MY_BOOKING_ASSIGNED received
	checked     atomic.Int64
	snapshots   atomic.Int64
	conflated   atomic.Int64
	total       atomic.Int64

	mu        sync.Mutex
	faults    [faultKinds]int64
	worstLag  time.Duration
	worstOld  time.Duration
	problems  []report.Problem
	described map[string]int
}

func newTally() *tally {
	return &tally{described: map[string]int{}}
}

// fault counts one fault and keeps a description of the first few.
func (t *tally) fault(kind faultKind, booking, format string, args ...any) {
	t.total.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[kind]++
	t.describe(faultNames[kind], booking, format, args...)
}

// problem describes something that is counted elsewhere.
func (t *tally) problem(kind, booking, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.describe(kind, booking, format, args...)
}

func (t *tally) describe(kind, booking, format string, args ...any) {
	if t.described[kind] == report.MaxProblems {
		return
	}
	t.described[kind]++
	t.problems = append(t.problems, report.Problem{Kind: kind, Booking: booking, Detail: fmt.Sprintf(format, args...)})
}

func (t *tally) stale(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.worstOld = max(t.worstOld, d)
}

// behind notes how late a change was sent against the schedule.
func (t *tally) behind(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.worstLag = max(t.worstLag, d)
}

// faultCounts returns the faults found in what clients were told.
func (t *tally) faultCounts() report.Faults {
	t.mu.Lock()
	defer t.mu.Unlock()
	return report.Faults{
		WrongPositions: t.faults[wrongPosition],
		WrongEstimates: t.faults[wrongEstimate],
		WrongNews:      t.faults[wrongNews],
		StaleSnapshots: t.faults[staleSnapshot],
		Missed:         t.faults[missed],
		Late:           t.faults[late],
		OutOfOrder:     t.faults[outOfOrder],
		Duplicates:     t.faults[duplicate],
		Malformed:      t.faults[malformed],
	}
}

// worst returns the longest delay against the schedule and the oldest state
// that a stale snapshot showed.
func (t *tally) worst() (lag, old time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.worstLag, t.worstOld
}

func (t *tally) allProblems() []report.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]report.Problem{}, t.problems...) // a list in JSON even when empty
}
