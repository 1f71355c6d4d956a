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
	// churnStay is how long a client watches on average.
	churnStay = 2 * time.Second
	// churnWarmUp is the part of the connections that comes before the baseline.
	churnWarmUp = 0.05
	// settleLimit is how long a server may take to come to rest afterwards.
	settleLimit = 90 * time.Second
	// settleEvery is how often it is looked at meanwhile.
	settleEvery = 200 * time.Millisecond
	// churnGoroutines and churnMemory are how much more than before counts as
	// the same: a few workers, and what a collector has not given back yet.
	churnGoroutines = 10
	churnMemory     = 16 << 20
)

// ChurnOptions says how many clients come and go, and in what time.
type ChurnOptions struct {
	Nodes       []string
	Key         string
	Protocol    string
	Patients    int // whose places are watched
	Connections int // in all
	Duration    time.Duration
	Progress    func(report.Progress)

	stay, limit time.Duration // the constants, except in tests
}

// Churn lets clients connect, watch and leave, and compares the server's memory
// and goroutines afterwards with those before.
func Churn(ctx context.Context, o ChurnOptions) (*report.Report, error) {
	if o.Connections < 1 || o.Duration <= 0 {
		return nil, errors.New("connections and duration must be more than zero")
	}
	o.stay, o.limit = cmp.Or(o.stay, churnStay), cmp.Or(o.limit, settleLimit)
	room, err := openCrowdedRoom(ctx, o.Nodes, o.Key, Traffic{Patients: o.Patients, Protocol: o.Protocol, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	defer room.close()
	c := &churn{options: o, crowd: newCrowd(room)}
	defer c.crowd.close()
	return c.run(ctx)
}

type churn struct {
	options ChurnOptions
	crowd   *crowd
	places  []atomic.Int64 // by patient, as the first snapshot showed
	came    atomic.Int64
	left    atomic.Int64
}

func (c *churn) run(ctx context.Context) (*report.Report, error) {
	c.places = make([]atomic.Int64, len(c.crowd.room.patients))
	started := time.Now()
	samples := report.NewSampler(started,
		report.Measure{Chart: "clients", Name: "connected", Read: report.Gauge(&c.crowd.live.Connected)},
		report.Measure{Chart: "connections", Name: "connections", Unit: "per second", Rate: true, Read: report.Gauge(&c.came)},
	)
	stopSamples := samples.Run()
	stopProgress := report.ShowProgress(c.options.Progress, func() report.Progress {
		return report.Progress{
			Done: c.left.Load(), Total: int64(c.options.Connections), What: "clients came and left",
			Detail: fmt.Sprintf("%d connected, %d failed attempts, %d wrong", c.crowd.live.Connected.Load(), c.crowd.live.Failed.Load(), c.crowd.wrong()),
		}
	})
	before, after, err := c.play(ctx, samples)
	stopProgress()
	stopSamples()
	if err != nil {
		return nil, err
	}

	result := report.New("churn", started)
	result.AddSetting("connections", "%d in %v, each for %v on average", c.options.Connections, c.options.Duration, c.options.stay)
	result.AddSetting("against", "%s (%s)", joined(c.crowd.room.api.Nodes), c.crowd.room.traffic.Protocol)
	result.AddSetting("patients", "%d, who do not move", c.options.Patients)
	result.AddFigures("the server afterwards",
		report.Figure{Name: "goroutines more than before", Value: after.Goroutines - before.Goroutines, AtMost: churnGoroutines, Headline: true,
			Note: fmt.Sprintf("%s before, %s after", report.Number(before.Goroutines), report.Number(after.Goroutines))},
		report.Figure{Name: "memory more than before", Value: (after.Resident - before.Resident) / (1 << 20), Unit: "MB", AtMost: churnMemory / (1 << 20), Headline: true,
			Note: fmt.Sprintf("resident, %s MB before, %s MB after", report.Number(before.Resident/(1<<20)), report.Number(after.Resident/(1<<20)))},
	)
	result.AddFigures("clients",
		report.Count("came", c.came.Load(), "of them one in twenty before the first look at the server"),
		report.Count("most at once", c.crowd.live.Peak.Load(), ""),
		report.Count("failed attempts", c.crowd.live.Failed.Load(), "each was repeated"),
		report.Count("snapshots checked", c.crowd.tally.Snapshots.Load(), ""),
	)
	result.Faults = c.crowd.faults()
	result.Faults.Missed += c.came.Load() - c.crowd.live.Opened.Load()
	result.Problems = append(result.Problems, c.crowd.tally.Problems()...)
	samples.AddTo(result)
	result.Conclude()
	return result, nil
}

func (c *churn) play(ctx context.Context, samples *report.Sampler) (before, after client.Usage, err error) {
	warm := max(1, int(float64(c.options.Connections)*churnWarmUp))
	pace := c.options.Duration / time.Duration(c.options.Connections)
	if err := c.come(ctx, warm, pace); err != nil {
		return client.Usage{}, client.Usage{}, err
	}
	if before, err = c.settle(ctx, nil); err != nil {
		return client.Usage{}, client.Usage{}, err
	}
	samples.Mark("baseline")
	if err := c.come(ctx, c.options.Connections-warm, pace); err != nil {
		return client.Usage{}, client.Usage{}, err
	}
	samples.Mark("all left")
	after, err = c.settle(ctx, &before)
	return before, after, err
}

// come lets clients come one after another, and waits until all have left.
func (c *churn) come(ctx context.Context, n int, pace time.Duration) error {
	next := time.Now()
	for range n {
		if err := client.Pause(ctx, time.Until(next)); err != nil {
			return err
		}
		next = next.Add(pace)
		if err := c.visit(ctx, int(c.came.Add(1))-1); err != nil {
			return err
		}
	}
	return c.crowd.await(ctx, settleLimit, "all have left", func() bool { return c.left.Load() == c.came.Load() })
}

// visit starts one client, which stays for a while.
func (c *churn) visit(ctx context.Context, number int) error {
	patient := number % len(c.places)
	p := c.crowd.room.patients[patient]
	v := &visitor{standing: standing{crowd: c.crowd, number: number, p: p, place: int(c.places[patient].Load())}, stays: make(chan struct{}, 1)}
	l, err := c.crowd.newLink(number, p, v)
	if err != nil {
		return err
	}
	stay := time.Duration(mathrand.ExpFloat64() * float64(c.options.stay)) //nolint:gosec // nothing secret, only spread
	c.crowd.wg.Go(func() {
		defer c.left.Add(1)
		ctx, leave := context.WithCancelCause(ctx)
		defer leave(nil)
		defer context.AfterFunc(c.crowd.ctx, func() { leave(errLeaving) })()
		go func() {
			select {
			case <-v.stays:
				if client.Pause(ctx, stay) == nil {
					leave(errLeaving)
				}
			case <-ctx.Done():
			}
		}()
		var end *client.TerminalError
		if err := l.Run(ctx); errors.As(err, &end) {
			c.crowd.tally.AddProblem("refused client", p.booking, "%v", err)
		}
		c.places[patient].Store(int64(v.place))
	})
	return nil
}

// visitor is a client that leaves some time after its first snapshot.
type visitor struct {
	standing
	stays chan struct{}
}

// OnSnapshot implements listener.
func (v *visitor) OnSnapshot(data []byte, asked, got time.Time) (done bool) {
	done = v.standing.OnSnapshot(data, asked, got)
	select {
	case v.stays <- struct{}{}:
	default:
	}
	return done
}

// settle waits until the server is at rest: as before, or no longer changing.
func (c *churn) settle(ctx context.Context, before *client.Usage) (client.Usage, error) {
	var last client.Usage
	same := 0
	for until := time.Now().Add(c.options.limit); ; {
		now, err := c.crowd.room.api.Usage(ctx)
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
		if err := client.Pause(ctx, settleEvery); err != nil {
			return client.Usage{}, err
		}
	}
}
