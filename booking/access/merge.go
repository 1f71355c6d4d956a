package access

import (
	"context"
	"fmt"

	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/models"
)

// Merge merges two records of one person. The record keepID stays, and takes over
// the phone number, e-mail address, name, note and data that it lacks. The sessions
// and devices of duplicateID end, and its row is emptied as by an erasure: the
// addresses that were not taken over no longer sign in. The audit has a line about
// each of the two. also runs in the same
// transaction, for what other packages keep. Merge fails with CodeCustomerMissing
// if the scope does not include both records, and with CodeSameCustomer if both ids
// are the same.
func (a *Access) Merge(
	ctx context.Context, sc customers.Scope, keepID, duplicateID string, also func(tx *store.Tx, keep, duplicate *models.Customer) error,
) (*models.Customer, error) {
	if keepID == duplicateID {
		return nil, models.Errorf(models.CodeSameCustomer, "Both ids name the same customer.")
	}
	var keep *models.Customer
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		if err := tx.Erasing(sc.OrganizationID(), duplicateID); err != nil {
			return err
		}
		var duplicate *models.Customer
		var err error
		if keep, err = sc.Find(a.store.Lock(tx), keepID); err != nil {
			return err
		}
		if duplicate, err = sc.Find(a.store.Lock(tx), duplicateID); err != nil {
			return err
		}
		if err := a.EndSessions(tx, sc.OrganizationID(), KindCustomer, duplicateID); err != nil {
			return err
		}
		if err := also(tx, keep, duplicate); err != nil {
			return err
		}
		// The addresses are free before the other record takes them.
		if err := customers.Empty(tx, duplicateID); err != nil {
			return err
		}
		// An erasure or export of the record that stays includes its duplicates, and
		// those that were merged into them before.
		err = tx.Exec("UPDATE customers SET merged_into = ? WHERE organization_id = ? AND (id = ? OR merged_into = ?)",
			keepID, sc.OrganizationID(), duplicateID, duplicateID).Error
		if err != nil {
			return fmt.Errorf("link a duplicate: %w", err)
		}
		customers.TakeOver(keep, duplicate)
		keep.UpdatedAt = tx.Now
		if err := a.retire(tx, sc.OrganizationID(), KindCustomer, left(duplicate.Phone, duplicate.Email, keep.Phone, keep.Email)); err != nil {
			return err
		}
		if err := tx.Save(keep).Error; err != nil {
			return fmt.Errorf("store customer: %w", err)
		}
		if err := tx.Audit(sc.OrganizationID(), "mergeCustomers", "customer", duplicateID); err != nil {
			return err
		}
		return tx.Audit(sc.OrganizationID(), "mergeCustomers", "customer", keepID)
	})
	if err != nil {
		return nil, err
	}
	return keep, nil
}
