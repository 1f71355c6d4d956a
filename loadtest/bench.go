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
	// benchBurst is how many heads are served at once in a comparison.
	benchBurst = 20
	// pacedDeliveries is how many deliveries a second a paced run asks for: few
	// enough that each change has been delivered before the next.
	pacedDeliveries = 20_000
	// overload is how many times what fits is asked for.
	overload = 4
	// benchDoctors serve side by side in a comparison.
	benchDoctors = 2 * benchBurst
	// benchBound lets a comparison go on where somebody falls far behind: how far
	// is what is measured.
	benchBound = time.Minute
)

// BenchOptions says what to compare.
type BenchOptions struct {
	// Nodes and Key are the servers and an account API key of theirs.
	Nodes []string
	Key   string
	// Centrifugo, if its URL is set, is compared too.
	Centrifugo CentrifugoOptions
	// Connections lists how many clients to compare with, Watch how many
	// patients each of them has.
	Connections []int
	Watch       int
	// Rounds are played by everybody in turn, each for Duration.
	Rounds   int
	Duration time.Duration
	// Writers, Processes, Protocol and Progress are those of the scenarios.
	Writers   int
	Processes int
	Protocol  string
	Progress  func(report.Progress)

	inside bool // in this process: for tests, with few connections
}

// Bench plays the same traffic over bare sockets and through the servers in turn,
// several times, and reports the medians and their ratios. What else the machine
// does meets all alike.
func Bench(ctx context.Context, opts BenchOptions) (*report.Report, error) {
	if opts.Rounds < 1 || len(opts.Connections) == 0 {
		return nil, errors.New("rounds and connections must be more than zero")
	}
	started := time.Now()
	result := report.New("bench", started)
	result.AddSetting("rounds", "%d of %v by each in turn; medians", opts.Rounds, opts.Duration)
	result.AddSetting("protocol", "%s, %d patients on each phone", opts.Protocol, max(1, opts.Watch))
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
	candidates  []*candidate // the floor, the servers, and perhaps others
	resident    float64      // KB of the server per idle connection
	capacity    float64      // heads a second that the floor can tell everybody of
	faults      report.Faults
	problems    []report.Problem
}

// candidate is one of those compared, with its figures of each round.
type candidate struct {
	name    string
	run     *trafficRun
	figures map[measureName][]float64
}

// measureName names a row of the comparison.
type measureName string

const (
	saturated   measureName = "deliveries at saturation"
	conveyed    measureName = "asked for 4 times what fits: changes conveyed"
	cpu         measureName = "CPU per million deliveries"
	lastOfAll   measureName = "head served → last client, p50"
	pacedMiddle measureName = "paced, p50"
	pacedTail   measureName = "paced, p99"
	manyAtOnce  measureName = "20 heads at once → every client, p50"
	oldest      measureName = "asked for 4 times what fits: p99 age of what a client shows"
)

// rows are the rows in order, with the goals for the servers: a ratio to the
// floor, or a value where there is no floor.
var rows = []struct {
	name    measureName
	unit    string
	atLeast float64
	atMost  float64
}{
	{saturated, "1/s", 0.75, 0},
	{cpu, "s", 0, 0},
	{lastOfAll, "ms", 0, 1.4},
	{pacedMiddle, "ms", 0, 0},
	{pacedTail, "ms", 0, 0},
	{manyAtOnce, "ms", 0, 0},
	{oldest, "ms", 0, 0},
	{conveyed, "1/s", 0, 0},
}

func (b *bench) traffic() Traffic {
	opts := b.opts
	watch := max(1, opts.Watch)
	return Traffic{
		Patients: b.connections * watch, Watch: watch, Doctors: benchDoctors, Duration: opts.Duration, Bound: benchBound,
		Processes: opts.Processes, Protocol: opts.Protocol, Progress: opts.Progress, apart: !opts.inside,
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	t := b.traffic()
	if err := t.check(); err != nil {
		return err
	}
	floor, end, err := FloorOptions{Traffic: t, Writers: b.opts.Writers}.open(ctx, !b.opts.inside)
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

// round lets everybody play everything once.
func (b *bench) round(ctx context.Context, round int) error {
	for _, stage := range []struct {
		name   string
		change func(t *Traffic, floor bool)
		take   func(c *candidate, r *report.Report)
	}{
		{
			"saturation",
			// Half as much again as the floor can do, so that no time is spent on
			// changes that nobody hears of. The floor says what it can do.
			func(t *Traffic, floor bool) {
				t.Doctors = 1 // of the floor, which does one thing at a time
				if !floor {
					t.Doctors, t.Rate = benchDoctors, 1.5*b.capacity
				}
			},
			func(c *candidate, r *report.Report) {
				deliveries := r.Figure("deliveries").Value
				if c.name == "floor" && b.capacity == 0 {
					b.capacity = max(1, deliveries/float64(c.run.traffic.Patients))
				}
				c.add(saturated, deliveries)
				c.add(cpu, r.Figure("CPU per million deliveries").Value)
			},
		},
		{
			"paced",
			func(t *Traffic, _ bool) { t.Rate = max(0.5, min(50, pacedDeliveries/float64(t.Patients))) },
			func(c *candidate, r *report.Report) {
				c.add(lastOfAll, r.Curve(headToLast).P50)
				c.add(pacedMiddle, r.Curve(changeToClient).P50)
				c.add(pacedTail, r.Curve(changeToClient).P99)
			},
		},
		{
			"20 at once",
			func(t *Traffic, _ bool) { t.Burst = benchBurst },
			func(c *candidate, r *report.Report) { c.add(manyAtOnce, r.Curve(burstToLast).P50) },
		},
		{
			"overload",
			func(t *Traffic, _ bool) { t.Rate = overload * b.capacity },
			func(c *candidate, r *report.Report) {
				c.add(oldest, r.Figure("age of what a client shows, p99").Value)
				c.add(conveyed, r.Figure("changes conveyed").Value)
			},
		},
	} {
		for _, c := range b.candidates {
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
				return fmt.Errorf("%s: %w", c.name, err)
			}
			stage.take(c, result)
			if c.name == "floor" {
				continue // it keeps everything for whoever falls behind, more than is checked
			}
			b.faults.Add(*result.Faults)
			for _, p := range result.Problems {
				p.Detail = c.name + ": " + p.Detail
				b.problems = append(b.problems, p)
			}
		}
	}
	return nil
}

func (c *candidate) add(name measureName, v float64) {
	c.figures[name] = append(c.figures[name], v)
}

// fill adds the medians of everybody and the medians of the ratios.
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

// medianRatio compares two round by round: what else the machine did in a round
// met both.
func medianRatio(a, b *candidate, name measureName) float64 {
	var list []float64
	for i, v := range a.figures[name] {
		if i < len(b.figures[name]) && b.figures[name][i] > 0 {
			list = append(list, v/b.figures[name][i])
		}
	}
	return median(list)
}
