package notify

import (
	"context"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"nowserving/booking/store"
	"nowserving/models"
)

// announcement is an event on its way to everybody who has to know.
type announcement struct {
	EventID        int64
	OrganizationID string
	Event          models.BookingEvent `gorm:"serializer:json;column:data"`
	AnnouncedAt    *time.Time
}

// step is a part of an announcement that has to be written: it runs in the
// transaction that marks the event as announced. Nil: nothing to write.
type step func(tx *store.Tx) error

// announcer expands an event into what has to be sent.
type announcer struct {
	river.WorkerDefaults[store.Announce]
	s *Service
}

// Work implements river.Worker. What has to be sent is read first, and written
// in one transaction only when there is something: most events of a clinic
// without webhooks concern nobody outside.
func (w *announcer) Work(ctx context.Context, job *river.Job[store.Announce]) error {
	var a announcement
	found := w.s.store.Read(ctx).Raw("SELECT id AS event_id, organization_id, data, announced_at FROM events WHERE id = ?", job.Args.EventID).Scan(&a)
	if found.Error != nil {
		return fmt.Errorf("read an event: %w", found.Error)
	}
	if found.RowsAffected == 0 || a.AnnouncedAt != nil {
		return nil
	}
	var steps []step
	for _, plan := range []func(context.Context, *announcement) (step, error){
		w.s.hooks.plan, w.s.pushes.plan, w.s.pushes.planPositions, w.s.post.plan,
	} {
		do, err := plan(ctx, &a)
		if err != nil {
			return err
		}
		if do != nil {
			steps = append(steps, do)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	return w.s.store.Tx(ctx, func(tx *store.Tx) error {
		marked := tx.Exec("UPDATE events SET announced_at = ? WHERE id = ? AND announced_at IS NULL", tx.Now, a.EventID)
		if marked.Error != nil || marked.RowsAffected == 0 {
			return marked.Error // another worker has done it
		}
		for _, do := range steps {
			if err := do(tx); err != nil {
				return err
			}
		}
		return nil
	})
}
