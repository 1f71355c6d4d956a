package handlers

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

// Live answers the live server's questions. Snapshots show bookings as HTTP
// answers do, in English: pages translate by themselves.
type Live struct{ s *Server }

var _ realtime.Source = (*Live)(nil)

// Live returns the source of the live server's snapshots and rights.
func (s *Server) Live() *Live { return &Live{s} }

// Authenticate implements realtime.Source.
func (l *Live) Authenticate(ctx context.Context, token, address string) (realtime.Client, error) {
	ctx = store.ForOrganization(ctx, "")
	p, _, err := l.s.api.Authenticate(ctx, address, token)
	if err == nil {
		err = l.s.api.Charge(ctx, p).Err()
	}
	if err != nil {
		return realtime.Client{}, err
	}
	if p.OrganizationID != "" {
		if err := l.s.api.EnterOrganization(ctx, &api.Caller{Principal: p, OrganizationID: p.OrganizationID}); err != nil {
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
func (l *Live) OriginAllowed(ctx context.Context, organizationID, origin string) (bool, error) {
	return l.s.api.OriginAllowed(ctx, organizationID, origin)
}

// caller returns the caller of a connection. An account key names no organization, so
// it gets that of the subscribed channel.
func (l *Live) caller(ctx context.Context, c realtime.Client, id string, ownerOf func(context.Context, string) (string, error)) (api.Caller, error) {
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
	if err := l.s.api.EnterOrganization(ctx, &who); err != nil || who.Role != models.RoleProvider {
		return who, err
	}
	// The rights of a subscription are read from the database: the directory may be
	// up to 4 s behind, and a provider who lost a resource has just been asked to
	// reconnect.
	var err error
	who.ResourceIDs, who.Views, err = l.s.opts.Access.Reach(ctx, organizationID, p.SubjectID)
	return who, err
}

// Booking implements realtime.Source.
func (l *Live) Booking(ctx context.Context, client realtime.Client, id string) (realtime.BookingSnapshot, error) {
	ctx = store.ForOrganization(ctx, client.OrganizationID)
	c, err := l.caller(ctx, client, id, l.s.opts.Bookings.OwnerOf)
	if err != nil {
		return realtime.BookingSnapshot{}, err
	}
	if (api.Staff|api.Patients)&api.RoleOf(c.Principal) == 0 {
		return realtime.BookingSnapshot{}, models.Errorf(models.CodeForbidden, "This credential may not watch bookings.")
	}
	b, position, err := l.s.opts.Bookings.Watch(ctx, c.Scope(), id)
	if err != nil {
		return realtime.BookingSnapshot{}, err
	}
	at := l.s.opts.Store.Time()
	v, err := l.s.api.ViewerOf(ctx, c.OrganizationID, c.Lang, false, []models.Booking{*b})
	if err != nil {
		return realtime.BookingSnapshot{}, err
	}
	minutes := 0
	if t := v.TypeByID[b.TypeID]; t != nil {
		minutes = t.Minutes
	}
	return realtime.BookingSnapshot{
		OrganizationID: c.OrganizationID, TypeID: b.TypeID, ResourceID: text(b.ResourceID), Version: b.Version, Stage: b.Stage, Minutes: minutes, Position: position,
		Own: c.Kind == access.KindCustomer,
		Data: func(position int) (json.RawMessage, error) {
			var place *booking.Place
			if position > 0 && b.Waiting() {
				p, err := l.s.opts.Bookings.PlaceAt(ctx, b, position)
				if err != nil {
					return nil, err
				}
				place = &p
			}
			return json.Marshal(bookingSnapshot{models.EventSnapshot, v.View(b, place), models.At(at)})
		},
	}, nil
}

// bookingSnapshot is the data of the reply to a subscription to a booking.
type bookingSnapshot struct {
	Type    models.EventType `json:"type"`
	Booking api.BookingView  `json:"booking"`
	At      models.Moment    `json:"at"`
}

// queueSnapshot is the data of the reply to a subscription to a queue.
type queueSnapshot struct {
	Type       models.EventType `json:"type"`
	ResourceID string           `json:"resourceId"`
	Paused     bool             `json:"paused"`
	Waiting    []waiter         `json:"waiting" nullable:"false" doc:"The first 500, those served next first."`
	Total      int              `json:"total" doc:"How many wait."`
	At         models.Moment    `json:"at"`
}

// waiter is one line of a resource's waiting list.
type waiter struct {
	BookingID string        `json:"bookingId"`
	Ticket    string        `json:"ticket"`
	TypeID    string        `json:"typeId"`
	Priority  int           `json:"priority"`
	CreatedAt models.Moment `json:"createdAt"`
}

// Queue implements realtime.Source.
func (l *Live) Queue(ctx context.Context, client realtime.Client, resourceID string) (realtime.QueueSnapshot, error) {
	ctx = store.ForOrganization(ctx, client.OrganizationID)
	c, err := l.caller(ctx, client, resourceID, l.s.opts.Catalog.OwnerOf)
	if err != nil {
		return realtime.QueueSnapshot{}, err
	}
	if api.Staff&api.RoleOf(c.Principal) == 0 {
		return realtime.QueueSnapshot{}, models.Errorf(models.CodeForbidden, "This credential may not watch queues.")
	}
	at := l.s.opts.Store.Time()
	page, err := l.s.opts.Bookings.Queue(ctx, c.Scope(), resourceID, maxBookings, "")
	if err != nil {
		return realtime.QueueSnapshot{}, err
	}
	r, err := l.s.opts.Catalog.Resource(ctx, c.OrganizationID, resourceID)
	if err != nil {
		return realtime.QueueSnapshot{}, err
	}
	waiting := make([]waiter, len(page.Bookings))
	for i := range page.Bookings {
		b := &page.Bookings[i]
		waiting[i] = waiter{b.ID, b.Ticket, b.TypeID, b.Priority, models.At(b.CreatedAt)}
	}
	data, err := json.Marshal(queueSnapshot{models.EventSnapshot, resourceID, r.Paused, waiting, int(page.Total), models.At(at)})
	return realtime.QueueSnapshot{OrganizationID: c.OrganizationID, Data: data}, err
}

// Display implements realtime.Source.
func (l *Live) Display(ctx context.Context, client realtime.Client, id string) (realtime.DisplaySnapshot, error) {
	ctx = store.ForOrganization(ctx, client.OrganizationID)
	c, err := l.caller(ctx, client, id, l.s.opts.Catalog.OwnerOf)
	if err != nil {
		return realtime.DisplaySnapshot{}, err
	}
	if (api.Staff|api.Screen)&api.RoleOf(c.Principal) == 0 && (c.Kind != access.KindDisplay || c.SubjectID != id) {
		return realtime.DisplaySnapshot{}, models.Errorf(models.CodeForbidden, "This credential may not watch this display.")
	}
	d, err := l.s.opts.Catalog.Display(ctx, c.OrganizationID, id)
	if err != nil {
		return realtime.DisplaySnapshot{}, err
	}
	return realtime.DisplaySnapshot{OrganizationID: c.OrganizationID, ResourceIDs: d.ResourceIDs}, nil
}

// States implements realtime.Source.
func (l *Live) States(ctx context.Context, organizationID string, ids []string) ([]models.BookingEvent, error) {
	return stateEvents(l.s.opts.Bookings.ByIDs(ctx, organizationID, ids))
}

// maxCalls bounds the past calls in a display's snapshot.
const maxCalls = 50

// Calls implements realtime.Source.
func (l *Live) Calls(ctx context.Context, organizationID string) ([]models.BookingEvent, error) {
	return stateEvents(l.s.opts.Bookings.Calls(ctx, organizationID, maxCalls))
}

func stateEvents(bookings []models.Booking, err error) ([]models.BookingEvent, error) {
	events := make([]models.BookingEvent, len(bookings))
	for i := range bookings {
		events[i] = models.StateEvent(&bookings[i])
	}
	return events, err
}

// Catalogue implements realtime.Source.
func (l *Live) Catalogue(ctx context.Context, organizationID string, fresh bool) (realtime.Catalogue, error) {
	if fresh {
		l.s.api.Directory.Forget(organizationID)
	}
	o, err := l.s.api.Directory.Get(ctx, organizationID)
	if err != nil {
		return realtime.Catalogue{}, err
	}
	return o.Live, nil
}
