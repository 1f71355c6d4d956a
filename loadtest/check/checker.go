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
	// shardCount is how many notebooks the clients of a fleet write into, so
	// that they seldom wait for each other.
	shardCount = 16
	// maxObservations bounds a notebook. It is read many times a second; when it is
	// full nevertheless, what does not fit counts as a fault.
	maxObservations = 1 << 18
	// maxOpening is how many connections are opened at once.
	maxOpening = 128
)

// Options is what the clients of a fleet have in common.
type Options struct {
	Nodes    []string      `json:"nodes"`
	Protocol protocol.Type `json:"protocol"`
	Bound    time.Duration `json:"bound"`
	Minutes  int           `json:"minutes"` // of the booking type, for estimatedWaitMinutes
	// Snapshots says that a subscribe reply shows the booking. Where it does
	// not, a client is taken to know its place at the beginning.
	Snapshots bool `json:"snapshots"`
	// Calls says that a patient is told when its wait is over.
	Calls bool `json:"news"`
}

// ConnectionSpec asks for a connection, or for more channels on one that exists.
type ConnectionSpec struct {
	Connection int           `json:"link"`
	Token      string        `json:"token,omitempty"`
	Hello      []byte        `json:"hello,omitempty"`
	Channels   []ChannelSpec `json:"channels"`
}

// ChannelSpec asks for a patient's channel to be watched.
type ChannelSpec struct {
	Patient int    `json:"patient"`
	Booking string `json:"booking"`
	Channel string `json:"channel"`
	Token   string `json:"token,omitempty"`
	Queue   int    `json:"queue"`
	// Rank is the patient's place in the order of joining, from 1. Zero means
	// that the first snapshot tells: nobody has been called yet then.
	Rank int `json:"rank,omitempty"`
}

// Truth is what has become true since the last one, and until when it is all:
// of each queue, when its departures were sent and when they were answered.
type Truth struct {
	Until  int64            `json:"until"` // Unix nanoseconds, as all times here
	Queues []DepartureTimes `json:"queues"`
}

// DepartureTimes of one queue. Patients leave it in the order in which they joined,
// so the k-th departure lies between the k-th time that one was sent and the
// k-th time that one was answered, whoever was called, and a position is the
// rank less the departures.
type DepartureTimes struct {
	Sent     []int64 `json:"sent,omitempty"`
	Answered []int64 `json:"answered,omitempty"`
}

// countUntil counts the times not after a moment.
func countUntil(times []int64, at int64) int {
	return sort.Search(len(times), func(i int) bool { return times[i] > at })
}

// Checker holds many clients and checks what each is told. The clients only take
// notes, in their own goroutines; the notes are checked when the truth about
// their time is known.
type Checker struct {
	opts    Options
	tally   *Tally
	shards  [shardCount]shard
	opening chan struct{}
	cancel  context.CancelFunc
	ctx     context.Context //nolint:containedctx // the life of the connections, which outlasts the call that opens one
	wg      sync.WaitGroup

	// The rest is used by the checking goroutine alone.
	connections    map[int]*client.Connection
	subscribers    []*subscriber
	queues         []DepartureTimes
	last           [][]int64        // of each queue and departure, when the last client showed it
	ages           report.Histogram // how old what a client showed had become, each time it was replaced
	watched        time.Duration
	conveyed       int64
	refused        int64 // clients, when the books were opened
	firstPositions []FirstPosition
}

// shard is a notebook of some clients.
type shard struct {
	stats        client.Stats
	mu           sync.Mutex
	observations []observation
	lost         int64
	spare        []observation // the checker's; swapped with notes
}

// observation is one thing a client was told.
type observation struct {
	subscriber *subscriber
	at         int64
	asked      int64 // of a snapshot
	kind       observationKind
	position   int32
	text       string // of what was malformed
}

type observationKind uint8

const (
	positionPushed    observationKind = iota // a pushed position
	snapshotReceived                         // a snapshot; position 0 when the wait is over
	callReceived                             // the news that the wait is over
	connectionLost                           // the connection was lost
	estimateWrong                            // a wrong estimate, beside the position
	messageMalformed                         // what the contract does not promise
	connectionRefused                        // the client gave up
)

// FirstPosition is the position that a patient's first snapshot showed.
type FirstPosition struct {
	Patient  int `json:"patient"`
	Position int `json:"position"`
}

// subscriber is one patient's channel: what was told over it.
type subscriber struct {
	checker *Checker
	shard   *shard
	spec    ChannelSpec

	// Of the checking goroutine.
	known          int   // departures the client knows of; -1 before the first snapshot
	firstConnected int64 // zero before the first snapshot
	connectedSince int64 // zero while there is no connection
	finished       bool  // told that its wait is over
	refused        bool
	reported       bool // one stale spell is counted once
}

func NewChecker(o Options) *Checker {
	ctx, cancel := context.WithCancel(context.Background())
	return &Checker{opts: o, tally: NewTally(), opening: make(chan struct{}, maxOpening), ctx: ctx, cancel: cancel, connections: map[int]*client.Connection{}}
}

// Close ends every connection.
func (f *Checker) Close() {
	f.cancel()
	f.wg.Wait()
}

// Open opens a connection, or adds channels to one. It waits while many others
// are being opened.
func (f *Checker) Open(ctx context.Context, o ConnectionSpec) error {
	shard := &f.shards[o.Connection%shardCount]
	var list []*client.Subscription
	for _, c := range o.Channels {
		w := &subscriber{checker: f, shard: shard, spec: c, known: -1}
		f.subscribers = append(f.subscribers, w)
		for len(f.queues) <= c.Queue {
			f.queues = append(f.queues, DepartureTimes{})
			f.last = append(f.last, nil)
		}
		list = append(list, &client.Subscription{Channel: c.Channel, Booking: c.Booking, Token: c.Token, Listener: w})
	}
	l := f.connections[o.Connection]
	if l != nil {
		for len(list) > 0 && l.Add(list[0]) {
			list = list[1:]
		}
		if len(list) == 0 {
			return nil
		}
	}
	select {
	case f.opening <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	l = &client.Connection{
		Nodes:     f.opts.Nodes,
		FirstNode: o.Connection % len(f.opts.Nodes),
		Protocol:  f.opts.Protocol,
		Token:     o.Token,
		Hello:     o.Hello,

		Stats:     &shard.stats,
		Attempted: sync.OnceFunc(func() { <-f.opening }),
	}
	f.connections[o.Connection] = l
	for _, s := range list {
		l.Add(s)
	}
	f.wg.Go(func() {
		var end *client.TerminalError
		if err := l.Run(f.ctx); errors.As(err, &end) {
			for _, s := range l.Subscriptions() {
				if w, ok := s.Listener.(*subscriber); ok {
					w.record(observation{kind: connectionRefused, at: time.Now().UnixNano(), text: end.Reason})
				}
			}
		}
	})
	return nil
}

// record takes a note.
func (w *subscriber) record(n observation) {
	n.subscriber = w
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	if len(w.shard.observations) == maxObservations {
		w.shard.lost++
		return
	}
	w.shard.observations = append(w.shard.observations, n)
}

// OnPosition implements listener.
func (w *subscriber) OnPosition(p client.PositionUpdate, at time.Time) (done bool) {
	n := observation{kind: positionPushed, position: int32(p.Position), at: at.UnixNano()}
	w.record(n)
	if p.Minutes != p.Position*w.checker.opts.Minutes {
		n.kind, n.asked = estimateWrong, int64(p.Minutes)
		w.record(n)
	}
	return false
}

// OnSnapshot implements listener.
func (w *subscriber) OnSnapshot(data []byte, asked, got time.Time) (done bool) {
	n := observation{kind: snapshotReceived, asked: asked.UnixNano(), at: got.UnixNano()}
	if !w.checker.opts.Snapshots {
		n.position = int32(w.spec.Rank)
		w.record(n)
		return false
	}
	var s client.Snapshot
	err := json.Unmarshal(data, &s)
	switch {
	case err != nil || s.Type != "SNAPSHOT" || s.Booking.ID != w.spec.Booking:
		n.kind, n.text = messageMalformed, "a snapshot of something else"
	case s.Booking.Stage == "WAITING" && s.Booking.QueuePosition == nil:
		n.kind, n.text = messageMalformed, "a snapshot of a waiting booking without queuePosition"
	case s.Booking.Stage == "WAITING":
		n.position = int32(*s.Booking.QueuePosition)
	default:
		done = true
	}
	w.record(n)
	if minutes := s.Booking.EstimatedWaitMinutes; n.position > 0 && (minutes == nil || *minutes != int(n.position)*w.checker.opts.Minutes) {
		n.kind = estimateWrong
		w.record(n)
	}
	return done
}

// OnPublication implements listener.
func (w *subscriber) OnPublication(data []byte, at time.Time) (done bool) {
	n := observation{kind: messageMalformed, at: at.UnixNano()}
	var p client.Publication
	err := json.Unmarshal(data, &p)
	switch {
	case err != nil || p.Via != "scheduling-system" || p.BookingID != w.spec.Booking:
		n.text = "a publication of something else"
	case p.Type == "MY_BOOKING_ASSIGNED":
		n.kind, done = callReceived, true
	case p.Type == "QUEUE_POSITION_UPDATED" && p.QueuePosition != nil && p.EstimatedWaitMinutes != nil:
		return w.OnPosition(client.PositionUpdate{Position: *p.QueuePosition, Minutes: *p.EstimatedWaitMinutes}, at)
	case p.Type == "MY_BOOKING_CALLED" || p.Type == "BOOKING_UPDATED" || p.Type == "MY_BOOKING_ENDED":
		return false // nothing about the place in the queue
	default:
		n.text = "the publication " + p.Type
	}
	w.record(n)
	return done
}

// OnDisconnect implements listener.
func (w *subscriber) OnDisconnect(at time.Time) {
	w.record(observation{kind: connectionLost, at: at.UnixNano()})
}

// Update takes over the truth and checks every note of its time.
func (f *Checker) Update(t Truth) {
	for i, q := range t.Queues {
		for len(f.queues) <= i {
			f.queues, f.last = append(f.queues, DepartureTimes{}), append(f.last, nil)
		}
		f.queues[i].Sent = append(f.queues[i].Sent, q.Sent...)
		f.queues[i].Answered = append(f.queues[i].Answered, q.Answered...)
		f.last[i] = append(f.last[i], make([]int64, len(q.Sent))...)
	}
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		notes := s.observations
		s.observations = s.spare[:0]
		lost := s.lost
		s.lost = 0
		s.mu.Unlock()
		if lost > 0 {
			f.tally.faults[Missed] += lost
			f.tally.AddProblem("unchecked", "", "%d notes did not fit and were not checked", lost)
		}
		var later []observation
		for _, n := range notes {
			if n.at > t.Until {
				later = append(later, n)
				continue
			}
			f.check(n)
		}
		if len(later) > 0 {
			s.mu.Lock()
			s.observations = append(later, s.observations...)
			s.mu.Unlock()
		}
		clear(notes)
		s.spare = notes[:0]
	}
}

// check compares one note with the truth.
func (f *Checker) check(n observation) {
	w := n.subscriber
	q := &f.queues[w.spec.Queue]
	switch n.kind {
	case positionPushed:
		w.checkPosition(q, int(n.position), n.at)
	case snapshotReceived:
		w.checkSnapshot(q, int(n.position), n.asked, n.at)
	case callReceived:
		w.checkCalled(q, n.at)
	case connectionLost:
		w.checkStaleness(q, w.known, n.at)
		w.connectedSince = 0
	case estimateWrong:
		f.fault(WrongEstimate, w, "estimatedWaitMinutes is %d with position %d", n.asked, n.position)
	case messageMalformed:
		f.fault(Malformed, w, "%s", n.text)
	case connectionRefused:
		w.refused = true
		f.tally.AddProblem("refused client", w.spec.Booking, "%s", n.text)
	}
}

func (f *Checker) fault(kind FaultKind, w *subscriber, format string, args ...any) {
	f.tally.AddFault(kind, w.spec.Booking, format, args...)
}

// checkPosition checks a pushed position: one that the booking truly had, newer than
// the one told before. Skipping some is right, repeating is not.
func (w *subscriber) checkPosition(q *DepartureTimes, position int, at int64) {
	f := w.checker
	f.tally.Checked.Add(1)
	departed := w.spec.Rank - position
	switch {
	case w.known < 0:
		f.fault(Malformed, w, "a position before the first snapshot")
	case departed < 0 || position < 1 || departed > countUntil(q.Sent, at):
		f.fault(WrongPosition, w, "told position %d, truth is %d to %d", position, w.spec.Rank-countUntil(q.Sent, at), w.spec.Rank-countUntil(q.Answered, at))
	case departed == w.known:
		f.fault(Duplicate, w, "told position %d again", position)
	case departed < w.known:
		f.fault(OutOfOrder, w, "told position %d after %d", position, w.spec.Rank-w.known)
	default:
		f.tally.Latency.Add(time.Duration(at - q.Sent[departed-1]))
		w.advance(q, departed, at)
	}
}

// checkSnapshot checks the state that a subscribe reply shows: it must have been
// true at some moment between the request and the reply.
func (w *subscriber) checkSnapshot(q *DepartureTimes, position int, asked, at int64) {
	f := w.checker
	f.tally.Checked.Add(1)
	f.tally.Snapshots.Add(1)
	if w.spec.Rank == 0 {
		w.spec.Rank = position
		f.firstPositions = append(f.firstPositions, FirstPosition{w.spec.Patient, position})
	}
	if w.firstConnected == 0 {
		w.firstConnected = at
	}
	departed := w.spec.Rank - position
	known := countUntil(q.Answered, asked)
	switch {
	case position == 0 && w.spec.Rank > countUntil(q.Sent, at):
		f.fault(WrongNews, w, "a snapshot shows that the wait is over, truth is position %d", w.spec.Rank-countUntil(q.Sent, at))
	case position == 0:
		w.finish(q, at)
	case departed < 0 || departed > countUntil(q.Sent, at):
		f.fault(WrongPosition, w, "a snapshot shows position %d, truth is %d to %d", position, w.spec.Rank-countUntil(q.Sent, at), w.spec.Rank-known)
	case departed < w.known:
		f.fault(OutOfOrder, w, "a snapshot shows position %d, after %d was told", position, w.spec.Rank-w.known)
	default:
		if departed < known && f.opts.Snapshots {
			stale := time.Duration(asked - q.Answered[departed])
			f.tally.addStale(stale)
			f.fault(StaleSnapshot, w, "a snapshot shows position %d, which stopped being true %v before it was asked for", position, stale)
		}
		if w.known < 0 {
			w.known = departed
		} else if departed > w.known {
			w.advance(q, departed, at)
		}
	}
	w.connectedSince = at
}

func (w *subscriber) checkCalled(q *DepartureTimes, at int64) {
	f := w.checker
	switch departed := countUntil(q.Sent, at); {
	case w.spec.Rank == 0 || w.spec.Rank > departed:
		f.fault(WrongNews, w, "told that it was called, truth is position %d", w.spec.Rank-departed)
	case w.finished:
		f.fault(Duplicate, w, "told again that it was called")
	default:
		f.tally.CallLatency.Add(time.Duration(at - q.Sent[w.spec.Rank-1]))
		w.finish(q, at)
	}
}

// finish takes note that the client knows its wait to be over.
func (w *subscriber) finish(q *DepartureTimes, at int64) {
	if w.finished {
		return
	}
	w.finished = true
	w.advance(q, w.spec.Rank, at)
	w.checker.watched += time.Duration(at - w.firstConnected)
}

// advance moves the client on to a newer state.
func (w *subscriber) advance(q *DepartureTimes, to int, at int64) {
	f := w.checker
	w.checkStaleness(q, to, at)
	w.reported = false
	if w.known >= 0 {
		if age, ok := w.age(q, at); ok {
			f.ages.Add(age)
		}
		f.tally.Conflated.Add(int64(to - w.known - 1))
		f.conveyed += int64(to - w.known)
		last := f.last[w.spec.Queue]
		for i := w.known; i < min(to, w.spec.Rank-1); i++ {
			last[i] = max(last[i], at)
		}
	}
	w.known = to
}

// age is for how long what the client shows has not been true.
func (w *subscriber) age(q *DepartureTimes, at int64) (time.Duration, bool) {
	if w.known < 0 || w.known >= len(q.Answered) || q.Answered[w.known] >= at {
		return 0, false
	}
	return time.Duration(at - q.Answered[w.known]), true
}

// checkStaleness notices when the client, about to learn a state, had been behind for too
// long: either that state itself comes too late, or one before it never came.
func (w *subscriber) checkStaleness(q *DepartureTimes, to int, at int64) {
	f := w.checker
	if w.reported || w.connectedSince == 0 || w.known < 0 || w.known >= len(q.Answered) {
		return
	}
	stale := time.Duration(at - max(q.Answered[w.known], w.connectedSince))
	if stale <= f.opts.Bound {
		return
	}
	w.reported = true
	if to > w.known && to <= len(q.Answered) && time.Duration(at-max(q.Answered[to-1], w.connectedSince)) > f.opts.Bound {
		f.fault(late, w, "told position %d after %v", w.spec.Rank-to, stale)
		return
	}
	f.fault(Missed, w, "kept at position %d for %v", w.spec.Rank-w.known, stale)
}

// behind counts the clients that do not show the newest state yet.
func (f *Checker) behind() int {
	n := 0
	for _, w := range f.subscribers {
		departed := len(f.queues[w.spec.Queue].Answered)
		called := w.spec.Rank > 0 && w.spec.Rank <= departed
		switch {
		case w.finished, w.refused, called && !f.opts.Calls:
		case w.connectedSince == 0, w.known < departed:
			n++
		}
	}
	return n
}

// finish judges every client by what it shows now.
func (f *Checker) finish(at int64) {
	for _, w := range f.subscribers {
		q := &f.queues[w.spec.Queue]
		if w.firstConnected == 0 {
			f.fault(Missed, w, "never had a live connection")
			continue
		}
		if w.finished {
			continue
		}
		departed := len(q.Answered)
		f.watched += time.Duration(at - w.firstConnected)
		w.firstConnected = at
		if age, ok := w.age(q, at); ok {
			f.ages.Add(age)
		}
		switch {
		case w.reported, w.spec.Rank <= departed && !f.opts.Calls:
		case w.spec.Rank <= departed:
			f.fault(Missed, w, "never told that it was called")
		case w.known < departed:
			f.fault(Missed, w, "kept at position %d, truth is %d", w.spec.Rank-w.known, w.spec.Rank-departed)
		}
	}
}
