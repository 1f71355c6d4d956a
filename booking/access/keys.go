package access

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// maxKeyName bounds the name of a key, in characters.
	maxKeyName = 100
	// maxKeys bounds the keys of an organization, or of the account.
	maxKeys = 1000
	// rotationGrace is how long a key works after it was rotated.
	rotationGrace = 24 * time.Hour
)

// APIKey is a key of an organization or of the account, without the key.
type APIKey struct {
	ID             string  `gorm:"primaryKey"`
	OrganizationID *string // nil for an account key
	Name           string
	KeyHash        string
	Scopes         []Scope `gorm:"serializer:json"`
	// Role is that of the member who made the key, or of the key that made it. The
	// key's rights don't exceed it. Empty: no member made it.
	Role models.Role
	// MemberID is the member who made the key, directly or by another key. Once that
	// member is no longer an owner or admin, the key loses the scope admin. Empty:
	// made by an account key or on the command line.
	MemberID string
	// MemberRole is the member's present role, if it was read. Empty: the member was
	// deleted.
	MemberRole models.Role `gorm:"->"`
	// MakerKind and MakerID are the creator of the key. The command line is system.
	MakerKind, MakerID string
	ExpiresAt          *time.Time // nil: never
	ReplacedAt         *time.Time // by a successor of the same name
	CreatedAt          time.Time

	// The use of the key on all nodes, as of some seconds ago. Errors are answers of
	// 400 and above.
	LastUsedAt *time.Time
	Requests   int64
	Errors     int64
}

// TableName names the table for GORM.
func (APIKey) TableName() string { return "api_keys" }

// withMembers selects API keys with the present roles of the members who made
// them.
func withMembers(db *gorm.DB) *gorm.DB {
	return db.Table("api_keys AS k").Select("k.*, m.role AS member_role").
		Joins("LEFT JOIN members m ON m.organization_id = k.organization_id AND m.id = k.member_id")
}

// Reduced reports whether the key has lost the scope admin, because the member who
// made it is no longer an owner or admin.
func (k *APIKey) Reduced() bool {
	return k.MemberID != "" && k.MemberRole != models.RoleOwner && k.MemberRole != models.RoleAdmin &&
		slices.Contains(k.Scopes, ScopeAdmin)
}

// principal returns the principal of the key.
func (k *APIKey) principal() Principal {
	p := Principal{Kind: KindAccount, SubjectID: k.ID, Role: k.Role, MemberID: k.MemberID}
	if k.MemberRole == models.RoleAdmin { // they may have been an owner
		p.Role = models.RoleAdmin
	}
	if k.OrganizationID != nil {
		p.Kind, p.OrganizationID = KindOrganization, *k.OrganizationID
	}
	for _, s := range k.Scopes {
		if !p.Scope.Includes(s) {
			p.Scope = s
		}
	}
	if k.Reduced() {
		p.Scope, p.Reduced = ScopeWrite, true
	}
	if k.ExpiresAt != nil {
		p.ExpiresAt = *k.ExpiresAt
	}
	return p
}

// The form of a secret that is looked up in the database: a prefix, 30 random
// characters of base 62, which are more than 178 bits, and their CRC-32 (IEEE) as
// six digits of base 62. So scanners find leaked keys with nsk_[0-9A-Za-z]{36},
// and a mistyped or made-up one is refused without a look-up. Keys made before
// that have 26 characters of base 32 after the prefix, displays' tokens nothing
// else.
const (
	keyPrefix     = "nsk_"
	displayPrefix = "nsd_"
	keyRandom     = 30
	keyChecksum   = 6
	oldRandom     = 26
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base32        = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// NewDisplayToken draws the token of a display.
func NewDisplayToken() string { return newSecret(displayPrefix) }

func newSecret(prefix string) string {
	text := randomText(base62, keyRandom)
	return prefix + text + checksum(text)
}

// randomText draws n digits of an alphabet of at most 256, each equally likely.
func randomText(alphabet string, n int) string {
	text := make([]byte, 0, n)
	for len(text) < n {
		var draw [1]byte
		rand.Read(draw[:])                                  // never fails (crypto/rand)
		if int(draw[0]) < 256/len(alphabet)*len(alphabet) { // else some digits would be likelier
			text = append(text, alphabet[int(draw[0])%len(alphabet)])
		}
	}
	return string(text)
}

func checksum(text string) string {
	sum := crc32.ChecksumIEEE([]byte(text))
	var digits [keyChecksum]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%uint32(len(base62))]
		sum /= uint32(len(base62))
	}
	return string(digits[:])
}

// wellFormed reports whether a secret can be an API key or a display's token.
func wellFormed(secret string) bool {
	text, isKey := strings.CutPrefix(secret, keyPrefix)
	text, isDisplay := strings.CutPrefix(text, displayPrefix)
	switch {
	case isKey && isDisplay:
		return false
	case len(text) == oldRandom && !isDisplay:
		return strings.Trim(text, base32) == ""
	case len(text) == keyRandom+keyChecksum && (isKey || isDisplay):
		return checksum(text[:keyRandom]) == text[keyRandom:]
	}
	return false
}

// KeyPlan describes a new key.
type KeyPlan struct {
	Name string
	// Scopes of the key. Empty: all.
	Scopes []Scope
	// ExpiresAt is when the key stops working; nil: never.
	ExpiresAt *time.Time
	// By is the caller that makes the key. Zero: the command line.
	By Principal
}

func (p KeyPlan) check(now time.Time) error {
	switch {
	case strings.TrimSpace(p.Name) == "" || utf8.RuneCountInString(p.Name) > maxKeyName:
		return models.Invalid("name", "A key needs a name of at most %d characters.", maxKeyName)
	case slices.ContainsFunc(p.Scopes, func(s Scope) bool { return !slices.Contains(scopes, s) }):
		return models.Invalid("scopes", "The scopes are read, write and admin.")
	case p.ExpiresAt != nil && !p.ExpiresAt.After(now):
		return models.Invalid("expiresAt", "A key expires in the future.")
	}
	return nil
}

// CreateKey makes an API key of an organization, or of the account when
// organizationID is nil. The key is returned once and kept as a hash.
func (a *Access) CreateKey(ctx context.Context, organizationID *string, plan KeyPlan) (APIKey, string, error) {
	if len(plan.Scopes) == 0 {
		plan.Scopes = []Scope{ScopeAdmin}
	}
	var k APIKey
	var secret string
	err := a.store.Tx(ctx, func(tx *store.Tx) (err error) {
		k, secret, err = a.createKey(tx, organizationID, plan)
		return err
	})
	if store.IsDuplicate(err) {
		return APIKey{}, "", models.Errorf(models.CodeKeyTaken, "There is a key named %q already.", plan.Name)
	}
	return k, secret, err
}

func (a *Access) createKey(tx *store.Tx, organizationID *string, plan KeyPlan) (APIKey, string, error) {
	if err := plan.check(tx.Now); err != nil {
		return APIKey{}, "", err
	}
	// The name of a key that has expired is free.
	old, err := a.keysNamed(tx, organizationID, plan.Name)
	if err != nil {
		return APIKey{}, "", err
	}
	for _, o := range old {
		if o.ExpiresAt != nil && !o.ExpiresAt.After(tx.Now) {
			if err := dropKey(tx, &o); err != nil {
				return APIKey{}, "", err
			}
		}
	}
	k, secret, err := insertKey(tx, organizationID, plan, plan.By.Role)
	if err != nil {
		return APIKey{}, "", err
	}
	return k, secret, tx.Audit(k.owner(), "createKey", "key", k.ID)
}

func insertKey(tx *store.Tx, organizationID *string, plan KeyPlan, role models.Role) (APIKey, string, error) {
	var keys int64
	if err := owned(tx.Model(&APIKey{}), organizationID).Count(&keys).Error; err != nil {
		return APIKey{}, "", fmt.Errorf("count API keys: %w", err)
	}
	if keys >= maxKeys {
		return APIKey{}, "", models.Errorf(models.CodeKeyLimit, "There are %d keys already.", keys)
	}
	secret := newSecret(keyPrefix)
	k := APIKey{
		ID: models.NewID(), OrganizationID: organizationID, Name: plan.Name, KeyHash: models.HashSecret(secret),
		Scopes: plan.Scopes, Role: role, MemberID: plan.By.member(),
		MakerKind: string(plan.By.Kind), MakerID: plan.By.SubjectID, CreatedAt: tx.Now,
	}
	if k.MakerKind == "" {
		k.MakerKind = "system"
	}
	if plan.By.Kind == KindMember {
		k.MemberRole = plan.By.Role
	}
	if plan.ExpiresAt != nil {
		at := plan.ExpiresAt.UTC().Truncate(time.Microsecond)
		k.ExpiresAt = &at
	}
	if err := tx.Create(&k).Error; err != nil {
		return APIKey{}, "", fmt.Errorf("create API key: %w", err)
	}
	return k, secret, nil
}

// RotateKey gives a key a successor of the same name, scopes and end, or of the end
// given. The old one works for another 24 hours, unless it ends before. If two calls
// rotate a key at once, the second rotates the successor of the first. by is the
// caller, who gets the new key: an admin may not rotate a key with more rights than
// their own. The successor counts as made by the caller, so that a key whose maker was
// deleted can be rotated.
func (a *Access) RotateKey(ctx context.Context, by Principal, organizationID *string, name string, expiresAt *time.Time) (APIKey, string, error) {
	var k APIKey
	var secret string
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		keys, err := a.keysNamed(tx, organizationID, name)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(keys, func(k APIKey) bool { return k.ReplacedAt == nil })
		if at < 0 {
			return keyMissing(name)
		}
		old := keys[at]
		if by.Role == models.RoleAdmin && old.Role != models.RoleAdmin {
			return models.Errorf(models.CodeForbidden, "This key may do more than you: let an owner rotate it.")
		}
		plan := KeyPlan{Name: name, Scopes: old.Scopes, By: by, ExpiresAt: old.ExpiresAt}
		if expiresAt != nil {
			plan.ExpiresAt = expiresAt
		}
		if err := plan.check(tx.Now); err != nil {
			return err
		}
		until := tx.Now.Add(rotationGrace)
		if old.ExpiresAt != nil && old.ExpiresAt.Before(until) {
			until = *old.ExpiresAt
		}
		// Not through old: GORM would write the new end into it, and so into plan.
		if err := tx.Model(&APIKey{ID: old.ID}).Updates(map[string]any{"replaced_at": tx.Now, "expires_at": until}).Error; err != nil {
			return fmt.Errorf("replace API key: %w", err)
		}
		if k, secret, err = insertKey(tx, organizationID, plan, old.Role); err != nil {
			return err
		}
		return tx.Audit(k.owner(), "rotateKey", "key", old.ID)
	})
	return k, secret, err
}

// Keys lists the API keys of an organization, or of the account, by name. A key is
// followed by those it replaced. The use counted on this node is included.
func (a *Access) Keys(ctx context.Context, organizationID *string) ([]APIKey, error) {
	if err := a.writeUses(ctx); err != nil {
		return nil, err
	}
	var list []APIKey
	q := withMembers(a.store.Read(ctx)).Where("k.organization_id IS NULL")
	if organizationID != nil {
		q = withMembers(a.store.Read(ctx)).Where("k.organization_id = ?", *organizationID)
	}
	err := q.Order("k.name, k.replaced_at IS NOT NULL, k.created_at DESC").Limit(maxKeys).Find(&list).Error
	if err != nil {
		return nil, fmt.Errorf("list API keys: %w", err)
	}
	return list, nil
}

// DeleteKey deletes a key by its name, and those it replaced; they are refused
// from then on.
func (a *Access) DeleteKey(ctx context.Context, organizationID *string, name string) error {
	return a.store.Tx(ctx, func(tx *store.Tx) error {
		keys, err := a.keysNamed(tx, organizationID, name)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			return keyMissing(name)
		}
		for _, k := range keys {
			if err := dropKey(tx, &k); err != nil {
				return err
			}
			if err := tx.Audit(k.owner(), "deleteKey", "key", k.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropReplaced deletes the keys whose time after a rotation has passed, and
// closes the live connections that were opened with them.
func (a *Access) dropReplaced(ctx context.Context) error {
	return a.store.Tx(ctx, func(tx *store.Tx) error {
		var keys []APIKey
		err := a.store.SkipLocked(tx).Where("replaced_at IS NOT NULL AND expires_at <= ?", tx.Now).Limit(100).Find(&keys).Error
		if err != nil {
			return fmt.Errorf("find replaced API keys: %w", err)
		}
		for _, k := range keys {
			if err := dropKey(tx, &k); err != nil {
				return err
			}
		}
		return nil
	})
}

// keysNamed lists the keys of a name: the one that is good, and those it replaced. They
// are locked until the transaction ends, and read after that, so that a key that was
// made meanwhile is included.
func (a *Access) keysNamed(tx *store.Tx, organizationID *string, name string) ([]APIKey, error) {
	var ids []string
	if err := owned(a.store.Lock(tx).Model(&APIKey{}).Where("name = ?", name), organizationID).Order("created_at, id").Pluck("id", &ids).Error; err != nil {
		return nil, fmt.Errorf("lock API keys: %w", err)
	}
	var keys []APIKey
	if err := owned(tx.Where("name = ?", name), organizationID).Find(&keys).Error; err != nil {
		return nil, fmt.Errorf("read API keys: %w", err)
	}
	return keys, nil
}

func dropKey(tx *store.Tx, k *APIKey) error {
	if err := tx.Delete(k).Error; err != nil {
		return fmt.Errorf("delete API key: %w", err)
	}
	return tx.Revoke(store.RevokedKey, k.ID)
}

func keyMissing(name string) error {
	return models.Errorf(models.CodeKeyMissing, "There is no key named %q.", name)
}

// owner is the key's organization as the audit writes it.
func (k *APIKey) owner() string { return models.Text(k.OrganizationID) }

func owned(q *gorm.DB, organizationID *string) *gorm.DB {
	if organizationID == nil {
		return q.Where("organization_id IS NULL")
	}
	return q.Where("organization_id = ?", *organizationID)
}
