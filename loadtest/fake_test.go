package loadtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// message is the data of one publication.
type message = map[string]any

// fakeServer implements the API over real HTTP and WebSocket, with the simplest queue: one
// list for each type. Its hooks plant faults; they are set before the first request.
type fakeServer struct {
	t   *testing.T
	url string

	// tamper, if set, returns what is published instead of a message.
	tamper func(b *fakeBooking, m message) []message
	// refuse, if set, may answer a request with a status other than zero.
	refuse func(path string, body fakeRequest) (status int)
	// spoilJoin changes the response to a join, spoilSnapshot the booking in a snapshot.
	spoilJoin, spoilSnapshot func(b *fakeBooking, shown message)
	// ping is the ping interval announced to clients. Default 25 s. The fake pings with every
	// publication and at no other time.
	ping time.Duration
	// recallAfter is the time before a patient may be called again.
	recallAfter time.Duration
	// quiet is the time before an assign request is handled.
	quiet time.Duration
	// backAtTheEnd lets a returning patient wait behind all others.
	backAtTheEnd bool
	// lastIsNext calls the last patient of a queue as the next one.
	lastIsNext bool

	mu        sync.Mutex
	changed   *sync.Cond // broadcast when a client subscribes
	serial    int
	types     map[string]*fakeType
	bookings  map[string]*fakeBooking
	tokens    []string // presented to connect
	pongs     int
	tenants   map[string]bool
	onceKeys  map[string]bool
	phones    map[string]bool   // phones that have signed in
	resources map[string]string // id → type
	handlers  sync.WaitGroup
	closing   chan struct{}
	close     sync.Once
}

// fakeRequest has the fields of every request.
type fakeRequest struct {
	Minutes    int      `json:"minutes"`
	Types      []string `json:"types"`
	Type       string   `json:"type"`
	BookingID  string   `json:"bookingId"`
	ResourceID string   `json:"resourceId"`
	Phone      string   `json:"phoneNumber"`
	Code       string   `json:"code"`
}

type fakeType struct {
	id      string
	minutes int
	waiting []*fakeBooking
}

type fakeBooking struct {
	id, ticket, token, stage, status, resource string
	kind                                       *fakeType
	subscribers                                map[*fakeConn]bool
	connections                                int
	pushes                                     int // positions pushed so far
	was                                        int // the position before the last change
	turn                                       int
	called                                     time.Time
	recalls                                    int
}

const (
	fakeKey  = "account-key"
	fakeCode = "123456"
)

func newFake(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{
		t:         t,
		types:     map[string]*fakeType{},
		bookings:  map[string]*fakeBooking{},
		tenants:   map[string]bool{},
		onceKeys:  map[string]bool{},
		phones:    map[string]bool{},
		resources: map[string]string{},
		closing:   make(chan struct{}),
	}
	s.changed = sync.NewCond(&s.mu)
	mux := http.NewServeMux()
	mux.HandleFunc("/connection/websocket", s.serveLive)
	mux.HandleFunc("/management/", s.serveAPI)
	mux.HandleFunc("/customer/", s.serveAPI)
	mux.HandleFunc("/auth/otp/", s.serveAPI)
	server := httptest.NewServer(mux)
	s.url = server.URL
	t.Cleanup(func() {
		s.close.Do(func() { close(s.closing) })
		server.Close()
		s.handlers.Wait()
	})
	return s
}

func (s *fakeServer) id(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s%d", prefix, s.serial)
}

func (s *fakeServer) serveAPI(w http.ResponseWriter, r *http.Request) {
	var body fakeRequest
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if s.refuse != nil {
		if status := s.refuse(r.URL.Path, body); status != 0 {
			problem(w, status, "PLANTED")
			return
		}
	}
	if s.quiet > 0 && r.URL.Path == "/management/bookings/assign" {
		if err := client.Pause(r.Context(), s.quiet); err != nil {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known(r, body) {
		problem(w, http.StatusUnauthorized, "AUT-REQUIRED")
		return
	}
	if r.URL.Path != "/management/organizations" && !s.tenants[r.Header.Get("X-APP-ID")] {
		problem(w, http.StatusForbidden, "AUT-FORBIDDEN")
		return
	}
	once := r.Header.Get("Idempotency-Key")
	if once == "" || s.onceKeys[once] {
		problem(w, http.StatusUnprocessableEntity, "KEY")
		return
	}
	s.onceKeys[once] = true
	switch r.Method + " " + r.URL.Path {
	case "POST /management/organizations":
		id := s.id("org")
		s.tenants[id] = true
		answer(w, message{"result": message{"id": id}})
	case "POST /management/types":
		k := &fakeType{id: s.id("type"), minutes: body.Minutes}
		s.types[k.id] = k
		answer(w, message{"result": message{"id": k.id, "minutes": k.minutes}})
	case "POST /management/resources":
		id := s.id("res")
		s.resources[id] = body.Types[0]
		answer(w, message{"result": message{"id": id}})
	case "PUT /management/scheduling/new":
		answer(w, s.join(body))
	case "PUT /customer/scheduling/new":
		answer(w, message{"result": s.join(body)})
	case "POST /auth/otp/request":
		answer(w, message{"result": message{}})
	case "POST /auth/otp/verify":
		if body.Code != fakeCode || s.phones[body.Phone] {
			problem(w, http.StatusBadRequest, "AUT-CODE")
			return
		}
		s.phones[body.Phone] = true
		answer(w, message{"accessToken": "signed-in"})
	default:
		b := s.bookings[body.BookingID]
		if b == nil {
			problem(w, http.StatusNotFound, "BKS-NOT_FOUND")
			return
		}
		if code := s.move(b, path.Base(r.URL.Path), body); code != "" {
			problem(w, http.StatusConflict, code)
			return
		}
		answer(w, message{"result": b.show()})
	}
}

// known reports whether the caller may make the request.
func (s *fakeServer) known(r *http.Request, body fakeRequest) bool {
	by := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case strings.HasPrefix(r.URL.Path, "/auth/"):
		return true
	case r.URL.Path == "/customer/scheduling/new":
		return by == "signed-in"
	case strings.HasPrefix(r.URL.Path, "/customer/"):
		b := s.bookings[body.BookingID]
		return b != nil && by == b.token
	}
	return by == fakeKey
}

func (s *fakeServer) join(body fakeRequest) message {
	k := s.types[body.Type]
	// Numbered in the order of the joins, so a test can name one.
	b := &fakeBooking{id: fmt.Sprintf("booking%d", len(s.bookings)+1), kind: k, stage: "WAITING", status: "PENDING_ASSIGNMENT", subscribers: map[*fakeConn]bool{}, turn: len(s.bookings)}
	b.ticket, b.token = "A"+b.id, "token-"+b.id
	s.bookings[b.id] = b
	k.waiting = append(k.waiting, b)
	shown := b.show()
	shown["ticketToken"] = b.token
	if s.spoilJoin != nil {
		s.spoilJoin(b, shown)
	}
	return shown
}

func (s *fakeServer) move(b *fakeBooking, verb string, body fakeRequest) (code string) {
	switch verb {
	case "assign":
		// If a patient were called before its connection is open, what the tests expect would
		// depend on timing.
		for len(b.kind.connected()) < len(b.kind.waiting) && !s.closed() {
			s.changed.Wait()
		}
		resource := body.ResourceID
		if b.stage != "WAITING" || s.resources[resource] != b.kind.id {
			return "SCH-ALREADY_ASSIGNED"
		}
		b.stage, b.status, b.resource, b.called = "CALLED", "CONFIRMED", resource, time.Now()
		s.leave(b, message{"type": "MY_BOOKING_ASSIGNED", "bookingStatus": b.status, "resourceId": resource, "ticket": b.ticket})
	case "start":
		b.stage = "SERVING"
		s.publish(b, message{"type": "BOOKING_UPDATED", "bookingStatus": b.status, "stage": b.stage})
	case "end":
		b.stage = "DONE"
		s.publish(b, message{"type": "MY_BOOKING_ENDED", "bookingStatus": b.status, "stage": b.stage})
	case "noShow":
		b.stage = "NO_SHOW"
		s.publish(b, message{"type": "MY_BOOKING_ENDED", "bookingStatus": b.status, "stage": b.stage})
	case "recall":
		if time.Since(b.called) < s.recallAfter {
			return "QUE-RECALL_TOO_SOON"
		}
		b.called = time.Now()
		b.recalls++
		s.publish(b, message{"type": "MY_BOOKING_CALLED", "resourceId": b.resource, "ticket": b.ticket, "recallCount": b.recalls})
	case "hold":
		b.stage = "HELD"
		s.leave(b, message{"type": "BOOKING_UPDATED", "bookingStatus": b.status, "stage": b.stage})
	case "return":
		b.stage = "WAITING"
		place := slices.IndexFunc(b.kind.waiting, func(other *fakeBooking) bool { return other.turn > b.turn })
		if place < 0 || s.backAtTheEnd {
			place = len(b.kind.waiting)
		}
		b.kind.waiting = slices.Insert(b.kind.waiting, place, b)
		s.publish(b, message{"type": "BOOKING_UPDATED", "bookingStatus": b.status, "stage": b.stage})
		s.publishFrom(b.kind, place, -1)
	case "cancel":
		b.stage, b.status = "LEFT", "CANCELED"
		s.leave(b, message{"type": "MY_BOOKING_CANCELED", "bookingStatus": b.status})
	default:
		return "UNKNOWN"
	}
	return ""
}

func (s *fakeServer) closed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

func (s *fakeServer) leave(b *fakeBooking, truth message) {
	place := slices.Index(b.kind.waiting, b)
	if place >= 0 {
		b.kind.waiting = slices.Delete(b.kind.waiting, place, place+1)
	}
	s.publish(b, truth)
	if place >= 0 {
		s.publishFrom(b.kind, place, 1)
	}
}

// publishFrom publishes the positions from an index on. All differ by the same number from
// those before.
func (s *fakeServer) publishFrom(k *fakeType, place, by int) {
	for i, behind := range k.waiting[place:] {
		position := place + i + 1
		behind.was = position + by
		s.publish(behind, message{"type": "QUEUE_POSITION_UPDATED", "queuePosition": position, "estimatedWaitMinutes": position * k.minutes})
	}
}

func (s *fakeServer) publish(b *fakeBooking, m message) {
	m["via"], m["bookingId"] = "scheduling-system", b.id
	if m["type"] == "QUEUE_POSITION_UPDATED" {
		b.pushes++
	}
	list := []message{m}
	if s.tamper != nil {
		list = s.tamper(b, m)
	}
	for _, m := range list {
		s.deliver(b, m)
	}
}

func (s *fakeServer) deliver(b *fakeBooking, m message) {
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	for c := range b.subscribers {
		c.send(&protocol.Reply{Push: &protocol.Push{Channel: "booking:" + b.id, Pub: &protocol.Publication{Data: data}}})
	}
}

// deliverAfter delivers a message later.
func (s *fakeServer) deliverAfter(d time.Duration, b *fakeBooking, m message) {
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.deliver(b, m)
	})
}

// cut closes every connection of a booking. The caller holds the lock.
func (s *fakeServer) cut(b *fakeBooking, code websocket.StatusCode) {
	for c := range b.subscribers {
		delete(b.subscribers, c)
		c.finish(code)
	}
}

func (k *fakeType) connected() []*fakeBooking {
	return slices.Collect(func(yield func(*fakeBooking) bool) {
		for _, b := range k.waiting {
			if len(b.subscribers) > 0 && !yield(b) {
				return
			}
		}
	})
}

func (b *fakeBooking) show() message {
	m := message{"id": b.id, "ticket": b.ticket, "stage": b.stage, "status": b.status}
	if b.resource != "" {
		m["resourceId"] = b.resource
	}
	if b.stage == "WAITING" {
		position := 1 + slices.Index(b.kind.waiting, b)
		m["queuePosition"], m["estimatedWaitMinutes"] = position, position*b.kind.minutes
	}
	return m
}

func answer(w http.ResponseWriter, body message) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func problem(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	answer(w, message{"code": code, "detail": "no", "errors": []message{{"field": "f", "message": "m"}}})
}

// fakeConn is one live connection of the fake server.
type fakeConn struct {
	kind protocol.Type
	ws   *websocket.Conn
	out  chan []byte
	over chan websocket.StatusCode // gets the close code once
}

// send is called with the server's lock held, so replies and pushes keep their order.
func (c *fakeConn) send(r *protocol.Reply) {
	data, err := c.encode(r)
	if err != nil {
		panic(err)
	}
	c.out <- data
}

func (c *fakeConn) encode(r *protocol.Reply) ([]byte, error) {
	var encoder protocol.ReplyEncoder = protocol.NewJSONReplyEncoder()
	if c.kind == protocol.TypeProtobuf {
		encoder = protocol.NewProtobufReplyEncoder()
	}
	data, err := encoder.Encode(r)
	if err != nil {
		return nil, err
	}
	framing := protocol.GetDataEncoder(c.kind)
	defer protocol.PutDataEncoder(c.kind, framing)
	// Some frames carry two messages, as a busy server's do.
	if r.Push != nil && r.Push.Pub != nil {
		ping, err := encoder.Encode(&protocol.Reply{})
		if err != nil {
			return nil, err
		}
		if err := framing.Encode(ping); err != nil {
			return nil, err
		}
	}
	if err := framing.Encode(data); err != nil {
		return nil, err
	}
	return framing.Finish(), nil
}

func (c *fakeConn) finish(code websocket.StatusCode) {
	select {
	case c.over <- code:
	default:
	}
}

func (s *fakeServer) serveLive(w http.ResponseWriter, r *http.Request) {
	s.handlers.Add(1)
	defer s.handlers.Done()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"centrifuge-protobuf"}})
	if err != nil {
		return
	}
	c := &fakeConn{kind: protocol.TypeJSON, ws: ws, out: make(chan []byte, 10_000), over: make(chan websocket.StatusCode, 1)}
	if r.URL.Query().Get("format") == "protobuf" {
		c.kind = protocol.TypeProtobuf
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.handlers.Go(func() { c.write(ctx, s.closing) })
	for {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			break
		}
		decoder := protocol.GetCommandDecoder(c.kind, frame)
		for {
			command, err := decoder.Decode()
			if command != nil {
				s.command(c, command)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				panic(err)
			}
		}
		protocol.PutCommandDecoder(c.kind, decoder)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bookings {
		delete(b.subscribers, c)
	}
}

func (c *fakeConn) write(ctx context.Context, closing chan struct{}) {
	kind := websocket.MessageText
	if c.kind == protocol.TypeProtobuf {
		kind = websocket.MessageBinary
	}
	for {
		select {
		case data := <-c.out:
			if c.ws.Write(ctx, kind, data) != nil {
				return
			}
		case code := <-c.over:
			for len(c.out) > 0 {
				if c.ws.Write(ctx, kind, <-c.out) != nil {
					return
				}
			}
			c.ws.Close(code, "planted") //nolint:errcheck // the client may have gone
			return
		case <-closing:
			c.ws.CloseNow() //nolint:errcheck // the client may have gone
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *fakeServer) command(c *fakeConn, command *protocol.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case command.Connect != nil:
		s.tokens = append(s.tokens, strings.Clone(command.Connect.Token))
		c.send(&protocol.Reply{Id: command.Id, Connect: &protocol.ConnectResult{Client: "c", Ping: uint32(cmp.Or(s.ping, 25*time.Second) / time.Second), Pong: true}})
	case command.Subscribe != nil:
		b := s.bookings[strings.TrimPrefix(command.Subscribe.Channel, "booking:")]
		if b == nil || s.tokens[len(s.tokens)-1] == "" {
			c.send(&protocol.Reply{Id: command.Id, Error: &protocol.Error{Code: 103, Message: "permission denied"}})
			return
		}
		shown := b.show()
		if s.spoilSnapshot != nil {
			s.spoilSnapshot(b, shown)
		}
		data, err := json.Marshal(message{"type": "SNAPSHOT", "booking": shown})
		if err != nil {
			panic(err)
		}
		c.send(&protocol.Reply{Id: command.Id, Subscribe: &protocol.SubscribeResult{Data: data}})
		b.subscribers[c] = true
		b.connections++
		s.changed.Broadcast()
	default:
		s.pongs++
	}
}

// seen returns the different tokens presented and how many pongs came.
func (s *fakeServer) seen() (tokens []string, pongs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(s.tokens))), s.pongs
}

// replayFake replays a trace against the fake.
func replayFake(t *testing.T, s *fakeServer, change func(opts *ReplayOptions)) (*report.Report, error) {
	t.Helper()
	opts := ReplayOptions{
		Trace: readTrace(t,
			"1,a,2019-11-01T08:00:00,2019-11-01T08:10:00,2019-11-01T08:20:00",
			"2,a,2019-11-01T08:00:01,2019-11-01T08:11:00,2019-11-01T08:21:00",
			"3,a,2019-11-01T08:00:02,2019-11-01T08:12:00,2019-11-01T08:22:00",
			"4,a,2019-11-01T08:00:03,2019-11-01T08:13:00,",
			"5,a,2019-11-01T08:00:04,,",
		),
		Nodes: []string{s.url},
		Key:   fakeKey,
		Speed: 1e6,
		Bound: 10 * time.Second,
	}
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return Replay(ctx, opts)
}

// mustReplay is replayFake for a replay that goes to its end.
func mustReplay(t *testing.T, s *fakeServer, change func(opts *ReplayOptions)) *report.Report {
	t.Helper()
	result, err := replayFake(t, s, change)
	require.NoError(t, err)
	return result
}
