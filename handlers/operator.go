package handlers

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
	"riverqueue.com/riverui"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

// jobsPath is where operators look at the jobs that are due, under way and
// failed, and try them again. The pages are River's own (riverui).
const jobsPath = "/operator/jobs"

// operatorPolicy is the Content-Security-Policy of those pages, and of no
// other: like ours, but their scripts set styles on elements.
const operatorPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; " +
	"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// operatorRoutes are for the operator of the service. They show all organizations at
// once, so they need an account key.
func (s *Server) operatorRoutes() error {
	// Not started: in its background it would only count jobs ahead of time.
	pages, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: s.opts.Notify.JobPages(), JobListHideArgsByDefault: true, Logger: s.api.Log, Prefix: jobsPath,
	})
	if err != nil {
		return fmt.Errorf("make the pages of jobs: %w", err)
	}
	// A browser sends a password along with whatever another site makes it ask.
	sameSite := http.NewCrossOriginProtection()
	serve := func(c *gin.Context) {
		if !s.admitOperator(c, access.ScopeAdmin) {
			return
		}
		if err := sameSite.Check(c.Request); err != nil {
			s.api.WriteError(c, models.Errorf(models.CodeForbidden, "Another site may not do this in your name."))
			return
		}
		c.Header("Content-Security-Policy", operatorPolicy)
		c.Header("Referrer-Policy", "no-referrer")
		c.Header("Cache-Control", "no-store")
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, api.MaxBody)
		pages.ServeHTTP(c.Writer, c.Request)
	}
	s.api.Router.Any(jobsPath, serve)
	s.api.Router.Any(jobsPath+"/*path", serve)
	return nil
}

// admitOperator reports whether a request has an account key with a scope, as
// elsewhere or as the password of HTTP Basic (RFC 7617), for browsers. Otherwise it
// charges the address and answers the request.
func (s *Server) admitOperator(c *gin.Context, needs access.Scope) bool {
	key := api.CredentialOf(c.Request)
	if _, password, ok := c.Request.BasicAuth(); ok {
		key = password
	}
	p, left, err := s.api.Authenticate(c.Request.Context(), c.ClientIP(), key)
	if err == nil && api.RoleOf(p) != api.AccountKey {
		err = models.Errorf(models.CodeUnauthenticated, "Only an account key opens this.")
		left = s.api.Limiter.TakeAddress(c.Request.Context(), c.ClientIP())
		err = cmp.Or(left.Err(), err)
	}
	if err == nil {
		err = api.Operation{Scope: needs}.Allows(p)
	}
	if err == nil {
		return true
	}
	if left.Limit > 0 {
		s.api.SetLimitHeaders(c, left)
	}
	answer := s.api.ProblemOf(c.Request.Context(), err)
	answer.Challenge = `Basic realm="Account key as password", charset="UTF-8"`
	api.WriteProblem(c, answer)
	return false
}

// metrics answers with the metrics of this node. They need an account key, because
// they show how many patients wait.
func (s *Server) metrics(c *gin.Context) {
	if s.admitOperator(c, access.ScopeRead) {
		c.Header("Cache-Control", "no-store")
		s.opts.Metrics.ServeHTTP(c.Writer, c.Request)
	}
}
