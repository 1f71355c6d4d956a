package handlers_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// looks are how often each store was asked about a credential or an organization.
var looks sync.Map // *store.Store: *atomic.Int64

// looksOf returns the looks at a node that countLooks has changed.
func looksOf(h *nodetest.Node) int64 {
	h.T.Helper()
	n, _ := looks.Load(h.Store)
	count, ok := n.(*atomic.Int64)
	require.True(h.T, ok)
	return count.Load()
}

// countLooks counts the looks at a node.
func countLooks(c *node.Config) {
	c.Adjust.Store = func(s *store.Store) {
		count := &atomic.Int64{}
		looks.Store(s, count)
		note := func(db *gorm.DB) {
			sql := db.Statement.SQL.String()
			if slices.ContainsFunc([]string{"api_keys", "displays", "organization"}, func(of string) bool { return strings.Contains(sql, of) }) {
				count.Add(1)
			}
		}
		on := s.Read(context.Background()).Callback()
		must(on.Query().After("gorm:query").Register("test:query", note))
		must(on.Raw().After("gorm:raw").Register("test:raw", note))
		must(on.Row().After("gorm:row").Register("test:row", note))
	}
}

// must ends the tests when something cannot be prepared.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// TestMadeUpCredentialsAreCountedAndNotLookedUp sends 600 made-up credentials, pages
// and origins from one address, to each kind of route that takes them. Requests over
// the limit are refused without a query; a valid credential is still accepted.
func TestMadeUpCredentialsAreCountedAndNotLookedUp(t *testing.T) {
	t.Parallel()
	const limit, tries = 100, 600
	oldKey := func(i int) string { return "nsk_" + madeUp(i) }
	kinds := map[string]func(i int) nodetest.Request{
		"a key of the old form": func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: oldKey(i)}
		},
		"an organization": func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: fmt.Sprintf("made-up-%d", i), Body: nodetest.Object{}}
		},
		"a page": func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodGet, Path: fmt.Sprintf("/join/made-up-%d", i)}
		},
		"metrics": func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodGet, Path: "/metrics", Token: oldKey(i)}
		},
		"jobs": func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodGet, Path: "/operator/jobs/", Token: oldKey(i)}
		},
		"an origin":    preflightOf,
		"another page": func(int) nodetest.Request { return nodetest.Request{Method: http.MethodGet, Path: "/docs"} },
	}
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		number := 0
		for name, request := range kinds {
			number++
			from := fmt.Sprintf("203.0.113.%d", number)
			sent := func(r nodetest.Request) nodetest.Request {
				r.Header = maps.Clone(r.Header)
				if r.Header == nil {
					r.Header = map[string]string{}
				}
				r.Header["X-Forwarded-For"] = from
				return r
			}
			h.Send(sent(nodetest.Keyed(c.Key))).OK()
			before := looksOf(h)
			began := time.Now()
			refused := 0
			for _, a := range nodetest.AtOnce(h, tries, func(i int) nodetest.Request { return sent(request(i)) }) {
				if a.Status == http.StatusTooManyRequests {
					refused++
					assert.NotEmpty(t, a.Header.Get("Retry-After"), name)
				}
			}
			most := int64(limit + 10 + int(time.Since(began)/(time.Minute/limit)))
			assert.GreaterOrEqual(t, int64(tries-refused), int64(limit-10), "%s: a request counts once", name)
			looks := looksOf(h) - before
			t.Logf("%s: %d of %d refused, %d look-ups", name, refused, tries, looks)
			assert.GreaterOrEqual(t, int64(refused), tries-most, name)
			assert.LessOrEqual(t, looks, most, name)
			h.Send(sent(nodetest.Keyed(c.Key))).OK()
			h.Send(sent(nodetest.Request{Method: http.MethodGet, Path: "/healthz"})).OK()
			h.Send(sent(nodetest.Request{Method: http.MethodGet, Path: "/readyz"})).OK()
		}
	}, nodetest.LimitedTo(limit), countLooks, func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} })
}

// madeUp is a token in the form of those made earlier, without a checksum.
func madeUp(i int) string {
	return strings.NewReplacer("0", "W", "1", "X", "8", "Y", "9", "Z").Replace(fmt.Sprintf("%026d", i))
}

func preflightOf(i int) nodetest.Request {
	return nodetest.Request{Method: http.MethodOptions, Path: "/customer/profile", Header: map[string]string{
		"Origin": fmt.Sprintf("https://made-up-%d.example", i), "Access-Control-Request-Method": "GET",
	}}
}

// TestMadeUpCredentialsOverTheLiveConnectionAreCounted: over the limit the client
// is asked to come back later, and a patient at the same address gets in.
func TestMadeUpCredentialsOverTheLiveConnectionAreCounted(t *testing.T) {
	t.Parallel()
	const limit, tries = 20, 120
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		patient := c.Join(c.Serve(c.NewType(nil)), nil).Str("ticketToken")
		said := map[string]int{}
		connect := func(token string) (code int, ok bool) {
			ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, strings.Replace(h.URL, "http", "ws", 1)+"/connection/websocket", nil) //nolint:bodyclose // the websocket's
			require.NoError(t, err)
			defer ws.CloseNow() //nolint:errcheck // the test has what it wants
			require.NoError(t, wsjson.Write(ctx, ws, nodetest.Object{"id": 1, "connect": nodetest.Object{"token": token}}))
			var reply struct {
				Error   struct{ Code int }
				Connect *struct{ Client string }
			}
			if err := wsjson.Read(ctx, ws, &reply); err != nil {
				return int(websocket.CloseStatus(err)), false
			}
			return reply.Error.Code, reply.Connect != nil
		}
		began := time.Now()
		for i := range tries {
			code, ok := connect(madeUp(i))
			require.False(t, ok)
			said[fmt.Sprint(code)]++
		}
		most := limit + 1 + int(time.Since(began)/(time.Minute/limit))
		t.Logf("%v", said)
		assert.Equal(t, tries, said["3500"]+said["111"], "a bad token, or too many requests")
		assert.LessOrEqual(t, said["3500"], most)
		_, ok := connect(patient)
		assert.True(t, ok)
	}, nodetest.LimitedTo(limit))
}

// TestDisplayTokensCarryAChecksum: a made-up one costs no look-up; those that
// were made earlier work on.
func TestDisplayTokensCarryAChecksum(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded, countLooks)
	c := h.NewClinic()
	made := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
	token := made.Str("result.token")
	assert.Regexp(t, `^nsd_[0-9A-Za-z]{36}$`, token)
	ask := func(credential string) nodetest.Response {
		return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: credential})
	}
	ask(token).Refused(http.StatusForbidden, models.CodeForbidden)
	before := looksOf(h)
	for _, bad := range []string{nodetest.OtherChecksum(token), token[:len(token)-1], token + "0", "nsd_" + strings.Repeat("A", 26), "nsk_nsd_" + token[4:], "guess"} {
		ask(bad).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	}
	assert.Equal(t, before, looksOf(h))
	old := strings.Repeat("Q7", 13)
	h.Exec("UPDATE displays SET token_hash = ? WHERE id = ?", models.HashSecret(old), made.Str("result.id"))
	ask(old).Refused(http.StatusForbidden, models.CodeForbidden)
}
