package booking_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking"
	"nowserving/booking/store"
	"nowserving/models"
)

// schedule makes an appointment some days ahead, with one of some rooms.
func (c *clinic) schedule(kind *models.BookingType, days, military int, rooms ...string) (*models.Booking, error) {
	return c.bookings.Schedule(c.t.Context(), c.scope(), booking.Appointment{
		Join: booking.Join{CustomerID: c.customer, TypeID: kind.ID, Filters: booking.Filters{Resources: rooms}},
		Date: time.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly), Time: military,
	})
}

func (c *clinic) appointment(kind *models.BookingType, rooms ...string) *models.Booking {
	c.t.Helper()
	b, err := c.schedule(kind, 3, 1800, rooms...)
	require.NoError(c.t, err)
	return b
}

func (c *clinic) get(id string) *models.Booking {
	c.t.Helper()
	b, err := c.bookings.Get(c.t.Context(), c.id, id)
	require.NoError(c.t, err)
	return b
}

// reminders are what an appointment's customer is reminded of: how long after
// its beginning or end, and how late that is still of use.
var reminders = [...]struct {
	name      models.Reminder
	after     time.Duration
	ofEnd     bool
	tolerance time.Duration
}{
	{models.ReminderDayBefore, -24 * time.Hour, false, 6 * time.Hour},
	{models.ReminderHourBefore, -time.Hour, false, 15 * time.Minute},
	{models.ReminderTenBefore, -10 * time.Minute, false, 5 * time.Minute},
	{models.ReminderAtStart, 0, false, 5 * time.Minute},
	{models.ReminderAfterEnd, 0, true, 6 * time.Hour},
	{models.ReminderDayAfter, 24 * time.Hour, true, 12 * time.Hour},
}

// nextAfter is the reminder that follows the i-th; empty after the last.
func nextAfter(i int) models.Reminder {
	if i+1 < len(reminders) {
		return reminders[i+1].name
	}
	return ""
}

// stand moves an appointment so that its i-th reminder is the next and due at a
// moment.
func (c *clinic) stand(id string, i int, due time.Time) {
	c.t.Helper()
	b := c.get(id)
	due = due.UTC().Truncate(time.Microsecond)
	length := b.EndsAt.Sub(*b.StartsAt)
	starts := due.Add(-reminders[i].after)
	if reminders[i].ofEnd {
		starts = starts.Add(-length)
	}
	c.exec("UPDATE bookings SET starts_at = ?, ends_at = ?, reminder_next = ?, reminder_at = ? WHERE id = ?",
		starts, starts.Add(length), reminders[i].name, due, id)
}

// next waits until a reminder is an appointment's next; empty: until none is.
func (c *clinic) next(id string, name models.Reminder) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return c.get(id).ReminderNext == name }, patience, 5*time.Millisecond, "until %q is next", name)
}

// reminded are the reminders an appointment's customer got, in order.
func (c *clinic) reminded(id string) []models.Reminder {
	c.t.Helper()
	var rows []struct {
		Data models.BookingEvent `gorm:"serializer:json"`
	}
	require.NoError(c.t, c.store.Read(c.t.Context()).Table("events").Select("data").
		Where("booking_id = ? AND type = ?", id, models.EventReminder).Order("id").Find(&rows).Error)
	list := []models.Reminder{}
	for _, row := range rows {
		assert.Equal(c.t, models.ActorSystem, row.Data.By)
		assert.NotNil(c.t, row.Data.StartsAt)
		list = append(list, row.Data.Reminder)
	}
	return list
}

func TestEachReminderComesWhenItIsDue(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(30)
		c.newResource(kind)
		id := c.appointment(kind).ID
		got := []models.Reminder{}
		for i, r := range reminders {
			before := c.get(id)
			require.Equal(t, r.name, before.ReminderNext)
			from := before.StartsAt
			if r.ofEnd {
				from = before.EndsAt
			}
			require.Equal(t, from.Add(r.after).UTC(), before.ReminderAt.UTC(), r.name)

			due := time.Now().Add(200 * time.Millisecond)
			c.stand(id, i, due)
			c.next(id, nextAfter(i))
			after := c.get(id)
			require.Greater(t, after.Version, before.Version)
			require.False(t, after.UpdatedAt.Before(due.Truncate(time.Microsecond)), "%s came too early", r.name)
			require.WithinDuration(t, due, after.UpdatedAt, 5*time.Second, r.name)
			got = append(got, r.name)
			require.Equal(t, got, c.reminded(id))
		}
		require.Nil(t, c.get(id).ReminderAt)
		require.Zero(t, c.bookings.RemindersDropped())
	})
}

// After an outage nothing comes late that is of no use any more, and what still
// is comes.
func TestALateReminderIsDroppedAndTheNextStillComes(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(30)
		var late, inTime [len(reminders)]string
		for i, r := range reminders {
			// Each in a room of its own, so that none is in another's way.
			late[i], inTime[i] = c.appointment(kind, c.newResource(kind).ID).ID, c.appointment(kind, c.newResource(kind).ID).ID
			c.stand(late[i], i, time.Now().Add(-r.tolerance-time.Second))
			c.stand(inTime[i], i, time.Now().Add(-r.tolerance+time.Minute))
		}
		for i, r := range reminders {
			c.next(late[i], nextAfter(i))
			c.next(inTime[i], nextAfter(i))
			require.Empty(t, c.reminded(late[i]), r.name)
			require.Equal(t, []models.Reminder{r.name}, c.reminded(inTime[i]))
		}
		// A reminder is counted a moment after it is no longer the next.
		require.Eventually(t, func() bool { return c.bookings.RemindersDropped() == uint64(len(reminders)) }, patience, 5*time.Millisecond)
	})
}

func TestWhatIsPastWhenAnAppointmentIsMadeIsNotRemindedOf(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(30)
		c.newResource(kind)
		zone, err := time.LoadLocation("Asia/Riyadh")
		require.NoError(t, err)
		starts := time.Now().In(zone).Add(31 * time.Minute)
		b, err := c.bookings.Schedule(t.Context(), c.scope(), booking.Appointment{
			Join: booking.Join{CustomerID: c.customer, TypeID: kind.ID},
			Date: starts.Format(time.DateOnly), Time: starts.Hour()*100 + starts.Minute(),
		})
		require.NoError(t, err)
		require.Equal(t, models.ReminderTenBefore, b.ReminderNext)
		require.Zero(t, c.bookings.RemindersDropped())
	})
}

func TestNobodyIsRemindedOfWhatBecameOfAnAppointment(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(30)
		c.newResource(kind)
		ctx, sc := t.Context(), c.scope()

		canceled := c.appointment(kind)
		_, err := c.bookings.Cancel(ctx, sc, canceled.ID, "")
		require.NoError(t, err)
		require.Nil(t, c.get(canceled.ID).ReminderAt)

		missed := c.appointment(kind)
		_, err = c.bookings.NoShow(ctx, sc, missed.ID)
		require.NoError(t, err)
		require.Nil(t, c.get(missed.ID).ReminderAt)

		moved := c.appointment(kind)
		in, err := c.bookings.Schedule(ctx, sc, booking.Appointment{
			Join: booking.Join{TypeID: kind.ID}, Date: moved.StartsAt.Format(time.DateOnly), Time: 1900, Replaces: moved.ID,
		})
		require.NoError(t, err)
		require.Nil(t, c.get(moved.ID).ReminderAt)
		require.Equal(t, in.StartsAt.Add(-24*time.Hour), *in.ReminderAt)

		// Who came early and left early is asked how it was, and not to come.
		early := c.appointment(kind)
		c.stand(early.ID, 1, time.Now().Add(20*time.Minute))
		_, err = c.bookings.Start(ctx, sc, early.ID)
		require.NoError(t, err)
		served := c.get(early.ID)
		require.Equal(t, models.ReminderAfterEnd, served.ReminderNext)
		require.Equal(t, served.EndsAt.UTC(), served.ReminderAt.UTC())
		c.exec("UPDATE bookings SET starts_at = ? WHERE id = ?", time.Now().Add(-time.Minute).UTC().Truncate(time.Microsecond), early.ID)
		ended, err := c.bookings.End(ctx, sc, early.ID)
		require.NoError(t, err)
		require.Equal(t, ended.EndedAt.UTC(), ended.EndsAt.UTC(), "the appointment ends with the visit")
		c.next(early.ID, models.ReminderDayAfter)
		last := c.get(early.ID)
		require.Equal(t, last.EndedAt.Add(24*time.Hour).UTC(), last.ReminderAt.UTC())
		require.Equal(t, []models.Reminder{models.ReminderAfterEnd}, c.reminded(early.ID))
		for _, id := range []string{canceled.ID, missed.ID, moved.ID} {
			require.Empty(t, c.reminded(id))
		}
		require.Zero(t, c.bookings.RemindersDropped())
	})
}

func TestSeveralNodesRemindOnce(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	c := h.node().clinic(t)
	h.node()
	h.node()
	kind := c.newType(10)
	c.newResource(kind)
	first := c.appointment(kind)
	const n = 130 // more than one batch
	for i := range n - 1 {
		_, err := c.schedule(kind, 4, i/6*100+i%6*10)
		require.NoError(t, err)
	}
	due := time.Now().UTC().Add(300 * time.Millisecond)
	c.exec("UPDATE bookings SET reminder_at = ?", due)
	require.Eventually(t, func() bool { return len(c.events(models.EventReminder)) == n }, patience, 10*time.Millisecond)
	c.next(first.ID, models.ReminderHourBefore)
	for id, times := range c.events(models.EventReminder) {
		require.Equal(t, 1, times, id)
	}
	var last time.Time
	require.NoError(t, c.store.Read(t.Context()).Table("events").Where("type = ?", models.EventReminder).Order("created_at DESC").Limit(1).Pluck("created_at", &last).Error)
	require.WithinDuration(t, due, last, 5*time.Second)
}

// The database refuses an overlap whoever writes it.
func TestTheDatabaseRefusesAnOverlap(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, h *cluster) {
		c := h.node().clinic(t)
		kind := c.newType(30)
		c.newResource(kind)
		first := c.appointment(kind)
		second, err := c.schedule(kind, 3, 1900)
		require.NoError(t, err)
		copied := 0
		insert := func(starts, ends time.Duration, status models.Status, stage models.Stage) error {
			copied++
			return c.store.Tx(t.Context(), func(tx *store.Tx) error {
				return tx.Exec(`INSERT INTO bookings (id, organization_id, customer_id, type_id, resource_id, status, stage, ticket, local_day, priority,
					version, assignment_timeout, created_at, updated_at, starts_at, ends_at)
					SELECT ?, organization_id, customer_id, type_id, resource_id, ?, ?, ?, local_day, 0, 1, 60, created_at, updated_at, ?, ?
					FROM bookings WHERE id = ?`, models.NewID(), status, stage, fmt.Sprintf("X%03d", copied),
					first.StartsAt.Add(starts), first.StartsAt.Add(ends), first.ID).Error
			})
		}
		const half, whole = 15 * time.Minute, 30 * time.Minute
		for _, status := range []models.Status{models.StatusConfirmed, models.StatusPendingApproval, models.StatusPendingPayment} {
			for _, span := range [][2]time.Duration{{0, whole}, {-half, half}, {half, whole + half}, {5 * time.Minute, 10 * time.Minute}, {-half, whole + half}} {
				err := insert(span[0], span[1], status, models.StageNone)
				require.True(t, store.IsOverlap(err), "%s %v: %v", status, span, err)
			}
		}
		require.NoError(t, insert(-half, 0, models.StatusConfirmed, models.StageNone), "back to back")
		require.NoError(t, insert(whole, whole+half, models.StatusConfirmed, models.StageNone), "back to back")
		require.NoError(t, insert(0, whole, models.StatusCanceled, models.StageLeft))
		require.NoError(t, insert(0, whole, models.StatusRejected, models.StageLeft))
		require.NoError(t, insert(0, whole, models.StatusConfirmed, models.StageNoShow))
		require.NoError(t, insert(0, whole, models.StatusConfirmed, models.StageDone))

		update := func(sql string, args ...any) error {
			return c.store.Tx(t.Context(), func(tx *store.Tx) error { return tx.Exec(sql, args...).Error })
		}
		err = update("UPDATE bookings SET starts_at = ?, ends_at = ? WHERE id = ?", *first.StartsAt, *first.EndsAt, second.ID)
		require.True(t, store.IsOverlap(err), "%v", err)
		err = update("UPDATE bookings SET status = 'CONFIRMED', stage = '' WHERE status = 'CANCELED'")
		require.True(t, store.IsOverlap(err), "%v", err)
		require.NoError(t, update("UPDATE bookings SET note = 'a' WHERE id = ?", first.ID), "what does not move it")
		require.NoError(t, update("UPDATE bookings SET ends_at = ? WHERE id = ?", first.StartsAt.Add(half), first.ID), "nor is in its own way")
	})
}
