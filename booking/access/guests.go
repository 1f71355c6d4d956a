package access

import (
	"strings"
	"unicode"

	"nowserving/booking/contact"
)

// A drawn on-site code leaves out characters that look alike, such as 0 and O.
const (
	onSiteDigits = "23456789ABCDEFGHJKMNPQRTUVWXYZ"
	onSiteLength = 6
	minOnSite    = 4
	maxOnSite    = 20
)

// NewOnSiteCode draws a code for the clinic to show on site.
func NewOnSiteCode() string { return randomText(onSiteDigits, onSiteLength) }

// NormalOnSiteCode normalizes an on-site code: capital letters and the digits 0 to 9,
// without spaces. It returns "" for an invalid one.
func NormalOnSiteCode(text string) string {
	code := strings.ToUpper(strings.Join(strings.Fields(contact.Digits(text)), ""))
	other := func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	if len(code) < minOnSite || len(code) > maxOnSite || strings.ContainsFunc(code, other) {
		return ""
	}
	return code
}

// SameOnSiteCode compares a typed code with the code of the clinic.
func SameOnSiteCode(given, code string) bool {
	given = NormalOnSiteCode(given)
	return given != "" && constantEqual(given, code)
}
