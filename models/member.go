package models

import "time"

// Role is the role of a member. It decides the member's rights.
type Role string

// The roles of members.
const (
	RoleOwner        Role = "owner"
	RoleAdmin        Role = "admin"
	RoleProvider     Role = "provider"
	RoleReceptionist Role = "receptionist"
	RoleScreen       Role = "screen" // shows displays, and sees nothing else
)

// Valid reports whether r is a role.
func (r Role) Valid() bool {
	switch r {
	case RoleOwner, RoleAdmin, RoleProvider, RoleReceptionist, RoleScreen:
		return true
	}
	return false
}

// Member is a person who works for an organization.
type Member struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Role           Role
	Phone          *string
	Email          *string
	FirstName      string
	LastName       string
	CreatedAt      time.Time

	ResourceIDs []string `gorm:"-"` // those they act for
	// ViewConfirmed and ViewRequests are resources whose bookings a provider may also
	// see: those assigned to one, and those that wait for one.
	ViewConfirmed, ViewRequests []string `gorm:"-"`
}
