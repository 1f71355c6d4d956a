package handlers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// left is what an answer says remains.
func left(a nodetest.Response) int {
	a.T.Helper()
	left, err := strconv.Atoi(a.Header.Get("X-RateLimit-Remaining"))
	require.NoError(a.T, err, "%s: %v", a.Of, a.Header)
	return left
}

// hasty keeps the timeouts of the service. Other nodes of tests wait long for a busy
// machine.
func hasty(c *node.Config) { c.Adjust.API, c.Adjust.Presence = nil, nil }

// spent requires an answer to say that so many requests of a budget were spent
// since a moment; what came back since is left too.
func requireSpent(a nodetest.Response, n, limit int, since time.Time) nodetest.Response {
	a.T.Helper()
	back := int(time.Since(since) / (time.Minute/time.Duration(limit) - 100*time.Millisecond))
	assert.GreaterOrEqual(a.T, left(a), limit-n, a.Of)
	assert.LessOrEqual(a.T, left(a), min(limit-1, limit-n+back), a.Of)
	return a
}

// untilRefused asks until it is too much: what comes back meanwhile is spent as
// well.
func untilRefused(h *nodetest.Node, r nodetest.Request) nodetest.Response {
	h.T.Helper()
	for {
		if a := h.Send(r); a.Status == http.StatusTooManyRequests {
			return a.Refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
		}
	}
}

func TestRequestsOverTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			const limit = 8
			h := nodetest.Start(t, b, nodetest.LimitedTo(limit))
			began := time.Now()
			c := h.NewClinic() // two requests of the bootstrap key
			types := nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: c.Key}
			first := time.Now()
			for spent := 1; spent <= limit; spent++ {
				a := requireSpent(c.Send(types).OK(), spent, limit, first)
				assert.Equal(t, strconv.Itoa(limit), a.Header.Get("X-RateLimit-Limit"))
				reset, err := strconv.ParseInt(a.Header.Get("X-RateLimit-Reset"), 10, 64)
				require.NoError(t, err)
				full := first.Add(time.Duration(spent) * time.Minute / limit)
				assert.GreaterOrEqual(t, reset, full.Unix())
				assert.LessOrEqual(t, reset, full.Add(time.Since(first)).Unix()+1)
			}
			refused := untilRefused(c.Node, types)
			assert.Zero(t, left(refused))
			wait, err := strconv.Atoi(refused.Header.Get("Retry-After"))
			require.NoError(t, err)
			assert.True(t, wait >= 1 && wait <= 60/limit+1, "%d", wait)

			// Others have budgets of their own: another key, an address without one.
			requireSpent(c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/organizations", Token: nodetest.BootstrapKey}).OK(), 3, limit, began)
			first = time.Now()
			requireSpent(c.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: nodetest.Object{}}).OK(), 1, limit, first)
			c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: "guess"}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			c.Send(nodetest.Request{Method: http.MethodGet, Path: "/nowhere"}).Refused(http.StatusNotFound, models.CodeRouteMissing)
			c.Send(nodetest.Request{Method: http.MethodDelete, Path: "/availability/types"}).Refused(http.StatusMethodNotAllowed, models.CodeMethod)
			requireSpent(c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types?a=%00"}).Refused(http.StatusBadRequest, models.CodeMalformed), 5, limit, first)
			// What a credential may not do is counted as its own.
			requireSpent(c.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: nodetest.BootstrapKey}).Refused(http.StatusForbidden, models.CodeForbidden), 4, limit, began)
			for range 3 {
				c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: "guess"}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			}
			untilRefused(c.Node, nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: "guess"})
			untilRefused(c.Node, nodetest.Request{Method: http.MethodGet, Path: "/operator/jobs/", Token: "guess"})

			// Pages are charged to the address as well.
			untilRefused(c.Node, nodetest.Request{Method: http.MethodGet, Path: "/join/" + c.ID})

			// Files of pages cost no look-up; an orchestrator is never refused.
			for _, path := range []string{"/static/base.css", "/healthz", "/readyz"} {
				a := c.Send(nodetest.Request{Method: http.MethodGet, Path: path}).OK()
				assert.Empty(t, a.Header.Get("X-RateLimit-Limit"), path)
			}
		})
	}
}

func TestNodesShareALimit(t *testing.T) {
	t.Parallel()
	const limit = 4
	h := nodetest.Start(t, nodetest.Postgres, nodetest.LimitedTo(limit))
	c := h.NewClinic()
	other := h.Beside(nil)
	first := time.Now()
	for spent := 1; spent <= limit; spent++ {
		requireSpent([]*nodetest.Node{h, other}[spent%2].Send(nodetest.Keyed(c.Key)).OK(), spent, limit, first)
	}
	untilRefused(h, nodetest.Keyed(c.Key))
}

// TestEachCredentialHasItsOwnBudget spends the budget of one person, ticket and key.
// Others of the same kind at the same address keep theirs.
func TestEachCredentialHasItsOwnBudget(t *testing.T) {
	t.Parallel()
	const limit = 15 // more than it takes to make them
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		nodetest.Hire(c, nodetest.Object{"phone": "+966500000711", "role": "receptionist"}).OK()
		nodetest.Hire(c, nodetest.Object{"phone": "+966500000712", "role": "receptionist"}).OK()
		newKey := func(name string) string {
			return c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": name}).OK().Str("result.key")
		}
		one, other := c.Join(kind, nil), c.Join(kind, nil)
		screen := func() string {
			return c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK().Str("result.token")
		}
		pairs := map[string][2]nodetest.Request{
			"customers": {
				{Path: "/customer/profile", Token: c.Patient("+966500000711")},
				{Path: "/customer/profile", Token: c.Patient("+966500000712")},
			},
			"members": {
				{Path: "/management/resources/mine", Token: c.SignIn("+966500000711", true).Str("accessToken")},
				{Path: "/management/resources/mine", Token: c.SignIn("+966500000712", true).Str("accessToken")},
			},
			"tickets": {
				{Path: "/customer/bookings/" + one.Str("id"), Token: one.Str("ticketToken")},
				{Path: "/customer/bookings/" + other.Str("id"), Token: other.Str("ticketToken")},
			},
			"keys":     {nodetest.Keyed(newKey("one")), nodetest.Keyed(newKey("other"))},
			"displays": {{Path: "/management/types", Token: screen()}, {Path: "/management/types", Token: screen()}},
		}
		for kind, pair := range pairs {
			t.Log(kind)
			for i := range pair {
				pair[i].Method = http.MethodGet
			}
			untilRefused(h, pair[0])
			for spent, first := 1, time.Now(); spent <= limit; spent++ {
				requireSpent(h.Send(pair[1]), spent, limit, first)
			}
			untilRefused(h, pair[1])
		}
	}, nodetest.LimitedTo(limit))
}

// TestWithoutRedisEveryNodeKeepsTheLimit freezes Redis: its connections stay
// open and nothing is answered. Each node then lets the whole limit in, and no
// more, without waiting for it long.
func TestWithoutRedisEveryNodeKeepsTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 100
	h := nodetest.Start(t, nodetest.Postgres, nodetest.LimitedTo(limit), hasty)
	c := h.NewClinic()
	other := h.Beside(nil)
	h.RedisServer.Pause()
	began := time.Now()
	for _, node := range []*nodetest.Node{h, other} {
		answers := nodetest.AtOnce(node, 200, func(int) nodetest.Request { return nodetest.Keyed(c.Key) })
		allowed := nodetest.Succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyRequests)
		back := int(time.Since(began)/(time.Minute/limit)) + 1
		t.Logf("%d of 200 requests were let in", allowed)
		assert.GreaterOrEqual(t, allowed, limit)
		assert.LessOrEqual(t, allowed, limit+back)
	}
	for range 20 {
		asked := time.Now()
		h.Send(nodetest.Keyed(c.Key))
		assert.Less(t, time.Since(asked), 5*time.Second, "100 ms are waited, and a command by itself would wait for 10 s")
	}
	h.RedisServer.Resume()
	untilRefused(h, nodetest.Keyed(c.Key))
}

func TestOnlyTrustedProxiesSayWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	ask := func(h *nodetest.Node, from string) nodetest.Response {
		return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/nowhere", Header: map[string]string{"X-Forwarded-For": from, "X-Real-IP": from}})
	}
	// For 100 the script's own count is one too few.
	assert.Equal(t, 99, left(ask(nodetest.Start(t, nodetest.Embedded, nodetest.LimitedTo(100)), "203.0.113.1")))
	const limit = 6
	h := nodetest.Start(t, nodetest.Embedded, nodetest.LimitedTo(limit))
	began := time.Now()
	for i := range 5 {
		requireSpent(ask(h, fmt.Sprintf("203.0.113.%d", i)), i+1, limit, began)
	}

	h = nodetest.Start(t, nodetest.Embedded, nodetest.LimitedTo(limit), func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} })
	began = time.Now()
	for i := range 5 {
		requireSpent(ask(h, fmt.Sprintf("203.0.113.%d", i)), 1, limit, began)
	}
	// What the client wrote itself stands before what the proxy saw.
	requireSpent(ask(h, "198.51.100.7, 203.0.113.1"), 2, limit, began)
	t.Log("some proxies write the port too")
	for i, from := range []string{"203.0.113.2:4711", "[2001:db8::1]:4711", "[2001:db8:7::1]", "198.51.100.7:1, 203.0.113.3:4711"} {
		requireSpent(ask(h, from), map[bool]int{true: 2, false: 1}[i == 0 || i == 3], limit, began)
	}
	requireSpent(ask(h, "203.0.113.2:4712"), 3, limit, began)
}

// TestAnIPv6NetworkSharesABudget sends requests directly and through a proxy. An
// IPv6 network of 64 bits shares a budget, one of 48 bits shares five times as much.
// In IPv4 each address has its own, in whichever form it is written.
func TestAnIPv6NetworkSharesABudget(t *testing.T) {
	t.Parallel()
	const limit = 6
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		direct := func(from string) nodetest.Response {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/nowhere", http.NoBody)
			r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(from), 4711).String()
			w := httptest.NewRecorder()
			h.Handlers.ServeHTTP(w, r)
			return nodetest.Response{T: t, Of: from, Header: w.Header()}
		}
		proxied := func(from string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/nowhere", Header: map[string]string{"X-Forwarded-For": from}})
		}
		began := time.Now()
		for _, one := range []struct {
			from  string
			by    func(string) nodetest.Response
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
			requireSpent(one.by(one.from), one.spent, limit, began)
		}
		began = time.Now()
		allowed := 0
		for i := range 20 * limit {
			a := direct(fmt.Sprintf("2001:db8:5:%x::1", i))
			if a.Header.Get("Retry-After") == "" {
				allowed++
			}
		}
		assert.GreaterOrEqual(t, allowed, 5*limit)
		assert.LessOrEqual(t, allowed, 5*limit+int(time.Since(began)/(time.Minute/(5*limit)))+1)
		requireSpent(direct("2001:db8:6:1::1"), 1, limit, time.Now())
	}, nodetest.LimitedTo(limit), func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} })
}

func TestEveryOperationShowsItsLimit(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	document := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/openapi.json"}).OK()
	for path, item := range document.Members("paths") {
		operations, _ := item.(nodetest.Object)
		require.NotEmpty(t, operations, path)
		for method, operation := range operations {
			header := func(status, name string) any {
				return nodetest.At(document.Resolve(nodetest.At(document.Resolve(nodetest.At(operation, "responses."+status)), "headers."+name)), "schema")
			}
			for _, status := range []string{"200", "429", "500"} {
				assert.NotNil(t, header(status, "X-RateLimit-Remaining"), "%s %s %s", method, path, status)
			}
			assert.NotNil(t, header("429", "Retry-After"), "%s %s", method, path)
		}
	}
}
