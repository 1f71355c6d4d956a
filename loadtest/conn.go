package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	slack    time.Duration // added to the promised ping interval; silenceSlack if zero
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
		l.write(l.subscribeCommand(s)) //nolint:errcheck // the reader meets the same error and reconnects
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
		l.conn.Close() //nolint:errcheck // the reader meets the closed connection
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
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // the reader meets the closed connection
	})
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
	conn.Close() //nolint:errcheck // everything expected has been read
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

func parseProtocol(name string) (protocol.Type, error) {
	kind := protocol.Type(cmp.Or(name, string(protocol.TypeJSON)))
	if kind != protocol.TypeJSON && kind != protocol.TypeProtobuf {
		return "", fmt.Errorf("protocol must be json or protobuf, not %q", name)
	}
	return kind, nil
}
