package check

import (
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

// at is a moment of the tests, in Unix nanoseconds.
func at(ms int) int64 { return int64(1_000_000+ms) * int64(time.Millisecond) }

// newCheckerTest is a fleet with one patient of a rank, who is live at 0 ms and knows
// its place. Heads are sent and answered at the given milliseconds.
func newCheckerTest(rank int, sent, answered []int) (*Checker, *subscriber) {
	f := NewChecker(Options{Bound: 100 * time.Millisecond, Minutes: testMinutes, Snapshots: true, Calls: true})
	w := &subscriber{checker: f, shard: &f.shards[0], spec: ChannelSpec{Booking: "b", Rank: rank}, known: -1}
	f.subscribers = append(f.subscribers, w)
	moments := func(list []int) (out []int64) {
		for _, ms := range list {
			out = append(out, at(ms))
		}
		return out
	}
	w.record(observation{kind: snapshotReceived, position: int32(rank), asked: at(-1), at: at(0)})
	f.Update(Truth{Until: at(0), Queues: []DepartureTimes{{Sent: moments(sent), Answered: moments(answered)}}})
	return f, w
}

func TestPositionsAreCheckedAgainstTheDepartures(t *testing.T) {
	type told struct{ position, ms int }
	// Two doctors: the second head is sent before the first is answered.
	sent, answered := []int{10, 20, 500}, []int{30, 40, 510}
	for name, c := range map[string]struct {
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
			f, w := newCheckerTest(10, sent, answered)
			for _, x := range c.told {
				w.record(observation{kind: positionPushed, position: int32(x.position), at: at(x.ms)})
			}
			f.Update(Truth{Until: at(2000)})
			require.Equal(t, c.want, f.Conclude(at(2000)).Faults, "%+v", f.tally.problems)
		})
	}
}

func TestNotesWaitForTheirTruth(t *testing.T) {
	f, w := newCheckerTest(10, nil, nil)
	w.record(observation{kind: positionPushed, position: 9, at: at(15)})
	f.Update(Truth{Until: at(14)})
	require.Equal(t, 0, w.known, "nobody knows yet")
	f.Update(Truth{Until: at(20), Queues: []DepartureTimes{{Sent: []int64{at(12)}}}})
	require.Equal(t, 1, w.known)
	require.Zero(t, f.tally.Total.Load())
	require.Equal(t, 0, f.behind())
	f.Update(Truth{Until: at(30), Queues: []DepartureTimes{{Sent: []int64{at(22)}, Answered: []int64{at(21), at(25)}}}})
	require.Equal(t, 1, f.behind())
	require.Equal(t, 3*time.Millisecond, f.tally.Latency.Quantile(1))
}

func TestSnapshotsShowWhatWasTrueMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
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
			f, w := newCheckerTest(10, []int{10}, []int{30})
			w.record(observation{kind: connectionLost, at: at(1)})
			w.record(observation{kind: snapshotReceived, position: int32(c.position), asked: at(c.asked), at: at(c.got)})
			w.record(observation{kind: positionPushed, position: 9, at: at(50)})
			f.Update(Truth{Until: at(60)})
			found := f.Conclude(at(60)).Faults
			found.Duplicates = 0 // of the place told last, where that was known before
			require.Equal(t, c.want, found)
		})
	}

	f, w := newCheckerTest(10, []int{10}, []int{30})
	w.record(observation{kind: positionPushed, position: 9, at: at(40)})
	w.record(observation{kind: snapshotReceived, position: 10, asked: at(29), at: at(45)})
	f.Update(Truth{Until: at(60)})
	require.Equal(t, report.Faults{OutOfOrder: 1}, f.Conclude(at(60)).Faults)
}

func TestWhoIsNotThereIsNotLate(t *testing.T) {
	f, w := newCheckerTest(10, []int{10}, []int{30})
	w.record(observation{kind: connectionLost, at: at(20)})
	w.record(observation{kind: snapshotReceived, position: 9, asked: at(890), at: at(900)})
	f.Update(Truth{Until: at(1000)})
	o := f.Conclude(at(1000))
	require.Equal(t, report.Faults{}, o.Faults)
	require.Equal(t, 870*time.Millisecond, o.Ages.Quantile(1), "what it showed was old nevertheless")

	f, w = newCheckerTest(10, []int{10}, []int{30})
	w.record(observation{kind: connectionLost, at: at(200)})
	w.record(observation{kind: snapshotReceived, position: 9, asked: at(210), at: at(220)})
	f.Update(Truth{Until: at(1000)})
	require.Equal(t, report.Faults{Missed: 1}, f.Conclude(at(1000)).Faults, "it was there long enough before")
}

func TestACallEndsTheWait(t *testing.T) {
	for name, c := range map[string]struct {
		calls []int
		want  report.Faults
	}{
		"told":           {[]int{35}, report.Faults{}},
		"told too early": {[]int{9}, report.Faults{WrongNews: 1, Missed: 1}},
		"told twice":     {[]int{35, 36}, report.Faults{Duplicates: 1}},
		"never told":     {nil, report.Faults{Missed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f, w := newCheckerTest(1, []int{10}, []int{30})
			for _, ms := range c.calls {
				w.record(observation{kind: callReceived, at: at(ms)})
			}
			f.Update(Truth{Until: at(1000)})
			require.Equal(t, c.want, f.Conclude(at(1000)).Faults)
		})
	}
}

func TestTheBooksAreClosedAndOpenedAgain(t *testing.T) {
	f, w := newCheckerTest(10, []int{10, 20}, []int{11, 21})
	f.Update(Truth{Until: at(500)})
	first := f.Conclude(at(500))
	require.Equal(t, report.Faults{Missed: 1}, first.Faults)
	require.Equal(t, 500*time.Millisecond, first.Watched)
	w.record(observation{kind: positionPushed, position: 8, at: at(600)})
	f.Update(Truth{Until: at(700)})
	second := f.Conclude(at(700))
	require.Equal(t, 200*time.Millisecond, second.Watched)
	require.Zero(t, second.Faults.Missed, "counted before")
	require.Equal(t, [][]int64{{at(600), at(600)}}, second.Last)
}

func TestAFullNotebookIsAFault(t *testing.T) {
	f, w := newCheckerTest(10, nil, nil)
	w.shard.observations = make([]observation, maxObservations)
	for i := range w.shard.observations {
		w.shard.observations[i] = observation{subscriber: w, at: at(5000)}
	}
	w.record(observation{kind: positionPushed, position: 9, at: at(1)})
	f.Update(Truth{Until: at(2)})
	require.EqualValues(t, 1, f.Conclude(at(2)).Faults.Missed)
}
