package message

import (
	"slices"

	"nowserving/booking/store"
	"nowserving/models"
)

// Erase empties the messages to a customer and those about their bookings.
func (p *Messages) Erase(tx *store.Tx, e *store.Erasure) error {
	jobs, err := tx.SealedJobs(models.Message{}.Kind(), e.OrganizationID, false)
	if err != nil {
		return err
	}
	var theirs []int64
	for _, job := range jobs {
		letter, err := models.OpenLetter(p.sealer, job.Sealed)
		// A message that can't be opened is useless.
		if err != nil || slices.Contains(e.Contacts, letter.To) || job.BookingID != "" && slices.Contains(e.BookingIDs, job.BookingID) {
			theirs = append(theirs, job.ID)
		}
	}
	return p.Store.EmptyJobs(tx, theirs)
}
