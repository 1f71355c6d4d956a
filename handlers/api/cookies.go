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

// SessionHeader is the header with which our own pages keep their session in cookies:
// member or customer. Without it cookies are ignored. It is not in the CORS
// allow-list, so other sites cannot send it.
const SessionHeader = "X-Session"

// sessionQuery is the same as a query parameter, for live connections: browsers can't
// set headers on a WebSocket.
const sessionQuery = "session"

// Page is one of our own pages. Its session is in cookies that no script can read.
type Page struct {
	Kind    access.Kind
	request *http.Request
	writer  http.ResponseWriter
	secure  bool
	now     func() time.Time
}

// pageOf returns the page that sent a request, or nil for other clients. It refuses
// pages of other origins.
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
	return &Page{kind, c.Request, c.Writer, a.secure(), a.Store.Time}, nil
}

func sessionKind(value string) (access.Kind, error) {
	if kind := access.Kind(value); kind == access.KindMember || kind == access.KindCustomer {
		return kind, nil
	}
	return "", models.Invalid(SessionHeader, "A page's session is one of a member or of a customer.")
}

// secure reports whether the public URL is https. Cookies are then marked Secure.
func (a *API) secure() bool { return strings.HasPrefix(a.PublicURL, "https://") }

// credential returns the access token of the page's session, or "".
func (p *Page) credential() string {
	if p == nil {
		return ""
	}
	return p.cookie(accessCookie(p.Kind, p.secure))
}

// RefreshToken returns the refresh token of the page's session, or "".
func (p *Page) RefreshToken() string { return p.cookie(refreshCookie(p.Kind, p.secure)) }

// cookie returns a cookie's value. A cookie that is sent twice is ignored: another
// site of the domain may have set one of them.
func (p *Page) cookie(name string) string {
	if found := p.request.CookiesNamed(name); len(found) == 1 {
		return found[0].Value
	}
	return ""
}

// With https, the prefixes bind the cookies to this host (RFC 6265bis, section
// 4.1.3). The refresh token has the path /auth, which __Host- does not allow.
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

// Keep stores the tokens of a session in the page's cookies.
func (p *Page) Keep(x access.Session) {
	p.set(accessCookie(p.Kind, p.secure), "/", x.AccessToken, x.AccessTokenExpiresAt)
	p.set(refreshCookie(p.Kind, p.secure), "/auth", x.RefreshToken, x.RefreshTokenExpiresAt)
}

// Forget deletes the page's cookies.
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

// AuthenticatePage authenticates a live connection of one of our pages with the
// session in its cookies. Browsers send cookies for pages of any site, so the request
// needs sessionQuery and an Origin of this host.
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

// publicOrigin returns the origin of the public URL, or "" if there is none.
func (a *API) publicOrigin() string {
	u, err := url.Parse(a.PublicURL)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// newOwnOrigin makes the check that a request comes from a page of this service.
func (a *API) newOwnOrigin() (*http.CrossOriginProtection, error) {
	check := http.NewCrossOriginProtection()
	if origin := a.publicOrigin(); origin != "" {
		return check, check.AddTrustedOrigin(origin)
	}
	return check, nil
}
