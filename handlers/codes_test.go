package handlers_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
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

func TestWrongCodesAreCountedForTheAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		wrong := func(phone string, n int) {
			for range n {
				c.send(c.verifying(phone, "000000", false)).refused(http.StatusUnauthorized, models.CodeWrongCode)
			}
		}
		c.send(c.asking("+966500000211", false)).ok()
		wrong("+966500000211", 4)
		c.send(c.verifying("+966500000211", fixedCode, false)).ok()

		// The fifth is the last, though the person signed in meanwhile; a new code
		// changes nothing.
		c.send(c.asking("+966500000211", false)).ok()
		wrong("+966500000211", 1)
		right := c.verifying("+966500000211", fixedCode, false)
		c.send(right).refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.send(c.asking("+966500000211", false)).ok()
		c.send(right).refused(http.StatusUnauthorized, models.CodeWrongCode)

		// Of other addresses, other kinds of people and other tenants it says nothing.
		c.signIn("+966500000212", false)
		other := h.newClinic()
		other.signIn("+966500000211", false)
		c.member(models.RoleOwner, "+966500000211")

		h.exec("UPDATE code_guesses SET failed_at = ?", time.Now().UTC().Add(-10*time.Minute+10*time.Second))
		c.send(right).refused(http.StatusUnauthorized, models.CodeWrongCode)
		h.exec("UPDATE code_guesses SET failed_at = ?", time.Now().UTC().Add(-10*time.Minute))
		c.send(right).ok()

		t.Log("many guesses at once are five")
		c.send(c.asking("+966500000213", false)).ok()
		assert.Zero(t, succeeded(t, h.atOnce(200, func(int) request { return c.verifying("+966500000213", "000000", false) }), http.StatusUnauthorized, models.CodeWrongCode))
		assert.Equal(t, 5, scalar[int](h, "SELECT failures FROM code_guesses ORDER BY failed_at DESC LIMIT 1"))
		c.send(c.verifying("+966500000213", fixedCode, false)).refused(http.StatusUnauthorized, models.CodeWrongCode)
	})
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
			h := newHouse(t, b, func(h *house) { h.secret, h.outside.SMSURL = true, phones.url })
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
			h := newHouse(t, b, func(h *house) {
				h.look = func(s *store.Store) {
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
		require.NoError(t, h.access.Tidy(t.Context()))
		assert.Equal(t, [4]int{2, 2, 2, 1}, rows(), "a day has not passed")
		yesterday := time.Now().UTC().Add(-25 * time.Hour)
		h.exec("UPDATE one_time_codes SET created_at = ?", yesterday)
		h.exec("UPDATE code_guesses SET failed_at = ?", yesterday)
		h.exec("UPDATE sessions SET expires_at = ? WHERE expires_at < ?", yesterday, time.Now().UTC())
		h.exec("UPDATE revocations SET at = ?", yesterday)
		require.NoError(t, h.access.Tidy(t.Context()))
		assert.Equal(t, [4]int{0, 0, 1, 0}, rows())
		h.send(request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": stays.str("refreshToken")}}).ok()
	})
}
