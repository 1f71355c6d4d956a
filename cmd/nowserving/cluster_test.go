package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

const (
	// recoveryTime is how long after the end of a fault a client may show
	// something wrong.
	recoveryTime = 5 * time.Second
	// deliveryTime is how long a position may take to a phone on a busy machine.
	deliveryTime = 1500 * time.Millisecond
	// betweenChanges and betweenReads set the pace of a cluster.
	betweenChanges = 150 * time.Millisecond
	betweenReads   = 50 * time.Millisecond
)

// cluster is a clinic on two nodes in processes of their own while a fault lasts.
// Patients join, are called and leave one at a time, the published SDK watches every
// booking, and each node is asked for positions over HTTP. Every position must have been
// right at some moment between the question and the answer.
type cluster struct {
	t          *testing.T
	nodes      []*process
	clinics    []*nodetest.Clinic // the same one, through each node
	database   string
	typeID     string
	resourceID string
	size       int // about how many wait
	history    history
	// grace is how old an answer without an age may be: 0, unless the fault loses
	// changes before they reach the index.
	grace atomic.Int64

	changing sync.Mutex // held during a change
	excluded []bool     // nodes that get no changes

	mu           sync.Mutex
	phones       map[string]*clusterPhone
	acknowledged map[string]string // stage, by booking
	readings     []reading

	over        atomic.Bool
	readers     sync.WaitGroup
	changes     sync.WaitGroup
	stopChanges context.CancelFunc
}

// reading counts the answers of a node: without an age, with an age, and failures.
type reading struct{ live, aged, refused int }

// startCluster starts two nodes on one PostgreSQL, each with its own Redis URL, and lets
// size patients join.
func startCluster(t *testing.T, size int, database string, redisURLs ...string) *cluster {
	t.Helper()
	c := &cluster{
		t: t, size: size, database: database, excluded: make([]bool, 2), readings: make([]reading, 2),
		phones: map[string]*clusterPhone{}, acknowledged: map[string]string{},
	}
	for i := range 2 {
		c.nodes = append(c.nodes, startProcess(t, serverEnviron(database, redisURLs[i%len(redisURLs)])))
	}
	var clinic *nodetest.Clinic
	clinic, c.typeID, c.resourceID = c.nodes[0].NewQueue()
	c.clinics = []*nodetest.Clinic{clinic, clinic.Through(c.nodes[1].Node)}
	c.history.begin(nil)
	c.history.end()
	for range size {
		c.join(0)
	}
	c.awaitPositions(c.history.now(), 20*time.Second)

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() {
		c.over.Store(true)
		stop()
		c.readers.Wait()
		c.changes.Wait()
		for _, v := range c.phones {
			v.client.Close()
		}
	})
	for i := range c.nodes {
		c.readers.Go(func() { c.read(ctx, i) })
	}
	changing, stopChanges := context.WithCancel(ctx)
	c.stopChanges = stopChanges
	c.changes.Go(func() {
		for pause(changing, betweenChanges) {
			c.alter()
		}
	})
	return c
}

// pause waits. It reports false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// wait lets the cluster go on for some time.
func (c *cluster) wait(d time.Duration) { pause(c.t.Context(), d) }

// exclude decides whether a node gets no changes.
func (c *cluster) exclude(node int, excluded bool) {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.excluded[node] = excluded
}

// alter makes one change through a node that is not excluded.
func (c *cluster) alter() {
	c.changing.Lock()
	defer c.changing.Unlock()
	var available []int
	for i := range c.nodes {
		if !c.excluded[i] {
			available = append(available, i)
		}
	}
	node := available[rand.IntN(len(available))]
	order := c.history.now()
	switch {
	case len(order) < c.size/2 || len(order) < 2*c.size && rand.IntN(2) == 0:
		c.join(node)
	case rand.IntN(3) == 0:
		c.end(node, rand.IntN(len(order)), "/management/bookings/cancel", "LEFT")
	default:
		c.end(node, 0, "/management/bookings/assign", "CALLED")
	}
}

// join lets a patient join through a node, and watch.
func (c *cluster) join(node int) {
	order := c.history.now()
	c.history.begin(append(slices.Clone(order), ""))
	a, err := c.clinics[node].TryJoin(c.typeID)
	id := a.Str("id")
	if err != nil || a.Status != http.StatusOK || id == "" {
		c.resolve()
		return
	}
	c.history.correct(append(slices.Clone(order), id))
	c.history.end()
	c.mu.Lock()
	c.acknowledged[id] = "WAITING"
	c.mu.Unlock()
	c.watch(id, a.Str("ticketToken"))
}

// end removes the patient at an index from the queue.
func (c *cluster) end(node, i int, path, stage string) {
	order := c.history.now()
	id := order[i]
	c.history.begin(slices.Delete(slices.Clone(order), i, i+1))
	a, err := c.clinics[node].TryStaff(http.MethodPost, path, nodetest.Object{"bookingId": id, "resourceId": c.resourceID})
	if err != nil || a.Status != http.StatusOK {
		c.resolve()
		if slices.Contains(c.history.now(), id) {
			return // the change was not made
		}
	} else {
		c.history.end()
	}
	c.mu.Lock()
	c.acknowledged[id] = stage
	c.mu.Unlock()
}

// resolve reads from the database whether a change that was not acknowledged was made.
func (c *cluster) resolve() {
	var before []string
	for asked := 0; asked < 2; {
		order, err := c.storedOrder()
		switch {
		case c.over.Load():
			return
		case err != nil:
		case asked == 0 || slices.Equal(order, before):
			asked++
		}
		before = order
		pause(context.WithoutCancel(c.t.Context()), 300*time.Millisecond) // a commit may be under way
	}
	c.history.correct(before)
	c.history.end()
}

// storedOrder reads the queue from the database.
func (c *cluster) storedOrder() ([]string, error) {
	rows, err := c.query("SELECT id, '' FROM bookings WHERE organization_id = $1 AND stage = 'WAITING' ORDER BY priority DESC, seq")
	order := make([]string, len(rows))
	for i := range rows {
		order[i] = rows[i][0]
	}
	return order, err
}

func (c *cluster) query(sql string) ([][2]string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // the test stops the server
	rows, err := conn.Query(ctx, sql, c.clinics[0].ID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (pair [2]string, err error) {
		err = row.Scan(&pair[0], &pair[1])
		return pair, err
	})
}

// position is a position in an answer or a publication.
type position struct {
	QueuePosition           int
	QueuePositionAgeSeconds *float64
}

func (p position) age() time.Duration {
	if p.QueuePositionAgeSeconds == nil {
		return 0
	}
	// The age is rounded to a tenth.
	return time.Duration((*p.QueuePositionAgeSeconds + 0.1) * float64(time.Second))
}

// read asks a node for positions until ctx ends.
func (c *cluster) read(ctx context.Context, node int) {
	for pause(ctx, betweenReads) {
		order := c.history.now()
		id := order[rand.IntN(len(order))]
		if id == "" {
			continue // the join is under way
		}
		asked := time.Now()
		a, err := c.clinics[node].TryStaff(http.MethodGet, "/management/bookings/"+id, nil)
		answered := time.Now()
		var answer struct{ Result position }
		c.mu.Lock()
		r := &c.readings[node]
		switch {
		case err != nil || a.Status != http.StatusOK:
			r.refused++
			c.mu.Unlock()
			continue
		case json.Unmarshal(a.Raw, &answer) != nil:
			c.t.Errorf("unreadable: %s", a.Raw)
		case answer.Result.QueuePositionAgeSeconds != nil:
			r.aged++
		default:
			r.live++
		}
		c.mu.Unlock()
		shown := answer.Result
		if !c.history.possible(id, shown.QueuePosition, asked.Add(-shown.age()-time.Duration(c.grace.Load())), answered) && !c.over.Load() {
			c.t.Errorf("node %d answered at %s that %s is at %d, age %v: not right since %s",
				node, answered.Format(time.StampMilli), id, shown.QueuePosition, shown.age(), asked.Format(time.StampMilli))
		}
	}
}

// answers returns the counts of a node so far.
func (c *cluster) answers(node int) reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readings[node]
}

// clusterPhone is a patient's phone that reconnects to the other node if its own is away.
type clusterPhone struct {
	mu       sync.Mutex
	position int
	stage    string // of the snapshot
	events   map[string]int
	client   *centrifuge.Client
}

func (c *cluster) watch(id, token string) {
	urls := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		urls[i] = "ws" + strings.TrimPrefix(n.URL, "http") + "/connection/websocket"
	}
	v := &clusterPhone{events: map[string]int{}}
	v.client = centrifuge.NewJsonClient(strings.Join(urls, ","), centrifuge.Config{
		Token: token, MinReconnectDelay: 20 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond,
	})
	sub, err := v.client.NewSubscription("booking:"+id, centrifuge.SubscriptionConfig{
		MinResubscribeDelay: 20 * time.Millisecond, MaxResubscribeDelay: 500 * time.Millisecond,
	})
	if err != nil {
		c.t.Error(err)
		return
	}
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		var snapshot struct {
			Booking struct {
				position
				Stage string
			}
		}
		if err := json.Unmarshal(e.Data, &snapshot); err != nil {
			c.t.Error(err)
		}
		v.mu.Lock()
		v.stage = snapshot.Booking.Stage
		v.mu.Unlock()
		c.checkShown(id, v, snapshot.Booking.position, string(e.Data))
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var data struct {
			position
			Type string
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			c.t.Error(err)
		}
		if data.Type == "QUEUE_POSITION_UPDATED" {
			c.checkShown(id, v, data.position, string(e.Data))
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.events[data.Type]++
	})
	c.mu.Lock()
	c.phones[id] = v
	c.mu.Unlock()
	v.client.Connect() //nolint:errcheck // the client retries
	if err := sub.Subscribe(); err != nil {
		c.t.Error(err)
	}
}

// checkShown requires that a position was right shortly before the phone got it.
func (c *cluster) checkShown(id string, v *clusterPhone, p position, text string) {
	now := time.Now()
	v.mu.Lock()
	v.position = p.QueuePosition
	v.mu.Unlock()
	if !c.history.possible(id, p.QueuePosition, now.Add(-p.age()-deliveryTime-time.Duration(c.grace.Load())), now) && !c.over.Load() {
		c.t.Errorf("the phone of %s was shown %d at %s, age %v: %.60s", id, p.QueuePosition, now.Format(time.StampMilli), p.age(), text)
	}
}

// awaitPositions waits until every phone shows its position in an order.
func (c *cluster) awaitPositions(order []string, within time.Duration) {
	c.t.Helper()
	deadline := time.Now().Add(within)
	for wrong := c.mismatch(order); wrong != ""; wrong = c.mismatch(order) {
		require.False(c.t, time.Now().After(deadline), "%s, still after %v", wrong, within)
		c.wait(10 * time.Millisecond)
	}
}

// mismatch describes a phone that shows a wrong position, and is "" if there is none.
func (c *cluster) mismatch(order []string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, id := range order {
		v := c.phones[id]
		if v == nil {
			continue // its join was not acknowledged
		}
		v.mu.Lock()
		shown := v.position
		v.mu.Unlock()
		if shown != i+1 {
			return fmt.Sprintf("%s is at %d and its phone shows %d", id, i+1, shown)
		}
	}
	return ""
}

// recovers requires that every phone shows the position of the database within a time
// after the end of the fault.
func (c *cluster) recovers(ended time.Time, within time.Duration) {
	c.t.Helper()
	c.stopChanges()
	c.changes.Wait()
	order, err := c.storedOrder()
	require.NoError(c.t, err)
	require.Equal(c.t, order, c.history.now(), "what was acknowledged is what the database has")
	c.awaitPositions(order, max(time.Until(ended.Add(within)), time.Second))
	c.t.Logf("right at most %v after the end of the fault", time.Since(ended).Round(10*time.Millisecond))
}

// losesNothing requires that changes work again, that no acknowledged change was lost,
// that each phone knows how its booking ended, and that none was called twice.
func (c *cluster) losesNothing() {
	c.t.Helper()
	for range 10 {
		c.alter()
	}
	c.awaitPositions(c.history.now(), recoveryTime)
	rows, err := c.query("SELECT id, stage FROM bookings WHERE organization_id = $1")
	require.NoError(c.t, err)
	stages := map[string]string{}
	for _, row := range rows {
		stages[row[0]] = row[1]
	}
	for id, stage := range c.acknowledged {
		require.Equal(c.t, stage, stages[id], "of booking %s, as it was acknowledged", id)
	}
	events := map[string]string{"CALLED": "MY_BOOKING_ASSIGNED", "LEFT": "MY_BOOKING_CANCELED"}
	require.Eventually(c.t, func() bool {
		for id, v := range c.phones {
			v.mu.Lock()
			known := stages[id] == "WAITING" || v.stage == stages[id] || v.events[events[stages[id]]] > 0
			v.mu.Unlock()
			if !known {
				return false
			}
		}
		return true
	}, recoveryTime, 20*time.Millisecond, "a phone does not know how its booking ended")
	for id, v := range c.phones {
		v.mu.Lock()
		require.LessOrEqual(c.t, v.events["MY_BOOKING_ASSIGNED"], 1, "the phone of %s", id)
		v.mu.Unlock()
	}
	for i := range c.nodes {
		c.t.Logf("node %d: %+v", i, c.answers(i))
	}
}

// history is the queue over time. Each state begins at some moment between the request of
// its change and the answer, and ends where the next begins.
type history struct {
	mu     sync.Mutex
	states []queueState
}

type queueState struct {
	order          []string
	sent, answered time.Time // answered is zero while the change is under way
}

// begin adds the state that a change will bring if it succeeds.
func (h *history) begin(order []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, queueState{order: order, sent: time.Now()})
}

// correct sets the state that the change really brought.
func (h *history) correct(order []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[len(h.states)-1].order = order
}

// end notes that the change was answered.
func (h *history) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[len(h.states)-1].answered = time.Now()
}

// now is the order of the last state.
func (h *history) now() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[len(h.states)-1].order
}

// possible reports whether a booking may have had a position at a moment between
// from and to. Position 0 means that it did not wait.
func (h *history) possible(id string, position int, from, to time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.states) - 1; i >= 0; i-- {
		if h.states[i].sent.After(to) {
			continue
		}
		if slices.Index(h.states[i].order, id)+1 == position {
			return true
		}
		if answered := h.states[i].answered; !answered.IsZero() && answered.Before(from) {
			return false // this state lasted all the time
		}
	}
	return false
}
