package booking

import (
	"context"

	"nowserving/booking/files"
	"nowserving/models"
)

// infoMember is the member of a request that has the values of the custom fields of a
// booking.
const infoMember = "bookingInfoCustomFields"

// upload stores the files in the info of a new booking and replaces them by their
// addresses. It is called once everything else that needs no transaction was checked.
func (s *Service) upload(ctx context.Context, b *models.Booking) (uploads *files.Batch, err error) {
	b.Info, uploads, err = s.files.Replace(ctx, files.Values{OrganizationID: b.OrganizationID, Field: infoMember, Fields: b.Info})
	return uploads, err
}
