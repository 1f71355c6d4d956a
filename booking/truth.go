package booking

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"

	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// matches is the rule of which resource r a queued booking matches: every
// active resource whose types include its type and that its filters allow. The
// booking has the given alias.
func matches(b string) string {
	return strings.ReplaceAll(`r.organization_id = b.organization_id AND r.is_on AND r.activated AND r.deleted_at IS NULL
		AND EXISTS (SELECT 1 FROM resource_types rt WHERE rt.resource_id = r.id AND rt.type_id = b.type_id)
		AND (b.filter_category = '' OR b.filter_category = r.category)
		AND (NOT b.filter_resources OR EXISTS (
			SELECT 1 FROM booking_filter_resources f WHERE f.booking_seq = b.seq AND f.resource_id = r.id))`, "b.", b+".")
}

// matchingResources lists the resources in whose queues a booking waits.
func matchingResources(db *gorm.DB, seq int64) ([]string, error) {
	var ids []string
	err := db.Raw("SELECT r.id FROM bookings b JOIN resources r ON "+matches("b")+" WHERE b.seq = ? ORDER BY r.id", seq).Scan(&ids).Error
	if err != nil {
		return nil, fmt.Errorf("match resources: %w", err)
	}
	return ids, nil
}

func entryOf(b *models.Booking, resources []string) queue.Entry {
	return queue.Entry{
		BookingID: b.ID, Version: b.Version, Score: queue.Score(b.Priority, b.Seq),
		Ticket: b.Ticket, TypeID: b.TypeID, Resources: resources,
	}
}

// Truth answers the queue index from the database.
type Truth struct{ store *store.Store }

// NewTruth makes the Truth of a store.
func NewTruth(s *store.Store) Truth { return Truth{s} }

// Waiting implements queue.Truth. It reads the bookings, the resources and the
// filters once each and matches them here, so its cost grows with the bookings
// and not with bookings times resources.
func (t Truth) Waiting(ctx context.Context, organizationID string) ([]queue.Entry, error) {
	db := t.store.Read(ctx)
	var bookings []models.Booking
	err := db.Select("seq, id, organization_id, type_id, ticket, priority, version, filter_category, filter_resources").
		Where("organization_id = ? AND stage = ?", organizationID, models.StageWaiting).Find(&bookings).Error
	if err != nil {
		return nil, fmt.Errorf("read waiting bookings: %w", err)
	}
	var serving []struct{ ID, TypeID, Category string }
	err = db.Raw(`SELECT r.id, rt.type_id, r.category FROM resources r JOIN resource_types rt ON rt.resource_id = r.id
		WHERE r.organization_id = ? AND r.is_on AND r.activated AND r.deleted_at IS NULL ORDER BY r.id`, organizationID).Scan(&serving).Error
	if err != nil {
		return nil, fmt.Errorf("read active resources: %w", err)
	}
	var filters []struct {
		BookingSeq int64
		ResourceID string
	}
	err = db.Raw(`SELECT f.booking_seq, f.resource_id FROM booking_filter_resources f JOIN bookings b ON b.seq = f.booking_seq
		WHERE b.organization_id = ? AND b.stage = ?`, organizationID, models.StageWaiting).Scan(&filters).Error
	if err != nil {
		return nil, fmt.Errorf("read resource filters: %w", err)
	}
	allowed := map[int64][]string{}
	for _, f := range filters {
		allowed[f.BookingSeq] = append(allowed[f.BookingSeq], f.ResourceID)
	}
	type candidate struct{ id, category string }
	byType := map[string][]candidate{}
	for _, s := range serving {
		byType[s.TypeID] = append(byType[s.TypeID], candidate{s.ID, s.Category})
	}
	entries := make([]queue.Entry, len(bookings))
	for i := range bookings {
		b := &bookings[i]
		var resources []string
		for _, c := range byType[b.TypeID] {
			if (b.FilterCategory == "" || b.FilterCategory == c.category) &&
				(!b.FilterResources || slices.Contains(allowed[b.Seq], c.id)) {
				resources = append(resources, c.id)
			}
		}
		entries[i] = entryOf(b, resources)
	}
	return entries, nil
}

// Sum implements queue.Truth.
func (t Truth) Sum(ctx context.Context, organizationID string) (queue.Sum, error) {
	var sum queue.Sum
	err := t.store.Read(ctx).Raw(`SELECT count(*) AS waiting, CAST(COALESCE(sum(seq * version), 0) AS bigint) AS weight
		FROM bookings WHERE organization_id = ? AND stage = ?`, organizationID, models.StageWaiting).Scan(&sum).Error
	if err != nil {
		return queue.Sum{}, fmt.Errorf("sum up waiting bookings: %w", err)
	}
	return sum, nil
}

// versionsChunk bounds the ids in one query.
const versionsChunk = 1000

// Versions implements queue.Truth.
func (t Truth) Versions(ctx context.Context, organizationID string, ids []string) (map[string]int64, error) {
	versions := make(map[string]int64, len(ids))
	for chunk := range slices.Chunk(ids, versionsChunk) {
		var rows []struct {
			ID      string
			Version int64
		}
		err := t.store.Read(ctx).Table("bookings").Select("id, version").
			Where("organization_id = ? AND id IN ?", organizationID, chunk).Find(&rows).Error
		if err != nil {
			return nil, fmt.Errorf("read booking versions: %w", err)
		}
		for _, row := range rows {
			versions[row.ID] = row.Version
		}
	}
	return versions, nil
}
