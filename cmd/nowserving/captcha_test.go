package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// fakeProvider stands for Cloudflare and Google: it has their scripts, in frames
// and requests of their own, and their verifiers. A token is good once.
type fakeProvider struct {
	url  string
	mu   sync.Mutex
	good map[string]string // secret by token
	mood mood
	made int
	used int
}

// mood is how the provider takes people just now.
type mood int

const (
	friendly mood = iota
	down
	asking   // Turnstile wants something of the person
	doubtful // reCAPTCHA takes everybody for a program
)

const (
	turnstileKey, turnstileSecret = "1x00000000000000000000AA", "turnstile-secret"
	recaptchaKey, recaptchaSecret = "6LeIxAcT_AAAA-JcZVRqyHh71UMIEGNQ", "recaptcha-secret"
)

func newProvider(t *testing.T) *fakeProvider {
	t.Helper()
	f := &fakeProvider{good: map[string]string{}}
	mux := http.NewServeMux()
	page := func(pattern, contentType string, body func(r *http.Request) string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.mood == down {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Access-Control-Allow-Origin", "*")
			_, _ = w.Write([]byte(body(r)))
		})
	}
	const js, html = "text/javascript", "text/html; charset=utf-8"
	page("GET /turnstile/v0/api.js", js, func(r *http.Request) string {
		return fmt.Sprintf(`
			if (%t) globalThis.turnstile = {
				render(box, o) {
					if (o.sitekey !== '%s') throw new Error('110100');
					const frame = document.createElement('iframe');
					frame.src = '%s/turnstile/frame?language=' + o.language;
					frame.title = 'Turnstile';
					frame.width = 300; frame.height = 65;
					const heard = (event) => {
						if (event.source !== frame.contentWindow) return;
						if (event.data.ask) o['before-interactive-callback']();
						else o.callback(event.data.token);
					};
					addEventListener('message', heard);
					box.append(frame);
					(this.all ??= []).push(() => { removeEventListener('message', heard); frame.remove(); });
					return this.all.length - 1;
				},
				remove(id) { this.all[id](); },
			};`, r.URL.Query().Get("render") == "explicit", turnstileKey, f.url)
	})
	page("GET /turnstile/frame", html, func(*http.Request) string {
		token := f.token(turnstileSecret)
		if f.mood == asking {
			return `<label><input type="checkbox" onclick="parent.postMessage({token: '` + token + `'}, '*')"> I am a person</label><script>parent.postMessage({ask: true}, '*')</script>`
		}
		return `<script>parent.postMessage({token: '` + token + `'}, '*')</script>`
	})
	page("GET /recaptcha/api.js", js, func(r *http.Request) string {
		return fmt.Sprintf(`globalThis.grecaptcha = {
			ready: (then) => setTimeout(then),
			execute: (key, {action}) => key === '%s' ? fetch('%s/recaptcha/api2/clr').then((r) => r.text()) : Promise.reject(new Error(action)),
		};`, r.URL.Query().Get("render"), f.url)
	})
	page("GET /recaptcha/api2/clr", "text/plain", func(*http.Request) string { return f.token(recaptchaSecret) })
	for _, pattern := range []string{"POST /turnstile/v0/siteverify", "POST /recaptcha/api/siteverify"} {
		page(pattern, "application/json", func(r *http.Request) string {
			secret, token := r.PostFormValue("secret"), r.PostFormValue("response")
			if secret == "" || f.good[token] != secret {
				return `{"success": false, "error-codes": ["timeout-or-duplicate"]}`
			}
			delete(f.good, token)
			f.used++
			if f.mood == doubtful {
				return `{"success": true, "score": 0.1}`
			}
			return `{"success": true, "score": 0.9}`
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// token makes one that is good for a secret.
func (f *fakeProvider) token(secret string) string {
	f.made++
	token := "token-" + strconv.Itoa(f.made)
	f.good[token] = secret
	return token
}

func (f *fakeProvider) become(m mood) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mood = m
}

func (f *fakeProvider) counts() (made, used int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made, f.used
}

func (f *fakeProvider) settings() []string {
	return []string{
		"NOWSERVING_TURNSTILE_SECRET=" + turnstileSecret, "NOWSERVING_TURNSTILE_SITE_KEY=" + turnstileKey, "NOWSERVING_TURNSTILE_URL=" + f.url + "/turnstile/v0/siteverify",
		"NOWSERVING_RECAPTCHA_SECRET=" + recaptchaSecret, "NOWSERVING_RECAPTCHA_SITE_KEY=" + recaptchaKey, "NOWSERVING_RECAPTCHA_URL=" + f.url + "/recaptcha/api/siteverify",
	}
}

// Both checks are on: our own pages bring what the server demands.
func TestOurPagesProveThatAPersonAsks(t *testing.T) {
	t.Parallel()
	provider := newProvider(t)
	node := startProcess(t, append(backends[0].settings(t), provider.settings()...))
	node.appID = node.call("POST", "/management/organizations", map[string]any{"name": "Clinic", "timezone": "Asia/Riyadh"}).text("id")
	typeID := node.call("POST", "/management/types", map[string]any{"name": "Consultation", "minutes": 10, "on": true, "bookFromWebsite": true}).text("id")
	node.call("POST", "/management/resources", map[string]any{
		"name": "Room 1", "on": true, "activated": true, "bookFromWebsite": true, "types": []string{typeID}, "providerPhone": "+966500000100",
	})
	status, answer, err := node.try("POST", "/auth/otp/request", map[string]any{"method": "sms", "phoneNumber": "+966500000401"})
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status, string(answer))
	open := browse(t)
	const theirs = `document.querySelectorAll('head script:not([type]), iframe').length`
	host := strings.TrimPrefix(provider.url, "http://")

	// Nothing is loaded before somebody turns to the form; each code takes a
	// proof of its own; nothing is left behind.
	patient := open(node.url+"/join/"+node.appID, 390, 844)
	patient.click("type-" + typeID)
	patient.shows("true", present("phone"))
	require.Equal(t, "0", patient.eval(theirs))
	patient.fill("phone", "+966500000401")
	patient.shows("2", theirs)
	made, _ := provider.counts()
	require.Zero(t, made, "nothing is proved before a code is asked for")
	patient.click("send-code")
	patient.shows("code", focused)
	patient.click("change-phone")
	patient.click("send-code")
	patient.shows("code", focused)
	made, used := provider.counts()
	require.Equal(t, []int{4, 4}, []int{made, used})
	require.Equal(t, "2", patient.eval(theirs), "the scripts, and no frame")
	patient.fill("code", demoCode)
	patient.click("verify")
	patient.click("join")
	patient.shows("connected", attribute("connection", "data-state"))

	// Away, in Arabic: the page says so, the focus is where one tries again.
	provider.become(down)
	arabic := open(node.url+"/console?lang=ar&organization="+node.appID, 390, 844)
	arabic.fill("phone", "+966500000100")
	arabic.click("send-code")
	arabic.shows("true", fmt.Sprintf(`document.querySelector('[role="alert"]').textContent.includes('التحقق') && document.querySelector('[role="alert"]').textContent.includes('%s')`, host))
	arabic.shows("send-code", focused)
	provider.become(doubtful)
	arabic.click("send-code")
	arabic.shows("تعذر التأكد من أنك شخص حقيقي. أعد تحميل الصفحة وحاول مرة أخرى.", `document.querySelector('[role="alert"]').textContent`)
	provider.become(friendly)
	arabic.click("send-code")
	arabic.shows("code", focused)

	// Turnstile asks, and is answered by keyboard alone.
	provider.become(asking)
	doctor := open(node.url+"/console?organization="+node.appID, 1280, 800)
	doctor.fill("phone", "+966500000100")
	doctor.run("press Enter", chromedp.KeyEvent(kb.Enter))
	doctor.shows("person", focused)
	doctor.shows("One step before your code: confirm that you are a person.", `document.getElementById(document.activeElement.getAttribute('aria-labelledby')).textContent`)
	doctor.run("tick the box", chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(" "))
	doctor.shows("code", focused)
	require.Equal(t, "false", doctor.eval(present("person")))
	doctor.fill("code", demoCode)
	doctor.click("verify")
	doctor.shows("connected", attribute("connection", "data-state"))

	// Whoever goes elsewhere meanwhile is not asked any more.
	second := open(node.url+"/join/"+node.appID, 390, 844)
	second.run("forget who it was", chromedp.Evaluate[chromedp.Void](`localStorage.clear()`), chromedp.Reload())
	second.click("type-" + typeID)
	second.fill("phone", "+966500000402")
	second.click("send-code")
	second.shows("person", focused)
	second.run("go back", chromedp.Click(".back"))
	second.shows("false", present("person"))
	second.shows("true", present("type-"+typeID))
}

const focused = `document.activeElement?.dataset?.testid`

func present(name string) string {
	return fmt.Sprintf(`Boolean(document.querySelector('%s'))`, hook(name))
}
