package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

func TestReplayFindsNoFaultsOfACorrectServer(t *testing.T) {
	for _, protocol := range []string{"json", "protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			small, err := SmallTrace()
			require.NoError(t, err)
			s := newFake(t)
			var last atomic.Pointer[report.Progress]
			result := mustReplay(t, s, func(opts *ReplayOptions) {
				opts.Trace, opts.Protocol, opts.Speed = small, protocol, 50_000
				opts.Nodes = []string{s.url, s.url}
				opts.Progress = func(p report.Progress) { last.Store(&p) }
			})
			require.True(t, result.OK, "%+v", result.Problems)
			require.Equal(t, 200, counted(t, result, "visits"))
			require.Equal(t, 8, counted(t, result, "left"))
			require.Equal(t, 192, counted(t, result, "served"))
			require.Equal(t, 200, counted(t, result, "opened"))
			require.Contains(t, result.Settings, report.Setting{Name: "clinic", Value: "3 services, 5 resources"})
			require.Zero(t, counted(t, result, "reconnects"))
			require.Equal(t, 200, counted(t, result, "snapshots checked"))
			require.Equal(t, 192, timed(t, result, "assign sent → call received"))
			received := timed(t, result, "change sent → position received")
			require.Positive(t, received)
			require.Equal(t, 400+received, counted(t, result, "positions checked"), "joins, snapshots and pushes")
			require.Equal(t, 192*3+8+received, counted(t, result, "updates received"))
			require.Equal(t, 200, timed(t, result, "request join"))
			require.Equal(t, 192, timed(t, result, "request end"))
			require.Equal(t, 8, timed(t, result, "request cancel"))
			tokens, pongs := s.seen()
			require.Len(t, tokens, 200, "every client has its own token")
			require.Positive(t, pongs, "pings are answered")
			require.EqualValues(t, 200, last.Load().Done)
			require.EqualValues(t, 200, last.Load().Total)
			require.Contains(t, last.Load().Detail, fmt.Sprintf("0 waiting, %d updates, 0 wrong", 192*3+8+received))
		})
	}
}

func TestReplayPlaysEveryDay(t *testing.T) {
	s := newFake(t)
	result := mustReplay(t, s, func(opts *ReplayOptions) {
		opts.Day = "all"
		opts.Trace = readTrace(t,
			"1,a,2019-11-01T08:00:00,2019-11-01T08:10:00,2019-11-01T08:20:00",
			"2,a,2019-11-02T08:00:00,,",
			"3,b,2019-11-03T08:00:00,2019-11-03T08:00:00,",
		)
	})
	require.True(t, result.OK, "%+v", result.Problems)
	require.Contains(t, result.Settings, report.Setting{Name: "trace", Value: "test.csv, 2019-11-01 2019-11-02 2019-11-03"})
	require.Contains(t, result.Settings, report.Setting{Name: "clinic", Value: "2 services, 2 resources"})
	require.Equal(t, 3, counted(t, result, "visits"))
	require.Equal(t, 1, counted(t, result, "left"))
}

// counted is the value of a figure that was counted.
func counted(t *testing.T, r *report.Report, name string) int {
	t.Helper()
	f := r.Figure(name)
	require.Equal(t, name, f.Name)
	require.Zero(t, math.Mod(f.Value, 1))
	return int(f.Value)
}

// timed is how many samples a curve has.
func timed(t *testing.T, r *report.Report, name string) int {
	t.Helper()
	for _, c := range r.Curves {
		if c.Name == name {
			return int(c.Count)
		}
	}
	require.Fail(t, "no curve "+name)
	return 0
}

// isPosition reports whether a message has the k-th new position of the fifth booking.
// In the test trace bookings are called in order, so that patient receives 4, 3, 2, 1.
func isPosition(b *fakeBooking, m message, k int) bool {
	return m["type"] == "QUEUE_POSITION_UPDATED" && b.pushes == k && b.id == "booking5"
}

// tamperWith returns a fault to plant: messages that match are replaced.
func tamperWith(matches func(b *fakeBooking, m message) bool, replace func(b *fakeBooking, m message) []message) func(s *fakeServer) {
	return func(s *fakeServer) {
		s.tamper = func(b *fakeBooking, m message) []message {
			if matches(b, m) {
				return replace(b, m)
			}
			return []message{m}
		}
	}
}

// isType returns a match for messages of a type.
func isType(name string) func(*fakeBooking, message) bool {
	return func(_ *fakeBooking, m message) bool { return m["type"] == name }
}

// isSecond matches the second position of the last patient.
func isSecond(b *fakeBooking, m message) bool { return isPosition(b, m, 2) }

func drop(*fakeBooking, message) []message       { return nil }
func repeat(_ *fakeBooking, m message) []message { return []message{m, m} }

func TestReplayReportsPlantedFaults(t *testing.T) {
	const bound = 50 * time.Millisecond
	for name, test := range map[string]struct {
		plant   func(s *fakeServer)
		bounded bool // with a short bound and pauses longer than it
		want    report.Faults
	}{
		"a position that never was": {
			plant: tamperWith(isSecond, func(b *fakeBooking, m message) []message {
				return []message{changed(changed(m, "queuePosition", 40), "estimatedWaitMinutes", 40*b.kind.minutes), m}
			}),
			want: report.Faults{WrongPositions: 1},
		},
		"an estimate that does not match": {
			plant: tamperWith(isSecond, func(_ *fakeBooking, m message) []message {
				return []message{changed(m, "estimatedWaitMinutes", 1)}
			}),
			want: report.Faults{WrongEstimates: 1},
		},
		"the same position twice": {
			plant: tamperWith(isSecond, repeat),
			want:  report.Faults{Duplicates: 1},
		},
		"two positions in the wrong order": {
			plant: func(s *fakeServer) {
				var held message
				s.tamper = func(b *fakeBooking, m message) []message {
					switch {
					case isPosition(b, m, 2):
						held = m
						return nil
					case isPosition(b, m, 3):
						return []message{m, held}
					}
					return []message{m}
				}
			},
			want: report.Faults{OutOfOrder: 1},
		},
		"a position that is never sent": {
			plant:   tamperWith(isSecond, drop),
			bounded: true,
			want:    report.Faults{Missed: 1},
		},
		"a position sent too late": {
			plant: func(s *fakeServer) {
				tamperWith(isSecond, func(b *fakeBooking, m message) []message {
					s.deliverAfter(3*bound, b, m)
					return nil
				})(s)
			},
			bounded: true,
			want:    report.Faults{Late: 1},
		},
		"a call sent twice": {
			plant: tamperWith(isType("MY_BOOKING_ASSIGNED"), repeat),
			want:  report.Faults{Duplicates: 4},
		},
		"a call to an unknown resource": {
			plant: tamperWith(isType("MY_BOOKING_ASSIGNED"), func(_ *fakeBooking, m message) []message {
				return []message{changed(m, "resourceId", "nowhere")}
			}),
			want: report.Faults{WrongNews: 4},
		},
		"calls that are never sent": {
			plant: tamperWith(isType("MY_BOOKING_ASSIGNED"), drop),
			want:  report.Faults{Missed: 4},
		},
		"a leave that is never sent": {
			plant:   tamperWith(isType("MY_BOOKING_CANCELED"), drop),
			bounded: true,
			want:    report.Faults{Missed: 1},
		},
		"messages of another booking": {
			plant: tamperWith(isSecond, func(_ *fakeBooking, m message) []message {
				return []message{changed(m, "bookingId", "another"), m}
			}),
			want: report.Faults{Malformed: 1},
		},
		"snapshots of a position that never was": {
			plant: func(s *fakeServer) {
				s.spoilSnapshot = func(b *fakeBooking, shown message) {
					shown["queuePosition"], shown["estimatedWaitMinutes"] = 40, 40*b.kind.minutes
				}
			},
			want: report.Faults{WrongPositions: 5},
		},
		"joins answered with the wrong position": {
			plant: func(s *fakeServer) {
				s.spoilJoin = func(b *fakeBooking, shown message) {
					position := len(b.kind.waiting) + 1
					shown["queuePosition"], shown["estimatedWaitMinutes"] = position, position*b.kind.minutes
				}
			},
			want: report.Faults{WrongPositions: 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFake(t)
			test.plant(s)
			result := mustReplay(t, s, func(opts *ReplayOptions) {
				if test.bounded {
					opts.Bound, s.quiet = bound, 6*bound
				}
			})
			require.Equal(t, test.want, *result.Faults, "%+v", result.Problems)
			require.False(t, result.OK)
			require.NotEmpty(t, result.Problems)
		})
	}
}

func TestReplayReportsAStaleSnapshot(t *testing.T) {
	s := newFake(t)
	s.tamper = func(b *fakeBooking, m message) []message {
		if isPosition(b, m, 2) {
			s.cut(b, 3001)
			return nil
		}
		return []message{m}
	}
	s.spoilSnapshot = func(b *fakeBooking, shown message) {
		if b.connections == 1 {
			shown["queuePosition"], shown["estimatedWaitMinutes"] = b.was, b.was*b.kind.minutes
		}
	}
	// The client comes back after a while, when the change has long been answered.
	result := mustReplay(t, s, nil)
	require.Equal(t, report.Faults{StaleSnapshots: 1}, *result.Faults, "%+v", result.Problems)
	require.Positive(t, result.Figure("oldest stale snapshot").Value)
	require.Equal(t, 1, counted(t, result, "reconnects"))
}

func TestReplayClientsReconnect(t *testing.T) {
	s := newFake(t)
	s.tamper = func(b *fakeBooking, m message) []message {
		if isPosition(b, m, 2) || isPosition(b, m, 3) {
			s.cut(b, 3001)
			return nil
		}
		return []message{m}
	}
	result := mustReplay(t, s, nil)
	require.True(t, result.OK, "%+v", result.Problems)
	require.Equal(t, 2, counted(t, result, "reconnects"))
	require.Equal(t, 5, counted(t, result, "opened"))
	require.Equal(t, 7, counted(t, result, "snapshots checked"))
}

func TestReplayClientsStayDisconnectedAfterAFinalCloseCode(t *testing.T) {
	s := newFake(t)
	s.tamper = func(b *fakeBooking, m message) []message {
		if m["type"] == "MY_BOOKING_ASSIGNED" && b.id == "booking1" {
			s.cut(b, 3501)
			return nil
		}
		return []message{m}
	}
	result := mustReplay(t, s, nil)
	require.Equal(t, report.Faults{Missed: 2, RefusedClients: 1}, *result.Faults, "the client received neither the call nor the end")
	require.Zero(t, counted(t, result, "reconnects"))
}

func TestReplayGoesToAnotherNodeWhenOneIsDown(t *testing.T) {
	s := newFake(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	result := mustReplay(t, s, func(opts *ReplayOptions) { opts.Nodes = []string{s.url, gone.URL} })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Positive(t, counted(t, result, "moved to another node"))
	require.Positive(t, counted(t, result, "failed attempts"))
	require.Equal(t, 5, counted(t, result, "opened"))
	require.Zero(t, counted(t, result, "reconnects"))
}

func TestReplayReportsClientsThatMayNotWatch(t *testing.T) {
	s := newFake(t)
	s.spoilJoin = func(_ *fakeBooking, shown message) { delete(shown, "ticketToken") }
	result := mustReplay(t, s, func(opts *ReplayOptions) {
		opts.Trace = readTrace(t, "1,a,2019-11-01T08:00:00,,")
	})
	require.Equal(t, report.Faults{Malformed: 1, Missed: 1, RefusedClients: 1}, *result.Faults, "%+v", result.Problems)
}

func TestReplayRepeatsARequestWhoseAnswerWasLost(t *testing.T) {
	s := newFake(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	s.refuse = func(path string, _ fakeRequest) int {
		mu.Lock()
		defer mu.Unlock()
		if seen[path] {
			return 0
		}
		seen[path] = true
		return http.StatusServiceUnavailable
	}
	result := mustReplay(t, s, nil)
	require.True(t, result.OK, "%+v", result.Problems)
	require.Equal(t, len(seen), counted(t, result, "moved to another node"))
	require.Len(t, seen, 8)
}

func TestReplayTreatsARefusedRepeatAsSuccess(t *testing.T) {
	s := newFake(t)
	var first atomic.Bool
	s.refuse = func(path string, body fakeRequest) int {
		if path != "/management/bookings/assign" || !first.CompareAndSwap(false, true) {
			return 0
		}
		// The change happens and its answer is lost.
		s.mu.Lock()
		defer s.mu.Unlock()
		b := s.bookings[body.BookingID]
		s.move(b, "assign", body)
		return http.StatusBadGateway
	}
	result := mustReplay(t, s, nil)
	require.True(t, result.OK, "%+v", result.Problems)
	require.Equal(t, 1, counted(t, result, "moved to another node"))
}

func TestReplayGoesOnAfterARefusal(t *testing.T) {
	s := newFake(t)
	s.refuse = func(path string, body fakeRequest) int {
		if path == "/management/bookings/assign" && body.BookingID == "booking2" {
			return http.StatusConflict
		}
		return 0
	}
	result := mustReplay(t, s, nil)
	require.Equal(t, report.Faults{FailedRequests: 1}, *result.Faults, "%+v", result.Problems)
	require.Equal(t, 5, counted(t, result, "visits"))
	require.Equal(t, 2, counted(t, result, "left"), "a patient who could not be called leaves at closing")
	require.Contains(t, result.Problems[0].Detail, "assign: HTTP 409 PLANTED: no; f: m")
}

func TestReplayStopsWithItsContext(t *testing.T) {
	s := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.tamper = func(_ *fakeBooking, m message) []message {
		if m["type"] == "MY_BOOKING_ASSIGNED" {
			cancel()
		}
		return []message{m}
	}
	trace := readTrace(t,
		"1,a,2019-11-01T08:00:00,2019-11-01T08:00:01,2019-11-01T08:00:02",
		"2,a,2019-11-01T08:00:00,2019-11-01T10:00:00,",
	)
	result, err := Replay(ctx, ReplayOptions{Trace: trace, Nodes: []string{s.url}, Key: fakeKey, Speed: 60})
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, result.Interrupted)
	require.False(t, result.OK)
}

func TestReplayRefusesBadOptions(t *testing.T) {
	for want, change := range map[string]func(opts *ReplayOptions){
		"no trace":                 func(opts *ReplayOptions) { opts.Trace = nil },
		"account API key":          func(opts *ReplayOptions) { opts.Key = "" },
		"speed must be":            func(opts *ReplayOptions) { opts.Speed = 0 },
		"bound and the limit":      func(opts *ReplayOptions) { opts.Bound = -1 },
		"protocol must be":         func(opts *ReplayOptions) { opts.Protocol = "xml" },
		"at least one URL":         func(opts *ReplayOptions) { opts.Nodes = nil },
		"want http://host:port":    func(opts *ReplayOptions) { opts.Nodes = []string{"localhost:80"} },
		"no arrivals on":           func(opts *ReplayOptions) { opts.Day = "2020-01-01" },
		"longer than a booking ma": func(opts *ReplayOptions) { opts.Speed = 0.01 },
		"401 AUT-REQUIRED":         func(opts *ReplayOptions) { opts.Key = "wrong" },
	} {
		t.Run(want, func(t *testing.T) {
			s := newFake(t)
			result, err := replayFake(t, s, change)
			require.ErrorContains(t, err, want)
			require.Nil(t, result)
		})
	}
}

func TestReportIsReadable(t *testing.T) {
	s := newFake(t)
	s.spoilJoin = func(_ *fakeBooking, shown message) { shown["queuePosition"] = 9 }
	result := mustReplay(t, s, nil)

	var table bytes.Buffer
	require.NoError(t, result.WriteTable(&table))
	for _, want := range []string{"test.csv, 2019-11-01", "most waiting at once", "wrong positions", "NOT every update", "wrong position: booking booking1: the join response has position 9, truth is 1"} {
		require.Contains(t, table.String(), want)
	}
	var document bytes.Buffer
	require.NoError(t, result.WriteJSON(&document))
	var read report.Report
	require.NoError(t, json.Unmarshal(document.Bytes(), &read))
	require.Equal(t, *result, read)
	require.NotContains(t, document.String(), fakeKey)
	require.NotContains(t, document.String(), "token-", "no secrets in a report")
}

func TestResourcePoolPrefersFreeResources(t *testing.T) {
	r := newResourcePool([]string{"a", "b"})
	require.Equal(t, 0, r.take())
	require.Equal(t, 1, r.take())
	require.Equal(t, 0, r.take(), "patients share resources if there are too few")
	r.release(1)
	require.Equal(t, 1, r.take())
}
