package access

import (
	"context"
	"fmt"
	"slices"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// Views are resources whose bookings a provider may see without acting for them.
type Views struct {
	Confirmed []string // the bookings these have taken
	Requests  []string // the bookings that wait for these
}

type view struct {
	OrganizationID string
	MemberID       string
	ResourceID     string
	Confirmed      bool
	Requests       bool
}

func (view) TableName() string { return "member_views" }

// maxViews bounds the views that are read of one organization.
const maxViews = 10000

// Views returns the views of the members of an organization, by member.
func (a *Access) Views(ctx context.Context, organizationID string) (map[string]Views, error) {
	return views(a.store.Read(ctx).Where("v.organization_id = ?", organizationID))
}

func views(q *gorm.DB) (map[string]Views, error) {
	var rows []view
	err := q.Table("member_views v").Select("v.*").Joins("JOIN resources r ON r.id = v.resource_id AND r.deleted_at IS NULL").
		Order("v.resource_id").Limit(maxViews).Find(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read what members may look at: %w", err)
	}
	all := map[string]Views{}
	for _, row := range rows {
		v := all[row.MemberID]
		if row.Confirmed {
			v.Confirmed = append(v.Confirmed, row.ResourceID)
		}
		if row.Requests {
			v.Requests = append(v.Requests, row.ResourceID)
		}
		all[row.MemberID] = v
	}
	return all, nil
}

// Reach reads the resources that a member acts for, and their Views.
func (a *Access) Reach(ctx context.Context, organizationID, memberID string) ([]string, Views, error) {
	db := a.store.Read(ctx)
	resources, err := resourcesOf(db, organizationID, memberID)
	if err != nil {
		return nil, Views{}, err
	}
	all, err := views(db.Where("v.organization_id = ? AND v.member_id = ?", organizationID, memberID))
	return resources, all[memberID], err
}

// setViews changes the Views of a member. Nil leaves them unchanged. The member's
// live clients reconnect.
func setViews(tx *store.Tx, m *models.Member, confirmed, requests *[]string) error {
	all, err := views(tx.Where("v.member_id = ?", m.ID))
	if err != nil {
		return err
	}
	v := all[m.ID]
	defer func() { m.ViewConfirmed, m.ViewRequests = notNil(v.Confirmed), notNil(v.Requests) }()
	if confirmed == nil && requests == nil {
		return nil
	}
	if confirmed != nil {
		v.Confirmed = *confirmed
	}
	if requests != nil {
		v.Requests = *requests
	}
	if err := tx.Where("member_id = ?", m.ID).Delete(&view{}).Error; err != nil {
		return fmt.Errorf("store what a member may look at: %w", err)
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(v.Confirmed, v.Requests)))) {
		var known int64
		if err := tx.Model(&models.Resource{}).Where("organization_id = ? AND id = ? AND deleted_at IS NULL", m.OrganizationID, id).Count(&known).Error; err != nil {
			return fmt.Errorf("find a resource to look at: %w", err)
		}
		if known == 0 {
			return models.Errorf(models.CodeResourceMissing, "There is no resource %q in the organization.", id)
		}
		row := view{m.OrganizationID, m.ID, id, slices.Contains(v.Confirmed, id), slices.Contains(v.Requests, id)}
		if err := tx.Create(&row).Error; err != nil {
			return fmt.Errorf("store what a member may look at: %w", err)
		}
	}
	return tx.Revoke(store.ChangedMember, m.ID)
}

// notNil returns ids, or an empty list instead of nil.
func notNil(ids []string) []string { return append([]string{}, ids...) }
