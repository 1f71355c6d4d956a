package handlers_test

import (
	"sync"
	"sync/atomic"

	"nowserving/cmd/nowserving/node"

	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// looks are how often each store was asked about a credential or an organization.
var looks sync.Map // *store.Store: *atomic.Int64

// looksOf returns the looks at a node that countLooks has changed.
func looksOf(h *house) int64 {
	h.t.Helper()
	n, ok := looks.Load(h.Store)
	require.True(h.t, ok)
	return n.(*atomic.Int64).Load() //nolint:forcetypeassert // there is nothing else in it
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

// TestEveryDoorIsCountedAndLooksNothingUp tries 600 made-up credentials, pages
// and origins on each door from one address. What is over the limit is refused
// without a look at the database; a valid credential still gets in.
func TestEveryDoorIsCountedAndLooksNothingUp(t *testing.T) {
	t.Parallel()
	const limit, tries = 100, 600
	oldKey := func(i int) string { return "nsk_" + madeUp(i) }
	doors := map[string]func(i int) request{
		"a key of the old form": func(i int) request {
			return request{method: http.MethodGet, path: "/management/types", token: oldKey(i)}
		},
		"an organization": func(i int) request {
			return request{method: http.MethodPost, path: "/availability/types", app: fmt.Sprintf("made-up-%d", i), body: object{}}
		},
		"a page":       func(i int) request { return request{method: http.MethodGet, path: fmt.Sprintf("/join/made-up-%d", i)} },
		"metrics":      func(i int) request { return request{method: http.MethodGet, path: "/metrics", token: oldKey(i)} },
		"jobs":         func(i int) request { return request{method: http.MethodGet, path: "/operator/jobs/", token: oldKey(i)} },
		"an origin":    preflightOf,
		"another page": func(int) request { return request{method: http.MethodGet, path: "/docs"} },
	}
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		number := 0
		for name, door := range doors {
			number++
			from := fmt.Sprintf("203.0.113.%d", number)
			sent := func(r request) request {
				r.header = maps.Clone(r.header)
				if r.header == nil {
					r.header = map[string]string{}
				}
				r.header["X-Forwarded-For"] = from
				return r
			}
			h.send(sent(keyed(c.key))).ok()
			before := looksOf(h)
			began := time.Now()
			refused := 0
			for _, a := range h.atOnce(tries, func(i int) request { return sent(door(i)) }) {
				if a.status == http.StatusTooManyRequests {
					refused++
					assert.NotEmpty(t, a.header.Get("Retry-After"), name)
				}
			}
			most := int64(limit + 10 + int(time.Since(began)/(time.Minute/limit)))
			assert.GreaterOrEqual(t, int64(tries-refused), int64(limit-10), "%s: a request counts once", name)
			looks := looksOf(h) - before
			t.Logf("%s: %d of %d refused, %d look-ups", name, refused, tries, looks)
			assert.GreaterOrEqual(t, int64(refused), tries-most, name)
			assert.LessOrEqual(t, looks, most, name)
			h.send(sent(keyed(c.key))).ok()
			h.send(sent(request{method: http.MethodGet, path: "/healthz"})).ok()
			h.send(sent(request{method: http.MethodGet, path: "/readyz"})).ok()
		}
	}, limitedTo(limit), countLooks, func(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} })
}

// madeUp is a token in the form of those made earlier, without a checksum.
func madeUp(i int) string {
	return strings.NewReplacer("0", "W", "1", "X", "8", "Y", "9", "Z").Replace(fmt.Sprintf("%026d", i))
}

func preflightOf(i int) request {
	return request{method: http.MethodOptions, path: "/customer/profile", header: map[string]string{
		"Origin": fmt.Sprintf("https://made-up-%d.example", i), "Access-Control-Request-Method": "GET",
	}}
}

// TestMadeUpCredentialsOverTheLiveConnectionAreCounted: over the limit the client
// is asked to come back later, and a patient at the same address gets in.
func TestMadeUpCredentialsOverTheLiveConnectionAreCounted(t *testing.T) {
	t.Parallel()
	const limit, tries = 20, 120
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		patient := c.join(c.serve(c.newType(nil)), nil).str("ticketToken")
		said := map[string]int{}
		connect := func(token string) (code int, ok bool) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, strings.Replace(h.URL, "http", "ws", 1)+"/connection/websocket", nil) //nolint:bodyclose // the websocket's
			require.NoError(t, err)
			defer ws.CloseNow() //nolint:errcheck // the test has what it wants
			require.NoError(t, wsjson.Write(ctx, ws, object{"id": 1, "connect": object{"token": token}}))
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
	}, limitedTo(limit))
}

// TestDisplayTokensCarryAChecksum: a made-up one costs no look-up; those that
// were made earlier work on.
func TestDisplayTokensCarryAChecksum(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded, countLooks)
	c := h.newClinic()
	made := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()
	token := made.str("result.token")
	assert.Regexp(t, `^nsd_[0-9A-Za-z]{36}$`, token)
	ask := func(credential string) answer {
		return h.send(request{method: http.MethodGet, path: "/management/types", token: credential})
	}
	ask(token).refused(http.StatusForbidden, models.CodeForbidden)
	before := looksOf(h)
	for _, bad := range []string{otherChecksum(token), token[:len(token)-1], token + "0", "nsd_" + strings.Repeat("A", 26), "nsk_nsd_" + token[4:], "guess"} {
		ask(bad).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	}
	assert.Equal(t, before, looksOf(h))
	old := strings.Repeat("Q7", 13)
	h.exec("UPDATE displays SET token_hash = ? WHERE id = ?", models.HashSecret(old), made.str("result.id"))
	ask(old).refused(http.StatusForbidden, models.CodeForbidden)
}
