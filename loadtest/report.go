package loadtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
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

// maxProblems is how many problems of each kind are described; the rest are counted.
const maxProblems = 5

// tally collects what the checks find. It is safe for concurrent use.
type tally struct {
	latency     histogram // change sent → new position received
	callLatency histogram // assign sent → MY_BOOKING_ASSIGNED received
	checked     atomic.Int64
	snapshots   atomic.Int64
	conflated   atomic.Int64
	total       atomic.Int64

	mu        sync.Mutex
	faults    [faultKinds]int64
	worstLag  time.Duration
	worstOld  time.Duration
	problems  []Problem
	described map[string]int
}

func newTally() *tally {
	return &tally{described: map[string]int{}}
}

// fault counts one fault and keeps a description of the first few.
func (t *tally) fault(kind faultKind, w *watch, format string, args ...any) {
	t.total.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[kind]++
	t.describe(faultNames[kind], w.booking, format, args...)
}

// problem describes something that is counted elsewhere.
func (t *tally) problem(kind, booking, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.describe(kind, booking, format, args...)
}

func (t *tally) describe(kind, booking, format string, args ...any) {
	if t.described[kind] == maxProblems {
		return
	}
	t.described[kind]++
	t.problems = append(t.problems, Problem{Kind: kind, Booking: booking, Detail: fmt.Sprintf(format, args...)})
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

// Latency sums up a distribution, in milliseconds.
type Latency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Problem describes one fault.
type Problem struct {
	Kind    string `json:"kind"`
	Booking string `json:"booking,omitempty"`
	Detail  string `json:"detail"`
}

// Faults counts what was wrong, by kind.
type Faults struct {
	WrongPositions int64 `json:"wrongPositions"`
	WrongEstimates int64 `json:"wrongEstimates"`
	WrongNews      int64 `json:"wrongNews"`
	StaleSnapshots int64 `json:"staleSnapshots"`
	Missed         int64 `json:"missed"`
	Late           int64 `json:"late"`
	OutOfOrder     int64 `json:"outOfOrder"`
	Duplicates     int64 `json:"duplicates"`
	Malformed      int64 `json:"malformed"`
	FailedRequests int64 `json:"failedRequests"`
	RefusedClients int64 `json:"refusedClients"`
}

// Report is the outcome of a replay. Latency is counted from the moment the
// HTTP request of a change was first sent until the client had read its new
// position, so it holds the server's whole work: the request, the commit and
// the way to the client.
type Report struct {
	Trace       string   `json:"trace"`
	Days        []string `json:"days"`
	Nodes       []string `json:"nodes"`
	Protocol    string   `json:"protocol"`
	Speed       float64  `json:"speed"`
	BoundMS     float64  `json:"boundMs"`
	Took        float64  `json:"tookSeconds"`
	Interrupted bool     `json:"interrupted"`
	OK          bool     `json:"ok"`

	Services    int   `json:"services"`
	Resources   int   `json:"resources"`
	Visits      int64 `json:"visits"`
	Served      int64 `json:"served"`
	Left        int64 `json:"left"`
	PeakWaiting int64 `json:"peakWaiting"`

	Connections       int64 `json:"liveConnections"`
	PeakConnections   int64 `json:"peakLiveConnections"`
	Reconnects        int64 `json:"reconnects"`
	FailedConnections int64 `json:"failedConnectionAttempts"`

	Updates          int64   `json:"updates"`
	PositionsChecked int64   `json:"positionsChecked"`
	SnapshotsChecked int64   `json:"snapshotsChecked"`
	PositionsSkipped int64   `json:"positionsSkipped"`
	RequestsRepeated int64   `json:"requestsRepeated"`
	MaxBehindMS      float64 `json:"maxBehindScheduleMs"`
	OldestSnapshotMS float64 `json:"oldestStaleSnapshotMs"`

	PositionLatency Latency            `json:"positionLatencyMs"`
	CallLatency     Latency            `json:"callLatencyMs"`
	Requests        map[string]Latency `json:"requestsMs"`

	Faults   Faults    `json:"faults"`
	Problems []Problem `json:"problems"`
}

// fill takes over what was collected and decides whether all was well.
func (r *Report) fill(t *tally, live *liveStats, requests *requestStats) {
	r.Connections = live.opened.Load()
	r.PeakConnections = live.peak.Load()
	r.Reconnects = live.reconnects.Load()
	r.FailedConnections = live.failed.Load()
	r.Updates = live.messages.Load()
	r.PositionsChecked = t.checked.Load()
	r.SnapshotsChecked = t.snapshots.Load()
	r.PositionsSkipped = t.conflated.Load()
	r.RequestsRepeated = requests.repeated.Load()
	r.PositionLatency = t.latency.summary()
	r.CallLatency = t.callLatency.summary()
	r.Requests = requests.summary()

	t.mu.Lock()
	defer t.mu.Unlock()
	r.MaxBehindMS = milliseconds(t.worstLag)
	r.OldestSnapshotMS = milliseconds(t.worstOld)
	r.Faults = Faults{
		WrongPositions: t.faults[wrongPosition],
		WrongEstimates: t.faults[wrongEstimate],
		WrongNews:      t.faults[wrongNews],
		StaleSnapshots: t.faults[staleSnapshot],
		Missed:         t.faults[missed],
		Late:           t.faults[late],
		OutOfOrder:     t.faults[outOfOrder],
		Duplicates:     t.faults[duplicate],
		Malformed:      t.faults[malformed],
		FailedRequests: requests.failed.Load(),
		RefusedClients: live.refused.Load(),
	}
	r.Problems = append([]Problem{}, t.problems...) // a list in JSON even when empty
	r.OK = !r.Interrupted && r.Faults == Faults{}
}

// WriteJSON writes the report as one JSON document.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(out io.Writer) error {
	var text strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&text, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("trace", "%s, %s", r.Trace, strings.Join(r.Days, " "))
	row("against", "%s (%s)", strings.Join(r.Nodes, " "), r.Protocol)
	row("speed", "%g times, %.1f s, at most %.0f ms behind schedule", r.Speed, r.Took, r.MaxBehindMS)
	row("clinic", "%d services, %d resources", r.Services, r.Resources)
	row("visits", "%d: %d served, %d left; at most %d waiting", r.Visits, r.Served, r.Left, r.PeakWaiting)
	row("live connections", "%d opened, at most %d at once, %d reconnects, %d failed attempts", r.Connections, r.PeakConnections, r.Reconnects, r.FailedConnections)
	row("updates received", "%d", r.Updates)
	row("positions checked", "%d, of them %d snapshots; %d positions skipped by a newer one", r.PositionsChecked, r.SnapshotsChecked, r.PositionsSkipped)
	fmt.Fprintf(&text, "\nmilliseconds\tcount\tp50\tp90\tp99\tmax\n")
	times := func(name string, l Latency) {
		fmt.Fprintf(&text, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\n", name, l.Count, l.P50, l.P90, l.P99, l.Max)
	}
	times("change sent → position told", r.PositionLatency)
	times("assign sent → patient told", r.CallLatency)
	for _, operation := range slices.Sorted(maps.Keys(r.Requests)) {
		times("request "+operation, r.Requests[operation])
	}
	text.WriteString("\n")
	row("wrong positions", "%d", r.Faults.WrongPositions)
	row("wrong estimates", "%d", r.Faults.WrongEstimates)
	row("wrong news", "%d", r.Faults.WrongNews)
	row("stale snapshots", "%d (oldest %.1f ms)", r.Faults.StaleSnapshots, r.OldestSnapshotMS)
	row("missed updates", "%d", r.Faults.Missed)
	row("late updates", "%d (after %.0f ms)", r.Faults.Late, r.BoundMS)
	row("out of order", "%d", r.Faults.OutOfOrder)
	row("duplicates", "%d", r.Faults.Duplicates)
	row("malformed", "%d", r.Faults.Malformed)
	row("failed requests", "%d (%d attempts repeated)", r.Faults.FailedRequests, r.RequestsRepeated)
	row("refused clients", "%d", r.Faults.RefusedClients)
	verdict := "every client was told the truth"
	switch {
	case r.Interrupted:
		verdict = "interrupted"
	case !r.OK:
		verdict = "NOT every client was told the truth"
	}
	row("verdict", "%s", verdict)
	for _, p := range r.Problems {
		fmt.Fprintf(&text, "\n%s: booking %s: %s", p.Kind, p.Booking, p.Detail)
	}
	if len(r.Problems) > 0 {
		fmt.Fprintf(&text, "\n(at most %d of each kind are shown)\n", maxProblems)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
