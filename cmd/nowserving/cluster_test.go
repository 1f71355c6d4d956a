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
)

const (
	// healTime is how long after the end of a fault a client may show
	// something wrong.
	healTime = 5 * time.Second
	// onItsWay is how long a position may take to a phone on a busy machine.
	onItsWay = 1500 * time.Millisecond
	// betweenChanges and betweenReads set the pace of a ward.
	betweenChanges = 150 * time.Millisecond
	betweenReads   = 50 * time.Millisecond
)

// ward is a clinic on two nodes in processes of their own, at work while
// something breaks: patients join, are taken and leave one at a time, the
// published SDK watches every booking, and each node is asked over HTTP where
// bookings stand. Every answer is held against what may have been true when it
// was given.
type ward struct {
	t          *testing.T
	nodes      []*process
	database   string
	typeID     string
	resourceID string
	size       int // about how many wait
	past       past
	// grace is how old an unmarked answer may be: 0, unless the fault loses
	// changes on their way to the index.
	grace atomic.Int64

	turn sync.Mutex // held during a change
	out  []bool     // nodes that get no changes

	mu       sync.Mutex
	phones   map[string]*visitor
	promised map[string]string // stage that was acknowledged, by booking
	readings []reading

	over   atomic.Bool
	stop   context.CancelFunc
	work   sync.WaitGroup
	change sync.WaitGroup
	rest   context.CancelFunc // ends the changes
}

// reading counts what a node answered.
type reading struct{ live, marked, refused int }

// openWard starts two nodes, each with settings of its own, and lets some
// patients wait. database is the PostgreSQL behind both.
func openWard(t *testing.T, size int, database string, redisURLs ...string) *ward {
	t.Helper()
	w := &ward{
		t: t, size: size, database: database, out: make([]bool, 2), readings: make([]reading, 2),
		phones: map[string]*visitor{}, promised: map[string]string{},
	}
	for i := range 2 {
		w.nodes = append(w.nodes, startProcess(t, []string{
			"DATABASE_URL=" + database, "REDIS_URL=" + redisURLs[i%len(redisURLs)], "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef",
		}))
	}
	w.typeID, w.resourceID = w.nodes[0].clinic()
	w.nodes[1].appID = w.nodes[0].appID
	w.past.begin(nil)
	w.past.end()
	for range size {
		w.join(0)
	}
	w.agree(w.past.now(), 20*time.Second)

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	w.stop = stop
	t.Cleanup(func() {
		w.over.Store(true)
		stop()
		w.work.Wait()
		w.change.Wait()
		for _, v := range w.phones {
			v.client.Close()
		}
	})
	for i := range w.nodes {
		w.work.Go(func() { w.read(ctx, i) })
	}
	changing, rest := context.WithCancel(ctx)
	w.rest = rest
	w.change.Go(func() {
		for pause(changing, betweenChanges) {
			w.alter()
		}
	})
	return w
}

// pause waits. It returns false when ctx ends first.
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

// last lets the ward work on while a fault lasts.
func (w *ward) last(d time.Duration) { pause(w.t.Context(), d) }

// alter makes one change, through a node that is there.
func (w *ward) alter() {
	w.turn.Lock()
	defer w.turn.Unlock()
	var there []int
	for i := range w.nodes {
		if !w.out[i] {
			there = append(there, i)
		}
	}
	node := there[rand.IntN(len(there))]
	order := w.past.now()
	switch {
	case len(order) < w.size/2 || len(order) < 2*w.size && rand.IntN(2) == 0:
		w.join(node)
	case rand.IntN(3) == 0:
		w.end(node, rand.IntN(len(order)), "/management/bookings/cancel", "LEFT")
	default:
		w.end(node, 0, "/management/bookings/assign", "CALLED")
	}
}

// join lets a patient join through a node, and watch.
func (w *ward) join(node int) {
	order := w.past.now()
	w.past.begin(append(slices.Clone(order), ""))
	status, body, err := w.nodes[node].try("PUT", "/management/scheduling/new", map[string]any{"type": w.typeID, "assign": false, "assignmentTimeout": 180})
	var answer struct{ ID, TicketToken string } // it comes without an envelope
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.ID == "" {
		w.findOut()
		return
	}
	id := answer.ID
	w.past.correct(append(slices.Clone(order), id))
	w.past.end()
	w.mu.Lock()
	w.promised[id] = "WAITING"
	w.mu.Unlock()
	w.watch(id, answer.TicketToken)
}

// end takes a patient out of the queue.
func (w *ward) end(node, place int, path, stage string) {
	order := w.past.now()
	id := order[place]
	w.past.begin(slices.Delete(slices.Clone(order), place, place+1))
	status, _, err := w.nodes[node].try("POST", path, map[string]any{"bookingId": id, "resourceId": w.resourceID})
	if err != nil || status != http.StatusOK {
		w.findOut()
		if slices.Contains(w.past.now(), id) {
			return // not done, as far as anybody was told
		}
	} else {
		w.past.end()
	}
	w.mu.Lock()
	w.promised[id] = stage
	w.mu.Unlock()
}

// findOut asks the database what became of a change that was not acknowledged.
func (w *ward) findOut() {
	var before []string
	for asked := 0; asked < 2; {
		order, err := w.truth()
		switch {
		case w.over.Load():
			return
		case err != nil:
		case asked == 0 || slices.Equal(order, before):
			asked++
		}
		before = order
		pause(context.WithoutCancel(w.t.Context()), 300*time.Millisecond) // a commit may be on its way
	}
	w.past.correct(before)
	w.past.end()
}

// truth is the queue as the database has it.
func (w *ward) truth() ([]string, error) {
	rows, err := w.query("SELECT id, '' FROM bookings WHERE organization_id = $1 AND stage = 'WAITING' ORDER BY priority DESC, seq")
	order := make([]string, len(rows))
	for i := range rows {
		order[i] = rows[i][0]
	}
	return order, err
}

func (w *ward) query(sql string) ([][2]string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // it may be gone, which is what is tested
	rows, err := conn.Query(ctx, sql, w.nodes[0].appID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (pair [2]string, err error) {
		err = row.Scan(&pair[0], &pair[1])
		return pair, err
	})
}

// place is a position as it is told.
type place struct {
	QueuePosition           int
	QueuePositionAgeSeconds *float64
}

func (p place) age() time.Duration {
	if p.QueuePositionAgeSeconds == nil {
		return 0
	}
	// It is rounded to a tenth.
	return time.Duration((*p.QueuePositionAgeSeconds + 0.1) * float64(time.Second))
}

// read asks a node again and again where somebody stands.
func (w *ward) read(ctx context.Context, node int) {
	for pause(ctx, betweenReads) {
		order := w.past.now()
		id := order[rand.IntN(len(order))]
		if id == "" {
			continue // is joining
		}
		asked := time.Now()
		status, body, err := w.nodes[node].try("GET", "/management/bookings/"+id, nil)
		answered := time.Now()
		var answer struct{ Result place }
		w.mu.Lock()
		r := &w.readings[node]
		switch {
		case err != nil || status != http.StatusOK:
			r.refused++
			w.mu.Unlock()
			continue
		case json.Unmarshal(body, &answer) != nil:
			w.t.Errorf("unreadable: %s", body)
		case answer.Result.QueuePositionAgeSeconds != nil:
			r.marked++
		default:
			r.live++
		}
		w.mu.Unlock()
		told := answer.Result
		if !w.past.could(id, told.QueuePosition, asked.Add(-told.age()-time.Duration(w.grace.Load())), answered) && !w.over.Load() {
			w.t.Errorf("node %d answered at %s that %s is at %d, age %v: not so since %s",
				node, answered.Format(time.StampMilli), id, told.QueuePosition, told.age(), asked.Format(time.StampMilli))
		}
	}
}

// answers is what a node has answered so far.
func (w *ward) answers(node int) reading {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.readings[node]
}

// visitor is a patient's phone, which goes to the other node when one is gone.
type visitor struct {
	mu       sync.Mutex
	position int
	stage    string // of the snapshot
	events   map[string]int
	client   *centrifuge.Client
}

func (w *ward) watch(id, token string) {
	urls := make([]string, len(w.nodes))
	for i, n := range w.nodes {
		urls[i] = "ws" + strings.TrimPrefix(n.url, "http") + "/connection/websocket"
	}
	v := &visitor{events: map[string]int{}}
	v.client = centrifuge.NewJsonClient(strings.Join(urls, ","), centrifuge.Config{
		Token: token, MinReconnectDelay: 20 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond,
	})
	sub, err := v.client.NewSubscription("booking:"+id, centrifuge.SubscriptionConfig{
		MinResubscribeDelay: 20 * time.Millisecond, MaxResubscribeDelay: 500 * time.Millisecond,
	})
	if err != nil {
		w.t.Error(err)
		return
	}
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		var snapshot struct {
			Booking struct {
				place
				Stage string
			}
		}
		if err := json.Unmarshal(e.Data, &snapshot); err != nil {
			w.t.Error(err)
		}
		v.mu.Lock()
		v.stage = snapshot.Booking.Stage
		v.mu.Unlock()
		w.told(id, v, snapshot.Booking.place, string(e.Data))
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var data struct {
			place
			Type string
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			w.t.Error(err)
		}
		if data.Type == "QUEUE_POSITION_UPDATED" {
			w.told(id, v, data.place, string(e.Data))
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.events[data.Type]++
	})
	w.mu.Lock()
	w.phones[id] = v
	w.mu.Unlock()
	v.client.Connect() //nolint:errcheck // it tries again by itself
	if err := sub.Subscribe(); err != nil {
		w.t.Error(err)
	}
}

func (w *ward) told(id string, v *visitor, p place, text string) {
	now := time.Now()
	v.mu.Lock()
	v.position = p.QueuePosition
	v.mu.Unlock()
	if !w.past.could(id, p.QueuePosition, now.Add(-p.age()-onItsWay-time.Duration(w.grace.Load())), now) && !w.over.Load() {
		w.t.Errorf("the phone of %s was told %d at %s, age %v: %.60s", id, p.QueuePosition, now.Format(time.StampMilli), p.age(), text)
	}
}

// agree waits until every phone shows its place in an order.
func (w *ward) agree(order []string, within time.Duration) {
	w.t.Helper()
	deadline := time.Now().Add(within)
	for wrong := w.wrong(order); wrong != ""; wrong = w.wrong(order) {
		require.False(w.t, time.Now().After(deadline), "%s, still after %v", wrong, within)
		w.last(10 * time.Millisecond)
	}
}

// wrong says what a phone shows that is not so, or nothing.
func (w *ward) wrong(order []string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, id := range order {
		v := w.phones[id]
		if v == nil {
			continue // its join was never answered
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

// heals requires that every phone shows what the database says soon after the
// fault has ended.
func (w *ward) heals(ended time.Time, within time.Duration) {
	w.t.Helper()
	w.rest()
	w.change.Wait()
	order, err := w.truth()
	require.NoError(w.t, err)
	require.Equal(w.t, order, w.past.now(), "what was acknowledged is what the database has")
	left := max(time.Until(ended.Add(within)), time.Second)
	w.agree(order, left)
	w.t.Logf("right again %v after the fault at the latest", time.Since(ended).Round(10*time.Millisecond))
}

// closes requires that the ward is at work again, that nothing acknowledged was
// lost and nobody was told twice.
func (w *ward) closes() {
	w.t.Helper()
	for range 10 {
		w.alter()
	}
	w.agree(w.past.now(), healTime)
	rows, err := w.query("SELECT id, stage FROM bookings WHERE organization_id = $1")
	require.NoError(w.t, err)
	stages := map[string]string{}
	for _, row := range rows {
		stages[row[0]] = row[1]
	}
	for id, stage := range w.promised {
		require.Equal(w.t, stage, stages[id], "of booking %s, as it was acknowledged", id)
	}
	news := map[string]string{"CALLED": "MY_BOOKING_ASSIGNED", "LEFT": "MY_BOOKING_CANCELED"}
	require.Eventually(w.t, func() bool {
		for id, v := range w.phones {
			v.mu.Lock()
			knows := stages[id] == "WAITING" || v.stage == stages[id] || v.events[news[stages[id]]] > 0
			v.mu.Unlock()
			if !knows {
				return false
			}
		}
		return true
	}, healTime, 20*time.Millisecond, "a phone does not know how its booking ended")
	for id, v := range w.phones {
		v.mu.Lock()
		require.LessOrEqual(w.t, v.events["MY_BOOKING_ASSIGNED"], 1, "the phone of %s", id)
		v.mu.Unlock()
	}
	for i := range w.nodes {
		w.t.Logf("node %d: %+v", i, w.answers(i))
	}
}

// past is the queue as it was over time. States follow each other one by one,
// each from some moment between the sending of the change that brings it and
// the answer.
type past struct {
	mu     sync.Mutex
	states []pastState
}

type pastState struct {
	order          []string
	sent, answered time.Time // answered is zero while the change is under way
}

// begin adds the state that a change will bring if it succeeds.
func (p *past) begin(order []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states = append(p.states, pastState{order: order, sent: time.Now()})
}

// correct says what the change really brought.
func (p *past) correct(order []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states[len(p.states)-1].order = order
}

func (p *past) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states[len(p.states)-1].answered = time.Now()
}

// now is the order of the last state.
func (p *past) now() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.states[len(p.states)-1].order
}

// could reports whether a booking may have had a position at a moment between
// from and to. Position 0 means that it did not wait.
func (p *past) could(id string, position int, from, to time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.states) - 1; i >= 0; i-- {
		if p.states[i].sent.After(to) {
			continue
		}
		if slices.Index(p.states[i].order, id)+1 == position {
			return true
		}
		if answered := p.states[i].answered; !answered.IsZero() && answered.Before(from) {
			return false // it was there all the time
		}
	}
	return false
}
