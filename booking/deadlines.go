package booking

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nowserving/booking/clock"
	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// sweepEvery bounds the sweeper's sleep, so that it notices deadlines that
	// other nodes have set.
	sweepEvery = 500 * time.Millisecond
	// sweepBatch bounds what one transaction claims.
	sweepBatch = 100
	// sweepContended is the pause while another node settles the deadlines that have
	// passed.
	sweepContended = 20 * time.Millisecond
	// sweepRetry is the pause after a failure.
	sweepRetry = time.Second
)

// Sweep settles deadlines, on every node. It sleeps until the next deadline and
// claims those that have passed, skipping rows that another node is claiming. It
// returns when ctx ends.
func (s *Service) Sweep(ctx context.Context) {
	for ctx.Err() == nil {
		s.waiting.tidy()
		pause, err := s.sweep(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("sweep deadlines", "error", err)
			pause = sweepRetry
		}
		clock.Sleep(ctx, pause)
	}
}

// sweep settles everything that is due and returns how long to sleep.
func (s *Service) sweep(ctx context.Context) (time.Duration, error) {
	if err := s.keepQuotes(ctx); err != nil {
		return 0, err
	}
	for {
		pause, err := s.untilNext(ctx)
		if err != nil || pause > 0 {
			return pause, err
		}
		expired, err := s.expire(ctx)
		if err != nil {
			return 0, err
		}
		deleted, err := s.deleteUnsettled(ctx)
		if err != nil {
			return 0, err
		}
		reminded, err := s.remind(ctx)
		if err != nil {
			return 0, err
		}
		if expired+deleted+reminded == 0 {
			return sweepContended, nil // another node is at it
		}
	}
}

// expire rejects bookings whose assignment timeout has passed.
func (s *Service) expire(ctx context.Context) (int, error) {
	var expired []*models.Booking
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		var due []int64
		err := s.store.SkipLocked(tx).Model(&models.Booking{}).
			Where("stage IN ? AND assignment_deadline <= ?", []models.Stage{models.StageWaiting, models.StageHeld}, tx.Now).
			Order("assignment_deadline").Limit(sweepBatch).Pluck("seq", &due).Error
		if err != nil {
			return fmt.Errorf("find expired bookings: %w", err)
		}
		for _, seq := range due {
			b, err := s.change(tx, tx.Where("seq = ?", seq), models.ActionExpire, models.ActorSystem, map[string]any{"ended_at": tx.Now})
			if errors.Is(err, errLost) {
				continue // another request settled it a moment ago
			}
			if err != nil {
				return err
			}
			expired = append(expired, b)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, b := range expired {
		s.publish(ctx, b, models.EventExpired)
	}
	return len(expired), nil
}

// unsettled are the bookings that are deleted when their deadline passes: those that were
// not paid in time, and temporary ones that were not confirmed in time.
var unsettled = []struct {
	action      models.Action
	due, column string
}{
	{models.ActionExpirePayment, "status = 'PENDING_PAYMENT' AND payment_deadline <= ?", "payment_deadline"},
	{models.ActionExpireReservation, "reserved_until <= ?", "reserved_until"},
}

// deleteUnsettled deletes the bookings that were not paid or confirmed in time (the
// document's chapters on online payments and temporary bookings). No event is emitted,
// because none was emitted when they were made.
func (s *Service) deleteUnsettled(ctx context.Context) (int, error) {
	deleted := 0
	for _, kind := range unsettled {
		err := s.store.Tx(ctx, func(tx *store.Tx) error {
			var due []models.Booking
			err := s.store.SkipLocked(tx).Select("seq, id, organization_id").
				Where(kind.due, tx.Now).Order(kind.column).Limit(sweepBatch).Find(&due).Error
			if err != nil || len(due) == 0 {
				return err
			}
			if err := tx.Delete(&due).Error; err != nil {
				return err
			}
			deleted += len(due)
			for _, b := range due {
				if err := tx.Audit(b.OrganizationID, string(kind.action), "booking", b.ID); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("delete bookings that were not settled in time: %w", err)
		}
	}
	return deleted, nil
}

// untilNext is the time to the next deadline, at most sweepEvery; 0 when one
// has passed.
func (s *Service) untilNext(ctx context.Context) (time.Duration, error) {
	now, err := s.store.Now(ctx)
	if err != nil {
		return 0, err
	}
	pause := sweepEvery
	for _, deadline := range []struct{ column, due string }{
		{"assignment_deadline", "stage IN ('WAITING', 'HELD')"},
		{"payment_deadline", "status = 'PENDING_PAYMENT'"},
		{"reserved_until", "reserved_until IS NOT NULL"},
		{"reminder_at", "reminder_at IS NOT NULL"},
	} {
		var next []time.Time
		err := s.store.Read(ctx).Model(&models.Booking{}).Where(deadline.due).
			Order(deadline.column).Limit(1).Pluck(deadline.column, &next).Error
		if err != nil {
			return 0, fmt.Errorf("find the next deadline: %w", err)
		}
		if len(next) > 0 {
			pause = min(pause, max(next[0].Sub(now), 0))
		}
	}
	return pause, nil
}
