package handlers

import (
	"context"
	"net/http"
	"time"

	"nowserving/booking"
	"nowserving/booking/store"
	"nowserving/models"
)

// with is an input that is a body and nothing else.
type with[B any] struct{ Body B }

// BookingRef is the body of what happens to one booking.
type BookingRef struct {
	BookingID string `json:"bookingId" required:"true" minLength:"1" maxLength:"64"`
}

// Why may say why something is done.
type Why struct {
	Reason string `json:"reason" maxLength:"500" doc:"Why; it is kept in the audit."`
}

// verbBody is what most of what happens to a booking takes.
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
	BookingRef // not verbBody: what is required is looked for one level deep
	Why
	ResourceID string `json:"resourceId" required:"true" minLength:"1" maxLength:"64"`
}

// BookingQuery are the filters that both lists of bookings have.
type BookingQuery struct {
	From      string `query:"from" doc:"A day (2026-03-01) of the organization, or a moment (RFC 3339)."`
	To        string `query:"to" doc:"A day, to its end, or a moment."`
	Status    string `query:"status" doc:"Statuses separated by comma." example:"PENDING_ASSIGNMENT,CONFIRMED"`
	Includes  string `query:"includes" doc:"Related data, separated by comma: customer, type, resource."`
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

// firstMoment is when a date begins in a zone: at midnight, the first one where
// the clocks show it twice, or at the leap where they show none.
func firstMoment(date time.Time, zone *time.Location) time.Time {
	year, month, day := date.Date()
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	if t.Day() != day { // the clocks leap over midnight, and t is before the leap
		_, leap := t.ZoneBounds()
		return leap
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

// listBookings answers both lists of bookings.
func (s *Server) listBookings(ctx context.Context, c caller, q BookingQuery, limit int, narrow func(*booking.Filter)) (list[BookingView], error) {
	o, err := s.directory.of(ctx, c.OrganizationID)
	if err != nil {
		return list[BookingView]{}, err
	}
	f, err := q.filter(o.zone, limit)
	if err != nil {
		return list[BookingView]{}, err
	}
	narrow(&f)
	rows, token, err := s.o.Bookings.List(ctx, c.scope(), f)
	if err != nil {
		return list[BookingView]{}, err
	}
	views, err := s.showAll(ctx, c, includes(q.Includes, "customer"), rows)
	return list[BookingView]{views, tokenOf(token)}, err
}

const (
	defaultBookings = 100
	maxBookings     = 500
)

func (s *Server) bookingRoutes() {
	type manageQuery struct {
		BookingQuery
		Resources  string `query:"resources" doc:"Resource ids separated by comma."`
		CustomerID string `query:"customerId"`
		Limit      int    `query:"limit" default:"100" minimum:"1" doc:"At most 500; more are not given."`
	}
	register(s, operation{
		method: http.MethodGet, path: "/management/bookings", id: "listBookings", tag: "Bookings", who: staff,
		summary: "List bookings",
		about:   "Newest first unless asked otherwise. A provider sees the bookings of their resources, and those no resource has taken yet.",
	}, func(ctx context.Context, c caller, in *manageQuery) (list[BookingView], error) {
		return s.listBookings(ctx, c, in.BookingQuery, min(in.Limit, maxBookings), func(f *booking.Filter) {
			f.CustomerID, f.Resources = in.CustomerID, fields(in.Resources)
		})
	})

	type byBooking struct {
		ID string `path:"bookingId" maxLength:"64"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/management/bookings/{bookingId}", id: "getBooking", tag: "Bookings", who: staff,
		summary: "Get a booking",
	}, func(ctx context.Context, c caller, in *byBooking) (result[BookingView], error) {
		b, err := s.o.Bookings.See(ctx, c.scope(), in.ID)
		if err != nil {
			return result[BookingView]{}, err
		}
		view, err := s.showOne(ctx, c, true, b)
		return result[BookingView]{view}, err
	})

	type unassignedQuery struct {
		ResourceID string `query:"resourceId" required:"true" minLength:"1" maxLength:"64"`
		Limit      int    `query:"limit" default:"100" minimum:"1" doc:"At most 500; more are not given."`
		Token      string `query:"nextPageToken"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/management/bookings/unassigned", id: "listUnassigned", tag: "Bookings", who: staff,
		summary: "List what a resource could take", about: "Who waits for it and who is on hold, oldest first.",
	}, func(ctx context.Context, c caller, in *unassignedQuery) (list[BookingView], error) {
		rows, token, err := s.o.Bookings.Unassigned(ctx, c.scope(), in.ResourceID, min(in.Limit, maxBookings), in.Token)
		if err != nil {
			return list[BookingView]{}, err
		}
		views, err := s.showAll(ctx, c, true, rows)
		return list[BookingView]{views, tokenOf(token)}, err
	})

	register(s, operation{
		method: http.MethodPost, path: "/management/bookings/assign", id: "assignBooking", tag: "Bookings", who: staff,
		summary: "Assign a resource to a booking",
		about:   "Of many who try, exactly one succeeds; the others get SCH-ALREADY_ASSIGNED, or BKS-110 after the timeout.",
		example: map[string]any{"bookingId": exampleID, "resourceId": exampleOther},
	}, func(ctx context.Context, c caller, in *with[assignBody]) (result[BookingView], error) {
		ctx = store.Because(ctx, in.Body.Reason)
		return s.shown(ctx, c)(s.o.Bookings.Assign(ctx, c.scope(), in.Body.BookingID, in.Body.ResourceID))
	})
	register(s, operation{
		method: http.MethodPost, path: "/management/bookings/cancel", id: "cancelBooking", tag: "Bookings", who: staff,
		summary: "Cancel a booking", about: "Until it is being served.",
		example: map[string]any{"bookingId": exampleID, "reason": "The patient called."},
	}, func(ctx context.Context, c caller, in *with[cancelBody]) (result[BookingView], error) {
		ctx = store.Because(ctx, in.Body.Reason)
		return s.shown(ctx, c)(s.o.Bookings.Cancel(ctx, c.scope(), in.Body.BookingID, in.Body.Reason))
	})
	for _, act := range []struct {
		verb, summary, about string
		do                   func(context.Context, booking.Scope, string) (*models.Booking, error)
	}{
		{"start", "Start a visit", "The patient who was called, or has an appointment, is being served.", s.o.Bookings.Start},
		{"end", "End a visit", "Sets its real end.", s.o.Bookings.End},
		{"noShow", "Record a no-show", "The patient did not come, when called or to their appointment.", s.o.Bookings.NoShow},
		{"recall", "Call a patient again", "Not sooner than 60 seconds after the last call, and three times at most.", s.o.Bookings.Recall},
		{"hold", "Hold a booking", "The patient steps aside: they keep their place in line, are passed over and count ahead of nobody.", s.o.Bookings.Hold},
	} {
		register(s, operation{
			method: http.MethodPost, path: "/management/bookings/" + act.verb, id: act.verb + "Booking", tag: "Bookings", who: staff,
			summary: act.summary, about: act.about, example: map[string]any{"bookingId": exampleID},
		}, func(ctx context.Context, c caller, in *with[verbBody]) (result[BookingView], error) {
			ctx = store.Because(ctx, in.Body.Reason)
			return s.shown(ctx, c)(act.do(ctx, c.scope(), in.Body.BookingID))
		})
	}
	register(s, operation{
		method: http.MethodPost, path: "/management/bookings/undo", id: "undoBooking", tag: "Bookings", who: staff,
		summary: "Undo the last step",
		about: "Takes back the last assign, call, start, end, noShow, hold, return or cancel of a booking, within 30 seconds and while nothing else " +
			"has happened to it. A patient whose call is undone waits again at their place in line.",
		example: map[string]any{"bookingId": exampleID},
	}, func(ctx context.Context, c caller, in *with[verbBody]) (result[BookingView], error) {
		ctx = store.Because(ctx, in.Body.Reason)
		b, place, err := s.o.Bookings.Undo(ctx, c.scope(), in.Body.BookingID)
		if err != nil {
			return result[BookingView]{}, err
		}
		return result[BookingView]{s.showChanged(ctx, c, true, b, place)}, nil
	})
	register(s, operation{
		method: http.MethodPost, path: "/management/bookings/return", id: "returnBooking", tag: "Bookings", who: staff,
		summary: "Return a held booking", about: "The patient is back at their place in line.", example: map[string]any{"bookingId": exampleID},
	}, func(ctx context.Context, c caller, in *with[verbBody]) (result[BookingView], error) {
		ctx = store.Because(ctx, in.Body.Reason)
		b, place, err := s.o.Bookings.Return(ctx, c.scope(), in.Body.BookingID)
		if err != nil {
			return result[BookingView]{}, err
		}
		return result[BookingView]{s.showChanged(ctx, c, true, b, place)}, nil
	})
}

// The ids in examples.
const (
	exampleID    = "d3q1v5s8k7c0a1b2c3d0"
	exampleOther = "d3q1v5s8k7c0a1b2c3e0"
)

// shown answers with a booking that was changed, customer included.
func (s *Server) shown(ctx context.Context, c caller) func(*models.Booking, error) (result[BookingView], error) {
	return func(b *models.Booking, err error) (result[BookingView], error) {
		if err != nil {
			return result[BookingView]{}, err
		}
		return result[BookingView]{s.showChanged(ctx, c, true, b, nil)}, nil
	}
}
