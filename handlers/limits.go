package handlers

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"nowserving/booking/access"
	"nowserving/models"
)

const (
	// countPatience is how long a request waits to be counted in Redis.
	countPatience = 100 * time.Millisecond
	// countPause is how long Redis is not asked after it failed to answer, and
	// countSilence how long further failures are not logged.
	countPause   = time.Second
	countSilence = time.Minute
	// networkShare is how many times the budget of one subscriber an IPv6 network
	// of 48 bits has.
	networkShare = 5
	// clinicShare is how many times the budget of one subscriber an address has
	// that an organization names as its clinic's. All of them together have
	// networkShare times as many.
	clinicShare = 10
)

// limiter counts the requests of budgets. Each budget is a bucket that holds a
// number of requests and fills up within a period (GCRA). Every node counts what
// it gets itself and refuses what exceeds the budget; the rest is counted in
// Redis, for all nodes together. So while Redis is slow or away each node still
// keeps the whole limit. A node that runs alone does not use Redis.
type limiter struct {
	shared *redis_rate.Limiter // nil: the node is alone
	own    *buckets
	// perMinute is the budget of a credential, and of an address without one.
	perMinute redis_rate.Limit
	// patience is how long a request waits to be counted in Redis.
	patience time.Duration
	log      *slog.Logger

	mu        sync.Mutex
	askAgain  time.Time
	logsAgain time.Time
}

func newLimiter(o Options) *limiter {
	l := &limiter{own: newBuckets(), perMinute: redis_rate.PerMinute(o.RateLimit), patience: countPatience, log: o.Log}
	if !o.Alone {
		l.shared = redis_rate.NewLimiter(o.Redis)
	}
	return l
}

// budget is what is left of one.
type budget struct {
	limit     int
	remaining int
	resets    time.Duration // until the budget is full again
	wait      time.Duration // until the next request is allowed; 0 if this one was
}

// take spends one request of a budget.
func (l *limiter) take(ctx context.Context, name string, limit redis_rate.Limit) budget {
	own := l.own.take(name, limit, time.Now())
	if own.wait > 0 || l.shared == nil || l.paused() {
		return own
	}
	counting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	r, err := l.shared.Allow(counting, name, limit)
	if err != nil {
		if ctx.Err() == nil {
			l.pause(err)
		}
		return own
	}
	if r.Allowed == 0 {
		l.own.give(name, limit)
		return budget{limit: limit.Burst, resets: r.ResetAfter, wait: r.RetryAfter}
	}
	// Not r.Remaining: the script rounds 98.9999999 down.
	left := float64(limit.Burst) * (1 - r.ResetAfter.Seconds()/limit.Period.Seconds())
	all := budget{limit: limit.Burst, remaining: max(0, int(left+0.01)), resets: r.ResetAfter}
	if own.remaining < all.remaining {
		return own
	}
	return all
}

// peek returns how long the next request of a budget has to wait, and spends
// nothing.
func (l *limiter) peek(ctx context.Context, name string, limit redis_rate.Limit) time.Duration {
	wait := l.own.peek(name, limit, time.Now())
	if wait > 0 || l.shared == nil || l.paused() {
		return wait
	}
	counting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	r, err := l.shared.AllowN(counting, name, limit, 0)
	if err != nil {
		if ctx.Err() == nil {
			l.pause(err)
		}
		return 0
	}
	each := limit.Period / time.Duration(limit.Rate)
	return max(0, r.ResetAfter+each-limit.Period)
}

// give returns one request to a budget.
func (l *limiter) give(ctx context.Context, name string, limit redis_rate.Limit) {
	l.own.give(name, limit)
	if l.shared == nil || l.paused() {
		return
	}
	counting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	r, err := l.shared.AllowN(counting, name, limit, -1)
	if err == nil && r.ResetAfter <= 0 { // full: the script leaves the key as it was
		err = l.shared.Reset(counting, name)
	}
	if err != nil && ctx.Err() == nil {
		l.pause(err)
	}
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
		l.log.Warn("Redis does not count requests: this node counts its own", "error", cause)
	}
}

// maxBuckets bounds the buckets a node keeps, about 10 MB. Beyond it the one
// that was used least recently is dropped: to empty one's own bucket that way
// takes requests from as many other addresses.
const maxBuckets = 50_000

// buckets are the budgets as one node counts them: the moment each is full again.
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

func (b *buckets) take(name string, limit redis_rate.Limit, now time.Time) budget {
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
		return budget{limit: limit.Burst, resets: full.Sub(now), wait: spent - whole}
	}
	b.full.Add(name, now.Add(spent))
	return budget{limit: limit.Burst, remaining: int((whole - spent) / each), resets: spent}
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

// takeAddress spends one request of an address and, in IPv6, of its network. It
// returns the budget that has less left.
func (l *limiter) takeAddress(ctx context.Context, address string) budget {
	subscriber, network := networksOf(address)
	left := l.take(ctx, "address:"+subscriber, l.perMinute)
	if left.wait > 0 || !strings.HasSuffix(network, "/48") {
		return left
	}
	wide := l.take(ctx, "network:"+network, redis_rate.PerMinute(networkShare*l.perMinute.Rate))
	if wide.wait > 0 || wide.remaining < left.remaining {
		return wide
	}
	return left
}

// takeClinic spends one request of an address that an organization names as its
// clinic's. The address's own budget is left for credentials that are looked up,
// and for when this one is spent.
func (l *limiter) takeClinic(ctx context.Context, address, organizationID string) budget {
	subscriber, _ := networksOf(address)
	name, each := "clinic:"+organizationID, redis_rate.PerMinute(clinicShare*l.perMinute.Rate)
	left := l.take(ctx, name+":"+subscriber, each)
	if left.wait > 0 {
		return l.takeAddress(ctx, address)
	}
	all := l.take(ctx, name, redis_rate.PerMinute(networkShare*clinicShare*l.perMinute.Rate))
	switch {
	case all.wait > 0:
		l.give(ctx, name+":"+subscriber, each)
		return l.takeAddress(ctx, address)
	case all.remaining < left.remaining:
		return all
	}
	return left
}

// giveAddress returns what takeAddress spent.
func (l *limiter) giveAddress(ctx context.Context, address string) {
	subscriber, network := networksOf(address)
	l.give(ctx, "address:"+subscriber, l.perMinute)
	if strings.HasSuffix(network, "/48") {
		l.give(ctx, "network:"+network, redis_rate.PerMinute(networkShare*l.perMinute.Rate))
	}
}

// networksOf returns the part of an address that one subscriber has, and the
// network around it: in IPv4 the address and its first 24 bits, in IPv6 the
// first 64 bits and the first 48.
func networksOf(address string) (subscriber, network string) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address, address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String(), netip.PrefixFrom(ip, 24).Masked().String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String(), netip.PrefixFrom(ip, 48).Masked().String()
}

// tooMany is the error of a budget that is spent, nil while it is not.
func (b budget) tooMany() error {
	if b.wait <= 0 {
		return nil
	}
	return &models.Error{
		Code: models.CodeTooManyRequests, RetryAfter: b.wait,
		Detail: "More than " + strconv.Itoa(b.limit) + " requests in a minute.",
	}
}

// authenticate returns the principal that a credential belongs to. A credential
// that is not valid is charged to the address it comes from. So is a look-up in
// the database, until the credential turns out to be valid: for an address that
// has spent its budget nothing is looked up. left is what the address has left,
// zero where it was not charged.
func (s *Server) authenticate(ctx context.Context, address, token string) (p access.Principal, left budget, err error) {
	charged := false
	p, err = s.o.Access.Authenticate(ctx, token, func() error {
		charged = true
		left = s.limiter.takeAddress(ctx, address)
		return left.tooMany()
	})
	_, refused := errors.AsType[*models.Error](err)
	switch {
	case charged && !refused: // valid, or the database failed
		s.limiter.giveAddress(ctx, address)
		left = budget{}
	case !charged && refused:
		left = s.limiter.takeAddress(ctx, address)
		if limited := left.tooMany(); limited != nil {
			err = limited
		}
	}
	return p, left, err
}

// charge spends one request of the budget of a principal.
func (s *Server) charge(ctx context.Context, p access.Principal) budget {
	return s.limiter.take(ctx, string(p.Kind)+":"+p.SubjectID, s.limiter.perMinute)
}

// spendAddress charges a request without a credential to its address, once. An
// organization may have named that as its clinic's; this is known from what was
// read before, and nothing is read for it.
func (s *Server) spendAddress(c *gin.Context) error {
	const charged = "charged"
	if c.GetBool(charged) {
		return nil
	}
	c.Set(charged, true)
	var left budget
	if clinic := s.directory.clinicAt(c.ClientIP(), cmp.Or(c.Param("organizationId"), c.GetHeader("X-APP-ID"))); clinic != "" {
		left = s.limiter.takeClinic(c.Request.Context(), c.ClientIP(), clinic)
	} else {
		left = s.limiter.takeAddress(c.Request.Context(), c.ClientIP())
	}
	s.show(c, left)
	return left.tooMany()
}

// countPage charges a page to the address that asks for it. Pages carry no
// credential, and that of a queue looks up its organization.
func (s *Server) countPage(c *gin.Context) {
	if err := s.spendAddress(c); err != nil {
		s.answer(c, err)
	}
}

// show sets the headers that say what is left of a budget.
func (s *Server) show(c *gin.Context, b budget) {
	c.Header("X-RateLimit-Limit", strconv.Itoa(b.limit))
	c.Header("X-RateLimit-Remaining", strconv.Itoa(b.remaining))
	c.Header("X-RateLimit-Reset", strconv.FormatInt(s.o.Store.Time().Add(b.resets+time.Second-1).Unix(), 10))
}

// limitHeaders describe the headers about limits.
var limitHeaders = map[string]*huma.Header{
	"X-RateLimit-Limit":     numberHeader("Requests a minute that the credential has; without a valid one, the address, its network or its clinic."),
	"X-RateLimit-Remaining": numberHeader("Requests that may follow at once."),
	"X-RateLimit-Reset":     numberHeader("When Remaining will be Limit again, in Unix seconds."),
	retryAfter:              numberHeader("Seconds until the request can be repeated."),
}

const retryAfter = "Retry-After"

func numberHeader(about string) *huma.Header {
	return &huma.Header{Description: about, Schema: &huma.Schema{Type: huma.TypeInteger}}
}

// headersOf refers to the headers about limits that answers of a status have.
func headersOf(status int) map[string]*huma.Header {
	headers := map[string]*huma.Header{}
	for name := range limitHeaders {
		if name != retryAfter || status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
			headers[name] = &huma.Header{Ref: "#/components/headers/" + name}
		}
	}
	return headers
}
