package access

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"nowserving/models"
)

const (
	// captchaTimeout bounds a request to a verifier.
	captchaTimeout = 5 * time.Second
	// maxCaptchaAnswer bounds its answer, in bytes.
	maxCaptchaAnswer = 64 << 10
	// leastScore is the least accepted score of reCAPTCHA v3, from 0 to 1.
	leastScore = 0.5
)

// Verifier is a captcha service: Cloudflare Turnstile or Google reCAPTCHA. Without a
// secret it is not used.
type Verifier struct {
	URL    string
	Secret string
}

// Proof holds the tokens that a page got from the verifiers.
type Proof struct {
	Turnstile string // token
	Recaptcha string // token
	Address   string // network address they come from
	// Hosts are the hosts of pages that a proof may come from, our own first. Empty:
	// any page.
	Hosts []string
}

// proofAction is the action of proofs from our own pages.
const proofAction = "request_code"

// meant reports whether the verifier's page and, for our own pages, action of a proof
// are as expected. Verifiers do not always return them.
func (p Proof) meant(said verdict) bool {
	if len(p.Hosts) == 0 || said.Hostname == "" {
		return true
	}
	own := strings.EqualFold(said.Hostname, p.Hosts[0])
	if own && said.Action != "" && said.Action != proofAction {
		return false
	}
	return own || slices.ContainsFunc(p.Hosts, func(host string) bool { return strings.EqualFold(said.Hostname, host) })
}

// CheckGuest checks the proof of a guest, who joins without signing in.
func (a *Access) CheckGuest(ctx context.Context, p Proof) error {
	if !a.AsksTurnstile() {
		return models.Errorf(models.CodeCaptcha, "The server is not set up with Turnstile any more: sign in.")
	}
	return a.checkWith(ctx, a.opts.Turnstile, "turnstileToken", p.Turnstile, p)
}

// AsksTurnstile reports whether the server is set up with Cloudflare Turnstile.
func (a *Access) AsksTurnstile() bool { return a.opts.Turnstile.Secret != "" }

// CheckProof asks every configured verifier or, if no proof is needed, those for
// which a token came. It fails with CodeCaptcha if one rejects the proof, and with
// CodeUnavailable if one does not answer.
func (a *Access) CheckProof(ctx context.Context, p Proof, needed bool) error {
	for _, one := range []struct {
		verifier     Verifier
		field, token string
	}{{a.opts.Turnstile, "turnstileToken", p.Turnstile}, {a.opts.Recaptcha, "recaptchaToken", p.Recaptcha}} {
		if one.verifier.Secret == "" || one.token == "" && !needed {
			continue
		}
		if err := a.checkWith(ctx, one.verifier, one.field, one.token, p); err != nil {
			return err
		}
	}
	return nil
}

func (a *Access) checkWith(ctx context.Context, v Verifier, field, token string, p Proof) error {
	if token == "" {
		return models.Errorf(models.CodeCaptcha, "Send the proof that a person asks in %s.", field)
	}
	said, err := v.ask(ctx, token, p.Address)
	// These report a wrong configuration or a broken verifier, which the caller can't
	// change.
	for _, code := range said.Errors {
		if slices.Contains([]string{"missing-input-secret", "invalid-input-secret", "bad-request", "internal-error"}, code) {
			err = fmt.Errorf("the verifier answered %s", code)
		}
	}
	if err != nil {
		a.opts.Log.Error("captcha verification failed", "field", field, "error", err)
		return models.Errorf(models.CodeUnavailable, "The verification service does not answer. Try again in a minute.")
	}
	if !said.Success || said.Score != nil && *said.Score < leastScore {
		return models.Errorf(models.CodeCaptcha, "What came in %s does not prove that a person asks, or has been used.", field)
	}
	if !p.meant(said) {
		return models.Errorf(models.CodeCaptcha, "What came in %s was made for something else, or on a page whose origin is not in allowedOrigins.", field)
	}
	return nil
}

// verdict is the answer of a verifier. Both kinds have the same form.
type verdict struct {
	Success bool     `json:"success"`
	Score   *float64 `json:"score"` // of reCAPTCHA v3
	Errors  []string `json:"error-codes"`
	// Hostname and Action are those of the page. They may be empty.
	Hostname string `json:"hostname"`
	Action   string `json:"action"`
}

// ask asks the verifier about a token. Its errors hold neither token nor secret.
func (v Verifier) ask(ctx context.Context, token, address string) (said verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, captchaTimeout)
	defer cancel()
	form := url.Values{"secret": {v.Secret}, "response": {token}}
	if address != "" {
		form.Set("remoteip", address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return said, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return said, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read to its end, or is not used
	if res.StatusCode >= http.StatusInternalServerError {
		return said, fmt.Errorf("the verifier answered %d", res.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxCaptchaAnswer)).Decode(&said); err != nil {
		return said, fmt.Errorf("the verifier answered %d and no JSON: %w", res.StatusCode, err)
	}
	return said, nil
}
