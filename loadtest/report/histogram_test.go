package report

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRampQuantileIsTheShareOfTime compares with a look at every millisecond.
func TestRampQuantileIsTheShareOfTime(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	total := 200_000
	ages := make([]int, total)
	for i := 0; i < total-1000; {
		ramp := random.IntN(800)
		h.Add(time.Duration(ramp) * time.Millisecond)
		for k := range ramp {
			ages[i+k] = k
		}
		i += ramp + random.IntN(200)
	}
	slices.Sort(ages)
	for _, q := range []float64{0.2, 0.5, 0.9, 0.99, 0.999} {
		want := float64(ages[int(q*float64(total))])
		got := Milliseconds(h.RampQuantile(q, time.Duration(total)*time.Millisecond))
		require.InDelta(t, want, got, 5+want/16, "%g", q)
	}
	require.Zero(t, new(Histogram).RampQuantile(0.99, time.Second))
	require.Zero(t, h.RampQuantile(0.01, time.Duration(total)*time.Millisecond))
}

func TestHistogramsTravel(t *testing.T) {
	var a, b Histogram
	for i := range 1000 {
		a.Add(time.Duration(i) * time.Microsecond)
	}
	b.Add(time.Second)
	data, err := json.Marshal(&a)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &b))
	require.EqualValues(t, 1001, b.n)
	require.Equal(t, time.Second, b.max)
	require.Equal(t, a.Quantile(0.5), b.Quantile(0.5))
	require.Error(t, json.Unmarshal([]byte(`{"buckets":[[99999,1]]}`), &b))
	require.Error(t, json.Unmarshal([]byte(`{"buckets":1}`), &b))
}

func TestHistogramQuantiles(t *testing.T) {
	var h Histogram
	require.Zero(t, h.Summary())
	for i := 1; i <= 100_000; i++ {
		h.Add(time.Duration(i) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 50 * time.Millisecond, 0.9: 90 * time.Millisecond, 0.99: 99 * time.Millisecond} {
		require.InEpsilon(t, want, h.Quantile(q), 0.04, fmt.Sprint(q))
	}
	require.Equal(t, 100*time.Millisecond, h.Quantile(1))
	s := h.Summary()
	require.EqualValues(t, 100_000, s.Count)
	require.InDelta(t, 100, s.Max, 0)
	h.Add(-time.Second)
	h.Add(1<<63 - 1)
	require.Equal(t, time.Duration(1<<63-1), h.Quantile(1))
}

func TestHistogramBucketsAreInOrder(t *testing.T) {
	for _, v := range []uint64{0, 1, 31, 32, 63, 64, 65, 127, 128, 1000, 1 << 20, 1<<20 + 1, 1<<63 - 1} {
		i := bucketOf(v)
		require.GreaterOrEqual(t, bucketTop(i), v)
		if i > 0 {
			require.Less(t, bucketTop(i-1), v)
		}
	}
}
