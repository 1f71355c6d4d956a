package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
)

// driftTime is how long the index may differ from the database after it was
// changed behind the service's back.
const driftTime = 30 * time.Second

// missing asks a node what it misses; nil when it is ready.
func (w *ward) missing(node int) (parts map[string]string, err error) {
	status, body, err := w.nodes[node].try("GET", "/readyz", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusServiceUnavailable && status != http.StatusOK {
		return nil, fmt.Errorf("/readyz: %d %s", status, body)
	}
	var problem struct {
		Errors []struct{ Field, Message string }
	}
	if err := json.Unmarshal(body, &problem); err != nil || len(problem.Errors) == 0 {
		return nil, err
	}
	parts = map[string]string{}
	for _, e := range problem.Errors {
		parts[e.Field] = e.Message
	}
	return parts, nil
}

// says waits until /readyz of a node names a part.
func (w *ward) says(node int, part, message string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		parts, err := w.missing(node)
		return err == nil && strings.Contains(parts[part], message)
	}, patience, 50*time.Millisecond, "node %d never said that it misses the %s", node, part)
}

func (w *ward) ready(node int) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		parts, err := w.missing(node)
		return err == nil && parts == nil
	}, patience, 50*time.Millisecond, "node %d is not ready", node)
}

// metric reads one of a node's counters.
func (w *ward) metric(node int, name string) float64 {
	w.t.Helper()
	status, body, err := w.nodes[node].try("GET", "/metrics", nil)
	require.NoError(w.t, err)
	require.Equal(w.t, http.StatusOK, status)
	_, rest, found := strings.Cut(string(body), "\nnowserving_"+name+" ")
	require.True(w.t, found, "no metric %s", name)
	var value float64
	_, err = fmt.Sscan(rest, &value)
	require.NoError(w.t, err)
	return value
}

func TestRedisIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	w := openWard(t, 12, storetest.Postgres(t), server.URL)
	server.Stop()
	w.says(0, "queueIndex", "seconds")
	w.says(1, "queueIndex", "seconds")
	w.last(3 * time.Second)
	server.Start()
	w.heals(time.Now(), healTime)
	for i := range w.nodes {
		w.ready(i)
		require.NotZero(t, w.answers(i).marked)
		require.NotZero(t, w.metric(i, "redis_links_lost_total"))
	}
	require.NotZero(t, w.metric(0, "index_rebuilds_total")+w.metric(1, "index_rebuilds_total"))
	w.closes()
}

func TestRedisIsFlushed(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	w := openWard(t, 12, storetest.Postgres(t), server.URL)
	rebuilt := w.metric(0, "index_rebuilds_total") + w.metric(1, "index_rebuilds_total")
	for range 3 {
		server.FlushAll()
		w.last(2 * time.Second)
	}
	w.heals(time.Now(), healTime)
	require.GreaterOrEqual(t, w.metric(0, "index_rebuilds_total")+w.metric(1, "index_rebuilds_total"), rebuilt+3)
	w.closes()
}

func TestRedisStallsForHalfAMinute(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	w := openWard(t, 12, storetest.Postgres(t), server.URL)
	server.Pause()
	w.last(30 * time.Second)
	for i := range w.nodes {
		w.says(i, "queueIndex", "for 3") // 30 seconds and some
	}
	server.Resume()
	w.heals(time.Now(), healTime)
	for i := range w.nodes {
		w.ready(i)
		require.NotZero(t, w.answers(i).marked)
		require.NotZero(t, w.metric(i, "redis_links_lost_total"))
	}
	w.closes()
}

// The connection over which a node hears of changes hangs, while its commands
// go through: it is not to take what it hears for all there is.
func TestANodeHearsNothing(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	cut := newWire(t, server.URL)
	w := openWard(t, 12, storetest.Postgres(t), cut.url, server.URL)
	cut.set(true)
	w.says(0, "queueIndex", "seconds")
	held := time.Now()
	for time.Since(held) < 8*time.Second {
		parts, err := w.missing(0)
		require.NoError(t, err)
		require.Contains(t, parts, "queueIndex", "it hears of nothing, all the time")
		require.NotContains(t, parts, "redis", "it can give commands")
		parts, err = w.missing(1)
		require.NoError(t, err)
		require.Empty(t, parts, "the other node hears everything")
		w.last(100 * time.Millisecond)
	}
	require.NotZero(t, cut.heldBack(), "the proxy has cut nothing")
	cut.set(false)
	w.heals(time.Now(), healTime)
	w.ready(0)
	require.NotZero(t, w.answers(0).marked)
	w.closes()
}

// Somebody damages the sorted sets behind the service's back, and a node has to
// read them just then.
func TestTheSortedSetsAreDamaged(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	w := openWard(t, 120, storetest.Postgres(t), server.URL)
	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer rdb.Close() //nolint:errcheck // the test is over
	sets := []string{"ns:{" + w.nodes[0].appID + "}:queue:" + w.resourceID, "ns:{" + w.nodes[0].appID + "}:queue:" + w.typeID}
	repaired := w.metric(0, "index_repairs_total") + w.metric(1, "index_repairs_total")

	damage := func() {
		added, removed := 0, 0
		for i := range 100 {
			set := sets[i%2]
			n, err := rdb.ZAdd(t.Context(), set, redis.Z{Score: rand.Float64() * 1e18, Member: fmt.Sprintf("stranger-%d", i)}).Result()
			require.NoError(t, err)
			added += int(n)
			victim, err := rdb.ZRandMember(t.Context(), set, 1).Result()
			require.NoError(t, err)
			n, err = rdb.ZRem(t.Context(), set, victim[0]).Result()
			require.NoError(t, err)
			removed += int(n)
		}
		require.Equal(t, [2]int{100, 100}, [2]int{added, removed})
	}
	mended := func(damaged time.Time) {
		require.Eventually(t, func() bool {
			w.turn.Lock() // nobody comes or goes meanwhile
			defer w.turn.Unlock()
			order, err := w.truth()
			if err != nil {
				return false
			}
			for _, set := range sets {
				members, err := rdb.ZRange(t.Context(), set, 0, -1).Result()
				if err != nil || !slices.Equal(members, order) {
					return false
				}
			}
			return true
		}, time.Until(damaged.Add(driftTime)), 200*time.Millisecond)
	}

	damage() // and nobody looks
	mended(time.Now())
	damage()
	damaged := time.Now()
	require.NoError(t, rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
	mended(damaged)
	w.heals(damaged, driftTime)
	require.NotEqual(t, repaired, w.metric(0, "index_repairs_total")+w.metric(1, "index_repairs_total"))
	w.closes()
}

// A node dies in the middle of its work; its patients go to the other one.
func TestANodeIsKilled(t *testing.T) {
	t.Parallel()
	w := openWard(t, 12, storetest.Postgres(t), storetest.Redis(t).URL)
	w.last(time.Second)
	// What it committed and told nobody is found by the other node.
	w.grace.Store(int64(healTime))
	w.nodes[0].kill()
	killed := time.Now()
	w.turn.Lock()
	w.out[0] = true
	w.turn.Unlock()
	w.last(2 * time.Second)
	w.heals(killed, healTime)
	_, _, err := w.nodes[0].try("GET", "/healthz", nil)
	require.Error(t, err)
	w.nodes[0].start()
	w.turn.Lock()
	w.out[0] = false
	w.turn.Unlock()
	w.closes()
}

func TestANodeHangsForTwentySeconds(t *testing.T) {
	t.Parallel()
	w := openWard(t, 12, storetest.Postgres(t), storetest.Redis(t).URL)
	w.turn.Lock()
	w.out[0] = true
	w.turn.Unlock()
	require.NoError(t, w.nodes[0].cmd.Process.Signal(syscall.SIGSTOP))
	stopped := time.Now()
	w.last(time.Second)
	answered := w.answers(0)
	for time.Since(stopped) < 20*time.Second {
		w.last(time.Second)
		require.Equal(t, answered, w.answers(0), "a stopped node answers nothing")
	}
	require.NoError(t, w.nodes[0].cmd.Process.Signal(syscall.SIGCONT))
	w.turn.Lock()
	w.out[0] = false
	w.turn.Unlock()
	w.heals(time.Now(), healTime)
	w.ready(0)
	w.closes()
}

func TestPostgresStopsForHalfAMinute(t *testing.T) {
	t.Parallel()
	server := storetest.OwnPostgres(t)
	w := openWard(t, 12, server.URL, storetest.Redis(t).URL)
	w.last(time.Second)
	// A change may be committed in the moment of the stop, and told to nobody.
	w.grace.Store(int64(healTime))
	server.Stop()
	w.says(0, "database", "")
	w.says(1, "database", "")
	w.last(30 * time.Second)
	server.Start()
	w.heals(time.Now(), healTime)
	for i := range w.nodes {
		w.ready(i)
		require.NotZero(t, w.answers(i).refused)
	}
	w.closes()
}

// wire stands between a node and a server. When it is cut, connections hang: all
// of them, or only those that subscribe.
type wire struct {
	url string
	all bool

	connections atomic.Int64 // accepted so far

	mu    sync.Mutex
	whole chan struct{} // closed while the wire is not cut
	held  int           // pieces held back so far
}

// newWire carries to a Redis and cuts connections that subscribe.
func newWire(t *testing.T, redisURL string) *wire {
	t.Helper()
	return openWire(t, redisURL, false)
}

func openWire(t *testing.T, server string, all bool) *wire {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	address := u.Host
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u.Host = listener.Addr().String()
	c := &wire{url: u.String(), all: all, whole: make(chan struct{})}
	close(c.whole)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			c.connections.Add(1)
			carrying.Go(func() { c.carry(ctx, client, address) })
		}
	})
	t.Cleanup(func() {
		c.set(false)
		stop()
		listener.Close() //nolint:errcheck // nobody comes any more
		carrying.Wait()
	})
	return c
}

func (c *wire) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.whole:
		if cut {
			c.whole = make(chan struct{})
		}
	default:
		if !cut {
			close(c.whole)
		}
	}
}

func (c *wire) heldBack() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// hold waits while the wire is cut and reports whether it was.
func (c *wire) hold() bool {
	c.mu.Lock()
	whole := c.whole
	select {
	case <-whole:
		c.mu.Unlock()
		return false
	default:
	}
	c.held++
	c.mu.Unlock()
	<-whole
	return true
}

// carry passes everything between the two ends of a connection.
func (c *wire) carry(ctx context.Context, client net.Conn, address string) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		client.Close() //nolint:errcheck // nothing was said
		return
	}
	end := sync.OnceFunc(func() {
		client.Close() //nolint:errcheck // one of the two has gone
		server.Close() //nolint:errcheck // likewise
	})
	defer context.AfterFunc(ctx, end)()
	var subscribes atomic.Bool
	subscribes.Store(c.all)
	pass := func(to io.Writer, from io.Reader, commands bool) {
		defer end()
		piece := make([]byte, 32<<10)
		for {
			n, err := from.Read(piece)
			if commands && bytes.Contains(bytes.ToLower(piece[:n]), []byte("subscribe")) {
				subscribes.Store(true)
			}
			if subscribes.Load() && c.hold() {
				return // a connection that hung for so long is given up
			}
			if err != nil {
				return
			}
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
	}
	var back sync.WaitGroup
	back.Go(func() { pass(client, server, false) })
	pass(server, client, true)
	back.Wait()
}
