package catalog

import (
	"context"
	"fmt"

	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

// ReplaceFeed gives the calendar feed of a resource a token, which is kept only as a hash.
// The token before it is refused from then on. It fails with CodeResourceMissing.
func (c *Catalog) ReplaceFeed(ctx context.Context, organizationID, resourceID, token string) error {
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		if _, err := c.resource(tx.DB, organizationID, resourceID); err != nil {
			return err
		}
		f := models.CalendarFeed{OrganizationID: organizationID, ResourceID: resourceID, TokenHash: models.HashSecret(token), CreatedAt: tx.Now}
		key := []clause.Column{{Name: "organization_id"}, {Name: "resource_id"}}
		if err := tx.Clauses(clause.OnConflict{UpdateAll: true, Columns: key}).Create(&f).Error; err != nil {
			return fmt.Errorf("store a calendar feed: %w", err)
		}
		return tx.Audit(organizationID, "replaceCalendarFeed", "resource", resourceID)
	})
}

// DeleteFeed deletes the calendar feed of a resource. Its token is refused from then on.
// It fails with CodeFeedMissing.
func (c *Catalog) DeleteFeed(ctx context.Context, organizationID, resourceID string) error {
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		done := tx.Where("organization_id = ? AND resource_id = ?", organizationID, resourceID).Delete(&models.CalendarFeed{})
		if done.Error != nil {
			return fmt.Errorf("delete a calendar feed: %w", done.Error)
		}
		if done.RowsAffected == 0 {
			return models.Errorf(models.CodeFeedMissing, "The resource has no calendar feed.")
		}
		return tx.Audit(organizationID, "deleteCalendarFeed", "resource", resourceID)
	})
}

// Feed finds the calendar feed with a token. It fails with CodeFeedMissing if there is
// none, or if its resource or organization has been deleted.
func (c *Catalog) Feed(ctx context.Context, token string) (*models.CalendarFeed, error) {
	var f models.CalendarFeed
	err := c.store.Read(ctx).Where("token_hash = ?", models.HashSecret(token)).
		Where("EXISTS (SELECT 1 FROM resources r WHERE r.id = calendar_feeds.resource_id AND r.deleted_at IS NULL)").
		Where("EXISTS (SELECT 1 FROM organizations o WHERE o.id = calendar_feeds.organization_id AND o.deleted_at IS NULL)").Take(&f).Error
	return found(&f, err, models.CodeFeedMissing, "calendar feed")
}
