package access

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// codeLife is how long a one-time code is valid.
	codeLife = 10 * time.Minute
	// maxCodeFailures is how many wrong guesses a code survives.
	maxCodeFailures = 5
	// maxCodes is how many codes an address gets within codeLife: each is a few
	// guesses more, and each may cost the clinic the price of an SMS.
	maxCodes = 5
)

// Contact is where a one-time code goes.
type Contact struct {
	Method string // sms, whatsapp or email
	Phone  string
	Email  string
	// Member says that the person signs in to work, not to be served.
	Member bool
	// Lang is the language to write to them in: ar, or English.
	Lang string
}

func (c Contact) kind() Kind {
	if c.Member {
		return KindMember
	}
	return KindCustomer
}

// normal returns the contact with its address in the one form it is stored in,
// and that address.
func (c Contact) normal() (Contact, string, error) {
	var err error
	switch c.Method {
	case "sms", "whatsapp":
		c.Email = ""
		c.Phone, err = NormalPhone(c.Phone)
		return c, c.Phone, err
	case "email":
		c.Phone = ""
		c.Email, err = NormalEmail(c.Email)
		return c, c.Email, err
	}
	return c, "", models.Invalid("method", "A code is sent by sms, whatsapp or email.")
}

type oneTimeCode struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Kind           Kind
	Address        string
	CodeHash       string
	Lang           string
	Failures       int
	ExpiresAt      time.Time
	UsedAt         *time.Time
	CreatedAt      time.Time
}

// RequestCode makes a one-time code for a contact and sends it. The answer is
// the same whether the person is known or not. It fails with CodeNoSender where
// nothing can be sent by the method, and with CodeTooManyCodes where the
// address got five in the last ten minutes; with a fixed code, which is no
// secret, with neither.
func (a *Access) RequestCode(ctx context.Context, organizationID string, c Contact) (time.Time, error) {
	c, address, err := c.normal()
	if err != nil {
		return time.Time{}, err
	}
	canSend, code := a.o.CanSend != nil && a.o.CanSend(c.Method), a.o.FixedCode
	if code == "" {
		if !canSend {
			return time.Time{}, models.Errorf(models.CodeNoSender, "No way to send one-time codes by %s is configured.", c.Method)
		}
		code = newCode()
	}
	row := oneTimeCode{ID: models.NewID(), OrganizationID: organizationID, Kind: c.kind(), Address: address, Lang: c.Lang}
	row.CodeHash = a.codeHash(row.ID, code)
	letter, err := a.letter(address, code)
	if err != nil {
		return time.Time{}, err
	}
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		row.CreatedAt, row.ExpiresAt = tx.Now, tx.Now.Add(codeLife)
		if a.o.FixedCode == "" {
			if err := spareCode(tx, &row); err != nil {
				return err
			}
		}
		if canSend {
			tx.Enqueue(models.Message{
				OrganizationID: organizationID, Template: models.TemplateOTP, Method: c.Method, Lang: c.Lang, Until: row.ExpiresAt, Sealed: letter,
			})
		}
		return tx.Create(&row).Error
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("store a one-time code: %w", err)
	}
	return row.ExpiresAt, nil
}

// newCode draws six digits.
func newCode() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic(err) // crypto/rand.Reader never fails
	}
	return fmt.Sprintf("%06d", n)
}

// letter seals a code and where it goes, for the job that sends it.
func (a *Access) letter(address, code string) (string, error) {
	plain, err := json.Marshal(models.Letter{To: address, Values: map[string]string{
		"code": code, "minutes": strconv.Itoa(int(codeLife.Minutes())),
	}})
	if err != nil {
		return "", err
	}
	return a.letters.Seal(string(plain)), nil
}

// spareCode refuses one more code for an address that got its share.
func spareCode(tx *store.Tx, row *oneTimeCode) error {
	var recent []time.Time
	err := tx.Model(&oneTimeCode{}).Where("organization_id = ? AND kind = ? AND address = ? AND created_at > ?", row.OrganizationID, row.Kind, row.Address, tx.Now.Add(-codeLife)).
		Order("created_at DESC").Limit(maxCodes).Pluck("created_at", &recent).Error
	if err != nil {
		return fmt.Errorf("count one-time codes: %w", err)
	}
	if len(recent) < maxCodes {
		return nil
	}
	e := models.Errorf(models.CodeTooManyCodes, "Five codes in ten minutes are enough; the newest is valid still.")
	e.RetryAfter = recent[maxCodes-1].Add(codeLife).Sub(tx.Now)
	return e
}

var errWrongCode = models.Errorf(models.CodeWrongCode, "The code is wrong, used or expired.")

// VerifyCode checks the newest code of a contact and signs the person in. A
// code works once; a customer who is new is made.
func (a *Access) VerifyCode(ctx context.Context, organizationID string, c Contact, code string) (Session, error) {
	c, address, err := c.normal()
	if err != nil {
		return Session{}, err
	}
	right := false
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		var row oneTimeCode
		err := tx.Where("organization_id = ? AND kind = ? AND address = ?", organizationID, c.kind(), address).
			Order("created_at DESC, id DESC").Take(&row).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read one-time code: %w", err)
		}
		usable := tx.Model(&oneTimeCode{}).Where("id = ? AND used_at IS NULL AND failures < ? AND expires_at > ?", row.ID, maxCodeFailures, tx.Now)
		change := map[string]any{"failures": gorm.Expr("failures + 1")}
		matches := constantEqual(row.CodeHash, a.codeHash(row.ID, code))
		if matches {
			change = map[string]any{"used_at": tx.Now}
		}
		done := usable.Updates(change)
		right = matches && done.RowsAffected == 1
		return done.Error
	})
	if err != nil {
		return Session{}, err
	}
	if !right {
		return Session{}, errWrongCode
	}
	if c.Member {
		m, err := a.memberByContact(a.store.Read(ctx), organizationID, c.Phone, c.Email)
		if models.CodeOf(err) == models.CodeUnauthenticated {
			return Session{}, errWrongCode // a stranger learns nothing more
		}
		if err != nil {
			return Session{}, err
		}
		return a.open(ctx, organizationID, KindMember, m.ID)
	}
	customer, err := a.ResolveCustomer(ctx, organizationID, CustomerRef{Phone: c.Phone, Email: c.Email})
	if err != nil {
		return Session{}, err
	}
	return a.open(ctx, organizationID, KindCustomer, customer.ID)
}
