package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
)

// session is one socket of a Connection, used from the connection's goroutine.
type session struct {
	connection *Connection
	conn       net.Conn
	reconnect  bool
	buffer     []byte // data read and not yet handled
	parts      []byte // the fragments of a message so far
	binary     bool
	last       *Subscription // the subscription of the last publication

	subscribed bool // all initial subscriptions were confirmed
	pending    int  // initial subscriptions not yet confirmed
	dead       atomic.Bool

	silenceTimer *time.Timer // silenceTimer and ended are guarded by the connection's lock
	ended        bool
}

// read handles frames until the connection ends.
func (s *session) read(ctx context.Context) error {
	c := s.connection
	if err := s.connect(); err != nil {
		return err
	}
	stop := s.watchSilence()
	defer stop()

	early := len(s.buffer)
	buffer := make([]byte, max(readBuffer, early))
	copy(buffer, s.buffer)
	start, end := 0, early
	s.buffer = nil
	now := time.Now()
	for {
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
		case start == end && len(buffer) > maxKeptBuffer:
			buffer, start, end = make([]byte, readBuffer), 0, 0
		case start == end:
			start, end = 0, 0
		case end == len(buffer):
			end = copy(buffer, buffer[start:end])
			start = 0
		}
		if c.Stalled != nil && c.Stalled(ctx, s.conn) {
			return context.Cause(ctx)
		}
		n, err := s.conn.Read(buffer[end:])
		now = time.Now()
		if n > 0 {
			c.lastReceived.Store(now.UnixNano())
			end += n
			continue
		}
		if err != nil {
			return readError(ctx, err)
		}
	}
}

// readError says why a connection could not be read.
func readError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the server closed the connection without a close frame")
	}
	return err
}

// connect sends the connect command. A connection to a bare server subscribes at once.
func (s *session) connect() error {
	if err := s.conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	c := s.connection
	if c.Hello != nil {
		return s.subscribeAll()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = s.conn
	c.lastID = 1
	err := c.write(&protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{Token: c.Token, Name: "loadtest"}})
	c.conn = nil // Add subscribes only after the connect reply
	return err
}

// watchSilence closes the connection if nothing arrives for too long. Its timer fires once in
// a ping interval and not once in a message.
func (s *session) watchSilence() (stop func()) {
	c := s.connection
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastReceived.Store(time.Now().UnixNano())
	s.silenceTimer = time.AfterFunc(handshakeTimeout, s.checkSilence)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.silenceTimer.Stop()
		s.ended = true
	}
}

func (s *session) checkSilence() {
	c := s.connection
	c.mu.Lock()
	defer c.mu.Unlock()
	quiet := time.Since(time.Unix(0, c.lastReceived.Load()))
	switch {
	case s.ended:
	case c.silence == 0: // the server has announced no pings yet
		s.silenceTimer.Reset(handshakeTimeout)
	case quiet >= c.silence:
		s.dead.Store(true)
		s.conn.Close() //nolint:errcheck // the reader meets the closed connection
	default:
		s.silenceTimer.Reset(c.silence - quiet)
	}
}

// subscribeAll treats every subscription as confirmed, for a server that sends no replies.
func (s *session) subscribeAll() error {
	now := time.Now()
	for _, sub := range s.connection.Subscriptions() {
		sub.live = true
		sub.Listener.OnSnapshot(nil, now, now)
	}
	s.setSubscribed()
	return s.conn.SetDeadline(time.Time{})
}

func (c *Connection) notifyAttempted() {
	if c.Attempted != nil {
		c.Attempted()
	}
}

func (s *session) setSubscribed() {
	s.subscribed = true
	s.connection.notifyAttempted()
	if s.reconnect {
		s.connection.Stats.Reconnects.Add(1)
	} else {
		s.connection.Stats.Opened.Add(1)
	}
	s.connection.Stats.connected()
}

// frame handles one frame.
func (s *session) frame(f frame, at time.Time) (done bool, err error) {
	switch f.opcode {
	case opText, opBinary:
		s.binary = f.opcode == opBinary
	case opContinuation:
	case opPing:
		s.connection.mu.Lock()
		defer s.connection.mu.Unlock()
		return false, writeFrame(s.conn, opPong, f.payload)
	case opPong:
		return false, nil
	case opClose:
		code, reason := 1005, ""
		if len(f.payload) >= 2 {
			code, reason = int(f.payload[0])<<8|int(f.payload[1]), string(f.payload[2:])
		}
		s.connection.mu.Lock()
		defer s.connection.mu.Unlock()
		writeFrame(s.conn, opClose, f.payload[:min(2, len(f.payload))]) //nolint:errcheck // the server has closed; the answer is a courtesy
		return false, closeError(code, reason)
	default:
		return false, fmt.Errorf("unknown opcode %d", f.opcode)
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
	s.connection.Stats.Frames.Add(1)
	return s.replies(message, at)
}

// replies handles the replies in a message.
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

// reply handles one reply. It parses positions itself and decodes the others with the
// protocol's decoder.
func (s *session) reply(data []byte, at time.Time) (done bool, err error) {
	cut := cutPushJSON
	if s.binary {
		cut = cutPushProtobuf
	}
	if channel, publication, ok := cut(data); ok {
		if sub := s.find(channel); sub != nil {
			if p, ok := parsePositionUpdate(publication, sub.Booking); ok {
				s.connection.Stats.Messages.Add(1)
				return s.finish(sub, sub.Listener.OnPosition(p, at))
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

// find returns the subscription of a channel. Positions of one channel often arrive in a row,
// so it remembers the last one.
func (s *session) find(channel []byte) *Subscription {
	if s.last != nil && s.last.Channel == string(channel) {
		return s.last
	}
	s.connection.mu.Lock()
	defer s.connection.mu.Unlock()
	s.last = s.connection.subscriptions[string(channel)]
	return s.last
}

func (s *session) ping() error {
	if !s.connection.pong {
		return nil
	}
	s.connection.mu.Lock()
	defer s.connection.mu.Unlock()
	if s.connection.Protocol == protocol.TypeProtobuf {
		return writeFrame(s.conn, opBinary, []byte{0})
	}
	return writeFrame(s.conn, opText, []byte("{}"))
}

// handle handles a decoded reply.
func (s *session) handle(r *protocol.Reply, at time.Time) (done bool, err error) {
	c := s.connection
	push := r.Push
	switch {
	case push != nil && push.Disconnect != nil:
		return false, closeError(int(push.Disconnect.Code), push.Disconnect.Reason)
	case push != nil && push.Unsubscribe != nil:
		text := fmt.Sprintf("unsubscribed: %d %s", push.Unsubscribe.Code, push.Unsubscribe.Reason)
		if push.Unsubscribe.Code < 2500 {
			return false, &TerminalError{text}
		}
		return false, errors.New(text)
	case push != nil && push.Pub != nil:
		sub := s.find([]byte(push.Channel))
		if sub == nil {
			return false, nil // the channel was just unsubscribed
		}
		c.Stats.Messages.Add(1)
		return s.finish(sub, sub.Listener.OnPublication(push.Pub.Data, at))
	case push != nil:
		return false, nil
	case r.Error != nil:
		text := fmt.Sprintf("refused: %d %s", r.Error.Code, r.Error.Message)
		if r.Error.Temporary {
			return false, errors.New(text)
		}
		return false, &TerminalError{text}
	case r.Connect != nil:
		return false, s.handleConnected(r.Connect)
	case r.Subscribe != nil:
		return s.handleSubscribed(r, at)
	case r.Unsubscribe != nil:
		return false, nil
	}
	return false, fmt.Errorf("a reply to an unknown command: id %d", r.Id)
}

// handleConnected subscribes to all channels.
func (s *session) handleConnected(r *protocol.ConnectResult) error {
	c := s.connection
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pong = r.Pong
	c.silence = 0
	if r.Ping > 0 {
		c.silence = time.Duration(r.Ping)*time.Second + cmp.Or(c.slack, silenceSlack)
		s.silenceTimer.Reset(c.silence)
	}
	c.conn = s.conn
	commands := make([]*protocol.Command, 0, len(c.subscriptions))
	for _, sub := range c.subscriptions {
		commands = append(commands, c.subscribeCommand(sub))
	}
	s.pending = len(commands)
	if s.pending == 0 {
		return s.conn.SetDeadline(time.Time{})
	}
	return c.write(commands...)
}

func (s *session) handleSubscribed(r *protocol.Reply, at time.Time) (done bool, err error) {
	sub, requested := s.takeRequest(r.Id)
	if sub == nil {
		return false, fmt.Errorf("a reply to an unknown command: id %d", r.Id)
	}
	sub.live = true
	// The listener is called before the connection counts as connected, because a scenario
	// that waits for all connections then reads the snapshots.
	done = sub.Listener.OnSnapshot(r.Subscribe.Data, requested, at)
	if s.pending > 0 {
		if s.pending--; s.pending == 0 {
			s.setSubscribed()
			if err := s.conn.SetDeadline(time.Time{}); err != nil {
				return false, err
			}
		}
	}
	return s.finish(sub, done)
}

// takeRequest returns the subscription that a reply confirms.
func (s *session) takeRequest(id uint32) (sub *Subscription, requested time.Time) {
	s.connection.mu.Lock()
	defer s.connection.mu.Unlock()
	for _, sub := range s.connection.subscriptions {
		if sub.id == id && !sub.requested.IsZero() {
			requested, sub.requested = sub.requested, time.Time{}
			return sub, requested
		}
	}
	return nil, time.Time{}
}

// finish unsubscribes from a channel that is done. After the last one it closes the
// connection.
func (s *session) finish(sub *Subscription, done bool) (over bool, err error) {
	if !done || sub.done {
		return false, nil
	}
	c := s.connection
	c.mu.Lock()
	defer c.mu.Unlock()
	sub.done = true
	delete(c.subscriptions, sub.Channel)
	if s.last == sub {
		s.last = nil
	}
	if len(c.subscriptions) == 0 {
		c.ended = true
		writeFrame(s.conn, opClose, []byte{1000 >> 8, 1000 & 0xff}) //nolint:errcheck // the client leaves either way
		return true, nil
	}
	if c.Hello != nil {
		return false, nil
	}
	c.lastID++
	return false, c.write(&protocol.Command{Id: c.lastID, Unsubscribe: &protocol.UnsubscribeRequest{Channel: sub.Channel}})
}

// closeError returns the error for a close code. By the protocol, 3500–3999 and 4500–4999 are
// final.
func closeError(code int, reason string) error {
	text := fmt.Sprintf("closed by the server: %d %s", code, reason)
	if (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) {
		return &TerminalError{text}
	}
	return errors.New(text)
}
