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

	"nowserving/cmd/nowserving/node/nodetest"
)

// fakeProvider serves the scripts and verifiers of Cloudflare and Google. A token is good
// once.
type fakeProvider struct {
	url   string
	mu    sync.Mutex
	good  map[string]string // secret by token
	state providerState
	made  int
	used  int
}

// providerState is how the provider answers.
type providerState int

const (
	accepting providerState = iota
	down
	asking   // Turnstile asks the person to tick a box
	doubtful // reCAPTCHA gives a low score
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
			if f.state == down {
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
		if f.state == asking {
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
			if f.state == doubtful {
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

// token makes a token that is good for a secret.
func (f *fakeProvider) token(secret string) string {
	f.made++
	token := "token-" + strconv.Itoa(f.made)
	f.good[token] = secret
	return token
}

func (f *fakeProvider) set(s providerState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
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

// Both checks are on.
func TestOurPagesSendTheProofsThatAPersonAsks(t *testing.T) {
	t.Parallel()
	provider := newProvider(t)
	node := startProcess(t, append(environ(t, nodetest.Embedded), provider.settings()...))
	c, typeID, _ := newWebClinic(node)
	require.Equal(t, http.StatusForbidden, c.AskCode("sms", "+966500000401", "").Status)
	open := browse(t)
	const theirs = `document.querySelectorAll('head script:not([type]), iframe').length`
	host := strings.TrimPrefix(provider.url, "http://")

	// Nothing is loaded before the form has the focus, each code needs a proof of its own, and
	// no frame stays in the page.
	patient := open(node.URL+"/join/"+c.ID, 390, 844)
	patient.click("type-" + typeID)
	patient.shows("true", present("phone"))
	require.Equal(t, "0", patient.eval(theirs))
	patient.fill("phone", "+966500000401")
	patient.shows("2", theirs)
	made, _ := provider.counts()
	require.Zero(t, made, "no proof is made before a code is asked for")
	patient.click("send-code")
	patient.shows("code", focused)
	patient.click("change-phone")
	patient.click("send-code")
	patient.shows("code", focused)
	made, used := provider.counts()
	require.Equal(t, []int{4, 4}, []int{made, used})
	require.Equal(t, "2", patient.eval(theirs), "the scripts, and no frame")
	patient.fill("code", nodetest.FixedCode)
	patient.click("verify")
	patient.click("join")
	patient.shows("connected", attribute("connection", "data-state"))

	// The provider is down: the Arabic page shows it, and the focus is on the retry.
	provider.set(down)
	arabic := open(node.URL+"/console?lang=ar&organization="+c.ID, 390, 844)
	arabic.fill("phone", doctorPhone)
	arabic.click("send-code")
	arabic.shows("true", fmt.Sprintf(`document.querySelector('[role="alert"]').textContent.includes('التحقق') && document.querySelector('[role="alert"]').textContent.includes('%s')`, host))
	arabic.shows("send-code", focused)
	provider.set(doubtful)
	arabic.click("send-code")
	arabic.shows("تعذر التأكد من أنك شخص حقيقي. أعد تحميل الصفحة وحاول مرة أخرى.", `document.querySelector('[role="alert"]').textContent`)
	provider.set(accepting)
	arabic.click("send-code")
	arabic.shows("code", focused)

	// Turnstile asks, and is answered by keyboard only.
	provider.set(asking)
	doctor := open(node.URL+"/console?organization="+c.ID, 1280, 800)
	doctor.fill("phone", doctorPhone)
	doctor.run("press Enter", chromedp.KeyEvent(kb.Enter))
	doctor.shows("person", focused)
	doctor.shows("One step before your code: confirm that you are a person.", `document.getElementById(document.activeElement.getAttribute('aria-labelledby')).textContent`)
	doctor.run("tick the box", chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(" "))
	doctor.shows("code", focused)
	require.Equal(t, "false", doctor.eval(present("person")))
	doctor.fill("code", nodetest.FixedCode)
	doctor.click("verify")
	doctor.shows("connected", attribute("connection", "data-state"))

	// A patient who goes back is not asked any more.
	second := open(node.URL+"/join/"+c.ID, 390, 844)
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
