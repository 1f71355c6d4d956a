// Package booking keeps a visit from joining or scheduling to its end. It holds the
// rules of the queue. What a caller may request is decided in handlers; realtime and
// notify send what has changed.
//
// Every change is one transaction: a conditional update that names the status and stage
// it starts from and raises the booking's version, and the event about the change. Of
// many callers that try the same change, exactly one finds the row in that state; the
// others get the reason as an error. After the commit, the queue index is updated. If
// the process dies before that, or Redis is down, the comparison of index and database
// updates the index within seconds.
//
// No lock is held while talking to Redis, and no answer depends on Redis: positions
// come from the index if it is known to be current, and from the database otherwise.
package booking

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/cache"
	"nowserving/booking/catalog"
	"nowserving/booking/files"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// publishTimeout bounds how long a change that is already committed waits for
// the index.
const publishTimeout = 2 * time.Second

// Service makes and changes bookings. It is safe for concurrent use.
type Service struct {
	store   *store.Store
	catalog *catalog.Catalog
	index   *queue.Index
	mirrors *queue.Mirrors
	files   *files.Service
	log     *slog.Logger

	services cache.Cache[string, service] // by type
	waiting  *waitingCache
	opening  hoursCache
	quotes   quotes

	remindersDropped atomic.Uint64
}

// New makes the Service.
func New(s *store.Store, c *catalog.Catalog, ix *queue.Index, mirrors *queue.Mirrors, f *files.Service, log *slog.Logger) *Service {
	return &Service{
		store: s, catalog: c, index: ix, mirrors: mirrors, files: f, log: log,
		services: cache.Cache[string, service]{Life: serviceLife, Max: maxServices}, waiting: newWaitingCache(),
	}
}

// publish tells the index, and through it every node, where the booking stands
// after a committed change, and returns the moment the index took it in. A
// failure loses nothing: the index is compared with the database as soon as it
// can be.
func (s *Service) publish(ctx context.Context, b *models.Booking, t models.EventType) queue.StreamPosition {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	event := models.EventOf(t, b)
	var at queue.StreamPosition
	err := errUnlinked
	if s.mirrors.Reaches(b.OrganizationID) {
		at, err = s.put(ctx, b, &event)
	}
	switch {
	case errors.Is(err, queue.ErrLost):
		s.mirrors.Lost(b.OrganizationID)
	case err != nil:
		s.mirrors.Invalidate(b.OrganizationID)
		s.log.Warn("the queue index did not take a change; it will be repaired", "booking", b.ID, "error", err)
	}
	return at
}

var errUnlinked = errors.New("no link to Redis")

func (s *Service) put(ctx context.Context, b *models.Booking, event *models.BookingEvent) (queue.StreamPosition, error) {
	if !b.Waiting() {
		return s.index.Remove(ctx, b.OrganizationID, b.ID, b.Version, event)
	}
	resources, err := matchingResources(s.store.Read(ctx), b.Seq)
	if err != nil {
		return queue.StreamPosition{}, err
	}
	return s.index.Put(ctx, b.OrganizationID, entryOf(b, resources), event)
}

// Get finds a booking of the organization.
func (s *Service) Get(ctx context.Context, organizationID, id string) (*models.Booking, error) {
	return s.get(s.store.Read(ctx), organizationID, id)
}

func (s *Service) get(db *gorm.DB, organizationID, id string) (*models.Booking, error) {
	var b models.Booking
	err := db.Where("organization_id = ? AND id = ?", organizationID, id).Take(&b).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeBookingNotFound, "There is no such booking in the organization.")
	}
	if err != nil {
		return nil, fmt.Errorf("read booking: %w", err)
	}
	return &b, nil
}
