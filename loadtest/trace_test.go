package loadtest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const header = "visit,service,arrived_at,called_at,completed_at\n"

func readTrace(t *testing.T, rows ...string) *Trace {
	t.Helper()
	trace, err := ReadTrace("test.csv", strings.NewReader(header+strings.Join(rows, "\n")+"\n"))
	require.NoError(t, err)
	return trace
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(traceLayout, text)
	require.NoError(t, err)
	return at
}

func TestReadTraceSortsArrivals(t *testing.T) {
	trace := readTrace(t,
		"2,b,2019-11-01T08:01:00,2019-11-01T08:05:00,",
		"1,a,2019-11-01T08:00:00,2019-11-01T08:05:00,2019-11-01T08:09:00",
		"3,a,2019-11-02T08:00:00,,",
	)
	require.Len(t, trace.Visits, 3)
	require.Equal(t, Visit{
		ID: "1", Service: "a",
		Arrived:   moment(t, "2019-11-01T08:00:00"),
		Called:    moment(t, "2019-11-01T08:05:00"),
		Completed: moment(t, "2019-11-01T08:09:00"),
	}, trace.Visits[0])
	require.True(t, trace.Visits[1].Completed.IsZero())
	require.True(t, trace.Visits[2].Called.IsZero())
	require.Equal(t, []string{"2019-11-01", "2019-11-02"}, trace.Days())
	require.Len(t, trace.day("2019-11-01"), 2)
	require.Len(t, trace.day("2019-11-02"), 1)
	require.Empty(t, trace.day("2019-11-03"))
}

func TestReadTraceNamesTheLine(t *testing.T) {
	good := "1,a,2019-11-01T08:00:00,2019-11-01T08:05:00,2019-11-01T08:09:00\n"
	for name, c := range map[string]struct{ csv, want string }{
		"nothing at all":      {"", "empty, want the header"},
		"no visits":           {header, "no visits"},
		"other header":        {"visit,service\n", `line 1: header is "visit,service"`},
		"too few columns":     {header + good + "2,a\n", "line 3: 2 columns, want 5"},
		"too many columns":    {header + "2,a,,,,\n", "line 2: 6 columns, want 5"},
		"no visit":            {header + ",a,2019-11-01T08:00:00,,\n", "line 2: visit is empty"},
		"no service":          {header + "1,,2019-11-01T08:00:00,,\n", "line 2: service is empty"},
		"no arrival":          {header + "1,a,,,\n", "line 2: arrived_at is empty"},
		"zone":                {header + "1,a,2019-11-01T08:00:00Z,,\n", `line 2: arrived_at: "2019-11-01T08:00:00Z" is not a moment`},
		"bad call":            {header + "1,a,2019-11-01T08:00:00,soon,\n", `line 2: called_at: "soon" is not a moment`},
		"end without call":    {header + "1,a,2019-11-01T08:00:00,,2019-11-01T08:00:00\n", "line 2: completed_at without called_at"},
		"called too early":    {header + "1,a,2019-11-01T08:00:00,2019-11-01T07:00:00,\n", "line 2: called_at is before arrived_at"},
		"completed too early": {header + "1,a,2019-11-01T08:00:00,2019-11-01T09:00:00,2019-11-01T08:30:00\n", "line 2: completed_at is before called_at"},
		"twice":               {header + good + good, `line 3: visit "1" is already on line 2`},
		"stray quote":         {header + good + "2,\"a,b\n", "line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadTrace("test.csv", strings.NewReader(c.csv))
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "test.csv")
		})
	}
}

func TestDaysOfATraceArePicked(t *testing.T) {
	trace := readTrace(t, "1,a,2019-11-01T08:00:00,,", "2,a,2019-11-02T08:00:00,,")
	for choice, want := range map[string][]string{
		"":           {"2019-11-01"},
		"2019-11-02": {"2019-11-02"},
		"all":        {"2019-11-01", "2019-11-02"},
	} {
		days, err := trace.pick(choice)
		require.NoError(t, err)
		require.Equal(t, want, days)
	}
	_, err := trace.pick("2019-11-03")
	require.ErrorContains(t, err, "2019-11-01, 2019-11-02")
}

func TestPlanCountsWhoIsBusyAtOnce(t *testing.T) {
	trace := readTrace(t,
		"1,a,2019-11-01T08:00:00,2019-11-01T08:00:00,2019-11-01T08:05:00",
		"2,a,2019-11-01T08:00:00,2019-11-01T08:01:00,2019-11-01T08:04:00",
		"3,a,2019-11-01T08:00:00,2019-11-01T08:05:00,2019-11-01T08:06:30", // as the first ends
		"4,b,2019-11-01T08:00:00,,",
		"5,a,2019-11-02T08:00:00,2019-11-02T08:00:00,2019-11-02T09:00:00",
	)
	require.Equal(t, []servicePlan{
		{name: "a", resources: 2, minutes: 3},
		{name: "b", resources: 1, minutes: 1},
	}, trace.plan([]string{"2019-11-01"}, 10))
	require.Equal(t, 1, trace.plan([]string{"2019-11-01"}, 1)[0].resources)
	require.Equal(t, 5, trace.plan([]string{"2019-11-01", "2019-11-02"}, 10)[0].minutes)
}

func TestGeneratedTraceIsAClinicDay(t *testing.T) {
	trace, err := GenerateTrace(2000, 3)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, trace.Write(&out))
	read, err := ReadTrace(trace.Name, &out)
	require.NoError(t, err, "what is written must be readable")
	require.Equal(t, trace.Visits, read.Visits)
	require.Equal(t, []string{"2024-03-04"}, trace.Days())

	doctors := map[string]int{}
	for _, s := range generatedServices {
		doctors[s.name] = s.doctors
	}
	for _, p := range trace.plan(trace.Days(), 1000) {
		require.LessOrEqual(t, p.resources, doctors[p.name], p.name)
	}
	left, hours := 0, map[int]int{}
	for _, v := range trace.Visits {
		hours[v.Arrived.Hour()]++
		if v.Called.IsZero() {
			left++
		}
	}
	require.InDelta(t, leaveShare, float64(left)/2000, 0.02)
	require.Greater(t, hours[9], 2*hours[12], "mornings are busier than noon")

	again, err := GenerateTrace(2000, 3)
	require.NoError(t, err)
	require.Equal(t, trace, again)
	for _, n := range []int{0, -1, maxVisits + 1} {
		_, err = GenerateTrace(n, 3)
		require.Error(t, err)
	}
}

func TestSmallTraceIsGenerated(t *testing.T) {
	small, err := SmallTrace()
	require.NoError(t, err)
	want, err := GenerateTrace(200, 7)
	require.NoError(t, err)
	require.Equal(t, want.Visits, small.Visits, "run: loadtest trace --visits 200 --seed 7 > loadtest/traces/small.csv")
}
