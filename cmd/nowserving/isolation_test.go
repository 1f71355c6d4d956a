package main

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node/nodetest"
)

// rightAgain bounds how long a clinic's requests wait because of another node or of the
// database: twice the promised 5 s, because these nodes share two processors with other
// tests. Without the measures it takes 15 s.
const rightAgain = 10 * time.Second

// A node is suspended in the middle of a transaction that holds a clinic's lock. On the
// other node that clinic's requests soon succeed, and those of other clinics do not wait.
func TestASuspendedNodeDelaysItsClinicBrieflyAndNoOther(t *testing.T) {
	t.Parallel()
	database := storetest.Postgres(t)
	environ := serverEnviron(database, storetest.Redis(t).URL)
	suspended, running := startProcess(t, environ), startProcess(t, environ)
	clinic, typeID, _ := suspended.NewQueue()
	through := clinic.Through(running.Node)
	other, otherType, _ := running.NewQueue()
	locked := suspendAmidJoins(t, suspended, clinic, typeID, database)

	var asking sync.WaitGroup
	for i := range 60 {
		asking.Go(func() {
			a, err := through.TryJoin(typeID)
			took := time.Since(locked)
			assert.NoError(t, err)
			assert.Equal(t, http.StatusOK, a.Status, "%s", a.Raw)
			assert.Less(t, took, rightAgain)
			if i == 0 {
				t.Log("right again after", took)
			}
		})
	}
	for time.Since(locked) < rightAgain {
		began := time.Now()
		other.Join(otherType, nil)
		require.Less(t, time.Since(began), time.Second, "another clinic does not wait")
	}
	asking.Wait()
	require.NoError(t, suspended.cmd.Process.Signal(syscall.SIGCONT))
	require.Eventually(t, func() bool {
		a, err := clinic.TryJoin(typeID)
		return err == nil && a.Status == http.StatusOK
	}, nodetest.Patience, 50*time.Millisecond)
}

// suspendAmidJoins suspends a node while it holds a lock, and returns the time.
func suspendAmidJoins(t *testing.T, node *process, c *nodetest.Clinic, typeID, database string) time.Time {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // the end of a test
	var joining sync.WaitGroup
	t.Cleanup(joining.Wait)
	suspended := make(chan struct{})
	defer close(suspended)
	for range 16 {
		joining.Go(func() {
			for {
				select {
				case <-suspended:
					return
				default:
					c.TryJoin(typeID) //nolint:errcheck // the node may be suspended
				}
			}
		})
	}
	for {
		require.NoError(t, node.cmd.Process.Signal(syscall.SIGSTOP))
		at := time.Now()
		var holders int
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
			WHERE a.datname = current_database() AND a.state = 'idle in transaction' AND l.locktype = 'transactionid' AND l.granted
			AND a.pid = ANY (SELECT unnest(pg_blocking_pids(b.pid)) FROM pg_stat_activity b WHERE b.datname = current_database())`).Scan(&holders)
		require.NoError(t, err)
		if holders > 0 {
			return at
		}
		require.NoError(t, node.cmd.Process.Signal(syscall.SIGCONT))
	}
}

// Requests fail within 2 s if the database accepts connections and does not answer. They
// succeed again within 5 s of its return.
func TestRequestsFailSoonWhileTheDatabaseIsFrozen(t *testing.T) {
	t.Parallel()
	proxy := startProxy(t, storetest.Postgres(t), true)
	c, typeID, _ := startProcess(t, serverEnviron(proxy.url, storetest.Redis(t).URL)).NewQueue()
	booked := c.Join(typeID, nil).Str("id")
	unseen := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "unseen"}).OK().Str("result.key")
	for range 2 {
		proxy.hang(true)
		frozen := time.Now()
		var asking sync.WaitGroup
		answers := func(what string, status int, method, path string, header map[string]string) {
			r := nodetest.Request{Method: method, Path: path, Token: c.Key, Header: header}
			if method == http.MethodPut {
				r.Body = nodetest.Joining(typeID, nil)
			}
			asking.Go(func() {
				a, err := c.Try(r)
				took := time.Since(frozen)
				assert.NoError(t, err, what)
				assert.Equal(t, status, a.Status, what)
				assert.Less(t, took, 2*time.Second+busyDelay, what)
			})
		}
		const down = http.StatusServiceUnavailable
		newOrigin := func() string { return "https://" + strings.ToLower(rand.Text()) + ".example" }
		for range 20 {
			answers("a join", down, http.MethodPut, nodetest.JoinPath, nil)
			answers("a read", down, http.MethodGet, "/management/bookings/"+booked, nil)
			answers("a key that was not seen before", down, http.MethodGet, "/management/types", map[string]string{"Authorization": "Bearer " + unseen})
			answers("an operator's page", down, http.MethodGet, "/metrics", map[string]string{"Authorization": "Bearer " + unseen})
			answers("another site", down, http.MethodGet, "/management/bookings", map[string]string{"Origin": newOrigin()})
			answers("a page that a site may frame", http.StatusOK, http.MethodGet, "/join/"+c.ID, nil)
		}
		answers("a preflight", http.StatusMethodNotAllowed, http.MethodOptions, "/management/types", map[string]string{
			"Origin": newOrigin(), "Access-Control-Request-Method": "GET",
		})
		asking.Wait()
		t.Log("all answered after", time.Since(frozen))
		began := time.Now()
		a, err := c.TryJoin(typeID)
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, a.Status)
		require.Less(t, time.Since(began), busyDelay, "later requests fail at once")
		opened := proxy.connections.Load()
		require.Never(t, func() bool { return proxy.connections.Load() > opened+3 }, time.Second, 50*time.Millisecond,
			"only the check of the database connects, not the workers")
		proxy.hang(false)
		thawed := time.Now()
		require.Eventually(t, func() bool {
			a, err := c.TryJoin(typeID)
			return err == nil && a.Status == http.StatusOK
		}, nodetest.Patience, 50*time.Millisecond)
		require.Less(t, time.Since(thawed), rightAgain)
		t.Log("right again after", time.Since(thawed))
	}
}

// busyDelay is how much longer a request may take because the machine is busy.
const busyDelay = 500 * time.Millisecond

// One clinic makes sixty appointments at a time.
func TestAFloodInOneClinicDoesNotSlowAnother(t *testing.T) {
	t.Parallel()
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		node := startProcess(t, environ(t, b))
		c, typeID, resourceID := node.NewQueue()
		other, otherType, _ := node.NewQueue()
		booked := other.Join(otherType, nil).Str("id")
		slowest := func() time.Duration {
			var took []time.Duration
			for range 500 {
				began := time.Now()
				a, err := other.TryStaff(http.MethodGet, "/management/bookings/"+booked, nil)
				took = append(took, time.Since(began))
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, a.Status, "%s", a.Raw)
			}
			slices.Sort(took)
			return took[len(took)*99/100]
		}
		alone := slowest()
		var flood sync.WaitGroup
		end := make(chan struct{})
		for i := range 60 {
			flood.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-end:
						return
					default:
					}
					body := nodetest.Appointment(typeID, nodetest.Day(2+n%300), 900+i/4*100%1000+i%4*15, nodetest.With(resourceID))
					a, err := c.TryStaff(http.MethodPut, nodetest.JoinPath, body)
					if !assert.NoError(t, err) || !assert.Less(t, a.Status, http.StatusInternalServerError, "%s", a.Raw) {
						return
					}
				}
			})
		}
		flooded := slowest()
		close(end)
		flood.Wait()
		t.Logf("p99 alone %v, flooded %v, ratio %.1f", alone, flooded, float64(flooded)/float64(alone))
		// On a quiet machine it is about three times as long. Others use this one too.
		assert.Less(t, flooded, max(5*alone, 150*time.Millisecond))
	})
}
