package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// jar is what a browser keeps: cookies by name.
type jar map[string]*http.Cookie

// keep takes the cookies of an answer as a browser does.
func (j jar) keep(a nodetest.Response) {
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if c.MaxAge < 0 {
			delete(j, c.Name)
		} else {
			j[c.Name] = c
		}
	}
}

// header is what the browser sends with a request of a page of ours.
func (j jar) header(path, kind string) map[string]string {
	var pairs []string
	for _, c := range j {
		if strings.HasPrefix(path, c.Path) {
			pairs = append(pairs, c.Name+"="+c.Value)
		}
	}
	h := map[string]string{"Cookie": strings.Join(pairs, "; ")}
	if kind != "" {
		h["X-Session"] = kind
	}
	return h
}

// pageOf signs somebody in as one of our pages does.
func pageOf(c *nodetest.Clinic, phone, kind string) (jar, nodetest.Response) {
	c.T.Helper()
	c.Send(c.Asking(phone, kind == "member")).OK()
	r := c.Verifying(phone, nodetest.FixedCode, kind == "member")
	r.Header = map[string]string{"X-Session": kind}
	a := c.Send(r).OK()
	j := jar{}
	j.keep(a)
	return j, a
}

// ask is a request of a page, with more headers.
func (j jar) ask(method, path, kind string, more ...string) nodetest.Request {
	r := nodetest.Request{Method: method, Path: path, Header: j.header(path, kind)}
	for i := 0; i < len(more); i += 2 {
		r.Header[more[i]] = more[i+1]
	}
	return r
}

func TestPagesKeepTheirSessionInCookies(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		j, a := pageOf(c, "+966500000401", "customer")
		assert.Nil(t, a.At("refreshToken"))
		assert.Nil(t, a.At("accessToken"))
		assert.NotEmpty(t, a.Str("accessTokenExpiresAt"))
		assert.Equal(t, "+966500000401", a.Str("user.phone"))
		require.Len(t, j, 2)
		access, refresh := j["__Host-ns_customer"], j["__Secure-ns_customer_refresh"]
		for cookie, path := range map[*http.Cookie]string{access: "/", refresh: "/auth"} {
			assert.True(t, cookie.HttpOnly && cookie.Secure, cookie.Name)
			assert.Equal(t, http.SameSiteStrictMode, cookie.SameSite)
			assert.Equal(t, path, cookie.Path)
			assert.Empty(t, cookie.Domain)
			assert.NotContains(t, string(a.Raw), cookie.Value)
		}
		assert.InDelta(t, 15*60, access.MaxAge, 5)
		assert.InDelta(t, 30*24*60*60, refresh.MaxAge, 5)

		const get, post = http.MethodGet, http.MethodPost
		h.Send(j.ask(get, "/customer/profile", "customer")).OK()
		h.Send(j.ask(http.MethodPut, "/customer/profile", "customer", "Sec-Fetch-Site", "same-origin", "Origin", nodetest.PublicURL)).OK()

		t.Log("rotation, with the answer lost once")
		old := jar{refresh.Name: refresh}
		renewed := h.Send(j.ask(post, "/auth/token", "customer")).OK()
		assert.Nil(t, renewed.At("refreshToken"))
		assert.Nil(t, renewed.At("accessToken"))
		j.keep(renewed)
		assert.NotEqual(t, refresh.Value, j[refresh.Name].Value)
		again := jar{}
		again.keep(h.Send(old.ask(post, "/auth/token", "customer")).OK())
		assert.Equal(t, j[refresh.Name].Value, again[refresh.Name].Value)
		h.Send(j.ask(get, "/customer/profile", "customer")).OK()

		t.Log("a member beside the customer")
		c.Member(models.RoleReceptionist, "+966500000401")
		staff, _ := pageOf(c, "+966500000401", "member")
		for name, cookie := range staff {
			j[name] = cookie
		}
		assert.Len(t, j, 4)
		h.Send(j.ask(get, "/management/bookings", "member")).OK()
		h.Send(j.ask(get, "/management/bookings", "customer")).Refused(403, models.CodeForbidden)

		t.Log("signing out ends it and closes the live connection")
		gone := attachPage(h, j, "customer", h.URL)
		out := h.Send(j.ask(post, "/auth/logout", "customer")).OK()
		stolen := jar{}
		for name, cookie := range j {
			stolen[name] = cookie
		}
		j.keep(out)
		assert.Len(t, j, 2, "the customer's are gone")
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(nodetest.DropTime):
			t.Error("the live connection goes on")
		}
		h.Send(stolen.ask(get, "/customer/profile", "customer")).Refused(401, models.CodeUnauthenticated)
		h.Send(stolen.ask(post, "/auth/token", "customer")).Refused(401, models.CodeUnauthenticated)
		h.Send(j.ask(get, "/customer/profile", "customer")).Refused(401, models.CodeUnauthenticated)
		h.Send(j.ask(post, "/auth/logout", "customer")).OK()
		h.Send(j.ask(get, "/management/bookings", "member")).OK()
	})
}

// attachPage connects as a page does whose session is in cookies.
func attachPage(h *nodetest.Node, j jar, kind, origin string) <-chan centrifuge.DisconnectedEvent {
	h.T.Helper()
	header := http.Header{"Cookie": {j.header("/connection/websocket", "")["Cookie"]}, "Origin": {origin}}
	return nodetest.Connect(h, "?session="+kind, centrifuge.Config{Header: header})
}

// TestCookiesFromOtherSitesAreRefused sends what another site can send, and cookies
// that are made up.
func TestCookiesFromOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		j, _ := pageOf(c, "+966500000411", "customer")
		const get, post, put, path = http.MethodGet, http.MethodPost, http.MethodPut, "/customer/profile"
		access, refresh := j["__Host-ns_customer"], j["__Secure-ns_customer_refresh"]
		with := func(name, value string) jar { return jar{name: {Name: name, Value: value, Path: "/"}} }
		form := j.ask(post, "/customer/bookings/cancel", "", "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.example")
		form.Body = "bookingId=1"
		noSession := c.Verifying("+966500000411", nodetest.FixedCode, false)
		noSession.Header = map[string]string{"X-Session": "customer", "Origin": "https://evil.example"}
		wrongKind := c.Verifying("+966500000411", nodetest.FixedCode, false)
		wrongKind.Header = map[string]string{"X-Session": "member"}
		for _, tried := range []struct {
			what   string
			r      nodetest.Request
			status int
			code   models.Code
		}{
			{"no header", j.ask(get, path, ""), 401, models.CodeUnauthenticated},
			{"a header of no kind", j.ask(get, path, "display"), 422, models.CodeInvalid},
			{"an empty header", j.ask(get, path, "", "X-Session", ""), 422, models.CodeInvalid},
			{"the other kind's", j.ask(get, path, "member"), 401, models.CodeUnauthenticated},
			{"a foreign origin reads", j.ask(get, path, "customer", "Origin", "https://evil.example"), 403, models.CodeForbidden},
			{"a foreign origin writes", j.ask(put, path, "customer", "Origin", "https://evil.example"), 403, models.CodeForbidden},
			{"an origin that may call the API", j.ask(put, path, "customer", "Origin", nodetest.Friend), 403, models.CodeForbidden},
			{"no origin", j.ask(put, path, "customer", "Origin", "null"), 403, models.CodeForbidden},
			{"another site", j.ask(get, path, "customer", "Sec-Fetch-Site", "cross-site"), 403, models.CodeForbidden},
			{"a neighbour's site", j.ask(put, path, "customer", "Sec-Fetch-Site", "same-site"), 403, models.CodeForbidden},
			{"a form", form, 401, models.CodeUnauthenticated},
			{"a foreign refresh", j.ask(post, "/auth/token", "customer", "Origin", "https://evil.example"), 403, models.CodeForbidden},
			{"a foreign sign-out", j.ask(post, "/auth/logout", "customer", "Origin", "https://evil.example"), 403, models.CodeForbidden},
			{"a foreign sign-in", noSession, 403, models.CodeForbidden},
			{"a sign-in of the other kind", wrongKind, 422, models.CodeInvalid},
			{"a forged access token", with(access.Name, access.Value+"x").ask(get, path, "customer"), 401, models.CodeUnauthenticated},
			{"the refresh token as access token", with(access.Name, refresh.Value).ask(get, path, "customer"), 401, models.CodeUnauthenticated},
			{"the access token as refresh token", with(refresh.Name, access.Value).ask(post, "/auth/token", "customer"), 401, models.CodeUnauthenticated},
			{"a name that any neighbour may set", with("ns_customer", access.Value).ask(get, path, "customer"), 401, models.CodeUnauthenticated},
			{"two of a name", j.ask(get, path, "customer", "Cookie", access.Name+"="+access.Value+"; "+access.Name+"="+access.Value), 401, models.CodeUnauthenticated},
			{"a bad key beside good cookies", j.ask(get, path, "customer", "X-API-KEY", "nonsense"), 401, models.CodeUnauthenticated},
		} {
			t.Run(tried.what, func(t *testing.T) {
				a := h.Unchanged(tried.r)
				a.T = t
				a.Refused(tried.status, tried.code)
				assert.Empty(t, a.Header.Values("Set-Cookie"))
				assert.Empty(t, a.Header.Get("Access-Control-Allow-Credentials"))
			})
		}

		// No other site may send the header.
		preflight := h.Send(nodetest.Request{Method: http.MethodOptions, Path: path, Header: map[string]string{
			"Origin": nodetest.Friend, "Access-Control-Request-Method": get, "Access-Control-Request-Headers": "x-session",
		}})
		assert.NotContains(t, strings.ToLower(preflight.Header.Get("Access-Control-Allow-Headers")), "x-session")

		upgrade := func(query, origin string, j jar) int {
			header := j.header("/connection/websocket", "")
			for name, value := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": origin,
			} {
				header[name] = value
			}
			return h.Send(nodetest.Request{Method: get, Path: "/connection/websocket" + query, Header: header}).Status
		}
		assert.Equal(t, 403, upgrade("?session=customer", "https://evil.example", j))
		assert.Equal(t, 403, upgrade("?session=customer", nodetest.Friend, j))
		assert.Equal(t, 403, upgrade("?session=customer", "", j))
		assert.Equal(t, 422, upgrade("?session=account", h.URL, j))
		attach := func(query, origin string, j jar) int {
			header := http.Header{"Cookie": {j.header("/connection/websocket", "")["Cookie"]}, "Origin": {origin}}
			return nodetest.ConnectWith(h, "", header, query)
		}
		assert.Zero(t, attach("?session=customer", h.URL, j))
		assert.Equal(t, 3500, attach("", h.URL, j), "a cookie is looked at where the page asks for it")
		assert.Equal(t, 3500, attach("?session=member", h.URL, j))
		assert.Equal(t, 3500, attach("?session=customer", h.URL, with(access.Name, access.Value+"x")))
	})
}
