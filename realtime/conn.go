package realtime

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"

	"nowserving/models"
)

// maxSubscriptions bounds the subscriptions of a connection.
const maxSubscriptions = 100

// conn is one live connection.
type conn struct {
	hub    *Hub
	ws     *websocket.Conn
	socket *socket
	reader *bufio.Reader // of ws, to ask whether it holds another frame
	format format
	id     string
	// address is the client's network address, as the source charges it.
	address string

	// Only the reading goroutine uses these.
	bearer        string
	guest         string // the foreign origin of the page; mostly empty
	subscriptions []*subscription
	answerBy      time.Time // when the commands of the frame have to be answered

	mu     sync.Mutex
	room   sync.Cond // signaled when replies have been sent, or never will be
	client *Client   // nil until it has introduced itself
	busy   bool      // a command is being handled; it may take the source a while
	// To be sent, in this order: messages, then the newest state of the subscriptions
	// in moved.
	messages []message
	pushed   int // bytes of publications among messages
	replied  int // bytes of replies among messages
	moved    []*subscription
	due      bool        // among those that a worker will serve, or is serving
	stalled  bool        // the socket is full: nothing is sent until it has room
	bye      *disconnect // set once: nothing more is taken in
	parting  bool        // everything is sent but the goodbye
	dead     bool        // hung up: nothing more is sent

	introduceBy time.Time
	heard       time.Time // when the client's last frame came
	nextPing    time.Time
	pongBy      time.Time // zero when no ping is unanswered
}

func newConn(h *Hub, ws *websocket.Conn, slim *slimHijacker, f format, r *http.Request) *conn {
	c := &conn{
		hub: h, ws: ws, socket: slim.socket, reader: slim.reader, format: f, id: models.NewID(), bearer: bearerOf(r),
		address:     hostOf(r.RemoteAddr),
		introduceBy: time.Now().Add(h.opts.ConnectTimeout),
	}
	c.room.L = &c.mu
	c.socket.drained = c.resume
	return c
}

// hostOf returns the address of a network address and port.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

// A connection always has one goroutine. While it waits for the client, its stack is
// as small as possible; another goroutine with a larger stack then handles what has
// come, and ends.

func (c *conn) listen() {
	if c.socket.await() {
		c.hub.wg.Go(c.read)
		return
	}
	c.end(net.ErrClosed)
}

// read handles the frames that the client has sent.
func (c *conn) read() {
	for more := true; more; more = c.done() {
		_, frame, err := c.ws.Read(context.Background()) // hanging up ends it
		if err != nil {
			c.end(err)
			return
		}
		if !c.begin() {
			continue // saying goodbye: wait for the other side's
		}
		if err := c.format.decode(frame, c.handle); err != nil {
			c.hub.opts.Log.Debug("unreadable frame", "error", err)
			c.close(closeBadRequest)
		}
	}
	c.hub.wg.Go(c.listen)
}

// done records that a frame has been handled. It returns true if another may be in
// the buffer, which the socket would not announce.
func (c *conn) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.pongBy = false, time.Time{}
	more := c.parting || c.reader.Buffered() > 0 // once parting, the reader is the library's
	c.socket.awaitFrame(more)
	return more
}

// subscription returns the subscription of a channel, or nil.
func (c *conn) subscription(channel string) *subscription {
	for _, s := range c.subscriptions {
		if s.channel == channel {
			return s
		}
	}
	return nil
}

// begin records that a frame has arrived. It returns false if the connection takes no
// more.
func (c *conn) begin() bool {
	now := time.Now()
	c.answerBy = now.Add(c.hub.opts.SourceTimeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = now
	c.busy = c.bye == nil && !c.dead
	return c.busy
}

// end releases everything that the connection holds.
func (c *conn) end(cause error) {
	defer c.hub.forget(c)
	defer c.uncount()
	for _, s := range c.subscriptions {
		s.leave()
	}
	c.mu.Lock()
	c.dead = true
	c.messages, c.moved, c.pushed, c.replied = nil, nil, 0, 0
	c.room.Broadcast()
	c.mu.Unlock()
	if errors.Is(cause, websocket.ErrMessageTooBig) {
		// The close frame is sent; read the rest so that the client can receive it.
		if err := c.ws.Close(websocket.StatusMessageTooBig, ""); err != nil {
			c.hub.opts.Log.Debug("close a live connection", "error", err)
		}
		return
	}
	if err := c.ws.CloseNow(); err != nil && !errors.Is(err, net.ErrClosed) {
		c.hub.opts.Log.Debug("hang up", "error", err)
	}
}

// hangUp closes the connection without a close frame. The reading goroutine then
// ends.
func (c *conn) hangUp() {
	c.mu.Lock()
	c.dead = true
	c.room.Broadcast()
	c.mu.Unlock()
	if err := c.socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		c.hub.opts.Log.Debug("hang up", "error", err)
	}
}

// cut closes the connection of a client that does not respond. It writes the close
// frame if the socket takes it, and does not wait. c.mu must be held.
func (c *conn) cut(why disconnect) {
	c.bye, c.dead = &why, true
	c.room.Broadcast()
	_, err := c.socket.send(why.frame())
	if err = errors.Join(err, c.socket.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		c.hub.opts.Log.Debug("close a live connection", "error", err)
	}
}

// close sends pending messages and then the close frame.
func (c *conn) close(why disconnect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(why)
}

func (c *conn) closeLocked(why disconnect) {
	if c.bye != nil || c.dead {
		return
	}
	c.bye = &why
	c.room.Broadcast()
	c.wake()
}

// look sends a ping if one is due, and closes the connection if a deadline has
// passed.
func (c *conn) look(now, stored time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.bye != nil || c.dead:
	case c.client == nil:
		if now.After(c.introduceBy) && !c.busy {
			c.cut(closeSilent)
		}
	case !c.client.ExpiresAt.IsZero() && stored.After(c.client.ExpiresAt.Add(c.hub.opts.RefreshGrace)) && !c.busy:
		c.closeLocked(closeExpired)
	case !c.pongBy.IsZero() && now.After(c.pongBy) && !c.busy:
		c.cut(closeNoPong)
	case now.After(c.nextPing) && !c.stalled: // a full socket has the write timeout
		c.nextPing = now.Add(c.hub.opts.PingInterval)
		if c.pongBy.IsZero() {
			c.pongBy = now.Add(c.hub.opts.PongTimeout)
		}
		c.messages = append(c.messages, message{data: c.format.ping()})
		c.wake()
	}
}

// probe brings the next ping forward after a publication, so that a client that has
// stopped reading is found within WriteTimeout: it is pinged within a quarter of it,
// and has PongTimeout to answer. The pings of a fan-out are spread. c.mu must be
// held.
func (c *conn) probe() {
	soon := c.hub.opts.WriteTimeout / 8
	at := time.Now().Add(soon + rand.N(soon+1)) //nolint:gosec // no secret
	if earliest := c.heard.Add(2 * soon); at.Before(earliest) {
		at = earliest // it has just shown that it reads
	}
	if at.Before(c.nextPing) {
		c.nextPing = at
	}
}

// dependsOn reports whether the client's credential or organization is one of the
// ids.
func (c *conn) dependsOn(ids map[string]bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client != nil && (ids[c.client.CredentialID] || ids[c.client.OrganizationID])
}

// belongsTo reports whether the client's user is one of the ids.
func (c *conn) belongsTo(ids map[string]bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client != nil && ids[c.client.UserID]
}

// introduced sets the client, and returns the seconds until its token expires, at
// least 1, or 0 if it does not.
func (c *conn) introduced(client Client) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		// Spread the pings of clients that connected together.
		c.nextPing = time.Now().Add(c.hub.opts.PingInterval/2 + rand.N(c.hub.opts.PingInterval/2+1)) //nolint:gosec // no secret
	}
	c.client = &client
	if client.ExpiresAt.IsZero() {
		return 0
	}
	return uint32(max(1, (client.ExpiresAt.Sub(c.hub.opts.Now())+time.Second-1)/time.Second))
}

// count counts a patient's connection. If it can't be counted, the client connects
// without a limit, and Stats.Uncounted says so.
func (c *conn) count(ctx context.Context, client *Client) {
	if c.hub.opts.Connections == nil || client.Patient == "" {
		return
	}
	if err := c.hub.opts.Connections.Add(ctx, client.OrganizationID, client.Patient, c.id); err != nil {
		c.hub.uncounted.Add(1)
		c.hub.opts.Log.Debug("a live connection is not counted", "error", err)
	}
}

func (c *conn) uncount() {
	client := c.who()
	if c.hub.opts.Connections == nil || client == nil || client.Patient == "" {
		return
	}
	if err := c.hub.opts.Connections.Remove(c.hub.ctx, client.OrganizationID, client.Patient, c.id); err != nil {
		c.hub.opts.Log.Debug("a closed live connection is still counted", "error", err)
	}
}

// who returns the client, or nil until it is authenticated.
func (c *conn) who() *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client
}

// answer sends the reply to a command. If the client does not read its replies, it
// waits until the client does. It returns false if the connection is closing.
func (c *conn) answer(r *protocol.Reply) bool {
	data, ok := c.encode(r)
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reply(data)
	return c.await()
}

func (c *conn) encode(r *protocol.Reply) ([]byte, bool) {
	data, err := c.format.reply(r)
	if err != nil {
		c.hub.opts.Log.Error("encode a reply", "error", err)
		if data, err = c.format.reply(&protocol.Reply{Id: r.Id, Error: errInternal}); err != nil {
			c.close(closeBadRequest)
			return nil, false
		}
	}
	return data, true
}

// refuse answers a command with an error.
func (c *conn) refuse(id uint32, why *protocol.Error) bool {
	return c.answer(&protocol.Reply{Id: id, Error: why})
}
