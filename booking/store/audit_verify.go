package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"

	"gorm.io/gorm"
)

const (
	// auditPiece is how many lines are read at a time.
	auditPiece = 1000
	// maxAuditFaults bounds the faults of one chain that are listed.
	maxAuditFaults = 20
)

// AuditHead is what an operator keeps of a chain outside the database: every
// later state of the chain still holds this line.
type AuditHead struct {
	Seq  int64
	Hash []byte
}

// AuditReport says whether the chain of an organization is whole.
type AuditReport struct {
	AuditChain
	Faults []string // what is wrong, at most 20
}

func (r *AuditReport) fault(format string, args ...any) {
	if len(r.Faults) < maxAuditFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// AuditChains lists the ends of all chains by organization; the account's, whose
// id is empty, is the first.
func (s *Store) AuditChains(ctx context.Context) ([]AuditChain, error) {
	var list []AuditChain
	if err := s.Read(ctx).Order("organization_id").Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list the chains of the audit: %w", err)
	}
	return list, nil
}

// AuditedOrganizations lists the organizations that have a chain or lines.
func (s *Store) AuditedOrganizations(ctx context.Context) ([]string, error) {
	var ids []string
	err := s.Read(ctx).Raw("SELECT organization_id FROM audit UNION SELECT organization_id FROM audit_chains ORDER BY 1").Scan(&ids).Error
	if err != nil {
		return nil, fmt.Errorf("list the organizations of the audit: %w", err)
	}
	return ids, nil
}

// VerifyAudit walks the chain of an organization and reports every line that was
// changed, deleted or added outside it. kept, which may be nil, is a head of the
// chain that was noted earlier.
//
// It finds what was done without the means to write a whole new chain. The owner
// of the schema can write one: only a kept head shows that.
func (s *Store) VerifyAudit(ctx context.Context, organizationID string, kept *AuditHead) (AuditReport, error) {
	r := AuditReport{AuditChain: AuditChain{OrganizationID: organizationID}}
	// One snapshot, so that lines written meanwhile are no difference.
	var options []*sql.TxOptions
	if s.Postgres() {
		options = append(options, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	}
	err := s.Read(ctx).Transaction(func(db *gorm.DB) error {
		found := db.Where("organization_id = ?", organizationID).Limit(1).Find(&r.AuditChain)
		if found.Error != nil {
			return found.Error
		}
		if found.RowsAffected == 0 {
			r.fault("the end of the chain is missing")
		}
		if err := r.checkRemoval(db); err != nil {
			return err
		}
		return r.walk(db, kept)
	}, options...)
	if err != nil {
		return r, fmt.Errorf("verify the audit: %w", err)
	}
	return r, nil
}

// checkRemoval checks that lines left the chain only with their organization,
// and that the account's audit tells so.
func (r *AuditReport) checkRemoval(db *gorm.DB) error {
	if r.Removed == 0 {
		return nil
	}
	var exists, told int64
	if err := db.Table("organizations").Where("id = ?", r.OrganizationID).Count(&exists).Error; err != nil {
		return err
	}
	if exists > 0 {
		r.fault("lines 1 to %d were deleted, but the organization exists", r.Removed)
	}
	err := db.Model(&Audit{}).Where("organization_id = '' AND action = 'dropOrganization' AND subject_id = ?", r.OrganizationID).Count(&told).Error
	if err != nil {
		return err
	}
	if told == 0 {
		r.fault("lines 1 to %d were deleted, but the account's audit has no line dropOrganization", r.Removed)
	}
	return nil
}

// walk follows the chain from its first line to its end.
func (r *AuditReport) walk(db *gorm.DB, kept *AuditHead) error {
	seq, hash, unchained := r.Removed, r.RemovedHash, int64(0)
	for last := int64(0); ; {
		var lines []Audit
		if err := db.Where("organization_id = ? AND id > ?", r.OrganizationID, last).Order("id").Limit(auditPiece).Find(&lines).Error; err != nil {
			return err
		}
		for i := range lines {
			line := &lines[i]
			last = line.ID
			switch {
			case line.Seq == 0:
				unchained++
				continue
			case line.Seq <= seq:
				r.fault("id %d: a line %d was added after line %d", line.ID, line.Seq, seq)
				continue
			case line.Seq > seq+1:
				r.fault("id %d: missing before this line: %s", line.ID, span(seq+1, line.Seq-1))
			case !bytes.Equal(line.sum(hash), line.Hash):
				r.fault("id %d: line %d was changed, or the line before was replaced", line.ID, line.Seq)
			}
			if !line.intact() {
				r.fault("id %d: the address or the reason of line %d was changed", line.ID, line.Seq)
			}
			if kept != nil && kept.Seq == line.Seq && !bytes.Equal(kept.Hash, line.Hash) {
				r.fault("id %d: line %d is not the one whose hash was kept", line.ID, line.Seq)
			}
			seq, hash = line.Seq, line.Hash
		}
		if len(lines) < auditPiece {
			break
		}
	}
	if seq < r.Lines {
		r.fault("missing at the end: %s", span(seq+1, r.Lines))
	} else if seq > r.Lines || !bytes.Equal(hash, r.Hash) {
		r.fault("line %d is not the end of the chain", seq)
	}
	if kept != nil && kept.Seq > r.Lines {
		r.fault("missing at the end: %s, whose hash was kept", span(r.Lines+1, kept.Seq))
	}
	if unchained != r.Unchained {
		r.fault("%d lines are older than the chain; there were %d when it began", unchained, r.Unchained)
	}
	return nil
}

func span(from, to int64) string {
	if from == to {
		return fmt.Sprintf("line %d", from)
	}
	return fmt.Sprintf("lines %d to %d", from, to)
}
