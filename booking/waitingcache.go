package booking

import (
	"context"
	"fmt"
	"sync"
	"time"

	"nowserving/booking/queue"
	"nowserving/models"
)

const (
	// rosterLife is how long a roster is kept after it last spared a reading, and
	// warmLife how long one that was read before anybody asked.
	rosterLife = 5 * time.Second
	warmLife   = 30 * time.Second
	// rosterRows bounds the rows of one roster, and maxRosterRows those of all.
	rosterRows    = 20_000
	maxRosterRows = 50_000
	// rosterTimeout bounds the reading of one.
	rosterTimeout = 10 * time.Second
	// Within missWindow, fewMisses bookings are read one by one before all are
	// read together, or as many as cost about the same as that.
	missWindow  = time.Second
	fewMisses   = 32
	rowsPerMiss = 32
	// organizationLife is how long an organization nobody asks about is
	// remembered.
	organizationLife = 10 * time.Minute
)

// rosters keep the rows of an organization's waiting bookings for a moment. A
// crowd that comes at once, after a restart of this node or of another, then
// costs one reading of the database and not one for each.
//
// A row is used only when a mirror that shows the index or the database as it
// is now has the booking waiting with the row's own version, so it can't be
// older than what any change that was answered has left.
type rosters struct {
	mu             sync.Mutex
	byOrganization map[string]*roster
	rows           int // in all
}

type roster struct {
	rows    map[string]*models.Booking // never changed; nil when none are kept
	reading *reading                   // under way, or nil
	until   time.Time                  // when they are dropped, unless they are of use
	asked   time.Time
	misses  int // since
	since   time.Time
}

// reading is one of the whole roster.
type reading struct {
	done chan struct{}
	err  error
}

func newRosters() *rosters { return &rosters{byOrganization: map[string]*roster{}} }

// Watch finds a booking that the caller may see, as it is now, and its place in
// the queue, 0 when it does not wait.
func (s *Service) Watch(ctx context.Context, sc Scope, id string) (*models.Booking, int, error) {
	mirror, current := s.mirrors.Current(ctx, sc.OrganizationID)
	if !current {
		mirror = nil
		if _, recent := s.mirrors.Recent(sc.OrganizationID); !recent {
			counted, err := s.mirrors.Counted(ctx, sc.OrganizationID)
			if err != nil {
				return nil, 0, err
			}
			mirror = counted
		}
	}
	if mirror != nil {
		var w *queue.Waiter
		position := 0
		mirror.View(func(v queue.View) {
			w = v.Waiter(id)
			position, _ = v.Position(id)
		})
		if w != nil {
			b, err := s.waitingRow(ctx, sc.OrganizationID, id, w.Version)
			if err != nil {
				return nil, 0, err
			}
			if b != nil {
				return b, position, sc.mayView(s.store.Read(ctx), b)
			}
		}
	}
	b, err := s.See(ctx, sc, id)
	if err != nil || !b.Waiting() {
		return b, 0, err
	}
	position, _, err := s.position(ctx, mirror, b)
	return b, position, err
}

// warmOrganizations bounds those that a node reads before anybody asks.
const warmOrganizations = 50

// Warm prepares a node for those who come back after a restart, while nobody
// waits for that: it reads the index of the organizations where most wait, and
// their bookings.
func (s *Service) Warm(ctx context.Context) error {
	var busy []string
	err := s.store.Read(ctx).Raw(`SELECT organization_id FROM bookings WHERE stage = 'WAITING'
		GROUP BY organization_id ORDER BY count(*) DESC LIMIT ?`, warmOrganizations).Scan(&busy).Error
	if err != nil {
		return fmt.Errorf("find who waits: %w", err)
	}
	for _, id := range busy {
		s.mirrors.Get(ctx, id)
		if _, under, first := s.rosters.find(id, "", 0); first {
			s.readRoster(ctx, id, under, warmLife)
			if under.err != nil {
				return under.err
			}
		}
	}
	return ctx.Err()
}

// waitingRow returns a booking from the roster if it is there with a version,
// and nil if it has to be read by itself.
func (s *Service) waitingRow(ctx context.Context, organizationID, id string, version int64) (*models.Booking, error) {
	b, under, first := s.rosters.find(organizationID, id, version)
	if under == nil {
		return b, nil
	}
	if first {
		s.readRoster(context.WithoutCancel(ctx), organizationID, under, rosterLife)
	}
	select {
	case <-under.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if under.err != nil {
		return nil, under.err
	}
	return s.rosters.have(organizationID, id, version), nil
}

func (s *Service) readRoster(ctx context.Context, organizationID string, under *reading, life time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	defer close(under.done)
	var list []models.Booking
	err := s.store.Read(ctx).Where("organization_id = ? AND stage = ?", organizationID, models.StageWaiting).Limit(rosterRows).Find(&list).Error
	if err != nil {
		under.err = fmt.Errorf("read who waits: %w", err)
	}
	s.rosters.keep(organizationID, list, life)
}

// find returns a row that is kept, or a reading to wait for, which the first
// one told of it has to do, or neither.
func (rs *rosters) find(organizationID, id string, version int64) (b *models.Booking, under *reading, first bool) {
	now := time.Now()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.byOrganization[organizationID]
	met := r != nil
	if !met {
		r = &roster{}
		rs.byOrganization[organizationID] = r
	}
	r.asked = now
	if b := r.have(id, version); b != nil {
		if until := now.Add(rosterLife); until.After(r.until) {
			r.until = until
		}
		return b, nil, false
	}
	if r.reading != nil {
		return nil, r.reading, false
	}
	if now.Sub(r.since) > missWindow {
		r.misses, r.since = 0, now
	}
	// Somebody nobody has asked about yet: this node has just started, and
	// everybody will come.
	if r.misses++; met && r.misses <= max(fewMisses, len(r.rows)/rowsPerMiss) {
		return nil, nil, false
	}
	r.misses, r.reading = 0, &reading{done: make(chan struct{})}
	return nil, r.reading, true
}

// have returns a row that is kept.
func (rs *rosters) have(organizationID, id string, version int64) *models.Booking {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.byOrganization[organizationID].have(id, version)
}

// have returns a copy, so that callers share nothing but what none of them
// changes: its texts, times and info.
func (r *roster) have(id string, version int64) *models.Booking {
	if r == nil || r.rows[id] == nil || r.rows[id].Version != version {
		return nil
	}
	b := *r.rows[id]
	return &b
}

// keep ends a reading.
func (rs *rosters) keep(organizationID string, list []models.Booking, life time.Duration) {
	rows := make(map[string]*models.Booking, len(list))
	for i := range list {
		rows[list[i].ID] = &list[i]
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.byOrganization[organizationID]
	rs.drop(r)
	if rs.rows+len(rows) > maxRosterRows {
		for _, other := range rs.byOrganization {
			rs.drop(other)
		}
	}
	rs.rows += len(rows)
	r.rows, r.until, r.reading = rows, time.Now().Add(life), nil
}

func (rs *rosters) drop(r *roster) {
	rs.rows -= len(r.rows)
	r.rows = nil
}

// tidy drops what has not been of use for a while.
func (rs *rosters) tidy() {
	now := time.Now()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for id, r := range rs.byOrganization {
		if r.rows != nil && now.After(r.until) {
			rs.drop(r)
		}
		if r.reading == nil && now.Sub(r.asked) > organizationLife {
			rs.drop(r)
			delete(rs.byOrganization, id)
		}
	}
}
