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
)

const (
	// linkTimeout is how long Redis may be silent before mirrors are stale.
	linkTimeout = 3 * time.Second
	// pingEvery keeps a link from being silent.
	pingEvery = time.Second
)

// errMoved says that a shard no longer has what it was asked to tell of.
var errMoved = errors.New("an organization has moved to another shard")

// link is the connection over which the node hears of changes: the only one,
// or one for each shard of a cluster with sharded pub/sub.
type link struct {
	ms *Mirrors
	// shard is the address of the shard; empty when the link is the only one.
	shard  string
	client redis.UniversalClient
	wake   chan struct{} // there is something to subscribe to, or no longer
	stop   context.CancelFunc

	// Guarded by ms.mu.
	up   bool
	once bool // it has been up before
	// reachable says of a link that is down whether commands go through.
	reachable bool
	// heard is when the last ping that was answered was sent: whatever was
	// published before that has arrived, for answers come in order.
	heard     time.Time
	following []string // channels to subscribe to
	leaving   []string // channels to leave
}

func newLink(ms *Mirrors, shard string, client redis.UniversalClient) *link {
	return &link{ms: ms, shard: shard, client: client, wake: make(chan struct{}, 1), heard: ms.now()}
}

// follow and leave ask for the changes of an organization, or for no more of
// them. The caller holds ms.mu.
func (l *link) follow(organizationID string) {
	l.following = append(l.following, keysOf(organizationID).channel)
	l.nudge()
}

func (l *link) leave(organizationID string) {
	l.leaving = append(l.leaving, keysOf(organizationID).channel)
	l.nudge()
}

func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// silent reports whether Redis does not answer. The caller holds ms.mu.
func (l *link) silent(now time.Time) bool { return !l.up || now.Sub(l.heard) >= linkTimeout }

// run keeps the link until ctx ends or its shard is none any more.
func (l *link) run(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		err := l.hear(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		l.down(err, l.probe(ctx))
		pause.wait(ctx)
		if l.shard == "" {
			continue
		}
		// It may have broken because the cluster has changed.
		if err := l.ms.findShards(ctx); err != nil && ctx.Err() == nil {
			l.ms.log.Debug("find the shards of the Redis cluster", "error", err)
		}
	}
}

// hear subscribes to everything on a connection of its own and hands on what
// it hears until the connection breaks or is silent. Each confirmed
// subscription loads its mirror, so nothing missed before is lost.
func (l *link) hear(ctx context.Context, pause *backoff) error {
	ctx, cancel := context.WithCancel(ctx)
	pubsub := l.client.Subscribe(ctx) // connects with its first command
	var commanding sync.WaitGroup
	defer commanding.Wait()
	defer cancel()
	commanding.Go(func() {
		l.command(ctx, pubsub)
		// This also ends a Receive that waits.
		if err := pubsub.Close(); err != nil {
			l.ms.log.Debug("close the subscription", "error", err)
		}
	})
	for {
		message, err := pubsub.ReceiveTimeout(ctx, linkTimeout)
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

// command sends the commands of the subscription: channels, and pings that
// keep it from being silent. A command that fails shows to the receiver as an
// error or as silence, and it connects anew.
func (l *link) command(ctx context.Context, pubsub *redis.PubSub) {
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
		// Channels first: an answered ping says that they are subscribed to.
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

// ping asks for an answer that says when it was asked for.
func (l *link) ping(ctx context.Context, pubsub *redis.PubSub) error {
	return pubsub.Ping(ctx, strconv.FormatInt(l.ms.now().UnixNano(), 10))
}

// subscribe joins and leaves what channels there are to join and leave.
func (l *link) subscribe(ctx context.Context, pubsub *redis.PubSub) error {
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
	// One command may name channels of one slot only.
	for _, channel := range leaving {
		errs = append(errs, pubsub.SUnsubscribe(ctx, channel))
	}
	for _, channel := range following {
		errs = append(errs, pubsub.SSubscribe(ctx, channel))
	}
	return errors.Join(errs...)
}

// answered notes that Redis has answered a ping.
func (l *link) answered(payload string) {
	ms := l.ms
	sent, err := strconv.ParseInt(payload, 10, 64)
	if err != nil {
		ms.log.Error("unreadable answer to a ping", "payload", payload)
		return
	}
	ms.mu.Lock()
	was := l.up
	l.up, l.once, l.heard = true, true, time.Unix(0, sent)
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

// confirmed notes that the changes of a mirror's organization will be heard.
func (l *link) confirmed(m *Mirror) {
	l.ms.mu.Lock()
	defer l.ms.mu.Unlock()
	if m.link == l && !m.isHeard() {
		close(m.heard)
	}
}

// isHeard reports whether the changes of its organization are heard. The caller
// holds ms.mu.
func (m *Mirror) isHeard() bool {
	select {
	case <-m.heard:
		return true
	default:
		return false
	}
}

// unheard notes that changes may be missed from now on. The caller holds ms.mu.
func (m *Mirror) unheard() {
	if m.isHeard() {
		m.heard = make(chan struct{})
	}
}

// probe reports whether Redis takes commands, on another connection.
func (l *link) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	return l.client.Ping(ctx).Err() == nil
}

// down marks the mirrors that the link feeds stale.
func (l *link) down(cause error, reachable bool) {
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
			m.unheard()
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

// discover finds out what links a cluster takes, and starts them.
func (ms *Mirrors) discover(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		command, err := ms.index.publishCommand(ctx)
		if err == nil && command == publishToAll {
			ms.mu.Lock()
			ms.start(newLink(ms, "", ms.rdb))
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

// findShards brings the links in line with the shards the cluster has now.
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
			ms.start(newLink(ms, address, master))
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

// start runs a new link. The caller holds ms.mu.
func (ms *Mirrors) start(l *link) {
	ctx, stop := context.WithCancel(ms.ctx)
	l.stop = stop
	ms.links[l.shard] = l
	ms.linking.Go(func() { l.run(ctx) })
}

// attach gives every mirror the link that hears of its organization now.
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

// attachOne is attach for one mirror. It returns whether the link is another
// than before. The caller holds ms.mu.
func (ms *Mirrors) attachOne(m *Mirror) bool {
	l := ms.links[""]
	if cluster, ok := ms.rdb.(*redis.ClusterClient); ok && l == nil && len(ms.links) > 0 {
		// The cluster's map is at hand, since the links were made from it.
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
	m.unheard()
	l.follow(m.OrganizationID)
	return true
}

// backoff spaces out attempts: 50 ms doubling to 1 s, with jitter.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{50 * time.Millisecond} }

func (b *backoff) reset() { b.next = 50 * time.Millisecond }

func (b *backoff) wait(ctx context.Context) {
	wait(ctx, b.next/2+mathrand.N(b.next/2)) //nolint:gosec // jitter, not a secret
	b.next = min(b.next*2, time.Second)
}

// wait waits for a time or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
