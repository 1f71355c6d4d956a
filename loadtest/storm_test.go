package loadtest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

// groupServer is a fake whose figures follow from the connections it has.
type groupServer struct {
	*queueServer
	leaks atomic.Int64 // goroutines that every visitor leaves behind
	hasty bool         // calls patients before all clients are connected
}

func newGroupFake(t *testing.T) *groupServer {
	t.Helper()
	s := &groupServer{queueServer: newQueueFake(t)}
	mux := http.NewServeMux()
	mux.HandleFunc("/connection/websocket", s.serveLive)
	mux.HandleFunc("/management/", s.serveAPI)
	mux.HandleFunc("POST /management/queue/next", s.callNext)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		now, ever := 0, 0
		for _, b := range s.bookings {
			now, ever = now+len(b.subscribers), ever+b.connections
		}
		goroutines := 50 + now + ever*int(s.leaks.Load())
		fmt.Fprintf(w, "process_cpu_seconds_total 1\nprocess_resident_memory_bytes %d\ngo_goroutines %d\n", 100<<20+now<<10, goroutines) //nolint:errcheck // the client reports a lost response
	})
	server := httptest.NewServer(mux)
	s.url = server.URL
	t.Cleanup(func() {
		s.close.Do(func() { close(s.closing) })
		server.Close()
	})
	return s
}

// callNext does not wait for connections.
func (s *groupServer) callNext(w http.ResponseWriter, r *http.Request) {
	if s.hasty {
		s.mu.Lock()
		for _, b := range s.bookings {
			b.connections = max(b.connections, 1)
		}
		s.mu.Unlock()
	}
	s.serveNext(w, r)
}

func runStorm(t *testing.T, s *groupServer, change func(opts *StormOptions)) *report.Report {
	t.Helper()
	opts := StormOptions{
		Nodes: []string{s.url}, Key: fakeKey, Clients: 40, Queues: 3,
		BackoffMin: 5 * time.Millisecond, BackoffMax: 20 * time.Millisecond,
	}
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Storm(ctx, opts)
	require.NoError(t, err)
	return result
}

func TestStormWaitsForEveryClient(t *testing.T) {
	for _, protocol := range []string{"json", "protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			var last atomic.Pointer[report.Progress]
			result := runStorm(t, newGroupFake(t), func(opts *StormOptions) {
				opts.Protocol = protocol
				opts.Progress = func(p report.Progress) { last.Store(&p) }
			})
			require.True(t, result.OK, "%s %+v", result.Verdict, result.Problems)
			require.Equal(t, 40, counted(t, result, "disconnected"))
			require.Equal(t, 40, counted(t, result, "served again"))
			require.Equal(t, 80, counted(t, result, "snapshots checked"))
			require.Equal(t, 40, timed(t, result, "disconnected → correct snapshot"))
			require.Equal(t, 90, counted(t, result, "goroutines after"))
			require.Less(t, result.Figure("all served again").Value, 10.0)
			require.EqualValues(t, 40, last.Load().Done)
			require.Equal(t, "disconnected", result.Marks[0].Text)
		})
	}
}

func TestStormAllAtOnce(t *testing.T) {
	result := runStorm(t, newGroupFake(t), func(opts *StormOptions) { opts.BackoffMin, opts.BackoffMax = 0, 0 })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Contains(t, result.Settings, report.Setting{Name: "reconnecting", Value: "all at once"})
}

func TestStormThatTakesTooLongFails(t *testing.T) {
	result := runStorm(t, newGroupFake(t), func(opts *StormOptions) { opts.goal = time.Nanosecond })
	require.False(t, result.OK)
	require.Equal(t, "goal missed: all served again", result.Verdict)
}

func TestStormOfARestart(t *testing.T) {
	s := newGroupFake(t)
	// A server's end closes its connections: here this process receives the signal.
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGTERM)
	defer signal.Stop(received)
	s.handlers.Go(func() {
		<-received
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range s.bookings {
			s.cut(b, 3001)
		}
	})
	result := runStorm(t, s, func(opts *StormOptions) { opts.Pid = os.Getpid() })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Equal(t, 40, counted(t, result, "served again"))
	require.Positive(t, result.Figure("first served again").Value)
	require.Equal(t, "since the server served the first again", result.Figure("all served again").Note)
}

func TestStormReportsPlantedFaults(t *testing.T) {
	second := func(do func(b *fakeBooking, shown message)) func(*fakeBooking, message) {
		return func(b *fakeBooking, shown message) {
			if b.id == "booking7" && b.connections == 1 {
				do(b, shown)
			}
		}
	}
	for name, c := range map[string]struct {
		plant func(s *groupServer)
		want  report.Faults
	}{
		"another patient's position": {
			plant: func(s *groupServer) {
				s.spoilSnapshot = second(func(b *fakeBooking, shown message) {
					shown["queuePosition"], shown["estimatedWaitMinutes"] = 40, 40*b.kind.minutes
				})
			},
			want: report.Faults{WrongPositions: 1},
		},
		"a wrong estimate": {
			plant: func(s *groupServer) {
				s.spoilSnapshot = second(func(_ *fakeBooking, shown message) { shown["estimatedWaitMinutes"] = 1 })
			},
			want: report.Faults{WrongEstimates: 1},
		},
		"two with the same place from the beginning": {
			plant: func(s *groupServer) {
				s.spoilSnapshot = func(b *fakeBooking, shown message) {
					if shown["queuePosition"] == 2 {
						shown["queuePosition"], shown["estimatedWaitMinutes"] = 1, b.kind.minutes
					}
				}
			},
			want: report.Faults{WrongPositions: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGroupFake(t)
			c.plant(s)
			result := runStorm(t, s, nil)
			require.Equal(t, c.want, *result.Faults, "%+v", result.Problems)
			require.False(t, result.OK)
		})
	}
}

func TestStationaryClientsReportEveryMove(t *testing.T) {
	c := &stationaryClient{group: &clientGroup{tally: check.NewTally()}, patient: &joinedPatient{booking: "b"}, position: 5}
	c.OnPosition(client.PositionUpdate{Position: 5, Minutes: 50}, time.Now())
	c.OnPosition(client.PositionUpdate{Position: 4, Minutes: 40}, time.Now())
	c.OnPublication([]byte(`{"type":"MY_BOOKING_ASSIGNED"}`), time.Now())
	require.Equal(t, report.Faults{WrongPositions: 1, Duplicates: 1, WrongNews: 1}, c.group.tally.Faults())
}

func TestStormRefusesBadOptions(t *testing.T) {
	for want, change := range map[string]func(opts *StormOptions){
		"shortest wait": func(opts *StormOptions) { opts.BackoffMin = time.Hour },
		"not both":      func(opts *StormOptions) { opts.Pid, opts.Restart = 1, "true" },
		"API key":       func(opts *StormOptions) { opts.Key = "" },
		"too few":       func(opts *StormOptions) { opts.Clients = 0 },
		"protocol must": func(opts *StormOptions) { opts.Protocol = "xml" },
	} {
		opts := StormOptions{Nodes: []string{"http://127.0.0.1:1"}, Key: fakeKey, Clients: 5, BackoffMax: time.Second}
		change(&opts)
		result, err := Storm(t.Context(), opts)
		require.ErrorContains(t, err, want)
		require.Nil(t, result)
	}
}

func runChurn(t *testing.T, s *groupServer) *report.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Churn(ctx, ChurnOptions{
		Nodes: []string{s.url}, Key: fakeKey, Patients: 10, Connections: 200, Duration: 400 * time.Millisecond,
		stay: 20 * time.Millisecond, settleTimeout: 3 * time.Second,
	})
	require.NoError(t, err)
	return result
}

func TestChurnEndsWhereItBegan(t *testing.T) {
	result := runChurn(t, newGroupFake(t))
	require.True(t, result.OK, "%s %+v", result.Verdict, result.Problems)
	require.Equal(t, 200, counted(t, result, "connected"))
	require.Equal(t, 200, counted(t, result, "snapshots checked"))
	require.Zero(t, result.Figure("goroutines more than before").Value)
	require.Zero(t, result.Figure("memory more than before").Value)
	require.Len(t, result.Marks, 2)
	var page bytes.Buffer
	require.NoError(t, result.WriteHTML(&page))
}

func TestChurnReportsALeak(t *testing.T) {
	s := newGroupFake(t)
	s.leaks.Store(1)
	result := runChurn(t, s)
	require.False(t, result.OK)
	require.Equal(t, "goal missed: goroutines more than before", result.Verdict)
	require.Equal(t, 190, counted(t, result, "goroutines more than before"))
}

func TestChurnReportsAWrongPosition(t *testing.T) {
	s := newGroupFake(t)
	s.spoilSnapshot = func(b *fakeBooking, shown message) {
		if b.id == "booking4" && b.connections == 12 {
			shown["queuePosition"], shown["estimatedWaitMinutes"] = 40, 40*b.kind.minutes
		}
	}
	result := runChurn(t, s)
	require.Equal(t, report.Faults{WrongPositions: 1}, *result.Faults, "%+v", result.Problems)
}
