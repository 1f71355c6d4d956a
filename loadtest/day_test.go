package loadtest

import (
	"context"
	"slices"
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

func playDay(t *testing.T, s *fakeServer, change func(o *DayOptions)) *report.Report {
	t.Helper()
	o := DayOptions{Visits: 150, Seed: 3, Nodes: []string{s.url}, Key: fakeKey, Speed: 50_000, Bound: 10 * time.Second, Code: fakeCode}
	s.recallAfter = time.Minute
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := Day(ctx, o)
	require.NoError(t, err)
	return result
}

// told counts what of a day its stories hold.
func told(day []story, what func(story) bool) int {
	n := 0
	for _, s := range day {
		if what(s) {
			n++
		}
	}
	return n
}

func TestDayFindsNothingWrongWithATruthfulServer(t *testing.T) {
	for _, protocol := range []string{"json", "protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			s := newFake(t)
			result := playDay(t, s, func(o *DayOptions) { o.Protocol = protocol })
			require.True(t, result.OK, "%v %+v", *result.Faults, result.Problems)

			day, err := generateDay(150, 3)
			require.NoError(t, err)
			noShows := told(day, func(s story) bool { return s.noShow })
			moved := told(day, func(s story) bool { return s.from != "" })
			phones := told(day, func(s story) bool { return s.phone })
			left := told(day, func(s story) bool { return !s.leaves.IsZero() })
			held := told(day, func(s story) bool { return !s.held.IsZero() })
			for _, n := range []int{noShows, moved, phones, left, held} {
				require.Positive(t, n, "the day has some of everything")
			}
			require.Equal(t, len(day), counted(t, result, "visits"))
			require.Equal(t, 150+moved, counted(t, result, "visits"))
			require.Equal(t, moved, counted(t, result, "moved on"))
			require.Equal(t, noShows, counted(t, result, "did not come"))
			require.Equal(t, held, counted(t, result, "stepped aside"))
			require.Equal(t, left, counted(t, result, "left"))
			require.Equal(t, phones, counted(t, result, "joined by phone"))
			require.Equal(t, len(day)-left-noShows, counted(t, result, "served"))
			require.Equal(t, phones, timed(t, result, "request join by phone"))
			require.Equal(t, len(day)-phones, timed(t, result, "request join"))
			require.Regexp(t, `called again 0 times; [1-9][0-9]* calls more were refused, rightly`, result.Figure("did not come").Note)
		})
	}
}

func TestDayWithoutACodeIsMadeByTheDesk(t *testing.T) {
	result := playDay(t, newFake(t), func(o *DayOptions) { o.Code = "" })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Zero(t, counted(t, result, "joined by phone"))
}

func TestDayCallsAgainWhereItMay(t *testing.T) {
	s := newFake(t)
	result := playDay(t, s, func(o *DayOptions) { o.recallPause, s.recallAfter = time.Nanosecond, 0 })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Regexp(t, `called again [1-9][0-9]* times; 0 calls more`, result.Figure("did not come").Note)
}

func TestDayReportsPlantedFaults(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(s *fakeServer)
		check func(t *testing.T, f report.Faults)
	}{
		"who comes back waits behind everybody": {
			plant: func(s *fakeServer) { s.backAtTheEnd = true },
			check: func(t *testing.T, f report.Faults) { require.Positive(t, f.WrongPositions) },
		},
		"a call again that comes too soon": {
			plant: func(s *fakeServer) { s.recallAfter = 0 },
			check: func(t *testing.T, f report.Faults) { require.Positive(t, f.WrongNews) },
		},
		"a call again told twice": {
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
		"a no-show told as an end": {
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
			result := playDay(t, s, func(o *DayOptions) {
				c.plant(s)
				o.Bound = time.Second
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

	byID := map[string]story{}
	hours := make([]int, 24)
	for i, s := range day {
		byID[s.ID] = s
		if s.from == "" {
			hours[s.Arrived.Hour()]++
		}
		if i > 0 {
			require.False(t, s.Arrived.Before(day[i-1].Arrived))
		}
	}
	require.Len(t, byID, len(day), "visits have names of their own")
	require.Greater(t, hours[9], hours[7])
	require.Greater(t, hours[9], 2*hours[12], "a peak in the morning")
	require.Greater(t, hours[15], hours[12], "and one in the afternoon")
	require.Less(t, hours[15], hours[9])
	require.Less(t, hours[18], hours[15])

	for _, s := range day {
		moments := slices.DeleteFunc([]time.Time{s.Arrived, s.held, s.back, s.Called}, time.Time.IsZero)
		if !s.Called.IsZero() {
			moments = append(append(moments, s.recalls...), s.Completed)
		} else {
			moments = append(moments, s.leaves)
		}
		require.True(t, slices.IsSortedFunc(moments, time.Time.Compare), "%+v", s)
		require.NotZero(t, s.leaves.IsZero() != s.Called.IsZero(), "everybody is called or leaves, nobody both: %+v", s)
		require.Equal(t, s.noShow, len(s.recalls) > 0)
		require.False(t, s.noShow && s.movesOn)
		if s.from != "" {
			before := byID[s.from]
			require.True(t, before.movesOn)
			require.Equal(t, before.Completed, s.Arrived)
			require.NotEqual(t, before.Service, s.Service)
		}
	}
	share := func(what func(story) bool) float64 { return float64(told(day, what)) / float64(len(day)) }
	require.InDelta(t, notComing, share(func(s story) bool { return s.noShow }), 0.02)
	require.InDelta(t, 0.4, share(func(s story) bool { return s.phone }), 0.06)
	require.Positive(t, share(func(s story) bool { return !s.held.IsZero() && s.back.IsZero() }), "some leave while held")

	_, err = generateDay(0, 1)
	require.ErrorContains(t, err, "visits must be")
}

func TestDayRefusesBadOptions(t *testing.T) {
	for want, o := range map[string]DayOptions{
		"visits must be":  {Key: "k", Nodes: []string{"http://a"}},
		"account API key": {Visits: 5, Nodes: []string{"http://a"}},
		"at least one":    {Visits: 5, Key: "k"},
	} {
		result, err := Day(t.Context(), o)
		require.ErrorContains(t, err, want)
		require.Nil(t, result)
	}
}
