package booking

import (
	"context"
	"fmt"
	"maps"
	"time"

	"nowserving/booking/store"
	"nowserving/models"
)

func nothingToUndo() map[string]any {
	return map[string]any{"undo_action": "", "undo_until": nil, "undo_status": "", "undo_stage": "", "undo_ends_at": nil}
}

// Undo reverts the last action of staff on a booking, within models.UndoWindow and only
// if nothing else has happened to the booking since. A booking that waits again keeps
// its join sequence and the time it had left before it expires; Undo returns its place.
// It fails with CodeNothingToUndo, CodeTypeMissing,
// CodeResourceMissing or CodeSlotTaken.
func (s *Service) Undo(ctx context.Context, sc Scope, id string) (*models.Booking, *Place, error) {
	var b *models.Booking
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		before, err := s.get(s.store.Lock(tx), sc.OrganizationID, id)
		if err != nil {
			return err
		}
		if err := sc.mayTouch(tx.DB, before); err != nil {
			return err
		}
		if before.UndoAction == "" || tx.Now.After(*before.UndoUntil) {
			return models.Errorf(models.CodeNothingToUndo, "Nothing was done to booking %s in the last %d seconds that can be taken back.",
				before.Ticket, int(models.UndoWindow.Seconds()))
		}
		undone := before.UndoAction // the update below changes before, too
		set := restored(before, tx.Now)
		maps.Copy(set, nothingToUndo())
		err = tx.Model(before).UpdateColumns(set).Error
		switch {
		case store.IsErased(err):
			return errErased
		case store.IsOverlap(err):
			return models.Errorf(models.CodeSlotTaken, "Another appointment has the time by now.")
		case err != nil:
			return fmt.Errorf("undo: %w", err)
		}
		if b, err = s.get(tx.DB, sc.OrganizationID, id); err != nil {
			return err
		}
		if err := isLeft(tx, b); err != nil {
			return err
		}
		event := models.EventOf(models.EventUpdated, b)
		if undone == models.ActionCancel && b.StartsAt != nil {
			event.Type = models.EventScheduled // the customer was told that it is canceled
		}
		event.Action, event.By, event.Undone = models.ActionUndo, sc.Actor(), undone
		return tx.Emit(b.OrganizationID, event)
	})
	if err != nil {
		return nil, nil, err
	}
	at := s.publish(ctx, b, models.EventUpdated)
	if !b.Waiting() {
		return b, nil, nil
	}
	return b, s.placeAfter(ctx, b, at), nil
}

// isLeft refuses a booking whose type or resource has been deleted.
func isLeft(tx *store.Tx, b *models.Booking) error {
	if err := typeIsLeft(tx.DB, b.TypeID); err != nil || b.ResourceID == nil {
		return err
	}
	_, err := existingResource(tx.DB, b.OrganizationID, *b.ResourceID)
	return err
}

// restored are the columns of a booking as they were before its last action.
func restored(b *models.Booking, now time.Time) map[string]any {
	set := map[string]any{
		"status": b.UndoStatus, "stage": b.UndoStage, "ends_at": b.UndoEndsAt, "version": b.Version + 1, "updated_at": now,
	}
	switch b.UndoAction {
	case models.ActionAssign:
		set["resource_id"], set["called_at"], set["last_called_at"] = nil, nil, nil
	case models.ActionStart:
		set["started_at"] = nil
		if b.UndoStage == models.StageNone { // being let in was the call
			set["called_at"], set["last_called_at"] = nil, nil
		}
	case models.ActionEnd, models.ActionNoShow:
		set["ended_at"] = nil
	case models.ActionCancel:
		set["ended_at"], set["cancel_reason"] = nil, ""
	default:
	}
	if b.UndoStatus == models.StatusPendingAssignment && b.AssignmentDeadline != nil {
		done := b.UndoUntil.Add(-models.UndoWindow)
		set["assignment_deadline"] = b.AssignmentDeadline.Add(now.Sub(done))
	}
	if b.StartsAt != nil {
		appointment := *b
		appointment.EndsAt = b.UndoEndsAt
		next := nextReminder(&appointment, now)
		if b.UndoStage == models.StageServing {
			next = max(next, reminderOf(models.ReminderAfterEnd))
		}
		setReminder(&appointment, next)
		set["reminder_next"], set["reminder_at"] = appointment.ReminderNext, appointment.ReminderAt
	}
	return set
}
