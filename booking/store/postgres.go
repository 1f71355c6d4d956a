package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// defaultConns is the size of the pool where the URL names none
// (pool_max_conns).
const defaultConns = 16

func openPostgres(ctx context.Context, o Options, c *clock) (*Store, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read DATABASE_URL: %w", err)
	}
	if config.MaxConns < defaultConns {
		config.MaxConns = defaultConns
	}
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach PostgreSQL: %w", err)
	}
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: stdlib.OpenDBFromPool(pool)}), gormConfig(c))
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open PostgreSQL: %w", err)
	}
	jobs, err := newPostgresJobs(pool, c, o.Log)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open the jobs: %w", err)
	}
	aside := stdlib.OpenDB(*config.ConnConfig.Copy())
	aside.SetMaxOpenConns(1)
	one, err := gorm.Open(postgres.New(postgres.Config{Conn: aside}), gormConfig(c))
	if err != nil {
		pool.Close()
		return nil, errors.Join(fmt.Errorf("open PostgreSQL: %w", err), aside.Close())
	}
	return &Store{write: db, read: db, aside: one, pool: pool, jobs: jobs, clock: c, log: o.Log}, nil
}

// gormConfig is the same for both databases. Errors are returned and logged
// where they are handled, so GORM itself stays silent.
func gormConfig(c *clock) *gorm.Config {
	return &gorm.Config{
		Logger:                 logger.Discard,
		SkipDefaultTransaction: true,
		NowFunc:                c.now,
	}
}
