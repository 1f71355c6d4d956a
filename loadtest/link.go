package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
)

const (
	// handshakeTimeout bounds dialling, connecting and subscribing.
	handshakeTimeout = 10 * time.Second
	// silenceSlack is how much longer than the promised ping interval a client
	// waits before it takes the connection for dead.
	silenceSlack = 10 * time.Second
	// reconnectBase and reconnectLimit bound the wait before another attempt.
	reconnectBase  = 100 * time.Millisecond
	reconnectLimit = 5 * time.Second
	// linkBuffer is what a connection reads into: some positions at once, and
	// small enough to have one for each of 10,000 connections.
	linkBuffer = 2 << 10
	// linkBufferKept is the largest buffer a connection keeps once it is empty.
	linkBufferKept = 8 << 10
	// maxFrame bounds a message of the server.
	maxFrame = 1 << 20
)

// errDead ends a connection on which not even a ping came.
var errDead = errors.New("the server fell silent")

// terminal is an end after which a client must not come back.
type terminal struct{ reason string }

func (t *terminal) Error() string { return t.reason }

// listener is told what comes over one subscription. Its methods are called from
// the connection's goroutine, one after another; data is theirs only until they
// return. A true result means that the client has seen all it waited for.
type listener interface {
	// snapshot gets the data of a subscribe reply, when it was asked for and
	// when it came.
	snapshot(data []byte, asked, got time.Time) (done bool)
	// moved gets a pushed position of the subscription's own booking.
	moved(p place, at time.Time) (done bool)
	// publication gets any other publication.
	publication(data []byte, at time.Time) (done bool)
	// dropped says that the connection was lost and another attempt follows.
	dropped(at time.Time)
}

// liveStats counts connections. It is safe for concurrent use.
type liveStats struct {
	opened     atomic.Int64 // subscribed for the first time
	reconnects atomic.Int64 // subscribed again after a loss
	failed     atomic.Int64 // attempts that did not reach a subscription
	refused    atomic.Int64 // clients turned away for good
	messages   atomic.Int64 // publications received
	frames     atomic.Int64 // that carried them, and replies
	now        atomic.Int64
	peak       atomic.Int64
}

func (s *liveStats) up()   { raise(&s.peak, s.now.Add(1)) }
func (s *liveStats) down() { s.now.Add(-1) }

// raise lifts a peak to a value that has just been reached.
func raise(peak *atomic.Int64, to int64) {
	for {
		seen := peak.Load()
		if to <= seen || peak.CompareAndSwap(seen, to) {
			return
		}
	}
}

// subscription is one channel that a link watches.
type subscription struct {
	channel string
	booking string // whose positions come over it
	token   string // of the subscription, where the server wants one
	to      listener

	id    uint32    // of the last subscribe command
	asked time.Time // when that was sent; zero once it is answered
	live  bool
	done  bool
}

// link keeps one connection with several subscriptions alive, on one goroutine.
// It is made to cost next to nothing, so that a test measures the server and not
// itself: one small buffer, no timer per message, and positions read where they
// lie. Everything rare goes through the protocol's own decoder.
type link struct {
	nodes    []string // http URLs, tried in turn
	first    int      // the node to begin with
	protocol protocol.Type
	token    string
	slack    time.Duration // added to the promised ping interval
	stats    *liveStats
	// hello, if set, is all that is sent: what follows are frames at once. It
	// is for servers that are no more than a socket.
	hello []byte
	// tried, if set, is called when the first attempt has come to something.
	tried func()
	// stalled, if set, is asked before each read; while it returns true the
	// client does not read.
	stalled func(ctx context.Context, conn net.Conn) bool
	// small gives the connection segments and a receive buffer as small as the
	// kernel allows, so that little is kept unread.
	small bool
	// backoff, if set, is how long to wait before another attempt, by how many
	// have failed in a row.
	backoff func(failed int) time.Duration

	mu            sync.Mutex
	subscriptions map[string]*subscription // by channel
	conn          net.Conn                 // nil while not connected
	lastID        uint32
	over          bool

	heard   atomic.Int64 // when something last came, in Unix nanoseconds
	silence time.Duration
	pong    bool
}

// add watches another channel. It returns false when the link is over.
func (l *link) add(s *subscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	if l.subscriptions == nil {
		l.subscriptions = map[string]*subscription{}
	}
	l.subscriptions[s.channel] = s
	if l.conn != nil {
		// An error here is the reader's to find.
		_ = l.write(l.subscribeCommand(s))
	}
	return true
}

// run connects, subscribes and reads until every subscription is done, the
// context ends or the server turns the client away for good.
func (l *link) run(ctx context.Context) error {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
	}()
	before := false
	for attempt, node := 0, l.first; ; node++ {
		subscribed, err := l.once(ctx, l.nodes[node%len(l.nodes)], before)
		l.hasTried()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var end *terminal
		if errors.As(err, &end) {
			l.stats.refused.Add(1)
			return err
		}
		if subscribed {
			before, attempt = true, 0
		} else {
			l.stats.failed.Add(1)
			attempt++
		}
		wait := backoff(attempt, reconnectBase, reconnectLimit)
		if l.backoff != nil {
			wait = l.backoff(attempt)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// cut breaks the connection off; another attempt follows.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		// The reader finds out by itself.
		_ = l.conn.Close()
	}
}

// once is the life of one connection. It returns nil when all is done, and
// whether every subscription of the beginning was answered.
func (l *link) once(ctx context.Context, node string, again bool) (subscribed bool, err error) {
	dial := dialWebSocket
	if l.small {
		dial = dialSmall
	}
	conn, early, err := dial(ctx, node, l.protocol, l.hello)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s := session{link: l, conn: conn, again: again, buffer: early}
	err = s.read(ctx)
	l.leave(conn)
	if s.up {
		l.stats.down()
	}
	if err == nil {
		return true, nil
	}
	now := time.Now()
	for _, sub := range l.all() {
		if sub.live {
			sub.live = false
			sub.to.dropped(now)
		}
	}
	if s.dead.Load() {
		err = errDead
	}
	return s.up, err
}

// leave closes a connection.
func (l *link) leave(conn net.Conn) {
	l.mu.Lock()
	l.conn = nil
	l.mu.Unlock()
	// Whatever was awaited has come, so the error of a close tells nothing.
	_ = conn.Close()
}

func (l *link) all() []*subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*subscription, 0, len(l.subscriptions))
	for _, s := range l.subscriptions {
		list = append(list, s)
	}
	return list
}

// subscribeCommand is called with the lock held.
func (l *link) subscribeCommand(s *subscription) *protocol.Command {
	l.lastID++
	s.id, s.asked, s.live = l.lastID, time.Now(), false
	return &protocol.Command{Id: s.id, Subscribe: &protocol.SubscribeRequest{Channel: s.channel, Token: s.token}}
}

// write sends commands in one frame. It is called with the lock held.
func (l *link) write(commands ...*protocol.Command) error {
	if len(commands) == 0 {
		return nil
	}
	var payload []byte
	opcode := opText
	var encoder protocol.CommandEncoder = protocol.NewJSONCommandEncoder()
	if l.protocol == protocol.TypeProtobuf {
		opcode, encoder = opBinary, protocol.NewProtobufCommandEncoder()
	}
	for _, c := range commands {
		// Both encoders frame the command as well.
		data, err := encoder.Encode(c)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		if l.protocol == protocol.TypeJSON && len(payload) > 0 && payload[len(payload)-1] != '\n' {
			payload = append(payload, '\n')
		}
		payload = append(payload, data...)
	}
	return writeFrame(l.conn, opcode, payload)
}

// session is one connection of a link, used from the link's goroutine.
type session struct {
	link   *link
	conn   net.Conn
	again  bool
	buffer []byte // read and not yet handled
	parts  []byte // of a message in several frames
	binary bool
	last   *subscription // that the last publication was for

	up      bool // every subscription of the beginning was answered
	pending int  // subscriptions of the beginning not yet answered
	dead    atomic.Bool

	timer *time.Timer // of the silence; guarded by the link's lock, like over
	over  bool
}

// read handles frames until the connection ends.
func (s *session) read(ctx context.Context) error {
	l := s.link
	if err := s.conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	if l.hello == nil {
		l.mu.Lock()
		l.conn = s.conn
		l.lastID = 1
		err := l.write(&protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{Token: l.token, Name: "loadtest"}})
		l.conn = nil // others subscribe only once the server knows who this is
		l.mu.Unlock()
		if err != nil {
			return err
		}
	} else if err := s.barelyUp(); err != nil {
		return err
	}
	stop := s.watchOver()
	defer stop()

	early := len(s.buffer)
	buffer := make([]byte, max(linkBuffer, early))
	copy(buffer, s.buffer)
	start, end := 0, early
	s.buffer = nil
	for now := time.Now(); ; {
		for {
			frame, size, err := parseFrame(buffer[start:end])
			if err != nil {
				return err
			}
			if size == 0 || size > end-start {
				if size > len(buffer) {
					buffer = append(make([]byte, 0, size), buffer[start:end]...)[:size]
					start, end = 0, end-start
				}
				break
			}
			start += size
			if done, err := s.frame(frame, now); done || err != nil {
				return err
			}
		}
		switch {
		case start == end && len(buffer) > linkBufferKept:
			buffer, start, end = make([]byte, linkBuffer), 0, 0
		case start == end:
			start, end = 0, 0
		case end == len(buffer):
			end = copy(buffer, buffer[start:end])
			start = 0
		}
		if l.stalled != nil && l.stalled(ctx, s.conn) {
			return context.Cause(ctx)
		}
		n, err := s.conn.Read(buffer[end:])
		now = time.Now()
		if n > 0 {
			l.heard.Store(now.UnixNano())
			end += n
			continue
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			if errors.Is(err, io.EOF) {
				return errors.New("the server closed the connection without a word")
			}
			return err
		}
	}
}

// watchOver ends the connection when nothing has come for too long. Its timer
// runs out once in a ping interval, not once in a message.
func (s *session) watchOver() (stop func()) {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard.Store(time.Now().UnixNano())
	s.timer = time.AfterFunc(handshakeTimeout, s.checkSilence)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.timer.Stop()
		s.over = true
	}
}

func (s *session) checkSilence() {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	quiet := time.Since(time.Unix(0, l.heard.Load()))
	switch {
	case s.over:
	case l.silence == 0: // nothing was promised
		s.timer.Reset(handshakeTimeout)
	case quiet >= l.silence:
		s.dead.Store(true)
		_ = s.conn.Close()
	default:
		s.timer.Reset(l.silence - quiet)
	}
}

// barelyUp takes every subscription for answered: nobody will.
func (s *session) barelyUp() error {
	now := time.Now()
	for _, sub := range s.link.all() {
		sub.live = true
		sub.to.snapshot(nil, now, now)
	}
	s.isUp()
	return s.conn.SetDeadline(time.Time{})
}

func (l *link) hasTried() {
	if l.tried != nil {
		l.tried()
	}
}

func (s *session) isUp() {
	s.up = true
	s.link.hasTried()
	if s.again {
		s.link.stats.reconnects.Add(1)
	} else {
		s.link.stats.opened.Add(1)
	}
	s.link.stats.up()
}

// frame handles one frame.
func (s *session) frame(f frame, at time.Time) (done bool, err error) {
	switch f.opcode {
	case opText, opBinary:
		s.binary = f.opcode == opBinary
	case opContinuation:
	case opPing:
		s.link.mu.Lock()
		defer s.link.mu.Unlock()
		return false, writeFrame(s.conn, opPong, f.payload)
	case opPong:
		return false, nil
	case opClose:
		code, reason := 1005, ""
		if len(f.payload) >= 2 {
			code, reason = int(f.payload[0])<<8|int(f.payload[1]), string(f.payload[2:])
		}
		s.link.mu.Lock()
		defer s.link.mu.Unlock()
		_ = writeFrame(s.conn, opClose, f.payload[:min(2, len(f.payload))])
		return false, closeError(code, reason)
	default:
		return false, fmt.Errorf("a frame of the unknown kind %d", f.opcode)
	}
	message := f.payload
	if !f.final || s.parts != nil {
		if len(s.parts)+len(message) > maxFrame {
			return false, errors.New("a message that is too long")
		}
		s.parts = append(s.parts, message...)
		if !f.final {
			return false, nil
		}
		message, s.parts = s.parts, nil
	}
	s.link.stats.frames.Add(1)
	return s.replies(message, at)
}

// replies handles the replies that a message is made of.
func (s *session) replies(message []byte, at time.Time) (done bool, err error) {
	for len(message) > 0 {
		var reply []byte
		if s.binary {
			var ok bool
			if reply, message, ok = cutDelimited(message); !ok {
				return false, errors.New("a message that ends too early")
			}
		} else {
			reply, message, _ = bytes.Cut(message, []byte{'\n'})
		}
		if done, err := s.reply(reply, at); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// reply handles one reply: a position at once, all else as the protocol's own
// decoder reads it.
func (s *session) reply(data []byte, at time.Time) (done bool, err error) {
	cut := cutPushJSON
	if s.binary {
		cut = cutPushProtobuf
	}
	if channel, publication, ok := cut(data); ok {
		if sub := s.find(channel); sub != nil {
			if p, ok := parsePlace(publication, sub.booking); ok {
				s.link.stats.messages.Add(1)
				return s.told(sub, sub.to.moved(p, at))
			}
		}
	}
	if len(data) == 0 || string(data) == "{}" {
		return false, s.ping()
	}
	var decoder protocol.ReplyDecoder
	if s.binary {
		decoder = protocol.NewProtobufReplyDecoder(delimited(data))
	} else {
		decoder = protocol.NewJSONReplyDecoder(data)
	}
	r, err := decoder.Decode()
	if err != nil && (r == nil || !errors.Is(err, io.EOF)) {
		return false, fmt.Errorf("decode: %w", err)
	}
	return s.handle(r, at)
}

// find looks a subscription up. Positions of one connection often come in a row.
func (s *session) find(channel []byte) *subscription {
	if s.last != nil && s.last.channel == string(channel) {
		return s.last
	}
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.last = s.link.subscriptions[string(channel)]
	return s.last
}

func (s *session) ping() error {
	if !s.link.pong {
		return nil
	}
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.link.protocol == protocol.TypeProtobuf {
		return writeFrame(s.conn, opBinary, []byte{0})
	}
	return writeFrame(s.conn, opText, []byte("{}"))
}

// handle deals with a reply that is no position.
func (s *session) handle(r *protocol.Reply, at time.Time) (done bool, err error) {
	l := s.link
	push := r.Push
	switch {
	case push != nil && push.Disconnect != nil:
		return false, closeError(int(push.Disconnect.Code), push.Disconnect.Reason)
	case push != nil && push.Unsubscribe != nil:
		text := fmt.Sprintf("unsubscribed: %d %s", push.Unsubscribe.Code, push.Unsubscribe.Reason)
		if push.Unsubscribe.Code < 2500 {
			return false, &terminal{text}
		}
		return false, errors.New(text)
	case push != nil && push.Pub != nil:
		sub := s.find([]byte(push.Channel))
		if sub == nil {
			return false, nil // of a channel that was just left
		}
		l.stats.messages.Add(1)
		return s.told(sub, sub.to.publication(push.Pub.Data, at))
	case push != nil:
		return false, nil
	case r.Error != nil:
		text := fmt.Sprintf("refused: %d %s", r.Error.Code, r.Error.Message)
		if r.Error.Temporary {
			return false, errors.New(text)
		}
		return false, &terminal{text}
	case r.Connect != nil:
		return false, s.connected(r.Connect)
	case r.Subscribe != nil:
		return s.subscribed(r, at)
	case r.Unsubscribe != nil:
		return false, nil
	}
	return false, fmt.Errorf("an answer to nothing asked: id %d", r.Id)
}

// connected subscribes to everything at once.
func (s *session) connected(r *protocol.ConnectResult) error {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pong = r.Pong
	l.silence = 0
	if r.Ping > 0 {
		l.silence = time.Duration(r.Ping)*time.Second + l.slack
		s.timer.Reset(l.silence)
	}
	l.conn = s.conn
	commands := make([]*protocol.Command, 0, len(l.subscriptions))
	for _, sub := range l.subscriptions {
		commands = append(commands, l.subscribeCommand(sub))
	}
	s.pending = len(commands)
	if s.pending == 0 {
		return s.conn.SetDeadline(time.Time{})
	}
	return l.write(commands...)
}

func (s *session) subscribed(r *protocol.Reply, at time.Time) (done bool, err error) {
	sub, asked := s.answered(r.Id)
	if sub == nil {
		return false, fmt.Errorf("an answer to nothing asked: id %d", r.Id)
	}
	sub.live = true
	if s.pending > 0 {
		if s.pending--; s.pending == 0 {
			s.isUp()
			if err := s.conn.SetDeadline(time.Time{}); err != nil {
				return false, err
			}
		}
	}
	return s.told(sub, sub.to.snapshot(r.Subscribe.Data, asked, at))
}

// answered finds the subscription that a reply answers.
func (s *session) answered(id uint32) (sub *subscription, asked time.Time) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	for _, sub := range s.link.subscriptions {
		if sub.id == id && !sub.asked.IsZero() {
			asked, sub.asked = sub.asked, time.Time{}
			return sub, asked
		}
	}
	return nil, time.Time{}
}

// told takes note of a subscription that is done: it is left, and with the last
// one the connection.
func (s *session) told(sub *subscription, done bool) (over bool, err error) {
	if !done || sub.done {
		return false, nil
	}
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	sub.done = true
	delete(l.subscriptions, sub.channel)
	if s.last == sub {
		s.last = nil
	}
	if len(l.subscriptions) == 0 {
		l.over = true
		// The closing handshake is a courtesy: the answer to it does not matter.
		_ = writeFrame(s.conn, opClose, []byte{1000 >> 8, 1000 & 0xff})
		return true, nil
	}
	if l.hello != nil {
		return false, nil
	}
	l.lastID++
	return false, l.write(&protocol.Command{Id: l.lastID, Unsubscribe: &protocol.UnsubscribeRequest{Channel: sub.channel}})
}

// closeError follows the ranges of the protocol: 3500–3999 and 4500–4999 are final.
func closeError(code int, reason string) error {
	text := fmt.Sprintf("closed by the server: %d %s", code, reason)
	if (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) {
		return &terminal{text}
	}
	return errors.New(text)
}
