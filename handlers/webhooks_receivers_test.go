package handlers_test

import (
	"nowserving/notify"

	"nowserving/cmd/nowserving/node"

	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/notify/outbox"
	"nowserving/notify/webhook"
)

// rawServer answers the request of each connection as serve does; it ends with
// the test.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				serve(conn)
			}
			assert.NoError(t, conn.Close())
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	return "http://" + l.Addr().String() + "/"
}

// drip writes a text one byte a second until nobody reads it.
func drip(text string) func(net.Conn) {
	return func(conn net.Conn) {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for _, b := range []byte(text) {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			<-tick.C
		}
	}
}

// nowhere is an address on which nothing listens.
func nowhere(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	return server.URL + "/hook"
}

// untrusted is a receiver whose certificate no authority has signed.
func untrusted(t *testing.T) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL + "/hook"
}

func TestReceiversOfAllKinds(t *testing.T) {
	t.Parallel()
	onBothWith(t, func(c *node.Config) {
		c.WebhookAllowPrivate = true
		c.Adjust.Notify = func(o *notify.Options) { o.AttemptTimeout = 4 * time.Second }
	}, func(t *testing.T, h *house) {
		c := h.newClinic()
		target := newReceiver(t, nil)
		asking := func(status int, after string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "busy\x00")
			}
		}
		const minute = time.Minute
		kinds := []struct {
			name     string
			url      string
			status   int // 0: no answer
			error    string
			answer   string
			from, to time.Duration // of the wait for the next attempt
		}{
			{name: "takes it", url: newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "thanks") }).url, status: 200, answer: "thanks"},
			{name: "takes it without a word", url: newReceiver(t, answering(http.StatusNoContent)).url, status: 204},
			{name: "never answers", url: newReceiver(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }).url, error: outbox.FailureTimeout},
			{name: "answers one byte a second", url: rawServer(t, drip("HTTP/1.1 200 OK\r\n")), error: outbox.FailureTimeout},
			{name: "takes it and goes on one byte a second", url: newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					_, _ = io.WriteString(w, "a")
					if http.NewResponseController(w).Flush() != nil {
						return // nobody listens any more
					}
					select {
					case <-time.After(time.Second):
					case <-r.Context().Done():
					}
				}
			}).url, status: 200, answer: "a"},
			{name: "takes it and never ends", url: newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
						return
					}
				}
			}).url, status: 200, answer: strings.Repeat("x", 20_000)},
			{name: "redirects", url: newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, target.url, http.StatusTemporaryRedirect)
			}).url, status: 307},
			{name: "fails", url: newReceiver(t, answering(http.StatusInternalServerError)).url, status: 500},
			{name: "does not know it", url: newReceiver(t, answering(http.StatusNotFound)).url, status: 404},
			{name: "hangs up", url: rawServer(t, func(net.Conn) {}), error: outbox.FailureClosed},
			{name: "speaks nonsense", url: rawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, "what?\r\n\r\n") }), error: outbox.FailureProtocol},
			{name: "has no name", url: "http://receiver.invalid/hook", error: outbox.FailureDNS},
			{name: "is not there", url: nowhere(t), error: outbox.FailureRefused},
			{name: "has a certificate of its own", url: untrusted(t), error: outbox.FailureTLS},
			{name: "speaks no TLS", url: strings.Replace(target.url, "http://", "https://", 1), error: outbox.FailureTLS},
			{name: "is busy for two minutes", url: newReceiver(t, asking(429, "120")).url, status: 429, answer: "busy?", from: 2 * minute, to: 2 * minute},
			{name: "is away for an hour", url: newReceiver(t, asking(503, time.Now().UTC().Add(time.Hour).Format(http.TimeFormat))).url, status: 503, answer: "busy?", from: 59 * minute, to: 60 * minute},
			{name: "asks for too much", url: newReceiver(t, asking(429, "1000000")).url, status: 429, answer: "busy?", from: 24 * time.Hour, to: 24 * time.Hour},
			{name: "asks for less than planned", url: newReceiver(t, asking(503, "1")).url, status: 503, answer: "busy?"},
			{name: "asks for nonsense", url: newReceiver(t, asking(429, "-5")).url, status: 429, answer: "busy?"},
		}
		ids := make([]string, len(kinds))
		for i, k := range kinds {
			ids[i] = c.hook("bookingUnassigned", k.url, nil)
		}
		c.join(c.newType(nil), nil)
		// As each is after its first attempt: the next may come after 4.5 s.
		after := map[string]any{}
		require.Eventually(t, func() bool {
			log := c.deliveries("limit=100")
			for _, d := range log.list("result") {
				if id := fmt.Sprint(at(d, "webhookId")); after[id] == nil && at(d, "attemptCount") == 1.0 {
					after[id] = d
				}
			}
			return len(after) == len(kinds)
		}, patience, 20*time.Millisecond)
		for i, k := range kinds {
			t.Log(k.name)
			got := answer{t: t, of: k.name, body: object{"result": []any{after[ids[i]]}}}
			first := "result.0.attempts.0."
			if k.status >= 200 && k.status < 300 {
				assert.Equal(t, "delivered", got.str("result.0.status"))
				assert.Nil(t, got.at("result.0.nextAttemptAt"))
			} else {
				assert.Equal(t, "pending", got.str("result.0.status"))
				if k.to == 0 {
					k.from, k.to = 4500*time.Millisecond, 5*time.Second
				}
				next, err := time.Parse(time.RFC3339Nano, got.str("result.0.nextAttemptAt"))
				require.NoError(t, err)
				at, err := time.Parse(time.RFC3339Nano, got.str(first+"at"))
				require.NoError(t, err)
				took := time.Duration(got.num(first+"durationMs")) * time.Millisecond
				assert.GreaterOrEqual(t, next.Sub(at), k.from)
				assert.LessOrEqual(t, next.Sub(at), took+k.to+20*time.Second)
			}
			if k.status == 0 {
				assert.Nil(t, got.at(first+"statusCode"))
				assert.Equal(t, k.error, got.str(first+"error"))
			} else {
				assert.Equal(t, k.status, got.num(first+"statusCode"))
				if k.status >= 300 {
					assert.Equal(t, fmt.Sprintf("status_%dxx", k.status/100), got.str(first+"error"))
				} else {
					assert.Nil(t, got.at(first+"error"))
				}
				assert.True(t, strings.HasPrefix(got.str(first+"answer"), k.answer), "%.50s", got.str(first+"answer"))
				assert.LessOrEqual(t, len(got.str(first+"answer")), max(len(k.answer)+2, 100))
			}
		}
		assert.Empty(t, target.arrivals(), "a redirect is never followed")
	})
}

func TestAttemptsFollowTheSchedule(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, answering(http.StatusNotFound))
		hooks := make([]string, 10)
		for i := range hooks {
			hooks[i] = c.hook("bookingUnassigned", r.url, object{"reference": strconv.Itoa(i)})
		}
		c.join(c.newType(nil), nil)
		require.Eventually(t, func() bool {
			return scalar[int](h, "SELECT count(*) FROM webhook_deliveries WHERE attempts > 0") == 10
		}, patience, 5*time.Millisecond)
		h.rest()
		sent, before, attempts := map[string][]byte{}, len(r.arrivals()), map[string]int{}
		for _, a := range r.arrivals() {
			sent[a.id()] = a.raw
		}
		// So many have failed already.
		for failures, id := range hooks {
			attempts[id] = scalar[int](h, "SELECT attempts FROM webhook_deliveries WHERE webhook_id = ?", id)
			h.exec("UPDATE webhook_deliveries SET failures = ? WHERE webhook_id = ?", failures, id)
		}
		h.hurry()
		for _, a := range r.await(before + 10)[before:] {
			assert.Equal(t, sent[a.id()], a.raw, "a retry sends the same bytes under the same id")
			verified(t, a, ownSecret)
		}
		const m, hr = time.Minute, time.Hour
		for i, want := range []time.Duration{5 * time.Second, 5 * m, 30 * m, 2 * hr, 5 * hr, 10 * hr, 14 * hr, 20 * hr, 24 * hr} {
			n := attempts[hooks[i]]
			got := c.settled("webhookId="+hooks[i], attempted(n+1))
			next, err := time.Parse(time.RFC3339Nano, got.str("result.0.nextAttemptAt"))
			require.NoError(t, err)
			at, err := time.Parse(time.RFC3339Nano, got.str(fmt.Sprintf("result.0.attempts.%d.at", n)))
			require.NoError(t, err)
			assert.GreaterOrEqual(t, next.Sub(at), want*9/10, "after failure %d", i+1)
			assert.LessOrEqual(t, next.Sub(at), want+20*time.Second, "after failure %d", i+1)
		}
		last := c.settled("webhookId="+hooks[9], attempted(attempts[hooks[9]]+1))
		assert.Equal(t, "failed", last.str("result.0.status"))
		assert.Equal(t, "attempts", last.str("result.0.reason"))
		assert.Nil(t, last.at("result.0.nextAttemptAt"))
		assert.NotEmpty(t, last.str("result.0.finishedAt"))
	})
}

// TestAnAttemptIsNotMadeBeforeItIsDue: after a crash River gives a job that was
// asleep, or just about to sleep, to somebody at once.
func TestAnAttemptIsNotMadeBeforeItIsDue(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, answering(http.StatusNotFound))
		id := c.hook("bookingUnassigned", r.url, nil)
		c.join(c.newType(nil), nil)
		c.settled("webhookId="+id, attempted(1))
		h.rest()
		asleep := "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state = 'scheduled'"
		h.exec("UPDATE river_job SET state = 'available', scheduled_at = '2020-01-01 00:00:00' WHERE kind = 'webhook'")
		require.Eventually(t, func() bool { return scalar[int](h, asleep) == 1 }, patience, 5*time.Millisecond)
		assert.Len(t, r.arrivals(), 1)
	})
}

func TestAddressesInsideTheNetworkAreRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		for _, host := range []string{
			"127.0.0.1", "127.9.9.9:8080", "localhost", "LOCALHOST.", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
			"224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "[::1]", "[::]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[ff02::1]",
			"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:8.8.8.8]", "[64:ff9b::7f00:1]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:db8::1]",
		} {
			a := c.addHook("bookingAssigned", "http://"+host+"/hook", nil).refused(422, models.CodeInvalid)
			assert.Equal(t, []string{"url"}, a.wrongFields(), host)
		}
		c.addHook("bookingAssigned", "http://8.8.8.8:8080/hook", nil).ok()
		c.addHook("bookingAssigned", "http://[2606:4700:4700::1111]/hook", nil).ok()
		assert.Len(t, c.staff(http.MethodGet, "/management/webhooks", nil).ok().list("result"), 2)

		// Names that led elsewhere, or nowhere, when they were added.
		r := newReceiver(t, nil)
		u, err := url.Parse(r.url)
		require.NoError(t, err)
		kind := c.newType(nil)
		for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0"} {
			id := c.hook("bookingUnassigned", "http://receiver.invalid/", object{"reference": host})
			h.exec("UPDATE webhooks SET url = ? WHERE id = ?", "http://"+host+":"+u.Port()+"/hook", id)
		}
		c.join(kind, nil)
		log := c.settled("trigger=bookingUnassigned", func(a answer) bool {
			return len(a.list("result")) == 5 && !strings.Contains(strings.Join(a.pluck("result", "attemptCount"), " "), "0")
		})
		for i := range 5 {
			assert.Equal(t, outbox.FailureForbidden, log.str(fmt.Sprintf("result.%d.attempts.0.error", i)))
			assert.Equal(t, "pending", log.str(fmt.Sprintf("result.%d.status", i)))
		}
		assert.Empty(t, r.arrivals())
	})
}

// owned gives a clinic an owner to be told, and counts what they are told.
func (c *clinic) owned() func() int {
	c.t.Helper()
	c.member(models.RoleOwner, "+966500000077")
	before := scalar[int](c.house, "SELECT COUNT(*) FROM river_job WHERE kind = 'message'")
	return func() int {
		return scalar[int](c.house, "SELECT COUNT(*) FROM river_job WHERE kind = 'message'") - before
	}
}

func TestAGoneReceiverIsDisabled(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		told := c.owned()
		var status atomic.Int32
		status.Store(http.StatusNotFound)
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
		id := c.hook("bookingUnassigned", r.url, nil)
		kind := c.newType(nil)
		waiting := c.join(kind, nil).str("id")
		c.settled("webhookId="+id, attempted(1))
		h.rest()
		status.Store(http.StatusGone)
		c.join(kind, nil)
		log := c.settled("webhookId="+id, func(a answer) bool { return a.str("result.0.status") == "failed" })
		assert.Equal(t, []string{"failed", "dropped"}, log.pluck("result", "status"))
		assert.Equal(t, []string{"gone", "disabled"}, log.pluck("result", "reason"))
		hook := c.staff(http.MethodGet, "/management/webhooks", nil).ok()
		assert.Equal(t, "gone", hook.str("result.0.disabledReason"))
		assert.NotEmpty(t, hook.str("result.0.disabledAt"))
		assert.Equal(t, 1, told())
		assert.NotContains(t, scalar[string](h, "SELECT CAST(args AS text) FROM river_job WHERE kind = 'message' ORDER BY id DESC LIMIT 1"), "966500000077")

		c.join(kind, nil) // of which a disabled webhook is not told
		c.act("cancel", waiting, nil).ok()
		h.quiet() // or it would be announced once the webhook is on again
		dropped := log.str("result.1.id")
		c.staff(http.MethodPost, "/management/webhooks/deliveries/"+dropped+"/replay", nil).refused(409, models.CodeWebhookOff)
		status.Store(http.StatusOK)
		assert.Equal(t, id, c.hook("bookingUnassigned", r.url, nil), "posting it again enables it")
		assert.Nil(t, c.staff(http.MethodGet, "/management/webhooks", nil).ok().at("result.0.disabledAt"))
		c.staff(http.MethodPost, "/management/webhooks/deliveries/"+dropped+"/replay", nil).ok()
		c.settled("webhookId="+id+"&status=delivered", func(a answer) bool { return len(a.list("result")) == 1 })
		assert.Len(t, c.deliveries("webhookId="+id).list("result"), 2)
	})
}

func TestFiveFailingDaysDisable(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		told := c.owned()
		var status atomic.Int32
		status.Store(http.StatusNotFound)
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
		id := c.hook("bookingUnassigned", r.url, nil)
		kind := c.newType(nil)
		since := func() any {
			return c.staff(http.MethodGet, "/management/webhooks", nil).ok().at("result.0.failingSince")
		}
		join := func(want string) {
			c.join(kind, nil)
			c.settled("webhookId="+id, func(a answer) bool { return attempted(1)(a) && a.str("result.0.status") == want })
			h.rest()
		}
		join("pending")
		assert.NotNil(t, since())
		h.exec("UPDATE webhooks SET failing_since = ?", time.Now().UTC().Add(-119*time.Hour))
		join("pending")
		status.Store(http.StatusOK)
		join("delivered")
		assert.Nil(t, since(), "a success begins anew")
		status.Store(http.StatusNotFound)
		join("pending")
		assert.Equal(t, 0, told())
		h.exec("UPDATE webhooks SET failing_since = ?", time.Now().UTC().Add(-120*time.Hour-time.Minute))
		join("failed")
		hook := c.staff(http.MethodGet, "/management/webhooks", nil).ok()
		assert.Equal(t, "failing", hook.str("result.0.disabledReason"))
		assert.Equal(t, 1, told())
	})
}

// TestADeadReceiverSlowsNoOther: one never answers and has hundreds to take,
// which would keep all workers busy for over a minute; the other gets its own
// meanwhile as if it were alone.
func TestADeadReceiverSlowsNoOther(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		t0 := time.Now()
		var mu sync.Mutex
		under, most := 0, 0
		over := make(chan struct{})
		dead := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			select {
			case <-over:
			case <-r.Context().Done():
			}
			mu.Lock()
			under--
			mu.Unlock()
		})
		t.Cleanup(func() { close(over) })
		alive := newReceiver(t, nil)
		for i := range 40 {
			c.hook("bookingUnassigned", dead.url, object{"reference": strconv.Itoa(i)})
		}
		kind := c.newType(nil)
		for range 8 {
			c.join(kind, nil)
		}
		dead.await(16)
		c.hook("bookingAssigned", alive.url, nil)
		room := c.newResource(nil, kind)
		t.Log("T1", time.Since(t0))
		for range 8 {
			c.next(room).ok()
		}
		t.Log("T2", time.Since(t0))
		alive.await(8)
		t.Log("T3", time.Since(t0))
		c.settled("status=delivered", func(a answer) bool { return len(a.list("result")) == 8 })
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 16, most, "attempts under way")
		assert.Equal(t, 320, scalar[int](h, "SELECT COUNT(*) FROM webhook_deliveries WHERE status = 'pending'"))
	})
}

// TestTheBreakerProbes: five failures in a row open it; one probe goes through
// when its pause is over, and a success closes it.
func TestTheBreakerProbes(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var stopped atomic.Pointer[time.Time] // when the clock stood still; nil: it goes
			h := newHouse(t, b, allowPrivate, func(c *node.Config) {
				c.Adjust.Notify = func(o *notify.Options) {
					o.Now = func() time.Time {
						if at := stopped.Load(); at != nil {
							return *at
						}
						return time.Now()
					}
				}
			})
			ahead := func(d time.Duration) {
				at := stopped.Load().Add(d)
				stopped.Store(&at)
			}
			c := h.newClinic()
			var status atomic.Int32
			status.Store(http.StatusBadGateway)
			r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
			kind := c.newType(nil)
			c.hook("bookingUnassigned", r.url, nil)
			for i := range 5 {
				c.join(kind, nil)
				require.Eventually(t, func() bool {
					return scalar[int](h, "SELECT COUNT(*) FROM webhook_attempts") == i+1
				}, patience, 5*time.Millisecond)
				h.rest()
			}
			now := time.Now()
			stopped.Store(&now)
			asleep := func(n int) { // so many at least, and nobody is awake
				t.Helper()
				require.Eventually(t, func() bool {
					return scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state = 'running'") == 0 &&
						scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state = 'scheduled'") >= n
				}, patience, 5*time.Millisecond)
			}
			for range 3 {
				c.join(kind, nil)
			}
			h.quiet()
			// The five wait for their second attempt, the three for the breaker.
			asleep(3)
			assert.Len(t, r.arrivals(), 5)

			ahead(11 * time.Second)
			h.hurry()
			r.await(6)
			asleep(7)
			assert.Len(t, r.arrivals(), 6, "one probe, which fails")
			ahead(11 * time.Second)
			h.hurry()
			asleep(8)
			assert.Len(t, r.arrivals(), 6, "the pause is twice as long")
			status.Store(http.StatusOK)
			ahead(10 * time.Second)
			require.Eventually(t, func() bool { h.hurry(); return len(r.arrivals()) == 14 }, patience, 20*time.Millisecond)
			c.settled("status=delivered", func(a answer) bool { return len(a.list("result")) == 8 })
		})
	}
}

func TestADeliveryIsReplayedWithItsID(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c, other := h.newClinic(), h.newClinic()
		var status atomic.Int32
		status.Store(http.StatusOK)
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
		id := c.hook("bookingUnassigned", r.url, nil)
		kind := c.newType(nil)
		for range 3 {
			c.join(kind, nil)
		}
		first := r.await(3)[0]
		c.settled("status=delivered", func(a answer) bool { return len(a.list("result")) == 3 })

		path := "/management/webhooks/deliveries/" + first.id() + "/replay"
		other.staff(http.MethodPost, path, nil).refused(404, models.CodeDeliveryMissing)
		status.Store(http.StatusNotFound)
		again := c.staff(http.MethodPost, path, nil).ok()
		assert.Equal(t, "pending", again.str("result.status"))
		assert.Nil(t, again.at("result.finishedAt"))
		assert.Len(t, again.list("result.attempts"), 1)
		second := r.await(4)[3]
		assert.Equal(t, first.id(), second.id(), "a receiver that has had it can tell")
		assert.Equal(t, first.raw, second.raw)
		verified(t, second, ownSecret)
		only := "bookingId=" + fmt.Sprint(at(first.body, "id"))
		c.settled(only, attempted(2))
		h.rest()

		// A replay does not wait for the attempt that is planned, and that comes to nothing.
		status.Store(http.StatusOK)
		c.staff(http.MethodPost, path, nil).ok()
		r.await(5)
		c.settled(only, func(a answer) bool { return a.str("result.0.status") == "delivered" })
		require.Eventually(t, func() bool {
			h.hurry()
			return scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state <> 'completed'") == 0
		}, patience, 5*time.Millisecond)
		assert.Len(t, r.arrivals(), 5)

		t.Log("a span")
		h.exec("UPDATE webhook_deliveries SET status = 'failed', reason = 'attempts', failures = 10 WHERE id <> ?", first.id())
		now := time.Now().UTC()
		span := object{"from": now.Add(-time.Hour).Format(time.RFC3339), "to": now.Add(time.Hour).Format(time.RFC3339)}
		replay := func(more object) answer {
			body := object{}
			for _, part := range []object{span, more} {
				for k, v := range part {
					body[k] = v
				}
			}
			return c.staff(http.MethodPost, "/management/webhooks/deliveries/replay", body)
		}
		assert.Equal(t, 0, replay(object{"webhookId": "nothing"}).ok().num("result.replayed"))
		assert.Equal(t, 0, replay(object{"to": now.Add(-30 * time.Minute).Format(time.RFC3339)}).ok().num("result.replayed"))
		assert.Equal(t, 2, replay(object{"webhookId": id}).ok().num("result.replayed"))
		r.await(7)
		c.settled("status=delivered", func(a answer) bool { return len(a.list("result")) == 3 })
		assert.Equal(t, 3, replay(object{"status": "delivered"}).ok().num("result.replayed"))
		r.await(10)
		for _, wrong := range []object{{"from": "yesterday"}, {"status": "pending"}, {"to": now.Add(-2 * time.Hour).Format(time.RFC3339)}} {
			replay(wrong).refused(422, models.CodeInvalid)
		}
		c.settled("status=delivered", func(a answer) bool { return len(a.list("result")) == 3 })
		h.exec(`INSERT INTO webhook_deliveries (id, organization_id, webhook_id, booking_id, trigger, payload, status, created_at)
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
			SELECT 'd' || i, organization_id, webhook_id, booking_id, trigger, payload, 'failed', created_at FROM webhook_deliveries, n WHERE id = ?`, first.id())
		a := replay(nil).refused(422, models.CodeInvalid)
		assert.Equal(t, []string{"to"}, a.wrongFields())
	})
}

func TestTheLogOfDeliveriesIsPagedAndKept30Days(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c, first := h.newClinic(), day(0)
		r := newReceiver(t, nil)
		c.hook("bookingUnassigned", r.url, nil)
		gone := c.hook("bookingUnassigned", r.url, object{"reference": "gone"})
		kind := c.newType(nil)
		for range 3 {
			c.join(kind, nil)
		}
		c.settled("status=delivered", func(a answer) bool { return len(a.list("result")) == 6 })
		seen, token := map[string]bool{}, ""
		for range 3 {
			a := c.deliveries("limit=2&nextPageToken=" + token)
			for _, id := range a.pluck("result", "id") {
				seen[id] = true
			}
			token = a.str("pagination.nextPageToken")
		}
		assert.Len(t, seen, 6)
		assert.Empty(t, token)
		assert.Len(t, c.deliveries("from="+first+"&to="+day(0)).list("result"), 6)
		assert.Empty(t, c.deliveries("to=2020-01-01").list("result"))
		assert.Empty(t, c.deliveries("trigger=bookingAssigned").list("result"))
		c.staff(http.MethodGet, "/management/webhooks/deliveries?status=eaten", nil).refused(422, models.CodeInvalid)

		c.staff(http.MethodDelete, "/management/webhooks", object{"trigger": "bookingUnassigned", "url": r.url, "reference": "gone"}).ok()
		require.NoError(t, h.Notify.Tidy(t.Context()))
		assert.Len(t, c.deliveries("webhookId="+gone).list("result"), 3, "the log outlives the webhook")
		old := time.Now().UTC().AddDate(0, 0, -30).Add(-time.Minute)
		h.exec("UPDATE webhook_deliveries SET created_at = ? WHERE webhook_id = ?", old, gone)
		h.exec("UPDATE webhooks SET deleted_at = ? WHERE id = ?", old, gone)
		require.NoError(t, h.Notify.Tidy(t.Context()))
		assert.Len(t, c.deliveries("").list("result"), 3)
		assert.Equal(t, 3, scalar[int](h, "SELECT COUNT(*) FROM webhook_attempts"))
		assert.Equal(t, 1, scalar[int](h, "SELECT COUNT(*) FROM webhooks"))
	})
}

func TestWebhooksOfAppointments(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		for _, trigger := range webhook.Triggers {
			c.hook(string(trigger), r.url, nil)
		}
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		old := c.schedule(kind, 1000, with(room)).ok()
		made := r.await(1)[0]
		assert.Equal(t, "newAppointment", made.trigger())
		assert.Equal(t, `"`+day(3)+`T07:00:00.000Z"`, at(made.body, "dateTime"))
		assert.Equal(t, room, at(made.body, "resource.id"))
		moved := c.schedule(kind, 1100, object{"rescheduleBookingId": old.str("id")}).ok()
		again := r.await(2)[1]
		assert.Equal(t, "appointmentRescheduled", again.trigger())
		assert.Equal(t, moved.str("id"), at(again.body, "id"))
		assert.Equal(t, old.str("id"), at(again.body, "data.rescheduledFrom"))
		reminders := webhook.Triggers[10:16]
		for i, name := range reminders {
			id := c.schedule(kind, 1200+100*i, with(room)).ok().str("id")
			h.exec("UPDATE bookings SET reminder_next = ?, reminder_at = ? WHERE id = ?", string(name), time.Now().UTC().Add(-time.Second), id)
		}
		reminded := map[string]bool{}
		for _, a := range r.await(2 + 2*len(reminders))[2:] {
			if a.trigger() == "newAppointment" {
				continue
			}
			reminded[a.trigger()] = true
			assert.Equal(t, a.trigger(), at(a.body, "data.reminder"))
			assert.EqualValues(t, 2_000_000, a.sequence())
		}
		assert.Len(t, reminded, 6)
		assert.Len(t, r.arrivals(), 2+2*len(reminders), "a booking that was replaced is not canceled as well")
	})
}
