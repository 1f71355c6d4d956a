package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// DeliveryStatus is the state of a delivery.
type DeliveryStatus string

// The statuses of a delivery.
const (
	DeliveryPending   DeliveryStatus = "pending"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryFailed    DeliveryStatus = "failed"  // given up after its attempts
	DeliveryDropped   DeliveryStatus = "dropped" // its webhook was disabled or deleted
)

// Delivery is a message to a webhook, sent or pending.
type Delivery struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	WebhookID      string
	BookingID      string
	Trigger        Trigger
	Payload        string
	Status         DeliveryStatus
	Reason         string
	Round          int
	Attempts       int
	Failures       int
	NextAttemptAt  *time.Time
	CreatedAt      time.Time
	FinishedAt     *time.Time

	// Log are the latest attempts, oldest first.
	Log []Attempt `gorm:"-"`
}

// TableName implements schema.Tabler.
func (Delivery) TableName() string { return "webhook_deliveries" }

// Attempt is one time a delivery was sent.
type Attempt struct {
	DeliveryID string `gorm:"primaryKey"`
	Number     int    `gorm:"primaryKey;autoIncrement:false"`
	At         time.Time
	DurationMs int
	StatusCode int    // 0: no answer
	Error      string // one of the Failure constants, empty when delivered
	Answer     string // the first 20 kB
}

// TableName implements schema.Tabler.
func (Attempt) TableName() string { return "webhook_attempts" }

// attemptsShown bounds the attempts shown with a delivery: those of one round.
const attemptsShown = len(retryWaits) + 1

// DeliveryFilter narrows a list of deliveries. Empty fields narrow nothing.
type DeliveryFilter struct {
	WebhookID string
	BookingID string
	Trigger   Trigger
	Statuses  []DeliveryStatus
	From, To  time.Time // of their making
}

func (f *DeliveryFilter) apply(db *gorm.DB, organizationID string) *gorm.DB {
	q := db.Where("organization_id = ?", organizationID)
	for column, value := range map[string]string{"webhook_id": f.WebhookID, "booking_id": f.BookingID, "trigger": string(f.Trigger)} {
		if value != "" {
			q = q.Where(column+" = ?", value)
		}
	}
	if len(f.Statuses) > 0 {
		q = q.Where("status IN ?", f.Statuses)
	}
	return store.CreatedBetween(q, f.From, f.To)
}

// Deliveries lists an organization's deliveries, the newest first, with their
// attempts: those before the delivery page.After, and one more than page.Limit
// if there are.
func (h *Webhooks) Deliveries(ctx context.Context, organizationID string, f DeliveryFilter, page store.Page) ([]Delivery, error) {
	q := f.apply(h.Store.Read(ctx), organizationID)
	var list []Delivery
	if err := page.ApplyNewestFirst(q).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return list, readLog(h.Store.Read(ctx), list)
}

// readLog adds the latest attempts of some deliveries.
func readLog(db *gorm.DB, list []Delivery) error {
	at := make(map[string]*Delivery, len(list))
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
		at[list[i].ID] = &list[i]
	}
	var attempts []Attempt
	err := db.Table("webhook_attempts AS a").Select("a.*").Joins("JOIN webhook_deliveries d ON d.id = a.delivery_id").
		Where("a.delivery_id IN ? AND a.number > d.attempts - ?", ids, attemptsShown).Order("a.delivery_id, a.number").Find(&attempts).Error
	if err != nil {
		return fmt.Errorf("list attempts: %w", err)
	}
	for _, a := range attempts {
		at[a.DeliveryID].Log = append(at[a.DeliveryID].Log, a)
	}
	return nil
}

// MaxReplay bounds the deliveries of one ReplayRange.
const MaxReplay = 1000

// Replay sends a delivery once more, at once and with all its attempts, under the same
// webhook-id. The delivery may be in any state.
func (h *Webhooks) Replay(ctx context.Context, organizationID, id string) (*Delivery, error) {
	list := make([]Delivery, 1)
	err := h.Store.Tx(ctx, func(tx *store.Tx) error {
		err := tx.Where("organization_id = ? AND id = ?", organizationID, id).Take(&list[0]).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return models.Errorf(models.CodeDeliveryMissing, "There is no such delivery in the organization.")
		}
		if err != nil {
			return fmt.Errorf("find a delivery: %w", err)
		}
		done, err := replay(tx, organizationID, list)
		if err == nil && done == 0 {
			err = models.Errorf(models.CodeWebhookOff, "The webhook of this delivery is disabled or deleted.")
		}
		if err != nil {
			return err
		}
		list[0] = Delivery{} // what is empty now would keep what was there
		if err := tx.Where("id = ?", id).Take(&list[0]).Error; err != nil {
			return err
		}
		if err := tx.Audit(organizationID, "replayDelivery", "delivery", id); err != nil {
			return err
		}
		return readLog(tx.DB, list)
	})
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// ReplayRange is Replay for all deliveries that a filter finds, at most MaxReplay,
// without those of webhooks that are disabled or deleted. It returns their number.
func (h *Webhooks) ReplayRange(ctx context.Context, organizationID string, f DeliveryFilter) (int, error) {
	replayed := 0
	err := h.Store.Tx(ctx, func(tx *store.Tx) error {
		var list []Delivery
		err := f.apply(tx.DB, organizationID).Select("id").
			Where("webhook_id IN (SELECT id FROM webhooks WHERE disabled_at IS NULL AND deleted_at IS NULL)").
			Order("id").Limit(MaxReplay + 1).Find(&list).Error
		if err != nil {
			return fmt.Errorf("find deliveries: %w", err)
		}
		if len(list) > MaxReplay {
			return models.Invalid("to", "There are more than %d deliveries in the span; choose a shorter one.", MaxReplay)
		}
		if replayed, err = replay(tx, organizationID, list); err != nil {
			return err
		}
		return tx.Audit(organizationID, "replayDeliveries", "organization", organizationID)
	})
	return replayed, err
}

// replay begins a new round of deliveries, unless their webhooks are disabled or
// deleted, and returns of how many.
func replay(tx *store.Tx, organizationID string, list []Delivery) (int, error) {
	if err := lockWebhooks(tx, organizationID); err != nil {
		return 0, err
	}
	var webhooks []Webhook
	err := tx.Select("id", "url").Where("organization_id = ? AND disabled_at IS NULL AND deleted_at IS NULL", organizationID).Find(&webhooks).Error
	if err != nil {
		return 0, fmt.Errorf("find webhooks: %w", err)
	}
	receivers := make(map[string]string, len(webhooks))
	for _, w := range webhooks {
		if receivers[w.ID], err = receiverOf(w.URL); err != nil {
			return 0, fmt.Errorf("webhook %s: %w", w.ID, err)
		}
	}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	var begun []Delivery
	err = tx.Raw(`UPDATE webhook_deliveries SET round = round + 1, failures = 0, status = ?, reason = '', next_attempt_at = ?, finished_at = NULL
		WHERE id IN ? AND webhook_id IN ? RETURNING id, round, webhook_id`,
		DeliveryPending, tx.Now, ids, slices.Collect(maps.Keys(receivers))).Scan(&begun).Error
	if err != nil {
		return 0, fmt.Errorf("begin deliveries again: %w", err)
	}
	for _, d := range begun {
		tx.Enqueue(deliver{d.ID, d.Round, receivers[d.WebhookID]})
	}
	return len(begun), nil
}
