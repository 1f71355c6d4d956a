package store

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// saltSize is the length in bytes of the salt of an erasable text.
const saltSize = 16

// AuditChain is the end of an organization's chain of audit lines.
type AuditChain struct {
	OrganizationID string `gorm:"primaryKey"` // empty: the account
	Lines          int64  // Seq of the last line; 0 for an empty chain
	Hash           []byte // of the last line
	Unchained      int64  // how many lines were written before there were chains
	Removed        int64  // lines up to this Seq were deleted with the organization
	RemovedHash    []byte // of the last of those
}

// TableName names the table for GORM.
func (AuditChain) TableName() string { return "audit_chains" }

// writeAudit appends the transaction's lines to the chains of their
// organizations. It locks the end of each chain until the commit, in one order
// everywhere and after every other lock, so that no two transactions wait for
// each other.
func (tx *Tx) writeAudit() error {
	if len(tx.audit) == 0 {
		return nil
	}
	// The account, whose id is empty, comes last: dropAudit locks the chain of an
	// organization before.
	slices.SortStableFunc(tx.audit, func(a, b Audit) int { return cmp.Compare(b.OrganizationID, a.OrganizationID) })
	var chain AuditChain
	for i := range tx.audit {
		line := &tx.audit[i]
		if i == 0 || line.OrganizationID != chain.OrganizationID {
			var err error
			if chain, err = tx.lockChain(line.OrganizationID); err != nil {
				return err
			}
		}
		line.seal(&chain)
	}
	// A trigger moves the end of the chain to the line.
	if err := tx.CreateInBatches(&tx.audit, auditPiece/2).Error; err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	return nil
}

// lockChain locks and returns the end of an organization's chain, which is made
// if there is none.
func (tx *Tx) lockChain(organizationID string) (AuditChain, error) {
	var chain AuditChain
	sql := "SELECT * FROM audit_chain_end(?)"
	if !tx.postgres() {
		sql = "INSERT INTO audit_chains (organization_id) VALUES (?) ON CONFLICT DO UPDATE SET lines = lines RETURNING *"
	}
	if err := tx.Raw(sql, organizationID).Scan(&chain).Error; err != nil {
		return chain, fmt.Errorf("lock the audit of an organization: %w", err)
	}
	return chain, nil
}

// dropAudit deletes the audit of an organization that is deleted. The end of its
// chain stays and says how many lines there were.
func (tx *Tx) dropAudit(organizationID string) error {
	statements := []string{"SELECT audit_drop(?)"}
	if !tx.postgres() {
		statements = []string{
			"DELETE FROM audit WHERE organization_id = ?",
			"UPDATE audit_chains SET removed = lines, removed_hash = hash, unchained = 0 WHERE organization_id = ?",
		}
	}
	for _, sql := range statements {
		if err := tx.Exec(sql, organizationID).Error; err != nil {
			return fmt.Errorf("delete the audit of an organization: %w", err)
		}
	}
	return nil
}

func (tx *Tx) postgres() bool { return tx.Name() == "postgres" }

// seal makes the line the next of the chain.
func (a *Audit) seal(chain *AuditChain) {
	a.AddressSalt, a.AddressDigest = commit(a.Address)
	a.ReasonSalt, a.ReasonDigest = commit(a.Reason)
	a.Seq = chain.Lines + 1
	a.Hash = a.sum(chain.Hash)
	chain.Lines, chain.Hash = a.Seq, a.Hash
}

// sum is the hash of the line after one with the hash before. Each field has its
// length in front, so that no two lines are hashed alike.
func (a *Audit) sum(before []byte) []byte {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	number := func(n int64) { field(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	field([]byte("audit 1")) // the version of this format
	field(before)
	number(a.Seq)
	for _, text := range []string{
		a.OrganizationID, a.Action, a.SubjectKind, a.SubjectID, a.ActorKind, a.ActorID, string(a.ActorRole), a.RequestID,
	} {
		field([]byte(text))
	}
	number(a.CreatedAt.UnixMicro())
	field(a.AddressDigest)
	field(a.ReasonDigest)
	return h.Sum(nil)
}

// intact reports whether the address and the reason are those that the line was
// written with, or erased.
func (a *Audit) intact() bool {
	return opens(a.Address, a.AddressSalt, a.AddressDigest) && opens(a.Reason, a.ReasonSalt, a.ReasonDigest)
}

// commit returns a random salt and the digest of the text under it; both are
// empty for an empty text.
func commit(text string) (salt, digest []byte) {
	if text == "" {
		return []byte{}, []byte{}
	}
	salt = make([]byte, saltSize)
	rand.Read(salt)
	return salt, digestOf(text, salt)
}

// opens reports whether the digest is the text's, or the text was erased.
func opens(text string, salt, digest []byte) bool {
	if len(salt) == 0 {
		return text == ""
	}
	return hmac.Equal(digestOf(text, salt), digest)
}

func digestOf(text string, salt []byte) []byte {
	h := hmac.New(sha256.New, salt)
	h.Write([]byte(text))
	return h.Sum(nil)
}
