package handlers_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// fakeVerifier answers as Turnstile and reCAPTCHA do: what it says to a token it
// was told, and success to no other.
type fakeVerifier struct {
	url  string
	mu   sync.Mutex
	says map[string]string // by token
	got  []url.Values
}

func newVerifier(t *testing.T, says map[string]string) *fakeVerifier {
	t.Helper()
	f := &fakeVerifier{says: says}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = server.URL + "/siteverify"
	return f
}

func (f *fakeVerifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.ParseForm() != nil {
		http.Error(w, "not a form", http.StatusBadRequest)
		return
	}
	f.got = append(f.got, r.PostForm)
	answer, ok := f.says[r.PostForm.Get("response")]
	switch {
	case !ok:
		answer = `{"success": false, "error-codes": ["timeout-or-duplicate"]}`
	case answer == "down":
		w.WriteHeader(http.StatusBadGateway)
	case answer == "elsewhere":
		http.Redirect(w, r, "/success", http.StatusFound)
		return
	}
	_, _ = w.Write([]byte(answer))
}

func (f *fakeVerifier) asked() []url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]url.Values(nil), f.got...)
}

func TestACodeIsSentOnlyWithACaptchaProof(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			turnstile := newVerifier(t, map[string]string{
				"person": `{"success": true}`, "misconfigured": `{"success": false, "error-codes": ["invalid-input-secret"]}`,
				"down": "down", "nonsense": "<html>", "elsewhere": "elsewhere", "endless": strings.Repeat(" ", 1<<20) + `{"success": true}`,
			})
			recaptcha := newVerifier(t, map[string]string{
				"person": `{"success": true, "score": 0.5}`, "program": `{"success": true, "score": 0.4}`,
			})
			h := nodetest.Start(t, b, func(c *node.Config) {
				c.TurnstileURL, c.TurnstileSecret = turnstile.url, "turnstile-secret"
				c.RecaptchaURL, c.RecaptchaSecret = recaptcha.url, "recaptcha-secret"
			})
			c := h.NewClinic()
			asking := func(proof nodetest.Object) nodetest.Request {
				r := c.Asking("+966500000501", false)
				body := nodetest.Object{"method": "sms", "phoneNumber": "+966500000501"}
				maps.Copy(body, proof)
				r.Body = body
				return r
			}
			for _, refused := range []struct {
				proof  nodetest.Object
				status int
				code   models.Code
			}{
				{nodetest.Object{}, 403, models.CodeCaptcha},
				{nodetest.Object{"turnstileToken": "person"}, 403, models.CodeCaptcha},
				{nodetest.Object{"recaptchaToken": "person"}, 403, models.CodeCaptcha},
				{nodetest.Object{"turnstileToken": "stale", "recaptchaToken": "person"}, 403, models.CodeCaptcha},
				{nodetest.Object{"turnstileToken": "person", "recaptchaToken": "program"}, 403, models.CodeCaptcha},
				{nodetest.Object{"turnstileToken": "misconfigured", "recaptchaToken": "person"}, 503, models.CodeUnavailable},
				{nodetest.Object{"turnstileToken": "down", "recaptchaToken": "person"}, 503, models.CodeUnavailable},
				{nodetest.Object{"turnstileToken": "nonsense", "recaptchaToken": "person"}, 503, models.CodeUnavailable},
				{nodetest.Object{"turnstileToken": "endless", "recaptchaToken": "person"}, 503, models.CodeUnavailable},
				{nodetest.Object{"turnstileToken": "elsewhere", "recaptchaToken": "person"}, 503, models.CodeUnavailable},
				{nodetest.Object{"turnstileToken": strings.Repeat("x", 8193)}, 422, models.CodeInvalid},
			} {
				h.Unchanged(asking(refused.proof)).Refused(refused.status, refused.code)
			}
			h.Send(asking(nodetest.Object{"turnstileToken": "person", "recaptchaToken": "person"})).OK()
			asked := turnstile.asked()
			last := asked[len(asked)-1]
			assert.Equal(t, url.Values{"secret": {"turnstile-secret"}, "response": {"person"}, "remoteip": {"127.0.0.1"}}, last)
			assert.Equal(t, "recaptcha-secret", recaptcha.asked()[0].Get("secret"))

			// Signing in needs no second proof, but a bad one is not overlooked.
			verify := c.Verifying("+966500000501", nodetest.FixedCode, false)
			verify.Body = nodetest.Object{"method": "sms", "phoneNumber": "+966500000501", "code": nodetest.FixedCode, "turnstileToken": "stale"}
			h.Unchanged(verify).Refused(403, models.CodeCaptcha)
			before := len(turnstile.asked())
			h.Send(c.Verifying("+966500000501", nodetest.FixedCode, false)).OK()
			assert.Len(t, turnstile.asked(), before)
			for _, secret := range []string{"turnstile-secret", "recaptcha-secret", "person", "966500000501"} {
				require.NotContains(t, h.Log.String(), secret)
			}
		})
	}
}

// TestACaptchaProofFromAnotherSiteIsRefused sends proofs that were made on the page
// of another site, or on our own page for another action. A verifier that names
// neither is trusted.
func TestACaptchaProofFromAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			says := map[string]string{}
			pages := map[string]bool{ // by host and action
				"clinic.example request_code": true, "Clinic.Example request_code": true, "clinic.example ": true, "clinic.example newsletter": false,
				"friend.example anything": true, "partner.example anything": true, "other.example request_code": false, "evil-clinic.example ": false, " ": true,
			}
			for page := range pages {
				host, action, _ := strings.Cut(page, " ")
				says[page] = fmt.Sprintf(`{"success": true, "score": 0.9, "hostname": %q, "action": %q}`, host, action)
			}
			turnstile, recaptcha := newVerifier(t, says), newVerifier(t, says)
			h := nodetest.Start(t, b, func(c *node.Config) {
				c.Env = "production"
				c.TurnstileURL, c.TurnstileSecret = turnstile.url, "turnstile-secret"
				c.RecaptchaURL, c.RecaptchaSecret = recaptcha.url, "recaptcha-secret"
			})
			c := h.NewClinic()
			organization(c, http.MethodPut, "", nodetest.Object{"allowedOrigins": []string{"https://partner.example"}}).OK()
			n := 0
			for page, want := range pages {
				n++
				for _, proof := range []nodetest.Object{{"turnstileToken": page, "recaptchaToken": " "}, {"turnstileToken": " ", "recaptchaToken": page}} {
					r := c.Asking(fmt.Sprintf("+9665000006%02d", n), false)
					body := nodetest.Object{"method": "sms", "phoneNumber": fmt.Sprintf("+9665000006%02d", n)}
					maps.Copy(body, proof)
					r.Body = body
					if a := h.Send(r); want {
						a.OK()
					} else {
						a.Refused(http.StatusForbidden, models.CodeCaptcha)
					}
				}
			}
		})
	}
}
