package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed migrations
var migrations embed.FS

// Migration is one version of the schema and whether the database has it.
type Migration struct {
	Version int64
	Name    string
	Applied bool
}

// Migrate brings the schema up to date and returns how many versions it added.
// On PostgreSQL it runs under a session lock, so nodes that start together do
// it once; on SQLite the data folder is locked already.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	p, err := s.provider()
	if err != nil {
		return 0, err
	}
	done, err := p.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate the database: %w", err)
	}
	return len(done), nil
}

// Migrations lists every version.
func (s *Store) Migrations(ctx context.Context) ([]Migration, error) {
	p, err := s.provider()
	if err != nil {
		return nil, err
	}
	states, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the schema's version: %w", err)
	}
	list := make([]Migration, 0, len(states))
	for _, st := range states {
		name := st.Source.Path
		if v, ok := jobsMigrations[st.Source.Version]; ok {
			name = fmt.Sprintf("River's tables, version %d", v.to) // it has no file
		}
		list = append(list, Migration{st.Source.Version, name, st.State == goose.StateApplied})
	}
	return list, nil
}

func (s *Store) provider() (*goose.Provider, error) {
	db, err := s.SQL()
	if err != nil {
		return nil, err
	}
	dialect, folder := goose.DialectSQLite3, "migrations/sqlite"
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if s.Postgres() {
		dialect, folder = goose.DialectPostgres, "migrations/postgres"
		// Asked again every second for five minutes, while another node migrates.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, err
	}
	for version, v := range jobsMigrations {
		options = append(options, goose.WithGoMigrations(goose.NewGoMigration(version,
			&goose.GoFunc{RunTx: s.migrateJobs(rivermigrate.DirectionUp, v.to)},
			&goose.GoFunc{RunTx: s.migrateJobs(rivermigrate.DirectionDown, v.from)})))
	}
	return goose.NewProvider(dialect, db, files, options...)
}

// jobsMigrations are the versions of our schema that change River's tables, with
// the versions of theirs that they lead from and to. -1 is a database without them.
var jobsMigrations = map[int64]struct{ from, to int }{
	3:  {-1, 7},
	39: {7, 8},
}

// migrateJobs applies River's own migrations. On PostgreSQL they run on a
// connection of their own, under the same lock.
func (s *Store) migrateJobs(direction rivermigrate.Direction, target int) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		o := &rivermigrate.MigrateOpts{TargetVersion: target}
		config := &rivermigrate.Config{Logger: jobLog(s.log)}
		switch j := s.jobs.(type) {
		case *postgresJobs:
			if _, err := tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
				return err
			}
			m, err := rivermigrate.New(j.driver, config)
			if err != nil {
				return err
			}
			_, err = m.Migrate(ctx, direction, o)
			return err
		case *sqliteJobs:
			m, err := rivermigrate.New(j.driver, config)
			if err != nil {
				return err
			}
			_, err = m.MigrateTx(ctx, tx, direction, o) //nolint:staticcheck // on SQLite the transaction has the only connection
			return err
		}
		return fmt.Errorf("no migrations for jobs of %T", s.jobs)
	}
}
