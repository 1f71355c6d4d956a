package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// once makes a request with an idempotency key.
func (h *house) once(key string, r request) answer {
	h.t.Helper()
	r.header = map[string]string{"Idempotency-Key": key}
	return h.send(r)
}

func (a answer) replayed() bool { return a.header.Get("Idempotency-Replayed") == "true" }

func (c *clinic) joinRequest(typeID string) request {
	return request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(typeID, nil)}
}

func TestARepeatedRequestIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		typeID := c.serve(c.newType(nil))
		join := c.joinRequest(typeID)
		first := c.once("a", join).ok()
		assert.False(t, first.replayed())
		again := c.once("a", join).ok()
		assert.True(t, again.replayed())
		assert.Equal(t, string(first.raw), string(again.raw))
		assert.Equal(t, first.header.Get("Content-Type"), again.header.Get("Content-Type"))
		assert.NotEqual(t, first.header.Get("X-Request-Id"), again.header.Get("X-Request-Id"))
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM bookings"))

		// The key stands for that request alone.
		other := join
		other.body = joining(typeID, object{"info": "other"})
		c.once("a", other).refused(http.StatusUnprocessableEntity, models.CodeRequestMismatch)
		c.once("a", request{method: http.MethodPost, path: "/management/queue/next", token: c.key, body: object{"resourceId": "x"}}).
			refused(http.StatusUnprocessableEntity, models.CodeRequestMismatch)
		// And for who sent it.
		by := join
		by.token, by.app = bootstrapKey, c.id
		assert.False(t, c.once("a", by).ok().replayed())
		elsewhere := h.newClinic()
		theirs := elsewhere.joinRequest(elsewhere.serve(elsewhere.newType(nil)))
		assert.False(t, h.once("a", theirs).ok().replayed())
		theirs.token, theirs.app = bootstrapKey, elsewhere.id
		assert.False(t, h.once("a", theirs).ok().replayed())
		assert.False(t, c.once("b", join).ok().replayed())
		assert.Equal(t, 5, scalar[int](h, "SELECT count(*) FROM bookings"))

		// What the account does has no organization.
		found := request{method: http.MethodPost, path: "/management/organizations", token: bootstrapKey, body: object{"name": "New", "timezone": "UTC"}}
		made := h.once("o", found).ok()
		assert.Equal(t, made.str("result.id"), h.once("o", found).ok().str("result.id"))

		// A secret that is shown once is shown again to the same question, and
		// lies sealed until then.
		newKey := request{method: http.MethodPost, path: "/management/apiKeys", token: c.key, body: object{"name": "till"}}
		secret := c.once("k", newKey).ok().str("result.key")
		assert.Equal(t, secret, c.once("k", newKey).ok().str("result.key"))
		for _, body := range column(h, "SELECT body FROM idempotency_keys") {
			assert.NotContains(t, body, secret)
			assert.NotContains(t, body, "result")
		}
	})
}

// column reads the texts of a column.
func column(h *house, sql string) []string {
	h.t.Helper()
	var texts []string
	require.NoError(h.t, h.Store.Read(context.Background()).Raw(sql).Scan(&texts).Error)
	return texts
}

func TestAThousandRequestsWithOneKeyMakeOneBooking(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		join := c.joinRequest(c.serve(c.newType(nil)))
		join.header = map[string]string{"Idempotency-Key": "storm"}
		var mu sync.Mutex
		bodies := map[string]int{}
		var crowd sync.WaitGroup
		for range 50 {
			crowd.Go(func() {
				for range 20 {
					a, err := h.try(join)
					if !assert.NoError(t, err) {
						return
					}
					if a.status == http.StatusConflict {
						assert.Equal(t, string(models.CodeRequestRunning), a.str("code"))
						assert.Equal(t, "1", a.header.Get("Retry-After"))
						continue
					}
					mu.Lock()
					bodies[string(a.raw)]++
					mu.Unlock()
				}
			})
		}
		crowd.Wait()
		assert.Len(t, bodies, 1)
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM bookings"))
	})
}

func TestWhichAnswersAreKept(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		typeID := c.newType(nil)
		room := c.newResource(nil, typeID)
		next := request{method: http.MethodPost, path: "/management/queue/next", token: c.key, body: object{"resourceId": room}}
		empty := c.once("empty", next).refused(http.StatusNotFound, models.CodeQueueEmpty)
		booking := c.join(typeID, nil).str("id")
		again := c.once("empty", next)
		require.Equal(t, http.StatusNotFound, again.status)
		assert.Equal(t, empty.raw, again.raw)
		assert.Equal(t, "application/problem+json", again.header.Get("Content-Type"))

		broken := c.joinRequest("")
		broken.body = object{"type": 7}
		c.once("broken", broken).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.True(t, c.once("broken", broken).replayed())

		c.once("next", next).ok()
		recall := request{method: http.MethodPost, path: "/management/bookings/recall", token: c.key, body: object{"bookingId": booking}}
		early := c.once("recall", recall).refused(http.StatusConflict, models.CodeRecallTooSoon)
		later := c.once("recall", recall)
		assert.True(t, later.replayed())
		assert.Equal(t, early.header.Get("Retry-After"), later.header.Get("Retry-After"))

		// Who may do it next time need not be answered as before.
		provider := c.member(models.RoleProvider, "+966500000321")
		next.token = provider
		c.once("mine", next).refused(http.StatusForbidden, models.CodeForbidden)
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM idempotency_keys WHERE idempotency_key = 'mine'"))

		// Nor who met a fault.
		h.alter("ALTER TABLE bookings RENAME TO mislaid")
		join := c.joinRequest(typeID)
		assert.GreaterOrEqual(t, c.once("fault", join).status, http.StatusInternalServerError)
		h.alter("ALTER TABLE mislaid RENAME TO bookings")
		assert.False(t, c.once("fault", join).ok().replayed())

		for name, key := range map[string]string{"too long": strings.Repeat("k", 256), "unprintable": "a\tb", "not ASCII": "\u00e4"} {
			assert.Equal(t, idempotencyHeader, c.once(key, join).refused(http.StatusUnprocessableEntity, models.CodeInvalid).str("errors.0.field"), name)
		}
		c.once(strings.Repeat("k", 255), join).ok()

		// Signing in is not repeated but done again, and so is what changes nothing.
		ask := request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: object{"method": "sms", "phoneNumber": "+966500000322"}}
		c.once("sign-in", ask).ok()
		assert.False(t, c.once("sign-in", ask).ok().replayed())
	})
}

const idempotencyHeader = "Idempotency-Key"

func TestARequestThatWasCutShort(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		join := c.joinRequest(c.serve(c.newType(nil)))
		booking := c.once("cut", join).ok().str("id")

		// As if its process had ended after the commit.
		h.exec("UPDATE idempotency_keys SET state = 'committed', status = 0, header = '', body = ''")
		c.once("cut", join).refused(http.StatusConflict, models.CodeRequestRunning)
		h.age("cut", 31*time.Second)
		lost := c.once("cut", join).refused(http.StatusConflict, models.CodeAnswerLost)
		assert.Contains(t, lost.str("detail"), booking)
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM bookings"))

		// Before it.
		h.exec("UPDATE idempotency_keys SET state = 'running', booking_id = ''")
		assert.False(t, c.once("cut", join).ok().replayed())
		assert.True(t, c.once("cut", join).ok().replayed())
		h.exec("UPDATE idempotency_keys SET state = 'running', booking_id = ''")
		assert.Equal(t, "1", c.once("cut", join).refused(http.StatusConflict, models.CodeRequestRunning).header.Get("Retry-After"))
		assert.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM bookings"))
	})
}

// TestARequestThatFailedAfterItsCommit: who repeats it is told at once that it
// was carried out; one that failed before is carried out at once.
func TestARequestThatFailedAfterItsCommit(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var after, before atomic.Bool
			h := newHouse(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					on := s.Read(context.Background()).Callback()
					require.NoError(t, on.Query().Before("gorm:query").Register("test:fail", func(db *gorm.DB) {
						switch db.Statement.Dest.(type) {
						case *[]models.Customer: // who a committed booking is shown with
							if after.Load() {
								db.Error = errors.New("planted")
							}
						case *models.BookingType:
							if before.Load() {
								db.Error = errors.New("planted")
							}
						}
					}))
				}
			})
			c := h.newClinic()
			join := c.joinRequest(c.serve(c.newType(nil)))

			before.Store(true)
			c.once("before", join).refused(http.StatusInternalServerError, models.CodeInternal)
			before.Store(false)
			assert.Zero(t, scalar[int](h, "SELECT count(*) FROM bookings"))
			assert.False(t, c.once("before", join).ok().replayed())

			after.Store(true)
			assert.False(t, c.once("after", join).ok().replayed(), "what is committed is answered")
			after.Store(false)
			require.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM bookings"))
			assert.True(t, c.once("after", join).ok().replayed())
			assert.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM bookings"))
			other := join
			other.body = joining("other", nil)
			c.once("after", other).refused(http.StatusUnprocessableEntity, models.CodeRequestMismatch)
			h.age("after", 25*time.Hour)
			assert.False(t, c.once("after", join).ok().replayed())
			assert.True(t, c.once("after", join).ok().replayed())
		})
	}
}

// age moves a request into the past.
func (h *house) age(key string, by time.Duration) {
	h.t.Helper()
	now, err := h.Store.Now(context.Background())
	require.NoError(h.t, err)
	h.exec("UPDATE idempotency_keys SET created_at = ? WHERE idempotency_key = ?", now.Add(-by), key)
}

func TestOnlyTheLastToClaimARequestCommits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		request := store.Request{OrganizationID: "o", Subject: "s", Key: "slow", Hash: "h"}
		slow, _, err := h.Store.Claim(ctx, request)
		require.NoError(t, err)
		none, earlier, err := h.Store.Claim(ctx, request)
		require.NoError(t, err)
		require.Nil(t, none)
		require.False(t, earlier.Lost)
		h.age("slow", 31*time.Second)
		quick, _, err := h.Store.Claim(ctx, request)
		require.NoError(t, err)
		require.NotNil(t, quick)

		write := func(claim *store.Claim, action string) error {
			return h.Store.Tx(store.WithIdempotency(ctx, claim), func(tx *store.Tx) error { return tx.Audit("o", action, "test", "t") })
		}
		require.Equal(t, models.CodeRequestRunning, models.CodeOf(write(slow, "slow")))
		require.NoError(t, write(quick, "quick"))
		require.NoError(t, h.Store.Release(ctx, slow))
		assert.Equal(t, []string{"quick"}, column(h, "SELECT action FROM audit WHERE organization_id = 'o'"))
		assert.Equal(t, []string{"committed"}, column(h, "SELECT state FROM idempotency_keys"))

		// Another transaction of the same request goes on, one after its end too.
		require.NoError(t, write(quick, "more"))
		require.NoError(t, h.Store.Settle(ctx, quick, http.StatusOK, "", ""))
		require.NoError(t, write(quick, "after"))
		require.NoError(t, h.Store.Release(ctx, quick)) // too late
		assert.Equal(t, []string{"done"}, column(h, "SELECT state FROM idempotency_keys"))
	})
}

func TestRequestsAreForgottenAfterADay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		join := c.joinRequest(c.serve(c.newType(nil)))
		for _, key := range []string{"old", "young", "again"} {
			c.once(key, join).ok()
		}
		h.age("old", 25*time.Hour)
		h.age("again", 25*time.Hour)
		h.age("young", 23*time.Hour)
		assert.False(t, c.once("again", join).ok().replayed())
		require.NoError(t, h.Notify.Tidy(context.Background()))
		assert.ElementsMatch(t, []string{"young", "again"}, column(h, "SELECT idempotency_key FROM idempotency_keys"))
		assert.True(t, c.once("young", join).ok().replayed())
	})
}
