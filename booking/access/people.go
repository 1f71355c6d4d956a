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
	if err := setContact(&c, ref.Phone, ref.Email); err != nil {
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
	err := q.Take(&known).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		// The phone is new, so it is the e-mail address that is known.
		return nil, models.Errorf(models.CodeContactTaken, "Another customer has this e-mail address.")
	}
	if err != nil {
		return nil, fmt.Errorf("find the customer: %w", err)
	}
	return &known, nil
}

func setContact(c *models.Customer, phone, email string) error {
	var err error
	c.Phone, c.Email, err = contacts(phone, email)
	return err
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

// UpdateCustomer stores a changed profile.
func (a *Access) UpdateCustomer(ctx context.Context, c *models.Customer) error {
	if len(c.FirstName) > maxName || len(c.LastName) > maxName {
		return models.Invalid("firstName", "A name has at most %d bytes.", maxName)
	}
	if err := setContact(c, value(c.Phone), value(c.Email)); err != nil {
		return err
	}
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		before, err := customer(a.store.Lock(tx), c.OrganizationID, c.ID)
		if err != nil {
			return err // erased meanwhile
		}
		if err := a.retire(tx, c.OrganizationID, KindCustomer, left(before.Phone, before.Email, c.Phone, c.Email)); err != nil {
			return err
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
