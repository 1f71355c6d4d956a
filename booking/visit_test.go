package booking_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking"
	"nowserving/booking/queue"
	"nowserving/models"
)

// events counts the events of a type, by booking.
func (c *clinic) events(kind models.EventType) map[string]int {
	c.t.Helper()
	var ids []string
	require.NoError(c.t, c.store.Read(c.t.Context()).Table("events").
		Where("organization_id = ? AND type = ?", c.id, kind).Pluck("booking_id", &ids).Error)
	counts := map[string]int{}
	for _, id := range ids {
		counts[id]++
	}
	return counts
}

func TestSeveralNodesExpireABookingOnce(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	h.node()
	h.node()
	kind := c.newType(10)
	c.newResource(kind)
	const n = 250 // more than one batch
	for range n {
		c.join(kind)
	}
	survivor := c.join(kind)
	require.Equal(t, n+1, c.mirrored(survivor.ID))

	deadline := time.Now().UTC().Add(300 * time.Millisecond)
	c.exec("UPDATE bookings SET assignment_deadline = ? WHERE id <> ?", deadline, survivor.ID)
	require.Eventually(t, func() bool { return c.mirrored(survivor.ID) == 1 }, patience, 10*time.Millisecond)

	expired := c.events(models.EventExpired)
	require.Len(t, expired, n)
	for id, times := range expired {
		require.Equal(t, 1, times, id)
	}
	var late []models.Booking
	require.NoError(t, c.store.Read(t.Context()).Where("status = ?", models.StatusRejected).Find(&late).Error)
	require.Len(t, late, n)
	first := *late[0].EndedAt
	for i := range late {
		require.False(t, late[i].EndedAt.Before(deadline), "not before its deadline")
		require.WithinDuration(t, deadline, *late[i].EndedAt, 10*time.Second, "and as soon as the machine can")
		if late[i].EndedAt.Before(first) {
			first = *late[i].EndedAt
		}
	}
	require.WithinDuration(t, deadline, first, time.Second, "within a second of it")
}

func TestOneWinnerAmongManyNodes(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	first := h.node().clinic(t)
	nodes := []*clinic{first, {h.node(), t, first.id, first.customer}, {h.node(), t, first.id, first.customer}}
	kind := first.newType(10)
	room := first.newResource(kind)
	for range 20 {
		b := first.join(kind)
		const callers = 64
		var won atomic.Int64
		codes := make([]models.Code, callers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				<-start
				n := nodes[i%len(nodes)]
				if _, err := n.bookings.Assign(t.Context(), n.scope(), b.ID, room.ID); err != nil {
					codes[i] = models.CodeOf(err)
				} else {
					won.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
		lost := slices.DeleteFunc(codes, func(c models.Code) bool { return c != models.CodeAlreadyAssigned })
		require.Len(t, lost, callers-1)
		require.Equal(t, 1, first.events(models.EventAssigned)[b.ID])
	}
}

// Every patient is called once, in order, however many doctors call at once,
// while others come, step aside, return and leave.
func TestCallNextUnderLoad(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(10)
		rooms := []*models.Resource{c.newResource(kind), c.newResource(kind), c.newResource(kind), c.newResource(kind)}
		const patients = 60
		var joined sync.Map
		var coming sync.WaitGroup
		for p := range patients {
			coming.Go(func() {
				b, _, err := c.bookings.Join(t.Context(), c.id, booking.Join{CustomerID: c.customer, TypeID: kind.ID, Priority: p % 3})
				if err != nil {
					t.Error(err)
					return
				}
				joined.Store(b.ID, b)
				if p%10 == 0 {
					if _, err := c.bookings.Hold(t.Context(), c.scope(), b.ID); err == nil {
						_, _, err = c.bookings.Return(t.Context(), c.scope(), b.ID)
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		coming.Wait()
		var mu sync.Mutex
		var called []*models.Booking
		var doctors sync.WaitGroup
		for _, room := range rooms {
			doctors.Go(func() {
				for {
					b, err := c.bookings.Next(t.Context(), c.scope(), room.ID)
					if models.CodeOf(err) == models.CodeQueueEmpty {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					called = append(called, b)
					mu.Unlock()
				}
			})
		}
		doctors.Wait()
		require.Len(t, called, patients)
		seen := map[string]bool{}
		perRoom := map[string]int64{}
		slices.SortStableFunc(called, func(a, b *models.Booking) int { return a.CalledAt.Compare(*b.CalledAt) })
		for _, b := range called {
			require.False(t, seen[b.ID], "called twice")
			seen[b.ID] = true
			score := queue.Score(b.Priority, b.Seq)
			require.Greater(t, score, perRoom[*b.ResourceID], "each doctor sees the queue in order")
			perRoom[*b.ResourceID] = score
		}
		for id, n := range c.events(models.EventAssigned) {
			require.Equal(t, 1, n, id)
		}
	})
}

func TestTicketsAreNeverRepeated(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		a, b := c.newType(10), c.newType(10)
		c.newResource(a, b)
		var mu sync.Mutex
		tickets := map[string]bool{}
		draw := func(kind *models.BookingType) {
			booked, _, err := c.bookings.Join(t.Context(), c.id, booking.Join{CustomerID: c.customer, TypeID: kind.ID})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if tickets[booked.Ticket] {
				t.Errorf("ticket %s drawn twice", booked.Ticket)
			}
			tickets[booked.Ticket] = true
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { draw(a) })
			wg.Go(func() { draw(b) })
		}
		wg.Wait()
		require.Len(t, tickets, 100)
		for n := range 50 {
			require.True(t, tickets[fmt.Sprintf("A%03d", n+1)])
			require.True(t, tickets[fmt.Sprintf("B%03d", n+1)])
		}
		// Prefixes change hands in the middle of a day.
		a.Prefix = "C"
		require.NoError(t, c.catalog.UpdateType(t.Context(), a))
		b.Prefix = "A"
		require.NoError(t, c.catalog.UpdateType(t.Context(), b))
		draw(b)
		require.True(t, tickets["A051"])
	})
}

// The first wait a customer was promised is kept and scored when they are
// called.
func TestQuotesAreScored(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(10)
		room := c.newResource(kind)
		c.join(kind)
		second := c.join(kind)
		// As if it had been so before it is called, for the score may follow at once.
		c.exec("UPDATE bookings SET pending_at = ? WHERE id = ?", second.PendingAt.Add(-12*time.Minute), second.ID)
		_, err := c.bookings.Assign(t.Context(), c.scope(), second.ID, room.ID)
		require.NoError(t, err)
		type score struct {
			BookingID string
			Likely    int
			Waited    float64
			Error     float64
			Kept      bool
		}
		var scores []score
		require.Eventually(t, func() bool {
			scores = nil
			err := c.store.Read(context.WithoutCancel(t.Context())).Table("quote_scores").Find(&scores).Error
			return err == nil && len(scores) == 1
		}, patience, 20*time.Millisecond)
		require.Equal(t, second.ID, scores[0].BookingID)
		require.Equal(t, 10, scores[0].Likely)
		require.InDelta(t, 12.5, scores[0].Waited, 0.5)
		require.InDelta(t, scores[0].Waited-10, scores[0].Error, 0.01)
		require.True(t, scores[0].Kept)
	})
}
