package access

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"

	"github.com/nyaruka/phonenumbers"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

// NormalPhone returns a phone number in the form it is stored in, E.164.
func NormalPhone(phone string) (string, error) {
	text := strings.TrimSpace(phone)
	if rest, ok := strings.CutPrefix(text, "00"); ok {
		text = "+" + rest
	}
	number, err := phonenumbers.Parse(text, "ZZ")
	if err != nil || !phonenumbers.IsPossibleNumber(number) {
		return "", models.Invalid("phoneNumber", "Give the phone number in international form, such as +966500000001.")
	}
	return phonenumbers.Format(number, phonenumbers.E164), nil
}

// NormalEmail returns an e-mail address in the form it is stored in.
func NormalEmail(email string) (string, error) {
	text := strings.ToLower(strings.TrimSpace(email))
	address, err := mail.ParseAddress(text)
	if err != nil || address.Address != text {
		return "", models.Invalid("email", "This is not an e-mail address.")
	}
	return text, nil
}

// maxName bounds a first or last name, in bytes.
const maxName = 200

// CustomerRef says which customer is meant. With everything empty it is
// somebody at the desk whom nobody has to know.
type CustomerRef struct {
	ID        string
	Phone     string
	Email     string
	FirstName string
	LastName  string
}

// ResolveCustomer finds the customer meant, or makes one.
func (a *Access) ResolveCustomer(ctx context.Context, organizationID string, ref CustomerRef) (*models.Customer, error) {
	var c *models.Customer
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		var err error
		c, err = a.ResolveCustomerIn(tx, organizationID, ref)
		return err
	})
	return c, err
}

// ResolveCustomerIn is ResolveCustomer as part of a transaction: when that
// fails, nobody was made.
func (a *Access) ResolveCustomerIn(tx *store.Tx, organizationID string, ref CustomerRef) (*models.Customer, error) {
	if ref.ID != "" {
		return customer(tx.DB, organizationID, ref.ID)
	}
	if len(ref.FirstName) > maxName || len(ref.LastName) > maxName {
		return nil, models.Invalid("firstName", "A name has at most %d bytes.", maxName)
	}
	c := models.Customer{
		ID: models.NewID(), OrganizationID: organizationID, FirstName: ref.FirstName, LastName: ref.LastName,
		CreatedAt: tx.Now, UpdatedAt: tx.Now,
	}
	var err error
	if c.Phone, c.Email, err = contacts(ref.Phone, ref.Email); err != nil {
		return nil, err
	}
	done := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&c)
	if done.Error != nil {
		return nil, fmt.Errorf("make the customer: %w", done.Error)
	}
	if done.RowsAffected == 1 {
		return &c, nil
	}
	q := tx.Where("organization_id = ?", organizationID)
	if c.Phone != nil {
		q = q.Where("phone = ?", *c.Phone)
	} else {
		q = q.Where("email = ?", *c.Email)
	}
	var known models.Customer
	err = q.Take(&known).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		// The phone is new, so it is the e-mail address that is known.
		return nil, models.Errorf(models.CodeContactTaken, "Another customer has this e-mail address.")
	}
	if err != nil {
		return nil, fmt.Errorf("find the customer: %w", err)
	}
	return &known, nil
}

// contacts are a phone number and an e-mail address in the form they are stored
// in; nil where there is none.
func contacts(phone, email string) (p, e *string, err error) {
	if phone != "" {
		normal, err := NormalPhone(phone)
		if err != nil {
			return nil, nil, err
		}
		p = &normal
	}
	if email != "" {
		normal, err := NormalEmail(email)
		if err != nil {
			return nil, nil, err
		}
		e = &normal
	}
	return p, e, nil
}

// Customer finds a customer.
func (a *Access) Customer(ctx context.Context, organizationID, id string) (*models.Customer, error) {
	return customer(a.store.Read(ctx), organizationID, id)
}

func customer(db *gorm.DB, organizationID, id string) (*models.Customer, error) {
	var c models.Customer
	err := db.Where("organization_id = ? AND id = ? AND erased_at IS NULL", organizationID, id).Take(&c).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeCustomerMissing, "There is no such customer in the organization.")
	}
	if err != nil {
		return nil, fmt.Errorf("read customer: %w", err)
	}
	return &c, nil
}

// Customers lists customers, one more than the page's limit where there are.
func (a *Access) Customers(ctx context.Context, organizationID string, page store.Page) ([]models.Customer, error) {
	var list []models.Customer
	if err := page.Apply(a.store.Read(ctx).Where("organization_id = ? AND erased_at IS NULL", organizationID)).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list customers: %w", err)
	}
	return list, nil
}

// CustomersByID returns those of the customers that exist.
func (a *Access) CustomersByID(ctx context.Context, organizationID string, ids []string) ([]models.Customer, error) {
	var list []models.Customer
	if err := a.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, ids).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("read customers: %w", err)
	}
	return list, nil
}

// ContactChange is what changes of a customer's addresses.
type ContactChange struct {
	Phone, Email *string // nil leaves it, empty clears it
	// Own says that the customer asks: what they say without proof is a claim.
	Own bool
	// Code proves the address that changes; it went there.
	Code string
}

// UpdateCustomer stores a changed profile. Staff say what is so, and whoever
// signed in with an address they take away has to sign in again; a customer
// changes the address they sign in with by the code that went to the new one, or
// only claims it. It fails with CodeContactTaken where somebody else is known by
// the address, which a mere claim never tells.
func (a *Access) UpdateCustomer(ctx context.Context, c *models.Customer, change ContactChange) error {
	if len(c.FirstName) > maxName || len(c.LastName) > maxName {
		return models.Invalid("firstName", "A name has at most %d bytes.", maxName)
	}
	proved, err := a.prove(ctx, c, change)
	if err != nil {
		return err
	}
	known := c.Phone != nil || c.Email != nil
	if err := change.apply(&c.Phone, &c.ClaimedPhone, change.Phone, proved, NormalPhone); err != nil {
		return err
	}
	if err := change.apply(&c.Email, &c.ClaimedEmail, change.Email, proved, NormalEmail); err != nil {
		return err
	}
	if known && c.Phone == nil && c.Email == nil {
		return models.Invalid("phone", "A phone number or an e-mail address to sign in with has to stay.")
	}
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		before, err := customer(a.store.Lock(tx), c.OrganizationID, c.ID)
		if err != nil {
			return err // erased meanwhile
		}
		gone := left(before.Phone, before.Email, c.Phone, c.Email)
		if err := a.retire(tx, c.OrganizationID, KindCustomer, gone); err != nil {
			return err
		}
		// Whoever signed in with an address that the desk corrects may be a stranger.
		if !change.Own && len(gone) > 0 {
			if err := a.EndSessions(tx, c.OrganizationID, KindCustomer, c.ID); err != nil {
				return err
			}
		}
		c.UpdatedAt = tx.Now
		if err := tx.Save(c).Error; err != nil {
			return err
		}
		return tx.Audit(c.OrganizationID, "updateCustomer", "customer", c.ID)
	})
	if store.IsDuplicate(err) {
		return models.Errorf(models.CodeContactTaken, "Another customer has this phone number or e-mail address.")
	}
	if err != nil {
		return fmt.Errorf("store customer: %w", err)
	}
	return nil
}

// prove returns the new address that the code of a change went to; "" without
// one.
func (a *Access) prove(ctx context.Context, c *models.Customer, change ContactChange) (proved string, err error) {
	if change.Code == "" {
		return "", nil
	}
	phone, email, err := contacts(value(change.Phone), value(change.Email))
	if err != nil {
		return "", err
	}
	changed := left(phone, email, c.Phone, c.Email)
	if len(changed) != 1 {
		return "", models.Invalid("code", "A code goes with the one address that it was sent to, and that changes.")
	}
	right := false
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		_, right, err = a.useCode(tx, c.OrganizationID, KindCustomer, changed[0], change.Code)
		return err
	})
	if err == nil && !right || models.CodeOf(err) == models.CodeWrongCode {
		err = models.Invalid("code", "The code is wrong, used or expired.")
	}
	return changed[0], err
}

// apply changes one address of a customer, of which own is known and claimed is
// what they say. Who merely sends back what was shown vouches for nothing.
func (change ContactChange) apply(own, claimed **string, text *string, proved string, normal func(string) (string, error)) error {
	if text == nil {
		return nil
	}
	if *text == "" {
		*own, *claimed = nil, nil
		return nil
	}
	address, err := normal(*text)
	if err != nil {
		return err
	}
	switch {
	case address == proved, !change.Own && address != value(*claimed):
		*own, *claimed = &address, nil
	case address == value(*own):
		*claimed = nil
	default:
		*claimed = &address
	}
	return nil
}

// EnsureProvider finds the member with a phone number or e-mail address, or
// makes one who is a provider (providerPhone, providerEmail of a resource).
func (a *Access) EnsureProvider(ctx context.Context, organizationID, phone, email string) (string, error) {
	m := models.Member{ID: models.NewID(), OrganizationID: organizationID, Role: models.RoleProvider}
	var err error
	if m.Phone, m.Email, err = contacts(phone, email); err != nil {
		return "", err
	}
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		known, err := a.memberByContact(tx.DB, organizationID, value(m.Phone), value(m.Email))
		if err == nil {
			m = *known
			return nil
		}
		if models.CodeOf(err) != models.CodeUnauthenticated {
			return err
		}
		m.CreatedAt = tx.Now
		if err := tx.Create(&m).Error; err != nil {
			return err
		}
		return tx.Audit(organizationID, "createMember", "member", m.ID)
	})
	if err != nil {
		return "", fmt.Errorf("find or make the provider: %w", err)
	}
	return m.ID, nil
}

// memberByContact finds a member, or says CodeUnauthenticated.
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

// Member finds a member.
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
