package access

import (
	"context"
	"fmt"
	"time"

	"nowserving/booking/contact"
	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/models"
)

// UpdateCustomer changes a customer in scope and returns the result. An address
// that staff change takes effect at once and ends the sessions of the customer.
// It fails with CodeContactTaken where another customer has the address, and
// with CodeForbidden where the scope does not include addresses.
func (a *Access) UpdateCustomer(
	ctx context.Context, sc customers.Scope, id string, change customers.Change,
) (*models.Customer, error) {
	var c *models.Customer
	wrong := false
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if c, err = sc.Find(a.store.Lock(tx), id); err != nil {
			return err
		}
		proved := ""
		if change.Code != "" {
			if proved, err = a.prove(tx, c, change); err != nil {
				return err
			}
			if wrong = proved == ""; wrong {
				return nil // commit the count of guesses
			}
		}
		before := *c
		if err := change.Apply(c, proved); err != nil {
			return err
		}
		if sc.KeepsContact() && !customers.SameContacts(&before, c) {
			return models.Errorf(models.CodeForbidden,
				"You may not change a customer's phone number or e-mail address; the reception may.")
		}
		gone := left(before.Phone, before.Email, c.Phone, c.Email)
		if err := a.retire(tx, c.OrganizationID, KindCustomer, gone); err != nil {
			return err
		}
		// The sessions may belong to a stranger who had the wrong address.
		if !change.Own && len(gone) > 0 {
			if err := a.EndSessions(tx, c.OrganizationID, KindCustomer, c.ID); err != nil {
				return err
			}
		}
		c.UpdatedAt = tx.Now
		if err := tx.Save(c).Error; err != nil {
			return err
		}
		if change.Also != nil {
			if err := change.Also(tx, c); err != nil {
				return err
			}
		}
		return tx.Audit(c.OrganizationID, "updateCustomer", "customer", c.ID)
	})
	if err == nil && wrong || models.CodeOf(err) == models.CodeWrongCode {
		return nil, errWrongProof
	}
	if store.IsDuplicate(err) {
		return nil, models.Errorf(models.CodeContactTaken, "Another customer has this phone number or e-mail address.")
	}
	if err != nil {
		return nil, fmt.Errorf("store customer: %w", err)
	}
	return c, nil
}

// prove returns the new address that the code of a change was sent to, or "" if the
// code is wrong.
func (a *Access) prove(tx *store.Tx, c *models.Customer, change customers.Change) (proved string, err error) {
	phone, email, err := contact.Both(models.Text(change.Phone), models.Text(change.Email), contact.Own)
	if err != nil {
		return "", err
	}
	changed := left(phone, email, c.Phone, c.Email)
	if len(changed) != 1 {
		return "", models.Invalid("code", "A code goes with the one address that it was sent to, and that changes.")
	}
	_, right, err := a.useCode(tx, c.OrganizationID, KindCustomer, changed[0], change.Code, change.Network)
	if err != nil || !right {
		return "", err
	}
	return changed[0], nil
}

// Erase ends and deletes the sessions of a customer who is erased.
func (a *Access) Erase(tx *store.Tx, s *store.DataSubject) error {
	for _, id := range s.CustomerIDs {
		if err := a.EndSessions(tx, s.OrganizationID, KindCustomer, id); err != nil {
			return err
		}
	}
	err := tx.Exec("DELETE FROM sessions WHERE organization_id = ? AND kind = 'customer' AND subject_id IN ?", s.OrganizationID, s.CustomerIDs).Error
	if err != nil {
		return fmt.Errorf("erase the sessions of a customer: %w", err)
	}
	return nil
}

// HeldSession is a session of an exported customer. ExpiresAt is when it ends or was
// ended.
type HeldSession struct {
	ID                                string
	CreatedAt, RefreshedAt, ExpiresAt time.Time
}

// Export returns the newest sessions of a customer, and whether there are more.
func (a *Access) Export(ctx context.Context, s store.DataSubject) (list []HeldSession, more bool, err error) {
	return store.Newest[HeldSession](a.store.Read(ctx).Table("sessions").
		Where("organization_id = ? AND kind = 'customer' AND subject_id IN ?", s.OrganizationID, s.CustomerIDs).Order("created_at DESC"))
}
