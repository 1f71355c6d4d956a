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
	// DefaultBound is the time after which an update is late. 5 s.
	DefaultBound = 5 * time.Second
	// DefaultMaxResources is the largest number of resources for one service. 100.
	DefaultMaxResources = 100

	// waitMargin is kept free below client.MaxWaitMinutes.
	waitMargin = 5 * time.Minute
)

// ReplayOptions are the options of Replay.
type ReplayOptions struct {
	Trace *Trace
	// Day is one day of the trace, or "all". Default the first day.
	Day string
	// Nodes are the servers' addresses. Requests and connections use them in turn.
	Nodes []string
	// Key is an account API key. The scenario creates an organization with it.
	Key string
	// Speed is the factor by which the trace is replayed faster than recorded.
	Speed float64
	// Protocol is "json" or "protobuf". Default "json".
	Protocol string
	// Bound is the time after which an update is late. Default DefaultBound.
	Bound time.Duration
	// MaxResources is the largest number of resources of a service. Default
	// DefaultMaxResources.
	MaxResources int
	// RollingRestart, if set, restarts the nodes during the replay.
	RollingRestart *RollingRestart
	// code is the server's fixed one-time code, if patients sign in.
	code        string
	recallPause time.Duration // the constant recallPause, except in tests
	// Progress, if set, is called every report.ProgressInterval and once at the end.
	Progress func(report.Progress)
}

// Replay replays a trace through the public API and checks what every patient's client
// receives. It returns a report once the clinic is set up; the error is the reason why a
// replay stopped early.
//
// One goroutine replays each service: its joins, calls and cancellations are made one after
// another, each awaited, so that the truth is a definite sequence of states. Starts and ends
// change no position and run concurrently. Each patient has a live connection from the join to
// the end of the visit.
func Replay(ctx context.Context, opts ReplayOptions) (*report.Report, error) {
	r, err := newReplay(opts)
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.run(ctx, "replay")
}

// run replays all days and reports.
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

// fill adds the figures, curves and faults to the report.
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
		report.Count("positions skipped", r.tally.Conflated.Load(), "replaced by a newer one"),
		report.Figure{Name: "oldest stale snapshot", Value: report.Milliseconds(old), Unit: "ms"},
	)
	result.AddCurve("from a change to the client", "change sent → position received", &r.tally.Latency)
	result.AddCurve("from a change to the client", "assign sent → call received", &r.tally.CallLatency)
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

	// plans returns the visits of a day, by the moment of arrival.
	plans     func(day string) []visitPlan
	services  map[string]*service
	resources int
	clients   atomic.Int64 // clients so far; selects the first node of each

	visits         atomic.Int64 // visits that are over
	served         atomic.Int64
	left           atomic.Int64
	held           atomic.Int64
	noShows        atomic.Int64
	recalls        atomic.Int64
	refusedRecalls atomic.Int64 // recalls that were correctly refused
	transferred    atomic.Int64
	joinedByPhone  atomic.Int64
	waiting        atomic.Int64
	peakWaiting    atomic.Int64
	lag            atomic.Int64 // delay of the last change, nanoseconds
}

// service is one service of the trace on the server.
type service struct {
	typeID    string
	queue     *check.Queue
	resources *resourcePool
}

// patient is one current visit.
type patient struct {
	plan         visitPlan
	api          *client.API // authenticated as the patient
	watcher      *check.Watcher
	disconnect   context.CancelFunc
	disconnected chan struct{} // closed when the live connection has ended

	held        bool
	called      time.Time     // time of the last call
	transferred chan struct{} // closed when the patient has joined the next service
}

func newReplay(opts ReplayOptions) (*replay, error) {
	if opts.Trace == nil || len(opts.Trace.Visits) == 0 {
		return nil, errors.New("no trace")
	}
	if opts.Key == "" {
		return nil, errors.New("an account API key is required")
	}
	if !(opts.Speed > 0) {
		return nil, fmt.Errorf("speed must be more than zero, not %g", opts.Speed)
	}
	opts.Bound = cmp.Or(opts.Bound, DefaultBound)
	opts.MaxResources = cmp.Or(opts.MaxResources, DefaultMaxResources)
	opts.recallPause = cmp.Or(opts.recallPause, recallPause)
	if opts.Bound < 0 || opts.MaxResources < 0 {
		return nil, errors.New("bound and the limit of resources must be more than zero")
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

// checkWaits returns an error if a patient would wait longer than the server keeps a waiting
// booking.
func checkWaits(visits []Visit, speed float64) error {
	closing := closingTime(visits)
	for _, v := range visits {
		until := v.Called
		if until.IsZero() {
			until = closing
		}
		wait := time.Duration(float64(until.Sub(v.Arrived)) / speed)
		if wait > client.MaxWaitMinutes*time.Minute-waitMargin {
			return fmt.Errorf("visit %s would wait %v at speed %g, longer than a booking may: use a higher speed", v.ID, wait.Round(time.Minute), speed)
		}
	}
	return nil
}

// closingTime returns the last moment of a day's visits. Patients who still wait then leave.
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

// setUp creates an organization with a booking type for each service and as many resources as
// were busy at once.
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

// playDay replays one day from the first arrival until all patients have left.
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
	var services, patients sync.WaitGroup
	for name, list := range byService {
		services.Go(func() {
			s := &serviceReplay{replay: r, service: r.services[name], clock: clock, patients: &patients, transfers: handovers, present: map[string]*patient{}}
			if err := s.play(ctx, list, closing); err != nil {
				cancel(err)
			}
		})
	}
	services.Wait()
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

// resourcePool assigns the resources of a service. It is safe for concurrent use.
type resourcePool struct {
	ids  []string
	mu   sync.Mutex
	busy []int // number of patients, by resource
}

func newResourcePool(ids []string) *resourcePool {
	return &resourcePool{ids: ids, busy: make([]int, len(ids))}
}

// take returns the resource with the fewest patients. It is free unless the server is behind
// the trace or the limit is below the need.
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
