package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	gosqlite "github.com/glebarez/go-sqlite"
	"github.com/jackc/pgx/v5/pgconn"
)

// IsUnavailable reports whether err says that the database can't do its work
// now: it can't be reached, is shutting down, read-only, locked or full. The
// same request may succeed later. After a failed commit it may also have
// succeeded already: the outcome is unknown.
func IsUnavailable(err error) bool {
	// A server that does not take a connection, for whatever reason, is away.
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.Contains(unavailableClasses, pg.Code[:min(2, len(pg.Code))]) || slices.Contains(unavailableCodes, pg.Code)
	}
	if lite, ok := errors.AsType[*gosqlite.Error](err); ok {
		return slices.Contains(unavailableSQLite, lite.Code()&0xff) // without what an extended code adds
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || slices.ContainsFunc(unavailableErrors, func(e error) bool { return errors.Is(err, e) })
}

// The classes and codes of PostgreSQL's errors that pass.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
var (
	unavailableClasses = []string{
		"08", // connection exception
		"40", // transaction rollback: deadlock, serialization failure
		"53", // insufficient resources: disk, memory, connections
		"57", // operator intervention: shutdown, canceled statement, statement timeout
		"58", // system error: input and output
	}
	unavailableCodes = []string{
		readOnlyTransaction, // a standby, or default_transaction_read_only
		"25P03",             // idle-in-transaction timeout
		"25P04",             // transaction timeout
		"55P03",             // lock not available, lock timeout
	}
)

// readOnlyTransaction is PostgreSQL's code for a write that it does not take.
const readOnlyTransaction = "25006"

// unavailableSQLite are the codes of SQLite's errors that pass.
// https://www.sqlite.org/rescode.html
var unavailableSQLite = []int{
	5,  // SQLITE_BUSY: locked by another process
	6,  // SQLITE_LOCKED: locked by another connection
	7,  // SQLITE_NOMEM
	8,  // SQLITE_READONLY
	9,  // SQLITE_INTERRUPT: the request's deadline
	10, // SQLITE_IOERR
	13, // SQLITE_FULL
	14, // SQLITE_CANTOPEN
	15, // SQLITE_PROTOCOL: too many tries for a lock
}

var unavailableErrors = []error{
	errCrowded, errHung, driver.ErrBadConn, sql.ErrConnDone, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded,
}

// Writable commits a small change, so that it fails whenever requests can't
// change anything: the database is away, read-only, locked or full.
func (s *Store) Writable(ctx context.Context) error {
	ctx = ForOrganization(ctx, "readiness") // like requests, and with a turn of its own
	const count = "UPDATE readiness SET checks = checks + 1"
	if s.Postgres() {
		// One statement and no transaction around it: a node that hangs never
		// keeps the row locked.
		err := s.write.WithContext(ctx).Exec(count).Error
		s.leaveReadOnly(err)
		if err != nil {
			return fmt.Errorf("write to the database: %w", err)
		}
		if s.readOnly.Swap(false) { // others may have been opened while it was
			s.reset()
		}
		return nil
	}
	return s.Tx(ctx, func(tx *Tx) error {
		// SQLite notices a full disk when it needs a page it does not have.
		err := tx.Exec(count + ", filler = zeroblob(8192)").Error
		if err == nil {
			err = tx.Exec("UPDATE readiness SET filler = NULL").Error
		}
		if err != nil {
			return fmt.Errorf("write to the database: %w", err)
		}
		return nil
	})
}

// resetPause is the least time between two resets of the pools.
const resetPause = time.Second

// leaveReadOnly closes PostgreSQL's connections after a write that was refused
// because they are read-only. They would stay so: to a server that has become a
// standby, or to one that took the setting when they were opened.
func (s *Store) leaveReadOnly(err error) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.Code != readOnlyTransaction || s.pool == nil {
		return
	}
	s.readOnly.Store(true)
	last, now := s.resetAt.Load(), time.Now().UnixNano()
	if now-last >= int64(resetPause) && s.resetAt.CompareAndSwap(last, now) {
		s.reset()
	}
}

func (s *Store) reset() {
	s.requests.Reset()
	s.pool.Reset()
}
