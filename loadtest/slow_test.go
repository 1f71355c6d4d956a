package loadtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

func runSlow(t *testing.T, s *groupServer, change func(opts *SlowOptions)) *report.Report {
	t.Helper()
	opts := SlowOptions{
		Nodes: []string{s.url}, Key: fakeKey, Clients: 20, Stalled: 0.1, Rate: 40, Phase: 250 * time.Millisecond, Rounds: 1,
		goal: 1000, // whether a machine is busy is not what is tested
	}
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Slow(ctx, opts)
	require.NoError(t, err)
	return result
}

// newSlowFake calls patients before all clients are connected.
func newSlowFake(t *testing.T) *groupServer {
	s := newGroupFake(t)
	s.hasty = true
	return s
}

func TestSlowMeasuresBothPhases(t *testing.T) {
	for _, protocol := range []string{"json", "protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			result := runSlow(t, newSlowFake(t), func(opts *SlowOptions) { opts.Protocol = protocol })
			require.True(t, result.OK, "%s %+v", result.Verdict, result.Problems)
			require.Equal(t, 180, timed(t, result, "all read"), "18 clients that read receive each of 10 changes")
			require.Equal(t, 180, timed(t, result, "some stalled"))
			require.Equal(t, 20, counted(t, result, "snapshots checked"))
			require.Equal(t, 20+2*200, counted(t, result, "positions checked"), "the stalled clients receive everything in the end")
			require.Equal(t, 2, counted(t, result, "kept"))
			require.Zero(t, counted(t, result, "dropped by the server"))
			require.Equal(t, []string{"2 stop reading", "all read again"}, []string{result.Marks[0].Text, result.Marks[1].Text})
		})
	}
}

func TestSlowTakesTheMedianOfItsRounds(t *testing.T) {
	result := runSlow(t, newSlowFake(t), func(opts *SlowOptions) { opts.Rounds, opts.Phase = 3, 100*time.Millisecond })
	require.True(t, result.OK, "%s %+v", result.Verdict, result.Problems)
	require.Equal(t, 3*4*18, timed(t, result, "all read"))
	require.Equal(t, 3*4*18, timed(t, result, "some stalled"))
	require.Len(t, result.Marks, 6)
	require.Equal(t, 3, strings.Count(result.Figure("p99 with stalled clients to p99 without").Note, " against "))
}

func TestSlowFailsWhenOtherClientsBecomeSlower(t *testing.T) {
	s := newSlowFake(t)
	result := runSlow(t, s, func(opts *SlowOptions) { opts.goal = 1e-9 })
	require.False(t, result.OK)
	require.Contains(t, result.Verdict, "goal missed: p99")
}

func TestSlowReportsDroppedClients(t *testing.T) {
	s := newSlowFake(t)
	served := 0
	s.tamper = func(_ *fakeBooking, m message) []message {
		// In the second phase the server drops a client that does not read: the
		// first to join behind the twenty heads.
		if m["type"] == "MY_BOOKING_ASSIGNED" {
			if served++; served == 15 {
				for _, other := range s.bookings {
					if other.turn == 20 {
						s.cut(other, 3008)
					}
				}
			}
		}
		return []message{m}
	}
	result := runSlow(t, s, nil)
	require.True(t, result.OK, "%s %+v", result.Verdict, result.Problems)
	require.Equal(t, 21, counted(t, result, "snapshots checked"))
	require.Equal(t, 1, counted(t, result, "dropped by the server")+counted(t, result, "connections lost"))
}

func TestSlowReportsPlantedFaults(t *testing.T) {
	last := func(b *fakeBooking, m message) bool {
		return m["type"] == "QUEUE_POSITION_UPDATED" && b.turn == 39
	}
	for name, c := range map[string]struct {
		tamper func(m message) []message
		want   func(f report.Faults) bool
	}{
		"a place never true": {
			func(m message) []message {
				m["queuePosition"], m["estimatedWaitMinutes"] = 99, 990
				return []message{m}
			}, func(f report.Faults) bool { return f.WrongPositions == 20 && f.Missed > 0 },
		},
		"a position sent twice": {
			func(m message) []message { return []message{m, m} },
			func(f report.Faults) bool { return f == report.Faults{Duplicates: 20} },
		},
		"no place at all": {
			func(message) []message { return nil },
			func(f report.Faults) bool { return f.Missed > 0 && f == report.Faults{Missed: f.Missed} },
		},
		"a wrong estimate": {
			func(m message) []message {
				m["estimatedWaitMinutes"] = 1
				return []message{m}
			}, func(f report.Faults) bool { return f == report.Faults{WrongEstimates: 20} },
		},
		"other news": {
			func(m message) []message {
				return []message{m, {"via": "scheduling-system", "type": "MY_BOOKING_EXPIRED", "bookingId": m["bookingId"]}}
			}, func(f report.Faults) bool { return f == report.Faults{WrongNews: 20} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlowFake(t)
			s.tamper = func(b *fakeBooking, m message) []message {
				if last(b, m) {
					return c.tamper(m)
				}
				return []message{m}
			}
			result := runSlow(t, s, func(opts *SlowOptions) { opts.Bound = 200 * time.Millisecond })
			require.True(t, c.want(*result.Faults), "%+v %+v", *result.Faults, result.Problems)
			require.False(t, result.OK)
		})
	}
}

func TestSlowRefusesBadOptions(t *testing.T) {
	for want, change := range map[string]func(opts *SlowOptions){
		"none or all of them": func(opts *SlowOptions) { opts.Stalled = 0.01 },
		"rate, phase, bound":  func(opts *SlowOptions) { opts.Rate = 0 },
		"API key":             func(opts *SlowOptions) { opts.Key = "" },
	} {
		opts := SlowOptions{Nodes: []string{"http://127.0.0.1:1"}, Key: fakeKey, Clients: 20, Stalled: 0.1, Rate: 1, Phase: time.Second, Rounds: 1}
		change(&opts)
		result, err := Slow(t.Context(), opts)
		require.ErrorContains(t, err, want)
		require.Nil(t, result)
	}
}
