package queue

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// idleLife is how long an unused mirror is kept.
	idleLife = 10 * time.Minute
	// maxLoads bounds how many organizations a node loads at the same time.
	maxLoads = 16
)

// Mirrors holds this node's mirrors and the subscribers that feed them.
type Mirrors struct {
	index    *Index
	rdb      redis.UniversalClient
	now      func() time.Time
	log      *slog.Logger
	listener Listener
	// reading holds a token for each organization that is being loaded.
	reading chan struct{}
	up      chan struct{} // closed when Redis has answered for the first time
	since   time.Time     // when the mirrors were made

	mu      sync.Mutex
	mirrors map[string]*Mirror
	counts  map[string]*count      // by organization
	links   map[string]*subscriber // by shard
	lost    int64                  // times a link has broken

	linking, loads sync.WaitGroup
	ctx            context.Context // ends the links and the loads; set by Run
}

// NewMirrors makes the mirrors of an index.
func NewMirrors(index *Index, now func() time.Time, log *slog.Logger) *Mirrors {
	return &Mirrors{
		index: index, rdb: index.rdb, now: now, log: log, listener: nopListener{},
		reading: make(chan struct{}, maxLoads), up: make(chan struct{}), since: now(),
		mirrors: map[string]*Mirror{}, counts: map[string]*count{}, links: map[string]*subscriber{},
	}
}

// nopListener is the listener until Listen is called.
type nopListener struct{}

func (nopListener) Applied(*Mirror, *Delta, []Dirty) {}
func (nopListener) Loaded(*Mirror)                   {}
func (nopListener) Stale(*Mirror)                    {}

// Listen sets the listener of the mirrors. Call it before Run.
func (ms *Mirrors) Listen(l Listener) { ms.listener = l }

// Linked reports whether all shards of Redis answer.
func (ms *Mirrors) Linked() bool {
	_, silent := ms.Silence()
	return !silent
}

// Silence reports whether Redis or one of its shards does not answer, and for how
// long.
func (ms *Mirrors) Silence() (length time.Duration, silent bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	now := ms.now()
	if len(ms.links) == 0 {
		return now.Sub(ms.since), true
	}
	for _, l := range ms.links {
		if l.stale(now) {
			length, silent = max(length, now.Sub(l.lastPong)), true
		}
	}
	return length, silent
}

// LinksLost returns how often a subscriber has lost its connection since the start.
func (ms *Mirrors) LinksLost() int64 {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.lost
}

// Subscribed reports whether the node's subscriber to the deltas of an organization is
// connected, as far as the node knows.
func (ms *Mirrors) Subscribed(organizationID string) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	l := ms.subscriberOf(organizationID)
	return l == nil || !l.stale(ms.now())
}

// Reaches reports whether the shard with an organization's index takes commands, as
// far as the node knows. That can be true while no deltas arrive.
func (ms *Mirrors) Reaches(organizationID string) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	l := ms.subscriberOf(organizationID)
	return l == nil || l.up || l.reachable
}

// subscriberOf returns the subscriber of an organization's shard, or nil if the shard
// is not known. ms.mu must be held.
func (ms *Mirrors) subscriberOf(organizationID string) *subscriber {
	if m := ms.mirrors[organizationID]; m != nil && m.link != nil {
		return m.link
	}
	return ms.links[""]
}

// AsOf is Mirror.AsOf of an organization. Without a loaded mirror it returns the
// present time, because positions are then counted in the database.
func (ms *Mirrors) AsOf(organizationID string) (t time.Time, live bool) {
	ms.mu.Lock()
	m := ms.mirrors[organizationID]
	ms.mu.Unlock()
	if m == nil {
		return ms.now(), false
	}
	if t, live = m.AsOf(); t.IsZero() {
		t = ms.now()
	}
	return t, live
}

// receivedUntil returns the time up to which a mirror has received all deltas.
func (ms *Mirrors) receivedUntil(m *Mirror) time.Time {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.link == nil {
		return ms.since
	}
	return m.link.lastPong
}

// Up returns a channel that is closed when Redis has answered for the first time.
func (ms *Mirrors) Up() <-chan struct{} { return ms.up }

// Get returns an organization's mirror and waits until it is fresh. If ctx ends
// first, it returns a mirror that may not be fresh.
func (ms *Mirrors) Get(ctx context.Context, organizationID string) *Mirror {
	m := ms.hold(organizationID, 0)
	m.Await(ctx, StreamPosition{})
	return m
}

// Hold is Get for a caller that keeps the mirror until it calls release.
func (ms *Mirrors) Hold(organizationID string) (m *Mirror, release func()) {
	m = ms.hold(organizationID, 1)
	return m, sync.OnceFunc(func() { ms.hold(organizationID, -1) })
}

// Invalidate makes the node compare an organization's index with the database at
// once. Call it after a change that could not be applied.
func (ms *Mirrors) Invalidate(organizationID string) {
	ms.mu.Lock()
	m := ms.mirrors[organizationID]
	ms.mu.Unlock()
	if m != nil {
		ms.load(m)
	}
}

// Lost makes the node rebuild an organization's index. Call it after ErrLost: changes
// committed before are in the database that it is built from.
func (ms *Mirrors) Lost(organizationID string) { ms.loadLost(ms.hold(organizationID, 0)) }

// Drop deletes the index of a deleted organization.
func (ms *Mirrors) Drop(ctx context.Context, organizationID string) error {
	ms.mu.Lock()
	if m := ms.mirrors[organizationID]; m != nil {
		ms.forget(m)
	}
	ms.mu.Unlock()
	return ms.index.drop(ctx, organizationID)
}

// forget drops a mirror. ms.mu must be held.
func (ms *Mirrors) forget(m *Mirror) {
	delete(ms.mirrors, m.OrganizationID)
	if m.link != nil {
		m.link.leave(m.OrganizationID)
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
		// The confirmation of the subscription, when it comes, starts the load.
		ms.attachOne(m)
		alone = ms.ctx != nil && (m.link == nil || !m.link.up)
	}
	m.holders += n
	m.lastUsed = ms.now()
	ms.mu.Unlock()
	if alone {
		ms.load(m)
	}
	return m
}

// Run feeds the mirrors and repairs the index until ctx ends.
func (ms *Mirrors) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, clustered := ms.rdb.(*redis.ClusterClient)
	ms.mu.Lock()
	ms.ctx = ctx
	if !clustered {
		ms.start(newSubscriber(ms, "", ms.rdb))
	}
	ms.mu.Unlock()
	var wg sync.WaitGroup
	if clustered {
		wg.Go(func() { ms.discover(ctx) })
	} else {
		ms.attach()
	}
	wg.Go(func() { ms.compare(ctx) })
	wg.Wait()
	ms.linking.Wait()
	ms.loads.Wait()
}

func (ms *Mirrors) byChannel(channel string) *Mirror {
	_, rest, _ := strings.Cut(channel, "{")
	organizationID, _, _ := strings.Cut(rest, "}")
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.mirrors[organizationID]
}
