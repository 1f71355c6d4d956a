package api

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"github.com/redis/go-redis/v9"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/cache"
	"nowserving/booking/catalog"
	"nowserving/booking/customers"
	"nowserving/booking/store"
	"nowserving/models"
)

// Options configure an API. All fields are required unless they say otherwise.
type Options struct {
	Bookings *booking.Service
	Catalog  *catalog.Catalog
	Access   *access.Access
	// Customers are read for views of bookings and by the operations about customers.
	Customers *customers.Customers
	// Store keeps the answers to requests that may be repeated.
	Store *store.Store
	// Secret seals answers and page tokens; at least 32 bytes.
	Secret []byte
	// Redis counts requests for all nodes together.
	Redis redis.UniversalClient
	// Alone reports that Redis is inside this process; then it counts nothing.
	Alone bool
	// RateLimit is how many requests a minute each credential has, and each
	// address without a valid one. An IPv6 address is its first 64 bits here; the
	// network of its first 48 bits has five times as many.
	RateLimit int
	// TrustedProxies are the addresses and networks (CIDR) of proxies whose
	// X-Forwarded-For and X-Forwarded-Proto are believed. Optional.
	TrustedProxies []string
	// AllowedOrigins are the origins of other sites whose pages may call the API
	// for every organization. Optional.
	AllowedOrigins []string
	// PublicURL is where people reach the service; it begins the addresses of
	// tickets and displays.
	PublicURL string
	// Version is that of the OpenAPI document. Default "(devel)".
	Version string
	Log     *slog.Logger
	// Timeout bounds the work on one request. Default 15 s.
	Timeout time.Duration
	// CountTimeout is how long a request waits to be counted in Redis; then only
	// this node counts it. Default 100 ms.
	CountTimeout time.Duration
}

// API registers operations and answers them. It is the same for every route:
// credentials, organizations, limits, repeated requests, errors, page tokens and
// the OpenAPI document.
type API struct {
	// Options are those of New, with their defaults. PublicURL has no slash at its end.
	Options

	// Directory knows what each organization offers.
	Directory *Directory
	// Limiter counts requests.
	Limiter *Limiter
	// Router takes the routes that are no operations: pages, probes, receipts.
	Router *gin.Engine

	huma      huma.API
	answers   *models.Sealer
	pages     pageTokens
	proxies   proxies
	origins   cache.Cache[string, bool] // whether an organization allows an origin
	ownOrigin *http.CrossOriginProtection
	stopping  atomic.Bool
	// operations are those registered so far, in order.
	operations []Operation
	// large are the routes that take a body larger than MaxBody, such as
	// "PUT /management/customers/:customerId".
	large map[string]bool
	// OpenAPI is the OpenAPI document, once ServeOpenAPI was called.
	OpenAPI func() ([]byte, error)
}

// New makes an API without operations.
func New(o Options) (*API, error) {
	if o.Bookings == nil || o.Catalog == nil || o.Access == nil || o.Customers == nil || o.Store == nil || o.Redis == nil || o.RateLimit < 1 || o.Log == nil {
		return nil, errors.New("api: an option is missing")
	}
	o.Timeout, o.CountTimeout = cmp.Or(o.Timeout, requestTimeout), cmp.Or(o.CountTimeout, countTimeout)
	o.Version = cmp.Or(o.Version, "(devel)")
	o.PublicURL = strings.TrimRight(o.PublicURL, "/")
	answers, err := models.NewSealer(o.Secret, models.SealAnswers)
	if err != nil {
		return nil, err
	}
	pages, err := models.NewSealer(o.Secret, models.SealPages)
	if err != nil {
		return nil, err
	}
	a := &API{
		Options: o, Router: gin.New(), Directory: newDirectory(o.Catalog, o.Access), Limiter: newLimiter(o),
		large: map[string]bool{}, answers: answers, pages: pageTokens{pages, o.Store.Time},
		origins: cache.Cache[string, bool]{Life: originLife, Max: maxOrigins},
	}
	if a.ownOrigin, err = a.newOwnOrigin(); err != nil {
		return nil, fmt.Errorf("api: the public URL: %w", err)
	}
	if a.proxies, err = newProxies(o.TrustedProxies); err != nil {
		return nil, fmt.Errorf("api: trusted proxies: %w", err)
	}
	if err := a.Router.SetTrustedProxies(o.TrustedProxies); err != nil {
		return nil, fmt.Errorf("api: trusted proxies: %w", err)
	}
	a.Router.RemoteIPHeaders = []string{forwardedFor}
	a.Router.HandleMethodNotAllowed = true
	a.Router.RedirectTrailingSlash = false
	a.Router.NoRoute(a.refuse(models.CodeRouteMissing, "There is no such address."))
	a.Router.NoMethod(a.refuse(models.CodeMethod, "The address does not take this method."))
	a.Router.Use(a.identify, a.secureHeaders, a.recover, a.limitTime, a.answerPreflight, a.checkAddress)
	a.huma = huma.NewAPI(a.document(), adapter{a.Router})
	return a, nil
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.Router.ServeHTTP(w, routable(r)) }

// Stop asks callers to send their next request to another node. Requests that come
// all the same are served.
func (a *API) Stop() { a.stopping.Store(true) }

// Stopping reports whether Stop was called.
func (a *API) Stopping() bool { return a.stopping.Load() }
