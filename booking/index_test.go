package booking_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/models"
)

// heal is how long a wrong answer may live after a failure of the index.
const heal = 5 * time.Second

func TestPositionsSurviveAFlushedRedis(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	kind := c.newType(10)
	room := c.newResource(kind)
	first, second, third := c.join(kind), c.join(kind), c.join(kind)
	require.Equal(t, 3, c.mirrored(third.ID))

	h.redis.FlushAll()
	require.Equal(t, 3, c.position(third.ID), "never wrong, even right after the flush")
	_, err := c.bookings.Assign(t.Context(), c.scope(), first.ID, room.ID)
	require.NoError(t, err)
	require.Equal(t, 1, c.position(second.ID))
	require.Eventually(t, func() bool { return c.mirrored(second.ID) == 1 && c.mirrored(third.ID) == 2 }, heal, 20*time.Millisecond)
	fourth := c.join(kind)
	require.Equal(t, 3, c.mirrored(fourth.ID))
}

func TestTheServiceWorksWithoutRedis(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	kind := c.newType(10)
	room := c.newResource(kind)
	first, second := c.join(kind), c.join(kind)
	require.Equal(t, 2, c.mirrored(second.ID))

	h.redis.Stop()
	require.Eventually(t, func() bool { return !c.mirrors.Linked() }, heal, 10*time.Millisecond)
	_, err := c.bookings.Assign(t.Context(), c.scope(), first.ID, room.ID)
	require.NoError(t, err)
	third := c.join(kind)
	require.Equal(t, 1, c.position(second.ID))
	require.Equal(t, 2, c.position(third.ID))

	h.redis.Start()
	require.Eventually(t, func() bool { return c.mirrored(third.ID) == 2 }, 2*heal, 20*time.Millisecond)
	require.Equal(t, 1, c.mirrored(second.ID))
}

func TestAStalledRedisStopsNobody(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	kind := c.newType(10)
	c.newResource(kind)
	first := c.join(kind)
	require.Equal(t, 1, c.mirrored(first.ID))

	h.redis.Pause()
	second := c.join(kind)
	require.Equal(t, 2, c.position(second.ID))
	require.Eventually(t, func() bool { return !c.mirrors.Linked() }, 2*heal, 20*time.Millisecond)
	h.redis.Resume()
	require.Eventually(t, func() bool { return c.mirrored(second.ID) == 2 }, 2*heal, 20*time.Millisecond)
}

// A process that dies between commit and index leaves a change that only the
// database knows; to this node it looks like a row that changed by itself.
func TestAChangeTheIndexNeverHeardOfIsRepaired(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(10)
		room := c.newResource(kind)
		first, second := c.join(kind), c.join(kind)
		require.Equal(t, 2, c.mirrored(second.ID))
		before, _ := c.index.Repairs()

		c.exec("UPDATE bookings SET status = 'CONFIRMED', stage = 'CALLED', resource_id = ?, version = version + 1 WHERE id = ?", room.ID, first.ID)
		require.Eventually(t, func() bool { return c.mirrored(second.ID) == 1 }, heal, 20*time.Millisecond)
		require.Zero(t, c.mirrored(first.ID))
		c.exec("UPDATE bookings SET status = 'PENDING_ASSIGNMENT', stage = 'WAITING', resource_id = NULL, version = version + 1 WHERE id = ?", first.ID)
		require.Eventually(t, func() bool { return c.mirrored(second.ID) == 2 }, heal, 20*time.Millisecond)
		c.exec("DELETE FROM bookings WHERE id = ?", first.ID)
		require.Eventually(t, func() bool { return c.mirrored(second.ID) == 1 }, heal, 20*time.Millisecond)
		require.Eventually(t, func() bool { // counted when it is done
			after, _ := c.index.Repairs()
			return after-before >= 3
		}, heal, time.Millisecond)
	})
}

func TestDamageToTheSortedSetsIsRepaired(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	kind := c.newType(10)
	room := c.newResource(kind)
	other := c.newResource(kind)
	var last *models.Booking
	for range 5 {
		last = c.join(kind)
	}
	require.Equal(t, 5, c.mirrored(last.ID))
	options, err := redis.ParseURL(h.redis.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer func() { require.NoError(t, rdb.Close()) }()
	queueKey := "ns:{" + c.id + "}:queue:"

	// Somebody removes one, moves one, and adds a stranger.
	require.NoError(t, rdb.ZRem(t.Context(), queueKey+room.ID, last.ID).Err())
	require.NoError(t, rdb.ZAdd(t.Context(), queueKey+other.ID, redis.Z{Score: 1, Member: last.ID}).Err())
	require.NoError(t, rdb.ZAdd(t.Context(), queueKey+room.ID, redis.Z{Score: 2, Member: "stranger"}).Err())
	require.Eventually(t, func() bool {
		scores, err := rdb.ZRangeWithScores(t.Context(), queueKey+room.ID, 0, -1).Result()
		others, otherErr := rdb.ZRangeWithScores(t.Context(), queueKey+other.ID, 0, -1).Result()
		return err == nil && otherErr == nil && len(scores) == 5 && len(others) == 5 &&
			scores[4].Member == last.ID && others[4].Member == last.ID
	}, heal, 20*time.Millisecond)
	require.Eventually(t, func() bool { return c.mirrored(last.ID) == 5 }, heal, 20*time.Millisecond)
}

// A pause is no booking: the index keeps nothing of it, and says on which version it
// stands.
func TestAPauseIsAnnouncedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	kind := c.newType(10)
	room := c.newResource(kind)
	waits := c.join(kind)
	require.Equal(t, 1, c.mirrored(waits.ID))
	options, err := redis.ParseURL(h.redis.URL)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	defer func() { require.NoError(t, rdb.Close()) }()
	contents := func() (version int, keys []string) {
		version, err := rdb.HGet(t.Context(), "ns:{"+c.id+"}:state", "version").Int()
		require.NoError(t, err)
		keys, err = rdb.Keys(t.Context(), "ns:{"+c.id+"}:*").Result()
		require.NoError(t, err)
		return version, keys
	}
	version, before := contents()
	for _, paused := range []bool{true, false} {
		_, err := c.bookings.SetPaused(t.Context(), c.scope(), room.ID, paused)
		require.NoError(t, err)
	}
	c.bookings.AnnounceCatalogue(t.Context(), c.id)
	now, after := contents()
	require.Equal(t, version+3, now)
	require.ElementsMatch(t, before, after)
	require.Equal(t, 1, c.mirrored(waits.ID))
}

func TestNodesOnOneRedisAgree(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	a, b := h.node(), h.node()
	here := a.clinic(t)
	there := &clinic{b, t, here.id, here.customer}
	kind := here.newType(10)
	room := here.newResource(kind)
	first, second := here.join(kind), there.join(kind)
	require.Equal(t, 2, here.mirrored(second.ID))
	require.Equal(t, 2, there.mirrored(second.ID))
	_, err := there.bookings.Assign(t.Context(), there.scope(), first.ID, room.ID)
	require.NoError(t, err)
	require.Equal(t, 1, here.mirrored(second.ID), "a reader on the other node sees the change at once")

	// A new resource, and one switched off, move people at once as well.
	other := here.newType(10)
	left := here.newResource(other)
	foreign := here.join(other)
	require.NoError(t, here.bookings.DeleteResource(t.Context(), here.scope(), left.ID, false))
	require.Equal(t, 1, here.mirrored(foreign.ID), "no resource serves it: counted within its type")
	shared := here.newResource(kind, other)
	require.Equal(t, 2, there.mirrored(foreign.ID))
	_, err = here.catalog.UpdateResource(t.Context(), here.id, shared.ID, func(_ *store.Tx, r *models.Resource) error {
		r.On = false
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, there.mirrored(foreign.ID))
}
