package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
)

// ownWork stands for an organization in the turns of the service's own work.
const ownWork = "own"

// sqlitePool keeps the connections to a SQLite file and lends them by turns. The
// service's own work takes its turn like an organization.
type sqlitePool struct {
	driver driver.Driver
	name   string // of the file, with what is set on every connection
	turns  *turns

	mu     sync.Mutex
	idle   []sqliteConn
	closed bool
}

// sqliteConn is all that a connection to SQLite can do.
type sqliteConn interface {
	driver.Conn
	driver.Pinger
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

// Connect implements driver.Connector.
func (p *sqlitePool) Connect(ctx context.Context) (driver.Conn, error) {
	organizationID, ok := requestOf(ctx)
	if !ok {
		organizationID = ownWork
	}
	done, err := p.turns.take(ctx, organizationID)
	if err != nil {
		return nil, err
	}
	conn, err := p.take()
	if err != nil {
		done()
		return nil, err
	}
	return &lentSQLiteConn{conn, p, done}, nil
}

// Driver implements driver.Connector.
func (p *sqlitePool) Driver() driver.Driver { return p.driver }

func (p *sqlitePool) take() (sqliteConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		conn := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return conn, nil
	}
	conn, err := p.driver.Open(p.name)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(sqliteConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the database's driver is a %T", conn), conn.Close())
	}
	return full, nil
}

func (p *sqlitePool) giveBack(conn sqliteConn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return conn.Close()
	}
	p.idle = append(p.idle, conn)
	return nil
}

// Close implements io.Closer; database/sql calls it.
func (p *sqlitePool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, conn := range p.idle {
		errs = append(errs, conn.Close())
	}
	p.idle = nil
	return errors.Join(errs...)
}

// lentSQLiteConn is a connection that is given back.
type lentSQLiteConn struct {
	sqliteConn
	pool *sqlitePool
	done func()
}

// Close implements driver.Conn.
func (c *lentSQLiteConn) Close() error {
	defer c.done()
	return c.pool.giveBack(c.sqliteConn)
}
