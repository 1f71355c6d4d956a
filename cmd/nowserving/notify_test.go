package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outside is everything beyond the house that a node sends to. From an arrival
// on it holds its answers back, until it is released.
type outside struct {
	t     *testing.T
	parse func(r *http.Request) (what, id string)

	mu       sync.Mutex
	arrivals int
	holdFrom int
	released chan struct{}
	came     map[string]*told
}

// told is one thing that has arrived once or more.
type told struct {
	ids      map[string]bool
	attempts int
	answered bool
}

func newOutside(t *testing.T, holdFrom int, parse func(r *http.Request) (what, id string)) *outside {
	return &outside{t: t, parse: parse, holdFrom: holdFrom, released: make(chan struct{}), came: map[string]*told{}}
}

// listen opens an address of it.
func (o *outside) listen() string {
	server := httptest.NewServer(o)
	o.t.Cleanup(server.Close)
	return server.URL
}

// ServeHTTP implements http.Handler.
func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what, id := o.parse(r)
	o.mu.Lock()
	c := o.came[what]
	if c == nil {
		c = &told{ids: map[string]bool{}}
		o.came[what] = c
	}
	c.attempts++
	c.ids[id] = true
	o.arrivals++
	held := o.arrivals > o.holdFrom
	c.answered = c.answered || !held
	o.mu.Unlock()
	if held {
		select {
		case <-o.released:
		case <-r.Context().Done(): // whoever asked is dead
			return
		}
		o.mu.Lock()
		c.answered = true
		o.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"name":"projects/nowserving/messages/%s"}`, id)
}

// holding reports whether answers are being held back.
func (o *outside) holding() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.arrivals > o.holdFrom
}

// answered counts what has arrived and was answered.
func (o *outside) answered() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.came {
		if c.answered {
			n++
		}
	}
	return n
}

// killed kills a node while answers are held back, lets them go and starts the
// node again.
func (o *outside) killed(node *process) {
	o.t.Helper()
	require.Eventually(o.t, o.holding, patience, time.Millisecond)
	node.kill()
	close(o.released)
	node.gone()
	node.start()
}

// settles waits until so many things were answered.
func (o *outside) settles(node *process, n int) {
	o.t.Helper()
	all := assert.Eventually(o.t, func() bool {
		node.longAgo("UPDATE river_job SET scheduled_at = now() WHERE state = 'retryable' AND scheduled_at > now()")
		return o.answered() >= n
	}, patience, 50*time.Millisecond)
	require.True(o.t, all, "%d of %d", o.answered(), n)
}

// longAgo changes the times of jobs, so that the test need not wait for retries.
func (p *process) longAgo(statements ...string) {
	p.t.Helper()
	p.database(func(ctx context.Context, conn *pgx.Conn) {
		for _, statement := range statements {
			_, err := conn.Exec(ctx, statement)
			assert.NoError(p.t, err)
		}
	})
}

// gone waits until nothing that a dead process asked of PostgreSQL is under way.
func (p *process) gone() {
	p.t.Helper()
	p.database(func(ctx context.Context, conn *pgx.Conn) {
		assert.Eventually(p.t, func() bool {
			var left int
			err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&left)
			return assert.NoError(p.t, err) && left == 0
		}, patience, 5*time.Millisecond)
	})
}

// database lets use look into the process's PostgreSQL, if it has one.
func (p *process) database(use func(ctx context.Context, conn *pgx.Conn)) {
	p.t.Helper()
	for _, pair := range p.environ {
		address, found := strings.CutPrefix(pair, "DATABASE_URL=")
		if !found {
			continue
		}
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		defer cancel()
		conn, err := pgx.Connect(ctx, address)
		if !assert.NoError(p.t, err) {
			return
		}
		use(ctx, conn)
		assert.NoError(p.t, conn.Close(ctx))
	}
}

// A node is killed in the middle of 1,000 deliveries of webhooks. Each arrives,
// and what arrives twice was under way at that moment and has the same id.
func TestKillAmongDeliveriesLosesNone(t *testing.T) {
	t.Parallel()
	const receivers, joins = 10, 100
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			t.Parallel()
			o := newOutside(t, 500, func(r *http.Request) (what, id string) {
				var payload struct{ ID, Trigger string }
				if err := json.NewDecoder(r.Body).Decode(&payload); err != nil {
					t.Error(err)
				}
				return r.Host + " " + payload.Trigger + " " + payload.ID, r.Header.Get("webhook-id")
			})
			node := startProcess(t, append(be.settings(t), "NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true"))
			typeID, _ := node.clinic()
			var addresses []string
			for range receivers {
				address := o.listen()
				addresses = append(addresses, strings.TrimPrefix(address, "http://"))
				status, answer, err := node.try("POST", "/management/webhooks", map[string]any{"trigger": "bookingUnassigned", "url": address + "/hook"})
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, status, string(answer))
			}
			bookings := node.joinAtOnce(typeID, joins)
			o.killed(node)
			o.settles(node, receivers*joins)

			o.mu.Lock()
			defer o.mu.Unlock()
			require.Len(t, o.came, receivers*joins)
			ids, again := map[string]bool{}, 0
			for _, address := range addresses {
				for _, booking := range bookings {
					c := o.came[address+" bookingUnassigned "+booking]
					require.NotNil(t, c, "%s was not told of %s", address, booking)
					require.Len(t, c.ids, 1, "the same delivery under two ids")
					for id := range c.ids {
						require.False(t, ids[id], "two deliveries under one id")
						ids[id] = true
					}
					if c.attempts > 1 {
						again++
					}
				}
			}
			require.Positive(t, again, "the kill came between the deliveries, not in the middle of them")
			require.LessOrEqual(t, again, 64, "no more are ever under way on a node")
		})
	}
}

// A node is killed while it tells patients that they were called. Each phone is
// told, and a push that may have arrived says that it comes again.
func TestKillAmongPushesTellsEachOnce(t *testing.T) {
	t.Parallel()
	const patients = 12
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			again := map[string]bool{}
			o := newOutside(t, 5, func(r *http.Request) (what, id string) {
				var body struct {
					Message struct {
						Token string
						Data  map[string]string
					}
				}
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				m := body.Message
				what = m.Token + " " + m.Data["type"] + " " + m.Data["bookingId"]
				mu.Lock()
				defer mu.Unlock()
				again[what] = m.Data["redelivery"] == "true"
				return what, m.Data["notificationId"]
			})
			node := startProcess(t, append(be.settings(t), "NOWSERVING_FCM_ENDPOINT="+o.listen()))
			typeID, resourceID := node.clinic()
			desk := *node.client
			called := map[string]bool{}
			for i := range patients {
				phone := desk
				phone.key = ""
				body := map[string]any{"method": "sms", "phoneNumber": fmt.Sprintf("+9665000003%02d", i), "isOrgMember": false}
				phone.call("POST", "/auth/otp/request", body)
				body["code"] = demoCode
				phone.key = phone.call("POST", "/auth/otp/verify", body).text("accessToken")
				token := fmt.Sprintf("phone-%d", i)
				phone.call("POST", "/devices", map[string]any{"token": token, "platform": "android", "lang": "ar"})
				id := phone.call("PUT", "/customer/scheduling/new", map[string]any{"type": typeID, "assign": false}).text("id")
				called[token+" MY_BOOKING_ASSIGNED "+id] = true
				desk.call("POST", "/management/bookings/assign", map[string]any{"bookingId": id, "resourceId": resourceID})
			}
			o.killed(node)
			o.settles(node, patients)

			o.mu.Lock()
			defer o.mu.Unlock()
			twice := 0
			for what := range called {
				c := o.came[what]
				require.NotNil(t, c, "not told: %s", what)
				require.Len(t, c.ids, 1, what)
				if c.attempts > 1 {
					twice++
					require.True(t, again[what], "it came again and does not say so: %s", what)
				}
			}
			require.Len(t, o.came, patients)
			require.Positive(t, twice, "the kill came between the pushes, not in the middle of one")
			require.LessOrEqual(t, twice, 4, "no more are ever under way on a node")
		})
	}
}
