package message

import (
	"context"
	"slices"

	"nowserving/booking/store"
	"nowserving/models"
)

// Erase empties the messages to a customer and those about their bookings.
func (p *Messages) Erase(tx *store.Tx, e *store.DataSubject) error {
	jobs, err := tx.SealedJobs(models.Message{}.Kind(), e.OrganizationID, false)
	if err != nil {
		return err
	}
	var theirs []int64
	for _, job := range jobs {
		content, err := models.OpenMessageContent(p.sealer, job.Sealed)
		// A message that can't be opened is useless.
		if err != nil || slices.Contains(e.Contacts, content.To) || job.BookingID != "" && slices.Contains(e.BookingIDs, job.BookingID) {
			theirs = append(theirs, job.ID)
		}
	}
	return p.Store.EmptyJobs(tx, theirs)
}

// Export returns the newest attempts to send a customer a message, and whether there are
// more. The texts are not kept.
func (p *Messages) Export(ctx context.Context, s store.DataSubject) (list []Attempt, more bool, err error) {
	return store.Newest[Attempt](p.Store.Read(ctx).Where("booking_id IN (SELECT id FROM bookings WHERE organization_id = ? AND customer_id IN ?)", s.OrganizationID, s.CustomerIDs).Order("id DESC"))
}
