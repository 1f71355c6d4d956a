package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// attemptsAtOnce is how many of a crowd connect at the same time at first.
const attemptsAtOnce = 200

// clientGroup is many clients in this process, each with a booking of its own.
type clientGroup struct {
	queues *patientQueues
	stats  client.Stats
	tally  *check.Tally
	stop   context.CancelCauseFunc
	ctx    context.Context
	wg     sync.WaitGroup
}

var errLeaving = errors.New("the client leaves")

func newClientGroup(queues *patientQueues) *clientGroup {
	g := &clientGroup{queues: queues, tally: queues.tally}
	g.ctx, g.stop = context.WithCancelCause(context.Background())
	return g
}

// close cuts all clients off for good.
func (g *clientGroup) close() {
	g.stop(errLeaving)
	g.wg.Wait()
}

// newConnection is the connection of one patient.
func (g *clientGroup) newConnection(i int, p *joinedPatient, to client.Listener) (*client.Connection, error) {
	kind, err := client.ParseProtocol(g.queues.traffic.Protocol)
	if err != nil {
		return nil, err
	}
	conn := &client.Connection{
		Nodes: g.queues.api.Nodes, FirstNode: i % len(g.queues.api.Nodes), Protocol: kind,
		Token: p.token, Stats: &g.stats,
	}
	conn.Add(&client.Subscription{Channel: "booking:" + p.booking, Booking: p.booking, Listener: to})
	return conn, nil
}

// run keeps a link alive until the crowd is closed.
func (g *clientGroup) run(conn *client.Connection, booking string) {
	g.wg.Go(func() {
		var end *client.TerminalError
		if err := conn.Run(g.ctx); errors.As(err, &end) {
			g.tally.AddProblem("refused client", booking, "%v", err)
		}
	})
}

// connectAll lets all clients connect, not too many at once, and waits until
// each has come to something. It returns when all are subscribed.
func (g *clientGroup) connectAll(ctx context.Context, links []*client.Connection, progress func(report.Progress)) error {
	stop := report.ShowProgress(progress, func() report.Progress {
		return report.Progress{Done: g.stats.Connected.Load(), Total: int64(len(links)), What: "clients connected"}
	})
	defer stop()
	gate := make(chan struct{}, attemptsAtOnce)
	for i, conn := range links {
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		conn.Attempted = sync.OnceFunc(func() { <-gate })
		g.run(conn, g.queues.patients[i].booking)
	}
	return g.await(ctx, openingLimit, fmt.Sprintf("%d clients are connected", len(links)), func() bool {
		return g.stats.Connected.Load() == int64(len(links))
	})
}

// pollEvery is how often a scenario looks whether it has got where it wants.
const pollEvery = 10 * time.Millisecond

// errTooLong says that something did not happen in time.
var errTooLong = errors.New("took too long")

// await waits until something is true.
func (g *clientGroup) await(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	for until := time.Now().Add(limit); !done(); {
		if time.Now().After(until) {
			return fmt.Errorf("%w: not after %v that %s (%d now, %d attempts failed)", errTooLong, limit, what, g.stats.Connected.Load(), g.stats.Failed.Load())
		}
		if err := client.Pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// fault counts a fault of one client.
func (g *clientGroup) fault(kind check.FaultKind, booking, format string, args ...any) {
	g.tally.AddFault(kind, booking, format, args...)
}

// faults sums up what was wrong.
func (g *clientGroup) faults() *report.Faults {
	f := g.tally.Faults()
	f.FailedRequests = g.queues.api.Requests.Failed.Load()
	f.RefusedClients = g.stats.Refused.Load()
	return &f
}

// faultCount counts the faults so far.
func (g *clientGroup) faultCount() int64 {
	return g.tally.Total.Load() + g.queues.api.Requests.Failed.Load() + g.stats.Refused.Load()
}

// readSnapshot returns the place that a snapshot shows, and checks the rest of it.
func (g *clientGroup) readSnapshot(p *joinedPatient, data []byte) (place int, ok bool) {
	g.tally.Snapshots.Add(1)
	g.tally.Checked.Add(1)
	var s client.Snapshot
	b := &s.Booking
	switch err := json.Unmarshal(data, &s); {
	case err != nil:
		g.fault(check.Malformed, p.booking, "snapshot: %v", err)
	case s.Type != "SNAPSHOT" || b.ID != p.booking || b.Stage != "WAITING" || b.QueuePosition == nil:
		g.fault(check.Malformed, p.booking, "snapshot of type %q shows booking %q in stage %q, position given: %t", s.Type, b.ID, b.Stage, b.QueuePosition != nil)
	default:
		if b.EstimatedWaitMinutes == nil || *b.EstimatedWaitMinutes != *b.QueuePosition*visitMinutes {
			g.fault(check.WrongEstimate, p.booking, "a snapshot's estimatedWaitMinutes do not match position %d", *b.QueuePosition)
		}
		return *b.QueuePosition, true
	}
	return 0, false
}

// stationaryClient is a client of somebody whose place does not change.
type stationaryClient struct {
	group    *clientGroup
	number   int
	patient  *joinedPatient
	position int // the first that was shown
	lost     time.Time
	// onReconnect, if set, is called when a snapshot has come after the connection was
	// lost, and tells whether it showed the right place.
	onReconnect func(right bool, lost, got time.Time)
	drops       *atomic.Int64
}

// OnSnapshot implements listener.
func (s *stationaryClient) OnSnapshot(data []byte, _, got time.Time) (done bool) {
	place, ok := s.group.readSnapshot(s.patient, data)
	switch {
	case !ok:
		return false
	case s.position == 0:
		s.position = place
	case place != s.position:
		s.group.fault(check.WrongPosition, s.patient.booking, "a snapshot shows position %d, truth is %d", place, s.position)
	}
	if !s.lost.IsZero() && s.onReconnect != nil {
		s.onReconnect(place == s.position, s.lost, got)
	}
	s.lost = time.Time{}
	return false
}

// OnPosition implements listener.
func (s *stationaryClient) OnPosition(p client.PositionUpdate, _ time.Time) (done bool) {
	s.group.tally.Checked.Add(1)
	if p.Position == s.position {
		s.group.fault(check.Duplicate, s.patient.booking, "told position %d again", p.Position)
	} else {
		s.group.fault(check.WrongPosition, s.patient.booking, "told position %d, truth is %d", p.Position, s.position)
	}
	return false
}

// OnPublication implements listener.
func (s *stationaryClient) OnPublication(data []byte, _ time.Time) (done bool) {
	s.group.fault(check.WrongNews, s.patient.booking, "told %.100s, truth is that nothing happened", data)
	return false
}

// OnDisconnect implements listener.
func (s *stationaryClient) OnDisconnect(at time.Time) {
	if s.group.ctx.Err() != nil {
		return // it was told to leave
	}
	s.lost = at
	if s.drops != nil {
		s.drops.Add(1)
	}
}
