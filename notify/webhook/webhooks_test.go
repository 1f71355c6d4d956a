package webhook_test

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/notify/webhook"
)

func icos(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func TestWebhooksTellWhatHappensToABooking(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r, places := nodetest.NewReceiver(t, nil), nodetest.NewReceiver(t, nil)
		for _, trigger := range webhook.Triggers[:16] { // the document's
			c.Hook(string(trigger), map[bool]string{true: places.URL, false: r.URL}[trigger == "queuePositionUpdated"], nil)
		}
		kind := c.NewType(nodetest.Object{"name": "General", "name_translations": nodetest.Object{"en": "General", "ar": "عام"}})
		room := c.NewResource(nodetest.Object{"name": "Dr. Sarah", "category": "doctors", "providerPhone": "+966500000002"}, kind)
		who := nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000003", "firstName": "Mona"}, "bookingInfoCustomFields": nodetest.Object{"reason": "cough"}}
		served := c.Join(kind, who).Str("id")
		r.Await(1)
		c.Next(room).OK()
		r.Await(2)
		c.Act("end", served, nil).OK() // of which the document has no webhook
		expired := c.Join(kind, nil).Str("id")
		r.Await(3)
		h.Exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), expired)
		r.Await(4)
		canceled := c.Join(kind, nil).Str("id")
		c.Act("cancel", canceled, nodetest.Object{"reason": "Asked to"}).OK()
		joined := c.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: c.Patient("+966500000004"), Body: nodetest.Joining(kind, nil)}).OK()
		left := joined.Str("result.id")
		c.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: joined.Str("result.ticketToken"), Body: nodetest.Object{"bookingId": left}}).OK()

		of := map[string][]nodetest.Arrival{} // by booking
		for _, a := range r.Await(8) {
			nodetest.Verified(t, a, nodetest.OwnSecret)
			assert.Equal(t, icos(nodetest.OwnSecret, a.Raw), a.Header.Get("x-icos-signature"))
			assert.Equal(t, "application/json", a.Header.Get("Content-Type"))
			id := fmt.Sprint(nodetest.At(a.Body, "id"))
			of[id] = append(of[id], a)
		}
		triggers := map[string][]string{}
		for id, list := range of {
			slices.SortFunc(list, func(a, b nodetest.Arrival) int {
				return int(a.Sequence() - b.Sequence())
			})
			for i, a := range list {
				triggers[id] = append(triggers[id], a.Trigger())
				assert.EqualValues(t, (i+1)*1_000_000, a.Sequence())
			}
		}
		assert.Equal(t, map[string][]string{
			served: {"bookingUnassigned", "bookingAssigned"}, expired: {"bookingUnassigned", "bookingExpired"},
			canceled: {"bookingUnassigned", "providerCanceled"}, left: {"bookingUnassigned", "customerCanceled"},
		}, triggers)

		first, second := of[served][0], of[served][1]
		assert.Equal(t, nodetest.Object{}, nodetest.At(first.Body, "resource"), "nobody has taken it yet")
		assert.Equal(t, nodetest.Object{}, nodetest.At(first.Body, "provider"))
		for path, want := range map[string]any{
			"customer.phone": "+966500000003", "customer.firstName": "Mona", "provider.phone": "+966500000002", "resource.id": room, "resource.category": "doctors",
			"page.id": c.ID, "page.name": "Al Noor", "page.timezone": "Asia/Riyadh", "type.id": kind, "type.name": "General", "type.name_translations.ar": "عام",
			"type.minutes": 10.0, "info.reason": "cough", "data.status": "CONFIRMED", "data.stage": "CALLED", "data.ticket": "A001",
		} {
			assert.Equal(t, want, nodetest.At(second.Body, path), path)
		}
		made := nodetest.Scalar[time.Time](h, "SELECT created_at FROM bookings WHERE id = ?", served)
		assert.Equal(t, `"`+made.UTC().Format("2006-01-02T15:04:05.000Z")+`"`, nodetest.At(second.Body, "dateTime"), "JSON inside a text, as the document shows")
		assert.Equal(t, "Asked to", nodetest.At(of[canceled][1].Body, "data.cancelReason"))
		body, _ := second.Body.(nodetest.Object)
		assert.Subset(t, slices.Collect(maps.Keys(body)), []string{"id", "trigger", "customer", "provider", "resource", "page", "type", "dateTime", "info", "data"})

		log := c.Settled("bookingId="+served+"&trigger=bookingAssigned", func(a nodetest.Response) bool { return a.Str("result.0.status") == "delivered" })
		assert.Equal(t, second.ID(), log.Str("result.0.id"))
		assert.Equal(t, 1, log.Num("result.0.attemptCount"))
		assert.Equal(t, 200, log.Num("result.0.attempts.0.statusCode"))
		assert.NotContains(t, h.Log.String(), "+966500000003")
		assert.NotContains(t, h.Log.String(), r.URL)
	})
}

func TestWebhooksAreListedChangedAndDeleted(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		const address = "https://example.com/hook?key=1"
		get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
		made := c.Staff(post, "/management/webhooks", nodetest.Object{"trigger": "bookingAssigned", "url": address}).OK()
		assert.Equal(t, "success", made.Str("result"))
		secret := made.Str("webhook.secret")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		require.NoError(t, err)
		assert.Len(t, raw, 32)
		again := c.Staff(post, "/management/webhooks", nodetest.Object{"trigger": "bookingAssigned", "url": address}).OK()
		assert.Equal(t, made.Str("webhook.id"), again.Str("webhook.id"), "the same webhook")
		assert.Nil(t, again.At("webhook.secret"), "it was shown once")
		second := c.Hook("bookingAssigned", address, nodetest.Object{"reference": "second"})
		assert.Nil(t, c.AddHook("bookingAssigned", address, nodetest.Object{"reference": "second"}).OK().At("webhook.secret"), "the caller's own is known")

		list := c.Staff(get, "/management/webhooks", nil).OK()
		assert.Equal(t, []string{made.Str("webhook.id"), second}, list.Pluck("result", "id"))
		assert.Equal(t, []string{"", "second"}, list.Pluck("result", "reference"))
		for _, stored := range []string{nodetest.Scalar[string](h, "SELECT secret FROM webhooks WHERE id = ?", second), string(list.Raw)} {
			assert.NotContains(t, stored, strings.TrimPrefix(nodetest.OwnSecret, "whsec_"))
			assert.NotContains(t, stored, strings.TrimPrefix(secret, "whsec_"))
		}

		assert.Empty(t, other.Staff(get, "/management/webhooks", nil).OK().List("result"), "another's")
		for _, path := range []string{"/management/webhooks/rotate"} {
			other.Staff(post, path, nodetest.Object{"trigger": "bookingAssigned", "url": address}).Refused(404, models.CodeWebhookMissing)
		}
		other.Staff(del, "/management/webhooks", nodetest.Object{"trigger": "bookingAssigned", "url": address}).Refused(404, models.CodeWebhookMissing)
		assert.Equal(t, "success", c.Staff(del, "/management/webhooks", nodetest.Object{"trigger": "bookingAssigned", "url": address}).OK().Str("result"))
		assert.Equal(t, []string{second}, c.Staff(get, "/management/webhooks", nil).OK().Pluck("result", "id"))
		c.Staff(del, "/management/webhooks", nodetest.Object{"trigger": "bookingAssigned", "url": address}).Refused(404, models.CodeWebhookMissing)
		assert.NotEqual(t, made.Str("webhook.id"), c.Hook("bookingAssigned", address, nil), "a new one at the old address")

		for _, test := range []struct {
			body  nodetest.Object
			field string
		}{
			{nodetest.Object{"trigger": "bookingEaten"}, "trigger"}, {nodetest.Object{"url": "ftp://example.com/"}, "url"}, {nodetest.Object{"url": "example.com"}, "url"},
			{nodetest.Object{"url": "https://"}, "url"}, {nodetest.Object{"url": "https://a:b@example.com/"}, "url"}, {nodetest.Object{"url": "https://example.com:99999/"}, "url"},
			{nodetest.Object{"url": "https://example.com/" + strings.Repeat("x", 2048)}, "url"}, {nodetest.Object{"url": "http://[::1"}, "url"},
			{nodetest.Object{"secret": "whsec_c2hvcnQ="}, "secret"}, {nodetest.Object{"secret": strings.TrimPrefix(nodetest.OwnSecret, "whsec_")}, "secret"}, {nodetest.Object{"secret": "whsec_*"}, "secret"},
			{nodetest.Object{"reference": strings.Repeat("x", 101)}, "reference"},
		} {
			a := c.AddHook("bookingAssigned", address, test.body).Refused(422, models.CodeInvalid)
			assert.Equal(t, []string{test.field}, a.WrongFields(), "%v", test.body)
		}

		// At most 100, however many ask at once.
		var hundred, refused atomic.Int32
		var asking sync.WaitGroup
		for i := range 8 {
			asking.Go(func() {
				for j := range 13 {
					a, err := c.Try(nodetest.Request{Method: post, Path: "/management/webhooks", Token: c.Key, Body: nodetest.Object{"trigger": "newBooking", "url": fmt.Sprintf("https://example.com/%d/%d", i, j)}})
					switch {
					case assert.NoError(t, err) && a.Status == http.StatusOK:
						hundred.Add(1)
					case a.Status == http.StatusConflict:
						refused.Add(1)
					}
				}
			})
		}
		asking.Wait()
		assert.EqualValues(t, 98, hundred.Load())
		assert.EqualValues(t, 6, refused.Load())
		c.AddHook("newBooking", address, nil).Refused(409, models.CodeWebhookLimit)
		c.AddHook("bookingAssigned", address, nil).OK() // one that exists can still be changed
	})
}

func TestBothSecretsSignForADayAfterARotation(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		kind := c.NewType(nil)
		c.Hook("bookingUnassigned", r.URL, nil)
		rotated := c.Staff(http.MethodPost, "/management/webhooks/rotate", nodetest.Object{"trigger": "bookingUnassigned", "url": r.URL}).OK()
		secret := rotated.Str("webhook.secret")
		until, err := time.Parse(time.RFC3339Nano, rotated.Str("webhook.oldSecretUntil"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)
		c.Join(kind, nil)
		a := r.Await(1)[0]
		nodetest.Verified(t, a, secret)
		nodetest.Verified(t, a, nodetest.OwnSecret)
		assert.Equal(t, icos(secret, a.Raw), a.Header.Get("x-icos-signature"))

		h.Exec("UPDATE webhooks SET old_secret_until = ?", time.Now().UTC().Add(-time.Second))
		c.Join(kind, nil)
		a = r.Await(2)[1]
		nodetest.Verified(t, a, secret)
		verifier, err := standardwebhooks.NewWebhook(nodetest.OwnSecret)
		require.NoError(t, err)
		assert.Error(t, verifier.Verify(a.Raw, a.Header), "the day is over")
	})
}

// What follows a call is told by triggers that the document does not have, one for
// each step of a visit and in the order of the steps.
func TestWebhooksTellEachStepOfAVisit(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		for _, trigger := range append(webhook.Triggers[16:], webhook.TriggerBookingAssigned) {
			c.Hook(string(trigger), r.URL, nil)
		}
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		visit := c.Join(kind, nil).Str("id")
		c.Act("hold", visit, nil).OK()
		c.Act("return", visit, nil).OK()
		c.Next(room).OK()
		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), visit)
		c.Act("recall", visit, nil).OK()
		c.Act("start", visit, nil).OK()
		c.Act("end", visit, nil).OK()
		missed := c.Join(kind, nil).Str("id")
		c.Next(room).OK()
		c.Act("noShow", missed, nil).OK()

		told := map[string][]nodetest.Arrival{}
		for _, a := range r.Await(10) {
			id, _ := nodetest.At(a.Body, "id").(string)
			told[id] = append(told[id], a)
		}
		steps := func(id string) (names, stages []string) {
			slices.SortFunc(told[id], func(a, b nodetest.Arrival) int { return cmp.Compare(a.Sequence(), b.Sequence()) })
			for _, a := range told[id] {
				stage, _ := nodetest.At(a.Body, "data.stage").(string)
				names, stages = append(names, a.Trigger()), append(stages, stage)
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
	h := nodetest.Start(t, nodetest.Embedded)
	c := h.NewClinic()
	assert.Len(t, webhook.Triggers, 23)
	for _, trigger := range webhook.Triggers {
		sample := c.Staff(http.MethodPost, "/management/webhooks/sample", nodetest.Object{"trigger": trigger}).OK()
		assert.Len(t, sample.List(""), 1, "a bare list, as the document shows")
		assert.Equal(t, string(trigger), sample.Str("0.trigger"))
		assert.Equal(t, "Al Noor", sample.Str("0.page.name"))
		assert.Equal(t, `"2023-11-15T14:30:00.000Z"`, sample.Str("0.dateTime"))
		for _, field := range []string{"customer", "provider", "resource", "page", "type", "info", "data"} {
			sample.Members("0." + field)
		}
	}
	c.Staff(http.MethodPost, "/management/webhooks/sample", nodetest.Object{"trigger": "nothing"}).Refused(422, models.CodeInvalid)
}
