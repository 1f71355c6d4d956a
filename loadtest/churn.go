package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

const (
	// churnStay is the time that a client stays connected on average.
	churnStay = 2 * time.Second
	// churnWarmUp is the share of the connections that are made before the baseline.
	churnWarmUp = 0.05
	// settleTimeout bounds the time until a server is idle afterwards.
	settleTimeout = 90 * time.Second
	// settleInterval is the time between two readings of the server's usage.
	settleInterval = 200 * time.Millisecond
	// churnGoroutines and churnMemory are the accepted growth: some workers, and memory that
	// the garbage collector has not released yet.
	churnGoroutines = 10
	churnMemory     = 16 << 20
)

// ChurnOptions are the options of Churn.
type ChurnOptions struct {
	Nodes       []string
	Key         string
	Protocol    string
	Patients    int // number of bookings that the clients watch in turn
	Connections int // total number of connections
	Duration    time.Duration
	Progress    func(report.Progress)

	stay, settleTimeout time.Duration // churnStay and settleTimeout, except in tests
}

// Churn lets clients connect, watch and leave, and compares the server's memory and goroutines
// afterwards with those before.
func Churn(ctx context.Context, opts ChurnOptions) (*report.Report, error) {
	if opts.Connections < 1 || opts.Duration <= 0 {
		return nil, errors.New("connections and duration must be more than zero")
	}
	opts.stay, opts.settleTimeout = cmp.Or(opts.stay, churnStay), cmp.Or(opts.settleTimeout, settleTimeout)
	queues, err := openStaticQueues(ctx, opts.Nodes, opts.Key, Traffic{Patients: opts.Patients, Protocol: opts.Protocol, Progress: opts.Progress})
	if err != nil {
		return nil, err
	}
	defer queues.close()
	c := &churn{opts: opts, group: newClientGroup(queues)}
	defer c.group.close()
	return c.run(ctx)
}

type churn struct {
	opts      ChurnOptions
	group     *clientGroup
	positions []atomic.Int64 // by patient: the position in the first snapshot
	started   atomic.Int64
	finished  atomic.Int64
}

func (c *churn) run(ctx context.Context) (*report.Report, error) {
	c.positions = make([]atomic.Int64, len(c.group.queues.patients))
	started := time.Now()
	samples := report.NewSampler(started,
		report.Measure{Chart: "clients", Name: "connected", Read: report.Gauge(&c.group.stats.Connected)},
		report.Measure{Chart: "connections", Name: "connections", Unit: "per second", Rate: true, Read: report.Gauge(&c.started)},
	)
	stopSamples := samples.Run()
	stopProgress := report.ShowProgress(c.opts.Progress, func() report.Progress {
		return report.Progress{
			Done: c.finished.Load(), Total: int64(c.opts.Connections), What: "clients connected and left",
			Detail: fmt.Sprintf("%d connected, %d failed attempts, %d wrong", c.group.stats.Connected.Load(), c.group.stats.Failed.Load(), c.group.faultCount()),
		}
	})
	before, after, err := c.play(ctx, samples)
	stopProgress()
	stopSamples()
	if err != nil {
		return nil, err
	}

	result := report.New("churn", started)
	result.AddSetting("connections", "%d in %v, each for %v on average", c.opts.Connections, c.opts.Duration, c.opts.stay)
	result.AddSetting("against", "%s (%s)", joinAddresses(c.group.queues.api.Nodes), c.group.queues.traffic.Protocol)
	result.AddSetting("patients", "%d, whose positions do not change", c.opts.Patients)
	result.AddFigures("the server afterwards",
		report.Figure{Name: "goroutines more than before", Value: after.Goroutines - before.Goroutines, AtMost: churnGoroutines, Headline: true,
			Note: fmt.Sprintf("%s before, %s after", report.Number(before.Goroutines), report.Number(after.Goroutines))},
		report.Figure{Name: "memory more than before", Value: (after.Resident - before.Resident) / (1 << 20), Unit: "MB", AtMost: churnMemory / (1 << 20), Headline: true,
			Note: fmt.Sprintf("resident, %s MB before, %s MB after", report.Number(before.Resident/(1<<20)), report.Number(after.Resident/(1<<20)))},
	)
	result.AddFigures("clients",
		report.Count("connected", c.started.Load(), "one in twenty of them before the baseline"),
		report.Count("most connected at once", c.group.stats.Peak.Load(), ""),
		report.Count("failed attempts", c.group.stats.Failed.Load(), "each was repeated"),
		report.Count("snapshots checked", c.group.tally.Snapshots.Load(), ""),
	)
	result.Faults = c.group.faults()
	result.Faults.Missed += c.started.Load() - c.group.stats.Opened.Load()
	result.Problems = append(result.Problems, c.group.tally.Problems()...)
	samples.AddTo(result)
	result.Conclude()
	return result, nil
}

func (c *churn) play(ctx context.Context, samples *report.Sampler) (before, after client.Usage, err error) {
	warm := max(1, int(float64(c.opts.Connections)*churnWarmUp))
	pace := c.opts.Duration / time.Duration(c.opts.Connections)
	if err := c.startClients(ctx, warm, pace); err != nil {
		return client.Usage{}, client.Usage{}, err
	}
	if before, err = c.settle(ctx, nil); err != nil {
		return client.Usage{}, client.Usage{}, err
	}
	samples.Mark("baseline")
	if err := c.startClients(ctx, c.opts.Connections-warm, pace); err != nil {
		return client.Usage{}, client.Usage{}, err
	}
	samples.Mark("all left")
	after, err = c.settle(ctx, &before)
	return before, after, err
}

// startClients starts clients one after another and waits until all have left.
func (c *churn) startClients(ctx context.Context, n int, pace time.Duration) error {
	next := time.Now()
	for range n {
		if err := client.Pause(ctx, time.Until(next)); err != nil {
			return err
		}
		next = next.Add(pace)
		if err := c.startClient(ctx, int(c.started.Add(1))-1); err != nil {
			return err
		}
	}
	return c.group.await(ctx, settleTimeout, "all have left", func() bool { return c.finished.Load() == c.started.Load() })
}

// startClient starts one client, which leaves after a random time.
func (c *churn) startClient(ctx context.Context, number int) error {
	patient := number % len(c.positions)
	p := c.group.queues.patients[patient]
	v := &churnClient{stationaryClient: stationaryClient{group: c.group, number: number, patient: p, position: int(c.positions[patient].Load())}, subscribed: make(chan struct{}, 1)}
	conn, err := c.group.newConnection(number, p, v)
	if err != nil {
		return err
	}
	stay := time.Duration(mathrand.ExpFloat64() * float64(c.opts.stay)) //nolint:gosec // nothing secret, only spread
	c.group.wg.Go(func() {
		defer c.finished.Add(1)
		ctx, leave := context.WithCancelCause(ctx)
		defer leave(nil)
		defer context.AfterFunc(c.group.ctx, func() { leave(errClientLeaves) })()
		go func() {
			select {
			case <-v.subscribed:
				if client.Pause(ctx, stay) == nil {
					leave(errClientLeaves)
				}
			case <-ctx.Done():
			}
		}()
		var end *client.TerminalError
		if err := conn.Run(ctx); errors.As(err, &end) {
			c.group.tally.AddProblem("refused client", p.booking, "%v", err)
		}
		c.positions[patient].Store(int64(v.position))
	})
	return nil
}

// churnClient is a client that leaves some time after its first snapshot.
type churnClient struct {
	stationaryClient
	subscribed chan struct{}
}

// OnSnapshot implements client.Listener.
func (v *churnClient) OnSnapshot(data []byte, requested, got time.Time) (done bool) {
	done = v.stationaryClient.OnSnapshot(data, requested, got)
	select {
	case v.subscribed <- struct{}{}:
	default:
	}
	return done
}

// settle waits until the server's usage is as before, or no longer changes.
func (c *churn) settle(ctx context.Context, before *client.Usage) (client.Usage, error) {
	var last client.Usage
	same := 0
	for until := time.Now().Add(c.opts.settleTimeout); ; {
		now, err := c.group.queues.api.Usage(ctx)
		if err != nil {
			return client.Usage{}, err
		}
		switch {
		case before != nil && now.Goroutines <= before.Goroutines+churnGoroutines && now.Resident <= before.Resident+churnMemory:
			return now, nil
		case math.Abs(now.Goroutines-last.Goroutines) <= churnGoroutines:
			same++
		default:
			same = 0
		}
		if time.Now().After(until) || (before == nil && same >= 10) {
			return now, nil
		}
		last = now
		if err := client.Pause(ctx, settleInterval); err != nil {
			return client.Usage{}, err
		}
	}
}
