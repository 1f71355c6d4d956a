package push

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

// maxDevices bounds the devices of a person. One more removes the one registered
// longest ago.
const maxDevices = 20

// Device is a phone or browser of a customer or member that gets pushes.
type Device struct {
	// ID changes when the device gets another owner.
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	CustomerID     *string
	MemberID       *string
	// SessionID is the session that registered the device. The device is deleted when
	// it ends.
	SessionID   *string
	Platform    string // ios, android or web
	Lang        string // en or ar
	TokenHash   string
	TokenSealed string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// devices stores the tokens of devices: sealed, with a hash to find them.
type devices struct {
	sealer *models.Sealer
}

func newDevices(secret []byte) (*devices, error) {
	sealer, err := models.NewSealer(secret, models.SealDevices)
	return &devices{sealer}, err
}

// RegisterDevice registers an FCM registration token for the owner of d. A known
// token moves to d's owner. It sets the id, the hash and the times of d.
func (p *Pushes) RegisterDevice(ctx context.Context, d *Device, token string) error {
	return p.Store.Tx(ctx, func(tx *store.Tx) error {
		if err := d.erased(tx); err != nil {
			return err
		}
		if err := p.inSession(tx, d); err != nil {
			return err
		}
		d.ID, d.TokenHash, d.TokenSealed = models.NewID(), models.HashSecret(token), p.devices.sealer.Seal(token)
		d.CreatedAt, d.UpdatedAt = tx.Now, tx.Now
		// Pushes under way name the id, so a new owner gets another id.
		const same = `devices.organization_id = excluded.organization_id AND devices.customer_id IS NOT DISTINCT FROM excluded.customer_id
			AND devices.member_id IS NOT DISTINCT FROM excluded.member_id`
		keep := func(column string) clause.Assignment {
			return clause.Assignment{
				Column: clause.Column{Name: column},
				Value:  gorm.Expr("CASE WHEN " + same + " THEN devices." + column + " ELSE excluded." + column + " END"),
			}
		}
		changed := clause.AssignmentColumns([]string{"organization_id", "customer_id", "member_id", "session_id", "platform", "lang", "token_sealed", "updated_at"})
		err := tx.Clauses(clause.OnConflict{
			Columns: []clause.Column{{Name: "token_hash"}}, DoUpdates: append(changed, keep("id"), keep("created_at")),
		}, clause.Returning{}).Create(d).Error
		if err != nil {
			return fmt.Errorf("keep a device: %w", err)
		}
		others := d.owned(tx.Model(&Device{})).Order("updated_at DESC, id").Select("id")
		var excess []string
		if err := others.Offset(maxDevices).Limit(maxDevices).Pluck("id", &excess).Error; err != nil {
			return fmt.Errorf("count a person's devices: %w", err)
		}
		if len(excess) > 0 {
			if err := tx.Where("id IN ?", excess).Delete(&Device{}).Error; err != nil {
				return fmt.Errorf("make room for a device: %w", err)
			}
		}
		if d.CustomerID == nil || p.client == nil {
			return nil
		}
		var waits int64
		err = tx.Table("bookings").Where("organization_id = ? AND customer_id = ? AND stage = 'WAITING'", d.OrganizationID, *d.CustomerID).Count(&waits).Error
		if err != nil {
			return fmt.Errorf("look whether a device's owner waits: %w", err)
		}
		if waits == 0 {
			return nil
		}
		return p.mark(tx, d.OrganizationID) // their place may have changed since they joined
	})
}

// erased refuses a device of an erased customer. Erasures wait until the transaction
// ends.
func (d *Device) erased(tx *store.Tx) error {
	if d.CustomerID == nil {
		return nil
	}
	if err := tx.Naming(d.OrganizationID); err != nil {
		return err
	}
	var gone int64
	err := tx.Table("customers").Where("organization_id = ? AND id = ? AND erased_at IS NOT NULL", d.OrganizationID, *d.CustomerID).Count(&gone).Error
	if err != nil {
		return fmt.Errorf("look whether a device's owner is erased: %w", err)
	}
	if gone > 0 {
		return models.Errorf(models.CodeCustomerMissing, "The customer has just been erased.")
	}
	return nil
}

// inSession refuses a device of an ended session. The session can't end before the
// transaction does.
func (p *Pushes) inSession(tx *store.Tx, d *Device) error {
	if d.SessionID == nil {
		return nil
	}
	var ids []string
	err := p.Store.Lock(tx).Table("sessions").Where("id = ? AND expires_at > ?", *d.SessionID, tx.Now).Pluck("id", &ids).Error
	if err != nil {
		return fmt.Errorf("look whether a device's session has ended: %w", err)
	}
	if len(ids) == 0 {
		return models.Errorf(models.CodeUnauthenticated, "The session has ended.")
	}
	return nil
}

// RemoveDevice removes a token of d's owner. A missing token is no error.
func (p *Pushes) RemoveDevice(ctx context.Context, d *Device, token string) error {
	return p.Store.Tx(ctx, func(tx *store.Tx) error {
		if err := d.owned(tx.Where("token_hash = ?", models.HashSecret(token))).Delete(&Device{}).Error; err != nil {
			return fmt.Errorf("delete a device: %w", err)
		}
		return nil
	})
}

// owned narrows a query to the devices of d's owner.
func (d *Device) owned(q *gorm.DB) *gorm.DB {
	q = q.Where("organization_id = ?", d.OrganizationID)
	if d.CustomerID != nil {
		return q.Where("customer_id = ?", *d.CustomerID)
	}
	return q.Where("member_id = ?", *d.MemberID)
}
