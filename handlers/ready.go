package handlers

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"nowserving/handlers/api"
	"nowserving/models"
)

const (
	// readyTimeout bounds each check of /readyz.
	readyTimeout = 2 * time.Second
	// readyLife is how long /readyz repeats its last result.
	readyLife = 500 * time.Millisecond
)

// condition is how well a part of the service works.
type condition int

const (
	works    condition = iota
	degraded           // the node serves without it
	down               // the node can't serve without it
)

// part is something that the service depends on. Its check says how it is and,
// unless it works, what is wrong.
type part struct {
	name  string
	check func(context.Context) (condition, string)
}

// parts are the dependencies that /readyz checks.
func (s *Server) parts() []part {
	return []part{
		{"database", func(ctx context.Context) (condition, string) {
			if err := s.api.Store.Writable(ctx); err != nil {
				s.api.Log.Warn("the database takes no changes", "error", err)
				return down, "It takes no changes."
			}
			return works, ""
		}},
		{"redis", func(ctx context.Context) (condition, string) {
			if err := s.api.Redis.Ping(ctx).Err(); err != nil {
				s.api.Log.Warn("Redis does not answer", "error", err)
				return degraded, "It does not answer."
			}
			return works, ""
		}},
		{"queueIndex", func(context.Context) (condition, string) {
			if length, silent := s.opts.Mirrors.Silence(); silent {
				return degraded, fmt.Sprintf("Nothing heard from Redis for %.0f seconds; positions are marked with their age.", length.Seconds())
			}
			return works, ""
		}},
		{"clock", func(context.Context) (condition, string) {
			wrong, err := s.api.Store.ClockError()
			switch {
			case wrong:
				return down, err.Error()
			case err != nil:
				return degraded, err.Error()
			}
			return works, ""
		}},
	}
}

// readiness is the last result of the checks.
type readiness struct {
	mu      sync.Mutex // held while checking, so concurrent requests share one check
	checked time.Time
	worst   condition
	found   []api.FieldError // the parts that do not work
}

// ready checks the parts, unless that was done a moment ago.
func (s *Server) ready(ctx context.Context) (condition, []api.FieldError) {
	r := &s.readiness
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) < readyLife {
		return r.worst, r.found
	}
	// The result is for others too, so it does not depend on this request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	parts := s.parts()
	conditions, details := make([]condition, len(parts)), make([]string, len(parts))
	var checks sync.WaitGroup
	for i, p := range parts {
		checks.Go(func() { conditions[i], details[i] = p.check(ctx) })
	}
	checks.Wait()
	r.checked, r.worst, r.found = time.Now(), works, nil
	for i, p := range parts {
		if conditions[i] != works {
			r.worst = max(r.worst, conditions[i])
			r.found = append(r.found, api.FieldError{Field: p.name, Message: details[i]})
		}
	}
	return r.worst, r.found
}

// serviceRoutes are the probes and metrics. /healthz reports that the process works;
// a container that fails it is replaced. /readyz reports whether the node should get
// requests.
func (s *Server) serviceRoutes() {
	s.api.Router.Match([]string{http.MethodGet, http.MethodHead}, "/healthz", func(c *gin.Context) {
		c.Header("Cache-Control", "no-store")
		c.JSON(http.StatusOK, gin.H{"status": "ok"})
	})
	s.api.Router.Match([]string{http.MethodGet, http.MethodHead}, "/readyz", func(c *gin.Context) {
		c.Header("Cache-Control", "no-store")
		if s.api.Stopping() {
			s.api.WriteError(c, stopping())
			return
		}
		switch worst, found := s.ready(c.Request.Context()); worst {
		case works:
			c.JSON(http.StatusOK, gin.H{"status": "ready"})
		case degraded:
			c.JSON(http.StatusOK, gin.H{"status": "degraded", "errors": found})
		case down:
			p := s.api.ProblemOf(c.Request.Context(), models.Errorf(models.CodeUnavailable, "A part of the service is not working."))
			p.Errors = found
			api.WriteProblem(c, p)
		}
	})
	if s.opts.Metrics != nil {
		s.api.Router.GET("/metrics", s.metrics)
	}
}
