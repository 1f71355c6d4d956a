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
	// handshakeTimeout bounds dialing, connecting and subscribing.
	handshakeTimeout = 10 * time.Second
	// silenceSlack is added to the server's ping interval before the connection counts as
	// dead. 10 s.
	silenceSlack = 10 * time.Second
	// reconnectBase and reconnectLimit bound the wait before another attempt.
	reconnectBase  = 100 * time.Millisecond
	reconnectLimit = 5 * time.Second
	// readBuffer is the size of a connection's read buffer. It holds several positions and is
	// small enough for 10,000 connections.
	readBuffer = 2 << 10
	// maxKeptBuffer is the largest read buffer that an idle connection keeps.
	maxKeptBuffer = 8 << 10
	// maxFrame bounds a message of the server.
	maxFrame = 1 << 20
)

// errSilent ends a connection on which no ping arrived in time.
var errSilent = errors.New("the server fell silent")

// TerminalError ends a connection for good: the client must not reconnect.
type TerminalError struct{ Reason string }

// Error implements error.
func (t *TerminalError) Error() string { return t.Reason }

// Listener receives what arrives over one subscription. The connection's goroutine calls its
// methods one after another; data is valid only until they return. If a method returns true,
// the subscription ends.
type Listener interface {
	// OnSnapshot receives the data of a subscribe reply, the time of the request and the time
	// of the reply.
	OnSnapshot(data []byte, requested, got time.Time) (done bool)
	// OnPosition receives a pushed position of the subscription's booking.
	OnPosition(p PositionUpdate, at time.Time) (done bool)
	// OnPublication receives any other publication.
	OnPublication(data []byte, at time.Time) (done bool)
	// OnDisconnect reports that the connection was lost. The client reconnects.
	OnDisconnect(at time.Time)
}

// Stats counts connections. It is safe for concurrent use.
type Stats struct {
	Opened     atomic.Int64 // first subscriptions
	Reconnects atomic.Int64 // subscriptions after a lost connection
	Failed     atomic.Int64 // attempts that did not lead to a subscription
	Refused    atomic.Int64 // clients that ended with a TerminalError
	Messages   atomic.Int64 // publications received
	Frames     atomic.Int64 // frames with publications or replies
	Connected  atomic.Int64
	Peak       atomic.Int64
}

func (s *Stats) connected()    { StoreMax(&s.Peak, s.Connected.Add(1)) }
func (s *Stats) disconnected() { s.Connected.Add(-1) }

// StoreMax raises peak to a value if the value is larger.
func StoreMax(peak *atomic.Int64, to int64) {
	for {
		seen := peak.Load()
		if to <= seen || peak.CompareAndSwap(seen, to) {
			return
		}
	}
}

// Subscription is one channel of a connection.
type Subscription struct {
	Channel  string
	Booking  string // the booking whose positions the channel carries
	Token    string // a subscription token, if the server requires one
	Listener Listener

	id        uint32    // of the last subscribe command
	requested time.Time // when the command was sent; zero after the reply
	live      bool
	done      bool
}

// Connection keeps a connection with several subscriptions open, on one goroutine. It uses few
// resources, so that a test measures the server and not the client: one small buffer, no timer
// per message, and positions are parsed in place. The protocol's own decoder reads all other
// messages.
type Connection struct {
	Nodes     []string // HTTP URLs, tried in turn
	FirstNode int      // index of the node to try first
	Protocol  protocol.Type
	Token     string
	slack     time.Duration // added to the server's ping interval. Default silenceSlack
	Stats     *Stats
	// Hello, if set, is all that the client sends: the server then writes frames without a
	// handshake. It is for servers that only write to sockets.
	Hello []byte
	// Attempted, if set, is called after the first attempt has succeeded or failed.
	Attempted func()
	// Stalled, if set, is called before each read and may block. If it returns true, the
	// connection ends.
	Stalled func(ctx context.Context, conn net.Conn) bool
	// SmallBuffers requests the smallest TCP segments and receive buffer that the kernel
	// allows, so that little data is buffered unread.
	SmallBuffers bool
	// Backoff, if set, returns the wait before the next attempt from the number of failed
	// attempts in a row.
	Backoff func(failed int) time.Duration

	mu            sync.Mutex
	subscriptions map[string]*Subscription // by channel
	conn          net.Conn                 // nil while not connected
	lastID        uint32
	ended         bool

	lastReceived atomic.Int64 // time of the last data, in Unix nanoseconds
	silence      time.Duration
	pong         bool
}

// Add subscribes to another channel. It returns false if the connection has ended.
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

// Run connects, subscribes and reads until every subscription has ended, the context is
// canceled or a TerminalError occurs.
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

// Disconnect closes the socket. The client then reconnects.
func (c *Connection) Disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close() //nolint:errcheck // the reader meets the closed connection
	}
}

// once runs one connection. It returns nil if every subscription has ended. subscribed reports
// whether all initial subscriptions were confirmed.
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

// leave closes a socket.
func (c *Connection) leave(conn net.Conn) {
	c.mu.Lock()
	c.conn = nil
	c.mu.Unlock()
	conn.Close() //nolint:errcheck // everything expected has been read
}

// Subscriptions returns the subscriptions that have not ended.
func (c *Connection) Subscriptions() []*Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*Subscription, 0, len(c.subscriptions))
	for _, s := range c.subscriptions {
		list = append(list, s)
	}
	return list
}

// subscribeCommand returns the command that subscribes to a channel. The caller holds the
// lock.
func (c *Connection) subscribeCommand(s *Subscription) *protocol.Command {
	c.lastID++
	s.id, s.requested, s.live = c.lastID, time.Now(), false
	return &protocol.Command{Id: s.id, Subscribe: &protocol.SubscribeRequest{Channel: s.Channel, Token: s.Token}}
}

// write sends commands in one frame. The caller holds the lock.
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
		// Both encoders add the framing of the command.
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

// ParseProtocol returns the protocol with a name. Default JSON.
func ParseProtocol(name string) (protocol.Type, error) {
	kind := protocol.Type(cmp.Or(name, string(protocol.TypeJSON)))
	if kind != protocol.TypeJSON && kind != protocol.TypeProtobuf {
		return "", fmt.Errorf("protocol must be json or protobuf, not %q", name)
	}
	return kind, nil
}
