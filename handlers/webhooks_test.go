package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/notify/webhook"
)

// ownSecret is a secret that a caller brings.
const ownSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr"

// onBothWith is onBoth for houses that are not as usual.
func onBothWith(t *testing.T, change func(*node.Config), test func(t *testing.T, h *house)) {
	t.Helper()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			test(t, newHouse(t, b, change))
		})
	}
}

// allowPrivate lets webhooks reach the receivers of these tests.
func allowPrivate(c *node.Config) { c.WebhookAllowPrivate = true }

// arrival is a request that reached a receiver.
type arrival struct {
	header http.Header
	raw    []byte
	body   any
	at     time.Time
}

func (a arrival) id() string { return a.header.Get("webhook-id") }

func (a arrival) trigger() string { return fmt.Sprint(at(a.body, "trigger")) }

func (a arrival) sequence() int64 {
	sequence, _ := at(a.body, "data.sequence").(float64)
	return int64(sequence)
}

// receiver is somebody else's server that webhooks are sent to.
type receiver struct {
	t   testing.TB
	url string

	mu  sync.Mutex
	got []arrival
}

// newReceiver starts one that takes everything, or answers as it is told.
func newReceiver(t testing.TB, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{t: t}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			return // whoever hung up in the middle said nothing
		}
		a := arrival{header: req.Header, raw: raw, at: time.Now()}
		assert.NoError(t, json.Unmarshal(raw, &a.body))
		r.mu.Lock()
		r.got = append(r.got, a)
		r.mu.Unlock()
		if answer != nil {
			answer(w, req)
		}
	}))
	t.Cleanup(server.Close)
	r.url = server.URL + "/hook"
	return r
}

func (r *receiver) arrivals() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// await waits until so many have arrived, and returns them.
func (r *receiver) await(n int) []arrival {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return len(r.arrivals()) >= n }, patience, 5*time.Millisecond, "%d of %d arrived", len(r.arrivals()), n)
	return r.arrivals()
}

// answering is an answer with a status.
func answering(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// hook adds a webhook and returns its id.
func (c *clinic) hook(trigger, url string, more object) string {
	c.t.Helper()
	return c.addHook(trigger, url, more).ok().str("webhook.id")
}

func (c *clinic) addHook(trigger, url string, more object) answer {
	c.t.Helper()
	body := object{"trigger": trigger, "url": url, "secret": ownSecret}
	maps.Copy(body, more)
	return c.staff(http.MethodPost, "/management/webhooks", body)
}

func (c *clinic) deliveries(query string) answer {
	c.t.Helper()
	return c.staff(http.MethodGet, "/management/webhooks/deliveries?"+query, nil).ok()
}

// settled waits until a webhook's deliveries satisfy a condition.
func (c *clinic) settled(query string, done func(a answer) bool) answer {
	c.t.Helper()
	var last answer
	require.Eventually(c.t, func() bool {
		last = c.deliveries(query)
		return done(last)
	}, patience, 50*time.Millisecond, "%s", "the deliveries did not come to what was expected")
	return last
}

// attempted is a condition: the newest delivery has so many attempts.
func attempted(n int) func(answer) bool {
	return func(a answer) bool { return len(a.list("result")) > 0 && a.num("result.0.attemptCount") == n }
}

// still waits until no attempt is under way.
func (h *house) still() {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		return scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'webhook' AND state = 'running'") == 0
	}, patience, 5*time.Millisecond, "an attempt does not end")
}

// rest puts off all that is planned, so that nothing is tried again by itself
// before the test looks: the first retry comes after 5 s.
func (h *house) rest() {
	h.t.Helper()
	h.exec("UPDATE webhook_deliveries SET next_attempt_at = ? WHERE status = 'pending'", time.Now().UTC().Add(time.Hour))
	h.still()
}

// hurry makes every waiting attempt due, without shifting any clock.
func (h *house) hurry() {
	h.t.Helper()
	h.still()
	h.exec("UPDATE webhook_deliveries SET next_attempt_at = ? WHERE status = 'pending'", time.Now().UTC().Add(-time.Hour))
	h.exec("UPDATE river_job SET state = 'available', scheduled_at = '2020-01-01 00:00:00' WHERE kind = 'webhook' AND state IN ('available', 'scheduled', 'retryable')")
}

// verified requires both kinds of signature, by the official verifier.
func verified(t testing.TB, a arrival, secret string) {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	assert.NoError(t, verifier.Verify(a.raw, a.header))
	changed := append([]byte(" "), a.raw...)
	assert.Error(t, verifier.Verify(changed, a.header), "a changed body")
}

func icos(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// walkWebhooks calls every route of webhooks with success.
func (c *clinic) walkWebhooks() {
	c.t.Helper()
	const nowhere = "https://receiver.invalid/hook"
	body := object{"trigger": "bookingUnassigned", "url": nowhere}
	id := c.hook("bookingUnassigned", nowhere, nil)
	assert.Contains(c.t, c.staff(http.MethodGet, "/management/webhooks", nil).ok().pluck("result", "id"), id)
	assert.NotEmpty(c.t, c.staff(http.MethodPost, "/management/webhooks/rotate", body).ok().str("webhook.secret"))
	assert.Equal(c.t, "bookingUnassigned", c.staff(http.MethodPost, "/management/webhooks/sample", object{"trigger": "bookingUnassigned"}).ok().str("0.trigger"))
	c.join(c.newType(object{"name": "Told of"}), nil)
	log := c.settled("webhookId="+id, func(a answer) bool { return len(a.list("result")) == 1 })
	delivery := log.str("result.0.id")
	assert.Equal(c.t, delivery, c.staff(http.MethodPost, "/management/webhooks/deliveries/"+delivery+"/replay", nil).ok().str("result.id"))
	today := time.Now().UTC().Format(time.DateOnly)
	assert.Equal(c.t, 0, c.staff(http.MethodPost, "/management/webhooks/deliveries/replay", object{"from": today, "to": today}).ok().num("result.replayed"))
	assert.Equal(c.t, "success", c.staff(http.MethodDelete, "/management/webhooks", body).ok().str("result"))
}

func TestWebhooksTellWhatHappensToABooking(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r, places := newReceiver(t, nil), newReceiver(t, nil)
		for _, trigger := range webhook.Triggers[:16] { // the document's
			c.hook(string(trigger), map[bool]string{true: places.url, false: r.url}[trigger == "queuePositionUpdated"], nil)
		}
		kind := c.newType(object{"name": "General", "name_translations": object{"en": "General", "ar": "عام"}})
		room := c.newResource(object{"name": "Dr. Sarah", "category": "doctors", "providerPhone": "+966500000002"}, kind)
		who := object{"customerIdentifier": object{"phone": "+966500000003", "firstName": "Mona"}, "bookingInfoCustomFields": object{"reason": "cough"}}
		served := c.join(kind, who).str("id")
		r.await(1)
		c.next(room).ok()
		r.await(2)
		c.act("end", served, nil).ok() // of which the document has no webhook
		expired := c.join(kind, nil).str("id")
		r.await(3)
		h.exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), expired)
		r.await(4)
		canceled := c.join(kind, nil).str("id")
		c.act("cancel", canceled, object{"reason": "Asked to"}).ok()
		joined := c.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: c.patient("+966500000004"), body: joining(kind, nil)}).ok()
		left := joined.str("result.id")
		c.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: joined.str("result.ticketToken"), body: object{"bookingId": left}}).ok()

		of := map[string][]arrival{} // by booking
		for _, a := range r.await(8) {
			verified(t, a, ownSecret)
			assert.Equal(t, icos(ownSecret, a.raw), a.header.Get("x-icos-signature"))
			assert.Equal(t, "application/json", a.header.Get("Content-Type"))
			id := fmt.Sprint(at(a.body, "id"))
			of[id] = append(of[id], a)
		}
		triggers := map[string][]string{}
		for id, list := range of {
			slices.SortFunc(list, func(a, b arrival) int {
				return int(a.sequence() - b.sequence())
			})
			for i, a := range list {
				triggers[id] = append(triggers[id], a.trigger())
				assert.EqualValues(t, (i+1)*1_000_000, a.sequence())
			}
		}
		assert.Equal(t, map[string][]string{
			served: {"bookingUnassigned", "bookingAssigned"}, expired: {"bookingUnassigned", "bookingExpired"},
			canceled: {"bookingUnassigned", "providerCanceled"}, left: {"bookingUnassigned", "customerCanceled"},
		}, triggers)

		first, second := of[served][0], of[served][1]
		assert.Equal(t, object{}, at(first.body, "resource"), "nobody has taken it yet")
		assert.Equal(t, object{}, at(first.body, "provider"))
		for path, want := range map[string]any{
			"customer.phone": "+966500000003", "customer.firstName": "Mona", "provider.phone": "+966500000002", "resource.id": room, "resource.category": "doctors",
			"page.id": c.id, "page.name": "Al Noor", "page.timezone": "Asia/Riyadh", "type.id": kind, "type.name": "General", "type.name_translations.ar": "عام",
			"type.minutes": 10.0, "info.reason": "cough", "data.status": "CONFIRMED", "data.stage": "CALLED", "data.ticket": "A001",
		} {
			assert.Equal(t, want, at(second.body, path), path)
		}
		made := scalar[time.Time](h, "SELECT created_at FROM bookings WHERE id = ?", served)
		assert.Equal(t, `"`+made.UTC().Format("2006-01-02T15:04:05.000Z")+`"`, at(second.body, "dateTime"), "JSON inside a text, as the document shows")
		assert.Equal(t, "Asked to", at(of[canceled][1].body, "data.cancelReason"))
		body, _ := second.body.(object)
		assert.Subset(t, slices.Collect(maps.Keys(body)), []string{"id", "trigger", "customer", "provider", "resource", "page", "type", "dateTime", "info", "data"})

		log := c.settled("bookingId="+served+"&trigger=bookingAssigned", func(a answer) bool { return a.str("result.0.status") == "delivered" })
		assert.Equal(t, second.id(), log.str("result.0.id"))
		assert.Equal(t, 1, log.num("result.0.attemptCount"))
		assert.Equal(t, 200, log.num("result.0.attempts.0.statusCode"))
		assert.NotContains(t, h.logged.String(), "+966500000003")
		assert.NotContains(t, h.logged.String(), r.url)
	})
}

func TestWebhooksAreListedChangedAndDeleted(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c, other := h.newClinic(), h.newClinic()
		const address = "https://example.com/hook?key=1"
		get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
		made := c.staff(post, "/management/webhooks", object{"trigger": "bookingAssigned", "url": address}).ok()
		assert.Equal(t, "success", made.str("result"))
		secret := made.str("webhook.secret")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		require.NoError(t, err)
		assert.Len(t, raw, 32)
		again := c.staff(post, "/management/webhooks", object{"trigger": "bookingAssigned", "url": address}).ok()
		assert.Equal(t, made.str("webhook.id"), again.str("webhook.id"), "the same webhook")
		assert.Nil(t, again.at("webhook.secret"), "it was shown once")
		second := c.hook("bookingAssigned", address, object{"reference": "second"})
		assert.Nil(t, c.addHook("bookingAssigned", address, object{"reference": "second"}).ok().at("webhook.secret"), "the caller's own is known")

		list := c.staff(get, "/management/webhooks", nil).ok()
		assert.Equal(t, []string{made.str("webhook.id"), second}, list.pluck("result", "id"))
		assert.Equal(t, []string{"", "second"}, list.pluck("result", "reference"))
		for _, stored := range []string{scalar[string](h, "SELECT secret FROM webhooks WHERE id = ?", second), string(list.raw)} {
			assert.NotContains(t, stored, strings.TrimPrefix(ownSecret, "whsec_"))
			assert.NotContains(t, stored, strings.TrimPrefix(secret, "whsec_"))
		}

		assert.Empty(t, other.staff(get, "/management/webhooks", nil).ok().list("result"), "another's")
		for _, path := range []string{"/management/webhooks/rotate"} {
			other.staff(post, path, object{"trigger": "bookingAssigned", "url": address}).refused(404, models.CodeWebhookMissing)
		}
		other.staff(del, "/management/webhooks", object{"trigger": "bookingAssigned", "url": address}).refused(404, models.CodeWebhookMissing)
		assert.Equal(t, "success", c.staff(del, "/management/webhooks", object{"trigger": "bookingAssigned", "url": address}).ok().str("result"))
		assert.Equal(t, []string{second}, c.staff(get, "/management/webhooks", nil).ok().pluck("result", "id"))
		c.staff(del, "/management/webhooks", object{"trigger": "bookingAssigned", "url": address}).refused(404, models.CodeWebhookMissing)
		assert.NotEqual(t, made.str("webhook.id"), c.hook("bookingAssigned", address, nil), "a new one at the old address")

		for _, test := range []struct {
			body  object
			field string
		}{
			{object{"trigger": "bookingEaten"}, "trigger"}, {object{"url": "ftp://example.com/"}, "url"}, {object{"url": "example.com"}, "url"},
			{object{"url": "https://"}, "url"}, {object{"url": "https://a:b@example.com/"}, "url"}, {object{"url": "https://example.com:99999/"}, "url"},
			{object{"url": "https://example.com/" + strings.Repeat("x", 2048)}, "url"}, {object{"url": "http://[::1"}, "url"},
			{object{"secret": "whsec_c2hvcnQ="}, "secret"}, {object{"secret": strings.TrimPrefix(ownSecret, "whsec_")}, "secret"}, {object{"secret": "whsec_*"}, "secret"},
			{object{"reference": strings.Repeat("x", 101)}, "reference"},
		} {
			a := c.addHook("bookingAssigned", address, test.body).refused(422, models.CodeInvalid)
			assert.Equal(t, []string{test.field}, a.wrongFields(), "%v", test.body)
		}

		// At most 100, however many ask at once.
		var hundred, refused atomic.Int32
		var asking sync.WaitGroup
		for i := range 8 {
			asking.Go(func() {
				for j := range 13 {
					a, err := c.try(request{method: post, path: "/management/webhooks", token: c.key, body: object{"trigger": "newBooking", "url": fmt.Sprintf("https://example.com/%d/%d", i, j)}})
					switch {
					case assert.NoError(t, err) && a.status == http.StatusOK:
						hundred.Add(1)
					case a.status == http.StatusConflict:
						refused.Add(1)
					}
				}
			})
		}
		asking.Wait()
		assert.EqualValues(t, 98, hundred.Load())
		assert.EqualValues(t, 6, refused.Load())
		c.addHook("newBooking", address, nil).refused(409, models.CodeWebhookLimit)
		c.addHook("bookingAssigned", address, nil).ok() // one that exists can still be changed
	})
}

func TestBothSecretsSignForADayAfterARotation(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		kind := c.newType(nil)
		c.hook("bookingUnassigned", r.url, nil)
		rotated := c.staff(http.MethodPost, "/management/webhooks/rotate", object{"trigger": "bookingUnassigned", "url": r.url}).ok()
		secret := rotated.str("webhook.secret")
		until, err := time.Parse(time.RFC3339Nano, rotated.str("webhook.oldSecretUntil"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)
		c.join(kind, nil)
		a := r.await(1)[0]
		verified(t, a, secret)
		verified(t, a, ownSecret)
		assert.Equal(t, icos(secret, a.raw), a.header.Get("x-icos-signature"))

		h.exec("UPDATE webhooks SET old_secret_until = ?", time.Now().UTC().Add(-time.Second))
		c.join(kind, nil)
		a = r.await(2)[1]
		verified(t, a, secret)
		verifier, err := standardwebhooks.NewWebhook(ownSecret)
		require.NoError(t, err)
		assert.Error(t, verifier.Verify(a.raw, a.header), "the day is over")
	})
}

// What follows a call is told by triggers that the document does not have, one for
// each step of a visit and in the order of the steps.
func TestWebhooksTellEachStepOfAVisit(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		for _, trigger := range append(webhook.Triggers[16:], webhook.TriggerBookingAssigned) {
			c.hook(string(trigger), r.url, nil)
		}
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		visit := c.join(kind, nil).str("id")
		c.act("hold", visit, nil).ok()
		c.act("return", visit, nil).ok()
		c.next(room).ok()
		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), visit)
		c.act("recall", visit, nil).ok()
		c.act("start", visit, nil).ok()
		c.act("end", visit, nil).ok()
		missed := c.join(kind, nil).str("id")
		c.next(room).ok()
		c.act("noShow", missed, nil).ok()

		told := map[string][]arrival{}
		for _, a := range r.await(10) {
			id, _ := at(a.body, "id").(string)
			told[id] = append(told[id], a)
		}
		steps := func(id string) (names, stages []string) {
			slices.SortFunc(told[id], func(a, b arrival) int { return cmp.Compare(a.sequence(), b.sequence()) })
			for _, a := range told[id] {
				stage, _ := at(a.body, "data.stage").(string)
				names, stages = append(names, a.trigger()), append(stages, stage)
			}
			return names, stages
		}
		names, stages := steps(visit)
		assert.Equal(t, []string{
			"bookingHeld", "bookingReturned", "bookingAssigned", "bookingCalled", "bookingRecalled", "bookingStarted", "bookingEnded",
		}, names)
		assert.Equal(t, []string{"HELD", "WAITING", "CALLED", "CALLED", "CALLED", "SERVING", "DONE"}, stages)
		names, _ = steps(missed)
		assert.Equal(t, []string{"bookingAssigned", "bookingCalled", "bookingNoShow"}, names)
	})
}

func TestSamplesShowEveryTrigger(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	c := h.newClinic()
	assert.Len(t, webhook.Triggers, 23)
	for _, trigger := range webhook.Triggers {
		sample := c.staff(http.MethodPost, "/management/webhooks/sample", object{"trigger": trigger}).ok()
		assert.Len(t, sample.list(""), 1, "a bare list, as the document shows")
		assert.Equal(t, string(trigger), sample.str("0.trigger"))
		assert.Equal(t, "Al Noor", sample.str("0.page.name"))
		assert.Equal(t, `"2023-11-15T14:30:00.000Z"`, sample.str("0.dateTime"))
		for _, field := range []string{"customer", "provider", "resource", "page", "type", "info", "data"} {
			sample.members("0." + field)
		}
	}
	c.staff(http.MethodPost, "/management/webhooks/sample", object{"trigger": "nothing"}).refused(422, models.CodeInvalid)
}
