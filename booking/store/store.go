// Package store opens the database, brings its schema up to date and runs
// transactions that carry their events with them.
//
// There is one code path for both databases: PostgreSQL when a URL is given, otherwise
// SQLite in the data folder. What differs between them (opening, migrations, the clock,
// row locks) lives here and nowhere else. Queries about bookings, catalogues or people
// are in the packages with their rules.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/models"
)

// Options configure a Store.
type Options struct {
	// URL of a PostgreSQL database; empty for SQLite in DataDir.
	URL string
	// DataDir is where SQLite keeps its file; it is made if missing.
	DataDir string
	// SQLiteNormalSync lets SQLite confirm a commit before the disk does. It is
	// faster, and a power cut can lose the commits of the last seconds.
	SQLiteNormalSync bool
	// Now is this machine's clock. With SQLite it is also the database's clock.
	Now func() time.Time
	Log *slog.Logger
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	write, read *gorm.DB           // one and the same with PostgreSQL
	aside       *gorm.DB           // has a connection of its own with PostgreSQL
	pool        *pgxpool.Pool      // PostgreSQL only: for the service's own work
	requests    *requestPool       // PostgreSQL only
	cutter      *cutter            // PostgreSQL only
	direct      *pgx.ConnConfig    // PostgreSQL only: of connections for one purpose, which are not cut
	resetAt     atomic.Int64       // PostgreSQL only: when the pools were last reset, in Unix nanoseconds
	readOnly    atomic.Bool        // PostgreSQL only: a write was refused since the last that Writable made
	lock        *folderLock        // SQLite only
	notifier    *inProcessNotifier // SQLite only
	jobs        jobs
	boot        string // names this process
	underway    underway
	restricted  bool // the role does not own the schema
	onRevoke    func([]Revocation)
	clock       *databaseClock
	log         *slog.Logger
}

// Tx is a transaction and the moment it began by the database's clock. Every
// deadline is computed from Now and compared with it.
type Tx struct {
	*gorm.DB
	Now       time.Time
	origin    Origin
	jobs      []river.InsertManyParams
	revoked   []Revocation
	audit     []Audit // lines to write before the commit
	bookingID string  // of the last event
}

// Open connects to the database. It does not migrate.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{boot: models.NewID(), clock: &databaseClock{machine: o.Now, shared: o.URL != ""}, log: o.Log}
	open := s.openSQLite
	if o.URL != "" {
		open = s.openPostgres
	}
	if err := open(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if _, err := s.Now(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Postgres reports whether the store is PostgreSQL, which several nodes may
// share; SQLite belongs to one process.
func (s *Store) Postgres() bool { return s.pool != nil }

// UnixSeconds returns the expression for a moment of a query in seconds since 1970. A
// number is read several times as fast as a time from SQLite, which keeps times as texts.
func (s *Store) UnixSeconds(moment string) string {
	if s.Postgres() {
		return "CAST(EXTRACT(EPOCH FROM " + moment + ") AS bigint)"
	}
	return "unixepoch(" + moment + ")"
}

// Read returns a handle for queries outside a transaction.
func (s *Store) Read(ctx context.Context) *gorm.DB { return s.read.WithContext(ctx) }

// commitGrace is how long after the end of its request a commit may take.
const commitGrace = 5 * time.Second

// untilCommitted returns the context of a transaction. It ends commitGrace after
// ctx, so that the request learns whether a commit that has begun succeeds. The
// statements before the commit end with ctx.
func untilCommitted(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(commitGrace):
			cancel()
		case <-lasting.Done():
		}
	})
	return lasting, func() { stop(); cancel() }
}

// Tx runs fn in one transaction and commits it, and the jobs it enqueued with
// it, unless fn fails or ctx ends before the commit.
func (s *Store) Tx(ctx context.Context, fn func(*Tx) error) error {
	var tx *Tx
	claim, _ := ctx.Value(claimKey{}).(*Claim)
	err := pin(ctx, s.write, func(db *gorm.DB) error {
		ctx := db.Statement.Context // with the connection
		lasting, cancel := untilCommitted(ctx)
		defer cancel()
		return db.WithContext(lasting).Transaction(func(db *gorm.DB) error {
			db = db.WithContext(ctx)
			now, err := s.readClock(db)
			if err != nil {
				return err
			}
			tx = &Tx{DB: db, Now: now, origin: originOf(ctx)}
			if err := fn(tx); err != nil {
				return err
			}
			if claim != nil {
				if err := tx.commits(claim); err != nil {
					return err
				}
			}
			if len(tx.jobs) > 0 {
				if err := s.jobs.insert(ctx, db, tx.jobs); err != nil {
					return fmt.Errorf("write jobs: %w", err)
				}
			}
			// Last, because it locks the organization's chain until the commit.
			if err := tx.writeAudit(); err != nil {
				return err
			}
			return ctx.Err()
		})
	})
	if err != nil {
		s.leaveReadOnly(err)
		return err
	}
	if s.notifier != nil {
		s.notifier.notify(tx.jobs)
	}
	if claim != nil {
		claim.wasCommitted(tx.bookingID)
	}
	if len(tx.revoked) > 0 && s.onRevoke != nil {
		s.onRevoke(tx.revoked)
	}
	return nil
}

// SkipLocked locks the rows a query in tx finds, without those that another transaction
// has locked. SQLite has one writer, so there is nothing to skip.
func (s *Store) SkipLocked(tx *Tx) *gorm.DB {
	if !s.Postgres() {
		return tx.DB
	}
	return tx.Clauses(clause.Locking{Strength: clause.LockingStrengthUpdate, Options: clause.LockingOptionsSkipLocked})
}

// Lock locks the rows a query in tx finds against other calls of Lock only: rows that
// refer to them can still be written. SQLite has one writer, which has locked
// everything.
func (s *Store) Lock(tx *Tx) *gorm.DB {
	if !s.Postgres() {
		return tx.DB
	}
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"})
}

// LockReferred is Lock that also waits for transactions that write rows which refer to
// those locked, and blocks further ones.
func (s *Store) LockReferred(tx *Tx) *gorm.DB {
	if !s.Postgres() {
		return tx.DB
	}
	return tx.Clauses(clause.Locking{Strength: clause.LockingStrengthUpdate})
}

// event is a row of the table events.
type event struct {
	ID             int64 `gorm:"primaryKey"`
	OrganizationID string
	BookingID      string
	BookingVersion int64
	Type           models.EventType
	Data           models.BookingEvent `gorm:"serializer:json"`
	CreatedAt      time.Time
}

// Emit writes an event that becomes true when the transaction commits, the job that
// announces it, and the audit line about it.
func (tx *Tx) Emit(organizationID string, e models.BookingEvent) error {
	row := event{
		OrganizationID: organizationID, BookingID: e.BookingID, BookingVersion: e.Version,
		Type: e.Type, Data: e, CreatedAt: tx.Now,
	}
	if err := tx.Table("events").Create(&row).Error; err != nil {
		return fmt.Errorf("write event %s: %w", e.Type, err)
	}
	tx.Enqueue(Announce{row.ID})
	if e.RescheduledTo == "" { // the booking that takes its place is the one meant
		tx.bookingID = e.BookingID
	}
	if e.Action == "" {
		return nil
	}
	return tx.Audit(organizationID, string(e.Action), "booking", e.BookingID)
}

// Ping asks the database for an answer.
func (s *Store) Ping(ctx context.Context) error {
	db, err := s.read.DB()
	if err != nil {
		return err
	}
	return db.PingContext(ctx)
}

// Close waits for running queries and closes the connections.
func (s *Store) Close() error {
	var errs []error
	for _, handle := range []*gorm.DB{s.read, s.write, s.aside} {
		if handle == nil { // opening failed
			continue
		}
		db, err := handle.DB()
		if err == nil {
			err = db.Close()
		}
		errs = append(errs, err)
	}
	if s.requests != nil {
		s.requests.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	return errors.Join(errs...)
}

// SQL returns the write handle, for code that needs database/sql itself.
func (s *Store) SQL() (*sql.DB, error) { return s.write.DB() }

// IsDuplicate reports whether err is that a unique value exists already.
func IsDuplicate(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "23505"
	}
	return sqliteDuplicate(err)
}

// IsOvertaken reports whether err says that another transaction came between:
// it refers to what this one deleted, or each waits for the other. Done again,
// this one may succeed.
func IsOvertaken(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "23503" || pg.Code == "40P01")
}

// IsOverlap reports whether err says that a resource has another appointment at
// the time.
func IsOverlap(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "23P01"
	}
	return sqliteTriggered(err, "bookings_overlap")
}

// IsErased reports whether err is that a booking's customer is erased.
func IsErased(err error) bool {
	const name = "bookings_of_erased"
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.ConstraintName == name
	}
	return sqliteTriggered(err, name)
}
