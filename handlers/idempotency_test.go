package handlers_test

import (
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func replayed(a nodetest.Response) bool { return a.Header.Get("Idempotency-Replayed") == "true" }

func joinRequest(c *nodetest.Clinic, typeID string) nodetest.Request {
	return nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(typeID, nil)}
}

func TestARepeatedRequestIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		typeID := c.Serve(c.NewType(nil))
		join := joinRequest(c, typeID)
		first := nodetest.Once(c.Node, "a", join).OK()
		assert.False(t, replayed(first))
		again := nodetest.Once(c.Node, "a", join).OK()
		assert.True(t, replayed(again))
		assert.Equal(t, string(first.Raw), string(again.Raw))
		assert.Equal(t, first.Header.Get("Content-Type"), again.Header.Get("Content-Type"))
		assert.NotEqual(t, first.Header.Get("X-Request-Id"), again.Header.Get("X-Request-Id"))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))

		// The key stands for that request alone.
		other := join
		other.Body = nodetest.Joining(typeID, nodetest.Object{"info": "other"})
		nodetest.Once(c.Node, "a", other).Refused(http.StatusUnprocessableEntity, models.CodeRequestMismatch)
		nodetest.Once(c.Node, "a", nodetest.Request{Method: http.MethodPost, Path: "/management/queue/next", Token: c.Key, Body: nodetest.Object{"resourceId": "x"}}).
			Refused(http.StatusUnprocessableEntity, models.CodeRequestMismatch)
		// And for who sent it.
		by := join
		by.Token, by.App = nodetest.BootstrapKey, c.ID
		assert.False(t, replayed(nodetest.Once(c.Node, "a", by).OK()))
		elsewhere := h.NewClinic()
		theirs := joinRequest(elsewhere, elsewhere.Serve(elsewhere.NewType(nil)))
		assert.False(t, replayed(nodetest.Once(h, "a", theirs).OK()))
		theirs.Token, theirs.App = nodetest.BootstrapKey, elsewhere.ID
		assert.False(t, replayed(nodetest.Once(h, "a", theirs).OK()))
		assert.False(t, replayed(nodetest.Once(c.Node, "b", join).OK()))
		assert.Equal(t, 5, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))

		// What the account does has no organization.
		found := nodetest.Request{Method: http.MethodPost, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "New", "timezone": "UTC"}}
		made := nodetest.Once(h, "o", found).OK()
		assert.Equal(t, made.Str("result.id"), nodetest.Once(h, "o", found).OK().Str("result.id"))

		// A secret that is shown once is shown again to the same question, and
		// lies sealed until then.
		newKey := nodetest.Request{Method: http.MethodPost, Path: "/management/apiKeys", Token: c.Key, Body: nodetest.Object{"name": "till"}}
		secret := nodetest.Once(c.Node, "k", newKey).OK().Str("result.key")
		assert.Equal(t, secret, nodetest.Once(c.Node, "k", newKey).OK().Str("result.key"))
		for _, body := range column(h, "SELECT body FROM idempotency_keys") {
			assert.NotContains(t, body, secret)
			assert.NotContains(t, body, "result")
		}
	})
}

// column reads the texts of a column.
func column(h *nodetest.Node, sql string) []string {
	h.T.Helper()
	var texts []string
	require.NoError(h.T, h.Store.Read(context.Background()).Raw(sql).Scan(&texts).Error)
	return texts
}

func TestAThousandRequestsWithOneKeyMakeOneBooking(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		join := joinRequest(c, c.Serve(c.NewType(nil)))
		join.Header = map[string]string{"Idempotency-Key": "concurrent"}
		var mu sync.Mutex
		bodies := map[string]int{}
		var requests sync.WaitGroup
		for range 50 {
			requests.Go(func() {
				for range 20 {
					a, err := h.Try(join)
					if !assert.NoError(t, err) {
						return
					}
					if a.Status == http.StatusConflict {
						assert.Equal(t, string(models.CodeRequestRunning), a.Str("code"))
						assert.Equal(t, "1", a.Header.Get("Retry-After"))
						continue
					}
					mu.Lock()
					bodies[string(a.Raw)]++
					mu.Unlock()
				}
			})
		}
		requests.Wait()
		assert.Len(t, bodies, 1)
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
	})
}

func TestAnswersAreKeptExceptRefusedAccessAndFaults(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		typeID := c.NewType(nil)
		room := c.NewResource(nil, typeID)
		next := nodetest.Request{Method: http.MethodPost, Path: "/management/queue/next", Token: c.Key, Body: nodetest.Object{"resourceId": room}}
		empty := nodetest.Once(c.Node, "empty", next).Refused(http.StatusNotFound, models.CodeQueueEmpty)
		booking := c.Join(typeID, nil).Str("id")
		again := nodetest.Once(c.Node, "empty", next)
		require.Equal(t, http.StatusNotFound, again.Status)
		assert.Equal(t, empty.Raw, again.Raw)
		assert.Equal(t, "application/problem+json", again.Header.Get("Content-Type"))

		broken := joinRequest(c, "")
		broken.Body = nodetest.Object{"type": 7}
		nodetest.Once(c.Node, "broken", broken).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.True(t, replayed(nodetest.Once(c.Node, "broken", broken)))

		nodetest.Once(c.Node, "next", next).OK()
		recall := nodetest.Request{Method: http.MethodPost, Path: "/management/bookings/recall", Token: c.Key, Body: nodetest.Object{"bookingId": booking}}
		early := nodetest.Once(c.Node, "recall", recall).Refused(http.StatusConflict, models.CodeRecallTooSoon)
		later := nodetest.Once(c.Node, "recall", recall)
		assert.True(t, replayed(later))
		assert.Equal(t, early.Header.Get("Retry-After"), later.Header.Get("Retry-After"))

		// Who may do it next time need not be answered as before.
		provider := c.Member(models.RoleProvider, "+966500000321")
		next.Token = provider
		nodetest.Once(c.Node, "mine", next).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM idempotency_keys WHERE idempotency_key = 'mine'"))

		// Nor who met a fault.
		h.Alter("ALTER TABLE bookings RENAME TO mislaid")
		join := joinRequest(c, typeID)
		assert.GreaterOrEqual(t, nodetest.Once(c.Node, "fault", join).Status, http.StatusInternalServerError)
		h.Alter("ALTER TABLE mislaid RENAME TO bookings")
		assert.False(t, replayed(nodetest.Once(c.Node, "fault", join).OK()))

		for name, key := range map[string]string{"too long": strings.Repeat("k", 256), "unprintable": "a\tb", "not ASCII": "\u00e4"} {
			assert.Equal(t, idempotencyHeader, nodetest.Once(c.Node, key, join).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).Str("errors.0.field"), name)
		}
		nodetest.Once(c.Node, strings.Repeat("k", 255), join).OK()

		// Signing in is not repeated but done again, and so is what changes nothing.
		ask := nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000322"}}
		nodetest.Once(c.Node, "sign-in", ask).OK()
		assert.False(t, replayed(nodetest.Once(c.Node, "sign-in", ask).OK()))
	})
}

const idempotencyHeader = "Idempotency-Key"

func TestAnInterruptedRequestIsNotCarriedOutTwice(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		join := joinRequest(c, c.Serve(c.NewType(nil)))
		booking := nodetest.Once(c.Node, "cut", join).OK().Str("id")

		// As if its process had ended after the commit.
		h.Exec("UPDATE idempotency_keys SET state = 'committed', status = 0, header = '', body = ''")
		nodetest.Once(c.Node, "cut", join).Refused(http.StatusConflict, models.CodeRequestRunning)
		age(h, "cut", 31*time.Second)
		lost := nodetest.Once(c.Node, "cut", join).Refused(http.StatusConflict, models.CodeAnswerLost)
		assert.Contains(t, lost.Str("detail"), booking)
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))

		// Before it.
		h.Exec("UPDATE idempotency_keys SET state = 'running', booking_id = ''")
		assert.False(t, replayed(nodetest.Once(c.Node, "cut", join).OK()))
		assert.True(t, replayed(nodetest.Once(c.Node, "cut", join).OK()))
		h.Exec("UPDATE idempotency_keys SET state = 'running', booking_id = ''")
		assert.Equal(t, "1", nodetest.Once(c.Node, "cut", join).Refused(http.StatusConflict, models.CodeRequestRunning).Header.Get("Retry-After"))
		assert.Equal(t, 2, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
	})
}

// TestARequestThatFailedAfterItsCommitIsNotRepeated repeats a request that failed.
// After its commit, the answer says at once that it was carried out. Before its
// commit, it is carried out.
func TestARequestThatFailedAfterItsCommitIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var after, before atomic.Bool
			h := nodetest.Start(t, b, func(c *node.Config) {
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
			c := h.NewClinic()
			join := joinRequest(c, c.Serve(c.NewType(nil)))

			before.Store(true)
			nodetest.Once(c.Node, "before", join).Refused(http.StatusInternalServerError, models.CodeInternal)
			before.Store(false)
			assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
			assert.False(t, replayed(nodetest.Once(c.Node, "before", join).OK()))

			after.Store(true)
			assert.False(t, replayed(nodetest.Once(c.Node, "after", join).OK()), "what is committed is answered")
			after.Store(false)
			require.Equal(t, 2, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
			assert.True(t, replayed(nodetest.Once(c.Node, "after", join).OK()))
			assert.Equal(t, 2, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
			other := join
			other.Body = nodetest.Joining("other", nil)
			nodetest.Once(c.Node, "after", other).Refused(http.StatusUnprocessableEntity, models.CodeRequestMismatch)
			age(h, "after", 25*time.Hour)
			assert.False(t, replayed(nodetest.Once(c.Node, "after", join).OK()))
			assert.True(t, replayed(nodetest.Once(c.Node, "after", join).OK()))
		})
	}
}

// age moves a request into the past.
func age(h *nodetest.Node, key string, by time.Duration) {
	h.T.Helper()
	now, err := h.Store.Now(context.Background())
	require.NoError(h.T, err)
	h.Exec("UPDATE idempotency_keys SET created_at = ? WHERE idempotency_key = ?", now.Add(-by), key)
}

func TestOnlyTheLastToClaimARequestCommits(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		ctx := context.Background()
		request := store.Request{OrganizationID: "o", Subject: "s", Key: "slow", Hash: "h"}
		slow, _, err := h.Store.Claim(ctx, request)
		require.NoError(t, err)
		none, earlier, err := h.Store.Claim(ctx, request)
		require.NoError(t, err)
		require.Nil(t, none)
		require.False(t, earlier.Lost)
		age(h, "slow", 31*time.Second)
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
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		join := joinRequest(c, c.Serve(c.NewType(nil)))
		for _, key := range []string{"old", "young", "again"} {
			nodetest.Once(c.Node, key, join).OK()
		}
		age(h, "old", 25*time.Hour)
		age(h, "again", 25*time.Hour)
		age(h, "young", 23*time.Hour)
		assert.False(t, replayed(nodetest.Once(c.Node, "again", join).OK()))
		require.NoError(t, h.Notify.Tidy(context.Background()))
		assert.ElementsMatch(t, []string{"young", "again"}, column(h, "SELECT idempotency_key FROM idempotency_keys"))
		assert.True(t, replayed(nodetest.Once(c.Node, "young", join).OK()))
	})
}
