// Package calendar finds the times at which a visit can be booked. It is pure: rules,
// busy times and a moment go in, free times come out.
//
// A resource is open in the slots of its time rules, less what its off rules close. A
// time is free if the whole visit is within these hours, and if it and its buffers touch
// no other visit and none of that visit's buffers.
//
// Rules are in the local time of a zone; the search is in minutes since 1970, so that
// days of 23 and 25 hours need no rule of their own. A slot that begins at a time over
// which the clocks leap begins at the leap. A time that the clocks show twice is the
// first of the two, and is offered once.
package calendar
