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
	empty, err := queues.api.Usage(ctx)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	r, err := queues.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer r.workers.stop()
	connected := time.Since(started)

	before, err := queues.api.Usage(ctx)
	if err != nil {
		return nil, err
	}
	idle := time.Now()
	stop := report.ShowProgress(opts.Progress, func() report.Progress {
		return report.Progress{Done: int64(time.Since(idle).Seconds()), Total: int64(opts.Idle.Seconds()), What: "seconds idle"}
	})
	err = client.Pause(ctx, opts.Idle)
	stop()
	if err != nil {
		return nil, err
	}
	after, err := queues.api.Usage(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.update(); err != nil {
		return nil, err
	}
	truth, connections := r.departures.Next()
	if r.result, err = r.workers.conclude(truth, connections); err != nil {
		return nil, err
	}

	n := float64(opts.Connections)
	result := report.New("connect", started)
	result.AddSetting("connections", "%d, each with its own subscription", opts.Connections)
	result.AddSetting("protocol", "%s", t.Protocol)
	result.AddSetting("clients", "in %d processes on %d cores", t.Processes, runtime.NumCPU())
	result.AddFigures("an idle connection",
		report.Figure{Name: "resident per idle connection", Value: (after.Resident - empty.Resident) / n / 1024, Unit: "KB", Headline: true, Note: "resident memory of the server, minus that before"},
		report.Figure{Name: "resident per connection right after connecting", Value: (before.Resident - empty.Resident) / n / 1024, Unit: "KB", Note: "includes memory left over from connecting; both are low if the server had free memory"},
		report.Figure{Name: "goroutines per idle connection", Value: (after.Goroutines - empty.Goroutines) / n},
		report.Figure{Name: "CPU while idle", Value: 1000 * (after.CPU - before.CPU) / time.Since(idle).Seconds(), Unit: "ms/s", Note: "of the whole server"},
	)
	result.AddFigures("the server",
		report.Figure{Name: "resident before", Value: empty.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident with all connected", Value: before.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident after the idle time", Value: after.Resident / (1 << 20), Unit: "MB"},
	)
	result.AddFigures("connecting",
		report.Figure{Name: "time to connect all", Value: connected.Seconds(), Unit: "s", Headline: true},
		report.Figure{Name: "connections a second", Value: n / connected.Seconds(), Unit: "1/s"},
		report.Figure{Name: "CPU per connection", Value: 1000 * (before.CPU - empty.CPU) / n, Unit: "ms", Note: "handshake, token and snapshot"},
		report.Count("failed attempts", r.status.Failed, ""),
		report.Count("reconnects", r.status.Reconnects, ""),
	)
	queues.api.Requests.AddTo(result)
	found := r.result.Faults
	found.Add(queues.tally.Faults())
	found.FailedRequests = queues.api.Requests.Failed.Load()
	result.Faults, result.Problems = &found, append(queues.tally.Problems(), r.result.Problems...)
	result.Conclude()
	return result, nil
}
