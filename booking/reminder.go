package booking

import (
	"context"
	"fmt"
	"slices"
	"time"

	"nowserving/booking/store"
	"nowserving/models"
)

// reminderOf is the place of a reminder among all.
func reminderOf(name models.Reminder) int { return slices.Index(models.Reminders, name) }

// due is when an appointment is to be reminded of.
func due(b *models.Booking, r models.Reminder) time.Time {
	return r.Due(b.StartsAt.UTC(), b.EndsAt.UTC())
}

// setReminder makes the i-th reminder the next one; beyond the last, none.
func setReminder(b *models.Booking, i int) {
	b.ReminderNext, b.ReminderAt = "", nil
	if i < len(models.Reminders) {
		at := due(b, models.Reminders[i])
		b.ReminderNext, b.ReminderAt = models.Reminders[i], &at
	}
}

// scheduleReminders sets the first reminder of a new appointment that is not in the
// past.
func scheduleReminders(b *models.Booking, now time.Time) {
	setReminder(b, nextReminder(b, now))
}

// nextReminder returns the index of the first reminder due after now, or
// len(models.Reminders) if there is none.
func nextReminder(b *models.Booking, now time.Time) int {
	for i, r := range models.Reminders {
		if due(b, r).After(now) {
			return i
		}
	}
	return len(models.Reminders)
}

// settle adapts the reminders and the end of an appointment to its stage: a patient
// who has come, or whose appointment is canceled, gets no reminder to come.
func settle(tx *store.Tx, b *models.Booking) error {
	next := len(models.Reminders)
	switch b.Stage {
	case models.StageNone: // it has been approved or confirmed
		next = nextReminder(b, tx.Now)
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
	r := b.ReminderNext
	sent = tx.Now.Sub(*b.ReminderAt) <= r.Tolerance()
	setReminder(b, reminderOf(r)+1)
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
	e.By, e.Reminder = models.ActorSystem, r
	return true, tx.Emit(b.OrganizationID, e)
}

// RemindersDropped counts the reminders this node has dropped since it started.
func (s *Service) RemindersDropped() uint64 { return s.remindersDropped.Load() }
