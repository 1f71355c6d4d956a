package models

import "time"

// Customer is a patient.
type Customer struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	// Phone (E.164) and Email (lower case) are unique in the organization. A code
	// sent to one signs in as the customer.
	Phone *string
	Email *string
	// ClaimedPhone and ClaimedEmail were entered by the customer without proof. They
	// are shown and written to in place of the others, but are not used to sign in, and
	// several customers may claim the same.
	ClaimedPhone *string
	ClaimedEmail *string
	FirstName    string
	LastName     string
	Note         string
	Lang         string // they signed in with, ar or en; empty: not yet
	Data         Fields `gorm:"serializer:json"`
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// MaxName bounds a first or last name, in bytes.
const MaxName = 200

// CheckNames refuses a first or last name that is too long. The prefix is that of
// the fields of the request.
func CheckNames(prefix, first, last string) error {
	switch {
	case len(first) > MaxName:
		return Invalid(prefix+"firstName", "A name has at most %d bytes.", MaxName)
	case len(last) > MaxName:
		return Invalid(prefix+"lastName", "A name has at most %d bytes.", MaxName)
	}
	return nil
}

// Contact returns the addresses that messages to the customer go to. Each may be empty.
func (c *Customer) Contact() (phone, email string) {
	last := func(list ...*string) (found string) {
		for _, one := range list {
			if one != nil {
				found = *one
			}
		}
		return found
	}
	return last(c.Phone, c.ClaimedPhone), last(c.Email, c.ClaimedEmail)
}
