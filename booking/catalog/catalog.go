// Package catalog keeps what an organization offers: the organization itself,
// its resources, its booking types and its displays.
//
// It says what exists and what is switched on. Who may change it is decided in
// handlers; what a change does to waiting bookings is decided by the queue
// index, which it asks to compare itself with the database after any change
// of what matches what.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// Catalog reads and changes the catalogue of every organization.
type Catalog struct {
	store   *store.Store
	changed func(ctx context.Context, organizationID string)
}

// New makes a Catalog. changed is called after each committed change of what
// matches what. It returns no error because the change stands: changed logs what
// it can't do, and the background comparison repairs it within seconds.
func New(s *store.Store, changed func(ctx context.Context, organizationID string)) *Catalog {
	return &Catalog{s, changed}
}

// announceTimeout bounds changed.
const announceTimeout = 5 * time.Second

// announce calls changed after a commit, apart from the request's deadline.
func (c *Catalog) announce(ctx context.Context, organizationID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceTimeout)
	defer cancel()
	c.changed(ctx, organizationID)
}

// found turns a missing row into the Error the caller is meant to see.
func found[T any](row *T, err error, code models.Code, what string) (*T, error) {
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(code, "There is no such %s in the organization.", what)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return row, nil
}

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
	return list, err
}

// TypesByID returns those of the booking types that exist or once did: a past
// booking still shows the name of a deleted type.
func (c *Catalog) TypesByID(ctx context.Context, organizationID string, ids []string) ([]models.BookingType, error) {
	var list []models.BookingType
	err := c.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, ids).Find(&list).Error
	return list, err
}

// OwnerOf returns the organization that a resource or display belongs to, for
// a credential that acts for every organization.
func (c *Catalog) OwnerOf(ctx context.Context, id string) (organizationID string, err error) {
	var owners []string
	err = c.store.Read(ctx).Raw(`SELECT organization_id FROM resources WHERE id = ? AND deleted_at IS NULL
		UNION ALL SELECT organization_id FROM displays WHERE id = ?`, id, id).Scan(&owners).Error
	if err != nil {
		return "", fmt.Errorf("find the owner: %w", err)
	}
	if len(owners) == 0 {
		return "", models.Errorf(models.CodeResourceMissing, "There is no such resource or display.")
	}
	return owners[0], nil
}

var (
	prefixPattern = regexp.MustCompile(`^[A-Z]{1,3}$`)
	pricePattern  = regexp.MustCompile(`^\d{1,9}(\.\d{2})?$`)
)

// Decimal returns a price or percentage in the form of the API document, d+.d{2},
// which adds the digits of a whole number. Empty is empty.
func Decimal(text string) (normal string, ok bool) {
	if text == "" {
		return "", true
	}
	if !pricePattern.MatchString(text) {
		return text, false
	}
	if !strings.Contains(text, ".") {
		text += ".00"
	}
	return text, true
}

// hundredths is a decimal without its point: 150.00 is 15000. Empty, or what is no
// decimal, is 0.
func hundredths(text string) int64 {
	normal, ok := Decimal(text)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(normal, ".", ""), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

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
	case hundredths(deposit) > hundredths(t.Price):
		return models.Invalid("depositAmount", "The deposit is larger than the price.")
	}
	return nil
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

// DeleteType removes a booking type nobody waits for.
func (c *Catalog) DeleteType(ctx context.Context, organizationID, id string) error {
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		// Those who are joining are counted, and who comes later finds it deleted.
		var ids []string
		err := c.store.LockReferred(tx).Table("booking_types").Where("organization_id = ? AND id = ?", organizationID, id).Pluck("id", &ids).Error
		if err != nil {
			return fmt.Errorf("lock booking type: %w", err)
		}
		var waiting int64
		err = tx.Table("bookings").Where("organization_id = ? AND type_id = ? AND status IN ('PENDING_ASSIGNMENT', 'PENDING_PAYMENT', 'PENDING_APPROVAL')",
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
		return tx.Audit(organizationID, "deleteType", "type", id)
	})
}

func markDeleted(tx *store.Tx, model any, organizationID, id string, code models.Code, what string) error {
	done := tx.Model(model).Where("organization_id = ? AND id = ? AND deleted_at IS NULL", organizationID, id).
		Update("deleted_at", tx.Now)
	if done.Error != nil {
		return fmt.Errorf("delete %s: %w", what, done.Error)
	}
	if done.RowsAffected == 0 {
		return models.Errorf(code, "There is no such %s in the organization.", what)
	}
	return nil
}

// CreateDisplay makes a waiting-room screen and returns its token, which is
// kept only as a hash and can't be shown again.
func (c *Catalog) CreateDisplay(ctx context.Context, d *models.Display, token string) error {
	if strings.TrimSpace(d.Name) == "" {
		return models.Invalid("name", "A display needs a name.")
	}
	for _, id := range d.ResourceIDs {
		if _, err := c.Resource(ctx, d.OrganizationID, id); err != nil {
			return err
		}
	}
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		d.ID, d.CreatedAt, d.TokenHash = models.NewID(), tx.Now, models.HashSecret(token)
		if err := tx.Create(d).Error; err != nil {
			return fmt.Errorf("make a display: %w", err)
		}
		return tx.Audit(d.OrganizationID, "createDisplay", "display", d.ID)
	})
}

// Displays lists the screens of an organization.
func (c *Catalog) Displays(ctx context.Context, organizationID string, page store.Page) ([]models.Display, error) {
	var list []models.Display
	err := page.Apply(c.store.Read(ctx).Where("organization_id = ?", organizationID)).Find(&list).Error
	return list, err
}

// Display finds a display by its id.
func (c *Catalog) Display(ctx context.Context, organizationID, id string) (*models.Display, error) {
	var d models.Display
	err := c.store.Read(ctx).Where("organization_id = ? AND id = ?", organizationID, id).Take(&d).Error
	return found(&d, err, models.CodeDisplayMissing, "display")
}

// DeleteDisplay removes a display; its token is worthless from then on.
func (c *Catalog) DeleteDisplay(ctx context.Context, organizationID, id string) error {
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		done := tx.Where("organization_id = ? AND id = ?", organizationID, id).Delete(&models.Display{})
		if done.Error == nil && done.RowsAffected == 0 {
			return models.Errorf(models.CodeDisplayMissing, "There is no such display in the organization.")
		}
		if done.Error != nil {
			return fmt.Errorf("delete display: %w", done.Error)
		}
		if err := tx.Revoke(store.RevokedDisplay, id); err != nil {
			return err
		}
		return tx.Audit(organizationID, "deleteDisplay", "display", id)
	})
}
