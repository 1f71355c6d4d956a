package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// atClinic names the addresses of a clinic, with its own key.
func (c *clinic) atClinic(addresses ...string) answer {
	c.t.Helper()
	return c.staff(http.MethodPut, organizationsPath+"/"+c.id, object{"clinicAddresses": addresses})
}

// TestAWholeClinicJoinsFromOneAddress: 60 patients on the Wi-Fi of the clinic open
// its page, sign in and join within a minute. Elsewhere an address has enough for
// about a third of them.
func TestAWholeClinicJoinsFromOneAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		c.newResource(nil, kind)
		c.atClinic("203.0.113.7").ok()
		joined := func(address string, patients int) int {
			n := 0
			for i := range patients {
				phone := fmt.Sprintf("+9665%08d", i)
				steps := []request{
					{method: http.MethodGet, path: "/join/" + c.id},
					{method: http.MethodPost, path: "/availability/types", app: c.id, body: object{}},
					c.asking(phone, false), c.verifying(phone, fixedCode, false),
				}
				token, refused := "", false
				for _, step := range steps {
					a := c.send(c.from(address, step))
					if refused = a.status == http.StatusTooManyRequests; refused {
						break
					}
					token = a.ok().str("accessToken")
				}
				if !refused {
					c.send(c.from(address, request{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: object{"type": kind, "assign": false}})).ok()
					n++
				}
			}
			return n
		}
		assert.Equal(t, 60, joined("203.0.113.7", 60))
		h.exec("DELETE FROM one_time_codes")
		assert.Less(t, joined("203.0.113.8", 60), 60, "an address that is not named")

		c.change(object{"shortName": "al-noor"}).ok()
		for _, name := range []string{"al-noor", "AL-NOOR"} {
			h.send(request{method: http.MethodGet, path: "/availability/organization", app: "al-noor"}).ok()
			a := c.send(c.from("203.0.113.7", request{method: http.MethodGet, path: "/availability/organization", app: name}))
			assert.Equal(t, "1000", a.header.Get("X-RateLimit-Limit"), name)
		}
	}, limitedTo(100), behindProxy)
}

// TestAClinicsAddressHasABoundToo floods a service from addresses that a clinic
// names.
func TestAClinicsAddressHasABoundToo(t *testing.T) {
	t.Parallel()
	const limit = 6
	onBoth(t, func(t *testing.T, h *house) {
		c, other := h.newClinic(), h.newClinic()
		c.atClinic("203.0.113.64/26", "2001:db8:5::/48").ok()
		types := func(c *clinic) request {
			return request{method: http.MethodPost, path: "/availability/types", app: c.id, body: object{}}
		}
		c.send(c.from("198.51.100.1", types(c))).ok() // so that the node has read the organization
		allowed := func(address string, r request) (n int) {
			t.Helper()
			for c.send(c.from(address, r)).status != http.StatusTooManyRequests {
				n++
				require.Less(t, n, 100*limit)
			}
			return n
		}
		slack := func(began time.Time, share int) int {
			return int(time.Since(began)/(time.Minute/time.Duration(share*limit))) + 1
		}
		began := time.Now()
		n := allowed("203.0.113.70", types(c))
		assert.GreaterOrEqual(t, n, 11*limit)
		assert.LessOrEqual(t, n, 11*limit+slack(began, 11))
		assert.Equal(t, "6", c.send(c.from("203.0.113.70", types(c))).header.Get("X-RateLimit-Limit"))
		a := c.send(c.from("203.0.113.71", types(c))).ok()
		assert.Equal(t, "60", a.header.Get("X-RateLimit-Limit"))

		t.Log("for another organization the address is like any other")
		began = time.Now()
		n = allowed("203.0.113.72", types(other))
		assert.LessOrEqual(t, n, limit+slack(began, 1))

		t.Log("pages that name no organization, and questions of browsers before a request")
		assert.GreaterOrEqual(t, allowed("203.0.113.73", request{method: http.MethodGet, path: "/console"}), 10*limit)
		preflight := request{method: http.MethodOptions, path: "/availability/types"}
		for range 2 * limit {
			ask := c.from("2001:db8:5:1::1", preflight)
			ask.header["Origin"], ask.header["Access-Control-Request-Method"] = "https://clinic.example", http.MethodPost
			assert.NotEqual(t, http.StatusTooManyRequests, c.send(ask).status)
		}

		t.Log("all addresses of a clinic together")
		began, n = time.Now(), 0
		for i := range 12 {
			n += allowed(fmt.Sprintf("203.0.113.%d", 80+i), types(c))
		}
		assert.LessOrEqual(t, n, 50*limit+12*limit+slack(began, 62)+12, "five times one of them, and what each address has anyway")

		t.Log("until it is named no more")
		c.atClinic().ok()
		began = time.Now()
		assert.LessOrEqual(t, allowed("203.0.113.100", types(c)), limit+slack(began, 1))
	}, limitedTo(limit), behindProxy)
}

// TestAClinicsPatientsGetTheirCodes: at the clinic's address more than 60 are sent
// in ten minutes.
func TestAClinicsPatientsGetTheirCodes(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, _ *fakeTwilio, _ *fakeMail) {
		c := h.newClinic()
		c.atClinic("203.0.113.7").ok()
		asked := func(address string, most int) int {
			for i := range most {
				r := c.from(address, c.asking("", false))
				r.body = object{"method": "email", "email": fmt.Sprintf("p%d-%s@example.com", i, address)}
				if a := c.send(r); a.status != http.StatusOK {
					a.refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
					return i
				}
			}
			return most
		}
		assert.Less(t, asked("203.0.113.8", 75), 75)
		assert.Equal(t, 75, asked("203.0.113.7", 75))
	}, behindProxy)
}

func TestAddressesOfAClinicAreChecked(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		path := organizationsPath + "/" + c.id
		assert.Equal(t, []any{}, c.staff(http.MethodGet, path, nil).ok().at("result.clinicAddresses"))
		want := []any{"2001:db8:1::/48", "203.0.113.5", "203.0.113.64/28"}
		stored := c.atClinic("203.0.113.77/28", "::ffff:203.0.113.5", "2001:DB8:1::/48", "203.0.113.5/32").ok()
		assert.Equal(t, want, stored.at("result.clinicAddresses"))
		many := make([]string, 21)
		for i := range many {
			many[i] = fmt.Sprintf("203.0.113.%d", i)
		}
		for _, wrong := range [][]string{
			{"203.0.113.0/23"}, {"2001:db8::/47"}, {"0.0.0.0/0"}, {"::/0"}, {"fe80::1%eth0"}, {"clinic.example"}, {""}, {"203.0.113.5:80"}, {"::ffff:203.0.113.0/120"}, many,
		} {
			refused := c.atClinic(wrong...).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Contains(t, strings.Join(refused.wrongFields(), " "), "clinicAddresses", "%s", refused.raw)
		}
		c.staff(http.MethodPut, path, object{"name": "Al Noor"}).ok()
		assert.Equal(t, want, c.staff(http.MethodGet, path, nil).ok().at("result.clinicAddresses"), "what is absent stays")

		desk := c.member(models.RoleReceptionist, "+966500000231")
		h.send(request{method: http.MethodPut, path: path, token: desk, body: object{"clinicAddresses": []string{}}}).refused(http.StatusForbidden, models.CodeForbidden)
		admin := c.member(models.RoleAdmin, "+966500000232")
		h.send(request{method: http.MethodPut, path: path, token: admin, body: object{"clinicAddresses": []string{}}}).ok()
		assert.Equal(t, 3, scalar[int](h, "SELECT COUNT(*) FROM audit WHERE organization_id = ? AND action = 'updateOrganization'", c.id))
		made := h.send(request{method: http.MethodPost, path: organizationsPath, token: bootstrapKey, body: object{
			"name": "New", "timezone": "UTC", "clinicAddresses": []string{"203.0.113.9"},
		}}).ok()
		assert.Equal(t, []any{"203.0.113.9"}, made.at("result.clinicAddresses"))
	})
}
