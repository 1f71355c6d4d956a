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
	// waitingLife is how long rows are kept after they last saved a query, and
	// warmLife how long rows that Warm has read.
	waitingLife = 5 * time.Second
	warmLife    = 30 * time.Second
	// maxWaitingRows bounds the rows of one organization, and maxCachedRows those of
	// all.
	maxWaitingRows = 20_000
	maxCachedRows  = 50_000
	// waitingTimeout bounds the reading of one.
	waitingTimeout = 10 * time.Second
	// Within missWindow, this many bookings are read one by one before all are read
	// together: fewMisses, or one in rowsPerMiss if that is more.
	missWindow  = time.Second
	fewMisses   = 32
	rowsPerMiss = 32
	// organizationLife is how long an organization without requests is remembered.
	organizationLife = 10 * time.Minute
)

// waitingCache caches the rows of waiting bookings for some seconds, by organization.
// Many clients that reconnect at once, after the restart of a node, then cost one query
// and not one each.
//
// A row is used only if a current mirror has the booking waiting at the row's own
// version, so it includes every change that has been answered.
type waitingCache struct {
	mu             sync.Mutex
	byOrganization map[string]*waitingRows
	rows           int // in all
}

type waitingRows struct {
	rows    map[string]*models.Booking // never changed; nil when none are kept
	reading *reading                   // under way, or nil
	until   time.Time                  // when they are dropped, unless they are of use
	asked   time.Time
	misses  int // since
	since   time.Time
}

// reading is a query for all waiting bookings of an organization.
type reading struct {
	done chan struct{}
	err  error
}

func newWaitingCache() *waitingCache { return &waitingCache{byOrganization: map[string]*waitingRows{}} }

// Watch returns the present state of a booking that the caller may see, and its
// position, which is 0 if it does not wait.
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

// warmOrganizations bounds the organizations that Warm reads.
const warmOrganizations = 50

// Warm prepares a starting node for clients that reconnect: it reads the index and
// the waiting bookings of the organizations with the longest queues.
func (s *Service) Warm(ctx context.Context) error {
	var busy []string
	err := s.store.Read(ctx).Raw(`SELECT organization_id FROM bookings WHERE stage = 'WAITING'
		GROUP BY organization_id ORDER BY count(*) DESC LIMIT ?`, warmOrganizations).Scan(&busy).Error
	if err != nil {
		return fmt.Errorf("find who waits: %w", err)
	}
	for _, id := range busy {
		s.mirrors.Get(ctx, id)
		if _, under, first := s.waiting.find(id, "", 0); first {
			s.readWaiting(ctx, id, under, warmLife)
			if under.err != nil {
				return under.err
			}
		}
	}
	return ctx.Err()
}

// waitingRow returns a booking from the cache if it is there with a version,
// and nil if it has to be read by itself.
func (s *Service) waitingRow(ctx context.Context, organizationID, id string, version int64) (*models.Booking, error) {
	b, under, first := s.waiting.find(organizationID, id, version)
	if under == nil {
		return b, nil
	}
	if first {
		s.readWaiting(context.WithoutCancel(ctx), organizationID, under, waitingLife)
	}
	select {
	case <-under.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if under.err != nil {
		return nil, under.err
	}
	return s.waiting.have(organizationID, id, version), nil
}

func (s *Service) readWaiting(ctx context.Context, organizationID string, under *reading, life time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, waitingTimeout)
	defer cancel()
	defer close(under.done)
	var list []models.Booking
	err := s.store.Read(ctx).Where("organization_id = ? AND stage = ?", organizationID, models.StageWaiting).Limit(maxWaitingRows).Find(&list).Error
	if err != nil {
		under.err = fmt.Errorf("read who waits: %w", err)
	}
	s.waiting.keep(organizationID, list, life)
}

// find returns a cached row, or else a reading to wait for, or neither. first reports
// whether the caller has to do the reading.
func (rs *waitingCache) find(organizationID, id string, version int64) (b *models.Booking, under *reading, first bool) {
	now := time.Now()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.byOrganization[organizationID]
	met := r != nil
	if !met {
		r = &waitingRows{}
		rs.byOrganization[organizationID] = r
	}
	r.asked = now
	if b := r.have(id, version); b != nil {
		if until := now.Add(waitingLife); until.After(r.until) {
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
	// A first miss means that this node has just started, and that all clients will
	// reconnect.
	if r.misses++; met && r.misses <= max(fewMisses, len(r.rows)/rowsPerMiss) {
		return nil, nil, false
	}
	r.misses, r.reading = 0, &reading{done: make(chan struct{})}
	return nil, r.reading, true
}

// have returns a cached row, or nil.
func (rs *waitingCache) have(organizationID, id string, version int64) *models.Booking {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.byOrganization[organizationID].have(id, version)
}

// have returns a shallow copy of a row, or nil. Strings, times and Info are shared
// and must not be modified.
func (r *waitingRows) have(id string, version int64) *models.Booking {
	if r == nil || r.rows[id] == nil || r.rows[id].Version != version {
		return nil
	}
	b := *r.rows[id]
	return &b
}

// keep stores the rows of a reading.
func (rs *waitingCache) keep(organizationID string, list []models.Booking, life time.Duration) {
	rows := make(map[string]*models.Booking, len(list))
	for i := range list {
		rows[list[i].ID] = &list[i]
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.byOrganization[organizationID]
	rs.drop(r)
	if rs.rows+len(rows) > maxCachedRows {
		for _, other := range rs.byOrganization {
			rs.drop(other)
		}
	}
	rs.rows += len(rows)
	r.rows, r.until, r.reading = rows, time.Now().Add(life), nil
}

func (rs *waitingCache) drop(r *waitingRows) {
	rs.rows -= len(r.rows)
	r.rows = nil
}

// tidy drops rows that have not been used for a while.
func (rs *waitingCache) tidy() {
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
