package booking_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// rejoin is how long a shard may take to be back in its cluster, or a Sentinel
// to replace a master.
const rejoin = 30 * time.Second

// onRedis is onPostgres with another kind of Redis.
func onRedis(t *testing.T, redisURL string) *cluster {
	return &cluster{t: t, backend: nodetest.Postgres, redisURL: redisURL}
}

// pair is a clinic as two nodes know it, with one resource.
type pair struct {
	here, there *clinic
	kind        *models.BookingType
	room        *models.Resource
	shard       int
}

// everywhere makes clinics until every shard of a cluster has one. A shard may
// get several.
func everywhere(t *testing.T, cluster *storetest.RedisCluster, a, b *node) []*pair {
	var pairs []*pair
	found := map[int]bool{}
	for len(found) < len(cluster.Shards) {
		here := a.clinic(t)
		p := &pair{here: here, there: &clinic{b, t, here.id, here.customer}, shard: cluster.Shard("ns:{" + here.id + "}:state")}
		p.kind = here.newType(10)
		p.room = here.newResource(p.kind)
		pairs = append(pairs, p)
		found[p.shard] = true
	}
	return pairs
}

// turn lets two patients join and one be served, through both nodes, and
// requires that each mirror hears of it at once. It returns the one who waits.
func (p *pair) turn(t *testing.T) *models.Booking {
	t.Helper()
	first, second := p.here.join(p.kind), p.there.join(p.kind)
	require.Equal(t, 2, p.here.mirrored(second.ID))
	require.Equal(t, 2, p.there.mirrored(second.ID))
	_, err := p.there.bookings.Assign(t.Context(), p.there.scope(), first.ID, p.room.ID)
	require.NoError(t, err)
	require.Equal(t, 1, p.here.mirrored(second.ID))
	require.Equal(t, 1, p.there.mirrored(second.ID))
	return second
}

// clear serves the one who waits.
func (p *pair) clear(t *testing.T, last *models.Booking) {
	t.Helper()
	_, err := p.here.bookings.Assign(t.Context(), p.here.scope(), last.ID, p.room.ID)
	require.NoError(t, err)
}

// live reports whether a node's mirror follows the index.
func (c *clinic) live() bool {
	m, release := c.mirrors.Hold(c.id)
	defer release()
	_, live := m.AsOf()
	return live
}

// On a cluster a delta stays on its shard, and reaches every node.
func TestEveryShardTellsEveryNode(t *testing.T) {
	t.Parallel()
	cluster := storetest.Cluster(t)
	h := onRedis(t, cluster.URL)
	for _, p := range everywhere(t, cluster, h.node(), h.node()) {
		p.here.mirrored("") // loads the mirrors
		p.there.mirrored("")
		before := cluster.Shards[p.shard].Calls()
		p.turn(t)
		after := cluster.Shards[p.shard].Calls()
		require.Equal(t, 3, after["spublish"]-before["spublish"], "a delta for each change")
		// The nodes announce now and then that they have read the revocations.
		require.Less(t, after["publish"]-before["publish"], 3, "published to every server of the cluster")
	}
}

// A shard that dies is healed when it is back, and the clinics of the others
// notice nothing.
func TestAShardDiesAndComesBack(t *testing.T) {
	t.Parallel()
	cluster := storetest.Cluster(t)
	h := onRedis(t, cluster.URL)
	a, b := h.node(), h.node()
	pairs := everywhere(t, cluster, a, b)
	for _, p := range pairs {
		p.clear(t, p.turn(t))
	}
	dead := pairs[0].shard
	cluster.Shards[dead].Stop()
	require.Eventually(t, func() bool { return !a.mirrors.Linked() && !b.mirrors.Linked() }, heal, 5*time.Millisecond)
	waiting := map[*pair]*models.Booking{}
	for _, p := range pairs {
		if p.shard != dead {
			require.True(t, p.here.live())
			p.clear(t, p.turn(t))
			continue
		}
		require.False(t, p.here.live())
		p.here.join(p.kind)
		waiting[p] = p.there.join(p.kind)
		require.Equal(t, 2, p.here.position(waiting[p].ID))
		require.Equal(t, 2, p.there.position(waiting[p].ID))
	}

	cluster.Shards[dead].Start()
	for p, last := range waiting {
		require.Eventually(t, func() bool {
			return p.here.mirrored(last.ID) == 2 && p.there.mirrored(last.ID) == 2 && p.here.live() && p.there.live()
		}, rejoin, 20*time.Millisecond)
	}
	require.True(t, a.mirrors.Linked())
}

// The slot of a clinic moves to another shard: the links follow.
func TestAClinicMovesToAnotherShard(t *testing.T) {
	t.Parallel()
	cluster := storetest.Cluster(t)
	h := onRedis(t, cluster.URL)
	p := everywhere(t, cluster, h.node(), h.node())[0]
	p.clear(t, p.turn(t))
	to := (p.shard + 1) % len(cluster.Shards)
	cluster.Move("ns:{"+p.here.id+"}:state", to)
	before := cluster.Shards[to].Calls()["spublish"]
	last := p.here.join(p.kind)
	require.Eventually(t, func() bool {
		return p.here.live() && p.there.live() && p.here.mirrored(last.ID) == 1 && p.there.mirrored(last.ID) == 1
	}, heal, 20*time.Millisecond)
	p.clear(t, last)
	p.turn(t)
	require.Equal(t, 5, cluster.Shards[to].Calls()["spublish"]-before, "heard on the new shard")
}

func TestASentinelReplacesTheMaster(t *testing.T) {
	t.Parallel()
	sentinel := storetest.Sentinel(t)
	h := onRedis(t, sentinel.URL)
	a, b := h.node(), h.node()
	here := a.clinic(t)
	p := &pair{here: here, there: &clinic{b, t, here.id, here.customer}}
	p.kind = here.newType(10)
	p.room = here.newResource(p.kind)
	last := p.turn(t)

	sentinel.Master.Stop()
	require.Equal(t, 1, p.there.position(last.ID))
	next := p.there.join(p.kind)
	require.Equal(t, 2, p.here.position(next.ID))
	require.Eventually(t, func() bool {
		return p.here.live() && p.there.live() && p.here.mirrored(next.ID) == 2 && p.there.mirrored(next.ID) == 2
	}, rejoin, 20*time.Millisecond)
	p.clear(t, last)
	p.clear(t, next)
	p.turn(t)
	require.NotZero(t, sentinel.Replica.Calls()["publish"])
}

// Nodes that all lose their link at the same moment do not all read the index
// anew at the same moment.
func TestNodesReadTheIndexAnewOneAfterAnother(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	first := h.node().clinic(t)
	kind := first.newType(10)
	first.newResource(kind)
	nodes := []*clinic{first}
	for range 7 {
		nodes = append(nodes, &clinic{h.node(), t, first.id, first.customer})
	}
	first.join(kind)
	for _, c := range nodes {
		require.Eventually(t, c.live, heal, time.Millisecond)
	}
	options, err := redis.ParseURL(h.redis.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer func() { require.NoError(t, rdb.Close()) }()
	require.NoError(t, rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
	lost := func() bool {
		return !slices.ContainsFunc(nodes, func(c *clinic) bool { return c.mirrors.LinksLost() == 0 })
	}
	require.Eventually(t, lost, heal, time.Millisecond)

	cut := time.Now()
	back := map[*clinic]time.Duration{}
	require.Eventually(t, func() bool {
		for _, c := range nodes {
			if _, was := back[c]; !was && c.live() {
				back[c] = time.Since(cut)
			}
		}
		return len(back) == len(nodes)
	}, heal, 2*time.Millisecond)
	times := slices.Sorted(maps.Values(back))
	require.Greater(t, times[len(times)-1]-times[0], 250*time.Millisecond, "%v", times)
}
