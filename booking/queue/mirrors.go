package queue

import (
	"context"
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
	// looks is how often the sums are compared before the whole is.
	looks = 6
	// watchEvery is how often each node looks where the index of each mirror
	// stands. It bounds how long a lost index goes unnoticed.
	watchEvery = time.Second
	// compareEvery is how often each mirrored organization's index is compared
	// with the database, by one of the nodes.
	compareEvery = 2 * time.Second
	// wholeEvery is how often everything is compared, though nothing seems to
	// differ: the sorted sets may have been changed behind our back.
	wholeEvery = 15 * time.Second
	// idleLife is how long a mirror is kept when nobody looks at it.
	idleLife = 10 * time.Minute
	// truthEvery is how often mirrors are read from the database while Redis
	// is away, and truthShare bounds the share of the time that this takes.
	truthEvery = time.Second
	truthShare = 5
	// loadTimeout bounds one attempt to compare and read an index.
	loadTimeout = 30 * time.Second
	// reloadSpread is the time over which nodes read the index anew after Redis
	// was away, for they all notice at the same moment that it is back.
	reloadSpread = time.Second
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
	ms.loads.Go(func() { ms.loading(ctx, m) })
}

// loading goes on until the mirror is loaded. Until then it shows what the
// database says.
func (ms *Mirrors) loading(ctx context.Context, m *Mirror) {
	pause := newBackoff()
	crowded := false // every node of ours is about to do the same
	for ctx.Err() == nil {
		again, lost := ms.hearing(m)
		if again == nil && crowded {
			wait(ctx, mathrand.N(reloadSpread)) //nolint:gosec // jitter, not a secret
			crowded = false
		}
		if again == nil {
			loaded, err := ms.tryLoad(ctx, m)
			if loaded {
				return
			}
			if err == nil {
				continue
			}
			if ctx.Err() == nil {
				ms.log.Warn("load the queue index", "organization", m.OrganizationID, "error", err)
			}
		}
		began := ms.now()
		if err := ms.showTruth(ctx, m); err != nil && ctx.Err() == nil {
			ms.log.Warn("read the queues from the database", "organization", m.OrganizationID, "error", err)
		}
		if again == nil {
			pause.wait(ctx)
			continue
		}
		crowded = lost
		select {
		case <-again:
		case <-time.After(max(truthEvery, truthShare*ms.now().Sub(began))):
		case <-ctx.Done():
		}
	}
}

// hearing returns nil when the changes of a mirror's organization are heard,
// and otherwise what is closed when they are, and whether they had been before.
func (ms *Mirrors) hearing(m *Mirror) (again <-chan struct{}, lost bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.isHeard() {
		return nil, false
	}
	return m.heard, m.link != nil && m.link.once
}

// read takes a token for reading one organization. It returns false when ctx
// ends first; otherwise done gives the token back.
func (ms *Mirrors) read(ctx context.Context) (done func(), ok bool) {
	select {
	case ms.reading <- struct{}{}:
		return func() { <-ms.reading }, true
	case <-ctx.Done():
		return nil, false
	}
}

// showTruth puts the mirror in order from the database alone, while Redis is
// away: live clients are told the truth every truthEvery instead of at once.
func (ms *Mirrors) showTruth(ctx context.Context, m *Mirror) error {
	done, ok := ms.read(ctx)
	if !ok {
		return nil
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	asOf := ms.now()
	state, err := ms.index.truthState(ctx, m.OrganizationID)
	if err != nil {
		return err
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	m.show(state, asOf)
	ms.listener.Loaded(m)
	return nil
}

// tryLoad makes the index right and reads it into the mirror. It returns false
// when the index changed so that it has to be read again.
func (ms *Mirrors) tryLoad(ctx context.Context, m *Mirror) (bool, error) {
	done, ok := ms.read(ctx)
	if !ok {
		return false, nil
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	m.mu.Lock()
	m.again, m.buffer = false, []*Delta{}
	m.mu.Unlock()
	from, rebuilt, err := ms.begin(ctx, m.OrganizationID)
	if err != nil {
		return false, err
	}
	state, err := ms.index.read(ctx, m.OrganizationID)
	if err != nil {
		return false, err
	}
	if !rebuilt { // otherwise the database was read a moment ago
		suspects, err := ms.index.compareState(ctx, m.OrganizationID, state)
		if err != nil {
			return false, err
		}
		if _, err = ms.index.repair(ctx, m.OrganizationID, suspects, settleSoon); err != nil {
			return false, err
		}
	}
	to, err := ms.index.moment(ctx, m.OrganizationID)
	if err != nil || to.Epoch != from.Epoch {
		return false, err
	}
	soon, cancelSoon := context.WithTimeout(ctx, currentTimeout)
	defer cancelSoon()
	if !m.arrived(soon, from, to) {
		return false, nil
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	later, ok := m.install(state, from, to)
	if !ok {
		return false, nil
	}
	ms.listener.Loaded(m)
	for _, d := range later {
		m.follow(d)
	}
	return true, nil
}

// begin returns where an index stands, which it rebuilds if it was lost.
func (ms *Mirrors) begin(ctx context.Context, organizationID string) (at Moment, rebuilt bool, err error) {
	at, err = ms.index.moment(ctx, organizationID)
	if err != nil || at.Epoch != "" {
		return at, false, err
	}
	if err = ms.index.Rebuild(ctx, organizationID); err != nil {
		return at, false, err
	}
	at, err = ms.index.moment(ctx, organizationID)
	if err == nil && at.Epoch == "" {
		err = ErrLost
	}
	return at, true, err
}

// compare looks after the mirrored organizations: the index against the
// database, the mirror against the index, and mirrors nobody needs.
func (ms *Mirrors) compare(ctx context.Context) {
	for {
		// Jitter keeps the nodes from comparing at the same moment.
		wait(ctx, watchEvery*3/4+mathrand.N(watchEvery/2)) //nolint:gosec // jitter, not a secret
		if ctx.Err() != nil {
			return
		}
		ms.attach() // those that had no link
		var comparing sync.WaitGroup
		for _, m := range ms.inUse() {
			done, ok := ms.read(ctx)
			if !ok {
				break
			}
			comparing.Go(func() {
				defer done()
				if err := ms.compareOne(ctx, m); err != nil && ctx.Err() == nil {
					ms.log.Warn("compare the queue index", "organization", m.OrganizationID, "error", err)
				}
			})
		}
		comparing.Wait()
	}
}

// inUse forgets the mirrors nobody has looked at for a while and returns the
// others.
func (ms *Mirrors) inUse() []*Mirror {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	used := make([]*Mirror, 0, len(ms.mirrors))
	for _, m := range ms.mirrors {
		if m.holders > 0 || ms.now().Sub(m.lastUsed) <= idleLife {
			used = append(used, m)
			continue
		}
		ms.forget(m)
	}
	return used
}

// compareOne looks after one organization. One node at a time compares the
// database with the index; the others trust it. What costs little, how many
// wait and with what versions, is compared every time, and everything when
// that differs, and now and then.
func (ms *Mirrors) compareOne(ctx context.Context, m *Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	if !ms.Hears(m.OrganizationID) {
		return nil // its load goes on
	}
	at, err := ms.follows(ctx, m)
	if err != nil {
		return err
	}
	if at.Epoch == "" {
		return nil // its load rebuilds the index
	}
	first, err := ms.lease(ctx, m, "compared", compareEvery*3/4)
	if err != nil || !first {
		return err
	}
	whole, err := ms.lease(ctx, m, "whole", wholeEvery)
	if !whole && err == nil {
		whole, err = ms.differs(ctx, m)
	}
	if whole && err == nil {
		_, err = ms.index.Repair(ctx, m.OrganizationID, settleTime)
	}
	return err
}

// follows returns where the index stands. A mirror that does not show it soon,
// or shows what the index has forgotten, has missed something: it is loaded.
func (ms *Mirrors) follows(ctx context.Context, m *Mirror) (Moment, error) {
	m.mu.RLock()
	before, following := m.at, m.follows()
	m.mu.RUnlock()
	at, err := ms.index.moment(ctx, m.OrganizationID)
	if err != nil || !following {
		return at, err
	}
	if at.Epoch == "" {
		ms.loadLost(m)
		return at, nil
	}
	soon, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	if before.Epoch == at.Epoch && before.Version > at.Version || !m.Await(soon, at) {
		ms.load(m)
	}
	return at, nil
}

// loadLost loads a mirror whose index was lost, unless that is under way.
func (ms *Mirrors) loadLost(m *Mirror) {
	m.mu.RLock()
	following := m.follows()
	m.mu.RUnlock()
	if following {
		ms.load(m)
	}
}

// lease says that this node, and no other for a while, is to do something.
func (ms *Mirrors) lease(ctx context.Context, m *Mirror, name string, life time.Duration) (bool, error) {
	key := keysOf(m.OrganizationID).all + name
	err := ms.rdb.SetArgs(ctx, key, "1", redis.SetArgs{Mode: "NX", TTL: life}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lease the comparison: %w", err)
	}
	return true, nil
}

// differs reports whether the database sums up to something else than the
// mirror, for longer than a change is on its way. It looks several times: while
// the queues move, some of the looks fall between two changes.
func (ms *Mirrors) differs(ctx context.Context, m *Mirror) (bool, error) {
	for look := range looks {
		if look > 0 {
			wait(ctx, settleTime/looks+mathrand.N(settleTime/looks)) //nolint:gosec // jitter, not a secret
		}
		sum, err := ms.index.truth.Sum(ctx, m.OrganizationID)
		if err != nil {
			return false, fmt.Errorf("sum up who waits: %w", err)
		}
		m.mu.RLock()
		same := !m.follows() || m.sum == sum
		m.mu.RUnlock()
		if same {
			return false, nil
		}
	}
	return true, nil
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
