package handlers

import (
	"context"
	"encoding/json"
	"net/http"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

// exportView is everything held about a customer.
type exportView struct {
	ExportedAt models.Moment        `json:"exportedAt"`
	Customer   customerView         `json:"customer"`
	Lang       string               `json:"lang" doc:"They signed in with."`
	Bookings   []exportedBooking    `json:"bookings" nullable:"false"`
	Devices    []access.HeldDevice  `json:"devices" nullable:"false"`
	Messages   []access.HeldMessage `json:"messages" nullable:"false" doc:"Attempts to send one; no text is kept."`
	Deliveries []exportedDelivery   `json:"deliveries" nullable:"false" doc:"Webhook deliveries about the customer."`
	Sessions   []access.HeldSession `json:"sessions" nullable:"false"`
	Audit      []AuditLine          `json:"audit" nullable:"false" doc:"What they did, and what was done to them and their bookings."`
	Truncated  bool                 `json:"truncated" doc:"A list has more than the 10,000 newest that are shown."`
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

type exportedDelivery struct {
	access.HeldDelivery
	Payload json.RawMessage `json:"payload"`
}

func exportBooking(b access.HeldBooking) exportedBooking {
	view := exportedBooking{
		ID: b.ID, TypeID: b.TypeID, ResourceID: text(b.ResourceID), Status: b.Status, Stage: b.Stage, Ticket: b.Ticket, LocalDay: b.LocalDay,
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
	const exporting = "One document: profile, bookings with times and promised waits, devices, messages, webhooks, sessions and the audit, without secrets."
	type byCustomer struct {
		ID string `path:"customerId" maxLength:"64"`
	}
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/customers/{customerId}", ID: "eraseCustomer", Tag: "Customers", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Erase a customer", About: erasing,
	}, func(ctx context.Context, c api.Caller, in *byCustomer) (api.Message, error) {
		return api.Message{Message: "The customer is erased."}, s.erase(ctx, c, in.ID)
	})
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/customer/profile", ID: "eraseMe", Tag: "Customer", Roles: api.Customers, Summary: "Erase my account", About: erasing + " Every session ends.",
	}, func(ctx context.Context, c api.Caller, _ *struct{}) (api.Message, error) {
		return api.Message{Message: "You are erased."}, s.erase(ctx, c, c.SubjectID)
	})
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/customers/{customerId}/export", ID: "exportCustomer", Tag: "Customers", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Export a customer's data", About: exporting, File: "customer.json",
	}, func(ctx context.Context, c api.Caller, in *byCustomer) (exportView, error) {
		return s.export(ctx, c, in.ID)
	})
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customer/profile/export", ID: "exportMe", Tag: "Customer", Roles: api.Customers,
		Summary: "Export my data", About: exporting, File: "customer.json",
	}, func(ctx context.Context, c api.Caller, _ *struct{}) (exportView, error) {
		return s.export(ctx, c, c.SubjectID)
	})
}

// erase cancels a customer's bookings and then erases the customer. An erasure that
// was interrupted continues when it is requested again.
func (s *Server) erase(ctx context.Context, c api.Caller, id string) error {
	if _, err := s.api.Access.Customer(ctx, c.CustomerScope(), id); err != nil {
		return err
	}
	if err := s.api.Bookings.CancelAll(ctx, c.Scope(), id); err != nil {
		return err
	}
	return s.api.Access.Erase(ctx, c.CustomerScope(), id, s.opts.Notify.Erase, s.api.EraseAnswers)
}

func (s *Server) export(ctx context.Context, c api.Caller, id string) (exportView, error) {
	h, err := s.api.Access.Export(ctx, c.CustomerScope(), id)
	if err != nil {
		return exportView{}, err
	}
	names := map[string]string{}
	if c.Kind != access.KindCustomer { // customers don't see the names of staff
		if names, err = s.api.Access.ActorNames(ctx, h.Audit); err != nil {
			return exportView{}, err
		}
	}
	view := exportView{
		ExportedAt: models.At(s.api.Store.Time()), Customer: customerOf(h.Customer), Lang: h.Customer.Lang, Truncated: h.Truncated,
		Devices: h.Devices, Messages: h.Messages, Sessions: h.Sessions,
		Bookings: make([]exportedBooking, len(h.Bookings)), Deliveries: make([]exportedDelivery, len(h.Deliveries)), Audit: make([]AuditLine, len(h.Audit)),
	}
	for i, b := range h.Bookings {
		view.Bookings[i] = exportBooking(b)
	}
	for i, d := range h.Deliveries {
		view.Deliveries[i] = exportedDelivery{d, json.RawMessage(d.Payload)}
	}
	for i := range h.Audit {
		view.Audit[i] = viewAudit(&h.Audit[i], names[h.Audit[i].ActorID])
		if c.Kind == access.KindCustomer && h.Audit[i].ActorID != id {
			view.Audit[i].Address = ""
		}
	}
	return view, nil
}
