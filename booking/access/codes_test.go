package access_test

import (
	"context"
	"fmt"
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestACodeWorksOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		c.Send(c.Asking("+966500000201", false)).OK()
		answers := nodetest.AtOnce(h, 200, func(int) nodetest.Request { return c.Verifying("+966500000201", nodetest.FixedCode, false) })
		assert.Equal(t, 1, nodetest.Succeeded(t, answers, http.StatusUnauthorized, models.CodeWrongCode))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM sessions"))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM customers"))
		// The right code, sent again, is not a wrong guess. A fixed code has the same bounds as
		// any other.
		for range 4 {
			c.SignIn("+966500000201", false)
		}
		c.Send(c.Asking("+966500000201", false)).Refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
	})
}

// Phones write numbers in the digits of their language, and copy marks of
// direction with them.
func TestNumbersAreUnderstoodInEveryScript(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		c.Send(c.Asking("٠٠٩٦٦٥٠٠٠٠٠٢١٨", false)).OK()
		arabic := strings.Map(func(r rune) rune { return r - '0' + '٠' }, nodetest.FixedCode)
		token := c.Send(c.Verifying("\u200e+966 50 000 0218\u200f", arabic, false)).OK().Str("accessToken")
		profile := c.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: token}).OK()
		assert.Equal(t, "+966500000218", profile.Str("result.phone"))
	})
}

func TestTheFifthWrongGuessEndsACode(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		wrong := func(phone string, n int, member bool) {
			for range n {
				c.Send(c.Verifying(phone, "000000", member)).Refused(http.StatusUnauthorized, models.CodeWrongCode)
			}
		}
		t.Log("guesses without a code say nothing about the person")
		wrong("+966500000210", 8, true)
		c.Member(models.RoleOwner, "+966500000210")

		c.Send(c.Asking("+966500000211", false)).OK()
		wrong("+966500000211", 4, false)
		right := c.Verifying("+966500000211", nodetest.FixedCode, false)
		c.Send(right).OK()
		c.Send(c.Asking("+966500000211", false)).OK()
		wrong("+966500000211", 5, false)
		c.Send(right).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		t.Log("a new code has guesses of its own")
		c.Send(c.Asking("+966500000211", false)).OK()
		c.Send(right).OK()

		t.Log("many guesses at once are five")
		c.Send(c.Asking("+966500000213", false)).OK()
		guesses := nodetest.AtOnce(h, 200, func(int) nodetest.Request { return c.Verifying("+966500000213", "000000", false) })
		assert.False(t, slices.ContainsFunc(guesses, func(a nodetest.Response) bool { return a.Status == http.StatusOK }))
		assert.Equal(t, 5, nodetest.Scalar[int](h, "SELECT max(failures) FROM code_guesses"))
		assert.NotEqual(t, http.StatusOK, c.Send(c.Verifying("+966500000213", nodetest.FixedCode, false)).Status)
		t.Log("and those of a stranger do not end the code of the person")
		c.Send(nodetest.From("198.51.100.9", c.Verifying("+966500000213", nodetest.FixedCode, false))).OK()

		t.Log("twenty, from however many networks, end it for all")
		c.Send(c.Asking("+966500000214", false)).OK()
		for i := range 40 {
			c.Send(nodetest.From(fmt.Sprintf("198.51.%d.9", i%8), c.Verifying("+966500000214", "000000", false)))
		}
		assert.Equal(t, 20, nodetest.Scalar[int](h, "SELECT max(failures) FROM code_guesses"))
		c.Send(nodetest.From("192.0.2.9", c.Verifying("+966500000214", nodetest.FixedCode, false))).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.Send(c.Asking("+966500000214", false)).OK()
		c.Send(nodetest.From("192.0.2.9", c.Verifying("+966500000214", nodetest.FixedCode, false))).OK()

		t.Log("two strangers who use up a person's codes do not keep them out")
		for i := range 5 {
			c.Send(nodetest.From(fmt.Sprintf("203.0.%d.7", i%2), c.Asking("+966500000217", false))).OK()
			for range 5 {
				c.Send(nodetest.From(fmt.Sprintf("203.0.%d.7", i%2), c.Verifying("+966500000217", "000000", false)))
			}
		}
		c.Send(c.Asking("+966500000217", false)).Refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
		c.Send(nodetest.From("192.0.2.10", c.Verifying("+966500000217", nodetest.FixedCode, false))).OK()
	}, nodetest.BehindProxy)
}

// TestWrongCodesAreChargedToWhoGuesses: one address spoils three of the five
// codes of a person; the person signs in from elsewhere all the same.
func TestWrongCodesAreChargedToWhoGuesses(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		const owner = "+966500000215"
		c.Exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, 'owner', ?, ?)", models.NewID(), c.ID, owner, time.Now().UTC())
		guess := func(phone string) nodetest.Response {
			return c.Send(nodetest.From("203.0.113.66", c.Verifying(phone, "000000", true)))
		}
		spoilt := 0
		for range 4 {
			c.Send(c.Asking(owner, true)).OK()
			for range 5 {
				if guess(owner).Status == http.StatusUnauthorized {
					spoilt++
				}
			}
		}
		assert.InDelta(t, 15, spoilt, 2, "what comes back in ten minutes is little")
		refused := guess(owner).Refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
		assert.NotEmpty(t, refused.Header.Get("Retry-After"))
		c.Send(nodetest.From("198.51.100.7", c.Verifying(owner, nodetest.FixedCode, true))).OK()

		t.Log("guesses at many people who have no codes cost the guesser")
		others := 0
		for i := range 100 {
			if guess(fmt.Sprintf("+96650001%04d", i)).Status == http.StatusUnauthorized {
				others++
			}
		}
		assert.InDelta(t, 45, others, 15)
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM code_guesses"), "nothing is kept about them")

		t.Log("so do guesses with which a patient changes their own number")
		patient := c.Patient("+966500000216")
		wrong := 0
		for i := range 40 {
			change := nodetest.Object{"phone": fmt.Sprintf("+96650002%04d", i), "code": "000000"}
			if c.Send(nodetest.From("203.0.114.9", nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: patient, Body: change})).
				Status != http.StatusTooManyRequests {
				wrong++
			}
		}
		assert.InDelta(t, 15, wrong, 2)
	}, nodetest.BehindProxy)
}

// TestOneAddressCannotRunUpTheBill asks for the codes of 130 phones in one go,
// half of them of members.
func TestOneAddressCannotRunUpTheBill(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		answers := nodetest.AtOnce(h, 130, func(i int) nodetest.Request { return c.Asking(fmt.Sprintf("+96650002%04d", i), false) })
		sent := nodetest.Succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyCodes)
		t.Logf("%d of 130 codes were sent", sent)
		assert.GreaterOrEqual(t, sent, 60, "sixty patients on one Wi-Fi")
		assert.LessOrEqual(t, sent, 66)
		assert.Equal(t, sent, nodetest.Scalar[int](h, "SELECT sent FROM code_budgets WHERE country = ''"))
		for _, member := range []bool{false, true} {
			refused := c.Send(c.Asking("+966500020999", member)).Refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
			assert.NotEmpty(t, refused.Header.Get("Retry-After"))
		}
		c.Send(nodetest.From("2001:db8:7::1", c.Asking("+966500020998", false))).OK()
		other := h.NewClinic()
		other.Send(other.Asking("+966500020997", false)).OK()
	}, nodetest.BehindProxy)
}

// TestMessagesWithCodesHaveADailyBudget: that of the organization, and a tenth of
// it for each country that neither its members nor the operator expects.
func TestMessagesWithCodesHaveADailyBudget(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		sent := func(c *nodetest.Clinic, n int, prefix string, member bool) int {
			answers := nodetest.AtOnce(h, n, func(i int) nodetest.Request {
				return nodetest.From(fmt.Sprintf("2001:db8:%x::1", i+1), c.Asking(fmt.Sprintf("%s%04d", prefix, i), member))
			})
			return nodetest.Succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyCodes)
		}
		nodetest.Hire(c, nodetest.Object{"phone": "+966500030000", "role": "owner"}).OK()
		assert.Equal(t, 2, sent(c, 10, "+44770090", false), "a tenth for a foreign country")
		assert.Equal(t, 18, sent(c, 40, "+96650003", false), "what is left for the country of its members")
		assert.Equal(t, 40, sent(c, 40, "+96650003", true), "members sign in all the same")
		other := h.NewClinic()
		assert.Equal(t, 20, sent(other, 40, "+44770091", false), "where no country is known, none is foreign")

		change := func(token string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/organizations/" + c.ID, Token: token, Body: nodetest.Object{"otpDailyLimit": 25}})
		}
		change(c.Key).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, 25, change(nodetest.BootstrapKey).OK().Num("result.otpDailyLimit"))
		assert.Equal(t, 5, sent(c, 10, "+96650004", false))
		h.Exec("UPDATE code_budgets SET day = ?", time.Now().UTC().Truncate(24*time.Hour).Add(-24*time.Hour))
		c.Send(nodetest.From("2001:db8:ffff::1", c.Asking("+966500050000", false))).OK()
	}, nodetest.BehindProxy, func(c *node.Config) { c.OTPDailyLimit = 20 })
}

func TestFiveCodesAtOnceAreAllThereAre(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		answers := nodetest.AtOnce(h, 50, func(int) nodetest.Request { return c.Asking("+966500000221", false) })
		assert.Equal(t, 5, nodetest.Succeeded(t, answers, http.StatusTooManyRequests, models.CodeTooManyCodes))
		c.Attempts("&method=sms", 5)
		assert.Equal(t, 5, phones.Tries("+966500000221"))
		// A member of the same number asks for codes of their own.
		c.Send(c.Asking("+966500000221", true)).OK()
	})
}

// TestStrangersAreAnsweredAsMembers asks for codes in the names of a member and
// of a stranger: the answer and the work before it are the same, but only the
// member is written to.
func TestStrangersAreAnsweredAsMembers(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			phones := nodetest.NewTwilio(t)
			h := nodetest.Start(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", phones.URL })
			c := h.NewClinic()
			const known, stranger = "+966500000231", "+966500000232"
			c.Exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, 'owner', ?, ?)", models.NewID(), c.ID, known, time.Now().UTC())

			var answers []nodetest.Response
			for _, phone := range []string{known, stranger} {
				answers = append(answers, c.Send(c.Asking(phone, true)).OK())
			}
			assert.Len(t, answers[1].Body, 1)
			assert.Len(t, answers[1].Members("result"), 1)
			assert.NotEmpty(t, answers[1].Str("result.expiresAt"))
			for _, table := range []string{"one_time_codes", "code_guesses"} {
				assert.Equal(t, 2, nodetest.Scalar[int](h, "SELECT count(*) FROM "+table))
			}
			assert.Equal(t, 2, nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'message'"))

			results := map[string]string{}
			for _, line := range c.Attempts("&method=sms", 2) {
				results[fmt.Sprint(line["status"])] = fmt.Sprint(line["error"])
			}
			assert.Equal(t, map[string]string{"sent": "", "dropped": "nobody"}, results)
			assert.Equal(t, 1, phones.Tries(known))
			assert.Zero(t, phones.Tries(stranger), "nothing is sent to a stranger")
			assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM customers"), "nobody is made before their code is right")
		})
	}
}

// TestStrangersCostAsMuchAsMembers compares the statements that each takes.
func TestStrangersCostAsMuchAsMembers(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var said []string
			h := nodetest.Start(t, b, func(c *node.Config) {
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
			c := h.NewClinic()
			c.Exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, 'owner', '+966500000236', ?)", models.NewID(), c.ID, time.Now().UTC())
			costs := func(r nodetest.Request, status int) []string {
				mu.Lock()
				said = nil
				mu.Unlock()
				a := c.Send(r)
				require.Equal(t, status, a.Status, "%s", a.Raw)
				mu.Lock()
				defer mu.Unlock()
				require.NotEmpty(t, said)
				return said
			}
			for name, made := range map[string]func(phone string) nodetest.Request{
				"asked for": func(phone string) nodetest.Request { return c.Asking(phone, true) },
				"wrong":     func(phone string) nodetest.Request { return c.Verifying(phone, "000000", true) },
			} {
				status := map[string]int{"asked for": http.StatusOK, "wrong": http.StatusUnauthorized}[name]
				assert.Equal(t, costs(made("+966500000236"), status), costs(made("+966500000237"), status), name)
			}
		})
	}
}

func TestOldSignInsAreForgotten(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		c.Send(c.Verifying("+966500000241", "000000", false)).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		session := c.SignIn("+966500000241", false)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": session.Str("refreshToken")}}).OK()
		stays := c.SignIn("+966500000242", false)
		rows := func() [4]int {
			var n [4]int
			for i, table := range []string{"one_time_codes", "code_guesses", "sessions", "revocations"} {
				n[i] = nodetest.Scalar[int](h, "SELECT count(*) FROM "+table)
			}
			return n
		}
		require.NoError(t, h.Access.Tidy(t.Context()))
		assert.Equal(t, [4]int{2, 2, 2, 1}, rows(), "a day has not passed")
		yesterday := time.Now().UTC().Add(-25 * time.Hour)
		h.Exec("UPDATE one_time_codes SET created_at = ?", yesterday)
		h.Exec("UPDATE code_guesses SET failed_at = ?", yesterday)
		h.Exec("UPDATE sessions SET expires_at = ? WHERE expires_at < ?", yesterday, time.Now().UTC())
		h.Exec("UPDATE revocations SET at = ?", yesterday)
		require.NoError(t, h.Access.Tidy(t.Context()))
		assert.Equal(t, [4]int{0, 0, 1, 0}, rows())
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/token", Body: nodetest.Object{"refreshToken": stays.Str("refreshToken")}}).OK()
	})
}
