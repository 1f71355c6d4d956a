package api

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
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

	"nowserving/booking/access"
	"nowserving/models"
)

const (
	// countTimeout is how long a request waits to be counted in Redis, by default.
	countTimeout = 100 * time.Millisecond
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

// Limiter counts requests against budgets. A budget is a bucket that holds a number
// of requests and fills up within a period (GCRA). A node first counts its own
// requests and refuses those over the budget; the rest are counted in Redis for all
// nodes together. While Redis is slow or away, each node alone still keeps the limit.
// A node that runs alone does not use Redis.
type Limiter struct {
	shared *redis_rate.Limiter // nil: the node is alone
	own    *buckets
	// perMinute is the budget of a credential, and of an address without one.
	perMinute redis_rate.Limit
	// timeout is how long a request waits to be counted in Redis.
	timeout time.Duration
	log     *slog.Logger

	mu        sync.Mutex
	askAgain  time.Time
	logsAgain time.Time
}

func newLimiter(o Options) *Limiter {
	l := &Limiter{own: newBuckets(), perMinute: redis_rate.PerMinute(o.RateLimit), timeout: o.CountTimeout, log: o.Log}
	if !o.Alone {
		l.shared = redis_rate.NewLimiter(o.Redis)
	}
	return l
}

// Budget is the state of a budget after a request.
type Budget struct {
	Limit     int
	Remaining int
	Resets    time.Duration // until the budget is full again
	Wait      time.Duration // until the next request is allowed; 0 if this one was
}

// Take spends one request of a budget.
func (l *Limiter) Take(ctx context.Context, name string, limit redis_rate.Limit) Budget {
	own := l.own.take(name, limit, time.Now())
	if own.Wait > 0 || l.shared == nil || l.paused() {
		return own
	}
	counting, cancel := context.WithTimeout(ctx, l.timeout)
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
		return Budget{Limit: limit.Burst, Resets: r.ResetAfter, Wait: r.RetryAfter}
	}
	// Not r.Remaining: the script rounds 98.9999999 down.
	left := float64(limit.Burst) * (1 - r.ResetAfter.Seconds()/limit.Period.Seconds())
	all := Budget{Limit: limit.Burst, Remaining: max(0, int(left+0.01)), Resets: r.ResetAfter}
	if own.Remaining < all.Remaining {
		return own
	}
	return all
}

// NamedLimit is a budget and the name it is counted under.
type NamedLimit struct {
	Name  string
	Limit redis_rate.Limit
}

// TakeAll spends one request of each budget, or of none if one is spent. It
// returns how long that one has to be waited for.
func (l *Limiter) TakeAll(ctx context.Context, budgets []NamedLimit) time.Duration {
	for i, b := range budgets {
		left := l.Take(ctx, b.Name, b.Limit)
		if left.Wait <= 0 {
			continue
		}
		for _, taken := range budgets[:i] {
			l.Give(ctx, taken.Name, taken.Limit)
		}
		return left.Wait
	}
	return 0
}

// Charge spends one request of each budget, whether or not it is spent already.
func (l *Limiter) Charge(ctx context.Context, budgets []NamedLimit) {
	for _, b := range budgets {
		l.Take(ctx, b.Name, b.Limit)
	}
}

// Spent returns how long the first of the budgets that is spent has to be waited
// for, without spending anything.
func (l *Limiter) Spent(ctx context.Context, budgets []NamedLimit) time.Duration {
	for _, b := range budgets {
		if wait := l.Peek(ctx, b.Name, b.Limit); wait > 0 {
			return wait
		}
	}
	return 0
}

// TakeLocal spends one request of a budget that each node counts for itself.
func (l *Limiter) TakeLocal(name string, limit redis_rate.Limit) Budget {
	return l.own.take(name, limit, time.Now())
}

// Peek returns how long the next request of a budget has to wait, and spends
// nothing.
func (l *Limiter) Peek(ctx context.Context, name string, limit redis_rate.Limit) time.Duration {
	wait := l.own.peek(name, limit, time.Now())
	if wait > 0 || l.shared == nil || l.paused() {
		return wait
	}
	counting, cancel := context.WithTimeout(ctx, l.timeout)
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

// Give returns one request to a budget.
func (l *Limiter) Give(ctx context.Context, name string, limit redis_rate.Limit) {
	l.own.give(name, limit)
	if l.shared == nil || l.paused() {
		return
	}
	counting, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	r, err := l.shared.AllowN(counting, name, limit, -1)
	if err == nil && r.ResetAfter <= 0 { // full: the script leaves the key as it was
		err = l.shared.Reset(counting, name)
	}
	if err != nil && ctx.Err() == nil {
		l.pause(err)
	}
}

func (l *Limiter) paused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.askAgain)
}

func (l *Limiter) pause(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.askAgain = now.Add(countPause)
	if now.After(l.logsAgain) {
		l.logsAgain = now.Add(countSilence)
		l.log.Warn("Redis does not count requests: this node counts its own", "error", cause)
	}
}

// TakeAddress spends one request of an address and, in IPv6, of its network. It
// returns the budget that has less left.
func (l *Limiter) TakeAddress(ctx context.Context, address string) Budget {
	subscriber, network := NetworksOf(address)
	left := l.Take(ctx, "address:"+subscriber, l.perMinute)
	if left.Wait > 0 || !strings.HasSuffix(network, "/48") {
		return left
	}
	wide := l.Take(ctx, "network:"+network, redis_rate.PerMinute(networkShare*l.perMinute.Rate))
	if wide.Wait > 0 || wide.Remaining < left.Remaining {
		return wide
	}
	return left
}

// takeClinic spends one request of an address that an organization names as its
// clinic's. The address's own budget is left for credentials that are looked up,
// and for when this one is spent.
func (l *Limiter) takeClinic(ctx context.Context, address, organizationID string) Budget {
	subscriber, _ := NetworksOf(address)
	name, each := "clinic:"+organizationID, redis_rate.PerMinute(clinicShare*l.perMinute.Rate)
	left := l.Take(ctx, name+":"+subscriber, each)
	if left.Wait > 0 {
		return l.TakeAddress(ctx, address)
	}
	all := l.Take(ctx, name, redis_rate.PerMinute(networkShare*clinicShare*l.perMinute.Rate))
	switch {
	case all.Wait > 0:
		l.Give(ctx, name+":"+subscriber, each)
		return l.TakeAddress(ctx, address)
	case all.Remaining < left.Remaining:
		return all
	}
	return left
}

// giveAddress returns what TakeAddress spent.
func (l *Limiter) giveAddress(ctx context.Context, address string) {
	subscriber, network := NetworksOf(address)
	l.Give(ctx, "address:"+subscriber, l.perMinute)
	if strings.HasSuffix(network, "/48") {
		l.Give(ctx, "network:"+network, redis_rate.PerMinute(networkShare*l.perMinute.Rate))
	}
}

// NetworksOf returns the part of an address that one subscriber has, and the
// network around it: in IPv4 the address and its first 24 bits, in IPv6 the
// first 64 bits and the first 48.
func NetworksOf(address string) (subscriber, network string) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address, address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String(), netip.PrefixFrom(ip, 24).Masked().String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String(), netip.PrefixFrom(ip, 48).Masked().String()
}

// Err returns an error with CodeTooManyRequests if the request was over the budget.
func (b Budget) Err() error {
	if b.Wait <= 0 {
		return nil
	}
	return &models.Error{
		Code: models.CodeTooManyRequests, RetryAfter: b.Wait,
		Detail: "More than " + strconv.Itoa(b.Limit) + " requests in a minute.",
	}
}

// Authenticate returns the principal of a credential. An invalid credential is
// charged to its address. A look-up in the database is charged to the address too,
// and returned if the credential is valid: nothing is looked up for an address over
// its budget. left is the budget of the address, or zero if it was not charged.
func (a *API) Authenticate(ctx context.Context, address, token string) (p access.Principal, left Budget, err error) {
	charged := false
	p, err = a.Access.Authenticate(ctx, token, func() error {
		charged = true
		left = a.Limiter.TakeAddress(ctx, address)
		return left.Err()
	})
	_, refused := errors.AsType[*models.Error](err)
	switch {
	case charged && !refused: // valid, or the database failed
		a.Limiter.giveAddress(ctx, address)
		left = Budget{}
	case !charged && refused:
		left = a.Limiter.TakeAddress(ctx, address)
		if limited := left.Err(); limited != nil {
			err = limited
		}
	}
	return p, left, err
}

// Charge spends one request of a principal's budget.
func (a *API) Charge(ctx context.Context, p access.Principal) Budget {
	return a.Limiter.Take(ctx, string(p.Kind)+":"+p.SubjectID, a.Limiter.perMinute)
}

// ChargeAddress charges a request without a credential to its address, once. An
// address that a cached organization names as its clinic's has a larger budget.
func (a *API) ChargeAddress(c *gin.Context) error {
	const charged = "charged"
	if c.GetBool(charged) {
		return nil
	}
	c.Set(charged, true)
	var left Budget
	if clinic := a.Directory.ClinicAt(c.ClientIP(), cmp.Or(c.Param("organizationId"), c.GetHeader("X-APP-ID"))); clinic != "" {
		left = a.Limiter.takeClinic(c.Request.Context(), c.ClientIP(), clinic)
	} else {
		left = a.Limiter.TakeAddress(c.Request.Context(), c.ClientIP())
	}
	a.SetLimitHeaders(c, left)
	return left.Err()
}

// CountPage charges a page to its address. Pages have no credential, and some look up
// an organization.
func (a *API) CountPage(c *gin.Context) {
	if err := a.ChargeAddress(c); err != nil {
		a.WriteError(c, err)
	}
}

// SetLimitHeaders sets the headers about a budget.
func (a *API) SetLimitHeaders(c *gin.Context, b Budget) {
	c.Header("X-RateLimit-Limit", strconv.Itoa(b.Limit))
	c.Header("X-RateLimit-Remaining", strconv.Itoa(b.Remaining))
	c.Header("X-RateLimit-Reset", strconv.FormatInt(a.Store.Time().Add(b.Resets+time.Second-1).Unix(), 10))
}

// limitHeaders describe the headers about budgets.
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

// HashedNetworksOf is NetworksOf as keyed hashes, for budgets that last up to a day:
// an erasure must not leave an address for that long.
func (a *API) HashedNetworksOf(address string) (subscriber, network string) {
	subscriber, network = NetworksOf(address)
	hide := func(text string) string {
		mac := hmac.New(sha256.New, a.Secret)
		mac.Write([]byte("budgets of codes:" + text))
		return hex.EncodeToString(mac.Sum(nil)[:16])
	}
	return hide(subscriber), hide(network)
}

// HashedNetwork returns the first of HashedNetworksOf for a caller's address.
func (a *API) HashedNetwork(c Caller) string {
	subscriber, _ := a.HashedNetworksOf(c.Address)
	return subscriber
}
