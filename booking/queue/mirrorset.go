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
	// idleLife is how long a mirror is kept when nobody looks at it.
	idleLife = 10 * time.Minute
	// maxLoads bounds how many organizations a node reads at the same time.
	maxLoads = 16
)

// Mirrors holds this node's mirrors and the links that feed them.
type Mirrors struct {
	index    *Index
	rdb      redis.UniversalClient
	now      func() time.Time
	log      *slog.Logger
	listener Listener
	// reading holds a token for each organization that is being read.
	reading chan struct{}
	up      chan struct{} // closed when Redis has answered for the first time
	since   time.Time     // when the mirrors were made

	mu      sync.Mutex
	mirrors map[string]*Mirror
	counts  map[string]*count // by organization
	links   map[string]*link  // by shard
	lost    int64             // times a link has broken

	linking, loads sync.WaitGroup
	ctx            context.Context // ends the links and the loads; set by Run
}

// NewMirrors makes the node's mirrors over an index.
func NewMirrors(index *Index, now func() time.Time, log *slog.Logger) *Mirrors {
	return &Mirrors{
		index: index, rdb: index.rdb, now: now, log: log, listener: deaf{},
		reading: make(chan struct{}, maxLoads), up: make(chan struct{}), since: now(),
		mirrors: map[string]*Mirror{}, counts: map[string]*count{}, links: map[string]*link{},
	}
}

// deaf is the listener until Listen is called.
type deaf struct{}

func (deaf) Applied(*Mirror, *Delta, []Dirty) {}
func (deaf) Loaded(*Mirror)                   {}
func (deaf) Stale(*Mirror)                    {}

// Listen sets who is told of changes. Call it before Run.
func (ms *Mirrors) Listen(l Listener) { ms.listener = l }

// Linked reports whether Redis answers, with all its shards.
func (ms *Mirrors) Linked() bool {
	_, silent := ms.Silence()
	return !silent
}

// Silence reports whether Redis, or a shard of it, does not answer, and for how
// long it has not.
func (ms *Mirrors) Silence() (length time.Duration, silent bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	now := ms.now()
	if len(ms.links) == 0 {
		return now.Sub(ms.since), true
	}
	for _, l := range ms.links {
		if l.silent(now) {
			length, silent = max(length, now.Sub(l.heard)), true
		}
	}
	return length, silent
}

// LinksLost is how often a link to Redis has broken since the start.
func (ms *Mirrors) LinksLost() int64 {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.lost
}

// Hears reports whether the node hears of an organization's changes, as far as
// it knows.
func (ms *Mirrors) Hears(organizationID string) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	l := ms.linkOf(organizationID)
	return l == nil || !l.silent(ms.now())
}

// Reaches reports whether the part of Redis that has an organization's index
// takes commands, as far as the node knows. It may, though nothing is heard.
func (ms *Mirrors) Reaches(organizationID string) bool {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	l := ms.linkOf(organizationID)
	return l == nil || l.up || l.reachable
}

// linkOf is the link that hears of an organization; nil when it is not known.
// The caller holds ms.mu.
func (ms *Mirrors) linkOf(organizationID string) *link {
	if m := ms.mirrors[organizationID]; m != nil && m.link != nil {
		return m.link
	}
	return ms.links[""]
}

// AsOf is Mirror.AsOf of an organization. Without a mirror that shows anything,
// whoever knows a position has just counted it.
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

// heardAt is the last moment up to which a mirror has heard of all changes.
func (ms *Mirrors) heardAt(m *Mirror) time.Time {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.link == nil {
		return ms.since
	}
	return m.link.heard
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

// Lost makes the node rebuild an organization's index that a change did not
// find. What was committed before is in the database that it is built from.
func (ms *Mirrors) Lost(organizationID string) { ms.loadLost(ms.hold(organizationID, 0)) }

// Drop deletes the index of an organization that is no more.
func (ms *Mirrors) Drop(ctx context.Context, organizationID string) error {
	ms.mu.Lock()
	if m := ms.mirrors[organizationID]; m != nil {
		ms.forget(m)
	}
	ms.mu.Unlock()
	return ms.index.drop(ctx, organizationID)
}

// forget lets go of a mirror. The caller holds ms.mu.
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

// Run feeds the mirrors and keeps the index right until ctx ends.
func (ms *Mirrors) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, clustered := ms.rdb.(*redis.ClusterClient)
	ms.mu.Lock()
	ms.ctx = ctx
	if !clustered {
		ms.start(newLink(ms, "", ms.rdb))
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
