package booking

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/queue"
	"nowserving/models"
)

// Place is where a waiting booking stands.
type Place struct {
	// Position is 1 + the smallest number of bookings ahead of it in any queue
	// it waits in.
	Position int
	// WaitMinutes is Position times the minutes of its type: the document's
	// formula for estimatedWaitMinutes.
	WaitMinutes int
	// Estimate is more exact: it uses the resources that are present and the durations
	// of recent visits.
	Estimate models.Estimate
	// Age is how old Position may be while Redis does not answer. It is nil if Position
	// is current.
	Age *time.Duration
}

// Places returns the place of each waiting booking of one organization. Positions
// come from the mirror if it is as new as the index, and are counted in the database
// otherwise. A booking that has left its queue since it was read is overwritten with
// its present row.
func (s *Service) Places(ctx context.Context, organizationID string, bookings []models.Booking) (map[string]Place, error) {
	places := map[string]Place{}
	var mirror *queue.Mirror
	asked := false
	for i := range bookings {
		b := &bookings[i]
		if !b.Waiting() {
			continue
		}
		if !asked {
			asked = true
			if m, ok := s.mirrors.Current(ctx, organizationID); ok {
				mirror = m
			}
		}
		place, err := s.placeOf(ctx, mirror, b)
		if err != nil {
			return nil, err
		}
		if place != nil {
			places[b.ID] = *place
		}
	}
	return places, nil
}

// placeOf returns the place of a booking that was waiting when it was read. If it has
// left the queue since, placeOf overwrites it with its present row and returns nil.
func (s *Service) placeOf(ctx context.Context, mirror *queue.Mirror, b *models.Booking) (*Place, error) {
	position, age, err := s.position(ctx, mirror, b)
	if err != nil || position == 0 {
		return nil, err
	}
	place, err := s.PlaceAt(ctx, b, position)
	place.Age = age
	return &place, err
}

// position returns the position of a booking that was waiting when it was read, and
// its age. It comes from the given mirror; without one, from a mirror that is a few
// seconds old if many wait; and otherwise from the database. If the booking has left
// the queue since, it is overwritten with its present row and its position is 0. age
// is nil if the position is current.
func (s *Service) position(ctx context.Context, mirror *queue.Mirror, b *models.Booking) (position int, age *time.Duration, err error) {
	if mirror == nil {
		if m, ok := s.mirrors.Recent(b.OrganizationID); ok {
			return s.recentPosition(ctx, m, b)
		}
		if mirror, err = s.mirrors.Counted(ctx, b.OrganizationID); err != nil {
			return 0, nil, err
		}
		age = new(time.Duration) // nothing tells when it changes
	}
	if position, ok := mirror.Position(b.ID); ok {
		return position, age, nil
	}
	position, err = countPosition(s.store.Read(ctx), b.Seq)
	if err != nil || position > 0 {
		return position, age, err
	}
	now, err := s.get(s.store.Read(ctx), b.OrganizationID, b.ID)
	if err != nil {
		return 0, nil, err
	}
	*b = *now
	return 0, nil, nil
}

// recentPosition takes a position from a mirror that is not live.
func (s *Service) recentPosition(ctx context.Context, m *queue.Mirror, b *models.Booking) (int, *time.Duration, error) {
	asOf, _ := m.AsOf()
	age := max(time.Since(asOf), 0)
	if position, ok := m.Position(b.ID); ok {
		return position, &age, nil
	}
	resources, err := matchingResources(s.store.Read(ctx), b.Seq)
	if err != nil {
		return 0, nil, err
	}
	return m.PositionFor(entryOf(b, resources)), &age, nil
}

// PlaceAt adds the waits to a position that the mirror shows.
func (s *Service) PlaceAt(ctx context.Context, b *models.Booking, position int) (Place, error) {
	service, err := s.serviceOf(ctx, b.OrganizationID, b.TypeID)
	if err != nil {
		return Place{}, err
	}
	place := Place{Position: position, WaitMinutes: position * service.minutes, Estimate: service.estimate(position)}
	if asOf, live := s.mirrors.AsOf(b.OrganizationID); !live {
		age := max(time.Since(asOf), 0)
		place.Age = &age
	}
	return place, nil
}

// placeAfter returns the place of a booking after a change that the index has applied
// at the given position of its stream, or nil if it no longer waits. The change is
// already committed, so errors are logged, not returned: the caller would retry a
// change that succeeded.
func (s *Service) placeAfter(ctx context.Context, b *models.Booking, at queue.StreamPosition) *Place {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	place, err := s.tryPlaceAfter(ctx, b, at)
	if err != nil {
		s.log.Warn("a booking was changed and its place can't be told", "booking", b.ID, "error", err)
		return nil
	}
	return place
}

func (s *Service) tryPlaceAfter(ctx context.Context, b *models.Booking, at queue.StreamPosition) (*Place, error) {
	mirror, ok := s.mirrors.At(ctx, b.OrganizationID, at)
	if !ok {
		mirror = nil
	}
	return s.placeOf(ctx, mirror, b)
}

// countPosition counts in one statement the bookings ahead of a waiting one. If no
// active resource matches the booking, it counts those of the same type. It returns 0
// if the booking no longer waits.
func countPosition(db *gorm.DB, seq int64) (int, error) {
	ahead := `SELECT count(*) FROM bookings x WHERE x.organization_id = b.organization_id AND x.stage = 'WAITING'
		AND (x.priority > b.priority OR x.priority = b.priority AND x.seq < b.seq) AND `
	var positions []int
	err := db.Raw("SELECT 1 + MIN(n) FROM (SELECT ("+ahead+matches("x")+") AS n FROM bookings b JOIN resources r ON "+matches("b")+
		" WHERE b.seq = ? AND b.stage = 'WAITING') AS queues HAVING count(*) > 0", seq).Scan(&positions).Error
	if err == nil && len(positions) == 0 {
		err = db.Raw("SELECT 1 + ("+ahead+"x.type_id = b.type_id) FROM bookings b WHERE b.seq = ? AND b.stage = 'WAITING'", seq).Scan(&positions).Error
	}
	if err != nil {
		return 0, fmt.Errorf("count who is ahead: %w", err)
	}
	if len(positions) == 0 {
		return 0, nil
	}
	return positions[0], nil
}

// PendingCounts returns how many bookings of each type wait.
func (s *Service) PendingCounts(ctx context.Context, organizationID string, typeIDs []string) (map[string]int, error) {
	counts := make(map[string]int, len(typeIDs))
	if m, ok := s.mirrors.Current(ctx, organizationID); ok {
		m.View(func(v queue.View) {
			for _, id := range typeIDs {
				counts[id] = v.Len(id)
			}
		})
		return counts, nil
	}
	var rows []struct {
		TypeID string
		N      int
	}
	err := s.store.Read(ctx).Raw(`SELECT type_id, count(*) AS n FROM bookings
		WHERE organization_id = ? AND stage = 'WAITING' AND type_id IN ? GROUP BY type_id`, organizationID, typeIDs).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("count who waits: %w", err)
	}
	for _, row := range rows {
		counts[row.TypeID] = row.N
	}
	return counts, nil
}
