package api

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"nowserving/models"
)

// apiPolicy is the Content-Security-Policy of answers that are not pages. If a
// browser shows one anyway, it runs nothing in it.
const apiPolicy = "default-src 'none'; frame-ancestors 'none'"

// secureHeaders sets the security headers of every answer. Pages replace the policy
// with their own.
func (a *API) secureHeaders(c *gin.Context) {
	c.Header("Content-Security-Policy", apiPolicy)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("X-Frame-Options", "DENY")
	c.Header("Referrer-Policy", "no-referrer")
	c.Header("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	c.Header("Cross-Origin-Opener-Policy", "same-origin")
	c.Header("Vary", "Origin")
	if a.secure() || a.proxies.trust(c.RemoteIP()) && c.GetHeader("X-Forwarded-Proto") == "https" {
		c.Header("Strict-Transport-Security", "max-age=31536000")
	}
	c.Next()
}

// proxies are the networks of trusted proxies.
type proxies []netip.Prefix

func newProxies(list []string) (proxies, error) {
	var all proxies
	for _, text := range list {
		if one, err := netip.ParseAddr(text); err == nil {
			all = append(all, netip.PrefixFrom(one, one.BitLen()))
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		all = append(all, network)
	}
	return all, nil
}

func (p proxies) trust(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(ip.Unmap()) })
}

// answerPreflight answers CORS preflights. Cookies need a header that is not in the
// allow-list, so a page of an origin that is not allowed can read nothing; it only
// gets no CORS headers.
func (a *API) answerPreflight(c *gin.Context) {
	origin := c.GetHeader("Origin")
	preflight := c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != ""
	if preflight {
		if err := a.ChargeAddress(c); err != nil {
			a.WriteError(c, err)
			return
		}
	}
	switch {
	case slices.Contains(a.AllowedOrigins, origin):
		shareWith(c, origin)
	case preflight && a.mayCall(c.Request.Context(), "", origin):
		shareWith(c, origin) // for which organization is told by the request itself
	default:
		c.Next()
		return
	}
	if !preflight {
		c.Next()
		return
	}
	c.Header("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
	c.Header("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, X-API-KEY, X-APP-ID, X-Request-Id, lang")
	c.Header("Access-Control-Max-Age", "600")
	c.AbortWithStatus(http.StatusNoContent)
}

// share lets the page that made a request read the answer if the organization allows
// its origin. A request over its limit looks nothing up; its page may read the
// refusal only if the origin is remembered.
func (a *API) share(c *gin.Context, organizationID string, refused error) {
	origin := c.GetHeader("Origin")
	if models.CodeOf(refused) == models.CodeTooManyRequests {
		if slices.Contains(a.AllowedOrigins, origin) || a.knownAllowed(origin) {
			shareWith(c, origin)
		}
		return
	}
	if a.mayCall(c.Request.Context(), organizationID, origin) {
		shareWith(c, origin)
	}
}

func shareWith(c *gin.Context, origin string) {
	c.Header("Access-Control-Allow-Origin", origin)
	c.Header("Access-Control-Expose-Headers",
		"X-Request-Id, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Idempotency-Replayed")
}

// mayCall reports whether pages of an origin may call the API for an organization or,
// if organizationID is empty, for any. It reports false if that can't be read.
func (a *API) mayCall(ctx context.Context, organizationID, origin string) bool {
	allowed, err := a.OriginAllowed(ctx, organizationID, origin)
	if err != nil && ctx.Err() == nil {
		a.Log.Warn("read whether an origin may call", "error", err)
	}
	return allowed
}

// OriginAllowed is mayCall that also returns why it can't be read.
func (a *API) OriginAllowed(ctx context.Context, organizationID, origin string) (bool, error) {
	if origin == "" || slices.Contains(a.AllowedOrigins, origin) {
		return origin != "", nil
	}
	if organizationID != "" {
		o, err := a.Directory.Get(ctx, organizationID)
		if err == nil {
			return slices.Contains(o.AllowedOrigins, origin), nil
		}
		if models.CodeOf(err) != models.CodeOrgMissing {
			return false, err
		}
	}
	return a.someAllow(ctx, origin)
}

// Framers returns the origins that may show an organization's pages in a frame.
func (a *API) Framers(ctx context.Context, organizationID string) []string {
	organizationID, err := a.Directory.ResolveID(ctx, organizationID)
	if err != nil {
		return nil
	}
	if !IsText(organizationID) {
		return nil
	}
	o, err := a.Directory.Get(ctx, organizationID)
	if err != nil {
		if models.CodeOf(err) != models.CodeOrgMissing && ctx.Err() == nil {
			a.Log.Warn("it is not known who may frame a page", "error", err)
		}
		return nil
	}
	return o.AllowedOrigins
}

const (
	// originLife is how long an answer about an origin is remembered, and maxOrigins
	// how many answers are.
	originLife = 5 * time.Second
	maxOrigins = 1000
	// maxOrigin bounds an origin, in bytes.
	maxOrigin = 255
)

// someAllow reports whether at least one organization allows an origin.
func (a *API) someAllow(ctx context.Context, origin string) (bool, error) {
	if len(origin) > maxOrigin || !IsText(origin) || !strings.Contains(origin, "://") {
		return false, nil
	}
	return a.origins.Get(ctx, origin, func() (bool, error) { return a.Catalog.OriginAllowed(ctx, origin) })
}

// knownAllowed is someAllow that reads nothing: false if there is no recent answer.
func (a *API) knownAllowed(origin string) bool {
	allowed, age, _ := a.origins.Peek(origin)
	return allowed && age < originLife
}
