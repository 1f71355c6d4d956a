package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// browse starts a headless Chromium and returns a function that opens a page in a tab of
// its own.
func browse(t *testing.T, more ...chromedp.ExecAllocatorOption) func(url string, width, height int64) *tab {
	t.Helper()
	binary, err := exec.LookPath("chromium")
	require.NoError(t, err, "Chromium is missing: run `make test`, which installs it")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("lang", "en"),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	options = append(options, more...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, closeBrowser := chromedp.NewContext(ctx)
	t.Cleanup(closeBrowser)
	require.NoError(t, chromedp.Do(ctx))
	return func(url string, width, height int64) *tab {
		t.Helper()
		page, closePage := chromedp.NewContext(ctx)
		t.Cleanup(closePage)
		require.NoError(t, chromedp.Do(page, chromedp.EmulateViewport(width, height), chromedp.Navigate(url)))
		return &tab{t, page}
	}
}

// tab is one page. Elements are named by their data-testid.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func hook(name string) string { return `[data-testid="` + name + `"]` }

func (p *tab) run(what string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, nodetest.Patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		looking, cancel := context.WithTimeout(p.ctx, time.Second)
		defer cancel()
		html, _ := chromedp.Run(looking, chromedp.OuterHTML("main")) // whatever can still be seen
		require.NoError(p.t, err, "%s\n%s", what, html)
	}
}

// joins signs a patient in on the page of a queue and joins it.
func (p *tab) joins(typeID, phone string) {
	p.t.Helper()
	p.click("type-" + typeID)
	p.fill("phone", phone)
	p.click("send-code")
	p.fill("code", nodetest.FixedCode)
	p.click("verify")
	p.click("join")
}

// click clicks an element. An event may replace the element between finding and clicking
// it, so it is tried again.
func (p *tab) click(name string) {
	p.t.Helper()
	press := []chromedp.Action[chromedp.Void]{chromedp.WaitVisible(hook(name)), chromedp.Click(hook(name))}
	ctx, cancel := context.WithTimeout(p.ctx, nodetest.Patience)
	defer cancel()
	for range 3 {
		if chromedp.Do(ctx, press...) == nil {
			return
		}
	}
	p.run("click "+name, press...)
}

func (p *tab) fill(name, text string) {
	p.t.Helper()
	p.run("fill "+name, chromedp.WaitVisible(hook(name)),
		chromedp.SendKeys(hook(name), text))
}

// eval returns the value of an expression as text.
func (p *tab) eval(expression string) string {
	p.t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	require.NoError(p.t, err, expression)
	return text
}

// shows waits until the value of an expression is a text.
func (p *tab) shows(want, expression string) {
	p.t.Helper()
	p.run(fmt.Sprintf("wait until %s is %q", expression, want),
		chromedp.Poll[chromedp.Void](fmt.Sprintf("String(%s) === %q", expression, want), chromedp.WithPollingTimeout(nodetest.Patience)))
}

func attribute(name, attr string) string {
	return fmt.Sprintf(`document.querySelector('%s')?.getAttribute('%s')`, hook(name), attr)
}

func content(name string) string {
	return fmt.Sprintf(`document.querySelector('%s')?.textContent.trim()`, hook(name))
}

// doctorPhone signs in as the provider of newWebClinic's resource.
const doctorPhone = "+966500000100"

// newWebClinic makes a clinic with a queue that patients may join on its page.
func newWebClinic(node *process) (c *nodetest.Clinic, typeID, resourceID string) {
	c = node.NewClinic()
	typeID = c.NewType(nodetest.Object{
		"name": "Consultation", "name_translations": map[string]string{"en": "Consultation", "ar": "استشارة"}, "bookFromWebsite": true,
	})
	return c, typeID, c.NewResource(nodetest.Object{
		"name": "Room 1", "name_translations": map[string]string{"en": "Room 1", "ar": "غرفة ١"}, "bookFromWebsite": true, "providerPhone": doctorPhone,
	}, typeID)
}

// A patient joins and watches, the doctor calls the next, all positions behind change, and
// the screen announces. Then the node is killed, and every page reconnects by itself.
func TestEveryPageShowsTheChangesOfTheOthers(t *testing.T) {
	t.Parallel()
	node := startProcess(t, environ(t, nodetest.Embedded))
	c, typeID, resourceID := newWebClinic(node)
	display := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Waiting room"}).OK()
	open := browse(t)

	// One patient has joined at the desk before.
	ahead := c.Join(typeID, nil)
	atDesk := open(strings.Replace(ahead.Str("ticketUrl"), "http://localhost", "http://127.0.0.1", 1), 390, 844)
	atDesk.shows("1", attribute("position", "data-position"))
	require.NotContains(t, atDesk.eval("location.href"), ahead.Str("ticketToken"), "the token does not stay in the address")

	patient := open(node.URL+"/join/"+c.ID, 390, 844)
	patient.joins(typeID, "+966500000001")
	patient.shows("A002", content("ticket"))
	patient.shows("2", attribute("position", "data-position"))
	patient.shows("connected", attribute("connection", "data-state"))
	require.NotEmpty(t, patient.eval(content("updated")))

	screen := open(node.URL+"/display/"+display.Str("result.id")+"#"+display.Str("result.token"), 1920, 1080)
	screen.shows("connected", attribute("connection", "data-state"))

	doctor := open(node.URL+"/console", 1280, 800)
	doctor.fill("organization", c.ID)
	doctor.fill("phone", doctorPhone)
	doctor.click("send-code")
	doctor.fill("code", nodetest.FixedCode)
	doctor.click("verify")
	doctor.shows("2", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)

	doctor.click("take-next")
	patient.shows("1", attribute("position", "data-position"))
	atDesk.shows("CALLED", attribute("state", "data-stage"))
	announced := func(n int, ticket string) {
		t.Helper()
		screen.shows("true", fmt.Sprintf(`document.querySelectorAll('[data-testid="announced"] li').length >= %d && document.querySelectorAll('[data-testid="announced"] li')[%d].textContent.includes('%s')`, n, n-1, ticket))
	}
	announced(1, "A001")
	screen.shows("true", `document.querySelector('[data-testid="now-serving"]').textContent.includes('A001')`)
	screen.shows("true", `document.querySelector('[data-testid="next"]').textContent.includes('A002')`)
	doctor.click("start")
	doctor.click("end")
	atDesk.shows("DONE", attribute("state", "data-stage"))

	// A walk-in from the console is called out of order.
	doctor.fill("walk-in-name", "Amal")
	doctor.click("walk-in-add")
	doctor.shows("A003", content("walk-in-ticket"))
	doctor.shows("2", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)
	third := doctor.eval(`document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]')[1].getAttribute('data-booking-id')`)
	doctor.click("take-" + third)
	announced(2, "A003")
	patient.shows("1", attribute("position", "data-position"))
	doctor.shows("1", `document.querySelectorAll('[data-testid="current"] [data-booking-id]').length`)

	// The node is killed and started again.
	node.kill()
	patient.shows("true", `document.querySelector('[data-testid="connection"]').dataset.state !== 'connected'`)
	node.start()
	for _, page := range []*tab{patient, doctor, screen} {
		page.shows("connected", attribute("connection", "data-state"))
	}
	other := c.Join(typeID, nil)
	doctor.shows("2", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)
	c.Act("assign", other.Str("id"), nodetest.Object{"resourceId": resourceID}).OK()
	announced(3, other.Str("ticket"))

	// The patient leaves.
	patient.click("leave")
	patient.click("leave-confirm")
	patient.shows("LEFT", attribute("state", "data-stage"))
	doctor.shows("0", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)

	// The same pages in Arabic run from right to left.
	arabic := open(node.URL+"/join/"+c.ID+"?lang=ar", 390, 844)
	arabic.shows("rtl", "document.documentElement.dir")
	arabic.shows("true", `document.body.textContent.includes('استشارة')`)
	for _, page := range []*tab{patient, doctor, screen, arabic} {
		require.Equal(t, "true", page.eval("document.documentElement.scrollWidth <= innerWidth"), "the page is not wider than the window")
	}
}

// The tokens of a session are in cookies. A reload keeps the session, and signing out ends
// it with its live connections. In both languages.
func TestNoScriptCanReadASession(t *testing.T) {
	t.Parallel()
	node := startProcess(t, environ(t, nodetest.Embedded))
	c, typeID, _ := newWebClinic(node)
	open := browse(t)
	const readable = `document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)`
	hidden := func(page *tab, kind string) {
		t.Helper()
		seen := page.eval(readable)
		for _, token := range []string{"eyJ", "nsr_", "nsk_", "oken"} {
			require.NotContains(t, seen, token)
		}
		names := map[string]bool{}
		for _, cookie := range page.cookies() {
			require.True(t, cookie.HTTPOnly, cookie.Name)
			require.Equal(t, network.CookieSameSiteStrict, cookie.SameSite)
			names[cookie.Name] = true
		}
		require.True(t, names["ns_"+kind] && names["ns_"+kind+"_refresh"], "%v", names)
	}

	for i, language := range []string{"en", "ar"} {
		phone := fmt.Sprintf("+96650000030%d", i)
		patient := open(node.URL+"/join/"+c.ID+"?lang="+language, 390, 844)
		patient.run("keep what older versions kept", chromedp.Evaluate[chromedp.Void](fmt.Sprintf(
			`localStorage.setItem('ns.session.%s', JSON.stringify({refreshToken: 'OLDTOKEN'}))`, c.ID)), chromedp.Reload())
		patient.click("type-" + typeID)
		patient.fill("phone", phone)
		patient.click("send-code")
		patient.fill("code", nodetest.FixedCode)
		patient.click("verify")
		patient.click("join")
		patient.shows("connected", attribute("connection", "data-state"))
		hidden(patient, "customer")

		patient.run("reload", chromedp.Reload())
		patient.shows(strconv.Itoa(i+1), attribute("position", "data-position"))
		patient.shows("connected", attribute("connection", "data-state"))
		hidden(patient, "customer")
		patient.click("leave")
		patient.click("leave-confirm")
		patient.shows("LEFT", attribute("state", "data-stage"))
		c.Join(typeID, nil)
		patient.click("join-again")
		patient.click("type-" + typeID)
		patient.click("sign-out")
		patient.shows("null", fmt.Sprintf("localStorage.getItem('ns.session.%s')", c.ID))
		require.Eventually(t, func() bool { return len(patient.cookies()) == 0 }, nodetest.Patience, 20*time.Millisecond)
	}

	doctor := open(node.URL+"/console", 1280, 800)
	doctor.fill("organization", c.ID)
	doctor.fill("phone", doctorPhone)
	doctor.click("send-code")
	doctor.fill("code", nodetest.FixedCode)
	doctor.click("verify")
	doctor.shows("connected", attribute("connection", "data-state"))
	hidden(doctor, "member")
	second := open(node.URL+"/console", 1280, 800) // the same browser
	second.shows("connected", attribute("connection", "data-state"))
	doctor.click("sign-out")
	doctor.shows("true", `Boolean(document.querySelector('[data-testid="send-code"]'))`)
	began := time.Now()
	second.shows("true", `document.querySelector('[data-testid="connection"]').dataset.state !== 'connected' || Boolean(document.querySelector('[data-testid="send-code"]'))`)
	require.Less(t, time.Since(began), 5*time.Second, "the live connection of the session is closed")
	require.Empty(t, doctor.cookies())
}

// cookies returns the browser's cookies for the page.
func (p *tab) cookies() []*network.Cookie {
	p.t.Helper()
	origin := p.eval("location.origin")
	got, err := chromedp.Run(p.ctx, func(ctx context.Context, t *chromedp.Target) (network.GetCookiesResult, error) {
		return cdp.Call(ctx, t, network.GetCookies, network.GetCookiesParams{URLs: []string{origin, origin + "/auth/token"}})
	})
	require.NoError(p.t, err)
	return got.Cookies
}

// The first start without any key prints a link to a page that makes the first key, once.
func TestTheFirstStartPrintsALinkThatMakesOneKey(t *testing.T) {
	t.Parallel()
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		node := startProcess(t, append(environ(t, b), "NOWSERVING_BOOTSTRAP_KEY="))
		require.Eventually(t, func() bool { return strings.Contains(node.Log.String(), "setup#") }, nodetest.Patience, 10*time.Millisecond)
		_, link, _ := strings.Cut(node.Log.String(), "once, at ")
		link, _, _ = strings.Cut(link, "\n")
		_, token, _ := strings.Cut(link, "#")

		page := browse(t)(node.URL+"/setup#"+token, 800, 800)
		page.click("make-key")
		page.shows("true", `document.querySelector('[data-testid="key"]').textContent.startsWith('nsk_')`)
		require.NotContains(t, page.eval("location.href"), token)
		key := page.eval(content("key"))
		node.Send(nodetest.Request{
			Method: http.MethodPost, Path: "/management/organizations", Token: key, Body: nodetest.Object{"name": "Al Noor", "timezone": "Asia/Riyadh"},
		}).OK()
		again := nodetest.Request{Method: http.MethodPost, Path: "/auth/setup", Body: nodetest.Object{"token": token}}
		require.Equal(t, http.StatusUnauthorized, node.Send(again).Status)

		node.kill()
		node.start()
		require.NotContains(t, node.Log.String(), "setup#", "only the first start prints it")
	})
}
