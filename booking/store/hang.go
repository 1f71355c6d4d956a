package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// askEvery is how often PostgreSQL is asked for an answer, and askTimeout how
	// long that may take. Together they bound how long a request waits for a
	// database that hangs.
	askEvery   = 250 * time.Millisecond
	askTimeout = 1500 * time.Millisecond
)

// WatchHangs finds out when PostgreSQL takes connections and does not answer,
// because its machine is suspended or the network drops everything, until ctx
// ends. All connections are then closed and no more are opened, so that requests
// fail within 2 s of the beginning instead of waiting for their own deadline.
func (s *Store) WatchHangs(ctx context.Context) {
	if !s.Postgres() {
		return
	}
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	w := &hangWatch{config: s.direct}
	defer w.close()
	hung := false
	for {
		err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		if now := errors.Is(err, context.DeadlineExceeded); now != hung {
			hung = now
			s.cutter.cut(hung)
			if hung {
				s.requests.turns.refuse(errHung)
				s.log.Warn("the database hangs; requests are refused", "error", err)
			} else {
				s.requests.turns.refuse(nil)
				s.log.Info("the database hangs no more", "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// hangWatch asks on a connection of its own: it must not wait for one.
type hangWatch struct {
	config *pgx.ConnConfig
	conn   *pgx.Conn
}

func (w *hangWatch) ask(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			w.close()
			err = fmt.Errorf("ask the database for an answer: %w", err)
			if ctx.Err() != nil { // the error of a connection that broke may not say so
				err = errors.Join(err, ctx.Err())
			}
		}
	}()
	if w.conn == nil {
		if w.conn, err = pgx.ConnectConfig(ctx, w.config); err != nil {
			return err
		}
	}
	return w.conn.Ping(ctx)
}

func (w *hangWatch) close() {
	if w.conn == nil {
		return
	}
	closeBroken(w.conn)
	w.conn = nil
}

// closeTimeout bounds the farewell to a server that may not answer.
const closeTimeout = 250 * time.Millisecond

// closeBroken closes a connection that may be broken already, so its error says
// nothing.
func closeBroken(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	conn.Close(ctx) //nolint:errcheck // see above
}

// cutter knows the connections of the pools and closes them all, so that those who
// wait for an answer of a database that hangs get an error at once.
type cutter struct {
	mu   sync.Mutex
	hung bool
	open map[net.Conn]struct{}
}

// dial returns a dial function whose connections the cutter knows.
func (c *cutter) dial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		// Without this, the workers' attempts fill the queue of a server that hangs
		// and keep it from answering when it could.
		c.mu.Lock()
		hung := c.hung
		c.mu.Unlock()
		if hung {
			return nil, errHung
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.hung {
			return nil, errors.Join(errHung, conn.Close())
		}
		c.open[conn] = struct{}{}
		return &knownConn{conn, c}, nil
	}
}

// knownConn is a connection that a cutter knows until it is closed.
type knownConn struct {
	net.Conn
	cutter *cutter
}

// Close implements net.Conn.
func (k *knownConn) Close() error {
	k.cutter.mu.Lock()
	delete(k.cutter.open, k.Conn)
	k.cutter.mu.Unlock()
	return k.Conn.Close()
}

// cut says whether the database hangs, and then closes everything.
func (c *cutter) cut(hung bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hung = hung; !hung {
		return
	}
	for conn := range c.open {
		conn.Close() //nolint:errcheck // it is of no use any more
	}
	clear(c.open)
}
