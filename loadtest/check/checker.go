package check

import (
	"context"
	"encoding/json"
	"errors"
	"sort"
	"sync"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/centrifugal/protocol"
)

const (
	// shardCount is the number of shards. Each shard has its own lock, so that clients seldom
	// wait for each other.
	shardCount = 16
	// maxObservations bounds a shard. A shard is emptied many times a second; an observation
	// that does not fit counts as a fault.
	maxObservations = 1 << 18
	// maxOpening is the number of connections being opened at the same time, at most.
	maxOpening = 128
)

// Options are common to all clients of a Checker.
type Options struct {
	Nodes    []string      `json:"nodes"`
	Protocol protocol.Type `json:"protocol"`
	Bound    time.Duration `json:"bound"`
	Minutes  int           `json:"minutes"` // minutes of the booking type, for estimatedWaitMinutes
	// Snapshots says that a subscribe reply contains the booking. Otherwise the client is
	// assumed to know its position when it subscribes.
	Snapshots bool `json:"snapshots"`
	// Calls says that a patient's client receives an event when the patient is called.
	Calls bool `json:"news"`
}

// ConnectionSpec describes a connection to open, or more channels for an open one.
type ConnectionSpec struct {
	Connection int           `json:"link"`
	Token      string        `json:"token,omitempty"`
	Hello      []byte        `json:"hello,omitempty"`
	Channels   []ChannelSpec `json:"channels"`
}

// ChannelSpec describes a patient's channel.
type ChannelSpec struct {
	Patient int    `json:"patient"`
	Booking string `json:"booking"`
	Channel string `json:"channel"`
	Token   string `json:"token,omitempty"`
	Queue   int    `json:"queue"`
	// Rank is the patient's position in the order of joining, from 1. If it is zero, the first
	// snapshot sets it: no patient has been called by then.
	Rank int `json:"rank,omitempty"`
}

// Truth has the departures of each queue since the previous Truth, up to a moment.
type Truth struct {
	Until  int64            `json:"until"` // Unix nanoseconds, like all times here
	Queues []DepartureTimes `json:"queues"`
}

// DepartureTimes has the times of the departures from one queue. Patients leave in the order
// in which they joined. The k-th departure therefore lies between the k-th request and the
// k-th response, whichever patient a request named, and a position is the rank minus the
// departures.
type DepartureTimes struct {
	Sent     []int64 `json:"sent,omitempty"`
	Answered []int64 `json:"answered,omitempty"`
}

// countUntil returns the number of times not after a moment.
func countUntil(times []int64, at int64) int {
	return sort.Search(len(times), func(i int) bool { return times[i] > at })
}

// Checker holds many clients and checks what each receives. The clients' goroutines only
// record observations; Update checks them when the truth about their time is known.
type Checker struct {
	opts    Options
	tally   *Tally
	shards  [shardCount]shard
	opening chan struct{}
	cancel  context.CancelFunc
	ctx     context.Context //nolint:containedctx // the life of the connections, which outlasts the call that opens one
	wg      sync.WaitGroup

	// The goroutine that calls Update alone uses the fields below.
	connections    map[int]*client.Connection
	subscribers    []*subscriber
	queues         []DepartureTimes
	lastShown      [][]int64        // by queue and departure: when the last client showed it
	ages           report.Histogram // the age of a client's position whenever a newer one replaced it
	watched        time.Duration
	conveyed       int64
	refused        int64 // refused clients at the last Conclude
	firstPositions []FirstPosition
}

// shard has the observations of some of the clients.
type shard struct {
	stats        client.Stats
	mu           sync.Mutex
	observations []observation
	lost         int64
	spare        []observation // used by Update; swapped with observations
}

// observation is one thing that a client received.
type observation struct {
	subscriber  *subscriber
	receivedAt  int64
	requestedAt int64 // time of the subscribe request, for a snapshot
	kind        observationKind
	position    int32
	text        string // a description, for a malformed message
}

type observationKind uint8

const (
	positionPushed    observationKind = iota // a pushed position
	snapshotReceived                         // a snapshot; position 0 if the patient no longer waits
	callReceived                             // the event that the patient was called
	connectionLost                           // the connection was lost
	estimateWrong                            // a wrong estimate; its position is recorded separately
	messageMalformed                         // a message that violates the API
	connectionRefused                        // the client ended for good
)

// FirstPosition is the position in a patient's first snapshot.
type FirstPosition struct {
	Patient  int `json:"patient"`
	Position int `json:"position"`
}

// subscriber is one patient's channel and what was received over it.
type subscriber struct {
	checker *Checker
	shard   *shard
	spec    ChannelSpec

	// Used by Update alone.
	known          int   // departures that the client knows; -1 before the first snapshot
	firstConnected int64 // zero before the first snapshot
	connectedSince int64 // zero while disconnected
	finished       bool  // the client knows that the patient no longer waits
	refused        bool
	reported       bool // set once a stale period has been counted
}

// NewChecker returns a Checker without clients.
func NewChecker(opts Options) *Checker {
	ctx, cancel := context.WithCancel(context.Background())
	return &Checker{opts: opts, tally: NewTally(), opening: make(chan struct{}, maxOpening), ctx: ctx, cancel: cancel, connections: map[int]*client.Connection{}}
}

// Close ends every connection.
func (c *Checker) Close() {
	c.cancel()
	c.wg.Wait()
}

// Open opens a connection, or adds channels to an open one. It waits while maxOpening others
// are being opened.
func (c *Checker) Open(ctx context.Context, spec ConnectionSpec) error {
	shard := &c.shards[spec.Connection%shardCount]
	var list []*client.Subscription
	for _, channel := range spec.Channels {
		s := &subscriber{checker: c, shard: shard, spec: channel, known: -1}
		c.subscribers = append(c.subscribers, s)
		for len(c.queues) <= channel.Queue {
			c.queues = append(c.queues, DepartureTimes{})
			c.lastShown = append(c.lastShown, nil)
		}
		list = append(list, &client.Subscription{Channel: channel.Channel, Booking: channel.Booking, Token: channel.Token, Listener: s})
	}
	conn := c.connections[spec.Connection]
	if conn != nil {
		for len(list) > 0 && conn.Add(list[0]) {
			list = list[1:]
		}
		if len(list) == 0 {
			return nil
		}
	}
	select {
	case c.opening <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	conn = &client.Connection{
		Nodes:     c.opts.Nodes,
		FirstNode: spec.Connection % len(c.opts.Nodes),
		Protocol:  c.opts.Protocol,
		Token:     spec.Token,
		Hello:     spec.Hello,
		Stats:     &shard.stats,
		Attempted: sync.OnceFunc(func() { <-c.opening }),
	}
	c.connections[spec.Connection] = conn
	for _, sub := range list {
		conn.Add(sub)
	}
	c.wg.Go(func() {
		var end *client.TerminalError
		if err := conn.Run(c.ctx); errors.As(err, &end) {
			for _, sub := range conn.Subscriptions() {
				if s, ok := sub.Listener.(*subscriber); ok {
					s.record(observation{kind: connectionRefused, receivedAt: time.Now().UnixNano(), text: end.Reason})
				}
			}
		}
	})
	return nil
}

// record stores an observation.
func (s *subscriber) record(o observation) {
	o.subscriber = s
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if len(s.shard.observations) == maxObservations {
		s.shard.lost++
		return
	}
	s.shard.observations = append(s.shard.observations, o)
}

// OnPosition implements client.Listener.
func (s *subscriber) OnPosition(p client.PositionUpdate, at time.Time) (done bool) {
	o := observation{kind: positionPushed, position: int32(p.Position), receivedAt: at.UnixNano()}
	s.record(o)
	if p.Minutes != p.Position*s.checker.opts.Minutes {
		o.kind, o.requestedAt = estimateWrong, int64(p.Minutes)
		s.record(o)
	}
	return false
}

// OnSnapshot implements client.Listener.
func (s *subscriber) OnSnapshot(data []byte, requested, received time.Time) (done bool) {
	o := observation{kind: snapshotReceived, requestedAt: requested.UnixNano(), receivedAt: received.UnixNano()}
	if !s.checker.opts.Snapshots {
		o.position = int32(s.spec.Rank)
		s.record(o)
		return false
	}
	var snapshot client.Snapshot
	err := json.Unmarshal(data, &snapshot)
	switch {
	case err != nil || snapshot.Type != "SNAPSHOT" || snapshot.Booking.ID != s.spec.Booking:
		o.kind, o.text = messageMalformed, "a snapshot of another booking"
	case snapshot.Booking.Stage == "WAITING" && snapshot.Booking.QueuePosition == nil:
		o.kind, o.text = messageMalformed, "a snapshot of a waiting booking without queuePosition"
	case snapshot.Booking.Stage == "WAITING":
		o.position = int32(*snapshot.Booking.QueuePosition)
	default:
		done = true
	}
	s.record(o)
	if minutes := snapshot.Booking.EstimatedWaitMinutes; o.position > 0 && (minutes == nil || *minutes != int(o.position)*s.checker.opts.Minutes) {
		o.kind = estimateWrong
		s.record(o)
	}
	return done
}

// OnPublication implements client.Listener.
func (s *subscriber) OnPublication(data []byte, at time.Time) (done bool) {
	o := observation{kind: messageMalformed, receivedAt: at.UnixNano()}
	var p client.Publication
	err := json.Unmarshal(data, &p)
	switch {
	case err != nil || p.Via != "scheduling-system" || p.BookingID != s.spec.Booking:
		o.text = "a publication of another booking"
	case p.Type == "MY_BOOKING_ASSIGNED":
		o.kind, done = callReceived, true
	case p.Type == "QUEUE_POSITION_UPDATED" && p.QueuePosition != nil && p.EstimatedWaitMinutes != nil:
		return s.OnPosition(client.PositionUpdate{Position: *p.QueuePosition, Minutes: *p.EstimatedWaitMinutes}, at)
	case p.Type == "MY_BOOKING_CALLED" || p.Type == "BOOKING_UPDATED" || p.Type == "MY_BOOKING_ENDED":
		return false // does not change the position
	default:
		o.text = "the publication " + p.Type
	}
	s.record(o)
	return done
}

// OnDisconnect implements client.Listener.
func (s *subscriber) OnDisconnect(at time.Time) {
	s.record(observation{kind: connectionLost, receivedAt: at.UnixNano()})
}

// Update adds a Truth and checks every observation up to its moment.
func (c *Checker) Update(t Truth) {
	for i, q := range t.Queues {
		for len(c.queues) <= i {
			c.queues, c.lastShown = append(c.queues, DepartureTimes{}), append(c.lastShown, nil)
		}
		c.queues[i].Sent = append(c.queues[i].Sent, q.Sent...)
		c.queues[i].Answered = append(c.queues[i].Answered, q.Answered...)
		c.lastShown[i] = append(c.lastShown[i], make([]int64, len(q.Sent))...)
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		observations := s.observations
		s.observations = s.spare[:0]
		lost := s.lost
		s.lost = 0
		s.mu.Unlock()
		if lost > 0 {
			c.tally.faults[Missed] += lost
			c.tally.AddProblem("unchecked", "", "%d observations did not fit and were not checked", lost)
		}
		var later []observation
		for _, o := range observations {
			if o.receivedAt > t.Until {
				later = append(later, o)
				continue
			}
			c.check(o)
		}
		if len(later) > 0 {
			s.mu.Lock()
			s.observations = append(later, s.observations...)
			s.mu.Unlock()
		}
		clear(observations)
		s.spare = observations[:0]
	}
}

// check compares one observation with the truth.
func (c *Checker) check(o observation) {
	s := o.subscriber
	q := &c.queues[s.spec.Queue]
	switch o.kind {
	case positionPushed:
		s.checkPosition(q, int(o.position), o.receivedAt)
	case snapshotReceived:
		s.checkSnapshot(q, int(o.position), o.requestedAt, o.receivedAt)
	case callReceived:
		s.checkCalled(q, o.receivedAt)
	case connectionLost:
		s.checkStaleness(q, s.known, o.receivedAt)
		s.connectedSince = 0
	case estimateWrong:
		c.fault(WrongEstimate, s, "estimatedWaitMinutes is %d with position %d", o.requestedAt, o.position)
	case messageMalformed:
		c.fault(Malformed, s, "%s", o.text)
	case connectionRefused:
		s.refused = true
		c.tally.AddProblem("refused client", s.spec.Booking, "%s", o.text)
	}
}

func (c *Checker) fault(kind FaultKind, s *subscriber, format string, args ...any) {
	c.tally.AddFault(kind, s.spec.Booking, format, args...)
}

// checkPosition checks a pushed position. The booking must have had it, and it must be newer
// than the previous one. Positions may be skipped but not repeated.
func (s *subscriber) checkPosition(q *DepartureTimes, position int, at int64) {
	c := s.checker
	c.tally.Checked.Add(1)
	departed := s.spec.Rank - position
	switch {
	case s.known < 0:
		c.fault(Malformed, s, "a position before the first snapshot")
	case departed < 0 || position < 1 || departed > countUntil(q.Sent, at):
		c.fault(WrongPosition, s, "received position %d, truth is %d to %d", position, s.spec.Rank-countUntil(q.Sent, at), s.spec.Rank-countUntil(q.Answered, at))
	case departed == s.known:
		c.fault(Duplicate, s, "received position %d again", position)
	case departed < s.known:
		c.fault(OutOfOrder, s, "received position %d after %d", position, s.spec.Rank-s.known)
	default:
		c.tally.Latency.Add(time.Duration(at - q.Sent[departed-1]))
		s.advance(q, departed, at)
	}
}

// checkSnapshot checks the state in a subscribe reply. It must have been true at some moment
// between the request and the reply.
func (s *subscriber) checkSnapshot(q *DepartureTimes, position int, requested, at int64) {
	c := s.checker
	c.tally.Checked.Add(1)
	c.tally.Snapshots.Add(1)
	if s.spec.Rank == 0 {
		s.spec.Rank = position
		c.firstPositions = append(c.firstPositions, FirstPosition{s.spec.Patient, position})
	}
	if s.firstConnected == 0 {
		s.firstConnected = at
	}
	departed := s.spec.Rank - position
	known := countUntil(q.Answered, requested)
	switch {
	case position == 0 && s.spec.Rank > countUntil(q.Sent, at):
		c.fault(WrongNews, s, "a snapshot shows that the patient no longer waits, truth is position %d", s.spec.Rank-countUntil(q.Sent, at))
	case position == 0:
		s.finish(q, at)
	case departed < 0 || departed > countUntil(q.Sent, at):
		c.fault(WrongPosition, s, "a snapshot shows position %d, truth is %d to %d", position, s.spec.Rank-countUntil(q.Sent, at), s.spec.Rank-known)
	case departed < s.known:
		c.fault(OutOfOrder, s, "a snapshot shows position %d after position %d", position, s.spec.Rank-s.known)
	default:
		if departed < known && c.opts.Snapshots {
			stale := time.Duration(requested - q.Answered[departed])
			c.tally.addStale(stale)
			c.fault(StaleSnapshot, s, "a snapshot shows position %d, which stopped being true %v before the request", position, stale)
		}
		if s.known < 0 {
			s.known = departed
		} else if departed > s.known {
			s.advance(q, departed, at)
		}
	}
	s.connectedSince = at
}

func (s *subscriber) checkCalled(q *DepartureTimes, at int64) {
	c := s.checker
	switch departed := countUntil(q.Sent, at); {
	case s.spec.Rank == 0 || s.spec.Rank > departed:
		c.fault(WrongNews, s, "received a call, truth is position %d", s.spec.Rank-departed)
	case s.finished:
		c.fault(Duplicate, s, "received a call again")
	default:
		c.tally.CallLatency.Add(time.Duration(at - q.Sent[s.spec.Rank-1]))
		s.finish(q, at)
	}
}

// finish records that the client knows that the patient no longer waits.
func (s *subscriber) finish(q *DepartureTimes, at int64) {
	if s.finished {
		return
	}
	s.finished = true
	s.advance(q, s.spec.Rank, at)
	s.checker.watched += time.Duration(at - s.firstConnected)
}

// advance moves the client to a newer state.
func (s *subscriber) advance(q *DepartureTimes, to int, at int64) {
	c := s.checker
	s.checkStaleness(q, to, at)
	s.reported = false
	if s.known >= 0 {
		if age, ok := s.age(q, at); ok {
			c.ages.Add(age)
		}
		c.tally.Conflated.Add(int64(to - s.known - 1))
		c.conveyed += int64(to - s.known)
		last := c.lastShown[s.spec.Queue]
		for i := s.known; i < min(to, s.spec.Rank-1); i++ {
			last[i] = max(last[i], at)
		}
	}
	s.known = to
}

// age returns how long the client's position has no longer been true.
func (s *subscriber) age(q *DepartureTimes, at int64) (time.Duration, bool) {
	if s.known < 0 || s.known >= len(q.Answered) || q.Answered[s.known] >= at {
		return 0, false
	}
	return time.Duration(at - q.Answered[s.known]), true
}

// checkStaleness reports a fault if the client had shown an old state for longer than the
// bound before it received a new one: either the new state arrived late, or one before it
// never arrived.
func (s *subscriber) checkStaleness(q *DepartureTimes, to int, at int64) {
	c := s.checker
	if s.reported || s.connectedSince == 0 || s.known < 0 || s.known >= len(q.Answered) {
		return
	}
	stale := time.Duration(at - max(q.Answered[s.known], s.connectedSince))
	if stale <= c.opts.Bound {
		return
	}
	s.reported = true
	if to > s.known && to <= len(q.Answered) && time.Duration(at-max(q.Answered[to-1], s.connectedSince)) > c.opts.Bound {
		c.fault(Late, s, "received position %d after %v", s.spec.Rank-to, stale)
		return
	}
	c.fault(Missed, s, "kept at position %d for %v", s.spec.Rank-s.known, stale)
}

// behind returns the number of clients that do not show the newest state.
func (c *Checker) behind() int {
	n := 0
	for _, s := range c.subscribers {
		departed := len(c.queues[s.spec.Queue].Answered)
		called := s.spec.Rank > 0 && s.spec.Rank <= departed
		switch {
		case s.finished, s.refused, called && !c.opts.Calls:
		case s.connectedSince == 0, s.known < departed:
			n++
		}
	}
	return n
}

// finish checks the state that every client shows at the end.
func (c *Checker) finish(at int64) {
	for _, s := range c.subscribers {
		q := &c.queues[s.spec.Queue]
		if s.firstConnected == 0 {
			c.fault(Missed, s, "never had a live connection")
			continue
		}
		if s.finished {
			continue
		}
		departed := len(q.Answered)
		c.watched += time.Duration(at - s.firstConnected)
		s.firstConnected = at
		if age, ok := s.age(q, at); ok {
			c.ages.Add(age)
		}
		switch {
		case s.reported, s.spec.Rank <= departed && !c.opts.Calls:
		case s.spec.Rank <= departed:
			c.fault(Missed, s, "received no call")
		case s.known < departed:
			c.fault(Missed, s, "kept at position %d, truth is %d", s.spec.Rank-s.known, s.spec.Rank-departed)
		}
	}
}
