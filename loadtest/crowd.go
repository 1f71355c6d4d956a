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

// crowd is many clients in this process, each with a booking of its own.
type crowd struct {
	room  *waitingRoom
	live  client.Stats
	tally *check.Tally
	stop  context.CancelCauseFunc
	ctx   context.Context
	wg    sync.WaitGroup
}

var errLeaving = errors.New("the client leaves")

func newCrowd(room *waitingRoom) *crowd {
	c := &crowd{room: room, tally: room.tally}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	return c
}

// close cuts all clients off for good.
func (c *crowd) close() {
	c.stop(errLeaving)
	c.wg.Wait()
}

// newLink is the connection of one patient.
func (c *crowd) newLink(i int, p *joiner, to client.Listener) (*client.Connection, error) {
	kind, err := client.ParseProtocol(c.room.traffic.Protocol)
	if err != nil {
		return nil, err
	}
	l := &client.Connection{
		Nodes: c.room.api.Nodes, FirstNode: i % len(c.room.api.Nodes), Protocol: kind,
		Token: p.token, Stats: &c.live,
	}
	l.Add(&client.Subscription{Channel: "booking:" + p.booking, Booking: p.booking, Listener: to})
	return l, nil
}

// follow keeps a link alive until the crowd is closed.
func (c *crowd) follow(l *client.Connection, booking string) {
	c.wg.Go(func() {
		var end *client.TerminalError
		if err := l.Run(c.ctx); errors.As(err, &end) {
			c.tally.AddProblem("refused client", booking, "%v", err)
		}
	})
}

// connectAll lets all clients connect, not too many at once, and waits until
// each has come to something. It returns when all are subscribed.
func (c *crowd) connectAll(ctx context.Context, links []*client.Connection, progress func(report.Progress)) error {
	stop := report.ShowProgress(progress, func() report.Progress {
		return report.Progress{Done: c.live.Connected.Load(), Total: int64(len(links)), What: "clients connected"}
	})
	defer stop()
	gate := make(chan struct{}, attemptsAtOnce)
	for i, l := range links {
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		l.Attempted = sync.OnceFunc(func() { <-gate })
		c.follow(l, c.room.patients[i].booking)
	}
	return c.await(ctx, openingLimit, fmt.Sprintf("%d clients are connected", len(links)), func() bool {
		return c.live.Connected.Load() == int64(len(links))
	})
}

// pollEvery is how often a scenario looks whether it has got where it wants.
const pollEvery = 10 * time.Millisecond

// errTooLong says that something did not happen in time.
var errTooLong = errors.New("took too long")

// await waits until something is true.
func (c *crowd) await(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	for until := time.Now().Add(limit); !done(); {
		if time.Now().After(until) {
			return fmt.Errorf("%w: not after %v that %s (%d now, %d attempts failed)", errTooLong, limit, what, c.live.Connected.Load(), c.live.Failed.Load())
		}
		if err := client.Pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// fault counts a fault of one client.
func (c *crowd) fault(kind check.FaultKind, booking, format string, args ...any) {
	c.tally.AddFault(kind, booking, format, args...)
}

// faults sums up what was wrong.
func (c *crowd) faults() *report.Faults {
	f := c.tally.Faults()
	f.FailedRequests = c.room.api.Requests.Failed.Load()
	f.RefusedClients = c.live.Refused.Load()
	return &f
}

// wrong counts the faults so far.
func (c *crowd) wrong() int64 {
	return c.tally.Total.Load() + c.room.api.Requests.Failed.Load() + c.live.Refused.Load()
}

// readSnapshot returns the place that a snapshot shows, and checks the rest of it.
func (c *crowd) readSnapshot(p *joiner, data []byte) (place int, ok bool) {
	c.tally.Snapshots.Add(1)
	c.tally.Checked.Add(1)
	var s client.Snapshot
	b := &s.Booking
	switch err := json.Unmarshal(data, &s); {
	case err != nil:
		c.fault(check.Malformed, p.booking, "snapshot: %v", err)
	case s.Type != "SNAPSHOT" || b.ID != p.booking || b.Stage != "WAITING" || b.QueuePosition == nil:
		c.fault(check.Malformed, p.booking, "snapshot of type %q shows booking %q in stage %q, position given: %t", s.Type, b.ID, b.Stage, b.QueuePosition != nil)
	default:
		if b.EstimatedWaitMinutes == nil || *b.EstimatedWaitMinutes != *b.QueuePosition*visitMinutes {
			c.fault(check.WrongEstimate, p.booking, "a snapshot's estimatedWaitMinutes do not match position %d", *b.QueuePosition)
		}
		return *b.QueuePosition, true
	}
	return 0, false
}

// standing is a client of somebody whose place does not change.
type standing struct {
	crowd  *crowd
	number int
	p      *joiner
	place  int // the first that was shown
	lost   time.Time
	// again, if set, is called when a snapshot has come after the connection was
	// lost, and tells whether it showed the right place.
	again func(right bool, lost, got time.Time)
	drops *atomic.Int64
}

// OnSnapshot implements listener.
func (s *standing) OnSnapshot(data []byte, _, got time.Time) (done bool) {
	place, ok := s.crowd.readSnapshot(s.p, data)
	switch {
	case !ok:
		return false
	case s.place == 0:
		s.place = place
	case place != s.place:
		s.crowd.fault(check.WrongPosition, s.p.booking, "a snapshot shows position %d, truth is %d", place, s.place)
	}
	if !s.lost.IsZero() && s.again != nil {
		s.again(place == s.place, s.lost, got)
	}
	s.lost = time.Time{}
	return false
}

// OnPosition implements listener.
func (s *standing) OnPosition(p client.PositionUpdate, _ time.Time) (done bool) {
	s.crowd.tally.Checked.Add(1)
	if p.Position == s.place {
		s.crowd.fault(check.Duplicate, s.p.booking, "told position %d again", p.Position)
	} else {
		s.crowd.fault(check.WrongPosition, s.p.booking, "told position %d, truth is %d", p.Position, s.place)
	}
	return false
}

// OnPublication implements listener.
func (s *standing) OnPublication(data []byte, _ time.Time) (done bool) {
	s.crowd.fault(check.WrongNews, s.p.booking, "told %.100s, truth is that nothing happened", data)
	return false
}

// OnDisconnect implements listener.
func (s *standing) OnDisconnect(at time.Time) {
	if s.crowd.ctx.Err() != nil {
		return // it was told to leave
	}
	s.lost = at
	if s.drops != nil {
		s.drops.Add(1)
	}
}
