package push

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"firebase.google.com/go/v4/messaging"
	"github.com/riverqueue/river"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

// Pushes sends pushes to phones over FCM.
type Pushes struct {
	outbox.Deps
	opts    Options
	devices *devices
	client  *messaging.Client // nil: FCM is not configured
	line    *throttledTransport
}

// Bookings answers questions about queues. booking.Service implements it.
type Bookings interface {
	// Matched lists the active resources in whose queues a booking waits.
	Matched(ctx context.Context, organizationID, bookingID string) ([]string, error)
	// Free returns the first booking in a resource's queue and the resources that
	// could take it now: active, not paused and idle. bookingID is empty if the
	// queue is empty.
	Free(ctx context.Context, organizationID, resourceID string) (bookingID string, resources []string, err error)
	// Standings returns where every waiting booking of an organization stands,
	// all at one moment.
	Standings(ctx context.Context, organizationID string) ([]models.Standing, error)
}

// Options configure pushes.
type Options struct {
	outbox.Deps
	// Secret seals the tokens of devices; at least 32 bytes.
	Secret   []byte
	FCM      FCMOptions
	Bookings Bookings
	// Webhooks get the same positions as phones.
	Webhooks PositionSink
}

// PositionSink takes the positions of waiting bookings.
type PositionSink interface {
	// WantsPositions reports whether an organization has a receiver.
	WantsPositions(ctx context.Context, organizationID string) (bool, error)
	// Positions writes the deliveries in the transaction that stores the positions as
	// sent.
	Positions(tx *store.Tx, organizationID string, list []outbox.PositionUpdate) error
}

// New makes the channel.
func New(ctx context.Context, o Options) (*Pushes, error) {
	client, l, err := newMessaging(ctx, o.FCM)
	if err != nil {
		return nil, err
	}
	d, err := newDevices(o.Secret)
	return &Pushes{o.Deps, o, d, client, l}, err
}

// Register adds the workers that send pushes to workers.
func (p *Pushes) Register(workers *river.Workers) {
	river.AddWorker(workers, &pusher{pushes: p})
}

// push is a job that sends an event to at most 500 devices.
type push struct {
	// NotificationID is the same for each attempt.
	NotificationID string           `json:"notificationId"`
	OrganizationID string           `json:"organizationId"`
	Type           models.EventType `json:"type"`
	BookingID      string           `json:"bookingId"`
	Status         models.Status    `json:"bookingStatus,omitempty"`
	Reminder       models.Reminder  `json:"reminder,omitempty"`
	Position       int              `json:"queuePosition,omitempty"`
	WaitMinutes    int              `json:"estimatedWaitMinutes,omitempty"`
	// At is the time of the event, and Until when the push is no longer useful.
	At      time.Time `json:"at"`
	Until   time.Time `json:"until"`
	Targets []target  `json:"targets"`
}

// target is a device and, for a provider, the resource that the push is about.
type target struct {
	DeviceID   string `json:"deviceId"`
	ResourceID string `json:"resourceId,omitempty"`
}

// Kind implements store.Job.
func (push) Kind() string { return "push" }

// Queue implements store.Job.
func (push) Queue() string { return outbox.QueuePushes }

const (
	// pushLife is how long the push of an event is useful, and callLife that of a
	// call.
	pushLife = time.Hour
	callLife = 10 * time.Minute
	// promptly is the time within which an event is pushed although its state has
	// passed, so that fast steps are all pushed.
	promptly = 5 * time.Second
)

// Plan finds the devices for an event: those of the providers who may take the
// booking, or those of its customer ("FCM Notification Summary").
func (p *Pushes) Plan(ctx context.Context, a *outbox.Announcement) (outbox.Step, error) {
	if p.client == nil {
		return nil, nil
	}
	e := &a.Event
	j := push{
		NotificationID: strconv.FormatInt(a.EventID, 10), OrganizationID: a.OrganizationID,
		Type: e.Type, BookingID: e.BookingID, At: e.At, Until: e.At.Add(pushLife),
	}
	var err error
	switch e.Type {
	case models.EventNewPending:
		var resources []string
		if resources, err = p.opts.Bookings.Matched(ctx, a.OrganizationID, e.BookingID); err == nil {
			j.Targets, err = p.providers(ctx, resources)
		}
	case models.EventEnded:
		// Idle providers get the next waiting booking ("End Booking").
		j.Type = models.EventNewPending
		var resources []string
		if j.BookingID, resources, err = p.opts.Bookings.Free(ctx, a.OrganizationID, e.ResourceID); err == nil {
			j.Targets, err = p.providers(ctx, resources)
		}
	case models.EventCanceled:
		if e.By == models.ActorCustomer || e.RescheduledTo != "" {
			return nil, nil
		}
		fallthrough
	case models.EventAssigned, models.EventExpired, models.EventConfirmed, models.EventRejected:
		j.Status = e.Status
		j.Targets, err = p.customer(ctx, a.OrganizationID, e.BookingID)
	case models.EventCalled:
		j.Status, j.Until = e.Status, e.At.Add(callLife)
		j.Targets, err = p.customer(ctx, a.OrganizationID, e.BookingID)
	case models.EventReminder:
		j.Reminder = e.Reminder
		if j.Until, err = p.lastMoment(ctx, a); err == nil {
			j.Targets, err = p.customer(ctx, a.OrganizationID, e.BookingID)
		}
	default:
		return nil, nil
	}
	if models.CodeOf(err) == models.CodeBookingNotFound {
		return nil, nil // deleted since
	}
	if err != nil || len(j.Targets) == 0 {
		return nil, err
	}
	return func(tx *store.Tx) error {
		for targets := range slices.Chunk(j.Targets, fcmBatch) {
			part := j
			part.Targets = targets
			tx.Enqueue(part)
		}
		return nil
	}, nil
}

// lastMoment is until when the reminder of an event is useful.
func (p *Pushes) lastMoment(ctx context.Context, a *outbox.Announcement) (time.Time, error) {
	var b models.Booking
	err := p.Store.Read(ctx).Select("starts_at, ends_at").Where("organization_id = ? AND id = ?", a.OrganizationID, a.Event.BookingID).Take(&b).Error
	if errors.Is(err, gorm.ErrRecordNotFound) || err == nil && (b.StartsAt == nil || b.EndsAt == nil) {
		return time.Time{}, nil // nothing to be reminded of
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read an appointment: %w", err)
	}
	return a.Event.Reminder.Due(*b.StartsAt, *b.EndsAt).Add(a.Event.Reminder.Tolerance()), nil
}

// providers lists the devices of the providers of some resources, each once, with the
// first of its resources.
func (p *Pushes) providers(ctx context.Context, resources []string) ([]target, error) {
	if len(resources) == 0 {
		return nil, nil
	}
	var targets []target
	err := p.Store.Read(ctx).Raw(`SELECT d.id AS device_id, MIN(r.id) AS resource_id FROM resources r
		JOIN devices d ON d.organization_id = r.organization_id AND d.member_id = r.provider_id
		WHERE r.id IN ? GROUP BY d.id ORDER BY d.id`, resources).Scan(&targets).Error
	if err != nil {
		return nil, fmt.Errorf("find the providers' devices: %w", err)
	}
	return targets, nil
}

// customer lists the devices of a booking's customer.
func (p *Pushes) customer(ctx context.Context, organizationID, bookingID string) ([]target, error) {
	var targets []target
	err := p.Store.Read(ctx).Raw(`SELECT d.id AS device_id FROM bookings b
		JOIN devices d ON d.organization_id = b.organization_id AND d.customer_id = b.customer_id
		WHERE b.organization_id = ? AND b.id = ? ORDER BY d.id`, organizationID, bookingID).Scan(&targets).Error
	if err != nil {
		return nil, fmt.Errorf("find the customer's devices: %w", err)
	}
	return targets, nil
}

// still reports whether the state that a push is about is present, or was within
// promptly.
func (j *push) still(b *models.Booking, now time.Time) bool {
	prompt := now.Sub(j.At) <= promptly
	switch j.Type {
	case models.EventComeNow:
		return b.Waiting()
	case models.EventNewPending:
		return b.Waiting() || prompt
	case models.EventAssigned:
		// Pushed exactly once, even if the visit has ended before ("Race Condition
		// Handling").
		return b.Status == models.StatusConfirmed
	case models.EventCalled:
		return b.Status == models.StatusConfirmed && (b.Stage == models.StageCalled || prompt)
	case models.EventReminder:
		return b.Status == models.StatusConfirmed && b.Stage != models.StageNoShow
	default:
		// A booking that ends unpaid was never announced ("Note" to the broadcast).
		unpaid := b.PaymentDeadline != nil && b.PendingAt == nil
		return b.Status == j.Status && !unpaid
	}
}

// logged is a line of the log of pushes.
type logged struct {
	NotificationID string `gorm:"primaryKey"`
	DeviceID       string `gorm:"primaryKey"`
	OrganizationID string
	BookingID      string
	Type           models.EventType
	Status         string
	Error          string
	At             time.Time
}

// TableName implements gorm's Tabler.
func (logged) TableName() string { return "push_log" }

// pusher does the jobs of pushes.
type pusher struct {
	river.WorkerDefaults[push]
	pushes *Pushes
}

// NextRetry implements river.Worker: 1 s doubling to 5 min, with jitter.
func (w *pusher) NextRetry(job *river.Job[push]) time.Time {
	pause := min(time.Second<<min(job.Attempt-1, 9), 5*time.Minute)
	return w.pushes.Now().Add(pause + rand.N(pause/5)) //nolint:gosec // jitter, not a secret
}

// Work implements river.Worker. It logs a push before and after it is sent, so that a
// repeated job sends only the pushes that may not have arrived, marked as a
// redelivery.
func (w *pusher) Work(ctx context.Context, job *river.Job[push]) error {
	p, j := w.pushes, &job.Args
	if p.client == nil {
		return river.JobCancel(errors.New("FCM is not configured any more"))
	}
	due, err := p.due(ctx, j)
	if err != nil || len(due) == 0 {
		return err
	}
	now, err := p.Store.Now(ctx)
	if err != nil {
		return err
	}
	useful, err := p.useful(ctx, j, now)
	if err != nil {
		return err
	}
	if !useful {
		for range due {
			p.Stats.Count(outbox.ChannelPush, outbox.ResultDropped)
		}
		return nil
	}
	if wait := p.line.wait(); wait > 0 {
		return river.JobSnooze(wait)
	}
	messages := make([]*messaging.Message, len(due))
	for i := range due {
		if messages[i], err = p.message(j, &due[i], now); err != nil {
			return err
		}
	}
	if err := p.write(ctx, j, due, make([]outcome, len(due))); err != nil {
		return err
	}
	outcomes, err := p.send(ctx, messages)
	if err != nil {
		return err
	}
	// The outcome is logged even while the service stops.
	if err := p.write(context.WithoutCancel(ctx), j, due, outcomes); err != nil {
		return err
	}
	again, wait := 0, time.Duration(0)
	for _, o := range outcomes {
		if o.again() {
			again++
			wait = max(wait, o.wait)
		}
	}
	switch {
	case wait > 0:
		return river.JobSnooze(wait)
	case again > 0:
		return fmt.Errorf("%d of %d pushes have to be sent again", again, len(outcomes))
	}
	return nil
}

// phone is a device that a push has to be sent to.
type phone struct {
	ID          string
	Platform    string
	Lang        string
	TokenSealed string
	resourceID  string
	// doubted: the push may have arrived already.
	doubted bool
}

// due lists the existing devices of a job whose push is not settled.
func (p *Pushes) due(ctx context.Context, j *push) ([]phone, error) {
	var log []logged
	if err := p.Store.Read(ctx).Where("notification_id = ?", j.NotificationID).Find(&log).Error; err != nil {
		return nil, fmt.Errorf("read what was pushed: %w", err)
	}
	status := make(map[string]string, len(log))
	for i := range log {
		status[log[i].DeviceID] = log[i].Status
	}
	resource := make(map[string]string, len(j.Targets))
	var ids []string
	for _, t := range j.Targets {
		switch status[t.DeviceID] {
		case pushSent, pushFailed, pushUnregistered:
		default:
			ids = append(ids, t.DeviceID)
			resource[t.DeviceID] = t.ResourceID
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	var phones []phone
	if err := p.Store.Read(ctx).Table("devices").Where("id IN ?", ids).Order("id").Find(&phones).Error; err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	for i := range phones {
		phones[i].resourceID, phones[i].doubted = resource[phones[i].ID], status[phones[i].ID] == pushSending
	}
	return phones, nil
}

// useful reports whether a push is in time and its state still present.
func (p *Pushes) useful(ctx context.Context, j *push, now time.Time) (bool, error) {
	if now.After(j.Until) {
		return false, nil
	}
	var b models.Booking
	err := p.Store.Read(ctx).Select("bookings.status, bookings.stage, bookings.pending_at, bookings.payment_deadline").
		Joins("JOIN organizations o ON o.id = bookings.organization_id AND o.deleted_at IS NULL").
		Where("bookings.organization_id = ? AND bookings.id = ?", j.OrganizationID, j.BookingID).Take(&b).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read what a push is about: %w", err)
	}
	return j.still(&b, now), nil
}

// write logs the outcomes of pushes, or that they are about to be sent, and deletes
// unregistered devices, in one short transaction.
func (p *Pushes) write(ctx context.Context, j *push, phones []phone, outcomes []outcome) error {
	ctx, cancel := context.WithTimeout(ctx, outbox.StopTimeout)
	defer cancel()
	err := p.Store.Tx(ctx, func(tx *store.Tx) error {
		rows := make([]logged, len(phones))
		var gone []string
		for i, o := range outcomes {
			if o.status == "" {
				o.status = pushSending
			}
			rows[i] = logged{j.NotificationID, phones[i].ID, j.OrganizationID, j.BookingID, j.Type, o.status, o.code, tx.Now}
			if o.status == pushUnregistered {
				gone = append(gone, phones[i].ID)
			}
		}
		if err := upsert(tx, rows); err != nil {
			return err
		}
		return forget(tx, gone)
	})
	if err != nil {
		return fmt.Errorf("log pushes: %w", err)
	}
	return nil
}

// forget deletes devices that FCM no longer knows.
func forget(tx *store.Tx, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return tx.Where("id IN ?", ids).Delete(&Device{}).Error
}

// message makes the push of an event for a device. On each platform one that
// comes again replaces the first. Android gets a tag and no collapse key: of
// those FCM keeps four a device at most ("Collapsible messages"), and positions
// have need of them.
func (p *Pushes) message(j *push, to *phone, now time.Time) (*messaging.Message, error) {
	token, err := p.devices.sealer.Open(to.TokenSealed)
	if err != nil {
		return nil, err
	}
	data := map[string]string{
		"via": models.Via, "type": string(j.Type), "bookingId": j.BookingID, "notificationId": j.NotificationID,
	}
	for name, value := range map[string]string{
		"resourceId": to.resourceID, "bookingStatus": string(j.Status), "reminder": string(j.Reminder),
	} {
		if value != "" {
			data[name] = value
		}
	}
	if j.Position > 0 {
		data["queuePosition"], data["estimatedWaitMinutes"] = strconv.Itoa(j.Position), strconv.Itoa(j.WaitMinutes)
	}
	if to.doubted {
		data["redelivery"] = "true"
	}
	title, body := j.words(to.Lang)
	life := j.Until.Sub(now).Truncate(time.Second)
	return &messaging.Message{
		Token: token, Data: data, Notification: &messaging.Notification{Title: title, Body: body},
		Android: &messaging.AndroidConfig{Priority: "high", TTL: &life, Notification: &messaging.AndroidNotification{Tag: j.NotificationID}},
		APNS: &messaging.APNSConfig{
			Headers: map[string]string{
				"apns-priority": "10", "apns-collapse-id": j.NotificationID, "apns-expiration": strconv.FormatInt(j.Until.Unix(), 10),
			},
			Payload: &messaging.APNSPayload{Aps: &messaging.Aps{Sound: "default"}},
		},
		Webpush: &messaging.WebpushConfig{
			Headers:      map[string]string{"TTL": strconv.Itoa(int(life / time.Second)), "Urgency": "high"},
			Notification: &messaging.WebpushNotification{Title: title, Body: body, Tag: j.NotificationID, Language: to.Lang},
		},
	}, nil
}

// Tidy deletes log lines from before a time.
func (p *Pushes) Tidy(ctx context.Context, before time.Time) error {
	if err := p.Store.DeleteInBatches(ctx, "push_log", "notification_id, device_id", "at < ?", before); err != nil {
		return err
	}
	return p.Store.DeleteInBatches(ctx, "position_states", "booking_id", "updated_at < ?", before)
}
