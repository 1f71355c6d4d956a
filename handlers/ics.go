package handlers

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

// feedView is shown once, when a calendar feed gets its address.
type feedView struct {
	URL string `json:"url" doc:"The address to subscribe to in a calendar app. Shown once; everyone who has it sees the appointments."`
}

// CalendarLanguage is the language of a calendar. A calendar app sends no header.
type CalendarLanguage struct {
	Language string `query:"language" example:"ar" doc:"en or ar. Default: that of the header lang."`
}

func (l CalendarLanguage) or(lang string) string {
	if l.Language == "" {
		return lang
	}
	return api.Language(l.Language)
}

func (s *Server) icsRoutes() {
	api.RegisterFile(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customer/bookings/{bookingId}.ics", ID: "getMyBookingCalendar", Tag: "Customer", Roles: api.Patients, CalendarLink: true,
		Summary: "Get my appointment as a calendar file",
		About: "iCalendar (RFC 5545). The UID stays the same when the appointment is rescheduled or canceled, and SEQUENCE grows, so that a calendar app replaces what it has. " +
			"A booking without a time has no file (404, BKS-NO_TIME).",
	}, api.CalendarType, s.getMyBookingCalendar)
	api.RegisterFile(s.api, api.Operation{
		Method: http.MethodGet, Path: "/calendar/{token}.ics", ID: "getCalendarFeed", Tag: "Calendar", Tenant: api.NoTenant,
		Summary: "Get the calendar feed of a resource",
		About: "iCalendar (RFC 5545), for calendar apps to subscribe to: the appointments from 30 days ago to a year ahead, at most 2,000, by type and ticket and without names. " +
			"The token in the address is the credential.",
	}, api.CalendarType, s.getCalendarFeed)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/resources/{resourceId}/calendarFeed", ID: "replaceCalendarFeed", Tag: "Calendar", Roles: api.Managers | api.Provider,
		Summary: "Make the secret address of a resource's calendar feed",
		About:   "The address is shown once. If there was one, it is refused from then on. A provider makes those of their own resources.",
	}, s.replaceCalendarFeed)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/resources/{resourceId}/calendarFeed", ID: "deleteCalendarFeed", Tag: "Calendar", Roles: api.Managers | api.Provider,
		Summary: "Delete a resource's calendar feed", About: "Its address is refused from then on.",
	}, s.deleteCalendarFeed)
}

type myBookingCalendar struct {
	ID    string `path:"bookingId" maxLength:"64"`
	Token string `query:"token" maxLength:"64" doc:"In place of a header, which a calendar app does not send: the ticket token, or the token of a link in a message."`
	CalendarLanguage
}

func (s *Server) getMyBookingCalendar(ctx context.Context, c api.Caller, in *myBookingCalendar) (api.File, error) {
	b, err := s.api.Bookings.See(ctx, c.Scope(), in.ID)
	if err != nil {
		return api.File{}, err
	}
	if b.StartsAt == nil {
		return api.File{}, models.Errorf(models.CodeNoTime, "Booking %s has no time.", b.Ticket)
	}
	w, err := s.calendarOf(ctx, c.OrganizationID, in.or(c.Lang), []models.Booking{*b})
	if err != nil {
		return api.File{}, err
	}
	method := ics.MethodPublish
	if w.status(b) == ics.ObjectStatusCancelled {
		method = ics.MethodCancel
	}
	w.SetMethod(method)
	e := w.add(b, s.api.Store.Time())
	e.SetSummary(text(w.typeOf(b) + " – " + w.organization.Name))
	e.SetDescription(text(yourTicket.In(w.lang, "") + " " + b.Ticket))
	e.SetURL(s.api.PublicURL + "/ticket/" + url.PathEscape(b.ID))
	return api.File{Name: "appointment.ics", Body: w.bytes()}, nil
}

type calendarFeed struct {
	Token string `path:"token" maxLength:"64"`
	CalendarLanguage
}

// feedCaching lets calendar apps keep a feed for 5 minutes.
const feedCaching = "private, max-age=300"

func (s *Server) getCalendarFeed(ctx context.Context, c api.Caller, in *calendarFeed) (api.File, error) {
	if !access.IsFeedToken(in.Token) {
		return api.File{}, models.Errorf(models.CodeFeedMissing, "There is no such calendar feed.")
	}
	f, err := s.api.Catalog.Feed(ctx, in.Token)
	if err != nil {
		return api.File{}, err
	}
	ctx = store.ForOrganization(ctx, f.OrganizationID)
	bookings, err := s.api.Bookings.OfFeed(ctx, f)
	if err != nil {
		return api.File{}, err
	}
	r, err := s.api.Catalog.Resource(ctx, f.OrganizationID, f.ResourceID)
	if err != nil {
		return api.File{}, err
	}
	w, err := s.calendarOf(ctx, f.OrganizationID, in.or(c.Lang), bookings)
	if err != nil {
		return api.File{}, err
	}
	w.SetMethod(ics.MethodPublish)
	w.SetName(text(r.NameTranslations.In(w.lang, r.Name) + " – " + w.organization.Name))
	for i := range bookings {
		b := &bookings[i]
		w.add(b, b.UpdatedAt).SetSummary(text(w.typeOf(b) + " " + b.Ticket)) // the same file while nothing changes
	}
	return api.File{Body: w.bytes(), CacheControl: feedCaching}, nil
}

func (s *Server) replaceCalendarFeed(ctx context.Context, c api.Caller, in *byResource) (api.Result[feedView], error) {
	token := access.NewFeedToken()
	if err := s.api.Bookings.ReplaceFeed(ctx, c.Scope(), in.ID, token); err != nil {
		return api.Result[feedView]{}, err
	}
	return api.Result[feedView]{Result: feedView{s.api.PublicURL + "/calendar/" + token + ".ics"}}, nil
}

func (s *Server) deleteCalendarFeed(ctx context.Context, c api.Caller, in *byResource) (api.Message, error) {
	return api.Message{Message: "The calendar feed is deleted."}, s.api.Bookings.DeleteFeed(ctx, c.Scope(), in.ID)
}

// yourTicket comes before the number of a ticket.
var yourTicket = models.Translation{En: "Your ticket:", Ar: "رقم تذكرتك:"}

// calendarWriter writes appointments of one organization as iCalendar.
type calendarWriter struct {
	*ics.Calendar
	api.Viewer
	organization *api.Organization
	lang         string
	host         string // ends every UID
}

// calendarOf begins a calendar that some bookings will be added to.
func (s *Server) calendarOf(ctx context.Context, organizationID, lang string, bookings []models.Booking) (*calendarWriter, error) {
	o, err := s.api.Directory.Get(ctx, organizationID)
	if err != nil {
		return nil, err
	}
	v, err := s.api.ViewerOf(ctx, api.Caller{OrganizationID: organizationID, Lang: lang}, false, bookings)
	if err != nil {
		return nil, err
	}
	public, err := url.Parse(s.api.PublicURL)
	if err != nil {
		return nil, err
	}
	w := &calendarWriter{ics.NewCalendar(), v, o, lang, public.Hostname()}
	w.SetProductId("-//Now Serving//Now Serving//EN")
	return w, nil
}

// add adds an appointment and returns its entry, which has no summary yet. stamp is when
// the entry was written.
func (w *calendarWriter) add(b *models.Booking, stamp time.Time) *ics.VEvent {
	e := w.AddEvent(b.Origin() + "@" + w.host)
	e.SetSequence(int(b.Revision()))
	e.SetDtStampTime(stamp)
	e.SetLastModifiedAt(b.UpdatedAt)
	e.SetStartAt(*b.StartsAt)
	if b.EndsAt.After(*b.StartsAt) { // else the visit ended early; an end is later than the start
		e.SetEndAt(*b.EndsAt)
	}
	e.SetStatus(w.status(b))
	if r := w.ResourceByID[*b.ResourceID]; r != nil {
		e.SetLocation(text(r.NameTranslations.In(w.lang, r.Name)))
	}
	return e
}

func (w *calendarWriter) typeOf(b *models.Booking) string {
	if t := w.TypeByID[b.TypeID]; t != nil {
		return t.NameTranslations.In(w.lang, t.Name)
	}
	return ""
}

// status is the status of an appointment in a calendar. It is tentative while it waits for
// approval, payment or confirmation.
func (*calendarWriter) status(b *models.Booking) ics.ObjectStatus {
	switch {
	case b.Status == models.StatusCanceled || b.Status == models.StatusRejected:
		return ics.ObjectStatusCancelled
	case b.Status != models.StatusConfirmed || b.ReservedUntil != nil:
		return ics.ObjectStatusTentative
	}
	return ics.ObjectStatusConfirmed
}

func (w *calendarWriter) bytes() []byte { return []byte(w.Serialize(ics.WithNewLineWindows)) }

// text removes the control characters that a text of iCalendar must not have. The library
// escapes line feeds.
func text(s string) string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}
