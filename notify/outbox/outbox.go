package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"nowserving/booking/store"
	"nowserving/models"
)

// Deps are the dependencies of every channel.
type Deps struct {
	Store *store.Store
	Stats *Counter
	Log   *slog.Logger
	Now   func() time.Time
}

// Living reports whether an organization exists and is not deleted. Nothing is sent
// for a deleted one.
func (d Deps) Living(ctx context.Context, organizationID string) (bool, error) {
	var found int64
	err := d.Store.Read(ctx).Model(&models.Organization{}).Where("id = ? AND deleted_at IS NULL", organizationID).Count(&found).Error
	if err != nil {
		return false, fmt.Errorf("look whether an organization is deleted: %w", err)
	}
	return found > 0, nil
}

// Announcement is an event that is being expanded into deliveries.
type Announcement struct {
	EventID        int64
	OrganizationID string
	Event          models.BookingEvent `gorm:"serializer:json;column:data"`
	AnnouncedAt    *time.Time
}

// Step writes the deliveries of an event on a channel. It runs in the transaction
// that marks the event as announced. Nil: there is nothing to write.
type Step func(tx *store.Tx) error

// SequenceOf orders the deliveries about a booking: the booking's version, then a
// counter of fewer than a million within that version.
func SequenceOf(version, k int64) int64 { return version*1_000_000 + k }

// PositionUpdate is a new position of a waiting booking.
type PositionUpdate struct {
	Standing models.Standing
	Sequence int64
}

// Reasons for which a webhook is disabled.
const (
	ReasonGone    = "gone"    // the receiver answered 410
	ReasonFailing = "failing" // five days of nothing but failures
)

// The queues of jobs.
const (
	QueueAnnounce = "announce"
	QueueWebhooks = "webhooks"
	QueuePushes   = "pushes"
	QueueMessages = "messages"
)

const (
	// StopTimeout bounds how long jobs under way may run after Run has to end.
	StopTimeout = 5 * time.Second
	// IDsAtOnce bounds the ids in one query.
	IDsAtOnce = 1000
	// MaxRetryAfter bounds the pause that an answer may ask for.
	MaxRetryAfter = 24 * time.Hour
)

// Erased returns those of some bookings whose customers are erased. Other erasures in
// the organization wait until this transaction ends, which may write identities.
func Erased(tx *store.Tx, organizationID string, bookingIDs []string) (map[string]bool, error) {
	if err := tx.Naming(organizationID); err != nil {
		return nil, err
	}
	gone := map[string]bool{}
	for ids := range slices.Chunk(bookingIDs, IDsAtOnce) {
		var list []string
		err := tx.Table("bookings AS b").Joins("JOIN customers c ON c.id = b.customer_id").
			Where("b.id IN ? AND c.erased_at IS NOT NULL", ids).Pluck("b.id", &list).Error
		if err != nil {
			return nil, fmt.Errorf("look whether customers are erased: %w", err)
		}
		for _, id := range list {
			gone[id] = true
		}
	}
	return gone, nil
}
