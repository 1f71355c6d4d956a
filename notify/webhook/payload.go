package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"gorm.io/gorm"

	"nowserving/models"
	"nowserving/notify/outbox"
)

// Payload is the body of a webhook (the API document, "Manage Webhooks"). An object
// that does not apply, such as the provider of an unassigned booking, is empty.
type Payload struct {
	ID       string          `json:"id" doc:"The booking's."`
	Trigger  Trigger         `json:"trigger"`
	Customer PayloadPerson   `json:"customer"`
	Provider PayloadPerson   `json:"provider" doc:"The member who acts for the resource."`
	Resource PayloadResource `json:"resource"`
	Page     PayloadPage     `json:"page" doc:"The organization."`
	Type     PayloadType     `json:"type"`
	// DateTime is JSON in a string, with its quotes, as the document shows it.
	DateTime string        `json:"dateTime" example:"\"2023-11-15T14:30:00.000Z\"" doc:"A JSON string: the start of the appointment, or when the booking was made."`
	Info     models.Fields `json:"info" doc:"The custom fields of the booking."`
	Data     PayloadData   `json:"data"`
}

// PayloadPerson is a customer or a member.
type PayloadPerson struct {
	ID        string `json:"id,omitempty"`
	FirstName string `json:"firstName,omitempty"`
	LastName  string `json:"lastName,omitempty"`
	Phone     string `json:"phone,omitempty"`
	Email     string `json:"email,omitempty"`
}

// PayloadResource is a resource.
type PayloadResource struct {
	ID               string              `json:"id,omitempty"`
	Name             string              `json:"name,omitempty"`
	NameTranslations *models.Translation `json:"name_translations,omitempty"`
	Category         string              `json:"category,omitempty"`
}

// PayloadPage is the organization.
type PayloadPage struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Timezone string `json:"timezone"`
}

// PayloadType is a booking type.
type PayloadType struct {
	ID               string              `json:"id,omitempty"`
	Name             string              `json:"name,omitempty"`
	NameTranslations *models.Translation `json:"name_translations,omitempty"`
	Minutes          int                 `json:"minutes,omitempty"`
	Price            string              `json:"price,omitempty"`
}

// PayloadData is the event.
type PayloadData struct {
	// Sequence grows with every delivery about a booking, so that a receiver can order
	// deliveries that came late.
	Sequence int64           `json:"sequence" doc:"Grows with everything told of a booking: the higher one is the newer."`
	At       models.Moment   `json:"at" doc:"When it happened."`
	Status   models.Status   `json:"status"`
	Stage    models.Stage    `json:"stage,omitempty"`
	Ticket   string          `json:"ticket"`
	StartsAt *models.Moment  `json:"startsAt,omitempty" doc:"Of an appointment."`
	EndsAt   *models.Moment  `json:"endsAt,omitempty"`
	Reminder models.Reminder `json:"reminder,omitempty"`
	Undone   models.Action   `json:"undone,omitempty" doc:"The step that was taken back, where that is what happened."`

	CancelReason    string `json:"cancelReason,omitempty"`
	RescheduledFrom string `json:"rescheduledFrom,omitempty" doc:"The booking that this one replaces."`

	QueuePosition        int              `json:"queuePosition,omitempty"`
	EstimatedWaitMinutes *int             `json:"estimatedWaitMinutes,omitempty"`
	EstimatedWait        *models.Estimate `json:"estimatedWait,omitempty"`
}

// dataOf makes the data of an event.
func dataOf(e *models.BookingEvent) PayloadData {
	return PayloadData{
		Sequence: outbox.SequenceOf(e.Version, 0), At: models.At(e.At), Status: e.Status, Stage: e.Stage, Ticket: e.Ticket,
		StartsAt: models.AtOrNil(e.StartsAt), Reminder: e.Reminder, Undone: e.Undone, RescheduledFrom: e.RescheduledFrom,
	}
}

// facts are the rows that payloads about some bookings of an organization need.
type facts struct {
	page      PayloadPage
	bookings  map[string]*models.Booking
	customers map[string]*models.Customer
	types     map[string]*models.BookingType
	resources map[string]*models.Resource
	members   map[string]*models.Member
}

// readFacts reads facts, in a few queries for each thousand bookings.
func readFacts(db *gorm.DB, organizationID string, bookingIDs []string) (*facts, error) {
	var o models.Organization
	if err := db.Where("id = ?", organizationID).Take(&o).Error; err != nil {
		return nil, fmt.Errorf("read the organization of a webhook: %w", err)
	}
	f := &facts{page: PayloadPage{o.ID, o.Name, o.Timezone}}
	var err error
	if f.bookings, err = byID(db, organizationID, bookingIDs, func(b *models.Booking) string { return b.ID }); err != nil {
		return nil, err
	}
	customers, types, resources, members := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, b := range f.bookings {
		customers[b.CustomerID], types[b.TypeID] = true, true
		if b.ResourceID != nil {
			resources[*b.ResourceID] = true
		}
	}
	if f.customers, err = byID(db, organizationID, slices.Collect(maps.Keys(customers)), func(c *models.Customer) string { return c.ID }); err != nil {
		return nil, err
	}
	if f.types, err = byID(db, organizationID, slices.Collect(maps.Keys(types)), func(t *models.BookingType) string { return t.ID }); err != nil {
		return nil, err
	}
	if f.resources, err = byID(db, organizationID, slices.Collect(maps.Keys(resources)), func(r *models.Resource) string { return r.ID }); err != nil {
		return nil, err
	}
	for _, r := range f.resources {
		if r.ProviderID != nil {
			members[*r.ProviderID] = true
		}
	}
	f.members, err = byID(db, organizationID, slices.Collect(maps.Keys(members)), func(m *models.Member) string { return m.ID })
	return f, err
}

// byID reads the rows with some ids.
func byID[M any](db *gorm.DB, organizationID string, ids []string, id func(*M) string) (map[string]*M, error) {
	found := make(map[string]*M, len(ids))
	for chunk := range slices.Chunk(ids, outbox.IDsAtOnce) {
		var rows []M
		if err := db.Where("organization_id = ? AND id IN ?", organizationID, chunk).Find(&rows).Error; err != nil {
			return nil, fmt.Errorf("read what a webhook tells: %w", err)
		}
		for i := range rows {
			found[id(&rows[i])] = &rows[i]
		}
	}
	return found, nil
}

// payload makes the body of a webhook about a booking. It returns false if the
// booking no longer exists.
func (f *facts) payload(trigger Trigger, bookingID string, data PayloadData) (string, bool, error) {
	b := f.bookings[bookingID]
	if b == nil {
		return "", false, nil
	}
	start := b.CreatedAt
	if data.StartsAt != nil {
		data.EndsAt = models.AtOrNil(b.EndsAt)
		if b.WasEarly() {
			data.StartsAt, data.EndsAt = models.AtOrNil(b.StartedAt), models.AtOrNil(b.EndedAt)
		}
		start = data.StartsAt.Time
	}
	if data.Status == models.StatusCanceled {
		data.CancelReason = b.CancelReason
	}
	p := Payload{
		ID: b.ID, Trigger: trigger, Page: f.page, DateTime: quotedTime(start), Info: b.Info, Data: data,
	}
	if p.Info == nil {
		p.Info = models.Fields{}
	}
	if c := f.customers[b.CustomerID]; c != nil {
		phone, email := c.Contact()
		first, last := b.Name(c)
		p.Customer = PayloadPerson{c.ID, first, last, phone, email}
	}
	if t := f.types[b.TypeID]; t != nil {
		p.Type = PayloadType{t.ID, t.Name, &t.NameTranslations, t.Minutes, t.Price}
	}
	if b.ResourceID != nil && f.resources[*b.ResourceID] != nil {
		r := f.resources[*b.ResourceID]
		p.Resource = PayloadResource{r.ID, r.Name, &r.NameTranslations, r.Category}
		if r.ProviderID != nil && f.members[*r.ProviderID] != nil {
			m := f.members[*r.ProviderID]
			p.Provider = PayloadPerson{m.ID, m.FirstName, m.LastName, models.Text(m.Phone), models.Text(m.Email)}
		}
	}
	body, err := json.Marshal(p)
	return string(body), true, err
}

// quotedTime is a time as the document writes it: JSON in a string.
func quotedTime(t time.Time) string { return strconv.Quote(t.UTC().Format("2006-01-02T15:04:05.000Z")) }

// SamplePayload is a sample body of a trigger's webhook, with made-up people.
func SamplePayload(trigger Trigger, o *models.Organization) Payload {
	at := time.Date(2023, 11, 15, 14, 30, 0, 0, time.UTC)
	p := Payload{
		ID: "booking-123456", Trigger: trigger, DateTime: quotedTime(at), Info: models.Fields{"reason": "Checkup"},
		Customer: PayloadPerson{"customer-123456", "Mona", "Abdullah", "+966500000001", "mona@example.com"},
		Page:     PayloadPage{o.ID, o.Name, o.Timezone},
		Type:     PayloadType{"type-123456", "General", &models.Translation{En: "General", Ar: "عام"}, 10, ""},
		Data: PayloadData{
			Sequence: outbox.SequenceOf(2, 0), At: models.At(at), Status: models.StatusConfirmed, Stage: models.StageCalled, Ticket: "A042",
		},
	}
	appointment := func() { p.Data.Stage, p.Data.StartsAt = models.StageNone, models.AtOrNil(&at) }
	taken := true
	switch trigger {
	case TriggerNewBooking:
		appointment()
		p.Data.Status = models.StatusPendingApproval
	case TriggerNewAppointment:
		appointment()
	case TriggerAppointmentRescheduled:
		appointment()
		p.Data.RescheduledFrom = "booking-123455"
	case TriggerBookingRejected:
		appointment()
		p.Data.Status = models.StatusRejected
	case TriggerCustomerCanceled, TriggerProviderCanceled:
		p.Data.Status, p.Data.Stage, p.Data.CancelReason = models.StatusCanceled, models.StageLeft, "Asked to"
	case TriggerBookingUnassigned, TriggerBookingReturned:
		taken = false
		p.Data.Status, p.Data.Stage = models.StatusPendingAssignment, models.StageWaiting
	case TriggerBookingExpired:
		taken = false
		p.Data.Status, p.Data.Stage = models.StatusRejected, models.StageLeft
	case TriggerQueuePositionUpdated:
		taken = false
		wait := 20
		p.Data.Status, p.Data.Stage, p.Data.Sequence = models.StatusPendingAssignment, models.StageWaiting, outbox.SequenceOf(1, 3)
		p.Data.QueuePosition, p.Data.EstimatedWaitMinutes, p.Data.EstimatedWait = 2, &wait, &models.Estimate{Low: 12, Likely: 18, High: 30}
	case TriggerBookingAssigned, TriggerBookingCalled, TriggerBookingRecalled:
	case TriggerBookingStarted:
		p.Data.Stage = models.StageServing
	case TriggerBookingEnded:
		p.Data.Stage = models.StageDone
	case TriggerBookingNoShow:
		p.Data.Stage = models.StageNoShow
	case TriggerBookingHeld:
		taken = false
		p.Data.Status, p.Data.Stage = models.StatusPendingAssignment, models.StageHeld
	default: // a reminder
		appointment()
		p.Data.Reminder = models.Reminder(trigger)
	}
	if taken {
		p.Resource = PayloadResource{"resource-123456", "Dr. Sarah", &models.Translation{En: "Dr. Sarah", Ar: "د. سارة"}, "doctors"}
		p.Provider = PayloadPerson{"member-123456", "Sarah", "Ali", "+966500000002", "sarah@example.com"}
	}
	return p
}
