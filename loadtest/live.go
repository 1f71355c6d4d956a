package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
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
)

// errDead ends a connection on which not even a ping came.
var errDead = errors.New("the server fell silent")

// terminal is an end after which a client must not come back.
type terminal struct{ reason string }

func (t *terminal) Error() string { return t.reason }

// subscriber is told what comes over a live connection. Its methods are called
// from the connection's goroutine, one after another. A true result means the
// client has seen all it waited for and hangs up.
type subscriber interface {
	// snapshot gets the data of a subscribe reply, when it was asked for and
	// when it came.
	snapshot(data []byte, asked, got time.Time) (done bool)
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

// liveClient keeps one subscription alive, on one goroutine.
type liveClient struct {
	nodes    []string // http URLs, tried in turn
	first    int      // the node to begin with
	protocol protocol.Type
	http     *http.Client
	token    string
	channel  string
	slack    time.Duration // silenceSlack, except in tests
	stats    *liveStats
}

// run connects, subscribes and reads until the subscriber is done, the context
// ends or the server turns the client away for good.
func (c *liveClient) run(ctx context.Context, s subscriber) error {
	subscribedBefore := false
	for attempt, node := 0, c.first; ; node++ {
		subscribed, err := c.once(ctx, c.nodes[node%len(c.nodes)], subscribedBefore, s)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var end *terminal
		if errors.As(err, &end) {
			c.stats.refused.Add(1)
			return err
		}
		if subscribed {
			subscribedBefore = true
			attempt = 0
			s.dropped(time.Now())
		} else {
			c.stats.failed.Add(1)
			attempt++
		}
		if err := pause(ctx, backoff(attempt, reconnectBase, reconnectLimit)); err != nil {
			return err
		}
	}
}

// once is the life of one connection. It returns nil when the subscriber is done.
func (c *liveClient) once(parent context.Context, node string, again bool, s subscriber) (subscribed bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	// One timer watches over the whole connection: first the handshake, then silence.
	watchdog := time.AfterFunc(handshakeTimeout, func() { cancel(errDead) })
	defer watchdog.Stop()

	ws, err := c.dial(ctx, node)
	if err != nil {
		return false, err
	}
	// After a clean close this does nothing; on any other way out it frees the
	// socket, and then there is nothing left to learn from its error.
	defer func() { _ = ws.CloseNow() }()

	conn := &liveConn{ws: ws, protocol: c.protocol}
	connected, err := conn.request(ctx, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{Token: c.token, Name: "loadtest"}})
	if err != nil {
		return false, err
	}
	if connected.Connect == nil {
		return false, errors.New("the answer to connect is something else")
	}
	conn.pong = connected.Connect.Pong

	asked := time.Now()
	reply, err := conn.request(ctx, &protocol.Command{Id: 2, Subscribe: &protocol.SubscribeRequest{Channel: c.channel}})
	got := time.Now()
	if err != nil {
		return false, err
	}
	if reply.Subscribe == nil {
		return false, errors.New("the answer to subscribe is something else")
	}
	if again {
		c.stats.reconnects.Add(1)
	} else {
		c.stats.opened.Add(1)
	}
	c.stats.up()
	defer c.stats.down()
	done := s.snapshot(reply.Subscribe.Data, asked, got)

	silence := time.Duration(0)
	if p := connected.Connect.Ping; p > 0 {
		silence = time.Duration(p)*time.Second + c.slack
	}
	for !done {
		if silence > 0 {
			watchdog.Reset(silence)
		} else {
			watchdog.Stop()
		}
		reply, err := conn.next(ctx)
		if err != nil {
			return true, err
		}
		done, err = c.handle(ctx, conn, reply, s)
		if err != nil {
			return true, err
		}
	}
	// The closing handshake is a courtesy: everything awaited has come, so the
	// answer to it does not matter.
	watchdog.Reset(handshakeTimeout)
	_ = ws.Close(websocket.StatusNormalClosure, "")
	return true, nil
}

func (c *liveClient) handle(ctx context.Context, conn *liveConn, reply *protocol.Reply, s subscriber) (done bool, err error) {
	push := reply.Push
	switch {
	case push == nil && reply.Id == 0 && reply.Error == nil:
		if conn.pong {
			return false, conn.send(ctx, &protocol.Command{})
		}
		return false, nil
	case push == nil:
		return false, fmt.Errorf("an answer to nothing asked: id %d", reply.Id)
	case push.Disconnect != nil:
		return false, closeError(int(push.Disconnect.Code), push.Disconnect.Reason)
	case push.Unsubscribe != nil:
		if push.Unsubscribe.Code < 2500 {
			return false, &terminal{fmt.Sprintf("unsubscribed: %d %s", push.Unsubscribe.Code, push.Unsubscribe.Reason)}
		}
		return false, fmt.Errorf("unsubscribed: %d %s", push.Unsubscribe.Code, push.Unsubscribe.Reason)
	case push.Pub != nil && push.Channel == c.channel:
		c.stats.messages.Add(1)
		return s.publication(push.Pub.Data, conn.readAt), nil
	}
	return false, nil
}

// dial opens the WebSocket of a node.
func (c *liveClient) dial(ctx context.Context, node string) (*websocket.Conn, error) {
	address := "ws" + strings.TrimPrefix(node, "http") + "/connection/websocket"
	options := &websocket.DialOptions{HTTPClient: c.http}
	if c.protocol == protocol.TypeProtobuf {
		options.Subprotocols = []string{"centrifuge-protobuf"}
		address += "?format=protobuf"
	}
	ws, res, err := websocket.Dial(ctx, address, options) //nolint:bodyclose // Dial closes it
	if err != nil {
		if res != nil && (res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden) {
			return nil, &terminal{fmt.Sprintf("the server refused the connection: HTTP %d", res.StatusCode)}
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	return ws, nil
}

// liveConn frames commands and replies on one WebSocket.
type liveConn struct {
	ws       *websocket.Conn
	protocol protocol.Type
	pong     bool
	decoder  protocol.ReplyDecoder
	readAt   time.Time // when the frame being decoded had been read
}

func (c *liveConn) send(ctx context.Context, command *protocol.Command) error {
	var encoder protocol.CommandEncoder = protocol.NewJSONCommandEncoder()
	kind := websocket.MessageText
	if c.protocol == protocol.TypeProtobuf {
		encoder, kind = protocol.NewProtobufCommandEncoder(), websocket.MessageBinary
	}
	// Both encoders frame the command as well.
	data, err := encoder.Encode(command)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if err := c.ws.Write(ctx, kind, data); err != nil {
		return readError(ctx, err)
	}
	return nil
}

// next returns the next reply; a frame may carry several.
func (c *liveConn) next(ctx context.Context) (*protocol.Reply, error) {
	for {
		if c.decoder != nil {
			reply, err := c.decoder.Decode()
			if err == nil {
				return reply, nil
			}
			if !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("decode: %w", err)
			}
			c.decoder = nil
		}
		_, frame, err := c.ws.Read(ctx)
		if err != nil {
			return nil, readError(ctx, err)
		}
		c.readAt = time.Now()
		if c.protocol == protocol.TypeProtobuf {
			c.decoder = protocol.NewProtobufReplyDecoder(frame)
		} else {
			c.decoder = protocol.NewJSONReplyDecoder(frame)
		}
	}
}

// request sends a command and waits for its answer, answering pings meanwhile.
func (c *liveConn) request(ctx context.Context, command *protocol.Command) (*protocol.Reply, error) {
	if err := c.send(ctx, command); err != nil {
		return nil, err
	}
	for {
		reply, err := c.next(ctx)
		if err != nil {
			return nil, err
		}
		switch {
		case reply.Id == command.Id && reply.Error != nil:
			text := fmt.Sprintf("refused: %d %s", reply.Error.Code, reply.Error.Message)
			if reply.Error.Temporary {
				return nil, errors.New(text)
			}
			return nil, &terminal{text}
		case reply.Id == command.Id:
			return reply, nil
		case reply.Push != nil && reply.Push.Disconnect != nil:
			return nil, closeError(int(reply.Push.Disconnect.Code), reply.Push.Disconnect.Reason)
		case reply.Id == 0 && reply.Push == nil && c.pong:
			if err := c.send(ctx, &protocol.Command{}); err != nil {
				return nil, err
			}
		}
	}
}

// readError turns a close frame into what it asks of the client.
func readError(ctx context.Context, err error) error {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return closeError(int(closed.Code), closed.Reason)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// closeError follows the ranges of the protocol: 3500–3999 and 4500–4999 are final.
func closeError(code int, reason string) error {
	text := fmt.Sprintf("closed by the server: %d %s", code, reason)
	if (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) {
		return &terminal{text}
	}
	return errors.New(text)
}
