package booking

import (
	"context"
	"fmt"

	"nowserving/booking/store"
	"nowserving/models"
)

// Reassign moves the bookings of one record of a person to another. Each booking keeps
// the name it was made with. Reassign returns the waiting ones; pass them to Republish
// after the commit.
func Reassign(tx *store.Tx, from, to *models.Customer) (waiting []models.Booking, err error) {
	const theirs = " WHERE organization_id = ? AND customer_id = ?"
	if from.FirstName != to.FirstName || from.LastName != to.LastName {
		err := tx.Exec("UPDATE bookings SET first_name = ?, last_name = ?"+theirs+" AND first_name = '' AND last_name = ''",
			from.FirstName, from.LastName, from.OrganizationID, from.ID).Error
		if err != nil {
			return nil, fmt.Errorf("keep the names of bookings: %w", err)
		}
	}
	err = tx.Where("organization_id = ? AND customer_id = ? AND stage = ?", from.OrganizationID, from.ID, models.StageWaiting).Find(&waiting).Error
	if err != nil {
		return nil, fmt.Errorf("read a customer's waiting bookings: %w", err)
	}
	err = tx.Exec("UPDATE bookings SET customer_id = ?, version = version + 1, updated_at = ?"+theirs,
		to.ID, tx.Now, from.OrganizationID, from.ID).Error
	if err != nil {
		return nil, fmt.Errorf("give bookings to another record: %w", err)
	}
	for i := range waiting {
		waiting[i].CustomerID = to.ID
		waiting[i].Version++
	}
	return waiting, nil
}

// Republish updates the queue index for waiting bookings that changed without a
// transition.
func (s *Service) Republish(ctx context.Context, waiting []models.Booking) {
	for i := range waiting {
		s.publish(ctx, &waiting[i], models.EventUpdated)
	}
}
