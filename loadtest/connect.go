package loadtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// ConnectOptions are the options of Connect.
type ConnectOptions struct {
	Nodes       []string
	Key         string
	Connections int
	// Idle is the time in which the clients are idle.
	Idle time.Duration
	// Processes, Protocol and Progress are those of Traffic.
	Processes int
	Protocol  string
	Progress  func(report.Progress)
}

// Connect connects clients, each with its own subscription, leaves them idle and measures what
// each costs the server.
func Connect(ctx context.Context, opts ConnectOptions) (*report.Report, error) {
	if opts.Idle <= 0 {
		return nil, errors.New("idle must be more than zero")
	}
	t := Traffic{Patients: opts.Connections, Duration: opts.Idle, Processes: opts.Processes, Protocol: opts.Protocol, Progress: opts.Progress}
	if err := t.check(); err != nil {
		return nil, err
	}
	queues, err := openQueues(opts.Nodes, opts.Key, t)
	if err != nil {
		return nil, err
	}
	defer queues.close()
	if err := queues.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up the queue: %w", err)
	}
	run := connectRun{opts: opts, queues: queues}
	if err := run.measure(ctx); err != nil {
		return nil, err
	}
	return run.report(), nil
}

// connectRun holds what Connect measured.
type connectRun struct {
	opts    ConnectOptions
	queues  *patientQueues
	traffic *trafficRun

	started         time.Time
	connected, idle time.Duration // the time to connect, and the idle time
	// The usage of the server without clients, with all connected, and after the idle time.
	empty, before, after client.Usage
}

// measure connects the clients and leaves them idle.
func (c *connectRun) measure(ctx context.Context) (err error) {
	if c.empty, err = c.queues.api.Usage(ctx); err != nil {
		return err
	}
	c.started = time.Now()
	if c.traffic, err = c.queues.connect(ctx); err != nil {
		return err
	}
	defer c.traffic.workers.stop()
	c.connected = time.Since(c.started)
	if c.before, err = c.queues.api.Usage(ctx); err != nil {
		return err
	}
	idle := time.Now()
	stop := report.ShowProgress(c.opts.Progress, func() report.Progress {
		return report.Progress{Done: int64(time.Since(idle).Seconds()), Total: int64(c.opts.Idle.Seconds()), What: "seconds idle"}
	})
	err = client.Pause(ctx, c.opts.Idle)
	stop()
	if err != nil {
		return err
	}
	if c.after, err = c.queues.api.Usage(ctx); err != nil {
		return err
	}
	c.idle = time.Since(idle)
	if err := c.traffic.update(); err != nil {
		return err
	}
	truth, connections := c.traffic.departures.Next()
	c.traffic.result, err = c.traffic.workers.conclude(truth, connections)
	return err
}

func (c *connectRun) report() *report.Report {
	n := float64(c.opts.Connections)
	result := report.New("connect", c.started)
	result.AddSetting("connections", "%d, each with its own subscription", c.opts.Connections)
	result.AddSetting("protocol", "%s", c.queues.traffic.Protocol)
	result.AddSetting("clients", "in %d processes on %d cores", c.queues.traffic.Processes, runtime.NumCPU())
	result.AddFigures("an idle connection",
		report.Figure{Name: "resident per idle connection", Value: (c.after.Resident - c.empty.Resident) / n / 1024, Unit: "KB", Headline: true, Note: "resident memory of the server, minus that before"},
		report.Figure{Name: "resident per connection right after connecting", Value: (c.before.Resident - c.empty.Resident) / n / 1024, Unit: "KB", Note: "includes memory left over from connecting; both are low if the server had free memory"},
		report.Figure{Name: "goroutines per idle connection", Value: (c.after.Goroutines - c.empty.Goroutines) / n},
		report.Figure{Name: "CPU while idle", Value: 1000 * (c.after.CPU - c.before.CPU) / c.idle.Seconds(), Unit: "ms/s", Note: "of the whole server"},
	)
	result.AddFigures("the server",
		report.Figure{Name: "resident before", Value: c.empty.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident with all connected", Value: c.before.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident after the idle time", Value: c.after.Resident / (1 << 20), Unit: "MB"},
	)
	result.AddFigures("connecting",
		report.Figure{Name: "time to connect all", Value: c.connected.Seconds(), Unit: "s", Headline: true},
		report.Figure{Name: "connections a second", Value: n / c.connected.Seconds(), Unit: "1/s"},
		report.Figure{Name: "CPU per connection", Value: 1000 * (c.before.CPU - c.empty.CPU) / n, Unit: "ms", Note: "handshake, token and snapshot"},
		report.Count("failed attempts", c.traffic.status.Failed, ""),
		report.Count("reconnects", c.traffic.status.Reconnects, ""),
	)
	c.queues.api.Requests.AddTo(result)
	found := c.traffic.result.Faults
	found.Add(c.queues.tally.Faults())
	found.FailedRequests = c.queues.api.Requests.Failed.Load()
	result.Faults, result.Problems = &found, append(c.queues.tally.Problems(), c.traffic.result.Problems...)
	result.Conclude()
	return result
}
