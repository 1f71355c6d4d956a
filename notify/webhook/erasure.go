package webhook

import (
	"context"
	"encoding/json"
	"fmt"

	"nowserving/booking/store"
	"nowserving/models"
)

// Erase removes the identity of a customer from deliveries, sent and pending, and from
// the answers of receivers. Pending deliveries go out without it.
func (h *Webhooks) Erase(tx *store.Tx, e *store.DataSubject) error {
	for last := ""; ; {
		var list []Delivery
		err := tx.Select("id, payload").Where("booking_id IN ? AND id > ?", e.BookingIDs, last).Order("id").Limit(rowsAtOnce).Find(&list).Error
		if err != nil {
			return fmt.Errorf("find deliveries about a customer: %w", err)
		}
		for _, d := range list {
			body, err := anonymous(d.Payload)
			if err != nil {
				return err
			}
			if err := tx.Model(&Delivery{}).Where("id = ?", d.ID).Update("payload", body).Error; err != nil {
				return fmt.Errorf("erase a customer from a delivery: %w", err)
			}
		}
		if len(list) < rowsAtOnce {
			break
		}
		last = list[len(list)-1].ID
	}
	err := tx.Exec("UPDATE webhook_attempts SET answer = '', error = '' WHERE delivery_id IN (SELECT id FROM webhook_deliveries WHERE booking_id IN ?)", e.BookingIDs).Error
	if err != nil {
		return fmt.Errorf("erase a customer from the answers of receivers: %w", err)
	}
	return nil
}

// anonymous returns the body of a webhook without the customer's identity and words.
func anonymous(payload string) (string, error) {
	var p Payload
	if err := json.Unmarshal([]byte(payload), &p); err != nil {
		return "", fmt.Errorf("read the body of a webhook: %w", err)
	}
	p.Customer, p.Info, p.Data.CancelReason = PayloadPerson{ID: p.Customer.ID}, models.Fields{}, ""
	body, err := json.Marshal(p)
	return string(body), err
}

// WithInfo returns the body of a webhook with what shown makes of its custom fields.
func WithInfo(payload string, shown func(models.Fields) models.Fields) (string, error) {
	var p Payload
	if err := json.Unmarshal([]byte(payload), &p); err != nil {
		return "", fmt.Errorf("read the body of a webhook: %w", err)
	}
	before := len(p.Info)
	if p.Info = shown(p.Info); len(p.Info) == before {
		return payload, nil
	}
	body, err := json.Marshal(p)
	return string(body), err
}

// Export returns the newest deliveries about a customer, and whether there are more.
func (h *Webhooks) Export(ctx context.Context, s store.DataSubject) (list []Delivery, more bool, err error) {
	return store.Newest[Delivery](h.Store.Read(ctx).Where("booking_id IN (SELECT id FROM bookings WHERE organization_id = ? AND customer_id IN ?)", s.OrganizationID, s.CustomerIDs).Order("id DESC"))
}
