package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
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
)

// surplus takes the oldest connections that are too many out of a set, and
// tells all nodes of them.
var surplus = redis.NewScript(`
local n = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[1])
if n <= 0 then return 0 end
local out = {}
for i, v in ipairs(redis.call('ZPOPMIN', KEYS[1], n)) do
	if i % 2 == 1 then table.insert(out, v) end -- the others are scores
end
redis.call('PUBLISH', ARGV[2], table.concat(out, ' '))
return n
`)

// Connections bounds the live connections of each patient over all nodes: for
// one that is too many, the oldest ends. What a dead node has left behind counts
// until newer ones have pushed it out, which ends nothing. While Redis is away
// nobody is counted.
type Connections struct {
	// Patience is how long a patient waits to be counted: 100 ms at first.
	Patience time.Duration

	rdb redis.UniversalClient
	now func() time.Time
}

// NewConnections makes Connections.
func NewConnections(rdb redis.UniversalClient, now func() time.Time) *Connections {
	return &Connections{connectionsPatience, rdb, now}
}

func connectionsKey(organizationID, patient string) string {
	return "ns:{" + organizationID + "}:connections:" + patient
}

// Add counts a connection of a patient: one round trip, and another when it is
// too many.
func (c *Connections) Add(ctx context.Context, organizationID, patient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	key := connectionsKey(organizationID, patient)
	var count *redis.IntCmd
	_, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.ZAdd(ctx, key, redis.Z{Score: float64(c.now().UnixMicro()), Member: id})
		pipe.Expire(ctx, key, connectionsIdle)
		count = pipe.ZCard(ctx, key)
		return nil
	})
	if err == nil && count.Val() > MaxConnections {
		err = surplus.Run(ctx, c.rdb, []string{key}, strconv.Itoa(MaxConnections), connectionsChannel).Err()
	}
	if err != nil {
		return fmt.Errorf("count a live connection: %w", err)
	}
	return nil
}

// Remove forgets a connection that has ended.
func (c *Connections) Remove(ctx context.Context, organizationID, patient, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	if err := c.rdb.ZRem(ctx, connectionsKey(organizationID, patient), id).Err(); err != nil {
		return fmt.Errorf("forget a live connection: %w", err)
	}
	return nil
}

// Run tells of the connections that are too many, on whatever node they are,
// until ctx ends.
func (c *Connections) Run(ctx context.Context, tooMany func(ids []string)) error {
	told := c.rdb.Subscribe(ctx, connectionsChannel)
	messages := told.Channel()
	for {
		select {
		case m := <-messages:
			tooMany(strings.Fields(m.Payload))
		case <-ctx.Done():
			return told.Close()
		}
	}
}
