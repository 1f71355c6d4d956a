package api

import (
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxBuckets bounds the buckets of a node, about 10 MB. Beyond it the least recently
// used one is dropped. To reset its own bucket that way, a client needs requests from
// as many other addresses.
const maxBuckets = 50_000

// buckets are the budgets that one node counts. A bucket is stored as the moment at
// which it is full again.
type buckets struct {
	mu   sync.Mutex
	full *simplelru.LRU[string, time.Time]
}

func newBuckets() *buckets {
	full, err := simplelru.NewLRU[string, time.Time](maxBuckets, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	return &buckets{full: full}
}

func (b *buckets) take(name string, limit redis_rate.Limit, now time.Time) Budget {
	each := limit.Period / time.Duration(limit.Rate)
	whole := each * time.Duration(limit.Burst)
	b.mu.Lock()
	defer b.mu.Unlock()
	full, _ := b.full.Get(name)
	if full.Before(now) {
		full = now
	}
	spent := full.Add(each).Sub(now)
	if spent > whole {
		return Budget{Limit: limit.Burst, Resets: full.Sub(now), Wait: spent - whole}
	}
	b.full.Add(name, now.Add(spent))
	return Budget{Limit: limit.Burst, Remaining: int((whole - spent) / each), Resets: spent}
}

func (b *buckets) peek(name string, limit redis_rate.Limit, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	full, ok := b.full.Peek(name)
	if !ok {
		return 0
	}
	each := limit.Period / time.Duration(limit.Rate)
	return max(0, full.Sub(now)+each-each*time.Duration(limit.Burst))
}

func (b *buckets) give(name string, limit redis_rate.Limit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if full, ok := b.full.Peek(name); ok {
		b.full.Add(name, full.Add(-limit.Period/time.Duration(limit.Rate)))
	}
}
