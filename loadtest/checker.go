package loadtest

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
	// fleetShards is how many notebooks the clients of a fleet write into, so
	// that they seldom wait for each other.
	fleetShards = 16
	// maxNotes bounds a notebook. It is read many times a second; when it is
	// full nevertheless, what does not fit counts as a fault.
	maxNotes = 1 << 18
	// maxOpening is how many connections are opened at once.
	maxOpening = 128
)

// fleetOptions is what the clients of a fleet have in common.
type fleetOptions struct {
	Nodes    []string      `json:"nodes"`
	Protocol protocol.Type `json:"protocol"`
	Bound    time.Duration `json:"bound"`
	Minutes  int           `json:"minutes"` // of the booking type, for estimatedWaitMinutes
	// Snapshots says that a subscribe reply shows the booking. Where it does
	// not, a client is taken to know its place at the beginning.
	Snapshots bool `json:"snapshots"`
	// News says that a patient is told when its wait is over.
	News bool `json:"news"`
}

// linkOrder asks for a connection, or for more channels on one that exists.
type linkOrder struct {
	Link     int            `json:"link"`
	Token    string         `json:"token,omitempty"`
	Hello    []byte         `json:"hello,omitempty"`
	Channels []channelOrder `json:"channels"`
}

// channelOrder asks for a patient's channel to be watched.
type channelOrder struct {
	Patient int    `json:"patient"`
	Booking string `json:"booking"`
	Channel string `json:"channel"`
	Token   string `json:"token,omitempty"`
	Queue   int    `json:"queue"`
	// Rank is the patient's place in the order of joining, from 1. Zero means
	// that the first snapshot tells: nobody has been called yet then.
	Rank int `json:"rank,omitempty"`
}

// truth is what has become true since the last one, and until when it is all:
// of each queue, when its departures were sent and when they were answered.
type truth struct {
	Until  int64        `json:"until"` // Unix nanoseconds, as all times here
	Queues []departures `json:"queues"`
}

// departures of one queue. Patients leave it in the order in which they joined,
// so the k-th departure lies between the k-th time that one was sent and the
// k-th time that one was answered, whoever was called, and a position is the
// rank less the departures.
type departures struct {
	Sent     []int64 `json:"sent,omitempty"`
	Answered []int64 `json:"answered,omitempty"`
}

// before counts the times not after a moment.
func before(times []int64, at int64) int {
	return sort.Search(len(times), func(i int) bool { return times[i] > at })
}

// fleet holds many clients and checks what each is told. The clients only take
// notes, in their own goroutines; the notes are checked when the truth about
// their time is known.
type fleet struct {
	options fleetOptions
	tally   *tally
	shards  [fleetShards]shard
	opening chan struct{}
	cancel  context.CancelFunc
	ctx     context.Context //nolint:containedctx // the life of the connections, which outlasts the call that opens one
	wg      sync.WaitGroup

	// The rest is used by the checking goroutine alone.
	links     map[int]*client.Connection
	followers []*follower
	queues    []departures
	last      [][]int64        // of each queue and departure, when the last client showed it
	ages      report.Histogram // how old what a client showed had become, each time it was replaced
	watched   time.Duration
	conveyed  int64
	refused   int64 // clients, when the books were opened
	places    []placeSeen
}

// shard is a notebook of some clients.
type shard struct {
	stats client.Stats
	mu    sync.Mutex
	notes []note
	lost  int64
	spare []note // the checker's; swapped with notes
}

// note is one thing a client was told.
type note struct {
	of       *follower
	at       int64
	asked    int64 // of a snapshot
	kind     noteKind
	position int32
	text     string // of what was malformed
}

type noteKind uint8

const (
	noteMoved     noteKind = iota // a pushed position
	noteSnapshot                  // a snapshot; position 0 when the wait is over
	noteCalled                    // the news that the wait is over
	noteDropped                   // the connection was lost
	noteEstimate                  // a wrong estimate, beside the position
	noteMalformed                 // what the contract does not promise
	noteRefused                   // the client gave up
)

// placeSeen is the position that a patient's first snapshot showed.
type placeSeen struct {
	Patient  int `json:"patient"`
	Position int `json:"position"`
}

// follower is one patient's channel: what was told over it.
type follower struct {
	fleet *fleet
	shard *shard
	order channelOrder

	// Of the checking goroutine.
	told      int   // departures the client knows of; -1 before the first snapshot
	firstLive int64 // zero before the first snapshot
	liveSince int64 // zero while there is no connection
	left      bool  // told that its wait is over
	refused   bool
	reported  bool // one stale spell is counted once
}

func newFleet(o fleetOptions) *fleet {
	ctx, cancel := context.WithCancel(context.Background())
	return &fleet{options: o, tally: newTally(), opening: make(chan struct{}, maxOpening), ctx: ctx, cancel: cancel, links: map[int]*client.Connection{}}
}

// close ends every connection.
func (f *fleet) close() {
	f.cancel()
	f.wg.Wait()
}

// open opens a connection, or adds channels to one. It waits while many others
// are being opened.
func (f *fleet) open(ctx context.Context, o linkOrder) error {
	shard := &f.shards[o.Link%fleetShards]
	var list []*client.Subscription
	for _, c := range o.Channels {
		w := &follower{fleet: f, shard: shard, order: c, told: -1}
		f.followers = append(f.followers, w)
		for len(f.queues) <= c.Queue {
			f.queues = append(f.queues, departures{})
			f.last = append(f.last, nil)
		}
		list = append(list, &client.Subscription{Channel: c.Channel, Booking: c.Booking, Token: c.Token, Listener: w})
	}
	l := f.links[o.Link]
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
		Nodes:     f.options.Nodes,
		FirstNode: o.Link % len(f.options.Nodes),
		Protocol:  f.options.Protocol,
		Token:     o.Token,
		Hello:     o.Hello,

		Stats:     &shard.stats,
		Attempted: sync.OnceFunc(func() { <-f.opening }),
	}
	f.links[o.Link] = l
	for _, s := range list {
		l.Add(s)
	}
	f.wg.Go(func() {
		var end *client.TerminalError
		if err := l.Run(f.ctx); errors.As(err, &end) {
			for _, s := range l.Subscriptions() {
				if w, ok := s.Listener.(*follower); ok {
					w.write(note{kind: noteRefused, at: time.Now().UnixNano(), text: end.Reason})
				}
			}
		}
	})
	return nil
}

// write takes a note.
func (w *follower) write(n note) {
	n.of = w
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	if len(w.shard.notes) == maxNotes {
		w.shard.lost++
		return
	}
	w.shard.notes = append(w.shard.notes, n)
}

// OnPosition implements listener.
func (w *follower) OnPosition(p client.PositionUpdate, at time.Time) (done bool) {
	n := note{kind: noteMoved, position: int32(p.Position), at: at.UnixNano()}
	w.write(n)
	if p.Minutes != p.Position*w.fleet.options.Minutes {
		n.kind, n.asked = noteEstimate, int64(p.Minutes)
		w.write(n)
	}
	return false
}

// OnSnapshot implements listener.
func (w *follower) OnSnapshot(data []byte, asked, got time.Time) (done bool) {
	n := note{kind: noteSnapshot, asked: asked.UnixNano(), at: got.UnixNano()}
	if !w.fleet.options.Snapshots {
		n.position = int32(w.order.Rank)
		w.write(n)
		return false
	}
	var s client.Snapshot
	err := json.Unmarshal(data, &s)
	switch {
	case err != nil || s.Type != "SNAPSHOT" || s.Booking.ID != w.order.Booking:
		n.kind, n.text = noteMalformed, "a snapshot of something else"
	case s.Booking.Stage == "WAITING" && s.Booking.QueuePosition == nil:
		n.kind, n.text = noteMalformed, "a snapshot of a waiting booking without queuePosition"
	case s.Booking.Stage == "WAITING":
		n.position = int32(*s.Booking.QueuePosition)
	default:
		done = true
	}
	w.write(n)
	if minutes := s.Booking.EstimatedWaitMinutes; n.position > 0 && (minutes == nil || *minutes != int(n.position)*w.fleet.options.Minutes) {
		n.kind = noteEstimate
		w.write(n)
	}
	return done
}

// OnPublication implements listener.
func (w *follower) OnPublication(data []byte, at time.Time) (done bool) {
	n := note{kind: noteMalformed, at: at.UnixNano()}
	var p client.Publication
	err := json.Unmarshal(data, &p)
	switch {
	case err != nil || p.Via != "scheduling-system" || p.BookingID != w.order.Booking:
		n.text = "a publication of something else"
	case p.Type == "MY_BOOKING_ASSIGNED":
		n.kind, done = noteCalled, true
	case p.Type == "QUEUE_POSITION_UPDATED" && p.QueuePosition != nil && p.EstimatedWaitMinutes != nil:
		return w.OnPosition(client.PositionUpdate{Position: *p.QueuePosition, Minutes: *p.EstimatedWaitMinutes}, at)
	case p.Type == "MY_BOOKING_CALLED" || p.Type == "BOOKING_UPDATED" || p.Type == "MY_BOOKING_ENDED":
		return false // nothing about the place in the queue
	default:
		n.text = "the publication " + p.Type
	}
	w.write(n)
	return done
}

// OnDisconnect implements listener.
func (w *follower) OnDisconnect(at time.Time) {
	w.write(note{kind: noteDropped, at: at.UnixNano()})
}

// learn takes over the truth and checks every note of its time.
func (f *fleet) learn(t truth) {
	for i, q := range t.Queues {
		for len(f.queues) <= i {
			f.queues, f.last = append(f.queues, departures{}), append(f.last, nil)
		}
		f.queues[i].Sent = append(f.queues[i].Sent, q.Sent...)
		f.queues[i].Answered = append(f.queues[i].Answered, q.Answered...)
		f.last[i] = append(f.last[i], make([]int64, len(q.Sent))...)
	}
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		notes := s.notes
		s.notes = s.spare[:0]
		lost := s.lost
		s.lost = 0
		s.mu.Unlock()
		if lost > 0 {
			f.tally.faults[missed] += lost
			f.tally.problem("unchecked", "", "%d notes did not fit and were not checked", lost)
		}
		var later []note
		for _, n := range notes {
			if n.at > t.Until {
				later = append(later, n)
				continue
			}
			f.check(n)
		}
		if len(later) > 0 {
			s.mu.Lock()
			s.notes = append(later, s.notes...)
			s.mu.Unlock()
		}
		clear(notes)
		s.spare = notes[:0]
	}
}

// check compares one note with the truth.
func (f *fleet) check(n note) {
	w := n.of
	q := &f.queues[w.order.Queue]
	switch n.kind {
	case noteMoved:
		w.checkMoved(q, int(n.position), n.at)
	case noteSnapshot:
		w.checkSnapshot(q, int(n.position), n.asked, n.at)
	case noteCalled:
		w.checkCalled(q, n.at)
	case noteDropped:
		w.judge(q, w.told, n.at)
		w.liveSince = 0
	case noteEstimate:
		f.fault(wrongEstimate, w, "estimatedWaitMinutes is %d with position %d", n.asked, n.position)
	case noteMalformed:
		f.fault(malformed, w, "%s", n.text)
	case noteRefused:
		w.refused = true
		f.tally.problem("refused client", w.order.Booking, "%s", n.text)
	}
}

func (f *fleet) fault(kind faultKind, w *follower, format string, args ...any) {
	f.tally.fault(kind, w.order.Booking, format, args...)
}

// checkMoved checks a pushed position: one that the booking truly had, newer than
// the one told before. Skipping some is right, repeating is not.
func (w *follower) checkMoved(q *departures, position int, at int64) {
	f := w.fleet
	f.tally.checked.Add(1)
	departed := w.order.Rank - position
	switch {
	case w.told < 0:
		f.fault(malformed, w, "a position before the first snapshot")
	case departed < 0 || position < 1 || departed > before(q.Sent, at):
		f.fault(wrongPosition, w, "told position %d, truth is %d to %d", position, w.order.Rank-before(q.Sent, at), w.order.Rank-before(q.Answered, at))
	case departed == w.told:
		f.fault(duplicate, w, "told position %d again", position)
	case departed < w.told:
		f.fault(outOfOrder, w, "told position %d after %d", position, w.order.Rank-w.told)
	default:
		f.tally.latency.Add(time.Duration(at - q.Sent[departed-1]))
		w.advance(q, departed, at)
	}
}

// checkSnapshot checks the state that a subscribe reply shows: it must have been
// true at some moment between the request and the reply.
func (w *follower) checkSnapshot(q *departures, position int, asked, at int64) {
	f := w.fleet
	f.tally.checked.Add(1)
	f.tally.snapshots.Add(1)
	if w.order.Rank == 0 {
		w.order.Rank = position
		f.places = append(f.places, placeSeen{w.order.Patient, position})
	}
	if w.firstLive == 0 {
		w.firstLive = at
	}
	departed := w.order.Rank - position
	known := before(q.Answered, asked)
	switch {
	case position == 0 && w.order.Rank > before(q.Sent, at):
		f.fault(wrongNews, w, "a snapshot shows that the wait is over, truth is position %d", w.order.Rank-before(q.Sent, at))
	case position == 0:
		w.leave(q, at)
	case departed < 0 || departed > before(q.Sent, at):
		f.fault(wrongPosition, w, "a snapshot shows position %d, truth is %d to %d", position, w.order.Rank-before(q.Sent, at), w.order.Rank-known)
	case departed < w.told:
		f.fault(outOfOrder, w, "a snapshot shows position %d, after %d was told", position, w.order.Rank-w.told)
	default:
		if departed < known && f.options.Snapshots {
			stale := time.Duration(asked - q.Answered[departed])
			f.tally.stale(stale)
			f.fault(staleSnapshot, w, "a snapshot shows position %d, which stopped being true %v before it was asked for", position, stale)
		}
		if w.told < 0 {
			w.told = departed
		} else if departed > w.told {
			w.advance(q, departed, at)
		}
	}
	w.liveSince = at
}

func (w *follower) checkCalled(q *departures, at int64) {
	f := w.fleet
	switch departed := before(q.Sent, at); {
	case w.order.Rank == 0 || w.order.Rank > departed:
		f.fault(wrongNews, w, "told that it was called, truth is position %d", w.order.Rank-departed)
	case w.left:
		f.fault(duplicate, w, "told again that it was called")
	default:
		f.tally.callLatency.Add(time.Duration(at - q.Sent[w.order.Rank-1]))
		w.leave(q, at)
	}
}

// leave takes note that the client knows its wait to be over.
func (w *follower) leave(q *departures, at int64) {
	if w.left {
		return
	}
	w.left = true
	w.advance(q, w.order.Rank, at)
	w.fleet.watched += time.Duration(at - w.firstLive)
}

// advance moves the client on to a newer state.
func (w *follower) advance(q *departures, to int, at int64) {
	f := w.fleet
	w.judge(q, to, at)
	w.reported = false
	if w.told >= 0 {
		if age, ok := w.age(q, at); ok {
			f.ages.Add(age)
		}
		f.tally.conflated.Add(int64(to - w.told - 1))
		f.conveyed += int64(to - w.told)
		last := f.last[w.order.Queue]
		for i := w.told; i < min(to, w.order.Rank-1); i++ {
			last[i] = max(last[i], at)
		}
	}
	w.told = to
}

// age is for how long what the client shows has not been true.
func (w *follower) age(q *departures, at int64) (time.Duration, bool) {
	if w.told < 0 || w.told >= len(q.Answered) || q.Answered[w.told] >= at {
		return 0, false
	}
	return time.Duration(at - q.Answered[w.told]), true
}

// judge notices when the client, about to learn a state, had been behind for too
// long: either that state itself comes too late, or one before it never came.
func (w *follower) judge(q *departures, to int, at int64) {
	f := w.fleet
	if w.reported || w.liveSince == 0 || w.told < 0 || w.told >= len(q.Answered) {
		return
	}
	stale := time.Duration(at - max(q.Answered[w.told], w.liveSince))
	if stale <= f.options.Bound {
		return
	}
	w.reported = true
	if to > w.told && to <= len(q.Answered) && time.Duration(at-max(q.Answered[to-1], w.liveSince)) > f.options.Bound {
		f.fault(late, w, "told position %d after %v", w.order.Rank-to, stale)
		return
	}
	f.fault(missed, w, "kept at position %d for %v", w.order.Rank-w.told, stale)
}

// behind counts the clients that do not show the newest state yet.
func (f *fleet) behind() int {
	n := 0
	for _, w := range f.followers {
		departed := len(f.queues[w.order.Queue].Answered)
		called := w.order.Rank > 0 && w.order.Rank <= departed
		switch {
		case w.left, w.refused, called && !f.options.News:
		case w.liveSince == 0, w.told < departed:
			n++
		}
	}
	return n
}

// finish judges every client by what it shows now.
func (f *fleet) finish(at int64) {
	for _, w := range f.followers {
		q := &f.queues[w.order.Queue]
		if w.firstLive == 0 {
			f.fault(missed, w, "never had a live connection")
			continue
		}
		if w.left {
			continue
		}
		departed := len(q.Answered)
		f.watched += time.Duration(at - w.firstLive)
		w.firstLive = at
		if age, ok := w.age(q, at); ok {
			f.ages.Add(age)
		}
		switch {
		case w.reported, w.order.Rank <= departed && !f.options.News:
		case w.order.Rank <= departed:
			f.fault(missed, w, "never told that it was called")
		case w.told < departed:
			f.fault(missed, w, "kept at position %d, truth is %d", w.order.Rank-w.told, w.order.Rank-departed)
		}
	}
}
