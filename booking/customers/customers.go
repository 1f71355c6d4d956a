// Package customers keeps the records of customers: it finds or creates them, lists
// them and changes them. It knows no credentials.
package customers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/contact"
	"nowserving/booking/store"
	"nowserving/models"
)

// Customers reads the customers of every organization.
type Customers struct{ store *store.Store }

// New makes a Customers.
func New(s *store.Store) *Customers { return &Customers{s} }

// Get returns a customer in scope. It fails with CodeCustomerMissing if there is
// none.
func (c *Customers) Get(ctx context.Context, sc Scope, id string) (*models.Customer, error) {
	return sc.Find(c.store.Read(ctx), id)
}

// List lists the customers in scope, and one more than the page's limit if there
// are more.
func (c *Customers) List(ctx context.Context, sc Scope, page store.Page) ([]models.Customer, error) {
	var list []models.Customer
	if err := page.Apply(sc.limit(c.store.Read(ctx))).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list customers: %w", err)
	}
	return list, nil
}

// OfBookings returns the customers of bookings by id, erased ones included. A caller
// who may see a booking may see its customer.
func (c *Customers) OfBookings(
	ctx context.Context, organizationID string, bookings []models.Booking,
) (map[string]*models.Customer, error) {
	ids := make([]string, len(bookings))
	for i := range bookings {
		ids[i] = bookings[i].CustomerID
	}
	var list []models.Customer
	err := c.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, slices.Compact(slices.Sorted(slices.Values(ids)))).Find(&list).Error
	if err != nil {
		return nil, fmt.Errorf("read customers: %w", err)
	}
	found := make(map[string]*models.Customer, len(list))
	for i := range list {
		found[list[i].ID] = &list[i]
	}
	return found, nil
}

// Ref names a customer by id, phone number or e-mail address. If every
// field is empty, an anonymous walk-in is created.
type Ref struct {
	ID        string
	Phone     string
	Email     string
	FirstName string
	LastName  string
}

// Resolve finds a customer in scope, or creates one whose phone number
// and e-mail address no customer has yet. It fails with CodeContactTaken where a
// customer out of scope has them.
func Resolve(tx *store.Tx, sc Scope, ref Ref) (*models.Customer, error) {
	if ref.ID != "" {
		return sc.Find(tx.DB, ref.ID)
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

// NewGuest creates a customer without an address: no sign-in leads to it.
func NewGuest(tx *store.Tx, organizationID, firstName, lastName string) (*models.Customer, error) {
	c := &models.Customer{
		ID: models.NewID(), OrganizationID: organizationID, FirstName: firstName, LastName: lastName, CreatedAt: tx.Now, UpdatedAt: tx.Now,
	}
	return c, tx.Create(c).Error
}

// WithMerged returns a customer's id and those of the duplicates merged into them.
func WithMerged(db *gorm.DB, organizationID, id string) ([]string, error) {
	var duplicates []string
	err := db.Table("customers").Where("organization_id = ? AND merged_into = ?", organizationID, id).Order("id").Pluck("id", &duplicates).Error
	if err != nil {
		return nil, fmt.Errorf("find merged duplicates: %w", err)
	}
	return append([]string{id}, duplicates...), nil
}

// Empty deletes the personal data of a customer and marks the record as erased.
func Empty(tx *store.Tx, id string) error {
	err := tx.Exec(`UPDATE customers SET phone = NULL, email = NULL, claimed_phone = NULL, claimed_email = NULL, first_name = '', last_name = '',
		note = '', lang = '', data = NULL, updated_at = ?, erased_at = ? WHERE id = ?`, tx.Now, tx.Now, id).Error
	if err != nil {
		return fmt.Errorf("empty a customer: %w", err)
	}
	return nil
}
