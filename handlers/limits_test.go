package handlers_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

func limitedTo(requests int) func(*house) { return func(h *house) { h.limit = requests } }

// left is what an answer says remains.
func (a answer) left() int {
	a.t.Helper()
	left, err := strconv.Atoi(a.header.Get("X-RateLimit-Remaining"))
	require.NoError(a.t, err, "%s: %v", a.of, a.header)
	return left
}

func TestWhoAsksTooOftenHasToWait(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			const limit = 8
			c := newHouse(t, b, limitedTo(limit)).newClinic() // two requests of the bootstrap key
			for spent := 1; spent <= limit; spent++ {
				a := c.staff(http.MethodGet, "/management/types", nil).ok()
				assert.Equal(t, strconv.Itoa(limit), a.header.Get("X-RateLimit-Limit"))
				assert.Equal(t, limit-spent, a.left())
				reset, err := strconv.ParseInt(a.header.Get("X-RateLimit-Reset"), 10, 64)
				require.NoError(t, err)
				assert.InDelta(t, time.Now().Unix()+int64(spent*60/limit), reset, 2)
			}
			refused := c.staff(http.MethodGet, "/management/types", nil).refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
			assert.Zero(t, refused.left())
			wait, err := strconv.Atoi(refused.header.Get("Retry-After"))
			require.NoError(t, err)
			assert.InDelta(t, 60/limit, wait, 1)

			// Others have budgets of their own: another key, an address without one.
			assert.Equal(t, limit-3, c.send(request{method: http.MethodGet, path: "/management/organizations", token: bootstrapKey}).ok().left())
			assert.Equal(t, limit-1, c.send(request{method: http.MethodPost, path: "/availability/types", app: c.id, body: object{}}).ok().left())
			c.send(request{method: http.MethodGet, path: "/management/types", token: "guess"}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			c.send(request{method: http.MethodGet, path: "/nowhere"}).refused(http.StatusNotFound, models.CodeRouteMissing)
			c.send(request{method: http.MethodDelete, path: "/availability/types"}).refused(http.StatusMethodNotAllowed, models.CodeMethod)
			assert.Equal(t, limit-5, c.send(request{method: http.MethodGet, path: "/management/types?a=%00"}).refused(http.StatusBadRequest, models.CodeMalformed).left())
			// What a credential may not do is counted as its own.
			assert.Equal(t, limit-4, c.send(request{method: http.MethodGet, path: "/customer/profile", token: bootstrapKey}).refused(http.StatusForbidden, models.CodeForbidden).left())
			for range 3 {
				c.send(request{method: http.MethodGet, path: "/management/types", token: "guess"}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			}
			c.send(request{method: http.MethodGet, path: "/management/types", token: "guess"}).refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
			c.send(request{method: http.MethodGet, path: "/operator/jobs/", token: "guess"}).refused(http.StatusTooManyRequests, models.CodeTooManyRequests)

			// What people look at and machines ask is not counted.
			for _, path := range []string{"/", "/docs", "/healthz", "/readyz", "/metrics", "/openapi.json"} {
				a := c.send(request{method: http.MethodGet, path: path}).ok()
				assert.Empty(t, a.header.Get("X-RateLimit-Limit"), path)
			}
		})
	}
}

func TestNodesCountTogether(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgres, limitedTo(1000))
	c := h.newClinic()
	other := h.beside(nil)
	before := c.staff(http.MethodGet, "/management/types", nil).ok().left()
	a := other.send(request{method: http.MethodGet, path: "/management/types", token: c.key}).ok()
	assert.InDelta(t, before-1, a.left(), 1)
}

func TestOnlyTrustedProxiesSayWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	ask := func(h *house, from string) int {
		return h.send(request{method: http.MethodGet, path: "/nowhere", header: map[string]string{"X-Forwarded-For": from, "X-Real-IP": from}}).left()
	}
	// For 100 the script's own count is one too few.
	assert.Equal(t, 99, ask(newHouse(t, embedded, limitedTo(100)), "203.0.113.1"))
	const limit = 10 // one comes back after 6 s: longer than this takes
	h := newHouse(t, embedded, limitedTo(limit))
	for i := range 5 {
		assert.Equal(t, limit-1-i, ask(h, fmt.Sprintf("203.0.113.%d", i)))
	}

	h = newHouse(t, embedded, limitedTo(limit), func(h *house) { h.proxies = []string{"127.0.0.0/8", "::1"} })
	for i := range 5 {
		assert.Equal(t, limit-1, ask(h, fmt.Sprintf("203.0.113.%d", i)))
	}
	// What the client wrote itself stands before what the proxy saw.
	assert.Equal(t, limit-2, ask(h, "198.51.100.7, 203.0.113.1"))
	// A subscriber has all of an IPv6 network.
	assert.Equal(t, limit-1, ask(h, "2001:db8:1:2::1"))
	assert.Equal(t, limit-2, ask(h, "2001:db8:1:2:ffff::2"))
	assert.Equal(t, limit-1, ask(h, "2001:db8:1:3::1"))
}

func TestEveryOperationTellsOfItsLimit(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	document := h.send(request{method: http.MethodGet, path: "/openapi.json"}).ok()
	for path := range document.members("paths") {
		for method, operation := range document.members("paths." + path) {
			for _, status := range []string{"200", "429", "500"} {
				assert.NotNil(t, at(operation, "responses."+status+".headers.X-RateLimit-Remaining"), "%s %s %s", method, path, status)
			}
			assert.NotNil(t, at(operation, "responses.429.headers.Retry-After"), "%s %s", method, path)
		}
	}
}
