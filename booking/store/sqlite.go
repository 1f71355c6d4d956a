package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	gosqlite "github.com/glebarez/go-sqlite"
	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
)

// openSQLite opens one connection that writes and a few that cannot: SQLite
// has one writer, and readers never wait for it in WAL mode. Times are
// compared as text there, so every time is stored in UTC.
func (s *Store) openSQLite(ctx context.Context, o Options) (err error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if s.lock, err = lockFolder(o.DataDir); err != nil {
		return err
	}
	file := filepath.Join(o.DataDir, "nowserving.db")
	// Deleted data is overwritten, so that it cannot be read from the file.
	sync := "&_pragma=synchronous(FULL)" // every commit waits for the disk
	if o.SQLiteNormalSync {
		sync = "&_pragma=synchronous(NORMAL)" // only checkpoints do
	}
	if s.write, err = openSQLitePool(s.clock, file, 1, "_txlock=immediate&_pragma=secure_delete(1)"+sync); err != nil {
		return fmt.Errorf("open SQLite: %w", err)
	}
	if s.read, err = openSQLitePool(s.clock, file, 4, "_pragma=query_only(1)"+sync); err != nil {
		return fmt.Errorf("open SQLite: %w", err)
	}
	s.aside = s.read
	if err := s.openSQLiteJobs(ctx); err != nil {
		return fmt.Errorf("open SQLite: %w", err)
	}
	return nil
}

func (s *Store) openSQLiteJobs(ctx context.Context) error {
	if err := s.Ping(ctx); err != nil {
		return err
	}
	db, err := s.SQL()
	if err != nil {
		return err
	}
	s.notifier = newInProcessNotifier()
	s.jobs, err = newSQLiteJobs(db, s.notifier, s.log)
	return err
}

func openSQLitePool(c *databaseClock, file string, conns int, extra string) (*gorm.DB, error) {
	dsn := "file:" + url.PathEscape(file) + "?_pragma=busy_timeout(1500)&_pragma=journal_mode(WAL)" +
		"&_pragma=foreign_keys(1)&" + extra
	pool := sql.OpenDB(&sqlitePool{driver: &gosqlite.Driver{}, name: dsn, turns: newTurns(conns, conns/2)})
	pool.SetMaxIdleConns(0) // ours keeps them
	return gorm.Open(sqlite.Dialector{Conn: pool}, gormConfig(c))
}

// SQLite's extended codes for a second row with a unique value or primary key,
// and for a trigger's refusal.
const (
	sqliteConstraintUnique     = 2067
	sqliteConstraintPrimaryKey = 1555
	sqliteConstraintTrigger    = 1811
)

func sqliteDuplicate(err error) bool {
	e, ok := errors.AsType[*gosqlite.Error](err)
	return ok && (e.Code() == sqliteConstraintUnique || e.Code() == sqliteConstraintPrimaryKey)
}

// sqliteTriggered reports whether a trigger that raises its own name refused.
func sqliteTriggered(err error, name string) bool {
	e, ok := errors.AsType[*gosqlite.Error](err)
	return ok && e.Code() == sqliteConstraintTrigger && strings.Contains(e.Error(), name)
}

// folderLock keeps a second process off the data folder: the in-process Redis
// and SQLite's migrations belong to one process at a time.
type folderLock struct{ file *os.File }

func lockFolder(dir string) (*folderLock, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("the data folder %s is in use by another process; stop it, or set NOWSERVING_DATA: %w", dir, err), file.Close())
	}
	return &folderLock{file}, nil
}

func (l *folderLock) release() error { return l.file.Close() }
