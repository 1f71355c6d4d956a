// Package catalog keeps what an organization offers: the organization itself,
// its resources, its booking types and its displays.
//
// Which callers may change the catalogue is decided in handlers. After a change that
// moves waiting bookings between queues, the function set by OnChange is called, which
// updates the queue index.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
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

// New makes a Catalog.
func New(s *store.Store) *Catalog { return &Catalog{store: s} }

// OnChange sets the function that is called after each committed change of which
// bookings match which resources. Call it before the first change. changed returns no
// error, because the change is committed: it logs its failures, and the background
// comparison repairs the index within seconds.
func (c *Catalog) OnChange(changed func(ctx context.Context, organizationID string)) {
	c.changed = changed
}

// announceTimeout bounds changed.
const announceTimeout = 5 * time.Second

// announce calls changed after a commit, apart from the request's deadline.
func (c *Catalog) announce(ctx context.Context, organizationID string) {
	if c.changed == nil {
		return
	}
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

// listed wraps the error of a list with its name.
func listed(what string, err error) error {
	if err != nil {
		return fmt.Errorf("list %s: %w", what, err)
	}
	return nil
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

var prefixPattern = regexp.MustCompile(`^[A-Z]{1,3}$`)

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
