package nodetest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/models"
)

// The operations of an organization's keys and of account keys.
const (
	KeysPath        = "/management/apiKeys"
	AccountKeysPath = "/management/account/apiKeys"
)

// Keyed is a request that every key may make and that reads nothing.
func Keyed(key string) Request {
	return Request{Method: http.MethodGet, Path: "/management/resources/mine", Token: key}
}

// OtherChecksum returns a key whose checksum is wrong.
func OtherChecksum(key string) string {
	last := "0"
	if strings.HasSuffix(key, last) {
		last = "1"
	}
	return key[:len(key)-1] + last
}

// MembersPath is the operation that lists and makes members.
const MembersPath = "/management/members"

// Hire makes a member over HTTP.
func Hire(c *Clinic, more Object) Response {
	c.T.Helper()
	return c.Staff(http.MethodPost, MembersPath, more)
}

// DropTime is how soon every node refuses a credential that was ended.
const DropTime = 5 * time.Second

// Attach connects a live client and returns its final disconnection.
func Attach(h *Node, token string) <-chan centrifuge.DisconnectedEvent {
	h.T.Helper()
	return Connect(h, "", centrifuge.Config{Token: token})
}

// Connect is Attach with a query and with options of the client.
func Connect(h *Node, query string, as centrifuge.Config) <-chan centrifuge.DisconnectedEvent {
	h.T.Helper()
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket"+query, as)
	h.T.Cleanup(client.Close)
	connected, gone := make(chan struct{}, 1), make(chan centrifuge.DisconnectedEvent, 1)
	client.OnConnected(func(centrifuge.ConnectedEvent) { connected <- struct{}{} })
	client.OnDisconnected(func(e centrifuge.DisconnectedEvent) { gone <- e })
	require.NoError(h.T, client.Connect())
	select {
	case <-connected:
	case e := <-gone:
		h.T.Fatalf("a live connection was refused: %d %s", e.Code, e.Reason)
	case <-time.After(Patience):
		h.T.Fatal("a live connection got no answer")
	}
	return gone
}

// Succeeded counts the answers of 200; all others must have been refused with a
// code.
func Succeeded(t *testing.T, answers []Response, status int, code models.Code) int {
	t.Helper()
	n := 0
	for _, a := range answers {
		if a.Status == http.StatusOK {
			n++
			continue
		}
		a.Refused(status, code)
	}
	return n
}

// BehindProxy makes a node trust X-Forwarded-For from this machine.
func BehindProxy(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} }

// From returns a request with another client address. It needs BehindProxy.
func From(address string, r Request) Request {
	r.Header = maps.Clone(r.Header)
	if r.Header == nil {
		r.Header = map[string]string{}
	}
	r.Header["X-Forwarded-For"] = address
	return r
}

// ConnectWith opens a live connection and returns the close code or the error code it
// was refused with, or 0.
func ConnectWith(h *Node, token string, header http.Header, query string) int {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(h.T.Context(), Patience)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket"+query, &websocket.DialOptions{HTTPHeader: header})
	require.NoError(h.T, err)
	if res.Body != nil {
		defer func() { assert.NoError(h.T, res.Body.Close()) }()
	}
	defer ws.CloseNow() //nolint:errcheck // it may be closed already
	connect, err := json.Marshal(Object{"id": 1, "connect": Object{"token": token}})
	require.NoError(h.T, err)
	require.NoError(h.T, ws.Write(ctx, websocket.MessageText, connect))
	_, frame, err := ws.Read(ctx)
	if err != nil {
		require.NotEqual(h.T, websocket.StatusCode(-1), websocket.CloseStatus(err), "%v", err)
		return int(websocket.CloseStatus(err))
	}
	var reply struct {
		Connect *struct{}
		Error   struct{ Code int }
	}
	require.NoError(h.T, json.Unmarshal(frame, &reply), "%s", frame)
	return reply.Error.Code
}

// AtOnce makes n requests at the same moment.
func AtOnce(h *Node, n int, of func(i int) Request) []Response {
	h.T.Helper()
	answers, errs := make([]Response, n), make([]error, n)
	gate := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-gate
			answers[i], errs[i] = h.Try(of(i))
		})
	}
	close(gate)
	all.Wait()
	for _, err := range errs {
		require.NoError(h.T, err)
	}
	return answers
}

// LimitedTo sets the requests a minute.
func LimitedTo(requests int) func(*node.Config) {
	return func(c *node.Config) { c.RateLimit = requests }
}

// Once makes a request with an idempotency key.
func Once(h *Node, key string, r Request) Response {
	h.T.Helper()
	r.Header = map[string]string{"Idempotency-Key": key}
	return h.Send(r)
}
