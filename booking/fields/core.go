package fields

import (
	"slices"

	"nowserving/models"
)

// core are the customer fields that every organization has.
var core = []models.FormField{
	{
		ID: models.FieldPhoneNumber, Name: "Phone number", NameTranslations: models.Translation{En: "Phone number", Ar: "رقم الجوال"},
		Type: models.FieldText, TextType: models.TextPhone, Enabled: true, Visibility: models.VisiblePublic,
	},
	{
		ID: models.FieldFirstName, Name: "First name", NameTranslations: models.Translation{En: "First name", Ar: "الاسم الأول"},
		Type: models.FieldText, Optional: true, Enabled: true, Visibility: models.VisiblePublic,
	},
	{
		ID: models.FieldLastName, Name: "Last name", NameTranslations: models.Translation{En: "Last name", Ar: "اسم العائلة"},
		Type: models.FieldText, Optional: true, Enabled: true, Visibility: models.VisiblePublic,
	},
	{
		ID: models.FieldEmail, Name: "E-mail", NameTranslations: models.Translation{En: "E-mail", Ar: "البريد الإلكتروني"},
		Type: models.FieldText, TextType: models.TextEmail, Optional: true, Enabled: true, Visibility: models.VisiblePublic,
	},
}

// IsCore reports whether an id is that of a customer field that every organization has.
// The values of these fields are a customer's own members, not in data.
func IsCore(id string) bool {
	return slices.ContainsFunc(core, func(f models.FormField) bool { return f.ID == id })
}

// WithCore returns a list of customer fields with the core fields that it lacks before
// it: as they were, or by default.
func WithCore(list, before []models.FormField) []models.FormField {
	var lacking []models.FormField
	for _, f := range core {
		if find(list, f.ID) != nil {
			continue
		}
		if known := find(before, f.ID); known != nil {
			f = *known
		}
		lacking = append(lacking, f)
	}
	return append(lacking, list...)
}

// BeyondCore returns the customer fields whose values are in data.
func BeyondCore(list []models.FormField) []models.FormField {
	return slices.DeleteFunc(slices.Clone(list), func(f models.FormField) bool { return IsCore(f.ID) })
}

// Complete gives a new definition its defaults: a core field is public and has its own text
// type, any other is for staff only.
func Complete(kind models.FieldKind, f *models.FormField) {
	isCore := kind == models.CustomerFields && IsCore(f.ID)
	if isCore && f.TextType == "" {
		f.TextType = coreTextType(f.ID)
	}
	switch {
	case f.Visibility != "":
	case isCore:
		f.Visibility = models.VisiblePublic
	default:
		f.Visibility = models.VisibleProviderOnly
	}
}

// coreTextType returns the text type that a core field has.
func coreTextType(id string) string {
	if f := find(core, id); f != nil {
		return f.TextType
	}
	return ""
}

// checkContacts checks the rules on phone number and e-mail: one of the two is always
// there to tell customers apart.
func checkContacts(list []models.FormField, problems *problems) {
	phone, email := find(list, models.FieldPhoneNumber), find(list, models.FieldEmail)
	if phone == nil || email == nil {
		return
	}
	switch {
	case !phone.Enabled && !email.Enabled:
		problems.add(models.FieldPhoneNumber, "Phone number and e-mail can't both be disabled.")
	case !email.Enabled && phone.Optional:
		problems.add(models.FieldPhoneNumber, "The phone number can't be optional while e-mail is disabled.")
	case !phone.Enabled && email.Optional:
		problems.add(models.FieldEmail, "E-mail can't be optional while the phone number is disabled.")
	case phone.Optional && email.Optional:
		problems.add(models.FieldPhoneNumber, "Phone number and e-mail can't both be optional.")
	}
}

func find(list []models.FormField, id string) *models.FormField {
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}
