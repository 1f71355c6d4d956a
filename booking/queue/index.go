package queue

import (
	"context"
	"crypto/rand"
	_ "embed" // for the scripts
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"nowserving/models"
)

var (
	//go:embed apply.lua
	applySource string
	//go:embed rebuild.lua
	rebuildSource string
	//go:embed snapshot.lua
	snapshotSource string
)

// tombstoneLife is how long the index remembers the version of a booking that
// has left, so that a delayed older change can't bring it back. The comparison
// with the database would mend that too, only later.
const tombstoneLife = time.Hour

// Entry is one waiting booking as the database knows it.
type Entry struct {
	BookingID string
	Version   int64
	Score     int64
	Ticket    string
	TypeID    string
	// Resources are the ids of the active resources it waits for, sorted.
	Resources []string
}

// queues are the ids of the sorted sets the booking stands in: one for each
// resource, and one for its type, which counts the type's waiting bookings.
func (e Entry) queues() string {
	return strings.Join(append(slices.Clone(e.Resources), e.TypeID), ",")
}

// record is what the members hash keeps of it: version, queues, ticket, type.
func (e Entry) record() string {
	return fmt.Sprintf("%d %s %s %s", e.Version, e.queues(), e.Ticket, e.TypeID)
}

// bandWidth is the room for join sequences within one priority band: 2^45.
// Together with 101 bands a score stays exact in Redis's doubles (2^53).
const bandWidth = 1 << 45

// Score orders bookings: a higher priority first, then the join sequence.
func Score(priority int, seq int64) int64 {
	return int64(models.MaxPriority-priority)*bandWidth + seq
}

// PlaceOf is the inverse of Score.
func PlaceOf(score int64) (priority int, seq int64) {
	return models.MaxPriority - int(score/bandWidth), score % bandWidth
}

// Sum is how many bookings wait, and the sum of their sequences times their
// versions: two lists that sum up alike are all but certain to be the same.
type Sum struct{ Waiting, Weight int64 }

// Delta is one change of an organization's index.
type Delta struct {
	Epoch   string `json:"epoch"`
	Version int64  `json:"version"`
	// BookingID is empty when the delta announces a rebuilt index.
	BookingID      string `json:"bookingId,omitempty"`
	BookingVersion int64  `json:"bookingVersion,omitempty"`
	// Waiting says whether the booking now stands in the queues named.
	Waiting bool     `json:"waiting,omitempty"`
	Score   int64    `json:"score,omitempty"`
	Queues  []string `json:"queues,omitempty"`
	Ticket  string   `json:"ticket,omitempty"`
	TypeID  string   `json:"typeId,omitempty"`
	// Event is what happened; nil when the index was only repaired.
	Event *models.BookingEvent `json:"event,omitempty"`
}

// Truth answers what the database says. booking implements it.
type Truth interface {
	// Waiting lists every booking of the organization that waits, in no order.
	Waiting(ctx context.Context, organizationID string) ([]Entry, error)
	// Sum sums them up.
	Sum(ctx context.Context, organizationID string) (Sum, error)
	// Versions returns the versions of those of the bookings that exist.
	Versions(ctx context.Context, organizationID string, bookingIDs []string) (map[string]int64, error)
}

// Index is the queue index in Redis. It is safe for concurrent use.
type Index struct {
	rdb   redis.UniversalClient
	truth Truth
	log   *slog.Logger

	apply, rebuild, snapshot *redis.Script

	repairs, rebuilds atomic.Int64

	// publish is the command that tells the nodes of a change; nil until the
	// servers were asked what they have.
	publish atomic.Pointer[string]
}

// The commands that tell of a change: on a cluster, the first reaches the
// subscribers of every server and the second those of the shard only.
const (
	publishToAll   = "PUBLISH"
	publishToShard = "SPUBLISH"
)

// NewIndex makes an index over a Redis (single, Sentinel or Cluster).
func NewIndex(rdb redis.UniversalClient, truth Truth, log *slog.Logger) *Index {
	return &Index{
		rdb: rdb, truth: truth, log: log,
		apply: redis.NewScript(applySource), rebuild: redis.NewScript(rebuildSource), snapshot: redis.NewScript(snapshotSource),
	}
}

// publishCommand is the command that tells the nodes of a change: that of the
// shard on a cluster which has it (Redis 7). The servers are asked once; nodes
// are to be restarted after all servers of a cluster have learnt it.
func (ix *Index) publishCommand(ctx context.Context) (string, error) {
	if known := ix.publish.Load(); known != nil {
		return *known, nil
	}
	command := publishToAll
	if cluster, ok := ix.rdb.(*redis.ClusterClient); ok {
		about, err := cluster.Do(ctx, "COMMAND", "INFO", publishToShard).Slice()
		if err != nil {
			return "", fmt.Errorf("ask Redis for its commands: %w", err)
		}
		if len(about) == 1 && about[0] != nil {
			command = publishToShard
		}
	}
	ix.publish.Store(&command)
	return command, nil
}

// Repairs returns how many bookings were found wrong in the index and mended,
// and how often an index was rebuilt, since the start.
func (ix *Index) Repairs() (bookings, rebuilds int64) {
	return ix.repairs.Load(), ix.rebuilds.Load()
}

// Moment is a position in the life of an index.
type Moment struct {
	Epoch   string
	Version int64
}

type keys struct{ state, members, queues, prefix, channel string }

func keysOf(organizationID string) keys {
	tag := "ns:{" + organizationID + "}:"
	return keys{tag + "state", tag + "members", tag + "queues", tag + "queue:", tag + "changes"}
}

func (k keys) tombstone(bookingID string) string {
	return strings.TrimSuffix(k.state, "state") + "gone:" + bookingID
}

// Put applies a change in which the booking now waits. event may be nil.
func (ix *Index) Put(ctx context.Context, organizationID string, e Entry, event *models.BookingEvent) (Moment, error) {
	return ix.change(ctx, organizationID, Delta{
		BookingID: e.BookingID, BookingVersion: e.Version, Waiting: true, Score: e.Score,
		Queues: strings.Split(e.queues(), ","), Ticket: e.Ticket, TypeID: e.TypeID, Event: event,
	}, e.record())
}

// Remove applies a change after which the booking waits nowhere, or which did
// not concern its waiting at all. event may be nil.
func (ix *Index) Remove(ctx context.Context, organizationID, bookingID string, version int64, event *models.BookingEvent) (Moment, error) {
	return ix.change(ctx, organizationID, Delta{BookingID: bookingID, BookingVersion: version, Event: event}, "")
}

// Announce tells every node that something about a resource's queue changed
// that moved nobody, such as a pause.
func (ix *Index) Announce(ctx context.Context, organizationID, resourceID string, at time.Time) error {
	// To the index it is a booking that waits nowhere, named after the resource.
	event := &models.BookingEvent{Type: models.EventQueueUpdated, ResourceID: resourceID, At: at}
	_, err := ix.Remove(ctx, organizationID, "resource:"+resourceID, at.UnixMicro(), event)
	return err
}

func (ix *Index) change(ctx context.Context, organizationID string, d Delta, record string) (Moment, error) {
	outcome, at, err := ix.tryChange(ctx, organizationID, d, record)
	if err == nil && outcome == "lost" {
		if err = ix.Rebuild(ctx, organizationID); err == nil {
			outcome, at, err = ix.tryChange(ctx, organizationID, d, record)
		}
	}
	if err == nil && outcome == "lost" {
		err = errors.New("the index was lost again while it was rebuilt")
	}
	if err != nil {
		return Moment{}, fmt.Errorf("change the queue index: %w", err)
	}
	return at, nil
}

func (ix *Index) tryChange(ctx context.Context, organizationID string, d Delta, record string) (string, Moment, error) {
	k := keysOf(organizationID)
	rest, err := json.Marshal(d)
	if err != nil {
		return "", Moment{}, err
	}
	// The script writes epoch and version; what follows them is ours.
	tail := rest[strings.Index(string(rest), `,"bookingId"`) : len(rest)-1]
	hasEvent := "0"
	if d.Event != nil {
		hasEvent = "1"
	}
	publish, err := ix.publishCommand(ctx)
	if err != nil {
		return "", Moment{}, err
	}
	reply, err := ix.apply.Run(ctx, ix.rdb, []string{k.state, k.members, k.queues, k.tombstone(d.BookingID)},
		d.BookingID, d.BookingVersion, d.Score, record, strings.Join(d.Queues, ","), k.prefix, k.channel,
		int(tombstoneLife.Seconds()), string(tail), hasEvent, publish).Slice()
	if err != nil {
		return "", Moment{}, err
	}
	outcome, _ := reply[0].(string)
	epoch, _ := reply[1].(string)
	version, _ := reply[2].(int64)
	return outcome, Moment{epoch, version}, nil
}

// Rebuild begins a new life of the index from the database, where it has none.
func (ix *Index) Rebuild(ctx context.Context, organizationID string) error {
	entries, err := ix.truth.Waiting(ctx, organizationID)
	if err != nil {
		return fmt.Errorf("rebuild the queue index: %w", err)
	}
	publish, err := ix.publishCommand(ctx)
	if err != nil {
		return fmt.Errorf("rebuild the queue index: %w", err)
	}
	k := keysOf(organizationID)
	args := make([]any, 0, 4+4*len(entries))
	args = append(args, rand.Text(), k.prefix, k.channel, publish)
	for _, e := range entries {
		args = append(args, e.BookingID, e.Score, e.record(), e.queues())
	}
	built, err := ix.rebuild.Run(ctx, ix.rdb, []string{k.state, k.members, k.queues}, args...).Int()
	if err != nil {
		return fmt.Errorf("rebuild the queue index: %w", err)
	}
	if built == 1 {
		ix.rebuilds.Add(1)
		ix.log.Info("queue index rebuilt", "organization", organizationID, "waiting", len(entries))
	}
	return nil
}

// drop deletes every key of an organization's index.
func (ix *Index) drop(ctx context.Context, organizationID string) error {
	pattern := strings.TrimSuffix(keysOf(organizationID).state, "state") + "*"
	onServer := func(ctx context.Context, rdb redis.Cmdable) error {
		keys := rdb.Scan(ctx, 0, pattern, 1000).Iterator()
		for keys.Next(ctx) {
			if err := rdb.Del(ctx, keys.Val()).Err(); err != nil {
				return err
			}
		}
		return keys.Err()
	}
	var err error
	if cluster, ok := ix.rdb.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, rdb *redis.Client) error { return onServer(ctx, rdb) })
	} else {
		err = onServer(ctx, ix.rdb)
	}
	if err != nil {
		return fmt.Errorf("delete the queue index: %w", err)
	}
	return nil
}

// moment reads where the index stands; the epoch is empty when it was lost.
func (ix *Index) moment(ctx context.Context, organizationID string) (Moment, error) {
	state, err := ix.rdb.HMGet(ctx, keysOf(organizationID).state, "epoch", "version").Result()
	if err != nil {
		return Moment{}, fmt.Errorf("read the version of the queue index: %w", err)
	}
	epoch, _ := state[0].(string)
	text, _ := state[1].(string)
	if epoch == "" {
		return Moment{}, nil
	}
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return Moment{}, fmt.Errorf("read the version of the queue index: %w", err)
	}
	return Moment{epoch, version}, nil
}

// contents is the whole index of an organization at one moment.
type contents struct {
	at      Moment
	members map[string]member
	// queues maps queue to booking to score.
	queues map[string]map[string]int64
}

type member struct {
	version int64
	queues  string
	ticket  string
	typeID  string
}

// parseRecord reads what Entry.record wrote. An unreadable record gives the
// zero member, which differs from any truth, so that Repair rewrites it.
func parseRecord(record string) member {
	fields := strings.Fields(record)
	if len(fields) != 4 {
		return member{}
	}
	version, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return member{}
	}
	return member{version, fields[1], fields[2], fields[3]}
}

func (ix *Index) read(ctx context.Context, organizationID string) (*contents, error) {
	k := keysOf(organizationID)
	reply, err := ix.snapshot.Run(ctx, ix.rdb, []string{k.state, k.members, k.queues}, k.prefix).Slice()
	if err != nil {
		return nil, fmt.Errorf("read the queue index: %w", err)
	}
	epoch, _ := reply[0].(string)
	version, _ := reply[1].(int64)
	members, _ := reply[2].([]any)
	queues, _ := reply[3].([]any)
	c := &contents{Moment{epoch, version}, make(map[string]member, len(members)/2), make(map[string]map[string]int64, len(queues)/2)}
	for pair := range slices.Chunk(members, 2) {
		id, _ := pair[0].(string)
		record, _ := pair[1].(string)
		c.members[id] = parseRecord(record)
	}
	for pair := range slices.Chunk(queues, 2) {
		queue, _ := pair[0].(string)
		scored, _ := pair[1].([]any)
		set := make(map[string]int64, len(scored)/2)
		for entry := range slices.Chunk(scored, 2) {
			id, _ := entry[0].(string)
			text, _ := entry[1].(string)
			score, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("read the queue index: score of %s: %w", id, err)
			}
			set[id] = int64(score)
		}
		c.queues[queue] = set
	}
	return c, nil
}

// holds reports whether the index has the booking just where it should be.
func (c *contents) holds(e Entry) bool {
	m, ok := c.members[e.BookingID]
	if !ok || m.version != e.Version || m.queues != e.queues() || m.ticket != e.Ticket {
		return false
	}
	for q := range strings.SplitSeq(m.queues, ",") {
		if score, ok := c.queues[q][e.BookingID]; !ok || score != e.Score {
			return false
		}
	}
	return true
}

// How long a difference between index and database must last before it is
// mended, for a change that was committed a moment ago is on its way: in the
// background, and when somebody waits for the index to be loaded.
const (
	settleTime = 500 * time.Millisecond
	settleSoon = 50 * time.Millisecond
)

// Repair compares the index with the database and mends each booking that
// differs for as long as settle, by the same script as any change. It returns
// how many it mended. Bookings that change meanwhile are safe: an older version
// never wins.
func (ix *Index) Repair(ctx context.Context, organizationID string, settle time.Duration) (int, error) {
	wrong, err := ix.compare(ctx, organizationID)
	if err != nil || len(wrong) == 0 {
		return 0, err
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	still, err := ix.compare(ctx, organizationID)
	if err != nil {
		return 0, err
	}
	mended := 0
	for id, d := range still {
		if before, ok := wrong[id]; !ok || before.entry.Version != d.entry.Version {
			continue
		}
		if err := ix.mend(ctx, organizationID, d); err != nil {
			return mended, err
		}
		mended++
	}
	if mended > 0 {
		ix.repairs.Add(int64(mended))
		ix.log.Warn("queue index repaired", "organization", organizationID, "bookings", mended)
	}
	return mended, nil
}

// Rematch brings the index in line with a catalogue that has just changed:
// whose queues a booking waits in is decided there, and no change of the
// booking itself would tell.
func (ix *Index) Rematch(ctx context.Context, organizationID string) error {
	wrong, err := ix.compare(ctx, organizationID)
	if err != nil {
		return err
	}
	for _, d := range wrong {
		if !d.waits {
			continue // on its way out, or for Repair
		}
		if err := ix.mend(ctx, organizationID, d); err != nil {
			return err
		}
	}
	return nil
}

// difference is a booking that the index has otherwise than the database.
type difference struct {
	entry Entry // as the database has it; only id and version when it waits nowhere
	waits bool
	from  *contents // the index it was found in
}

// compare finds what differs. It reads the index before the database, so that
// a booking which the index has and the database has not has left for certain.
func (ix *Index) compare(ctx context.Context, organizationID string) (map[string]difference, error) {
	c, err := ix.read(ctx, organizationID)
	if err != nil {
		return nil, err
	}
	if c.at.Epoch == "" {
		return nil, ix.Rebuild(ctx, organizationID)
	}
	entries, err := ix.truth.Waiting(ctx, organizationID)
	if err != nil {
		return nil, fmt.Errorf("compare the queue index: %w", err)
	}
	wrong := map[string]difference{}
	waiting := make(map[string]bool, len(entries))
	for _, e := range entries {
		waiting[e.BookingID] = true
		if !c.holds(e) {
			wrong[e.BookingID] = difference{e, true, c}
		}
	}
	gone := c.strangers(waiting)
	versions, err := ix.truth.Versions(ctx, organizationID, gone)
	if err != nil {
		return nil, fmt.Errorf("compare the queue index: %w", err)
	}
	for _, id := range gone {
		version, exists := versions[id]
		if !exists { // deleted: newer than anything the index saw
			version = c.members[id].version + 1
		}
		wrong[id] = difference{Entry{BookingID: id, Version: version}, false, c}
	}
	return wrong, nil
}

func (ix *Index) mend(ctx context.Context, organizationID string, d difference) error {
	if err := ix.scrub(ctx, organizationID, d.from, d.entry); err != nil {
		return err
	}
	var err error
	if d.waits {
		_, err = ix.Put(ctx, organizationID, d.entry, nil)
	} else {
		_, err = ix.Remove(ctx, organizationID, d.entry.BookingID, d.entry.Version, nil)
	}
	return err
}

// strangers lists the bookings that the index holds but nobody waits under.
func (c *contents) strangers(waiting map[string]bool) []string {
	seen := map[string]bool{}
	for id := range c.members {
		seen[id] = !waiting[id]
	}
	for _, set := range c.queues {
		for id := range set {
			seen[id] = !waiting[id]
		}
	}
	var ids []string
	for id, stranger := range seen {
		if stranger {
			ids = append(ids, id)
		}
	}
	return ids
}

// scrub takes a booking out of sorted sets that contradict its record, which
// only damage from outside can cause. The record goes too, so that the next
// change writes everything anew.
func (ix *Index) scrub(ctx context.Context, organizationID string, c *contents, e Entry) error {
	k := keysOf(organizationID)
	m, recorded := c.members[e.BookingID]
	damaged := false
	for q, set := range c.queues {
		score, in := set[e.BookingID]
		listed := recorded && slices.Contains(strings.Split(m.queues, ","), q)
		if in != listed || in && e.Score != 0 && score != e.Score {
			damaged = true
			if err := ix.rdb.ZRem(ctx, k.prefix+q, e.BookingID).Err(); err != nil {
				return fmt.Errorf("scrub the queue index: %w", err)
			}
		}
	}
	for q := range strings.SplitSeq(m.queues, ",") {
		if recorded && c.queues[q] == nil {
			damaged = true
		}
	}
	if !damaged || !recorded {
		return nil
	}
	if err := ix.rdb.HDel(ctx, k.members, e.BookingID).Err(); err != nil {
		return fmt.Errorf("scrub the queue index: %w", err)
	}
	return nil
}
