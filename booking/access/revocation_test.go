package access_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestEndedCredentials ends credentials through one node while another serves
// who holds them: there too they open nothing any more, and the live
// connections that came with them are closed. Nobody else's are.
func TestEndedCredentials(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		far := h // the embedded database belongs to one node
		if h.RedisServer != nil {
			far = h.Beside(nil)
		}
		c := h.NewClinic()
		session, stays := c.SignIn("+966500000061", false), c.SignIn("+966500000061", false)
		spare := c.Staff(http.MethodPost, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK()
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Door"}).OK()
		kept := nodetest.Attach(far, stays.Str("accessToken"))
		for _, ended := range []struct {
			what, token, path string
			end               func() nodetest.Response
		}{
			{"a session", session.Str("accessToken"), "/customer/bookings", func() nodetest.Response {
				return h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": session.Str("refreshToken")}})
			}},
			{"a key", spare.Str("result.key"), "/management/bookings", func() nodetest.Response {
				return c.Staff(http.MethodDelete, "/management/apiKeys", nodetest.Object{"name": "spare"})
			}},
			{"a display", screen.Str("result.token"), "", func() nodetest.Response {
				return c.Staff(http.MethodDelete, "/management/displays", nodetest.Object{"id": screen.Str("result.id")})
			}},
		} {
			gone := nodetest.Attach(far, ended.token)
			look := func(of *nodetest.Node) nodetest.Response {
				return of.Send(nodetest.Request{Method: http.MethodGet, Path: ended.path, Token: ended.token})
			}
			if ended.path != "" {
				look(far).OK() // and is remembered, where anything is
			}
			ended.end().OK()
			if ended.path != "" {
				look(h).Refused(http.StatusUnauthorized, models.CodeUnauthenticated) // here at once
				assert.Eventually(t, func() bool { return look(far).Status == http.StatusUnauthorized }, nodetest.DropTime, 20*time.Millisecond, ended.what)
			}
			select {
			case e := <-gone:
				assert.EqualValues(t, 3501, e.Code, ended.what)
			case <-time.After(nodetest.DropTime):
				t.Errorf("the live connection of %s goes on", ended.what)
			}
		}
		assert.Empty(t, kept, "another session of the same person")
		far.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: stays.Str("accessToken")}).OK()
	})
}
