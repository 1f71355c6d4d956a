package handlers_test

import (
	"nowserving/notify"

	"nowserving/cmd/nowserving/node"

	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// laterClock is a clock of notify that a test moves on.
type laterClock struct{ ahead atomic.Int64 }

func (l *laterClock) now() time.Time       { return time.Now().Add(time.Duration(l.ahead.Load())) }
func (l *laterClock) pass(d time.Duration) { l.ahead.Add(int64(d)) }

// ofCarriers is a change of a node that sends by this clock.
func (l *laterClock) ofCarriers() func(*node.Config) {
	return func(c *node.Config) { c.Adjust.Notify = func(o *notify.Options) { o.Now = l.now } }
}

// state is what became of an attempt, with its reason.
func state(line object) string {
	return strings.TrimSpace(fmt.Sprint(line["status"], " ", line["error"]))
}

// onBothWithProvider is onBoth in a house whose messages to phones go to a provider and
// whose one-time codes are secret.
func onBothWithProvider(t *testing.T, test func(t *testing.T, c *clinic, clock *laterClock, x *texts), provider func(testing.TB) (*texts, string)) {
	t.Helper()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			x, address := provider(t)
			clock := &laterClock{}
			h := newHouse(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", address }, clock.ofCarriers())
			test(t, h.newClinic(), clock, x)
		})
	}
}

// TestMessagesWaitForTheOperator: what is wrong with our settings at a carrier
// costs no message. One is tried each minute, and all go out when it is right.
func TestMessagesWaitForTheOperator(t *testing.T) {
	t.Parallel()
	twilio := func(t testing.TB) (*texts, string) { f := newTwilio(t); return &f.texts, f.url }
	unifonic := func(t testing.TB) (*texts, string) { f := newUnifonic(t); return &f.texts, f.url }
	for _, one := range []struct {
		provider       func(testing.TB) (*texts, string)
		plus           string // before a number
		answer, reason string
	}{
		{twilio, "+", "401 20003", "retried HTTP 401 20003"},
		{twilio, "+", "403", "retried HTTP 403"},
		{twilio, "+", "400 21606", "retried HTTP 400 21606"},
		{unifonic, "", "401 ER-401", "retried HTTP 401 ER-401"},
		{unifonic, "", "200 ER-08", "retried refused ER-08"},
		{unifonic, "", "400 ER-01", "retried HTTP 400 ER-01"},
	} {
		t.Run(one.reason, func(t *testing.T) {
			t.Parallel()
			onBothWithProvider(t, func(t *testing.T, c *clinic, clock *laterClock, x *texts) {
				first, second := one.plus+"966500000161", one.plus+"966500000162"
				x.will(first, one.answer)
				c.askCode("sms", "+966500000161", "").ok()
				assert.Equal(t, one.reason, state(c.attempts("", 1)[0]))
				c.askCode("sms", "+966500000162", "").ok()
				c.hurryMessages(2)
				require.Eventually(t, func() bool { return c.waiting() == 2 }, patience, 5*time.Millisecond)
				assert.Zero(t, x.tries(second), "the carrier rests")
				assert.Equal(t, 1, x.tries(first))
				assert.Contains(t, c.logged.String(), "NOWSERVING_SMS_URL")
				assert.Contains(t, c.logged.String(), "messages are kept")

				clock.pass(2 * time.Minute)
				c.hurryMessages(2)
				x.next(first, 1)
				x.next(second, 1)
				for _, line := range c.attempts("&status=sent", 2) {
					assert.Equal(t, "sent", state(line))
				}
				c.quietAbout("966500000161", "966500000162")
				assert.NotContains(t, c.logged.String(), twilioToken)
				assert.NotContains(t, c.logged.String(), unifonicApp)
			}, one.provider)
		})
	}
}

const waitingMessages = "FROM river_job WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?"

// waiting counts the messages that wait for their time.
func (h *house) waiting() int {
	h.t.Helper()
	return scalar[int](h, "SELECT count(*) "+waitingMessages, time.Now().UTC().Add(10*time.Second))
}

// hurryMessages waits until n messages wait for their time and makes them due.
func (h *house) hurryMessages(n int) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return h.waiting() == n }, patience, 5*time.Millisecond, "not %d messages wait", n)
	now := time.Now().UTC()
	h.exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?", now.Add(-time.Second), now)
}

func TestTextsGoByUnifonic(t *testing.T) {
	t.Parallel()
	onBothWithProvider(t, func(t *testing.T, c *clinic, _ *laterClock, x *texts) {
		c.askCode("sms", "+966 50 000 0171", "ar").ok()
		got := x.next("966500000171", 1)
		assert.Equal(t, unifonicSender, got.from)
		assert.Contains(t, got.body, "رمز التحقق الخاص بك لدى Al Noor")
		line := c.attempts("", 1)[0]
		assert.Equal(t, got.id, line["providerId"])
		assert.Equal(t, line["messageId"], got.form.Get("CorrelationID"))
		c.askCode("whatsapp", "+966500000171", "").refused(503, "AUT-NO_SENDER")

		for number, one := range map[string][2]string{
			"966500000172": {"200 ER-04", "failed refused ER-04"},
			"966500000173": {"400 ER-02", "failed HTTP 400 ER-02"},
			"966500000174": {"200 ER-99", "retried refused ER-99"},
			"966500000175": {"200 html", "retried unreadable answer"},
			"966500000176": {"502 ", "retried HTTP 502"},
			"966500000177": {"400 <b>", "failed HTTP 400"},
		} {
			x.will(number, one[0])
			each := c.newClinic()
			each.askCode("sms", "+"+number, "").ok()
			require.Eventually(t, func() bool { return len(each.messageLog("")) > 0 }, patience, 5*time.Millisecond)
			assert.Equal(t, one[1], state(each.messageLog("")[0]), one[0])
			c.quietAbout(number)
		}
		for _, number := range []string{"966500000174", "966500000175", "966500000176"} {
			x.next(number, 1)
		}
	}, func(t testing.TB) (*texts, string) { f := newUnifonic(t); return &f.texts, f.url })
}

// TestProvidersBesideEachOther: SMS by Unifonic and WhatsApp by Twilio.
func TestProvidersBesideEachOther(t *testing.T) {
	t.Parallel()
	sms, whatsApp := newUnifonic(t), newTwilio(t)
	address, err := url.Parse(whatsApp.url)
	require.NoError(t, err)
	address.RawQuery = url.Values{"whatsappFrom": {whatsAppFrom}}.Encode()
	h := newHouse(t, embedded, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", sms.url+" "+address.String() })
	c := h.newClinic()
	c.askCode("sms", "+966500000181", "").ok()
	sms.next("966500000181", 1)
	c.approve("otp")
	c.askCode("whatsapp", "+966500000181", "").ok()
	whatsApp.next("whatsapp:+966500000181", 1)
}

func TestTextsGoByAMessagingService(t *testing.T) {
	t.Parallel()
	service := newSID("MG")
	phones := newTwilio(t)
	address, err := url.Parse(phones.url)
	require.NoError(t, err)
	address.RawQuery = url.Values{"messagingServiceSid": {service}}.Encode()
	h := newHouse(t, embedded, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", address.String() })
	c := h.newClinic()
	c.askCode("sms", "+966500000182", "").ok()
	form := phones.next("+966500000182", 1).form
	assert.Equal(t, service, form.Get("MessagingServiceSid"))
	assert.False(t, form.Has("From"))
}

// TestWhatsAppTakesApprovedTemplatesOnly: a message goes by WhatsApp with its
// template of the language. Where there is none, a code is refused and a reminder
// goes by the next method.
func TestWhatsAppTakesApprovedTemplatesOnly(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, mails *fakeMail) {
		c := h.newReminded()
		put := func(body object) answer { return c.staff(http.MethodPut, "/management/messages", body) }
		of := func(template, lang string, whatsApp any) object {
			return object{"templates": object{template: object{lang: object{"whatsapp": whatsApp}}}}
		}
		c.askCode("whatsapp", "+966500000191", "").refused(http.StatusServiceUnavailable, models.CodeNoSender)
		english, arabic := newSID("HX"), newSID("HX")
		put(object{"templates": object{"otp": object{"en": object{"text": "Our code: {{code}}"}}}}).ok()
		stored := put(of("otp", "en", object{"contentSid": english, "variables": object{"1": "{{code}}", "clinic": "{{organization}}"}})).ok()
		assert.Equal(t, object{"contentSid": english, "variables": object{"1": "{{code}}", "clinic": "{{organization}}"}}, stored.at("result.templates.otp.en.whatsapp"))
		assert.Equal(t, object{"contentSid": "", "variables": object{}}, stored.at("result.templates.otp.ar.whatsapp"))
		assert.Equal(t, "Our code: {{code}}", stored.str("result.templates.otp.en.text"), "the wording stays")
		h.exec("UPDATE organizations SET name = ? WHERE id = ?", "Al\n Noor", c.id)
		c.askCode("whatsapp", "+966500000191", "").ok()
		got := phones.next("whatsapp:+966500000191", 1)
		assert.Equal(t, english, got.form.Get("ContentSid"))
		assert.JSONEq(t, `{"1": "`+sixDigits.FindString(got.body)+`", "clinic": "Al Noor"}`, got.form.Get("ContentVariables"))
		c.askCode("whatsapp", "+966500000192", "ar").refused(http.StatusServiceUnavailable, models.CodeNoSender)
		put(of("otp", "ar", object{"contentSid": arabic, "variables": object{"1": "{{code}}"}})).ok()
		c.askCode("whatsapp", "+966500000192", "ar").ok()
		assert.Equal(t, arabic, phones.next("whatsapp:+966500000192", 1).form.Get("ContentSid"))
		h.newClinic().askCode("whatsapp", "+966500000191", "").refused(http.StatusServiceUnavailable, models.CodeNoSender)
		put(of("otp", "en", object{"contentSid": ""})).ok()
		c.askCode("whatsapp", "+966500000191", "").refused(http.StatusServiceUnavailable, models.CodeNoSender)

		t.Log("a reminder by WhatsApp needs a template in both languages")
		reminder := string(models.ReminderDayBefore)
		chosen := object{"reminders": object{reminder: []string{"whatsapp", "email"}}}
		assert.Contains(t, put(chosen).refused(http.StatusUnprocessableEntity, models.CodeInvalid).wrongFields(), "reminders."+reminder)
		put(of(reminder, "en", object{"contentSid": english, "variables": object{"1": "{{time}}"}})).ok()
		put(chosen).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		chosen["templates"] = object{reminder: object{"ar": object{"whatsapp": object{"contentSid": arabic}}}}
		put(chosen).ok()
		visit := c.visit(1820, object{"phone": "+966500000193", "email": "mona@example.com"})
		h.remindNow(visit, models.ReminderDayBefore)
		assert.Equal(t, "18:20", phones.next("whatsapp:+966500000193", 1).body)
		put(of(reminder, "en", object{"contentSid": ""})).ok()
		visit = c.visit(1900, object{"phone": "+966500000194", "email": "huda@example.com"})
		h.remindNow(visit, models.ReminderDayBefore)
		mails.next("huda@example.com", 1)

		t.Log("what could not be sent is refused")
		many := object{"1": "{{code}}"}
		for i := range 20 {
			many[fmt.Sprint("v", i)] = "x"
		}
		for _, wrong := range []struct {
			whatsApp any
			field    string
		}{
			{object{"contentSid": "HX1", "variables": object{"1": "{{code}}"}}, "templates.otp.en.whatsapp.contentSid"},
			{object{"variables": object{"1": "{{code}}"}}, "templates.otp.en.whatsapp.contentSid"},
			{object{"contentSid": english}, "templates.otp.en.whatsapp.variables"},
			{object{"contentSid": english, "variables": object{"1": "{{organization}}"}}, "templates.otp.en.whatsapp.variables"},
			{object{"contentSid": english, "variables": object{"1": "{{code}} {{ticket}}"}}, "templates.otp.en.whatsapp.variables.1"},
			{object{"contentSid": english, "variables": object{"1": ""}}, "templates.otp.en.whatsapp.variables.1"},
			{object{"contentSid": english, "variables": object{"a b": "{{code}}"}}, "templates.otp.en.whatsapp.variables"},
			{object{"contentSid": english, "variables": many}, "templates.otp.en.whatsapp.variables"},
		} {
			refused := put(of("otp", "en", wrong.whatsApp)).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Contains(t, refused.wrongFields(), wrong.field, "%s", refused.raw)
		}
		put(of("otp", "fr", object{"contentSid": english})).refused(http.StatusUnprocessableEntity, models.CodeInvalid)

		t.Log("a template that Twilio does not know is put right")
		put(of("otp", "en", object{"contentSid": english, "variables": object{"1": "{{code}}"}})).ok()
		phones.will("whatsapp:+966500000195", "400 21655")
		c.askCode("whatsapp", "+966500000195", "").ok()
		phones.next("whatsapp:+966500000195", 1)

		t.Log("a message whose template is deleted before it went out waits for another one")
		next := h.newClinic()
		next.approve("otp")
		phones.will("whatsapp:+966500000196", "503")
		next.askCode("whatsapp", "+966500000196", "").ok()
		next.attempts("", 1)
		next.staff(http.MethodPut, "/management/messages", of("otp", "en", object{"contentSid": ""})).ok()
		require.Eventually(t, func() bool { return len(next.messageLog("")) > 1 }, patience, 5*time.Millisecond)
		assert.Equal(t, "retried no approved template", state(next.messageLog("")[1]))
		next.approve("otp")
		phones.next("whatsapp:+966500000196", 1)
		h.quietAbout("966500000191", "966500000195", "966500000196")
	})
}
