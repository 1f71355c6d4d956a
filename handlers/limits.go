package handlers

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"
	"golang.org/x/time/rate"

	"nowserving/booking/access"
	"nowserving/models"
)

const (
	// countPatience is how long a request waits to be counted.
	countPatience = 100 * time.Millisecond
	// countPause is how long a Redis that did not answer is let alone, and
	// countSilence how long nothing more is logged of it.
	countPause   = time.Second
	countSilence = time.Minute
)

// limiter counts requests in Redis, for all nodes together. Each budget is a
// bucket that holds limit requests and fills up within a minute (GCRA). While
// Redis is away nobody is counted and everybody is let through. A node that is
// alone counts by itself.
type limiter struct {
	counts *redis_rate.Limiter
	own    *buckets // nil: Redis counts
	limit  redis_rate.Limit
	// patience is how long a request waits to be counted.
	patience time.Duration
	log      *slog.Logger

	mu        sync.Mutex
	askAgain  time.Time
	logsAgain time.Time
}

func newLimiter(o Options) *limiter {
	l := &limiter{counts: redis_rate.NewLimiter(o.Redis), limit: redis_rate.PerMinute(o.RateLimit), patience: countPatience, log: o.Log}
	if o.Alone {
		l.own = &buckets{of: map[string]*rate.Limiter{}}
	}
	return l
}

// buckets count the requests of a process that has its Redis inside: that one
// needs more time to read the script than most requests take.
type buckets struct {
	mu sync.Mutex
	of map[string]*rate.Limiter
}

// maxBuckets bounds the buckets kept; beyond it those that are full go, and if
// none is, all of them.
const maxBuckets = 10_000

// take spends one request and returns how many are left, a negative number when
// there was none.
func (b *buckets) take(name string, limit redis_rate.Limit, now time.Time) (left float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.of[name]
	if bucket == nil {
		if len(b.of) >= maxBuckets {
			maps.DeleteFunc(b.of, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= float64(limit.Burst) })
		}
		if len(b.of) >= maxBuckets {
			clear(b.of)
		}
		bucket = rate.NewLimiter(rate.Every(limit.Period/time.Duration(limit.Rate)), limit.Burst)
		b.of[name] = bucket
	}
	if !bucket.AllowN(now, 1) {
		return bucket.TokensAt(now) - 1
	}
	return bucket.TokensAt(now)
}

// budget is what is left to somebody.
type budget struct {
	remaining int
	resets    time.Duration // until nothing is spent any more
	wait      time.Duration // until there is something to spend; 0 when this request was let through
}

// take spends one request of a budget.
func (l *limiter) take(ctx context.Context, name string) budget {
	if l.own != nil {
		return l.budget(l.own.take(name, l.limit, time.Now()))
	}
	full := budget{remaining: l.limit.Burst}
	if l.paused() {
		return full
	}
	counting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	r, err := l.counts.Allow(counting, name, l.limit)
	if err != nil {
		if ctx.Err() == nil {
			l.pause(err)
		}
		return full
	}
	if r.Allowed == 0 {
		return budget{resets: r.ResetAfter, wait: r.RetryAfter}
	}
	// Not r.Remaining: the script rounds 98.9999999 down.
	return l.budget(float64(l.limit.Burst) * (1 - r.ResetAfter.Seconds()/l.limit.Period.Seconds()))
}

// budget is one of which so many requests are left; a negative number is missing
// for one more.
func (l *limiter) budget(left float64) budget {
	each := float64(l.limit.Period) / float64(l.limit.Rate)
	b := budget{remaining: max(0, int(left+0.01)), resets: time.Duration((float64(l.limit.Burst) - max(0, left)) * each)}
	if left < 0 {
		b.wait = time.Duration(-left * each)
	}
	return b
}

func (l *limiter) paused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.askAgain)
}

func (l *limiter) pause(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.askAgain = now.Add(countPause)
	if now.After(l.logsAgain) {
		l.logsAgain = now.Add(countSilence)
		l.log.Warn("requests are not limited while Redis does not count them", "error", cause)
	}
}

// spend counts a request against the budget of its credential or, where it has
// none that is good, of its address. The answer says what is left.
func (s *Server) spend(c *gin.Context, p access.Principal) error {
	name := "address:" + neighbourhood(c.ClientIP())
	if p.Kind != "" {
		name = string(p.Kind) + ":" + p.SubjectID
	}
	left := s.limiter.take(c.Request.Context(), name)
	c.Header("X-RateLimit-Limit", strconv.Itoa(s.limiter.limit.Burst))
	c.Header("X-RateLimit-Remaining", strconv.Itoa(left.remaining))
	c.Header("X-RateLimit-Reset", strconv.FormatInt(s.o.Store.Time().Add(left.resets+time.Second-1).Unix(), 10))
	if left.wait <= 0 {
		return nil
	}
	return &models.Error{
		Code: models.CodeTooManyRequests, RetryAfter: left.wait,
		Detail: "More than " + strconv.Itoa(s.limiter.limit.Rate) + " requests in a minute.",
	}
}

// limitHeaders describes the headers that tell of limits in answers of a status.
func limitHeaders(status string) map[string]*huma.Param {
	number := func(about string) *huma.Param {
		return &huma.Param{Description: about, Schema: &huma.Schema{Type: huma.TypeInteger}}
	}
	headers := map[string]*huma.Param{
		"X-RateLimit-Limit":     number("Requests a minute that the credential has; without a good one, the address."),
		"X-RateLimit-Remaining": number("Requests that may follow at once."),
		"X-RateLimit-Reset":     number("When Remaining will be Limit again, in Unix seconds."),
	}
	if status == strconv.Itoa(http.StatusTooManyRequests) {
		headers["Retry-After"] = number("Seconds until the next request is taken.")
	}
	return headers
}

// neighbourhood is the part of an address that one subscriber has: all of it,
// or the first 64 bits in IPv6.
func neighbourhood(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap(); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}
