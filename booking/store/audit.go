package store

import (
	"context"
	"fmt"
	"time"

	"nowserving/models"
)

// Origin is who asks for a change, from where and why. It travels in the
// context of a request, so that every transaction of it is written down as
// theirs. The zero Origin is the service itself: a deadline that passed.
type Origin struct {
	Kind      string // of the credential; system without one
	ID        string // of the customer, member, key, booking (of a ticket) or display
	Role      models.Role
	Address   string // network address
	RequestID string
	Reason    string // what they said of it
}

type originKey struct{}

// WithOrigin returns a context whose transactions are written down as o's.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// Because returns a context whose transactions are written down with a reason.
func Because(ctx context.Context, reason string) context.Context {
	o := originOf(ctx)
	o.Reason = reason
	return WithOrigin(ctx, o)
}

func originOf(ctx context.Context) Origin {
	o, ok := ctx.Value(originKey{}).(Origin)
	if !ok {
		o.Kind = "system"
	}
	return o
}

// By says whose the transaction is, where that came out only within it.
func (tx *Tx) By(kind, id string, role models.Role) {
	tx.origin.Kind, tx.origin.ID, tx.origin.Role = kind, id, role
}

// Audit is a line of the audit: who did what to which thing, when, from where
// and why. It never changes, save that Address and Reason are emptied when the
// person they are of is erased.
type Audit struct {
	ID             int64 `gorm:"primaryKey;autoIncrement"`
	OrganizationID string
	Action         string
	SubjectKind    string // booking, customer, member, key, organization …
	SubjectID      string
	ActorKind      string
	ActorID        string
	ActorRole      models.Role
	Address        string
	RequestID      string
	Reason         string
	CreatedAt      time.Time
}

// TableName names the table for GORM.
func (Audit) TableName() string { return "audit" }

// Audit writes down that whoever the transaction is of did something. Neither
// action nor subject may hold a secret or a name.
func (tx *Tx) Audit(organizationID, action, subjectKind, subjectID string) error {
	o := tx.origin
	row := Audit{
		OrganizationID: organizationID, Action: action, SubjectKind: subjectKind, SubjectID: subjectID,
		ActorKind: o.Kind, ActorID: o.ID, ActorRole: o.Role, Address: o.Address, RequestID: o.RequestID, Reason: o.Reason, CreatedAt: tx.Now,
	}
	if err := tx.Create(&row).Error; err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	return nil
}
