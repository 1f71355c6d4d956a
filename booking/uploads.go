package booking

import (
	"context"

	"nowserving/booking/catalog"
	"nowserving/booking/files"
	"nowserving/models"
)

// upload stores the files in the info of a new booking and returns the info with their
// addresses in place of their contents.
func (s *Service) upload(ctx context.Context, organizationID string, info models.Fields) (models.Fields, *files.Batch, error) {
	v := files.Values{OrganizationID: organizationID, Field: memberInfo, Fields: info}
	if len(info) > 0 {
		defined, err := catalog.CustomFieldsOf(s.store.Read(ctx), organizationID, models.BookingFields)
		if err != nil {
			return nil, nil, err
		}
		v.Kind = files.KindsOf(defined.Fields)
	}
	return s.files.Replace(ctx, v)
}
