package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/models"
)

const (
	// keptRequests is how long a request and its answer are kept.
	keptRequests = 24 * time.Hour
	// runLife is how long a request may run: when nothing of it was committed
	// until then, another may run in its place. It is more than a request's
	// deadline.
	runLife = 30 * time.Second
)

// RequestState is the progress of a request.
type RequestState string

// The states of requests.
const (
	RequestRunning   RequestState = "running"   // nothing is committed
	RequestCommitted RequestState = "committed" // something is; it must not run again
	RequestDone      RequestState = "done"      // its answer is kept
)

// answerLost is the status of a committed request whose answer is known to be
// lost: it failed after the commit, or a customer it may name is erased.
const answerLost = -1

// Request is a request that came with an idempotency key, and its answer.
type Request struct {
	OrganizationID string       `gorm:"primaryKey"` // empty: about the account
	Subject        string       `gorm:"primaryKey"` // whose key it is
	Key            string       `gorm:"primaryKey;column:idempotency_key"`
	Hash           string       `gorm:"column:request_hash"` // the same for the same request
	Run            string       // of several tries, the one that may commit
	State          RequestState // set by Claim and what follows, as are the fields below
	BookingID      string       // the booking it changed, if any
	Status         int          // of the answer; 0 without one, or answerLost
	Header         string
	Body           string
	CreatedAt      time.Time
}

// TableName names the table for GORM.
func (Request) TableName() string { return "idempotency_keys" }

// Claim is the right to carry out a request. It travels in the request's
// context: the first transaction that commits there makes the request
// committed, in the same commit, and fails if another has claimed it since.
type Claim struct {
	request Request

	mu        sync.Mutex
	over      bool // the answer is known: later transactions are not the request's
	committed bool
	bookingID string
}

type claimKey struct{}

// WithIdempotency returns a context whose transactions carry out a claimed
// request.
func WithIdempotency(ctx context.Context, c *Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, c)
}

// Earlier is a previous request with the same key.
type Earlier struct {
	Request
	// Lost reports that the request ended without an answer, because it or its process
	// failed or it took too long.
	Lost bool
}

// free reports whether the key may be claimed for a request.
func (e *Earlier) free(hash string, now time.Time) bool {
	return now.Sub(e.CreatedAt) > keptRequests || e.Lost && e.State == RequestRunning && e.Hash == hash
}

// earlier reads the request that has the key of another.
func (s *Store) earlier(db *gorm.DB, want *Request, now time.Time) (Earlier, error) {
	var e Earlier
	err := db.Where("organization_id = ? AND subject = ? AND idempotency_key = ?", want.OrganizationID, want.Subject, want.Key).Take(&e.Request).Error
	dead := !s.Postgres() && !strings.HasPrefix(e.Run, s.boot) // SQLite has one process
	e.Lost = e.State != RequestDone && (dead || e.Status == answerLost || now.Sub(e.CreatedAt) > runLife)
	return e, err
}

// Claim reserves the key of a request. If another request has the key, the claim is nil
// and that request is returned.
func (s *Store) Claim(ctx context.Context, want Request) (*Claim, Earlier, error) {
	now, err := s.Now(ctx)
	if err != nil {
		return nil, Earlier{}, err
	}
	// A repetition mostly finds an answer, and writes nothing.
	e, err := s.earlier(s.Read(ctx), &want, now)
	if err == nil && !e.free(want.Hash, now) {
		return nil, e, nil
	}
	if err != nil && !errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, Earlier{}, fmt.Errorf("look for a request: %w", err)
	}
	claimed := false
	err = s.Tx(ctx, func(tx *Tx) error {
		want.Run, want.State, want.CreatedAt = s.boot+models.NewID(), RequestRunning, tx.Now
		done := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&want)
		if claimed = done.RowsAffected == 1; claimed || done.Error != nil {
			return done.Error
		}
		if e, err = s.earlier(tx.DB, &want, tx.Now); err != nil || !e.free(want.Hash, tx.Now) {
			return err
		}
		done = tx.Where("run = ? AND state = ?", e.Run, e.State).Select("*").Updates(&want)
		claimed = done.RowsAffected == 1
		e.Lost = false // if not, another request was faster
		return done.Error
	})
	if err != nil {
		return nil, Earlier{}, fmt.Errorf("claim a request: %w", err)
	}
	if claimed {
		return &Claim{request: want}, Earlier{}, nil
	}
	return nil, e, nil
}

// commits makes the claimed request of a context committed, as part of tx.
func (tx *Tx) commits(c *Claim) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.committed && (tx.bookingID == "" || tx.bookingID == c.bookingID) {
		return nil
	}
	done := tx.Exec("UPDATE idempotency_keys SET state = 'committed', booking_id = ? WHERE run = ? AND state <> 'done'", tx.bookingID, c.request.Run)
	if done.Error != nil {
		return fmt.Errorf("note that a request commits: %w", done.Error)
	}
	if done.RowsAffected == 0 {
		return models.Errorf(models.CodeRequestRunning, "The request took so long that it was begun anew.")
	}
	return nil
}

// wasCommitted notes that a transaction of the request has committed.
func (c *Claim) wasCommitted(bookingID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.committed = true
	if bookingID != "" {
		c.bookingID = bookingID
	}
}

// Settle keeps the answer of a claimed request, unless it may name a customer who
// was erased meanwhile.
func (s *Store) Settle(ctx context.Context, c *Claim, status int, header, body string) error {
	c.end()
	err := s.Tx(ctx, func(tx *Tx) error {
		return tx.Exec("UPDATE idempotency_keys SET state = 'done', status = ?, header = ?, body = ? WHERE run = ? AND status <> ?",
			status, header, body, c.request.Run, answerLost).Error
	})
	if err != nil {
		return fmt.Errorf("keep an answer: %w", err)
	}
	return nil
}

// Release gives up a claim, so that the request can be repeated. If part of it was
// committed, the claim stays, and a repetition is refused.
func (s *Store) Release(ctx context.Context, c *Claim) error {
	c.end()
	err := s.Tx(ctx, func(tx *Tx) error {
		if err := tx.Exec("DELETE FROM idempotency_keys WHERE run = ? AND state = 'running'", c.request.Run).Error; err != nil {
			return err
		}
		return tx.Exec("UPDATE idempotency_keys SET status = ? WHERE run = ? AND state = 'committed'", answerLost, c.request.Run).Error
	})
	if err != nil {
		return fmt.Errorf("release a request: %w", err)
	}
	return nil
}

func (c *Claim) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// ForgetRequests deletes requests that have been kept long enough.
func (s *Store) ForgetRequests(ctx context.Context) error {
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	return s.DeleteInBatches(ctx, "idempotency_keys", "run", "created_at < ?", now.Add(-keptRequests))
}
