package handlers_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
)

// kindsOfAnswers are one request for each kind of answer there is.
func kindsOfAnswers(c *nodetest.Clinic) []nodetest.Request {
	c.Handlers.ServeNothing()
	requests := []nodetest.Request{
		{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: nodetest.Object{}}, // a result
		{Method: http.MethodGet, Path: "/management/types", Token: "guess"},                        // problems …
		{Method: http.MethodGet, Path: "/management/types/none", Token: c.Key},
		{Method: http.MethodPost, Path: "/management/types", Token: c.Key, Body: "{"},
		{Method: http.MethodPost, Path: "/management/types", Token: c.Key, Body: strings.Repeat(" ", 2<<20)},
		{Method: http.MethodGet, Path: "/nowhere"},
		{Method: http.MethodDelete, Path: "/availability/types"},
		{Method: http.MethodGet, Path: "/management/types?a=%00"},
		{Method: http.MethodGet, Path: "/nothing/panic"},
		{Method: http.MethodGet, Path: "/operator/jobs/"},
		{Method: http.MethodGet, Path: "/connection/websocket"},
		{Method: http.MethodOptions, Path: "/customer/profile", Header: map[string]string{"Origin": nodetest.Friend, "Access-Control-Request-Method": "GET"}},
		{Method: http.MethodGet, Path: "/static/none"}, {Method: http.MethodGet, Path: "/static/base.css"},
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/docs", "/console", "/setup", "/join/" + c.ID, "/ticket/x", "/display/x"} {
		requests = append(requests, nodetest.Request{Method: http.MethodGet, Path: path})
	}
	return requests
}

func TestEveryAnswerHasSecurityHeaders(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Embedded).NewClinic()
	for _, r := range kindsOfAnswers(c) {
		a := c.Send(r)
		for name, value := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000", // publicURL is https
		} {
			assert.Equal(t, []string{value}, a.Header.Values(name), "%s: %s", a.Of, name)
		}
		assert.Contains(t, a.Header.Get("Permissions-Policy"), "camera=()", a.Of)
		assert.Contains(t, strings.Join(a.Header.Values("Vary"), ", "), "Origin", a.Of)
		policy := a.Header.Values("Content-Security-Policy")
		require.Len(t, policy, 1, a.Of)
		assert.True(t, strings.HasPrefix(policy[0], "default-src 'none'; "), a.Of)
		assert.Contains(t, policy[0], "frame-ancestors 'none'", a.Of)
		assert.NotContains(t, policy[0], "unsafe", a.Of)
		assert.Empty(t, a.Header.Get("Access-Control-Allow-Credentials"), a.Of)
	}
}

func TestHSTSIsSentOnlyOverTLS(t *testing.T) {
	t.Parallel()
	plain := func(c *node.Config) { c.PublicURL = "http://clinic.example" }
	hsts := func(h *nodetest.Node, proto string) string {
		return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/healthz", Header: map[string]string{"X-Forwarded-Proto": proto}}).Header.Get("Strict-Transport-Security")
	}
	h := nodetest.Start(t, nodetest.Embedded, plain)
	assert.Empty(t, hsts(h, "https"), "anybody may say so")
	h = nodetest.Start(t, nodetest.Embedded, plain, func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.1", "::1"} })
	assert.NotEmpty(t, hsts(h, "https"))
	assert.Empty(t, hsts(h, "http"))
}

const (
	widget  = "https://widget.example"
	another = "https://another.example"
	hybrid  = "capacitor://localhost" // of a hybrid app
)

// newClinicOf makes an organization whose pages are of some origins.
func newClinicOf(h *nodetest.Node, origins ...string) *nodetest.Clinic {
	h.T.Helper()
	c := &nodetest.Clinic{Node: h}
	c.ID = h.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{
		"name": "Al Noor", "timezone": "Asia/Riyadh", "allowedOrigins": origins,
	}}).OK().Str("result.id")
	c.Key = h.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/apiKeys", Token: nodetest.BootstrapKey, App: c.ID, Body: nodetest.Object{"name": "desk"}}).OK().Str("result.key")
	return c
}

func TestPagesCallOnlyForOrganizationsThatAllowTheirOrigin(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		mine, other := newClinicOf(h, widget, hybrid), newClinicOf(h, another)
		shared := func(r nodetest.Request, origin string) string {
			t.Helper()
			r.Header = maps.Clone(r.Header)
			if r.Header == nil {
				r.Header = map[string]string{}
			}
			r.Header["Origin"] = origin
			a := h.Send(r)
			assert.Empty(t, a.Header.Get("Access-Control-Allow-Credentials"))
			allowed := a.Header.Get("Access-Control-Allow-Origin")
			if allowed != "" {
				for _, name := range []string{"X-Request-Id", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Idempotency-Replayed"} {
					if a.Status != http.StatusNoContent {
						assert.Contains(t, a.Header.Get("Access-Control-Expose-Headers"), name)
					}
				}
			}
			return allowed
		}
		public := func(app string) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: app, Body: nodetest.Object{}}
		}
		with := func(token string) nodetest.Request {
			return nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: token}
		}
		assert.Equal(t, widget, shared(public(mine.ID), widget))
		assert.Equal(t, widget, shared(with(mine.Key), widget))
		assert.Equal(t, hybrid, shared(with(mine.Key), hybrid))
		assert.Empty(t, shared(public(other.ID), hybrid))
		assert.Empty(t, shared(public(other.ID), widget))
		assert.Empty(t, shared(with(other.Key), widget))
		assert.Empty(t, shared(public(mine.ID), "https://stranger.example"))
		assert.Empty(t, shared(public(mine.ID), "null"))
		assert.Equal(t, nodetest.Friend, shared(public(mine.ID), nodetest.Friend), "the setting is for all")

		// A page has to see that its token is over, whose it was or not.
		assert.Equal(t, widget, shared(with("guess"), widget))
		assert.Empty(t, shared(with("guess"), "https://stranger.example"))

		preflight := nodetest.Request{Method: http.MethodOptions, Path: "/customer/profile", Header: map[string]string{"Access-Control-Request-Method": "PUT"}}
		for _, origin := range []string{widget, another, nodetest.Friend, hybrid} {
			assert.Equal(t, origin, shared(preflight, origin))
		}
		for _, origin := range []string{"https://stranger.example", "null", "http://widget.example", widget + ":8443", strings.Repeat("x", 5000)} {
			assert.Empty(t, shared(preflight, origin))
		}

		// Live connections begin like a preflight and then belong to somebody.
		live := func(origin, token string) (status, closed int) {
			ws, res, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket",
				&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
			if res.Body != nil {
				defer res.Body.Close() //nolint:errcheck // there is nothing in it
			}
			if err != nil {
				return res.StatusCode, 0
			}
			defer ws.CloseNow() //nolint:errcheck // the end of a test
			require.NoError(t, ws.Write(t.Context(), websocket.MessageText, []byte(`{"id":1,"connect":{"token":"`+token+`"}}`)))
			_, _, err = ws.Read(t.Context())
			return res.StatusCode, max(0, int(websocket.CloseStatus(err)))
		}
		for _, try := range []struct {
			origin, token  string
			status, closed int
		}{
			{widget, mine.Key, http.StatusSwitchingProtocols, 0},
			{nodetest.Friend, mine.Key, http.StatusSwitchingProtocols, 0},
			{hybrid, mine.Key, http.StatusSwitchingProtocols, 0},
			{hybrid, other.Key, http.StatusSwitchingProtocols, 3503},
			{"ionic://localhost", mine.Key, http.StatusForbidden, 0},
			{"null", mine.Key, http.StatusForbidden, 0},
			{"file://", mine.Key, http.StatusForbidden, 0},
			{widget, other.Key, http.StatusSwitchingProtocols, 3503},
			{widget, nodetest.BootstrapKey, http.StatusSwitchingProtocols, 3503},
			{"https://stranger.example", mine.Key, http.StatusForbidden, 0},
		} {
			status, closed := live(try.origin, try.token)
			assert.Equal(t, [2]int{try.status, try.closed}, [2]int{status, closed}, "%v", try)
		}
	})
}

func TestTheWidgetIsFramedByItsOwnPages(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		mine, other := newClinicOf(h, widget, "http://localhost:3000"), h.NewClinic()
		framers := func(path string) []string {
			a := h.Send(nodetest.Request{Method: http.MethodGet, Path: path}).OK()
			_, list, _ := strings.Cut(a.Header.Get("Content-Security-Policy"), "frame-ancestors ")
			assert.Equal(t, list == "'none'", a.Header.Get("X-Frame-Options") == "DENY", path)
			return slices.Sorted(slices.Values(strings.Fields(list)))
		}
		assert.Equal(t, []string{"http://localhost:3000", widget}, framers("/join/"+mine.ID))
		for _, path := range []string{"/join/" + other.ID, "/join/none", "/console", "/docs", "/setup", "/", "/ticket/" + mine.ID, "/display/" + mine.ID} {
			assert.Equal(t, []string{"'none'"}, framers(path), path)
		}
	})
}
