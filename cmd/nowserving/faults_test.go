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
	"nowserving/cmd/nowserving/node/nodetest"
)

// repairTime is how long the index may differ from the database after it was
// changed by another program.
const repairTime = 30 * time.Second

// missing returns the parts that a node reports as missing, nil if it is ready.
func (c *cluster) missing(node int) (parts map[string]string, err error) {
	status, body, err := c.nodes[node].get("/readyz")
	if err != nil {
		return nil, err
	}
	if status != http.StatusServiceUnavailable && status != http.StatusOK {
		return nil, fmt.Errorf("/readyz: %d %s", status, body)
	}
	var problem struct {
		Errors []struct{ Field, Message string }
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || len(problem.Errors) == 0 {
		return nil, err
	}
	parts = map[string]string{}
	for _, e := range problem.Errors {
		parts[e.Field] = e.Message
	}
	return parts, nil
}

// awaitUnready waits until /readyz of a node names a part with a message.
func (c *cluster) awaitUnready(node int, part, message string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		parts, err := c.missing(node)
		return err == nil && strings.Contains(parts[part], message)
	}, nodetest.Patience, 50*time.Millisecond, "node %d did not report that the %s is missing", node, part)
}

func (c *cluster) awaitReady(node int) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		parts, err := c.missing(node)
		return err == nil && parts == nil
	}, nodetest.Patience, 50*time.Millisecond, "node %d is not ready", node)
}

// sum adds up a counter of both nodes.
func (c *cluster) sum(name string) float64 {
	c.t.Helper()
	return metric(c.nodes[0].Node, "nowserving_"+name) + metric(c.nodes[1].Node, "nowserving_"+name)
}

func TestPositionsAreRightAfterRedisIsKilledAndStarted(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	c := startCluster(t, 12, storetest.Postgres(t), server.URL)
	server.Stop()
	c.awaitUnready(0, "queueIndex", "seconds")
	c.awaitUnready(1, "queueIndex", "seconds")
	c.wait(3 * time.Second)
	server.Start()
	c.recovers(time.Now(), recoveryTime)
	for i := range c.nodes {
		c.awaitReady(i)
		require.NotZero(t, c.answers(i).aged)
		require.NotZero(t, metric(c.nodes[i].Node, "nowserving_redis_links_lost_total"))
	}
	require.NotZero(t, c.sum("index_rebuilds_total"))
	c.losesNothing()
}

func TestPositionsAreRightAfterRedisIsFlushed(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	c := startCluster(t, 12, storetest.Postgres(t), server.URL)
	rebuilt := c.sum("index_rebuilds_total")
	for range 3 {
		server.FlushAll()
		c.wait(2 * time.Second)
	}
	c.recovers(time.Now(), recoveryTime)
	require.GreaterOrEqual(t, c.sum("index_rebuilds_total"), rebuilt+3)
	c.losesNothing()
}

func TestPositionsAreRightAfterRedisHangsForHalfAMinute(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	c := startCluster(t, 12, storetest.Postgres(t), server.URL)
	server.Pause()
	c.wait(30 * time.Second)
	for i := range c.nodes {
		c.awaitUnready(i, "queueIndex", "for 3") // 30 seconds and some
	}
	server.Resume()
	c.recovers(time.Now(), recoveryTime)
	for i := range c.nodes {
		c.awaitReady(i)
		require.NotZero(t, c.answers(i).aged)
		require.NotZero(t, metric(c.nodes[i].Node, "nowserving_redis_links_lost_total"))
	}
	c.losesNothing()
}

// The connection over which a node receives changes hangs, while its commands go through.
// The node must not take its mirror for current.
func TestANodeThatReceivesNoChangesIsNotReady(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	proxy := startProxy(t, server.URL, false)
	c := startCluster(t, 12, storetest.Postgres(t), proxy.url, server.URL)
	proxy.hang(true)
	c.awaitUnready(0, "queueIndex", "seconds")
	held := time.Now()
	for time.Since(held) < 8*time.Second {
		parts, err := c.missing(0)
		require.NoError(t, err)
		require.Contains(t, parts, "queueIndex", "it receives no changes")
		require.NotContains(t, parts, "redis", "its commands go through")
		parts, err = c.missing(1)
		require.NoError(t, err)
		require.Empty(t, parts, "the other node receives all changes")
		c.wait(100 * time.Millisecond)
	}
	require.NotZero(t, proxy.heldBack(), "the proxy held nothing back")
	proxy.hang(false)
	c.recovers(time.Now(), recoveryTime)
	c.awaitReady(0)
	require.NotZero(t, c.answers(0).aged)
	c.losesNothing()
}

// Another program damages the sorted sets. The second time, both nodes have to read them
// just then.
func TestSortedSetsAreRepairedAfterAnotherProgramDamagedThem(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	c := startCluster(t, 120, storetest.Postgres(t), server.URL)
	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer rdb.Close() //nolint:errcheck // the test is over
	sets := []string{"ns:{" + c.clinics[0].ID + "}:queue:" + c.resourceID, "ns:{" + c.clinics[0].ID + "}:queue:" + c.typeID}
	repaired := c.sum("index_repairs_total")

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
	awaitRepair := func(damaged time.Time) {
		require.Eventually(t, func() bool {
			c.changing.Lock() // the queue does not change meanwhile
			defer c.changing.Unlock()
			order, err := c.storedOrder()
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
		}, time.Until(damaged.Add(repairTime)), 200*time.Millisecond)
	}

	damage() // no node reads the sets
	awaitRepair(time.Now())
	damage()
	damaged := time.Now()
	require.NoError(t, rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
	awaitRepair(damaged)
	c.recovers(damaged, repairTime)
	require.NotEqual(t, repaired, c.sum("index_repairs_total"))
	c.losesNothing()
}

func TestPositionsAreRightAfterANodeIsKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 12, storetest.Postgres(t), storetest.Redis(t).URL)
	c.wait(time.Second)
	// The other node finds the changes that were committed and not published.
	c.grace.Store(int64(recoveryTime))
	c.nodes[0].kill()
	killed := time.Now()
	c.exclude(0, true)
	c.wait(2 * time.Second)
	c.recovers(killed, recoveryTime)
	_, _, err := c.nodes[0].get("/healthz")
	require.Error(t, err)
	c.nodes[0].start()
	c.exclude(0, false)
	c.losesNothing()
}

func TestPositionsAreRightAfterANodeHangsForTwentySeconds(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 12, storetest.Postgres(t), storetest.Redis(t).URL)
	c.exclude(0, true)
	require.NoError(t, c.nodes[0].cmd.Process.Signal(syscall.SIGSTOP))
	stopped := time.Now()
	c.wait(time.Second)
	answered := c.answers(0)
	for time.Since(stopped) < 20*time.Second {
		c.wait(time.Second)
		require.Equal(t, answered, c.answers(0), "a stopped node answers nothing")
	}
	require.NoError(t, c.nodes[0].cmd.Process.Signal(syscall.SIGCONT))
	c.exclude(0, false)
	c.recovers(time.Now(), recoveryTime)
	c.awaitReady(0)
	c.losesNothing()
}

func TestPositionsAreRightAfterPostgresStopsForHalfAMinute(t *testing.T) {
	t.Parallel()
	server := storetest.OwnPostgres(t)
	c := startCluster(t, 12, server.URL, storetest.Redis(t).URL)
	c.wait(time.Second)
	// A change may be committed at the moment of the stop, and not published.
	c.grace.Store(int64(recoveryTime))
	server.Stop()
	c.awaitUnready(0, "database", "")
	c.awaitUnready(1, "database", "")
	c.wait(30 * time.Second)
	server.Start()
	c.recovers(time.Now(), recoveryTime)
	for i := range c.nodes {
		c.awaitReady(i)
		require.NotZero(t, c.answers(i).refused)
	}
	c.losesNothing()
}

// faultyProxy is a TCP proxy between a node and a server that can let connections hang:
// all of them, or only those that subscribe in Redis.
type faultyProxy struct {
	url string
	all bool

	connections atomic.Int64 // accepted so far

	mu      sync.Mutex
	passing chan struct{} // closed while nothing hangs
	held    int           // pieces held back so far
}

// startProxy starts a proxy before a server. With all, hang affects every connection.
func startProxy(t *testing.T, server string, all bool) *faultyProxy {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	address := u.Host
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u.Host = listener.Addr().String()
	p := &faultyProxy{url: u.String(), all: all, passing: make(chan struct{})}
	close(p.passing)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.connections.Add(1)
			running.Go(func() { p.carry(ctx, client, address) })
		}
	})
	t.Cleanup(func() {
		p.hang(false)
		stop()
		listener.Close() //nolint:errcheck // the end of a test
		running.Wait()
	})
	return p
}

// hang lets connections hang, or lets those that hang end.
func (p *faultyProxy) hang(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.passing:
		if on {
			p.passing = make(chan struct{})
		}
	default:
		if !on {
			close(p.passing)
		}
	}
}

func (p *faultyProxy) heldBack() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// hold waits while connections hang, and reports whether they did.
func (p *faultyProxy) hold() bool {
	p.mu.Lock()
	passing := p.passing
	select {
	case <-passing:
		p.mu.Unlock()
		return false
	default:
	}
	p.held++
	p.mu.Unlock()
	<-passing
	return true
}

// carry passes everything between the two ends of a connection.
func (p *faultyProxy) carry(ctx context.Context, client net.Conn, address string) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		client.Close() //nolint:errcheck // nothing was written
		return
	}
	end := sync.OnceFunc(func() {
		client.Close() //nolint:errcheck // one of the two is closed
		server.Close() //nolint:errcheck // likewise
	})
	defer context.AfterFunc(ctx, end)()
	var subscribes atomic.Bool
	subscribes.Store(p.all)
	pass := func(to io.Writer, from io.Reader, commands bool) {
		defer end()
		piece := make([]byte, 32<<10)
		for {
			n, err := from.Read(piece)
			if commands && bytes.Contains(bytes.ToLower(piece[:n]), []byte("subscribe")) {
				subscribes.Store(true)
			}
			if subscribes.Load() && p.hold() {
				return // a connection that has hung is closed
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
