package store

import (
	"context"
	"fmt"
	"time"
)

// Revoked is the kind of credential that a Revocation ends.
type Revoked string

// The kinds of revocations.
const (
	RevokedSession      Revoked = "session"      // of a person who signed in
	RevokedKey          Revoked = "key"          // an API key
	RevokedDisplay      Revoked = "display"      // a waiting-room screen
	RevokedOrganization Revoked = "organization" // every credential of an organization
	// ChangedMember ends no credential: the member's rights have changed, so their live
	// subscriptions have to be checked again.
	ChangedMember Revoked = "member"
)

// Revocation is the end of a credential before its expiry.
type Revocation struct {
	ID      int64 `gorm:"primaryKey;autoIncrement"`
	Kind    Revoked
	Subject string // the id of the session, key, display or organization
	At      time.Time
}

// Revoke ends a credential when the transaction commits: on this node at once, and on
// the others within 5 s.
func (tx *Tx) Revoke(kind Revoked, subject string) error {
	r := Revocation{Kind: kind, Subject: subject, At: tx.Now}
	if err := tx.Create(&r).Error; err != nil {
		return fmt.Errorf("revoke a %s: %w", kind, err)
	}
	tx.revoked = append(tx.revoked, r)
	return nil
}

// OnRevoke sets the function that is called with the revocations of every transaction
// that this node commits. Call it before the store is used.
func (s *Store) OnRevoke(revoked func([]Revocation)) { s.onRevoke = revoked }

// Revocations lists what was revoked since a moment of the database's clock, the
// oldest first, and says when it began to read. It does not wait for a connection
// of the pool that requests use.
func (s *Store) Revocations(ctx context.Context, since time.Time) (now time.Time, list []Revocation, err error) {
	db := s.aside.WithContext(ctx)
	if now, err = s.readClock(db); err != nil {
		return time.Time{}, nil, err
	}
	if err := db.Where("at >= ?", since).Order("id").Find(&list).Error; err != nil {
		return time.Time{}, nil, fmt.Errorf("read revocations: %w", err)
	}
	return now, list, nil
}
