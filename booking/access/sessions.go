package access

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// Session is what a person who signed in gets.
type Session struct {
	RefreshToken         string
	AccessToken          string
	AccessTokenExpiresAt time.Time
	User                 User
}

// User is the person behind a session.
type User struct {
	ID             string
	Kind           Kind
	Role           models.Role
	FirstName      string
	LastName       string
	Phone          string
	Email          string
	OrganizationID string
	ResourceIDs    []string // of a member
}

type refreshToken struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Kind           Kind
	SubjectID      string
	TokenHash      string
	ExpiresAt      time.Time
	RevokedAt      *time.Time
	CreatedAt      time.Time
}

// open begins a session.
func (a *Access) open(ctx context.Context, organizationID string, kind Kind, subjectID string) (Session, error) {
	secret := NewToken()
	row := refreshToken{ID: models.NewID(), OrganizationID: organizationID, Kind: kind, SubjectID: subjectID, TokenHash: models.HashSecret(secret)}
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		row.CreatedAt, row.ExpiresAt = tx.Now, tx.Now.Add(refreshLife)
		return tx.Create(&row).Error
	})
	if err != nil {
		return Session{}, fmt.Errorf("open a session: %w", err)
	}
	return a.session(ctx, row, secret)
}

// Refresh gives a new access token. organizationID, when not empty, must be
// the session's.
func (a *Access) Refresh(ctx context.Context, organizationID, secret string) (Session, error) {
	var row refreshToken
	err := a.store.Read(ctx).Where("token_hash = ? AND revoked_at IS NULL", models.HashSecret(secret)).Take(&row).Error
	if err != nil && !errors.Is(err, gorm.ErrRecordNotFound) {
		return Session{}, fmt.Errorf("read a session: %w", err)
	}
	if err != nil || !row.ExpiresAt.After(a.o.Now()) || organizationID != "" && organizationID != row.OrganizationID {
		return Session{}, models.Errorf(models.CodeUnauthenticated, "The refresh token is not valid; sign in again.")
	}
	return a.session(ctx, row, secret)
}

// Logout ends a session: its access token is refused and its live connections
// are closed, here at once and elsewhere within seconds. An unknown one is ended
// already.
func (a *Access) Logout(ctx context.Context, secret string) error {
	return a.store.Tx(ctx, func(tx *store.Tx) error {
		var row refreshToken
		err := tx.Where("token_hash = ? AND revoked_at IS NULL", models.HashSecret(secret)).Take(&row).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return nil
		}
		if err == nil {
			err = tx.Model(&row).Update("revoked_at", tx.Now).Error
		}
		if err != nil {
			return fmt.Errorf("end a session: %w", err)
		}
		return tx.Revoke(store.RevokedSession, row.ID)
	})
}

// EndSessions ends every session of a person when the transaction commits, as
// Logout does one.
func (a *Access) EndSessions(tx *store.Tx, organizationID string, kind Kind, subjectID string) error {
	var ids []string
	theirs := func() *gorm.DB {
		return tx.Model(&refreshToken{}).Where("organization_id = ? AND kind = ? AND subject_id = ? AND revoked_at IS NULL", organizationID, kind, subjectID)
	}
	if err := theirs().Pluck("id", &ids).Error; err != nil {
		return fmt.Errorf("find a person's sessions: %w", err)
	}
	if err := theirs().Update("revoked_at", tx.Now).Error; err != nil {
		return fmt.Errorf("end a person's sessions: %w", err)
	}
	for _, id := range ids {
		if err := tx.Revoke(store.RevokedSession, id); err != nil {
			return err
		}
	}
	return nil
}

func (a *Access) session(ctx context.Context, row refreshToken, secret string) (Session, error) {
	// The organization may be gone since.
	var alive int64
	err := a.store.Read(ctx).Model(&models.Organization{}).Where("id = ? AND deleted_at IS NULL", row.OrganizationID).Count(&alive).Error
	if err != nil {
		return Session{}, fmt.Errorf("read organization: %w", err)
	}
	if alive == 0 {
		return Session{}, models.Errorf(models.CodeUnauthenticated, "The organization is gone.")
	}
	user := User{ID: row.SubjectID, Kind: row.Kind, OrganizationID: row.OrganizationID}
	if row.Kind == KindMember {
		m, err := a.Member(ctx, row.OrganizationID, row.SubjectID)
		if err != nil {
			return Session{}, err
		}
		user.Role, user.FirstName, user.LastName, user.Phone, user.Email = m.Role, m.FirstName, m.LastName, value(m.Phone), value(m.Email)
		if user.ResourceIDs, err = a.resourcesOf(ctx, row.OrganizationID, m.ID); err != nil {
			return Session{}, err
		}
	} else {
		c, err := a.Customer(ctx, row.OrganizationID, row.SubjectID)
		if err != nil {
			return Session{}, err
		}
		user.FirstName, user.LastName, user.Phone, user.Email = c.FirstName, c.LastName, value(c.Phone), value(c.Email)
	}
	token, expires, err := a.sign(claims{OrganizationID: row.OrganizationID, Kind: row.Kind, Role: user.Role, SessionID: row.ID}, row.SubjectID, accessLife)
	if err != nil {
		return Session{}, err
	}
	return Session{secret, token, expires, user}, nil
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func constantEqual(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
