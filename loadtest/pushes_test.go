package loadtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

// pushServer is a queue of phones that sends every move through FCM.
type pushServer struct {
	t   *testing.T
	url string
	fcm string
	// spoil returns what is sent instead of a push.
	spoil func(number int, push map[string]any) []map[string]any

	mu       sync.Mutex
	devices  map[string]string // by session
	line     []pushedBooking
	serial   int
	sessions int
}

type pushedBooking struct {
	id, token string
	number    int
}

func newPushFake(t *testing.T) *pushServer {
	t.Helper()
	s := &pushServer{t: t, devices: map[string]string{}}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.fcm = l.Addr().String()
	require.NoError(t, l.Close())
	mux := http.NewServeMux()
	made := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, message{"result": message{"id": "made", "minutes": visitMinutes}})
	}
	for _, path := range []string{"organizations", "types", "resources"} {
		mux.HandleFunc("POST /management/"+path, made)
	}
	mux.HandleFunc("POST /auth/otp/request", made)
	mux.HandleFunc("POST /auth/otp/verify", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sessions++
		answer(w, message{"accessToken": fmt.Sprint("session", s.sessions)})
	})
	mux.HandleFunc("POST /devices", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Token, Platform, Lang string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Platform == "" || body.Lang == "" {
			panic("a device without a platform or language")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.devices[r.Header.Get("Authorization")] = body.Token
		answer(w, message{"result": message{}})
	})
	mux.HandleFunc("PUT /customer/scheduling/new", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		number := len(s.line) + 1
		b := pushedBooking{fmt.Sprint("booking", number), s.devices[r.Header.Get("Authorization")], number}
		s.line = append(s.line, b)
		answer(w, message{"result": message{"id": b.id, "queuePosition": number}})
	})
	mux.HandleFunc("POST /management/queue/next", func(w http.ResponseWriter, _ *http.Request) { s.next(w) })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, fakeMetrics) //nolint:errcheck // the client reports a lost response
	})
	server := httptest.NewServer(mux)
	s.url = server.URL
	t.Cleanup(func() {
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// next calls the first patient and sends the pushes before it answers.
func (s *pushServer) next(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := s.line[0]
	s.line = s.line[1:]
	s.push(head, map[string]any{"type": "MY_BOOKING_ASSIGNED", "bookingStatus": "CONFIRMED"})
	for i, b := range s.line {
		s.push(b, map[string]any{"type": "QUEUE_POSITION_UPDATED", "queuePosition": strconv.Itoa(i + 1), "estimatedWaitMinutes": strconv.Itoa((i + 1) * visitMinutes)})
	}
	answer(w, message{"result": message{"id": head.id}})
}

func (s *pushServer) push(b pushedBooking, data map[string]any) {
	s.serial++
	data["via"], data["bookingId"], data["notificationId"] = "scheduling-system", b.id, fmt.Sprint("n", s.serial)
	list := []map[string]any{data}
	if s.spoil != nil {
		list = s.spoil(b.number, data)
	}
	for _, data := range list {
		payload, err := json.Marshal(message{"message": message{"token": b.token, "data": data}})
		if err != nil {
			panic(err)
		}
		res, err := http.Post("http://"+s.fcm+"/v1/projects/p/messages:send", "application/json", bytes.NewReader(payload)) //nolint:noctx // the run answers
		if err != nil {
			s.t.Error(err)
			return
		}
		res.Body.Close() //nolint:errcheck // the response has no body that matters
	}
}

func pushesOf(t *testing.T, s *pushServer, bound time.Duration) *report.Report {
	t.Helper()
	result, err := Pushes(t.Context(), PushesOptions{
		Nodes: []string{s.url}, Key: fakeKey, Code: fakeCode, Patients: 12, Moves: 4, Rate: 1.9, Listen: s.fcm, Bound: bound,
	})
	require.NoError(t, err)
	return result
}

func TestPushesMeasuresPlaces(t *testing.T) {
	t.Parallel()
	s := newPushFake(t)
	// Half of the moves are sent together with the next one.
	s.spoil = func(_ int, push map[string]any) []map[string]any {
		if push["type"] == "QUEUE_POSITION_UPDATED" && len(s.line)%2 == 1 {
			return nil
		}
		return []map[string]any{push}
	}
	result := pushesOf(t, s, 20*time.Second)
	require.True(t, result.OK, "%+v", result)
	require.InDelta(t, 2, result.Figure("most position pushes one phone received").Value, 0)
	require.InDelta(t, 8, result.Figure("phones that show the correct position").Value, 0)
	require.InDelta(t, 10+8, result.Figure("position pushes").Value, 0)
	require.InDelta(t, 10+8+4, result.Figure("requests to FCM").Value, 0)
}

func TestPushesFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	place := func(number int, push map[string]any, value string) bool {
		return number == 9 && push["queuePosition"] == value
	}
	changed := func(push map[string]any, field string, value any) map[string]any {
		other := map[string]any{}
		for k, v := range push {
			other[k] = v
		}
		other[field] = value
		return other
	}
	for want, spoil := range map[string]func(number int, push map[string]any) []map[string]any{
		"missed": func(number int, push map[string]any) []map[string]any {
			if place(number, push, "5") {
				return nil
			}
			return []map[string]any{push}
		},
		"out of order": func(number int, push map[string]any) []map[string]any {
			if place(number, push, "6") {
				return []map[string]any{changed(changed(push, "queuePosition", "8"), "estimatedWaitMinutes", "80")}
			}
			return []map[string]any{push}
		},
		"wrong position": func(number int, push map[string]any) []map[string]any {
			if place(number, push, "6") {
				return []map[string]any{changed(push, "queuePosition", "3")}
			}
			return []map[string]any{push}
		},
		"wrong estimate": func(number int, push map[string]any) []map[string]any {
			if place(number, push, "6") {
				return []map[string]any{changed(push, "estimatedWaitMinutes", "61")}
			}
			return []map[string]any{push}
		},
		"wrong news": func(number int, push map[string]any) []map[string]any {
			if place(number, push, "6") {
				return []map[string]any{changed(push, "type", "MY_BOOKING_ASSIGNED")}
			}
			return []map[string]any{push}
		},
		"malformed": func(number int, push map[string]any) []map[string]any {
			if place(number, push, "6") {
				return []map[string]any{changed(push, "queuePosition", 6)} // a number, where FCM takes texts
			}
			return []map[string]any{push}
		},
		"duplicate": func(_ int, push map[string]any) []map[string]any {
			if push["type"] == "MY_BOOKING_ASSIGNED" {
				return []map[string]any{push, push}
			}
			return []map[string]any{push}
		},
	} {
		t.Run(strings.ReplaceAll(want, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s := newPushFake(t)
			s.spoil = spoil
			result := pushesOf(t, s, 500*time.Millisecond)
			require.False(t, result.OK)
			require.True(t, slices.ContainsFunc(result.Problems, func(p report.Problem) bool { return p.Kind == want }), "%+v", result.Problems)
		})
	}
	t.Run("one-a-second", func(t *testing.T) {
		t.Parallel()
		result := pushesOf(t, newPushFake(t), 20*time.Second)
		require.Equal(t, "goal missed: most position pushes one phone received", result.Verdict)
	})
	t.Run("again-and-saying-so", func(t *testing.T) {
		t.Parallel()
		s := newPushFake(t)
		s.spoil = func(_ int, push map[string]any) []map[string]any {
			if push["type"] == "MY_BOOKING_ASSIGNED" {
				return []map[string]any{push, changed(push, "redelivery", "true")}
			}
			return []map[string]any{push}
		}
		result := pushesOf(t, s, 20*time.Second)
		require.Equal(t, report.Faults{}, *result.Faults)
		require.InDelta(t, 4, result.Figure("redelivered").Value, 0)
	})
}

func TestPushesRefusesOptions(t *testing.T) {
	t.Parallel()
	fine := PushesOptions{Key: "k", Code: "1", Patients: 2, Moves: 1, Rate: 1, Bound: time.Second, Nodes: []string{"http://127.0.0.1:1"}, Listen: "127.0.0.1:0"}
	for want, change := range map[string]func(*PushesOptions){
		"an account API key is required": func(opts *PushesOptions) { opts.Key = "" },
		"one-time code is required":      func(opts *PushesOptions) { opts.Code = "" },
		"at least two patients":          func(opts *PushesOptions) { opts.Patients = 1 },
		"2 moves":                        func(opts *PushesOptions) { opts.Moves = 2 },
		"rate must be":                   func(opts *PushesOptions) { opts.Rate = 0 },
		"bound must be":                  func(opts *PushesOptions) { opts.Bound = 0 },
		"at least one URL":               func(opts *PushesOptions) { opts.Nodes = nil },
		"listen for pushes":              func(opts *PushesOptions) { opts.Listen = "127.0.0.1:99999" },
	} {
		opts := fine
		change(&opts)
		_, err := Pushes(t.Context(), opts)
		require.ErrorContains(t, err, want)
	}
}
