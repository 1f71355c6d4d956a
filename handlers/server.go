package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/handlers/web"
	"nowserving/models"
	"nowserving/notify"
)

// Options are what the handlers stand on.
type Options struct {
	Bookings *booking.Service
	Catalog  *catalog.Catalog
	Access   *access.Access
	Mirrors  *queue.Mirrors
	Notify   *notify.Service
	// Store keeps the answers to requests that may be repeated.
	Store *store.Store
	// Secret seals them; at least 32 bytes.
	Secret []byte
	// Redis counts requests, unless it is inside this process, which is Alone.
	Redis redis.UniversalClient
	Alone bool
	// RateLimit is how many requests a minute each credential has, and each
	// address without a valid one. An IPv6 address is its first 64 bits here; the
	// network of its first 48 bits has five times as many.
	RateLimit int
	// DailyCodes is how many messages with codes an organization sends in a day;
	// what an address and a network may ask for follows from it. Default 1,000.
	DailyCodes int
	// TrustedProxies are the addresses and networks (CIDR) of proxies whose
	// X-Forwarded-For and X-Forwarded-Proto are believed.
	TrustedProxies []string
	// Metrics answers GET /metrics, to account keys only; nil leaves it out.
	Metrics http.Handler
	Log     *slog.Logger
	// PublicURL is where people reach the service; it begins the addresses of
	// tickets and displays.
	PublicURL string
	// AllowedOrigins are the origins of other sites whose pages may call the API
	// for every organization.
	AllowedOrigins []string
	// Challenges are what our own pages run before they ask for a one-time code.
	Challenges []web.Challenge
	// Development lets organizations be deleted for good.
	Development bool
}

// Server is the HTTP handler of the whole service.
type Server struct {
	o         Options
	engine    *gin.Engine
	api       huma.API
	directory *directory
	limiter   *limiter
	// timeout bounds the work on one request.
	timeout   time.Duration
	answers   *models.Sealer
	onSite    *models.Sealer // of the codes that guests type
	pages     pageTokens
	proxies   proxies
	origins   origins
	ownOrigin *http.CrossOriginProtection
	live      atomic.Pointer[http.Handler]
	stopping  atomic.Bool
	readiness readiness
	// operations are the routes of the API in the order of their making.
	operations []operation
	// openAPI is the OpenAPI document.
	openAPI func() ([]byte, error)
}

// New makes the Server. The live connection answers once ServeLive was called.
func New(o Options) (*Server, error) {
	if o.Bookings == nil || o.Catalog == nil || o.Access == nil || o.Mirrors == nil || o.Notify == nil || o.Store == nil || o.Redis == nil || o.RateLimit < 1 || o.Log == nil {
		return nil, errors.New("handlers: an option is missing")
	}
	o.PublicURL = strings.TrimRight(o.PublicURL, "/")
	o.DailyCodes = cmp.Or(o.DailyCodes, access.DailyCodes)
	answers, err := models.NewSealer(o.Secret, models.SealAnswers)
	if err != nil {
		return nil, err
	}
	onSite, err := models.NewSealer(o.Secret, models.SealOnSite)
	if err != nil {
		return nil, err
	}
	pages, err := models.NewSealer(o.Secret, models.SealPages)
	if err != nil {
		return nil, err
	}
	gin.SetMode(gin.ReleaseMode) // it would print every route otherwise
	s := &Server{o: o, engine: gin.New(), directory: newDirectory(o.Catalog, o.Access), limiter: newLimiter(o), timeout: requestTimeout, answers: answers, onSite: onSite, pages: pageTokens{pages, o.Store.Time}}
	s.origins = origins{ask: o.Catalog.OriginAllowed, answers: map[string]originAnswer{}}
	if s.ownOrigin, err = s.newOwnOrigin(); err != nil {
		return nil, fmt.Errorf("handlers: the public URL: %w", err)
	}
	s.engine.RemoteIPHeaders = []string{forwardedFor}
	if s.proxies, err = newProxies(o.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trust proxies: %w", err)
	}
	if err := s.engine.SetTrustedProxies(o.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trust proxies: %w", err)
	}
	s.engine.HandleMethodNotAllowed = true
	s.engine.RedirectTrailingSlash = false
	s.engine.NoRoute(s.refuse(models.CodeRouteMissing, "There is no such address."))
	s.engine.NoMethod(s.refuse(models.CodeMethod, "The address does not take this method."))
	s.engine.Use(s.identify, s.secureHeaders, s.recover, s.limitTime, s.answerPreflight, s.checkAddress)

	s.api = humagin.New(s.engine, s.document())
	s.signInRoutes()
	s.availabilityRoutes()
	s.customerRoutes()
	s.bookingRoutes()
	s.schedulingRoutes()
	s.queueRoutes()
	s.displayRoutes()
	s.deviceRoutes()
	s.resourceRoutes()
	s.typeRoutes()
	s.peopleRoutes()
	s.organizationRoutes()
	s.keyRoutes()
	s.memberRoutes()
	s.webhookRoutes()
	s.messageRoutes()
	s.auditRoutes()
	s.privacyRoutes()
	s.serveDocuments()
	s.serviceRoutes()
	s.receiptRoutes()
	if err := s.operatorRoutes(); err != nil {
		return nil, err
	}
	s.engine.GET(livePath, s.connect)
	web.Register(s.engine, s.countPage, s.framers, o.Challenges)
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// ServeLive sets who serves live connections.
func (s *Server) ServeLive(h http.Handler) { s.live.Store(&h) }

// Stop says that the node is about to end: it is not ready any more, takes no
// live connections, and asks callers to send their next request elsewhere. What
// comes all the same is served.
func (s *Server) Stop() { s.stopping.Store(true) }

// livePath is where clients connect.
const livePath = "/connection/websocket"

// connectShare is how many times the budget of its requests an address may open
// live connections. It is large because many patients share a clinic's Wi-Fi and
// reconnect together.
const connectShare = 10

func (s *Server) connect(c *gin.Context) {
	if s.stopping.Load() {
		s.answer(c, stopping())
		return
	}
	live := s.live.Load()
	if live == nil {
		s.answer(c, models.Errorf(models.CodeUnavailable, "Live connections are not served yet."))
		return
	}
	if err := s.pageConnects(c.Request); err != nil {
		s.answer(c, err)
		return
	}
	// How many connections an address opens is bounded on each node only. What
	// costs a look-up is charged when the client authenticates.
	subscriber, _ := networksOf(c.ClientIP())
	opened := s.limiter.own.take("connect:"+subscriber, redis_rate.PerMinute(connectShare*s.o.RateLimit), time.Now())
	if err := opened.tooMany(); err != nil {
		s.answer(c, err)
		return
	}
	c.Request.RemoteAddr = net.JoinHostPort(c.ClientIP(), "0")
	(*live).ServeHTTP(c.Writer, c.Request)
}

func stopping() error { return models.Errorf(models.CodeUnavailable, "This node is stopping.") }
