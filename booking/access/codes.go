package access

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"time"

	"nowserving/booking/contact"
	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// codeLife is how long a one-time code is valid.
	codeLife = 10 * time.Minute
	// maxGuesses is how many wrong guesses from a network end a code for that network,
	// and maxGuessesOfAll how many end it for all. So another person can't end the
	// codes by guessing.
	maxGuesses      = 5
	maxGuessesOfAll = 20
	// maxCodes is how many codes an address gets within codeLife. Each may cost an
	// SMS.
	maxCodes = 5
)

// Contact is the address of a one-time code.
type Contact struct {
	Method string // sms, whatsapp or email
	Phone  string
	Email  string
	// Member reports that the person signs in as a member, not as a customer.
	Member bool
	// Lang is the language of the message: ar or en.
	Lang string
}

func (c Contact) kind() Kind {
	if c.Member {
		return KindMember
	}
	return KindCustomer
}

// normal returns the contact with its normalized address, and that address.
func (c Contact) normal() (Contact, string, error) {
	var err error
	switch c.Method {
	case "sms", "whatsapp":
		c.Email = ""
		c.Phone, err = contact.Phone(c.Phone)
		return c, c.Phone, err
	case "email":
		c.Phone = ""
		c.Email, err = contact.Email(c.Email)
		return c, c.Email, err
	}
	return c, "", models.Invalid("method", "A code is sent by sms, whatsapp or email.")
}

type oneTimeCode struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Kind           Kind
	AddressHash    string
	CodeHash       string
	Lang           string
	ExpiresAt      time.Time
	UsedAt         *time.Time
	CreatedAt      time.Time
}

// addressHash is the form in which an address is stored with its codes and guesses.
// It identifies no person, so it stays after an erasure.
func (a *Access) addressHash(address string) string { return a.codeHash("address", address) }

// holdAddress starts the count of guesses for a new code of an address. Other
// transactions that request or check a code of the address wait until this one ends.
func holdAddress(tx *store.Tx, row *oneTimeCode) error {
	err := tx.Exec(`INSERT INTO code_guesses (organization_id, kind, address_hash, failures, failed_at) VALUES (?, ?, ?, 0, ?)
		ON CONFLICT (organization_id, kind, address_hash) DO UPDATE SET failures = 0, networks = '{}', failed_at = excluded.failed_at`,
		row.OrganizationID, row.Kind, row.AddressHash, tx.Now).Error
	if err != nil {
		return fmt.Errorf("hold the one-time codes of an address: %w", err)
	}
	return nil
}

// SendsCodes reports whether a code by a method is sent as a message, which costs
// money. A fixed code may not be.
func (a *Access) SendsCodes(method string) bool {
	return a.opts.CanSend != nil && a.opts.CanSend(method)
}

// ContactHash identifies a contact without revealing it.
func (a *Access) ContactHash(organizationID string, c Contact) (string, error) {
	_, address, err := c.normal()
	return a.codeHash("contact", organizationID+":"+string(c.kind())+":"+address), err
}

// RequestCode makes a one-time code for a contact and sends it. It does and answers
// the same whether or not the person is known: a message to an unknown member is
// dropped when it is sent. It fails with CodeTooManyCodes if the address got five
// codes in ten minutes or the organization's messages of the day are spent (see
// spendMessage), and with CodeNoSender if the method can't send, unless the code is
// fixed.
func (a *Access) RequestCode(ctx context.Context, organizationID string, c Contact) (time.Time, error) {
	c, address, err := c.normal()
	if err != nil {
		return time.Time{}, err
	}
	canSend, code := a.SendsCodes(c.Method), a.opts.FixedCode
	if canSend && a.opts.CanSendCode != nil {
		if canSend, err = a.opts.CanSendCode(ctx, organizationID, c.Method, c.Lang); err != nil {
			return time.Time{}, err
		}
	}
	if code == "" {
		if !canSend {
			return time.Time{}, models.Errorf(models.CodeNoSender, "No way to send one-time codes by %s is configured.", c.Method)
		}
		code = newCode()
	}
	row := oneTimeCode{ID: models.NewID(), OrganizationID: organizationID, Kind: c.kind(), AddressHash: a.addressHash(address), Lang: c.Lang}
	row.CodeHash = a.codeHash(row.ID, code)
	content, err := a.sealCode(address, code)
	if err != nil {
		return time.Time{}, err
	}
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		row.CreatedAt, row.ExpiresAt = tx.Now, tx.Now.Add(codeLife)
		if err := holdAddress(tx, &row); err != nil {
			return err
		}
		if !a.opts.EndlessCodes {
			if err := spareCode(tx, &row); err != nil {
				return err
			}
		}
		if canSend && !c.Member {
			if err := a.spendMessage(tx, organizationID, c.Phone); err != nil {
				return err
			}
		}
		if canSend {
			tx.Enqueue(models.Message{
				OrganizationID: organizationID, Template: models.TemplateOTP, Method: c.Method, Lang: c.Lang, ToMember: c.Member, Until: row.ExpiresAt, Sealed: content,
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

// sealCode seals a code and its address for the job that sends it.
func (a *Access) sealCode(address, code string) (string, error) {
	return models.MessageContent{To: address, Values: map[string]string{
		"code": code, "minutes": strconv.Itoa(int(codeLife.Minutes())),
	}}.Seal(a.messages)
}

// spareCode refuses a code for an address that got maxCodes.
func spareCode(tx *store.Tx, row *oneTimeCode) error {
	var recent []time.Time
	err := tx.Model(&oneTimeCode{}).Where("organization_id = ? AND kind = ? AND address_hash = ? AND created_at > ?", row.OrganizationID, row.Kind, row.AddressHash, tx.Now.Add(-codeLife)).
		Order("created_at DESC").Limit(maxCodes).Pluck("created_at", &recent).Error
	if err != nil {
		return fmt.Errorf("count one-time codes: %w", err)
	}
	if len(recent) < maxCodes {
		return nil
	}
	e := models.Errorf(models.CodeTooManyCodes, "Five codes in ten minutes are enough; use the newest one.")
	e.RetryAfter = recent[maxCodes-1].Add(codeLife).Sub(tx.Now)
	return e
}

var (
	errWrongProof = models.Invalid("code", "The code is wrong, used or expired.") // of a field
	errWrongCode  = models.Errorf(models.CodeWrongCode, "The code is wrong, used or expired.")
	// errOldCode looks the same to the caller. It is no guess, since the caller knew
	// the code.
	errOldCode = models.Errorf(models.CodeWrongCode, "The code is wrong, used or expired.")
)

// IsGuess reports whether VerifyCode or UpdateCustomer failed because of a guessed
// code, rather than a code that was right once.
func IsGuess(err error) bool { return errors.Is(err, errWrongCode) || errors.Is(err, errWrongProof) }

// VerifyCode checks the newest code of a contact and signs the person in. A code
// works once. A new customer is created. The fifth wrong guess from a network, of
// which the caller gives a hash, ends the code for that network, and the twentieth
// for all. Guesses at an address without a code have no effect on it.
//
// A code has six digits, so twenty guesses find it with a probability of
// 20/1,000,000. An address gets five codes in ten minutes: an attacker who asks for
// all of them and guesses from twenty networks finds one with a probability of 1 in
// 10,000 in ten minutes, and of 1.4 % in a day, in which the person gets 720
// messages. From one network it is 15/1,000,000: see handlers, guesses.
func (a *Access) VerifyCode(ctx context.Context, organizationID string, c Contact, code, network string) (Session, error) {
	c, address, err := c.normal()
	if err != nil {
		return Session{}, err
	}
	var opened Session
	wrong := false
	// One transaction, so that a code is used only if its session is open.
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		if err := a.holdPerson(tx, organizationID, c, address); err != nil {
			return err
		}
		used, right, err := a.useCode(tx, organizationID, c.kind(), address, code, network)
		if wrong = !right; wrong || err != nil {
			return err
		}
		who, err := a.signsIn(tx, organizationID, c, used.Lang)
		if wrong = IsGuess(err); wrong {
			return nil // the code is used all the same
		}
		if err == nil {
			opened, err = a.open(tx, organizationID, c.kind(), who)
		}
		return err
	})
	if err == nil && wrong {
		err = errWrongCode
	}
	if err != nil {
		return Session{}, err
	}
	return opened, nil
}

// holdPerson locks the person of an address, if there is one, so that the address
// stays theirs until the transaction ends. It locks before the codes of the address,
// in the same order as transactions that change a person.
func (a *Access) holdPerson(tx *store.Tx, organizationID string, c Contact, address string) error {
	table, column := "customers", "phone"
	if c.Member {
		table = "members"
	} else if err := tx.Naming(organizationID); err != nil {
		return err
	}
	if c.Method == "email" {
		column = "email"
	}
	var ids []string
	err := a.store.Lock(tx).Table(table).Where("organization_id = ? AND "+column+" = ?", organizationID, address).Pluck("id", &ids).Error
	if err != nil {
		return fmt.Errorf("lock the person of an address: %w", err)
	}
	return nil
}

// signsIn finds the person of a contact that holdPerson has locked. It creates a new
// customer.
func (a *Access) signsIn(tx *store.Tx, organizationID string, c Contact, lang string) (id string, err error) {
	if c.Member {
		m, err := a.memberByContact(a.store.Lock(tx), organizationID, c.Phone, c.Email)
		if models.CodeOf(err) == models.CodeUnauthenticated {
			return "", errWrongCode // a stranger learns nothing more
		}
		if err != nil {
			return "", err
		}
		return m.ID, nil
	}
	who, err := customers.Resolve(tx, customers.All(organizationID), customers.Ref{Phone: c.Phone, Email: c.Email})
	if err != nil {
		return "", fmt.Errorf("find or make the customer: %w", err)
	}
	done := tx.Model(who).Where("phone = ? OR email = ?", c.Phone, c.Email).UpdateColumn("lang", lang)
	if done.Error != nil {
		return "", fmt.Errorf("keep a customer's language: %w", done.Error)
	}
	if done.RowsAffected == 0 { // they have just got another address
		return "", errWrongCode
	}
	return who.ID, nil
}

// guesses are the wrong guesses at the newest code of an address.
type guesses struct {
	Failures int
	Networks map[string]int `gorm:"serializer:json"` // by the hash of the network
}

// useCode uses the newest code of an address if it is the given one. Otherwise it
// counts the guess for the code and the network.
func (a *Access) useCode(tx *store.Tx, organizationID string, kind Kind, address, code, network string) (newest oneTimeCode, right bool, err error) {
	of := oneTimeCode{OrganizationID: organizationID, Kind: kind, AddressHash: a.addressHash(address)}
	whose := []any{"organization_id = ? AND kind = ? AND address_hash = ?", of.OrganizationID, of.Kind, of.AddressHash}
	// There is no row if there never was a code. Otherwise the row is locked.
	var counted []guesses
	err = a.store.Lock(tx).Table("code_guesses").Where(whose[0], whose[1:]...).Find(&counted).Error
	if err != nil {
		return newest, false, fmt.Errorf("count wrong one-time codes: %w", err)
	}
	// Without a code, newest stays empty, which matches no code.
	err = tx.Where(whose[0], whose[1:]...).Order("created_at DESC, id DESC").Limit(1).Find(&newest).Error
	if err != nil {
		return newest, false, fmt.Errorf("read one-time code: %w", err)
	}
	alive := len(counted) == 1 && counted[0].Failures < maxGuessesOfAll && counted[0].Networks[network] < maxGuesses &&
		newest.UsedAt == nil && newest.ExpiresAt.After(tx.Now)
	known := constantEqual(newest.CodeHash, a.codeHash(newest.ID, contact.Code(code)))
	switch {
	case alive && known:
		err = tx.Model(&newest).Update("used_at", tx.Now).Error
	case alive:
		g := counted[0]
		g.Failures++
		if g.Networks == nil {
			g.Networks = map[string]int{}
		}
		g.Networks[network]++
		err = tx.Table("code_guesses").Where(whose[0], whose[1:]...).Select("failures", "networks").Updates(&g).Error
	case known: // sent twice, or too late
		return newest, false, errOldCode
	}
	if err != nil {
		return newest, false, fmt.Errorf("use a one-time code: %w", err)
	}
	return newest, alive && known, nil
}

// retire ends the one-time codes of addresses, and empties pending messages to them,
// because the addresses no longer belong to the person.
func (a *Access) retire(tx *store.Tx, organizationID string, kind Kind, addresses []string) error {
	if len(addresses) == 0 {
		return nil
	}
	hashes := make([]string, len(addresses))
	for i, address := range addresses {
		hashes[i] = a.addressHash(address)
	}
	err := tx.Exec("UPDATE one_time_codes SET used_at = ? WHERE organization_id = ? AND kind = ? AND address_hash IN ? AND used_at IS NULL",
		tx.Now, organizationID, kind, hashes).Error
	if err != nil {
		return fmt.Errorf("retire one-time codes: %w", err)
	}
	jobs, err := tx.SealedJobs(models.Message{}.Kind(), organizationID, true)
	if err != nil {
		return err
	}
	var theirs []int64
	for _, job := range jobs {
		content, err := models.OpenMessageContent(a.messages, job.Sealed)
		// A message that is neither a code nor about a booking goes to members.
		toMember := job.ToMember || job.BookingID == "" && job.Template != models.TemplateOTP
		if err == nil && toMember == (kind == KindMember) && slices.Contains(addresses, content.To) {
			theirs = append(theirs, job.ID)
		}
	}
	return a.store.EmptyJobs(tx, theirs)
}

// left returns the addresses that a person no longer has.
func left(phoneBefore, emailBefore, phone, email *string) []string {
	var gone []string
	for _, one := range [][2]*string{{phoneBefore, phone}, {emailBefore, email}} {
		if before := models.Text(one[0]); before != "" && before != models.Text(one[1]) {
			gone = append(gone, before)
		}
	}
	return gone
}
