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

	"nowserving/cmd/nowserving/node/nodetest"
)

// heldServer receives webhooks and pushes. After holdFrom requests it holds its answers
// back until it is released.
type heldServer struct {
	t     *testing.T
	parse func(r *http.Request) (what, id string)

	mu       sync.Mutex
	arrivals int
	holdFrom int
	released chan struct{}
	received map[string]*delivery // by what parse returns
}

// delivery counts the attempts of one delivery.
type delivery struct {
	ids      map[string]bool
	attempts int
	answered bool
}

func newHeldServer(t *testing.T, holdFrom int, parse func(r *http.Request) (what, id string)) *heldServer {
	return &heldServer{t: t, parse: parse, holdFrom: holdFrom, released: make(chan struct{}), received: map[string]*delivery{}}
}

// listen opens an address and returns its URL.
func (o *heldServer) listen() string {
	server := httptest.NewServer(o)
	o.t.Cleanup(server.Close)
	return server.URL
}

// ServeHTTP implements http.Handler.
func (o *heldServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what, id := o.parse(r)
	o.mu.Lock()
	c := o.received[what]
	if c == nil {
		c = &delivery{ids: map[string]bool{}}
		o.received[what] = c
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
		case <-r.Context().Done(): // the node was killed
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
func (o *heldServer) holding() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.arrivals > o.holdFrom
}

// answered counts the deliveries that were answered.
func (o *heldServer) answered() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.received {
		if c.answered {
			n++
		}
	}
	return n
}

// killWhileHolding kills a node while answers are held back, releases them and starts the
// node again.
func (o *heldServer) killWhileHolding(node *process) {
	o.t.Helper()
	require.Eventually(o.t, o.holding, nodetest.Patience, time.Millisecond)
	node.kill()
	close(o.released)
	node.awaitNoSessions()
	node.start()
}

// awaitAnswered waits until n deliveries were answered.
func (o *heldServer) awaitAnswered(node *process, n int) {
	o.t.Helper()
	all := assert.Eventually(o.t, func() bool {
		node.exec("UPDATE river_job SET scheduled_at = now() WHERE state = 'retryable' AND scheduled_at > now()")
		return o.answered() >= n
	}, nodetest.Patience, 50*time.Millisecond)
	require.True(o.t, all, "%d of %d", o.answered(), n)
}

// exec changes rows in PostgreSQL, such as times, so that the test need not wait for them.
// It does nothing with SQLite.
func (p *process) exec(statement string) {
	p.T.Helper()
	p.database(func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, statement)
		assert.NoError(p.T, err)
	})
}

// awaitNoSessions waits until PostgreSQL has ended the sessions of a killed process.
func (p *process) awaitNoSessions() {
	p.T.Helper()
	p.database(func(ctx context.Context, conn *pgx.Conn) {
		assert.Eventually(p.T, func() bool {
			var left int
			err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&left)
			return assert.NoError(p.T, err) && left == 0
		}, nodetest.Patience, 5*time.Millisecond)
	})
}

// database calls use with a connection to the process's PostgreSQL, if it has one.
func (p *process) database(use func(ctx context.Context, conn *pgx.Conn)) {
	p.T.Helper()
	for _, pair := range p.environ {
		address, found := strings.CutPrefix(pair, "DATABASE_URL=")
		if !found {
			continue
		}
		ctx, cancel := context.WithTimeout(p.T.Context(), nodetest.Patience)
		defer cancel()
		conn, err := pgx.Connect(ctx, address)
		if !assert.NoError(p.T, err) {
			return
		}
		use(ctx, conn)
		assert.NoError(p.T, conn.Close(ctx))
	}
}

// A node is killed in the middle of 1,000 deliveries of webhooks. Each arrives, and one
// that arrives twice was under way at that moment and has the same id.
func TestANodeKilledDuringDeliveriesLosesNone(t *testing.T) {
	t.Parallel()
	const receivers, joins = 10, 100
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		o := newHeldServer(t, 500, func(r *http.Request) (what, id string) {
			var payload struct{ ID, Trigger string }
			if err := json.NewDecoder(r.Body).Decode(&payload); err != nil {
				t.Error(err)
			}
			return r.Host + " " + payload.Trigger + " " + payload.ID, r.Header.Get("webhook-id")
		})
		node := startProcess(t, append(environ(t, b), "NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true"))
		c, typeID, _ := node.NewQueue()
		var addresses []string
		for range receivers {
			address := o.listen()
			addresses = append(addresses, strings.TrimPrefix(address, "http://"))
			c.Hook("bookingUnassigned", address+"/hook", nil)
		}
		bookings := joinAtOnce(c, typeID, joins)
		o.killWhileHolding(node)
		o.awaitAnswered(node, receivers*joins)

		o.mu.Lock()
		defer o.mu.Unlock()
		require.Len(t, o.received, receivers*joins)
		ids, again := map[string]bool{}, 0
		for _, address := range addresses {
			for _, booking := range bookings {
				d := o.received[address+" bookingUnassigned "+booking]
				require.NotNil(t, d, "%s received nothing about %s", address, booking)
				require.Len(t, d.ids, 1, "one delivery has two ids")
				for id := range d.ids {
					require.False(t, ids[id], "two deliveries have one id")
					ids[id] = true
				}
				if d.attempts > 1 {
					again++
				}
			}
		}
		require.Positive(t, again, "no delivery was under way when the node was killed")
		require.LessOrEqual(t, again, 64, "a node makes no more deliveries at a time")
	})
}

// A node is killed while it sends pushes to patients who were called. Each phone gets its
// push, and one that may arrive a second time is marked as a redelivery.
func TestANodeKilledDuringPushesLosesNoneAndMarksRedeliveries(t *testing.T) {
	t.Parallel()
	const patients = 12
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		var mu sync.Mutex
		again := map[string]bool{}
		o := newHeldServer(t, 5, func(r *http.Request) (what, id string) {
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
		node := startProcess(t, append(environ(t, b), "NOWSERVING_FCM_ENDPOINT="+o.listen()))
		c, typeID, resourceID := node.NewQueue()
		called := map[string]bool{}
		for i := range patients {
			access, token := c.Patient(fmt.Sprintf("+9665000003%02d", i)), fmt.Sprintf("phone-%d", i)
			c.Device(access, token, "ar").OK()
			join := nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: access, Body: nodetest.Joining(typeID, nil)}
			id := c.Send(join).OK().Str("result.id")
			called[token+" MY_BOOKING_ASSIGNED "+id] = true
			c.Act("assign", id, nodetest.Object{"resourceId": resourceID}).OK()
		}
		o.killWhileHolding(node)
		o.awaitAnswered(node, patients)

		o.mu.Lock()
		defer o.mu.Unlock()
		twice := 0
		for what := range called {
			d := o.received[what]
			require.NotNil(t, d, "not received: %s", what)
			require.Len(t, d.ids, 1, what)
			if d.attempts > 1 {
				twice++
				require.True(t, again[what], "a redelivery is not marked: %s", what)
			}
		}
		require.Len(t, o.received, patients)
		require.Positive(t, twice, "no push was under way when the node was killed")
		require.LessOrEqual(t, twice, 4, "a node sends no more pushes at a time")
	})
}
