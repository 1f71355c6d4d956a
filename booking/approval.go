package booking

import (
	"context"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// Approve confirms an appointment that waits for approval, which has kept its time.
func (s *Service) Approve(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionApprove, func(time.Time) map[string]any { return map[string]any{} }, nil)
}

// Reject refuses an appointment that waits for approval. Its time is free again.
func (s *Service) Reject(ctx context.Context, sc Scope, id, reason string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionReject, func(now time.Time) map[string]any {
		return map[string]any{"ended_at": now, "cancel_reason": reason}
	}, nil)
}

// Confirm makes a temporary appointment a lasting one. It fails with CodeBookingNotFound
// if the time of the reservation is over and the appointment deleted.
func (s *Service) Confirm(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionConfirm, func(time.Time) map[string]any {
		return map[string]any{"reserved_until": nil}
	}, func(tx *store.Tx, q *gorm.DB) *gorm.DB { return q.Where("reserved_until > ?", tx.Now) })
}
