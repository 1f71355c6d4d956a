package booking

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// Filter narrows and orders a list of bookings.
type Filter struct {
	CustomerID string // staff may ask for one customer's
	Resources  []string
	Statuses   []models.Status
	Stages     []models.Stage
	From, To   time.Time
	// ByCreation applies From, To and the order to the moment of joining; otherwise
	// they apply to the visit: the beginning of an appointment, and for a queued
	// booking the call or, before that, the joining.
	ByCreation bool
	Ascending  bool
	Limit      int
	// After is where the page before ended; empty for the first.
	After string
}

// visitMoment is the moment that lists are filtered and ordered by: the start of an
// appointment, and for a queued booking the call or, before that, the joining. It is
// indexed.
const visitMoment = "COALESCE(starts_at, called_at, created_at)"

func visitMomentOf(b *models.Booking) time.Time {
	switch {
	case b.StartsAt != nil:
		return *b.StartsAt
	case b.CalledAt != nil:
		return *b.CalledAt
	}
	return b.CreatedAt
}

// List returns a page of bookings in the order of the moment that From and To apply
// to, and the position of the next page, which is empty on the last page.
func (s *Service) List(ctx context.Context, sc Scope, f Filter) ([]models.Booking, string, error) {
	q := sc.view(s.store.Read(ctx).Where("organization_id = ?", sc.OrganizationID))
	if f.CustomerID != "" {
		q = q.Where("customer_id = ?", f.CustomerID)
	}
	if len(f.Resources) > 0 {
		q = q.Where("resource_id IN ?", f.Resources)
	}
	if len(f.Statuses) > 0 {
		q = q.Where("status IN ?", f.Statuses)
	}
	if len(f.Stages) > 0 {
		q = q.Where("stage IN ?", f.Stages)
	}
	moment := visitMoment
	if f.ByCreation {
		moment = "created_at"
	}
	if !f.From.IsZero() {
		q = q.Where(moment+" >= ?", f.From.UTC())
	}
	if !f.To.IsZero() {
		q = q.Where(moment+" <= ?", f.To.UTC())
	}
	direction, beyond := " DESC", " < "
	if f.Ascending {
		direction, beyond = "", " > "
	}
	// Joins that were made at once have their sequences in the order of their tickets.
	order, place := "seq"+direction, "(seq)"+beyond+"(?)"
	if !f.ByCreation {
		order, place = visitMoment+direction+", "+order, "("+visitMoment+", seq)"+beyond+"(?, ?)"
	}
	if f.After != "" {
		values, err := readPlace(f.After, f.ByCreation)
		if err != nil {
			return nil, "", err
		}
		q = q.Where(place, values...)
	}
	var list []models.Booking
	if err := q.Order(order).Limit(f.Limit + 1).Find(&list).Error; err != nil {
		return nil, "", fmt.Errorf("list bookings: %w", err)
	}
	list, next := store.CutPage(list, f.Limit, func(b *models.Booking) string {
		return fmt.Sprintf("%d %d", b.Seq, visitMomentOf(b).UnixNano())
	})
	return list, next, nil
}

// readPlace reads where a page ended: a sequence and, unless the list is in the order
// of making, the moment before it.
func readPlace(place string, byCreation bool) ([]any, error) {
	var seq, nano int64
	if _, err := fmt.Sscanf(place, "%d %d", &seq, &nano); err != nil {
		return nil, fmt.Errorf("read a place in a list: %w", err)
	}
	if byCreation {
		return []any{seq}, nil
	}
	return []any{time.Unix(0, nano).UTC(), seq}, nil
}

// QueuePage is a part of the bookings that wait for a resource.
type QueuePage struct {
	Bookings []models.Booking
	Total    int64  // of all pages
	Next     string // the position of the next page; empty on the last
}

// Queue lists a page of the bookings that wait for a resource, the next to be
// served first.
func (s *Service) Queue(ctx context.Context, sc Scope, resourceID string, limit int, after string) (page QueuePage, err error) {
	if !sc.seesRequests(resourceID) {
		return page, forbiddenResource()
	}
	if _, err := s.catalog.Resource(ctx, sc.OrganizationID, resourceID); err != nil {
		return page, err
	}
	q := queueOf(s.store.Read(ctx), sc.OrganizationID, resourceID, models.StageWaiting)
	if after != "" {
		// A score is the place in the order: its band and its sequence.
		score, err := strconv.ParseInt(after, 10, 64)
		if err != nil {
			return page, fmt.Errorf("read a place in a queue: %w", err)
		}
		priority, seq := queue.PlaceOf(score)
		q = q.Where("(b.priority < ? OR b.priority = ? AND b.seq > ?)", priority, priority, seq)
	}
	if err := q.Order("b.priority DESC, b.seq").Limit(limit + 1).Find(&page.Bookings).Error; err != nil {
		return page, fmt.Errorf("list the queue: %w", err)
	}
	page.Bookings, page.Next = store.CutPage(page.Bookings, limit, func(b *models.Booking) string {
		return strconv.FormatInt(queue.Score(b.Priority, b.Seq), 10)
	})
	page.Total = int64(len(page.Bookings))
	if after != "" || page.Next != "" {
		err := queueOf(s.store.Read(ctx), sc.OrganizationID, resourceID, models.StageWaiting).Select("count(*)").Scan(&page.Total).Error
		if err != nil {
			return page, fmt.Errorf("count who waits: %w", err)
		}
	}
	return page, nil
}

// Unassigned lists the waiting and held bookings that match a resource, oldest first.
func (s *Service) Unassigned(ctx context.Context, sc Scope, resourceID string, limit int, after string) ([]models.Booking, string, error) {
	if !sc.seesRequests(resourceID) {
		return nil, "", forbiddenResource()
	}
	if _, err := s.catalog.Resource(ctx, sc.OrganizationID, resourceID); err != nil {
		return nil, "", err
	}
	q := queueOf(s.store.Read(ctx), sc.OrganizationID, resourceID, models.StageWaiting, models.StageHeld)
	if after != "" {
		seq, err := strconv.ParseInt(after, 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("read a place in a list: %w", err)
		}
		q = q.Where("b.seq > ?", seq)
	}
	var list []models.Booking
	if err := q.Order("b.seq").Limit(limit + 1).Find(&list).Error; err != nil {
		return nil, "", fmt.Errorf("list unassigned bookings: %w", err)
	}
	list, next := store.CutPage(list, limit, func(b *models.Booking) string { return strconv.FormatInt(b.Seq, 10) })
	return list, next, nil
}

// queueOf finds the bookings in some stages that match a resource.
func queueOf(db *gorm.DB, organizationID, resourceID string, stages ...models.Stage) *gorm.DB {
	return db.Table("bookings AS b").Select("b.*").Where("b.organization_id = ? AND b.stage IN ?", organizationID, stages).
		Where("EXISTS (SELECT 1 FROM resources r WHERE r.id = ? AND "+matches("b")+")", resourceID)
}

// maxUnderWay bounds the visits under way that are listed: more rooms than any
// clinic has.
const maxUnderWay = 2000

// Calls returns every visit that is called or being served and, of the others, the
// last calls of an organization's resources, at most history; the newest first.
func (s *Service) Calls(ctx context.Context, organizationID string, history int) ([]models.Booking, error) {
	called := func() *gorm.DB {
		return s.store.Read(ctx).Where("organization_id = ? AND resource_id IS NOT NULL AND last_called_at IS NOT NULL", organizationID).
			Order("last_called_at DESC")
	}
	underWay := []models.Stage{models.StageCalled, models.StageServing}
	var list, last []models.Booking
	err := called().Where("stage IN ?", underWay).Limit(maxUnderWay).Find(&list).Error
	if err == nil {
		err = called().Where("stage NOT IN ?", underWay).Limit(history).Find(&last).Error
	}
	if err != nil {
		return nil, fmt.Errorf("list calls: %w", err)
	}
	list = append(list, last...)
	slices.SortStableFunc(list, func(a, b models.Booking) int { return b.LastCalledAt.Compare(*a.LastCalledAt) })
	return list, nil
}

// ByIDs returns those of the bookings that exist.
func (s *Service) ByIDs(ctx context.Context, organizationID string, ids []string) ([]models.Booking, error) {
	var list []models.Booking
	err := s.store.Read(ctx).Where("organization_id = ? AND id IN ?", organizationID, ids).Find(&list).Error
	if err != nil {
		return nil, fmt.Errorf("read bookings: %w", err)
	}
	return list, nil
}
