package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
)

// rescueTime is how long news may take after a database is back, or after a node
// has died.
const rescueTime = 5 * time.Second

// receiver takes webhooks. While it is slow, it holds its answers back.
type receiver struct {
	url string

	mu       sync.Mutex
	held     int
	released chan struct{}              // closed while it is not slow
	ids      map[string]map[string]bool // of deliveries, by booking
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{ids: map[string]map[string]bool{}, released: make(chan struct{})}
	close(r.released)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	t.Cleanup(r.release)
	r.url = server.URL
	return r
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var payload struct{ ID string }
	if err := json.NewDecoder(req.Body).Decode(&payload); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	if r.ids[payload.ID] == nil {
		r.ids[payload.ID] = map[string]bool{}
	}
	r.ids[payload.ID][req.Header.Get("webhook-id")] = true
	r.held++
	released := r.released
	r.mu.Unlock()
	select {
	case <-released:
	case <-req.Context().Done():
	}
}

func (r *receiver) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held, r.released = 0, make(chan struct{})
}

func (r *receiver) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.released:
	default:
		close(r.released)
	}
}

func (r *receiver) holds(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held >= n
}

// Deliveries are under way when the database or a node dies, or a node is
// stopped. All are settled within seconds of the moment when a node can go on.
func TestJobsOfTheDeadAreDoneWithinSeconds(t *testing.T) {
	t.Parallel()
	server := storetest.OwnPostgres(t)
	environ := []string{
		"DATABASE_URL=" + server.URL, "REDIS_URL=" + storetest.Redis(t).URL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef",
		"NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true",
	}
	a, b := startProcess(t, environ), startProcess(t, environ)
	typeID, _ := a.clinic()
	b.appID = a.appID
	r := newReceiver(t)
	status, answer, err := a.try("POST", "/management/webhooks", map[string]any{"trigger": "bookingUnassigned", "url": r.url})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, string(answer))
	const joins = 20
	// settled reports whether every delivery is, and no job is left.
	settled := func() (done bool) {
		a.database(func(ctx context.Context, conn *pgx.Conn) {
			var left int
			err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM webhook_deliveries WHERE status <> 'delivered')
				+ (SELECT count(*) FROM river_job WHERE state NOT IN ('completed', 'scheduled'))`).Scan(&left)
			done = assert.NoError(t, err) && left == 0
		})
		return done
	}
	// check breaks something while deliveries are held. fault returns when a node
	// can go on.
	check := func(name string, fault func()) {
		r.hold()
		bookings := a.joinAtOnce(typeID, joins)
		require.Eventually(t, func() bool { return r.holds(joins) }, patience, time.Millisecond, name)
		fault()
		since := time.Now()
		require.Eventually(t, settled, patience, 20*time.Millisecond, name)
		took := time.Since(since)
		t.Logf("%s: the last of %d deliveries was settled after %s", name, joins, took.Round(10*time.Millisecond))
		require.Less(t, took, rescueTime, name)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, id := range bookings {
			require.Len(t, r.ids[id], 1, "%s: a booking was told under several ids", name)
		}
	}
	check("PostgreSQL is killed", func() {
		server.Stop()
		r.release()
		server.Start()
	})
	check("a node is stopped", func() {
		require.NoError(t, b.cmd.Process.Signal(syscall.SIGSTOP))
		r.release()
	})
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGCONT))
	check("a node is killed", func() {
		b.kill()
		r.release()
	})
}
