package access

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// typed normalizes a typed number: digits of any script become 0 to 9, and
// bidirectional marks, which come with a copied number, are removed.
func typed(number string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Cf, r):
			return -1
		case unicode.Is(unicode.Nd, r) && !unicode.Is(unicode.Common, r): // of a script
			value := rune(0) // digits of a script stand in a row, from 0 to 9
			for unicode.Is(unicode.Nd, r-value-1) {
				value++
			}
			return '0' + value
		case r >= 0x660 && r <= 0x669: // several scripts share those of Arabic
			return '0' + r - 0x660
		}
		return r
	}, number))
}

// typedCode normalizes a one-time code, which may be typed in groups.
func typedCode(code string) string {
	return strings.NewReplacer(" ", "", "-", "", "\u00a0", "").Replace(typed(code))
}

// International adds the country code to a local number of country (ISO 3166-1).
// Any other text is returned unchanged.
func International(phone, country string) string {
	text := typed(phone)
	if country == "" || text == "" || strings.HasPrefix(text, "+") || strings.HasPrefix(text, "00") {
		return phone
	}
	number, err := phonenumbers.Parse(text, country)
	if err != nil || !phonenumbers.IsValidNumberForRegion(number, country) {
		return phone
	}
	return phonenumbers.Format(number, phonenumbers.E164)
}

// NormalPhone returns a phone number in the form it is stored in, E.164.
func NormalPhone(phone string) (string, error) {
	text := typed(phone)
	if rest, ok := strings.CutPrefix(text, "00"); ok {
		text = "+" + rest
	}
	number, err := phonenumbers.Parse(text, "ZZ")
	if err != nil || !phonenumbers.IsPossibleNumber(number) {
		return "", models.Invalid("phoneNumber", "Give the phone number in international form, such as +966500000001, or a local number of the organization's country.")
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

// contactFields name the fields of a request that a phone number and an e-mail
// address came in, for errors.
type contactFields struct{ phone, email string }

var ownContacts = contactFields{"phone", "email"}

// contacts returns a phone number and an e-mail address in the form they are stored
// in, or nil for an empty one.
func contacts(phone, email string, fields contactFields) (p, e *string, err error) {
	for _, one := range []struct {
		text, field string
		normal      func(string) (string, error)
		to          **string
	}{{phone, fields.phone, NormalPhone, &p}, {email, fields.email, NormalEmail, &e}} {
		if one.text == "" {
			continue
		}
		normal, err := one.normal(one.text)
		if wrong, ok := errors.AsType[*models.Error](err); ok {
			named := *wrong
			named.Field = one.field
			err = &named
		}
		if err != nil {
			return nil, nil, err
		}
		*one.to = &normal
	}
	return p, e, nil
}

// EnsureProvider returns the member with a phone number or e-mail address, as
// part of a transaction. If there is none, it creates one with the role provider.
func (a *Access) EnsureProvider(tx *store.Tx, organizationID, phone, email string) (string, error) {
	m := models.Member{ID: models.NewID(), OrganizationID: organizationID, Role: models.RoleProvider, CreatedAt: tx.Now}
	var err error
	if m.Phone, m.Email, err = contacts(phone, email, contactFields{"providerPhone", "providerEmail"}); err != nil {
		return "", err
	}
	known, err := a.memberByContact(tx.DB, organizationID, value(m.Phone), value(m.Email))
	if err == nil {
		return known.ID, nil
	}
	if models.CodeOf(err) != models.CodeUnauthenticated {
		return "", err
	}
	if err := tx.Create(&m).Error; err != nil {
		return "", fmt.Errorf("create member: %w", memberTaken(err))
	}
	return m.ID, tx.Audit(organizationID, "createMember", "member", m.ID)
}

// memberByContact finds a member by address. It fails with CodeUnauthenticated.
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

// Member returns a member. It fails with CodeMemberMissing if there is none.
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
