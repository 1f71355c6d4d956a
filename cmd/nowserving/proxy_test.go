package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// tlsProxy is a proxy before a node that ends TLS. With noLive it refuses live connections.
type tlsProxy struct {
	*httptest.Server
	node   atomic.Pointer[url.URL]
	noLive atomic.Bool
}

func newTLSProxy(t *testing.T) *tlsProxy {
	t.Helper()
	p := &tlsProxy{}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(p.node.Load())
		r.Out.Host = r.In.Host
		r.SetXForwarded()
	}}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.noLive.Load() && r.URL.Path == "/connection/websocket" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// As in production, TLS ends at a proxy. The session is in cookies that only this host
// gets, and only over TLS.
func TestAConsoleBehindTLSHasSecureCookiesAndIsShownLiveOnlyIfItIs(t *testing.T) {
	t.Parallel()
	proxy := newTLSProxy(t)
	node := startProcess(t, append(environ(t, nodetest.Embedded), "NOWSERVING_PUBLIC_URL="+proxy.URL, "NOWSERVING_TRUSTED_PROXIES=127.0.0.1,::1"))
	to, err := url.Parse(node.URL)
	require.NoError(t, err)
	proxy.node.Store(to)
	c, typeID, _ := node.NewQueue()
	nodetest.Hire(c, nodetest.Object{"role": "receptionist", "phone": doctorPhone}).OK() // acts for every room
	get := func(path string, header http.Header) (status int, answered http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL+path, http.NoBody)
		require.NoError(t, err)
		req.Header = header
		res, err := proxy.Client().Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, res.Header
	}
	for _, path := range []string{"/console", "/healthz"} {
		_, header := get(path, http.Header{})
		require.Equal(t, "max-age=31536000", header.Get("Strict-Transport-Security"), path)
	}

	proxy.noLive.Store(true)
	open := browse(t, chromedp.IgnoreCertErrors)
	doctor := open(proxy.URL+"/console", 1280, 800)
	doctor.shows("true", `performance.getEntriesByType('resource').some((e) => e.name.endsWith('/readyz') && e.responseEnd > 0)`)
	require.Equal(t, "idle", doctor.eval(attribute("connection", "data-state")))
	require.Empty(t, doctor.eval(content("connection")), "nothing is live before the sign-in")
	doctor.fill("organization", c.ID)
	doctor.fill("phone", doctorPhone)
	doctor.click("send-code")
	doctor.fill("code", nodetest.FixedCode)
	doctor.click("verify")
	const waiting = `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`
	doctor.shows("0", content("waiting-count"))
	require.NotEqual(t, "connected", doctor.eval(attribute("connection", "data-state")), "the list was read, but it is not live")
	proxy.noLive.Store(false)
	doctor.shows("connected", attribute("connection", "data-state"))
	c.Join(typeID, nil)
	doctor.shows("1", waiting)

	cookies := map[string]*network.Cookie{}
	for _, cookie := range doctor.cookies() {
		cookies[cookie.Name] = cookie
	}
	require.Len(t, cookies, 2)
	for name, path := range map[string]string{"__Host-ns_member": "/", "__Secure-ns_member_refresh": "/auth"} {
		c := cookies[name]
		require.NotNil(t, c, name)
		assert.True(t, c.Secure && c.HTTPOnly, "%s: %+v", name, c)
		assert.Equal(t, network.CookieSameSiteStrict, c.SameSite, name)
		assert.Equal(t, path, c.Path, name)
		assert.Equal(t, "127.0.0.1", c.Domain, "of this host alone")
	}
	known := func() int {
		access := cookies["__Host-ns_member"]
		status, _ := get("/management/types", http.Header{"X-Session": {"member"}, "Cookie": {access.Name + "=" + access.Value}})
		return status
	}
	require.Equal(t, http.StatusOK, known())

	doctor.run("reload", chromedp.Reload())
	doctor.shows("connected", attribute("connection", "data-state"))
	c.Join(typeID, nil)
	doctor.shows("2", waiting)

	doctor.click("sign-out")
	doctor.shows("true", present("send-code"))
	require.Eventually(t, func() bool { return len(doctor.cookies()) == 0 }, nodetest.Patience, 20*time.Millisecond)
	require.Equal(t, http.StatusUnauthorized, known())
	doctor.run("reload", chromedp.Reload())
	doctor.shows("true", present("send-code"))
}

// The patient's page is in a frame of the clinic's own site, where our cookies are not
// sent. Sites that are not allowed show nothing of the page.
func TestAPatientJoinsInAFrameOfAnAllowedSiteOnly(t *testing.T) {
	t.Parallel()
	var framed atomic.Value
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `<!doctype html><title>A clinic</title><main><iframe title="The queue" src="%s" width="390" height="800"></iframe></main>`, framed.Load())
	}))
	t.Cleanup(site.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(site.URL, "http://"), ":")
	allowed, other := "http://clinic.example:"+port, "http://other.example:"+port

	node := startProcess(t, environ(t, nodetest.Embedded))
	c, typeID, _ := newWebClinic(node)
	c.Staff(http.MethodPut, "/management/organizations/"+c.ID, nodetest.Object{"allowedOrigins": []string{allowed}}).OK()
	widget := strings.Replace(node.URL, "127.0.0.1", "queue.example", 1) + "/join/" + c.ID
	framed.Store(widget)
	ahead := c.Join(typeID, nil)

	// Each frame of another site is a process, and a target, of its own.
	open := browse(t, chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"))
	outside := open(allowed, 500, 900)
	patient := outside.frame(widget)
	patient.joins(typeID, "+966500000601")
	patient.shows("2", attribute("position", "data-position"))
	patient.shows("connected", attribute("connection", "data-state"))
	require.Equal(t, "true", patient.eval("window.top !== window && location.ancestorOrigins[0] === '"+allowed+"'"))
	require.Empty(t, patient.eval("document.cookie"))
	c.Act("cancel", ahead.Str("id"), nil).OK()
	patient.shows("1", attribute("position", "data-position"))

	refused := open(other, 500, 900)
	refused.frame(widget).shows("chrome-error://chromewebdata/", "location.href")
}

// frame returns the frame of another site in a page.
func (p *tab) frame(address string) *tab {
	p.t.Helper()
	parent := chromedp.FromContext(p.ctx).Target.TargetID
	var found target.ID
	require.Eventually(p.t, func() bool {
		list, err := chromedp.Targets(p.ctx)
		require.NoError(p.t, err)
		for _, one := range list {
			if one.Type == "iframe" && one.URL == address && one.ParentID == parent {
				found = one.TargetID
			}
		}
		return found != ""
	}, nodetest.Patience, 20*time.Millisecond)
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithTargetID(found))
	p.t.Cleanup(cancel)
	require.NoError(p.t, chromedp.Do(ctx)) // attaches for as long as the test lasts
	return &tab{p.t, ctx}
}
