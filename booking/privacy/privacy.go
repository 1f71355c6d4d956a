// Package privacy erases customers and reads what is held about them. It knows no table
// but the customers': each package that keeps rows about customers registers how they
// are erased, and exports its own.
package privacy

import (
	"context"
	"log/slog"
	"time"

	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/models"
)

// scrubTimeout bounds the truncation of the database's log after an erasure.
const scrubTimeout = 5 * time.Second

// Eraser removes a customer from the rows of one package, in the transaction of the
// erasure. The one of bookings is called first and fills BookingIDs.
type Eraser func(tx *store.Tx, s *store.DataSubject) error

// Privacy erases and exports customers. It is safe for concurrent use.
type Privacy struct {
	store   *store.Store
	log     *slog.Logger
	erasers []Eraser
}

// New makes a Privacy with the erasers of all packages, those of bookings first.
func New(s *store.Store, log *slog.Logger, erasers ...Eraser) *Privacy {
	return &Privacy{s, log, erasers}
}

// Erase removes a customer's identity, and that of merged duplicates, in one
// transaction: from the record, which stays so that visits count as before, from the
// audit, and from what other packages keep. Open bookings have to be canceled before;
// otherwise it fails with CodeBeingServed. A later sign-in with the same address creates
// a new customer.
func (p *Privacy) Erase(ctx context.Context, sc customers.Scope, id string) error {
	organizationID := sc.OrganizationID()
	err := p.store.Tx(ctx, func(tx *store.Tx) error {
		ids, err := customers.WithMerged(tx.DB, organizationID, id)
		if err != nil {
			return err
		}
		if err := tx.Erasing(organizationID, ids...); err != nil {
			return err
		}
		// A change of the profile that is under way ends first: its address has to be
		// erased, too.
		c, err := sc.Find(p.store.Lock(tx), id)
		if err != nil {
			return err
		}
		s := &store.DataSubject{OrganizationID: organizationID, CustomerIDs: ids, BookingIDs: []string{""}, Contacts: []string{""}}
		for _, contact := range []*string{c.Phone, c.Email, c.ClaimedPhone, c.ClaimedEmail} {
			if contact != nil {
				s.Contacts = append(s.Contacts, *contact)
			}
		}
		if err := customers.Empty(tx, id); err != nil {
			return err
		}
		for _, erase := range p.erasers {
			if err := erase(tx, s); err != nil {
				return err
			}
		}
		if err := tx.Audit(organizationID, "eraseCustomer", "customer", id); err != nil {
			return err
		}
		return tx.EraseAudit(s)
	})
	if err != nil {
		return err
	}
	// The erasure is committed. The database's log may hold old rows until it is
	// used again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), scrubTimeout)
	defer cancel()
	if err := p.store.Scrub(ctx); err != nil {
		p.log.Warn("an erased customer may still be in the database's log", "customer", id, "error", err)
	}
	return nil
}

// BeginExport finds a customer whose data is exported, and adds the export to the audit.
// The packages that keep rows about customers export them by the DataSubject, which has
// no bookings and no contacts.
func (p *Privacy) BeginExport(ctx context.Context, sc customers.Scope, id string) (*models.Customer, store.DataSubject, error) {
	s := store.DataSubject{OrganizationID: sc.OrganizationID()}
	var c *models.Customer
	err := p.store.Tx(ctx, func(tx *store.Tx) error {
		// The caller's address must not be written after an erasure.
		err := tx.Naming(s.OrganizationID)
		if err != nil {
			return err
		}
		if c, err = sc.Find(tx.DB, id); err != nil {
			return err
		}
		if s.CustomerIDs, err = customers.WithMerged(tx.DB, s.OrganizationID, id); err != nil {
			return err
		}
		return tx.Audit(s.OrganizationID, "exportCustomer", "customer", id)
	})
	return c, s, err
}
