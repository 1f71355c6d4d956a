package fields

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"nowserving/booking/contact"
	"nowserving/models"
)

// Bounds of definitions.
const (
	MaxFields  = 200     // of one kind
	MaxOptions = 200     // of one field
	MaxMinutes = 24 * 60 // that a unit or an option adds, and that all fields of a booking add
	maxID      = 64      // characters of an id, and of an option's value
)

// problems are what is wrong with a request, at most one for each field.
type problems []models.FieldProblem

func (p *problems) add(field, format string, args ...any) {
	if !slices.ContainsFunc(*p, func(known models.FieldProblem) bool { return known.Field == field }) {
		*p = append(*p, models.FieldProblem{Field: field, Detail: fmt.Sprintf(format, args...)})
	}
}

// CheckDefinitions checks the fields of one kind, known being the ids of the booking
// types, and brings prices and countries into the form they are stored in. Problems are
// named by the position of the field in the list, such as [0].options[1].value. The rules
// on phone number and e-mail are named by the ids of these fields.
func CheckDefinitions(kind models.FieldKind, list []models.FormField, known []string) error {
	var wrong problems
	if len(list) > MaxFields {
		return models.Invalid("["+strconv.Itoa(MaxFields)+"]", "There are at most %d fields.", MaxFields)
	}
	for i := range list {
		d := definition{kind: kind, f: &list[i], list: list, path: "[" + strconv.Itoa(i) + "]", problems: &wrong}
		if slices.ContainsFunc(list[:i], func(f models.FormField) bool { return f.ID == d.f.ID }) {
			d.add(".id", "Another field has this id.")
		}
		d.check(known)
	}
	if len(wrong) == 0 && kind == models.CustomerFields {
		checkContacts(list, &wrong)
	}
	return models.InvalidFields(wrong)
}

// definition is the check of one field.
type definition struct {
	kind     models.FieldKind
	f        *models.FormField
	list     []models.FormField
	path     string
	problems *problems
}

func (d definition) add(member, format string, args ...any) {
	d.problems.add(d.path+member, format, args...)
}

func (d definition) check(known []string) {
	f := d.f
	if !isID(f.ID) {
		d.add(".id", "An id has 1 to %d characters.", maxID)
	}
	if strings.TrimSpace(f.Name) == "" {
		d.add(".name", "A field needs a name.")
	}
	if !slices.Contains(types, f.Type) {
		d.add(".type", "There is no such type of field.")
	}
	switch {
	case f.TextType == "":
	case f.Type != models.FieldText:
		d.add(".textType", "Only a text field has a textType.")
	case f.TextType != models.TextPhone && f.TextType != models.TextEmail:
		d.add(".textType", "It is phone or email.")
	}
	if f.Visibility != models.VisiblePublic && f.Visibility != models.VisibleProviderOnly {
		d.add(".visibility", "It is public or providerOnly.")
	}
	for i, id := range f.Types {
		if !slices.Contains(known, id) {
			d.add(".types["+strconv.Itoa(i)+"]", "There is no such booking type.")
		}
	}
	if d.kind == models.CustomerFields && IsCore(f.ID) && (f.Type != models.FieldText || f.TextType != coreTextType(f.ID)) {
		d.add(".type", "The type of this field can't be changed.")
	}
	d.options()
	d.adding()
	d.info()
	d.countries()
	d.conditions()
}

var types = []models.FieldType{
	models.FieldText, models.FieldParagraph, models.FieldNumber, models.FieldOptions, models.FieldLocation,
	models.FieldPhoto, models.FieldPhotos, models.FieldFile, models.FieldFiles, models.FieldReadonly,
}

func isID(id string) bool {
	return id != "" && utf8.RuneCountInString(id) <= maxID && strings.TrimSpace(id) == id && !strings.ContainsFunc(id, unicode.IsControl)
}

// options checks the choices of an options field.
func (d definition) options() {
	f := d.f
	if f.Type != models.FieldOptions {
		if len(f.Options) > 0 {
			d.add(".options", "Only an options field has options.")
		}
		return
	}
	if len(f.Options) == 0 || len(f.Options) > MaxOptions {
		d.add(".options", "Give 1 to %d options.", MaxOptions)
		return
	}
	for i := range f.Options {
		option := &f.Options[i]
		path := ".options[" + strconv.Itoa(i) + "]"
		switch {
		case !isID(option.Value):
			d.add(path+".value", "A value has 1 to %d characters.", maxID)
		case slices.ContainsFunc(f.Options[:i], func(o models.FieldOption) bool { return o.Value == option.Value }):
			d.add(path+".value", "Another option has this value.")
		}
		d.minutes(path, option.Minutes)
		d.price(path, &option.Price)
	}
}

// adding checks what a unit of a number field adds.
func (d definition) adding() {
	f := d.f
	if f.Type == models.FieldNumber {
		d.minutes("", f.Minutes)
		d.price("", &f.Price)
		return
	}
	where := "Only a number field and options have"
	if f.Minutes != 0 {
		d.add(".minutes", "%s minutes.", where)
	}
	if models.Hundredths(f.Price) != 0 {
		d.add(".price", "%s a price.", where)
	}
	f.Price = ""
}

func (d definition) minutes(path string, minutes int) {
	if minutes < 0 || minutes > MaxMinutes {
		d.add(path+".minutes", "It adds 0 to %d minutes.", MaxMinutes)
	}
}

func (d definition) price(path string, price *string) {
	normal, ok := models.Decimal(*price)
	if !ok {
		d.add(path+".price", "A price is a decimal with two digits, such as 150.00.")
	}
	*price = normal
}

// info checks the members of info that have a meaning.
func (d definition) info() {
	f := d.f
	for _, member := range []struct {
		name string
		may  []models.FieldType
	}{{"filterResources", []models.FieldType{models.FieldText, models.FieldNumber, models.FieldOptions}}, {"multiple", []models.FieldType{models.FieldOptions}}} {
		name, may := member.name, member.may
		value, given := f.Info[name]
		on, isBool := value.(bool)
		switch {
		case !given || value == nil:
		case !isBool:
			d.add(".info."+name, "It is true or false.")
		case on && !slices.Contains(may, f.Type):
			d.add(".info."+name, "A field of the type %s can't have it.", f.Type)
		}
	}
}

// countries checks which phone numbers a field takes.
func (d definition) countries() {
	f := d.f
	country := func(member string, code *string) {
		*code = strings.ToUpper(*code)
		if !contact.IsCountry(*code) {
			d.add(member, "Give a country of ISO 3166-1 such as SA.")
		}
	}
	if f.DefaultCountry != "" {
		country(".defaultCountry", &f.DefaultCountry)
	}
	for i := range f.AllowedList {
		country(".allowedCountriesList["+strconv.Itoa(i)+"]", &f.AllowedList[i])
	}
	for i := range f.ForbiddenList {
		country(".forbiddenCountriesList["+strconv.Itoa(i)+"]", &f.ForbiddenList[i])
	}
	switch f.AllowedCountries {
	case "", models.CountriesAll, models.CountriesForbidden:
	case models.CountriesSpecific:
		if len(f.AllowedList) == 0 {
			d.add(".allowedCountriesList", "Name at least one country.")
		}
	default:
		d.add(".allowedCountries", "It is all, specific or forbidden.")
	}
}

// conditions checks that what a field depends on can ever hold.
func (d definition) conditions() {
	for _, id := range slices.Sorted(maps.Keys(d.f.Conditions)) {
		wanted := d.f.Conditions[id]
		path := ".conditions." + id
		other := find(d.list, id)
		switch {
		case other == nil:
			d.add(path, "There is no such field.")
		case d.kind == models.CustomerFields && IsCore(id):
			d.add(path, "A condition can't be on this field.")
		case d.f.Public() && !other.Public():
			d.add(path, "Customers don't see the other field, so this one can't be public.")
		case dependsOn(d.list, other, d.f.ID, nil):
			d.add(path, "The fields depend on each other.")
		default:
			if detail := conditionProblem(other, wanted); detail != "" {
				d.add(path, "%s", detail)
			}
		}
	}
}

// dependsOn reports whether a field is the one with an id, or depends on it.
func dependsOn(list []models.FormField, f *models.FormField, id string, seen []string) bool {
	if f.ID == id {
		return true
	}
	if slices.Contains(seen, f.ID) {
		return false
	}
	for next := range f.Conditions {
		if other := find(list, next); other != nil && dependsOn(list, other, id, append(seen, f.ID)) {
			return true
		}
	}
	return false
}

// conditionProblem says why no value of a field can meet a condition, or "".
func conditionProblem(other *models.FormField, wanted any) string {
	values := each(wanted)
	if len(values) == 0 {
		return "Give the value, or the values, that show this field."
	}
	for _, value := range values {
		text, isText := value.(string)
		_, isNumber := decimal(value)
		switch other.Type {
		case models.FieldText, models.FieldParagraph:
			if !isText {
				return "The other field has a text."
			}
		case models.FieldNumber:
			if !isNumber {
				return "The other field has a number."
			}
		case models.FieldOptions:
			if !isText || !hasOption(other, text) {
				return "The other field has no such option."
			}
		default:
			return "A condition can't be on a field of the type " + string(other.Type) + "."
		}
	}
	return ""
}

func hasOption(f *models.FormField, value string) bool {
	return slices.ContainsFunc(f.Options, func(o models.FieldOption) bool { return o.Value == value })
}

// each returns the values of a list, or the one value.
func each(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}
