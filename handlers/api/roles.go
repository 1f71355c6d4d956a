package api

import (
	"nowserving/booking/access"
	"nowserving/models"
)

// Roles is a set of the kinds of credentials that may call an operation.
type Roles uint16

// The kinds of credentials.
const (
	AccountKey Roles = 1 << iota
	OrganizationKey
	Owner
	Admin
	Receptionist
	Provider
	Screen
	Customer
	Ticket
	Display

	// Public operations need no credential.
	Public Roles = 0
)

// The sets that operations name.
const (
	AnyKey    = AccountKey | OrganizationKey
	Managers  = AnyKey | Owner | Admin
	Members   = Owner | Admin | Receptionist | Provider
	Staff     = AnyKey | Members
	People    = Members | Screen | Customer
	Customers = Customer
	Patients  = Customer | Ticket
)

// roleNames are the names of roles in the API reference.
var roleNames = []struct {
	role Roles
	name string
}{
	{AccountKey, "account key"}, {OrganizationKey, "organization key"}, {Owner, "owner"}, {Admin, "admin"},
	{Receptionist, "receptionist"}, {Provider, "provider"}, {Screen, "screen"}, {Customer, "customer"}, {Ticket, "ticket"}, {Display, "display"},
}

func (r Roles) names() []string {
	names := []string{}
	for _, n := range roleNames {
		if r&n.role != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// RoleOf returns the kind of a principal's credential.
func RoleOf(p access.Principal) Roles {
	switch p.Kind {
	case access.KindAccount:
		return AccountKey
	case access.KindOrganization:
		return OrganizationKey
	case access.KindCustomer:
		return Customer
	case access.KindTicket:
		return Ticket
	case access.KindDisplay:
		return Display
	case access.KindMember:
		switch p.Role {
		case models.RoleOwner:
			return Owner
		case models.RoleAdmin:
			return Admin
		case models.RoleReceptionist:
			return Receptionist
		case models.RoleProvider:
			return Provider
		case models.RoleScreen:
			return Screen
		}
	}
	return Public
}
