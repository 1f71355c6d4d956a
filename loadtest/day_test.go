package loadtest

import (
	"context"
	"slices"
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

func playDay(t *testing.T, s *fakeServer, change func(opts *DayOptions)) *report.Report {
	t.Helper()
	opts := DayOptions{Visits: 150, Seed: 3, Nodes: []string{s.url}, Key: fakeKey, Speed: 50_000, Bound: 10 * time.Second, Code: fakeCode}
	s.recallAfter = time.Minute
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Day(ctx, opts)
	require.NoError(t, err)
	return result
}

// countVisits counts the visits of a day that match.
func countVisits(day []visitPlan, what func(visitPlan) bool) int {
	n := 0
	for _, plan := range day {
		if what(plan) {
			n++
		}
	}
	return n
}

func TestDayFindsNothingWrongWithATruthfulServer(t *testing.T) {
	for _, protocol := range []string{"json", "protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			s := newFake(t)
			result := playDay(t, s, func(opts *DayOptions) { opts.Protocol = protocol })
			require.True(t, result.OK, "%v %+v", *result.Faults, result.Problems)

			day, err := generateDay(150, 3)
			require.NoError(t, err)
			noShows := countVisits(day, func(plan visitPlan) bool { return plan.noShow })
			moved := countVisits(day, func(plan visitPlan) bool { return plan.from != "" })
			phones := countVisits(day, func(plan visitPlan) bool { return plan.phone })
			left := countVisits(day, func(plan visitPlan) bool { return !plan.leaves.IsZero() })
			held := countVisits(day, func(plan visitPlan) bool { return !plan.held.IsZero() })
			for _, n := range []int{noShows, moved, phones, left, held} {
				require.Positive(t, n, "the day has some of everything")
			}
			require.Equal(t, len(day), counted(t, result, "visits"))
			require.Equal(t, 150+moved, counted(t, result, "visits"))
			require.Equal(t, moved, counted(t, result, "transferred"))
			require.Equal(t, noShows, counted(t, result, "did not come"))
			require.Equal(t, held, counted(t, result, "held"))
			require.Equal(t, left, counted(t, result, "left"))
			require.Equal(t, phones, counted(t, result, "joined by phone"))
			require.Equal(t, len(day)-left-noShows, counted(t, result, "served"))
			require.Equal(t, phones, timed(t, result, "request join by phone"))
			require.Equal(t, len(day)-phones, timed(t, result, "request join"))
			require.Regexp(t, `called again 0 times; [1-9][0-9]* more recalls were correctly refused`, result.Figure("did not come").Note)
		})
	}
}

func TestDayWithoutACodeIsMadeByTheDesk(t *testing.T) {
	result := playDay(t, newFake(t), func(opts *DayOptions) { opts.Code = "" })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Zero(t, counted(t, result, "joined by phone"))
}

func TestDayCallsAgainWhereItMay(t *testing.T) {
	s := newFake(t)
	result := playDay(t, s, func(opts *DayOptions) { opts.recallPause, s.recallAfter = time.Nanosecond, 0 })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Regexp(t, `called again [1-9][0-9]* times; 0 more recalls`, result.Figure("did not come").Note)
}

func TestDayReportsPlantedFaults(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(s *fakeServer)
		check func(t *testing.T, f report.Faults)
	}{
		"a returning patient waits behind all others": {
			plant: func(s *fakeServer) { s.backAtTheEnd = true },
			check: func(t *testing.T, f report.Faults) { require.Positive(t, f.WrongPositions) },
		},
		"a call again that comes too soon": {
			plant: func(s *fakeServer) { s.recallAfter = 0 },
			check: func(t *testing.T, f report.Faults) { require.Positive(t, f.WrongNews) },
		},
		"a recall sent twice": {
			plant: func(s *fakeServer) {
				s.tamper = func(_ *fakeBooking, m message) []message {
					if m["type"] == "MY_BOOKING_CALLED" {
						return []message{m, m}
					}
					return []message{m}
				}
				s.recallAfter = 0
			},
			check: func(t *testing.T, f report.Faults) { require.Positive(t, f.Duplicates) },
		},
		"a no-show sent as an end": {
			plant: func(s *fakeServer) {
				s.tamper = func(_ *fakeBooking, m message) []message {
					if m["stage"] == "NO_SHOW" {
						m["stage"] = "DONE"
					}
					return []message{m}
				}
			},
			check: func(t *testing.T, f report.Faults) { require.Positive(t, f.WrongNews) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFake(t)
			result := playDay(t, s, func(opts *DayOptions) {
				c.plant(s)
				opts.Bound = time.Second
			})
			require.False(t, result.OK)
			c.check(t, *result.Faults)
		})
	}
}

func TestMadeUpDayIsALikelyOne(t *testing.T) {
	day, err := generateDay(5000, 11)
	require.NoError(t, err)
	again, err := generateDay(5000, 11)
	require.NoError(t, err)
	require.Equal(t, day, again, "the same seed gives the same day")
	other, err := generateDay(5000, 12)
	require.NoError(t, err)
	require.NotEqual(t, day, other)

	byID := map[string]visitPlan{}
	hours := make([]int, 24)
	for i, plan := range day {
		byID[plan.ID] = plan
		if plan.from == "" {
			hours[plan.Arrived.Hour()]++
		}
		if i > 0 {
			require.False(t, plan.Arrived.Before(day[i-1].Arrived))
		}
	}
	require.Len(t, byID, len(day), "visits have names of their own")
	require.Greater(t, hours[9], hours[7])
	require.Greater(t, hours[9], 2*hours[12], "a peak in the morning")
	require.Greater(t, hours[15], hours[12], "and one in the afternoon")
	require.Less(t, hours[15], hours[9])
	require.Less(t, hours[18], hours[15])

	for _, plan := range day {
		moments := slices.DeleteFunc([]time.Time{plan.Arrived, plan.held, plan.returned, plan.Called}, time.Time.IsZero)
		if !plan.Called.IsZero() {
			moments = append(append(moments, plan.recalls...), plan.Completed)
		} else {
			moments = append(moments, plan.leaves)
		}
		require.True(t, slices.IsSortedFunc(moments, time.Time.Compare), "%+v", plan)
		require.NotZero(t, plan.leaves.IsZero() != plan.Called.IsZero(), "every patient is called or leaves, none does both: %+v", plan)
		require.Equal(t, plan.noShow, len(plan.recalls) > 0)
		require.False(t, plan.noShow && plan.transferred)
		if plan.from != "" {
			before := byID[plan.from]
			require.True(t, before.transferred)
			require.Equal(t, before.Completed, plan.Arrived)
			require.NotEqual(t, before.Service, plan.Service)
		}
	}
	share := func(what func(visitPlan) bool) float64 { return float64(countVisits(day, what)) / float64(len(day)) }
	require.InDelta(t, noShowShare, share(func(plan visitPlan) bool { return plan.noShow }), 0.02)
	require.InDelta(t, 0.4, share(func(plan visitPlan) bool { return plan.phone }), 0.06)
	require.Positive(t, share(func(plan visitPlan) bool { return !plan.held.IsZero() && plan.returned.IsZero() }), "some leave while held")

	_, err = generateDay(0, 1)
	require.ErrorContains(t, err, "visits must be")
}

func TestDayRefusesBadOptions(t *testing.T) {
	for want, opts := range map[string]DayOptions{
		"visits must be":  {Key: "k", Nodes: []string{"http://a"}},
		"account API key": {Visits: 5, Nodes: []string{"http://a"}},
		"at least one":    {Visits: 5, Key: "k"},
	} {
		result, err := Day(t.Context(), opts)
		require.ErrorContains(t, err, want)
		require.Nil(t, result)
	}
}
