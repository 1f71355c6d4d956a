package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node/nodetest"
)

// rescueTime is how long deliveries may take after a database is back, or after a node
// was killed.
const rescueTime = 5 * time.Second

// Deliveries are under way when the database or a node is killed, or a node is suspended.
// All are settled within seconds of the moment when a node can go on.
func TestJobsOfAKilledNodeAreDoneWithinSeconds(t *testing.T) {
	t.Parallel()
	server := storetest.OwnPostgres(t)
	environ := append(serverEnviron(server.URL, storetest.Redis(t).URL), "NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true")
	a, b := startProcess(t, environ), startProcess(t, environ)
	c, typeID, _ := a.NewQueue()
	var released atomic.Pointer[chan struct{}] // closed when the receiver may answer
	r := nodetest.NewReceiver(t, func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-*released.Load():
		case <-req.Context().Done():
		}
	})
	c.Hook("bookingUnassigned", r.URL, nil)
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
	// check causes a fault while the receiver holds its answers back. fault calls release,
	// and returns when a node can go on.
	check := func(name string, fault func(release func())) {
		held, before := make(chan struct{}), len(r.Arrivals())
		release := sync.OnceFunc(func() { close(held) })
		t.Cleanup(release)
		released.Store(&held)
		bookings := joinAtOnce(c, typeID, joins)
		r.Await(before + joins)
		fault(release)
		since := time.Now()
		require.Eventually(t, settled, nodetest.Patience, 20*time.Millisecond, name)
		took := time.Since(since)
		t.Logf("%s: the last of %d deliveries was settled after %s", name, joins, took.Round(10*time.Millisecond))
		require.Less(t, took, rescueTime, name)
		ids := map[string]map[string]bool{} // of deliveries, by booking
		for _, arrival := range r.Arrivals() {
			booking, _ := nodetest.At(arrival.Body, "id").(string)
			if ids[booking] == nil {
				ids[booking] = map[string]bool{}
			}
			ids[booking][arrival.ID()] = true
		}
		for _, booking := range bookings {
			require.Len(t, ids[booking], 1, "%s: deliveries of one booking have several ids", name)
		}
	}
	check("PostgreSQL is killed", func(release func()) {
		server.Stop()
		release()
		server.Start()
	})
	check("a node is suspended", func(release func()) {
		require.NoError(t, b.cmd.Process.Signal(syscall.SIGSTOP))
		release()
	})
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGCONT))
	check("a node is killed", func(release func()) {
		b.kill()
		release()
	})
}
