package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gorm.io/gorm"

	"nowserving/booking/contact"
	"nowserving/booking/store"
	"nowserving/models"
)

// MemberChange changes a member. Nil fields stay unchanged.
type MemberChange struct {
	Role      *models.Role
	Phone     *string // empty: none
	Email     *string
	FirstName *string
	LastName  *string
	// ResourceIDs are the resources that the member acts for. A resource has one
	// provider; naming it here removes it from the previous one.
	ResourceIDs *[]string
	// ViewConfirmed and ViewRequests are resources whose bookings a provider may also
	// see, without acting for them.
	ViewConfirmed, ViewRequests *[]string
}

// maxMemberResources bounds the resources one member acts for.
const maxMemberResources = 200

// Members lists the members of an organization, with the resources they act for.
func (a *Access) Members(ctx context.Context, organizationID string, page store.Page) ([]models.Member, error) {
	var list []models.Member
	db := a.store.Read(ctx)
	if err := page.Apply(db.Where("organization_id = ?", organizationID)).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	return list, withResources(db, list)
}

func withResources(db *gorm.DB, members []models.Member) error {
	ids := make([]string, len(members))
	at := make(map[string]*models.Member, len(members))
	for i := range members {
		ids[i], at[members[i].ID] = members[i].ID, &members[i]
		members[i].ResourceIDs = []string{}
	}
	var rows []struct{ ID, ProviderID string }
	err := db.Model(&models.Resource{}).Select("id, provider_id").Where("provider_id IN ? AND deleted_at IS NULL", ids).Order("id").Find(&rows).Error
	if err != nil {
		return fmt.Errorf("read the resources of members: %w", err)
	}
	for _, row := range rows {
		m := at[row.ProviderID]
		m.ResourceIDs = append(m.ResourceIDs, row.ID)
	}
	all, err := views(db.Where("v.member_id IN ?", ids))
	for i := range members {
		v := all[members[i].ID]
		members[i].ViewConfirmed, members[i].ViewRequests = notNil(v.Confirmed), notNil(v.Requests)
	}
	return err
}

// CreateMember makes a member as change describes. by is the caller: only owners, and
// keys that an owner or the account made, make owners.
func (a *Access) CreateMember(ctx context.Context, by Principal, organizationID string, change MemberChange) (*models.Member, error) {
	m := &models.Member{ID: models.NewID(), OrganizationID: organizationID}
	if err := change.apply(m); err != nil {
		return nil, err
	}
	if err := by.mayTouch(m.Role); err != nil {
		return nil, err
	}
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		m.CreatedAt = tx.Now
		if err := tx.Create(m).Error; err != nil {
			return fmt.Errorf("create member: %w", err)
		}
		if err := setResources(tx, m, change.ResourceIDs); err != nil {
			return err
		}
		if err := setViews(tx, m, change.ViewConfirmed, change.ViewRequests); err != nil {
			return err
		}
		return tx.Audit(organizationID, "createMember", "member", m.ID)
	})
	return m, memberTaken(err)
}

// UpdateMember changes a member. A member whose role or address changes has to sign in
// again.
func (a *Access) UpdateMember(ctx context.Context, by Principal, organizationID, id string, change MemberChange) (*models.Member, error) {
	var m *models.Member
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		if err := a.lockMembers(tx, organizationID); err != nil {
			return err
		}
		var err error
		if m, err = memberToChange(tx, by, organizationID, id); err != nil {
			return err
		}
		before := *m
		if err := change.apply(m); err != nil {
			return err
		}
		if m.Role != before.Role {
			if err := by.mayTouch(m.Role); err != nil {
				return err
			}
			if err := keepOwner(tx, &before); err != nil {
				return err
			}
		}
		if err := tx.Save(m).Error; err != nil {
			return fmt.Errorf("store member: %w", err)
		}
		if err := setResources(tx, m, change.ResourceIDs); err != nil {
			return err
		}
		if err := setViews(tx, m, change.ViewConfirmed, change.ViewRequests); err != nil {
			return err
		}
		if err := a.retire(tx, organizationID, KindMember, left(before.Phone, before.Email, m.Phone, m.Email)); err != nil {
			return err
		}
		if m.Role != before.Role { // what their API keys may do changes too
			if err := tx.Revoke(store.ChangedMember, id); err != nil {
				return err
			}
		}
		if m.Role != before.Role || models.Text(m.Phone) != models.Text(before.Phone) || models.Text(m.Email) != models.Text(before.Email) {
			if err := a.EndSessions(tx, organizationID, KindMember, id); err != nil {
				return err
			}
		}
		return tx.Audit(organizationID, "updateMember", "member", id)
	})
	return m, memberTaken(err)
}

// DeleteMember deletes a member, ends their sessions and devices, and takes the
// scope admin from the API keys they made. Their resources have no provider then.
func (a *Access) DeleteMember(ctx context.Context, by Principal, organizationID, id string) error {
	if by.Kind == KindMember && by.SubjectID == id {
		return models.Errorf(models.CodeMemberSelf, "You can't delete yourself.")
	}
	return a.store.Tx(ctx, func(tx *store.Tx) error {
		if err := a.lockMembers(tx, organizationID); err != nil {
			return err
		}
		m, err := memberToChange(tx, by, organizationID, id)
		if err != nil {
			return err
		}
		if err := keepOwner(tx, m); err != nil {
			return err
		}
		if err := a.EndSessions(tx, organizationID, KindMember, id); err != nil {
			return err
		}
		if err := tx.Revoke(store.ChangedMember, id); err != nil { // their API keys lose the scope admin
			return err
		}
		if err := a.retire(tx, organizationID, KindMember, left(m.Phone, m.Email, nil, nil)); err != nil {
			return err
		}
		// A deleted resource may name them still.
		if err := tx.Exec("UPDATE resources SET provider_id = NULL, updated_at = ? WHERE organization_id = ? AND provider_id = ?", tx.Now, organizationID, id).Error; err != nil {
			return fmt.Errorf("take a member's resources away: %w", err)
		}
		if err := tx.Delete(m).Error; err != nil {
			return fmt.Errorf("delete member: %w", err)
		}
		return tx.Audit(organizationID, "deleteMember", "member", id)
	})
}

func (change MemberChange) apply(m *models.Member) error {
	if change.Role != nil {
		m.Role = *change.Role
	}
	if !m.Role.Valid() {
		return models.Invalid("role", "A member is owner, admin, provider, receptionist or screen.")
	}
	phone, email := models.Text(m.Phone), models.Text(m.Email)
	if change.Phone != nil {
		phone = *change.Phone
	}
	if change.Email != nil {
		email = *change.Email
	}
	var err error
	if m.Phone, m.Email, err = contact.Both(phone, email, contact.Own); err != nil {
		return err
	}
	if m.Phone == nil && m.Email == nil {
		return models.Invalid("phone", "A member needs a phone number or an e-mail address to sign in with.")
	}
	if change.FirstName != nil {
		m.FirstName = *change.FirstName
	}
	if change.LastName != nil {
		m.LastName = *change.LastName
	}
	if err := models.CheckNames("", m.FirstName, m.LastName); err != nil {
		return err
	}
	for field, ids := range map[string]*[]string{"resources": change.ResourceIDs, "viewConfirmed": change.ViewConfirmed, "viewRequests": change.ViewRequests} {
		if ids != nil && len(*ids) > maxMemberResources {
			return models.Invalid(field, "A member has at most %d resources.", maxMemberResources)
		}
	}
	return nil
}

// mayTouch refuses to let those who are less make, change or delete owners.
func (p Principal) mayTouch(role models.Role) error {
	if role == models.RoleOwner && p.Role != "" && p.Role != models.RoleOwner {
		return models.Errorf(models.CodeForbidden, "Only an owner may make, change or delete owners.")
	}
	return nil
}

// lockMembers keeps others from changing the members of an organization until
// the transaction ends, so that two owners can't delete each other.
func (a *Access) lockMembers(tx *store.Tx, organizationID string) error {
	var o models.Organization
	if err := a.store.Lock(tx).Select("id").Where("id = ?", organizationID).Take(&o).Error; err != nil {
		return fmt.Errorf("lock the members: %w", err)
	}
	return nil
}

func memberToChange(tx *store.Tx, by Principal, organizationID, id string) (*models.Member, error) {
	var m models.Member
	err := tx.Where("organization_id = ? AND id = ?", organizationID, id).Take(&m).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeMemberMissing, "There is no such member in the organization.")
	}
	if err != nil {
		return nil, fmt.Errorf("read member: %w", err)
	}
	return &m, by.mayTouch(m.Role)
}

// keepOwner refuses to take away the last owner.
func keepOwner(tx *store.Tx, m *models.Member) error {
	if m.Role != models.RoleOwner {
		return nil
	}
	var others int64
	err := tx.Model(m).Where("organization_id = ? AND role = ? AND id <> ?", m.OrganizationID, models.RoleOwner, m.ID).Count(&others).Error
	if err != nil {
		return fmt.Errorf("count owners: %w", err)
	}
	if others == 0 {
		return models.Errorf(models.CodeLastOwner, "They are the only owner of the organization.")
	}
	return nil
}

// setResources makes a member act for the resources given, and no others; nil
// leaves them as they are. m.ResourceIDs says which they are then.
func setResources(tx *store.Tx, m *models.Member, ids *[]string) error {
	if ids == nil {
		list := []models.Member{*m}
		err := withResources(tx.DB, list)
		m.ResourceIDs = list[0].ResourceIDs
		return err
	}
	var rows []models.Resource
	err := tx.Select("id, provider_id").Where("organization_id = ? AND deleted_at IS NULL AND (provider_id = ? OR id IN ?)", m.OrganizationID, m.ID, *ids).
		Find(&rows).Error
	if err != nil {
		return fmt.Errorf("read who acts for resources: %w", err)
	}
	for _, id := range *ids {
		if !slices.ContainsFunc(rows, func(r models.Resource) bool { return r.ID == id }) {
			return models.Errorf(models.CodeResourceMissing, "There is no resource %q in the organization.", id)
		}
	}
	m.ResourceIDs = []string{}
	changed := map[string]bool{}
	for _, r := range rows {
		wanted, has := slices.Contains(*ids, r.ID), models.Text(r.ProviderID)
		if wanted {
			m.ResourceIDs = append(m.ResourceIDs, r.ID)
		}
		if wanted == (has == m.ID) {
			continue
		}
		provider := &m.ID
		if !wanted {
			provider = nil
		}
		if err := tx.Model(&r).Updates(map[string]any{"provider_id": provider, "updated_at": tx.Now}).Error; err != nil {
			return fmt.Errorf("change who acts for a resource: %w", err)
		}
		changed[m.ID], changed[has] = true, true
	}
	slices.Sort(m.ResourceIDs)
	delete(changed, "") // no provider acted for it
	for id := range changed {
		if err := tx.Revoke(store.ChangedMember, id); err != nil {
			return err
		}
	}
	return nil
}

func memberTaken(err error) error {
	if store.IsDuplicate(err) {
		return models.Errorf(models.CodeMemberTaken, "Another member has this phone number or e-mail address.")
	}
	return err
}

// EnsureProvider returns the member with a phone number or e-mail address, as
// part of a transaction. If there is none, it creates one with the role provider.
func (a *Access) EnsureProvider(tx *store.Tx, organizationID, phone, email string) (string, error) {
	m := models.Member{ID: models.NewID(), OrganizationID: organizationID, Role: models.RoleProvider, CreatedAt: tx.Now}
	var err error
	if m.Phone, m.Email, err = contact.Both(phone, email, contact.Fields{Phone: "providerPhone", Email: "providerEmail"}); err != nil {
		return "", err
	}
	known, err := a.memberByContact(tx.DB, organizationID, models.Text(m.Phone), models.Text(m.Email))
	if err == nil {
		return known.ID, nil
	}
	if models.CodeOf(err) != models.CodeUnauthenticated {
		return "", err
	}
	if err := tx.Create(&m).Error; err != nil {
		return "", fmt.Errorf("create member: %w", memberTaken(err))
	}
	return m.ID, tx.Audit(organizationID, "createMember", "member", m.ID)
}

// memberByContact finds a member by address. It fails with CodeUnauthenticated.
func (a *Access) memberByContact(db *gorm.DB, organizationID, phone, email string) (*models.Member, error) {
	var m models.Member
	err := db.Where("organization_id = ? AND (phone = ? OR email = ?)", organizationID, phone, email).Order("id").Take(&m).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeUnauthenticated, "Nobody of the organization has this phone number or e-mail address.")
	}
	if err != nil {
		return nil, fmt.Errorf("read member: %w", err)
	}
	return &m, nil
}

// Member returns a member. It fails with CodeMemberMissing if there is none.
func (a *Access) Member(ctx context.Context, organizationID, id string) (*models.Member, error) {
	return member(a.store.Read(ctx), organizationID, id)
}

func member(db *gorm.DB, organizationID, id string) (*models.Member, error) {
	var m models.Member
	err := db.Where("organization_id = ? AND id = ?", organizationID, id).Take(&m).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeUnauthenticated, "The member is gone; sign in again.")
	}
	if err != nil {
		return nil, fmt.Errorf("read member: %w", err)
	}
	return &m, nil
}
