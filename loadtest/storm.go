package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

const (
	// StormGoal is the time within which every client must have a correct snapshot again.
	StormGoal = 10 * time.Second
	// stormTimeout bounds the wait for the last client.
	stormTimeout = 2 * time.Minute
	// restTime is the time before a storm in which nothing happens.
	restTime = 500 * time.Millisecond
	// ShortestBackoff is the shortest wait of the published SDKs before they reconnect.
	ShortestBackoff = 500 * time.Millisecond
	// LongestBackoff is the longest wait of the published SDKs before they reconnect.
	LongestBackoff = 20 * time.Second
)

// StormOptions are the options of Storm.
type StormOptions struct {
	Nodes    []string
	Key      string
	Protocol string
	Clients  int
	Queues   int
	// Restart is a shell command that restarts the server. Pid is a process that receives
	// SIGTERM and is restarted by its supervisor. With neither, all clients close their
	// sockets at once.
	Restart string
	Pid     int
	// BackoffMin and BackoffMax are the shortest and longest wait before a client reconnects.
	// If BackoffMax is zero, all reconnect at once.
	BackoffMin, BackoffMax time.Duration
	Progress               func(report.Progress)

	goal time.Duration // StormGoal, except in tests
}

// Storm connects clients, disconnects all of them at once and measures the time until each has
// a correct snapshot again.
func Storm(ctx context.Context, opts StormOptions) (*report.Report, error) {
	switch {
	case opts.BackoffMin < 0 || opts.BackoffMax < 0 || (opts.BackoffMax > 0 && opts.BackoffMin > opts.BackoffMax):
		return nil, errors.New("the shortest wait must be between zero and the longest")
	case opts.Restart != "" && opts.Pid != 0:
		return nil, errors.New("set a command or a process, not both")
	}
	queues, err := openStaticQueues(ctx, opts.Nodes, opts.Key, Traffic{Patients: opts.Clients, Queues: opts.Queues, Protocol: opts.Protocol, Progress: opts.Progress})
	if err != nil {
		return nil, err
	}
	defer queues.close()
	s := &storm{opts: opts, group: newClientGroup(queues)}
	defer s.group.close()
	return s.run(ctx)
}

// openStaticQueues lets patients join queues in which no patient is called.
func openStaticQueues(ctx context.Context, nodes []string, key string, t Traffic) (*patientQueues, error) {
	t.Duration = 1 // Traffic requires one; these scenarios do not use it
	if err := t.check(); err != nil {
		return nil, err
	}
	queues, err := openQueues(nodes, key, t)
	if err != nil {
		return nil, err
	}
	if err := queues.setUp(ctx); err != nil {
		queues.close()
		return nil, fmt.Errorf("set up the queues: %w", err)
	}
	return queues, nil
}

type storm struct {
	opts        StormOptions
	group       *clientGroup
	connections []*client.Connection
	clients     []*stationaryClient

	drops         atomic.Int64
	shown         atomic.Int64 // clients with a snapshot after the loss
	served        atomic.Int64 // clients with a correct snapshot after the loss
	first         atomic.Int64 // time of the first correct snapshot, Unix nanoseconds
	last          atomic.Int64
	reconnectTime report.Histogram
}

// connect connects all clients and waits until the server is at rest.
func (s *storm) connect(ctx context.Context) error {
	for i, p := range s.group.queues.patients {
		c := &stationaryClient{group: s.group, number: i, patient: p, onReconnect: s.servedAgain, drops: &s.drops}
		conn, err := s.group.newConnection(i, p, c)
		if err != nil {
			return err
		}
		conn.Backoff = client.SDKBackoff(s.opts.BackoffMin, s.opts.BackoffMax)
		s.connections, s.clients = append(s.connections, conn), append(s.clients, c)
	}
	if err := s.group.connectAll(ctx, s.connections, s.opts.Progress); err != nil {
		return err
	}
	return client.Pause(ctx, restTime)
}

func (s *storm) run(ctx context.Context) (*report.Report, error) {
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	queues := s.group.queues
	before, err := queues.api.Usage(ctx)
	if err != nil {
		return nil, err
	}

	started := time.Now()
	samples := report.NewSampler(started,
		report.Measure{Chart: "clients", Name: "connected", Read: report.Gauge(&s.group.stats.Connected)},
		report.Measure{Chart: "clients", Name: "served again", Read: report.Gauge(&s.served)},
		report.Measure{Chart: "failed attempts", Name: "failed attempts", Unit: "per second", Rate: true, Read: report.Gauge(&s.group.stats.Failed)},
	)
	stopSamples := samples.Run()
	stopProgress := report.ShowProgress(s.opts.Progress, func() report.Progress {
		return report.Progress{
			Done: s.served.Load(), Total: int64(len(s.connections)), What: "clients served again",
			Detail: fmt.Sprintf("%d connected, %d failed attempts, %d wrong", s.group.stats.Connected.Load(), s.group.stats.Failed.Load(), s.group.faultCount()),
		}
	})
	samples.Mark("disconnected")
	err = s.disconnectAll(ctx)
	if err == nil {
		err = s.group.await(ctx, stormTimeout, "served again", func() bool {
			return s.drops.Load() > 0 && s.shown.Load() == s.drops.Load() && s.group.stats.Connected.Load() == int64(len(s.connections))
		})
	}
	stopProgress()
	stopSamples()
	late := errors.Is(err, errTimeout)
	if err != nil && !late {
		return nil, err
	}
	after, usageErr := queues.api.Usage(ctx)
	if usageErr != nil && !late {
		return nil, usageErr
	}
	s.group.close()
	s.compareFirst()

	result := report.New("storm", started)
	result.AddSetting("clients", "%d, in %d queues", s.opts.Clients, queues.traffic.Queues)
	result.AddSetting("against", "%s (%s)", joinAddresses(queues.api.Nodes), queues.traffic.Protocol)
	result.AddSetting("disconnected by", "%s", s.describeDisconnect())
	result.AddSetting("reconnecting", "%s", describeBackoff(s.opts.BackoffMin, s.opts.BackoffMax))
	s.fill(result, started, before, after)
	samples.AddTo(result)
	result.Conclude()
	if late {
		result.Fail("NOT every client was served again", err)
	}
	return result, nil
}

// compareFirst compares the first snapshots of the clients, which were idle.
func (s *storm) compareFirst() {
	places := make([]check.FirstPosition, len(s.clients))
	for i, c := range s.clients {
		places[i] = check.FirstPosition{Patient: i, Position: c.position}
	}
	if err := s.group.queues.setRanks(places); err != nil {
		s.group.fault(check.WrongPosition, "", "%v", err)
	}
}

func (s *storm) fill(result *report.Report, started time.Time, before, after client.Usage) {
	begin := started
	note := "since all were disconnected"
	if s.restarts() {
		note = "since the server served the first again"
		begin = time.Unix(0, s.first.Load())
	}
	whole := time.Unix(0, s.last.Load()).Sub(begin).Seconds()
	result.AddFigures("the storm",
		report.Figure{Name: "all served again", Value: whole, Unit: "s", Note: note, AtMost: cmp.Or(s.opts.goal, StormGoal).Seconds(), Headline: true},
		report.Count("disconnected", s.drops.Load(), ""),
		report.Count("served again", s.served.Load(), "with a correct snapshot"),
		report.Count("failed attempts", s.group.stats.Failed.Load(), "each was repeated"),
	)
	if s.restarts() {
		result.AddFigures("the storm", report.Figure{Name: "first served again", Value: begin.Sub(started).Seconds(), Unit: "s", Note: "since the restart began"})
	} else {
		result.AddFigures("the server", report.Figure{Name: "CPU in the storm", Value: after.CPU - before.CPU, Unit: "s"})
	}
	result.AddFigures("the server",
		report.Figure{Name: "resident before", Value: before.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident after", Value: after.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "goroutines before", Value: before.Goroutines},
		report.Figure{Name: "goroutines after", Value: after.Goroutines},
	)
	result.AddFigures("checked against the truth", report.Count("snapshots checked", s.group.tally.Snapshots.Load(), ""))
	result.AddCurve("reconnecting", "disconnected → correct snapshot", &s.reconnectTime)
	result.Faults = s.group.faults()
	result.Faults.Missed += s.drops.Load() - s.shown.Load()
	result.Problems = append(result.Problems, s.group.tally.Problems()...)
}

// servedAgain records a client's first snapshot after the loss.
func (s *storm) servedAgain(right bool, lost, got time.Time) {
	defer s.shown.Add(1)
	if !right {
		return
	}
	s.reconnectTime.Add(got.Sub(lost))
	s.first.CompareAndSwap(0, got.UnixNano())
	client.StoreMax(&s.last, got.UnixNano())
	s.served.Add(1)
}

func (s *storm) restarts() bool { return s.opts.Restart != "" || s.opts.Pid != 0 }

func (s *storm) describeDisconnect() string {
	switch {
	case s.opts.Restart != "":
		return "a restart: " + s.opts.Restart
	case s.opts.Pid != 0:
		return fmt.Sprintf("SIGTERM to process %d", s.opts.Pid)
	}
	return "the clients themselves"
}

// disconnectAll disconnects all clients.
func (s *storm) disconnectAll(ctx context.Context) error {
	switch {
	case s.opts.Restart != "":
		return runCommand(ctx, s.opts.Restart, "NODE="+s.group.queues.api.Nodes[0], "INDEX=0")
	case s.opts.Pid != 0:
		process, err := os.FindProcess(s.opts.Pid)
		if err == nil {
			err = process.Signal(syscall.SIGTERM)
		}
		if err != nil {
			return fmt.Errorf("end process %d: %w", s.opts.Pid, err)
		}
		return nil
	}
	var wg sync.WaitGroup
	for _, conn := range s.connections {
		wg.Go(conn.Disconnect)
	}
	wg.Wait()
	return nil
}

func describeBackoff(shortest, longest time.Duration) string {
	if longest == 0 {
		return "all at once"
	}
	return fmt.Sprintf("after %v to %v and a random part, as the SDKs do", shortest, longest)
}
