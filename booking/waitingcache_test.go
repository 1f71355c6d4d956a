package booking

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/models"
)

func TestARosterIsReadForACrowdOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rs := newWaitingCache()
		read := func(ids ...string) {
			list := make([]models.Booking, len(ids))
			for i, id := range ids {
				list[i] = models.Booking{ID: id, Version: 1}
			}
			rs.keep("o", list, waitingLife)
		}
		// misses counts the askers that are sent to the database by themselves
		// before all are read.
		misses := func() (n int) {
			for ; n < 10_000; n++ {
				if b, under, first := rs.find("o", "new", 1); b != nil || under != nil {
					require.True(t, first)
					return n
				}
			}
			return n
		}
		require.Zero(t, misses(), "the first to come after a start is followed by everybody")
		b, under, first := rs.find("o", "a", 1)
		require.Nil(t, b)
		require.NotNil(t, under, "the next waits for the same reading")
		require.False(t, first)
		read("a", "b")

		b, _, _ = rs.find("o", "a", 1)
		require.Equal(t, "a", b.ID)
		b.Note = "mine"
		again, _, _ := rs.find("o", "a", 1)
		require.Empty(t, again.Note, "each has a copy")
		b, under, _ = rs.find("o", "a", 2)
		require.Nil(t, b, "another version is another row")
		require.Nil(t, under)

		// A few now and then are read by themselves.
		for range 100 {
			b, under, _ := rs.find("o", "new", 1)
			require.Nil(t, b)
			require.Nil(t, under)
			<-time.After(missWindow / fewMisses * 2)
		}
		rs.tidy()
		b, _, _ = rs.find("o", "a", 1)
		require.Nil(t, b, "it was of no use for long, and is gone")

		// A crowd on a node that has been up for long.
		<-time.After(2 * missWindow)
		require.Equal(t, fewMisses, misses())
		many := make([]string, 100*rowsPerMiss)
		for i := range many {
			many[i] = models.NewID()
		}
		read(many...)
		require.Equal(t, 100, misses(), "the longer the queue, the more have to come")
	})
}

func TestRostersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rs := newWaitingCache()
		rows := make([]models.Booking, maxWaitingRows)
		for i := range rows {
			rows[i] = models.Booking{ID: models.NewID(), Version: 1}
		}
		for _, o := range []string{"a", "b", "c"} {
			rs.find(o, "x", 1)
			rs.keep(o, rows, waitingLife)
			require.LessOrEqual(t, rs.rows, maxCachedRows)
		}
		b, _, _ := rs.find("c", rows[0].ID, 1)
		require.NotNil(t, b, "the newest is kept")
		<-time.After(2 * waitingLife)
		rs.tidy()
		require.Zero(t, rs.rows)
		<-time.After(2 * organizationLife)
		rs.tidy()
		require.Empty(t, rs.byOrganization)
	})
}
