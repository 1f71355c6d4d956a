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
)

// tlsProxy stands in front of a node as a clinic's proxy does. It can be told to
// let no live connection through.
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

// As in production: TLS ends at a proxy. The session is in cookies that only
// this host gets, and only by TLS; and nothing is called live that is not.
func TestAConsoleBehindTLS(t *testing.T) {
	t.Parallel()
	proxy := newTLSProxy(t)
	node := startProcess(t, append(backends[0].settings(t), "NOWSERVING_PUBLIC_URL="+proxy.URL, "NOWSERVING_TRUSTED_PROXIES=127.0.0.1,::1"))
	to, err := url.Parse(node.url)
	require.NoError(t, err)
	proxy.node.Store(to)
	typeID, _ := node.clinic()
	node.call("POST", "/management/members", map[string]any{"role": "receptionist", "phone": "+966500000100"}) // acts for every room
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
	require.Empty(t, doctor.eval(content("connection")), "nobody has signed in: nothing is live")
	doctor.fill("organization", node.appID)
	doctor.fill("phone", "+966500000100")
	doctor.click("send-code")
	doctor.fill("code", demoCode)
	doctor.click("verify")
	const waiting = `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`
	doctor.shows("0", content("waiting-count"))
	require.NotEqual(t, "connected", doctor.eval(attribute("connection", "data-state")), "the list came, but nothing keeps it right")
	proxy.noLive.Store(false)
	doctor.shows("connected", attribute("connection", "data-state"))
	node.join(typeID)
	doctor.shows("1", waiting)

	cookies := map[string]*network.Cookie{}
	for _, c := range doctor.cookies() {
		cookies[c.Name] = c
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
	node.join(typeID)
	doctor.shows("2", waiting)

	doctor.click("sign-out")
	doctor.shows("true", present("send-code"))
	require.Eventually(t, func() bool { return len(doctor.cookies()) == 0 }, patience, 20*time.Millisecond)
	require.Equal(t, http.StatusUnauthorized, known())
	doctor.run("reload", chromedp.Reload())
	doctor.shows("true", present("send-code"))
}

// The patient's page in a frame of the clinic's own site, where no cookie of
// ours comes: somebody joins in it. Sites that are not listed show nothing of it.
func TestTheWidgetInAFrameOfAnotherSite(t *testing.T) {
	t.Parallel()
	var framed atomic.Value
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `<!doctype html><title>A clinic</title><main><iframe title="The queue" src="%s" width="390" height="800"></iframe></main>`, framed.Load())
	}))
	t.Cleanup(site.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(site.URL, "http://"), ":")
	clinic, stranger := "http://clinic.example:"+port, "http://stranger.example:"+port

	node := startProcess(t, backends[0].settings(t))
	node.appID = node.call("POST", "/management/organizations", map[string]any{
		"name": "Clinic", "timezone": "Asia/Riyadh", "allowedOrigins": []string{clinic},
	}).text("id")
	typeID := node.call("POST", "/management/types", map[string]any{"name": "Consultation", "minutes": 10, "on": true, "bookFromWebsite": true}).text("id")
	node.call("POST", "/management/resources", map[string]any{"name": "Room 1", "on": true, "activated": true, "bookFromWebsite": true, "types": []string{typeID}})
	widget := strings.Replace(node.url, "127.0.0.1", "queue.example", 1) + "/join/" + node.appID
	framed.Store(widget)
	ahead := node.join(typeID)

	// Sites are kept apart as they are at people's homes: each frame of another
	// site is a process, and a target, of its own.
	open := browse(t, chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"))
	outside := open(clinic, 500, 900)
	patient := outside.frame(widget)
	patient.joins(typeID, "+966500000601")
	patient.shows("2", attribute("position", "data-position"))
	patient.shows("connected", attribute("connection", "data-state"))
	require.Equal(t, "true", patient.eval("window.top !== window && location.ancestorOrigins[0] === '"+clinic+"'"))
	require.Empty(t, patient.eval("document.cookie"))
	node.call("POST", "/management/bookings/cancel", map[string]any{"bookingId": ahead.text("id")})
	patient.shows("1", attribute("position", "data-position"))

	refused := open(stranger, 500, 900)
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
	}, patience, 20*time.Millisecond)
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithTargetID(found))
	p.t.Cleanup(cancel)
	require.NoError(p.t, chromedp.Do(ctx)) // attaches for as long as the test lasts
	return &tab{p.t, ctx}
}
