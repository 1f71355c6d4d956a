package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

const (
	// requestConns is the number of connections for requests where the URL names
	// no greater one (pool_max_conns), and ownConns that for the service's own
	// work. A node has three more, for one purpose each.
	requestConns = 16
	ownConns     = 8
	// requestShare is the part of the connections for requests that those of one
	// organization use at most: a quarter. It is enough, for an organization's
	// changes mostly wait for each other, and leaves the processors to others.
	requestShare = 4
	// connectTimeout bounds the opening of a connection.
	connectTimeout = 5 * time.Second
)

// What PostgreSQL itself ends: a transaction whose node has stopped amid it; and
// of requests, a wait for a lock and a statement. A node that is suspended holds
// the others up until its transactions are ended: the first that has a lock by
// the first of these limits, and all, also those that waited for the lock, when
// the other nodes take it for dead (WatchJobs). Others wait longer than that.
const (
	idleInTransaction = 2500 * time.Millisecond
	lockWait          = 5 * time.Second
	statementTime     = 10 * time.Second
)

// nodeName is how a node's connections are named in pg_stat_activity, before the
// id that the process has in the table nodes.
const nodeName = "nowserving "

func (s *Store) openPostgres(ctx context.Context, o Options) error {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return fmt.Errorf("read DATABASE_URL: %w", err)
	}
	config.MaxConns = max(config.MaxConns, requestConns)
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	config.ConnConfig.RuntimeParams["application_name"] = nodeName + s.boot
	s.direct = config.ConnConfig
	if err := checkSessions(ctx, &s.direct.Config); err != nil {
		return err
	}
	s.cutter = &cutter{open: map[net.Conn]struct{}{}}
	watched := config.Copy()
	watched.ConnConfig.DialFunc = s.cutter.dial(config.ConnConfig.DialFunc)
	own := watched.Copy()
	own.MaxConns = ownConns
	own.AfterConnect = limits(idleInTransaction, 0, 0)
	if s.pool, err = pgxpool.NewWithConfig(ctx, own); err != nil {
		return fmt.Errorf("open PostgreSQL: %w", err)
	}
	if err = s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("reach PostgreSQL: %w", err)
	}
	if s.requests, err = newRequestPool(ctx, watched); err != nil {
		return fmt.Errorf("open PostgreSQL: %w", err)
	}
	both := sql.OpenDB(pools{s.requests, stdlib.GetPoolConnector(s.pool)})
	both.SetMaxIdleConns(0) // the pools keep them
	if s.write, err = gorm.Open(postgres.New(postgres.Config{Conn: both}), gormConfig(s.clock)); err != nil {
		return fmt.Errorf("open PostgreSQL: %w", err)
	}
	s.read = s.write
	aside := stdlib.OpenDB(*s.direct)
	aside.SetMaxOpenConns(1)
	if s.aside, err = gorm.Open(postgres.New(postgres.Config{Conn: aside}), gormConfig(s.clock)); err != nil {
		return fmt.Errorf("open PostgreSQL: %w", err)
	}
	if s.jobs, err = newPostgresJobs(s.pool, s.clock, s.log); err != nil {
		return fmt.Errorf("open the jobs: %w", err)
	}
	return nil
}

// limits makes PostgreSQL bound what new connections do; 0 is no bound. They are
// set by a command, because connection poolers refuse settings that come with
// the connection.
func limits(idle, lock, statement time.Duration) func(context.Context, *pgx.Conn) error {
	set := fmt.Sprintf("SET idle_in_transaction_session_timeout = %d; SET lock_timeout = %d; SET statement_timeout = %d",
		idle.Milliseconds(), lock.Milliseconds(), statement.Milliseconds())
	return func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, set)
		return err
	}
}

// pools open a connection for a request, by turns, or for the service's own work.
type pools struct {
	requests *requestPool
	own      driver.Connector
}

// Connect implements driver.Connector.
func (p pools) Connect(ctx context.Context) (driver.Conn, error) {
	organizationID, ok := requestOf(ctx)
	if !ok {
		return p.own.Connect(ctx)
	}
	return p.requests.lend(ctx, organizationID)
}

// Driver implements driver.Connector.
func (p pools) Driver() driver.Driver { return p.own.Driver() }

// requestPool holds the connections for requests.
type requestPool struct {
	*pgxpool.Pool
	connector driver.Connector
	turns     *turns
}

func newRequestPool(ctx context.Context, config *pgxpool.Config) (p *requestPool, err error) {
	p = &requestPool{turns: newTurns(int(config.MaxConns), int(config.MaxConns)/requestShare)}
	config.AfterConnect = limits(idleInTransaction, lockWait, statementTime)
	if p.Pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	p.connector = stdlib.GetPoolConnector(p.Pool)
	return p, nil
}

// lend waits for the organization's turn.
func (p *requestPool) lend(ctx context.Context, organizationID string) (driver.Conn, error) {
	done, err := p.turns.take(ctx, organizationID)
	if err != nil {
		return nil, err
	}
	conn, err := p.connector.Connect(ctx)
	if err != nil {
		done()
		return nil, err
	}
	of, ok := conn.(*stdlib.Conn)
	if !ok {
		done()
		return nil, errors.Join(fmt.Errorf("the database's driver is a %T", conn), conn.Close())
	}
	return &lentConn{of, done}, nil
}

// lentConn is a connection that a request gives back.
type lentConn struct {
	*stdlibConn
	done func()
}

// stdlibConn has a method Conn, which a field of that name would hide.
type stdlibConn = stdlib.Conn

// Close implements driver.Conn.
func (c *lentConn) Close() error {
	defer c.done()
	return c.stdlibConn.Close()
}

// gormConfig is the same for both databases. Errors are returned and logged
// where they are handled, so GORM itself stays silent.
func gormConfig(c *databaseClock) *gorm.Config {
	return &gorm.Config{
		Logger:                 logger.Discard,
		SkipDefaultTransaction: true,
		NowFunc:                c.now,
	}
}
