package booking

import (
	"context"
	"fmt"
	"slices"
	"time"

	"nowserving/booking/store"
	"nowserving/models"
)

// reminder is when one of an appointment's reminders is due, and how late it is
// still of use: one that could not be sent in time is dropped, not sent late.
type reminder struct {
	name      models.Reminder
	ofEnd     bool          // counted from the end, not the beginning
	after     time.Duration // negative: before
	tolerance time.Duration
}

// reminders are in the order they are due (the document's webhooks).
var reminders = []reminder{
	{models.ReminderDayBefore, false, -24 * time.Hour, 6 * time.Hour},
	{models.ReminderHourBefore, false, -time.Hour, 15 * time.Minute},
	{models.ReminderTenBefore, false, -10 * time.Minute, 5 * time.Minute},
	{models.ReminderAtStart, false, 0, 5 * time.Minute},
	{models.ReminderAfterEnd, true, 0, 6 * time.Hour},
	{models.ReminderDayAfter, true, 24 * time.Hour, 12 * time.Hour},
}

func (r reminder) due(b *models.Booking) time.Time {
	if r.ofEnd {
		return b.EndsAt.UTC().Add(r.after)
	}
	return b.StartsAt.UTC().Add(r.after)
}

// reminderOf is the place of a reminder in the table.
func reminderOf(name models.Reminder) int {
	return slices.IndexFunc(reminders, func(r reminder) bool { return r.name == name })
}

// setReminder makes the i-th reminder the next one; beyond the last, none.
func setReminder(b *models.Booking, i int) {
	b.ReminderNext, b.ReminderAt = "", nil
	if i < len(reminders) {
		due := reminders[i].due(b)
		b.ReminderNext, b.ReminderAt = reminders[i].name, &due
	}
}

// scheduleReminders leaves out what is past already when an appointment is made.
func scheduleReminders(b *models.Booking, now time.Time) {
	i := slices.IndexFunc(reminders, func(r reminder) bool { return r.due(b).After(now) })
	setReminder(b, i)
}

// settle fits the reminders of an appointment, and its end, to what has become
// of it: nobody is reminded to come who is there, or of what won't be.
func settle(tx *store.Tx, b *models.Booking) error {
	next := len(reminders)
	switch b.Stage {
	case models.StageServing, models.StageDone:
		if b.Stage == models.StageDone && b.EndsAt.After(tx.Now) {
			// It may have ended before it was to begin.
			ended := *b.StartsAt
			if tx.Now.After(ended) {
				ended = tx.Now
			}
			b.EndsAt = &ended
		}
		if b.ReminderNext != "" {
			next = max(reminderOf(b.ReminderNext), reminderOf(models.ReminderAfterEnd))
		}
	default:
	}
	setReminder(b, next)
	set := map[string]any{"ends_at": b.EndsAt.UTC(), "reminder_next": b.ReminderNext, "reminder_at": b.ReminderAt}
	err := tx.Model(b).UpdateColumns(set).Error
	if err != nil {
		return fmt.Errorf("settle an appointment: %w", err)
	}
	return nil
}

// remind emits the reminders that are due, drops those that are long past, and
// returns how many appointments it looked after. An appointment that has several
// to be reminded of is due again at once.
func (s *Service) remind(ctx context.Context) (int, error) {
	var due []models.Booking
	var dropped uint64
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		err := s.store.SkipLocked(tx).Where("reminder_at <= ?", tx.Now).Order("reminder_at").Limit(sweepBatch).Find(&due).Error
		if err != nil {
			return fmt.Errorf("find due reminders: %w", err)
		}
		for i := range due {
			sent, err := advance(tx, &due[i])
			if err != nil {
				return err
			}
			if !sent {
				dropped++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if dropped > 0 {
		s.remindersDropped.Add(dropped)
		s.log.Warn("reminders were dropped, for they would have come too late", "count", dropped)
	}
	return len(due), nil
}

// advance emits the reminder of an appointment that is due, unless it is too
// late for that, and turns to the next.
func advance(tx *store.Tx, b *models.Booking) (sent bool, err error) {
	i := reminderOf(b.ReminderNext)
	due := reminders[i]
	sent = tx.Now.Sub(*b.ReminderAt) <= due.tolerance
	setReminder(b, i+1)
	set := map[string]any{"reminder_next": b.ReminderNext, "reminder_at": b.ReminderAt}
	if sent {
		b.Version++
		b.UpdatedAt = tx.Now
		set["version"], set["updated_at"] = b.Version, b.UpdatedAt
	}
	if err := tx.Model(b).UpdateColumns(set).Error; err != nil {
		return false, fmt.Errorf("advance a reminder: %w", err)
	}
	if !sent {
		return false, nil
	}
	e := models.EventOf(models.EventReminder, b)
	e.By, e.Reminder = models.ActorSystem, due.name
	return true, tx.Emit(b.OrganizationID, e)
}

// RemindersDropped counts the reminders this node has dropped since it started.
func (s *Service) RemindersDropped() uint64 { return s.remindersDropped.Load() }
