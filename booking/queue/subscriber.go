package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"nowserving/booking/clock"
)

const (
	// pongTimeout is how long Redis may be silent before mirrors are stale.
	pongTimeout = 3 * time.Second
	// pingEvery is the pause between two pings.
	pingEvery = time.Second
)

// errMoved is returned when a shard no longer has a channel that it was subscribed
// to.
var errMoved = errors.New("an organization has moved to another shard")

// subscriber receives the deltas over one connection to Redis. A node has one or, on
// a cluster with sharded pub/sub, one for each shard.
type subscriber struct {
	ms *Mirrors
	// shard is the address of the shard. It is empty if there is one subscriber only.
	shard  string
	client redis.UniversalClient
	wake   chan struct{} // there is something to subscribe to, or no longer
	stop   context.CancelFunc

	// Guarded by ms.mu.
	up   bool
	once bool // it has been up before
	// reachable reports whether Redis takes commands while the subscriber is down.
	reachable bool
	// lastPong is when the last answered ping was sent. Replies come in order, so
	// everything published before it has arrived.
	lastPong  time.Time
	following []string // channels to subscribe to
	leaving   []string // channels to leave
}

func newSubscriber(ms *Mirrors, shard string, client redis.UniversalClient) *subscriber {
	return &subscriber{ms: ms, shard: shard, client: client, wake: make(chan struct{}, 1), lastPong: ms.now()}
}

// follow and leave subscribe to an organization's channel, and unsubscribe. ms.mu
// must be held.
func (l *subscriber) follow(organizationID string) {
	l.following = append(l.following, keysOf(organizationID).channel)
	l.nudge()
}

func (l *subscriber) leave(organizationID string) {
	l.leaving = append(l.leaving, keysOf(organizationID).channel)
	l.nudge()
}

func (l *subscriber) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// stale reports whether Redis has not answered for pongTimeout. ms.mu must be held.
func (l *subscriber) stale(now time.Time) bool { return !l.up || now.Sub(l.lastPong) >= pongTimeout }

// run keeps the subscriber connected until ctx ends or its shard has left the
// cluster.
func (l *subscriber) run(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		err := l.receive(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		l.down(err, l.probe(ctx))
		pause.wait(ctx)
		if l.shard == "" {
			continue
		}
		// The connection may have failed because the cluster has changed.
		if err := l.ms.findShards(ctx); err != nil && ctx.Err() == nil {
			l.ms.log.Debug("find the shards of the Redis cluster", "error", err)
		}
	}
}

// receive subscribes to all channels on a new connection and passes deltas on until
// the connection fails or is silent. Each confirmed subscription loads its mirror,
// which recovers what was missed before.
func (l *subscriber) receive(ctx context.Context, pause *backoff) error {
	ctx, cancel := context.WithCancel(ctx)
	pubsub := l.client.Subscribe(ctx) // connects with its first command
	var commanding sync.WaitGroup
	defer commanding.Wait()
	defer cancel()
	commanding.Go(func() {
		l.command(ctx, pubsub)
		// This ends a waiting Receive, too.
		if err := pubsub.Close(); err != nil {
			l.ms.log.Debug("close the subscription", "error", err)
		}
	})
	for {
		message, err := pubsub.ReceiveTimeout(ctx, pongTimeout)
		if err != nil {
			return err
		}
		switch message := message.(type) {
		case *redis.Pong:
			pause.reset()
			l.answered(message.Payload)
		case *redis.Subscription:
			m := l.ms.byChannel(message.Channel)
			switch {
			case m == nil:
			case strings.HasSuffix(message.Kind, "unsubscribe"):
				return fmt.Errorf("%w: %s", errMoved, m.OrganizationID)
			default:
				l.confirmed(m)
				l.ms.load(m)
			}
		case *redis.Message:
			m := l.ms.byChannel(message.Channel)
			if m == nil {
				continue
			}
			var d Delta
			if err := json.Unmarshal([]byte(message.Payload), &d); err != nil {
				l.ms.log.Error("unreadable delta", "organization", m.OrganizationID, "error", err)
				l.ms.load(m)
				continue
			}
			m.receive(&d)
		}
	}
}

// command sends the commands of the subscriber: subscriptions and pings. If one
// fails, the receiver sees an error or silence, and reconnects.
func (l *subscriber) command(ctx context.Context, pubsub *redis.PubSub) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	l.ms.mu.Lock()
	l.following, l.leaving = nil, nil
	for id, m := range l.ms.mirrors {
		if m.link == l {
			l.following = append(l.following, keysOf(id).channel)
		}
	}
	l.ms.mu.Unlock()
	for {
		// Channels first: an answered ping proves that they are subscribed to.
		if err := l.subscribe(ctx, pubsub); err != nil && ctx.Err() == nil {
			l.ms.log.Debug("subscribe to the queue index", "error", err)
		}
		if err := l.ping(ctx, pubsub); err != nil && ctx.Err() == nil {
			l.ms.log.Debug("ping the subscription", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-ticker.C:
		}
	}
}

// ping sends a ping that carries the time at which it was sent.
func (l *subscriber) ping(ctx context.Context, pubsub *redis.PubSub) error {
	return pubsub.Ping(ctx, strconv.FormatInt(l.ms.now().UnixNano(), 10))
}

// subscribe sends the outstanding subscriptions and their ends.
func (l *subscriber) subscribe(ctx context.Context, pubsub *redis.PubSub) error {
	l.ms.mu.Lock()
	following, leaving := l.following, l.leaving
	l.following, l.leaving = nil, nil
	l.ms.mu.Unlock()
	var errs []error
	if l.shard == "" {
		if len(leaving) > 0 {
			errs = append(errs, pubsub.Unsubscribe(ctx, leaving...))
		}
		if len(following) > 0 {
			errs = append(errs, pubsub.Subscribe(ctx, following...))
		}
		return errors.Join(errs...)
	}
	// A command may name channels of one slot only.
	for _, channel := range leaving {
		errs = append(errs, pubsub.SUnsubscribe(ctx, channel))
	}
	for _, channel := range following {
		errs = append(errs, pubsub.SSubscribe(ctx, channel))
	}
	return errors.Join(errs...)
}

// answered records the answer to a ping.
func (l *subscriber) answered(payload string) {
	ms := l.ms
	sent, err := strconv.ParseInt(payload, 10, 64)
	if err != nil {
		ms.log.Error("unreadable answer to a ping", "payload", payload)
		return
	}
	ms.mu.Lock()
	was := l.up
	l.up, l.once, l.lastPong = true, true, time.Unix(0, sent)
	select {
	case <-ms.up:
	default:
		close(ms.up)
	}
	ms.mu.Unlock()
	if !was {
		ms.log.Info("linked to Redis", "shard", l.shard)
	}
}

// confirmed records that deltas of a mirror's organization will arrive from now on.
func (l *subscriber) confirmed(m *Mirror) {
	l.ms.mu.Lock()
	defer l.ms.mu.Unlock()
	if m.link == l && !m.isSubscribed() {
		close(m.subscribed)
	}
}

// isSubscribed reports whether deltas of the organization arrive. ms.mu must be held.
func (m *Mirror) isSubscribed() bool {
	select {
	case <-m.subscribed:
		return true
	default:
		return false
	}
}

// unsubscribed records that deltas may be missed from now on. ms.mu must be held.
func (m *Mirror) unsubscribed() {
	if m.isSubscribed() {
		m.subscribed = make(chan struct{})
	}
}

// probe reports whether Redis takes commands on another connection.
func (l *subscriber) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	return l.client.Ping(ctx).Err() == nil
}

// down marks the subscriber's mirrors as stale.
func (l *subscriber) down(cause error, reachable bool) {
	ms := l.ms
	ms.mu.Lock()
	was := l.up
	l.up, l.reachable = false, reachable
	if was {
		ms.lost++
	}
	var fed []*Mirror
	for _, m := range ms.mirrors {
		if m.link == l {
			fed = append(fed, m)
			m.unsubscribed()
		}
	}
	ms.mu.Unlock()
	if was {
		ms.log.Warn("the link to Redis is down; positions come from the database", "shard", l.shard, "error", cause)
		for _, m := range fed {
			ms.load(m)
		}
	}
}

// discover starts the subscribers that a cluster needs.
func (ms *Mirrors) discover(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		command, err := ms.index.publishCommand(ctx)
		if err == nil && command == publishToAll {
			ms.mu.Lock()
			ms.start(newSubscriber(ms, "", ms.rdb))
			ms.mu.Unlock()
			ms.attach()
			return
		}
		if err == nil {
			if err = ms.findShards(ctx); err == nil {
				return
			}
		}
		if ctx.Err() == nil {
			ms.log.Warn("find the shards of the Redis cluster", "error", err)
		}
		pause.wait(ctx)
	}
}

// findShards starts and stops subscribers so that there is one for each shard of the
// cluster.
func (ms *Mirrors) findShards(ctx context.Context) error {
	cluster, ok := ms.rdb.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	var mu sync.Mutex
	masters := map[string]*redis.Client{}
	err := cluster.ForEachMaster(ctx, func(_ context.Context, master *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		masters[master.Options().Addr] = master
		return nil
	})
	if err != nil {
		return err
	}
	ms.mu.Lock()
	for address, master := range masters {
		if ms.links[address] == nil {
			ms.start(newSubscriber(ms, address, master))
		}
	}
	for address, l := range ms.links {
		if masters[address] == nil {
			delete(ms.links, address)
			l.stop()
		}
	}
	ms.mu.Unlock()
	ms.attach()
	return nil
}

// start runs a new subscriber. ms.mu must be held.
func (ms *Mirrors) start(l *subscriber) {
	ctx, stop := context.WithCancel(ms.ctx)
	l.stop = stop
	ms.links[l.shard] = l
	ms.linking.Go(func() { l.run(ctx) })
}

// attach assigns every mirror to the subscriber of its organization's shard.
func (ms *Mirrors) attach() {
	var moved []*Mirror
	ms.mu.Lock()
	for _, m := range ms.mirrors {
		if ms.attachOne(m) {
			moved = append(moved, m)
		}
	}
	ms.mu.Unlock()
	for _, m := range moved {
		ms.load(m)
	}
}

// attachOne is attach for one mirror. It reports whether the subscriber changed.
// ms.mu must be held.
func (ms *Mirrors) attachOne(m *Mirror) bool {
	l := ms.links[""]
	if cluster, ok := ms.rdb.(*redis.ClusterClient); ok && l == nil && len(ms.links) > 0 {
		// The cluster's map is cached, since the subscribers were made from it.
		master, err := cluster.MasterForKey(ms.ctx, keysOf(m.OrganizationID).state)
		if err != nil {
			ms.log.Debug("find the shard of an organization", "organization", m.OrganizationID, "error", err)
			return false
		}
		l = ms.links[master.Options().Addr]
	}
	if l == nil || l == m.link {
		return false
	}
	m.link = l
	m.unsubscribed()
	l.follow(m.OrganizationID)
	return true
}

// backoff spaces out attempts: 50 ms doubling to 1 s, with jitter.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{50 * time.Millisecond} }

func (b *backoff) reset() { b.next = 50 * time.Millisecond }

func (b *backoff) wait(ctx context.Context) {
	clock.Sleep(ctx, b.next/2+mathrand.N(b.next/2)) //nolint:gosec // jitter, not a secret
	b.next = min(b.next*2, time.Second)
}
