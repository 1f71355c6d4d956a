package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// dropTime is how soon a credential that was ended opens nothing any more, on
// every node (issue "Access": 5 s).
const dropTime = 5 * time.Second

// attach connects a live client and returns what it is told when it is
// disconnected for good.
func (h *house) attach(token string) <-chan centrifuge.DisconnectedEvent {
	h.t.Helper()
	return h.connect("", centrifuge.Config{Token: token})
}

// connect is attach with what a client may say besides.
func (h *house) connect(query string, as centrifuge.Config) <-chan centrifuge.DisconnectedEvent {
	h.t.Helper()
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket"+query, as)
	h.t.Cleanup(client.Close)
	connected, gone := make(chan struct{}, 1), make(chan centrifuge.DisconnectedEvent, 1)
	client.OnConnected(func(centrifuge.ConnectedEvent) { connected <- struct{}{} })
	client.OnDisconnected(func(e centrifuge.DisconnectedEvent) { gone <- e })
	require.NoError(h.t, client.Connect())
	select {
	case <-connected:
	case e := <-gone:
		h.t.Fatalf("a live connection was refused: %d %s", e.Code, e.Reason)
	case <-time.After(patience):
		h.t.Fatal("a live connection got no answer")
	}
	return gone
}

// TestEndedCredentials ends credentials through one node while another serves
// who holds them: there too they open nothing any more, and the live
// connections that came with them are closed. Nobody else's are.
func TestEndedCredentials(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		far := h // the embedded database belongs to one node
		if h.server != nil {
			far = h.beside(nil)
		}
		c := h.newClinic()
		session, stays := c.signIn("+966500000061", false), c.signIn("+966500000061", false)
		spare := c.staff(http.MethodPost, "/management/apiKeys", object{"name": "spare"}).ok()
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Door"}).ok()
		kept := far.attach(stays.str("accessToken"))
		for _, ended := range []struct {
			what, token, path string
			end               func() answer
		}{
			{"a session", session.str("accessToken"), "/customer/bookings", func() answer {
				return h.send(request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": session.str("refreshToken")}})
			}},
			{"a key", spare.str("result.key"), "/management/bookings", func() answer {
				return c.staff(http.MethodDelete, "/management/apiKeys", object{"name": "spare"})
			}},
			{"a display", screen.str("result.token"), "", func() answer {
				return c.staff(http.MethodDelete, "/management/displays", object{"id": screen.str("result.id")})
			}},
		} {
			gone := far.attach(ended.token)
			look := func(of *house) answer {
				return of.send(request{method: http.MethodGet, path: ended.path, token: ended.token})
			}
			if ended.path != "" {
				look(far).ok() // and is remembered, where anything is
			}
			ended.end().ok()
			if ended.path != "" {
				look(h).refused(http.StatusUnauthorized, models.CodeUnauthenticated) // here at once
				assert.Eventually(t, func() bool { return look(far).status == http.StatusUnauthorized }, dropTime, 20*time.Millisecond, ended.what)
			}
			select {
			case e := <-gone:
				assert.EqualValues(t, 3501, e.Code, ended.what)
			case <-time.After(dropTime):
				t.Errorf("the live connection of %s goes on", ended.what)
			}
		}
		assert.Empty(t, kept, "another session of the same person")
		far.send(request{method: http.MethodGet, path: "/customer/bookings", token: stays.str("accessToken")}).ok()
	})
}
