package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"nowserving/booking"
	"nowserving/models"
)

// BookingView is a booking as every endpoint and snapshot shows it.
type BookingView struct {
	ID         string          `json:"id"`
	Status     models.Status   `json:"status" enum:"PENDING_APPROVAL,PENDING_PAYMENT,PENDING_ASSIGNMENT,CONFIRMED,CANCELED,REJECTED"`
	Stage      models.Stage    `json:"stage,omitempty" enum:"WAITING,HELD,CALLED,SERVING,DONE,NO_SHOW,LEFT"`
	Ticket     string          `json:"ticket" example:"A042" doc:"The number to show and to call."`
	TypeID     string          `json:"typeId"`
	Type       *TypeRef        `json:"type,omitempty"`
	ResourceID string          `json:"resourceId,omitempty" doc:"Once assigned."`
	Resource   *resourceRef    `json:"resource,omitempty"`
	CustomerID string          `json:"customerId"`
	Customer   *CustomerRef    `json:"customer,omitempty" doc:"With includes=customer."`
	Invoice    json.RawMessage `json:"invoice,omitempty" doc:"With includes=invoice; null: there is none."`
	Priority   int             `json:"priority" doc:"0 is routine; a higher band is served first."`

	QueuePosition        *int             `json:"queuePosition,omitempty" doc:"1 is the next to be served; only while waiting."`
	QueuePositionAge     *float64         `json:"queuePositionAgeSeconds,omitempty" doc:"While the service can't follow the queue as it moves: how old queuePosition may be. 0 when it has just been counted; absent while it is live."`
	EstimatedWaitMinutes *int             `json:"estimatedWaitMinutes,omitempty" doc:"queuePosition times the minutes of the type."`
	EstimatedWait        *models.Estimate `json:"estimatedWait,omitempty" doc:"The better estimate, in minutes, from the resources that are present and the durations of recent visits."`

	PendingSince *models.Moment `json:"pendingSince,omitempty"`
	CreatedAt    models.Moment  `json:"createdAt"`
	ExpiresAt    *models.Moment `json:"expiresAt,omitempty" doc:"When the booking expires if no resource takes it."`
	CalledAt     *models.Moment `json:"calledAt,omitempty" doc:"The last call."`
	StartedAt    *models.Moment `json:"startedAt,omitempty"`
	EndedAt      *models.Moment `json:"endedAt,omitempty"`

	StartDate     string         `json:"startDate,omitempty" example:"2026-03-01" doc:"In the organization's time zone."`
	StartTime     *int           `json:"startTime,omitempty" example:"1820" doc:"Military time in the organization's time zone."`
	StartDateTime *models.Moment `json:"startDateTime,omitempty"`
	EndDateTime   *models.Moment `json:"endDateTime,omitempty"`
	Duration      *int           `json:"duration,omitempty" doc:"Minutes: of the type, or kept for the appointment, before the end; real ones after it."`

	ReservedUntil *models.Moment `json:"reservedUntil,omitempty" doc:"When a temporary appointment is deleted unless it is confirmed."`

	UndoUntil *models.Moment `json:"undoUntil,omitempty" doc:"Until when staff may take back what they did last."`

	RecallCount int           `json:"recallCount"`
	Note        string        `json:"note,omitempty"`
	Info        models.Fields `json:"info"`
	Adjusters   models.Fields `json:"timeAdjustersCustomFields,omitempty" doc:"The values that changed how long the visit takes."`
	Display     DisplayText   `json:"display"`
	Version     int64         `json:"version" doc:"Grows with every change."`
}

// TypeRef names a booking's type.
type TypeRef struct {
	ID               string             `json:"id"`
	Name             string             `json:"name"`
	NameTranslations models.Translation `json:"name_translations"`
	Minutes          int                `json:"minutes"`
}

type resourceRef struct {
	ID               string             `json:"id"`
	Name             string             `json:"name"`
	NameTranslations models.Translation `json:"name_translations"`
}

// CustomerRef names a booking's customer.
type CustomerRef struct {
	ID        string `json:"id"`
	FirstName string `json:"firstName" doc:"The visitor's name: the booking's own, if it was made with another name than the customer's."`
	LastName  string `json:"lastName"`
	Phone     string `json:"phone,omitempty"`
	Email     string `json:"email,omitempty"`
}

// DisplayText is what a person reads, in the caller's language.
type DisplayText struct {
	Type     string `json:"type"`
	Resource string `json:"resource,omitempty"`
	Status   string `json:"status"`
	Stage    string `json:"stage,omitempty"`
}

// words are the statuses and stages as people read them.
var words = map[string]models.Translation{
	string(models.StatusPendingApproval):   {En: "Waiting for approval", Ar: "بانتظار الموافقة"},
	string(models.StatusPendingPayment):    {En: "Waiting for payment", Ar: "بانتظار الدفع"},
	string(models.StatusPendingAssignment): {En: "In the queue", Ar: "في الطابور"},
	string(models.StatusConfirmed):         {En: "Confirmed", Ar: "مؤكد"},
	string(models.StatusCanceled):          {En: "Canceled", Ar: "ملغى"},
	string(models.StatusRejected):          {En: "Expired", Ar: "انتهت المهلة"},
	string(models.StageWaiting):            {En: "Waiting", Ar: "في الانتظار"},
	string(models.StageHeld):               {En: "On hold", Ar: "مؤجل"},
	string(models.StageCalled):             {En: "Called", Ar: "تم النداء"},
	string(models.StageServing):            {En: "Being served", Ar: "قيد الخدمة"},
	string(models.StageDone):               {En: "Done", Ar: "انتهت الزيارة"},
	string(models.StageNoShow):             {En: "Did not come", Ar: "لم يحضر"},
	string(models.StageLeft):               {En: "Left", Ar: "غادر"},
}

// rejected is the status of an appointment that was not approved.
var rejected = models.Translation{En: "Rejected", Ar: "مرفوض"}

// Word is the display text of a status or stage in a language.
func Word[T ~string](w T, lang string) string { return words[string(w)].In(lang, string(w)) }

// Viewer shows bookings of one organization in one language.
type Viewer struct {
	organization *Organization
	TypeByID     map[string]*models.BookingType
	ResourceByID map[string]*models.Resource
	people       map[string]*models.Customer // nil: customers are not shown
	lang         string
	// patient reports that the views are shown to a patient, who does not see what is
	// for staff only.
	patient bool
}

// View makes the view of a booking. place is nil when it does not wait.
func (v Viewer) View(b *models.Booking, place *booking.Place) BookingView {
	out := BookingView{
		ID: b.ID, Status: b.Status, Stage: b.Stage, Ticket: b.Ticket, TypeID: b.TypeID, CustomerID: b.CustomerID, Priority: b.Priority,
		PendingSince: models.AtOrNil(b.PendingAt), CreatedAt: models.At(b.CreatedAt), CalledAt: models.AtOrNil(b.LastCalledAt), StartedAt: models.AtOrNil(b.StartedAt), EndedAt: models.AtOrNil(b.EndedAt), UndoUntil: models.AtOrNil(b.UndoUntil), ReservedUntil: models.AtOrNil(b.ReservedUntil),
		RecallCount: b.RecallCount, Note: b.Note, Info: b.Info, Adjusters: b.Adjusters, Version: b.Version,
		Display: DisplayText{Status: Word(b.Status, v.lang)},
	}
	if v.patient {
		out.Info, out.Adjusters = v.organization.BookingFields.ShownToCustomers(out.Info), v.organization.BookingFields.ShownToCustomers(out.Adjusters)
	}
	if out.Info == nil {
		out.Info = models.Fields{}
	}
	if b.Status == models.StatusRejected && b.StartsAt != nil {
		out.Display.Status = rejected.In(v.lang, "")
	}
	if b.Stage != models.StageNone {
		out.Display.Stage = Word(b.Stage, v.lang)
	}
	if b.Status == models.StatusPendingAssignment {
		out.ExpiresAt = models.AtOrNil(b.AssignmentDeadline)
	}
	minutes := 0
	if t := v.TypeByID[b.TypeID]; t != nil {
		minutes = t.Minutes
		out.Display.Type = t.NameTranslations.In(v.lang, t.Name)
		out.Type = &TypeRef{t.ID, out.Display.Type, t.NameTranslations, t.Minutes}
	}
	if b.ResourceID != nil {
		out.ResourceID = *b.ResourceID
		if r := v.ResourceByID[*b.ResourceID]; r != nil {
			out.Display.Resource = r.NameTranslations.In(v.lang, r.Name)
			out.Resource = &resourceRef{r.ID, out.Display.Resource, r.NameTranslations}
		}
	}
	if c := v.people[b.CustomerID]; c != nil {
		phone, email := c.Contact()
		first, last := b.Name(c)
		out.Customer = &CustomerRef{c.ID, first, last, phone, email}
	}
	if place != nil {
		out.QueuePosition, out.EstimatedWaitMinutes, out.EstimatedWait = &place.Position, &place.WaitMinutes, &place.Estimate
		if place.Age != nil {
			age := math.Round(place.Age.Seconds()*10) / 10
			out.QueuePositionAge = &age
		}
	}
	v.showTimes(&out, b, minutes)
	return out
}

// showTimes sets the times and the duration of the visit. A queued visit begins when
// it is started or, before that, when it is called. An appointment has its planned
// times. It gets the actual duration when it ends, and the actual times if it ended
// before its planned start.
func (v Viewer) showTimes(out *BookingView, b *models.Booking, minutes int) {
	if minutes > 0 {
		out.Duration = &minutes
	}
	began, start, ended := b.StartedAt, b.StartsAt, b.EndedAt
	if began == nil {
		began = b.CalledAt
	}
	if start == nil || b.WasEarly() {
		start = began
	}
	if start == nil {
		return
	}
	local := start.In(v.organization.Zone)
	military := local.Hour()*100 + local.Minute()
	out.StartDateTime, out.StartDate, out.StartTime = models.AtOrNil(start), local.Format(time.DateOnly), &military
	end := start.Add(time.Duration(minutes) * time.Minute).UTC()
	if b.EndsAt != nil {
		end = b.EndsAt.UTC()
		kept := int(end.Sub(*start).Minutes())
		out.Duration = &kept
	}
	if ended != nil && began != nil {
		if b.EndsAt == nil || b.WasEarly() || ended.After(end) {
			end = ended.UTC()
		}
		took := int(math.Ceil(ended.Sub(*began).Minutes()))
		out.Duration = &took
	}
	out.EndDateTime = models.AtOrNil(&end)
}

// ViewerOf reads the names and, if asked for, the customers that the views of some
// bookings show.
func (a *API) ViewerOf(ctx context.Context, c Caller, withCustomers bool, bookings []models.Booking) (Viewer, error) {
	o, err := a.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return Viewer{}, err
	}
	v := Viewer{organization: o, TypeByID: o.TypeByID, ResourceByID: o.ResourceByID, lang: c.Lang, patient: !c.isStaff()}
	if err := a.findMissing(ctx, &v, bookings); err != nil {
		return Viewer{}, err
	}
	if !withCustomers || len(bookings) == 0 {
		return v, nil
	}
	v.people, err = a.Customers.OfBookings(ctx, c.OrganizationID, bookings)
	return v, err
}

// findMissing reads the types and resources of bookings that the directory
// doesn't know: deleted ones, and those another node made a moment ago.
func (a *API) findMissing(ctx context.Context, v *Viewer, bookings []models.Booking) error {
	types, resources := map[string]bool{}, map[string]bool{}
	for i := range bookings {
		b := &bookings[i]
		if v.TypeByID[b.TypeID] == nil {
			types[b.TypeID] = true
		}
		if b.ResourceID != nil && v.ResourceByID[*b.ResourceID] == nil {
			resources[*b.ResourceID] = true
		}
	}
	if len(types) > 0 {
		rows, err := a.Catalog.TypesByID(ctx, v.organization.ID, slices.Collect(maps.Keys(types)))
		if err != nil {
			return err
		}
		v.TypeByID = maps.Clone(v.TypeByID) // the directory's own is never changed
		for i := range rows {
			v.TypeByID[rows[i].ID] = &rows[i]
		}
	}
	if len(resources) > 0 {
		rows, err := a.Catalog.ResourcesByID(ctx, v.organization.ID, slices.Collect(maps.Keys(resources)))
		if err != nil {
			return err
		}
		v.ResourceByID = maps.Clone(v.ResourceByID)
		for i := range rows {
			v.ResourceByID[rows[i].ID] = &rows[i]
		}
	}
	return nil
}

// ViewBookings makes the views of some bookings, with their positions in the queue.
func (a *API) ViewBookings(ctx context.Context, c Caller, withCustomers bool, bookings []models.Booking) ([]BookingView, error) {
	v, err := a.ViewerOf(ctx, c, withCustomers, bookings)
	if err != nil {
		return nil, err
	}
	places, err := a.Bookings.Places(ctx, c.OrganizationID, bookings)
	if err != nil {
		return nil, err
	}
	views := make([]BookingView, len(bookings))
	for i := range bookings {
		b := &bookings[i]
		var place *booking.Place
		if p, waits := places[b.ID]; waits {
			place = &p
		}
		views[i] = v.View(b, place)
	}
	return views, nil
}

// ViewBooking is ViewBookings for one booking; to staff it shows the customer.
func (a *API) ViewBooking(ctx context.Context, c Caller, withCustomer bool, b *models.Booking) (BookingView, error) {
	views, err := a.ViewBookings(ctx, c, withCustomer, []models.Booking{*b})
	if err != nil {
		return BookingView{}, err
	}
	return views[0], nil
}

// ViewBookingAt makes the view of a booking whose position is known. place is nil if
// the booking does not wait.
func (a *API) ViewBookingAt(ctx context.Context, c Caller, withCustomer bool, b *models.Booking, place *booking.Place) (BookingView, error) {
	v, err := a.ViewerOf(ctx, c, withCustomer, []models.Booking{*b})
	if err != nil {
		return BookingView{}, err
	}
	return v.View(b, place), nil
}

// afterTimeout bounds the reads for an answer after the commit.
const afterTimeout = time.Second

// ViewChanged makes the view of a booking whose change is committed. It never fails,
// because the caller would repeat a change that succeeded: names and customers that
// can't be read within afterTimeout are left out. The request's own deadline is
// ignored. place is nil if the booking does not wait.
func (a *API) ViewChanged(ctx context.Context, c Caller, withCustomer bool, b *models.Booking, place *booking.Place) BookingView {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterTimeout)
	defer cancel()
	v := Viewer{organization: c.Organization, TypeByID: c.Organization.TypeByID, ResourceByID: c.Organization.ResourceByID, lang: c.Lang, patient: !c.isStaff()}
	one := []models.Booking{*b}
	err := a.findMissing(ctx, &v, one)
	if withCustomer {
		var unread error
		v.people, unread = a.Customers.OfBookings(ctx, c.OrganizationID, one)
		err = errors.Join(err, unread)
	}
	if err != nil {
		a.Log.Warn("the answer to a committed change is incomplete", "requestId", requestID(ctx), "booking", b.ID, "error", err)
	}
	return v.View(b, place)
}
