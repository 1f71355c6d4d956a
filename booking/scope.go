package booking

import (
	"fmt"
	"slices"

	"gorm.io/gorm"

	"nowserving/booking/customers"
	"nowserving/models"
)

// Scope limits the bookings that a caller may see and change.
type Scope struct {
	OrganizationID string
	// CustomerID, when set, limits to that customer's own bookings.
	CustomerID string
	// BookingID, when set, limits to that booking: the caller has its ticket,
	// and acts as its customer.
	BookingID string
	// Resources, when Provider is set, are the ones the caller acts for. Besides, the
	// caller may see the bookings assigned to Confirmed, and those that wait for
	// Requests.
	Provider                       bool
	Resources, Confirmed, Requests []string
}

// Customers returns which customers the caller may reach: for a provider, those
// with a booking that has one of their resources or waits for one.
func (sc Scope) Customers() customers.Scope {
	switch {
	case sc.BookingID != "": // a ticket does not show whose it is
		return customers.Scope{}
	case sc.CustomerID != "":
		return customers.One(sc.OrganizationID, sc.CustomerID)
	case sc.Provider:
		return customers.With(sc.OrganizationID, sc.limit)
	}
	return customers.All(sc.OrganizationID)
}

// Actor returns whether events name the customer or the staff as the actor.
func (sc Scope) Actor() models.Actor {
	if sc.CustomerID != "" || sc.BookingID != "" {
		return models.ActorCustomer
	}
	return models.ActorStaff
}

// serves reports whether the caller may act for a resource.
func (sc Scope) serves(resourceID string) bool {
	return !sc.Provider || slices.Contains(sc.Resources, resourceID)
}

// seesRequests reports whether the caller may see the bookings that wait for a
// resource.
func (sc Scope) seesRequests(resourceID string) bool {
	return sc.serves(resourceID) || slices.Contains(sc.Requests, resourceID)
}

func forbiddenResource() error {
	return models.Errorf(models.CodeForbidden, "You do not act for this resource.")
}

// limit narrows a query to the bookings that the caller may change. A provider
// changes bookings of their resources, and unassigned ones that match one of their
// resources.
func (sc Scope) limit(q *gorm.DB) *gorm.DB { return sc.within(q, sc.Resources, sc.Resources) }

// view narrows a query to the bookings that the caller may see.
func (sc Scope) view(q *gorm.DB) *gorm.DB {
	return sc.within(q, slices.Concat(sc.Resources, sc.Confirmed), slices.Concat(sc.Resources, sc.Requests))
}

func (sc Scope) within(q *gorm.DB, confirmed, requests []string) *gorm.DB {
	if sc.CustomerID != "" {
		q = q.Where("customer_id = ?", sc.CustomerID)
	}
	if sc.BookingID != "" {
		q = q.Where("id = ?", sc.BookingID)
	}
	if sc.Provider {
		some := func(ids []string) []string { return append([]string{""}, ids...) } // IN () is no SQL
		q = q.Where("(resource_id IN ? OR resource_id IS NULL AND EXISTS (SELECT 1 FROM resources r WHERE r.id IN ? AND "+matches("bookings")+"))",
			some(confirmed), some(requests))
	}
	return q
}

// mayTouch returns an error if the caller may not change a booking.
func (sc Scope) mayTouch(db *gorm.DB, b *models.Booking) error { return sc.allows(db, b, sc.limit) }

// mayView returns an error if the caller may not see a booking.
func (sc Scope) mayView(db *gorm.DB, b *models.Booking) error { return sc.allows(db, b, sc.view) }

// allows returns an error if narrow excludes a booking. To a customer, another
// customer's booking does not exist.
func (sc Scope) allows(db *gorm.DB, b *models.Booking, narrow func(*gorm.DB) *gorm.DB) error {
	if sc.CustomerID != "" && b.CustomerID != sc.CustomerID || sc.BookingID != "" && b.ID != sc.BookingID {
		return models.Errorf(models.CodeBookingNotFound, "There is no such booking in the organization.")
	}
	if !sc.Provider {
		return nil
	}
	var within int64
	if err := narrow(db.Model(&models.Booking{}).Where("seq = ?", b.Seq)).Count(&within).Error; err != nil {
		return fmt.Errorf("check a provider's scope: %w", err)
	}
	if within == 0 {
		return models.Errorf(models.CodeForbidden, "You do not act for a resource of this booking.")
	}
	return nil
}
