package handlers

import (
	"context"
	"encoding/json"
	"net/http"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/files"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/message"
	"nowserving/notify/push"
	"nowserving/notify/webhook"
)

// exportView is everything held about a customer.
type exportView struct {
	ExportedAt models.Moment      `json:"exportedAt"`
	Customer   customerView       `json:"customer"`
	Lang       string             `json:"lang" doc:"They signed in with."`
	Bookings   []exportedBooking  `json:"bookings" nullable:"false"`
	Devices    []HeldDevice       `json:"devices" nullable:"false"`
	Messages   []HeldMessage      `json:"messages" nullable:"false" doc:"Attempts to send one; no text is kept."`
	Deliveries []exportedDelivery `json:"deliveries" nullable:"false" doc:"Webhook deliveries about the customer."`
	Files      []HeldFile         `json:"files" nullable:"false" doc:"What they or the desk uploaded to their profile and bookings."`
	Sessions   []HeldSession      `json:"sessions" nullable:"false"`
	Audit      []AuditLine        `json:"audit" nullable:"false" doc:"What they did, and what was done to them and their bookings."`
	Truncated  bool               `json:"truncated" doc:"A list has more than the 10,000 newest that are shown."`
}

type exportedBooking struct {
	ID           string           `json:"id"`
	TypeID       string           `json:"typeId"`
	ResourceID   string           `json:"resourceId,omitempty"`
	Status       models.Status    `json:"status"`
	Stage        models.Stage     `json:"stage"`
	Ticket       string           `json:"ticket"`
	LocalDay     string           `json:"localDay"`
	Priority     int              `json:"priority"`
	FirstName    string           `json:"firstName" doc:"The visitor's name, if the booking was made with another name than the profile's."`
	LastName     string           `json:"lastName"`
	Note         string           `json:"note"`
	Info         models.Fields    `json:"info"`
	CancelReason string           `json:"cancelReason"`
	Quoted       *models.Estimate `json:"quotedWait,omitempty" doc:"The estimated wait at joining, in minutes."`
	CreatedAt    models.Moment    `json:"createdAt"`
	PendingAt    *models.Moment   `json:"pendingAt,omitempty"`
	CalledAt     *models.Moment   `json:"calledAt,omitempty"`
	StartedAt    *models.Moment   `json:"startedAt,omitempty"`
	EndedAt      *models.Moment   `json:"endedAt,omitempty"`
	StartsAt     *models.Moment   `json:"startsAt,omitempty" doc:"Of an appointment."`
	EndsAt       *models.Moment   `json:"endsAt,omitempty"`
}

// HeldDevice is a device that gets pushes, without its token.
type HeldDevice struct {
	ID        string        `json:"id"`
	Platform  string        `json:"platform"`
	Lang      string        `json:"lang"`
	CreatedAt models.Moment `json:"createdAt"`
	UpdatedAt models.Moment `json:"updatedAt"`
}

// HeldMessage is an attempt to send a message. Its text is not kept.
type HeldMessage struct {
	BookingID string        `json:"bookingId"`
	Template  string        `json:"template"`
	Method    string        `json:"method"`
	Status    string        `json:"status"`
	CreatedAt models.Moment `json:"createdAt"`
}

// HeldFile is an uploaded file.
type HeldFile struct {
	URL         string        `json:"url" doc:"Its permanent address."`
	BookingID   string        `json:"bookingId,omitempty" doc:"The booking that it came with; none for the profile's."`
	Name        string        `json:"fileName"`
	ContentType string        `json:"contentType"`
	Size        int64         `json:"size" doc:"In bytes."`
	CreatedAt   models.Moment `json:"createdAt"`
}

// HeldSession is a session.
type HeldSession struct {
	ID          string        `json:"id"`
	CreatedAt   models.Moment `json:"createdAt"`
	RefreshedAt models.Moment `json:"refreshedAt"`
	ExpiresAt   models.Moment `json:"expiresAt" doc:"Or when it was ended."`
}

type exportedDelivery struct {
	ID        string          `json:"id"`
	BookingID string          `json:"bookingId"`
	Trigger   string          `json:"trigger"`
	Status    string          `json:"status"`
	CreatedAt models.Moment   `json:"createdAt"`
	Payload   json.RawMessage `json:"payload"`
}

func exportBooking(b booking.HeldBooking) exportedBooking {
	view := exportedBooking{
		ID: b.ID, TypeID: b.TypeID, ResourceID: models.Text(b.ResourceID), Status: b.Status, Stage: b.Stage, Ticket: b.Ticket, LocalDay: b.LocalDay,
		Priority: b.Priority, FirstName: b.FirstName, LastName: b.LastName, Note: b.Note, Info: b.Info, CancelReason: b.CancelReason, CreatedAt: models.At(b.CreatedAt), PendingAt: models.AtOrNil(b.PendingAt),
		CalledAt: models.AtOrNil(b.CalledAt), StartedAt: models.AtOrNil(b.StartedAt), EndedAt: models.AtOrNil(b.EndedAt), StartsAt: models.AtOrNil(b.StartsAt), EndsAt: models.AtOrNil(b.EndsAt),
	}
	if view.Info == nil {
		view.Info = models.Fields{}
	}
	if b.Likely != nil {
		view.Quoted = &models.Estimate{Low: *b.Low, Likely: *b.Likely, High: *b.High}
	}
	return view
}

func (s *Server) privacyRoutes() {
	const erasing = "Their open bookings are canceled first. Visits keep their times, without a name; who signs in with the same phone number later is somebody new. " +
		"What webhooks have still to be told goes out without who they are. CUS-BEING_SERVED while they are called or served."
	const exporting = "One document: profile, bookings with times and promised waits, files, devices, messages, webhooks, sessions and the audit, without secrets."
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/customers/{customerId}", ID: "eraseCustomer", Tag: "Customers", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Erase a customer", About: erasing,
	}, s.eraseCustomer)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/customer/profile", ID: "eraseMe", Tag: "Customer", Roles: api.Customers, Summary: "Erase my account", About: erasing + " Every session ends.",
	}, s.eraseMe)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/customers/{customerId}/export", ID: "exportCustomer", Tag: "Customers", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Export a customer's data", About: exporting, File: "customer.json",
	}, s.exportCustomer)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customer/profile/export", ID: "exportMe", Tag: "Customer", Roles: api.Customers,
		Summary: "Export my data", About: exporting, File: "customer.json",
	}, s.exportMe)
}

func (s *Server) eraseCustomer(ctx context.Context, c api.Caller, in *byCustomer) (api.Message, error) {
	return api.Message{Message: "The customer is erased."}, s.erase(ctx, c, in.ID)
}

func (s *Server) eraseMe(ctx context.Context, c api.Caller, _ *struct{}) (api.Message, error) {
	return api.Message{Message: "You are erased."}, s.erase(ctx, c, c.SubjectID)
}

func (s *Server) exportCustomer(ctx context.Context, c api.Caller, in *byCustomer) (exportView, error) {
	return s.export(ctx, c, in.ID)
}

func (s *Server) exportMe(ctx context.Context, c api.Caller, _ *struct{}) (exportView, error) {
	return s.export(ctx, c, c.SubjectID)
}

// erase cancels a customer's bookings and then erases the customer. An erasure that
// was interrupted continues when it is requested again.
func (s *Server) erase(ctx context.Context, c api.Caller, id string) error {
	if _, err := s.api.Customers.Get(ctx, c.CustomerScope(), id); err != nil {
		return err
	}
	if err := s.api.Bookings.CancelAll(ctx, c.Scope(), id); err != nil {
		return err
	}
	if err := s.opts.Privacy.Erase(ctx, c.CustomerScope(), id); err != nil {
		return err
	}
	s.purgeFiles(ctx)
	return nil
}

func (s *Server) export(ctx context.Context, c api.Caller, id string) (exportView, error) {
	customer, subject, err := s.opts.Privacy.BeginExport(ctx, c.CustomerScope(), id)
	if err != nil {
		return exportView{}, err
	}
	bookings, moreBookings, err := s.api.Bookings.Export(ctx, subject)
	if err != nil {
		return exportView{}, err
	}
	devices, moreDevices, err := s.opts.Notify.Pushes.Export(ctx, subject)
	if err != nil {
		return exportView{}, err
	}
	messages, moreMessages, err := s.opts.Notify.Messages.Export(ctx, subject)
	if err != nil {
		return exportView{}, err
	}
	deliveries, moreDeliveries, err := s.opts.Notify.Webhooks.Export(ctx, subject)
	if err != nil {
		return exportView{}, err
	}
	uploads, moreFiles, err := s.opts.Files.Export(ctx, subject)
	if err != nil {
		return exportView{}, err
	}
	sessions, moreSessions, err := s.api.Access.Export(ctx, subject)
	if err != nil {
		return exportView{}, err
	}
	ids := make([]string, len(bookings))
	for i := range bookings {
		ids[i] = bookings[i].ID
	}
	lines, moreLines, err := s.api.Store.ExportAudit(ctx, subject, ids)
	if err != nil {
		return exportView{}, err
	}
	names := map[string]string{}
	if c.Kind != access.KindCustomer { // customers don't see the names of staff
		if names, err = s.api.Access.ActorNames(ctx, lines); err != nil {
			return exportView{}, err
		}
	}
	for i := range bookings {
		bookings[i].Info = c.ShownInfo(bookings[i].Info)
	}
	customer.Data = c.ShownData(customer.Data)
	for i := range deliveries {
		if deliveries[i].Payload, err = webhook.WithInfo(deliveries[i].Payload, c.ShownInfo); err != nil {
			return exportView{}, err
		}
	}
	return exportView{
		ExportedAt: models.At(s.api.Store.Time()), Customer: customerOf(customer), Lang: customer.Lang,
		Bookings: exported(bookings, exportBooking),
		Devices: exported(devices, func(d push.HeldDevice) HeldDevice {
			return HeldDevice{d.ID, d.Platform, d.Lang, models.At(d.CreatedAt), models.At(d.UpdatedAt)}
		}),
		Messages: exported(messages, func(a message.Attempt) HeldMessage {
			return HeldMessage{a.BookingID, a.Template, a.Method, string(a.Status), models.At(a.CreatedAt)}
		}),
		Deliveries: exported(deliveries, func(d webhook.Delivery) exportedDelivery {
			return exportedDelivery{d.ID, d.BookingID, string(d.Trigger), string(d.Status), models.At(d.CreatedAt), json.RawMessage(d.Payload)}
		}),
		Files: exported(uploads, func(f files.File) HeldFile {
			return HeldFile{s.opts.Files.URL(&f), models.Text(f.BookingID), f.Name, f.ContentType, f.Size, models.At(f.CreatedAt)}
		}),
		Sessions: exported(sessions, func(one access.HeldSession) HeldSession {
			return HeldSession{one.ID, models.At(one.CreatedAt), models.At(one.RefreshedAt), models.At(one.ExpiresAt)}
		}),
		Audit: exported(lines, func(line store.Audit) AuditLine {
			view := viewAudit(&line, names[line.ActorID])
			if c.Kind == access.KindCustomer && line.ActorID != id {
				view.Address = ""
			}
			return view
		}),
		Truncated: moreBookings || moreDevices || moreMessages || moreDeliveries || moreFiles || moreSessions || moreLines,
	}, nil
}

// exported returns the views of rows.
func exported[Row, View any](rows []Row, view func(Row) View) []View {
	list := make([]View, len(rows))
	for i, row := range rows {
		list[i] = view(row)
	}
	return list
}
