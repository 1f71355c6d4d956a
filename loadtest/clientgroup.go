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

// concurrentAttempts is the number of clients that connect at the same time at the start.
const concurrentAttempts = 200

// clientGroup are clients in this process, each with its own booking.
type clientGroup struct {
	queues *patientQueues
	stats  client.Stats
	tally  *check.Tally
	stop   context.CancelCauseFunc
	ctx    context.Context
	wg     sync.WaitGroup
}

var errClientLeaves = errors.New("the client leaves")

func newClientGroup(queues *patientQueues) *clientGroup {
	g := &clientGroup{queues: queues, tally: queues.tally}
	g.ctx, g.stop = context.WithCancelCause(context.Background())
	return g
}

// close disconnects all clients for good.
func (g *clientGroup) close() {
	g.stop(errClientLeaves)
	g.wg.Wait()
}

// newConnection returns the connection of one patient.
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

// run keeps a connection open until the group is closed.
func (g *clientGroup) run(conn *client.Connection, booking string) {
	g.wg.Go(func() {
		var end *client.TerminalError
		if err := conn.Run(g.ctx); errors.As(err, &end) {
			g.tally.AddProblem("refused client", booking, "%v", err)
		}
	})
}

// connectAll connects all clients, concurrentAttempts at a time, and waits until they are
// subscribed.
func (g *clientGroup) connectAll(ctx context.Context, connections []*client.Connection, progress func(report.Progress)) error {
	stop := report.ShowProgress(progress, func() report.Progress {
		return report.Progress{Done: g.stats.Connected.Load(), Total: int64(len(connections)), What: "clients connected"}
	})
	defer stop()
	gate := make(chan struct{}, concurrentAttempts)
	for i, conn := range connections {
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		conn.Attempted = sync.OnceFunc(func() { <-gate })
		g.run(conn, g.queues.patients[i].booking)
	}
	return g.await(ctx, connectTimeout, fmt.Sprintf("%d clients are connected", len(connections)), func() bool {
		return g.stats.Connected.Load() == int64(len(connections))
	})
}

// pollInterval is the time between two checks of a condition.
const pollInterval = 10 * time.Millisecond

// errTimeout says that a condition did not become true in time.
var errTimeout = errors.New("timeout")

// await waits until done returns true.
func (g *clientGroup) await(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	for until := time.Now().Add(limit); !done(); {
		if time.Now().After(until) {
			return fmt.Errorf("%w after %v: not %s (%d connected, %d attempts failed)", errTimeout, limit, what, g.stats.Connected.Load(), g.stats.Failed.Load())
		}
		if err := client.Pause(ctx, pollInterval); err != nil {
			return err
		}
	}
	return nil
}

// fault counts a fault of one client.
func (g *clientGroup) fault(kind check.FaultKind, booking, format string, args ...any) {
	g.tally.AddFault(kind, booking, format, args...)
}

// faults returns the number of faults of each kind.
func (g *clientGroup) faults() *report.Faults {
	f := g.tally.Faults()
	f.FailedRequests = g.queues.api.Requests.Failed.Load()
	f.RefusedClients = g.stats.Refused.Load()
	return &f
}

// faultCount returns the number of faults so far.
func (g *clientGroup) faultCount() int64 {
	return g.tally.Total.Load() + g.queues.api.Requests.Failed.Load() + g.stats.Refused.Load()
}

// readSnapshot returns the position in a snapshot and checks its other fields.
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

// stationaryClient is the client of a patient whose position does not change.
type stationaryClient struct {
	group    *clientGroup
	number   int
	patient  *joinedPatient
	position int // position in the first snapshot
	lost     time.Time
	// onReconnect, if set, is called for the first snapshot after a lost connection. right
	// reports whether its position is correct.
	onReconnect func(right bool, lost, got time.Time)
	drops       *atomic.Int64
}

// OnSnapshot implements client.Listener.
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

// OnPosition implements client.Listener.
func (s *stationaryClient) OnPosition(p client.PositionUpdate, _ time.Time) (done bool) {
	s.group.tally.Checked.Add(1)
	if p.Position == s.position {
		s.group.fault(check.Duplicate, s.patient.booking, "received position %d again", p.Position)
	} else {
		s.group.fault(check.WrongPosition, s.patient.booking, "received position %d, truth is %d", p.Position, s.position)
	}
	return false
}

// OnPublication implements client.Listener.
func (s *stationaryClient) OnPublication(data []byte, _ time.Time) (done bool) {
	s.group.fault(check.WrongNews, s.patient.booking, "received %.100s, truth is that nothing happened", data)
	return false
}

// OnDisconnect implements client.Listener.
func (s *stationaryClient) OnDisconnect(at time.Time) {
	if s.group.ctx.Err() != nil {
		return // the group was closed
	}
	s.lost = at
	if s.drops != nil {
		s.drops.Add(1)
	}
}
