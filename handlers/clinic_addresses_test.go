package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// atClinic names the addresses of a clinic, with its own key.
func atClinic(c *nodetest.Clinic, addresses ...string) nodetest.Response {
	c.T.Helper()
	return c.Staff(http.MethodPut, organizationsPath+"/"+c.ID, nodetest.Object{"clinicAddresses": addresses})
}

// TestAWholeClinicJoinsFromOneAddress: 60 patients on the Wi-Fi of the clinic open
// its page, sign in and join within a minute. Elsewhere an address has enough for
// about a third of them.
func TestAWholeClinicJoinsFromOneAddress(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		c.NewResource(nil, kind)
		atClinic(c, "203.0.113.7").OK()
		joined := func(address string, patients int) int {
			n := 0
			for i := range patients {
				phone := fmt.Sprintf("+9665%08d", i)
				steps := []nodetest.Request{
					{Method: http.MethodGet, Path: "/join/" + c.ID},
					{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: nodetest.Object{}},
					c.Asking(phone, false), c.Verifying(phone, nodetest.FixedCode, false),
				}
				token, refused := "", false
				for _, step := range steps {
					a := c.Send(nodetest.From(address, step))
					if refused = a.Status == http.StatusTooManyRequests; refused {
						break
					}
					token = a.OK().Str("accessToken")
				}
				if !refused {
					c.Send(nodetest.From(address, nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: nodetest.Object{"type": kind, "assign": false}})).OK()
					n++
				}
			}
			return n
		}
		assert.Equal(t, 60, joined("203.0.113.7", 60))
		h.Exec("DELETE FROM one_time_codes")
		assert.Less(t, joined("203.0.113.8", 60), 60, "an address that is not named")

		change(c, nodetest.Object{"shortName": "al-noor"}).OK()
		for _, name := range []string{"al-noor", "AL-NOOR"} {
			h.Send(nodetest.Request{Method: http.MethodGet, Path: "/availability/organization", App: "al-noor"}).OK()
			a := c.Send(nodetest.From("203.0.113.7", nodetest.Request{Method: http.MethodGet, Path: "/availability/organization", App: name}))
			assert.Equal(t, "1000", a.Header.Get("X-RateLimit-Limit"), name)
		}
	}, nodetest.LimitedTo(100), nodetest.BehindProxy)
}

// TestAClinicsAddressIsLimitedToo sends too many requests from the addresses of a
// clinic.
func TestAClinicsAddressIsLimitedToo(t *testing.T) {
	t.Parallel()
	const limit = 6
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		atClinic(c, "203.0.113.64/26", "2001:db8:5::/48").OK()
		types := func(c *nodetest.Clinic) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: nodetest.Object{}}
		}
		c.Send(nodetest.From("198.51.100.1", types(c))).OK() // so that the node has read the organization
		allowed := func(address string, r nodetest.Request) (n int) {
			t.Helper()
			for c.Send(nodetest.From(address, r)).Status != http.StatusTooManyRequests {
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
		assert.Equal(t, "6", c.Send(nodetest.From("203.0.113.70", types(c))).Header.Get("X-RateLimit-Limit"))
		a := c.Send(nodetest.From("203.0.113.71", types(c))).OK()
		assert.Equal(t, "60", a.Header.Get("X-RateLimit-Limit"))

		t.Log("for another organization the address is like any other")
		began = time.Now()
		n = allowed("203.0.113.72", types(other))
		assert.LessOrEqual(t, n, limit+slack(began, 1))

		t.Log("pages that name no organization, and questions of browsers before a request")
		assert.GreaterOrEqual(t, allowed("203.0.113.73", nodetest.Request{Method: http.MethodGet, Path: "/console"}), 10*limit)
		preflight := nodetest.Request{Method: http.MethodOptions, Path: "/availability/types"}
		for range 2 * limit {
			ask := nodetest.From("2001:db8:5:1::1", preflight)
			ask.Header["Origin"], ask.Header["Access-Control-Request-Method"] = "https://clinic.example", http.MethodPost
			assert.NotEqual(t, http.StatusTooManyRequests, c.Send(ask).Status)
		}

		t.Log("all addresses of a clinic together")
		began, n = time.Now(), 0
		for i := range 12 {
			n += allowed(fmt.Sprintf("203.0.113.%d", 80+i), types(c))
		}
		assert.LessOrEqual(t, n, 50*limit+12*limit+slack(began, 62)+12, "five times one of them, and what each address has anyway")

		t.Log("until it is named no more")
		atClinic(c).OK()
		require.Eventually(t, func() bool { // the node reads the organization again
			return c.Send(nodetest.From("203.0.113.99", types(c))).Header.Get("X-RateLimit-Limit") == "6"
		}, nodetest.Patience, 50*time.Millisecond)
		began = time.Now()
		assert.LessOrEqual(t, allowed("203.0.113.100", types(c)), limit+slack(began, 1))
	}, nodetest.LimitedTo(limit), nodetest.BehindProxy)
}

// TestAClinicsPatientsGetTheirCodes: at the clinic's address more than 60 are sent
// in ten minutes.
func TestAClinicsPatientsGetTheirCodes(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		atClinic(c, "203.0.113.7").OK()
		asked := func(address string, most int) int {
			for i := range most {
				r := nodetest.From(address, c.Asking("", false))
				r.Body = nodetest.Object{"method": "email", "email": fmt.Sprintf("p%d-%s@example.com", i, address)}
				if a := c.Send(r); a.Status != http.StatusOK {
					a.Refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
					return i
				}
			}
			return most
		}
		assert.Less(t, asked("203.0.113.8", 75), 75)
		assert.Equal(t, 75, asked("203.0.113.7", 75))
	}, nodetest.BehindProxy)
}

func TestAddressesOfAClinicAreChecked(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		path := organizationsPath + "/" + c.ID
		assert.Equal(t, []any{}, c.Staff(http.MethodGet, path, nil).OK().At("result.clinicAddresses"))
		want := []any{"2001:db8:1::/48", "203.0.113.5", "203.0.113.64/28"}
		stored := atClinic(c, "203.0.113.77/28", "::ffff:203.0.113.5", "2001:DB8:1::/48", "203.0.113.5/32").OK()
		assert.Equal(t, want, stored.At("result.clinicAddresses"))
		many := make([]string, 21)
		for i := range many {
			many[i] = fmt.Sprintf("203.0.113.%d", i)
		}
		for _, wrong := range [][]string{
			{"203.0.113.0/23"}, {"2001:db8::/47"}, {"0.0.0.0/0"}, {"::/0"}, {"fe80::1%eth0"}, {"clinic.example"}, {""}, {"203.0.113.5:80"}, {"::ffff:203.0.113.0/120"}, many,
		} {
			refused := atClinic(c, wrong...).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Contains(t, strings.Join(refused.WrongFields(), " "), "clinicAddresses", "%s", refused.Raw)
		}
		c.Staff(http.MethodPut, path, nodetest.Object{"name": "Al Noor"}).OK()
		assert.Equal(t, want, c.Staff(http.MethodGet, path, nil).OK().At("result.clinicAddresses"), "what is absent stays")

		desk := c.Member(models.RoleReceptionist, "+966500000231")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: path, Token: desk, Body: nodetest.Object{"clinicAddresses": []string{}}}).Refused(http.StatusForbidden, models.CodeForbidden)
		admin := c.Member(models.RoleAdmin, "+966500000232")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: path, Token: admin, Body: nodetest.Object{"clinicAddresses": []string{}}}).OK()
		assert.Equal(t, 3, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM audit WHERE organization_id = ? AND action = 'updateOrganization'", c.ID))
		made := h.Send(nodetest.Request{Method: http.MethodPost, Path: organizationsPath, Token: nodetest.BootstrapKey, Body: nodetest.Object{
			"name": "New", "timezone": "UTC", "clinicAddresses": []string{"203.0.113.9"},
		}}).OK()
		assert.Equal(t, []any{"203.0.113.9"}, made.At("result.clinicAddresses"))
	})
}
