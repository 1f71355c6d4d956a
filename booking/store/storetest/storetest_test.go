package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking/store/storetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestPostgresGivesEachTestAnEmptyDatabaseAndDropsIt(t *testing.T) {
	var first string
	t.Run("while the test runs", func(t *testing.T) {
		first = storetest.Postgres(t)
		second := storetest.Postgres(t)
		require.NotEqual(t, first, second)

		conn := connect(t, first)
		_, err := conn.Exec(t.Context(), "CREATE TABLE visits (id int)")
		require.NoError(t, err)
		var tables int
		err = connect(t, second).QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables)
		require.NoError(t, err)
		assert.Zero(t, tables, "a table of one test shows in another's database")
		// Left open on purpose: dropping must not wait for a forgotten connection.
		_, err = pgx.Connect(t.Context(), first)
		require.NoError(t, err)
	})

	_, err := pgx.Connect(t.Context(), first)
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "3D000", refused.Code, "the database must be gone")
}

func TestOwnPostgresKeepsItsDataAndItsAddress(t *testing.T) {
	server := storetest.OwnPostgres(t)
	address := server.URL
	conn := connect(t, address)
	_, err := conn.Exec(t.Context(), "CREATE TABLE visits AS SELECT 1 AS id")
	require.NoError(t, err)

	server.Stop()
	server.Stop()
	require.Error(t, conn.Ping(t.Context()))
	_, err = pgx.Connect(t.Context(), address)
	require.Error(t, err, "a stopped server must not answer")

	server.Start()
	require.Equal(t, address, server.URL)
	var id int
	require.NoError(t, connect(t, address).QueryRow(t.Context(), "SELECT id FROM visits").Scan(&id))
}

func TestPostgresWithoutServerFailsWithAHint(t *testing.T) {
	t.Setenv("NOWSERVING_TEST_DATABASE_URL", "")
	message := failure(t, func(t testing.TB) { storetest.Postgres(t) })
	assert.Contains(t, message, "make test")
}

func TestRedisWithoutProgramFailsWithAHint(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	message := failure(t, func(t testing.TB) { storetest.Redis(t) })
	assert.Contains(t, message, "make test")
}

func TestRedisServersAreSeparate(t *testing.T) {
	one, two := storetest.Redis(t), storetest.Redis(t)
	require.NotEqual(t, one.URL, two.URL)

	require.NoError(t, client(t, one).Set(t.Context(), "ticket", "A001", 0).Err())
	assert.ErrorIs(t, client(t, two).Get(t.Context(), "ticket").Err(), redis.Nil)
}

func TestRedisStopLosesTheDataAndStartKeepsTheAddress(t *testing.T) {
	server := storetest.Redis(t)
	address := server.URL
	c := client(t, server)
	require.NoError(t, c.Set(t.Context(), "ticket", "A001", 0).Err())

	server.Stop()
	server.Stop()
	require.Error(t, c.Ping(t.Context()).Err(), "a stopped server must not answer")

	server.Start()
	require.Equal(t, address, server.URL)
	assert.ErrorIs(t, c.Get(t.Context(), "ticket").Err(), redis.Nil)
}

func TestRedisPauseFreezesAndResumeGoesOn(t *testing.T) {
	server := storetest.Redis(t)
	c := client(t, server)
	require.NoError(t, c.Set(t.Context(), "ticket", "A001", 0).Err())

	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, c.Ping(ctx).Err(), "a paused server must not answer")

	server.Resume()
	ticket, err := c.Get(t.Context(), "ticket").Result()
	require.NoError(t, err)
	assert.Equal(t, "A001", ticket, "a pause must lose nothing")

	server.Pause()
	server.Stop()
	server.Start()
	require.NoError(t, c.Ping(t.Context()).Err(), "a server stopped while paused must start again")
}

func TestRedisFlushAllEmptiesTheServer(t *testing.T) {
	server := storetest.Redis(t)
	c := client(t, server)
	require.NoError(t, c.Set(t.Context(), "ticket", "A001", 0).Err())
	server.FlushAll()
	size, err := c.DBSize(t.Context()).Result()
	require.NoError(t, err)
	assert.Zero(t, size)
}

func TestRedisIsGoneWhenTheTestEnds(t *testing.T) {
	var c *redis.Client
	t.Run("while the test runs", func(inner *testing.T) {
		c = client(t, storetest.Redis(inner))
		require.NoError(inner, c.Ping(inner.Context()).Err())
	})
	assert.Error(t, c.Ping(t.Context()).Err())
}

func TestClusterKeepsItsSlotsWhenAShardIsAway(t *testing.T) {
	c := storetest.Cluster(t)
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addresses(c.Shards...), MaxRedirects: -1})
	t.Cleanup(func() { assert.NoError(t, cluster.Close()) })
	// Each key is on the shard of the same place: "b" 3300, "c" 7365, "a" 15495.
	keys := []string{"b", "c", "a"}
	for _, key := range keys {
		require.NoError(t, cluster.Set(t.Context(), key, "here", 0).Err())
	}
	for i, key := range keys {
		size, err := client(t, c.Shards[i]).DBSize(t.Context()).Result()
		require.NoError(t, err)
		assert.EqualValues(t, 1, size, "%s is on another shard", key)
	}

	c.Shards[1].Stop()
	require.Error(t, cluster.Get(t.Context(), keys[1]).Err())
	require.NoError(t, cluster.Get(t.Context(), keys[2]).Err())
	c.Shards[1].Start()
	require.Eventually(t, func() bool { return errors.Is(cluster.Get(t.Context(), keys[1]).Err(), redis.Nil) }, 30*time.Second, 10*time.Millisecond)
}

func TestSentinelReplacesTheMaster(t *testing.T) {
	s := storetest.Sentinel(t)
	options, err := redis.ParseFailoverURL(strings.Replace(s.URL, "+sentinel", "", 1))
	require.NoError(t, err)
	c := redis.NewFailoverClient(options)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	require.NoError(t, c.Set(t.Context(), "ticket", "A001", 0).Err())
	require.EqualValues(t, 1, c.Wait(t.Context(), 1, time.Second).Val(), "the replica has the data")

	s.Master.Stop()
	require.Eventually(t, func() bool { return c.Set(t.Context(), "ticket", "A002", 0).Err() == nil }, 30*time.Second, 10*time.Millisecond)
	assert.Equal(t, "A002", client(t, s.Replica).Get(t.Context(), "ticket").Val())
}

// addresses are those of servers.
func addresses(servers ...*storetest.RedisServer) []string {
	var all []string
	for _, s := range servers {
		all = append(all, strings.TrimSuffix(strings.TrimPrefix(s.URL, "redis://"), "/0"))
	}
	return all
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
	return conn
}

// client connects to the server by its published address, and gives up at the
// first error.
func client(t *testing.T, server *storetest.RedisServer) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	options.MaxRetries, options.DialerRetries = -1, 1
	options.ContextTimeoutEnabled = true
	c := redis.NewClient(options)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

// failure runs f with a test of its own and returns what that test was failed
// with.
func failure(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	fake := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(fake)
	}()
	<-done
	require.NotEmpty(t, fake.message, "the test must fail")
	return fake.message
}

// failing is a test that remembers what it was failed with.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
