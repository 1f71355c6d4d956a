package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"nowserving/booking/clock"
)

const (
	// beatEvery is how often a node writes that it lives and looks for jobs that
	// no process is doing.
	beatEvery = 500 * time.Millisecond
	// beatTimeout bounds one look.
	beatTimeout = 2 * time.Second
	// deadAfter is how many looks in a row must find no news of a node before its
	// jobs are given to others, and lostAfter how many must find a job of this
	// node that it is not doing: 3 s and 1.5 s. Looks are counted, not seconds,
	// because a node that was itself suspended has missed the others' news.
	deadAfter = 6
	lostAfter = 3
	// nodesKept is how long a node that ended stays in the table.
	nodesKept = time.Hour
)

// run is one attempt at a job. River's leadership, which moves jobs on when they
// are due, counts as a run with the id 0, and a connection in a transaction as one
// with its process id below 0.
type run struct {
	id    int64
	began int64 // in microseconds since 1970
}

// underway are the jobs that this process is doing.
type underway struct {
	river.MiddlewareDefaults
	mu   sync.Mutex
	runs map[run]bool // nil before the first
}

// Work implements rivertype.WorkerMiddleware.
func (u *underway) Work(ctx context.Context, job *rivertype.JobRow, inner func(context.Context) error) error {
	r := run{id: job.ID}
	if job.AttemptedAt != nil {
		r.began = job.AttemptedAt.UnixMicro()
	}
	u.set(r, true)
	defer u.set(r, false)
	return inner(ctx)
}

func (u *underway) set(r run, is bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !is {
		delete(u.runs, r)
		return
	}
	if u.runs == nil {
		u.runs = map[run]bool{}
	}
	u.runs[r] = true
}

func (u *underway) has(r run) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.runs[r]
}

// WatchJobs writes that this node is alive, and releases jobs that no process is doing
// any more, until ctx ends: those of a node that has written nothing for 3 s, and those
// of this node whose end could not be written, because the database went away. It ends
// the transactions of a node that has written nothing for 3 s, because they may hold
// locks. rescued gets the number of jobs, and failed the first of several errors in a
// row. With SQLite there is one process, which frees its jobs when it starts.
func (s *Store) WatchJobs(ctx context.Context, rescued func(jobs int), failed func(error)) {
	if !s.Postgres() {
		return
	}
	w := &watch{node: s.boot, underway: &s.underway}
	defer w.close()
	failing := false
	clock.Every(ctx, beatEvery, func() {
		freed, err := w.look(ctx, s.direct)
		if err != nil && !failing && ctx.Err() == nil {
			failed(err)
		}
		if freed > 0 {
			rescued(freed)
		}
		failing = err != nil
	})
}

// watch is what the looks of a node have found. It has a connection of its own:
// while it waited for one of the pool, others would take the node for dead.
type watch struct {
	node     string
	underway *underway
	conn     *pgx.Conn
	idle     map[run]sighting
}

// sighting is when the node of a run last wrote that it lives, and how many looks
// in a row have found that.
type sighting struct {
	seen  time.Time
	looks int
}

// look writes that this node lives and frees jobs. When it fails, everything is
// counted from the start: the other nodes may not reach the database either.
func (w *watch) look(ctx context.Context, config *pgx.ConnConfig) (freed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			w.idle = nil
			w.close()
			err = fmt.Errorf("look for jobs of dead nodes: %w", err)
		}
	}()
	if w.conn == nil {
		if w.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			return 0, err
		}
		if _, err := w.conn.Exec(ctx, "DELETE FROM nodes WHERE seen_at < clock_timestamp() - $1::interval", nodesKept); err != nil {
			return 0, err
		}
	}
	_, err = w.conn.Exec(ctx, `INSERT INTO nodes (id, seen_at) VALUES ($1, clock_timestamp())
		ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at`, w.node)
	if err != nil {
		return 0, err
	}
	ids, began, err := w.find(ctx)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	return w.free(ctx, ids, began)
}

// find lists the runs that are to be freed.
func (w *watch) find(ctx context.Context) (ids []int64, began []time.Time, err error) {
	rows, err := w.conn.Query(ctx, `SELECT r.id, r.began, r.node, coalesce(n.seen_at, 'epoch') FROM (
			SELECT id, attempted_at AS began, coalesce(attempted_by[array_upper(attempted_by, 1)], '') AS node FROM river_job WHERE state = 'running'
			UNION ALL SELECT 0, elected_at, leader_id FROM river_leader
			UNION ALL SELECT -a.pid, a.backend_start, n.id FROM pg_stat_activity a JOIN nodes n ON a.application_name = $1 || n.id
				WHERE a.datname = current_database() AND a.xact_start IS NOT NULL
		) r LEFT JOIN nodes n ON n.id = r.node`, nodeName)
	if err != nil {
		return nil, nil, err
	}
	idle := map[run]sighting{}
	var id int64
	var node string
	var start, seen time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &start, &node, &seen}, func() error {
		r, most := run{id, start.UnixMicro()}, deadAfter
		if node == w.node {
			if id <= 0 || w.underway.has(r) {
				return nil
			}
			most, seen = lostAfter, time.Time{}
		}
		s := sighting{seen, 1}
		if old := w.idle[r]; old.seen.Equal(seen) {
			s.looks += old.looks
		}
		idle[r] = s
		if s.looks >= most {
			ids, began = append(ids, id), append(began, start)
		}
		return nil
	})
	w.idle = idle
	return ids, began, err
}

// free gives jobs back and ends connections. A job that has had all its attempts
// is given up, or it could bring down one node after another.
func (w *watch) free(ctx context.Context, ids []int64, began []time.Time) (int, error) {
	done, err := w.conn.Exec(ctx, `UPDATE river_job j SET
			state = CASE WHEN attempt < max_attempts THEN 'available' ELSE 'discarded' END::river_job_state,
			finalized_at = CASE WHEN attempt < max_attempts THEN NULL ELSE clock_timestamp() END
		FROM unnest($1::bigint[], $2::timestamptz[]) r (id, began)
		WHERE j.id = r.id AND j.attempted_at = r.began AND j.state = 'running'`, ids, began)
	if err != nil {
		return 0, err
	}
	_, err = w.conn.Exec(ctx, "DELETE FROM river_leader WHERE 0 = ANY($1::bigint[]) AND elected_at = ANY($2::timestamptz[])", ids, began)
	if err != nil {
		return 0, err
	}
	_, err = w.conn.Exec(ctx, `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
		JOIN unnest($1::bigint[], $2::timestamptz[]) r (id, began) ON a.pid = -r.id AND a.backend_start = r.began`, ids, began)
	return int(done.RowsAffected()), err
}

func (w *watch) close() {
	if w.conn == nil {
		return
	}
	closeBroken(w.conn)
	w.conn = nil
}
