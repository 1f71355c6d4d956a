package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"nowserving/booking/clock"
)

// How long a difference between index and database has to last before it is repaired,
// because a change that has just been committed is on its way: in the background, and
// while a caller waits for a load.
const (
	settleTime = 500 * time.Millisecond
	settleSoon = 50 * time.Millisecond
)

const (
	// maxMended is how many bookings are repaired one by one. If more differ, the
	// index is rebuilt.
	maxMended = 1000
	// rematchTries bounds how often an index is built for one change of the catalogue.
	rematchTries = 3
	// maxChecked bounds the bookings that are checked with one round trip, and
	// maxScanned the queues that are read with one.
	maxChecked = 200
	maxScanned = 8
)

// Repair compares the index with the database and repairs each booking that differs
// for as long as settle, with the same script as any change. It returns how many it
// repaired. Concurrent changes are safe, because an older version is refused.
func (ix *Index) Repair(ctx context.Context, organizationID string, settle time.Duration) (int, error) {
	if err := ix.Rebuild(ctx, organizationID); err != nil { // does nothing to a whole one
		return 0, err
	}
	suspects, err := ix.suspects(ctx, organizationID)
	if err != nil {
		return 0, err
	}
	return ix.repair(ctx, organizationID, suspects, settle)
}

// repair is Repair for suspected bookings.
func (ix *Index) repair(ctx context.Context, organizationID string, suspects []string, settle time.Duration) (int, error) {
	at, err := ix.position(ctx, organizationID)
	if err != nil || len(suspects) == 0 {
		return 0, err
	}
	wrong, err := ix.check(ctx, organizationID, suspects)
	if err != nil || len(wrong) == 0 {
		return 0, err
	}
	clock.Sleep(ctx, settle)
	still, err := ix.check(ctx, organizationID, slices.Collect(maps.Keys(wrong)))
	if err != nil {
		return 0, err
	}
	now, err := ix.position(ctx, organizationID)
	if err != nil || now.Epoch != at.Epoch || now.Epoch == "" {
		return 0, err // lost and rebuilt meanwhile
	}
	maps.DeleteFunc(still, func(id string, d difference) bool {
		return wrong[id].waits != d.waits || wrong[id].entry.Version != d.entry.Version
	})
	if err := ix.mendAll(ctx, organizationID, at.Epoch, still); err != nil {
		return 0, err
	}
	if len(still) > 0 {
		ix.repairs.Add(int64(len(still)))
		ix.log.Warn("queue index repaired", "organization", organizationID, "bookings", len(still))
	}
	return len(still), nil
}

// Rematch updates the index after a change of the catalogue, which decides in which
// queues a booking waits. Several bookings move at one moment, in a new epoch: one
// after another, they would show positions that never were.
func (ix *Index) Rematch(ctx context.Context, organizationID string) error {
	// Another node may have begun to build before the catalogue changed. What still
	// differs after some tries is on its way, or left to Repair.
	for range rematchTries {
		if err := ix.Rebuild(ctx, organizationID); err != nil {
			return err
		}
		at, err := ix.position(ctx, organizationID)
		if err != nil {
			return err
		}
		suspects, err := ix.suspects(ctx, organizationID)
		if err != nil {
			return err
		}
		wrong, err := ix.check(ctx, organizationID, suspects)
		if err != nil {
			return err
		}
		// Others are on their way out, or left to Repair.
		maps.DeleteFunc(wrong, func(_ string, d difference) bool { return !d.waits })
		if len(wrong) <= 1 {
			return ix.mendAll(ctx, organizationID, at.Epoch, wrong)
		}
		if err := ix.renew(ctx, organizationID, at.Epoch); err != nil {
			return err
		}
	}
	return nil
}

// difference is a booking that differs between index and database.
type difference struct {
	entry Entry // as the database has it; only id and version when it waits nowhere
	waits bool
}

// suspects lists the bookings that seem to differ between index and database. It
// reads both in pieces while they change, so it may list bookings that are right.
func (ix *Index) suspects(ctx context.Context, organizationID string) ([]string, error) {
	type expected struct {
		member
		recorded bool
		places   int // found where they should be
	}
	waiting := map[string]*expected{}
	err := ix.source.Waiting(ctx, organizationID, func(entries []Entry) error {
		for _, e := range entries {
			waiting[e.BookingID] = &expected{member: memberOf(e)}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare the queue index: %w", err)
	}
	suspects := map[string]struct{}{}
	err = ix.scanRecords(ctx, organizationID, func(page []member) error {
		for _, m := range page {
			e := waiting[m.id]
			if e == nil {
				suspects[m.id] = struct{}{}
				continue
			}
			m.score = e.score // it stands in the queues
			e.recorded = m == e.member
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = ix.scanQueues(ctx, organizationID, func(queue, id string, score float64) {
		e := waiting[id]
		if e == nil || int64(score) != e.score || !stands(e.queues, queue) {
			suspects[id] = struct{}{}
			return
		}
		e.places++
	})
	if err != nil {
		return nil, err
	}
	for id, e := range waiting {
		if !e.recorded || e.places != 1+strings.Count(e.queues, ",") {
			suspects[id] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(suspects)), nil
}

// compareState is suspects for an index that has just been read. It leaves out
// the queues in Redis: mirrors need only the records.
func (ix *Index) compareState(ctx context.Context, organizationID string, s *state) ([]string, error) {
	var suspects []string
	right := map[string]bool{}
	err := ix.source.Waiting(ctx, organizationID, func(entries []Entry) error {
		for _, e := range entries {
			w := s.waiters[e.BookingID]
			right[e.BookingID] = w != nil && w.Version == e.Version && w.Score == e.Score && w.Ticket == e.Ticket &&
				w.group.name == e.queues()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare the queue index: %w", err)
	}
	for id := range s.waiters {
		if !right[id] {
			suspects = append(suspects, id)
		}
	}
	for id := range right {
		if s.waiters[id] == nil {
			suspects = append(suspects, id)
		}
	}
	return suspects, nil
}

// stands reports whether a queue is in a list that is joined by commas.
func stands(queues, queue string) bool {
	for q := range strings.SplitSeq(queues, ",") {
		if q == queue {
			return true
		}
	}
	return false
}

// scanQueues calls each with every entry of every queue. Entries that change
// meanwhile may come twice, or not at all.
func (ix *Index) scanQueues(ctx context.Context, organizationID string, each func(queue, id string, score float64)) error {
	k := keysOf(organizationID)
	queues, err := ix.rdb.SMembers(ctx, k.queues).Result()
	if err != nil {
		return fmt.Errorf("read the queues of the index: %w", err)
	}
	for some := range slices.Chunk(queues, maxScanned) {
		cursors := make(map[string]uint64, len(some))
		for _, q := range some {
			cursors[q] = 0
		}
		for len(cursors) > 0 {
			if err := ix.scanPages(ctx, k, cursors, each); err != nil {
				return fmt.Errorf("read the queues of the index: %w", err)
			}
		}
	}
	return nil
}

// scanPages reads the next page of some queues, and moves or deletes their cursors.
func (ix *Index) scanPages(ctx context.Context, k keys, cursors map[string]uint64, each func(queue, id string, score float64)) error {
	pages := map[string]*redis.ScanCmd{}
	_, err := ix.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for q, cursor := range cursors {
			pages[q] = pipe.ZScan(ctx, k.queue+q, cursor, "", scanCount)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for q, page := range pages {
		places, next := page.Val()
		for pair := range slices.Chunk(places, 2) {
			score, err := strconv.ParseFloat(pair[1], 64)
			if err != nil {
				return fmt.Errorf("score of %s: %w", pair[0], err)
			}
			each(q, pair[0], score)
		}
		if cursors[q] = next; next == 0 {
			delete(cursors, q)
		}
	}
	return nil
}

// check compares some bookings in the index with the database. It reads the index
// first, so a booking that no longer waits in the database has left. It stops when
// more than maxMended differ.
func (ix *Index) check(ctx context.Context, organizationID string, ids []string) (map[string]difference, error) {
	wrong := map[string]difference{}
	for some := range slices.Chunk(ids, maxChecked) {
		found, err := ix.find(ctx, organizationID, some)
		if err != nil {
			return nil, err
		}
		waiting, versions, err := ix.source.Lookup(ctx, organizationID, some)
		if err != nil {
			return nil, fmt.Errorf("compare the queue index: %w", err)
		}
		for _, e := range waiting {
			if !found[e.BookingID].right(memberOf(e)) {
				wrong[e.BookingID] = difference{e, true}
			}
			delete(found, e.BookingID)
		}
		for id, f := range found {
			version, exists := versions[id]
			if !exists { // deleted: newer than anything the index saw
				version = f.version + 1
			}
			wrong[id] = difference{Entry{BookingID: id, Version: version}, false}
		}
		if len(wrong) > maxMended {
			break
		}
	}
	return wrong, nil
}

// standing is a booking's entry in the index.
type standing struct {
	member                  // its record; the zero member without one
	scores map[string]int64 // in each queue
}

// right reports whether a booking's entry is as it should be.
func (f *standing) right(should member) bool {
	if f == nil || len(f.scores) != 1+strings.Count(should.queues, ",") {
		return false
	}
	for q, score := range f.scores {
		if score != should.score || !stands(should.queues, q) {
			return false
		}
	}
	recorded := f.member
	recorded.score = should.score
	return recorded == should
}

// find reads the entries of some bookings. It omits those without one.
func (ix *Index) find(ctx context.Context, organizationID string, ids []string) (map[string]*standing, error) {
	k := keysOf(organizationID)
	queues, err := ix.rdb.SMembers(ctx, k.queues).Result()
	if err != nil {
		return nil, fmt.Errorf("read the queues of the index: %w", err)
	}
	var records *redis.SliceCmd
	scores := make([]*redis.Cmd, len(queues))
	_, err = ix.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		records = pipe.HMGet(ctx, k.members, ids...)
		for i, q := range queues {
			scores[i] = askScores(ctx, pipe, k.queue+q, ids)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the queue index: %w", err)
	}
	found := map[string]*standing{}
	at := func(id string) *standing {
		if found[id] == nil {
			found[id] = &standing{scores: map[string]int64{}}
		}
		return found[id]
	}
	for i, id := range ids {
		if record, ok := records.Val()[i].(string); ok {
			at(id).member = parseRecord(id, record)
		}
	}
	for n, q := range queues {
		answers, err := scores[n].Slice()
		if err != nil {
			return nil, fmt.Errorf("read the queue index: %w", err)
		}
		for i, id := range ids {
			score, ok, err := scoreOf(answers[i])
			if err != nil {
				return nil, fmt.Errorf("read the queue index: score of %s: %w", id, err)
			}
			if ok {
				at(id).scores[q] = score
			}
		}
	}
	return found, nil
}

// mendAll writes bookings that were found wrong in an epoch as the database has them.
func (ix *Index) mendAll(ctx context.Context, organizationID, epoch string, wrong map[string]difference) error {
	if len(wrong) > maxMended {
		return ix.renew(ctx, organizationID, epoch)
	}
	for _, d := range wrong {
		change, record := Change{BookingID: d.entry.BookingID, BookingVersion: d.entry.Version}, ""
		if d.waits {
			change, record = d.entry.change(), d.entry.record()
		}
		_, err := ix.change(ctx, organizationID, change, record, true)
		if errors.Is(err, errStale) {
			return ix.renew(ctx, organizationID, epoch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// renew replaces an index that can't be repaired: too much differs, or it has
// versions that a restored database does not have.
func (ix *Index) renew(ctx context.Context, organizationID, epoch string) error {
	if err := ix.build(ctx, organizationID, epoch); err != nil {
		return fmt.Errorf("renew the queue index: %w", err)
	}
	return nil
}
