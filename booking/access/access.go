// Package access authenticates callers: members, customers, tickets, displays and API
// keys.
//
// It turns a credential into a Principal and issues credentials. Which routes a
// principal may use is decided in handlers, and which bookings in booking.Scope.
// Secrets are stored as hashes only, and never logged.
package access

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// Kind is the kind of a principal's credential.
type Kind string

// The kinds of principals.
const (
	KindAccount      Kind = "account"      // an account API key: every organization
	KindOrganization Kind = "organization" // an organization's API key
	KindMember       Kind = "member"       // someone who works there
	KindCustomer     Kind = "customer"
	KindTicket       Kind = "ticket"  // one booking
	KindDisplay      Kind = "display" // one waiting-room screen
)

// Principal is an authenticated caller.
type Principal struct {
	Kind Kind
	// OrganizationID is empty for an account key, which names the organization with
	// each request.
	OrganizationID string
	// SubjectID is the id of the customer, member, display or key.
	SubjectID string
	Role      models.Role // of a member
	Scope     Scope       // of an API key
	// MemberID is the member who made an API key, if one did. Reduced reports that
	// the key has lost the scope admin, because that member is no longer an owner or
	// admin.
	MemberID  string
	Reduced   bool
	SessionID string    // of a member or customer
	BookingID string    // of a ticket
	ExpiresAt time.Time // zero: never
}

// CredentialID is the id in revocations: the session of a person, otherwise the
// subject.
func (p Principal) CredentialID() string {
	if p.SessionID != "" {
		return p.SessionID
	}
	return p.SubjectID
}

// member returns the calling member, or the one who made the calling key.
func (p Principal) member() string {
	if p.Kind == KindMember {
		return p.SubjectID
	}
	return p.MemberID
}

const (
	// accessLife is how long an access token is valid.
	accessLife = 15 * time.Minute
	// ticketLife is how long a ticket token is valid after joining, or after the end
	// of an appointment.
	ticketLife = 24 * time.Hour
	issuer     = "nowserving"
	// clockSkew is how far the clock of the node that issued a token may be ahead.
	clockSkew = time.Minute
)

// Options configure Access.
type Options struct {
	// Secret signs tokens and keys hashes; at least 32 bytes.
	Secret []byte
	// BootstrapKey is an account API key that exists from the first start. Optional.
	BootstrapKey string
	// FixedCode is every one-time code. Development only.
	FixedCode string
	// EndlessCodes lifts the limit of codes for an address. It is for the demo, which
	// has a fixed code.
	EndlessCodes bool
	// CanSend reports whether messages can be sent by a method: sms, whatsapp or email.
	// Nil: no messages can be sent.
	CanSend func(method string) bool
	// CanSendCode reports whether an organization's codes can be sent by a method
	// for which CanSend is true. Nil: they can.
	CanSendCode func(ctx context.Context, organizationID, method, lang string) (bool, error)
	// DailyCodes is how many messages with codes an organization sends its
	// customers in a day, unless it has a limit of its own. Default 1,000.
	DailyCodes int
	// CodeCountries are calling codes, such as 966, of the countries customers are
	// expected from, besides those of the members' phones. A tenth of the
	// messages may go to each other country.
	CodeCountries []string
	// Turnstile and Recaptcha verify that a person asks for a one-time code, if they
	// have a secret.
	Turnstile, Recaptcha Verifier
	// Announce sends a message to all nodes, which pass it to Heard. Nil: this is the
	// only node.
	Announce func(ctx context.Context, message []byte) error
	// TrustedFor is how long credentials are accepted after the revocations were last
	// read, by this node or another: 1 to 16 s. Default 3.5 s, so that an ended
	// credential is refused within 5 s everywhere.
	TrustedFor time.Duration
	// Now is the database's clock.
	Now func() time.Time
	Log *slog.Logger
}

// Access issues and checks credentials. It is safe for concurrent use.
type Access struct {
	store      *store.Store
	opts       Options
	signing    []byte
	refreshing []byte
	parser     *jwt.Parser
	codes      []byte
	messages   *models.Sealer
	bootstrap  string // hash

	revocations revocations
	known       credentialCache
	uses        uses

	tickets       []byte
	ticketLookups ticketLookups
	calendarLinks *models.Signer

	setupMu sync.Mutex
	setup   string    // hash of the one-time link's token; empty when none is open
	opened  time.Time // when the link was, by the database's clock
}

// New makes an Access.
func New(s *store.Store, o Options) (*Access, error) {
	if o.DailyCodes == 0 {
		o.DailyCodes = DailyCodes
	}
	if o.TrustedFor <= 0 {
		o.TrustedFor = trustedFor
	}
	a := &Access{store: s, opts: o, revocations: newRevocations()}
	s.OnRevoke(a.committed)
	var err error
	if a.signing, err = hkdf.Key(sha256.New, o.Secret, nil, "access tokens", 32); err != nil {
		return nil, fmt.Errorf("derive the signing key: %w", err)
	}
	if a.refreshing, err = hkdf.Key(sha256.New, o.Secret, nil, "refresh tokens", 32); err != nil {
		return nil, fmt.Errorf("derive the key of refresh tokens: %w", err)
	}
	a.parser = jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithIssuer(issuer), jwt.WithAudience(issuer),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(a.opts.Now), jwt.WithStrictDecoding())
	if a.codes, err = hkdf.Key(sha256.New, o.Secret, nil, "one-time codes", 32); err != nil {
		return nil, fmt.Errorf("derive the code key: %w", err)
	}
	if a.tickets, err = hkdf.Key(sha256.New, o.Secret, nil, "ticket tokens", 32); err != nil {
		return nil, fmt.Errorf("derive the key of tickets: %w", err)
	}
	a.ticketLookups.turn = make(chan struct{}, 1)
	if a.calendarLinks, err = models.NewSigner(o.Secret, models.SignCalendarLinks); err != nil {
		return nil, err
	}
	if a.messages, err = models.NewSealer(o.Secret, models.SealMessages); err != nil {
		return nil, err
	}
	if o.BootstrapKey != "" {
		a.bootstrap = models.HashSecret(o.BootstrapKey)
	}
	return a, nil
}

// bootstrapID is the subject of Options.BootstrapKey, which has no row.
const bootstrapID = "bootstrap"

// NewToken returns a random token of more than 128 bits.
func NewToken() string { return rand.Text() }

// claims are the contents of a token.
type claims struct {
	jwt.RegisteredClaims
	OrganizationID string      `json:"org"`
	Kind           Kind        `json:"kind"`
	Role           models.Role `json:"role,omitempty"`
	SessionID      string      `json:"sid,omitempty"`
}

// sign issues a token with claims and a life.
func (a *Access) sign(c claims, subject string, life time.Duration) (string, time.Time, error) {
	now := a.opts.Now()
	expires := now.Add(life).Truncate(time.Second)
	c.RegisteredClaims = jwt.RegisteredClaims{
		ID: c.ID, Issuer: issuer, Audience: jwt.ClaimStrings{issuer}, Subject: subject,
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(a.signing)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign a token: %w", err)
	}
	return token, expires, nil
}

// Authenticate returns the principal of an access token, a ticket token, an API key
// or a display's token. A token that was valid within the last minute is not read
// again; only its revocation is checked. mayLookUp, unless nil, is called before the
// database is queried for a credential that was never valid on this node, and its
// error is returned. So guessing does not lock out the keys that are used at the same
// address.
func (a *Access) Authenticate(ctx context.Context, token string, mayLookUp func() error) (Principal, error) {
	if token == "" {
		return Principal{}, models.Errorf(models.CodeUnauthenticated, "No credential came with the request.")
	}
	hash, now := models.HashSecret(token), a.opts.Now()
	if a.unchecked(now) {
		return Principal{}, errUnchecked
	}
	p, changes, ok := a.known.find(hash, now)
	if !ok {
		var err error
		if p, err = a.recognise(ctx, token, hash, mayLookUp); err != nil {
			return Principal{}, err
		}
		a.known.keep(hash, p, now, changes)
	}
	switch {
	case p.SessionID != "" && a.revocations.revoked(p.SessionID):
		return Principal{}, errBadToken
	case p.ExpiresAt.IsZero() || p.ExpiresAt.After(now):
		return p, nil
	case p.Kind == KindAccount || p.Kind == KindOrganization:
		return Principal{}, models.Errorf(models.CodeKeyExpired, "The API key expired at %s.", p.ExpiresAt.Format(time.RFC3339))
	}
	return Principal{}, errTokenExpired
}

var (
	errBadToken     = models.Errorf(models.CodeUnauthenticated, "The credential is not valid.")
	errTokenExpired = models.Errorf(models.CodeTokenExpired, "The access token has expired.")
)

// recognise finds the principal of a token that is not in the cache. Access tokens
// need no query.
func (a *Access) recognise(ctx context.Context, token, hash string, mayLookUp func() error) (Principal, error) {
	switch {
	case a.bootstrap != "" && constantEqual(hash, a.bootstrap):
		return Principal{Kind: KindAccount, SubjectID: bootstrapID, Scope: ScopeAdmin}, nil
	case strings.Count(token, ".") == 2:
		return a.readJWT(token)
	case a.isTicket(token): // its tag is right, so a client has not made it up
		return a.ticket(ctx, token)
	case !wellFormed(token):
		return Principal{}, errBadToken
	}
	if mayLookUp != nil && !a.known.wasGood(hash) {
		if err := mayLookUp(); err != nil {
			return Principal{}, err
		}
	}
	return a.lookUp(ctx, token, hash)
}

func (a *Access) readJWT(token string) (Principal, error) {
	var c claims
	_, err := a.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return a.signing, nil })
	if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return Principal{}, errTokenExpired
	}
	// Only members have a role. Go's base64 ignores line ends, so a token with one is
	// refused.
	if err != nil || c.OrganizationID == "" || c.Subject == "" || (c.Kind == KindMember) != c.Role.Valid() || strings.ContainsAny(token, "\r\n") {
		return Principal{}, errBadToken
	}
	if c.IssuedAt != nil && c.IssuedAt.After(a.opts.Now().Add(clockSkew)) {
		return Principal{}, errBadToken
	}
	p := Principal{Kind: c.Kind, OrganizationID: c.OrganizationID, SubjectID: c.Subject, Role: c.Role, SessionID: c.SessionID, ExpiresAt: c.ExpiresAt.Time}
	switch {
	case (c.Kind == KindCustomer || c.Kind == KindMember) && c.SessionID != "":
	case c.Kind == KindTicket: // made by an earlier version
		p.BookingID = c.Subject
	default:
		return Principal{}, errBadToken
	}
	return p, nil
}

func resourcesOf(db *gorm.DB, organizationID, memberID string) ([]string, error) {
	var ids []string
	err := db.Model(&models.Resource{}).
		Where("organization_id = ? AND provider_id = ? AND deleted_at IS NULL", organizationID, memberID).Order("id").Pluck("id", &ids).Error
	if err != nil {
		return nil, fmt.Errorf("read a provider's resources: %w", err)
	}
	return ids, nil
}

func (a *Access) lookUp(ctx context.Context, secret, hash string) (Principal, error) {
	if strings.HasPrefix(secret, keyPrefix) {
		var k APIKey
		err := withMembers(a.store.Read(ctx)).Where("k.key_hash = ?", hash).Take(&k).Error
		return k.principal(), unknown(err, "API key")
	}
	var d models.Display
	err := a.store.Read(ctx).Where("token_hash = ?", hash).Take(&d).Error
	return Principal{Kind: KindDisplay, OrganizationID: d.OrganizationID, SubjectID: d.ID}, unknown(err, "display")
}

// unknown distinguishes a credential that is not in the database from a failed query.
func unknown(err error, what string) error {
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return errBadToken
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// codeHash keys the hash of a short code, which could be guessed otherwise.
func (a *Access) codeHash(id, code string) string {
	mac := hmac.New(sha256.New, a.codes)
	mac.Write([]byte(id + ":" + code))
	return hex.EncodeToString(mac.Sum(nil))
}
