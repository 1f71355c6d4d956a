package fields

import (
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"nowserving/booking/contact"
	"nowserving/models"
)

// Bounds of values.
const (
	maxText      = 1000    // characters of a text
	maxParagraph = 10_000  // characters of a paragraph
	maxFiles     = 50      // photos or files of one field
	maxUnits     = 100_000 // of a number that adds minutes or a price
	maxDigits    = 100     // characters of a number
	maxExponent  = 30      // of a number that is calculated with
)

// Form are the fields that a request is about.
type Form struct {
	Fields []models.FormField
	// TypeID is the booking type, or empty if any field may have a value.
	TypeID string
	// Country is whose phone numbers need no country code. A field may name another.
	Country string
	// Patient reports that a patient gives the values, who knows public fields only.
	Patient bool
}

// Part is a member of a request, with the values of some fields by their ids.
type Part struct {
	// Member is the name of the member, for problems.
	Member string
	Values models.Fields
	// Has reports whether the values of a field belong in this part.
	Has func(f *models.FormField) bool
	// Required demands a value of every field that is asked and not optional.
	Required bool
	// Kept reports that the values are those of an earlier request. They are not checked:
	// the definitions may have changed since.
	Kept bool
}

// Answers are values that were checked.
type Answers struct {
	form  Form
	parts []Part
}

// Check checks values and returns them in the form they are stored in. It fails with all
// problems at once. A condition on a field that belongs in none of the parts counts as
// met: a search for times does not ask what is only asked at booking.
func (form Form) Check(parts ...Part) (*Answers, error) {
	a := &Answers{form: form, parts: slices.Clone(parts)}
	var wrong problems
	for i := range a.parts {
		part := &a.parts[i]
		if part.Kept {
			continue
		}
		part.Values = maps.Clone(part.Values)
		for _, id := range slices.Sorted(maps.Keys(part.Values)) {
			a.checkValue(part, id, &wrong)
		}
	}
	// Whether a field is asked depends on the values of others, all of which are read now.
	for _, part := range a.parts {
		if part.Kept {
			continue
		}
		for i := range form.Fields {
			f := &form.Fields[i]
			_, given := part.Values[f.ID]
			switch {
			case !part.Has(f) || form.Patient && !f.Public():
			case given && !a.asked(f):
				wrong.add(part.Member+"."+f.ID, "The field takes no value: what it depends on does not hold.")
			case !given && part.Required && !f.Optional && f.Type != models.FieldReadonly && a.asked(f):
				wrong.add(part.Member+"."+f.ID, models.FieldMissing)
			}
		}
	}
	if len(wrong) == 0 {
		for _, part := range a.parts {
			if minutes := a.adjust(part).Minutes; minutes > MaxMinutes {
				wrong.add(part.Member, "The fields add %d minutes. A visit gets at most %d longer.", minutes, MaxMinutes)
			}
		}
	}
	slices.SortStableFunc(wrong, func(x, y models.FieldProblem) int { return strings.Compare(x.Field, y.Field) })
	if err := models.InvalidFields(wrong); err != nil {
		return nil, err
	}
	return a, nil
}

// Of returns the values of a member.
func (a *Answers) Of(member string) models.Fields {
	for _, part := range a.parts {
		if part.Member == member {
			return part.Values
		}
	}
	return nil
}

// checkValue checks one value and brings it into the form it is stored in. An empty one is
// removed.
func (a *Answers) checkValue(part *Part, id string, wrong *problems) {
	field := part.Member + "." + id
	f := find(a.form.Fields, id)
	switch {
	case f == nil || a.form.Patient && !f.Public():
		wrong.add(field, models.FieldUnknown)
		return
	case !part.Has(f):
		wrong.add(field, "The field belongs in another member of the request.")
		return
	case !f.Enabled:
		wrong.add(field, "The field is disabled.")
		return
	case !IsFor(f, a.form.TypeID):
		wrong.add(field, "The field is for other booking types.")
		return
	case f.Type == models.FieldReadonly:
		wrong.add(field, "The field takes no value.")
		return
	}
	value := part.Values[id]
	if isEmpty(value) {
		delete(part.Values, id)
		return
	}
	normal, detail := a.form.value(f, value)
	if detail != "" {
		wrong.add(field, "%s", detail)
		return
	}
	part.Values[id] = normal
}

// isEmpty reports whether a value counts as none: null, an empty list, or a text without
// letters.
func isEmpty(value any) bool {
	text, isText := value.(string)
	return isText && strings.TrimSpace(text) == "" || len(each(value)) == 0
}

// asked reports whether a field is asked: in use, for the booking's type, and shown by the
// values of the fields it depends on.
func (a *Answers) asked(f *models.FormField) bool {
	if !f.Enabled || !IsFor(f, a.form.TypeID) {
		return false
	}
	for id, wanted := range f.Conditions {
		other := find(a.form.Fields, id)
		if other == nil || !a.meets(other, wanted) {
			return false
		}
	}
	return true
}

// meets reports whether the value of a field is one of those wanted.
func (a *Answers) meets(f *models.FormField, wanted any) bool {
	i := slices.IndexFunc(a.parts, func(part Part) bool { return part.Has(f) })
	if i < 0 {
		return true
	}
	value, given := a.parts[i].Values[f.ID]
	return given && a.asked(f) && anyEqual(each(value), each(wanted), func(value any) string {
		if number, ok := decimal(value); ok {
			return number.RatString()
		}
		text, _ := value.(string)
		return "text " + text
	})
}

// anyEqual reports whether two lists have a value in common.
func anyEqual(x, y []any, key func(any) string) bool {
	return slices.ContainsFunc(x, func(one any) bool {
		return slices.ContainsFunc(y, func(other any) bool { return key(one) == key(other) })
	})
}

// value checks the value of a field and returns it in the form it is stored in, or what is
// wrong with it.
func (form Form) value(f *models.FormField, value any) (normal any, detail string) {
	switch f.Type {
	case models.FieldText:
		return form.text(f, value)
	case models.FieldParagraph:
		return value, textProblem(value, maxParagraph)
	case models.FieldNumber:
		return value, numberProblem(f, value)
	case models.FieldOptions:
		return value, optionsProblem(f, value)
	case models.FieldLocation:
		return value, locationProblem(value)
	case models.FieldPhoto, models.FieldFile:
		return value, fileProblem(value)
	case models.FieldPhotos, models.FieldFiles:
		list, isList := value.([]any)
		if !isList || len(list) > maxFiles {
			return nil, "Give a list of at most " + strconv.Itoa(maxFiles) + " objects."
		}
		for _, one := range list {
			if detail := fileProblem(one); detail != "" {
				return nil, detail
			}
		}
		return value, ""
	default:
		return nil, "The field takes no value."
	}
}

func textProblem(value any, most int) string {
	text, isText := value.(string)
	if !isText || utf8.RuneCountInString(text) > most {
		return "Give a text of at most " + strconv.Itoa(most) + " characters."
	}
	return ""
}

// text checks a text, a phone number or an e-mail address.
func (form Form) text(f *models.FormField, value any) (normal any, detail string) {
	if detail := textProblem(value, maxText); detail != "" {
		return nil, detail
	}
	text, _ := value.(string)
	switch f.TextType {
	case models.TextPhone:
		country := f.DefaultCountry
		if country == "" {
			country = form.Country
		}
		phone, err := contact.Phone(contact.International(text, country))
		if err != nil {
			return nil, "Give the phone number in international form, such as +966500000001."
		}
		of := contact.Country(phone)
		if f.AllowedCountries == models.CountriesSpecific && !slices.Contains(f.AllowedList, of) ||
			f.AllowedCountries == models.CountriesForbidden && slices.Contains(f.ForbiddenList, of) {
			return nil, "A phone number of this country is not accepted."
		}
		return phone, ""
	case models.TextEmail:
		email, err := contact.Email(text)
		if err != nil {
			return nil, "This is not an e-mail address."
		}
		return email, ""
	}
	return text, ""
}

func numberProblem(f *models.FormField, value any) string {
	number, isNumber := decimal(value)
	if !isNumber {
		return "Give a number."
	}
	if UseOf(f) == Adjuster && (number.Sign() < 0 || number.Cmp(big.NewRat(maxUnits, 1)) > 0) {
		return "Give a number from 0 to " + strconv.Itoa(maxUnits) + "."
	}
	return ""
}

// decimal reads a JSON number exactly.
func decimal(value any) (*big.Rat, bool) {
	var text string
	switch v := value.(type) {
	case json.Number:
		text = v.String()
	case float64:
		text = strconv.FormatFloat(v, 'g', -1, 64)
	case int:
		text = strconv.Itoa(v)
	default:
		return nil, false
	}
	// A large exponent would take as many digits to write out.
	_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if n, err := strconv.Atoi(exponent); len(text) > maxDigits || exponent != "" && (err != nil || n > maxExponent || n < -maxExponent) {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

func optionsProblem(f *models.FormField, value any) string {
	list, isList := value.([]any)
	if isList && !f.Multiple() && UseOf(f) != Filter {
		return "Give the value of one option."
	}
	if !isList {
		list = []any{value}
	}
	var seen []string
	for _, one := range list {
		text, isText := one.(string)
		switch {
		case !isText || !hasOption(f, text):
			return "There is no such option."
		case slices.Contains(seen, text):
			return "An option is named twice."
		}
		seen = append(seen, text)
	}
	return ""
}

func locationProblem(value any) string {
	const detail = "Give an object with position (latitude and longitude) and address."
	location, _ := value.(map[string]any)
	position, _ := location["position"].(map[string]any)
	within := func(name string, most int64) bool {
		number, isNumber := decimal(position[name])
		return isNumber && number.Cmp(big.NewRat(most, 1)) <= 0 && number.Cmp(big.NewRat(-most, 1)) >= 0
	}
	if !within("latitude", 90) || !within("longitude", 180) {
		return detail
	}
	if address := location["address"]; address != nil && textProblem(address, maxText) != "" {
		return detail
	}
	return ""
}

// fileProblem checks the form of a photo or a file: new ones have data, known ones url.
func fileProblem(value any) string {
	file, _ := value.(map[string]any)
	text := func(name string) bool { text, _ := file[name].(string); return text != "" }
	if text("url") || text("fileName") && text("data") {
		return ""
	}
	return "Give an object with fileName and data."
}

// Adjustment is what adjusters add to a booking.
type Adjustment struct {
	Minutes int
	// Cents is the price in hundredths.
	Cents int64
}

// Price returns the price as a decimal, such as 12.50.
func (a Adjustment) Price() string {
	return strconv.FormatInt(a.Cents/100, 10) + "." + strconv.FormatInt(a.Cents%100+100, 10)[1:]
}

// Adjust returns what the values add. Of values that were kept, those that are not valid
// any more add nothing.
func (a *Answers) Adjust() Adjustment {
	var sum Adjustment
	for _, part := range a.parts {
		added := a.adjust(part)
		sum.Minutes += added.Minutes
		sum.Cents += added.Cents
	}
	return sum
}

func (a *Answers) adjust(part Part) Adjustment {
	var sum Adjustment
	for id, value := range part.Values {
		f := find(a.form.Fields, id)
		if f == nil || UseOf(f) != Adjuster || !part.Has(f) || !a.asked(f) {
			continue
		}
		if _, detail := a.form.value(f, value); detail != "" {
			continue
		}
		if number, ok := decimal(value); ok && f.Type == models.FieldNumber {
			sum.Minutes += int(roundedUp(new(big.Rat).Mul(number, big.NewRat(int64(f.Minutes), 1))))
			sum.Cents += rounded(new(big.Rat).Mul(number, big.NewRat(models.Hundredths(f.Price), 1)))
		}
		for _, chosen := range each(value) {
			for _, option := range f.Options {
				if option.Value == chosen {
					sum.Minutes += option.Minutes
					sum.Cents += models.Hundredths(option.Price)
				}
			}
		}
	}
	return sum
}

// roundedUp returns the least integer that is not less than a number.
func roundedUp(number *big.Rat) int64 {
	whole, rest := new(big.Int).QuoRem(number.Num(), number.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	return whole.Int64()
}

// rounded returns the integer nearest to a number that is not negative, the upper one of
// two.
func rounded(number *big.Rat) int64 {
	half := new(big.Rat).Add(number, big.NewRat(1, 2))
	return new(big.Int).Quo(half.Num(), half.Denom()).Int64()
}

// Narrow is the part of the resources that filters leave. The zero value leaves all.
type Narrow struct {
	wanted []wanted
}

type wanted struct {
	id     string
	values []any
}

// Filter returns the resources that the values leave.
func (a *Answers) Filter() Narrow {
	var n Narrow
	for _, part := range a.parts {
		for id, value := range part.Values {
			if f := find(a.form.Fields, id); f != nil && UseOf(f) == Filter && part.Has(f) {
				n.wanted = append(n.wanted, wanted{id, each(value)})
			}
		}
	}
	return n
}

// All reports whether every resource is left.
func (n Narrow) All() bool { return len(n.wanted) == 0 }

// Leaves reports whether a resource is left, by its own data. The data has a value, or a
// list of values, for each field: one of them has to be one of those wanted. Texts are
// compared without regard to case and to spaces around them.
func (n Narrow) Leaves(data models.Fields) bool {
	for _, w := range n.wanted {
		if !anyEqual(each(data[w.id]), w.values, comparedAs) {
			return false
		}
	}
	return true
}

// comparedAs returns the text by which values are compared. It is empty for what equals no
// value that can be wanted.
func comparedAs(value any) string {
	if number, ok := decimal(value); ok {
		return number.RatString()
	}
	switch v := value.(type) {
	case string:
		return strings.ToLower(strings.TrimSpace(v))
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}
