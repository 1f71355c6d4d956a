package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// verifying signs somebody in with a code.
func (c *clinic) verifying(phone, code string, member bool) request {
	body := object{"method": "sms", "phoneNumber": phone, "isOrgMember": member, "code": code}
	return request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: body}
}

func (c *clinic) asking(phone string, member bool) request {
	body := object{"method": "sms", "phoneNumber": phone, "isOrgMember": member}
	return request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: body}
}

// succeeded counts the answers of 200; all others must have been refused with a
// code.
func succeeded(t *testing.T, answers []answer, status int, code models.Code) int {
	t.Helper()
	n := 0
	for _, a := range answers {
		if a.status == http.StatusOK {
			n++
			continue
		}
		a.refused(status, code)
	}
	return n
}

func TestACodeWorksOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		c.send(c.asking("+966500000201", false)).ok()
		answers := h.atOnce(1000, func(int) request { return c.verifying("+966500000201", fixedCode, false) })
		assert.Equal(t, 1, succeeded(t, answers, http.StatusUnauthorized, models.CodeWrongCode))
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM sessions"))
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM customers"))
		// That was nobody guessing. A fixed code has the same bounds as another.
		for range 4 {
			c.signIn("+966500000201", false)
		}
		c.send(c.asking("+966500000201", false)).refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
	})
}

// Phones write numbers in the digits of their language, and copy marks of
// direction with them.
func TestNumbersAreUnderstoodInEveryScript(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		c.send(c.asking("٠٠٩٦٦٥٠٠٠٠٠٢١٨", false)).ok()
		arabic := strings.Map(func(r rune) rune { return r - '0' + '٠' }, fixedCode)
		token := c.send(c.verifying("\u200e+966 50 000 0218\u200f", arabic, false)).ok().str("accessToken")
		profile := c.send(request{method: http.MethodGet, path: "/customer/profile", token: token}).ok()
		assert.Equal(t, "+966500000218", profile.str("result.phone"))
	})
}

func TestTheFifthWrongGuessEndsACode(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		wrong := func(phone string, n int, member bool) {
			for range n {
				c.send(c.verifying(phone, "000000", member)).refused(http.StatusUnauthorized, models.CodeWrongCode)
			}
		}
		t.Log("guesses without a code say nothing about the person")
		wrong("+966500000210", 8, true)
		c.member(models.RoleOwner, "+966500000210")

		c.send(c.asking("+966500000211", false)).ok()
		wrong("+966500000211", 4, false)
		right := c.verifying("+966500000211", fixedCode, false)
		c.send(right).ok()
		c.send(c.asking("+966500000211", false)).ok()
		wrong("+966500000211", 5, false)
		c.send(right).refused(http.StatusUnauthorized, models.CodeWrongCode)
		t.Log("a new code has guesses of its own")
		c.send(c.asking("+966500000211", false)).ok()
		c.send(right).ok()

		t.Log("many guesses at once are five")
		c.send(c.asking("+966500000213", false)).ok()
		guesses := h.atOnce(200, func(int) request { return c.verifying("+966500000213", "000000", false) })
		assert.False(t, slices.ContainsFunc(guesses, func(a answer) bool { return a.status == http.StatusOK }))
		assert.Equal(t, 5, scalar[int](h, "SELECT max(failures) FROM code_guesses"))
		assert.NotEqual(t, http.StatusOK, c.send(c.verifying("+966500000213", fixedCode, false)).status)
		t.Log("and those of a stranger do not end the code of the person")
		c.send(c.from("198.51.100.9", c.verifying("+966500000213", fixedCode, false))).ok()

		t.Log("twenty, from however many networks, end it for all")
		c.send(c.asking("+966500000214", false)).ok()
		for i := range 40 {
			c.send(c.from(fmt.Sprintf("198.51.%d.9", i%8), c.verifying("+966500000214", "000000", false)))
		}
		assert.Equal(t, 20, scalar[int](h, "SELECT max(failures) FROM code_guesses"))
		c.send(c.from("192.0.2.9", c.verifying("+966500000214", fixedCode, false))).refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.send(c.asking("+966500000214", false)).ok()
		c.send(c.from("192.0.2.9", c.verifying("+966500000214", fixedCode, false))).ok()

		t.Log("two strangers who use up a person's codes do not keep them out")
		for i := range 5 {
			c.send(c.from(fmt.Sprintf("203.0.%d.7", i%2), c.asking("+966500000217", false))).ok()
			for range 5 {
				c.send(c.from(fmt.Sprintf("203.0.%d.7", i%2), c.verifying("+966500000217", "000000", false)))
			}
		}
		c.send(c.asking("+966500000217", false)).refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
		c.send(c.from("192.0.2.10", c.verifying("+966500000217", fixedCode, false))).ok()
	}, behindProxy)
}

// behindProxy makes a node believe the addresses that tests name.
func behindProxy(c *node.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1"} }

// from is a request from an address.
func (c *clinic) from(address string, r request) request {
	r.header = maps.Clone(r.header)
	if r.header == nil {
		r.header = map[string]string{}
	}
	r.header["X-Forwarded-For"] = address
	return r
}

// TestWrongCodesAreChargedToWhoGuesses: one address spoils three of the five
// codes of a person; the person signs in from elsewhere all the same.
func TestWrongCodesAreChargedToWhoGuesses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		const owner = "+966500000215"
		c.exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, 'owner', ?, ?)", models.NewID(), c.id, owner, time.Now().UTC())
		guess := func(phone string) answer { return c.send(c.from("203.0.113.66", c.verifying(phone, "000000", true))) }
		spoilt := 0
		for range 4 {
			c.send(c.asking(owner, true)).ok()
			for range 5 {
				if guess(owner).status == http.StatusUnauthorized {
					spoilt++
				}
			}
		}
		assert.InDelta(t, 15, spoilt, 2, "what comes back in ten minutes is little")
		refused := guess(owner).refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
		assert.NotEmpty(t, refused.header.Get("Retry-After"))
		c.send(c.from("198.51.100.7", c.verifying(owner, fixedCode, true))).ok()

		t.Log("guesses at many people who have no codes cost the guesser")
		others := 0
		for i := range 100 {
			if guess(fmt.Sprintf("+96650001%04d", i)).status == http.StatusUnauthorized {
				others++
			}
		}
		assert.InDelta(t, 45, others, 15)
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM code_guesses"), "nothing is kept about them")

		t.Log("so do guesses with which a patient changes their own number")
		patient := c.patient("+966500000216")
		wrong := 0
		for i := range 40 {
			change := object{"phone": fmt.Sprintf("+96650002%04d", i), "code": "000000"}
			if c.send(c.from("203.0.114.9", request{method: http.MethodPut, path: "/customer/profile", token: patient, body: change})).
				status != http.StatusTooManyRequests {
				wrong++
			}
		}
		assert.InDelta(t, 15, wrong, 2)
	}, behindProxy)
}

// TestOneAddressCannotRunUpTheBill asks for the codes of 130 phones in one go,
// half of them of members.
func TestOneAddressCannotRunUpTheBill(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, _ *fakeTwilio, _ *fakeMail) {
		c := h.newClinic()
		answers := h.atOnce(130, func(i int) request { return c.asking(fmt.Sprintf("+96650002%04d", i), false) })
		sent := succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyCodes)
		t.Logf("%d of 130 codes were sent", sent)
		assert.GreaterOrEqual(t, sent, 60, "sixty patients on one Wi-Fi")
		assert.LessOrEqual(t, sent, 66)
		assert.Equal(t, sent, scalar[int](h, "SELECT sent FROM code_budgets WHERE country = ''"))
		for _, member := range []bool{false, true} {
			refused := c.send(c.asking("+966500020999", member)).refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
			assert.NotEmpty(t, refused.header.Get("Retry-After"))
		}
		c.send(c.from("2001:db8:7::1", c.asking("+966500020998", false))).ok()
		other := h.newClinic()
		other.send(other.asking("+966500020997", false)).ok()
	}, behindProxy)
}

// TestMessagesWithCodesHaveADailyBudget: that of the organization, and a tenth of
// it for each country that neither its members nor the operator expects.
func TestMessagesWithCodesHaveADailyBudget(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, _ *fakeTwilio, _ *fakeMail) {
		c := h.newClinic()
		sent := func(c *clinic, n int, prefix string, member bool) int {
			answers := h.atOnce(n, func(i int) request {
				return c.from(fmt.Sprintf("2001:db8:%x::1", i+1), c.asking(fmt.Sprintf("%s%04d", prefix, i), member))
			})
			return succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyCodes)
		}
		c.hire(object{"phone": "+966500030000", "role": "owner"}).ok()
		assert.Equal(t, 2, sent(c, 10, "+44770090", false), "a tenth for a foreign country")
		assert.Equal(t, 18, sent(c, 40, "+96650003", false), "what is left for the country of its members")
		assert.Equal(t, 40, sent(c, 40, "+96650003", true), "members sign in all the same")
		other := h.newClinic()
		assert.Equal(t, 20, sent(other, 40, "+44770091", false), "where no country is known, none is foreign")

		change := func(token string) answer {
			return h.send(request{method: http.MethodPut, path: "/management/organizations/" + c.id, token: token, body: object{"otpDailyLimit": 25}})
		}
		change(c.key).refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, 25, change(bootstrapKey).ok().num("result.otpDailyLimit"))
		assert.Equal(t, 5, sent(c, 10, "+96650004", false))
		h.exec("UPDATE code_budgets SET day = ?", time.Now().UTC().Truncate(24*time.Hour).Add(-24*time.Hour))
		c.send(c.from("2001:db8:ffff::1", c.asking("+966500050000", false))).ok()
	}, behindProxy, func(c *node.Config) { c.OTPDailyLimit = 20 })
}

func TestFiveCodesAtOnceAreAllThereAre(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, _ *fakeMail) {
		c := h.newClinic()
		answers := h.atOnce(50, func(int) request { return c.asking("+966500000221", false) })
		assert.Equal(t, 5, succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyCodes))
		c.attempts("&method=sms", 5)
		assert.Equal(t, 5, phones.tries("+966500000221"))
		// A member of the same number asks for codes of their own.
		c.send(c.asking("+966500000221", true)).ok()
	})
}

// TestStrangersAreAnsweredAsMembers asks for codes in the names of a member and
// of a stranger: the answer and the work before it are the same, but only the
// member is written to.
func TestStrangersAreAnsweredAsMembers(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			phones := newTwilio(t)
			h := newHouse(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", phones.url })
			c := h.newClinic()
			const known, stranger = "+966500000231", "+966500000232"
			c.exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, 'owner', ?, ?)", models.NewID(), c.id, known, time.Now().UTC())

			var answers []answer
			for _, phone := range []string{known, stranger} {
				answers = append(answers, c.send(c.asking(phone, true)).ok())
			}
			assert.Len(t, answers[1].body, 1)
			assert.Len(t, answers[1].members("result"), 1)
			assert.NotEmpty(t, answers[1].str("result.expiresAt"))
			for _, table := range []string{"one_time_codes", "code_guesses"} {
				assert.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM "+table))
			}
			assert.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'message'"))

			results := map[string]string{}
			for _, line := range c.attempts("&method=sms", 2) {
				results[fmt.Sprint(line["status"])] = fmt.Sprint(line["error"])
			}
			assert.Equal(t, map[string]string{"sent": "", "dropped": "nobody"}, results)
			assert.Equal(t, 1, phones.tries(known))
			assert.Zero(t, phones.tries(stranger), "nothing is sent to a stranger")
			assert.Zero(t, scalar[int](h, "SELECT count(*) FROM customers"), "nobody is made before their code is right")
		})
	}
}

// TestStrangersCostAsMuchAsMembers compares the statements that each takes.
func TestStrangersCostAsMuchAsMembers(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var said []string
			h := newHouse(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					of := regexp.MustCompile("one_time_codes|code_guesses|members|customers|sessions")
					note := func(db *gorm.DB) {
						if sql := db.Statement.SQL.String(); of.MatchString(sql) {
							mu.Lock()
							defer mu.Unlock()
							said = append(said, sql)
						}
					}
					require.NoError(t, s.Tx(context.Background(), func(tx *store.Tx) error {
						for _, on := range []*gorm.DB{tx.DB, s.Read(context.Background())} {
							c := on.Callback()
							require.NoError(t, c.Create().After("*").Register("test:create", note))
							require.NoError(t, c.Query().After("*").Register("test:query", note))
							require.NoError(t, c.Update().After("*").Register("test:update", note))
							require.NoError(t, c.Raw().After("*").Register("test:raw", note))
							require.NoError(t, c.Row().After("*").Register("test:row", note))
						}
						return nil
					}))
				}
			})
			c := h.newClinic()
			c.exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, 'owner', '+966500000236', ?)", models.NewID(), c.id, time.Now().UTC())
			costs := func(r request, status int) []string {
				mu.Lock()
				said = nil
				mu.Unlock()
				a := c.send(r)
				require.Equal(t, status, a.status, "%s", a.raw)
				mu.Lock()
				defer mu.Unlock()
				require.NotEmpty(t, said)
				return said
			}
			for name, made := range map[string]func(phone string) request{
				"asked for": func(phone string) request { return c.asking(phone, true) },
				"wrong":     func(phone string) request { return c.verifying(phone, "000000", true) },
			} {
				status := map[string]int{"asked for": http.StatusOK, "wrong": http.StatusUnauthorized}[name]
				assert.Equal(t, costs(made("+966500000236"), status), costs(made("+966500000237"), status), name)
			}
		})
	}
}

func TestOldSignInsAreForgotten(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		c.send(c.verifying("+966500000241", "000000", false)).refused(http.StatusUnauthorized, models.CodeWrongCode)
		session := c.signIn("+966500000241", false)
		h.send(request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": session.str("refreshToken")}}).ok()
		stays := c.signIn("+966500000242", false)
		rows := func() [4]int {
			var n [4]int
			for i, table := range []string{"one_time_codes", "code_guesses", "sessions", "revocations"} {
				n[i] = scalar[int](h, "SELECT count(*) FROM "+table)
			}
			return n
		}
		require.NoError(t, h.Access.Tidy(t.Context()))
		assert.Equal(t, [4]int{2, 2, 2, 1}, rows(), "a day has not passed")
		yesterday := time.Now().UTC().Add(-25 * time.Hour)
		h.exec("UPDATE one_time_codes SET created_at = ?", yesterday)
		h.exec("UPDATE code_guesses SET failed_at = ?", yesterday)
		h.exec("UPDATE sessions SET expires_at = ? WHERE expires_at < ?", yesterday, time.Now().UTC())
		h.exec("UPDATE revocations SET at = ?", yesterday)
		require.NoError(t, h.Access.Tidy(t.Context()))
		assert.Equal(t, [4]int{0, 0, 1, 0}, rows())
		h.send(request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": stays.str("refreshToken")}}).ok()
	})
}
