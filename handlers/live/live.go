// Package live answers the live server: who a client is, and the snapshots that a
// subscription begins with. Snapshots show bookings as HTTP answers do, in English,
// because pages translate by themselves.
package live

import (
	"context"
	"encoding/json"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/realtime"
)

// Source implements realtime.Source.
type Source struct{ api *api.API }

var _ realtime.Source = (*Source)(nil)

// New makes a Source that authenticates and shows bookings as the API does.
func New(a *api.API) *Source { return &Source{a} }

// Authenticate implements realtime.Source.
func (s *Source) Authenticate(ctx context.Context, token, address string) (realtime.Client, error) {
	ctx = store.ForOrganization(ctx, "")
	p, _, err := s.api.Authenticate(ctx, address, token)
	if err == nil {
		err = s.api.Charge(ctx, p).Err()
	}
	if err != nil {
		return realtime.Client{}, err
	}
	if p.OrganizationID != "" {
		if err := s.api.EnterOrganization(ctx, &api.Caller{Principal: p, OrganizationID: p.OrganizationID}); err != nil {
			return realtime.Client{}, err
		}
	}
	client := realtime.Client{OrganizationID: p.OrganizationID, UserID: p.SubjectID, CredentialID: p.CredentialID(), ExpiresAt: p.ExpiresAt, Opaque: p}
	if p.Kind == access.KindCustomer || p.Kind == access.KindTicket {
		client.Patient = p.SubjectID
	}
	return client, nil
}

// OriginAllowed implements realtime.Source.
func (s *Source) OriginAllowed(ctx context.Context, organizationID, origin string) (bool, error) {
	return s.api.OriginAllowed(ctx, organizationID, origin)
}

// caller returns the caller of a connection. An account key names no organization, so
// it gets that of the subscribed channel.
func (s *Source) caller(ctx context.Context, c realtime.Client, id string, ownerOf func(context.Context, string) (string, error)) (api.Caller, error) {
	p, ok := c.Opaque.(access.Principal)
	if !ok {
		return api.Caller{}, models.Errorf(models.CodeUnauthenticated, "The connection has no credential.")
	}
	if !api.IsText(id) {
		return api.Caller{}, models.Errorf(models.CodeForbidden, "This is no channel of ours.")
	}
	organizationID := p.OrganizationID
	if p.Kind == access.KindAccount {
		var err error
		if organizationID, err = ownerOf(ctx, id); err != nil {
			return api.Caller{}, err
		}
	}
	who := api.Caller{Principal: p, OrganizationID: organizationID, Lang: "en"}
	if err := s.api.EnterOrganization(ctx, &who); err != nil || who.Role != models.RoleProvider {
		return who, err
	}
	// The rights of a subscription are read from the database: the directory may be
	// up to 4 s behind, and a provider who lost a resource has just been asked to
	// reconnect.
	var err error
	who.ResourceIDs, who.Views, err = s.api.Access.Reach(ctx, organizationID, p.SubjectID)
	return who, err
}

// Booking implements realtime.Source.
func (s *Source) Booking(ctx context.Context, client realtime.Client, id string) (realtime.BookingSnapshot, error) {
	ctx = store.ForOrganization(ctx, client.OrganizationID)
	c, err := s.caller(ctx, client, id, s.api.Bookings.OwnerOf)
	if err != nil {
		return realtime.BookingSnapshot{}, err
	}
	if (api.Staff|api.Patients)&api.RoleOf(c.Principal) == 0 {
		return realtime.BookingSnapshot{}, models.Errorf(models.CodeForbidden, "This credential may not watch bookings.")
	}
	b, position, err := s.api.Bookings.Watch(ctx, c.Scope(), id)
	if err != nil {
		return realtime.BookingSnapshot{}, err
	}
	at := s.api.Store.Time()
	v, err := s.api.ViewerOf(ctx, c, false, []models.Booking{*b})
	if err != nil {
		return realtime.BookingSnapshot{}, err
	}
	resourceID := ""
	if b.ResourceID != nil {
		resourceID = *b.ResourceID
	}
	minutes := 0
	if t := v.TypeByID[b.TypeID]; t != nil {
		minutes = t.Minutes
	}
	return realtime.BookingSnapshot{
		OrganizationID: c.OrganizationID, TypeID: b.TypeID, ResourceID: resourceID, Version: b.Version, Stage: b.Stage, Minutes: minutes, Position: position,
		Own: c.Kind == access.KindCustomer,
		Data: func(position int) (json.RawMessage, error) {
			var place *booking.Place
			if position > 0 && b.Waiting() {
				p, err := s.api.Bookings.PlaceAt(ctx, b, position)
				if err != nil {
					return nil, err
				}
				place = &p
			}
			return json.Marshal(BookingSnapshot{models.EventSnapshot, v.View(b, place), models.At(at)})
		},
	}, nil
}

// BookingSnapshot is the data of the reply to a subscription to a booking.
type BookingSnapshot struct {
	Type    models.EventType `json:"type"`
	Booking api.BookingView  `json:"booking"`
	At      models.Moment    `json:"at"`
}

// QueueSnapshot is the data of the reply to a subscription to a queue.
type QueueSnapshot struct {
	Type       models.EventType `json:"type"`
	ResourceID string           `json:"resourceId"`
	Paused     bool             `json:"paused"`
	Waiting    []Waiter         `json:"waiting" nullable:"false" doc:"The first 500, those served next first."`
	Total      int              `json:"total" doc:"How many wait."`
	At         models.Moment    `json:"at"`
}

// Waiter is one line of a resource's waiting list.
type Waiter struct {
	BookingID string        `json:"bookingId"`
	Ticket    string        `json:"ticket"`
	TypeID    string        `json:"typeId"`
	Priority  int           `json:"priority"`
	CreatedAt models.Moment `json:"createdAt"`
}

// maxWaiting bounds the bookings in a queue's snapshot.
const maxWaiting = 500

// Queue implements realtime.Source.
func (s *Source) Queue(ctx context.Context, client realtime.Client, resourceID string) (realtime.QueueSnapshot, error) {
	ctx = store.ForOrganization(ctx, client.OrganizationID)
	c, err := s.caller(ctx, client, resourceID, s.api.Catalog.OwnerOf)
	if err != nil {
		return realtime.QueueSnapshot{}, err
	}
	if api.Staff&api.RoleOf(c.Principal) == 0 {
		return realtime.QueueSnapshot{}, models.Errorf(models.CodeForbidden, "This credential may not watch queues.")
	}
	at := s.api.Store.Time()
	page, err := s.api.Bookings.Queue(ctx, c.Scope(), resourceID, maxWaiting, "")
	if err != nil {
		return realtime.QueueSnapshot{}, err
	}
	r, err := s.api.Catalog.Resource(ctx, c.OrganizationID, resourceID)
	if err != nil {
		return realtime.QueueSnapshot{}, err
	}
	waiting := make([]Waiter, len(page.Bookings))
	for i := range page.Bookings {
		b := &page.Bookings[i]
		waiting[i] = Waiter{b.ID, b.Ticket, b.TypeID, b.Priority, models.At(b.CreatedAt)}
	}
	data, err := json.Marshal(QueueSnapshot{models.EventSnapshot, resourceID, r.Paused, waiting, int(page.Total), models.At(at)})
	return realtime.QueueSnapshot{OrganizationID: c.OrganizationID, Data: data}, err
}

// Display implements realtime.Source.
func (s *Source) Display(ctx context.Context, client realtime.Client, id string) (realtime.DisplaySnapshot, error) {
	ctx = store.ForOrganization(ctx, client.OrganizationID)
	c, err := s.caller(ctx, client, id, s.api.Catalog.OwnerOf)
	if err != nil {
		return realtime.DisplaySnapshot{}, err
	}
	if (api.Staff|api.Screen)&api.RoleOf(c.Principal) == 0 && (c.Kind != access.KindDisplay || c.SubjectID != id) {
		return realtime.DisplaySnapshot{}, models.Errorf(models.CodeForbidden, "This credential may not watch this display.")
	}
	d, err := s.api.Catalog.Display(ctx, c.OrganizationID, id)
	if err != nil {
		return realtime.DisplaySnapshot{}, err
	}
	return realtime.DisplaySnapshot{OrganizationID: c.OrganizationID, ResourceIDs: d.ResourceIDs}, nil
}

// States implements realtime.Source.
func (s *Source) States(ctx context.Context, organizationID string, ids []string) ([]models.BookingEvent, error) {
	return stateEvents(s.api.Bookings.ByIDs(ctx, organizationID, ids))
}

// maxCalls bounds the past calls in a display's snapshot.
const maxCalls = 50

// Calls implements realtime.Source.
func (s *Source) Calls(ctx context.Context, organizationID string) ([]models.BookingEvent, error) {
	return stateEvents(s.api.Bookings.Calls(ctx, organizationID, maxCalls))
}

func stateEvents(bookings []models.Booking, err error) ([]models.BookingEvent, error) {
	events := make([]models.BookingEvent, len(bookings))
	for i := range bookings {
		events[i] = models.StateEvent(&bookings[i])
	}
	return events, err
}

// Catalogue implements realtime.Source.
func (s *Source) Catalogue(ctx context.Context, organizationID string, fresh bool) (realtime.Catalogue, error) {
	if fresh {
		s.api.Directory.Forget(organizationID)
	}
	o, err := s.api.Directory.Get(ctx, organizationID)
	if err != nil {
		return realtime.Catalogue{}, err
	}
	return o.Live, nil
}
