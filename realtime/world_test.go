package realtime_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking/queue"
	"nowserving/booking/store/storetest"
	"nowserving/models"
	"nowserving/realtime"
)

func TestMain(m *testing.M) {
	// The client library lets go of an answered command only after 5 seconds.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1"))
}

const (
	organization = "org1"
	typeID       = "type1"
	minutes      = 7
	patience     = time.Minute
)

// backends are the kinds of Redis everything is tested on.
var backends = map[string]func(t *testing.T) string{
	"miniredis": func(t *testing.T) string { return miniredis.RunT(t).Addr() },
	"redis":     func(t *testing.T) string { return address(storetest.Redis(t)) },
}

func address(s *storetest.RedisServer) string {
	return strings.TrimSuffix(strings.TrimPrefix(s.URL, "redis://"), "/0")
}

// world plays the database and everything else around the hub: it is the
// queue's Truth and the hub's Source, and says what is right.
type world struct {
	t     testing.TB
	rdb   *redis.Client
	index *queue.Index

	mu        sync.Mutex
	seq       int64
	order     []string
	bookings  map[string]*models.Booking
	resources map[string][]string // of a booking
	clients   map[string]realtime.Client
	screens   map[string][]string
	// beforeAnswer runs in Booking between reading and answering.
	beforeAnswer func(bookingID string)
	failStates   int         // so many calls of States fail
	failBooking  error       // what Booking fails with
	stuck        bool        // Booking answers when its context ends
	tokens       chan string // those asked about
	statesAsked  int
}

func newWorld(t testing.TB, redisAddress string) *world {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: redisAddress})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	w := &world{
		t: t, rdb: rdb,
		bookings: map[string]*models.Booking{}, resources: map[string][]string{},
		clients: map[string]realtime.Client{}, screens: map[string][]string{}, tokens: make(chan string, 1000),
	}
	w.index = queue.NewIndex(rdb, w, quiet())
	return w
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// node is one process of the service, as far as this package is concerned.
type node struct {
	hub     *realtime.Hub
	mirrors *queue.Mirrors
	server  *httptest.Server
	url     string
	stop    func()
	// front answers at url: the hub, unless the test puts another there.
	front atomic.Pointer[http.Handler]
}

// put lets another handler answer at the node's address.
func (n *node) put(h http.Handler) { n.front.Store(&h) }

// node starts a hub with its mirrors and a server in front. Options left zero
// get what the test needs.
func (w *world) node(o realtime.Options) *node {
	w.t.Helper()
	o.Mirrors = queue.NewMirrors(w.index, time.Now, quiet())
	o.Source, o.Version = w, "test"
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SocketBuffer == 0 {
		o.SocketBuffer = 1 // so that a client that does not read shows soon
	}
	if o.Log == nil {
		o.Log = quiet()
	}
	n := &node{mirrors: o.Mirrors, hub: realtime.New(o)}
	n.put(n.hub)
	n.server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		(*n.front.Load()).ServeHTTP(rw, r)
	}))
	n.server.Start()
	n.url = "ws" + strings.TrimPrefix(n.server.URL, "http") + "/connection/websocket"
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { o.Mirrors.Run(ctx) })
	require.Eventually(w.t, o.Mirrors.Linked, patience, time.Millisecond)
	n.stop = sync.OnceFunc(func() {
		down, cancelDown := context.WithTimeout(ctx, patience)
		defer cancelDown()
		require.NoError(w.t, n.hub.Shutdown(down))
		cancel()
		running.Wait()
		n.server.Close()
	})
	w.t.Cleanup(n.stop)
	return n
}

// join makes a booking that waits for resources.
func (w *world) join(resources ...string) string {
	w.mu.Lock()
	w.seq++
	now := time.Now()
	b := &models.Booking{
		Seq: w.seq, ID: fmt.Sprintf("b%d", w.seq), OrganizationID: organization, TypeID: typeID,
		Status: models.StatusPendingAssignment, Stage: models.StageWaiting,
		Ticket: fmt.Sprintf("A%03d", w.seq), Version: 1, CreatedAt: now, UpdatedAt: now,
	}
	slices.Sort(resources)
	w.bookings[b.ID], w.resources[b.ID] = b, resources
	w.order = append(w.order, b.ID)
	entry, event := w.entry(b), models.EventOf(models.EventNewPending, b)
	w.mu.Unlock()
	w.put(entry, &event)
	return b.ID
}

func (w *world) put(entry queue.Entry, event *models.BookingEvent) {
	if _, err := w.index.Put(w.t.Context(), organization, entry, event); err != nil && w.t.Context().Err() == nil {
		w.t.Logf("put: %v", err)
	}
}

func (w *world) entry(b *models.Booking) queue.Entry {
	return queue.Entry{
		BookingID: b.ID, Version: b.Version, Score: queue.Score(b.Priority, b.Seq),
		Ticket: b.Ticket, TypeID: b.TypeID, Resources: w.resources[b.ID],
	}
}

// do changes a booking, in the database and then in the index. It reports
// whether the action was legal.
func (w *world) do(action models.Action, id string, resourceID ...string) bool {
	event, entry, ok := w.change(action, id, resourceID...)
	if ok {
		w.publish(event, entry)
	}
	return ok
}

// change changes the database only.
func (w *world) change(action models.Action, id string, resourceID ...string) (*models.BookingEvent, *queue.Entry, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, move := w.bookings[id], models.TransitionOf(action)
	if !slices.Contains(move.FromStatus, b.Status) || !slices.Contains(move.FromStage, b.Stage) {
		return nil, nil, false
	}
	b.Status, b.Stage, b.UpdatedAt = move.Status, move.Stage, time.Now()
	b.Version++
	switch action {
	case models.ActionAssign:
		b.ResourceID = &resourceID[0]
		b.LastCalledAt = new(b.UpdatedAt)
	case models.ActionRecall:
		b.LastCalledAt = new(b.UpdatedAt)
		b.RecallCount++
	default:
	}
	event := models.EventOf(move.Event, b)
	var entry *queue.Entry
	if b.Waiting() {
		entry = new(w.entry(b))
	}
	return &event, entry, true
}

func (w *world) publish(event *models.BookingEvent, entry *queue.Entry) {
	if entry != nil {
		w.put(*entry, event)
		return
	}
	if _, err := w.index.Remove(w.t.Context(), organization, event.BookingID, event.Version, event); err != nil && w.t.Context().Err() == nil {
		w.t.Logf("remove: %v", err)
	}
}

// position is what the place of a booking is, 0 when it does not wait.
func (w *world) position(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.positionLocked(id)
}

func (w *world) positionLocked(id string) int {
	b := w.bookings[id]
	if !b.Waiting() {
		return 0
	}
	best := 0
	for _, r := range w.resources[id] {
		ahead := 0
		for other, o := range w.bookings {
			if o.Waiting() && o.Seq < b.Seq && slices.Contains(w.resources[other], r) {
				ahead++
			}
		}
		if best == 0 || ahead+1 < best {
			best = ahead + 1
		}
	}
	return best
}

// Waiting implements queue.Truth.
func (w *world) Waiting(_ context.Context, _ string, each func([]queue.Entry) error) error {
	w.mu.Lock()
	var all []queue.Entry
	for _, b := range w.bookings {
		if b.Waiting() {
			all = append(all, w.entry(b))
		}
	}
	w.mu.Unlock()
	slices.SortFunc(all, func(a, b queue.Entry) int { return cmp.Compare(a.Score, b.Score) })
	return each(all)
}

// Sum implements queue.Truth.
func (w *world) Sum(context.Context, string) (queue.Sum, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum queue.Sum
	for _, b := range w.bookings {
		if b.Waiting() {
			sum.Waiting++
			sum.Weight += b.Seq * b.Version
		}
	}
	return sum, nil
}

// Lookup implements queue.Truth.
func (w *world) Lookup(_ context.Context, _ string, ids []string) ([]queue.Entry, map[string]int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var waiting []queue.Entry
	versions := map[string]int64{}
	for _, id := range ids {
		b := w.bookings[id]
		if b == nil {
			continue
		}
		if versions[id] = b.Version; b.Waiting() {
			waiting = append(waiting, w.entry(b))
		}
	}
	return waiting, versions, nil
}

// allow lets a token in.
func (w *world) allow(token string, c realtime.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients[token] = c
}

// OriginAllowed implements realtime.Source: one organization has a page of its
// own, and another has one too.
func (w *world) OriginAllowed(_ context.Context, organizationID, origin string) (bool, error) {
	switch organizationID {
	case "":
		return origin == "https://widget.example" || origin == "https://other.example" || origin == "capacitor://localhost", nil
	case organization:
		return origin == "https://widget.example" || origin == "capacitor://localhost", nil
	}
	return false, nil
}

// Authenticate implements realtime.Source: any token is good for a user of its
// name, but for a few.
func (w *world) Authenticate(ctx context.Context, token, _ string) (realtime.Client, error) {
	select {
	case w.tokens <- token:
	default:
	}
	if code, ok := strings.CutPrefix(token, "fails-"); ok {
		return realtime.Client{}, models.Errorf(models.Code(code), "a failure of the source")
	}
	switch token {
	case "expired":
		return realtime.Client{}, models.Errorf(models.CodeTokenExpired, "expired")
	case "bad":
		return realtime.Client{}, models.Errorf(models.CodeUnauthenticated, "bad")
	case "stuck":
		<-ctx.Done()
		return realtime.Client{}, ctx.Err()
	case "down":
		return realtime.Client{}, io.ErrUnexpectedEOF
	case "account":
		return realtime.Client{UserID: token}, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.clients[token]; ok {
		return c, nil
	}
	return realtime.Client{OrganizationID: organization, UserID: token, CredentialID: token}, nil
}

// Booking implements realtime.Source.
func (w *world) Booking(ctx context.Context, c realtime.Client, id string) (realtime.BookingSnapshot, error) {
	w.mu.Lock()
	if failure, stuck := w.failBooking, w.stuck; failure != nil || stuck {
		w.mu.Unlock()
		if stuck {
			<-ctx.Done()
			failure = ctx.Err()
		}
		return realtime.BookingSnapshot{}, failure
	}
	b := w.bookings[id]
	if b == nil {
		w.mu.Unlock()
		return realtime.BookingSnapshot{}, models.Errorf(models.CodeBookingNotFound, "no booking %s", id)
	}
	if c.UserID == "stranger" {
		w.mu.Unlock()
		return realtime.BookingSnapshot{}, models.Errorf(models.CodeForbidden, "not yours")
	}
	read := *b
	position, pause := w.positionLocked(id), w.beforeAnswer
	w.mu.Unlock()
	if pause != nil {
		pause(id)
	}
	return realtime.BookingSnapshot{
		OrganizationID: organization, Version: read.Version, Stage: read.Stage, Minutes: minutes, Position: position,
		Data: func(position int) (json.RawMessage, error) {
			booking := map[string]any{"id": id, "status": read.Status, "stage": read.Stage, "version": read.Version}
			if position > 0 {
				booking["queuePosition"] = position
			}
			return json.MarshalIndent(map[string]any{"type": "SNAPSHOT", "booking": booking}, "", " ")
		},
	}, nil
}

// Queue implements realtime.Source.
func (w *world) Queue(_ context.Context, _ realtime.Client, resourceID string) (realtime.QueueSnapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for id, b := range w.bookings {
		if b.Waiting() && slices.Contains(w.resources[id], resourceID) {
			total++
		}
	}
	data, err := json.Marshal(map[string]any{"type": "SNAPSHOT", "resourceId": resourceID, "total": total})
	return realtime.QueueSnapshot{OrganizationID: organization, Data: data}, err
}

// Display implements realtime.Source.
func (w *world) Display(_ context.Context, _ realtime.Client, id string) (realtime.DisplaySnapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	resources, ok := w.screens[id]
	if !ok {
		return realtime.DisplaySnapshot{}, models.Errorf(models.CodeDisplayMissing, "no display %s", id)
	}
	return realtime.DisplaySnapshot{OrganizationID: organization, ResourceIDs: resources}, nil
}

// States implements realtime.Source.
func (w *world) States(_ context.Context, _ string, ids []string) ([]models.BookingEvent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.statesAsked++
	if w.failStates > 0 {
		w.failStates--
		return nil, io.ErrUnexpectedEOF
	}
	var events []models.BookingEvent
	for _, id := range ids {
		if b := w.bookings[id]; b != nil {
			events = append(events, models.StateEvent(b))
		}
	}
	return events, nil
}

// Calls implements realtime.Source.
func (w *world) Calls(context.Context, string) ([]models.BookingEvent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var calls []models.BookingEvent
	for _, b := range w.bookings {
		if b.LastCalledAt != nil {
			calls = append(calls, models.StateEvent(b))
		}
	}
	slices.SortFunc(calls, func(a, b models.BookingEvent) int {
		return cmp.Or(b.CalledAt.Compare(*a.CalledAt), cmp.Compare(a.BookingID, b.BookingID))
	})
	return calls[:min(50, len(calls))], nil
}

// Resources implements realtime.Source.
func (w *world) Catalogue(context.Context, string, bool) (realtime.Catalogue, error) {
	return realtime.Catalogue{Resources: map[string]realtime.Resource{
		"r1": {Name: "Room 1", Translations: models.Translation{En: "Room 1", Ar: "غرفة ١"}},
		"r2": {Name: "Room 2"},
		"r3": {Name: "Room 3"},
	}}, nil
}
