// Package contact brings phone numbers, e-mail addresses and typed codes into one
// form. It is pure: it reads and stores nothing.
package contact

import (
	"errors"
	"net/mail"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"

	"nowserving/models"
)

// Digits normalizes a typed text: digits of any script become 0 to 9, and
// bidirectional marks, which come with a copied number, are removed.
func Digits(number string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Cf, r):
			return -1
		case unicode.Is(unicode.Nd, r) && !unicode.Is(unicode.Common, r): // of a script
			value := rune(0) // digits of a script stand in a row, from 0 to 9
			for unicode.Is(unicode.Nd, r-value-1) {
				value++
			}
			return '0' + value
		case r >= 0x660 && r <= 0x669: // several scripts share those of Arabic
			return '0' + r - 0x660
		}
		return r
	}, number))
}

// Code normalizes a one-time code, which may be typed in groups.
func Code(code string) string {
	return strings.NewReplacer(" ", "", "-", "", "\u00a0", "").Replace(Digits(code))
}

// International adds the country code to a local number of country (ISO 3166-1).
// Any other text is returned unchanged.
func International(phone, country string) string {
	text := Digits(phone)
	if country == "" || text == "" || strings.HasPrefix(text, "+") || strings.HasPrefix(text, "00") {
		return phone
	}
	number, err := phonenumbers.Parse(text, country)
	if err != nil || !phonenumbers.IsValidNumberForRegion(number, country) {
		return phone
	}
	return phonenumbers.Format(number, phonenumbers.E164)
}

// Phone returns a phone number in E.164, the form it is stored in. It fails with
// CodeInvalid.
func Phone(phone string) (string, error) {
	text := Digits(phone)
	if rest, ok := strings.CutPrefix(text, "00"); ok {
		text = "+" + rest
	}
	number, err := phonenumbers.Parse(text, "ZZ")
	if err != nil || !phonenumbers.IsPossibleNumber(number) {
		return "", models.Invalid("phoneNumber", "Give the phone number in international form, such as +966500000001, or a local number of the organization's country.")
	}
	return phonenumbers.Format(number, phonenumbers.E164), nil
}

// Country returns the country (ISO 3166-1) of a phone number in E.164, or "" if it can't be
// told.
func Country(phone string) string {
	number, err := phonenumbers.Parse(phone, "ZZ")
	if err != nil {
		return ""
	}
	return phonenumbers.GetRegionCodeForNumber(number)
}

// IsCountry reports whether a code names a country (ISO 3166-1) that has phone numbers.
func IsCountry(code string) bool { return phonenumbers.GetCountryCodeForRegion(code) != 0 }

// Email returns an e-mail address in lower case, the form it is stored in. It fails
// with CodeInvalid.
func Email(email string) (string, error) {
	text := strings.ToLower(strings.TrimSpace(email))
	address, err := mail.ParseAddress(text)
	if err != nil || address.Address != text {
		return "", models.Invalid("email", "This is not an e-mail address.")
	}
	return text, nil
}

// Fields are the names of the fields of a request with a phone number and an e-mail
// address, for errors.
type Fields struct{ Phone, Email string }

// Own are the fields of a request about a person.
var Own = Fields{"phone", "email"}

// Both returns a phone number and an e-mail address in the form they are stored
// in, or nil for an empty one.
func Both(phone, email string, fields Fields) (p, e *string, err error) {
	for _, one := range []struct {
		text, field string
		normal      func(string) (string, error)
		to          **string
	}{{phone, fields.Phone, Phone, &p}, {email, fields.Email, Email, &e}} {
		if one.text == "" {
			continue
		}
		normal, err := one.normal(one.text)
		if wrong, ok := errors.AsType[*models.Error](err); ok {
			named := *wrong
			named.Field = one.field
			err = &named
		}
		if err != nil {
			return nil, nil, err
		}
		*one.to = &normal
	}
	return p, e, nil
}
