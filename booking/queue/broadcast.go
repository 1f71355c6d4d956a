package queue

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// broadcastChannel carries announcements of ended credentials.
const broadcastChannel = "ns:revocations"

// Broadcast sends announcements to all nodes over Redis pub/sub. An announcement is
// lost if Redis is down.
type Broadcast struct{ rdb redis.UniversalClient }

// NewBroadcast makes a Broadcast.
func NewBroadcast(rdb redis.UniversalClient) *Broadcast { return &Broadcast{rdb} }

// Send sends an announcement to every node, this one included.
func (b *Broadcast) Send(ctx context.Context, announcement []byte) error {
	if err := b.rdb.Publish(ctx, broadcastChannel, announcement).Err(); err != nil {
		return fmt.Errorf("announce ended credentials: %w", err)
	}
	return nil
}

// Run passes on the announcements of all nodes until ctx ends. It connects again
// by itself.
func (b *Broadcast) Run(ctx context.Context, received func(announcement []byte)) error {
	subscription := b.rdb.Subscribe(ctx, broadcastChannel)
	messages := subscription.Channel()
	for {
		select {
		case m := <-messages:
			received([]byte(m.Payload))
		case <-ctx.Done():
			return subscription.Close()
		}
	}
}
