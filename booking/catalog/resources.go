package catalog

import (
	"context"
	"fmt"
	"strings"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// maxTypesPerResource bounds how many types one resource serves.
const maxTypesPerResource = 200

// Resource finds a resource that is not deleted, with the ids of its types.
func (c *Catalog) Resource(ctx context.Context, organizationID, id string) (*models.Resource, error) {
	return c.resource(c.store.Read(ctx), organizationID, id)
}

func (c *Catalog) resource(db *gorm.DB, organizationID, id string) (*models.Resource, error) {
	var r models.Resource
	err := db.Where("organization_id = ? AND id = ? AND deleted_at IS NULL", organizationID, id).Take(&r).Error
	if _, err := found(&r, err, models.CodeResourceMissing, "resource"); err != nil {
		return nil, err
	}
	list := []models.Resource{r}
	return &list[0], withTypes(db, list)
}

// ResourceFilter narrows a list of resources.
type ResourceFilter struct {
	OnlyActive bool
	TypeID     string // only those that serve it
	ProviderID string // only those the member acts for
	IDs        []string
	Category   string
}

// Resources lists resources with the ids of their types.
func (c *Catalog) Resources(ctx context.Context, organizationID string, f ResourceFilter, page store.Page) ([]models.Resource, error) {
	db := c.store.Read(ctx)
	q := db.Where("organization_id = ? AND deleted_at IS NULL", organizationID)
	if f.OnlyActive {
		q = q.Where("is_on AND activated")
	}
	if f.TypeID != "" {
		q = q.Where("EXISTS (SELECT 1 FROM resource_types rt WHERE rt.resource_id = resources.id AND rt.type_id = ?)", f.TypeID)
	}
	if f.ProviderID != "" {
		q = q.Where("provider_id = ?", f.ProviderID)
	}
	if len(f.IDs) > 0 {
		q = q.Where("id IN ?", f.IDs)
	}
	if f.Category != "" {
		q = q.Where("category = ?", f.Category)
	}
	var list []models.Resource
	if err := page.Apply(q).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list resources: %w", err)
	}
	return list, withTypes(db, list)
}

// ResourcesByID returns those of the resources that exist or once did, without
// their types: a past booking still shows the name of a deleted resource.
func (c *Catalog) ResourcesByID(ctx context.Context, organizationID string, ids []string) ([]models.Resource, error) {
	var list []models.Resource
	err := c.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, ids).Find(&list).Error
	return list, listed("resources", err)
}

func withTypes(db *gorm.DB, list []models.Resource) error {
	ids := make([]string, len(list))
	at := make(map[string]*models.Resource, len(list))
	for i := range list {
		ids[i], at[list[i].ID] = list[i].ID, &list[i]
		list[i].TypeIDs = []string{}
	}
	var rows []struct{ ResourceID, TypeID string }
	err := db.Table("resource_types").Select("resource_id, type_id").Where("resource_id IN ?", ids).
		Order("resource_id, type_id").Find(&rows).Error
	if err != nil {
		return fmt.Errorf("read the types of resources: %w", err)
	}
	for _, row := range rows {
		r := at[row.ResourceID]
		r.TypeIDs = append(r.TypeIDs, row.TypeID)
	}
	return nil
}

// ResourceChange changes a resource within the transaction that stores it. If it
// fails, nothing is stored.
type ResourceChange func(tx *store.Tx, r *models.Resource) error

// CreateResource creates an active resource as change describes it.
func (c *Catalog) CreateResource(ctx context.Context, organizationID string, change ResourceChange) (*models.Resource, error) {
	r := &models.Resource{OrganizationID: organizationID, On: true, Activated: true, BookFromWebsite: true, TypeIDs: []string{}}
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		if err := change(tx, r); err != nil {
			return err
		}
		r.ID, r.CreatedAt, r.UpdatedAt = models.NewID(), tx.Now, tx.Now
		if err := tx.Create(r).Error; err != nil {
			return fmt.Errorf("create resource: %w", err)
		}
		return saveTypes(tx, r, "createResource")
	})
	if err != nil {
		return nil, err
	}
	c.announce(ctx, organizationID)
	return r, nil
}

// UpdateResource changes a resource. Bookings that match it now enter its queue
// at their join sequence; those that no longer do leave it.
func (c *Catalog) UpdateResource(ctx context.Context, organizationID, id string, change ResourceChange) (*models.Resource, error) {
	var r *models.Resource
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		// Locked first, so that concurrent changes are not lost.
		before, err := c.lockProvider(tx, organizationID, id)
		if err != nil {
			return err
		}
		if r, err = c.resource(tx.DB, organizationID, id); err != nil {
			return err
		}
		if err := change(tx, r); err != nil {
			return err
		}
		r.UpdatedAt = tx.Now
		if err := tellProvider(tx, before, r.ProviderID); err != nil {
			return err
		}
		// Only SetPaused pauses, so that an update can't undo it by accident.
		if err := tx.Omit("paused", "created_at").Save(r).Error; err != nil {
			return fmt.Errorf("store resource: %w", err)
		}
		return saveTypes(tx, r, "updateResource")
	})
	if err != nil {
		return nil, err
	}
	c.announce(ctx, organizationID)
	return r, nil
}

// lockProvider locks a resource and returns its provider.
func (c *Catalog) lockProvider(tx *store.Tx, organizationID, id string) (*string, error) {
	var r models.Resource
	err := c.store.Lock(tx).Select("id, provider_id").Where("organization_id = ? AND id = ?", organizationID, id).Take(&r).Error
	_, err = found(&r, err, models.CodeResourceMissing, "resource")
	return r.ProviderID, err
}

// tellProvider tells the former provider of a resource that another one, or
// none, acts for it.
func tellProvider(tx *store.Tx, before, next *string) error {
	if before == nil || next != nil && *next == *before {
		return nil
	}
	return tx.Revoke(store.ChangedMember, *before)
}

// saveTypes stores the types that a resource serves, and the line of the audit.
func saveTypes(tx *store.Tx, r *models.Resource, action string) error {
	if strings.TrimSpace(r.Name) == "" {
		return models.Invalid("name", "A resource needs a name.")
	}
	if len(r.TypeIDs) > maxTypesPerResource {
		return models.Invalid("types", "A resource serves at most %d types.", maxTypesPerResource)
	}
	if err := tx.Exec("DELETE FROM resource_types WHERE resource_id = ?", r.ID).Error; err != nil {
		return fmt.Errorf("save the types of a resource: %w", err)
	}
	for _, id := range r.TypeIDs {
		var known int64
		err := tx.Model(&models.BookingType{}).Where("organization_id = ? AND id = ? AND deleted_at IS NULL", r.OrganizationID, id).Count(&known).Error
		if err != nil {
			return fmt.Errorf("save the types of a resource: %w", err)
		}
		if known == 0 {
			return models.Invalid("types", "There is no booking type %q in the organization.", id)
		}
		err = tx.Exec("INSERT INTO resource_types (organization_id, resource_id, type_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
			r.OrganizationID, r.ID, id).Error
		if err != nil {
			return fmt.Errorf("save the types of a resource: %w", err)
		}
	}
	return tx.Audit(r.OrganizationID, action, "resource", r.ID)
}

// DeleteResource deletes a resource. A booking that waited for it alone keeps a
// position, among the bookings of the same type. before is called first, while the
// resource is locked, and can refuse.
func (c *Catalog) DeleteResource(ctx context.Context, organizationID, id string, before func(tx *store.Tx) error) error {
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		provider, err := c.lockProvider(tx, organizationID, id)
		if err != nil {
			return err
		}
		if err := before(tx); err != nil {
			return err
		}
		if err := markDeleted(tx, &models.Resource{}, organizationID, id, models.CodeResourceMissing, "resource"); err != nil {
			return err
		}
		if err := tellProvider(tx, provider, nil); err != nil {
			return err
		}
		return tx.Audit(organizationID, "deleteResource", "resource", id)
	})
	if err != nil {
		return err
	}
	c.announce(ctx, organizationID)
	return nil
}

// SetPaused pauses or resumes a resource's queue.
func (c *Catalog) SetPaused(ctx context.Context, organizationID, id string, paused bool) (*models.Resource, error) {
	var r *models.Resource
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		done := tx.Model(&models.Resource{}).Where("organization_id = ? AND id = ? AND deleted_at IS NULL", organizationID, id).
			Updates(map[string]any{"paused": paused, "updated_at": tx.Now})
		if done.Error != nil {
			return fmt.Errorf("pause resource: %w", done.Error)
		}
		var err error
		if r, err = c.resource(tx.DB, organizationID, id); err != nil {
			return err
		}
		action := "resumeQueue"
		if paused {
			action = "pauseQueue"
		}
		return tx.Audit(organizationID, action, "resource", id)
	})
	return r, err
}
