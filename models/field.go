package models

import (
	"maps"
	"time"
)

// FieldType is what a custom field takes.
type FieldType string

// The types of custom fields.
const (
	FieldText      FieldType = "text"
	FieldParagraph FieldType = "paragraph"
	FieldNumber    FieldType = "number"
	FieldOptions   FieldType = "options"
	FieldLocation  FieldType = "location"
	FieldPhoto     FieldType = "photo"
	FieldPhotos    FieldType = "photos"
	FieldFile      FieldType = "file"
	FieldFiles     FieldType = "files"
	FieldReadonly  FieldType = "paragraph-readonly" // it is shown and takes no value
)

// The text types of a text field.
const (
	TextPhone = "phone"
	TextEmail = "email"
)

// Visibility is who sees a custom field.
type Visibility string

// The visibilities of a custom field.
const (
	VisiblePublic       Visibility = "public"
	VisibleProviderOnly Visibility = "providerOnly" // staff only
)

// Which countries a phone number may be of.
const (
	CountriesAll       = "all"
	CountriesSpecific  = "specific"
	CountriesForbidden = "forbidden"
)

// The ids of the customer fields that every organization has.
const (
	FieldPhoneNumber = "phoneNumber"
	FieldFirstName   = "firstName"
	FieldLastName    = "lastName"
	FieldEmail       = "email"
)

// FormField is the definition of a custom field.
type FormField struct {
	ID               string      `json:"id"`
	Name             string      `json:"name" doc:"In the language asked for."`
	NameTranslations Translation `json:"name_translations"`
	Description      string      `json:"description,omitempty"`
	Type             FieldType   `json:"type" enum:"text,paragraph,number,options,location,photo,photos,file,files,paragraph-readonly"`
	TextType         string      `json:"textType,omitempty" enum:"phone,email" doc:"Of a text field."`
	Optional         bool        `json:"optional" doc:"Whether the field may be left out."`
	Enabled          bool        `json:"enabled" doc:"Whether the field is in use."`
	Visibility       Visibility  `json:"visibility" enum:"public,providerOnly" doc:"Whether customers see it, or staff only."`
	// Options are those of an options field.
	Options []FieldOption `json:"options,omitempty"`
	// Types are the booking types the field is for. Empty: all.
	Types   []string `json:"types" nullable:"false" doc:"The booking types the field is for. Empty: all."`
	Minutes int      `json:"minutes,omitempty" doc:"Of a number field: how many minutes each unit adds to a visit."`
	Price   string   `json:"price,omitempty" example:"25.00" doc:"Of a number field: how much each unit adds to the price."`
	Info    Fields   `json:"info,omitempty" doc:"filterResources: the field filters resources by their meta. multiple: an options field takes several values. Other members are kept."`
	// Conditions are values of other fields by their ids. All have to hold.
	Conditions Fields `json:"conditions,omitempty" doc:"The field is shown when every field named here has the value, or one of the values, given for it."`

	PhoneAuthMethods []string `json:"phoneAuthMethods,omitempty"`
	SMSSender        string   `json:"smsSender,omitempty"`
	DefaultCountry   string   `json:"defaultCountry,omitempty" example:"SA" doc:"Whose phone numbers need no country code. Default: the organization's."`
	AllowedCountries string   `json:"allowedCountries,omitempty" enum:"all,specific,forbidden" doc:"Of which countries a phone number may be: any, those of allowedCountriesList, or any but those of forbiddenCountriesList."`
	AllowedList      []string `json:"allowedCountriesList,omitempty"`
	ForbiddenList    []string `json:"forbiddenCountriesList,omitempty"`
}

// FieldOption is one choice of an options field.
type FieldOption struct {
	Value            string      `json:"value"`
	Name             string      `json:"name" doc:"In the language asked for."`
	NameTranslations Translation `json:"name_translations"`
	Minutes          int         `json:"minutes,omitempty" doc:"How many minutes it adds to a visit."`
	Price            string      `json:"price,omitempty" example:"25.00" doc:"How much it adds to the price."`
}

// Public reports whether customers see the field.
func (f *FormField) Public() bool { return f.Visibility == VisiblePublic }

// FiltersResources reports whether the field's value is compared with resources' own data.
func (f *FormField) FiltersResources() bool {
	filters, _ := f.Info["filterResources"].(bool)
	return filters
}

// Multiple reports whether an options field takes several values.
func (f *FormField) Multiple() bool { multiple, _ := f.Info["multiple"].(bool); return multiple }

// FieldKind is what custom fields are about.
type FieldKind string

// The kinds of custom fields.
const (
	CustomerFields FieldKind = "customer"
	BookingFields  FieldKind = "booking"
)

// CustomFields are the custom fields of one kind of an organization.
type CustomFields struct {
	OrganizationID string      `gorm:"primaryKey"`
	Kind           FieldKind   `gorm:"primaryKey"`
	Fields         []FormField `gorm:"serializer:json"`
	// Retired are the ids of fields that only staff saw and that were deleted. Values
	// that were given for them stay hidden from customers.
	Retired   []string `gorm:"serializer:json"`
	UpdatedAt time.Time
}

// MaxRetiredFields bounds CustomFields.Retired. Beyond it the oldest are dropped.
const MaxRetiredFields = 1000

// ShownToCustomers returns values without those of fields that only staff see.
func (c *CustomFields) ShownToCustomers(values Fields) Fields {
	if len(values) == 0 || len(c.Fields) == 0 && len(c.Retired) == 0 {
		return values
	}
	hidden := c.StaffOnly()
	shown := make(Fields, len(values))
	for id, value := range values {
		if !hidden[id] {
			shown[id] = value
		}
	}
	return shown
}

// KeepStaffOnly returns values together with those of before that only staff see: who does
// not see them can't send them back.
func (c *CustomFields) KeepStaffOnly(values, before Fields) Fields {
	hidden := c.StaffOnly()
	kept := maps.Clone(values)
	for id, value := range before {
		if !hidden[id] {
			continue
		}
		if kept == nil {
			kept = Fields{}
		}
		kept[id] = value
	}
	return kept
}

// StaffOnly returns the ids of the fields whose values only staff see.
func (c *CustomFields) StaffOnly() map[string]bool {
	hidden := map[string]bool{}
	for _, id := range c.Retired {
		hidden[id] = true
	}
	for i := range c.Fields {
		hidden[c.Fields[i].ID] = !c.Fields[i].Public()
	}
	return hidden
}
