package booking

import (
	"context"
	"fmt"
	"slices"

	"nowserving/booking/store"
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

// Erase removes the identity of a customer, and what they wrote, from their bookings,
// and fills BookingIDs. It fails with CodeBeingServed if a booking is open.
func (s *Service) Erase(tx *store.Tx, subject *store.DataSubject) error {
	var list []models.Booking
	err := tx.Select("id, status, stage, ends_at").Where("organization_id = ? AND customer_id IN ?", subject.OrganizationID, subject.CustomerIDs).Find(&list).Error
	if err != nil {
		return fmt.Errorf("list a customer's bookings: %w", err)
	}
	for _, b := range list {
		past := b.Stage == models.StageNone && b.EndsAt != nil && !b.EndsAt.After(tx.Now)
		over := b.Stage == models.StageDone || b.Stage == models.StageNoShow || b.Stage == models.StageLeft
		if !over && !past {
			return models.Errorf(models.CodeBeingServed, "The customer has come back meanwhile.")
		}
		subject.BookingIDs = append(subject.BookingIDs, b.ID)
	}
	err = tx.Exec("UPDATE bookings SET first_name = '', last_name = '', note = '', info = NULL, adjusters = NULL, cancel_reason = '' WHERE organization_id = ? AND customer_id IN ?",
		subject.OrganizationID, subject.CustomerIDs).Error
	if err != nil {
		return fmt.Errorf("erase a customer from bookings: %w", err)
	}
	return nil
}

// HeldBooking is a booking of an exported customer with the estimated wait at joining,
// in minutes. The estimate is nil if none was shown.
type HeldBooking struct {
	models.Booking
	Low, Likely, High *int
}

// Export returns the newest bookings of a customer, and whether there are more.
func (s *Service) Export(ctx context.Context, subject store.DataSubject) (list []HeldBooking, more bool, err error) {
	return store.Newest[HeldBooking](s.store.Read(ctx).Table("bookings AS b").Select("b.*, q.low, q.likely, q.high").
		Joins("LEFT JOIN quotes q ON q.booking_id = b.id").
		Where("b.organization_id = ? AND b.customer_id IN ?", subject.OrganizationID, subject.CustomerIDs).Order("b.seq DESC"))
}
