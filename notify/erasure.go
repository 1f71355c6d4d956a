package notify

import (
	"encoding/json"
	"fmt"
	"slices"

	"nowserving/booking/store"
	"nowserving/models"
)

// Erase removes the identity of a customer from deliveries, sent and pending: from
// the bodies of webhooks, which go out without it, from the answers of receivers, and
// from messages.
func (s *Service) Erase(tx *store.Tx, e *store.Erasure) error {
	if err := eraseDeliveries(tx, e.BookingIDs); err != nil {
		return err
	}
	return s.post.erase(tx, e)
}

func eraseDeliveries(tx *store.Tx, bookingIDs []string) error {
	for last := ""; ; {
		var list []Delivery
		err := tx.Select("id, payload").Where("booking_id IN ? AND id > ?", bookingIDs, last).Order("id").Limit(rowsAtOnce).Find(&list).Error
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
	err := tx.Exec("UPDATE webhook_attempts SET answer = '', error = '' WHERE delivery_id IN (SELECT id FROM webhook_deliveries WHERE booking_id IN ?)", bookingIDs).Error
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

// erased returns those of some bookings whose customers are erased. Other erasures in
// the organization wait until this transaction ends, which may write identities.
func erased(tx *store.Tx, organizationID string, bookingIDs []string) (map[string]bool, error) {
	if err := tx.Naming(organizationID); err != nil {
		return nil, err
	}
	gone := map[string]bool{}
	for ids := range slices.Chunk(bookingIDs, factsAtOnce) {
		var list []string
		err := tx.Table("bookings AS b").Joins("JOIN customers c ON c.id = b.customer_id").
			Where("b.id IN ? AND c.erased_at IS NOT NULL", ids).Pluck("b.id", &list).Error
		if err != nil {
			return nil, fmt.Errorf("look whether customers are erased: %w", err)
		}
		for _, id := range list {
			gone[id] = true
		}
	}
	return gone, nil
}

// erase empties the messages to a customer and those about their bookings.
func (p *messages) erase(tx *store.Tx, e *store.Erasure) error {
	jobs, err := tx.SealedJobs(models.Message{}.Kind(), e.OrganizationID, false)
	if err != nil {
		return err
	}
	var theirs []int64
	for _, job := range jobs {
		letter, err := models.OpenLetter(p.sealer, job.Sealed)
		// A message that can't be opened is useless.
		if err != nil || slices.Contains(e.Contacts, letter.To) || job.BookingID != "" && slices.Contains(e.BookingIDs, job.BookingID) {
			theirs = append(theirs, job.ID)
		}
	}
	return p.s.store.EmptyJobs(tx, theirs)
}
