package models

import (
	"errors"
	"fmt"
	"time"
)

// Code is a stable identifier of a failure that clients may rely on.
type Code string

// Failure is an entry of the catalogue of errors: a code, its meaning and what the
// client can do about it. handlers/api maps codes to HTTP statuses.
type Failure struct {
	Code    Code
	Meaning string
	Remedy  string
}

// The codes. Where the API document names a code, it is spelled as there.
const (
	CodeAlreadyAssigned Code = "SCH-ALREADY_ASSIGNED"
	CodeExpired         Code = "BKS-110"
	CodeBookingNotFound Code = "BKS-NOT_FOUND"
	CodeNoTime          Code = "BKS-NO_TIME"
	CodeStage           Code = "BKS-STAGE"
	CodeNothingToUndo   Code = "BKS-NOTHING_TO_UNDO"
	CodeTypeMismatch    Code = "SCH-TYPE_MISMATCH"
	CodeTypeOff         Code = "SCH-TYPE_OFF"
	CodeNobodyServes    Code = "SCH-NOBODY_SERVES"
	CodeNotOffered      Code = "SCH-NOT_OFFERED"
	CodeSlotTaken       Code = "SCH-SLOT_TAKEN"
	CodePast            Code = "SCH-PAST"
	CodeOutsideHours    Code = "SCH-OUTSIDE_HOURS"
	CodeTooEarly        Code = "SCH-TOO_EARLY"
	CodeTooLate         Code = "SCH-TOO_LATE"
	CodeOwnOverlap      Code = "SCH-OWN_OVERLAP"
	CodeBooked          Code = "CAL-BOOKED"
	CodeFeedMissing     Code = "CAL-FEED_NOT_FOUND"
	CodeResourceInUse   Code = "RES-IN_USE"
	CodeQueueEmpty      Code = "QUE-EMPTY"
	CodeQueuePaused     Code = "QUE-PAUSED"
	CodeRecallTooSoon   Code = "QUE-RECALL_TOO_SOON"
	CodeRecallLimit     Code = "QUE-RECALL_LIMIT"
	CodeResourceMissing Code = "RES-NOT_FOUND"
	CodeResourceOff     Code = "RES-OFF"
	CodeTypeMissing     Code = "TYP-NOT_FOUND"
	CodeTypeInUse       Code = "TYP-IN_USE"
	CodePrefixTaken     Code = "TYP-PREFIX_TAKEN"
	CodeCustomerMissing Code = "CUS-NOT_FOUND"
	CodeContactTaken    Code = "CUS-CONTACT_TAKEN"
	CodeBeingServed     Code = "CUS-BEING_SERVED"
	CodeSameCustomer    Code = "CUS-SAME"
	CodeDisplayMissing  Code = "DSP-NOT_FOUND"
	CodeFileMissing     Code = "FIL-NOT_FOUND"
	CodeOrgMissing      Code = "ORG-NOT_FOUND"
	CodeOrgNameTaken    Code = "ORG-SHORT_NAME_TAKEN"
	CodeHardDelete      Code = "ORG-HARD_DELETE"
	CodeKeyMissing      Code = "KEY-NOT_FOUND"
	CodeKeyTaken        Code = "KEY-NAME_TAKEN"
	CodeKeyLimit        Code = "KEY-LIMIT"
	CodeMemberMissing   Code = "MBR-NOT_FOUND"
	CodeMemberTaken     Code = "MBR-CONTACT_TAKEN"
	CodeMemberSelf      Code = "MBR-SELF"
	CodeLastOwner       Code = "MBR-LAST_OWNER"
	CodeWebhookMissing  Code = "WHK-NOT_FOUND"
	CodeDeliveryMissing Code = "WHK-DELIVERY_NOT_FOUND"
	CodeWebhookLimit    Code = "WHK-LIMIT"
	CodeWebhookOff      Code = "WHK-OFF"
	CodeMalformed       Code = "REQ-MALFORMED"
	CodeInvalid         Code = "REQ-INVALID"
	CodePageToken       Code = "REQ-PAGE_TOKEN" //nolint:gosec // no credential
	CodeRequestMismatch Code = "IDM-MISMATCH"
	CodeRequestRunning  Code = "IDM-RUNNING"
	CodeAnswerLost      Code = "IDM-ANSWER_LOST"
	CodeTooLarge        Code = "REQ-TOO_LARGE"
	CodeTooManyRequests Code = "REQ-RATE"
	CodeRouteMissing    Code = "REQ-NOT_FOUND"
	CodeMethod          Code = "REQ-METHOD"
	CodeUnauthenticated Code = "AUT-REQUIRED"
	CodeTokenExpired    Code = "AUT-EXPIRED"
	CodeKeyExpired      Code = "AUT-KEY_EXPIRED"
	CodeForbidden       Code = "AUT-FORBIDDEN"
	CodeScope           Code = "AUT-SCOPE"
	CodeKeyReduced      Code = "AUT-KEY_REDUCED"
	CodeAppRequired     Code = "AUT-APP_ID"
	CodeWrongCode       Code = "AUT-WRONG_CODE"
	CodeNoSender        Code = "AUT-NO_SENDER"
	CodeTooManyCodes    Code = "AUT-TOO_MANY_CODES"
	CodeOnSite          Code = "AUT-ON_SITE_CODE"
	CodeCaptcha         Code = "AUT-CAPTCHA"
	CodeUnavailable     Code = "SRV-UNAVAILABLE"
	CodeInternal        Code = "SRV-INTERNAL"
)

// Failures is the catalogue of all codes.
var Failures = []Failure{
	{CodeAlreadyAssigned, "Another resource has taken the booking.", "Take the next one; this one is settled."},
	{CodeExpired, "The booking was not assigned within its timeout and has expired.", "The customer has to join again."},
	{CodeTypeMismatch, "The resource does not serve the booking's type, or the customer's filters exclude it.", "Choose a resource whose types include it."},
	{CodeMalformed, "The request is not valid JSON in UTF-8, or a parameter cannot be read.", "Send a well-formed body."},
	{CodePageToken, "The page token is made up, older than a day, or was given for another query.", "Start from the first page."},
	{CodeAppRequired, "The organization is not named.", "Send its id in the header X-APP-ID."},
	{CodeUnauthenticated, "No credential came with the request, or it is not valid.", "Sign in, or send a valid key."},
	{CodeTokenExpired, "The access token has expired.", "Get a new one with the refresh token."},
	{CodeKeyExpired, "The API key has expired.", "Use its successor, or make a new one."},
	{CodeWrongCode, "The one-time code is wrong, used or expired.", "Check the code or ask for a new one."},
	{CodeForbidden, "The credential may not do this.", "Use one that may; X-APP-ID must name its organization."},
	{CodeHardDelete, "An organization is deleted for good in development only.", "Leave out hardDelete: the organization is hidden everywhere, and what it had is kept."},
	{CodeScope, "The API key's scopes don't reach to this.", "Use a key with the scope that the answer names."},
	{CodeKeyReduced, "The API key lost the scope admin, because the member who made it is no owner or admin any more.", "Let an owner or admin rotate the key, or make another."},
	{CodeOnSite, "The on-site code is missing or wrong.", "Type the code that the clinic shows at the entrance or the desk."},
	{CodeCaptcha, "It is not proved that a person asks, and not a program.", "Send a fresh turnstileToken or recaptchaToken, as the answer says."},
	{CodeBookingNotFound, "There is no such booking in the organization.", "Check the id."},
	{CodeNoTime, "The booking has no calendar file, because it waits in a queue and has no time.", "Ask for the file of an appointment."},
	{CodeFeedMissing, "There is no such calendar feed, or it was replaced or deleted.", "Ask the clinic for the new address, or make one with POST /management/resources/{resourceId}/calendarFeed."},
	{CodeResourceMissing, "There is no such resource in the organization.", "Check the id."},
	{CodeTypeMissing, "There is no such booking type in the organization.", "Check the id."},
	{CodeCustomerMissing, "There is no such customer in the organization.", "Check the id."},
	{CodeDisplayMissing, "There is no such display in the organization.", "Check the id."},
	{CodeFileMissing, "There is no such file, or it was erased.", "Read the booking or the profile again for its address."},
	{CodeOrgMissing, "There is no such organization, or the credential may not see it.", "Check the id."},
	{CodeKeyMissing, "There is no key of that name.", "List the keys."},
	{CodeMemberMissing, "There is no such member in the organization.", "List the members."},
	{CodeWebhookMissing, "There is no webhook of this trigger, url and reference.", "List the webhooks."},
	{CodeDeliveryMissing, "There is no such delivery in the organization.", "Deliveries are kept for 30 days; list them."},
	{CodeQueueEmpty, "Nobody waits in the queue.", "Try again when someone has joined."},
	{CodeRouteMissing, "There is no such address.", "See the API reference at /docs."},
	{CodeMethod, "The address does not take this method.", "See the API reference at /docs."},
	{CodeStage, "The booking's status and stage do not allow this.", "Read the booking again and choose what is possible."},
	{CodeNothingToUndo, "Nothing was done to the booking in the last 30 seconds that could be taken back.", "Read the booking again, and set it right by the next step."},
	{CodeSlotTaken, "No resource that may serve the appointment is free at that time.", "Choose another time or resource."},
	{CodeOutsideHours, "No resource that may serve the appointment is open for all of it.", "Choose one of POST /availability/times. The desk may send showAll."},
	{CodeTooEarly, "The time is nearer than the time rules allow.", "Choose a later one of POST /availability/times. The desk may send showAll."},
	{CodeTooLate, "The day is farther ahead than the time rules allow.", "Choose an earlier one of POST /availability/times. The desk may send showAll."},
	{CodeOwnOverlap, "The customer has another appointment at that time.", "Choose another time, or reschedule the other appointment."},
	{CodeBooked, "Appointments are booked in the time that the rules close; bookings lists them.", "Reschedule them first, or send force to close the time all the same: they stay booked."},
	{CodeResourceInUse, "Appointments are booked with the resource.", "Reschedule them first, or send cancel=true to cancel them."},
	{CodeNobodyServes, "No active resource serves the booking type, or the filters allow none that does.", "Choose another type or other filters, or let a resource serve the type."},
	{CodeNotOffered, "Patients can't book the type or the resource themselves.", "Choose one with bookFromWebsite, ask the desk, or send showAll where your page shows what is not offered too."},
	{CodeTypeOff, "The booking type is switched off.", "Choose another type."},
	{CodeResourceOff, "The resource is switched off.", "Switch it on, or choose another."},
	{CodeQueuePaused, "The resource has paused its queue.", "Resume it first."},
	{CodeRecallTooSoon, "The patient was called less than 60 seconds ago.", "Wait as long as Retry-After says."},
	{CodeRecallLimit, "The patient has been called again three times.", "Start, end, or record a no-show."},
	{CodeOrgNameTaken, "Another organization has this short name.", "Choose another one."},
	{CodeTypeInUse, "Customers wait for this type.", "Serve or cancel them first, or switch the type off."},
	{CodePrefixTaken, "Another type uses this ticket prefix.", "Choose another prefix."},
	{CodeContactTaken, "Another customer has this phone number or e-mail address.", "Use that customer."},
	{CodeSameCustomer, "Both ids name the same customer.", "Name the record to keep, and the other one."},
	{CodeBeingServed, "The customer is called or served right now.", "End the visit first, or record a no-show."},
	{CodeKeyTaken, "A key of that name exists.", "Choose another name, or delete the old key."},
	{CodeKeyLimit, "There are as many API keys as there may be.", "Delete one first."},
	{CodeMemberTaken, "Another member has this phone number or e-mail address.", "Change that member."},
	{CodeMemberSelf, "Nobody deletes themselves.", "Ask another owner or admin."},
	{CodeLastOwner, "An organization keeps at least one owner.", "Make another owner first."},
	{CodeWebhookLimit, "The organization has as many webhooks as it may.", "Delete one first."},
	{CodeWebhookOff, "The webhook of the delivery is disabled or deleted.", "Post the webhook again, which enables it."},
	{CodeRequestRunning, "A request with this Idempotency-Key is being carried out.", "Repeat it as soon as Retry-After says; its answer will come then."},
	{CodeAnswerLost, "The request was carried out, but its answer was lost.", "Don't repeat it: look at what it changed."},
	{CodeTooLarge, "The body is larger than 1 MiB, or than 25 MiB where files are uploaded.", "Send less."},
	{CodeInvalid, "A field is missing or has a wrong type or value; errors[] names it.", "Mend the fields named."},
	{CodeRequestMismatch, "This Idempotency-Key came with another request before.", "Use a new key for each request."},
	{CodePast, "The appointment would begin in the past.", "Choose a later time."},
	{CodeTooManyRequests, "More requests came in a minute than are allowed.", "Wait as long as Retry-After says; X-RateLimit-Remaining tells what is left."},
	{CodeTooManyCodes, "Too many one-time codes were asked for: by the contact, the network or for the organization.", "Use the newest, or wait as long as Retry-After says."},
	{CodeInternal, "Something went wrong on our side.", "Try again; quote requestId if it goes on."},
	{CodeNoSender, "No way to send one-time codes by this method is configured.", "Choose another method, or tell the operator."},
	{CodeUnavailable, "A part of the service is not answering.", "Try again shortly."},
}

// Error is a failure that the client sees. Any other error is logged and not shown.
type Error struct {
	Code Code
	// Detail is a sentence about this request.
	Detail string
	// Field is the wrong part of the request, if there is one.
	Field string
	// Fields are the wrong parts, if there are several.
	Fields []FieldProblem
	// Alternatives are free times, if the wanted one is taken.
	Alternatives []Alternative
	// Bookings are the ids of the bookings that are in the way, at most MaxNamedBookings.
	Bookings []string
	// RetryAfter is how long to wait before the same request can succeed.
	RetryAfter time.Duration
}

// MaxNamedBookings bounds Error.Bookings.
const MaxNamedBookings = 100

// Alternative is a free time.
type Alternative struct {
	Date          string   `json:"date" example:"2026-01-31" doc:"In the organization's time zone."`
	Time          int      `json:"time" example:"1820" doc:"Military time in the organization's time zone."`
	StartDateTime Moment   `json:"startDateTime"`
	EndDateTime   Moment   `json:"endDateTime"`
	Resources     []string `json:"resources" nullable:"false" doc:"The ids of the resources that are free."`
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Detail) }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Invalid makes the Error for a field of the request with a wrong value.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// FieldProblem says what is wrong with one part of a request.
type FieldProblem struct {
	Field, Detail string
}

// Details of a FieldProblem that are answered in the client's language.
const (
	FieldMissing = "required"
	FieldUnknown = "There is no such field."
)

// InvalidFields makes the Error for all problems of a request, or nil if there are none.
func InvalidFields(problems []FieldProblem) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return Invalid(problems[0].Field, "%s", problems[0].Detail)
	}
	e := Errorf(CodeInvalid, "%d fields are missing or have a wrong value.", len(problems))
	e.Fields = problems
	return e
}

// CodeOf returns the code of err, or CodeInternal if err is no Error.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
