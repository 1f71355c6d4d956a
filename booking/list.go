package booking

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/queue"
	"nowserving/models"
)

// Filter narrows and orders a list of bookings.
type Filter struct {
	CustomerID string // staff may ask for one customer's
	Resources  []string
	Statuses   []models.Status
	Stages     []models.Stage
	From, To   time.Time
	// ByCreation applies From and To to the moment of joining; otherwise they
	// apply to the visit: the beginning of an appointment, and for a queued
	// booking the call or, before that, the joining.
	ByCreation bool
	Ascending  bool
	Limit      int
	// After is the token of the page before; empty for the first.
	After string
}

// List returns a page of bookings in the order they were made, and the token
// of the next page, empty on the last.
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
	moment := "COALESCE(starts_at, called_at, created_at)"
	if f.ByCreation {
		moment = "created_at"
	}
	if !f.From.IsZero() {
		q = q.Where(moment+" >= ?", f.From.UTC())
	}
	if !f.To.IsZero() {
		q = q.Where(moment+" <= ?", f.To.UTC())
	}
	order, beyond := "seq DESC", "seq < ?"
	if f.Ascending {
		order, beyond = "seq", "seq > ?"
	}
	if f.After != "" {
		seq, err := readToken(f.After)
		if err != nil {
			return nil, "", err
		}
		q = q.Where(beyond, seq)
	}
	var list []models.Booking
	if err := q.Order(order).Limit(f.Limit + 1).Find(&list).Error; err != nil {
		return nil, "", fmt.Errorf("list bookings: %w", err)
	}
	if len(list) <= f.Limit {
		return list, "", nil
	}
	list = list[:f.Limit]
	return list, writeToken(list[f.Limit-1].Seq), nil
}

func writeToken(seq int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(seq, 10)))
}

func readToken(token string) (int64, error) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		if seq, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return seq, nil
		}
	}
	return 0, models.Invalid("nextPageToken", "This is not a token of ours; start from the first page.")
}

// QueuePage is a part of the bookings that wait for a resource.
type QueuePage struct {
	Bookings []models.Booking
	Total    int64  // who waits, on all pages
	Token    string // of the next page; empty on the last
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
		score, err := readToken(after)
		if err != nil {
			return page, err
		}
		priority, seq := queue.PlaceOf(score)
		q = q.Where("(b.priority < ? OR b.priority = ? AND b.seq > ?)", priority, priority, seq)
	}
	if err := q.Order("b.priority DESC, b.seq").Limit(limit + 1).Find(&page.Bookings).Error; err != nil {
		return page, fmt.Errorf("list the queue: %w", err)
	}
	page.Total = int64(len(page.Bookings))
	if after != "" || len(page.Bookings) > limit {
		err := queueOf(s.store.Read(ctx), sc.OrganizationID, resourceID, models.StageWaiting).Select("count(*)").Scan(&page.Total).Error
		if err != nil {
			return page, fmt.Errorf("count who waits: %w", err)
		}
	}
	if len(page.Bookings) > limit {
		page.Bookings = page.Bookings[:limit]
		last := page.Bookings[limit-1]
		page.Token = writeToken(queue.Score(last.Priority, last.Seq))
	}
	return page, nil
}

// Unassigned lists what a resource could take, oldest first: who waits and who
// is on hold.
func (s *Service) Unassigned(ctx context.Context, sc Scope, resourceID string, limit int, after string) ([]models.Booking, string, error) {
	if !sc.seesRequests(resourceID) {
		return nil, "", forbiddenResource()
	}
	if _, err := s.catalog.Resource(ctx, sc.OrganizationID, resourceID); err != nil {
		return nil, "", err
	}
	q := queueOf(s.store.Read(ctx), sc.OrganizationID, resourceID, models.StageWaiting, models.StageHeld)
	if after != "" {
		seq, err := readToken(after)
		if err != nil {
			return nil, "", err
		}
		q = q.Where("b.seq > ?", seq)
	}
	var list []models.Booking
	if err := q.Order("b.seq").Limit(limit + 1).Find(&list).Error; err != nil {
		return nil, "", fmt.Errorf("list unassigned bookings: %w", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	list = list[:limit]
	return list, writeToken(list[limit-1].Seq), nil
}

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
