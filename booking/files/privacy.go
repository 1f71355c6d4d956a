package files

import (
	"context"
	"fmt"

	"nowserving/booking/store"
)

// ofSubject is met by the files of a customer and of their bookings.
const ofSubject = "organization_id = ? AND (customer_id IN ? OR booking_id IN ?)"

// Erase deletes the files of a customer who is erased. Purge removes their contents after
// the commit.
func (s *Service) Erase(tx *store.Tx, subject *store.DataSubject) error {
	return remove(tx, ofSubject, subject.OrganizationID, subject.CustomerIDs, subject.BookingIDs)
}

// Export returns the newest files of a customer, and whether there are more.
func (s *Service) Export(ctx context.Context, subject store.DataSubject) (list []File, more bool, err error) {
	return store.Newest[File](s.store.Read(ctx).Where("organization_id = ? AND customer_id IN ?", subject.OrganizationID, subject.CustomerIDs).
		Order("created_at DESC, id"))
}

// Reassign makes the remaining customer of a merge the owner of the duplicate's files.
func Reassign(tx *store.Tx, organizationID, duplicateID, keepID string) error {
	err := tx.Exec("UPDATE files SET customer_id = ? WHERE organization_id = ? AND customer_id = ?", keepID, organizationID, duplicateID).Error
	if err != nil {
		return fmt.Errorf("reassign files: %w", err)
	}
	return nil
}
