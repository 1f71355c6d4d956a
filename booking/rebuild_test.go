package booking_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"nowserving/booking"
	"nowserving/models"
)

// crowded is an organization with many waiting bookings, as several nodes see it.
type crowded struct {
	nodes []*clinic
	types []*models.BookingType
	rooms []*models.Resource
	rdb   *redis.Client
	redis func() // loses everything
}

// newCrowded starts nodes and makes n bookings wait for four types. Each type
// is served by two rooms, and a third room serves all types.
func newCrowded(t testing.TB, nodes, n int) *crowded {
	h := onPostgres(t)
	first := h.node().clinic(t)
	w := &crowded{nodes: []*clinic{first}, redis: h.redis.FlushAll}
	for range 4 {
		kind := first.newType(10)
		w.types = append(w.types, kind)
		w.rooms = append(w.rooms, first.newResource(kind), first.newResource(kind))
	}
	w.rooms = append(w.rooms, first.newResource(w.types...))
	ids := make([]string, len(w.types))
	for i, kind := range w.types {
		ids[i] = kind.ID
	}
	first.exec(`INSERT INTO bookings (id, organization_id, customer_id, type_id, status, stage, ticket, local_day,
			priority, version, assignment_timeout, assignment_deadline, created_at, updated_at, pending_at)
		SELECT substr(md5(n::text), 1, 20), ?, ?, (string_to_array(?, ','))[1 + n % ?], 'PENDING_ASSIGNMENT', 'WAITING',
			'X' || n, '2026-01-01', n % 3, 1 + n % 7, 60, now() + interval '1 day', now(), clock_timestamp(), now()
		FROM generate_series(1, ?) AS n`, first.id, first.customer, strings.Join(ids, ","), len(ids), n)
	first.exec("ANALYZE bookings")
	for range nodes - 1 {
		w.nodes = append(w.nodes, &clinic{h.node(), t, first.id, first.customer})
	}
	options, err := redis.ParseURL(h.redis.URL)
	require.NoError(t, err)
	w.rdb = redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, w.rdb.Close()) })
	require.NoError(t, w.rdb.ConfigSet(t.Context(), "slowlog-log-slower-than", "0").Err())
	require.NoError(t, w.rdb.ConfigSet(t.Context(), "slowlog-max-len", "100000").Err())
	for _, c := range w.nodes {
		_, release := c.mirrors.Hold(c.id)
		t.Cleanup(release)
		require.Eventually(t, c.live, patience, time.Millisecond)
	}
	return w
}

// recovery is how long after a flush everything was right again.
type recovery struct {
	whole, live time.Duration
	// slowest is the command that kept Redis busy for longest.
	slowest time.Duration
	// longest is the most arguments of a command.
	longest int
}

// lose flushes Redis and waits until the index is whole and all nodes are live.
func (w *crowded) lose(t testing.TB) recovery {
	t.Helper()
	require.NoError(t, w.rdb.Do(t.Context(), "SLOWLOG", "RESET").Err())
	c := w.nodes[0]
	var r recovery
	w.redis()
	began := time.Now()
	require.Eventually(t, func() bool {
		state, err := w.rdb.HGet(t.Context(), "ns:{"+c.id+"}:state", "epoch").Result()
		if r.whole == 0 && err == nil && state != "" {
			r.whole = time.Since(began)
		}
		if r.whole == 0 {
			return false
		}
		for _, node := range w.nodes {
			if !node.live() || node.mirrored("") != 0 {
				return false
			}
		}
		return true
	}, patience, 5*time.Millisecond)
	r.live = time.Since(began)
	w.commands(t, &r)
	return r
}

var left = regexp.MustCompile(`^\.\.\. \((\d+) more arguments\)$`)

// commands looks through what Redis has carried out.
func (w *crowded) commands(t testing.TB, r *recovery) {
	logs, err := w.rdb.SlowLogGet(t.Context(), -1).Result()
	require.NoError(t, err)
	for _, l := range logs {
		name := strings.ToLower(l.Args[0])
		// The nodes also read the list of nodes every some seconds.
		if name == "flushall" || slices.Contains(l.Args, "ns:connections:nodes") {
			continue
		}
		require.NotContains(t, []string{"hgetall", "hkeys", "hvals", "zrange", "keys"}, name, "it reads everything at once")
		r.slowest = max(r.slowest, l.Duration)
		length := len(l.Args)
		if more := left.FindStringSubmatch(l.Args[length-1]); more != nil {
			n, err := strconv.Atoi(more[1])
			require.NoError(t, err)
			length += n - 1
		}
		r.longest = max(r.longest, length)
	}
}

// traffic joins and calls on every node until stop is called, which returns the
// bookings that still wait.
func (w *crowded) traffic(t testing.TB) (stop func() []*models.Booking) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var joined []*models.Booking
	var working sync.WaitGroup
	for n, c := range w.nodes {
		working.Go(func() {
			for i := n; ctx.Err() == nil; i++ {
				b, _, err := c.bookings.Join(ctx, c.id, booking.Join{CustomerID: c.customer, TypeID: w.types[i%len(w.types)].ID})
				if err == nil {
					mu.Lock()
					joined = append(joined, b)
					mu.Unlock()
					_, err = c.bookings.Next(ctx, c.scope(), w.rooms[i%len(w.rooms)].ID)
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("a change during the rebuild: %v", err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return func() []*models.Booking {
		cancel()
		working.Wait()
		return joined
	}
}

// requireRight compares every node with the database.
func (w *crowded) requireRight(t testing.TB, joined []*models.Booking) {
	t.Helper()
	c := w.nodes[0]
	ranks := map[string]int{}
	var rows []struct {
		ID string
		N  int
	}
	require.NoError(t, c.store.Read(t.Context()).Raw(`SELECT id, row_number() OVER (PARTITION BY type_id ORDER BY priority DESC, seq) AS n
		FROM bookings WHERE organization_id = ? AND stage = 'WAITING'`, c.id).Scan(&rows).Error)
	for _, row := range rows {
		ranks[row.ID] = row.N
	}
	require.NotEmpty(t, joined)
	for _, node := range w.nodes {
		require.Eventually(t, func() bool { return node.mirrored(rows[0].ID) == ranks[rows[0].ID] }, patience, time.Millisecond)
		for _, b := range joined {
			require.Equal(t, ranks[b.ID], node.mirrored(b.ID), "of %s", b.Ticket)
		}
		for i := 0; i < len(rows); i += len(rows) / 100 {
			require.Equal(t, rows[i].N, node.mirrored(rows[i].ID))
		}
	}
	members, err := w.rdb.HLen(t.Context(), "ns:{"+c.id+"}:members").Result()
	require.NoError(t, err)
	require.EqualValues(t, len(rows), members)
}

// requireSteady compares everything and requires that nothing was wrong, and
// that no node has lost its link.
func (w *crowded) requireSteady(t testing.TB) {
	t.Helper()
	for _, c := range w.nodes {
		_, before := c.index.Repairs()
		mended, err := c.index.Repair(t.Context(), c.id, 100*time.Millisecond)
		require.NoError(t, err)
		require.Zero(t, mended)
		_, after := c.index.Repairs()
		require.Equal(t, before, after, "rebuilt once more")
		require.Zero(t, c.mirrors.LinksLost())
		require.True(t, c.live())
	}
}

// BenchmarkLostIndex is how long an organization with 100,000 waiting bookings
// takes to be live again on two nodes after Redis was flushed.
func BenchmarkLostIndex(b *testing.B) {
	for _, nodes := range []int{1, 2} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			w := newCrowded(b, nodes, 100_000)
			var worst recovery
			for b.Loop() {
				stop := w.traffic(b)
				r := w.lose(b)
				w.requireRight(b, stop())
				w.requireSteady(b)
				worst = recovery{max(worst.whole, r.whole), max(worst.live, r.live), max(worst.slowest, r.slowest), r.longest}
			}
			b.ReportMetric(worst.whole.Seconds(), "whole-s")
			b.ReportMetric(worst.live.Seconds(), "live-s")
			b.ReportMetric(float64(worst.slowest.Milliseconds()), "slowest-command-ms")
		})
	}
}

// A large index is lost amid joins and calls on two nodes: both become live
// again, no change is lost, no node rebuilds it twice, and no command reads or
// writes more than a piece. How long it takes is for BenchmarkLostIndex.
func TestALargeIndexIsRebuiltInPieces(t *testing.T) {
	t.Parallel()
	w := newCrowded(t, 2, 5_000)
	stop := w.traffic(t)
	r := w.lose(t)
	t.Logf("whole after %v, live after %v, slowest command %v", r.whole, r.live, r.slowest)
	w.requireRight(t, stop())
	w.requireSteady(t)
	require.Less(t, r.longest, 2000, "arguments of one command")
}
