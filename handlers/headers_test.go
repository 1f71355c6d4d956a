package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kindsOfAnswers are one request for each kind of answer there is.
func (c *clinic) kindsOfAnswers() []request {
	c.Handlers.ServeNothing()
	requests := []request{
		{method: http.MethodPost, path: "/availability/types", app: c.id, body: object{}}, // a result
		{method: http.MethodGet, path: "/management/types", token: "guess"},               // problems …
		{method: http.MethodGet, path: "/management/types/none", token: c.key},
		{method: http.MethodPost, path: "/management/types", token: c.key, body: "{"},
		{method: http.MethodPost, path: "/management/types", token: c.key, body: strings.Repeat(" ", 2<<20)},
		{method: http.MethodGet, path: "/nowhere"},
		{method: http.MethodDelete, path: "/availability/types"},
		{method: http.MethodGet, path: "/management/types?a=%00"},
		{method: http.MethodGet, path: "/nothing/panic"},
		{method: http.MethodGet, path: "/operator/jobs/"},
		{method: http.MethodGet, path: "/connection/websocket"},
		{method: http.MethodOptions, path: "/customer/profile", header: map[string]string{"Origin": friend, "Access-Control-Request-Method": "GET"}},
		{method: http.MethodGet, path: "/static/none"}, {method: http.MethodGet, path: "/static/base.css"},
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/docs", "/console", "/setup", "/join/" + c.id, "/ticket/x", "/display/x"} {
		requests = append(requests, request{method: http.MethodGet, path: path})
	}
	return requests
}

func TestEveryAnswerIsLockedDown(t *testing.T) {
	t.Parallel()
	c := newHouse(t, embedded).newClinic()
	for _, r := range c.kindsOfAnswers() {
		a := c.send(r)
		for name, value := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000", // publicURL is https
		} {
			assert.Equal(t, []string{value}, a.header.Values(name), "%s: %s", a.of, name)
		}
		assert.Contains(t, a.header.Get("Permissions-Policy"), "camera=()", a.of)
		assert.Contains(t, strings.Join(a.header.Values("Vary"), ", "), "Origin", a.of)
		policy := a.header.Values("Content-Security-Policy")
		require.Len(t, policy, 1, a.of)
		assert.True(t, strings.HasPrefix(policy[0], "default-src 'none'; "), a.of)
		assert.Contains(t, policy[0], "frame-ancestors 'none'", a.of)
		assert.NotContains(t, policy[0], "unsafe", a.of)
		assert.Empty(t, a.header.Get("Access-Control-Allow-Credentials"), a.of)
	}
}

func TestTLSIsAskedForWhereItIsSpoken(t *testing.T) {
	t.Parallel()
	plain := func(c *node.Config) { c.PublicURL = "http://clinic.example" }
	hsts := func(h *house, proto string) string {
		return h.send(request{method: http.MethodGet, path: "/healthz", header: map[string]string{"X-Forwarded-Proto": proto}}).header.Get("Strict-Transport-Security")
	}
	h := newHouse(t, embedded, plain)
	assert.Empty(t, hsts(h, "https"), "anybody may say so")
	h = newHouse(t, embedded, plain, func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.1", "::1"} })
	assert.NotEmpty(t, hsts(h, "https"))
	assert.Empty(t, hsts(h, "http"))
}

const (
	widget  = "https://widget.example"
	another = "https://another.example"
	hybrid  = "capacitor://localhost" // of a hybrid app
)

// newClinicOf makes an organization whose pages are of some origins.
func (h *house) newClinicOf(origins ...string) *clinic {
	h.t.Helper()
	c := &clinic{house: h}
	c.id = h.send(request{method: http.MethodPost, path: "/management/organizations", token: bootstrapKey, body: object{
		"name": "Al Noor", "timezone": "Asia/Riyadh", "allowedOrigins": origins,
	}}).ok().str("result.id")
	c.key = h.send(request{method: http.MethodPost, path: "/management/apiKeys", token: bootstrapKey, app: c.id, body: object{"name": "desk"}}).ok().str("result.key")
	return c
}

func TestPagesCallForTheOrganizationThatLetsThem(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		mine, other := h.newClinicOf(widget, hybrid), h.newClinicOf(another)
		shared := func(r request, origin string) string {
			t.Helper()
			r.header = maps.Clone(r.header)
			if r.header == nil {
				r.header = map[string]string{}
			}
			r.header["Origin"] = origin
			a := h.send(r)
			assert.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
			allowed := a.header.Get("Access-Control-Allow-Origin")
			if allowed != "" {
				for _, name := range []string{"X-Request-Id", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Idempotency-Replayed"} {
					if a.status != http.StatusNoContent {
						assert.Contains(t, a.header.Get("Access-Control-Expose-Headers"), name)
					}
				}
			}
			return allowed
		}
		public := func(app string) request {
			return request{method: http.MethodPost, path: "/availability/types", app: app, body: object{}}
		}
		with := func(token string) request {
			return request{method: http.MethodGet, path: "/management/types", token: token}
		}
		assert.Equal(t, widget, shared(public(mine.id), widget))
		assert.Equal(t, widget, shared(with(mine.key), widget))
		assert.Equal(t, hybrid, shared(with(mine.key), hybrid))
		assert.Empty(t, shared(public(other.id), hybrid))
		assert.Empty(t, shared(public(other.id), widget))
		assert.Empty(t, shared(with(other.key), widget))
		assert.Empty(t, shared(public(mine.id), "https://stranger.example"))
		assert.Empty(t, shared(public(mine.id), "null"))
		assert.Equal(t, friend, shared(public(mine.id), friend), "the setting is for all")

		// A page has to see that its token is over, whose it was or not.
		assert.Equal(t, widget, shared(with("guess"), widget))
		assert.Empty(t, shared(with("guess"), "https://stranger.example"))

		preflight := request{method: http.MethodOptions, path: "/customer/profile", header: map[string]string{"Access-Control-Request-Method": "PUT"}}
		for _, origin := range []string{widget, another, friend, hybrid} {
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
			{widget, mine.key, http.StatusSwitchingProtocols, 0},
			{friend, mine.key, http.StatusSwitchingProtocols, 0},
			{hybrid, mine.key, http.StatusSwitchingProtocols, 0},
			{hybrid, other.key, http.StatusSwitchingProtocols, 3503},
			{"ionic://localhost", mine.key, http.StatusForbidden, 0},
			{"null", mine.key, http.StatusForbidden, 0},
			{"file://", mine.key, http.StatusForbidden, 0},
			{widget, other.key, http.StatusSwitchingProtocols, 3503},
			{widget, bootstrapKey, http.StatusSwitchingProtocols, 3503},
			{"https://stranger.example", mine.key, http.StatusForbidden, 0},
		} {
			status, closed := live(try.origin, try.token)
			assert.Equal(t, [2]int{try.status, try.closed}, [2]int{status, closed}, "%v", try)
		}
	})
}

func TestTheWidgetIsFramedByItsOwnPages(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		mine, other := h.newClinicOf(widget, "http://localhost:3000"), h.newClinic()
		framers := func(path string) []string {
			a := h.send(request{method: http.MethodGet, path: path}).ok()
			_, list, _ := strings.Cut(a.header.Get("Content-Security-Policy"), "frame-ancestors ")
			assert.Equal(t, list == "'none'", a.header.Get("X-Frame-Options") == "DENY", path)
			return slices.Sorted(slices.Values(strings.Fields(list)))
		}
		assert.Equal(t, []string{"http://localhost:3000", widget}, framers("/join/"+mine.id))
		for _, path := range []string{"/join/" + other.id, "/join/none", "/console", "/docs", "/setup", "/", "/ticket/" + mine.id, "/display/" + mine.id} {
			assert.Equal(t, []string{"'none'"}, framers(path), path)
		}
	})
}
