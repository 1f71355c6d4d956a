package customers

import (
	"errors"
	"fmt"

	"gorm.io/gorm"

	"nowserving/models"
)

// Scope limits which customers a caller may reach. Every query for
// customers takes one. The zero Scope reaches no customer.
type Scope struct {
	organizationID string
	customerID     string
	bookings       func(*gorm.DB) *gorm.DB
	keepContact    bool
}

// All reaches every customer of an organization.
func All(organizationID string) Scope {
	return Scope{organizationID: organizationID}
}

// One reaches one customer.
func One(organizationID, id string) Scope {
	return Scope{organizationID: organizationID, customerID: id}
}

// With reaches the customers who have a booking among those that
// bookings selects. Their phone numbers and e-mail addresses can't be changed:
// a provider who changed one could then sign in as the customer.
func With(organizationID string, bookings func(*gorm.DB) *gorm.DB) Scope {
	return Scope{organizationID: organizationID, bookings: bookings, keepContact: true}
}

// OrganizationID is the organization that the scope is within.
func (sc Scope) OrganizationID() string { return sc.organizationID }

// KeepsContact reports whether the scope does not include changes of addresses.
func (sc Scope) KeepsContact() bool { return sc.keepContact }

// limit narrows a query for customers to those in scope that are not erased.
func (sc Scope) limit(db *gorm.DB) *gorm.DB {
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

// Find reads a customer in scope. It fails with CodeCustomerMissing if there is none.
func (sc Scope) Find(db *gorm.DB, id string) (*models.Customer, error) {
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
