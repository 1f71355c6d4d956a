package api

import (
	"context"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/contact"
	"nowserving/booking/customers"
	"nowserving/models"
)

// Caller is the authenticated sender of a request.
type Caller struct {
	// Principal is empty in a public operation.
	access.Principal
	// OrganizationID is the organization that the request is about.
	OrganizationID string
	// Organization is what that organization offers. It is nil if the request is
	// about none.
	Organization *Organization
	// ResourceIDs are the resources that a provider acts for.
	ResourceIDs []string
	// Views are the bookings of other resources that a provider may see.
	Views access.Views
	// Lang is the language of answers: en or ar.
	Lang string
	// Address is the network address that the request comes from.
	Address string
	// Page is the page of ours that sent the request. It is nil for other clients.
	Page *Page
	// HeaderCredential is the credential in the headers. It may be invalid.
	HeaderCredential string

	pageBinding string // what page tokens of the request are valid for
}

// CallerOf returns the caller of a request that an operation handles.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(keyCaller).(Caller)
	return c
}

// Scope returns the bookings that the caller may see and change.
func (c Caller) Scope() booking.Scope {
	sc := booking.Scope{OrganizationID: c.OrganizationID}
	switch {
	case c.Kind == access.KindCustomer:
		sc.CustomerID = c.SubjectID
	case c.Kind == access.KindTicket:
		sc.BookingID = c.BookingID
	case c.Role == models.RoleProvider:
		sc.Provider, sc.Resources, sc.Confirmed, sc.Requests = true, c.ResourceIDs, c.Views.Confirmed, c.Views.Requests
	}
	return sc
}

// isStaff reports whether the caller sees what is for staff only.
func (c Caller) isStaff() bool { return Staff&RoleOf(c.Principal) != 0 }

// ShownData returns those of a customer's custom fields that the caller sees.
func (c Caller) ShownData(values models.Fields) models.Fields {
	if c.isStaff() || c.Organization == nil {
		return values
	}
	return c.Organization.CustomerFields.ShownToCustomers(values)
}

// ShownInfo is ShownData for the custom fields of a booking.
func (c Caller) ShownInfo(values models.Fields) models.Fields {
	if c.isStaff() || c.Organization == nil {
		return values
	}
	return c.Organization.BookingFields.ShownToCustomers(values)
}

// CustomerScope returns the customers that the caller may see and change.
func (c Caller) CustomerScope() customers.Scope {
	if (Staff|Customers)&RoleOf(c.Principal) == 0 {
		return customers.Scope{}
	}
	return c.Scope().Customers()
}

// International adds the country code of the caller's organization to a local phone
// number.
func (c Caller) International(phone string) string {
	if c.Organization == nil {
		return phone
	}
	return contact.International(phone, catalog.CountryOf(&c.Organization.Organization))
}
