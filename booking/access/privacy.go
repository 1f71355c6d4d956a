package access

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// Erase removes a customer's identity, and that of merged duplicates, in one
// transaction: from the row, which stays so that visits count as before, from
// bookings, devices, sessions and the audit, and with also from what other packages
// keep. Open bookings have to be canceled before; otherwise it fails with
// CodeBeingServed. A later sign-in with the same address creates a new customer.
func (a *Access) Erase(ctx context.Context, sc CustomerScope, id string, also ...func(*store.Tx, *store.Erasure) error) error {
	organizationID := sc.organizationID
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		ids, err := merged(tx.DB, organizationID, id)
		if err != nil {
			return err
		}
		if err := tx.Erasing(organizationID, ids...); err != nil {
			return err
		}
		// A change of the profile that is under way ends first: its address has to be
		// erased, too.
		c, err := sc.find(a.store.Lock(tx), id)
		if err != nil {
			return err
		}
		e := &store.Erasure{OrganizationID: organizationID, CustomerIDs: ids, BookingIDs: []string{""}, Contacts: []string{""}}
		for _, contact := range []*string{c.Phone, c.Email, c.ClaimedPhone, c.ClaimedEmail} {
			if contact != nil {
				e.Contacts = append(e.Contacts, *contact)
			}
		}
		if err := empty(tx, id); err != nil {
			return err
		}
		if err := bookingsOf(tx, e); err != nil {
			return err
		}
		if err := a.EndSessions(tx, organizationID, KindCustomer, id); err != nil {
			return err
		}
		if err := tx.Audit(organizationID, "eraseCustomer", "customer", id); err != nil {
			return err
		}
		if err := eraseRows(tx, e); err != nil {
			return err
		}
		for _, erase := range also {
			if err := erase(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// The erasure is committed. The database's log may hold old rows until it is
	// used again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), scrubTimeout)
	defer cancel()
	if err := a.store.Scrub(ctx); err != nil {
		a.o.Log.Warn("an erased customer may still be in the database's log", "customer", id, "error", err)
	}
	return nil
}

// merged returns a customer's id and those of the duplicates merged into them.
func merged(db *gorm.DB, organizationID, id string) ([]string, error) {
	var duplicates []string
	err := db.Table("customers").Where("organization_id = ? AND merged_into = ?", organizationID, id).Order("id").Pluck("id", &duplicates).Error
	if err != nil {
		return nil, fmt.Errorf("find merged duplicates: %w", err)
	}
	return append([]string{id}, duplicates...), nil
}

// scrubTimeout bounds the truncation of the database's log after an erasure.
const scrubTimeout = 5 * time.Second

// bookingsOf sets the booking ids of an erasure. It fails with CodeBeingServed if one
// is open.
func bookingsOf(tx *store.Tx, e *store.Erasure) error {
	var list []models.Booking
	err := tx.Select("id, status, stage, ends_at").Where("organization_id = ? AND customer_id IN ?", e.OrganizationID, e.CustomerIDs).Find(&list).Error
	if err != nil {
		return fmt.Errorf("list a customer's bookings: %w", err)
	}
	for _, b := range list {
		past := b.Stage == models.StageNone && b.EndsAt != nil && !b.EndsAt.After(tx.Now)
		over := b.Stage == models.StageDone || b.Stage == models.StageNoShow || b.Stage == models.StageLeft
		if !over && !past {
			return models.Errorf(models.CodeBeingServed, "The customer has come back meanwhile.")
		}
		e.BookingIDs = append(e.BookingIDs, b.ID)
	}
	return nil
}

// eraseRows erases the rows of this package and of bookings.
func eraseRows(tx *store.Tx, e *store.Erasure) error {
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{"UPDATE bookings SET first_name = '', last_name = '', note = '', info = NULL, cancel_reason = '' WHERE organization_id = ? AND customer_id IN ?", []any{e.OrganizationID, e.CustomerIDs}},
		{"DELETE FROM devices WHERE organization_id = ? AND customer_id IN ?", []any{e.OrganizationID, e.CustomerIDs}},
		{"DELETE FROM sessions WHERE organization_id = ? AND kind = 'customer' AND subject_id IN ?", []any{e.OrganizationID, e.CustomerIDs}},
	} {
		if err := tx.Exec(step.sql, step.args...).Error; err != nil {
			return fmt.Errorf("erase what is kept of a customer: %w", err)
		}
	}
	return tx.EraseAudit(e)
}

// maxHeld bounds each list of an export.
const maxHeld = 10_000

// Held is everything held about a customer, except for sealed and hashed values such
// as tokens and codes. Lists have the newest first and at most 10,000 lines;
// Truncated reports that one was cut.
type Held struct {
	Customer   *models.Customer
	Bookings   []HeldBooking
	Devices    []HeldDevice
	Messages   []HeldMessage
	Deliveries []HeldDelivery
	Sessions   []HeldSession
	Audit      []store.Audit
	Truncated  bool
}

// HeldBooking is a booking with the estimated wait at joining.
type HeldBooking struct {
	models.Booking
	Low, Likely, High *int // minutes; nil: nothing was promised
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

// HeldDelivery is a delivery to a webhook.
type HeldDelivery struct {
	ID        string        `json:"id"`
	BookingID string        `json:"bookingId"`
	Trigger   string        `json:"trigger"`
	Payload   string        `json:"payload" doc:"The body, as it was sent."`
	Status    string        `json:"status"`
	CreatedAt models.Moment `json:"createdAt"`
}

// HeldSession is a session.
type HeldSession struct {
	ID          string        `json:"id"`
	CreatedAt   models.Moment `json:"createdAt"`
	RefreshedAt models.Moment `json:"refreshedAt"`
	ExpiresAt   models.Moment `json:"expiresAt" doc:"Or when it was ended."`
}

// Export reads everything held about a customer, and adds the export to the audit.
func (a *Access) Export(ctx context.Context, sc CustomerScope, id string) (*Held, error) {
	h, organizationID := &Held{}, sc.organizationID
	var ids []string
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		// The caller's address must not be written after an erasure.
		err := tx.Naming(organizationID)
		if err != nil {
			return err
		}
		if h.Customer, err = sc.find(tx.DB, id); err != nil {
			return err
		}
		if ids, err = merged(tx.DB, organizationID, id); err != nil {
			return err
		}
		return tx.Audit(organizationID, "exportCustomer", "customer", id)
	})
	if err != nil {
		return nil, err
	}
	db := a.store.Read(ctx)
	const theirs = "booking_id IN (SELECT id FROM bookings WHERE organization_id = ? AND customer_id = ?)"
	for _, read := range []func() (int, error){
		func() (int, error) {
			return held(&h.Bookings, db.Table("bookings AS b").Select("b.*, q.low, q.likely, q.high").Joins("LEFT JOIN quotes q ON q.booking_id = b.id").
				Where("b.organization_id = ? AND b.customer_id = ?", organizationID, id).Order("b.seq DESC"))
		},
		func() (int, error) {
			return held(&h.Devices, db.Table("devices").Where("organization_id = ? AND customer_id = ?", organizationID, id).Order("updated_at DESC"))
		},
		func() (int, error) {
			return held(&h.Messages, db.Table("message_attempts").Where(theirs, organizationID, id).Order("id DESC"))
		},
		func() (int, error) {
			return held(&h.Deliveries, db.Table("webhook_deliveries").Where(theirs, organizationID, id).Order("id DESC"))
		},
		func() (int, error) {
			return held(&h.Sessions, db.Table("sessions").Where("organization_id = ? AND kind = 'customer' AND subject_id IN ?", organizationID, ids).Order("created_at DESC"))
		},
		func() (int, error) {
			// With ids, unlike with a subquery, the index is used.
			subjects := slices.Clone(ids)
			for i := range h.Bookings {
				subjects = append(subjects, h.Bookings[i].ID)
			}
			return held(&h.Audit, db.Where("organization_id = ? AND (actor_id IN ? AND actor_kind = 'customer' OR subject_id IN ?)", organizationID, ids, subjects).Order("id DESC"))
		},
	} {
		n, err := read()
		if err != nil {
			return nil, fmt.Errorf("read what is held about a customer: %w", err)
		}
		h.Truncated = h.Truncated || n > maxHeld
	}
	return h, nil
}

// held reads at most maxHeld rows, and returns how many there are up to one more.
func held[T any](list *[]T, q *gorm.DB) (int, error) {
	err := q.Limit(maxHeld + 1).Find(list).Error
	n := len(*list)
	*list = (*list)[:min(n, maxHeld)]
	return n, err
}

// empty deletes the personal data of a customer and marks the record as erased.
func empty(tx *store.Tx, customerID string) error {
	err := tx.Exec(`UPDATE customers SET phone = NULL, email = NULL, claimed_phone = NULL, claimed_email = NULL, first_name = '', last_name = '',
		note = '', lang = '', data = NULL, updated_at = ?, erased_at = ? WHERE id = ?`, tx.Now, tx.Now, customerID).Error
	if err != nil {
		return fmt.Errorf("empty a customer: %w", err)
	}
	return nil
}
