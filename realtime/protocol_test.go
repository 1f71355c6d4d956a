package realtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/centrifugal/centrifuge-go"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/realtime"
)

// small makes a world on an in-process Redis, for what has nothing to do with it.
func small(t *testing.T) *world {
	t.Helper()
	return newWorld(t, miniredis.RunT(t).Addr())
}

func TestCloseCodes(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	for name, test := range map[string]struct {
		frame  string
		code   int
		reason string
	}{
		"bad token":            {`{"id":1,"connect":{"token":"bad"}}`, 3500, "bad token"},
		"no token":             {`{"id":1,"connect":{}}`, 3500, "bad token"},
		"not JSON":             {`hello`, 3502, "bad request"},
		"half a command":       {`{"id":1,"connect":{"token":"a"`, 3502, "bad request"},
		"empty frame":          {``, 3502, "bad request"},
		"another before":       {`{"id":1,"subscribe":{"channel":"booking:b1"}}`, 3502, "bad request"},
		"pong before":          {`{}`, 3502, "bad request"},
		"connect without id":   {`{"connect":{"token":"a"}}`, 3502, "bad request"},
		"connect twice":        {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"id":2,"connect":{"token":"a"}}`, 3502, "bad request"},
		"command without id":   {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"subscribe":{"channel":"booking:b1"}}`, 3502, "bad request"},
		"command without verb": {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"id":2}`, 3502, "bad request"},
		"message":              {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"send":{"data":{}}}`, 3508, "not available"},
		"refresh to another":   {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"id":2,"refresh":{"token":"b"}}`, 3500, "bad token"},
		"refresh with bad":     {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"id":2,"refresh":{"token":"bad"}}`, 3500, "bad token"},
		"refresh with expired": {`{"id":1,"connect":{"token":"a"}}` + "\n" + `{"id":2,"refresh":{"token":"expired"}}`, 3005, "connection expired"},
		"too long":             {strings.Repeat(" ", 33<<10), 1009, "read limited at 32769 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, n.url, nil)
			c.send(test.frame)
			code, reason := c.closed()
			assert.Equal(t, test.code, code)
			assert.Equal(t, test.reason, reason)
		})
	}
	t.Run("not Protobuf", func(t *testing.T) {
		c := dial(t, n.url+"?format=protobuf", nil)
		require.NoError(t, c.ws.Write(t.Context(), websocket.MessageBinary, []byte{200, 1, 2, 3}))
		code, _ := c.closed()
		assert.Equal(t, 3502, code)
	})
}

func TestEveryCommandGetsItsAnswer(t *testing.T) {
	w := small(t)
	w.join("r1")
	n := w.node(realtime.Options{})
	c := dial(t, n.url, nil)
	connected := c.connect("patient")
	assert.Regexp(t, `^{"id":1,"connect":{"client":"[0-9a-v]{20}","version":"test","ping":25,"pong":true}}$`, connected)

	for command, answer := range map[string]string{
		`{"id":2,"publish":{"channel":"booking:b1","data":{}}}`: `{"id":2,"error":{"code":108,"message":"not available"}}`,
		`{"id":2,"history":{"channel":"booking:b1"}}`:           `{"id":2,"error":{"code":108,"message":"not available"}}`,
		`{"id":2,"presence":{"channel":"booking:b1"}}`:          `{"id":2,"error":{"code":108,"message":"not available"}}`,
		`{"id":2,"rpc":{"method":"x"}}`:                         `{"id":2,"error":{"code":108,"message":"not available"}}`,
		`{"id":2,"subscribe":{"channel":"booking:none"}}`:       `{"id":2,"error":{"code":102,"message":"unknown channel"}}`,
		`{"id":2,"subscribe":{"channel":"bookings"}}`:           `{"id":2,"error":{"code":102,"message":"unknown channel"}}`,
		`{"id":2,"subscribe":{"channel":"news:b1"}}`:            `{"id":2,"error":{"code":102,"message":"unknown channel"}}`,
		`{"id":2,"subscribe":{"channel":"booking:\"},{"}}`:      `{"id":2,"error":{"code":102,"message":"unknown channel"}}`,
		`{"id":2,"unsubscribe":{"channel":"booking:none"}}`:     `{"id":2,"unsubscribe":{}}`,
		`{"id":2,"ping":{}}`:                                    `{"id":2,"ping":{}}`,
		`{"id":2,"refresh":{"token":"patient"}}`:                `{"id":2,"refresh":{"client":"` + clientOf(t, connected) + `","version":"test"}}`,
		`{"id":2,"refresh":{"token":"down"}}`:                   `{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`,
	} {
		c.send(command)
		assert.Equal(t, answer, c.receive(), command)
	}

	c.send(`{"id":3,"subscribe":{"channel":"booking:b1","recover":true,"epoch":"old","offset":9}}`, `{"id":4,"subscribe":{"channel":"booking:b1"}}`)
	frames := c.receive()
	for strings.Count(frames, "\n") < 1 {
		frames += "\n" + c.receive()
	}
	subscribed, again, _ := strings.Cut(frames, "\n")
	var reply struct {
		Subscribe struct {
			Data                                              news
			Recoverable, Positioned, Recovered, WasRecovering bool
			Was                                               bool `json:"was_recovering"`
			Epoch                                             string
			Offset                                            uint64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(subscribed), &reply))
	assert.Equal(t, 1, reply.Subscribe.Data.Booking.QueuePosition)
	assert.NotEmpty(t, reply.Subscribe.Epoch)
	assert.NotZero(t, reply.Subscribe.Offset)
	assert.True(t, reply.Subscribe.Recoverable && reply.Subscribe.Positioned && reply.Subscribe.Was && !reply.Subscribe.Recovered)
	assert.JSONEq(t, `{"id":4,"error":{"code":105,"message":"already subscribed"}}`, again)
}

func clientOf(t *testing.T, connected string) string {
	t.Helper()
	var reply struct{ Connect struct{ Client string } }
	require.NoError(t, json.Unmarshal([]byte(connected), &reply))
	return reply.Connect.Client
}

func TestConnectionHoldsSoManySubscriptions(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	c := dial(t, n.url, nil)
	c.connect("patient")
	for i := range 101 {
		id := w.join("r1")
		c.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"booking:%s"}}`, i+2, id))
		answer := c.receive()
		assert.Equal(t, i == 100, strings.Contains(answer, `"code":106`), "subscription %d: %s", i, answer)
	}
	assert.Equal(t, int64(100), n.hub.Stats().Subscriptions)
	c.send(`{"id":200,"unsubscribe":{"channel":"booking:b1"}}`)
	assert.JSONEq(t, `{"id":200,"unsubscribe":{}}`, c.receive())
	c.send(`{"id":201,"subscribe":{"channel":"booking:b101"}}`)
	assert.Contains(t, c.receive(), `"SNAPSHOT"`)
}

func TestStrangersMayNotWatch(t *testing.T) {
	w := small(t)
	id := w.join("r1")
	n := w.node(realtime.Options{})
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "stranger"})
	assert.EqualValues(t, 103, p.refused("booking:"+id))
	assert.EqualValues(t, 102, p.refused("display:none"))

	w.allow("elsewhere", realtime.Client{OrganizationID: "org2", UserID: "x"})
	other := newPhone(t, n.url, false, centrifuge.Config{Token: "elsewhere"})
	assert.EqualValues(t, 103, other.refused("booking:"+id))

	account := newPhone(t, n.url, false, centrifuge.Config{Token: "account"})
	l := account.watch("booking:" + id)
	assert.Equal(t, 1, l.next().Booking.QueuePosition)
	w.do(models.ActionCancel, id)
	assert.Equal(t, "MY_BOOKING_CANCELED", l.next().Type)
}

func TestTokenInHeader(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	newPhone(t, n.url, true, centrifuge.Config{Header: http.Header{"Authorization": {"Bearer patient"}}})
	bad := newPhone(t, n.url, true, centrifuge.Config{Header: http.Header{"Authorization": {"Bearer bad"}}})
	assert.Equal(t, "bad token", receive(t, bad.disconnects))
}

func TestExpiredTokenIsRefreshedOnConnect(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	tokens := make(chan string, 2)
	tokens <- "expired"
	tokens <- "patient"
	p := newPhone(t, n.url, false, centrifuge.Config{GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) { return <-tokens, nil }})
	receive(t, p.connects)
}

func TestLibraryRefreshesTokenBeforeItEnds(t *testing.T) {
	w := small(t)
	id := w.join("r1")
	n := w.node(realtime.Options{})
	w.allow("short", realtime.Client{OrganizationID: organization, UserID: "patient", ExpiresAt: time.Now().Add(time.Second)})
	w.allow("long", realtime.Client{OrganizationID: organization, UserID: "patient", ExpiresAt: time.Now().Add(time.Hour)})
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "short", GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
		return "long", nil
	}})
	receive(t, p.connects)
	for token := range w.tokens {
		if token == "long" {
			break
		}
	}
	// The answer to this comes after that to the refresh.
	assert.Equal(t, "SNAPSHOT", p.watch("booking:"+id).next().Type)
	assert.Empty(t, p.connects, "connected once")
}

func TestRefreshedTokenCounts(t *testing.T) {
	w := small(t)
	var ahead atomic.Int64
	n := w.node(realtime.Options{PingInterval: 50 * time.Millisecond, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	w.allow("short", realtime.Client{OrganizationID: organization, UserID: "patient", ExpiresAt: time.Now().Add(time.Minute)})
	w.allow("long", realtime.Client{OrganizationID: organization, UserID: "patient", ExpiresAt: time.Now().Add(time.Hour)})
	c := dial(t, n.url, nil)
	assert.Contains(t, c.connect("short"), `"expires":true,"ttl":60`)
	c.send(`{"id":2,"refresh":{"token":"long"}}`)
	answer := c.receive()
	for answer == "{}" { // a ping came first
		answer = c.receive()
	}
	assert.Contains(t, answer, `"expires":true,"ttl":3600`)
	ahead.Store(int64(2 * time.Minute))
	assert.Equal(t, "{}", c.receive(), "a ping, though the first token has ended")
	c.send("{}")
	ahead.Store(int64(2 * time.Hour))
	code, _ := c.closed()
	assert.Equal(t, 3005, code)
}

func TestTokenThatIsNotRefreshedEnds(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{RefreshGrace: 20 * time.Millisecond})
	c := dial(t, n.url, nil)
	w.allow("short", realtime.Client{OrganizationID: organization, UserID: "patient", ExpiresAt: time.Now().Add(50 * time.Millisecond)})
	assert.Contains(t, c.connect("short"), `"expires":true,"ttl":1`)
	code, reason := c.closed()
	assert.Equal(t, "3005 connection expired", fmt.Sprint(code, " ", reason))
}

func TestAClientThatAnswersNoPingIsClosed(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{PingInterval: 50 * time.Millisecond, PongTimeout: time.Second})
	for _, query := range []string{"", "?format=protobuf"} {
		silent := dial(t, n.url+query, nil)
		hello, ping := `{"id":1,"connect":{"token":"a"}}`, "{}"
		if query != "" {
			hello, ping = "\x07\x08\x01\x22\x03\x0a\x01a", "\x00"
		}
		silent.send(hello)
		silent.receive()
		assert.Equal(t, ping, silent.receive())
		silent.send(ping)
		assert.Equal(t, ping, silent.receive())
		code, reason := silent.closed()
		assert.Equal(t, "3012 no pong", fmt.Sprint(code, " ", reason))
	}
	mute := w.node(realtime.Options{ConnectTimeout: 50 * time.Millisecond})
	code, reason := dial(t, mute.url, nil).closed()
	assert.Equal(t, "3002 no connect command", fmt.Sprint(code, " ", reason))
}

func TestOnlyAllowedOriginsConnect(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{AllowedOrigins: []string{"https://clinic.example"}, PublicURL: "https://live.example/x"})
	for origin, status := range map[string]int{
		n.server.URL:               http.StatusSwitchingProtocols,
		"":                         http.StatusSwitchingProtocols,
		"https://clinic.example":   http.StatusSwitchingProtocols,
		"https://live.example":     http.StatusSwitchingProtocols,
		"http://clinic.example":    http.StatusForbidden,
		"https://evil.example":     http.StatusForbidden,
		"https://clinic.example.x": http.StatusForbidden,
		"null":                     http.StatusForbidden,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		assert.Equal(t, status, statusOf(t, n.url, header), origin)
	}
}

func TestOriginsOfAnOrganization(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	from := func(origin string) *wire {
		return dial(t, n.url, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
	}
	assert.Contains(t, from("https://widget.example").connect("patient"), `"connect"`)
	for origin, token := range map[string]string{"https://other.example": "patient", "https://widget.example": "account"} {
		stranger := from(origin)
		stranger.send(`{"id":1,"connect":{"token":"` + token + `"}}`)
		code, reason := stranger.closed()
		assert.Equal(t, "3503 origin not allowed", fmt.Sprint(code, " ", reason))
	}
}

// statusOf returns how a handshake is answered.
func statusOf(t *testing.T, url string, header http.Header) int {
	t.Helper()
	ws, response, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		require.NoError(t, ws.CloseNow())
	}
	if response.Body != nil {
		require.NoError(t, response.Body.Close())
	}
	return response.StatusCode
}

// lateWriter writes the header only when asked to or when there is a body, as
// the response writers of some frameworks do.
type lateWriter struct {
	http.ResponseWriter
	status int
}

func (l *lateWriter) WriteHeader(status int) { l.status = status }

func (l *lateWriter) WriteHeaderNow() { l.ResponseWriter.WriteHeader(l.status) }

func (l *lateWriter) Unwrap() http.ResponseWriter { return l.ResponseWriter }

func TestAFrameworkThatDelaysHeadersCanUpgrade(t *testing.T) {
	w := small(t)
	id := w.join("r1")
	n := w.node(realtime.Options{})
	n.put(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { n.hub.ServeHTTP(&lateWriter{ResponseWriter: rw}, r) }))
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "patient"})
	assert.Equal(t, 1, p.watch("booking:"+id).next().Booking.QueuePosition)
}

func TestARevokedCredentialClosesItsConnections(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	fired := newPhone(t, n.url, false, centrifuge.Config{Token: "fired"})
	kept := newPhone(t, n.url, false, centrifuge.Config{Token: "kept"})
	receive(t, fired.connects)
	receive(t, kept.connects)
	n.hub.Revoke("fired")
	assert.Equal(t, "revoked", receive(t, fired.disconnects))
	assert.Equal(t, centrifuge.StateConnected, kept.State())
	n.hub.Revoke(organization)
	assert.Equal(t, "revoked", receive(t, kept.disconnects))
}

// TestClientsMoveToAnotherNodeOnShutdown moves clients from a node that shuts down to another one.
func TestClientsMoveToAnotherNodeOnShutdown(t *testing.T) {
	for name, start := range backends {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, start(t))
			old, young := w.node(realtime.Options{}), w.node(realtime.Options{})
			first, second := w.join("r1"), w.join("r1")
			// Both nodes answer at one address, as behind a balancer.
			p := newPhone(t, old.url, true, centrifuge.Config{Token: "patient"})
			l := p.watch("booking:" + second)
			assert.Equal(t, 2, l.next().Booking.QueuePosition)

			old.put(young.hub)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			require.NoError(t, old.hub.Shutdown(ctx))
			w.do(models.ActionAssign, first, "r1")
			again := l.next()
			assert.Equal(t, "SNAPSHOT", again.Type)
			assert.True(t, again.recovering, "the library says where it was")
			if again.Booking.QueuePosition != 1 {
				assert.Equal(t, 1, l.next().QueuePosition)
			}
			assert.Empty(t, p.disconnects)
			assert.Zero(t, old.hub.Stats().Connections)

			old.put(old.hub)
			assert.Equal(t, http.StatusServiceUnavailable, statusOf(t, old.url, nil))
		})
	}
}
