package booking

import (
	"context"
	"fmt"
	"slices"

	"nowserving/models"
)

// CancelAll cancels a customer's waiting bookings and future appointments, each like
// Cancel. It fails with CodeBeingServed, before it cancels anything, while the
// customer is called or served. If it was interrupted, calling it again continues.
func (s *Service) CancelAll(ctx context.Context, sc Scope, customerID string) error {
	now, err := s.store.Now(ctx)
	if err != nil {
		return err
	}
	var open []models.Booking
	err = s.store.Read(ctx).Select("id, stage").Where("organization_id = ? AND customer_id = ?", sc.OrganizationID, customerID).
		Where("(status IN ? OR status = ? AND (stage IN ? OR stage = '' AND ends_at > ?))",
			[]models.Status{models.StatusPendingApproval, models.StatusPendingPayment, models.StatusPendingAssignment},
			models.StatusConfirmed, []models.Stage{models.StageCalled, models.StageServing}, now).
		Order("seq").Find(&open).Error
	if err != nil {
		return fmt.Errorf("find a customer's open bookings: %w", err)
	}
	for _, b := range open {
		if b.Stage == models.StageCalled || b.Stage == models.StageServing {
			return models.Errorf(models.CodeBeingServed, "A visit of the customer is under way.")
		}
	}
	for _, b := range open {
		_, err := s.Cancel(ctx, sc, b.ID, "")
		ended := []models.Code{models.CodeStage, models.CodeExpired, models.CodeBookingNotFound} // by itself, since
		if err != nil && !slices.Contains(ended, models.CodeOf(err)) {
			return err
		}
	}
	return nil
}
