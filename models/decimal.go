package models

import (
	"regexp"
	"strconv"
	"strings"
)

var decimalPattern = regexp.MustCompile(`^\d{1,9}(\.\d{2})?$`)

// Decimal returns a price or percentage in the form of the API document, d+.d{2},
// which adds the digits of a whole number. Empty is empty.
func Decimal(text string) (normal string, ok bool) {
	if text == "" {
		return "", true
	}
	if !decimalPattern.MatchString(text) {
		return text, false
	}
	if !strings.Contains(text, ".") {
		text += ".00"
	}
	return text, true
}

// Hundredths is a decimal without its point: 150.00 is 15000. Empty, or what is no
// decimal, is 0.
func Hundredths(text string) int64 {
	normal, ok := Decimal(text)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(normal, ".", ""), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
