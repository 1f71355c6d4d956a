package loadtest

import (
	"math/bits"
	"sync"
	"time"
)

// subBuckets is how finely each power of two is divided: a quantile is off by
// at most one part in 32.
const subBuckets = 32

// histogram counts durations in buckets that grow with the value, so any number
// of samples takes the same few kilobytes. It is safe for concurrent use.
type histogram struct {
	mu     sync.Mutex
	counts [64 * subBuckets]uint64
	n      uint64
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[bucketOf(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// quantile returns a value that at least the share q of the samples do not exceed.
func (h *histogram) quantile(q float64) time.Duration {
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

func (h *histogram) summary() Latency {
	s := Latency{
		P50: milliseconds(h.quantile(0.50)),
		P90: milliseconds(h.quantile(0.90)),
		P99: milliseconds(h.quantile(0.99)),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Count, s.Max = h.n, milliseconds(h.max)
	return s
}

// bucketOf gives small values a bucket each, and every larger power of two
// subBuckets of its own.
func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - bits.Len64(subBuckets)
	return shift*subBuckets + int(v>>shift)
}

// bucketTop is the largest value that bucketOf puts into bucket i.
func bucketTop(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return (uint64(i-shift*subBuckets)+1)<<shift - 1
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
