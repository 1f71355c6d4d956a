package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// scanCount is how many records or places one command reads.
const scanCount = 1000

// member is a record of the index, and where it says the booking stands.
type member struct {
	id      string
	version int64
	queues  string // joined by commas, its type last
	ticket  string
	typeID  string
	score   int64
}

func memberOf(e Entry) member {
	return member{e.BookingID, e.Version, e.queues(), e.Ticket, e.TypeID, e.Score}
}

// parseRecord reads what Entry.record wrote, but for the score. An unreadable
// record gives a member without a version, which differs from any truth.
func parseRecord(id, record string) member {
	fields := strings.Fields(record)
	if len(fields) != 4 {
		return member{id: id}
	}
	version, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return member{id: id}
	}
	// The record's memory is not to be kept for a ticket of a few letters.
	return member{id: id, version: version, queues: fields[1], ticket: strings.Clone(fields[2]), typeID: fields[3]}
}

// scanRecords calls each with the records of an index, some at a time. A
// booking that changes meanwhile may come twice, or not at all.
func (ix *Index) scanRecords(ctx context.Context, organizationID string, each func([]member) error) error {
	cursor := uint64(0)
	for {
		page, next, err := ix.rdb.HScan(ctx, keysOf(organizationID).members, cursor, "", scanCount).Result()
		if err != nil {
			return fmt.Errorf("read the queue index: %w", err)
		}
		members := make([]member, 0, len(page)/2)
		for pair := range slices.Chunk(page, 2) {
			members = append(members, parseRecord(pair[0], pair[1]))
		}
		if err := each(members); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// read reads an index into the form of a mirror, in pieces. What changes
// meanwhile may be missing or out of date, so the caller has to apply all
// changes since it began; each says where its booking stands, and so all is
// right after the last of them.
func (ix *Index) read(ctx context.Context, organizationID string) (*state, error) {
	k := keysOf(organizationID)
	var all []member
	err := ix.scanRecords(ctx, organizationID, func(page []member) error {
		waiting, err := ix.addScores(ctx, k, page)
		if err != nil {
			return fmt.Errorf("read the queue index: %w", err)
		}
		all = append(all, waiting...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return stateOf(all), nil
}

// addScores returns those of some members that wait in the queue of their type, with
// their scores.
func (ix *Index) addScores(ctx context.Context, k keys, page []member) (waiting []member, err error) {
	byType := map[string][]int{}
	for i, m := range page {
		if m.version > 0 {
			byType[m.typeID] = append(byType[m.typeID], i)
		}
	}
	scores := map[string]*redis.Cmd{}
	_, err = ix.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for typeID, at := range byType {
			ids := make([]string, len(at))
			for n, i := range at {
				ids[n] = page[i].id
			}
			scores[typeID] = askScores(ctx, pipe, k.queue+typeID, ids)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for typeID, at := range byType {
		found, err := scores[typeID].Slice()
		if err != nil {
			return nil, err
		}
		for n, i := range at {
			score, ok, err := scoreOf(found[n])
			if err != nil {
				return nil, fmt.Errorf("score of %s: %w", page[i].id, err)
			}
			if ok {
				page[i].score = score
				waiting = append(waiting, page[i])
			}
		}
	}
	return waiting, nil
}

// truthState reads the waiting bookings from the database into the form of a
// mirror.
func (ix *Index) truthState(ctx context.Context, organizationID string) (*state, error) {
	var all []member
	err := ix.source.Waiting(ctx, organizationID, func(entries []Entry) error {
		for _, e := range entries {
			all = append(all, memberOf(e))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return stateOf(all), nil
}

// askScores asks for the scores of bookings in a queue. The client's own ZMScore
// answers 0 for a booking that is not in the queue, which is a score too.
func askScores(ctx context.Context, pipe redis.Pipeliner, key string, ids []string) *redis.Cmd {
	args := make([]any, 0, 2+len(ids))
	args = append(args, "ZMSCORE", key)
	for _, id := range ids {
		args = append(args, id)
	}
	return pipe.Do(ctx, args...)
}

// scoreOf reads one answer of ZMSCORE. ok is false when there is no score.
func scoreOf(answer any) (score int64, ok bool, err error) {
	switch answer := answer.(type) {
	case nil:
		return 0, false, nil
	case float64:
		return int64(answer), true, nil
	default:
		f, err := strconv.ParseFloat(fmt.Sprint(answer), 64)
		return int64(f), err == nil, err
	}
}

// stateOf puts waiting bookings in the form of a mirror. A booking that is
// listed twice is taken once.
func stateOf(all []member) *state {
	s := newState(len(all))
	slices.SortStableFunc(all, func(a, b member) int { return cmp.Compare(a.score, b.score) })
	standing := map[*rankedList][]*Waiter{}
	for _, m := range all {
		if s.waiters[m.id] != nil {
			continue
		}
		w := s.enter(&Waiter{BookingID: m.id, Version: m.version, Ticket: m.ticket, Score: m.score}, m.queues)
		for _, l := range w.group.lists {
			standing[l] = append(standing[l], w)
		}
	}
	for l, waiting := range standing {
		*l = newRankedList(waiting)
	}
	return s
}
