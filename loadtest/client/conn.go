package client

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
	// readBuffer is what a connection reads into: some positions at once, and
	// small enough to have one for each of 10,000 connections.
	readBuffer = 2 << 10
	// maxKeptBuffer is the largest buffer a connection keeps once it is empty.
	maxKeptBuffer = 8 << 10
	// maxFrame bounds a message of the server.
	maxFrame = 1 << 20
)

// errSilent ends a connection on which not even a ping came.
var errSilent = errors.New("the server fell silent")

// TerminalError is an end after which a client must not come back.
type TerminalError struct{ Reason string }

func (t *TerminalError) Error() string { return t.Reason }

// Listener is told what comes over one subscription. Its methods are called from
// the connection's goroutine, one after another; data is theirs only until they
// return. A true result means that the client has seen all it waited for.
type Listener interface {
	// OnSnapshot gets the data of a subscribe reply, when it was asked for and
	// when it came.
	OnSnapshot(data []byte, asked, got time.Time) (done bool)
	// OnPosition gets a pushed position of the subscription's own booking.
	OnPosition(p PositionUpdate, at time.Time) (done bool)
	// OnPublication gets any other publication.
	OnPublication(data []byte, at time.Time) (done bool)
	// OnDisconnect says that the connection was lost and another attempt follows.
	OnDisconnect(at time.Time)
}

// Stats counts connections. It is safe for concurrent use.
type Stats struct {
	Opened     atomic.Int64 // subscribed for the first time
	Reconnects atomic.Int64 // subscribed again after a loss
	Failed     atomic.Int64 // attempts that did not reach a subscription
	Refused    atomic.Int64 // clients turned away for good
	Messages   atomic.Int64 // publications received
	Frames     atomic.Int64 // that carried them, and replies
	Connected  atomic.Int64
	Peak       atomic.Int64
}

func (s *Stats) connected()    { StoreMax(&s.Peak, s.Connected.Add(1)) }
func (s *Stats) disconnected() { s.Connected.Add(-1) }

// StoreMax lifts a peak to a value that has just been reached.
func StoreMax(peak *atomic.Int64, to int64) {
	for {
		seen := peak.Load()
		if to <= seen || peak.CompareAndSwap(seen, to) {
			return
		}
	}
}

// Subscription is one channel that a link watches.
type Subscription struct {
	Channel  string
	Booking  string // whose positions come over it
	Token    string // of the subscription, where the server wants one
	Listener Listener

	id        uint32    // of the last subscribe command
	requested time.Time // when that was sent; zero once it is answered
	live      bool
	done      bool
}

// Connection keeps one connection with several subscriptions alive, on one goroutine.
// It is made to cost next to nothing, so that a test measures the server and not
// itself: one small buffer, no timer per message, and positions read where they
// lie. Everything rare goes through the protocol's own decoder.
type Connection struct {
	Nodes     []string // http URLs, tried in turn
	FirstNode int      // the node to begin with
	Protocol  protocol.Type
	Token     string
	slack     time.Duration // added to the promised ping interval; silenceSlack if zero
	Stats     *Stats
	// Hello, if set, is all that is sent: what follows are frames at once. It
	// is for servers that are no more than a socket.
	Hello []byte
	// Attempted, if set, is called when the first attempt has come to something.
	Attempted func()
	// Stalled, if set, is asked before each read; while it returns true the
	// client does not read.
	Stalled func(ctx context.Context, conn net.Conn) bool
	// SmallBuffers gives the connection segments and a receive buffer as small as the
	// kernel allows, so that little is kept unread.
	SmallBuffers bool
	// Backoff, if set, is how long to wait before another attempt, by how many
	// have failed in a row.
	Backoff func(failed int) time.Duration

	mu            sync.Mutex
	subscriptions map[string]*Subscription // by channel
	conn          net.Conn                 // nil while not connected
	lastID        uint32
	ended         bool

	lastReceived atomic.Int64 // when something last came, in Unix nanoseconds
	silence      time.Duration
	pong         bool
}

// Add watches another channel. It returns false when the link is over.
func (c *Connection) Add(s *Subscription) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if c.subscriptions == nil {
		c.subscriptions = map[string]*Subscription{}
	}
	c.subscriptions[s.Channel] = s
	if c.conn != nil {
		c.write(c.subscribeCommand(s)) //nolint:errcheck // the reader meets the same error and reconnects
	}
	return true
}

// Run connects, subscribes and reads until every subscription is done, the
// context ends or the server turns the client away for good.
func (c *Connection) Run(ctx context.Context) error {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended = true
	}()
	before := false
	for attempt, node := 0, c.FirstNode; ; node++ {
		subscribed, err := c.once(ctx, c.Nodes[node%len(c.Nodes)], before)
		c.notifyAttempted()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var end *TerminalError
		if errors.As(err, &end) {
			c.Stats.Refused.Add(1)
			return err
		}
		if subscribed {
			before, attempt = true, 0
		} else {
			c.Stats.Failed.Add(1)
			attempt++
		}
		wait := Backoff(attempt, reconnectBase, reconnectLimit)
		if c.Backoff != nil {
			wait = c.Backoff(attempt)
		}
		if err := Pause(ctx, wait); err != nil {
			return err
		}
	}
}

// Disconnect breaks the connection off; another attempt follows.
func (c *Connection) Disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close() //nolint:errcheck // the reader meets the closed connection
	}
}

// once is the life of one connection. It returns nil when all is done, and
// whether every subscription of the beginning was answered.
func (c *Connection) once(ctx context.Context, node string, again bool) (subscribed bool, err error) {
	dial := dialWebSocket
	if c.SmallBuffers {
		dial = dialSmall
	}
	conn, early, err := dial(ctx, node, c.Protocol, c.Hello)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // the reader meets the closed connection
	})
	defer stop()
	s := session{connection: c, conn: conn, reconnect: again, buffer: early}
	err = s.read(ctx)
	c.leave(conn)
	if s.subscribed {
		c.Stats.disconnected()
	}
	if err == nil {
		return true, nil
	}
	now := time.Now()
	for _, sub := range c.Subscriptions() {
		if sub.live {
			sub.live = false
			sub.Listener.OnDisconnect(now)
		}
	}
	if s.dead.Load() {
		err = errSilent
	}
	return s.subscribed, err
}

// leave closes a connection.
func (c *Connection) leave(conn net.Conn) {
	c.mu.Lock()
	c.conn = nil
	c.mu.Unlock()
	conn.Close() //nolint:errcheck // everything expected has been read
}

func (c *Connection) Subscriptions() []*Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*Subscription, 0, len(c.subscriptions))
	for _, s := range c.subscriptions {
		list = append(list, s)
	}
	return list
}

// subscribeCommand is called with the lock held.
func (c *Connection) subscribeCommand(s *Subscription) *protocol.Command {
	c.lastID++
	s.id, s.requested, s.live = c.lastID, time.Now(), false
	return &protocol.Command{Id: s.id, Subscribe: &protocol.SubscribeRequest{Channel: s.Channel, Token: s.Token}}
}

// write sends commands in one frame. It is called with the lock held.
func (c *Connection) write(commands ...*protocol.Command) error {
	if len(commands) == 0 {
		return nil
	}
	var payload []byte
	opcode := opText
	var encoder protocol.CommandEncoder = protocol.NewJSONCommandEncoder()
	if c.Protocol == protocol.TypeProtobuf {
		opcode, encoder = opBinary, protocol.NewProtobufCommandEncoder()
	}
	for _, command := range commands {
		// Both encoders frame the command as well.
		data, err := encoder.Encode(command)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		if c.Protocol == protocol.TypeJSON && len(payload) > 0 && payload[len(payload)-1] != '\n' {
			payload = append(payload, '\n')
		}
		payload = append(payload, data...)
	}
	return writeFrame(c.conn, opcode, payload)
}

func ParseProtocol(name string) (protocol.Type, error) {
	kind := protocol.Type(cmp.Or(name, string(protocol.TypeJSON)))
	if kind != protocol.TypeJSON && kind != protocol.TypeProtobuf {
		return "", fmt.Errorf("protocol must be json or protobuf, not %q", name)
	}
	return kind, nil
}
