package push

import (
	"context"
	"fmt"
	"time"

	"nowserving/booking/store"
)

// Erase deletes the devices of a customer.
func (p *Pushes) Erase(tx *store.Tx, s *store.DataSubject) error {
	if err := tx.Exec("DELETE FROM devices WHERE organization_id = ? AND customer_id IN ?", s.OrganizationID, s.CustomerIDs).Error; err != nil {
		return fmt.Errorf("erase the devices of a customer: %w", err)
	}
	return nil
}

// HeldDevice is a device of an exported customer, without its token.
type HeldDevice struct {
	ID, Platform, Lang   string
	CreatedAt, UpdatedAt time.Time
}

// Export returns the devices of a customer, the last used first, and whether there are
// more than 10,000.
func (p *Pushes) Export(ctx context.Context, s store.DataSubject) (list []HeldDevice, more bool, err error) {
	return store.Newest[HeldDevice](p.Store.Read(ctx).Table("devices").
		Where("organization_id = ? AND customer_id IN ?", s.OrganizationID, s.CustomerIDs).Order("updated_at DESC"))
}
