package store

import (
	"context"
	"fmt"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// DataSubject identifies a customer who is erased or exported, for each package that
// erases or exports its own rows.
type DataSubject struct {
	OrganizationID string
	// CustomerIDs are the customer's own id, first, and those of the duplicates that
	// were merged into them.
	CustomerIDs []string
	// BookingIDs are all of theirs, and Contacts their phone number and e-mail
	// address. Each begins with "", for no query's list may be empty.
	BookingIDs, Contacts []string
}

// Erasing begins the erasure or the merging of customers. It waits for the
// transactions that may write their identity, which have called Naming or have
// written an event, and later ones wait for it.
//
// The bookings are locked before the organization, as by a transition, which locks
// its booking and then writes an event.
func (tx *Tx) Erasing(organizationID string, customerIDs ...string) error {
	var locked []int64
	err := tx.Table("bookings").Clauses(clause.Locking{Strength: "NO KEY UPDATE"}).
		Where("organization_id = ? AND customer_id IN ?", organizationID, customerIDs).Order("seq").Pluck("seq", &locked).Error
	if err != nil {
		return fmt.Errorf("lock a customer's bookings: %w", err)
	}
	return tx.lockOrganization(organizationID, clause.LockingStrengthUpdate)
}

// Naming takes a shared lock: erasures in the organization wait until this
// transaction ends. Call it before writing a customer's identity.
func (tx *Tx) Naming(organizationID string) error {
	return tx.lockOrganization(organizationID, "KEY SHARE")
}

// lockOrganization locks the organization's row, on PostgreSQL only: SQLite has one
// writer.
func (tx *Tx) lockOrganization(id, strength string) error {
	var locked []string
	err := tx.Table("organizations").Clauses(clause.Locking{Strength: strength}).Where("id = ?", id).Pluck("id", &locked).Error
	if err != nil {
		return fmt.Errorf("lock the organization: %w", err)
	}
	return nil
}

// Scrub removes erased rows from the files of the embedded database by truncating its
// log. On PostgreSQL it does nothing: there the space of old rows is reused after the
// server's own vacuum.
func (s *Store) Scrub(ctx context.Context) error {
	if s.Postgres() {
		return nil
	}
	var end struct{ Busy int }
	if err := s.write.WithContext(ctx).Raw("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&end).Error; err != nil {
		return fmt.Errorf("end the database's log: %w", err)
	}
	if end.Busy != 0 {
		s.log.Warn("what was erased stays in the database's log until that is used again, because a reader holds it")
	}
	return nil
}

// SealedJob is the sealed part of a job.
type SealedJob struct {
	ID        int64
	BookingID string
	Template  string
	ToMember  bool
	Sealed    string
}

// SealedJobs lists the jobs of a kind that hold something sealed of an
// organization: those that wait, or the ones that are done too.
func (tx *Tx) SealedJobs(kind, organizationID string, waiting bool) ([]SealedJob, error) {
	sql := `SELECT id, COALESCE(args ->> 'bookingId', '') AS booking_id, COALESCE(args ->> 'template', '') AS template, args ->> 'toMember' IS NOT NULL AS to_member, args ->> 'sealed' AS sealed FROM river_job
		WHERE kind = ? AND args ->> 'organizationId' = ? AND args ->> 'sealed' <> ''`
	if waiting { // an index leads to the few by their state
		sql += " AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled')"
	}
	var jobs []SealedJob
	if err := tx.Raw(sql, kind, organizationID).Scan(&jobs).Error; err != nil {
		return nil, fmt.Errorf("read sealed jobs: %w", err)
	}
	return jobs, nil
}

// EmptyJobs deletes the sealed part of jobs. A job that is being done is not affected.
func (s *Store) EmptyJobs(tx *Tx, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	sql := "UPDATE river_job SET args = jsonb_set(args, '$.sealed', '') WHERE id IN ?"
	if s.Postgres() {
		sql = `UPDATE river_job SET args = jsonb_set(args, '{sealed}', '""') WHERE id IN ?`
	}
	if err := tx.Exec(sql, ids).Error; err != nil {
		return fmt.Errorf("empty sealed jobs: %w", err)
	}
	return nil
}

// answersAtOnce bounds the answers that are looked at together.
const answersAtOnce = 500

// LoseAnswers deletes a customer's own requests, and the stored answers to others
// that are about their bookings or mention them. A repetition of those gets
// IDM-ANSWER_LOST, so nothing is done twice.
func (tx *Tx) LoseAnswers(e *DataSubject, mentions func(sealed string) bool) error {
	var own []string
	for _, id := range e.CustomerIDs {
		own = append(own, "customer:"+id)
	}
	for _, id := range e.BookingIDs {
		own = append(own, "ticket:"+id)
	}
	if err := tx.Where("organization_id = ? AND subject IN ?", e.OrganizationID, own).Delete(&Request{}).Error; err != nil {
		return fmt.Errorf("forget a customer's requests: %w", err)
	}
	// What others have committed and not yet answered may name them, and can't be
	// read.
	err := tx.Model(&Request{}).Where("organization_id = ? AND state = ?", e.OrganizationID, RequestCommitted).Update("status", answerLost).Error
	if err != nil {
		return fmt.Errorf("keep no answer under way that may be about a customer: %w", err)
	}
	lost := map[string]any{"state": RequestCommitted, "status": answerLost, "header": "", "body": ""}
	done := tx.Model(&Request{}).Where("organization_id = ? AND state = ?", e.OrganizationID, RequestDone).Session(&gorm.Session{})
	if err := done.Where("booking_id IN ?", e.BookingIDs[1:]).Updates(lost).Error; err != nil {
		return fmt.Errorf("empty answers about a customer: %w", err)
	}
	for last := ""; ; {
		var list []Request
		if err := done.Select("run, body").Where("run > ?", last).Order("run").Limit(answersAtOnce).Find(&list).Error; err != nil {
			return fmt.Errorf("look for answers about a customer: %w", err)
		}
		runs := []string{""}
		for _, r := range list {
			if mentions(r.Body) {
				runs = append(runs, r.Run)
			}
			last = r.Run
		}
		if err := done.Where("run IN ?", runs).Updates(lost).Error; err != nil {
			return fmt.Errorf("empty answers about a customer: %w", err)
		}
		if len(list) < answersAtOnce {
			return nil
		}
	}
}

// maxExported bounds each list of an export.
const maxExported = 10_000

// Newest reads the first 10,000 rows of a query for an export, and reports whether there
// are more.
func Newest[T any](q *gorm.DB) (rows []T, more bool, err error) {
	if err := q.Limit(maxExported + 1).Find(&rows).Error; err != nil {
		return nil, false, fmt.Errorf("read what is held about a customer: %w", err)
	}
	more = len(rows) > maxExported
	return rows[:min(len(rows), maxExported)], more, nil
}

// ExportAudit returns the newest lines of the audit about a customer and their bookings.
func (s *Store) ExportAudit(ctx context.Context, subject DataSubject, bookingIDs []string) (lines []Audit, more bool, err error) {
	// With ids, unlike with a subquery, the index is used.
	subjects := slices.Concat(subject.CustomerIDs, bookingIDs)
	return Newest[Audit](s.Read(ctx).Where("organization_id = ? AND (actor_id IN ? AND actor_kind = 'customer' OR subject_id IN ?)",
		subject.OrganizationID, subject.CustomerIDs, subjects).Order("id DESC"))
}
