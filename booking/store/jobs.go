package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/gorm"
	"riverqueue.com/riverui"
	"riverqueue.com/riverui/uiendpoints"
)

// Job is work to do after a transaction has committed. It is stored as JSON in that
// transaction, so a crash loses none. A secret or a person's address in it is sealed.
type Job interface {
	// Kind names the worker that does the job.
	Kind() string
	// Queue names the queue of the job. Each queue has its own workers, so that one
	// kind can't hold up another.
	Queue() string
}

// jobFetchPause is the least time between two looks for jobs, and between two
// announcements that there are some. PostgreSQL lets one transaction with an
// announcement commit at a time, so there must not be one in each.
const jobFetchPause = 5 * time.Millisecond

// jobPollPause is how often PostgreSQL is asked for jobs whose announcement was
// spared; a wait of SQLite's ends within a second, for it spares none.
const jobPollPause = 50 * time.Millisecond

// jobStuckAfter is when River itself gives back a job that has not ended. It goes
// by the clock of its leader, so it must be more than that may be off.
const jobStuckAfter = 24 * time.Hour

// Enqueue adds a job that exists if and only if the transaction commits.
func (tx *Tx) Enqueue(j Job) { tx.EnqueueAt(time.Time{}, j) }

// EnqueueAt is Enqueue for a job that must not be done before at.
func (tx *Tx) EnqueueAt(at time.Time, j Job) {
	tx.jobs = append(tx.jobs, river.InsertManyParams{Args: j, InsertOpts: &river.InsertOpts{Queue: j.Queue(), ScheduledAt: at}})
}

// Announce is the job of an event: to expand it into deliveries.
type Announce struct {
	EventID int64 `json:"eventId"`
}

// Kind implements Job.
func (Announce) Kind() string { return "announce" }

// Queue implements Job.
func (Announce) Queue() string { return "announce" }

// jobs is River on one of the two databases.
type jobs interface {
	// insert writes jobs as part of a transaction of the write handle.
	insert(ctx context.Context, tx *gorm.DB, list []river.InsertManyParams) error
	// client makes a client that does the jobs.
	client(c *river.Config) (JobClient, error)
}

// JobClient does jobs until it is stopped.
type JobClient interface {
	Start(ctx context.Context) error
	// Stop takes no further jobs and waits for those under way.
	Stop(ctx context.Context) error
	// StopAndCancel ends those under way too; they are done again later.
	StopAndCancel(ctx context.Context) error
	// Pages serves the pages on which operators see and control jobs.
	Pages() uiendpoints.Bundle
}

// worker is River's client and what operators may see of it.
type worker[TTx any] struct{ *river.Client[TTx] }

func newWorker[TTx any](driver riverdriver.Driver[TTx], c *river.Config) (JobClient, error) {
	client, err := river.NewClient(driver, c)
	return worker[TTx]{client}, err
}

// Pages implements JobClient.
func (w worker[TTx]) Pages() uiendpoints.Bundle { return riverui.NewEndpoints(w.Client, nil) }

// JobClient makes a client of the database for the workers of c. What is the
// same for all clients is set here.
func (s *Store) JobClient(ctx context.Context, c river.Config) (JobClient, error) {
	c.FetchCooldown = jobFetchPause
	c.Logger = jobLog(s.log)
	if s.Postgres() {
		c.FetchPollInterval = jobPollPause
		c.ID, c.Middleware = s.boot, []rivertype.Middleware{&s.underway}
		c.RescueStuckJobsAfter = jobStuckAfter // WatchJobs is faster
		if s.restricted {                      // only the owner of an index may rebuild it
			c.ReindexerSchedule = river.NeverSchedule()
		}
	} else {
		// The database belongs to this process, so the process that had a job is dead.
		err := s.write.WithContext(ctx).Exec("UPDATE river_job SET state = 'available' WHERE state = 'running'").Error
		if err != nil {
			return nil, fmt.Errorf("free the jobs of the last run: %w", err)
		}
	}
	return s.jobs.client(&c)
}

// jobLog leaves out what River says of its everyday life.
func jobLog(log *slog.Logger) *slog.Logger {
	return slog.New(quiet{log.Handler()})
}

type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// jobClock gives River the database's clock for the times it computes itself,
// such as those of snoozed jobs and retries. River's setting for it is meant for
// tests, and is the only one.
type jobClock struct {
	*databaseClock
	inserts bool
}

// Now implements rivertype.TimeGenerator.
func (c jobClock) Now() time.Time { return c.now() }

// NowOrNil implements rivertype.TimeGenerator. With nil River's queries use the
// database's now(). Inserts can't: the driver would take time.Now() instead.
func (c jobClock) NowOrNil() *time.Time {
	if !c.inserts {
		return nil
	}
	return new(c.now())
}

// postgresJobs reaches River through pgx itself.
type postgresJobs struct {
	driver *riverpgxv5.Driver
	writer *river.Client[pgx.Tx]
	clock  *databaseClock
}

func newPostgresJobs(pool *pgxpool.Pool, c *databaseClock, log *slog.Logger) (*postgresJobs, error) {
	driver := riverpgxv5.New(pool)
	writer, err := river.NewClient(driver, &river.Config{
		FetchCooldown: jobFetchPause, Logger: jobLog(log), Test: river.TestConfig{Time: jobClock{c, true}},
	})
	return &postgresJobs{driver, writer, c}, err
}

func (p *postgresJobs) insert(ctx context.Context, tx *gorm.DB, list []river.InsertManyParams) error {
	conn, _ := tx.Statement.Context.Value(pinned{}).(*pgx.Conn)
	if conn == nil {
		return errors.New("the transaction's connection is not pinned")
	}
	_, err := p.writer.InsertManyTx(ctx, pgxTx{conn: conn}, list)
	return err
}

func (p *postgresJobs) client(c *river.Config) (JobClient, error) {
	c.Test.Time = jobClock{p.clock, false}
	return newWorker(p.driver, c)
}

// pinned is the key of a transaction's *pgx.Conn in its context.
type pinned struct{}

// pin runs fn with a handle that keeps to one connection, so that a transaction
// of it can be reached through pgx as well.
func pin(ctx context.Context, db *gorm.DB, fn func(*gorm.DB) error) error {
	return db.WithContext(ctx).Connection(func(db *gorm.DB) error {
		conn, ok := db.Statement.ConnPool.(*sql.Conn)
		if !ok {
			return fmt.Errorf("a pinned connection is a %T", db.Statement.ConnPool)
		}
		var under *pgx.Conn
		err := conn.Raw(func(driver any) error {
			if c, ok := driver.(interface{ Conn() *pgx.Conn }); ok {
				under = c.Conn()
			}
			return nil
		})
		if err != nil {
			return err
		}
		return fn(db.WithContext(context.WithValue(ctx, pinned{}, under)))
	})
}

// pgxTx is a transaction that its caller begins and ends, on conn.
type pgxTx struct {
	pgx.Tx // never there: begin, commit and roll back are not River's
	conn   *pgx.Conn
}

func (t pgxTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return t.conn.Exec(ctx, sql, args...)
}

func (t pgxTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return t.conn.Query(ctx, sql, args...)
}

func (t pgxTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return t.conn.QueryRow(ctx, sql, args...)
}

func (t pgxTx) Conn() *pgx.Conn { return t.conn }

// sqliteJobs reaches River through the one connection that writes.
type sqliteJobs struct {
	driver notifierDriver
	writer *river.Client[*sql.Tx]
}

func newSQLiteJobs(db *sql.DB, notifier *inProcessNotifier, log *slog.Logger) (*sqliteJobs, error) {
	driver := notifierDriver{riversqlite.New(db), notifier}
	writer, err := river.NewClient(driver, &river.Config{FetchCooldown: jobFetchPause, Logger: jobLog(log)})
	return &sqliteJobs{driver, writer}, err
}

func (q *sqliteJobs) insert(ctx context.Context, tx *gorm.DB, list []river.InsertManyParams) error {
	under, ok := tx.Statement.ConnPool.(*sql.Tx)
	if !ok {
		return fmt.Errorf("a transaction is a %T", tx.Statement.ConnPool)
	}
	_, err := q.writer.InsertManyTx(ctx, under, list)
	return err
}

func (q *sqliteJobs) client(c *river.Config) (JobClient, error) {
	return newWorker(q.driver, c)
}

// A Job is the arguments of a job of River.
var _ rivertype.JobArgs = Job(nil)
