package booking

import (
	"fmt"
	"slices"

	"gorm.io/gorm"

	"nowserving/booking/catalog"
	"nowserving/booking/fields"
	"nowserving/models"
)

// The members of a request with values of custom fields, for errors.
const (
	memberFilters   = "resourceFiltersCustomFields"
	memberAdjusters = "timeAdjustersCustomFields"
	memberInfo      = "bookingInfoCustomFields"
)

// fieldValues are the values of custom fields that come with a request, by what the
// fields do.
type fieldValues struct {
	filters, adjusters, info models.Fields
	// patient reports that a patient gives the values, who knows public fields only.
	patient bool
}

// question says which values of custom fields are wanted.
type question struct {
	typeID string
	// required demands a value of every required field. Filters are never required:
	// without them any resource will do.
	required bool
	// times asks for what changes the free times only. The rest is asked later.
	times bool
	// earlier is the booking that is rescheduled. Its information and its adjusters count
	// where the request has none.
	earlier *models.Booking
}

// answers are what values of custom fields come to.
type answers struct {
	narrow          fields.Narrow
	info, adjusters models.Fields
	added           fields.Adjustment
}

// evaluate checks the values of custom fields. While the organization has no booking
// field, any values are kept, and have no effect.
func evaluate(db *gorm.DB, organizationID string, values fieldValues, ask question) (answers, error) {
	out := answers{info: values.info, adjusters: values.adjusters}
	defined, err := catalog.CustomFieldsOf(db, organizationID, models.BookingFields)
	if err != nil {
		return out, err
	}
	if e := ask.earlier; e != nil {
		if out.info == nil {
			out.info = e.Info
		}
		if out.adjusters == nil {
			out.adjusters = e.Adjusters
		}
	}
	if len(defined.Fields) == 0 {
		return out, nil
	}
	country, err := countryOf(db, organizationID)
	if err != nil {
		return out, err
	}
	kept := func(given models.Fields) bool { return given == nil && ask.earlier != nil }
	parts := []fields.Part{
		{Member: memberFilters, Values: values.filters, Has: used(fields.Filter)},
		{Member: memberAdjusters, Values: out.adjusters, Has: used(fields.Adjuster), Required: ask.required, Kept: kept(values.adjusters)},
	}
	if !ask.times {
		parts = append(parts, fields.Part{Member: memberInfo, Values: out.info, Has: used(fields.Info), Required: ask.required, Kept: kept(values.info)})
	}
	form := fields.Form{Fields: defined.Fields, TypeID: ask.typeID, Country: country, Patient: values.patient}
	checked, err := form.Check(parts...)
	if err != nil {
		return out, err
	}
	out.narrow, out.added = checked.Filter(), checked.Adjust()
	out.adjusters = checked.Of(memberAdjusters)
	if !ask.times {
		out.info = checked.Of(memberInfo)
	}
	if e := ask.earlier; e != nil && values.patient {
		out.info, out.adjusters = defined.KeepStaffOnly(out.info, e.Info), defined.KeepStaffOnly(out.adjusters, e.Adjusters)
		// What the desk has added before counts again.
		part := fields.Part{Member: memberAdjusters, Values: out.adjusters, Has: used(fields.Adjuster), Kept: true}
		if checked, err = form.Check(part); err != nil {
			return out, err
		}
		out.added = checked.Adjust()
	}
	return out, nil
}

// used returns the condition that a booking field has a use.
func used(use fields.Use) func(*models.FormField) bool {
	return func(f *models.FormField) bool { return fields.UseOf(f) == use }
}

// countryOf returns the country whose phone numbers need no country code.
func countryOf(db *gorm.DB, organizationID string) (string, error) {
	var o models.Organization
	err := db.Select("country", "timezone").Where("id = ?", organizationID).Take(&o).Error
	if err != nil {
		return "", fmt.Errorf("read the country of an organization: %w", err)
	}
	return catalog.CountryOf(&o), nil
}

// FilterOf checks the values of filters and returns the resources that they leave. fields
// are the organization's booking fields, typeID is a booking type, or empty for any.
func FilterOf(defined []models.FormField, values models.Fields, typeID string) (fields.Narrow, error) {
	if len(defined) == 0 {
		return fields.Narrow{}, nil
	}
	checked, err := fields.Form{Fields: defined, TypeID: typeID, Patient: true}.Check(
		fields.Part{Member: memberFilters, Values: values, Has: used(fields.Filter)})
	if err != nil {
		return fields.Narrow{}, err
	}
	return checked.Filter(), nil
}

// values returns the values of custom fields that j has.
func (j Join) values() fieldValues {
	return fieldValues{filters: j.FilterFields, adjusters: j.Adjusters, info: j.Info, patient: j.Patient}
}

// answer puts the values of custom fields into the booking that j asks for.
func (j *Join) answer(a answers, b *models.Booking) {
	j.Filters.narrow, j.Extra = a.narrow, a.added.Minutes
	b.Info, b.Adjusters = a.info, a.adjusters
}

// answerTimes puts the values of custom fields into a search for free times. It is public,
// and so are the fields that it knows. The adjusters of a booking that is rescheduled
// count where the search has none.
func (s *Service) answerTimes(db *gorm.DB, organizationID string, q *TimesQuery) error {
	ask := question{typeID: q.TypeID, times: true}
	if q.Reschedule != "" {
		earlier, err := s.get(db, organizationID, q.Reschedule)
		if err != nil && models.CodeOf(err) != models.CodeBookingNotFound {
			return err
		}
		ask.earlier = earlier
	}
	a, err := evaluate(db, organizationID, fieldValues{filters: q.FilterFields, adjusters: q.Adjusters, patient: true}, ask)
	q.Filters.narrow, q.extra = a.narrow, a.added.Minutes
	return err
}

// filtered is a resource that filters may leave.
type filtered struct {
	ID      string
	Details models.Fields `gorm:"serializer:json"`
}

// left returns the ids of the resources that the custom fields leave, in their order.
func left(narrow fields.Narrow, list []filtered) []string {
	var ids []string
	for _, r := range list {
		if narrow.Leaves(ownData(r.Details)) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// Leaves reports whether filters leave a resource.
func Leaves(narrow fields.Narrow, r *models.Resource) bool { return narrow.Leaves(ownData(r.Details)) }

// ownData returns the data of a resource that filters are compared with.
func ownData(details models.Fields) models.Fields {
	meta, _ := details["meta"].(map[string]any)
	return meta
}

// narrowed returns the resources that a queued booking is limited to: those named, of
// which the custom fields leave some. limited is false if there is no limit.
func (f Filters) narrowed(db *gorm.DB, organizationID, typeID string) (ids []string, limited bool, err error) {
	if f.narrow.All() {
		ids = slices.Clone(f.Resources)
		slices.Sort(ids)
		return slices.Compact(ids), len(ids) > 0, nil
	}
	q := db.Table("resources AS r").Where("r.organization_id = ? AND r.deleted_at IS NULL", organizationID).
		Where("EXISTS (SELECT 1 FROM resource_types rt WHERE rt.resource_id = r.id AND rt.type_id = ?)", typeID)
	if len(f.Resources) > 0 {
		q = q.Where("r.id IN ?", f.Resources)
	}
	var list []filtered
	if err := q.Select("r.id", "r.details").Order("r.id").Find(&list).Error; err != nil {
		return nil, false, fmt.Errorf("filter resources: %w", err)
	}
	return left(f.narrow, list), true, nil
}
