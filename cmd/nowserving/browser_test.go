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
)

// browse starts a headless Chromium for a test and returns a function that
// opens a page in a tab of its own.
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

// tab is one page; elements are named by their data-testid.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func hook(name string) string { return `[data-testid="` + name + `"]` }

func (p *tab) run(what string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		looking, cancel := context.WithTimeout(p.ctx, time.Second)
		defer cancel()
		html, _ := chromedp.Run(looking, chromedp.OuterHTML("main")) // whatever can still be seen
		require.NoError(p.t, err, "%s\n%s", what, html)
	}
}

// joins signs a patient in on the page of a queue and takes a place in it.
func (p *tab) joins(typeID, phone string) {
	p.t.Helper()
	p.click("type-" + typeID)
	p.fill("phone", phone)
	p.click("send-code")
	p.fill("code", demoCode)
	p.click("verify")
	p.click("join")
}

// click presses what has a name. News may replace it on the page between
// finding and pressing it: then it is pressed again, as a person would.
func (p *tab) click(name string) {
	p.t.Helper()
	press := []chromedp.Action[chromedp.Void]{chromedp.WaitVisible(hook(name)), chromedp.Click(hook(name))}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
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

// eval returns what an expression gives, as text.
func (p *tab) eval(expression string) string {
	p.t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	require.NoError(p.t, err, expression)
	return text
}

// shows waits until an expression gives a text.
func (p *tab) shows(want, expression string) {
	p.t.Helper()
	p.run(fmt.Sprintf("wait until %s is %q", expression, want),
		chromedp.Poll[chromedp.Void](fmt.Sprintf("String(%s) === %q", expression, want), chromedp.WithPollingTimeout(patience)))
}

func attribute(name, attr string) string {
	return fmt.Sprintf(`document.querySelector('%s')?.getAttribute('%s')`, hook(name), attr)
}

func content(name string) string {
	return fmt.Sprintf(`document.querySelector('%s')?.textContent.trim()`, hook(name))
}

// The main job, by hand: a patient joins and watches, the doctor takes the
// next, everybody behind moves up, the screen announces; then the server is
// killed, and every page comes back by itself.
func TestThePagesLiveTogether(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	node.appID = node.call("POST", "/management/organizations", map[string]any{"name": "Clinic", "timezone": "Asia/Riyadh"}).text("id")
	typeID := node.call("POST", "/management/types", map[string]any{
		"name": "Consultation", "name_translations": map[string]string{"en": "Consultation", "ar": "استشارة"}, "minutes": 10, "on": true, "bookFromWebsite": true,
	}).text("id")
	resourceID := node.call("POST", "/management/resources", map[string]any{
		"name": "Room 1", "name_translations": map[string]string{"en": "Room 1", "ar": "غرفة ١"},
		"on": true, "activated": true, "bookFromWebsite": true, "types": []string{typeID}, "providerPhone": "+966500000100",
	}).text("id")
	display := node.call("POST", "/management/displays", map[string]any{"name": "Waiting room"})
	open := browse(t)

	// One patient came to the desk before.
	ahead := node.join(typeID)
	atDesk := open(strings.Replace(ahead.text("ticketUrl"), "http://localhost", "http://127.0.0.1", 1), 390, 844)
	atDesk.shows("1", attribute("position", "data-position"))
	require.NotContains(t, atDesk.eval("location.href"), ahead.text("ticketToken"), "the token does not stay in the address")

	patient := open(node.url+"/join/"+node.appID, 390, 844)
	patient.joins(typeID, "+966500000001")
	patient.shows("A002", content("ticket"))
	patient.shows("2", attribute("position", "data-position"))
	patient.shows("connected", attribute("connection", "data-state"))
	require.NotEmpty(t, patient.eval(content("updated")))

	screen := open(node.url+"/display/"+display.text("id")+"#"+display.text("token"), 1920, 1080)
	screen.shows("connected", attribute("connection", "data-state"))

	doctor := open(node.url+"/console", 1280, 800)
	doctor.fill("organization", node.appID)
	doctor.fill("phone", "+966500000100")
	doctor.click("send-code")
	doctor.fill("code", demoCode)
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

	// A walk-in from the console, taken before their turn.
	doctor.fill("walk-in-name", "Amal")
	doctor.click("walk-in-add")
	doctor.shows("A003", content("walk-in-ticket"))
	doctor.shows("2", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)
	third := doctor.eval(`document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]')[1].getAttribute('data-booking-id')`)
	doctor.click("take-" + third)
	announced(2, "A003")
	patient.shows("1", attribute("position", "data-position"))
	doctor.shows("1", `document.querySelectorAll('[data-testid="current"] [data-booking-id]').length`)

	// The server dies and comes back; nobody touches a page.
	node.kill()
	patient.shows("true", `document.querySelector('[data-testid="connection"]').dataset.state !== 'connected'`)
	node.start()
	for _, page := range []*tab{patient, doctor, screen} {
		page.shows("connected", attribute("connection", "data-state"))
	}
	other := node.join(typeID)
	doctor.shows("2", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)
	node.call("POST", "/management/bookings/assign", map[string]any{"bookingId": other["id"], "resourceId": resourceID})
	announced(3, other.text("ticket"))

	// The patient changes their mind.
	patient.click("leave")
	patient.click("leave-confirm")
	patient.shows("LEFT", attribute("state", "data-stage"))
	doctor.shows("0", `document.querySelectorAll('[data-testid="waiting"] li[data-booking-id]').length`)

	// The same pages in Arabic run from right to left.
	arabic := open(node.url+"/join/"+node.appID+"?lang=ar", 390, 844)
	arabic.shows("rtl", "document.documentElement.dir")
	arabic.shows("true", `document.body.textContent.includes('استشارة')`)
	for _, page := range []*tab{patient, doctor, screen, arabic} {
		require.Equal(t, "true", page.eval("document.documentElement.scrollWidth <= innerWidth"), "nothing runs over the edge")
	}
}

// A session in cookies: no script can read its tokens, a reload keeps it, and
// signing out ends it, with the live connection. In both languages.
func TestNoScriptCanReadASession(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	node.appID = node.call("POST", "/management/organizations", map[string]any{"name": "Clinic", "timezone": "Asia/Riyadh"}).text("id")
	typeID := node.call("POST", "/management/types", map[string]any{"name": "Consultation", "minutes": 10, "on": true, "bookFromWebsite": true}).text("id")
	node.call("POST", "/management/resources", map[string]any{
		"name": "Room 1", "on": true, "activated": true, "bookFromWebsite": true, "types": []string{typeID}, "providerPhone": "+966500000100",
	})
	open := browse(t)
	const readable = `document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)`
	hidden := func(page *tab, kind string) {
		t.Helper()
		seen := page.eval(readable)
		for _, token := range []string{"eyJ", "nsr_", "nsk_", "oken"} {
			require.NotContains(t, seen, token)
		}
		names := map[string]bool{}
		for _, c := range page.cookies() {
			require.True(t, c.HTTPOnly, c.Name)
			require.Equal(t, network.CookieSameSiteStrict, c.SameSite)
			names[c.Name] = true
		}
		require.True(t, names["ns_"+kind] && names["ns_"+kind+"_refresh"], "%v", names)
	}

	for i, language := range []string{"en", "ar"} {
		phone := fmt.Sprintf("+96650000030%d", i)
		patient := open(node.url+"/join/"+node.appID+"?lang="+language, 390, 844)
		patient.run("keep what older versions kept", chromedp.Evaluate[chromedp.Void](fmt.Sprintf(
			`localStorage.setItem('ns.session.%s', JSON.stringify({refreshToken: 'OLDTOKEN'}))`, node.appID)), chromedp.Reload())
		patient.click("type-" + typeID)
		patient.fill("phone", phone)
		patient.click("send-code")
		patient.fill("code", demoCode)
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
		node.call("PUT", "/management/scheduling/new", map[string]any{"type": typeID, "assign": false})
		patient.click("join-again")
		patient.click("type-" + typeID)
		patient.click("sign-out")
		patient.shows("null", fmt.Sprintf("localStorage.getItem('ns.session.%s')", node.appID))
		require.Eventually(t, func() bool { return len(patient.cookies()) == 0 }, patience, 20*time.Millisecond)
	}

	doctor := open(node.url+"/console", 1280, 800)
	doctor.fill("organization", node.appID)
	doctor.fill("phone", "+966500000100")
	doctor.click("send-code")
	doctor.fill("code", demoCode)
	doctor.click("verify")
	doctor.shows("connected", attribute("connection", "data-state"))
	hidden(doctor, "member")
	second := open(node.url+"/console", 1280, 800) // the same browser
	second.shows("connected", attribute("connection", "data-state"))
	doctor.click("sign-out")
	doctor.shows("true", `Boolean(document.querySelector('[data-testid="send-code"]'))`)
	began := time.Now()
	second.shows("true", `document.querySelector('[data-testid="connection"]').dataset.state !== 'connected' || Boolean(document.querySelector('[data-testid="send-code"]'))`)
	require.Less(t, time.Since(began), 5*time.Second, "the live connection of the session is closed")
	require.Empty(t, doctor.cookies())
}

// cookies are those the browser keeps for the page.
func (p *tab) cookies() []*network.Cookie {
	p.t.Helper()
	origin := p.eval("location.origin")
	got, err := chromedp.Run(p.ctx, func(ctx context.Context, t *chromedp.Target) (network.GetCookiesResult, error) {
		return cdp.Call(ctx, t, network.GetCookies, network.GetCookiesParams{URLs: []string{origin, origin + "/auth/token"}})
	})
	require.NoError(p.t, err)
	return got.Cookies
}

// The first start without any key prints a link; the page behind it makes the
// first key, once.
func TestTheFirstStartOffersASetUpLink(t *testing.T) {
	t.Parallel()
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			t.Parallel()
			node := startProcess(t, append(be.settings(t), "NOWSERVING_BOOTSTRAP_KEY="))
			require.Eventually(t, func() bool { return strings.Contains(node.printed(), "setup#") }, patience, 10*time.Millisecond)
			_, link, _ := strings.Cut(node.printed(), "once, at ")
			link, _, _ = strings.Cut(link, "\n")
			_, token, _ := strings.Cut(link, "#")

			page := browse(t)(node.url+"/setup#"+token, 800, 800)
			page.click("make-key")
			page.shows("true", `document.querySelector('[data-testid="key"]').textContent.startsWith('nsk_')`)
			require.NotContains(t, page.eval("location.href"), token)
			node.key = page.eval(content("key"))
			node.clinic()
			status, answer, err := node.try("POST", "/auth/setup", map[string]any{"token": token})
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, status, string(answer))

			node.kill()
			node.start()
			require.NotContains(t, node.printed(), "setup#", "only the first start offers it")
		})
	}
}
