package realtime

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"nowserving/booking/clock"
	"nowserving/booking/queue"
	"nowserving/realtime/presence"
)

// Options configure a Hub. Source, Mirrors, Log and Now are required. The durations
// have defaults.
type Options struct {
	Source  Source
	Mirrors *queue.Mirrors
	// Connections bounds the connections of each patient. Nil: no bound.
	Connections *presence.Connections
	Log         *slog.Logger
	// Now is the clock for the expiry of tokens and the times in publications. Pauses
	// are measured by time.Now.
	Now func() time.Time
	// AllowedOrigins are hosts or origins (scheme://host) of pages that may
	// connect besides those of the host itself, of PublicURL, and for an
	// organization those that the source allows.
	AllowedOrigins []string
	PublicURL      string
	// Version is sent to clients as the server's version.
	Version string

	// PingInterval is the time between pings. Default 25 s.
	PingInterval time.Duration
	// PongTimeout is how long a ping may go unanswered. Default 6 s.
	PongTimeout time.Duration
	// ConnectTimeout is how long a client may take to send the connect command.
	// Default 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout is how long a client may read nothing of what it is sent. A
	// client that was sent a publication is pinged within a quarter of it. Default
	// 10 s.
	WriteTimeout time.Duration
	// SourceTimeout bounds the questions to the source that come from one frame.
	// Default 4 s, since client libraries wait 5 s for the answer to a command.
	SourceTimeout time.Duration
	// FrameTimeout is how long the rest of a frame may take to arrive once it has
	// begun. Default 10 s.
	FrameTimeout time.Duration
	// PositionTick is the least time between two positions of a client that is not
	// among the first 20 of its queue. Default 0: no limit.
	PositionTick time.Duration
	// SocketBuffer is how many bytes the kernel buffers for a client that does not
	// read. With fewer, what the client reads in the end is newer. Default 32 KiB.
	SocketBuffer int
	// RefreshGrace is how long an expired token is still accepted. Default 10 s.
	RefreshGrace time.Duration
}

// Stats counts what a hub does.
type Stats struct {
	// Connections and Subscriptions exist now.
	Connections, Subscriptions int64
	// Publications were sent, Conflated were replaced by a newer one before they were
	// sent, and Dropped were discarded for a slow client.
	Publications, Conflated, Dropped int64
	// Uncounted connected without the limit of a patient's connections, because
	// Redis did not count them.
	Uncounted int64
}

// Hub holds this node's live connections. It is an http.Handler for the
// WebSocket endpoint and the listener of the node's mirrors.
type Hub struct {
	opts    Options
	origins []string

	ctx    context.Context // ends everything but the last words to clients
	cancel context.CancelFunc
	wg     sync.WaitGroup

	writers writeScheduler

	mu            sync.RWMutex
	leaving       bool // takes no more connections
	closing       bool // and starts nothing more for those who are here
	conns         map[*conn]struct{}
	gone          chan struct{} // closed when the hub is closing and no connection is left
	organizations map[string]*tenantHub

	subscriptions, publications, conflated, dropped, uncounted atomic.Int64
}

// New starts a hub. Call it before Mirrors.Run.
func New(o Options) *Hub {
	withDefault := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	withDefault(&o.PingInterval, 25*time.Second)
	withDefault(&o.PongTimeout, 6*time.Second)
	withDefault(&o.ConnectTimeout, 10*time.Second)
	withDefault(&o.WriteTimeout, 10*time.Second)
	withDefault(&o.SourceTimeout, 4*time.Second)
	withDefault(&o.FrameTimeout, 10*time.Second)
	withDefault(&o.RefreshGrace, 10*time.Second)
	if o.SocketBuffer <= 0 {
		o.SocketBuffer = 32 << 10
	}
	h := &Hub{
		opts: o, origins: slices.Clone(o.AllowedOrigins),
		conns: map[*conn]struct{}{}, gone: make(chan struct{}), organizations: map[string]*tenantHub{},
	}
	h.writers.hub = h
	if u, err := url.Parse(o.PublicURL); err == nil && u.Host != "" {
		h.origins = append(h.origins, u.Host)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	o.Mirrors.Listen(h)
	h.wg.Go(h.watch)
	return h
}

// ServeHTTP upgrades a request to a live connection and returns at once. The
// request's RemoteAddr must be the client's: behind a proxy the caller sets it.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.closed() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	guest, allowed, err := h.guest(r)
	switch {
	case err != nil:
		h.opts.Log.Warn("check the origin of a live connection", "error", err)
		http.Error(w, "origins can't be checked now", http.StatusServiceUnavailable)
		return
	case !allowed:
		http.Error(w, "pages of this origin may not connect", http.StatusForbidden)
		return
	}
	slim := &slimHijacker{ResponseWriter: w, hub: h}
	ws, err := websocket.Accept(slim, r, &websocket.AcceptOptions{
		Subprotocols:       []string{protobufSubprotocol},
		InsecureSkipVerify: true, // the origin is checked above
		CompressionMode:    websocket.CompressionDisabled,
		// After a control frame the next frame has not begun, unless it is buffered.
		OnPingReceived: func(context.Context, []byte) bool { slim.controlled(); return true },
		OnPongReceived: func(context.Context, []byte) { slim.controlled() },
	})
	if err != nil { // the answer is written
		h.opts.Log.Debug("refuse a live connection", "error", err)
		return
	}
	ws.SetReadLimit(maxFrame)
	format := formatJSON
	if ws.Subprotocol() == protobufSubprotocol || r.URL.Query().Get("format") == "protobuf" {
		format = formatProtobuf
	}
	c := newConn(h, ws, slim, format, r)
	c.guest = guest
	h.mu.Lock()
	late := h.leaving
	if !late {
		h.conns[c] = struct{}{}
		if slim.early {
			h.wg.Go(c.read)
		} else {
			h.wg.Go(c.listen)
		}
	}
	h.mu.Unlock()
	if late {
		c.end(net.ErrClosed)
	}
}

// guest reports whether a client may connect. It returns the origin of a page that
// may only because an organization allows its origin; the client's own organization
// has to allow it, too. The origin is empty for pages of this host and of
// AllowedOrigins, and for clients that are not pages.
func (h *Hub) guest(r *http.Request) (origin string, allowed bool, err error) {
	origin = r.Header.Get("Origin")
	if origin == "" {
		return "", true, nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return "", false, nil // "null", or no origin at all
	}
	ours := func(allowed string) bool {
		return strings.EqualFold(allowed, origin) || strings.EqualFold(allowed, u.Host)
	}
	// An app of another scheme, such as capacitor://localhost, is no page of this host.
	own := strings.EqualFold(u.Host, r.Host) && (u.Scheme == "https" || u.Scheme == "http")
	if own || slices.ContainsFunc(h.origins, ours) {
		return "", true, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.opts.SourceTimeout)
	defer cancel()
	allowed, err = h.opts.Source.OriginAllowed(ctx, "", origin)
	return origin, allowed, err
}

const (
	// dismissRate is how many clients a second are asked to reconnect, or more if
	// that would take longer than dismissTime.
	dismissRate = 2000
	dismissTime = 5 * time.Second
	dismissStep = 10 * time.Millisecond
)

// Shutdown asks every client to reconnect elsewhere, waits until they have, and stops
// the hub. When ctx ends, it closes the remaining connections. Many clients are asked
// over some seconds, to spare the other nodes; until then each is served.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.leaving = true
	conns := h.all()
	h.mu.Unlock()
	dismiss(ctx, conns)
	h.mu.Lock()
	if !h.closing && len(h.conns) == 0 {
		close(h.gone)
	}
	h.closing = true
	h.mu.Unlock()
	var late error
	select {
	case <-h.gone:
	case <-ctx.Done():
		late = ctx.Err()
		for _, c := range conns {
			c.hangUp()
		}
	}
	h.cancel()
	h.wg.Wait()
	return late
}

// dismiss asks clients to reconnect elsewhere, in random order and spread over a time
// that grows with their number.
func dismiss(ctx context.Context, conns []*conn) {
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] }) //nolint:gosec // no secret
	spread := min(time.Duration(len(conns))*time.Second/dismissRate, dismissTime)
	steps := max(int(spread/dismissStep), 1)
	for i := range steps {
		for _, c := range conns[len(conns)*i/steps : len(conns)*(i+1)/steps] {
			c.close(closeShutdown)
		}
		if i < steps-1 {
			clock.Sleep(ctx, dismissStep) // no time is left: the rest at once
		}
	}
}

// Revoke closes this node's connections whose credential or organization is one of
// the ids. Clients whose user is one of the ids, or that watch an organization with
// one, are asked to reconnect, because what they may watch has changed.
func (h *Hub) Revoke(ids ...string) {
	ended := make(map[string]bool, len(ids))
	for _, id := range ids {
		ended[id] = true
	}
	defer h.part(ids)
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closing {
		return
	}
	for c := range h.conns {
		switch {
		case c.dependsOn(ended):
			c.close(closeRevoked)
		case c.belongsTo(ended):
			c.close(closeChanged)
		}
	}
}

// CloseUnchecked closes the connections of all authenticated clients, because their
// credentials can't be checked at present. They may reconnect.
func (h *Hub) CloseUnchecked() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closing {
		return
	}
	for c := range h.conns {
		if c.who() != nil {
			c.close(closeUnchecked)
		}
	}
}

// part closes the connections of clients that watch deleted organizations. They
// reconnect with the same token, for the other organizations they watch.
func (h *Hub) part(ids []string) {
	for _, id := range ids {
		o := h.organization(id) // mostly none
		if o == nil {
			continue
		}
		for _, s := range o.subscriptions() {
			s.conn.close(closeGone)
		}
	}
}

// TooMany closes connections whose patients have too many newer ones. It ignores ids
// of other nodes.
func (h *Hub) TooMany(ids []string) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closing {
		return
	}
	for c := range h.conns {
		if slices.Contains(ids, c.id) {
			c.close(closeTooMany)
		}
	}
}

// Stats returns the counters.
func (h *Hub) Stats() Stats {
	h.mu.RLock()
	connections := len(h.conns)
	h.mu.RUnlock()
	return Stats{
		Connections: int64(connections), Subscriptions: h.subscriptions.Load(),
		Publications: h.publications.Load(), Conflated: h.conflated.Load(), Dropped: h.dropped.Load(), Uncounted: h.uncounted.Load(),
	}
}

// Applied implements queue.Listener.
func (h *Hub) Applied(m *queue.Mirror, d *queue.Delta, dirty []queue.Dirty) {
	if o := h.organization(m.OrganizationID); o != nil {
		o.put(change{delta: d, dirty: dirty})
	}
}

// Loaded implements queue.Listener.
func (h *Hub) Loaded(m *queue.Mirror) {
	if o := h.organization(m.OrganizationID); o != nil {
		o.put(change{loaded: true})
	}
}

// Stale implements queue.Listener. Nothing is published while the mirror is stale;
// Loaded brings all clients up to date.
func (h *Hub) Stale(*queue.Mirror) {}

// watch handles pings and deadlines until the hub ends.
func (h *Hub) watch() {
	every := min(h.opts.PingInterval, h.opts.PongTimeout, h.opts.ConnectTimeout, h.opts.RefreshGrace) / 10
	var memory trimmer
	ticker := time.NewTicker(max(every, 5*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
		now, stored := time.Now(), h.opts.Now()
		h.mu.RLock()
		for c := range h.conns {
			c.look(now, stored)
		}
		connections := len(h.conns)
		h.mu.RUnlock()
		memory.look(now, connections)
	}
}

// trimmer returns memory to the system after many connections have come or gone. The
// runtime would keep for long what they needed for a moment.
type trimmer struct {
	trimmed, last int // connections then
	since         time.Time
}

const (
	// trimStep is how many connections have to come or go, and trimQuiet how long
	// their number then has to be about the same.
	trimStep  = 1000
	trimQuiet = 5 * time.Second
)

func (t *trimmer) look(now time.Time, connections int) {
	if far := connections - t.last; far > trimStep/10 || -far > trimStep/10 {
		t.last, t.since = connections, now
	}
	grown := connections - t.trimmed
	if (grown >= trimStep || -grown >= trimStep) && now.Sub(t.since) >= trimQuiet {
		t.trimmed = connections
		debug.FreeOSMemory()
	}
}

// spawn runs f in a goroutine that Shutdown waits for. It returns false if the hub is
// closing.
func (h *Hub) spawn(f func()) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closing {
		return false
	}
	h.wg.Go(f)
	return true
}

func (h *Hub) closed() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.leaving
}

// all lists the connections. h.mu must be held.
func (h *Hub) all() []*conn {
	all := make([]*conn, 0, len(h.conns))
	for c := range h.conns {
		all = append(all, c)
	}
	return all
}

func (h *Hub) forget(c *conn) {
	h.mu.Lock()
	_, known := h.conns[c]
	delete(h.conns, c)
	if known && h.closing && len(h.conns) == 0 {
		close(h.gone)
	}
	h.mu.Unlock()
}

func (h *Hub) organization(id string) *tenantHub {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.organizations[id]
}

// enter returns the tenantHub of an organization for one more subscription. Each
// enter has to be followed by one leave.
func (h *Hub) enter(id string) *tenantHub {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.organizations[id]
	if o == nil {
		o = newTenantHub(h, id)
		h.organizations[id] = o
		o.mirror, o.release = h.opts.Mirrors.Hold(id)
	}
	o.users++
	h.subscriptions.Add(1)
	return o
}

func (h *Hub) leave(o *tenantHub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subscriptions.Add(-1)
	if o.users--; o.users == 0 {
		delete(h.organizations, o.id)
		o.release()
	}
}
