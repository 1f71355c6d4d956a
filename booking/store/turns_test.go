package store

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// However many requests of one organization wait, another's gets a connection at
// once, and those that wait are served in their order, organization by organization.
func TestOrganizationsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lent := newTurns(4, 2)
		var first []func()
		for range 2 {
			done, err := lent.take(t.Context(), "a")
			require.NoError(t, err)
			first = append(first, done)
		}
		var served []string
		var mu sync.Mutex
		var waiting sync.WaitGroup
		ask := func(id string) {
			waiting.Go(func() {
				done, err := lent.take(t.Context(), id)
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				served = append(served, id)
				mu.Unlock()
				<-time.After(time.Second)
				done()
			})
			synctest.Wait()
		}
		ask("a")
		ask("a")
		require.Empty(t, served, "a has its half")
		ask("b")
		ask("b")
		require.Equal(t, []string{"b", "b"}, served, "the other half is free")
		ask("b")
		ask("c")
		require.Len(t, served, 2, "all are lent")
		for _, done := range first {
			done()
			done() // once more changes nothing
		}
		waiting.Wait()
		require.ElementsMatch(t, []string{"a", "c"}, served[2:4])
		require.ElementsMatch(t, []string{"a", "b"}, served[4:])
		require.Equal(t, 4, lent.free)
		require.Empty(t, lent.used)
		require.Empty(t, lent.waiting)
	})
}

// A request that is given up leaves nothing behind, whatever the moment.
func TestRequestsThatGoGiveTheirConnectionsBack(t *testing.T) {
	t.Parallel()
	lent := newTurns(2, 1)
	var busy, most atomic.Int64
	var requests sync.WaitGroup
	for i := range 2000 {
		requests.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%40)*100*time.Microsecond)
			defer cancel()
			done, err := lent.take(ctx, string(rune('a'+i%7)))
			if err != nil {
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				return
			}
			if now := busy.Add(1); now > most.Load() {
				most.Store(now)
			}
			<-ctx.Done()
			busy.Add(-1)
			done()
		})
	}
	requests.Wait()
	require.LessOrEqual(t, most.Load(), int64(2))
	require.Equal(t, 2, lent.free)
	require.Zero(t, lent.queued)
	require.Empty(t, lent.used)
	require.Empty(t, lent.waiting)
	require.Empty(t, lent.order)
}

// While the database hangs, requests are refused at once, also those that wait.
func TestRequestsDoNotWaitForADatabaseThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lent := newTurns(1, 0)
		done, err := lent.take(t.Context(), "a")
		require.NoError(t, err)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			_, err := lent.take(t.Context(), "b")
			assert.ErrorIs(t, err, errHung)
		})
		synctest.Wait()
		lent.refuse(errHung)
		waiting.Wait()
		_, err = lent.take(t.Context(), "c")
		require.ErrorIs(t, err, errHung)
		done()
		lent.refuse(nil)
		done, err = lent.take(t.Context(), "b")
		require.NoError(t, err)
		done()
		require.Equal(t, 1, lent.free)
	})
}
