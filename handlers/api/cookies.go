package api

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"nowserving/booking/access"
	"nowserving/models"
)

// SessionHeader is how our own pages ask for their session to be kept in
// cookies, and to be known by them: member or customer. Without it no cookie is
// ever looked at, and a page of another site can't send it: it is none of the
// headers such a page may be allowed.
const SessionHeader = "X-Session"

// sessionQuery says the same where a live connection begins, because browsers
// send no headers of ours there.
const sessionQuery = "session"

// Page is one of our own pages: no script can read the tokens of its session.
type Page struct {
	Kind    access.Kind
	request *http.Request
	writer  http.ResponseWriter
	secure  bool
	now     func() time.Time
}

// pageOf returns the page a request comes from; nil for other clients. A page of
// another origin is refused.
func (a *API) pageOf(c *gin.Context) (*Page, error) {
	values := c.Request.Header.Values(SessionHeader)
	if len(values) == 0 {
		return nil, nil //nolint:nilnil // other clients are nothing wrong
	}
	kind, err := sessionKind(strings.Join(values, ", "))
	if err != nil {
		return nil, err
	}
	asked := *c.Request
	asked.Method = http.MethodPost // the rules let GET through; here nothing is shown to strangers either
	if err := a.ownOrigin.Check(&asked); err != nil {
		return nil, models.Errorf(models.CodeForbidden, "Another site may not do this in your name.")
	}
	return &Page{kind, c.Request, c.Writer, a.secure(), a.opts.Store.Time}, nil
}

func sessionKind(value string) (access.Kind, error) {
	if kind := access.Kind(value); kind == access.KindMember || kind == access.KindCustomer {
		return kind, nil
	}
	return "", models.Invalid(SessionHeader, "A page's session is one of a member or of a customer.")
}

// secure reports whether people come by https only: then cookies do, too.
func (a *API) secure() bool { return strings.HasPrefix(a.opts.PublicURL, "https://") }

// credential is the access token of the page's session, if it has one.
func (p *Page) credential() string {
	if p == nil {
		return ""
	}
	return p.cookie(accessCookie(p.Kind, p.secure))
}

// RefreshToken is that of the page's session, if it has one.
func (p *Page) RefreshToken() string { return p.cookie(refreshCookie(p.Kind, p.secure)) }

// cookie returns a cookie's value. One that came twice is none: somebody else
// may have set the other.
func (p *Page) cookie(name string) string {
	if found := p.request.CookiesNamed(name); len(found) == 1 {
		return found[0].Value
	}
	return ""
}

// The cookies' names bind them to this very host by https (RFC 6265bis,
// section 4.1.3), where people come by that. The refresh token goes to sign-in
// only, so it is not of the whole host.
func accessCookie(kind access.Kind, secure bool) string {
	if secure {
		return "__Host-ns_" + string(kind)
	}
	return "ns_" + string(kind)
}

func refreshCookie(kind access.Kind, secure bool) string {
	if secure {
		return "__Secure-ns_" + string(kind) + "_refresh"
	}
	return "ns_" + string(kind) + "_refresh"
}

// Keep gives the page the tokens of a session.
func (p *Page) Keep(x access.Session) {
	p.set(accessCookie(p.Kind, p.secure), "/", x.AccessToken, x.AccessTokenExpiresAt)
	p.set(refreshCookie(p.Kind, p.secure), "/auth", x.RefreshToken, x.RefreshTokenExpiresAt)
}

// Forget takes them back.
func (p *Page) Forget() {
	p.set(accessCookie(p.Kind, p.secure), "/", "", time.Time{})
	p.set(refreshCookie(p.Kind, p.secure), "/auth", "", time.Time{})
}

func (p *Page) set(name, path, value string, expires time.Time) {
	age := -1 // delete it
	if !expires.IsZero() {
		age = max(1, int(expires.Sub(p.now()).Seconds()))
	}
	http.SetCookie(p.writer, &http.Cookie{ //nolint:gosec // Secure wherever people come by https
		Name: name, Value: value, Path: path, MaxAge: age, HttpOnly: true, Secure: p.secure, SameSite: http.SameSiteStrictMode,
	})
}

// AuthenticatePage gives a request that opens a live connection the credential of the
// session that one of our pages keeps in its cookies. Browsers send cookies with whatever page asks, so the page must
// be of this very host, and say so.
func (a *API) AuthenticatePage(r *http.Request) error {
	asked := r.URL.Query().Get(sessionQuery)
	if asked == "" || r.Header.Get("Authorization") != "" {
		return nil
	}
	kind, err := sessionKind(asked)
	if err != nil {
		return err
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	if err != nil || origin.Host == "" || origin.Host != r.Host && origin.Scheme+"://"+origin.Host != a.publicOrigin() {
		return models.Errorf(models.CodeForbidden, "Another site may not do this in your name.")
	}
	if token := (&Page{Kind: kind, request: r, secure: a.secure()}).credential(); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}

// publicOrigin is where our own pages come from, as far as is known.
func (a *API) publicOrigin() string {
	u, err := url.Parse(a.opts.PublicURL)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// newOwnOrigin makes the check that a request comes from a page of ours.
func (a *API) newOwnOrigin() (*http.CrossOriginProtection, error) {
	check := http.NewCrossOriginProtection()
	if origin := a.publicOrigin(); origin != "" {
		return check, check.AddTrustedOrigin(origin)
	}
	return check, nil
}
