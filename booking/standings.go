package booking

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"nowserving/booking/queue"
	"nowserving/models"
)

// Matched lists the active resources in whose queues a booking waits.
func (s *Service) Matched(ctx context.Context, organizationID, bookingID string) ([]string, error) {
	b, err := s.Get(ctx, organizationID, bookingID)
	if err != nil {
		return nil, err
	}
	return matchingResources(s.store.Read(ctx), b.Seq)
}

// Free returns the first booking in a resource's queue and the resources that could
// take it now: active, not paused and idle. bookingID is empty if the queue is empty.
func (s *Service) Free(ctx context.Context, organizationID, resourceID string) (bookingID string, resources []string, err error) {
	db := s.store.Read(ctx)
	var head models.Booking
	err = queueOf(db, organizationID, resourceID, models.StageWaiting).Select("b.seq, b.id").Order("b.priority DESC, b.seq").Limit(1).Take(&head).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("find who is next: %w", err)
	}
	err = db.Raw(`SELECT r.id FROM bookings b JOIN resources r ON `+matches("b")+` WHERE b.seq = ? AND NOT r.paused AND NOT EXISTS (
		SELECT 1 FROM bookings x WHERE x.organization_id = b.organization_id AND x.resource_id = r.id AND x.stage IN ('CALLED', 'SERVING'))
		ORDER BY r.id`, head.Seq).Scan(&resources).Error
	if err != nil {
		return "", nil, fmt.Errorf("find who is free: %w", err)
	}
	return head.ID, resources, nil
}

// oneMoment makes a transaction read one snapshot of the database. On SQLite every
// transaction does.
func (s *Service) oneMoment() *sql.TxOptions {
	if s.store.Postgres() {
		return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	return nil
}

// Standings returns the positions of all waiting bookings of an organization in one
// snapshot. It reads the database, because the index may be behind and a push sent
// from it would not be corrected.
func (s *Service) Standings(ctx context.Context, organizationID string) ([]models.Standing, error) {
	var waiting []queue.Entry
	err := s.store.Read(ctx).Transaction(func(db *gorm.DB) error {
		return eachWaiting(db, organizationID, func(page []queue.Entry) error {
			waiting = append(waiting, page...)
			return nil
		})
	}, s.oneMoment())
	if err != nil {
		return nil, err
	}
	services := map[string]service{}
	before := map[string]int{} // who stands in a queue so far
	standings := make([]models.Standing, len(waiting))
	for i, e := range waiting {
		known, ok := services[e.TypeID]
		if !ok {
			if known, err = s.serviceOf(ctx, organizationID, e.TypeID); err != nil {
				return nil, err
			}
			services[e.TypeID] = known
		}
		ahead := before[e.TypeID] // counts where no active resource serves it
		for n, id := range e.Resources {
			if n == 0 || before[id] < ahead {
				ahead = before[id]
			}
			before[id]++
		}
		before[e.TypeID]++
		standings[i] = models.Standing{
			BookingID: e.BookingID, Version: e.Version, TypeID: e.TypeID, Position: ahead + 1,
			WaitMinutes: (ahead + 1) * known.minutes, Estimate: known.estimate(ahead + 1),
		}
	}
	return standings, nil
}
