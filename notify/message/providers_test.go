package message_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/notify"
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
func state(line nodetest.Object) string {
	return strings.TrimSpace(fmt.Sprint(line["status"], " ", line["error"]))
}

// onBothWithProvider is onBoth in a house whose messages to phones go to a provider and
// whose one-time codes are secret.
func onBothWithProvider(t *testing.T, test func(t *testing.T, c *nodetest.Clinic, clock *laterClock, x *nodetest.Texts), provider func(testing.TB) (*nodetest.Texts, string)) {
	t.Helper()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			x, address := provider(t)
			clock := &laterClock{}
			h := nodetest.Start(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", address }, clock.ofCarriers())
			test(t, h.NewClinic(), clock, x)
		})
	}
}

// TestMessagesWaitForTheOperator: what is wrong with our settings at a carrier
// costs no message. One is tried each minute, and all go out when it is right.
func TestMessagesWaitForTheOperator(t *testing.T) {
	t.Parallel()
	twilio := func(t testing.TB) (*nodetest.Texts, string) { f := nodetest.NewTwilio(t); return &f.Texts, f.URL }
	unifonic := func(t testing.TB) (*nodetest.Texts, string) { f := nodetest.NewUnifonic(t); return &f.Texts, f.URL }
	for _, one := range []struct {
		provider       func(testing.TB) (*nodetest.Texts, string)
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
			onBothWithProvider(t, func(t *testing.T, c *nodetest.Clinic, clock *laterClock, x *nodetest.Texts) {
				first, second := one.plus+"966500000161", one.plus+"966500000162"
				x.Will(first, one.answer)
				c.AskCode("sms", "+966500000161", "").OK()
				assert.Equal(t, one.reason, state(c.Attempts("", 1)[0]))
				c.AskCode("sms", "+966500000162", "").OK()
				hurryMessages(c.Node, 2)
				require.Eventually(t, func() bool { return waiting(c.Node) == 2 }, nodetest.Patience, 5*time.Millisecond)
				assert.Zero(t, x.Tries(second), "the carrier rests")
				assert.Equal(t, 1, x.Tries(first))
				assert.Contains(t, c.Log.String(), "NOWSERVING_SMS_URL")
				assert.Contains(t, c.Log.String(), "messages are kept")

				clock.pass(2 * time.Minute)
				hurryMessages(c.Node, 2)
				x.Next(first, 1)
				x.Next(second, 1)
				for _, line := range c.Attempts("&status=sent", 2) {
					assert.Equal(t, "sent", state(line))
				}
				c.QuietAbout("966500000161", "966500000162")
				assert.NotContains(t, c.Log.String(), nodetest.TwilioToken)
				assert.NotContains(t, c.Log.String(), nodetest.UnifonicApp)
			}, one.provider)
		})
	}
}

const waitingMessages = "FROM river_job WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?"

// waiting counts the messages that wait for their time.
func waiting(h *nodetest.Node) int {
	h.T.Helper()
	return nodetest.Scalar[int](h, "SELECT count(*) "+waitingMessages, time.Now().UTC().Add(10*time.Second))
}

// hurryMessages waits until n messages wait for their time and makes them due.
func hurryMessages(h *nodetest.Node, n int) {
	h.T.Helper()
	require.Eventually(h.T, func() bool { return waiting(h) == n }, nodetest.Patience, 5*time.Millisecond, "not %d messages wait", n)
	now := time.Now().UTC()
	h.Exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?", now.Add(-time.Second), now)
}

func TestTextsGoByUnifonic(t *testing.T) {
	t.Parallel()
	onBothWithProvider(t, func(t *testing.T, c *nodetest.Clinic, _ *laterClock, x *nodetest.Texts) {
		c.AskCode("sms", "+966 50 000 0171", "ar").OK()
		got := x.Next("966500000171", 1)
		assert.Equal(t, nodetest.UnifonicSender, got.From)
		assert.Contains(t, got.Body, "رمز التحقق الخاص بك لدى Al Noor")
		line := c.Attempts("", 1)[0]
		assert.Equal(t, got.ID, line["providerId"])
		assert.Equal(t, line["messageId"], got.Form.Get("CorrelationID"))
		c.AskCode("whatsapp", "+966500000171", "").Refused(503, "AUT-NO_SENDER")

		for number, one := range map[string][2]string{
			"966500000172": {"200 ER-04", "failed refused ER-04"},
			"966500000173": {"400 ER-02", "failed HTTP 400 ER-02"},
			"966500000174": {"200 ER-99", "retried refused ER-99"},
			"966500000175": {"200 html", "retried unreadable answer"},
			"966500000176": {"502 ", "retried HTTP 502"},
			"966500000177": {"400 <b>", "failed HTTP 400"},
		} {
			x.Will(number, one[0])
			each := c.NewClinic()
			each.AskCode("sms", "+"+number, "").OK()
			require.Eventually(t, func() bool { return len(each.MessageLog("")) > 0 }, nodetest.Patience, 5*time.Millisecond)
			assert.Equal(t, one[1], state(each.MessageLog("")[0]), one[0])
			c.QuietAbout(number)
		}
		for _, number := range []string{"966500000174", "966500000175", "966500000176"} {
			x.Next(number, 1)
		}
	}, func(t testing.TB) (*nodetest.Texts, string) { f := nodetest.NewUnifonic(t); return &f.Texts, f.URL })
}

// TestProvidersBesideEachOther: SMS by Unifonic and WhatsApp by Twilio.
func TestProvidersBesideEachOther(t *testing.T) {
	t.Parallel()
	sms, whatsApp := nodetest.NewUnifonic(t), nodetest.NewTwilio(t)
	address, err := url.Parse(whatsApp.URL)
	require.NoError(t, err)
	address.RawQuery = url.Values{"whatsappFrom": {nodetest.WhatsAppFrom}}.Encode()
	h := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", sms.URL+" "+address.String() })
	c := h.NewClinic()
	c.AskCode("sms", "+966500000181", "").OK()
	sms.Next("966500000181", 1)
	c.Approve("otp")
	c.AskCode("whatsapp", "+966500000181", "").OK()
	whatsApp.Next("whatsapp:+966500000181", 1)
}

func TestTextsGoByAMessagingService(t *testing.T) {
	t.Parallel()
	service := nodetest.NewSID("MG")
	phones := nodetest.NewTwilio(t)
	address, err := url.Parse(phones.URL)
	require.NoError(t, err)
	address.RawQuery = url.Values{"messagingServiceSid": {service}}.Encode()
	h := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) { c.OTPFixedCode, c.SMSURL = "", address.String() })
	c := h.NewClinic()
	c.AskCode("sms", "+966500000182", "").OK()
	form := phones.Next("+966500000182", 1).Form
	assert.Equal(t, service, form.Get("MessagingServiceSid"))
	assert.False(t, form.Has("From"))
}

// TestWhatsAppTakesApprovedTemplatesOnly: a message goes by WhatsApp with its
// template of the language. Where there is none, a code is refused and a reminder
// goes by the next method.
func TestWhatsAppTakesApprovedTemplatesOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewReminded()
		put := func(body nodetest.Object) nodetest.Response {
			return c.Staff(http.MethodPut, "/management/messages", body)
		}
		of := func(template, lang string, whatsApp any) nodetest.Object {
			return nodetest.Object{"templates": nodetest.Object{template: nodetest.Object{lang: nodetest.Object{"whatsapp": whatsApp}}}}
		}
		c.AskCode("whatsapp", "+966500000191", "").Refused(http.StatusServiceUnavailable, models.CodeNoSender)
		english, arabic := nodetest.NewSID("HX"), nodetest.NewSID("HX")
		put(nodetest.Object{"templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{"text": "Our code: {{code}}"}}}}).OK()
		stored := put(of("otp", "en", nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": "{{code}}", "clinic": "{{organization}}"}})).OK()
		assert.Equal(t, nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": "{{code}}", "clinic": "{{organization}}"}}, stored.At("result.templates.otp.en.whatsapp"))
		assert.Equal(t, nodetest.Object{"contentSid": "", "variables": nodetest.Object{}}, stored.At("result.templates.otp.ar.whatsapp"))
		assert.Equal(t, "Our code: {{code}}", stored.Str("result.templates.otp.en.text"), "the wording stays")
		h.Exec("UPDATE organizations SET name = ? WHERE id = ?", "Al\n Noor", c.ID)
		c.AskCode("whatsapp", "+966500000191", "").OK()
		got := phones.Next("whatsapp:+966500000191", 1)
		assert.Equal(t, english, got.Form.Get("ContentSid"))
		assert.JSONEq(t, `{"1": "`+nodetest.SixDigits.FindString(got.Body)+`", "clinic": "Al Noor"}`, got.Form.Get("ContentVariables"))
		c.AskCode("whatsapp", "+966500000192", "ar").Refused(http.StatusServiceUnavailable, models.CodeNoSender)
		put(of("otp", "ar", nodetest.Object{"contentSid": arabic, "variables": nodetest.Object{"1": "{{code}}"}})).OK()
		c.AskCode("whatsapp", "+966500000192", "ar").OK()
		assert.Equal(t, arabic, phones.Next("whatsapp:+966500000192", 1).Form.Get("ContentSid"))
		h.NewClinic().AskCode("whatsapp", "+966500000191", "").Refused(http.StatusServiceUnavailable, models.CodeNoSender)
		put(of("otp", "en", nodetest.Object{"contentSid": ""})).OK()
		c.AskCode("whatsapp", "+966500000191", "").Refused(http.StatusServiceUnavailable, models.CodeNoSender)

		t.Log("a reminder by WhatsApp needs a template in both languages")
		reminder := string(models.ReminderDayBefore)
		chosen := nodetest.Object{"reminders": nodetest.Object{reminder: []string{"whatsapp", "email"}}}
		assert.Contains(t, put(chosen).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields(), "reminders."+reminder)
		put(of(reminder, "en", nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": "{{time}}"}})).OK()
		put(chosen).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		chosen["templates"] = nodetest.Object{reminder: nodetest.Object{"ar": nodetest.Object{"whatsapp": nodetest.Object{"contentSid": arabic}}}}
		put(chosen).OK()
		visit := c.Visit(1820, nodetest.Object{"phone": "+966500000193", "email": "mona@example.com"})
		h.RemindNow(visit, models.ReminderDayBefore)
		assert.Equal(t, "18:20", phones.Next("whatsapp:+966500000193", 1).Body)
		put(of(reminder, "en", nodetest.Object{"contentSid": ""})).OK()
		visit = c.Visit(1900, nodetest.Object{"phone": "+966500000194", "email": "huda@example.com"})
		h.RemindNow(visit, models.ReminderDayBefore)
		mails.Next("huda@example.com", 1)

		t.Log("what could not be sent is refused")
		many := nodetest.Object{"1": "{{code}}"}
		for i := range 20 {
			many[fmt.Sprint("v", i)] = "x"
		}
		for _, wrong := range []struct {
			whatsApp any
			field    string
		}{
			{nodetest.Object{"contentSid": "HX1", "variables": nodetest.Object{"1": "{{code}}"}}, "templates.otp.en.whatsapp.contentSid"},
			{nodetest.Object{"variables": nodetest.Object{"1": "{{code}}"}}, "templates.otp.en.whatsapp.contentSid"},
			{nodetest.Object{"contentSid": english}, "templates.otp.en.whatsapp.variables"},
			{nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": "{{organization}}"}}, "templates.otp.en.whatsapp.variables"},
			{nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": "{{code}} {{ticket}}"}}, "templates.otp.en.whatsapp.variables.1"},
			{nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": ""}}, "templates.otp.en.whatsapp.variables.1"},
			{nodetest.Object{"contentSid": english, "variables": nodetest.Object{"a b": "{{code}}"}}, "templates.otp.en.whatsapp.variables"},
			{nodetest.Object{"contentSid": english, "variables": many}, "templates.otp.en.whatsapp.variables"},
		} {
			refused := put(of("otp", "en", wrong.whatsApp)).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Contains(t, refused.WrongFields(), wrong.field, "%s", refused.Raw)
		}
		put(of("otp", "fr", nodetest.Object{"contentSid": english})).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)

		t.Log("a template that Twilio does not know is put right")
		put(of("otp", "en", nodetest.Object{"contentSid": english, "variables": nodetest.Object{"1": "{{code}}"}})).OK()
		phones.Will("whatsapp:+966500000195", "400 21655")
		c.AskCode("whatsapp", "+966500000195", "").OK()
		phones.Next("whatsapp:+966500000195", 1)

		t.Log("a message whose template is deleted before it went out waits for another one")
		next := h.NewClinic()
		next.Approve("otp")
		phones.Will("whatsapp:+966500000196", "503")
		next.AskCode("whatsapp", "+966500000196", "").OK()
		next.Attempts("", 1)
		next.Staff(http.MethodPut, "/management/messages", of("otp", "en", nodetest.Object{"contentSid": ""})).OK()
		require.Eventually(t, func() bool { return len(next.MessageLog("")) > 1 }, nodetest.Patience, 5*time.Millisecond)
		assert.Equal(t, "retried no approved template", state(next.MessageLog("")[1]))
		next.Approve("otp")
		phones.Next("whatsapp:+966500000196", 1)
		h.QuietAbout("966500000191", "966500000195", "966500000196")
	})
}
