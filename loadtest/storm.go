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
	// StormGoal is within how long everybody must have a correct snapshot again.
	StormGoal = 10 * time.Second
	// stormLimit is how long a storm waits for the last.
	stormLimit = 2 * time.Minute
	// restTime lets everything come to rest before a storm.
	restTime = 500 * time.Millisecond
	// ShortestBackoff is how long the published SDKs wait at least.
	ShortestBackoff = 500 * time.Millisecond
	// LongestBackoff is how long they wait at most.
	LongestBackoff = 20 * time.Second
)

// StormOptions says how many clients lose their connection and how they come back.
type StormOptions struct {
	Nodes    []string
	Key      string
	Protocol string
	Clients  int
	Queues   int
	// Restart is a shell command that restarts the server, Pid a process that is
	// told to end by SIGTERM, for its supervisor to restart. With neither, the
	// clients close their sockets, all at once.
	Restart string
	Pid     int
	// BackoffMin and BackoffMax are how clients wait, as the SDKs do. With a
	// maximum of zero they all come back at once.
	BackoffMin, BackoffMax time.Duration
	Progress               func(report.Progress)

	goal time.Duration // the constant, except in tests
}

// Storm connects many clients, cuts all of them off at once and measures how
// long it takes until each has been shown its own correct position again.
func Storm(ctx context.Context, o StormOptions) (*report.Report, error) {
	switch {
	case o.BackoffMin < 0 || o.BackoffMax < 0 || (o.BackoffMax > 0 && o.BackoffMin > o.BackoffMax):
		return nil, errors.New("the shortest wait must be between zero and the longest")
	case o.Restart != "" && o.Pid != 0:
		return nil, errors.New("give a command or a process, not both")
	}
	room, err := openCrowdedRoom(ctx, o.Nodes, o.Key, Traffic{Patients: o.Clients, Queues: o.Queues, Protocol: o.Protocol, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	defer room.close()
	s := &storm{options: o, crowd: newCrowd(room)}
	defer s.crowd.close()
	return s.run(ctx)
}

// openCrowdedRoom lets patients join queues that do not move by themselves.
func openCrowdedRoom(ctx context.Context, nodes []string, key string, t Traffic) (*waitingRoom, error) {
	t.Duration = 1 // is for scenarios that last
	if err := t.check(); err != nil {
		return nil, err
	}
	room, err := openRoom(nodes, key, t)
	if err != nil {
		return nil, err
	}
	if err := room.setUp(ctx); err != nil {
		room.close()
		return nil, fmt.Errorf("set up the queues: %w", err)
	}
	return room, nil
}

type storm struct {
	options StormOptions
	crowd   *crowd
	links   []*client.Connection
	clients []*standing

	drops  atomic.Int64
	shown  atomic.Int64 // a snapshot, right or wrong
	served atomic.Int64 // a right one
	first  atomic.Int64 // when the first was served again, Unix nanoseconds
	last   atomic.Int64
	again  report.Histogram
}

func (s *storm) run(ctx context.Context) (*report.Report, error) {
	room := s.crowd.room
	places := make([]check.FirstPosition, len(room.patients))
	for i, p := range room.patients {
		c := &standing{crowd: s.crowd, number: i, p: p, again: s.servedAgain, drops: &s.drops}
		l, err := s.crowd.newLink(i, p, c)
		if err != nil {
			return nil, err
		}
		l.Backoff = client.SDKBackoff(s.options.BackoffMin, s.options.BackoffMax)
		s.links, s.clients = append(s.links, l), append(s.clients, c)
	}
	if err := s.crowd.connectAll(ctx, s.links, s.options.Progress); err != nil {
		return nil, err
	}
	if err := client.Pause(ctx, restTime); err != nil {
		return nil, err
	}
	before, err := room.api.Usage(ctx)
	if err != nil {
		return nil, err
	}

	started := time.Now()
	samples := report.NewSampler(started,
		report.Measure{Chart: "clients", Name: "connected", Read: report.Gauge(&s.crowd.live.Connected)},
		report.Measure{Chart: "clients", Name: "served again", Read: report.Gauge(&s.served)},
		report.Measure{Chart: "failed attempts", Name: "failed attempts", Unit: "per second", Rate: true, Read: report.Gauge(&s.crowd.live.Failed)},
	)
	stopSamples := samples.Run()
	stopProgress := report.ShowProgress(s.options.Progress, func() report.Progress {
		return report.Progress{
			Done: s.served.Load(), Total: int64(len(s.links)), What: "clients served again",
			Detail: fmt.Sprintf("%d connected, %d failed attempts, %d wrong", s.crowd.live.Connected.Load(), s.crowd.live.Failed.Load(), s.crowd.wrong()),
		}
	})
	samples.Mark("cut off")
	err = s.cut(ctx)
	if err == nil {
		err = s.crowd.await(ctx, stormLimit, "all are served again", func() bool {
			return s.drops.Load() > 0 && s.shown.Load() == s.drops.Load() && s.crowd.live.Connected.Load() == int64(len(s.links))
		})
	}
	stopProgress()
	stopSamples()
	late := errors.Is(err, errTooLong)
	if err != nil && !late {
		return nil, err
	}
	after, usageErr := room.api.Usage(ctx)
	if usageErr != nil && !late {
		return nil, usageErr
	}
	// The clients are at rest: what the first snapshots showed can be compared.
	s.crowd.close()
	for i, c := range s.clients {
		places[i] = check.FirstPosition{Patient: i, Position: c.place}
	}
	if err := room.seatAll(places); err != nil {
		s.crowd.fault(check.WrongPosition, "", "%v", err)
	}

	result := report.New("storm", started)
	result.AddSetting("clients", "%d, in %d queues", s.options.Clients, room.traffic.Queues)
	result.AddSetting("against", "%s (%s)", joined(room.api.Nodes), room.traffic.Protocol)
	result.AddSetting("cut off by", "%s", s.how())
	result.AddSetting("coming back", "%s", describeBackoff(s.options.BackoffMin, s.options.BackoffMax))
	s.fill(result, started, before, after)
	samples.AddTo(result)
	result.Conclude()
	if late {
		result.Fail("NOT every client was served again", err)
	}
	return result, nil
}

func (s *storm) fill(result *report.Report, started time.Time, before, after client.Usage) {
	begin := started
	note := "since all were cut off"
	if s.restarts() {
		note = "since the server served the first again"
		begin = time.Unix(0, s.first.Load())
	}
	whole := time.Unix(0, s.last.Load()).Sub(begin).Seconds()
	result.AddFigures("the storm",
		report.Figure{Name: "all served again", Value: whole, Unit: "s", Note: note, AtMost: cmp.Or(s.options.goal, StormGoal).Seconds(), Headline: true},
		report.Count("cut off", s.drops.Load(), ""),
		report.Count("served again", s.served.Load(), "shown their own correct position"),
		report.Count("failed attempts", s.crowd.live.Failed.Load(), "each was repeated"),
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
	result.AddFigures("checked against the truth", report.Count("snapshots checked", s.crowd.tally.Snapshots.Load(), ""))
	result.AddCurve("coming back", "cut off → correct snapshot", &s.again)
	result.Faults = s.crowd.faults()
	result.Faults.Missed += s.drops.Load() - s.shown.Load()
	result.Problems = append(result.Problems, s.crowd.tally.Problems()...)
}

// servedAgain takes note of one client that has its place back.
func (s *storm) servedAgain(right bool, lost, got time.Time) {
	defer s.shown.Add(1)
	if !right {
		return
	}
	s.again.Add(got.Sub(lost))
	s.first.CompareAndSwap(0, got.UnixNano())
	client.StoreMax(&s.last, got.UnixNano())
	s.served.Add(1)
}

func (s *storm) restarts() bool { return s.options.Restart != "" || s.options.Pid != 0 }

func (s *storm) how() string {
	switch {
	case s.options.Restart != "":
		return "a restart: " + s.options.Restart
	case s.options.Pid != 0:
		return fmt.Sprintf("SIGTERM to process %d", s.options.Pid)
	}
	return "the clients themselves"
}

// cut cuts all clients off.
func (s *storm) cut(ctx context.Context) error {
	switch {
	case s.options.Restart != "":
		return runCommand(ctx, s.options.Restart, "NODE="+s.crowd.room.api.Nodes[0], "INDEX=0")
	case s.options.Pid != 0:
		process, err := os.FindProcess(s.options.Pid)
		if err == nil {
			err = process.Signal(syscall.SIGTERM)
		}
		if err != nil {
			return fmt.Errorf("end process %d: %w", s.options.Pid, err)
		}
		return nil
	}
	var wg sync.WaitGroup
	for _, l := range s.links {
		wg.Go(l.Disconnect)
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
