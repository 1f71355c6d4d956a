package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/centrifugal/protocol"
)

const (
	// DefaultBound is how long a client may hold a position that is no longer true.
	DefaultBound = 5 * time.Second
	// DefaultMaxResources caps the resources made for one service.
	DefaultMaxResources = 100

	// waitMargin is kept free below maxWaitMinutes.
	waitMargin = 5 * time.Minute
)

// ReplayOptions says what to replay against which servers.
type ReplayOptions struct {
	Trace *Trace
	// Day is one day of the trace, "all", or empty for the first.
	Day string
	// Nodes are the servers' addresses. Requests and connections take turns.
	Nodes []string
	// Key is an account API key: it makes an organization of its own.
	Key string
	// Speed is how many times faster than recorded the trace is played.
	Speed float64
	// Protocol is "json" (default) or "protobuf".
	Protocol string
	// Bound is how long a client may stay behind the truth; DefaultBound if zero.
	Bound time.Duration
	// MaxResources caps the resources of a service; DefaultMaxResources if zero.
	MaxResources int
	// RollingRestart, if set, restarts the nodes while the replay runs.
	RollingRestart *RollingRestart
	// code is every one-time code of the server, if patients sign in.
	code        string
	recallPause time.Duration // the constant, except in tests
	// Progress, if set, is called a few times a second and once at the end.
	Progress func(report.Progress)
}

// Replay plays a trace through the public API and checks what every patient's
// client was told. It returns a report whenever the clinic could be set up; the
// error says why a replay stopped early.
//
// Each service is played by one goroutine: its joins, calls and cancellations
// are made one after another, each awaited, so the truth is a definite sequence
// of states. Starts and ends do not move anybody and run beside it. Each patient
// has a live connection from the join until the end of the service.
func Replay(ctx context.Context, opts ReplayOptions) (*report.Report, error) {
	r, err := newReplay(opts)
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.run(ctx, "replay")
}

// run plays everything and reports.
func (r *replay) run(ctx context.Context, scenario string) (*report.Report, error) {
	if err := r.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up the clinic: %w", err)
	}

	started := time.Now()
	samples := report.NewSampler(started,
		report.Measure{Chart: "deliveries", Name: "updates received", Unit: "per second", Rate: true, Read: report.Gauge(&r.stats.Messages)},
		report.Measure{Chart: "people", Name: "waiting", Read: report.Gauge(&r.waiting)},
		report.Measure{Chart: "people", Name: "live connections", Read: report.Gauge(&r.stats.Connected)},
	)
	stopSamples, stopProgress := samples.Run(), report.ShowProgress(r.opts.Progress, r.progress)
	stopRolling := r.opts.RollingRestart.run(ctx, r.api.Nodes, samples)
	var err error
	for _, day := range r.days {
		if err = r.playDay(ctx, r.plans(day)); err != nil {
			break
		}
	}
	rollErr := stopRolling()
	stopProgress()
	stopSamples()

	result := report.New(scenario, started)
	result.Interrupted = err != nil
	result.AddSetting("trace", "%s, %s", filepath.Base(r.opts.Trace.Name), strings.Join(r.days, " "))
	result.AddSetting("against", "%s (%s)", strings.Join(r.api.Nodes, " "), r.protocol)
	result.AddSetting("speed", "%g times", r.opts.Speed)
	result.AddSetting("bound", "%v", r.opts.Bound)
	result.AddSetting("clinic", "%d services, %d resources", len(r.services), r.resources)
	r.fill(result)
	samples.AddTo(result)
	result.Conclude()
	if rollErr != nil {
		result.Fail("a restart failed", rollErr)
	}
	return result, err
}

// fill takes over what was counted.
func (r *replay) fill(result *report.Report) {
	lag, old := r.tally.Worst()
	result.AddFigures("visits",
		report.Figure{Name: "visits", Value: float64(r.visits.Load()), Headline: true},
		report.Count("served", r.served.Load(), ""),
		report.Count("left", r.left.Load(), "without being served"),
		report.Count("most waiting at once", r.peakWaiting.Load(), ""),
		report.Figure{Name: "most behind schedule", Value: report.Milliseconds(lag), Unit: "ms"},
	)
	if result.Scenario == dayScenario {
		r.fillDay(result)
	}
	result.AddFigures("live connections",
		report.Count("opened", r.stats.Opened.Load(), ""),
		report.Count("most open at once", r.stats.Peak.Load(), ""),
		report.Count("reconnects", r.stats.Reconnects.Load(), ""),
		report.Count("failed attempts", r.stats.Failed.Load(), ""),
	)
	result.AddFigures("checked against the truth",
		report.Count("updates received", r.stats.Messages.Load(), ""),
		report.Figure{Name: "positions checked", Value: float64(r.tally.Checked.Load()), Headline: true},
		report.Count("snapshots checked", r.tally.Snapshots.Load(), "among the positions"),
		report.Count("positions skipped", r.tally.Conflated.Load(), "a newer one came at once"),
		report.Figure{Name: "oldest stale snapshot", Value: report.Milliseconds(old), Unit: "ms"},
	)
	result.AddCurve("from a change to the client", "change sent → position told", &r.tally.Latency)
	result.AddCurve("from a change to the client", "assign sent → patient told", &r.tally.CallLatency)
	faults := r.tally.Faults()
	faults.FailedRequests = r.api.Requests.Failed.Load()
	faults.RefusedClients = r.stats.Refused.Load()
	result.Faults = &faults
	result.Problems = r.tally.Problems()
	r.api.Requests.AddTo(result)
}

// replay is one run.
type replay struct {
	opts     ReplayOptions
	days     []string
	total    int64
	protocol protocol.Type
	api      *client.API
	stats    *client.Stats
	tally    *check.Tally

	// plans gives what happens on a day, by the moment of arrival.
	plans     func(day string) []visitPlan
	services  map[string]*service
	resources int
	clients   atomic.Int64 // made so far; picks the node each begins with

	visits         atomic.Int64 // over and done with
	served         atomic.Int64
	left           atomic.Int64
	held           atomic.Int64
	noShows        atomic.Int64
	recalls        atomic.Int64
	refusedRecalls atomic.Int64 // calls again that were refused, rightly
	transferred    atomic.Int64
	joinedByPhone  atomic.Int64
	waiting        atomic.Int64
	peakWaiting    atomic.Int64
	lag            atomic.Int64 // of the last change sent, nanoseconds
}

// service is one service of the trace, as the server knows it.
type service struct {
	typeID    string
	queue     *check.Queue
	resources *resourcePool
}

// patient is one visit while it lasts.
type patient struct {
	plan         visitPlan
	api          *client.API // what the patient can do itself
	watcher      *check.Watcher
	disconnect   context.CancelFunc
	disconnected chan struct{} // closed when the live connection is over

	held        bool
	called      time.Time     // the last time
	transferred chan struct{} // closed when the next service has taken over
}

func newReplay(opts ReplayOptions) (*replay, error) {
	if opts.Trace == nil || len(opts.Trace.Visits) == 0 {
		return nil, errors.New("no trace")
	}
	if opts.Key == "" {
		return nil, errors.New("an account API key is needed")
	}
	if !(opts.Speed > 0) {
		return nil, fmt.Errorf("speed must be more than zero, not %g", opts.Speed)
	}
	opts.Bound = cmp.Or(opts.Bound, DefaultBound)
	opts.MaxResources = cmp.Or(opts.MaxResources, DefaultMaxResources)
	opts.recallPause = cmp.Or(opts.recallPause, recallPause)
	if opts.Bound < 0 || opts.MaxResources < 0 {
		return nil, errors.New("bound and the cap on resources must be more than zero")
	}
	kind, err := client.ParseProtocol(opts.Protocol)
	if err != nil {
		return nil, err
	}
	nodes, err := client.ParseNodes(opts.Nodes)
	if err != nil {
		return nil, err
	}
	days, err := opts.Trace.pick(opts.Day)
	if err != nil {
		return nil, err
	}
	r := &replay{
		opts:     opts,
		days:     days,
		protocol: kind,
		api:      client.NewAPI(nodes, opts.Key, client.NewRequestStats()),
		stats:    new(client.Stats),
		tally:    check.NewTally(),
		services: map[string]*service{},
	}
	r.plans = func(day string) []visitPlan {
		visits := opts.Trace.day(day)
		list := make([]visitPlan, len(visits))
		for i, v := range visits {
			list[i].Visit = v
		}
		return list
	}
	for _, day := range days {
		visits := opts.Trace.day(day)
		r.total += int64(len(visits))
		if err := checkWaits(visits, opts.Speed); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// checkWaits refuses a speed at which somebody would wait longer than the
// server keeps a booking waiting.
func checkWaits(visits []Visit, speed float64) error {
	closing := closingTime(visits)
	for _, v := range visits {
		until := v.Called
		if until.IsZero() {
			until = closing
		}
		wait := time.Duration(float64(until.Sub(v.Arrived)) / speed)
		if wait > client.MaxWaitMinutes*time.Minute-waitMargin {
			return fmt.Errorf("visit %s would wait %v at speed %g, longer than a booking may: play it faster", v.ID, wait.Round(time.Minute), speed)
		}
	}
	return nil
}

// closingTime is the last moment of a day's visits: who still waits then leaves.
func closingTime(visits []Visit) time.Time {
	var last time.Time
	for _, v := range visits {
		last = check.Later(last, check.Later(v.Arrived, check.Later(v.Called, v.Completed)))
	}
	return last
}

func (r *replay) close() {
	r.api.Close()
}

// setUp makes an organization with a type for each service and as many resources
// as were busy at once.
func (r *replay) setUp(ctx context.Context) error {
	name := fmt.Sprintf("Replay of %s, %s", filepath.Base(r.opts.Trace.Name), strings.Join(r.days, " "))
	tenant, err := r.api.CreateOrganization(ctx, name)
	if err != nil {
		return err
	}
	r.api.Tenant = tenant
	for _, plan := range r.opts.Trace.plan(r.days, r.opts.MaxResources) {
		kind, err := r.api.CreateType(ctx, plan.name, plan.minutes)
		if err != nil {
			return err
		}
		desks := make([]string, plan.resources)
		for i := range desks {
			if desks[i], err = r.api.CreateResource(ctx, fmt.Sprintf("%s %d", plan.name, i+1), kind.ID); err != nil {
				return err
			}
		}
		r.resources += len(desks)
		r.services[plan.name] = &service{
			typeID:    kind.ID,
			queue:     check.NewQueue(kind.Minutes, r.opts.Bound, r.tally),
			resources: newResourcePool(desks),
		}
	}
	return nil
}

// playDay plays one day from its first arrival until everybody has left.
func (r *replay) playDay(parent context.Context, day []visitPlan) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	clock := schedule{begin: time.Now(), origin: day[0].Arrived, speed: r.opts.Speed}

	byService := map[string][]visitPlan{}
	handovers := map[string]chan *patient{}
	var closing time.Time
	for _, plan := range day {
		byService[plan.Service] = append(byService[plan.Service], plan)
		closing = check.Later(closing, plan.end())
		if plan.transferred {
			handovers[plan.ID] = make(chan *patient, 1)
		}
	}
	var lanes, patients sync.WaitGroup
	for name, list := range byService {
		lanes.Go(func() {
			s := &serviceReplay{replay: r, service: r.services[name], clock: clock, patients: &patients, transfers: handovers, present: map[string]*patient{}}
			if err := s.play(ctx, list, closing); err != nil {
				cancel(err)
			}
		})
	}
	lanes.Wait()
	patients.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (r *replay) progress() report.Progress {
	return report.Progress{
		Done:  r.visits.Load(),
		Total: r.total,
		What:  "visits",
		Detail: fmt.Sprintf("%d waiting, %d updates, %d wrong, %v behind", r.waiting.Load(), r.stats.Messages.Load(),
			r.tally.Total.Load()+r.api.Requests.Failed.Load()+r.stats.Refused.Load(),
			max(time.Duration(r.lag.Load()), 0).Round(time.Millisecond)),
	}
}

// resourcePool hands out the resources of a service. It is safe for concurrent use.
type resourcePool struct {
	ids  []string
	mu   sync.Mutex
	busy []int // patients with each
}

func newResourcePool(ids []string) *resourcePool {
	return &resourcePool{ids: ids, busy: make([]int, len(ids))}
}

// take returns the resource with the fewest patients: a free one, unless the
// server has fallen behind the trace or the cap is below its need.
func (r *resourcePool) take() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := 0
	for i, n := range r.busy {
		if n < r.busy[least] {
			least = i
		}
	}
	r.busy[least]++
	return least
}

func (r *resourcePool) release(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy[i]--
}
