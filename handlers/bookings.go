package handlers

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"nowserving/booking"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

// BookingRef names a booking in a body.
type BookingRef struct {
	BookingID string `json:"bookingId" required:"true" minLength:"1" maxLength:"64"`
}

// Why may say why something is done.
type Why struct {
	Reason string `json:"reason" maxLength:"500" doc:"Why; it is kept in the audit."`
}

// verbBody is the body of most actions on a booking.
type verbBody struct {
	BookingRef
	Why
}

// cancelBody may say why.
type cancelBody struct {
	BookingRef
	Reason string `json:"reason" maxLength:"1000" doc:"Why; it is kept with the booking and in the audit."`
}

type assignBody struct {
	BookingRef // not verbBody: the framework looks for required members one level deep
	Why
	ResourceID string `json:"resourceId" required:"true" minLength:"1" maxLength:"64"`
}

// BookingQuery are the filters that both lists of bookings have.
type BookingQuery struct {
	From      string `query:"from" doc:"A day (2026-03-01) of the organization, or a moment (RFC 3339)."`
	To        string `query:"to" doc:"A day, to its end, or a moment."`
	Status    string `query:"status" doc:"Statuses separated by comma." example:"PENDING_ASSIGNMENT,CONFIRMED"`
	Includes  string `query:"includes" doc:"Related data, separated by comma: customer, type, resource, invoice."`
	DateType  string `query:"dateType" enum:"createdAt,dateTime" default:"dateTime" doc:"What from, to and the order apply to: the making of the booking, or the visit: the beginning of an appointment, else the call."`
	Direction string `query:"orderDirection" enum:"asc,desc" default:"desc"`
	Token     string `query:"nextPageToken"`
}

// filter reads the query. Days are those of the organization.
func (q BookingQuery) filter(zone *time.Location, limit int) (booking.Filter, error) {
	f := booking.Filter{ByCreation: q.DateType == "createdAt", Ascending: q.Direction == "asc", Limit: limit, After: q.Token}
	for _, status := range fields(q.Status) {
		if !models.Status(status).Valid() {
			return f, models.Invalid("status", "%q is no status.", status)
		}
		f.Statuses = append(f.Statuses, models.Status(status))
	}
	var err error
	if f.From, err = beginning(q.From, zone); err != nil {
		return f, err
	}
	f.To, err = ending(q.To, zone)
	return f, err
}

// beginning reads the field "from": a moment, or the beginning of a day of a zone.
func beginning(text string, zone *time.Location) (time.Time, error) {
	at, _, err := moment("from", text, zone)
	return at, err
}

// ending reads the field "to": a moment, or the last one of a day of a zone.
func ending(text string, zone *time.Location) (time.Time, error) {
	at, day, err := moment("to", text, zone)
	if err != nil || !day {
		return at, err
	}
	return firstMoment(at.AddDate(0, 0, 1), zone).Add(-time.Microsecond), nil
}

// moment reads a moment, or the first one of a day of a zone.
func moment(field, text string, zone *time.Location) (at time.Time, day bool, err error) {
	if text == "" {
		return time.Time{}, false, nil
	}
	if date, err := time.Parse(time.DateOnly, text); err == nil {
		return firstMoment(date, zone), true, nil
	}
	at, err = time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, false, models.Invalid(field, "Give a day such as 2026-03-01 or a moment such as 2026-03-01T08:30:00Z.")
	}
	return at, false, nil
}

// firstMoment returns when a date begins in a zone: at midnight, at the first midnight
// if the clocks show it twice, or at the change of the clocks if they skip it.
func firstMoment(date time.Time, zone *time.Location) time.Time {
	year, month, day := date.Date()
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	if t.Day() != day { // the clocks skip midnight, and t is before the change
		_, change := t.ZoneBounds()
		return change
	}
	if change, _ := t.ZoneBounds(); !change.IsZero() {
		before := change.Add(-time.Nanosecond)
		_, earlier := before.Zone()
		_, later := t.Zone()
		if first := t.Add(time.Duration(later-earlier) * time.Second); first.Before(change) && later < earlier {
			return first
		}
	}
	return t
}

// noInvoice is the invoice of a booking that has none.
var noInvoice = json.RawMessage("null")

// pageOfBookings answers both lists of bookings.
func (s *Server) pageOfBookings(ctx context.Context, c api.Caller, q BookingQuery, limit int, narrow func(*booking.Filter)) (api.List[api.BookingView], error) {
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return api.List[api.BookingView]{}, err
	}
	f, err := q.filter(o.Zone, limit)
	if err != nil {
		return api.List[api.BookingView]{}, err
	}
	narrow(&f)
	rows, token, err := s.api.Bookings.List(ctx, c.Scope(), f)
	if err != nil {
		return api.List[api.BookingView]{}, err
	}
	views, err := s.api.ViewBookings(ctx, c, includes(q.Includes, "customer"), rows)
	if includes(q.Includes, "invoice") {
		for i := range views {
			views[i].Invoice = noInvoice
		}
	}
	return api.List[api.BookingView]{Result: views, Pagination: api.NextPage(token)}, err
}

const (
	defaultBookings = 100
	maxBookings     = 500
)

func (s *Server) bookingRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/bookings", ID: "listBookings", Tag: "Bookings", Roles: api.Staff,
		Summary: "List bookings",
		About:   "Newest first unless asked otherwise. A provider sees the bookings of their resources, and those no resource has taken yet.",
	}, s.listBookings)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/bookings/{bookingId}", ID: "getBooking", Tag: "Bookings", Roles: api.Staff,
		Summary: "Get a booking",
	}, s.getBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/bookings/unassigned", ID: "listUnassigned", Tag: "Bookings", Roles: api.Staff,
		Summary: "List bookings that a resource could take", About: "Waiting and held bookings that match the resource, oldest first.",
	}, s.listUnassigned)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/bookings/assign", ID: "assignBooking", Tag: "Bookings", Roles: api.Staff,
		Summary: "Assign a resource to a booking",
		About:   "Of concurrent requests exactly one succeeds; the others get SCH-ALREADY_ASSIGNED, or BKS-110 after the timeout.",
		Example: map[string]any{"bookingId": exampleID, "resourceId": exampleOther},
	}, s.assignBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/bookings/cancel", ID: "cancelBooking", Tag: "Bookings", Roles: api.Staff,
		Summary: "Cancel a booking", About: "Until it is being served.",
		Example: map[string]any{"bookingId": exampleID, "reason": "The patient called."},
	}, s.cancelBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/bookings/approve", ID: "approveBooking", Tag: "Bookings", Roles: api.Staff,
		Summary: "Approve an appointment", About: "One that waits for approval. It is confirmed.", Example: map[string]any{"bookingId": exampleID},
	}, s.approveBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/bookings/reject", ID: "rejectBooking", Tag: "Bookings", Roles: api.Staff,
		Summary: "Reject an appointment", About: "One that waits for approval. Its time is free again, and the customer is told.",
		Example: map[string]any{"bookingId": exampleID, "reason": "The doctor is away."},
	}, s.rejectBooking)
	for _, action := range []struct {
		verb, summary, about string
		handle               func(context.Context, api.Caller, *api.Body[verbBody]) (api.Result[api.BookingView], error)
	}{
		{"start", "Start a visit", "The patient who was called, or has an appointment, is being served.", s.startBooking},
		{"end", "End a visit", "Sets its real end.", s.endBooking},
		{"noShow", "Record a no-show", "The patient did not come, when called or to their appointment.", s.noShowBooking},
		{"recall", "Call a patient again", "Not sooner than 60 seconds after the last call, and three times at most.", s.recallBooking},
		{"hold", "Hold a booking", "The patient steps aside: they keep their place in line, are passed over and do not count in the positions of others.", s.holdBooking},
		{
			"undo", "Undo the last step",
			"Takes back the last assign, call, start, end, noShow, hold, return or cancel of a booking, within 30 seconds and while nothing else " +
				"has happened to it. A patient whose call is undone waits again at their place in line.",
			s.undoBooking,
		},
		{"return", "Return a held booking", "The patient is back at their place in line.", s.returnBooking},
	} {
		api.Register(s.api, api.Operation{
			Method: http.MethodPost, Path: "/management/bookings/" + action.verb, ID: action.verb + "Booking", Tag: "Bookings", Roles: api.Staff,
			Summary: action.summary, About: action.about, Example: map[string]any{"bookingId": exampleID},
		}, action.handle)
	}
}

type bookingListQuery struct {
	BookingQuery
	Resources  string `query:"resources" doc:"Resource ids separated by comma."`
	CustomerID string `query:"customerId"`
	Limit      int    `query:"limit" default:"100" minimum:"1" doc:"At most 500; more are not given."`
}

func (s *Server) listBookings(ctx context.Context, c api.Caller, in *bookingListQuery) (api.List[api.BookingView], error) {
	return s.pageOfBookings(ctx, c, in.BookingQuery, min(in.Limit, maxBookings), func(f *booking.Filter) {
		f.CustomerID, f.Resources = in.CustomerID, fields(in.Resources)
	})
}

type byBooking struct {
	ID string `path:"bookingId" maxLength:"64"`
}

func (s *Server) getBooking(ctx context.Context, c api.Caller, in *byBooking) (api.Result[api.BookingView], error) {
	b, err := s.api.Bookings.See(ctx, c.Scope(), in.ID)
	if err != nil {
		return api.Result[api.BookingView]{}, err
	}
	view, err := s.api.ViewBooking(ctx, c, true, b)
	return api.Result[api.BookingView]{Result: view}, err
}

type unassignedQuery struct {
	ResourceID string `query:"resourceId" required:"true" minLength:"1" maxLength:"64"`
	Limit      int    `query:"limit" default:"100" minimum:"1" doc:"At most 500; more are not given."`
	Token      string `query:"nextPageToken"`
}

func (s *Server) listUnassigned(ctx context.Context, c api.Caller, in *unassignedQuery) (api.List[api.BookingView], error) {
	rows, token, err := s.api.Bookings.Unassigned(ctx, c.Scope(), in.ResourceID, min(in.Limit, maxBookings), in.Token)
	if err != nil {
		return api.List[api.BookingView]{}, err
	}
	views, err := s.api.ViewBookings(ctx, c, true, rows)
	return api.List[api.BookingView]{Result: views, Pagination: api.NextPage(token)}, err
}

func (s *Server) assignBooking(ctx context.Context, c api.Caller, in *api.Body[assignBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Assign(ctx, c.Scope(), in.Body.BookingID, in.Body.ResourceID))
}

func (s *Server) cancelBooking(ctx context.Context, c api.Caller, in *api.Body[cancelBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Cancel(ctx, c.Scope(), in.Body.BookingID, in.Body.Reason))
}

func (s *Server) approveBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Approve(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) rejectBooking(ctx context.Context, c api.Caller, in *api.Body[cancelBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Reject(ctx, c.Scope(), in.Body.BookingID, in.Body.Reason))
}

func (s *Server) startBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Start(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) endBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.End(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) noShowBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.NoShow(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) recallBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Recall(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) holdBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Hold(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) undoBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shownAt(ctx, c)(s.api.Bookings.Undo(ctx, c.Scope(), in.Body.BookingID))
}

func (s *Server) returnBooking(ctx context.Context, c api.Caller, in *api.Body[verbBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shownAt(ctx, c)(s.api.Bookings.Return(ctx, c.Scope(), in.Body.BookingID))
}

// The ids in examples.
const (
	exampleID    = "d3q1v5s8k7c0a1b2c3d0"
	exampleOther = "d3q1v5s8k7c0a1b2c3e0"
)

// shown answers with a booking that was changed, customer included.
func (s *Server) shown(ctx context.Context, c api.Caller) func(*models.Booking, error) (api.Result[api.BookingView], error) {
	return func(b *models.Booking, err error) (api.Result[api.BookingView], error) {
		return s.shownAt(ctx, c)(b, nil, err)
	}
}

// shownAt answers with a booking that was changed and its place in the queue, customer
// included. The place is nil if the booking does not wait.
func (s *Server) shownAt(ctx context.Context, c api.Caller) func(*models.Booking, *booking.Place, error) (api.Result[api.BookingView], error) {
	return func(b *models.Booking, place *booking.Place, err error) (api.Result[api.BookingView], error) {
		if err != nil {
			return api.Result[api.BookingView]{}, err
		}
		return api.Result[api.BookingView]{Result: s.api.ViewChanged(ctx, c, true, b, place)}, nil
	}
}

// includes reports whether a comma-separated list names something.
func includes(names, name string) bool {
	return slices.Contains(fields(names), name)
}

// fields splits a comma-separated list.
func fields(names string) []string {
	return strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
}
