package webhook

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"code.dny.dev/ssrf"
	"github.com/riverqueue/river"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

// Trigger is the kind of change that a webhook gets, as the API document spells it.
type Trigger string

// The triggers.
const (
	TriggerNewBooking             Trigger = "newBooking"
	TriggerNewAppointment         Trigger = "newAppointment"
	TriggerAppointmentRescheduled Trigger = "appointmentRescheduled"
	TriggerBookingRejected        Trigger = "bookingRejected"
	TriggerCustomerCanceled       Trigger = "customerCanceled"
	TriggerProviderCanceled       Trigger = "providerCanceled"
	TriggerBookingUnassigned      Trigger = "bookingUnassigned"
	TriggerBookingAssigned        Trigger = "bookingAssigned"
	TriggerBookingExpired         Trigger = "bookingExpired"
	TriggerQueuePositionUpdated   Trigger = "queuePositionUpdated"
	// The reminders are triggers, too, by their own names. These are not in the
	// document:
	TriggerBookingCalled   Trigger = "bookingCalled"
	TriggerBookingRecalled Trigger = "bookingRecalled"
	TriggerBookingStarted  Trigger = "bookingStarted"
	TriggerBookingEnded    Trigger = "bookingEnded"
	TriggerBookingNoShow   Trigger = "bookingNoShow"
	TriggerBookingHeld     Trigger = "bookingHeld"
	TriggerBookingReturned Trigger = "bookingReturned"
)

// Triggers lists all triggers: those of the API document in its order, then our own.
var Triggers = []Trigger{
	TriggerNewBooking, TriggerNewAppointment, TriggerAppointmentRescheduled, TriggerBookingRejected, TriggerCustomerCanceled,
	TriggerProviderCanceled, TriggerBookingUnassigned, TriggerBookingAssigned, TriggerBookingExpired, TriggerQueuePositionUpdated,
	Trigger(models.ReminderDayBefore), Trigger(models.ReminderHourBefore), Trigger(models.ReminderTenBefore),
	Trigger(models.ReminderAtStart), Trigger(models.ReminderAfterEnd), Trigger(models.ReminderDayAfter),
	TriggerBookingCalled, TriggerBookingRecalled, TriggerBookingStarted, TriggerBookingEnded, TriggerBookingNoShow,
	TriggerBookingHeld, TriggerBookingReturned,
}

// triggersOf is what an event triggers, in the order it is told.
func triggersOf(e *models.BookingEvent) []Trigger {
	switch e.Type {
	case models.EventNewPending:
		return []Trigger{TriggerBookingUnassigned}
	case models.EventAssigned:
		return []Trigger{TriggerBookingAssigned, TriggerBookingCalled}
	case models.EventCalled:
		return []Trigger{TriggerBookingRecalled}
	case models.EventUpdated, models.EventEnded:
		return ofStage[e.Stage]
	case models.EventExpired:
		return []Trigger{TriggerBookingExpired}
	case models.EventCanceled:
		switch {
		case e.RescheduledTo != "": // the booking in its place tells of it
			return nil
		case e.By == models.ActorCustomer:
			return []Trigger{TriggerCustomerCanceled}
		}
		return []Trigger{TriggerProviderCanceled}
	case models.EventScheduled:
		if e.Status == models.StatusPendingApproval {
			return []Trigger{TriggerNewBooking}
		}
		return []Trigger{TriggerNewAppointment}
	case models.EventConfirmed:
		return []Trigger{TriggerNewAppointment}
	case models.EventRejected:
		return []Trigger{TriggerBookingRejected}
	case models.EventRescheduled:
		return []Trigger{TriggerAppointmentRescheduled}
	case models.EventReminder:
		return []Trigger{Trigger(e.Reminder)}
	default:
		return nil
	}
}

// ofStage is what a change into a stage triggers, where its event does not tell: a
// step, or the undoing of one.
var ofStage = map[models.Stage][]Trigger{
	models.StageCalled:  {TriggerBookingCalled},
	models.StageWaiting: {TriggerBookingReturned},
	models.StageHeld:    {TriggerBookingHeld},
	models.StageServing: {TriggerBookingStarted},
	models.StageDone:    {TriggerBookingEnded},
	models.StageNoShow:  {TriggerBookingNoShow},
}

// Webhooks manages webhooks and sends their deliveries.
type Webhooks struct {
	outbox.Deps
	sealer    *models.Sealer // of secrets
	messages  *models.Sealer // of messages to owners
	guard     *ssrf.Guardian // nil: every address is allowed
	client    *http.Client
	receivers *receivers
	timeout   time.Duration // of one attempt
}

// Options configure webhooks.
type Options struct {
	outbox.Deps
	// Secret seals the secrets of webhooks; at least 32 bytes.
	Secret []byte
	// AllowPrivate lets webhooks go to addresses inside the network.
	AllowPrivate bool
	// AttemptTimeout bounds one attempt. Default 15 s.
	AttemptTimeout time.Duration
}

// New makes the channel.
func New(o Options) (*Webhooks, error) {
	h := &Webhooks{Deps: o.Deps, receivers: newReceivers(o.Now), timeout: cmp.Or(o.AttemptTimeout, attemptTimeout)}
	var err error
	if h.sealer, err = models.NewSealer(o.Secret, "webhooks"); err != nil {
		return nil, err
	}
	if h.messages, err = models.NewSealer(o.Secret, models.SealMessages); err != nil {
		return nil, err
	}
	if !o.AllowPrivate {
		h.guard = ssrf.New(ssrf.WithAnyPort())
	}
	h.client = newHTTPClient(h.guard)
	return h, nil
}

// Register adds the worker that delivers webhooks to workers.
func (h *Webhooks) Register(workers *river.Workers) {
	river.AddWorker(workers, &deliveryWorker{webhooks: h})
}

// Close closes the connections that are kept open between deliveries.
func (h *Webhooks) Close() { h.client.CloseIdleConnections() }

// Plan plans a delivery to each webhook with the trigger of an event, for events of one
// organization. The body is made now and stored, so that a retry sends the same bytes.
func (h *Webhooks) Plan(ctx context.Context, list []*outbox.Announcement) (map[int64]outbox.Step, error) {
	db := h.Store.Read(ctx)
	to := map[Trigger][]Webhook{}
	var bookings []string // that deliveries are about
	for _, a := range list {
		for _, trigger := range triggersOf(&a.Event) {
			if _, known := to[trigger]; !known {
				var err error
				if to[trigger], err = active(db, a.OrganizationID, trigger); err != nil {
					return nil, err
				}
			}
			if len(to[trigger]) > 0 {
				bookings = append(bookings, a.Event.BookingID)
			}
		}
	}
	if len(bookings) == 0 {
		return nil, nil
	}
	f, err := readFacts(db, list[0].OrganizationID, bookings)
	if err != nil {
		return nil, err
	}
	planned := map[int64]outbox.Step{}
	for _, a := range list {
		var steps []outbox.Step
		for k, trigger := range triggersOf(&a.Event) {
			if len(to[trigger]) == 0 {
				continue
			}
			data := dataOf(&a.Event)
			data.Sequence = outbox.SequenceOf(a.Event.Version, int64(k))
			body, found, err := f.payload(trigger, a.Event.BookingID, data)
			if err != nil {
				return nil, err
			}
			if found {
				steps = append(steps, func(tx *store.Tx) error { return enqueue(tx, to[trigger], trigger, []item{{a.Event.BookingID, body}}) })
			}
		}
		if len(steps) > 0 {
			planned[a.EventID] = inOrder(steps)
		}
	}
	return planned, nil
}

// inOrder takes several steps as one.
func inOrder(steps []outbox.Step) outbox.Step {
	return func(tx *store.Tx) error {
		for _, s := range steps {
			if err := s(tx); err != nil {
				return err
			}
		}
		return nil
	}
}

// WantsPositions reports whether an organization has a webhook for positions.
func (h *Webhooks) WantsPositions(ctx context.Context, organizationID string) (bool, error) {
	to, err := active(h.Store.Read(ctx), organizationID, TriggerQueuePositionUpdated)
	return len(to) > 0, err
}

// Positions writes deliveries of queuePositionUpdated in the transaction that stores
// the positions as sent.
func (h *Webhooks) Positions(tx *store.Tx, organizationID string, list []outbox.PositionUpdate) error {
	to, err := active(tx.DB, organizationID, TriggerQueuePositionUpdated)
	if err != nil || len(to) == 0 || len(list) == 0 {
		return err
	}
	ids := make([]string, len(list))
	for i, p := range list {
		ids[i] = p.Standing.BookingID
	}
	f, err := readFacts(tx.DB, organizationID, ids)
	if err != nil {
		return err
	}
	news := make([]item, 0, len(list))
	for _, p := range list {
		b := f.bookings[p.Standing.BookingID]
		if b == nil {
			continue
		}
		body, _, err := f.payload(TriggerQueuePositionUpdated, b.ID, PayloadData{
			Sequence: p.Sequence, At: models.At(tx.Now), Status: b.Status, Stage: b.Stage, Ticket: b.Ticket,
			QueuePosition: p.Standing.Position, EstimatedWaitMinutes: &p.Standing.WaitMinutes, EstimatedWait: &p.Standing.Estimate,
		})
		if err != nil {
			return err
		}
		news = append(news, item{b.ID, body})
	}
	return enqueue(tx, to, TriggerQueuePositionUpdated, news)
}

// active are the webhooks that are told of a trigger: their ids and addresses.
func active(db *gorm.DB, organizationID string, trigger Trigger) ([]Webhook, error) {
	var to []Webhook
	err := db.Select("id", "organization_id", "url").
		Where("organization_id = ? AND trigger = ? AND disabled_at IS NULL AND deleted_at IS NULL", organizationID, trigger).
		Order("id").Limit(maxWebhooks).Find(&to).Error
	if err != nil {
		return nil, fmt.Errorf("look for webhooks: %w", err)
	}
	return to, nil
}

// item is a booking as a webhook shows it.
type item struct{ bookingID, payload string }

// rowsAtOnce bounds the rows of one statement.
const rowsAtOnce = 200

// enqueue writes a delivery and its job for each webhook and each thing told.
func enqueue(tx *store.Tx, to []Webhook, trigger Trigger, news []item) error {
	if len(to) == 0 || len(news) == 0 {
		return nil
	}
	ids := make([]string, len(news))
	for i, n := range news {
		ids[i] = n.bookingID
	}
	gone, err := outbox.Erased(tx, to[0].OrganizationID, ids)
	if err != nil {
		return err
	}
	for i, n := range news {
		if gone[n.bookingID] { // since it was read who they are
			if news[i].payload, err = anonymous(n.payload); err != nil {
				return err
			}
		}
	}
	deliveries := make([]Delivery, 0, len(to)*len(news))
	for _, w := range to {
		receiver, err := receiverOf(w.URL)
		if err != nil {
			return fmt.Errorf("webhook %s: %w", w.ID, err)
		}
		for _, n := range news {
			d := Delivery{
				ID: models.NewID(), OrganizationID: w.OrganizationID, WebhookID: w.ID, BookingID: n.bookingID, Trigger: trigger,
				Payload: n.payload, Status: DeliveryPending, Round: 1, NextAttemptAt: &tx.Now, CreatedAt: tx.Now,
			}
			deliveries = append(deliveries, d)
			tx.Enqueue(deliver{d.ID, d.Round, receiver})
		}
	}
	if err := tx.CreateInBatches(deliveries, rowsAtOnce).Error; err != nil {
		return fmt.Errorf("write deliveries: %w", err)
	}
	return nil
}

// receiverOf names who answers at an address: scheme, host and port.
func receiverOf(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port, nil
}

// Tidy deletes the deliveries that were created before a moment, and the webhooks that
// were deleted before it.
func (h *Webhooks) Tidy(ctx context.Context, before time.Time) error {
	h.receivers.forget()
	if err := h.Store.DeleteInBatches(ctx, "webhook_deliveries", "id", "created_at < ?", before); err != nil {
		return err
	}
	return h.Store.DeleteInBatches(ctx, "webhooks", "id",
		"deleted_at < ? AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = webhooks.id)", before)
}
