package notify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/riverqueue/river"

	"nowserving/booking/store"
	"nowserving/notify/outbox"
)

// announcer expands events into deliveries. Events that come while others are being
// expanded wait and are expanded together, so many events cost few transactions and a
// single one does not wait.
type announcer struct {
	river.WorkerDefaults[store.Announce]
	service *Service
	turn    chan struct{} // held by the group that is being expanded

	mu   sync.Mutex
	next *group
}

// group are events that are expanded together.
type group struct {
	events []int64
	done   chan struct{}
	failed map[int64]error // once done
}

func newAnnouncer(s *Service) *announcer { return &announcer{service: s, turn: make(chan struct{}, 1)} }

// Work implements river.Worker.
func (w *announcer) Work(ctx context.Context, job *river.Job[store.Announce]) error {
	g, first := w.join(job.Args.EventID)
	if first {
		w.lead(ctx, g)
	}
	select {
	case <-g.done:
		return g.failed[job.Args.EventID]
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lead expands a group when its turn has come. It goes on if the job that leads it
// ends.
func (w *announcer) lead(ctx context.Context, g *group) {
	var late error
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		late = ctx.Err()
	}
	w.mu.Lock()
	w.next = nil // who comes from now on waits for the next turn
	w.mu.Unlock()
	defer close(g.done)
	if late != nil {
		for _, id := range g.events {
			g.failed[id] = late
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), expandTimeout)
	defer cancel()
	w.expandAll(ctx, g)
}

// join adds an event to the group that is expanded next. The first one in it leads.
func (w *announcer) join(eventID int64) (g *group, first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next, first = &group{done: make(chan struct{}), failed: map[int64]error{}}, true
	}
	w.next.events = append(w.next.events, eventID)
	return w.next, first
}

// expandTimeout bounds the expanding of a group.
const expandTimeout = 10 * time.Second

// expandAll expands events together or, if that fails, each by itself, so that one
// can't hold up the others.
func (w *announcer) expandAll(ctx context.Context, g *group) {
	err := w.expand(ctx, g.events)
	if err == nil {
		return
	}
	if len(g.events) > 1 {
		w.service.Log.Warn("events could not be announced together; trying each by itself", "events", len(g.events), "error", err)
	}
	for _, id := range g.events {
		g.failed[id] = w.expand(ctx, []int64{id})
	}
}

// expand first reads what has to be sent, and opens a transaction only if there is
// something: most events of a clinic without webhooks lead to no delivery. Events of
// a deleted organization lead to none.
func (w *announcer) expand(ctx context.Context, ids []int64) error {
	var fresh []*outbox.Announcement
	err := w.service.Store.Read(ctx).Raw(`SELECT e.id AS event_id, e.organization_id, e.data, e.announced_at FROM events e
		JOIN organizations o ON o.id = e.organization_id AND o.deleted_at IS NULL
		WHERE e.id IN ? AND e.announced_at IS NULL ORDER BY e.organization_id, e.id`, ids).Scan(&fresh).Error
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	steps, err := w.plan(ctx, fresh)
	if err != nil || len(steps) == 0 {
		return err
	}
	return w.service.Store.Tx(ctx, func(tx *store.Tx) error {
		// Events that another worker has expanded meanwhile are not among them.
		var marked []int64
		err := tx.Raw("UPDATE events SET announced_at = ? WHERE id IN ? AND announced_at IS NULL RETURNING id",
			tx.Now, slices.Sorted(maps.Keys(steps))).Scan(&marked).Error
		if err != nil {
			return fmt.Errorf("mark events as announced: %w", err)
		}
		slices.Sort(marked)
		for _, id := range marked {
			for _, do := range steps[id] {
				if err := do(tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// plan returns the steps of all channels for some events, by event. It leaves out events
// that lead to nothing.
func (w *announcer) plan(ctx context.Context, fresh []*outbox.Announcement) (map[int64][]outbox.Step, error) {
	steps := map[int64][]outbox.Step{}
	for list := range byOrganization(fresh) {
		for _, plan := range []func(context.Context, []*outbox.Announcement) (map[int64]outbox.Step, error){
			w.service.Webhooks.Plan, each(w.service.Pushes.Plan), w.service.Pushes.PlanPositions, each(w.service.Messages.Plan),
		} {
			planned, err := plan(ctx, list)
			if err != nil {
				return nil, err
			}
			for id, do := range planned {
				steps[id] = append(steps[id], do)
			}
		}
	}
	return steps, nil
}

// byOrganization yields the announcements of each organization. They have to be
// sorted by it.
func byOrganization(list []*outbox.Announcement) func(yield func([]*outbox.Announcement) bool) {
	return func(yield func([]*outbox.Announcement) bool) {
		for len(list) > 0 {
			n := slices.IndexFunc(list, func(a *outbox.Announcement) bool { return a.OrganizationID != list[0].OrganizationID })
			if n < 0 {
				n = len(list)
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// each plans announcements one by one.
func each(plan func(context.Context, *outbox.Announcement) (outbox.Step, error)) func(context.Context, []*outbox.Announcement) (map[int64]outbox.Step, error) {
	return func(ctx context.Context, list []*outbox.Announcement) (map[int64]outbox.Step, error) {
		planned := map[int64]outbox.Step{}
		for _, a := range list {
			do, err := plan(ctx, a)
			if err != nil {
				return nil, err
			}
			if do != nil {
				planned[a.EventID] = do
			}
		}
		return planned, nil
	}
}

// tidyEvents deletes events from before a time, in pieces, except those that are not
// announced yet.
func tidyEvents(ctx context.Context, s *store.Store, before time.Time) error {
	return s.DeleteInBatches(ctx, "events", "id",
		"created_at < ? AND id NOT IN (SELECT CAST(args ->> 'eventId' AS bigint) FROM river_job WHERE kind = ? AND state IN ?)",
		before, store.Announce{}.Kind(), []string{"available", "running", "retryable", "scheduled", "pending"})
}
