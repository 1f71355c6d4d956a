package handlers_test

import (
	"nowserving/cmd/nowserving/node"

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
	"nowserving/models"
)

// onBothWithCarriers is onBoth in a house whose messages go to a mail server
// and to Twilio, and whose one-time codes are secret.
func onBothWithCarriers(t *testing.T, test func(t *testing.T, h *house, phones *fakeTwilio, mails *fakeMail), change ...func(*node.Config)) {
	t.Helper()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			phones, mails := newTwilio(t), newMail(t)
			h := newHouse(t, b, func(c *node.Config) {
				c.OTPFixedCode, c.SMSURL, c.SMTPURL = "", phones.url, mails.url
				for _, f := range change {
					f(c)
				}
			})
			test(t, h, phones, mails)
		})
	}
}

// askCode asks for a one-time code.
func (c *clinic) askCode(method, address, lang string) answer {
	c.t.Helper()
	return c.send(request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, lang: lang, body: contactOf(method, address)})
}

func contactOf(method, address string) object {
	if method == "email" {
		return object{"method": method, "email": address}
	}
	return object{"method": method, "phoneNumber": address}
}

// approve gives a message a template of WhatsApp in both languages, whose only
// variable is the whole text.
func (c *clinic) approve(template string) {
	c.t.Helper()
	texts := c.staff(http.MethodGet, "/management/messages", nil).ok().members("result.templates." + template)
	approved := object{}
	for _, lang := range []string{"en", "ar"} {
		approved[lang] = object{"whatsapp": object{"contentSid": newSID("HX"), "variables": object{"1": at(texts, lang+".text")}}}
	}
	c.staff(http.MethodPut, "/management/messages", object{"templates": object{template: approved}}).ok()
}

// log are the attempts at messages, the oldest first.
func (c *clinic) messageLog(query string) []object {
	c.t.Helper()
	items := c.staff(http.MethodGet, "/management/messages/log?limit=100"+query, nil).ok().list("result")
	var list []object
	for i := len(items) - 1; i >= 0; i-- {
		item, ok := items[i].(object)
		require.True(c.t, ok)
		list = append(list, item)
	}
	return list
}

// attempts waits until n attempts are written down for a query.
func (c *clinic) attempts(query string, n int) []object {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return len(c.messageLog(query)) >= n }, patience, 10*time.Millisecond, "%s: %v", query, c.messageLog(query))
	list := c.messageLog(query)
	require.Len(c.t, list, n)
	return list
}

// hurryMessage makes the message that waits for another attempt due now. It
// would have waited so long from the end of the last one, which was written down
// some time before it was put to sleep.
func (h *house) hurryMessage(from, to time.Duration) {
	h.t.Helper()
	const waiting = "FROM river_job WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?"
	const slack = 4 * time.Second
	now := time.Now().UTC()
	last := scalar[time.Time](h, "SELECT created_at FROM message_attempts ORDER BY created_at DESC LIMIT 1")
	var due []time.Time
	require.Eventually(h.t, func() bool {
		due = nil
		require.NoError(h.t, h.Store.Read(context.Background()).Raw("SELECT scheduled_at "+waiting, now).Scan(&due).Error)
		return len(due) == 1
	}, patience, 5*time.Millisecond, "no message waits for another attempt")
	h.exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE kind = 'message' AND state IN ('scheduled', 'available') AND scheduled_at > ?", now.Add(-time.Second), now)
	wait := due[0].Sub(last).Round(time.Millisecond)
	assert.True(h.t, wait >= from-10*time.Millisecond && wait <= to+slack, "it would have waited %v", wait)
}

var sixDigits = regexp.MustCompile(`\d{6}`)

// tells reports whether a text holds a secret. Six digits may as well be those
// of a time or of a longer number.
func tells(text, secret string) bool {
	if sixDigits.FindString(secret) == secret {
		return regexp.MustCompile(`(^|[^\d.])` + secret + `(\D|$)`).MatchString(text)
	}
	return strings.Contains(text, secret)
}

func TestOneTimeCodesReachPeople(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, mails *fakeMail) {
		c := h.newClinic()
		c.approve("otp")
		var secrets []string
		for _, way := range []struct {
			method, lang, address, to string
			carrier                   *texts
			from, words               string
		}{
			{"sms", "", "+966 50 000 0101", "+966500000101", &phones.texts, smsNumber, "is your code for Al Noor"},
			{"sms", "ar", "+966500000102", "+966500000102", &phones.texts, smsNumber, "رمز التحقق الخاص بك لدى Al Noor"},
			{"whatsapp", "en", "+966500000103", "whatsapp:+966500000103", &phones.texts, "whatsapp:" + whatsAppFrom, "is your code for Al Noor"},
			{"email", "en", "Mona@Example.com", "mona@example.com", &mails.texts, mailFrom, "is your code for Al Noor"},
			{"email", "ar-SA", "omar@example.com", "omar@example.com", &mails.texts, mailFrom, "صلاحيته 10 دقائق"},
		} {
			c.askCode(way.method, way.address, way.lang).ok()
			got := way.carrier.next(way.to, 1)
			assert.Equal(t, way.from, got.from)
			assert.Contains(t, got.body, way.words)
			code := sixDigits.FindString(got.body)
			require.NotEmpty(t, code, got.body)
			secrets = append(secrets, code, way.to)
			body := contactOf(way.method, way.address)
			body["code"] = code
			verify := request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: body}
			h.send(verify).ok()
			h.send(verify).refused(http.StatusUnauthorized, models.CodeWrongCode)
			if way.method != "email" {
				continue
			}
			assert.Contains(t, got.subject(), code)
			assert.Equal(t, "auto-generated", got.header.Get("Auto-Submitted"))
			assert.Regexp(t, `^<[\w.]+@clinic\.example>$`, got.header.Get("Message-ID"))
			from, err := got.header.AddressList("From")
			require.NoError(t, err)
			assert.Equal(t, "Al Noor", from[0].Name)
			_, err = got.header.Date()
			assert.NoError(t, err)
		}
		assert.Len(t, secrets, 10)
		line := c.attempts("&method=whatsapp", 1)[0]
		assert.Equal(t, phones.to("whatsapp:+966500000103")[0].id, line["providerId"])
		for _, line := range c.attempts("&template=otp&status=sent", 5) {
			assert.EqualValues(t, 1, line["attempt"])
			assert.Empty(t, line["error"])
		}
		var mailed []string
		for _, line := range c.messageLog("&method=email") {
			mailed = append(mailed, fmt.Sprint("<", line["providerId"], ">"))
		}
		assert.Contains(t, mailed, mails.to("mona@example.com")[0].header.Get("Message-ID"))

		// Nothing that stays behind tells a code or where it went.
		kept := h.logged.String()
		for _, table := range []string{"river_job", "message_attempts"} {
			var rows []map[string]any
			require.NoError(t, h.Store.Read(context.Background()).Table(table).Find(&rows).Error)
			require.NotEmpty(t, rows)
			kept += fmt.Sprintf("%s", rows)
		}
		for _, secret := range append(secrets, twilioToken, mailPassword) {
			assert.False(t, tells(kept, secret), secret)
		}
		other := h.newClinic()
		assert.Empty(t, other.messageLog(""))
	})
}

func TestCodesThatCannotBeSentAreRefused(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			mails := newMail(t)
			h := newHouse(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMTPURL = "", mails.url })
			c := h.newClinic()
			c.askCode("sms", "+966500000111", "").refused(http.StatusServiceUnavailable, models.CodeNoSender)
			c.askCode("whatsapp", "+966500000111", "").refused(http.StatusServiceUnavailable, models.CodeNoSender)

			codes := map[string]bool{}
			for n := range 5 {
				c.askCode("email", "sara@example.com", "").ok()
				codes[sixDigits.FindString(mails.next("sara@example.com", n+1).body)] = true
			}
			assert.GreaterOrEqual(t, len(codes), 4, "the codes are drawn, not counted")
			refused := c.askCode("email", "Sara@example.com", "").refused(http.StatusTooManyRequests, models.CodeTooManyCodes)
			wait, err := strconv.Atoi(refused.header.Get("Retry-After"))
			require.NoError(t, err)
			assert.True(t, wait > 480 && wait <= 600, "ten minutes after the first of them: %d", wait)
			c.askCode("email", "other@example.com", "").ok()
			h.exec("UPDATE one_time_codes SET created_at = ?", time.Now().UTC().Add(-11*time.Minute))
			c.askCode("email", "sara@example.com", "").ok()
		})
	}
}

func TestFixedCodesAreSentWhereTheyCanBe(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			mails := newMail(t)
			h := newHouse(t, b, func(c *node.Config) { c.SMTPURL = mails.url })
			c := h.newClinic()
			c.askCode("email", "sara@example.com", "").ok()
			assert.Contains(t, mails.next("sara@example.com", 1).body, fixedCode)
			c.askCode("sms", "+966500000112", "").ok()
			assert.Zero(t, scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'message' AND args ->> 'method' = 'sms'"), "a code that is no secret needs nobody to send it")
		})
	}
}

// quietAbout makes sure that nothing kept for people to read holds an address.
func (h *house) quietAbout(addresses ...string) {
	h.t.Helper()
	for _, address := range addresses {
		assert.NotContains(h.t, h.logged.String(), address)
		assert.Zero(h.t, scalar[int](h, "SELECT count(*) FROM message_attempts WHERE error LIKE ? OR provider_id LIKE ?", "%"+address+"%", "%"+address+"%"))
	}
}

func TestTextsToPhonesAreSentAgain(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, _ *fakeMail) {
		c := h.newClinic()
		t.Log("SMS: a failure, a request to wait, success")
		phones.will("+966500000121", "503", "429 - 120")
		c.askCode("sms", "+966500000121", "").ok()
		c.attempts("&method=sms", 1)
		h.hurryMessage(5*time.Second, 5500*time.Millisecond)
		c.attempts("&method=sms", 2)
		h.hurryMessage(2*time.Minute, 2*time.Minute)
		phones.next("+966500000121", 1)
		lines := c.attempts("&method=sms", 3)
		for i, want := range [][2]string{{"retried", "HTTP 503"}, {"retried", "HTTP 429"}, {"sent", ""}} {
			assert.Equal(t, want, [2]string{fmt.Sprint(lines[i]["status"]), fmt.Sprint(lines[i]["error"])})
			assert.EqualValues(t, i+1, lines[i]["attempt"])
			assert.Equal(t, lines[0]["messageId"], lines[i]["messageId"])
		}
		assert.Equal(t, 3, phones.tries("+966500000121"))

		c.approve("otp")
		t.Log("WhatsApp: a number that is none is tried once, and one that asks for more time than there is")
		phones.will("whatsapp:+966500000122", "400 21211")
		c.askCode("whatsapp", "+966500000122", "").ok()
		failed := c.attempts("&method=whatsapp", 1)[0]
		assert.Equal(t, "failed", failed["status"])
		assert.Equal(t, "HTTP 400 21211", failed["error"])
		phones.will("whatsapp:+966500000123", "429 - 601")
		c.askCode("whatsapp", "+966500000123", "").ok()
		assert.Equal(t, "failed", c.attempts("&method=whatsapp", 2)[1]["status"])
		h.quietAbout("966500000121", "966500000122")
	})
}

func TestMailIsSentAgain(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, _ *fakeTwilio, mails *fakeMail) {
		c := h.newClinic()
		t.Log("e-mail: not now; a connection that breaks after the message went out; then well, with the same id")
		mails.will("huda@example.com", "451 4.7.1 later, huda@example.com", "cut")
		c.askCode("email", "huda@example.com", "").ok()
		c.attempts("&method=email", 1)
		h.hurryMessage(5*time.Second, 5500*time.Millisecond)
		c.attempts("&method=email", 2)
		h.hurryMessage(10*time.Second, 11*time.Second) // each pause is twice the one before
		mails.next("huda@example.com", 2)
		lines := c.attempts("&method=email", 3)
		assert.Equal(t, "SMTP 451 4.7.1", lines[0]["error"])
		assert.Equal(t, "unreachable", lines[1]["error"])
		assert.Equal(t, "sent", lines[2]["status"])
		both := mails.to("huda@example.com")
		assert.Equal(t, both[0].header.Get("Message-ID"), both[1].header.Get("Message-ID"))
		assert.Equal(t, both[0].body, both[1].body)

		t.Log("e-mail: nobody there")
		mails.will("gone@example.com", "550 5.1.1 no such user: gone@example.com")
		c.askCode("email", "gone@example.com", "").ok()
		failed := c.attempts("&method=email&status=failed", 1)[0]
		assert.Equal(t, "SMTP 550 5.1.1", failed["error"])
		h.quietAbout("huda@", "gone@")
	})
}

// A mail server elsewhere must encrypt before it is told anything. 0.0.0.0 is
// this machine under a name that does not say so.
func TestMailGoesNowhereInTheClear(t *testing.T) {
	t.Parallel()
	mails := newMail(t)
	h := newHouse(t, embedded, func(c *node.Config) {
		c.OTPFixedCode, c.SMTPURL = "", strings.Replace(mails.url, "127.0.0.1", "0.0.0.0", 1)
	})
	c := h.newClinic()
	c.askCode("email", "mona@example.com", "").ok()
	line := c.attempts("", 1)[0]
	assert.Equal(t, "retried handshake", fmt.Sprint(line["status"], " ", line["error"]))
	assert.Zero(t, mails.tries("mona@example.com"))
	assert.Contains(t, h.logged.String(), "STARTTLS")
	assert.NotContains(t, h.logged.String(), mailPassword)
}

func TestMessagesOfNoUseAreNotSent(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, _ *fakeTwilio, mails *fakeMail) {
		c := h.newClinic()
		t.Log("a message whose time is over")
		sealer, err := models.NewSealer([]byte(strings.Repeat("s", 32)), models.SealMessages)
		require.NoError(t, err)
		letter, err := json.Marshal(models.Letter{To: "late@example.com", Values: map[string]string{"code": "123456"}})
		require.NoError(t, err)
		require.NoError(t, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
			tx.Enqueue(models.Message{
				OrganizationID: c.id, Template: models.TemplateOTP, Method: "email", Until: tx.Now, Sealed: sealer.Seal(string(letter)),
			})
			tx.Enqueue(models.Message{OrganizationID: c.id, Template: "poem", Method: "email", Sealed: sealer.Seal(string(letter))})
			tx.Enqueue(models.Message{OrganizationID: c.id, Template: models.TemplateOTP, Method: "email", Sealed: "another key's"})
			return nil
		}))
		assert.Equal(t, "too late", c.attempts("&status=dropped", 1)[0]["error"])
		assert.Equal(t, "no template", c.attempts("&status=failed&template=poem", 1)[0]["error"])
		assert.Equal(t, "sealed", c.attempts("&status=failed&template=otp&method=email", 1)[0]["error"])
		assert.Zero(t, mails.tries("late@example.com"))

		t.Log("after 30 days the log is deleted")
		require.NoError(t, h.Notify.Tidy(context.Background()))
		kept := scalar[int](h, "SELECT count(*) FROM message_attempts")
		require.NotZero(t, kept)
		h.exec("UPDATE message_attempts SET created_at = ? WHERE status = 'failed'", time.Now().UTC().Add(-30*24*time.Hour-time.Minute))
		require.NoError(t, h.Notify.Tidy(context.Background()))
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM message_attempts"))
	})
}

// TestADeadCarrierHoldsUpNoOther asks for more codes by SMS than there are
// workers, of a provider that takes them and never answers.
func TestADeadCarrierHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, mails *fakeMail) {
		defer close(phones.hung)
		c := h.newClinic()
		for i := range 12 {
			phone := fmt.Sprintf("+9665000002%02d", i)
			phones.will(phone, "hang")
			c.askCode("sms", phone, "").ok()
		}
		require.Eventually(t, func() bool {
			phones.mu.Lock()
			defer phones.mu.Unlock()
			return len(phones.attempts) >= 4
		}, patience, 5*time.Millisecond)
		for i := range 5 {
			address := fmt.Sprintf("mona%d@example.com", i)
			c.askCode("email", address, "").ok()
		}
		for i := range 5 {
			mails.next(fmt.Sprintf("mona%d@example.com", i), 1)
		}
		phones.mu.Lock()
		defer phones.mu.Unlock()
		assert.Len(t, phones.attempts, 4, "no more than its places")
	})
}

func TestDevelopersReadMessagesAtTheConsole(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			mails, terminal := newMail(t), &logBook{}
			h := newHouse(t, b, func(c *node.Config) { c.OTPFixedCode, c.SMTPURL, c.Console = "", mails.url, terminal })
			c := h.newClinic()
			c.askCode("sms", "+966500000131", "").ok()
			require.Eventually(t, func() bool { return strings.Contains(terminal.String(), "── sms to +966500000131 ──") }, patience, 5*time.Millisecond)
			code := sixDigits.FindString(strings.ReplaceAll(terminal.String(), "+966500000131", ""))
			h.send(request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: object{"method": "sms", "phoneNumber": "+966500000131", "code": code}}).ok()
			c.askCode("email", "mona@example.com", "").ok()
			mails.next("mona@example.com", 1)
			assert.NotContains(t, terminal.String(), "mona@example.com", "that method has a sender")
			assert.False(t, tells(h.logged.String(), code))
		})
	}
}

func TestOrganizationsWordTheirMessages(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, mails *fakeMail) {
		c, other := h.newClinic(), h.newClinic()
		put := func(body object) answer { return c.staff(http.MethodPut, "/management/messages", body) }
		ours := c.staff(http.MethodGet, "/management/messages", nil).ok()
		assert.Len(t, ours.members("result.templates"), 8)
		assert.Equal(t, object{
			"oneDayBeforeAppointment": []any{"email", "sms"}, "oneHourBeforeAppointment": []any{"email", "sms"}, "tenMinutesBeforeAppointment": []any{},
			"beforeAppointment": []any{}, "afterAppointment": []any{}, "oneDayAfterAppointment": []any{},
		}, ours.members("result.reminders"))
		for name := range ours.members("result.templates") {
			for _, lang := range []string{"en", "ar"} {
				assert.NotEmpty(t, ours.str("result.templates."+name+"."+lang+".subject"))
				assert.NotEmpty(t, ours.str("result.templates."+name+"."+lang+".text"))
				assert.Equal(t, false, ours.at("result.templates."+name+"."+lang+".own"))
			}
		}

		changed := put(object{"templates": object{"otp": object{"en": object{"text": "Al Noor Clinic {{organization}} says {{ code }} {{code}}."}}}}).ok()
		assert.Equal(t, true, changed.at("result.templates.otp.en.own"))
		assert.Equal(t, ours.str("result.templates.otp.en.subject"), changed.str("result.templates.otp.en.subject"), "an empty subject is ours")
		assert.Equal(t, ours.at("result.templates.otp.ar"), changed.at("result.templates.otp.ar"))
		assert.Equal(t, ours.at("result.reminders"), changed.at("result.reminders"), "what is absent stays")
		c.askCode("sms", "+966500000141", "en").ok()
		assert.Regexp(t, `^Al Noor Clinic Al Noor says (\d{6}) (\d{6})\.$`, phones.next("+966500000141", 1).body)
		other.askCode("sms", "+966500000142", "en").ok()
		assert.Contains(t, phones.next("+966500000142", 1).body, "is your code for")

		t.Log("what a name holds is no gap and no header")
		h.exec("UPDATE organizations SET name = ? WHERE id = ?", "{{code}}\r\nBcc: all@example.com", other.id)
		other.askCode("email", "mona@example.com", "en").ok()
		got := mails.next("mona@example.com", 1)
		assert.Contains(t, got.subject(), "is your code for {{code}} Bcc: all@example.com")
		assert.Empty(t, got.header.Get("Bcc"))

		t.Log("empty gives our words back")
		restored := put(object{"templates": object{"otp": object{"en": object{"text": ""}}}}).ok()
		assert.Equal(t, ours.at("result.templates"), restored.at("result.templates"))
		c.approve("afterAppointment")
		ours = c.staff(http.MethodGet, "/management/messages", nil).ok()
		chosen := put(object{"reminders": object{"oneDayBeforeAppointment": []any{}, "afterAppointment": []any{"whatsapp", "email"}}}).ok()
		assert.Empty(t, chosen.list("result.reminders.oneDayBeforeAppointment"))
		assert.Equal(t, []any{"whatsapp", "email"}, chosen.list("result.reminders.afterAppointment"))
		chosen = put(object{"reminders": object{"oneDayBeforeAppointment": nil, "afterAppointment": nil}}).ok()
		assert.Equal(t, ours.at("result.reminders"), chosen.at("result.reminders"))

		before := c.staff(http.MethodGet, "/management/messages", nil).ok()
		text := func(template, lang, text string) object {
			return object{"templates": object{template: object{lang: object{"text": text}}}}
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
			{object{"templates": object{"otp": object{"en": object{"subject": "a\nb"}}}}, "templates.otp.en.subject"},
			{object{"templates": object{"otp": object{"en": object{"subject": strings.Repeat("a", 151)}}}}, "templates.otp.en.subject"},
			{object{"templates": object{"otp": object{"en": object{"subject": 7}}}}, "templates.otp.en.subject"},
			{object{"reminders": object{"someday": []any{"sms"}}}, "reminders.someday"},
			{object{"reminders": object{"afterAppointment": []any{"pigeon"}}}, "reminders.afterAppointment"},
			{object{"reminders": object{"afterAppointment": []any{"sms", "sms"}}}, "reminders.afterAppointment"},
		} {
			body, ok := wrong.body.(object)
			require.True(t, ok)
			refused := put(body).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Contains(t, refused.wrongFields(), wrong.field, "%s", refused.raw)
		}
		put(text("otp", "en", "{{code}}"+strings.Repeat("é", 692))).ok()
		put(text("otp", "en", "")).ok()
		assert.JSONEq(t, string(before.raw), string(c.staff(http.MethodGet, "/management/messages", nil).ok().raw))
		for _, query := range []string{"status=lost", "method=pigeon", "from=someday", "limit=0"} {
			c.staff(http.MethodGet, "/management/messages/log?"+query, nil).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
	})
}

// remindNow makes the next reminder of an appointment due, without moving the
// appointment.
func (h *house) remindNow(bookingID string, want models.Reminder) {
	h.t.Helper()
	require.Equal(h.t, string(want), scalar[string](h, "SELECT reminder_next FROM bookings WHERE id = ?", bookingID))
	h.exec("UPDATE bookings SET reminder_at = ? WHERE id = ?", time.Now().UTC(), bookingID)
	require.Eventually(h.t, func() bool {
		for _, e := range h.eventsOf(bookingID) {
			if e.Reminder == want {
				return scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'announce' AND state <> 'completed'") == 0
			}
		}
		return false
	}, patience, 10*time.Millisecond, "%s was not announced", want)
}

// reminded is a clinic whose patients have appointments.
type reminded struct {
	*clinic
	kind, room string
}

func (h *house) newReminded() reminded {
	c := h.newClinic()
	kind := c.newType(object{"name": "Checkup", "name_translations": object{"en": "Checkup", "ar": "فحص"}, "minutes": 30})
	return reminded{c, kind, c.newResource(object{"name": "Dr. Sarah", "name_translations": object{"ar": "د. سارة"}}, kind)}
}

// visit makes an appointment for a customer.
func (c reminded) visit(military int, customer object) string {
	c.t.Helper()
	return c.staff(http.MethodPut, "/management/scheduling/new", appointment(c.kind, "2031-02-05", military, object{
		"resourceFilters": object{"resource": c.room}, "customerIdentifier": customer,
	})).ok().str("id")
}

// choose sets the methods of a reminder.
func (c reminded) choose(r models.Reminder, methods ...string) {
	c.t.Helper()
	c.staff(http.MethodPut, "/management/messages", object{"reminders": object{string(r): append([]string{}, methods...)}}).ok()
}

func TestRemindersGoByTheFirstMethodThatCan(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, mails *fakeMail) {
		c := h.newReminded()
		visit := c.visit(1820, object{"phone": "+966500000151", "email": "mona@example.com", "firstName": "Mona"})
		ticket := c.staff(http.MethodGet, "/management/bookings/"+visit, nil).ok().str("result.ticket")
		h.remindNow(visit, models.ReminderDayBefore)
		got := mails.next("mona@example.com", 1)
		c.attempts("&bookingId="+visit, 1)
		assert.Equal(t, "Your appointment at Al Noor on Wednesday 5 February 2031", got.subject())
		assert.Equal(t, "A reminder from Al Noor: your appointment (Checkup, Dr. Sarah) is on Wednesday 5 February 2031 at 18:20.", got.body)
		c.approve(string(models.ReminderHourBefore))
		c.choose(models.ReminderHourBefore, "whatsapp", "email")
		h.remindNow(visit, models.ReminderHourBefore)
		assert.Equal(t, "A reminder from Al Noor: your appointment (Checkup, Dr. Sarah) is today at 18:20. Your ticket is "+ticket+".",
			phones.next("whatsapp:+966500000151", 1).body)
		c.attempts("&bookingId="+visit, 2)
		h.remindNow(visit, models.ReminderTenBefore)
		h.remindNow(visit, models.ReminderAtStart)
		c.choose(models.ReminderAfterEnd, "sms")
		h.remindNow(visit, models.ReminderAfterEnd)
		assert.Contains(t, phones.next("+966500000151", 1).body, "Thank you for your visit")
		lines := c.attempts("&bookingId="+visit, 3)
		for i, want := range [][2]any{{"oneDayBeforeAppointment", "email"}, {"oneHourBeforeAppointment", "whatsapp"}, {"afterAppointment", "sms"}} {
			assert.Equal(t, want, [2]any{lines[i]["template"], lines[i]["method"]})
		}
		h.quietAbout("966500000151", "mona@")
	})
}

func TestRemindersSpeakThePatientsLanguage(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, _ *fakeMail) {
		c := h.newReminded()
		c.askCode("sms", "+966500000152", "ar").ok()
		code := sixDigits.FindString(phones.next("+966500000152", 1).body)
		session := h.send(request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: object{"method": "sms", "phoneNumber": "+966500000152", "code": code}}).ok()
		arabic := c.visit(900, object{"phone": "+966500000152"})
		h.remindNow(arabic, models.ReminderDayBefore)
		assert.Equal(t, "تذكير من Al Noor: موعدك (فحص، د. سارة) يوم الأربعاء 5 فبراير 2031 الساعة 09:00.", phones.next("+966500000152", 2).body)
		h.send(request{method: http.MethodPost, path: "/devices", token: session.str("accessToken"), body: object{"token": "a-phone", "platform": "ios", "lang": "en"}}).ok()
		c.choose(models.ReminderHourBefore, "email", "sms")
		h.remindNow(arabic, models.ReminderHourBefore)
		assert.Contains(t, phones.next("+966500000152", 3).body, "is today at 09:00")
	})
}

func TestRemindersThatNobodyNeedsAreNotSent(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, _ *fakeTwilio, mails *fakeMail) {
		c := h.newReminded()
		h.remindNow(c.visit(1000, object{"firstName": "Omar"}), models.ReminderDayBefore)
		c.choose(models.ReminderDayBefore)
		h.remindNow(c.visit(1030, object{"email": "off@example.com"}), models.ReminderDayBefore)
		c.choose(models.ReminderDayBefore, "email")
		mails.will("gone@example.com", "451 4.3.0 later")
		gone := c.visit(1100, object{"email": "gone@example.com"})
		h.remindNow(gone, models.ReminderDayBefore)
		c.attempts("&bookingId="+gone, 1)
		c.act("cancel", gone, nil).ok()
		h.hurryMessage(5*time.Second, 5500*time.Millisecond)
		last := c.attempts("&bookingId="+gone, 2)[1]
		assert.Equal(t, "dropped obsolete", fmt.Sprint(last["status"], " ", last["error"]))
		assert.Empty(t, mails.to("gone@example.com"))
		assert.Zero(t, mails.tries("off@example.com"))
		assert.Len(t, c.messageLog(""), 2)
		h.quietAbout("gone@")
	})
}
