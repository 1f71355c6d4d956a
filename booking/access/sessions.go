package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"gorm.io/gorm"

	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// refreshLife is how long a refresh token is valid.
	refreshLife = 30 * 24 * time.Hour
	// sessionLife is how long a session lasts, however often it is refreshed.
	sessionLife = 180 * 24 * time.Hour
	// refreshGrace is how long a used refresh token returns its successor again,
	// because the answer may have been lost.
	refreshGrace = 10 * time.Second
)

// Session holds the tokens of a person who has signed in.
type Session struct {
	RefreshToken          string
	RefreshTokenExpiresAt time.Time
	AccessToken           string
	AccessTokenExpiresAt  time.Time
	User                  User
}

// User is the person of a session.
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

// session is a row of the table sessions.
type session struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Kind           Kind
	SubjectID      string
	Refreshes      int // the number of the refresh token that is good
	RefreshedAt    time.Time
	ExpiresAt      time.Time // the moment it ended, if that was earlier
	CreatedAt      time.Time
}

var errBadRefresh = models.Errorf(models.CodeUnauthenticated, "The refresh token is not valid; sign in again.")

// refreshToken makes the refresh token of a session with a number. It is keyed, so
// read access to the database is not enough to make one.
func (a *Access) refreshToken(session string, number int) string {
	named := session + "_" + strconv.Itoa(number)
	mac := hmac.New(sha256.New, a.refreshing)
	mac.Write([]byte(named))
	return refreshPrefix + named + "_" + hex.EncodeToString(mac.Sum(nil))
}

// refreshPrefix begins every refresh token, for secret scanners.
const refreshPrefix = "nsr_"

// readRefresh returns the session and the number of a valid refresh token.
func (a *Access) readRefresh(token string) (session string, number int, err error) {
	parts := strings.Split(strings.TrimPrefix(token, refreshPrefix), "_")
	if len(parts) != 3 {
		return "", 0, errBadRefresh
	}
	number, err = strconv.Atoi(parts[1])
	if err != nil || !constantEqual(token, a.refreshToken(parts[0], number)) {
		return "", 0, errBadRefresh
	}
	return parts[0], number, nil
}

// open begins the session of a person who has just signed in.
func (a *Access) open(tx *store.Tx, organizationID string, kind Kind, subjectID string) (Session, error) {
	row := session{
		ID: models.NewID(), OrganizationID: organizationID, Kind: kind, SubjectID: subjectID,
		RefreshedAt: tx.Now, ExpiresAt: tx.Now.Add(refreshLife), CreatedAt: tx.Now,
	}
	if err := tx.Create(&row).Error; err != nil {
		return Session{}, fmt.Errorf("open a session: %w", err)
	}
	opened, err := a.describe(tx, &row)
	if err != nil {
		return Session{}, err
	}
	tx.By(string(kind), subjectID, opened.User.Role)
	return opened, tx.Audit(organizationID, "verifyCode", "session", row.ID)
}

// Refresh exchanges a refresh token for the next one and a new access token. A used
// token returns the same successor for 10 s, as long as that was not used itself.
// After that, two clients have the token, and the session ends. organizationID, if
// not empty, has to be the session's.
func (a *Access) Refresh(ctx context.Context, organizationID, token string) (Session, error) {
	id, number, err := a.readRefresh(token)
	if err != nil {
		return Session{}, err
	}
	var refreshed Session
	reused := false
	err = a.store.Tx(ctx, func(tx *store.Tx) error {
		var row session
		err := a.store.Lock(tx).Where("id = ? AND expires_at > ?", id, tx.Now).Take(&row).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return errBadRefresh
		}
		if err != nil {
			return fmt.Errorf("read a session: %w", err)
		}
		if organizationID != "" && organizationID != row.OrganizationID {
			return errBadRefresh
		}
		switch {
		case number == row.Refreshes:
			row.Refreshes, row.RefreshedAt, row.ExpiresAt = row.Refreshes+1, tx.Now, earlier(tx.Now.Add(refreshLife), row.CreatedAt.Add(sessionLife))
			if err := tx.Save(&row).Error; err != nil {
				return fmt.Errorf("refresh a session: %w", err)
			}
		case number == row.Refreshes-1 && tx.Now.Sub(row.RefreshedAt) <= refreshGrace:
		case number < row.Refreshes:
			reused = true
			if err := tx.Audit(row.OrganizationID, "reuseRefreshToken", "session", row.ID); err != nil {
				return err
			}
			return end(tx, row.ID)
		default: // the database is older than the token
			return errBadRefresh
		}
		refreshed, err = a.describe(tx, &row)
		return err
	})
	if err == nil && reused {
		a.opts.Log.Warn("a used refresh token came again; its session ended", "session", id)
		err = errBadRefresh
	}
	return refreshed, err
}

// Logout ends the session of a refresh token, even of a used one. Its access tokens
// are refused and its live connections closed, on this node at once and on others
// within 5 s. An invalid token ends nothing.
func (a *Access) Logout(ctx context.Context, token string) error {
	id, _, err := a.readRefresh(token)
	if err != nil {
		return nil //nolint:nilerr // an ended session is signed out already
	}
	return a.logout(ctx, id)
}

// LogoutBearer ends the session of an access token, as Logout does that of a
// refresh token.
func (a *Access) LogoutBearer(ctx context.Context, token string) error {
	p, err := a.Authenticate(ctx, token, nil)
	if err != nil {
		return err
	}
	if p.SessionID == "" {
		return models.Errorf(models.CodeForbidden, "Only people sign in, and out.")
	}
	return a.logout(ctx, p.SessionID)
}

func (a *Access) logout(ctx context.Context, id string) error {
	return a.store.Tx(ctx, func(tx *store.Tx) error {
		var row session
		err := a.store.Lock(tx).Where("id = ? AND expires_at > ?", id, tx.Now).Take(&row).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a session: %w", err)
		}
		var m models.Member // with no role if it is a customer, or gone
		if row.Kind == KindMember {
			if err := tx.Where("organization_id = ? AND id = ?", row.OrganizationID, row.SubjectID).Limit(1).Find(&m).Error; err != nil {
				return fmt.Errorf("read member: %w", err)
			}
		}
		tx.By(string(row.Kind), row.SubjectID, m.Role)
		if err := tx.Audit(row.OrganizationID, "logout", "session", row.ID); err != nil {
			return err
		}
		return end(tx, row.ID)
	})
}

// EndSessions ends all sessions of a person when the transaction commits, like
// Logout, and deletes the devices that were registered in them.
func (a *Access) EndSessions(tx *store.Tx, organizationID string, kind Kind, subjectID string) error {
	var ids []string
	err := tx.Model(&session{}).Where("organization_id = ? AND kind = ? AND subject_id = ? AND expires_at > ?", organizationID, kind, subjectID, tx.Now).
		Pluck("id", &ids).Error
	if err != nil {
		return fmt.Errorf("find a person's sessions: %w", err)
	}
	column := "customer_id"
	if kind == KindMember {
		column = "member_id"
	}
	if err := tx.Exec("DELETE FROM devices WHERE organization_id = ? AND "+column+" = ?", organizationID, subjectID).Error; err != nil {
		return fmt.Errorf("delete a person's devices: %w", err)
	}
	return end(tx, ids...)
}

// end ends sessions when the transaction commits, and deletes the devices that were
// registered in them.
func end(tx *store.Tx, ids ...string) error {
	if err := tx.Model(&session{}).Where("id IN ?", ids).Update("expires_at", tx.Now).Error; err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	if err := tx.Exec("DELETE FROM devices WHERE session_id IN ?", ids).Error; err != nil {
		return fmt.Errorf("delete the devices of ended sessions: %w", err)
	}
	for _, id := range ids {
		if err := tx.Revoke(store.RevokedSession, id); err != nil {
			return err
		}
	}
	return nil
}

// describe makes the Session of a person. The organization or the person may have
// been deleted since it began.
func (a *Access) describe(tx *store.Tx, row *session) (Session, error) {
	var alive int64
	if err := tx.Model(&models.Organization{}).Where("id = ? AND deleted_at IS NULL", row.OrganizationID).Count(&alive).Error; err != nil {
		return Session{}, fmt.Errorf("read organization: %w", err)
	}
	if alive == 0 {
		return Session{}, models.Errorf(models.CodeUnauthenticated, "The organization is gone.")
	}
	user, err := a.user(tx.DB, row)
	if err != nil {
		return Session{}, err
	}
	s := Session{RefreshToken: a.refreshToken(row.ID, row.Refreshes), RefreshTokenExpiresAt: row.ExpiresAt, User: user}
	s.AccessToken, s.AccessTokenExpiresAt, err = a.sign(
		claims{
			RegisteredClaims: jwt.RegisteredClaims{ID: models.NewID()}, // so that two of one second differ
			OrganizationID:   row.OrganizationID, Kind: row.Kind, Role: user.Role, SessionID: row.ID,
		}, row.SubjectID, accessLife)
	return s, err
}

func (a *Access) user(db *gorm.DB, row *session) (User, error) {
	u := User{ID: row.SubjectID, Kind: row.Kind, OrganizationID: row.OrganizationID}
	if row.Kind == KindMember {
		m, err := member(db, row.OrganizationID, row.SubjectID)
		if err != nil {
			return User{}, err
		}
		u.Role, u.FirstName, u.LastName, u.Phone, u.Email = m.Role, m.FirstName, m.LastName, models.Text(m.Phone), models.Text(m.Email)
		u.ResourceIDs, err = resourcesOf(db, row.OrganizationID, m.ID)
		return u, err
	}
	c, err := customers.One(row.OrganizationID, row.SubjectID).Find(db, row.SubjectID)
	if models.CodeOf(err) == models.CodeCustomerMissing {
		return User{}, errBadRefresh
	}
	if err != nil {
		return User{}, err
	}
	u.FirstName, u.LastName = c.FirstName, c.LastName
	u.Phone, u.Email = c.Contact()
	return u, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func constantEqual(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
