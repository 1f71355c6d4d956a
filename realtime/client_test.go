package realtime_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// news is one thing a client was told: a snapshot or a publication.
type news struct {
	Type                 string `json:"type"`
	Via                  string `json:"via"`
	BookingID            string `json:"bookingId"`
	BookingStatus        string `json:"bookingStatus"`
	Stage                string `json:"stage"`
	ResourceID           string `json:"resourceId"`
	ResourceName         string `json:"resourceName"`
	Ticket               string `json:"ticket"`
	RecallCount          int    `json:"recallCount"`
	QueuePosition        int    `json:"queuePosition"`
	EstimatedWaitMinutes int    `json:"estimatedWaitMinutes"`
	// Waiting is a number, but in the snapshot of a queue a list.
	Waiting    json.RawMessage `json:"waiting"`
	Total      int             `json:"total"`
	Next       []string        `json:"next"`
	NowServing []shownCall     `json:"nowServing"`
	LastCalled []shownCall     `json:"lastCalled"`
	Call       *shownCall      `json:"call"`
	Booking    struct {
		Status        string `json:"status"`
		Stage         string `json:"stage"`
		QueuePosition int    `json:"queuePosition"`
		Version       int64  `json:"version"`
	} `json:"booking"`

	recovering bool
	raw        string
}

type shownCall struct {
	Ticket       string            `json:"ticket"`
	ResourceID   string            `json:"resourceId"`
	ResourceName string            `json:"resourceName"`
	Translations map[string]string `json:"resourceName_translations"`
	CalledAt     time.Time         `json:"calledAt"`
	Stage        string            `json:"stage"`
	RecallCount  int               `json:"recallCount"`
}

// listener collects what one channel of a client is told.
type listener struct {
	t  *testing.T
	mu sync.Mutex
	// all is everything heard; read is how much of it the test has taken.
	all   []news
	read  int
	heard chan struct{}
}

func newListener(t *testing.T) *listener { return &listener{t: t, heard: make(chan struct{}, 1)} }

func (l *listener) hear(data []byte, recovering bool) {
	n := news{recovering: recovering, raw: string(data)}
	if err := json.Unmarshal(data, &n); err != nil {
		l.t.Errorf("unreadable %s: %v", data, err)
	}
	l.mu.Lock()
	l.all = append(l.all, n)
	l.mu.Unlock()
	select {
	case l.heard <- struct{}{}:
	default:
	}
}

// next returns what is told next.
func (l *listener) next() news {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		if l.read < len(l.all) {
			n := l.all[l.read]
			l.read++
			l.mu.Unlock()
			return n
		}
		l.mu.Unlock()
		select {
		case <-l.heard:
		case <-deadline:
			require.FailNow(l.t, "nothing more was told", "so far: %v", l.types())
		}
	}
}

// until skips to what fulfills a condition.
func (l *listener) until(what func(news) bool) news {
	l.t.Helper()
	for {
		if n := l.next(); what(n) {
			return n
		}
	}
}

func (l *listener) untilType(typ string) news {
	l.t.Helper()
	return l.until(func(n news) bool { return n.Type == typ })
}

func (l *listener) told() []news {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]news(nil), l.all...)
}

func (l *listener) types() (types []string) {
	for _, n := range l.told() {
		types = append(types, n.raw)
	}
	return types
}

func (l *listener) count(typ string) (n int) {
	for _, told := range l.told() {
		if told.Type == typ {
			n++
		}
	}
	return n
}

// phone is a client that uses the published library.
type phone struct {
	t *testing.T
	*centrifuge.Client
	connects, disconnects chan string
}

func newPhone(t *testing.T, url string, protobuf bool, config centrifuge.Config) *phone {
	t.Helper()
	config.MinReconnectDelay, config.MaxReconnectDelay = 10*time.Millisecond, 100*time.Millisecond
	newClient := centrifuge.NewJsonClient
	if protobuf {
		newClient = centrifuge.NewProtobufClient
	}
	p := &phone{t: t, Client: newClient(url, config), connects: newSignals(), disconnects: newSignals()}
	p.OnConnected(func(centrifuge.ConnectedEvent) { p.connects <- "connected" })
	p.OnDisconnected(func(e centrifuge.DisconnectedEvent) { p.disconnects <- e.Reason })
	require.NoError(t, p.Connect())
	t.Cleanup(p.Close)
	return p
}

func newSignals() chan string { return make(chan string, 64) }

// watch subscribes to a channel.
func (p *phone) watch(channel string) *listener {
	p.t.Helper()
	l, sub := newListener(p.t), p.subscription(channel)
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) { l.hear(e.Data, e.WasRecovering) })
	sub.OnPublication(func(e centrifuge.PublicationEvent) { l.hear(e.Data, false) })
	require.NoError(p.t, sub.Subscribe())
	return l
}

func (p *phone) subscription(channel string) *centrifuge.Subscription {
	p.t.Helper()
	sub, err := p.NewSubscription(channel)
	require.NoError(p.t, err)
	return sub
}

// refused subscribes to a channel and returns why that failed.
func (p *phone) refused(channel string) uint32 {
	p.t.Helper()
	codes, sub := make(chan uint32, 1), p.subscription(channel)
	sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { codes <- e.Code })
	require.NoError(p.t, sub.Subscribe())
	return receive(p.t, codes)
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "waited in vain")
		panic("unreachable")
	}
}

// wire is a client without any library for the protocol.
type wire struct {
	t  *testing.T
	ws *websocket.Conn
}

func dial(t *testing.T, url string, o *websocket.DialOptions) *wire {
	t.Helper()
	ws, response, err := websocket.Dial(t.Context(), url, o)
	require.NoError(t, err)
	if response.Body != nil {
		require.NoError(t, response.Body.Close())
	}
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { ws.CloseNow() }) //nolint:errcheck // it may be closed already
	return &wire{t, ws}
}

func (w *wire) send(lines ...string) {
	w.t.Helper()
	require.NoError(w.t, w.ws.Write(w.t.Context(), websocket.MessageText, []byte(strings.Join(lines, "\n"))))
}

// connect introduces the client with a token.
func (w *wire) connect(token string) string {
	w.t.Helper()
	w.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
	return w.receive()
}

// receive returns the next frame.
func (w *wire) receive() string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	_, data, err := w.ws.Read(ctx)
	require.NoError(w.t, err)
	return string(data)
}

// closed returns the code the connection is closed with.
func (w *wire) closed() (code int, reason string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for {
		if _, _, err := w.ws.Read(ctx); err != nil {
			var closed websocket.CloseError
			require.ErrorAs(w.t, err, &closed)
			return int(closed.Code), closed.Reason
		}
	}
}
