package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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
// ends. Requests then fail at once, within 2 s of the beginning, instead of
// waiting for their own deadline.
func (s *Store) WatchHangs(ctx context.Context) {
	if !s.Postgres() {
		return
	}
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	w := &hangWatch{config: s.pool.Config().ConnConfig}
	defer w.close()
	hung := false
	for {
		err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		if now := errors.Is(err, context.DeadlineExceeded); now != hung {
			hung = now
			s.requests.hang(hung)
			if hung {
				s.log.Warn("the database hangs; requests are refused", "error", err)
			} else {
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
	ctx, cancel := context.WithTimeout(context.Background(), askEvery)
	defer cancel()
	w.conn.Close(ctx) //nolint:errcheck // it may be broken already
	w.conn = nil
}
