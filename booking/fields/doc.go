// Package fields checks the definitions of custom fields and the values that are given
// for them. It is pure: definitions and values go in, problems, minutes, prices and
// filters come out.
//
// A booking field has one use. A filter narrows the resources by their own data. An
// adjuster adds minutes and a price. Everything else is information.
//
// A field is asked if it is enabled, is for the booking's type, and all its conditions
// hold. A field that is not asked takes no value. All problems of a request are reported
// at once, one for each field.
package fields
