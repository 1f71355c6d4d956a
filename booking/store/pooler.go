package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooler is returned by Open when a connection pooler in front of PostgreSQL
// gives consecutive transactions of one connection to different sessions.
// Prepared statements, limits set by SET, advisory locks and LISTEN belong to a
// session, so nothing would work reliably, and what one connection sets would
// also hold for other clients of the pooler.
var ErrPooler = errors.New("a connection pooler in front of PostgreSQL shares sessions between its clients (PgBouncer: pool_mode transaction or statement), " +
	"and the service needs sessions of its own: name PostgreSQL itself in the URL, or a pool with pool_mode = session and at least 30 connections for each node (default_pool_size)")

// poolerTimeout bounds the test for a pooler.
const poolerTimeout = 10 * time.Second

// checkSessions returns ErrPooler unless each of two connections keeps a session
// of its own. A pooler that shares sessions gives the second connection the
// session that the first has just used or, when it hands them out in turn, gives
// the first another one for its next statement. Nothing is set on the
// connections, because a setting would stay in a session of the pooler.
func checkSessions(ctx context.Context, config *pgconn.Config) (err error) {
	ctx, cancel := context.WithTimeout(ctx, poolerTimeout)
	defer cancel()
	var conns [2]*pgconn.PgConn
	for i := range conns {
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return fmt.Errorf("reach PostgreSQL: %w", err)
		}
		defer func() { _ = conn.Close(ctx) }() // it has done nothing
		conns[i] = conn
	}
	first, err := session(ctx, conns[0])
	if err != nil {
		return err
	}
	second, err := session(ctx, conns[1])
	if err != nil {
		return err
	}
	if second == first {
		return ErrPooler
	}
	// While the second is in a transaction, its session is not given to others.
	if err := conns[1].Exec(ctx, "BEGIN").Close(); err != nil {
		return fmt.Errorf("ask PostgreSQL for a transaction: %w", err)
	}
	during, err := session(ctx, conns[1])
	if err != nil {
		return err
	}
	again, err := session(ctx, conns[0])
	if err != nil {
		return err
	}
	if during != second || again != first {
		return ErrPooler
	}
	return nil
}

// session names the session of PostgreSQL that answers. Its process id may come
// again on another server, so the moment it began belongs to the name.
func session(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	results, err := conn.Exec(ctx, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").ReadAll()
	if err != nil {
		return "", fmt.Errorf("ask PostgreSQL for the session: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return "", errors.New("ask PostgreSQL for the session: it does not list its own")
	}
	row := results[0].Rows[0]
	return string(row[0]) + " " + string(row[1]), nil
}
