package check

import (
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

// at returns a moment in Unix nanoseconds.
func at(ms int) int64 { return int64(1_000_000+ms) * int64(time.Millisecond) }

// newCheckerTest returns a checker with one patient of a rank, who subscribes at 0 ms and
// knows its position. Requests are sent and answered at the given milliseconds.
func newCheckerTest(rank int, sent, answered []int) (*Checker, *subscriber) {
	c := NewChecker(Options{Bound: 100 * time.Millisecond, Minutes: testMinutes, Snapshots: true, Calls: true})
	s := &subscriber{checker: c, shard: &c.shards[0], spec: ChannelSpec{Booking: "b", Rank: rank}, known: -1}
	c.subscribers = append(c.subscribers, s)
	moments := func(list []int) (out []int64) {
		for _, ms := range list {
			out = append(out, at(ms))
		}
		return out
	}
	s.record(observation{kind: snapshotReceived, position: int32(rank), requestedAt: at(-1), receivedAt: at(0)})
	c.Update(Truth{Until: at(0), Queues: []DepartureTimes{{Sent: moments(sent), Answered: moments(answered)}}})
	return c, s
}

func TestPositionsAreCheckedAgainstTheDepartures(t *testing.T) {
	type told struct{ position, ms int }
	// Two doctors: the second head is sent before the first is answered.
	sent, answered := []int{10, 20, 500}, []int{30, 40, 510}
	for name, test := range map[string]struct {
		told []told
		want report.Faults
	}{
		"each in time":                     {[]told{{9, 35}, {8, 45}, {7, 505}}, report.Faults{}},
		"before the answer":                {[]told{{9, 10}, {8, 20}, {7, 500}}, report.Faults{}},
		"some skipped":                     {[]told{{8, 50}, {7, 520}}, report.Faults{}},
		"before it was sent":               {[]told{{8, 19}, {8, 41}, {7, 520}}, report.Faults{WrongPositions: 1}},
		"the last never":                   {[]told{{9, 30}, {8, 41}}, report.Faults{Missed: 1}},
		"further back than ever":           {[]told{{11, 5}, {8, 41}, {7, 520}}, report.Faults{WrongPositions: 1}},
		"place nought":                     {[]told{{0, 5}, {8, 41}, {7, 520}}, report.Faults{WrongPositions: 1}},
		"twice":                            {[]told{{8, 41}, {8, 42}, {7, 520}}, report.Faults{Duplicates: 1}},
		"back":                             {[]told{{8, 41}, {9, 42}, {7, 520}}, report.Faults{OutOfOrder: 1}},
		"late":                             {[]told{{8, 141}, {7, 520}}, report.Faults{Late: 1}},
		"each late":                        {[]told{{9, 131}, {8, 141}, {7, 611}}, report.Faults{Late: 3}},
		"kept too long, then up to date":   {[]told{{7, 520}}, report.Faults{Missed: 1}},
		"behind for a while, within bound": {[]told{{8, 130}, {7, 610}}, report.Faults{}},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := newCheckerTest(10, sent, answered)
			for _, x := range test.told {
				s.record(observation{kind: positionPushed, position: int32(x.position), receivedAt: at(x.ms)})
			}
			c.Update(Truth{Until: at(2000)})
			require.Equal(t, test.want, c.Conclude(at(2000)).Faults, "%+v", c.tally.problems)
		})
	}
}

func TestObservationsWaitForTheirTruth(t *testing.T) {
	c, s := newCheckerTest(10, nil, nil)
	s.record(observation{kind: positionPushed, position: 9, receivedAt: at(15)})
	c.Update(Truth{Until: at(14)})
	require.Equal(t, 0, s.known, "the truth is not known yet")
	c.Update(Truth{Until: at(20), Queues: []DepartureTimes{{Sent: []int64{at(12)}}}})
	require.Equal(t, 1, s.known)
	require.Zero(t, c.tally.Total.Load())
	require.Equal(t, 0, c.behind())
	c.Update(Truth{Until: at(30), Queues: []DepartureTimes{{Sent: []int64{at(22)}, Answered: []int64{at(21), at(25)}}}})
	require.Equal(t, 1, c.behind())
	require.Equal(t, 3*time.Millisecond, c.tally.Latency.Quantile(1))
}

func TestSnapshotsMustHaveBeenTrueDuringTheRequest(t *testing.T) {
	for name, test := range map[string]struct {
		position, asked, got int
		want                 report.Faults
	}{
		"the old one while it is asked":    {10, 25, 35, report.Faults{}},
		"the new one while it is asked":    {9, 5, 12, report.Faults{}},
		"the old one when it had been":     {10, 31, 35, report.Faults{StaleSnapshots: 1}},
		"the new one when it was not sent": {8, 5, 12, report.Faults{WrongPositions: 1}},
		"over, when it was not":            {0, 31, 35, report.Faults{WrongNews: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := newCheckerTest(10, []int{10}, []int{30})
			s.record(observation{kind: connectionLost, receivedAt: at(1)})
			s.record(observation{kind: snapshotReceived, position: int32(test.position), requestedAt: at(test.asked), receivedAt: at(test.got)})
			s.record(observation{kind: positionPushed, position: 9, receivedAt: at(50)})
			c.Update(Truth{Until: at(60)})
			found := c.Conclude(at(60)).Faults
			found.Duplicates = 0 // the position at 50 ms, if it was known before
			require.Equal(t, test.want, found)
		})
	}

	c, s := newCheckerTest(10, []int{10}, []int{30})
	s.record(observation{kind: positionPushed, position: 9, receivedAt: at(40)})
	s.record(observation{kind: snapshotReceived, position: 10, requestedAt: at(29), receivedAt: at(45)})
	c.Update(Truth{Until: at(60)})
	require.Equal(t, report.Faults{OutOfOrder: 1}, c.Conclude(at(60)).Faults)
}

func TestNothingIsLateWhileDisconnected(t *testing.T) {
	c, s := newCheckerTest(10, []int{10}, []int{30})
	s.record(observation{kind: connectionLost, receivedAt: at(20)})
	s.record(observation{kind: snapshotReceived, position: 9, requestedAt: at(890), receivedAt: at(900)})
	c.Update(Truth{Until: at(1000)})
	o := c.Conclude(at(1000))
	require.Equal(t, report.Faults{}, o.Faults)
	require.Equal(t, 870*time.Millisecond, o.Ages.Quantile(1), "the age counts while disconnected")

	c, s = newCheckerTest(10, []int{10}, []int{30})
	s.record(observation{kind: connectionLost, receivedAt: at(200)})
	s.record(observation{kind: snapshotReceived, position: 9, requestedAt: at(210), receivedAt: at(220)})
	c.Update(Truth{Until: at(1000)})
	require.Equal(t, report.Faults{Missed: 1}, c.Conclude(at(1000)).Faults, "it was connected for longer than the bound")
}

func TestACallEndsTheWait(t *testing.T) {
	for name, test := range map[string]struct {
		calls []int
		want  report.Faults
	}{
		"told":           {[]int{35}, report.Faults{}},
		"told too early": {[]int{9}, report.Faults{WrongNews: 1, Missed: 1}},
		"told twice":     {[]int{35, 36}, report.Faults{Duplicates: 1}},
		"never told":     {nil, report.Faults{Missed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := newCheckerTest(1, []int{10}, []int{30})
			for _, ms := range test.calls {
				s.record(observation{kind: callReceived, receivedAt: at(ms)})
			}
			c.Update(Truth{Until: at(1000)})
			require.Equal(t, test.want, c.Conclude(at(1000)).Faults)
		})
	}
}

func TestConcludeStartsCountingAnew(t *testing.T) {
	c, s := newCheckerTest(10, []int{10, 20}, []int{11, 21})
	c.Update(Truth{Until: at(500)})
	first := c.Conclude(at(500))
	require.Equal(t, report.Faults{Missed: 1}, first.Faults)
	require.Equal(t, 500*time.Millisecond, first.Watched)
	s.record(observation{kind: positionPushed, position: 8, receivedAt: at(600)})
	c.Update(Truth{Until: at(700)})
	second := c.Conclude(at(700))
	require.Equal(t, 200*time.Millisecond, second.Watched)
	require.Zero(t, second.Faults.Missed, "counted before")
	require.Equal(t, [][]int64{{at(600), at(600)}}, second.Last)
}

func TestAFullShardIsAFault(t *testing.T) {
	c, s := newCheckerTest(10, nil, nil)
	s.shard.observations = make([]observation, maxObservations)
	for i := range s.shard.observations {
		s.shard.observations[i] = observation{subscriber: s, receivedAt: at(5000)}
	}
	s.record(observation{kind: positionPushed, position: 9, receivedAt: at(1)})
	c.Update(Truth{Until: at(2)})
	require.EqualValues(t, 1, c.Conclude(at(2)).Faults.Missed)
}
