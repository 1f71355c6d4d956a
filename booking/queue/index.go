package queue

import (
	"context"
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
	//go:embed announce.lua
	announceSource string
)

// tombstoneLife is how long the index remembers the version of a booking that has left,
// so that a delayed older change can't bring it back. The comparison with the database
// would repair that only later.
const tombstoneLife = time.Hour

// Entry is one waiting booking in the database.
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
	Change
}

// Change is the part of a Delta that does not depend on the index.
type Change struct {
	// BookingID is empty if no booking has moved: the index was rebuilt, or the event
	// is about a resource or the whole catalogue.
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

// Source reads the waiting bookings from the database. booking implements it.
type Source interface {
	// Waiting calls each with the organization's waiting bookings in the order
	// of their scores, some thousand at a time, until each returns an error. A
	// booking that changes meanwhile may come twice, or not at all.
	Waiting(ctx context.Context, organizationID string, each func([]Entry) error) error
	// Lookup returns those of some bookings that wait, and the versions of all
	// of them that exist.
	Lookup(ctx context.Context, organizationID string, bookingIDs []string) (waiting []Entry, versions map[string]int64, err error)
	// Sum sums up the waiting bookings.
	Sum(ctx context.Context, organizationID string) (Sum, error)
}

// Index is the queue index in Redis. It is safe for concurrent use.
type Index struct {
	rdb    redis.UniversalClient
	source Source
	log    *slog.Logger

	apply, announce, begin, fill, finish *redis.Script

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
func NewIndex(rdb redis.UniversalClient, truth Source, log *slog.Logger) *Index {
	return &Index{
		rdb: rdb, source: truth, log: log,
		apply: redis.NewScript(applySource), announce: redis.NewScript(announceSource),
		begin: redis.NewScript(beginSource), fill: redis.NewScript(fillSource), finish: redis.NewScript(finishSource),
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

// Repairs returns how many bookings were repaired in the index, and how often an index
// was rebuilt, since the start.
func (ix *Index) Repairs() (bookings, rebuilds int64) {
	return ix.repairs.Load(), ix.rebuilds.Load()
}

// StreamPosition is a position in the life of an index.
type StreamPosition struct {
	Epoch   string
	Version int64
}

// keys are the keys of an organization's index, and its channel. Those of
// queues go on with an id, those of tombstones with an epoch and a booking.
type keys struct{ all, state, members, queues, building, queue, tombstone, channel string }

func keysOf(organizationID string) keys {
	tag := "ns:{" + organizationID + "}:"
	return keys{
		all: tag, state: tag + "state", members: tag + "members", queues: tag + "queues", building: tag + "building",
		queue: tag + "queue:", tombstone: tag + "gone:", channel: tag + "changes",
	}
}

// Put applies a change in which the booking now waits. event may be nil.
func (ix *Index) Put(ctx context.Context, organizationID string, e Entry, event *models.BookingEvent) (StreamPosition, error) {
	c := e.change()
	c.Event = event
	return ix.change(ctx, organizationID, c, e.record(), false)
}

// change is a change after which the booking waits.
func (e Entry) change() Change {
	return Change{
		BookingID: e.BookingID, BookingVersion: e.Version, Waiting: true, Score: e.Score,
		Queues: strings.Split(e.queues(), ","), Ticket: e.Ticket, TypeID: e.TypeID,
	}
}

// Remove applies a change after which the booking waits nowhere, or which did
// not concern its waiting at all. event may be nil.
func (ix *Index) Remove(ctx context.Context, organizationID, bookingID string, version int64, event *models.BookingEvent) (StreamPosition, error) {
	return ix.change(ctx, organizationID, Change{BookingID: bookingID, BookingVersion: version, Event: event}, "", false)
}

// Announce publishes a change of a resource's queue that moved no booking, such as a
// pause. Without a resource it publishes a change of the organization's names or
// durations.
func (ix *Index) Announce(ctx context.Context, organizationID, resourceID string, at time.Time) error {
	c := Change{Event: &models.BookingEvent{Type: models.EventQueueUpdated, ResourceID: resourceID, At: at}}
	_, err := ix.retried(ctx, organizationID, func() (StreamPosition, error) { return ix.tryAnnounce(ctx, organizationID, c) })
	return err
}

func (ix *Index) tryAnnounce(ctx context.Context, organizationID string, c Change) (StreamPosition, error) {
	k := keysOf(organizationID)
	tail, err := c.tail()
	if err != nil {
		return StreamPosition{}, err
	}
	publish, err := ix.publishCommand(ctx)
	if err != nil {
		return StreamPosition{}, err
	}
	return outcome(ix.announce.Run(ctx, ix.rdb, []string{k.state, k.building}, k.channel, tail, publish).Slice())
}

// ErrLost says that there is no index. A change does not rebuild a large one,
// for that takes seconds: call Mirrors.Lost.
var ErrLost = errors.New("the index is lost")

// errStale says that the index has a newer version of the booking to repair.
var errStale = errors.New("the index has a newer version of the booking")

// change applies a change. With replace, the booking is first removed from all
// queues, whatever its record says.
func (ix *Index) change(ctx context.Context, organizationID string, c Change, record string, replace bool) (StreamPosition, error) {
	return ix.retried(ctx, organizationID, func() (StreamPosition, error) { return ix.tryChange(ctx, organizationID, c, record, replace) })
}

// retried makes a change. If the index is lost, it rebuilds a small one and makes
// the change once more.
func (ix *Index) retried(ctx context.Context, organizationID string, try func() (StreamPosition, error)) (StreamPosition, error) {
	at, err := try()
	if errors.Is(err, ErrLost) {
		if err = ix.rebuildSmall(ctx, organizationID); err == nil {
			at, err = try()
		}
	}
	if err != nil {
		return StreamPosition{}, fmt.Errorf("change the queue index: %w", err)
	}
	return at, nil
}

// tail is the part of a Delta that follows epoch and version, which a script writes.
func (c Change) tail() (string, error) {
	encoded, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	if string(encoded) == "{}" {
		return "", nil
	}
	return "," + string(encoded[1:len(encoded)-1]), nil
}

func (ix *Index) tryChange(ctx context.Context, organizationID string, d Change, record string, replace bool) (StreamPosition, error) {
	k := keysOf(organizationID)
	tail, err := d.tail()
	if err != nil {
		return StreamPosition{}, err
	}
	publish, err := ix.publishCommand(ctx)
	if err != nil {
		return StreamPosition{}, err
	}
	at, err := outcome(ix.apply.Run(ctx, ix.rdb, []string{k.state, k.members, k.queues, k.building},
		d.BookingID, d.BookingVersion, d.Score, record, strings.Join(d.Queues, ","), k.queue, k.channel,
		int(tombstoneLife.Seconds()), tail, flag(d.Event != nil), publish, flag(replace), k.tombstone).Slice())
	if errors.Is(err, errStale) && !replace {
		err = nil
	}
	return at, err
}

// outcome reads the reply of a script that makes a change. An unknown reply is an
// error: it must not count as applied.
func outcome(reply []any, err error) (StreamPosition, error) {
	if err != nil {
		return StreamPosition{}, err
	}
	if len(reply) != 3 {
		return StreamPosition{}, fmt.Errorf("unknown reply of a script: %v", reply)
	}
	what, _ := reply[0].(string)
	epoch, _ := reply[1].(string)
	version, _ := reply[2].(int64)
	switch what {
	case "stale":
		return StreamPosition{epoch, version}, errStale
	case "applied", "same":
		return StreamPosition{epoch, version}, nil
	case "building":
		return StreamPosition{}, nil // the epoch is not known before the index is whole
	case "lost":
		return StreamPosition{}, ErrLost
	default:
		return StreamPosition{}, fmt.Errorf("unknown outcome of a script: %q", what)
	}
}

// flag is a truth value for a script.
func flag(yes bool) string {
	if yes {
		return "1"
	}
	return "0"
}

// drop deletes every key of an organization's index.
func (ix *Index) drop(ctx context.Context, organizationID string) error {
	pattern := keysOf(organizationID).all + "*"
	onServer := func(ctx context.Context, rdb redis.Cmdable) error {
		keys := rdb.Scan(ctx, 0, pattern, 1000).Iterator()
		for keys.Next(ctx) {
			if err := rdb.Unlink(ctx, keys.Val()).Err(); err != nil {
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

// position reads where the index stands; the epoch is empty when it was lost.
func (ix *Index) position(ctx context.Context, organizationID string) (StreamPosition, error) {
	state, err := ix.rdb.HMGet(ctx, keysOf(organizationID).state, "epoch", "version").Result()
	if err != nil {
		return StreamPosition{}, fmt.Errorf("read the version of the queue index: %w", err)
	}
	epoch, _ := state[0].(string)
	text, _ := state[1].(string)
	if epoch == "" {
		return StreamPosition{}, nil
	}
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return StreamPosition{}, fmt.Errorf("read the version of the queue index: %w", err)
	}
	return StreamPosition{epoch, version}, nil
}
