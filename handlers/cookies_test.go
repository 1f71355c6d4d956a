package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// jar is what a browser keeps: cookies by name.
type jar map[string]*http.Cookie

// keep takes the cookies of an answer as a browser does.
func (j jar) keep(a answer) {
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
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
func (c *clinic) pageOf(phone, kind string) (jar, answer) {
	c.t.Helper()
	c.send(c.asking(phone, kind == "member")).ok()
	r := c.verifying(phone, fixedCode, kind == "member")
	r.header = map[string]string{"X-Session": kind}
	a := c.send(r).ok()
	j := jar{}
	j.keep(a)
	return j, a
}

// ask is a request of a page, with more headers.
func (j jar) ask(method, path, kind string, more ...string) request {
	r := request{method: method, path: path, header: j.header(path, kind)}
	for i := 0; i < len(more); i += 2 {
		r.header[more[i]] = more[i+1]
	}
	return r
}

func TestPagesKeepTheirSessionInCookies(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		j, a := c.pageOf("+966500000401", "customer")
		assert.Nil(t, a.at("refreshToken"))
		assert.Nil(t, a.at("accessToken"))
		assert.NotEmpty(t, a.str("accessTokenExpiresAt"))
		assert.Equal(t, "+966500000401", a.str("user.phone"))
		require.Len(t, j, 2)
		access, refresh := j["__Host-ns_customer"], j["__Secure-ns_customer_refresh"]
		for cookie, path := range map[*http.Cookie]string{access: "/", refresh: "/auth"} {
			assert.True(t, cookie.HttpOnly && cookie.Secure, cookie.Name)
			assert.Equal(t, http.SameSiteStrictMode, cookie.SameSite)
			assert.Equal(t, path, cookie.Path)
			assert.Empty(t, cookie.Domain)
			assert.NotContains(t, string(a.raw), cookie.Value)
		}
		assert.InDelta(t, 15*60, access.MaxAge, 5)
		assert.InDelta(t, 30*24*60*60, refresh.MaxAge, 5)

		const get, post = http.MethodGet, http.MethodPost
		h.send(j.ask(get, "/customer/profile", "customer")).ok()
		h.send(j.ask(http.MethodPut, "/customer/profile", "customer", "Sec-Fetch-Site", "same-origin", "Origin", publicURL)).ok()

		t.Log("rotation, with the answer lost once")
		old := jar{refresh.Name: refresh}
		renewed := h.send(j.ask(post, "/auth/token", "customer")).ok()
		assert.Nil(t, renewed.at("refreshToken"))
		assert.Nil(t, renewed.at("accessToken"))
		j.keep(renewed)
		assert.NotEqual(t, refresh.Value, j[refresh.Name].Value)
		again := jar{}
		again.keep(h.send(old.ask(post, "/auth/token", "customer")).ok())
		assert.Equal(t, j[refresh.Name].Value, again[refresh.Name].Value)
		h.send(j.ask(get, "/customer/profile", "customer")).ok()

		t.Log("a member beside the customer")
		c.member(models.RoleReceptionist, "+966500000401")
		staff, _ := c.pageOf("+966500000401", "member")
		for name, cookie := range staff {
			j[name] = cookie
		}
		assert.Len(t, j, 4)
		h.send(j.ask(get, "/management/bookings", "member")).ok()
		h.send(j.ask(get, "/management/bookings", "customer")).refused(403, models.CodeForbidden)

		t.Log("signing out ends it and closes the live connection")
		gone := h.attachPage(j, "customer", h.URL)
		out := h.send(j.ask(post, "/auth/logout", "customer")).ok()
		stolen := jar{}
		for name, cookie := range j {
			stolen[name] = cookie
		}
		j.keep(out)
		assert.Len(t, j, 2, "the customer's are gone")
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(dropTime):
			t.Error("the live connection goes on")
		}
		h.send(stolen.ask(get, "/customer/profile", "customer")).refused(401, models.CodeUnauthenticated)
		h.send(stolen.ask(post, "/auth/token", "customer")).refused(401, models.CodeUnauthenticated)
		h.send(j.ask(get, "/customer/profile", "customer")).refused(401, models.CodeUnauthenticated)
		h.send(j.ask(post, "/auth/logout", "customer")).ok()
		h.send(j.ask(get, "/management/bookings", "member")).ok()
	})
}

// attachPage connects as a page does whose session is in cookies.
func (h *house) attachPage(j jar, kind, origin string) <-chan centrifuge.DisconnectedEvent {
	h.t.Helper()
	header := http.Header{"Cookie": {j.header("/connection/websocket", "")["Cookie"]}, "Origin": {origin}}
	return h.connect("?session="+kind, centrifuge.Config{Header: header})
}

// TestCookiesOfOthersOpenNothing tries what another site, or somebody who makes
// cookies up, can send.
func TestCookiesOfOthersOpenNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		j, _ := c.pageOf("+966500000411", "customer")
		const get, post, put, path = http.MethodGet, http.MethodPost, http.MethodPut, "/customer/profile"
		access, refresh := j["__Host-ns_customer"], j["__Secure-ns_customer_refresh"]
		with := func(name, value string) jar { return jar{name: {Name: name, Value: value, Path: "/"}} }
		form := j.ask(post, "/customer/bookings/cancel", "", "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.example")
		form.body = "bookingId=1"
		noSession := c.verifying("+966500000411", fixedCode, false)
		noSession.header = map[string]string{"X-Session": "customer", "Origin": "https://evil.example"}
		wrongKind := c.verifying("+966500000411", fixedCode, false)
		wrongKind.header = map[string]string{"X-Session": "member"}
		for _, tried := range []struct {
			what   string
			r      request
			status int
			code   models.Code
		}{
			{"no header", j.ask(get, path, ""), 401, models.CodeUnauthenticated},
			{"a header of no kind", j.ask(get, path, "display"), 422, models.CodeInvalid},
			{"an empty header", j.ask(get, path, "", "X-Session", ""), 422, models.CodeInvalid},
			{"the other kind's", j.ask(get, path, "member"), 401, models.CodeUnauthenticated},
			{"a foreign origin reads", j.ask(get, path, "customer", "Origin", "https://evil.example"), 403, models.CodeForbidden},
			{"a foreign origin writes", j.ask(put, path, "customer", "Origin", "https://evil.example"), 403, models.CodeForbidden},
			{"an origin that may call the API", j.ask(put, path, "customer", "Origin", friend), 403, models.CodeForbidden},
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
				a := h.unchanged(tried.r)
				a.t = t
				a.refused(tried.status, tried.code)
				assert.Empty(t, a.header.Values("Set-Cookie"))
				assert.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
			})
		}

		// No other site may send the header.
		preflight := h.send(request{method: http.MethodOptions, path: path, header: map[string]string{
			"Origin": friend, "Access-Control-Request-Method": get, "Access-Control-Request-Headers": "x-session",
		}})
		assert.NotContains(t, strings.ToLower(preflight.header.Get("Access-Control-Allow-Headers")), "x-session")

		upgrade := func(query, origin string, j jar) int {
			header := j.header("/connection/websocket", "")
			for name, value := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": origin,
			} {
				header[name] = value
			}
			return h.send(request{method: get, path: "/connection/websocket" + query, header: header}).status
		}
		assert.Equal(t, 403, upgrade("?session=customer", "https://evil.example", j))
		assert.Equal(t, 403, upgrade("?session=customer", friend, j))
		assert.Equal(t, 403, upgrade("?session=customer", "", j))
		assert.Equal(t, 422, upgrade("?session=account", h.URL, j))
		attach := func(query, origin string, j jar) int {
			header := http.Header{"Cookie": {j.header("/connection/websocket", "")["Cookie"]}, "Origin": {origin}}
			return h.connectWith("", header, query)
		}
		assert.Zero(t, attach("?session=customer", h.URL, j))
		assert.Equal(t, 3500, attach("", h.URL, j), "a cookie is looked at where the page asks for it")
		assert.Equal(t, 3500, attach("?session=member", h.URL, j))
		assert.Equal(t, 3500, attach("?session=customer", h.URL, with(access.Name, access.Value+"x")))
	})
}
