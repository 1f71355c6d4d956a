package loadtest

import (
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

func TestBenchComparesAllCandidates(t *testing.T) {
	s, c := newQueueFake(t), newFakeCentrifugo(t)
	result, err := Bench(t.Context(), BenchOptions{
		Nodes: []string{s.url}, Key: fakeKey, Connections: []int{30}, Rounds: 1, Duration: 150 * time.Millisecond, inProcess: true,
		Centrifugo: CentrifugoOptions{URL: c.url, APIKey: centrifugoKey, TokenSecret: centrifugoSecret},
	})
	require.NoError(t, err)
	require.Equal(t, report.Faults{}, *result.Faults, "%+v", result.Problems)
	for _, row := range rows {
		for _, name := range []string{", floor", ", service", ", centrifugo", ", service to floor", ", service to centrifugo"} {
			require.Positive(t, result.Figure(string(row.name)+name).Value, string(row.name)+name)
		}
	}
	require.Positive(t, result.Figure("resident per idle connection, service").Value)

	_, err = Bench(t.Context(), BenchOptions{})
	require.ErrorContains(t, err, "rounds and connections")
}

func TestMediansSkipRoundsWithoutAFigure(t *testing.T) {
	require.Zero(t, median(nil))
	require.InDelta(t, 2, median([]float64{9, 1, 2}), 0)
	require.InDelta(t, 2.5, median([]float64{9, 1, 2, 3}), 0)
	a := &candidate{figures: map[measureName][]float64{saturatedDeliveries: {10, 30, 40}}}
	b := &candidate{figures: map[measureName][]float64{saturatedDeliveries: {10, 10, 0}}}
	require.InDelta(t, 2, medianRatio(a, b, saturatedDeliveries), 0, "a round without a figure says nothing")
}
