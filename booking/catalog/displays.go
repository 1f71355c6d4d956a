package catalog

import (
	"context"
	"fmt"
	"strings"

	"nowserving/booking/store"
	"nowserving/models"
)

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
	return list, listed("displays", err)
}

// Display finds a display by its id.
func (c *Catalog) Display(ctx context.Context, organizationID, id string) (*models.Display, error) {
	var d models.Display
	err := c.store.Read(ctx).Where("organization_id = ? AND id = ?", organizationID, id).Take(&d).Error
	return found(&d, err, models.CodeDisplayMissing, "display")
}

// DeleteDisplay deletes a display. Its token is refused from then on.
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
