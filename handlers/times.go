package handlers

import (
	"context"
	"net/http"
	"strings"
	"time"

	"nowserving/booking"
	"nowserving/booking/calendar"
	"nowserving/handlers/api"
	"nowserving/models"
)

// TimesBody asks for free times.
type TimesBody struct {
	Type    string `json:"type" required:"true" minLength:"1" maxLength:"64" doc:"The booking type's id."`
	From    string `json:"from" maxLength:"40" example:"2026-01-31T00:00:00Z" doc:"The first day: its date as it is written; the time is ignored. Default today."`
	To      string `json:"to" maxLength:"40" example:"2026-02-28T00:00:00Z" doc:"The last day. Default: the last that can be booked."`
	ShowAll bool   `json:"showAll" doc:"Also what patients can't book themselves: types and resources that are not offered, and days and hours that the time rules keep for the desk; and all times of each day."`
	Limit   int    `json:"limit" minimum:"0" maximum:"366" doc:"How many days to answer. Days without a free time don't count. Default: all, at most 366."`
	Token   string `json:"nextPageToken" maxLength:"2000"`
	models.TimeOptions
	Reschedule    string        `json:"rescheduleBookingId" maxLength:"64" doc:"A booking whose own time counts as free."`
	Filters       *filterBody   `json:"resourceFilters"`
	FiltersCustom models.Fields `json:"resourceFiltersCustomFields" doc:"Values of the fields of GET /customFields/resourceFilters, by id."`
	TimeAdjusters models.Fields `json:"timeAdjustersCustomFields" doc:"Values of the fields of GET /customFields/timeAdjusters, by id. They change how long the visit takes."`
}

// timesInput is the input of the list of free times.
type timesInput struct{ Body TimesBody }

// PageToken implements api.PagedBody.
func (in *timesInput) PageToken() *string { return &in.Body.Token }

// Query implements api.PagedBody.
func (in *timesInput) Query() any {
	q := in.Body
	q.Token, q.Limit = "", 0
	return q
}

// freeDayView is a day with its free times.
type freeDayView struct {
	Date  string         `json:"date" example:"2026-01-31" doc:"In the organization's time zone."`
	Times []freeTimeView `json:"times" nullable:"false"`
}

// freeTimeView is a time at which a visit can be booked.
type freeTimeView struct {
	Time          int           `json:"time" example:"1820" doc:"Military time in the organization's time zone."`
	StartDateTime models.Moment `json:"startDateTime"`
	EndDateTime   models.Moment `json:"endDateTime"`
	Duration      int           `json:"duration" doc:"Minutes, with those that custom fields add."`
	Resources     []string      `json:"resources" nullable:"false" doc:"The ids of the resources that are free. Empty if the website hides resources."`
}

func (s *Server) listTimes(ctx context.Context, c api.Caller, in *timesInput) (api.List[freeDayView], error) {
	out := api.List[freeDayView]{Result: []freeDayView{}}
	body := in.Body
	q := booking.TimesQuery{
		TypeID: body.Type, Limit: body.Limit, Filters: body.Filters.filters(), Offered: !body.ShowAll, Reschedule: body.Reschedule,
		FilterFields: body.FiltersCustom, Adjusters: body.TimeAdjusters,
	}
	var err error
	if q.From, err = dayOf("from", body.From); err != nil {
		return out, err
	}
	if q.To, err = dayOf("to", body.To); err != nil {
		return out, err
	}
	if q.From != nil && q.To != nil && *q.To < *q.From {
		return out, models.Invalid("to", "The last day is before the first.")
	}
	if body.Token != "" { // the page begins on a later day
		if q.From, err = dayOf("nextPageToken", body.Token); err != nil {
			return out, err
		}
	}
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return out, err
	}
	options := body.TimeOptions
	if t := o.TypeByID[body.Type]; t != nil {
		common, err := t.TimeOptions()
		if err != nil {
			return out, err
		}
		options = options.Or(common)
	}
	options = options.Or(o.Website.TimeOptions())
	if q.Grid, err = calendar.NewGrid(options); err != nil {
		return out, err
	}
	found, err := s.api.Bookings.Times(ctx, booking.Scope{OrganizationID: c.OrganizationID}, q)
	if err != nil {
		return out, err
	}
	most := 0
	if !body.ShowAll {
		most = o.Website.Offered()
	}
	for _, day := range found.Days {
		free := spread(day.Times, most)
		view := freeDayView{Date: day.Day.String(), Times: make([]freeTimeView, len(free))}
		for i, t := range free {
			resources := t.ResourceIDs
			if o.Website.HideResource && !body.ShowAll {
				resources = []string{}
			}
			view.Times[i] = freeTimeView{t.Time, models.At(t.Start), models.At(t.End), found.Minutes, resources}
		}
		out.Result = append(out.Result, view)
	}
	if found.Next != nil {
		out.Pagination = api.NextPage(found.Next.String())
	}
	return out, nil
}

// spread returns at most n of a list, evenly spread, the first and the last among them;
// all if n is 0, and only the first if n is 1.
func spread[T any](all []T, n int) []T {
	if n == 0 || len(all) <= n {
		return all
	}
	if n == 1 {
		return all[:1]
	}
	some := make([]T, n)
	for i := range some {
		some[i] = all[(i*(len(all)-1)+(n-1)/2)/(n-1)]
	}
	return some
}

// dayOf reads the day of a field that holds a moment or a day. An empty text is no day.
func dayOf(field, text string) (*calendar.Day, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no day is no error
	}
	date, rest, _ := strings.Cut(text, "T")
	day, ok := calendar.ParseDay(date)
	if ok && rest != "" {
		_, err := time.Parse(time.RFC3339, text)
		ok = err == nil
	}
	if !ok {
		return nil, models.Invalid(field, "Give a moment such as 2026-01-31T00:00:00Z, or a day such as 2026-01-31.")
	}
	return &day, nil
}

func (s *Server) timesRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/availability/times", ID: "listTimes", Tag: "Availability", Tenant: api.TenantFromHeader,
		Summary: "List free times",
		About: "Days without a free time are left out. A time is free if a resource that serves the type is open for the whole visit and has no other appointment then, " +
			"the buffers of both included (leaveMinutesBefore, leaveMinutesAfter). Times are in the organization's time zone: one that its clocks leap over is not offered, " +
			"one that they show twice is offered once. Which times of a day are offered, the type's timeOptions and then the website's bookingTimeSplitting say where the request does not. " +
			"Of these, the website's bookingTimePolicy offers all, some or the first, and its hideResource leaves resources empty, unless the request sends showAll.",
		Example: map[string]any{"type": exampleID, "from": "2026-01-31T00:00:00Z", "to": "2026-02-28T00:00:00Z", "showHalfHour": true},
	}, s.listTimes)
}
