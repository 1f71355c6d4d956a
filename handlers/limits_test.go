package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

func limitedTo(requests int) func(*node.Config) {
	return func(c *node.Config) { c.RateLimit = requests }
}

// left is what an answer says remains.
func (a answer) left() int {
	a.t.Helper()
	left, err := strconv.Atoi(a.header.Get("X-RateLimit-Remaining"))
	require.NoError(a.t, err, "%s: %v", a.of, a.header)
	return left
}

// hasty keeps the timeouts of the service. Other nodes of tests wait long for a busy
// machine.
func hasty(c *node.Config) { c.Adjust.API, c.Adjust.Presence = nil, nil }

// spent requires an answer to say that so many requests of a budget were spent
// since a moment; what came back since is left too.
func (a answer) spent(n, limit int, since time.Time) answer {
	a.t.Helper()
	back := int(time.Since(since) / (time.Minute/time.Duration(limit) - 100*time.Millisecond))
	assert.GreaterOrEqual(a.t, a.left(), limit-n, a.of)
	assert.LessOrEqual(a.t, a.left(), min(limit-1, limit-n+back), a.of)
	return a
}

// untilRefused asks until it is too much: what comes back meanwhile is spent as
// well.
func (h *house) untilRefused(r request) answer {
	h.t.Helper()
	for {
		if a := h.send(r); a.status == http.StatusTooManyRequests {
			return a.refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
		}
	}
}

func TestWhoAsksTooOftenHasToWait(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			const limit = 8
			h := newHouse(t, b, limitedTo(limit))
			began := time.Now()
			c := h.newClinic() // two requests of the bootstrap key
			types := request{method: http.MethodGet, path: "/management/types", token: c.key}
			first := time.Now()
			for spent := 1; spent <= limit; spent++ {
				a := c.send(types).ok().spent(spent, limit, first)
				assert.Equal(t, strconv.Itoa(limit), a.header.Get("X-RateLimit-Limit"))
				reset, err := strconv.ParseInt(a.header.Get("X-RateLimit-Reset"), 10, 64)
				require.NoError(t, err)
				full := first.Add(time.Duration(spent) * time.Minute / limit)
				assert.GreaterOrEqual(t, reset, full.Unix())
				assert.LessOrEqual(t, reset, full.Add(time.Since(first)).Unix()+1)
			}
			refused := c.untilRefused(types)
			assert.Zero(t, refused.left())
			wait, err := strconv.Atoi(refused.header.Get("Retry-After"))
			require.NoError(t, err)
			assert.True(t, wait >= 1 && wait <= 60/limit+1, "%d", wait)

			// Others have budgets of their own: another key, an address without one.
			c.send(request{method: http.MethodGet, path: "/management/organizations", token: bootstrapKey}).ok().spent(3, limit, began)
			first = time.Now()
			c.send(request{method: http.MethodPost, path: "/availability/types", app: c.id, body: object{}}).ok().spent(1, limit, first)
			c.send(request{method: http.MethodGet, path: "/management/types", token: "guess"}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			c.send(request{method: http.MethodGet, path: "/nowhere"}).refused(http.StatusNotFound, models.CodeRouteMissing)
			c.send(request{method: http.MethodDelete, path: "/availability/types"}).refused(http.StatusMethodNotAllowed, models.CodeMethod)
			c.send(request{method: http.MethodGet, path: "/management/types?a=%00"}).refused(http.StatusBadRequest, models.CodeMalformed).spent(5, limit, first)
			// What a credential may not do is counted as its own.
			c.send(request{method: http.MethodGet, path: "/customer/profile", token: bootstrapKey}).refused(http.StatusForbidden, models.CodeForbidden).spent(4, limit, began)
			for range 3 {
				c.send(request{method: http.MethodGet, path: "/management/types", token: "guess"}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			}
			c.untilRefused(request{method: http.MethodGet, path: "/management/types", token: "guess"})
			c.untilRefused(request{method: http.MethodGet, path: "/operator/jobs/", token: "guess"})

			// Pages are charged to the address as well.
			c.untilRefused(request{method: http.MethodGet, path: "/join/" + c.id})

			// Files of pages cost no look-up; an orchestrator is never refused.
			for _, path := range []string{"/static/base.css", "/healthz", "/readyz"} {
				a := c.send(request{method: http.MethodGet, path: path}).ok()
				assert.Empty(t, a.header.Get("X-RateLimit-Limit"), path)
			}
		})
	}
}

func TestNodesCountTogether(t *testing.T) {
	t.Parallel()
	const limit = 4
	h := newHouse(t, postgres, limitedTo(limit))
	c := h.newClinic()
	other := h.beside(nil)
	first := time.Now()
	for spent := 1; spent <= limit; spent++ {
		[]*house{h, other}[spent%2].send(keyed(c.key)).ok().spent(spent, limit, first)
	}
	h.untilRefused(keyed(c.key))
}

// TestBudgetsAreOnesOwn: what one person, ticket or key spends, no other of the
// same kind has spent, though all come from one address.
func TestBudgetsAreOnesOwn(t *testing.T) {
	t.Parallel()
	const limit = 15 // more than it takes to make them
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		c.hire(object{"phone": "+966500000711", "role": "receptionist"}).ok()
		c.hire(object{"phone": "+966500000712", "role": "receptionist"}).ok()
		newKey := func(name string) string {
			return c.staff(http.MethodPost, keysPath, object{"name": name}).ok().str("result.key")
		}
		one, other := c.join(kind, nil), c.join(kind, nil)
		screen := func() string {
			return c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok().str("result.token")
		}
		pairs := map[string][2]request{
			"customers": {
				{path: "/customer/profile", token: c.patient("+966500000711")},
				{path: "/customer/profile", token: c.patient("+966500000712")},
			},
			"members": {
				{path: "/management/resources/mine", token: c.signIn("+966500000711", true).str("accessToken")},
				{path: "/management/resources/mine", token: c.signIn("+966500000712", true).str("accessToken")},
			},
			"tickets": {
				{path: "/customer/bookings/" + one.str("id"), token: one.str("ticketToken")},
				{path: "/customer/bookings/" + other.str("id"), token: other.str("ticketToken")},
			},
			"keys":     {keyed(newKey("one")), keyed(newKey("other"))},
			"displays": {{path: "/management/types", token: screen()}, {path: "/management/types", token: screen()}},
		}
		for kind, pair := range pairs {
			t.Log(kind)
			for i := range pair {
				pair[i].method = http.MethodGet
			}
			h.untilRefused(pair[0])
			for spent, first := 1, time.Now(); spent <= limit; spent++ {
				h.send(pair[1]).spent(spent, limit, first)
			}
			h.untilRefused(pair[1])
		}
	}, limitedTo(limit))
}

// TestWithoutRedisEveryNodeKeepsTheLimit freezes Redis: its connections stay
// open and nothing is answered. Each node then lets the whole limit in, and no
// more, without waiting for it long.
func TestWithoutRedisEveryNodeKeepsTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 100
	h := newHouse(t, postgres, limitedTo(limit), hasty)
	c := h.newClinic()
	other := h.beside(nil)
	h.server.Pause()
	began := time.Now()
	for _, node := range []*house{h, other} {
		answers := node.atOnce(200, func(int) request { return keyed(c.key) })
		allowed := succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyRequests)
		back := int(time.Since(began)/(time.Minute/limit)) + 1
		t.Logf("%d of 200 requests were let in", allowed)
		assert.GreaterOrEqual(t, allowed, limit)
		assert.LessOrEqual(t, allowed, limit+back)
	}
	for range 20 {
		asked := time.Now()
		h.send(keyed(c.key))
		assert.Less(t, time.Since(asked), 5*time.Second, "100 ms are waited, and a command by itself would wait for 10 s")
	}
	h.server.Resume()
	h.untilRefused(keyed(c.key))
}

func TestOnlyTrustedProxiesSayWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	ask := func(h *house, from string) answer {
		return h.send(request{method: http.MethodGet, path: "/nowhere", header: map[string]string{"X-Forwarded-For": from, "X-Real-IP": from}})
	}
	// For 100 the script's own count is one too few.
	assert.Equal(t, 99, ask(newHouse(t, embedded, limitedTo(100)), "203.0.113.1").left())
	const limit = 6
	h := newHouse(t, embedded, limitedTo(limit))
	began := time.Now()
	for i := range 5 {
		ask(h, fmt.Sprintf("203.0.113.%d", i)).spent(i+1, limit, began)
	}

	h = newHouse(t, embedded, limitedTo(limit), func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} })
	began = time.Now()
	for i := range 5 {
		ask(h, fmt.Sprintf("203.0.113.%d", i)).spent(1, limit, began)
	}
	// What the client wrote itself stands before what the proxy saw.
	ask(h, "198.51.100.7, 203.0.113.1").spent(2, limit, began)
	t.Log("some proxies write the port too")
	for i, from := range []string{"203.0.113.2:4711", "[2001:db8::1]:4711", "[2001:db8:7::1]", "198.51.100.7:1, 203.0.113.3:4711"} {
		ask(h, from).spent(map[bool]int{true: 2, false: 1}[i == 0 || i == 3], limit, began)
	}
	ask(h, "203.0.113.2:4712").spent(3, limit, began)
}

// TestASubscriberHasANetwork: all of an IPv6 network of 64 bits shares a budget,
// as it comes itself or by a proxy, and all of one of 48 bits shares five times
// as much; in IPv4 each address has its own, however it is written.
func TestASubscriberHasANetwork(t *testing.T) {
	t.Parallel()
	const limit = 6
	onBoth(t, func(t *testing.T, h *house) {
		direct := func(from string) answer {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/nowhere", http.NoBody)
			r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(from), 4711).String()
			w := httptest.NewRecorder()
			h.Handlers.ServeHTTP(w, r)
			return answer{t: t, of: from, header: w.Header()}
		}
		proxied := func(from string) answer {
			return h.send(request{method: http.MethodGet, path: "/nowhere", header: map[string]string{"X-Forwarded-For": from}})
		}
		began := time.Now()
		for _, one := range []struct {
			from  string
			by    func(string) answer
			spent int
		}{
			{"2001:db8:1:2::1", direct, 1},
			{"2001:db8:1:2:ffff:ffff:ffff:ffff", direct, 2},
			{"2001:db8:1:3::1", direct, 1},
			{"2001:db8:1:1:ffff::1", direct, 1},
			{"2001:db8:1:2::7", proxied, 3},
			{"203.0.113.1", direct, 1},
			{"203.0.113.2", direct, 1},
			{"::ffff:203.0.113.1", direct, 2},
			{"203.0.113.1", proxied, 3},
		} {
			one.by(one.from).spent(one.spent, limit, began)
		}
		began = time.Now()
		allowed := 0
		for i := range 20 * limit {
			a := direct(fmt.Sprintf("2001:db8:5:%x::1", i))
			if a.header.Get("Retry-After") == "" {
				allowed++
			}
		}
		assert.GreaterOrEqual(t, allowed, 5*limit)
		assert.LessOrEqual(t, allowed, 5*limit+int(time.Since(began)/(time.Minute/(5*limit)))+1)
		direct("2001:db8:6:1::1").spent(1, limit, time.Now())
	}, limitedTo(limit), func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} })
}

func TestEveryOperationTellsOfItsLimit(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	document := h.send(request{method: http.MethodGet, path: "/openapi.json"}).ok()
	for path := range document.members("paths") {
		for method, operation := range document.members("paths." + path) {
			header := func(status, name string) any {
				return at(document.resolve(at(document.resolve(at(operation, "responses."+status)), "headers."+name)), "schema")
			}
			for _, status := range []string{"200", "429", "500"} {
				assert.NotNil(t, header(status, "X-RateLimit-Remaining"), "%s %s %s", method, path, status)
			}
			assert.NotNil(t, header("429", "Retry-After"), "%s %s", method, path)
		}
	}
}
