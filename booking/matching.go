package booking

import (
	"context"
	"errors"
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

// Source answers the queue index from the database.
type Source struct{ store *store.Store }

// NewSource makes the Source of a store.
func NewSource(s *store.Store) Source { return Source{s} }

// waitingPage bounds the bookings that one query reads.
const waitingPage = 5000

// waitingRow holds the columns of a booking that the index needs.
type waitingRow struct {
	seq             int64
	id, typeID      string
	ticket          string
	priority        int
	version         int64
	stage           models.Stage
	filterCategory  string
	filterResources bool
}

const waitingColumns = "seq, id, type_id, ticket, priority, version, stage, filter_category, filter_resources"

// Waiting implements queue.Source. It reads the bookings page by page in the
// order of an index, band after band, so that each query is short.
func (t Source) Waiting(ctx context.Context, organizationID string, each func([]queue.Entry) error) error {
	return eachWaiting(t.store.Read(ctx), organizationID, each)
}

func eachWaiting(db *gorm.DB, organizationID string, each func([]queue.Entry) error) error {
	match, err := newMatcher(db, organizationID)
	if err != nil {
		return err
	}
	const waiting = " FROM bookings WHERE organization_id = ? AND stage = 'WAITING'"
	for band := models.MaxPriority + 1; ; {
		var next *int
		err := db.Raw("SELECT max(priority)"+waiting+" AND priority < ?", organizationID, band).Scan(&next).Error
		if err != nil {
			return fmt.Errorf("read waiting bookings: %w", err)
		}
		if next == nil {
			return nil
		}
		band = *next
		for after, more := int64(0), true; more; {
			rows, err := readWaiting(db, "SELECT "+waitingColumns+waiting+" AND priority = ? AND seq > ? ORDER BY seq LIMIT ?",
				organizationID, band, after, waitingPage)
			if err != nil {
				return err
			}
			if more = len(rows) == waitingPage; len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1].seq
			entries, err := match.entries(rows)
			if err != nil {
				return err
			}
			if err := each(entries); err != nil {
				return err
			}
		}
	}
}

// readWaiting scans rows of waitingColumns. It does without GORM's models, which take
// several times as long for a hundred thousand rows.
func readWaiting(db *gorm.DB, sql string, args ...any) (list []waitingRow, err error) {
	rows, err := db.Raw(sql, args...).Rows()
	if err != nil {
		return nil, fmt.Errorf("read waiting bookings: %w", err)
	}
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			err = fmt.Errorf("read waiting bookings: %w", err)
		}
	}()
	for rows.Next() {
		var b waitingRow
		if err := rows.Scan(&b.seq, &b.id, &b.typeID, &b.ticket, &b.priority, &b.version, &b.stage,
			&b.filterCategory, &b.filterResources); err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

// matcher finds the resources that bookings wait for, by the rule of matches.
// It reads the resources once, so its cost grows with the bookings and not with
// bookings times resources.
type matcher struct {
	db     *gorm.DB
	byType map[string][]candidate
}

type candidate struct{ id, category string }

func newMatcher(db *gorm.DB, organizationID string) (*matcher, error) {
	var serving []struct{ ID, TypeID, Category string }
	err := db.Raw(`SELECT r.id, rt.type_id, r.category
		FROM resources r JOIN resource_types rt ON rt.resource_id = r.id
		WHERE r.organization_id = ? AND r.is_on AND r.activated AND r.deleted_at IS NULL
		ORDER BY r.id`, organizationID).Scan(&serving).Error
	if err != nil {
		return nil, fmt.Errorf("read active resources: %w", err)
	}
	m := &matcher{db, map[string][]candidate{}}
	for _, s := range serving {
		m.byType[s.TypeID] = append(m.byType[s.TypeID], candidate{s.ID, s.Category})
	}
	return m, nil
}

func (m *matcher) entries(bookings []waitingRow) ([]queue.Entry, error) {
	var filtered []int64
	for _, b := range bookings {
		if b.filterResources {
			filtered = append(filtered, b.seq)
		}
	}
	allowed := map[int64][]string{}
	for some := range slices.Chunk(filtered, lookupChunk) {
		var filters []struct {
			BookingSeq int64
			ResourceID string
		}
		err := m.db.Raw(`SELECT booking_seq, resource_id FROM booking_filter_resources
			WHERE booking_seq IN ?`, some).Scan(&filters).Error
		if err != nil {
			return nil, fmt.Errorf("read resource filters: %w", err)
		}
		for _, f := range filters {
			allowed[f.BookingSeq] = append(allowed[f.BookingSeq], f.ResourceID)
		}
	}
	entries := make([]queue.Entry, len(bookings))
	for i, b := range bookings {
		entries[i] = queue.Entry{
			BookingID: b.id, Version: b.version, Score: queue.Score(b.priority, b.seq), Ticket: b.ticket, TypeID: b.typeID,
		}
		for _, c := range m.byType[b.typeID] {
			if (b.filterCategory == "" || b.filterCategory == c.category) &&
				(!b.filterResources || slices.Contains(allowed[b.seq], c.id)) {
				entries[i].Resources = append(entries[i].Resources, c.id)
			}
		}
	}
	return entries, nil
}

// Sum implements queue.Source.
func (t Source) Sum(ctx context.Context, organizationID string) (queue.Sum, error) {
	var sum queue.Sum
	err := t.store.Read(ctx).Raw(`SELECT count(*) AS waiting, CAST(COALESCE(sum(seq * version), 0) AS bigint) AS weight
		FROM bookings WHERE organization_id = ? AND stage = ?`, organizationID, models.StageWaiting).Scan(&sum).Error
	if err != nil {
		return queue.Sum{}, fmt.Errorf("sum up waiting bookings: %w", err)
	}
	return sum, nil
}

// lookupChunk bounds the ids in one query.
const lookupChunk = 1000

// Lookup implements queue.Source.
func (t Source) Lookup(
	ctx context.Context, organizationID string, ids []string,
) (waiting []queue.Entry, versions map[string]int64, err error) {
	db := t.store.Read(ctx)
	match, err := newMatcher(db, organizationID)
	if err != nil {
		return nil, nil, err
	}
	versions = make(map[string]int64, len(ids))
	for some := range slices.Chunk(ids, lookupChunk) {
		rows, err := readWaiting(db, "SELECT "+waitingColumns+" FROM bookings WHERE organization_id = ? AND id IN ?",
			organizationID, some)
		if err != nil {
			return nil, nil, err
		}
		for _, row := range rows {
			versions[row.id] = row.version
		}
		rows = slices.DeleteFunc(rows, func(b waitingRow) bool { return b.stage != models.StageWaiting })
		entries, err := match.entries(rows)
		if err != nil {
			return nil, nil, err
		}
		waiting = append(waiting, entries...)
	}
	return waiting, versions, nil
}
