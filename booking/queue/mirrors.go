package queue

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// compareEvery is how often each mirrored organization's index is compared
	// with the database, by one of the nodes.
	compareEvery = 2 * time.Second
	// linkTimeout is how long Redis may be silent before mirrors are stale.
	linkTimeout = 3 * time.Second
	// pingEvery keeps the subscription's connection from being silent.
	pingEvery = time.Second
	// idleLife is how long a mirror is kept when nobody looks at it.
	idleLife = 10 * time.Minute
	// truthEvery is how often mirrors are read from the database while Redis
	// is away.
	truthEvery = time.Second
	// loadTimeout bounds one attempt to compare and read an index.
	loadTimeout = 10 * time.Second
)

// Mirrors holds this node's mirrors and the one subscription that feeds them.
type Mirrors struct {
	index    *Index
	rdb      redis.UniversalClient
	now      func() time.Time
	log      *slog.Logger
	listener Listener

	mu      sync.Mutex
	mirrors map[string]*Mirror
	pubsub  *redis.PubSub
	linked  bool
	heard   time.Time     // when Redis last answered
	up      chan struct{} // closed when Redis has answered for the first time
	back    chan struct{} // closed when Redis answers again
	// wanted are channels to subscribe to; wake tells the subscriber.
	wanted []string
	wake   chan struct{}

	loads sync.WaitGroup
	ctx   context.Context // ends the loads; set by Run
}

// NewMirrors makes the node's mirrors over an index.
func NewMirrors(index *Index, now func() time.Time, log *slog.Logger) *Mirrors {
	return &Mirrors{
		index: index, rdb: index.rdb, now: now, log: log, listener: deaf{},
		mirrors: map[string]*Mirror{}, pubsub: index.rdb.Subscribe(context.Background()),
		wake: make(chan struct{}, 1), up: make(chan struct{}), back: make(chan struct{}),
	}
}

// deaf is the listener until Listen is called.
type deaf struct{}

func (deaf) Applied(*Mirror, *Delta, []Dirty) {}
func (deaf) Loaded(*Mirror)                   {}
func (deaf) Stale(*Mirror)                    {}

// Listen sets who is told of changes. Call it before Run.
func (ms *Mirrors) Listen(l Listener) { ms.listener = l }

// Linked reports whether the subscription to Redis answers.
func (ms *Mirrors) Linked() bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.linked
}

// heardAt is when the subscription to Redis last answered.
func (ms *Mirrors) heardAt() time.Time {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.heard
}

// Up is closed when Redis has answered for the first time.
func (ms *Mirrors) Up() <-chan struct{} { return ms.up }

// Get returns an organization's mirror and waits until it is fresh. When ctx
// ends first, it returns the mirror all the same; ask it whether it is fresh.
func (ms *Mirrors) Get(ctx context.Context, organizationID string) *Mirror {
	m := ms.hold(organizationID, 0)
	m.Await(ctx, Moment{})
	return m
}

// Hold is Get for a caller that keeps the mirror until it calls release.
func (ms *Mirrors) Hold(organizationID string) (m *Mirror, release func()) {
	m = ms.hold(organizationID, 1)
	return m, sync.OnceFunc(func() { ms.hold(organizationID, -1) })
}

// Distrust makes the node compare an organization's index with the database
// now, after a change that could not be applied.
func (ms *Mirrors) Distrust(organizationID string) {
	ms.mu.Lock()
	m := ms.mirrors[organizationID]
	ms.mu.Unlock()
	if m != nil {
		ms.load(m)
	}
}

func (ms *Mirrors) hold(organizationID string, n int) *Mirror {
	ms.mu.Lock()
	m := ms.mirrors[organizationID]
	alone := false // Redis is away, so nothing will confirm a subscription soon
	if m == nil {
		m = newMirror(ms, organizationID)
		m.loading = true
		ms.mirrors[organizationID] = m
		alone = ms.ctx != nil && !ms.linked
		// The confirmation of the subscription, when it comes, starts the load.
		ms.wanted = append(ms.wanted, keysOf(organizationID).channel)
		select {
		case ms.wake <- struct{}{}:
		default:
		}
	}
	m.holders += n
	m.lastUsed = ms.now()
	ms.mu.Unlock()
	if alone {
		ms.load(m)
	}
	return m
}

// Run feeds the mirrors and keeps the index right until ctx ends.
func (ms *Mirrors) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ms.mu.Lock()
	ms.ctx = ctx
	ms.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { ms.receive(ctx) })
	wg.Go(func() { ms.subscribe(ctx) })
	wg.Go(func() { ms.compare(ctx) })
	<-ctx.Done()
	// Closing the subscription ends a Receive that waits.
	if err := ms.subscription().Close(); err != nil {
		ms.log.Debug("close the subscription", "error", err)
	}
	wg.Wait()
	ms.loads.Wait()
}

func (ms *Mirrors) subscription() *redis.PubSub {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.pubsub
}

func (ms *Mirrors) receive(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		message, err := ms.subscription().ReceiveTimeout(ctx, linkTimeout)
		if err != nil {
			if ctx.Err() == nil {
				ms.unlink(err)
				pause.wait(ctx)
				ms.relink(ctx)
			}
			continue
		}
		pause.reset()
		ms.link()
		switch message := message.(type) {
		case *redis.Subscription:
			if m := ms.byChannel(message.Channel); m != nil && message.Kind == "subscribe" {
				ms.load(m)
			}
		case *redis.Message:
			m := ms.byChannel(message.Channel)
			if m == nil {
				continue
			}
			var d Delta
			if err := json.Unmarshal([]byte(message.Payload), &d); err != nil {
				ms.log.Error("unreadable delta", "organization", m.OrganizationID, "error", err)
				ms.load(m)
				continue
			}
			m.receive(&d)
		}
	}
}

func (ms *Mirrors) byChannel(channel string) *Mirror {
	_, rest, _ := strings.Cut(channel, "{")
	organizationID, _, _ := strings.Cut(rest, "}")
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.mirrors[organizationID]
}

// link notes that Redis answers.
func (ms *Mirrors) link() {
	ms.mu.Lock()
	was := ms.linked
	ms.linked, ms.heard = true, ms.now()
	if !was {
		close(ms.back)
	}
	select {
	case <-ms.up:
	default:
		close(ms.up)
	}
	ms.mu.Unlock()
	if !was {
		ms.log.Info("linked to Redis")
	}
}

// relink subscribes to everything anew on a new connection. Each confirmed
// subscription loads its mirror, so nothing missed meanwhile is lost.
func (ms *Mirrors) relink(ctx context.Context) {
	fresh := ms.rdb.Subscribe(ctx) // connects with its first command
	ms.mu.Lock()
	old := ms.pubsub
	ms.pubsub = fresh
	channels := make([]string, 0, len(ms.mirrors))
	for id := range ms.mirrors {
		channels = append(channels, keysOf(id).channel)
	}
	ms.mu.Unlock()
	if err := old.Close(); err != nil {
		ms.log.Debug("close the subscription", "error", err)
	}
	if ctx.Err() != nil { // Run may have closed the old one only
		if err := fresh.Close(); err != nil {
			ms.log.Debug("close the subscription", "error", err)
		}
		return
	}
	if len(channels) > 0 {
		// An error shows again as silence or in the next Receive.
		if err := fresh.Subscribe(ctx, channels...); err != nil {
			ms.log.Debug("subscribe to the queue index", "error", err)
		}
	}
}

// unlink marks every mirror stale.
func (ms *Mirrors) unlink(cause error) {
	ms.mu.Lock()
	was := ms.linked
	ms.linked = false
	if was {
		ms.back = make(chan struct{})
	}
	all := ms.all()
	ms.mu.Unlock()
	if was {
		ms.log.Warn("the link to Redis is down; positions come from the database", "error", cause)
		for _, m := range all {
			ms.load(m)
		}
	}
}

// all lists the mirrors. The caller holds the lock.
func (ms *Mirrors) all() []*Mirror {
	all := make([]*Mirror, 0, len(ms.mirrors))
	for _, m := range ms.mirrors {
		all = append(all, m)
	}
	return all
}

// load compares the index with the database and reads it into the mirror, in
// the background. Deltas that arrive meanwhile are kept.
func (ms *Mirrors) load(m *Mirror) {
	if m.suspect() {
		ms.listener.Stale(m)
	}
	m.mu.Lock()
	running := m.loading && m.buffer != nil
	if running {
		m.again = true
		m.mu.Unlock()
		return
	}
	m.loading, m.again, m.buffer = true, false, []*Delta{}
	m.mu.Unlock()
	ms.mu.Lock()
	ctx := ms.ctx
	ms.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	ms.loads.Go(func() {
		pause := newBackoff()
		for ctx.Err() == nil {
			if !ms.Linked() {
				if err := ms.showTruth(ctx, m); err != nil && ctx.Err() == nil {
					ms.log.Warn("read the queues from the database", "organization", m.OrganizationID, "error", err)
				}
				ms.awaitLink(ctx)
				continue
			}
			loaded, err := ms.tryLoad(ctx, m)
			if loaded {
				return
			}
			if err != nil && ctx.Err() == nil {
				ms.log.Warn("load the queue index", "organization", m.OrganizationID, "error", err)
				pause.wait(ctx)
			}
		}
	})
}

// showTruth puts the mirror in order from the database alone, while Redis is
// away: live clients are told the truth every truthEvery instead of at once.
func (ms *Mirrors) showTruth(ctx context.Context, m *Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	asOf := ms.now()
	entries, err := ms.index.truth.Waiting(ctx, m.OrganizationID)
	if err != nil {
		return err
	}
	c := &contents{Moment{Epoch: rand.Text(), Version: 1}, make(map[string]member, len(entries)), map[string]map[string]int64{}}
	for _, e := range entries {
		queues := e.queues()
		c.members[e.BookingID] = member{e.Version, queues, e.Ticket, e.TypeID}
		for q := range strings.SplitSeq(queues, ",") {
			if c.queues[q] == nil {
				c.queues[q] = map[string]int64{}
			}
			c.queues[q][e.BookingID] = e.Score
		}
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	if ms.Linked() {
		return nil // Redis is back: what it holds is newer
	}
	m.show(c, asOf)
	ms.listener.Loaded(m)
	return nil
}

// awaitLink waits until Redis answers again, truthEvery at most.
func (ms *Mirrors) awaitLink(ctx context.Context) {
	timer := time.NewTimer(truthEvery)
	defer timer.Stop()
	ms.mu.Lock()
	back := ms.back
	ms.mu.Unlock()
	select {
	case <-timer.C:
	case <-back:
	case <-ctx.Done():
	}
}

func (ms *Mirrors) tryLoad(ctx context.Context, m *Mirror) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	m.mu.Lock()
	m.again, m.buffer = false, []*Delta{}
	m.mu.Unlock()
	if _, err := ms.index.Repair(ctx, m.OrganizationID, settleSoon); err != nil {
		return false, err
	}
	c, err := ms.index.read(ctx, m.OrganizationID)
	if err != nil {
		return false, err
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	later, ok := m.install(c)
	if !ok {
		return false, nil
	}
	ms.listener.Loaded(m)
	for _, d := range later {
		m.follow(d)
	}
	return true, nil
}

// subscribe sends the commands of the subscription: new channels, and pings
// that keep it from being silent. A command that fails shows to the receiver
// as an error or as silence, and it connects anew.
func (ms *Mirrors) subscribe(ctx context.Context) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	// The first answer says that Redis is there.
	err := ms.subscription().Ping(ctx)
	for {
		if err != nil && ctx.Err() == nil {
			ms.log.Debug("command on the subscription", "error", err)
		}
		err = nil
		select {
		case <-ctx.Done():
			return
		case <-ms.wake:
			ms.mu.Lock()
			wanted, pubsub := ms.wanted, ms.pubsub
			ms.wanted = nil
			ms.mu.Unlock()
			if len(wanted) > 0 {
				err = pubsub.Subscribe(ctx, wanted...)
			}
		case <-ticker.C:
			err = ms.subscription().Ping(ctx)
		}
	}
}

// compare looks after the mirrored organizations: the index against the
// database, the mirror against the index, and mirrors nobody needs.
func (ms *Mirrors) compare(ctx context.Context) {
	for {
		// Jitter keeps the nodes from comparing at the same moment.
		timer := time.NewTimer(compareEvery*3/4 + mathrand.N(compareEvery/2)) //nolint:gosec // jitter, not a secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		used, idle := ms.inUse()
		if len(idle) > 0 {
			if err := ms.subscription().Unsubscribe(ctx, idle...); err != nil {
				ms.log.Debug("unsubscribe from the queue index", "error", err)
			}
		}
		for _, m := range used {
			if err := ms.compareOne(ctx, m); err != nil && ctx.Err() == nil {
				ms.log.Warn("compare the queue index", "organization", m.OrganizationID, "error", err)
			}
		}
	}
}

// inUse forgets the mirrors nobody has looked at for a while. It returns the
// others, and the channels of those forgotten.
func (ms *Mirrors) inUse() (used []*Mirror, idle []string) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for id, m := range ms.mirrors {
		if m.holders == 0 && ms.now().Sub(m.lastUsed) > idleLife {
			delete(ms.mirrors, id)
			idle = append(idle, keysOf(id).channel)
		}
	}
	return ms.all(), idle
}

func (ms *Mirrors) compareOne(ctx context.Context, m *Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	k := keysOf(m.OrganizationID)
	// One node compares in each period; the others trust it.
	err := ms.rdb.SetArgs(ctx, strings.TrimSuffix(k.state, "state")+"compared", "1",
		redis.SetArgs{Mode: "NX", TTL: compareEvery * 3 / 4}).Err()
	switch {
	case err == nil:
		if _, err := ms.index.Repair(ctx, m.OrganizationID, settleTime); err != nil {
			return err
		}
	case !errors.Is(err, redis.Nil):
		return fmt.Errorf("lease the comparison: %w", err)
	}
	at, err := ms.index.moment(ctx, m.OrganizationID)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.at == at || m.loading {
		m.behind = 0
	} else {
		m.behind++
	}
	// Once may be a delta on its way; twice is one that never came.
	behind := m.behind > 1
	m.mu.Unlock()
	if behind {
		ms.load(m)
	}
	return nil
}

// backoff spaces out attempts: 50 ms doubling to 1 s, with jitter.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{50 * time.Millisecond} }

func (b *backoff) reset() { b.next = 50 * time.Millisecond }

func (b *backoff) wait(ctx context.Context) {
	timer := time.NewTimer(b.next/2 + mathrand.N(b.next/2)) //nolint:gosec // jitter, not a secret
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	b.next = min(b.next*2, time.Second)
}
