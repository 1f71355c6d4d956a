package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nowserving/booking/calendar"
	"nowserving/booking/store"
	"nowserving/models"
)

// Type finds a booking type that is not deleted.
func (c *Catalog) Type(ctx context.Context, organizationID, id string) (*models.BookingType, error) {
	var t models.BookingType
	err := c.store.Read(ctx).Where("organization_id = ? AND id = ? AND deleted_at IS NULL", organizationID, id).Take(&t).Error
	return found(&t, err, models.CodeTypeMissing, "booking type")
}

// Types lists booking types; with onlyOn, those a customer may choose.
func (c *Catalog) Types(ctx context.Context, organizationID string, onlyOn bool, page store.Page) ([]models.BookingType, error) {
	q := c.store.Read(ctx).Where("organization_id = ? AND deleted_at IS NULL", organizationID)
	if onlyOn {
		q = q.Where("is_on")
	}
	var list []models.BookingType
	err := page.Apply(q).Find(&list).Error
	return list, listed("booking types", err)
}

// TypesByID returns those of the booking types that exist or once did: a past
// booking still shows the name of a deleted type.
func (c *Catalog) TypesByID(ctx context.Context, organizationID string, ids []string) ([]models.BookingType, error) {
	var list []models.BookingType
	err := c.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, ids).Find(&list).Error
	return list, listed("booking types", err)
}

// Decimal returns a price or percentage in the form of the API document.
func Decimal(text string) (normal string, ok bool) { return models.Decimal(text) }

func checkType(t *models.BookingType) error {
	price, isPrice := Decimal(t.Price)
	t.Price = price
	deposit, _ := t.Details["depositAmount"].(string)
	switch {
	case strings.TrimSpace(t.Name) == "":
		return models.Invalid("name", "A booking type needs a name.")
	case t.Minutes < 1 || t.Minutes > 24*60:
		return models.Invalid("minutes", "A visit takes 1 to 1440 minutes.")
	case t.Prefix != "" && !prefixPattern.MatchString(t.Prefix):
		return models.Invalid("prefix", "A ticket prefix is one to three capital letters.")
	case !isPrice:
		return models.Invalid("price", "A price is a decimal with two digits, such as 150.00.")
	case models.Hundredths(deposit) > models.Hundredths(t.Price):
		return models.Invalid("depositAmount", "The deposit is larger than the price.")
	}
	return checkTimes(t)
}

// checkTimes checks when the type can be booked.
func checkTimes(t *models.BookingType) error {
	schedule, err := t.Schedule()
	if err != nil {
		return models.Invalid("schedule", "Give time rules as those of PUT /management/timeRules.")
	}
	if schedule != nil {
		if err := within("schedule", calendar.CheckRules(schedule)); err != nil {
			return err
		}
	}
	options, err := t.TimeOptions()
	if err != nil {
		return models.Invalid("timeOptions", "Give options as those of POST /availability/times, such as showHalfHour.")
	}
	_, err = calendar.NewGrid(options)
	return within("timeOptions", err)
}

// within puts the field of an error into a member.
func within(member string, err error) error {
	if e, ok := errors.AsType[*models.Error](err); ok && e.Field != "" {
		e.Field = member + "." + e.Field
	}
	return err
}

// CreateType makes a booking type. Without a prefix it gets the next free one.
func (c *Catalog) CreateType(ctx context.Context, t *models.BookingType) error {
	if err := checkType(t); err != nil {
		return err
	}
	if t.QueueTimeoutMinutes == 0 {
		t.QueueTimeoutMinutes = models.DefaultAssignmentTimeout
	}
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		t.ID, t.CreatedAt, t.UpdatedAt = models.NewID(), tx.Now, tx.Now
		if err := choosePrefix(tx, t); err != nil {
			return err
		}
		if err := c.saveType(tx.Create(t).Error, t); err != nil {
			return err
		}
		return tx.Audit(t.OrganizationID, "createType", "type", t.ID)
	})
}

// UpdateType stores a changed booking type. Waiting tickets keep their number.
func (c *Catalog) UpdateType(ctx context.Context, t *models.BookingType) error {
	if err := checkType(t); err != nil {
		return err
	}
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		t.UpdatedAt = tx.Now
		if err := choosePrefix(tx, t); err != nil {
			return err
		}
		if err := c.saveType(tx.Save(t).Error, t); err != nil {
			return err
		}
		return tx.Audit(t.OrganizationID, "updateType", "type", t.ID)
	})
}

func (c *Catalog) saveType(err error, t *models.BookingType) error {
	if store.IsDuplicate(err) {
		return models.Errorf(models.CodePrefixTaken, "Another booking type of the organization has the prefix %s.", t.Prefix)
	}
	return err
}

func choosePrefix(tx *store.Tx, t *models.BookingType) error {
	if t.Prefix != "" {
		return nil
	}
	var taken []string
	if err := tx.Model(t).Where("organization_id = ? AND deleted_at IS NULL", t.OrganizationID).Pluck("prefix", &taken).Error; err != nil {
		return fmt.Errorf("read ticket prefixes: %w", err)
	}
	for n := 0; ; n++ {
		if t.Prefix = letters(n); !slices.Contains(taken, t.Prefix) {
			return nil
		}
	}
}

// letters counts A, B, … Z, AA, AB, …
func letters(n int) string {
	if n < 26 {
		return string(rune('A' + n))
	}
	return letters(n/26-1) + string(rune('A'+n%26))
}

// DeleteType deletes a booking type. It fails with CodeTypeInUse while bookings of it
// wait in a queue. before is called first, while the type is locked, and can refuse.
func (c *Catalog) DeleteType(ctx context.Context, organizationID, id string, before func(tx *store.Tx) error) error {
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		// Those who are joining are counted, and who comes later finds it deleted.
		var ids []string
		err := c.store.LockReferred(tx).Table("booking_types").Where("organization_id = ? AND id = ?", organizationID, id).Pluck("id", &ids).Error
		if err != nil {
			return fmt.Errorf("lock booking type: %w", err)
		}
		if err := before(tx); err != nil {
			return err
		}
		var waiting int64
		err = tx.Table("bookings").Where("organization_id = ? AND type_id = ? AND starts_at IS NULL AND status IN ('PENDING_ASSIGNMENT', 'PENDING_PAYMENT')",
			organizationID, id).Count(&waiting).Error
		if err != nil {
			return fmt.Errorf("count waiting bookings: %w", err)
		}
		if waiting > 0 {
			return models.Errorf(models.CodeTypeInUse, "%d bookings of this type are waiting.", waiting)
		}
		if err := markDeleted(tx, &models.BookingType{}, organizationID, id, models.CodeTypeMissing, "booking type"); err != nil {
			return err
		}
		if err := tx.Exec("DELETE FROM resource_types WHERE type_id = ?", id).Error; err != nil {
			return fmt.Errorf("delete booking type: %w", err)
		}
		if err := dropFromRules(tx, organizationID, id); err != nil {
			return err
		}
		return tx.Audit(organizationID, "deleteType", "type", id)
	})
}
