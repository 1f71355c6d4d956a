package handlers

import (
	"cmp"
	"errors"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"

	"nowserving/booking/access"
	"nowserving/booking/files"
	"nowserving/booking/privacy"
	"nowserving/booking/queue"
	"nowserving/handlers/api"
	"nowserving/handlers/web"
	"nowserving/models"
	"nowserving/notify"
)

// Options configure a Server. All fields are required unless they say otherwise.
type Options struct {
	API *api.API
	// Live answers live connections.
	Live    http.Handler
	Mirrors *queue.Mirrors
	Notify  *notify.Service
	Privacy *privacy.Privacy
	Files   *files.Service
	// DailyCodes is how many messages with codes an organization sends in a day. The
	// limits of addresses and networks derive from it. Default 1,000.
	DailyCodes int
	// Metrics answers GET /metrics, to account keys only; nil leaves it out.
	Metrics http.Handler
	// Challenges are the captchas that our own pages run before they ask for a
	// one-time code. Optional.
	Challenges []web.Challenge
	// Development lets organizations be deleted for good.
	Development bool
}

// Server is the HTTP handler of the whole service.
type Server struct {
	opts      Options
	api       *api.API
	onSite    *models.Sealer // of the codes that guests type
	readiness readiness
}

// New makes the Server and registers its routes with the API.
func New(o Options) (*Server, error) {
	if o.API == nil || o.Live == nil || o.Mirrors == nil || o.Notify == nil || o.Privacy == nil || o.Files == nil {
		return nil, errors.New("handlers: an option is missing")
	}
	o.DailyCodes = cmp.Or(o.DailyCodes, access.DailyCodes)
	onSite, err := models.NewSealer(o.API.Secret, models.SealOnSite)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, api: o.API, onSite: onSite}
	s.signInRoutes()
	s.availabilityRoutes()
	s.categoryRoutes()
	s.timesRoutes()
	s.customFieldRoutes()
	s.customerRoutes()
	s.bookingRoutes()
	s.schedulingRoutes()
	s.queueRoutes()
	s.displayRoutes()
	s.deviceRoutes()
	s.resourceRoutes()
	s.calendarRoutes()
	s.icsRoutes()
	s.websiteRoutes()
	s.typeRoutes()
	s.peopleRoutes()
	s.organizationRoutes()
	s.keyRoutes()
	s.memberRoutes()
	s.webhookRoutes()
	s.messageRoutes()
	s.auditRoutes()
	s.privacyRoutes()
	s.fileRoutes()
	s.serveDocuments()
	s.serviceRoutes()
	s.receiptRoutes()
	if err := s.operatorRoutes(); err != nil {
		return nil, err
	}
	o.API.Router.GET(api.LivePath, s.connect)
	web.Register(o.API.Router, o.API.CountPage, o.API.Framers, o.Challenges)
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.api.ServeHTTP(w, r) }

// Stop prepares the node's end: it reports not ready, refuses live connections, and
// asks clients to send their next request to another node. Requests are still served.
func (s *Server) Stop() { s.api.Stop() }

// connectShare is how many times the budget of its requests an address may open
// live connections. It is large because many patients share a clinic's Wi-Fi and
// reconnect together.
const connectShare = 10

func (s *Server) connect(c *gin.Context) {
	if s.api.Stopping() {
		s.api.WriteError(c, stopping())
		return
	}
	if err := s.api.AuthenticatePage(c.Request); err != nil {
		s.api.WriteError(c, err)
		return
	}
	// How many connections an address opens is bounded on each node only. What
	// costs a look-up is charged when the client authenticates.
	subscriber, _ := api.NetworksOf(c.ClientIP())
	opened := s.api.Limiter.TakeLocal("connect:"+subscriber, redis_rate.PerMinute(connectShare*s.api.RateLimit))
	if err := opened.Err(); err != nil {
		s.api.WriteError(c, err)
		return
	}
	c.Request.RemoteAddr = net.JoinHostPort(c.ClientIP(), "0")
	s.opts.Live.ServeHTTP(c.Writer, c.Request)
}

func stopping() error { return models.Errorf(models.CodeUnavailable, "This node is stopping.") }
