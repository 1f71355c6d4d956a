package access

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/contact"
	"nowserving/booking/store"
	"nowserving/models"
)

// CustomerScope limits which customers a caller may reach. Every query for
// customers takes one. The zero CustomerScope reaches no customer.
type CustomerScope struct {
	organizationID string
	customerID     string
	bookings       func(*gorm.DB) *gorm.DB
	keepContact    bool
}

// AllCustomers reaches every customer of an organization.
func AllCustomers(organizationID string) CustomerScope {
	return CustomerScope{organizationID: organizationID}
}

// OneCustomer reaches one customer.
func OneCustomer(organizationID, id string) CustomerScope {
	return CustomerScope{organizationID: organizationID, customerID: id}
}

// CustomersWith reaches the customers who have a booking among those that
// bookings selects. Their phone numbers and e-mail addresses can't be changed:
// a provider who changed one could then sign in as the customer.
func CustomersWith(organizationID string, bookings func(*gorm.DB) *gorm.DB) CustomerScope {
	return CustomerScope{organizationID: organizationID, bookings: bookings, keepContact: true}
}

// limit narrows a query for customers to those in scope that are not erased.
func (sc CustomerScope) limit(db *gorm.DB) *gorm.DB {
	q := db.Model(&models.Customer{}).
		Where("customers.organization_id = ? AND customers.erased_at IS NULL", sc.organizationID)
	if sc.customerID != "" {
		q = q.Where("customers.id = ?", sc.customerID)
	}
	if sc.bookings != nil {
		theirs := db.Session(&gorm.Session{NewDB: true}).Table("bookings").Select("1").
			Where("bookings.organization_id = customers.organization_id AND bookings.customer_id = customers.id")
		q = q.Where("EXISTS (?)", sc.bookings(theirs))
	}
	return q
}

// find reads a customer in scope.
func (sc CustomerScope) find(db *gorm.DB, id string) (*models.Customer, error) {
	var c models.Customer
	err := sc.limit(db).Where("customers.id = ?", id).Take(&c).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeCustomerMissing, "You can reach no customer with this id.")
	}
	if err != nil {
		return nil, fmt.Errorf("read customer: %w", err)
	}
	return &c, nil
}

// Customer returns a customer in scope. It fails with CodeCustomerMissing if there is
// none.
func (a *Access) Customer(ctx context.Context, sc CustomerScope, id string) (*models.Customer, error) {
	return sc.find(a.store.Read(ctx), id)
}

// Customers lists the customers in scope, and one more than the page's limit if there
// are more.
func (a *Access) Customers(ctx context.Context, sc CustomerScope, page store.Page) ([]models.Customer, error) {
	var list []models.Customer
	if err := page.Apply(sc.limit(a.store.Read(ctx))).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list customers: %w", err)
	}
	return list, nil
}

// CustomersOf returns the customers of bookings by id, erased ones included. A caller
// who may see a booking may see its customer.
func (a *Access) CustomersOf(
	ctx context.Context, organizationID string, bookings []models.Booking,
) (map[string]*models.Customer, error) {
	ids := make([]string, len(bookings))
	for i := range bookings {
		ids[i] = bookings[i].CustomerID
	}
	var list []models.Customer
	err := a.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, distinct(ids)).Find(&list).Error
	if err != nil {
		return nil, fmt.Errorf("read customers: %w", err)
	}
	found := make(map[string]*models.Customer, len(list))
	for i := range list {
		found[list[i].ID] = &list[i]
	}
	return found, nil
}

// CustomerRef names a customer by id, phone number or e-mail address. If every
// field is empty, an anonymous walk-in is created.
type CustomerRef struct {
	ID        string
	Phone     string
	Email     string
	FirstName string
	LastName  string
}

// ResolveCustomerIn finds a customer in scope, or creates one whose phone number
// and e-mail address no customer has yet. It fails with CodeContactTaken where a
// customer out of scope has them.
func (a *Access) ResolveCustomerIn(tx *store.Tx, sc CustomerScope, ref CustomerRef) (*models.Customer, error) {
	if ref.ID != "" {
		return sc.find(tx.DB, ref.ID)
	}
	if err := models.CheckNames("customerIdentifier.", ref.FirstName, ref.LastName); err != nil {
		return nil, err
	}
	c := models.Customer{
		ID: models.NewID(), OrganizationID: sc.organizationID, FirstName: ref.FirstName, LastName: ref.LastName,
		CreatedAt: tx.Now, UpdatedAt: tx.Now,
	}
	var err error
	fields := contact.Fields{Phone: "customerIdentifier.phone", Email: "customerIdentifier.email"}
	if c.Phone, c.Email, err = contact.Both(ref.Phone, ref.Email, fields); err != nil {
		return nil, err
	}
	done := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&c)
	if done.Error != nil {
		return nil, fmt.Errorf("create customer: %w", done.Error)
	}
	if done.RowsAffected == 1 {
		return &c, nil
	}
	q := sc.limit(tx.DB)
	if c.Phone != nil {
		q = q.Where("customers.phone = ?", *c.Phone)
	} else {
		q = q.Where("customers.email = ?", *c.Email)
	}
	var known models.Customer
	err = q.Take(&known).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		// Another customer has the e-mail address, or the customer is out of scope.
		return nil, models.Errorf(models.CodeContactTaken,
			"A customer out of your reach has this phone number or e-mail address; the reception can book for them.")
	}
	if err != nil {
		return nil, fmt.Errorf("find customer: %w", err)
	}
	return &known, nil
}

// CustomerChange changes a customer. Nil fields leave their value unchanged.
type CustomerChange struct {
	Phone, Email              *string // empty: removed
	FirstName, LastName, Note *string
	Data                      models.Fields // replaced as a whole
	// Own reports that the customer makes the change. Without Code, a new address is
	// then only claimed: it is shown and written to, but does not sign in.
	Own bool
	// Code is the one-time code that was sent to the address that changes, and
	// Network a hash of the network that it came from.
	Code, Network string
}

// UpdateCustomer changes a customer in scope and returns the result. An address
// that staff change takes effect at once and ends the sessions of the customer.
// It fails with CodeContactTaken where another customer has the address, and
// with CodeForbidden where the scope does not include addresses.
func (a *Access) UpdateCustomer(
	ctx context.Context, sc CustomerScope, id string, change CustomerChange,
) (*models.Customer, error) {
	var c *models.Customer
	wrong := false
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if c, err = sc.find(a.store.Lock(tx), id); err != nil {
			return err
		}
		proved := ""
		if change.Code != "" {
			if proved, err = a.prove(tx, c, change); err != nil {
				return err
			}
			if wrong = proved == ""; wrong {
				return nil // commit the count of guesses
			}
		}
		before := *c
		if err := change.apply(c, proved); err != nil {
			return err
		}
		if sc.keepContact && !sameContacts(&before, c) {
			return models.Errorf(models.CodeForbidden,
				"You may not change a customer's phone number or e-mail address; the reception may.")
		}
		gone := left(before.Phone, before.Email, c.Phone, c.Email)
		if err := a.retire(tx, c.OrganizationID, KindCustomer, gone); err != nil {
			return err
		}
		// The sessions may belong to a stranger who had the wrong address.
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
	if err == nil && wrong || models.CodeOf(err) == models.CodeWrongCode {
		return nil, errWrongProof
	}
	if store.IsDuplicate(err) {
		return nil, models.Errorf(models.CodeContactTaken, "Another customer has this phone number or e-mail address.")
	}
	if err != nil {
		return nil, fmt.Errorf("store customer: %w", err)
	}
	return c, nil
}

func sameContacts(a, b *models.Customer) bool {
	return value(a.Phone) == value(b.Phone) && value(a.Email) == value(b.Email) &&
		value(a.ClaimedPhone) == value(b.ClaimedPhone) && value(a.ClaimedEmail) == value(b.ClaimedEmail)
}

// prove returns the new address that the code of a change was sent to, or "" if the
// code is wrong.
func (a *Access) prove(tx *store.Tx, c *models.Customer, change CustomerChange) (proved string, err error) {
	phone, email, err := contact.Both(value(change.Phone), value(change.Email), contact.Own)
	if err != nil {
		return "", err
	}
	changed := left(phone, email, c.Phone, c.Email)
	if len(changed) != 1 {
		return "", models.Invalid("code", "A code goes with the one address that it was sent to, and that changes.")
	}
	_, right, err := a.useCode(tx, c.OrganizationID, KindCustomer, changed[0], change.Code, change.Network)
	if err != nil || !right {
		return "", err
	}
	return changed[0], nil
}

// apply changes a customer. proved is an address whose code came with the change.
func (change CustomerChange) apply(c *models.Customer, proved string) error {
	for _, field := range []struct{ to, from *string }{
		{&c.FirstName, change.FirstName}, {&c.LastName, change.LastName}, {&c.Note, change.Note},
	} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	if change.Data != nil {
		c.Data = change.Data
	}
	if err := models.CheckNames("", c.FirstName, c.LastName); err != nil {
		return err
	}
	phone, email, err := contact.Both(value(change.Phone), value(change.Email), contact.Own)
	if err != nil {
		return err
	}
	known := c.Phone != nil || c.Email != nil
	if change.Phone != nil {
		change.setContact(&c.Phone, &c.ClaimedPhone, phone, proved)
	}
	if change.Email != nil {
		change.setContact(&c.Email, &c.ClaimedEmail, email, proved)
	}
	if known && c.Phone == nil && c.Email == nil {
		return models.Invalid("phone", "A phone number or an e-mail address to sign in with has to stay.")
	}
	return nil
}

// setContact changes the address that a customer signs in with, or the claimed one.
// An address that is sent back as it was shown changes neither.
func (change CustomerChange) setContact(own, claimed **string, address *string, proved string) {
	switch {
	case address == nil:
		*own, *claimed = nil, nil
	case *address == proved, !change.Own && *address != value(*claimed):
		*own, *claimed = address, nil
	case *address == value(*own):
		*claimed = nil
	default:
		*claimed = address
	}
}
