package report

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"sync"
	"time"
)

// subBuckets is the number of buckets in each power of two. A quantile is off by at most one
// part in 32.
const subBuckets = 32

// Histogram counts durations in buckets that grow with the value, so that any number of
// samples takes the same few kilobytes. It is safe for concurrent use.
type Histogram struct {
	mu     sync.Mutex
	counts [64 * subBuckets]uint64
	n      uint64
	max    time.Duration
}

// Add adds a sample. Negative durations count as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[bucketOf(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// Count returns the number of samples.
func (h *Histogram) Count() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

// Quantile returns a value that at least the share q of the samples does not exceed.
func (h *Histogram) Quantile(q float64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n)), h.n-1)
	seen := uint64(0)
	for i, c := range h.counts {
		if seen += c; seen > rank {
			return min(time.Duration(bucketTop(i)), h.max)
		}
	}
	return h.max
}

// Summary returns the count and the quantiles in milliseconds.
func (h *Histogram) Summary() Latency {
	s := Latency{
		P50: Milliseconds(h.Quantile(0.50)),
		P90: Milliseconds(h.Quantile(0.90)),
		P99: Milliseconds(h.Quantile(0.99)),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Count, s.Max = h.n, Milliseconds(h.max)
	return s
}

// bucketOf returns the bucket of a value. Small values have a bucket each; every larger power
// of two has subBuckets of them.
func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - bits.Len64(subBuckets)
	return shift*subBuckets + int(v>>shift)
}

// bucketTop returns the largest value that bucketOf puts into bucket i.
func bucketTop(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return (uint64(i-shift*subBuckets)+1)<<shift - 1
}

// Merge adds the samples of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// histogramJSON is the form in which processes exchange a histogram: the buckets that are not
// empty, as pairs of index and count.
type histogramJSON struct {
	Buckets [][2]uint64   `json:"buckets"`
	Max     time.Duration `json:"max"`
}

// MarshalJSON implements json.Marshaler.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := histogramJSON{Max: h.max}
	for i, c := range h.counts {
		if c > 0 {
			out.Buckets = append(out.Buckets, [2]uint64{uint64(i), c})
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler. It adds the samples to those already counted.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var in histogramJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range in.Buckets {
		if b[0] >= uint64(len(h.counts)) {
			return fmt.Errorf("a histogram has no bucket %d", b[0])
		}
		h.counts[b[0]] += b[1]
		h.n += b[1]
	}
	h.max = max(h.max, in.Max)
	return nil
}

// RampQuantile treats each sample as the height of a ramp: a value that grew from zero to the
// sample at the speed of the clock. For the rest of the total time the value was zero. It
// returns the value that was not exceeded during the share q of the total time.
func (h *Histogram) RampQuantile(q float64, total time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	allowed := (1 - q) * float64(total)
	// From the top bucket down, count is the number of ramps higher than the bucket and above
	// the time they spent over it.
	count, above := 0.0, 0.0
	upper := float64(h.max)
	for i := len(h.counts) - 1; i >= 0; i-- {
		if h.counts[i] == 0 {
			continue
		}
		top := min(float64(bucketTop(i)), float64(h.max))
		if next := above + count*(upper-top); next >= allowed {
			return time.Duration(upper - (allowed-above)/count)
		}
		above += count * (upper - top)
		upper = top
		count += float64(h.counts[i])
	}
	if count > 0 && above+count*upper > allowed {
		return time.Duration(upper - (allowed-above)/count)
	}
	return 0
}

// Milliseconds returns a duration in milliseconds.
func Milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
