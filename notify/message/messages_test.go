package message_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// hurryMessage makes the message that waits for another attempt due now. It
// would have waited so long from the end of the last one, which was written down
// some time before it was put to sleep.
func hurryMessage(h *nodetest.Node, from, to time.Duration) {
	h.T.Helper()
	const waiting = "FROM river_job WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?"
	const slack = 4 * time.Second
	now := time.Now().UTC()
	last := nodetest.Scalar[time.Time](h, "SELECT created_at FROM message_attempts ORDER BY created_at DESC LIMIT 1")
	var due []time.Time
	require.Eventually(h.T, func() bool {
		due = nil
		require.NoError(h.T, h.Store.Read(context.Background()).Raw("SELECT scheduled_at "+waiting, now).Scan(&due).Error)
		return len(due) == 1
	}, nodetest.Patience, 5*time.Millisecond, "no message waits for another attempt")
	h.Exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?", now.Add(-time.Second), now)
	wait := due[0].Sub(last).Round(time.Millisecond)
	assert.True(h.T, wait >= from-10*time.Millisecond && wait <= to+slack, "it would have waited %v", wait)
}

// sendThrice asks for a code whose message fails twice, and hurries both pauses. The
// second must be between from and to.
func sendThrice(h *nodetest.Node, c *nodetest.Clinic, method, address string, from, to time.Duration) {
	h.T.Helper()
	c.AskCode(method, address, "").OK()
	c.Attempts("&method="+method, 1)
	hurryMessage(h, 5*time.Second, 5500*time.Millisecond)
	c.Attempts("&method="+method, 2)
	hurryMessage(h, from, to)
}

func TestOneTimeCodesReachPeople(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewClinic()
		c.Approve("otp")
		var secrets []string
		for _, way := range []struct {
			method, lang, address, to string
			carrier                   *nodetest.Texts
			from, words               string
		}{
			{"sms", "", "+966 50 000 0101", "+966500000101", &phones.Texts, nodetest.SMSNumber, "is your code for Al Noor"},
			{"sms", "ar", "+966500000102", "+966500000102", &phones.Texts, nodetest.SMSNumber, "رمز التحقق الخاص بك لدى Al Noor"},
			{"whatsapp", "en", "+966500000103", "whatsapp:+966500000103", &phones.Texts, "whatsapp:" + nodetest.WhatsAppFrom, "is your code for Al Noor"},
			{"email", "en", "Mona@Example.com", "mona@example.com", &mails.Texts, nodetest.MailFrom, "is your code for Al Noor"},
			{"email", "ar-SA", "omar@example.com", "omar@example.com", &mails.Texts, nodetest.MailFrom, "صلاحيته 10 دقائق"},
		} {
			c.AskCode(way.method, way.address, way.lang).OK()
			got := way.carrier.Next(way.to, 1)
			assert.Equal(t, way.from, got.From)
			assert.Contains(t, got.Body, way.words)
			code := nodetest.SixDigits.FindString(got.Body)
			require.NotEmpty(t, code, got.Body)
			secrets = append(secrets, code, way.to)
			body := nodetest.ContactOf(way.method, way.address)
			body["code"] = code
			verify := nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: body}
			h.Send(verify).OK()
			h.Send(verify).Refused(http.StatusUnauthorized, models.CodeWrongCode)
			if way.method != "email" {
				continue
			}
			assert.Contains(t, got.Subject(), code)
			assert.Equal(t, "auto-generated", got.Header.Get("Auto-Submitted"))
			assert.Regexp(t, `^<[\w.]+@clinic\.example>$`, got.Header.Get("Message-ID"))
			from, err := got.Header.AddressList("From")
			require.NoError(t, err)
			assert.Equal(t, "Al Noor", from[0].Name)
			_, err = got.Header.Date()
			assert.NoError(t, err)
		}
		assert.Len(t, secrets, 10)
		line := c.Attempts("&method=whatsapp", 1)[0]
		assert.Equal(t, phones.To("whatsapp:+966500000103")[0].ID, line["providerId"])
		for _, line := range c.Attempts("&template=otp&status=sent", 5) {
			assert.EqualValues(t, 1, line["attempt"])
			assert.Empty(t, line["error"])
		}
		var mailed []string
		for _, line := range c.MessageLog("&method=email") {
			mailed = append(mailed, fmt.Sprint("<", line["providerId"], ">"))
		}
		assert.Contains(t, mailed, mails.To("mona@example.com")[0].Header.Get("Message-ID"))

		// Nothing that stays behind tells a code or where it went.
		kept := h.Log.String()
		for _, table := range []string{"river_job", "message_attempts"} {
			var rows []map[string]any
			require.NoError(t, h.Store.Read(context.Background()).Table(table).Find(&rows).Error)
			require.NotEmpty(t, rows)
			kept += fmt.Sprintf("%s", rows)
		}
		for _, secret := range append(secrets, nodetest.TwilioToken, nodetest.MailPassword) {
			assert.False(t, nodetest.Tells(kept, secret), secret)
		}
		other := h.NewClinic()
		assert.Empty(t, other.MessageLog(""))
	})
}

func TestCodesThatCannotBeSentAreRefused(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			mails := nodetest.NewMail(t)
			h := nodetest.Start(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMTPURL = "", mails.URL })
			c := h.NewClinic()
			c.AskCode("sms", "+966500000111", "").Refused(http.StatusServiceUnavailable, models.CodeNoSender)
			c.AskCode("whatsapp", "+966500000111", "").Refused(http.StatusServiceUnavailable, models.CodeNoSender)

			codes := map[string]bool{}
			for n := range 5 {
				c.AskCode("email", "sara@example.com", "").OK()
				codes[nodetest.SixDigits.FindString(mails.Next("sara@example.com", n+1).Body)] = true
			}
			assert.GreaterOrEqual(t, len(codes), 4, "the codes are drawn, not counted")
			refused := c.AskCode("email", "Sara@example.com", "").Refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
			wait, err := strconv.Atoi(refused.Header.Get("Retry-After"))
			require.NoError(t, err)
			assert.True(t, wait > 480 && wait <= 600, "ten minutes after the first of them: %d", wait)
			c.AskCode("email", "other@example.com", "").OK()
			h.Exec("UPDATE one_time_codes SET created_at = ?", time.Now().UTC().Add(-11*time.Minute))
			c.AskCode("email", "sara@example.com", "").OK()
		})
	}
}

func TestFixedCodesAreSentWhereTheyCanBe(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			mails := nodetest.NewMail(t)
			h := nodetest.Start(t, b, func(c *node.Config) { c.SMTPURL = mails.URL })
			c := h.NewClinic()
			c.AskCode("email", "sara@example.com", "").OK()
			assert.Contains(t, mails.Next("sara@example.com", 1).Body, nodetest.FixedCode)
			c.AskCode("sms", "+966500000112", "").OK()
			assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'message' AND args ->> 'method' = 'sms'"), "a code that is no secret needs nobody to send it")
		})
	}
}

func TestTextsToPhonesAreSentAgain(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		t.Log("SMS: a failure, a request to wait, success")
		phones.Will("+966500000121", "503", "429 - 120")
		sendThrice(h, c, "sms", "+966500000121", 2*time.Minute, 2*time.Minute)
		phones.Next("+966500000121", 1)
		lines := c.Attempts("&method=sms", 3)
		for i, want := range [][2]string{{"retried", "HTTP 503"}, {"retried", "HTTP 429"}, {"sent", ""}} {
			assert.Equal(t, want, [2]string{fmt.Sprint(lines[i]["status"]), fmt.Sprint(lines[i]["error"])})
			assert.EqualValues(t, i+1, lines[i]["attempt"])
			assert.Equal(t, lines[0]["messageId"], lines[i]["messageId"])
		}
		assert.Equal(t, 3, phones.Tries("+966500000121"))

		c.Approve("otp")
		t.Log("WhatsApp: a number that is none is tried once, and one that asks for more time than there is")
		phones.Will("whatsapp:+966500000122", "400 21211")
		c.AskCode("whatsapp", "+966500000122", "").OK()
		failed := c.Attempts("&method=whatsapp", 1)[0]
		assert.Equal(t, "failed", failed["status"])
		assert.Equal(t, "HTTP 400 21211", failed["error"])
		phones.Will("whatsapp:+966500000123", "429 - 601")
		c.AskCode("whatsapp", "+966500000123", "").OK()
		assert.Equal(t, "failed", c.Attempts("&method=whatsapp", 2)[1]["status"])
		h.QuietAbout("966500000121", "966500000122")
	})
}

func TestMailIsSentAgain(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewClinic()
		t.Log("e-mail: not now; a connection that breaks after the message went out; then well, with the same id")
		mails.Will("huda@example.com", "451 4.7.1 later, huda@example.com", "cut")
		sendThrice(h, c, "email", "huda@example.com", 10*time.Second, 11*time.Second) // each pause is twice the one before
		mails.Next("huda@example.com", 2)
		lines := c.Attempts("&method=email", 3)
		assert.Equal(t, "SMTP 451 4.7.1", lines[0]["error"])
		assert.Equal(t, "unreachable", lines[1]["error"])
		assert.Equal(t, "sent", lines[2]["status"])
		both := mails.To("huda@example.com")
		assert.Equal(t, both[0].Header.Get("Message-ID"), both[1].Header.Get("Message-ID"))
		assert.Equal(t, both[0].Body, both[1].Body)

		t.Log("e-mail: nobody there")
		mails.Will("gone@example.com", "550 5.1.1 no such user: gone@example.com")
		c.AskCode("email", "gone@example.com", "").OK()
		failed := c.Attempts("&method=email&status=failed", 1)[0]
		assert.Equal(t, "SMTP 550 5.1.1", failed["error"])
		h.QuietAbout("huda@", "gone@")
	})
}

// A mail server elsewhere must encrypt before it is told anything. 0.0.0.0 is
// this machine under a name that does not say so.
func TestMailGoesNowhereInTheClear(t *testing.T) {
	t.Parallel()
	mails := nodetest.NewMail(t)
	h := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) {
		c.OTPFixedCode, c.SMTPURL = "", strings.Replace(mails.URL, "127.0.0.1", "0.0.0.0", 1)
	})
	c := h.NewClinic()
	c.AskCode("email", "mona@example.com", "").OK()
	line := c.Attempts("", 1)[0]
	assert.Equal(t, "retried handshake", fmt.Sprint(line["status"], " ", line["error"]))
	assert.Zero(t, mails.Tries("mona@example.com"))
	assert.Contains(t, h.Log.String(), "STARTTLS")
	assert.NotContains(t, h.Log.String(), nodetest.MailPassword)
}

func TestMessagesOfNoUseAreNotSent(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewClinic()
		t.Log("a message whose time is over")
		sealer, err := models.NewSealer([]byte(strings.Repeat("s", 32)), models.SealMessages)
		require.NoError(t, err)
		content, err := json.Marshal(models.MessageContent{To: "late@example.com", Values: map[string]string{"code": "123456"}})
		require.NoError(t, err)
		require.NoError(t, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
			tx.Enqueue(models.Message{
				OrganizationID: c.ID, Template: models.TemplateOTP, Method: "email", Until: tx.Now, Sealed: sealer.Seal(string(content)),
			})
			tx.Enqueue(models.Message{OrganizationID: c.ID, Template: "poem", Method: "email", Sealed: sealer.Seal(string(content))})
			tx.Enqueue(models.Message{OrganizationID: c.ID, Template: models.TemplateOTP, Method: "email", Sealed: "another key's"})
			return nil
		}))
		assert.Equal(t, "too late", c.Attempts("&status=dropped", 1)[0]["error"])
		assert.Equal(t, "no template", c.Attempts("&status=failed&template=poem", 1)[0]["error"])
		assert.Equal(t, "sealed", c.Attempts("&status=failed&template=otp&method=email", 1)[0]["error"])
		assert.Zero(t, mails.Tries("late@example.com"))

		t.Log("after 30 days the log is deleted")
		require.NoError(t, h.Notify.Tidy(context.Background()))
		kept := nodetest.Scalar[int](h, "SELECT count(*) FROM message_attempts")
		require.NotZero(t, kept)
		h.Exec("UPDATE message_attempts SET created_at = ? WHERE status = 'failed'", time.Now().UTC().Add(-30*24*time.Hour-time.Minute))
		require.NoError(t, h.Notify.Tidy(context.Background()))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM message_attempts"))
	})
}

// TestADeadCarrierHoldsUpNoOther asks for more codes by SMS than there are
// workers, of a provider that takes them and never answers.
func TestADeadCarrierHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		defer close(phones.Hung)
		c := h.NewClinic()
		for i := range 12 {
			phone := fmt.Sprintf("+9665000002%02d", i)
			phones.Will(phone, "hang")
			c.AskCode("sms", phone, "").OK()
		}
		require.Eventually(t, func() bool {
			phones.Mu.Lock()
			defer phones.Mu.Unlock()
			return len(phones.Attempts) >= 4
		}, nodetest.Patience, 5*time.Millisecond)
		for i := range 5 {
			address := fmt.Sprintf("mona%d@example.com", i)
			c.AskCode("email", address, "").OK()
		}
		for i := range 5 {
			mails.Next(fmt.Sprintf("mona%d@example.com", i), 1)
		}
		phones.Mu.Lock()
		defer phones.Mu.Unlock()
		assert.Len(t, phones.Attempts, 4, "no more than its places")
	})
}

func TestDevelopersReadMessagesAtTheConsole(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			mails, terminal := nodetest.NewMail(t), &nodetest.LogBook{}
			h := nodetest.Start(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMTPURL, c.Console = "", mails.URL, terminal })
			c := h.NewClinic()
			c.AskCode("sms", "+966500000131", "").OK()
			require.Eventually(t, func() bool { return strings.Contains(terminal.String(), "── sms to +966500000131 ──") }, nodetest.Patience, 5*time.Millisecond)
			code := nodetest.SixDigits.FindString(strings.ReplaceAll(terminal.String(), "+966500000131", ""))
			h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000131", "code": code}}).OK()
			c.AskCode("email", "mona@example.com", "").OK()
			mails.Next("mona@example.com", 1)
			assert.NotContains(t, terminal.String(), "mona@example.com", "that method has a sender")
			assert.False(t, nodetest.Tells(h.Log.String(), code))
		})
	}
}

func TestOrganizationsWordTheirMessages(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		c, other := h.NewClinic(), h.NewClinic()
		put := func(body nodetest.Object) nodetest.Response {
			return c.Staff(http.MethodPut, "/management/messages", body)
		}
		ours := c.Staff(http.MethodGet, "/management/messages", nil).OK()
		assert.Len(t, ours.Members("result.templates"), 8)
		assert.Equal(t, nodetest.Object{
			"oneDayBeforeAppointment": []any{"email", "sms"}, "oneHourBeforeAppointment": []any{"email", "sms"}, "tenMinutesBeforeAppointment": []any{},
			"beforeAppointment": []any{}, "afterAppointment": []any{}, "oneDayAfterAppointment": []any{},
		}, ours.Members("result.reminders"))
		for name := range ours.Members("result.templates") {
			for _, lang := range []string{"en", "ar"} {
				assert.NotEmpty(t, ours.Str("result.templates."+name+"."+lang+".subject"))
				assert.NotEmpty(t, ours.Str("result.templates."+name+"."+lang+".text"))
				assert.Equal(t, false, ours.At("result.templates."+name+"."+lang+".own"))
			}
		}

		changed := put(nodetest.Object{"templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{"text": "Al Noor Clinic {{organization}} says {{ code }} {{code}}."}}}}).OK()
		assert.Equal(t, true, changed.At("result.templates.otp.en.own"))
		assert.Equal(t, ours.Str("result.templates.otp.en.subject"), changed.Str("result.templates.otp.en.subject"), "an empty subject is ours")
		assert.Equal(t, ours.At("result.templates.otp.ar"), changed.At("result.templates.otp.ar"))
		assert.Equal(t, ours.At("result.reminders"), changed.At("result.reminders"), "what is absent stays")
		c.AskCode("sms", "+966500000141", "en").OK()
		assert.Regexp(t, `^Al Noor Clinic Al Noor says (\d{6}) (\d{6})\.$`, phones.Next("+966500000141", 1).Body)
		other.AskCode("sms", "+966500000142", "en").OK()
		assert.Contains(t, phones.Next("+966500000142", 1).Body, "is your code for")

		t.Log("what a name holds is no gap and no header")
		h.Exec("UPDATE organizations SET name = ? WHERE id = ?", "{{code}}\r\nBcc: all@example.com", other.ID)
		other.AskCode("email", "mona@example.com", "en").OK()
		got := mails.Next("mona@example.com", 1)
		assert.Contains(t, got.Subject(), "is your code for {{code}} Bcc: all@example.com")
		assert.Empty(t, got.Header.Get("Bcc"))

		t.Log("empty gives our words back")
		restored := put(nodetest.Object{"templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{"text": ""}}}}).OK()
		assert.Equal(t, ours.At("result.templates"), restored.At("result.templates"))
		c.Approve("afterAppointment")
		ours = c.Staff(http.MethodGet, "/management/messages", nil).OK()
		chosen := put(nodetest.Object{"reminders": nodetest.Object{"oneDayBeforeAppointment": []any{}, "afterAppointment": []any{"whatsapp", "email"}}}).OK()
		assert.Empty(t, chosen.List("result.reminders.oneDayBeforeAppointment"))
		assert.Equal(t, []any{"whatsapp", "email"}, chosen.List("result.reminders.afterAppointment"))
		chosen = put(nodetest.Object{"reminders": nodetest.Object{"oneDayBeforeAppointment": nil, "afterAppointment": nil}}).OK()
		assert.Equal(t, ours.At("result.reminders"), chosen.At("result.reminders"))

		before := c.Staff(http.MethodGet, "/management/messages", nil).OK()
		text := func(template, lang, text string) nodetest.Object {
			return nodetest.Object{"templates": nodetest.Object{template: nodetest.Object{lang: nodetest.Object{"text": text}}}}
		}
		for _, wrong := range []struct {
			body  any
			field string
		}{
			{text("otp", "en", "Your code, {{name}}: {{code}}"), "templates.otp.en.text"},
			{text("oneDayBeforeAppointment", "ar", "{{code}}"), "templates.oneDayBeforeAppointment.ar.text"},
			{text("otp", "en", "Your code is {{code}} {{organization"), "templates.otp.en.text"},
			{text("otp", "en", "Come in"), "templates.otp.en.text"},
			{text("otp", "en", "{{code}}"+strings.Repeat("é", 693)), "templates.otp.en.text"},
			{text("otp", "fr", "{{code}}"), "templates.otp.fr"},
			{text("poem", "en", "Roses"), "templates.poem"},
			{nodetest.Object{"templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{"subject": "a\nb"}}}}, "templates.otp.en.subject"},
			{nodetest.Object{"templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{"subject": strings.Repeat("a", 151)}}}}, "templates.otp.en.subject"},
			{nodetest.Object{"templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{"subject": 7}}}}, "templates.otp.en.subject"},
			{nodetest.Object{"reminders": nodetest.Object{"someday": []any{"sms"}}}, "reminders.someday"},
			{nodetest.Object{"reminders": nodetest.Object{"afterAppointment": []any{"pigeon"}}}, "reminders.afterAppointment"},
			{nodetest.Object{"reminders": nodetest.Object{"afterAppointment": []any{"sms", "sms"}}}, "reminders.afterAppointment"},
		} {
			body, ok := wrong.body.(nodetest.Object)
			require.True(t, ok)
			refused := put(body).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Contains(t, refused.WrongFields(), wrong.field, "%s", refused.Raw)
		}
		put(text("otp", "en", "{{code}}"+strings.Repeat("é", 692))).OK()
		put(text("otp", "en", "")).OK()
		assert.JSONEq(t, string(before.Raw), string(c.Staff(http.MethodGet, "/management/messages", nil).OK().Raw))
		for _, query := range []string{"status=lost", "method=pigeon", "from=someday", "limit=0"} {
			c.Staff(http.MethodGet, "/management/messages/log?"+query, nil).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
	})
}

func TestRemindersGoByTheFirstMethodThatCan(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewReminded()
		visit := c.Visit(1820, nodetest.Object{"phone": "+966500000151", "email": "mona@example.com", "firstName": "Mona"})
		ticket := c.Staff(http.MethodGet, "/management/bookings/"+visit, nil).OK().Str("result.ticket")
		h.RemindNow(visit, models.ReminderDayBefore)
		got := mails.Next("mona@example.com", 1)
		c.Attempts("&bookingId="+visit, 1)
		assert.Equal(t, "Your appointment at Al Noor on Wednesday 5 February 2031", got.Subject())
		assert.Equal(t, "A reminder from Al Noor: your appointment (Checkup, Dr. Sarah) is on Wednesday 5 February 2031 at 18:20.", strings.Split(got.Body, "\n")[0])
		c.Approve(string(models.ReminderHourBefore))
		c.Choose(models.ReminderHourBefore, "whatsapp", "email")
		h.RemindNow(visit, models.ReminderHourBefore)
		assert.Equal(t, "A reminder from Al Noor: your appointment (Checkup, Dr. Sarah) is today at 18:20. Your ticket is "+ticket+".",
			phones.Next("whatsapp:+966500000151", 1).Body)
		c.Attempts("&bookingId="+visit, 2)
		h.RemindNow(visit, models.ReminderTenBefore)
		h.RemindNow(visit, models.ReminderAtStart)
		c.Choose(models.ReminderAfterEnd, "sms")
		h.RemindNow(visit, models.ReminderAfterEnd)
		assert.Contains(t, phones.Next("+966500000151", 1).Body, "Thank you for your visit")
		lines := c.Attempts("&bookingId="+visit, 3)
		for i, want := range [][2]any{{"oneDayBeforeAppointment", "email"}, {"oneHourBeforeAppointment", "whatsapp"}, {"afterAppointment", "sms"}} {
			assert.Equal(t, want, [2]any{lines[i]["template"], lines[i]["method"]})
		}
		h.QuietAbout("966500000151", "mona@")
	})
}

func TestRemindersSpeakThePatientsLanguage(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewReminded()
		c.AskCode("sms", "+966500000152", "ar").OK()
		code := nodetest.SixDigits.FindString(phones.Next("+966500000152", 1).Body)
		session := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000152", "code": code}}).OK()
		arabic := c.Visit(900, nodetest.Object{"phone": "+966500000152"})
		h.RemindNow(arabic, models.ReminderDayBefore)
		assert.Equal(t, "تذكير من Al Noor: موعدك (فحص، د. سارة) يوم الأربعاء 5 فبراير 2031 الساعة 09:00.", phones.Next("+966500000152", 2).Body)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/devices", Token: session.Str("accessToken"), Body: nodetest.Object{"token": "a-phone", "platform": "ios", "lang": "en"}}).OK()
		c.Choose(models.ReminderHourBefore, "email", "sms")
		h.RemindNow(arabic, models.ReminderHourBefore)
		assert.Contains(t, phones.Next("+966500000152", 3).Body, "is today at 09:00")
	})
}

var calendarLink = regexp.MustCompile(`https://clinic\.example(/customer/bookings/(\w+)\.ics\?token=([\w-]+)\S*)`)

func TestRemindersByMailLinkToTheCalendarFile(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewReminded()
		visit, other := c.Visit(900, nodetest.Object{"email": "mona@example.com"}), c.Visit(1000, nodetest.Object{"phone": "+966500000161"})
		h.RemindNow(visit, models.ReminderDayBefore)
		got := mails.Next("mona@example.com", 1)
		link := calendarLink.FindStringSubmatch(got.Body)
		require.NotNil(t, link, got.Body)
		assert.Contains(t, got.Body, "at 09:00.\n\nAdd it to your calendar: "+link[0])
		assert.Equal(t, visit, link[2])
		file := func(path string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: path})
		}
		assert.Contains(t, string(file(link[1]).OK().Raw), "SUMMARY:Checkup – Al Noor")
		file(strings.Replace(link[1], visit, other, 1)).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		file("/customer/bookings/"+visit+"?token="+link[3]).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: link[3], Body: nodetest.Object{"bookingId": visit}}).
			Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.RemindNow(visit, models.ReminderHourBefore)
		assert.Contains(t, mails.Next("mona@example.com", 2).Body, "Add it to your calendar: "+link[0])
		assert.NotContains(t, h.Log.String(), link[3])

		t.Log("a text to a phone stays short, unless the organization words it so")
		h.RemindNow(other, models.ReminderDayBefore)
		assert.NotContains(t, phones.Next("+966500000161", 1).Body, "calendar")
		words := func(reminder, lang, text string) {
			c.Staff(http.MethodPut, "/management/messages", nodetest.Object{"templates": nodetest.Object{reminder: nodetest.Object{lang: nodetest.Object{"text": text}}}}).OK()
		}
		words("oneHourBeforeAppointment", "en", "Soon: {{calendarUrl}}")
		h.RemindNow(other, models.ReminderHourBefore)
		assert.Regexp(t, `^Soon: `+calendarLink.String()+`$`, phones.Next("+966500000161", 2).Body)

		t.Log("an organization's own words by e-mail stay as they are")
		third := c.Visit(1100, nodetest.Object{"email": "sara@example.com"})
		words("oneDayBeforeAppointment", "en", "Tomorrow at {{time}}.")
		h.RemindNow(third, models.ReminderDayBefore)
		assert.Equal(t, "Tomorrow at 11:00.", mails.Next("sara@example.com", 1).Body)

		t.Log("in Arabic, the file is too")
		arabic := c.Visit(1200, nodetest.Object{"email": "omar@example.com"})
		h.Exec("UPDATE customers SET lang = 'ar' WHERE email = 'omar@example.com'")
		h.RemindNow(arabic, models.ReminderDayBefore)
		body := mails.Next("omar@example.com", 1).Body
		link = calendarLink.FindStringSubmatch(body)
		require.NotNil(t, link, body)
		assert.Contains(t, body, "أضفه إلى تقويمك: "+link[0])
		assert.Contains(t, string(file(link[1]).OK().Raw), "SUMMARY:فحص – Al Noor")

		t.Log("a link ends a day after the visit")
		past := time.Now().UTC().Add(-25 * time.Hour)
		h.Exec("UPDATE bookings SET starts_at = ?, ends_at = ? WHERE id = ?", past.Add(-time.Hour), past, arabic)
		file(link[1]).Refused(http.StatusUnauthorized, models.CodeTokenExpired)
	})
}

func TestRemindersThatNobodyNeedsAreNotSent(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewReminded()
		h.RemindNow(c.Visit(1000, nodetest.Object{"firstName": "Omar"}), models.ReminderDayBefore)
		c.Choose(models.ReminderDayBefore)
		h.RemindNow(c.Visit(1030, nodetest.Object{"email": "off@example.com"}), models.ReminderDayBefore)
		c.Choose(models.ReminderDayBefore, "email")
		mails.Will("gone@example.com", "451 4.3.0 later")
		gone := c.Visit(1100, nodetest.Object{"email": "gone@example.com"})
		h.RemindNow(gone, models.ReminderDayBefore)
		c.Attempts("&bookingId="+gone, 1)
		c.Act("cancel", gone, nil).OK()
		hurryMessage(h, 5*time.Second, 5500*time.Millisecond)
		last := c.Attempts("&bookingId="+gone, 2)[1]
		assert.Equal(t, "dropped obsolete", fmt.Sprint(last["status"], " ", last["error"]))
		assert.Empty(t, mails.To("gone@example.com"))
		assert.Zero(t, mails.Tries("off@example.com"))
		assert.Len(t, c.MessageLog(""), 2)
		h.QuietAbout("gone@")
	})
}
