package push

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gorm.io/gorm/clause"

	"nowserving/booking/clock"
	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

const (
	// debounce is how long a queue is left to move before places are told.
	debounce = 1200 * time.Millisecond
	// sweepEvery is how often a node looks for what is due, and maxSweeps how
	// many organizations it sweeps at a time.
	sweepEvery = 200 * time.Millisecond
	maxSweeps  = 4
	// sweepTimeout bounds a sweep. The lease outlives it, so two never overlap.
	sweepTimeout = 25 * time.Second
	sweepLease   = 35 * time.Second
)

// PlanPositions marks an organization for a sweep when one of its events may
// have changed a position.
func (p *Pushes) PlanPositions(ctx context.Context, list []*outbox.Announcement) (map[int64]outbox.Step, error) {
	for _, a := range list {
		if a.Event.Undone == models.ActionAssign {
			return p.planAfterUndo(ctx, list)
		}
	}
	for _, a := range list {
		switch a.Event.Type {
		case models.EventNewPending, models.EventAssigned, models.EventExpired, models.EventCanceled, models.EventUpdated, models.EventEnded:
			mark, err := p.planMark(ctx, a.OrganizationID)
			if err != nil || mark == nil {
				return nil, err
			}
			return map[int64]outbox.Step{a.EventID: mark}, nil
		default:
		}
	}
	return nil, nil
}

// planAfterUndo is planPositions for undone calls: the patient was told to come in, so
// their position is pushed again even if it is the one pushed before the call.
func (p *Pushes) planAfterUndo(ctx context.Context, list []*outbox.Announcement) (map[int64]outbox.Step, error) {
	mark, err := p.planMark(ctx, list[0].OrganizationID)
	if err != nil {
		return nil, err
	}
	planned := map[int64]outbox.Step{}
	for _, a := range list {
		if a.Event.Undone != models.ActionAssign {
			continue
		}
		planned[a.EventID] = func(tx *store.Tx) error {
			err := tx.Exec(`INSERT INTO position_states (booking_id, version, sequence, pushed, hooked, telling, updated_at)
				VALUES (?, 0, 0, 0, COALESCE((SELECT answered FROM quotes WHERE booking_id = ?), 0), 0, ?)
				ON CONFLICT (booking_id) DO UPDATE SET pushed = 0`, a.Event.BookingID, a.Event.BookingID, tx.Now).Error
			if err != nil {
				return fmt.Errorf("forget the place told before a call: %w", err)
			}
			if mark == nil {
				return nil
			}
			return mark(tx)
		}
	}
	return planned, nil
}

// Moved marks an organization for a sweep, because positions may have changed without
// an event of a booking, such as when a resource was switched off.
func (p *Pushes) Moved(ctx context.Context, organizationID string) error {
	mark, err := p.planMark(ctx, organizationID)
	if err != nil || mark == nil {
		return err
	}
	return p.Store.Tx(ctx, mark)
}

// planMark marks an organization for a sweep if positions are sent there. A
// mark that is due as soon and still stands is enough: its sweep begins later than
// this transaction.
func (p *Pushes) planMark(ctx context.Context, organizationID string) (outbox.Step, error) {
	now, err := p.Store.Now(ctx)
	if err != nil {
		return nil, err
	}
	var state struct{ Marked, Devices bool }
	err = p.Store.Read(ctx).Raw(`SELECT EXISTS (SELECT 1 FROM position_marks WHERE organization_id = ? AND due_at <= ?) AS marked,
		EXISTS (SELECT 1 FROM devices WHERE organization_id = ? AND customer_id IS NOT NULL) AS devices`,
		organizationID, now.Add(debounce), organizationID).Scan(&state).Error
	if err != nil {
		return nil, fmt.Errorf("look who is told of positions: %w", err)
	}
	if state.Marked {
		return nil, nil
	}
	if p.client == nil || !state.Devices {
		wants, err := p.opts.Webhooks.WantsPositions(ctx, organizationID)
		if err != nil || !wants {
			return nil, err
		}
	}
	return func(tx *store.Tx) error { return p.mark(tx, organizationID) }, nil
}

// mark makes a sweep of an organization due after the debounce, counted from
// the first mark.
func (p *Pushes) mark(tx *store.Tx, organizationID string) error {
	err := tx.Exec(`INSERT INTO position_marks (organization_id, due_at) VALUES (?, ?)
		ON CONFLICT (organization_id) DO UPDATE SET due_at = CASE
			WHEN position_marks.due_at <= excluded.due_at THEN position_marks.due_at ELSE excluded.due_at END`,
		organizationID, tx.Now.Add(debounce)).Error
	if err != nil {
		return fmt.Errorf("mark positions: %w", err)
	}
	return nil
}

// Sweep sends the positions that are due until ctx ends.
func (p *Pushes) Sweep(ctx context.Context) {
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	slots := make(chan struct{}, maxSweeps)
	clock.Every(ctx, sweepEvery, func() {
		claimed, lease, err := p.claim(ctx, maxSweeps-len(slots))
		if err != nil && ctx.Err() == nil {
			p.Log.Error("claim positions", "error", err)
		}
		for _, id := range claimed {
			slots <- struct{}{}
			sweeping.Go(func() {
				defer func() { <-slots }()
				p.sweepOne(ctx, id, lease)
			})
		}
	})
}

// claim takes organizations that are due, or whose sweeper has died, n at most.
func (p *Pushes) claim(ctx context.Context, n int) (ids []string, lease time.Time, err error) {
	const due = "due_at <= ? AND leased_until IS NULL OR leased_until <= ?"
	now, err := p.Store.Now(ctx)
	if err != nil || n == 0 {
		return nil, lease, err
	}
	var waiting int64
	if err := p.Store.Read(ctx).Table("position_marks").Where(due, now, now).Count(&waiting).Error; err != nil || waiting == 0 {
		return nil, lease, err
	}
	err = p.Store.Tx(ctx, func(tx *store.Tx) error {
		lease = tx.Now.Add(sweepLease)
		err := p.Store.SkipLocked(tx).Table("position_marks").Where(due, tx.Now, tx.Now).Order("due_at").Limit(n).Pluck("organization_id", &ids).Error
		if err != nil || len(ids) == 0 {
			return err
		}
		return tx.Exec("UPDATE position_marks SET due_at = NULL, leased_until = ? WHERE organization_id IN ?", lease, ids).Error
	})
	return ids, lease, err
}

// sweepOne sweeps an organization and gives it back: free of marks, or due again
// after a while or, if marked meanwhile, at that mark.
func (p *Pushes) sweepOne(ctx context.Context, organizationID string, lease time.Time) {
	sweeping, cancel := context.WithTimeout(ctx, sweepTimeout)
	again, err := p.tell(sweeping, organizationID)
	cancel()
	if err != nil {
		again = sweepRetry
		if ctx.Err() == nil {
			p.Log.Error("tell positions", "organization", organizationID, "error", err)
		}
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), outbox.StopTimeout)
	defer cancel()
	err = p.Store.Tx(ending, func(tx *store.Tx) error {
		mine := tx.Table("position_marks").Where("organization_id = ? AND leased_until = ?", organizationID, lease)
		if again > 0 {
			return mine.Updates(map[string]any{"leased_until": nil, "due_at": clause.Expr{SQL: "COALESCE(due_at, ?)", Vars: []any{tx.Now.Add(again)}}}).Error
		}
		err := tx.Exec("DELETE FROM position_marks WHERE organization_id = ? AND leased_until = ? AND due_at IS NULL", organizationID, lease).Error
		if err != nil {
			return err
		}
		return mine.Update("leased_until", nil).Error
	})
	if err != nil { // the lease ends by itself
		p.Log.Error("end a sweep of positions", "organization", organizationID, "error", err)
	}
}
