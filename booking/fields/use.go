package fields

import (
	"slices"

	"nowserving/models"
)

// Use is what a booking field does.
type Use int

// The uses of booking fields.
const (
	Info     Use = iota // it is information about the booking
	Filter              // it narrows the resources
	Adjuster            // it changes the length and the price
)

// UseOf returns the use of a booking field.
func UseOf(f *models.FormField) Use {
	adds := f.Type == models.FieldNumber && (f.Minutes > 0 || models.Hundredths(f.Price) > 0) ||
		f.Type == models.FieldOptions && slices.ContainsFunc(f.Options, func(o models.FieldOption) bool {
			return o.Minutes > 0 || models.Hundredths(o.Price) > 0
		})
	switch {
	case f.FiltersResources():
		return Filter
	case adds:
		return Adjuster
	}
	return Info
}

// IsFor reports whether a field is for a booking type. Of an empty type it is, too.
func IsFor(f *models.FormField, typeID string) bool {
	return typeID == "" || len(f.Types) == 0 || slices.Contains(f.Types, typeID)
}

// Offered returns the fields that customers see: the enabled public ones for a booking
// type, or for any type if typeID is empty.
func Offered(list []models.FormField, typeID string) []models.FormField {
	offered := []models.FormField{}
	for i := range list {
		if f := &list[i]; f.Enabled && f.Public() && IsFor(f, typeID) {
			offered = append(offered, *f)
		}
	}
	return offered
}

// OfferedFor is Offered for the booking fields of one use.
func OfferedFor(use Use, list []models.FormField, typeID string) []models.FormField {
	return slices.DeleteFunc(Offered(list, typeID), func(f models.FormField) bool { return UseOf(&f) != use })
}
