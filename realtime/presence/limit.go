package presence

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"nowserving/booking/clock"
	"nowserving/models"
)

const (
	// MaxConnections is how many live connections one patient may have.
	MaxConnections = 5
	// connectionsIdle is when those of a patient are forgotten who does not
	// connect any more.
	connectionsIdle = 24 * time.Hour
	// connectionsPatience is how long a patient waits to be counted.
	connectionsPatience = 100 * time.Millisecond
	connectionsChannel  = "ns:connections:surplus"
	// connectionsNodes are the nodes that live, with when they said so last.
	connectionsNodes = "ns:connections:nodes"
	// beatEvery is how often a node says that it lives, and nodeLife how long that
	// is believed.
	beatEvery = 10 * time.Second
	nodeLife  = 30 * time.Second
)

// surplus takes out of a set what dead nodes have left behind, and then the
// oldest connections that are too many, and tells all nodes of these. What is
// younger than ARGV[3] may be of a node that is not known yet.
var surplus = redis.NewScript(`
local living = {}
for i = 4, #ARGV do living[ARGV[i]] = true end
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do
	local dead = not living[string.match(all[i], '^[^/]*')]
	if dead and tonumber(all[i + 1]) < tonumber(ARGV[3]) then redis.call('ZREM', KEYS[1], all[i]) end -- it counts no longer
end
local n = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[1])
if n <= 0 then return 0 end
local out = {}
for i, v in ipairs(redis.call('ZPOPMIN', KEYS[1], n)) do
	if i % 2 == 1 then table.insert(out, v) end -- the others are scores
end
redis.call('PUBLISH', ARGV[2], table.concat(out, ' '))
return n
`)

// Connections bounds the live connections of each patient over all nodes: one beyond
// MaxConnections closes the oldest. The connections of a dead node are counted for at
// most 50 s: its last report is valid for 30 s, and the other nodes check every 10 s,
// and once more after a failed check. While Redis is away no connection is counted.
type Connections struct {
	// Patience is how long a new connection waits to be counted. Default 100 ms.
	Patience time.Duration

	rdb  redis.UniversalClient
	now  func() time.Time
	node string // this one

	mu     sync.Mutex
	looked bool     // the last look succeeded
	living []string // nodes; empty while that is not sure
}

// NewConnections makes Connections.
func NewConnections(rdb redis.UniversalClient, now func() time.Time) *Connections {
	return &Connections{Patience: connectionsPatience, rdb: rdb, now: now, node: models.NewID()}
}

func connectionsKey(organizationID, patient string) string {
	return "ns:{" + organizationID + "}:connections:" + patient
}

// Add counts a connection of a patient. It takes one round trip, and another if there
// are too many.
func (c *Connections) Add(ctx context.Context, organizationID, patient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	key := connectionsKey(organizationID, patient)
	var count *redis.IntCmd
	_, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.ZAdd(ctx, key, redis.Z{Score: float64(c.now().UnixMicro()), Member: c.member(id)})
		pipe.Expire(ctx, key, connectionsIdle)
		count = pipe.ZCard(ctx, key)
		return nil
	})
	if err == nil && count.Val() > MaxConnections {
		err = surplus.Run(ctx, c.rdb, []string{key}, c.judging()...).Err()
	}
	if err != nil {
		return fmt.Errorf("count a live connection: %w", err)
	}
	return nil
}

// member is what a connection of this node is called in a set.
func (c *Connections) member(id string) string { return c.node + "/" + id }

// judging are the arguments of surplus. Where it is not sure who lives, none is
// taken for dead.
func (c *Connections) judging() []any {
	c.mu.Lock()
	defer c.mu.Unlock()
	args := []any{strconv.Itoa(MaxConnections), connectionsChannel, "0"}
	if len(c.living) == 0 {
		return args
	}
	args[2] = strconv.FormatInt(c.now().Add(-nodeLife).UnixMicro(), 10)
	for _, node := range c.living {
		args = append(args, node)
	}
	return args
}

// Beat reports that this node is alive and reads which other nodes are, in one round
// trip. The list is used from the second answer in a row on, because after an outage of
// Redis the other nodes have to report first.
func (c *Connections) Beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	now := c.now()
	var living *redis.StringSliceCmd
	_, err := c.rdb.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.ZAdd(ctx, connectionsNodes, redis.Z{Score: float64(now.UnixMicro()), Member: c.node})
		pipe.ZRemRangeByScore(ctx, connectionsNodes, "-inf", strconv.FormatInt(now.Add(-nodeLife).UnixMicro(), 10))
		pipe.Expire(ctx, connectionsNodes, connectionsIdle)
		living = pipe.ZRange(ctx, connectionsNodes, 0, -1)
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.living = nil
	if err == nil && c.looked {
		c.living = living.Val()
	}
	c.looked = err == nil
	if err != nil {
		return fmt.Errorf("say that this node lives: %w", err)
	}
	return nil
}

// Remove forgets a connection that has ended.
func (c *Connections) Remove(ctx context.Context, organizationID, patient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	if err := c.rdb.ZRem(ctx, connectionsKey(organizationID, patient), c.member(id)).Err(); err != nil {
		return fmt.Errorf("forget a live connection: %w", err)
	}
	return nil
}

// Run calls Beat until ctx ends. tooMany is called with the ids of connections to
// close, of any node, and failed with errors.
func (c *Connections) Run(ctx context.Context, tooMany func(ids []string), failed func(error)) error {
	told := c.rdb.Subscribe(ctx, connectionsChannel)
	messages := told.Channel()
	var beating sync.WaitGroup
	defer beating.Wait()
	beating.Go(func() { c.beat(ctx, failed) })
	for {
		select {
		case m := <-messages:
			ids := strings.Fields(m.Payload)
			for i, member := range ids {
				_, ids[i], _ = strings.Cut(member, "/")
			}
			tooMany(ids)
		case <-ctx.Done():
			return told.Close()
		}
	}
}

func (c *Connections) beat(ctx context.Context, failed func(error)) {
	clock.Every(ctx, beatEvery, func() {
		if err := c.Beat(ctx); err != nil && ctx.Err() == nil {
			failed(err)
		}
	})
}
