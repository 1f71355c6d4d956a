package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

// queueServer is a fake that calls the next of a queue and says what it has used.
type queueServer struct {
	*fakeServer
}

func newQueueFake(t *testing.T) *queueServer {
	t.Helper()
	s := &queueServer{fakeServer: newFake(t)}
	var scrapes atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/connection/websocket", s.serveLive)
	mux.HandleFunc("/management/", s.serveAPI)
	mux.HandleFunc("POST /management/queue/next", s.serveNext)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		n := scrapes.Add(1)
		fmt.Fprintf(w, "# HELP x y\nprocess_cpu_seconds_total %d\nprocess_resident_memory_bytes %d\ngo_goroutines %d\nother 1\n", n, n<<20, 10*n) //nolint:errcheck // the client reports a lost response
	})
	server := httptest.NewServer(mux)
	s.url = server.URL
	t.Cleanup(func() {
		s.close.Do(func() { close(s.closing) })
		s.mu.Lock()
		s.changed.Broadcast()
		s.mu.Unlock()
		server.Close()
	})
	return s
}

func (s *queueServer) serveNext(w http.ResponseWriter, r *http.Request) {
	var body fakeRequest
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := s.types[s.resources[body.ResourceID]]
	// If a patient were called before its connection is open, what the tests expect would
	// depend on timing.
	unseen := func(b *fakeBooking) bool { return b.connections == 0 }
	for slices.ContainsFunc(kind.waiting, unseen) && !s.closed() {
		s.changed.Wait()
	}
	if len(kind.waiting) == 0 {
		problem(w, http.StatusNotFound, "QUE-EMPTY")
		return
	}
	head := kind.waiting[0]
	if s.lastIsNext {
		head = kind.waiting[len(kind.waiting)-1]
	}
	head.stage, head.status, head.resource = "CALLED", "CONFIRMED", body.ResourceID
	s.leave(head, message{"type": "MY_BOOKING_ASSIGNED", "bookingStatus": head.status, "resourceId": head.resource, "ticket": head.ticket})
	answer(w, message{"result": head.show()})
}

func queueFake(t *testing.T, s *queueServer, change func(opts *QueueOptions)) (*report.Report, error) {
	t.Helper()
	opts := QueueOptions{
		Traffic: Traffic{Patients: 12, Rate: 40, Duration: 250 * time.Millisecond},
		Nodes:   []string{s.url}, Key: fakeKey, Refill: true,
	}
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return Queue(ctx, opts)
}

func TestQueueFindsNoFaultsOfACorrectServer(t *testing.T) {
	for name, change := range map[string]func(opts *QueueOptions){
		"json":                              func(*QueueOptions) {},
		"protobuf":                          func(opts *QueueOptions) { opts.Protocol = "protobuf" },
		"connections with several patients": func(opts *QueueOptions) { opts.Watch = 3 },
		"two queues":                        func(opts *QueueOptions) { opts.Queues, opts.Watch = 2, 2 },
		"doctors side by side":              func(opts *QueueOptions) { opts.Doctors, opts.Rate = 3, 0 },
		"bursts":                            func(opts *QueueOptions) { opts.Burst, opts.Rate = 3, 0 },
		"without new patients":              func(opts *QueueOptions) { opts.Refill, opts.Rate = false, 0 },
		"several parts of them":             func(opts *QueueOptions) { opts.Patients = 40 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newQueueFake(t)
			result, err := queueFake(t, s, change)
			require.NoError(t, err)
			require.True(t, result.OK, "%+v", result.Problems)
			require.Positive(t, result.Figure("deliveries").Value)
			require.Positive(t, result.Figure("patients called").Value)
			require.Positive(t, result.Figure("CPU per million deliveries").Value)
			require.Zero(t, result.Figure("reconnects").Value)
			require.Positive(t, result.Curve(headToLast).Count)
			require.Positive(t, result.Curve(changeToClient).Count)
		})
	}
}

func TestQueueReportsPlantedFaults(t *testing.T) {
	const bound = 150 * time.Millisecond
	isLast := func(b *fakeBooking, m message) bool {
		return m["type"] == "QUEUE_POSITION_UPDATED" && b.id == "booking12"
	}
	isThird := func(b *fakeBooking, m message) bool { return isLast(b, m) && b.pushes == 3 }
	isCall := isType("MY_BOOKING_ASSIGNED")
	for name, test := range map[string]struct {
		plant func(s *fakeServer)
		found func(f report.Faults) int64
	}{
		"a position that never was": {
			tamperWith(isThird, func(_ *fakeBooking, m message) []message {
				return []message{changed(changed(m, "queuePosition", 1), "estimatedWaitMinutes", visitMinutes), m}
			}),
			func(f report.Faults) int64 { return f.WrongPositions },
		},
		"a wrong estimate": {
			tamperWith(isThird, func(_ *fakeBooking, m message) []message {
				return []message{changed(m, "estimatedWaitMinutes", 1)}
			}),
			func(f report.Faults) int64 { return f.WrongEstimates },
		},
		"a position sent twice": {
			tamperWith(isThird, repeat),
			func(f report.Faults) int64 { return f.Duplicates },
		},
		"a position of another booking": {
			tamperWith(isThird, func(_ *fakeBooking, m message) []message {
				return []message{m, changed(m, "bookingId", "another")}
			}),
			func(f report.Faults) int64 { return f.Malformed },
		},
		"a position sent again after a newer one": {
			func(s *fakeServer) {
				var kept message
				s.tamper = func(b *fakeBooking, m message) []message {
					switch {
					case isThird(b, m):
						kept = m
					case kept != nil && b.id == "booking12":
						list := []message{m, kept}
						kept = nil
						return list
					}
					return []message{m}
				}
			},
			func(f report.Faults) int64 { return f.OutOfOrder },
		},
		"no position for too long": {
			tamperWith(func(b *fakeBooking, m message) bool { return isLast(b, m) && b.pushes >= 3 }, drop),
			func(f report.Faults) int64 { return f.Missed },
		},
		"positions sent too late": {
			func(s *fakeServer) {
				tamperWith(isLast, func(b *fakeBooking, m message) []message {
					s.deliverAfter(2*bound, b, m)
					return nil
				})(s)
			},
			func(f report.Faults) int64 { return f.Late },
		},
		"an expiry that never was": {
			tamperWith(isCall, func(b *fakeBooking, m message) []message {
				if b.kind.waiting[0].id != b.id {
					return []message{changed(m, "type", "MY_BOOKING_EXPIRED"), m}
				}
				return []message{m}
			}),
			func(f report.Faults) int64 { return f.Malformed },
		},
		"a call never sent": {
			tamperWith(isCall, drop),
			func(f report.Faults) int64 { return f.Missed },
		},
		"a call sent to a waiting patient": {
			tamperWith(isThird, func(_ *fakeBooking, m message) []message {
				return []message{m, {"via": "scheduling-system", "type": "MY_BOOKING_ASSIGNED", "bookingId": "booking12"}}
			}),
			func(f report.Faults) int64 { return f.WrongNews },
		},
		"a join answered with a wrong position": {
			func(s *fakeServer) {
				s.spoilJoin = func(b *fakeBooking, shown message) {
					if b.id == "booking13" {
						shown["queuePosition"] = 40
					}
				}
			},
			func(f report.Faults) int64 { return f.WrongPositions },
		},
		"a new patient's snapshot of a position that never was": {
			func(s *fakeServer) {
				s.spoilSnapshot = func(b *fakeBooking, shown message) {
					if b.id == "booking13" {
						shown["queuePosition"], shown["estimatedWaitMinutes"] = 2, 2*visitMinutes
					}
				}
			},
			func(f report.Faults) int64 { return f.WrongPositions },
		},
		"a patient called out of turn": {
			func(s *fakeServer) { s.lastIsNext = true },
			func(f report.Faults) int64 { return f.OutOfOrder },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newQueueFake(t)
			test.plant(s.fakeServer)
			result, err := queueFake(t, s, func(opts *QueueOptions) { opts.Bound = bound })
			require.NoError(t, err)
			require.Positive(t, test.found(*result.Faults), "%+v %+v", result.Faults, result.Problems)
			require.False(t, result.OK)
			require.NotEmpty(t, result.Problems)
		})
	}
}

func TestQueueReportsPositionsThatContradictTheJoins(t *testing.T) {
	s := newQueueFake(t)
	s.spoilSnapshot = func(b *fakeBooking, shown message) {
		if b.id == "booking3" {
			shown["queuePosition"], shown["estimatedWaitMinutes"] = 4, 4*visitMinutes
		}
	}
	_, err := queueFake(t, s, nil)
	require.ErrorContains(t, err, "the positions in queue 1 are not the numbers from 1 to 12: no 3")

	queues := &patientQueues{traffic: Traffic{Patients: 2, Queues: 1}, patients: []*joinedPatient{
		{booking: "first", sent: 10, answered: 20}, {booking: "second", sent: 30, answered: 40},
	}}
	require.NoError(t, queues.setRanks([]check.FirstPosition{{Patient: 0, Position: 1}, {Patient: 1, Position: 2}}))
	require.ErrorContains(t, queues.setRanks([]check.FirstPosition{{Patient: 0, Position: 2}, {Patient: 1, Position: 1}}), "booking first is at position 2, behind one that joined after it")
}

func TestQueueChecksClientsThatReconnect(t *testing.T) {
	s := newQueueFake(t)
	s.tamper = func(b *fakeBooking, m message) []message {
		if m["type"] == "QUEUE_POSITION_UPDATED" && b.id == "booking12" && b.pushes == 2 {
			s.cut(b, 3001)
			return nil
		}
		return []message{m}
	}
	result, err := queueFake(t, s, nil)
	require.NoError(t, err)
	require.True(t, result.OK, "%+v", result.Problems)
	require.InDelta(t, 1, result.Figure("reconnects").Value, 0)
}

func TestQueueReportsRefusedClients(t *testing.T) {
	s := newQueueFake(t)
	s.tamper = func(b *fakeBooking, m message) []message {
		if m["type"] == "QUEUE_POSITION_UPDATED" && b.id == "booking12" && b.pushes == 2 {
			s.cut(b, 3501)
			return nil
		}
		return []message{m}
	}
	result, err := queueFake(t, s, func(opts *QueueOptions) { opts.Bound = 200 * time.Millisecond })
	require.NoError(t, err)
	require.EqualValues(t, 1, result.Faults.RefusedClients)
	require.False(t, result.OK)
}

func TestQueueStopsWhenTheServerRefuses(t *testing.T) {
	s := newQueueFake(t)
	s.refuse = func(path string, _ fakeRequest) int {
		if path == "/management/bookings/end" {
			return http.StatusConflict
		}
		return 0
	}
	_, err := queueFake(t, s, nil)
	require.ErrorContains(t, err, "end: HTTP 409 PLANTED")
}

func TestQueueStopsWithItsContext(t *testing.T) {
	s := newQueueFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.tamper = func(_ *fakeBooking, m message) []message {
		cancel()
		return []message{m}
	}
	_, err := Queue(ctx, QueueOptions{Traffic: Traffic{Patients: 3, Rate: 20, Duration: time.Minute}, Nodes: []string{s.url}, Key: fakeKey})
	require.ErrorIs(t, err, context.Canceled)
}

func TestTrafficRefusesBadOptions(t *testing.T) {
	for want, change := range map[string]func(opts *QueueOptions){
		"must be more than zero":         func(opts *QueueOptions) { opts.Doctors = -1 },
		"3 patients are too few":         func(opts *QueueOptions) { opts.Patients, opts.Queues, opts.Watch = 3, 2, 2 },
		"duration must be":               func(opts *QueueOptions) { opts.Duration = 0 },
		"rate must not be":               func(opts *QueueOptions) { opts.Rate = -1 },
		"protocol must be":               func(opts *QueueOptions) { opts.Protocol = "xml" },
		"an account API key is required": func(opts *QueueOptions) { opts.Key = "" },
		"at least one URL is required":   func(opts *QueueOptions) { opts.Nodes = nil },
		"create organization: HTTP 401":  func(opts *QueueOptions) { opts.Key = "wrong" },
	} {
		t.Run(want, func(t *testing.T) {
			s := newQueueFake(t)
			_, err := queueFake(t, s, change)
			require.ErrorContains(t, err, want)
		})
	}
}

func TestPlacementsSpreadThePatientsOfAConnectionOverTheQueue(t *testing.T) {
	o := Traffic{Patients: 11, Queues: 2, Watch: 2}
	require.Equal(t, 6, o.connections())
	phones := map[int][]int{}
	for _, s := range o.placements() {
		phones[s.connection] = append(phones[s.connection], s.queue*100+s.rank)
	}
	require.Equal(t, map[int][]int{0: {1, 4}, 1: {2, 5}, 2: {3}, 3: {101, 104}, 4: {102, 105}, 5: {103, 106}}, phones)
}

func TestConnectMeasuresAnIdleClient(t *testing.T) {
	s := newQueueFake(t)
	result, err := Connect(t.Context(), ConnectOptions{Nodes: []string{s.url}, Key: fakeKey, Connections: 8, Idle: 10 * time.Millisecond})
	require.NoError(t, err)
	require.True(t, result.OK, "%+v", result.Problems)
	// Each look at the fake finds another 1 MB, 10 goroutines and second.
	require.InDelta(t, 2*1024/8., result.Figure("resident per idle connection").Value, 0.01)
	require.InDelta(t, 20/8., result.Figure("goroutines per idle connection").Value, 0.01)
	require.Positive(t, result.Figure("CPU while idle").Value)

	_, err = Connect(t.Context(), ConnectOptions{Nodes: []string{s.url}, Key: fakeKey, Connections: 8})
	require.ErrorContains(t, err, "idle must be more than zero")
}

// changed is a copy of a message with one field replaced.
func changed(m message, field string, value any) message {
	c := maps.Clone(m)
	c[field] = value
	return c
}
