package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"nowserving/models"
)

// Origin is the caller of a change, its address and its reason, for the audit. The
// context of a request holds it. The zero Origin is the service itself, such as for a
// deadline that passed.
type Origin struct {
	Kind      string // of the credential; system without one
	ID        string // of the customer, member, key, booking (of a ticket) or display
	Role      models.Role
	Address   string // network address
	RequestID string
	Reason    string // what they said of it
}

type originKey struct{}

// WithOrigin returns a context whose transactions have o in their audit lines.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// Because returns a context whose transactions have a reason in their audit lines.
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

// By sets the actor of the transaction when it is only known once the
// transaction has begun.
func (tx *Tx) By(kind, id string, role models.Role) {
	tx.origin.Kind, tx.origin.ID, tx.origin.Role = kind, id, role
}

// Audit is a line of the audit: who did what to which thing, when, from where
// and why. It never changes, except that Address and Reason are emptied when
// the person they are about is erased.
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

	// Seq is the number of the line in the chain of its organization, from 1.
	// Lines written before there were chains have 0.
	Seq int64
	// Hash is the SHA-256 of the line and of the hash of the line before.
	Hash []byte
	// The digests of Address and Reason are covered by Hash. The salts are
	// erased with the texts, so that a digest can't be used to guess its text.
	AddressSalt, AddressDigest []byte
	ReasonSalt, ReasonDigest   []byte
}

// TableName names the table for GORM.
func (Audit) TableName() string { return "audit" }

// Audit records an action of the transaction's actor. The line is written at
// the end of the transaction. Neither action nor subject may hold a secret or a
// name.
func (tx *Tx) Audit(organizationID, action, subjectKind, subjectID string) error {
	if action == "" {
		return errors.New("a line of the audit needs an action")
	}
	o := tx.origin
	tx.audit = append(tx.audit, Audit{
		OrganizationID: organizationID, Action: action, SubjectKind: subjectKind, SubjectID: subjectID,
		ActorKind: o.Kind, ActorID: o.ID, ActorRole: o.Role, Address: o.Address, RequestID: o.RequestID, Reason: o.Reason, CreatedAt: tx.Now,
	})
	return nil
}

// EraseAudit empties what the audit holds of a customer: the addresses they came
// from, the reasons they gave, and the reasons others gave for what they did to
// the customer or to their bookings.
func (tx *Tx) EraseAudit(e *DataSubject) error {
	const (
		address = "address = '', address_salt = ?"
		reason  = "reason = '', reason_salt = ?"
	)
	none := []byte{} // a salt
	about := slices.Concat(e.CustomerIDs, e.BookingIDs)
	for _, step := range []struct {
		sql  string
		args []any
	}{
		// A used refresh token of theirs may have been presented without a
		// credential: the session tells that it was theirs.
		{
			"UPDATE audit SET " + address + ` WHERE organization_id = ? AND subject_kind = 'session' AND subject_id IN (
				SELECT subject_id FROM audit WHERE organization_id = ? AND actor_kind = 'customer' AND actor_id IN ? AND subject_kind = 'session')`,
			[]any{none, e.OrganizationID, e.OrganizationID, e.CustomerIDs},
		},
		{
			"UPDATE audit SET " + address + ", " + reason + ` WHERE organization_id = ?
				AND (actor_kind = 'customer' AND actor_id IN ? OR actor_kind = 'ticket' AND actor_id IN ?)`,
			[]any{none, none, e.OrganizationID, e.CustomerIDs, e.BookingIDs},
		},
		{"UPDATE audit SET " + reason + " WHERE organization_id = ? AND subject_id IN ?", []any{none, e.OrganizationID, about}},
	} {
		if err := tx.Exec(step.sql, step.args...).Error; err != nil {
			return fmt.Errorf("erase what the audit holds of a customer: %w", err)
		}
	}
	// The lines of this transaction are not written yet.
	for i := range tx.audit {
		line := &tx.audit[i]
		if line.ActorKind == "customer" && slices.Contains(e.CustomerIDs, line.ActorID) || line.ActorKind == "ticket" && slices.Contains(e.BookingIDs, line.ActorID) {
			line.Address, line.Reason = "", ""
		}
		if slices.Contains(about, line.SubjectID) {
			line.Reason = ""
		}
	}
	return nil
}
