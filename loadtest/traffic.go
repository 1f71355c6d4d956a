package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

const (
	// updateInterval is the time between two updates of the workers.
	updateInterval = 50 * time.Millisecond
	// restBetweenBursts is the shortest time between two bursts, so that the server is idle
	// before each.
	restBetweenBursts = 200 * time.Millisecond
)

// Traffic is the traffic of a scenario with queues of patients.
type Traffic struct {
	// Patients is the number of waiting patients, Queues the number of queues and Watch the
	// number of patients on each connection, spread over one queue.
	Patients, Queues, Watch int
	// Rate is the number of calls in each queue per second. Zero is as fast as the server
	// answers.
	Rate float64
	// Doctors is the number of doctors that serve each queue at the same time.
	Doctors int
	// Burst, if not zero, is the number of patients called at the same moment. The next burst
	// starts when every client shows its position after this one.
	Burst    int
	Duration time.Duration
	// Bound is the time after which an update is late. Default DefaultBound.
	Bound time.Duration
	// Processes is the number of processes that hold the clients. 1 is this process.
	Processes int
	// Protocol is "json" or "protobuf". Default "json".
	Protocol string
	// Progress, if set, is called every report.ProgressInterval and once at the end.
	Progress func(report.Progress)

	separate bool // the clients run in another process, even if Processes is 1
}

func (t *Traffic) check() error {
	t.Queues, t.Watch, t.Doctors = cmp.Or(t.Queues, 1), cmp.Or(t.Watch, 1), cmp.Or(t.Doctors, 1)
	t.Processes, t.Bound = cmp.Or(t.Processes, 1), cmp.Or(t.Bound, DefaultBound)
	kind, err := client.ParseProtocol(t.Protocol)
	t.Protocol = string(kind)
	switch {
	case err != nil:
		return err
	case t.Queues < 0 || t.Watch < 0 || t.Doctors < 0 || t.Burst < 0 || t.Processes < 0 || t.Bound < 0:
		return errors.New("queues, watch, doctors, burst, processes and bound must be more than zero")
	case t.Patients < t.Queues*t.Watch:
		return fmt.Errorf("%d patients are too few for %d queues and %d on each connection", t.Patients, t.Queues, t.Watch)
	case t.Duration <= 0:
		return errors.New("duration must be more than zero")
	case t.Rate < 0:
		return errors.New("rate must not be less than zero")
	}
	t.Doctors = max(t.Doctors, t.Burst)
	return nil
}

// placement is the queue, rank and connection of a patient.
type placement struct {
	queue      int
	rank       int // position at the start, from 1
	connection int // number of the connection
}

// connections returns the number of connections.
func (t *Traffic) connections() int {
	n := 0
	for q := range t.Queues {
		n += t.connectionsOf(q)
	}
	return n
}

// patientsOf returns the number of patients in a queue.
func (t *Traffic) patientsOf(queue int) int {
	return (t.Patients*(queue+1))/t.Queues - (t.Patients*queue)/t.Queues
}

func (t *Traffic) connectionsOf(queue int) int {
	return (t.patientsOf(queue) + t.Watch - 1) / t.Watch
}

// placements returns the placement of every patient.
func (t *Traffic) placements() []placement {
	list := make([]placement, 0, t.Patients)
	connections := 0
	for q := range t.Queues {
		for i := range t.patientsOf(q) {
			list = append(list, placement{queue: q, rank: i + 1, connection: connections + i%t.connectionsOf(q)})
		}
		connections += t.connectionsOf(q)
	}
	return list
}

// heads returns the number of patients that a queue may lose in a run, at most.
func (t *Traffic) heads() int {
	const most = 1_000_000
	if t.Rate == 0 || t.Burst > 0 {
		return most
	}
	return int(min(most, t.Rate*t.Duration.Seconds()+float64(t.Doctors)+1))
}

// trafficRun serves queues while its workers check what the clients receive.
type trafficRun struct {
	traffic    Traffic
	workers    *workers
	departures *check.DepartureLog
	tally      *check.Tally // faults in the responses to requests
	// serve calls one patient and waits for the response. It returns errQueueEmpty if no
	// patient waits.
	serve func(ctx context.Context, queue, doctor int) error
	// afterServe does what follows a call: it ends the visit. Nil does nothing.
	afterServe func(ctx context.Context, queue, doctor int) error
	// readUsage returns the usage of the server. Nil if it is unknown.
	readUsage func(ctx context.Context) (client.Usage, error)

	mu     sync.Mutex
	status check.Status

	// Of the last run.
	started    time.Time
	took       time.Duration // duration of the serving
	begin, end check.Status
	usage      [2]client.Usage
	first      []int // departures of each queue before the run
	bursts     []burst
	result     *check.Result
	sampler    *report.Sampler
}

// burst is a burst of calls.
type burst struct {
	at time.Time
	to []int // departures of each queue after the burst
}

var errQueueEmpty = errors.New("the queue is empty")

// run serves and reports. It may be called again with other traffic for the same clients.
func (r *trafficRun) run(ctx context.Context, scenario string, requests *client.RequestStats) (*report.Report, error) {
	if err := r.play(ctx); err != nil {
		return nil, err
	}
	return r.report(scenario, requests)
}

// play serves for the duration and waits until every client is up to date.
func (r *trafficRun) play(ctx context.Context) error {
	r.bursts, r.first = nil, make([]int, r.traffic.Queues)
	for q := range r.first {
		r.first[q], _ = r.departures.Departed(q)
	}
	stop, failed := r.keepUpdating(ctx)
	defer stop()
	var err error
	if r.usage[0], err = r.serverUsage(ctx); err != nil {
		return err
	}
	if err := r.update(); err != nil {
		return err
	}
	r.begin = r.lastStatus()
	r.started = time.Now()
	r.sampler = report.NewSampler(r.started,
		report.Measure{Chart: "deliveries", Name: "deliveries", Unit: "1/s", Rate: true, Read: func() float64 { return float64(r.lastStatus().Messages) }},
		report.Measure{Chart: "behind", Name: "clients behind", Unit: "", Rate: false, Read: func() float64 { return float64(r.lastStatus().Behind) }},
	)
	stopSampling := r.sampler.Run()
	defer stopSampling()
	stopProgress := report.ShowProgress(r.traffic.Progress, func() report.Progress {
		s := r.lastStatus()
		return report.Progress{
			Done:  min(int64(time.Since(r.started).Seconds()), int64(r.traffic.Duration.Seconds())),
			Total: int64(math.Ceil(r.traffic.Duration.Seconds())), What: "seconds",
			Detail: fmt.Sprintf("%d deliveries, %d behind, %d wrong", s.Messages, s.Behind, s.Wrong),
		}
	})
	defer stopProgress()

	serving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends when stop closes failed
		if err, ok := <-failed; ok {
			cancel(err)
		}
	}()
	if r.traffic.Burst > 0 {
		err = r.serveBursts(serving)
	} else {
		err = r.serveStream(serving)
	}
	r.took = time.Since(r.started)
	if err := errors.Join(err, r.update()); err != nil {
		return err
	}
	r.end = r.lastStatus()
	if r.usage[1], err = r.serverUsage(ctx); err != nil {
		return err
	}
	return r.settle(ctx)
}

func (r *trafficRun) serverUsage(ctx context.Context) (client.Usage, error) {
	if r.readUsage == nil {
		return client.Usage{}, nil
	}
	return r.readUsage(ctx)
}

// serveStream serves every queue at its rate.
func (r *trafficRun) serveStream(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var wg sync.WaitGroup
	for q := range r.traffic.Queues {
		var next atomic.Int64
		for d := range r.traffic.Doctors {
			wg.Go(func() {
				if err := r.serveInTurn(ctx, q, d, &next); err != nil && !errors.Is(err, errQueueEmpty) {
					cancel(err)
				}
			})
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// serveInTurn lets a doctor call patients until the time is over or ctx ends. It fails with
// errQueueEmpty once no patient waits. next is the number of the next call of the queue, by
// any doctor.
func (r *trafficRun) serveInTurn(ctx context.Context, queue, doctor int, next *atomic.Int64) error {
	until := r.started.Add(r.traffic.Duration)
	for ctx.Err() == nil {
		due := time.Now()
		if r.traffic.Rate > 0 {
			due = r.started.Add(time.Duration(float64(next.Add(1)-1) / r.traffic.Rate * float64(time.Second)))
		}
		if !due.Before(until) || !time.Now().Before(until) {
			return nil // calls that the server was too slow for are skipped
		}
		if wait := time.Until(due); wait > 0 {
			if err := client.Pause(ctx, wait); err != nil {
				return err
			}
		}
		if err := r.serveOne(ctx, queue, doctor); err != nil {
			return err
		}
	}
	return nil
}

func (r *trafficRun) serveOne(ctx context.Context, queue, doctor int) error {
	if err := r.serve(ctx, queue, doctor); err != nil || r.afterServe == nil {
		return err
	}
	return r.afterServe(ctx, queue, doctor)
}

// atOnce calls do for every doctor of a burst at the same time.
func (r *trafficRun) atOnce(ctx context.Context, do func(ctx context.Context, queue, doctor int) error) error {
	errs := make([]error, r.traffic.Burst)
	var wg sync.WaitGroup
	for i := range r.traffic.Burst {
		wg.Go(func() { errs[i] = do(ctx, i%r.traffic.Queues, i/r.traffic.Queues) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serveBursts serves bursts until the duration is over.
func (r *trafficRun) serveBursts(ctx context.Context) error {
	rest := restBetweenBursts
	if r.traffic.Rate > 0 {
		rest = time.Duration(float64(time.Second) / r.traffic.Rate)
	}
	for time.Since(r.started) < r.traffic.Duration {
		b := burst{at: time.Now(), to: make([]int, r.traffic.Queues)}
		err := r.atOnce(ctx, r.serve)
		if errors.Is(err, errQueueEmpty) {
			return nil
		}
		if err != nil {
			return err
		}
		for q := range b.to {
			b.to[q], _ = r.departures.Departed(q)
		}
		r.bursts = append(r.bursts, b)
		if err := r.settle(ctx); err != nil {
			return err
		}
		if r.afterServe != nil {
			if err := r.atOnce(ctx, r.afterServe); err != nil {
				return err
			}
			if err := r.settle(ctx); err != nil {
				return err
			}
		}
		if err := client.Pause(ctx, max(rest-time.Since(b.at), restBetweenBursts)); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until every client shows the newest state or is late.
func (r *trafficRun) settle(ctx context.Context) error {
	for until := time.Now().Add(r.traffic.Bound + time.Second); ; {
		if err := r.update(); err != nil {
			return err
		}
		if r.lastStatus().Behind == 0 {
			return nil
		}
		if time.Now().After(until) {
			return nil
		}
		if err := client.Pause(ctx, updateInterval/2); err != nil {
			return err
		}
	}
}

// lastStatus returns the status after the last update.
func (r *trafficRun) lastStatus() check.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// update sends the newest departures to the workers and stores their status.
func (r *trafficRun) update() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, connections := r.departures.Next()
	s, err := r.workers.update(t, connections)
	if err != nil {
		return err
	}
	s.FirstPositions = append(r.status.FirstPositions, s.FirstPositions...)
	r.status = s
	return nil
}

// keepUpdating updates the workers until it is stopped. failed receives the error of an
// update.
func (r *trafficRun) keepUpdating(ctx context.Context) (stop func(), failed <-chan error) {
	ctx, cancel := context.WithCancel(ctx)
	failure := make(chan error, 1)
	var done sync.WaitGroup
	done.Go(func() {
		defer close(failure)
		for client.Pause(ctx, updateInterval) == nil {
			if err := r.update(); err != nil {
				failure <- err
				return
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}, failure
}

// awaitConnected waits until a number of connections are subscribed.
func (r *trafficRun) awaitConnected(ctx context.Context, connections int, limit time.Duration) error {
	for until := time.Now().Add(limit); ; {
		if err := r.update(); err != nil {
			return err
		}
		s := r.lastStatus()
		if s.Connected >= int64(connections) && s.Behind == 0 {
			return nil // all are subscribed and their first snapshots are known
		}
		if s.Refused > 0 || time.Now().After(until) {
			return fmt.Errorf("%d of %d clients are connected, %d were refused, %d attempts failed", s.Connected, connections, s.Refused, s.Failed)
		}
		if err := client.Pause(ctx, updateInterval); err != nil {
			return err
		}
	}
}

// report concludes the run and returns its report.
func (r *trafficRun) report(scenario string, requests *client.RequestStats) (*report.Report, error) {
	var err error
	truth, connections := r.departures.Next()
	if r.result, err = r.workers.conclude(truth, connections); err != nil {
		return nil, err
	}
	result := report.New(scenario, r.started)
	result.Took = r.took.Seconds()
	r.addSettings(result)
	r.addTraffic(result)
	r.addChecks(result)
	r.addLatency(result)
	if requests != nil {
		requests.AddTo(result)
		r.result.Faults.FailedRequests += requests.Failed.Load()
	}
	r.sampler.AddTo(result)
	found := r.tally.Faults()
	found.Add(r.result.Faults)
	result.Faults = &found
	result.Problems = append(r.tally.Problems(), r.result.Problems...)
	result.Conclude()
	return result, nil
}

func (r *trafficRun) addSettings(result *report.Report) {
	t := r.traffic
	result.AddSetting("patients", "%d in %d queues, %d on each connection: %d connections", t.Patients, t.Queues, t.Watch, t.connections())
	switch {
	case t.Burst > 0:
		result.AddSetting("served", "%d patients at the same moment, the next when every client is up to date", t.Burst)
	case t.Rate > 0:
		result.AddSetting("served", "%g patients a second in each queue by %d doctors", t.Rate, t.Doctors)
	default:
		result.AddSetting("served", "as fast as the server answers, by %d doctors in each queue", t.Doctors)
	}
	result.AddSetting("protocol", "%s", t.Protocol)
	result.AddSetting("clients", "in %d processes on %d cores", t.Processes, runtime.NumCPU())
}

// addTraffic adds what clients received, and what it cost the server.
func (r *trafficRun) addTraffic(result *report.Report) {
	seconds := r.took.Seconds()
	messages := r.end.Messages - r.begin.Messages
	frames := r.end.Frames - r.begin.Frames
	conveyed := r.end.Conveyed - r.begin.Conveyed
	heads := 0
	for q := range r.traffic.Queues {
		n, _ := r.departures.Departed(q)
		heads += n - r.first[q]
	}
	result.AddFigures("traffic",
		report.Figure{Name: "deliveries", Value: float64(messages) / seconds, Unit: "1/s", Headline: true, Note: "publications that clients received"},
		report.Figure{Name: "changes conveyed", Value: float64(conveyed) / seconds, Unit: "1/s", Note: "a position that replaces skipped ones counts for all of them"},
		report.Figure{Name: "frames", Value: float64(frames) / seconds, Unit: "1/s"},
		report.Figure{Name: "patients called", Value: float64(heads) / seconds, Unit: "1/s", Note: fmt.Sprintf("%d in total", heads)},
	)
	if cpu := r.usage[1].CPU - r.usage[0].CPU; r.readUsage != nil && messages > 0 {
		result.AddFigures("cost of the server",
			report.Figure{Name: "CPU per million deliveries", Value: cpu / float64(messages) * 1e6, Unit: "s", Headline: true},
			report.Figure{Name: "CPU per million changes conveyed", Value: cpu / float64(max(conveyed, 1)) * 1e6, Unit: "s"},
			report.Figure{Name: "CPU", Value: cpu / seconds, Unit: "cores"},
		)
		if r.usage[1].Resident > 0 {
			result.AddFigures("cost of the server",
				report.Figure{Name: "resident", Value: r.usage[1].Resident / (1 << 20), Unit: "MB"},
				report.Figure{Name: "goroutines", Value: r.usage[1].Goroutines},
			)
		}
	}
}

// addChecks adds how old the positions were that clients showed, and what was checked.
func (r *trafficRun) addChecks(result *report.Report) {
	o := r.result
	result.AddFigures("freshness",
		report.Figure{Name: "age of what a client shows, p99", Value: report.Milliseconds(o.Ages.RampQuantile(0.99, o.Watched)), Unit: "ms", Headline: true, Note: "time since it was true, over all clients and the whole run"},
		report.Figure{Name: "age of what a client shows, p50", Value: report.Milliseconds(o.Ages.RampQuantile(0.5, o.Watched)), Unit: "ms"},
	)
	result.AddFigures("checks",
		report.Count("positions checked", o.Checked, ""),
		report.Count("snapshots checked", o.Snapshots, ""),
		report.Count("positions skipped", o.Conflated, "replaced by a newer one"),
		report.Count("reconnects", r.end.Reconnects-r.begin.Reconnects, ""),
		report.Count("failed attempts to connect", r.end.Failed-r.begin.Failed, ""),
	)
}

func (r *trafficRun) addLatency(result *report.Report) {
	result.AddCurve("latency", changeToClient, &r.result.Latency)
	last, all := r.lastClientLatency()
	result.AddCurve("latency", headToLast, last)
	if r.traffic.Burst > 0 {
		result.AddCurve("latency", burstToLast, all)
	}
	if r.result.Called.Count() > 0 {
		result.AddCurve("latency", "patient called → own call received", &r.result.Called)
	}
}

// The names of the curves by which runs are compared.
const (
	changeToClient = "change sent → own new position"
	headToLast     = "patient called → last client"
	burstToLast    = "patients called at once → every client"
)

// lastClientLatency measures how long each departure took to reach the last client behind it,
// and each burst to reach every client.
func (r *trafficRun) lastClientLatency() (last, bursts *report.Histogram) {
	last, bursts = new(report.Histogram), new(report.Histogram)
	shown := func(queue, k int) int64 {
		if queue < len(r.result.Last) && k < len(r.result.Last[queue]) {
			return r.result.Last[queue][k]
		}
		return 0
	}
	for q, d := range r.departures.All() {
		for k := r.first[q]; k < len(d.Answered); k++ {
			if at := shown(q, k); at != 0 {
				last.Add(time.Duration(at - d.Sent[k]))
			}
		}
	}
	for _, b := range r.bursts {
		at := int64(0)
		for q, to := range b.to {
			if to > 0 {
				at = max(at, shown(q, to-1))
			}
		}
		if at > b.at.UnixNano() {
			bursts.Add(time.Duration(at - b.at.UnixNano()))
		}
	}
	return last, bursts
}
