package booking

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// errLost is returned if no row was in the state that a change starts from.
var errLost = errors.New("booking is in another state")

// change makes one transition of the booking that where names, and emits its event.
// It returns errLost if the booking is in no state that the transition starts from.
func (s *Service) change(tx *store.Tx, where *gorm.DB, a models.Action, by models.Actor, set map[string]any) (*models.Booking, error) {
	if by == models.ActorStaff && a.Undoable() {
		set["undo_action"], set["undo_until"] = a, tx.Now.Add(models.UndoWindow)
		for _, column := range []string{"status", "stage", "ends_at"} { // as they were before
			set["undo_"+column] = gorm.Expr(column)
		}
	}
	b, err := s.move(tx, where, a, set)
	if err != nil {
		return nil, err
	}
	if b.ReservedUntil != nil { // it was told of to no one, and may be deleted without a trace
		return b, tx.Audit(b.OrganizationID, string(a), "booking", b.ID)
	}
	event := models.EventOf(models.TransitionOf(a).Event, b)
	event.Action, event.By = a, by
	return b, tx.Emit(b.OrganizationID, event)
}

// move is change without the event: the conditional update and the new row.
func (s *Service) move(tx *store.Tx, where *gorm.DB, a models.Action, set map[string]any) (*models.Booking, error) {
	t := models.TransitionOf(a)
	set["status"], set["stage"], set["updated_at"] = t.Status, t.Stage, tx.Now
	set["version"] = gorm.Expr("version + 1")
	if set["undo_action"] == nil {
		maps.Copy(set, nothingToUndo())
	}
	switch a {
	case models.ActionStart, models.ActionNoShow: // of a temporary appointment: it is confirmed first
		where = where.Where("reserved_until IS NULL")
	default:
	}
	var b models.Booking
	done := where.Where("status IN ? AND stage IN ?", t.FromStatus, t.FromStage).
		Model(&b).Clauses(clause.Returning{}).Updates(set)
	switch {
	case store.IsErased(done.Error):
		return nil, errErased
	case done.Error != nil:
		return nil, fmt.Errorf("%s booking: %w", a, done.Error)
	case done.RowsAffected == 0:
		return nil, errLost
	case b.StartsAt != nil:
		return &b, settle(tx, &b)
	}
	return &b, nil
}

// act makes a transition of the booking with an id, when also is true of it.
func (s *Service) act(ctx context.Context, sc Scope, id string, a models.Action, set func(now time.Time) map[string]any,
	also func(tx *store.Tx, q *gorm.DB) *gorm.DB,
) (*models.Booking, error) {
	b, _, err := s.actAt(ctx, sc, id, a, set, also)
	return b, err
}

// actAt is act that also returns the moment the index took the change in.
func (s *Service) actAt(ctx context.Context, sc Scope, id string, a models.Action, set func(now time.Time) map[string]any,
	also func(tx *store.Tx, q *gorm.DB) *gorm.DB,
) (*models.Booking, queue.StreamPosition, error) {
	var b *models.Booking
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		where := sc.limit(tx.Where("organization_id = ? AND id = ?", sc.OrganizationID, id))
		if also != nil {
			where = also(tx, where)
		}
		var err error
		b, err = s.change(tx, where, a, sc.Actor(), set(tx.Now))
		if errors.Is(err, errLost) {
			return s.whyNot(tx, id, sc, a)
		}
		return err
	})
	if err != nil {
		return nil, queue.StreamPosition{}, err
	}
	return b, s.publish(ctx, b, models.TransitionOf(a).Event), nil
}

// whyNot explains why a booking could not make a transition.
func (s *Service) whyNot(tx *store.Tx, id string, sc Scope, a models.Action) error {
	b, err := s.get(tx.DB, sc.OrganizationID, id)
	if err != nil {
		return err
	}
	if a != models.ActionAssign { // to assign, it is the resource that counts
		if err := sc.mayTouch(tx.DB, b); err != nil {
			return err
		}
	}
	switch {
	case a == models.ActionAssign && b.ResourceID != nil:
		return models.Errorf(models.CodeAlreadyAssigned, "Booking %s has been assigned already.", b.Ticket)
	case b.Status == models.StatusRejected && b.StartsAt == nil,
		a == models.ActionAssign && b.AssignmentDeadline != nil && !tx.Now.Before(*b.AssignmentDeadline):
		return models.Errorf(models.CodeExpired, "Booking %s was not assigned in time and has expired.", b.Ticket)
	case a == models.ActionRecall && b.Stage == models.StageCalled && b.RecallCount >= models.MaxRecalls:
		return models.Errorf(models.CodeRecallLimit, "Booking %s has been called again %d times.", b.Ticket, b.RecallCount)
	case a == models.ActionRecall && b.Stage == models.StageCalled && b.LastCalledAt != nil:
		wait := b.LastCalledAt.Add(models.RecallPause).Sub(tx.Now)
		e := models.Errorf(models.CodeRecallTooSoon, "Booking %s was called less than a minute ago.", b.Ticket)
		e.RetryAfter = max(wait, time.Second)
		return e
	}
	stage := string(b.Stage)
	if b.Stage == models.StageNone {
		stage = string(b.Status)
	}
	return models.Errorf(models.CodeStage, "Booking %s is %s; it is too late or too early for %s.", b.Ticket, stage, a)
}
