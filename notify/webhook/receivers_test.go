package webhook_test

import (
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

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/notify"
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
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		<-served
	})
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
	nodetest.OnBothWith(t, func(c *node.Config) {
		c.WebhookAllowPrivate = true
		c.Adjust.Notify = func(o *notify.Options) { o.AttemptTimeout = 4 * time.Second }
	}, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		target := nodetest.NewReceiver(t, nil)
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
			{name: "takes it", url: nodetest.NewReceiver(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "thanks") }).URL, status: 200, answer: "thanks"},
			{name: "takes it without a word", url: nodetest.NewReceiver(t, nodetest.Answering(http.StatusNoContent)).URL, status: 204},
			{name: "never answers", url: nodetest.NewReceiver(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }).URL, error: outbox.FailureTimeout},
			{name: "answers one byte a second", url: rawServer(t, drip("HTTP/1.1 200 OK\r\n")), error: outbox.FailureTimeout},
			{name: "takes it and goes on one byte a second", url: nodetest.NewReceiver(t, func(w http.ResponseWriter, r *http.Request) {
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
			}).URL, status: 200, answer: "a"},
			{name: "takes it and never ends", url: nodetest.NewReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
						return
					}
				}
			}).URL, status: 200, answer: strings.Repeat("x", 20_000)},
			{name: "redirects", url: nodetest.NewReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, target.URL, http.StatusTemporaryRedirect)
			}).URL, status: 307},
			{name: "fails", url: nodetest.NewReceiver(t, nodetest.Answering(http.StatusInternalServerError)).URL, status: 500},
			{name: "does not know it", url: nodetest.NewReceiver(t, nodetest.Answering(http.StatusNotFound)).URL, status: 404},
			{name: "hangs up", url: rawServer(t, func(net.Conn) {}), error: outbox.FailureClosed},
			{name: "speaks nonsense", url: rawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, "what?\r\n\r\n") }), error: outbox.FailureProtocol},
			{name: "has no name", url: "http://receiver.invalid/hook", error: outbox.FailureDNS},
			{name: "is not there", url: nowhere(t), error: outbox.FailureRefused},
			{name: "has a certificate of its own", url: untrusted(t), error: outbox.FailureTLS},
			{name: "speaks no TLS", url: strings.Replace(target.URL, "http://", "https://", 1), error: outbox.FailureTLS},
			{name: "is busy for two minutes", url: nodetest.NewReceiver(t, asking(429, "120")).URL, status: 429, answer: "busy?", from: 2 * minute, to: 2 * minute},
			{name: "is away for an hour", url: nodetest.NewReceiver(t, asking(503, time.Now().UTC().Add(time.Hour).Format(http.TimeFormat))).URL, status: 503, answer: "busy?", from: 59 * minute, to: 60 * minute},
			{name: "asks for too much", url: nodetest.NewReceiver(t, asking(429, "1000000")).URL, status: 429, answer: "busy?", from: 24 * time.Hour, to: 24 * time.Hour},
			{name: "asks for less than planned", url: nodetest.NewReceiver(t, asking(503, "1")).URL, status: 503, answer: "busy?"},
			{name: "asks for nonsense", url: nodetest.NewReceiver(t, asking(429, "-5")).URL, status: 429, answer: "busy?"},
		}
		ids := make([]string, len(kinds))
		for i, k := range kinds {
			ids[i] = c.Hook("bookingUnassigned", k.url, nil)
		}
		c.Join(c.NewType(nil), nil)
		// As each is after its first attempt: the next may come after 4.5 s.
		after := map[string]any{}
		require.Eventually(t, func() bool {
			log := c.Deliveries("limit=100")
			for _, d := range log.List("result") {
				if id := fmt.Sprint(nodetest.At(d, "webhookId")); after[id] == nil && nodetest.At(d, "attemptCount") == 1.0 {
					after[id] = d
				}
			}
			return len(after) == len(kinds)
		}, nodetest.Patience, 20*time.Millisecond)
		for i, k := range kinds {
			t.Log(k.name)
			got := nodetest.Response{T: t, Of: k.name, Body: nodetest.Object{"result": []any{after[ids[i]]}}}
			first := "result.0.attempts.0."
			if k.status >= 200 && k.status < 300 {
				assert.Equal(t, "delivered", got.Str("result.0.status"))
				assert.Nil(t, got.At("result.0.nextAttemptAt"))
			} else {
				assert.Equal(t, "pending", got.Str("result.0.status"))
				if k.to == 0 {
					k.from, k.to = 4500*time.Millisecond, 5*time.Second
				}
				next, err := time.Parse(time.RFC3339Nano, got.Str("result.0.nextAttemptAt"))
				require.NoError(t, err)
				at, err := time.Parse(time.RFC3339Nano, got.Str(first+"at"))
				require.NoError(t, err)
				took := time.Duration(got.Num(first+"durationMs")) * time.Millisecond
				assert.GreaterOrEqual(t, next.Sub(at), k.from)
				assert.LessOrEqual(t, next.Sub(at), took+k.to+20*time.Second)
			}
			if k.status == 0 {
				assert.Nil(t, got.At(first+"statusCode"))
				assert.Equal(t, k.error, got.Str(first+"error"))
			} else {
				assert.Equal(t, k.status, got.Num(first+"statusCode"))
				if k.status >= 300 {
					assert.Equal(t, fmt.Sprintf("status_%dxx", k.status/100), got.Str(first+"error"))
				} else {
					assert.Nil(t, got.At(first+"error"))
				}
				assert.True(t, strings.HasPrefix(got.Str(first+"answer"), k.answer), "%.50s", got.Str(first+"answer"))
				assert.LessOrEqual(t, len(got.Str(first+"answer")), max(len(k.answer)+2, 100))
			}
		}
		assert.Empty(t, target.Arrivals(), "a redirect is never followed")
	})
}

func TestAttemptsFollowTheSchedule(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nodetest.Answering(http.StatusNotFound))
		hooks := make([]string, 10)
		for i := range hooks {
			hooks[i] = c.Hook("bookingUnassigned", r.URL, nodetest.Object{"reference": strconv.Itoa(i)})
		}
		c.Join(c.NewType(nil), nil)
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM webhook_deliveries WHERE attempts > 0") == 10
		}, nodetest.Patience, 5*time.Millisecond)
		h.Rest()
		sent, before, attempts := map[string][]byte{}, len(r.Arrivals()), map[string]int{}
		for _, a := range r.Arrivals() {
			sent[a.ID()] = a.Raw
		}
		// So many have failed already.
		for failures, id := range hooks {
			attempts[id] = nodetest.Scalar[int](h, "SELECT attempts FROM webhook_deliveries WHERE webhook_id = ?", id)
			h.Exec("UPDATE webhook_deliveries SET failures = ? WHERE webhook_id = ?", failures, id)
		}
		h.Hurry()
		for _, a := range r.Await(before + 10)[before:] {
			assert.Equal(t, sent[a.ID()], a.Raw, "a retry sends the same bytes under the same id")
			nodetest.Verified(t, a, nodetest.OwnSecret)
		}
		const m, hr = time.Minute, time.Hour
		for i, want := range []time.Duration{5 * time.Second, 5 * m, 30 * m, 2 * hr, 5 * hr, 10 * hr, 14 * hr, 20 * hr, 24 * hr} {
			n := attempts[hooks[i]]
			got := c.Settled("webhookId="+hooks[i], nodetest.Attempted(n+1))
			next, err := time.Parse(time.RFC3339Nano, got.Str("result.0.nextAttemptAt"))
			require.NoError(t, err)
			at, err := time.Parse(time.RFC3339Nano, got.Str(fmt.Sprintf("result.0.attempts.%d.at", n)))
			require.NoError(t, err)
			assert.GreaterOrEqual(t, next.Sub(at), want*9/10, "after failure %d", i+1)
			assert.LessOrEqual(t, next.Sub(at), want+20*time.Second, "after failure %d", i+1)
		}
		last := c.Settled("webhookId="+hooks[9], nodetest.Attempted(attempts[hooks[9]]+1))
		assert.Equal(t, "failed", last.Str("result.0.status"))
		assert.Equal(t, "attempts", last.Str("result.0.reason"))
		assert.Nil(t, last.At("result.0.nextAttemptAt"))
		assert.NotEmpty(t, last.Str("result.0.finishedAt"))
	})
}

// TestAnAttemptIsNotMadeBeforeItIsDue: after a crash River gives a job that was
// asleep, or just about to sleep, to somebody at once.
func TestAnAttemptIsNotMadeBeforeItIsDue(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nodetest.Answering(http.StatusNotFound))
		id := c.Hook("bookingUnassigned", r.URL, nil)
		c.Join(c.NewType(nil), nil)
		c.Settled("webhookId="+id, nodetest.Attempted(1))
		h.Rest()
		asleep := "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state = 'scheduled'"
		h.Exec("UPDATE river_job SET state = 'available', scheduled_at = '2020-01-01 00:00:00' WHERE kind = 'webhook'")
		require.Eventually(t, func() bool { return nodetest.Scalar[int](h, asleep) == 1 }, nodetest.Patience, 5*time.Millisecond)
		assert.Len(t, r.Arrivals(), 1)
	})
}

func TestAddressesInsideTheNetworkAreRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		for _, host := range []string{
			"127.0.0.1", "127.9.9.9:8080", "localhost", "LOCALHOST.", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
			"224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "[::1]", "[::]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[ff02::1]",
			"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:8.8.8.8]", "[64:ff9b::7f00:1]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:db8::1]",
		} {
			a := c.AddHook("bookingAssigned", "http://"+host+"/hook", nil).Refused(422, models.CodeInvalid)
			assert.Equal(t, []string{"url"}, a.WrongFields(), host)
		}
		c.AddHook("bookingAssigned", "http://8.8.8.8:8080/hook", nil).OK()
		c.AddHook("bookingAssigned", "http://[2606:4700:4700::1111]/hook", nil).OK()
		assert.Len(t, c.Staff(http.MethodGet, "/management/webhooks", nil).OK().List("result"), 2)

		// Names that led elsewhere, or nowhere, when they were added.
		r := nodetest.NewReceiver(t, nil)
		u, err := url.Parse(r.URL)
		require.NoError(t, err)
		kind := c.NewType(nil)
		for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0"} {
			id := c.Hook("bookingUnassigned", "http://receiver.invalid/", nodetest.Object{"reference": host})
			h.Exec("UPDATE webhooks SET url = ? WHERE id = ?", "http://"+host+":"+u.Port()+"/hook", id)
		}
		c.Join(kind, nil)
		log := c.Settled("trigger=bookingUnassigned", func(a nodetest.Response) bool {
			return len(a.List("result")) == 5 && !strings.Contains(strings.Join(a.Pluck("result", "attemptCount"), " "), "0")
		})
		for i := range 5 {
			assert.Equal(t, outbox.FailureForbidden, log.Str(fmt.Sprintf("result.%d.attempts.0.error", i)))
			assert.Equal(t, "pending", log.Str(fmt.Sprintf("result.%d.status", i)))
		}
		assert.Empty(t, r.Arrivals())
	})
}

// owned gives a clinic an owner to be told, and counts what they are told.
func owned(c *nodetest.Clinic) func() int {
	c.T.Helper()
	c.Member(models.RoleOwner, "+966500000077")
	before := nodetest.Scalar[int](c.Node, "SELECT COUNT(*) FROM river_job WHERE kind = 'message'")
	return func() int {
		return nodetest.Scalar[int](c.Node, "SELECT COUNT(*) FROM river_job WHERE kind = 'message'") - before
	}
}

func TestAGoneReceiverIsDisabled(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		told := owned(c)
		var status atomic.Int32
		status.Store(http.StatusNotFound)
		r := nodetest.NewReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
		id := c.Hook("bookingUnassigned", r.URL, nil)
		kind := c.NewType(nil)
		waiting := c.Join(kind, nil).Str("id")
		c.Settled("webhookId="+id, nodetest.Attempted(1))
		h.Rest()
		status.Store(http.StatusGone)
		c.Join(kind, nil)
		log := c.Settled("webhookId="+id, func(a nodetest.Response) bool { return a.Str("result.0.status") == "failed" })
		assert.Equal(t, []string{"failed", "dropped"}, log.Pluck("result", "status"))
		assert.Equal(t, []string{"gone", "disabled"}, log.Pluck("result", "reason"))
		hook := c.Staff(http.MethodGet, "/management/webhooks", nil).OK()
		assert.Equal(t, "gone", hook.Str("result.0.disabledReason"))
		assert.NotEmpty(t, hook.Str("result.0.disabledAt"))
		assert.Equal(t, 1, told())
		assert.NotContains(t, nodetest.Scalar[string](h, "SELECT CAST(args AS text) FROM river_job WHERE kind = 'message' ORDER BY id DESC LIMIT 1"), "966500000077")

		c.Join(kind, nil) // of which a disabled webhook is not told
		c.Act("cancel", waiting, nil).OK()
		h.Quiet() // or it would be announced once the webhook is on again
		dropped := log.Str("result.1.id")
		c.Staff(http.MethodPost, "/management/webhooks/deliveries/"+dropped+"/replay", nil).Refused(409, models.CodeWebhookOff)
		status.Store(http.StatusOK)
		assert.Equal(t, id, c.Hook("bookingUnassigned", r.URL, nil), "posting it again enables it")
		assert.Nil(t, c.Staff(http.MethodGet, "/management/webhooks", nil).OK().At("result.0.disabledAt"))
		c.Staff(http.MethodPost, "/management/webhooks/deliveries/"+dropped+"/replay", nil).OK()
		c.Settled("webhookId="+id+"&status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 1 })
		assert.Len(t, c.Deliveries("webhookId="+id).List("result"), 2)
	})
}

func TestFiveFailingDaysDisable(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		told := owned(c)
		var status atomic.Int32
		status.Store(http.StatusNotFound)
		r := nodetest.NewReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
		id := c.Hook("bookingUnassigned", r.URL, nil)
		kind := c.NewType(nil)
		since := func() any {
			return c.Staff(http.MethodGet, "/management/webhooks", nil).OK().At("result.0.failingSince")
		}
		join := func(want string) {
			c.Join(kind, nil)
			c.Settled("webhookId="+id, func(a nodetest.Response) bool { return nodetest.Attempted(1)(a) && a.Str("result.0.status") == want })
			h.Rest()
		}
		join("pending")
		assert.NotNil(t, since())
		h.Exec("UPDATE webhooks SET failing_since = ?", time.Now().UTC().Add(-119*time.Hour))
		join("pending")
		status.Store(http.StatusOK)
		join("delivered")
		assert.Nil(t, since(), "a success begins anew")
		status.Store(http.StatusNotFound)
		join("pending")
		assert.Equal(t, 0, told())
		h.Exec("UPDATE webhooks SET failing_since = ?", time.Now().UTC().Add(-120*time.Hour-time.Minute))
		join("failed")
		hook := c.Staff(http.MethodGet, "/management/webhooks", nil).OK()
		assert.Equal(t, "failing", hook.Str("result.0.disabledReason"))
		assert.Equal(t, 1, told())
	})
}

// TestADeadReceiverSlowsNoOther: one never answers and has hundreds to take,
// which would keep all workers busy for over a minute; the other gets its own
// meanwhile as if it were alone.
func TestADeadReceiverSlowsNoOther(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		var mu sync.Mutex
		under, most := 0, 0
		over := make(chan struct{})
		dead := nodetest.NewReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
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
		alive := nodetest.NewReceiver(t, nil)
		for i := range 40 {
			c.Hook("bookingUnassigned", dead.URL, nodetest.Object{"reference": strconv.Itoa(i)})
		}
		kind := c.NewType(nil)
		for range 8 {
			c.Join(kind, nil)
		}
		dead.Await(16)
		c.Hook("bookingAssigned", alive.URL, nil)
		room := c.NewResource(nil, kind)
		for range 8 {
			c.Next(room).OK()
		}
		alive.Await(8)
		c.Settled("status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 8 })
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 16, most, "attempts under way")
		assert.Equal(t, 320, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM webhook_deliveries WHERE status = 'pending'"))
	})
}

// TestTheBreakerProbes: five failures in a row open it; one probe goes through
// when its pause is over, and a success closes it.
func TestTheBreakerProbes(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var stopped atomic.Pointer[time.Time] // when the clock stood still; nil: it goes
			h := nodetest.Start(t, b, nodetest.AllowPrivate, func(c *node.Config) {
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
			c := h.NewClinic()
			var status atomic.Int32
			status.Store(http.StatusBadGateway)
			r := nodetest.NewReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
			kind := c.NewType(nil)
			c.Hook("bookingUnassigned", r.URL, nil)
			for i := range 5 {
				c.Join(kind, nil)
				require.Eventually(t, func() bool {
					return nodetest.Scalar[int](h, "SELECT COUNT(*) FROM webhook_attempts") == i+1
				}, nodetest.Patience, 5*time.Millisecond)
				h.Rest()
			}
			now := time.Now()
			stopped.Store(&now)
			asleep := func(n int) { // so many at least, and nobody is awake
				t.Helper()
				require.Eventually(t, func() bool {
					return nodetest.Scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state = 'running'") == 0 &&
						nodetest.Scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state = 'scheduled'") >= n
				}, nodetest.Patience, 5*time.Millisecond)
			}
			for range 3 {
				c.Join(kind, nil)
			}
			h.Quiet()
			// The five wait for their second attempt, the three for the breaker.
			asleep(3)
			assert.Len(t, r.Arrivals(), 5)

			ahead(11 * time.Second)
			h.Hurry()
			r.Await(6)
			asleep(7)
			assert.Len(t, r.Arrivals(), 6, "one probe, which fails")
			ahead(11 * time.Second)
			h.Hurry()
			asleep(8)
			assert.Len(t, r.Arrivals(), 6, "the pause is twice as long")
			status.Store(http.StatusOK)
			ahead(10 * time.Second)
			require.Eventually(t, func() bool { h.Hurry(); return len(r.Arrivals()) == 14 }, nodetest.Patience, 20*time.Millisecond)
			c.Settled("status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 8 })
		})
	}
}

func TestADeliveryIsReplayedWithItsID(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		var status atomic.Int32
		status.Store(http.StatusOK)
		r := nodetest.NewReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })
		id := c.Hook("bookingUnassigned", r.URL, nil)
		kind := c.NewType(nil)
		for range 3 {
			c.Join(kind, nil)
		}
		first := r.Await(3)[0]
		c.Settled("status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 3 })

		path := "/management/webhooks/deliveries/" + first.ID() + "/replay"
		other.Staff(http.MethodPost, path, nil).Refused(404, models.CodeDeliveryMissing)
		status.Store(http.StatusNotFound)
		again := c.Staff(http.MethodPost, path, nil).OK()
		assert.Equal(t, "pending", again.Str("result.status"))
		assert.Nil(t, again.At("result.finishedAt"))
		assert.Len(t, again.List("result.attempts"), 1)
		second := r.Await(4)[3]
		assert.Equal(t, first.ID(), second.ID(), "a receiver that has had it can tell")
		assert.Equal(t, first.Raw, second.Raw)
		nodetest.Verified(t, second, nodetest.OwnSecret)
		only := "bookingId=" + fmt.Sprint(nodetest.At(first.Body, "id"))
		c.Settled(only, nodetest.Attempted(2))
		h.Rest()

		// A replay does not wait for the attempt that is planned, and that comes to nothing.
		status.Store(http.StatusOK)
		c.Staff(http.MethodPost, path, nil).OK()
		r.Await(5)
		c.Settled(only, func(a nodetest.Response) bool { return a.Str("result.0.status") == "delivered" })
		require.Eventually(t, func() bool {
			h.Hurry()
			return nodetest.Scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind = 'webhook' AND state <> 'completed'") == 0
		}, nodetest.Patience, 5*time.Millisecond)
		assert.Len(t, r.Arrivals(), 5)

		t.Log("a span")
		h.Exec("UPDATE webhook_deliveries SET status = 'failed', reason = 'attempts', failures = 10 WHERE id <> ?", first.ID())
		now := time.Now().UTC()
		span := nodetest.Object{"from": now.Add(-time.Hour).Format(time.RFC3339), "to": now.Add(time.Hour).Format(time.RFC3339)}
		replay := func(more nodetest.Object) nodetest.Response {
			body := nodetest.Object{}
			for _, part := range []nodetest.Object{span, more} {
				for k, v := range part {
					body[k] = v
				}
			}
			return c.Staff(http.MethodPost, "/management/webhooks/deliveries/replay", body)
		}
		assert.Equal(t, 0, replay(nodetest.Object{"webhookId": "nothing"}).OK().Num("result.replayed"))
		assert.Equal(t, 0, replay(nodetest.Object{"to": now.Add(-30 * time.Minute).Format(time.RFC3339)}).OK().Num("result.replayed"))
		assert.Equal(t, 2, replay(nodetest.Object{"webhookId": id}).OK().Num("result.replayed"))
		r.Await(7)
		c.Settled("status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 3 })
		assert.Equal(t, 3, replay(nodetest.Object{"status": "delivered"}).OK().Num("result.replayed"))
		r.Await(10)
		for _, wrong := range []nodetest.Object{{"from": "yesterday"}, {"status": "pending"}, {"to": now.Add(-2 * time.Hour).Format(time.RFC3339)}} {
			replay(wrong).Refused(422, models.CodeInvalid)
		}
		c.Settled("status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 3 })
		h.Exec(`INSERT INTO webhook_deliveries (id, organization_id, webhook_id, booking_id, trigger, payload, status, created_at)
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
			SELECT 'd' || i, organization_id, webhook_id, booking_id, trigger, payload, 'failed', created_at FROM webhook_deliveries, n WHERE id = ?`, first.ID())
		a := replay(nil).Refused(422, models.CodeInvalid)
		assert.Equal(t, []string{"to"}, a.WrongFields())
	})
}

func TestTheLogOfDeliveriesIsPagedAndKept30Days(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c, first := h.NewClinic(), nodetest.Day(0)
		r := nodetest.NewReceiver(t, nil)
		c.Hook("bookingUnassigned", r.URL, nil)
		gone := c.Hook("bookingUnassigned", r.URL, nodetest.Object{"reference": "gone"})
		kind := c.NewType(nil)
		for range 3 {
			c.Join(kind, nil)
		}
		c.Settled("status=delivered", func(a nodetest.Response) bool { return len(a.List("result")) == 6 })
		seen, token := map[string]bool{}, ""
		for range 3 {
			a := c.Deliveries("limit=2&nextPageToken=" + token)
			for _, id := range a.Pluck("result", "id") {
				seen[id] = true
			}
			token = a.Str("pagination.nextPageToken")
		}
		assert.Len(t, seen, 6)
		assert.Empty(t, token)
		assert.Len(t, c.Deliveries("from="+first+"&to="+nodetest.Day(0)).List("result"), 6)
		assert.Empty(t, c.Deliveries("to=2020-01-01").List("result"))
		assert.Empty(t, c.Deliveries("trigger=bookingAssigned").List("result"))
		c.Staff(http.MethodGet, "/management/webhooks/deliveries?status=eaten", nil).Refused(422, models.CodeInvalid)

		c.Staff(http.MethodDelete, "/management/webhooks", nodetest.Object{"trigger": "bookingUnassigned", "url": r.URL, "reference": "gone"}).OK()
		require.NoError(t, h.Notify.Tidy(t.Context()))
		assert.Len(t, c.Deliveries("webhookId="+gone).List("result"), 3, "the log outlives the webhook")
		old := time.Now().UTC().AddDate(0, 0, -30).Add(-time.Minute)
		h.Exec("UPDATE webhook_deliveries SET created_at = ? WHERE webhook_id = ?", old, gone)
		h.Exec("UPDATE webhooks SET deleted_at = ? WHERE id = ?", old, gone)
		require.NoError(t, h.Notify.Tidy(t.Context()))
		assert.Len(t, c.Deliveries("").List("result"), 3)
		assert.Equal(t, 3, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM webhook_attempts"))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM webhooks"))
	})
}

func TestWebhooksOfAppointments(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		for _, trigger := range webhook.Triggers {
			c.Hook(string(trigger), r.URL, nil)
		}
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		old := c.Schedule(kind, 1000, nodetest.With(room)).OK()
		made := r.Await(1)[0]
		assert.Equal(t, "newAppointment", made.Trigger())
		assert.Equal(t, `"`+nodetest.Day(3)+`T07:00:00.000Z"`, nodetest.At(made.Body, "dateTime"))
		assert.Equal(t, room, nodetest.At(made.Body, "resource.id"))
		moved := c.Schedule(kind, 1100, nodetest.Object{"rescheduleBookingId": old.Str("id")}).OK()
		again := r.Await(2)[1]
		assert.Equal(t, "appointmentRescheduled", again.Trigger())
		assert.Equal(t, moved.Str("id"), nodetest.At(again.Body, "id"))
		assert.Equal(t, old.Str("id"), nodetest.At(again.Body, "data.rescheduledFrom"))
		reminders := webhook.Triggers[10:16]
		for i, name := range reminders {
			id := c.Schedule(kind, 1200+100*i, nodetest.With(room)).OK().Str("id")
			h.Exec("UPDATE bookings SET reminder_next = ?, reminder_at = ? WHERE id = ?", string(name), time.Now().UTC().Add(-time.Second), id)
		}
		reminded := map[string]bool{}
		for _, a := range r.Await(2 + 2*len(reminders))[2:] {
			if a.Trigger() == "newAppointment" {
				continue
			}
			reminded[a.Trigger()] = true
			assert.Equal(t, a.Trigger(), nodetest.At(a.Body, "data.reminder"))
			assert.EqualValues(t, 2_000_000, a.Sequence())
		}
		assert.Len(t, reminded, 6)
		assert.Len(t, r.Arrivals(), 2+2*len(reminders), "a booking that was replaced is not canceled as well")
	})
}
