package loadtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"nowserving/loadtest/report"
)

const (
	// benchBurst is the number of patients called at once in a comparison.
	benchBurst = 20
	// pacedDeliveries is the number of deliveries a second in a paced run. It is so low that
	// each change has been delivered before the next.
	pacedDeliveries = 20_000
	// overload is the rate of the overload stage, in multiples of the capacity.
	overload = 4
	// benchDoctors is the number of doctors in a comparison.
	benchDoctors = 2 * benchBurst
	// benchBound is the bound of a comparison. It is long because the delay is what is
	// measured.
	benchBound = time.Minute
)

// BenchOptions are the options of Bench.
type BenchOptions struct {
	// Nodes are the servers and Key an account API key of theirs.
	Nodes []string
	Key   string
	// Centrifugo is compared too if its URL is set.
	Centrifugo CentrifugoOptions
	// Connections are the numbers of clients to compare with, Watch the number of patients on
	// each connection.
	Connections []int
	Watch       int
	// Rounds is the number of rounds. In each round every candidate runs every stage for
	// Duration.
	Rounds   int
	Duration time.Duration
	// Writers, Processes, Protocol and Progress are passed to the scenarios.
	Writers   int
	Processes int
	Protocol  string
	Progress  func(report.Progress)

	inProcess bool // run all in this process, for tests
}

// Bench runs the same traffic over bare sockets and through the servers in turn, several
// times, and reports medians and their ratios. Other load on the machine affects all
// candidates alike.
func Bench(ctx context.Context, opts BenchOptions) (*report.Report, error) {
	if opts.Rounds < 1 || len(opts.Connections) == 0 {
		return nil, errors.New("rounds and connections must be more than zero")
	}
	started := time.Now()
	result := report.New("bench", started)
	result.AddSetting("rounds", "%d, each candidate in turn for %v; medians", opts.Rounds, opts.Duration)
	result.AddSetting("protocol", "%s, %d patients on each connection", opts.Protocol, max(1, opts.Watch))
	result.AddSetting("machine", "%d cores, for servers and clients", runtime.NumCPU())
	found := report.Faults{}
	for _, n := range opts.Connections {
		b := &bench{opts: opts, connections: n}
		if err := b.run(ctx); err != nil {
			return nil, fmt.Errorf("%d connections: %w", n, err)
		}
		b.fill(result)
		found.Add(b.faults)
		result.Problems = append(result.Problems, b.problems...)
	}
	result.Took = time.Since(started).Seconds()
	result.Faults = &found
	result.Conclude()
	return result, nil
}

// bench is the comparison for one number of connections.
type bench struct {
	opts        BenchOptions
	connections int
	candidates  []*candidate // floor, service and, if set, centrifugo
	resident    float64      // KB of the server for each idle connection
	capacity    float64      // patients a second that the floor can call
	faults      report.Faults
	problems    []report.Problem
}

// candidate is one of the compared servers, with its values of each round.
type candidate struct {
	name    string
	run     *trafficRun
	figures map[measureName][]float64
}

// measureName is the name of a row of the comparison.
type measureName string

const (
	saturatedDeliveries measureName = "deliveries at saturation"
	overloadChanges     measureName = "4 times the capacity: changes conveyed"
	deliveryCPU         measureName = "CPU per million deliveries"
	lastClientMiddle    measureName = "patient called → last client, p50"
	pacedMiddle         measureName = "paced, p50"
	pacedTail           measureName = "paced, p99"
	burstMiddle         measureName = "20 called at once → every client, p50"
	overloadAge         measureName = "4 times the capacity: p99 age of what a client shows"
)

// rows are the rows in order with the goals of the service: a ratio to the floor.
var rows = []struct {
	name    measureName
	unit    string
	atLeast float64
	atMost  float64
}{
	{saturatedDeliveries, "1/s", 0.75, 0},
	{deliveryCPU, "s", 0, 0},
	{lastClientMiddle, "ms", 0, 1.4},
	{pacedMiddle, "ms", 0, 0},
	{pacedTail, "ms", 0, 0},
	{burstMiddle, "ms", 0, 0},
	{overloadAge, "ms", 0, 0},
	{overloadChanges, "1/s", 0, 0},
}

func (b *bench) traffic() Traffic {
	opts := b.opts
	watch := max(1, opts.Watch)
	return Traffic{
		Patients: b.connections * watch, Watch: watch, Doctors: benchDoctors, Duration: opts.Duration, Bound: benchBound,
		Processes: opts.Processes, Protocol: opts.Protocol, Progress: opts.Progress, separate: !opts.inProcess,
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	t := b.traffic()
	if err := t.check(); err != nil {
		return err
	}
	floor, end, err := FloorOptions{Traffic: t, Writers: b.opts.Writers}.open(ctx, !b.opts.inProcess)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	defer end()
	b.add("floor", floor)

	queues, err := openQueues(b.opts.Nodes, b.opts.Key, t)
	if err != nil {
		return err
	}
	defer queues.close()
	queues.refill = true
	if err := queues.setUp(ctx); err != nil {
		return fmt.Errorf("set up the queue: %w", err)
	}
	empty, err := queues.api.Usage(ctx)
	if err != nil {
		return err
	}
	service, err := queues.connect(ctx)
	if err != nil {
		return err
	}
	defer service.workers.stop()
	full, err := queues.api.Usage(ctx)
	if err != nil {
		return err
	}
	b.resident = (full.Resident - empty.Resident) / float64(b.connections) / 1024
	b.add("service", service)

	if b.opts.Centrifugo.URL != "" {
		c := b.opts.Centrifugo
		c.Traffic = t
		_, other, end, err := c.open(ctx)
		if err != nil {
			return fmt.Errorf("centrifugo: %w", err)
		}
		defer func() { err = errors.Join(err, end()) }()
		b.add("centrifugo", other)
	}
	for i := range b.opts.Rounds {
		if err := b.round(ctx, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) add(name string, r *trafficRun) {
	b.candidates = append(b.candidates, &candidate{name: name, run: r, figures: map[measureName][]float64{}})
}

// benchStage is one kind of traffic of a comparison.
type benchStage struct {
	name   string
	change func(t *Traffic, floor bool)
	take   func(c *candidate, r *report.Report)
}

// stages lists the stages in the order they run. The first measures the capacity of the
// floor, which the last uses.
func (b *bench) stages() []benchStage {
	return []benchStage{
		{
			"saturation",
			// 1.5 times the capacity of the floor, so that little time is spent on changes
			// that no client receives.
			func(t *Traffic, floor bool) {
				t.Doctors = 1 // the floor does one thing at a time
				if !floor {
					t.Doctors, t.Rate = benchDoctors, 1.5*b.capacity
				}
			},
			func(c *candidate, r *report.Report) {
				deliveries := r.Figure("deliveries").Value
				if c.name == "floor" && b.capacity == 0 {
					b.capacity = max(1, deliveries/float64(c.run.traffic.Patients))
				}
				c.add(saturatedDeliveries, deliveries)
				c.add(deliveryCPU, r.Figure("CPU per million deliveries").Value)
			},
		},
		{
			"paced",
			func(t *Traffic, _ bool) { t.Rate = max(0.5, min(50, pacedDeliveries/float64(t.Patients))) },
			func(c *candidate, r *report.Report) {
				c.add(lastClientMiddle, r.Curve(headToLast).P50)
				c.add(pacedMiddle, r.Curve(changeToClient).P50)
				c.add(pacedTail, r.Curve(changeToClient).P99)
			},
		},
		{
			"20 at once",
			func(t *Traffic, _ bool) { t.Burst = benchBurst },
			func(c *candidate, r *report.Report) { c.add(burstMiddle, r.Curve(burstToLast).P50) },
		},
		{
			"overload",
			func(t *Traffic, _ bool) { t.Rate = overload * b.capacity },
			func(c *candidate, r *report.Report) {
				c.add(overloadAge, r.Figure("age of what a client shows, p99").Value)
				c.add(overloadChanges, r.Figure("changes conveyed").Value)
			},
		},
	}
}

// round runs every stage with every candidate once.
func (b *bench) round(ctx context.Context, round int) error {
	for _, stage := range b.stages() {
		for _, c := range b.candidates {
			if err := b.runStage(ctx, round, stage, c); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return nil
}

func (b *bench) runStage(ctx context.Context, round int, stage benchStage, c *candidate) error {
	t := b.traffic()
	t.Queues = 1
	stage.change(&t, c.name == "floor")
	if show := b.opts.Progress; show != nil {
		t.Progress = func(p report.Progress) {
			p.What = fmt.Sprintf("seconds of %s, %s, round %d of %d with %d connections", c.name, stage.name, round, b.opts.Rounds, b.connections)
			show(p)
		}
	}
	c.run.traffic = t
	result, err := c.run.run(ctx, c.name, nil)
	if err != nil {
		return err
	}
	stage.take(c, result)
	if c.name == "floor" {
		return nil // it buffers without limit, so its clients may be late
	}
	b.faults.Add(*result.Faults)
	for _, p := range result.Problems {
		p.Detail = c.name + ": " + p.Detail
		b.problems = append(b.problems, p)
	}
	return nil
}

func (c *candidate) add(name measureName, v float64) {
	c.figures[name] = append(c.figures[name], v)
}

// fill adds the medians of all candidates and the medians of the ratios.
func (b *bench) fill(r *report.Report) {
	group := report.Number(float64(b.connections)) + " connections"
	floor, service := b.candidates[0], b.candidates[1]
	for _, row := range rows {
		for _, c := range b.candidates {
			r.AddFigures(group, report.Figure{Name: string(row.name) + ", " + c.name, Value: median(c.figures[row.name]), Unit: row.unit})
		}
		r.AddFigures(group, report.Figure{
			Name: string(row.name) + ", service to floor", Value: medianRatio(service, floor, row.name), Unit: "times",
			AtLeast: row.atLeast, AtMost: row.atMost, Headline: row.atLeast+row.atMost > 0,
		})
		for _, other := range b.candidates[2:] {
			r.AddFigures(group, report.Figure{Name: string(row.name) + ", service to " + other.name, Value: medianRatio(service, other, row.name), Unit: "times"})
		}
	}
	r.AddFigures(group, report.Figure{Name: "resident per idle connection, service", Value: b.resident, Unit: "KB", Headline: true})
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return (list[len(list)/2] + list[(len(list)-1)/2]) / 2
}

// medianRatio returns the median of the ratios of two candidates. It divides round by round,
// because other load affects both in a round.
func medianRatio(a, b *candidate, name measureName) float64 {
	var list []float64
	for i, v := range a.figures[name] {
		if i < len(b.figures[name]) && b.figures[name][i] > 0 {
			list = append(list, v/b.figures[name][i])
		}
	}
	return median(list)
}
