package handlers

import (
	"context"
	"errors"
	"net/http"
	"time"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

// ScheduleBody is the body of a new booking, made by the patient or at the desk.
type ScheduleBody struct {
	Type     string        `json:"type" required:"true" minLength:"1" maxLength:"64" doc:"The booking type's id."`
	Assign   *bool         `json:"assign" default:"true" doc:"true makes an appointment at date and time; false joins the queue."`
	Date     *string       `json:"date" example:"2023-01-11" doc:"The day of an appointment, in the organization's time zone."`
	Time     *int          `json:"time" example:"1820" doc:"Its military time there: 0 is midnight, 1820 twenty past six in the evening."`
	Replaces string        `json:"rescheduleBookingId" maxLength:"64" doc:"A booking that is canceled because the appointment takes its place. Its customer stays, and its note, info and resource unless others are named."`
	Timeout  *float64      `json:"assignmentTimeout" doc:"Minutes until a queued booking expires if no resource takes it: 5 to 180; other values are clamped. Default: the type's queueTimeoutMinutes."`
	Resource *filterBody   `json:"resourceFilters" doc:"Limits the resources that may take the booking."`
	Note     string        `json:"note" maxLength:"2000"`
	Info     models.Fields `json:"bookingInfoCustomFields" doc:"Values of the fields of GET /customFields/bookingInfo, by id; given back as info. Any values, while the organization has no custom field of bookings. A photo or a file is an object with data, a data URL such as data:image/jpeg;base64,…, and fileName: JPEG, PNG, WebP, HEIC or PDF, at most 10 MiB each and 20 in a request. Its permanent address takes the place of data. Photos lose their metadata."`

	ShowAll       bool          `json:"showAll" doc:"For appointments that the desk makes: also types and resources whose bookFromWebsite is false, and times outside the hours, the notice and the days of the time rules."`
	FiltersCustom models.Fields `json:"resourceFiltersCustomFields" doc:"Values of the fields of GET /customFields/resourceFilters, by id."`
	TimeAdjusters models.Fields `json:"timeAdjustersCustomFields" doc:"Values of the fields of GET /customFields/timeAdjusters, by id. They change how long the visit takes and what it costs."`
}

// filterBody limits the resources a booking or a list is about.
type filterBody struct {
	Resource  string   `json:"resource" maxLength:"64"`
	Resources []string `json:"resources" maxItems:"100"`
	Category  string   `json:"category" maxLength:"200"`
}

func (f *filterBody) filters() booking.Filters {
	if f == nil {
		return booking.Filters{}
	}
	out := booking.Filters{Resources: f.Resources, Category: f.Category}
	if f.Resource != "" {
		out.Resources = append(out.Resources, f.Resource)
	}
	return out
}

// queued reports whether the body joins the queue.
func (b ScheduleBody) queued() bool { return b.Assign != nil && !*b.Assign }

// join returns the part that queued bookings and appointments have in common.
func (b ScheduleBody) join() (booking.Join, error) {
	if err := checkFields("bookingInfoCustomFields", b.Info); err != nil {
		return booking.Join{}, err
	}
	if err := checkFields("timeAdjustersCustomFields", b.TimeAdjusters); err != nil {
		return booking.Join{}, err
	}
	return booking.Join{
		TypeID: b.Type, Timeout: b.Timeout, Filters: b.Resource.filters(), Note: b.Note,
		Info: b.Info, Adjusters: b.TimeAdjusters, FilterFields: b.FiltersCustom,
	}, nil
}

// appointment adds the date and time of an appointment to j.
func (b ScheduleBody) appointment(j booking.Join) (booking.Appointment, error) {
	if b.Date == nil {
		return booking.Appointment{}, models.Invalid("date", "An appointment has a date; to join the queue, send assign: false.")
	}
	if b.Time == nil {
		return booking.Appointment{}, models.Invalid("time", "An appointment has a time; to join the queue, send assign: false.")
	}
	return booking.Appointment{Join: j, Date: *b.Date, Time: *b.Time, Replaces: b.Replaces}, nil
}

type customerIdentifier struct {
	ID        string `json:"id" maxLength:"64"`
	Phone     string `json:"phone" maxLength:"40" example:"+966500000001"`
	Email     string `json:"email" maxLength:"254"`
	FirstName string `json:"firstName" maxLength:"200"`
	LastName  string `json:"lastName" maxLength:"200"`
}

// DeskScheduleBody is the body of a booking that is made at the desk.
type DeskScheduleBody struct {
	ScheduleBody
	Customer *customerIdentifier `json:"customerIdentifier" doc:"By id, phone or e-mail address; a new customer is created. A provider names a new one, or one who has a booking at their resources. Without it: an anonymous walk-in, or the customer of the booking that is rescheduled."`
	Priority int                 `json:"priority" minimum:"0" maximum:"100" doc:"0 is routine; a higher band is served first."`
}

// ownScheduleBody is the body of a booking that patients make themselves.
type ownScheduleBody struct {
	ScheduleBody
	FirstName  string `json:"firstName" maxLength:"200" doc:"The visitor's first name, if it is not the customer or if it is a guest."`
	LastName   string `json:"lastName" maxLength:"200"`
	OnSiteCode string `json:"onSiteCode" maxLength:"40" doc:"Of a guest, where guestJoin is onSite: the code that the clinic shows."`
	Turnstile  string `json:"turnstileToken" maxLength:"8192" doc:"Of a guest, where guestJoin is turnstile: a fresh proof of Cloudflare Turnstile."`
}

// reserveBody is the body of a temporary appointment.
type reserveBody struct {
	DeskScheduleBody
	Reserved *int `json:"reservedForMinutes" minimum:"1" maximum:"1440" doc:"Minutes until the appointment is deleted unless it is confirmed. Default 15."`
}

// confirmBody names a temporary appointment.
type confirmBody struct {
	BookingID string `json:"bookingId" required:"true" minLength:"1" maxLength:"64"`
}

// rescheduleBody gives an appointment another time.
type rescheduleBody struct {
	BookingID string      `json:"bookingId" required:"true" minLength:"1" maxLength:"64"`
	Date      string      `json:"date" required:"true" example:"2023-01-11" doc:"The day, in the organization's time zone."`
	Time      int         `json:"time" required:"true" example:"1820" doc:"Military time there."`
	Resource  *filterBody `json:"resourceFilters" doc:"Default: the same resource if it is free, else any."`
}

func (s *Server) schedulingRoutes() {
	const about = "With a date and a time: an appointment, with the resource that the filters name or, if they name none, with one that is free, by the website's bookingPolicy. " +
		"With assign: false: a place in the queue. "
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/scheduling/new", ID: "createBooking", Tag: "Bookings", Roles: api.Staff, MaxBody: uploadBody,
		Summary: "Make an appointment, or add a patient to the queue",
		About:   about + "The answer is the booking itself, not in result as elsewhere, with the token and the address of the patient's page.",
		Example: map[string]any{
			"date": "2023-01-11", "time": 1800, "type": exampleID, "resourceFilters": map[string]any{"resource": exampleOther},
			"customerIdentifier": map[string]any{"phone": "+966500000001", "firstName": "Mona"}, "note": "Regular appointment",
		},
	}, s.createBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/scheduling/temporary", ID: "createTemporaryBooking", Tag: "Bookings", Roles: api.Staff, MaxBody: uploadBody,
		Summary: "Make a temporary appointment",
		About: "It holds its time for reservedForMinutes and is then deleted, unless POST /management/scheduling/confirm was called. The customer is told of it only then. " +
			"The answer is the booking itself, not in result as elsewhere.",
		Example: map[string]any{
			"date": "2023-01-11", "time": 1800, "type": exampleID, "reservedForMinutes": 15, "resourceFilters": map[string]any{"resource": exampleOther},
			"customerIdentifier": map[string]any{"phone": "+966500000001", "firstName": "Mona"}, "note": "Temporary reservation",
		},
	}, s.createTemporaryBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/scheduling/confirm", ID: "confirmBooking", Tag: "Bookings", Roles: api.Staff,
		Summary: "Confirm a temporary appointment", Example: map[string]any{"bookingId": exampleID},
	}, s.confirmBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/customer/scheduling/new", ID: "joinQueue", Tag: "Customer", Roles: api.Customers, Guests: true, MaxBody: uploadBody,
		Summary: "Make an appointment, or join a queue",
		About: about + "Answers the booking with a token and an address that show and cancel it without signing in. " +
			"Where the organization lets guests join (guestJoin), joining a queue needs no credential: X-APP-ID names the organization, and the token is the credential from then on.",
		Example: map[string]any{"type": exampleID, "assign": false, "assignmentTimeout": 60},
	}, s.joinQueue)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/customer/bookings/reschedule", ID: "rescheduleMyBooking", Tag: "Customer", Roles: api.Patients,
		Summary: "Reschedule my appointment",
		About:   "A new booking takes the place of the old one, which is canceled in the same step: both, or neither. A ticket token is accepted too.",
		Example: map[string]any{"bookingId": exampleID, "date": "2023-01-12", "time": 1000},
	}, s.rescheduleMyBooking)
}

func (s *Server) createBooking(ctx context.Context, c api.Caller, in *api.Body[DeskScheduleBody]) (joinedView, error) {
	j, err := in.Body.join(c)
	if err != nil {
		return joinedView{}, err
	}
	return s.schedule(ctx, c, in.Body.ScheduleBody, j, 0)
}

func (s *Server) createTemporaryBooking(ctx context.Context, c api.Caller, in *api.Body[reserveBody]) (joinedView, error) {
	if in.Body.queued() {
		return joinedView{}, models.Invalid("assign", "A temporary booking is an appointment.")
	}
	j, err := in.Body.join(c)
	if err != nil {
		return joinedView{}, err
	}
	minutes := models.DefaultReservation
	set(&minutes, in.Body.Reserved)
	return s.schedule(ctx, c, in.Body.ScheduleBody, j, time.Duration(minutes)*time.Minute)
}

func (s *Server) confirmBooking(ctx context.Context, c api.Caller, in *api.Body[confirmBody]) (api.Result[api.BookingView], error) {
	return s.shown(ctx, c)(s.api.Bookings.Confirm(ctx, c.Scope(), in.Body.BookingID))
}

// join returns the part that queued bookings and appointments have in common.
func (b DeskScheduleBody) join(c api.Caller) (booking.Join, error) {
	j, err := b.ScheduleBody.join()
	if err != nil {
		return j, err
	}
	j.Priority, j.Offered = b.Priority, !b.queued() && !b.ShowAll
	var ref customers.Ref
	if w := b.Customer; w != nil {
		ref = customers.Ref{ID: w.ID, Phone: c.International(w.Phone), Email: w.Email, FirstName: w.FirstName, LastName: w.LastName}
	}
	if b.Customer != nil || b.Replaces == "" {
		if err := models.CheckNames("customerIdentifier.", ref.FirstName, ref.LastName); err != nil {
			return j, err
		}
		j.FirstName, j.LastName = ref.FirstName, ref.LastName
		j.Customer = func(tx *store.Tx) (*models.Customer, error) {
			return customers.Resolve(tx, c.CustomerScope(), ref)
		}
	}
	return j, nil
}

func (s *Server) joinQueue(ctx context.Context, c api.Caller, in *api.Body[ownScheduleBody]) (api.Result[joinedView], error) {
	j, err := in.Body.join()
	if err != nil {
		return api.Result[joinedView]{}, err
	}
	j.FirstName, j.LastName, j.Offered, j.Patient = in.Body.FirstName, in.Body.LastName, true, true
	if c.Kind == access.KindCustomer {
		j.CustomerID = c.SubjectID
	} else {
		if err := s.admitGuest(ctx, c, in.Body); err != nil {
			return api.Result[joinedView]{}, err
		}
		j.Customer = func(tx *store.Tx) (*models.Customer, error) {
			return customers.NewGuest(tx, c.OrganizationID, j.FirstName, j.LastName)
		}
	}
	view, err := s.schedule(ctx, c, in.Body.ScheduleBody, j, 0)
	return api.Result[joinedView]{Result: view}, err
}

func (s *Server) rescheduleMyBooking(ctx context.Context, c api.Caller, in *api.Body[rescheduleBody]) (api.Result[joinedView], error) {
	old, err := s.api.Bookings.See(ctx, c.Scope(), in.Body.BookingID)
	if err != nil {
		return api.Result[joinedView]{}, err
	}
	body := ScheduleBody{Type: old.TypeID, Date: &in.Body.Date, Time: &in.Body.Time, Replaces: old.ID, Resource: in.Body.Resource}
	j, err := body.join()
	if err != nil {
		return api.Result[joinedView]{}, err
	}
	j.Offered, j.Patient = true, true
	view, err := s.schedule(ctx, c, body, j, 0)
	return api.Result[joinedView]{Result: view}, err
}

// schedule makes an appointment, for a while if reserve is not 0, or a place in the queue.
func (s *Server) schedule(ctx context.Context, c api.Caller, body ScheduleBody, j booking.Join, reserve time.Duration) (joinedView, error) {
	var token string
	token, j.TicketHash = s.api.Access.NewTicketToken()
	b, place, err := s.book(ctx, c, body, j, reserve)
	if err != nil {
		return joinedView{}, err
	}
	return joinedView{
		BookingView: s.api.ViewChanged(ctx, c, api.Staff&api.RoleOf(c.Principal) != 0, b, place),
		TicketToken: token, TicketURL: s.api.PublicURL + "/ticket/" + b.ID + "#" + token,
	}, nil
}

func (s *Server) book(
	ctx context.Context, c api.Caller, body ScheduleBody, j booking.Join, reserve time.Duration,
) (*models.Booking, *booking.Place, error) {
	if body.queued() {
		if body.Replaces != "" {
			return nil, nil, models.Invalid("rescheduleBookingId", "A booking is rescheduled to an appointment, not to the queue.")
		}
		j.By = c.Scope().Actor()
		return s.api.Bookings.Join(ctx, c.OrganizationID, j)
	}
	a, err := body.appointment(j)
	if err != nil {
		return nil, nil, err
	}
	a.Reserve = reserve
	a.LeastFirst = len(a.Filters.Resources) == 0 && c.Organization.Website.BookingPolicy.Chooses()
	b, err := s.api.Bookings.Schedule(ctx, c.Scope(), a)
	if taken, ok := errors.AsType[*models.Error](err); ok && j.Offered && c.Organization.Website.HideResource {
		for i := range taken.Alternatives {
			taken.Alternatives[i].Resources = []string{}
		}
	}
	return b, nil, err
}

// joinedView is the answer of joining.
type joinedView struct {
	api.BookingView
	TicketToken string `json:"ticketToken" doc:"Shows and cancels this one booking; for the patient's page."`
	TicketURL   string `json:"ticketUrl" doc:"The patient's page."`
}
