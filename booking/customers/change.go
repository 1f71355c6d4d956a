package customers

import (
	"nowserving/booking/contact"
	"nowserving/booking/store"
	"nowserving/models"
)

// Change changes a customer. Nil fields leave their value unchanged.
type Change struct {
	Phone, Email              *string // empty: removed
	FirstName, LastName, Note *string
	Data                      models.Fields // replaced as a whole, but see Fields
	// Fields are the definitions of Data. Values of fields that only staff see stay when
	// the customer makes the change.
	Fields models.CustomFields
	// Own reports that the customer makes the change. Without Code, a new address is
	// then only claimed: it is shown and written to, but does not sign in.
	Own bool
	// Code is the one-time code that was sent to the address that changes, and
	// Network a hash of the network that it came from.
	Code, Network string
	// Also runs in the same transaction once the customer is stored, for what other
	// packages keep. Optional.
	Also func(tx *store.Tx, c *models.Customer) error
}

// Apply changes a customer, but does not store it. proved is an address whose code came with the change.
func (change Change) Apply(c *models.Customer, proved string) error {
	for _, field := range []struct{ to, from *string }{
		{&c.FirstName, change.FirstName}, {&c.LastName, change.LastName}, {&c.Note, change.Note},
	} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	if change.Data != nil {
		if change.Own {
			change.Data = change.Fields.KeepStaffOnly(change.Data, c.Data)
		}
		c.Data = change.Data
	}
	if err := models.CheckNames("", c.FirstName, c.LastName); err != nil {
		return err
	}
	phone, email, err := contact.Both(models.Text(change.Phone), models.Text(change.Email), contact.Own)
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
func (change Change) setContact(own, claimed **string, address *string, proved string) {
	switch {
	case address == nil:
		*own, *claimed = nil, nil
	case *address == proved, !change.Own && *address != models.Text(*claimed):
		*own, *claimed = address, nil
	case *address == models.Text(*own):
		*claimed = nil
	default:
		*claimed = address
	}
}

// SameContacts reports whether two versions of a customer have the same addresses,
// claimed ones included.
func SameContacts(a, b *models.Customer) bool {
	return models.Text(a.Phone) == models.Text(b.Phone) && models.Text(a.Email) == models.Text(b.Email) &&
		models.Text(a.ClaimedPhone) == models.Text(b.ClaimedPhone) && models.Text(a.ClaimedEmail) == models.Text(b.ClaimedEmail)
}

// TakeOver gives a customer what they lack and a duplicate of them has.
func TakeOver(keep, duplicate *models.Customer) {
	for _, address := range []struct{ to, from **string }{
		{&keep.Phone, &duplicate.Phone}, {&keep.Email, &duplicate.Email},
		{&keep.ClaimedPhone, &duplicate.ClaimedPhone}, {&keep.ClaimedEmail, &duplicate.ClaimedEmail},
	} {
		if *address.to == nil {
			*address.to = *address.from
		}
	}
	if keep.FirstName == "" && keep.LastName == "" {
		keep.FirstName, keep.LastName = duplicate.FirstName, duplicate.LastName
	}
	if keep.Note == "" {
		keep.Note = duplicate.Note
	}
	if keep.Data == nil {
		keep.Data = duplicate.Data
	}
}
