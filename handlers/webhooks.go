package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/webhook"
)

// WebhookView is a webhook as managers see it.
type WebhookView struct {
	ID             string          `json:"id"`
	Trigger        webhook.Trigger `json:"trigger"`
	URL            string          `json:"url"`
	Reference      string          `json:"reference"`
	CreatedAt      models.Moment   `json:"createdAt"`
	FailingSince   *models.Moment  `json:"failingSince,omitempty" doc:"The first failure after the last success."`
	DisabledAt     *models.Moment  `json:"disabledAt,omitempty"`
	DisabledReason string          `json:"disabledReason,omitempty" enum:"gone,failing" doc:"gone: it answered 410. failing: it did nothing but fail for five days."`
	OldSecretUntil *models.Moment  `json:"oldSecretUntil,omitempty" doc:"Until when the secret before signs too."`
}

func viewWebhook(w *webhook.Webhook) WebhookView {
	return WebhookView{
		w.ID, w.Trigger, w.URL, w.Reference, models.At(w.CreatedAt), models.AtOrNil(w.FailingSince), models.AtOrNil(w.DisabledAt), w.DisabledReason, models.AtOrNil(w.OldSecretUntil),
	}
}

// webhookMade is a webhook with the secret that the request has made.
type webhookMade struct {
	WebhookView
	Secret string `json:"secret,omitempty" doc:"Shown once, when it is made."`
}

// webhookDone is the API document's answer to a change, with the webhook beside it.
type webhookDone struct {
	Result  string       `json:"result" enum:"success"`
	Webhook *webhookMade `json:"webhook,omitempty"`
}

func doneWith(w *webhook.Webhook, secret string, err error) (webhookDone, error) {
	if err != nil {
		return webhookDone{}, err
	}
	return webhookDone{"success", &webhookMade{viewWebhook(w), secret}}, nil
}

// TriggerRef names a trigger. The list is webhook.Triggers.
type TriggerRef struct {
	Trigger webhook.Trigger `json:"trigger" required:"true" enum:"newBooking,newAppointment,appointmentRescheduled,bookingRejected,customerCanceled,providerCanceled,bookingUnassigned,bookingAssigned,bookingExpired,queuePositionUpdated,oneDayBeforeAppointment,oneHourBeforeAppointment,tenMinutesBeforeAppointment,beforeAppointment,afterAppointment,oneDayAfterAppointment,bookingCalled,bookingRecalled,bookingStarted,bookingEnded,bookingNoShow,bookingHeld,bookingReturned"`
}

// WebhookRef names a webhook.
type WebhookRef struct {
	TriggerRef
	URL       string `json:"url" required:"true" minLength:"1" maxLength:"2048" example:"https://example.com/hooks/clinic"`
	Reference string `json:"reference" maxLength:"100" doc:"Tells webhooks of the same trigger and address apart."`
}

func (k WebhookRef) key() webhook.Key {
	return webhook.Key{Trigger: k.Trigger, URL: k.URL, Reference: k.Reference}
}

type webhookBody struct {
	WebhookRef
	Secret string `json:"secret" maxLength:"100" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" doc:"Of your own, so that one receiver of many triggers has one: whsec_ and 24 to 64 bytes in base64."`
}

// attemptView is one time a delivery was sent.
type attemptView struct {
	Number     int           `json:"number"`
	At         models.Moment `json:"at"`
	DurationMs int           `json:"durationMs" doc:"To the headers of the answer, or to the failure."`
	StatusCode int           `json:"statusCode,omitempty" doc:"Absent when no answer came."`
	Error      string        `json:"error,omitempty" enum:"dns,forbidden_address,refused,unreachable,timeout,tls,closed,protocol,status_3xx,status_4xx,status_5xx" doc:"Why the attempt failed: the name could not be resolved, its address is not on the public internet, no connection, no answer in time, a bad certificate, no HTTP answer, or the kind of status."`
	Answer     string        `json:"answer,omitempty" doc:"The first 20 kB of its body."`
}

// deliveryView is a delivery with its latest attempts.
type deliveryView struct {
	ID            string                 `json:"id" doc:"The webhook-id the receiver sees, the same for every attempt and replay."`
	WebhookID     string                 `json:"webhookId"`
	BookingID     string                 `json:"bookingId"`
	Trigger       webhook.Trigger        `json:"trigger"`
	Status        webhook.DeliveryStatus `json:"status" enum:"pending,delivered,failed,dropped"`
	Reason        string                 `json:"reason,omitempty" enum:"attempts,gone,failing,disabled,deleted" doc:"Why it was given up: attempts: the last one failed. gone, failing: with it the webhook was disabled. disabled, deleted: the webhook was, meanwhile."`
	CreatedAt     models.Moment          `json:"createdAt"`
	FinishedAt    *models.Moment         `json:"finishedAt,omitempty"`
	NextAttemptAt *models.Moment         `json:"nextAttemptAt,omitempty"`
	AttemptCount  int                    `json:"attemptCount"`
	Attempts      []attemptView          `json:"attempts" nullable:"false" doc:"The latest ten."`
}

func viewDelivery(d *webhook.Delivery) deliveryView {
	v := deliveryView{
		d.ID, d.WebhookID, d.BookingID, d.Trigger, d.Status, d.Reason, models.At(d.CreatedAt), models.AtOrNil(d.FinishedAt), models.AtOrNil(d.NextAttemptAt),
		d.Attempts, make([]attemptView, len(d.Log)),
	}
	for i, a := range d.Log {
		v.Attempts[i] = attemptView{a.Number, models.At(a.At), a.DurationMs, a.StatusCode, a.Error, a.Answer}
	}
	return v
}

// deliveryQuery are the filters of the list of deliveries.
type deliveryQuery struct {
	WebhookID string                 `query:"webhookId" maxLength:"64"`
	BookingID string                 `query:"bookingId" maxLength:"64"`
	Trigger   webhook.Trigger        `query:"trigger" maxLength:"64"`
	Status    webhook.DeliveryStatus `query:"status" enum:"pending,delivered,failed,dropped"`
	From      string                 `query:"from" doc:"A day (2026-03-01) of the organization, or a moment (RFC 3339)."`
	To        string                 `query:"to" doc:"A day, to its end, or a moment."`
	Limit     int                    `query:"limit" default:"10" minimum:"1" doc:"Deliveries on a page; at most 20, more are not given."`
	Token     string                 `query:"nextPageToken" doc:"From the page before."`
}

// maxDeliveries bounds a page: with each delivery come up to ten answers of 20 kB.
const maxDeliveries = 20

// replayBody chooses the deliveries of a span.
type replayBody struct {
	From      string                 `json:"from" required:"true" minLength:"1" doc:"A day (2026-03-01) of the organization, or a moment (RFC 3339)."`
	To        string                 `json:"to" required:"true" minLength:"1" doc:"A day, to its end, or a moment."`
	WebhookID string                 `json:"webhookId" maxLength:"64"`
	Status    webhook.DeliveryStatus `json:"status" enum:"delivered,failed,dropped" doc:"failed and dropped by default."`
}

type replayed struct {
	Replayed int `json:"replayed" doc:"How many are sent again."`
}

// span reads the bounds of a time in the organization's zone.
func (s *Server) span(ctx context.Context, c api.Caller, from, to string) (f webhook.DeliveryFilter, err error) {
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return f, err
	}
	if f.From, err = beginning(from, o.Zone); err != nil {
		return f, err
	}
	f.To, err = ending(to, o.Zone)
	return f, err
}

func (s *Server) webhookRoutes() {
	const tag = "Webhooks"
	example := map[string]any{"trigger": "bookingAssigned", "url": "https://example.com/hooks/clinic"}
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/webhooks", ID: "listWebhooks", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "List webhooks", About: "All of them, at most 100.",
	}, s.listWebhooks)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/webhooks", ID: "addWebhook", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Add a webhook",
		About: "Or change the one of the same trigger, url and reference, which enables it again. A secret that the service makes is shown in this answer and never again. " +
			"Deliveries are signed as Standard Webhooks says (webhook-id, webhook-timestamp, webhook-signature), and with x-icos-signature, " +
			"the hex HMAC-SHA256 of the body whose key is the newest secret as it is written, whsec_ included. Any 2xx takes a delivery; redirects are failures. " +
			"There are ten attempts: at once and 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h after the one before. " +
			"A 410, and five days of nothing but failures, disable the webhook. Addresses inside a network are refused.",
		Example: example,
	}, s.addWebhook)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/webhooks", ID: "deleteWebhook", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Delete a webhook", About: "What was still to be delivered is dropped.", Example: example,
	}, s.deleteWebhook)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/webhooks/rotate", ID: "rotateWebhook", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Rotate the secret of a webhook", About: "It is shown in this answer and never again. For 24 hours webhook-signature holds a signature of each; x-icos-signature is of the new one.",
		Example: example,
	}, s.rotateWebhook)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/webhooks/sample", ID: "sampleWebhook", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Show what a trigger sends", Example: map[string]any{"trigger": "bookingAssigned"},
	}, s.sampleWebhook)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/webhooks/deliveries", ID: "listDeliveries", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "List deliveries", About: "Of the last 30 days, the newest first, with their attempts.",
	}, s.listDeliveries)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/webhooks/deliveries/{deliveryId}/replay", ID: "replayDelivery", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Send a delivery again", About: "At once, whatever became of it, with all its attempts and under the same webhook-id.",
	}, s.replayDelivery)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/webhooks/deliveries/replay", ID: "replayDeliveries", Tag: tag, Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Send the deliveries of a period again", About: "At most 1,000; those of webhooks that are disabled or deleted are left out.",
		Example: map[string]any{"from": "2026-03-01T08:00:00Z", "to": "2026-03-01T09:00:00Z"},
	}, s.replayDeliveries)
}

func (s *Server) listWebhooks(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[[]WebhookView], error) {
	rows, err := s.opts.Notify.Webhooks.List(ctx, c.OrganizationID)
	views := make([]WebhookView, len(rows))
	for i := range rows {
		views[i] = viewWebhook(&rows[i])
	}
	return api.Result[[]WebhookView]{Result: views}, err
}

func (s *Server) addWebhook(ctx context.Context, c api.Caller, in *api.Body[webhookBody]) (webhookDone, error) {
	return doneWith(s.opts.Notify.Webhooks.Put(ctx, c.OrganizationID, in.Body.key(), in.Body.Secret))
}

func (s *Server) deleteWebhook(ctx context.Context, c api.Caller, in *api.Body[WebhookRef]) (webhookDone, error) {
	return webhookDone{Result: "success"}, s.opts.Notify.Webhooks.Delete(ctx, c.OrganizationID, in.Body.key())
}

func (s *Server) rotateWebhook(ctx context.Context, c api.Caller, in *api.Body[WebhookRef]) (webhookDone, error) {
	return doneWith(s.opts.Notify.Webhooks.Rotate(ctx, c.OrganizationID, in.Body.key()))
}

func (s *Server) sampleWebhook(ctx context.Context, c api.Caller, in *api.Body[TriggerRef]) ([]webhook.Payload, error) {
	o, err := s.api.Catalog.Organization(ctx, c.OrganizationID)
	if err != nil {
		return nil, err
	}
	return []webhook.Payload{webhook.SamplePayload(in.Body.Trigger, o)}, nil
}

func (s *Server) listDeliveries(ctx context.Context, c api.Caller, in *deliveryQuery) (api.List[deliveryView], error) {
	page := api.PageOf(min(in.Limit, maxDeliveries), in.Token)
	f, err := s.span(ctx, c, in.From, in.To)
	if err != nil {
		return api.List[deliveryView]{}, err
	}
	f.WebhookID, f.BookingID, f.Trigger = in.WebhookID, in.BookingID, in.Trigger
	if in.Status != "" {
		f.Statuses = []webhook.DeliveryStatus{in.Status}
	}
	rows, err := s.opts.Notify.Webhooks.Deliveries(ctx, c.OrganizationID, f, page)
	return api.ListOf(rows, page.Limit, func(d *webhook.Delivery) string { return d.ID }, viewDelivery), err
}

type byDelivery struct {
	ID string `path:"deliveryId" maxLength:"64"`
}

func (s *Server) replayDelivery(ctx context.Context, c api.Caller, in *byDelivery) (api.Result[deliveryView], error) {
	d, err := s.opts.Notify.Webhooks.Replay(ctx, c.OrganizationID, in.ID)
	if err != nil {
		return api.Result[deliveryView]{}, err
	}
	return api.Result[deliveryView]{Result: viewDelivery(d)}, nil
}

func (s *Server) replayDeliveries(ctx context.Context, c api.Caller, in *api.Body[replayBody]) (api.Result[replayed], error) {
	f, err := s.span(ctx, c, in.Body.From, in.Body.To)
	if err != nil {
		return api.Result[replayed]{}, err
	}
	if f.To.Before(f.From) {
		return api.Result[replayed]{}, models.Invalid("to", "The span ends before it begins.")
	}
	f.WebhookID, f.Statuses = in.Body.WebhookID, []webhook.DeliveryStatus{webhook.DeliveryFailed, webhook.DeliveryDropped}
	if in.Body.Status != "" {
		f.Statuses = []webhook.DeliveryStatus{in.Body.Status}
	}
	n, err := s.opts.Notify.Webhooks.ReplayRange(ctx, c.OrganizationID, f)
	return api.Result[replayed]{Result: replayed{n}}, err
}
