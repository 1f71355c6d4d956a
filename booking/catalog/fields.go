package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/fields"
	"nowserving/booking/store"
	"nowserving/models"
)

// CustomFields returns the custom fields of one kind of an organization. Those of
// customers always have the core fields.
func (c *Catalog) CustomFields(ctx context.Context, organizationID string, kind models.FieldKind) (models.CustomFields, error) {
	return CustomFieldsOf(c.store.Read(ctx), organizationID, kind)
}

// CustomFieldsOf is CustomFields within a transaction.
func CustomFieldsOf(db *gorm.DB, organizationID string, kind models.FieldKind) (models.CustomFields, error) {
	one := models.CustomFields{OrganizationID: organizationID, Kind: kind}
	err := db.Where("organization_id = ? AND kind = ?", organizationID, kind).Take(&one).Error
	if err != nil && !errors.Is(err, gorm.ErrRecordNotFound) {
		return one, fmt.Errorf("read custom fields: %w", err)
	}
	if kind == models.CustomerFields {
		one.Fields = fields.WithCore(one.Fields, nil)
	}
	return one, nil
}

// ChangeCustomFields replaces the custom fields of one kind of an organization by those
// that change makes of the ones before. Core fields that it omits stay as they were.
func (c *Catalog) ChangeCustomFields(
	ctx context.Context, organizationID string, kind models.FieldKind, change func(before []models.FormField) []models.FormField,
) (models.CustomFields, error) {
	var changed models.CustomFields
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		// Fields that are not there yet can't be locked, but their organization can.
		var id string
		if err := c.store.Lock(tx).Table("organizations").Where("id = ?", organizationID).Pluck("id", &id).Error; err != nil {
			return fmt.Errorf("lock the organization: %w", err)
		}
		before, err := CustomFieldsOf(tx.DB, organizationID, kind)
		if err != nil {
			return err
		}
		changed = before
		changed.Fields = change(before.Fields)
		known, err := knownTypes(tx, organizationID, before.Fields, changed.Fields)
		if err != nil {
			return err
		}
		// The list that was sent is checked first, so that problems are named by its
		// positions.
		if err := fields.CheckDefinitions(kind, changed.Fields, known); err != nil {
			return err
		}
		if kind == models.CustomerFields {
			changed.Fields = fields.WithCore(changed.Fields, before.Fields)
			if err := fields.CheckDefinitions(kind, changed.Fields, known); err != nil {
				return err
			}
		}
		changed.Retired = retired(before, changed.Fields)
		changed.UpdatedAt = tx.Now
		if err := tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(&changed).Error; err != nil {
			return fmt.Errorf("store custom fields: %w", err)
		}
		return tx.Audit(organizationID, "updateCustomFields", "customFields", string(kind))
	})
	return changed, err
}

// knownTypes returns those of the booking types that fields name that exist. One that was
// named before may have been deleted since.
func knownTypes(tx *store.Tx, organizationID string, before, after []models.FormField) ([]string, error) {
	var named, known, earlier []string
	for i := range after {
		named = append(named, after[i].Types...)
	}
	for i := range before {
		earlier = append(earlier, before[i].Types...)
	}
	if len(named) == 0 {
		return nil, nil
	}
	slices.Sort(named)
	err := tx.Model(&models.BookingType{}).Where("organization_id = ? AND id IN ? AND deleted_at IS NULL", organizationID, slices.Compact(named)).
		Pluck("id", &known).Error
	if err != nil {
		return nil, fmt.Errorf("read booking types: %w", err)
	}
	return append(known, earlier...), nil
}

// retired returns the ids of the deleted fields whose values stay hidden from customers.
func retired(before models.CustomFields, after []models.FormField) []string {
	ids := slices.Clone(before.Retired)
	for i := range before.Fields {
		if f := &before.Fields[i]; !f.Public() && !slices.Contains(ids, f.ID) {
			ids = append(ids, f.ID)
		}
	}
	ids = slices.DeleteFunc(ids, func(id string) bool {
		return slices.ContainsFunc(after, func(f models.FormField) bool { return f.ID == id })
	})
	return ids[max(len(ids)-models.MaxRetiredFields, 0):]
}
