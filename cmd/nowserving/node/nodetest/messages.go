package nodetest

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/models"
)

// OnBothWithSenders is OnBoth with nodes that send messages to a mail server and to
// Twilio, and whose one-time codes are secret.
func OnBothWithSenders(t *testing.T, test func(t *testing.T, h *Node, phones *Twilio, mails *Mail), change ...func(*node.Config)) {
	t.Helper()
	OnEach(t, func(t *testing.T, b Backend) {
		phones, mails := NewTwilio(t), NewMail(t)
		h := Start(t, b, func(c *node.Config) {
			c.OTPFixedCode, c.SMSURL, c.SMTPURL = "", phones.URL, mails.URL
			for _, f := range change {
				f(c)
			}
		})
		test(t, h, phones, mails)
	})
}

// AskCode asks for a one-time code.
func (c *Clinic) AskCode(method, address, lang string) Response {
	c.T.Helper()
	return c.Send(Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Lang: lang, Body: ContactOf(method, address)})
}

// ContactOf is the body of a request for a one-time code.
func ContactOf(method, address string) Object {
	if method == "email" {
		return Object{"method": method, "email": address}
	}
	return Object{"method": method, "phoneNumber": address}
}

// Approve gives a message a template of WhatsApp in both languages, whose only
// variable is the whole text.
func (c *Clinic) Approve(template string) {
	c.T.Helper()
	texts := c.Staff(http.MethodGet, "/management/messages", nil).OK().Members("result.templates." + template)
	approved := Object{}
	for _, lang := range []string{"en", "ar"} {
		approved[lang] = Object{"whatsapp": Object{"contentSid": NewSID("HX"), "variables": Object{"1": At(texts, lang+".text")}}}
	}
	c.Staff(http.MethodPut, "/management/messages", Object{"templates": Object{template: approved}}).OK()
}

// MessageLog returns the attempts to send messages, the oldest first.
func (c *Clinic) MessageLog(query string) []Object {
	c.T.Helper()
	items := c.Staff(http.MethodGet, "/management/messages/log?limit=100"+query, nil).OK().List("result")
	var list []Object
	for i := len(items) - 1; i >= 0; i-- {
		item, ok := items[i].(Object)
		require.True(c.T, ok)
		list = append(list, item)
	}
	return list
}

// Attempts waits until a query finds n attempts.
func (c *Clinic) Attempts(query string, n int) []Object {
	c.T.Helper()
	require.Eventually(c.T, func() bool { return len(c.MessageLog(query)) >= n }, Patience, 10*time.Millisecond, "%s: %v", query, c.MessageLog(query))
	list := c.MessageLog(query)
	require.Len(c.T, list, n)
	return list
}

// SixDigits matches a one-time code.
var SixDigits = regexp.MustCompile(`\d{6}`)

// Tells reports whether a text holds a secret. Six digits within a longer number or a
// time are not a code.
func Tells(text, secret string) bool {
	if SixDigits.FindString(secret) == secret {
		return regexp.MustCompile(`(^|[^\d.])` + secret + `(\D|$)`).MatchString(text)
	}
	return strings.Contains(text, secret)
}

// QuietAbout requires that neither the log nor the log of messages holds an address.
func (h *Node) QuietAbout(addresses ...string) {
	h.T.Helper()
	for _, address := range addresses {
		assert.NotContains(h.T, h.Log.String(), address)
		assert.Zero(h.T, Scalar[int](h, "SELECT count(*) FROM message_attempts WHERE error LIKE ? OR provider_id LIKE ?", "%"+address+"%", "%"+address+"%"))
	}
}

// RemindNow makes the next reminder of an appointment due, without moving the
// appointment.
func (h *Node) RemindNow(bookingID string, want models.Reminder) {
	h.T.Helper()
	require.Equal(h.T, string(want), Scalar[string](h, "SELECT reminder_next FROM bookings WHERE id = ?", bookingID))
	h.Exec("UPDATE bookings SET reminder_at = ? WHERE id = ?", time.Now().UTC(), bookingID)
	require.Eventually(h.T, func() bool {
		for _, e := range h.EventsOf(bookingID) {
			if e.Reminder == want {
				return Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'announce' AND state <> 'completed'") == 0
			}
		}
		return false
	}, Patience, 10*time.Millisecond, "%s was not announced", want)
}

// ReminderClinic is a clinic whose patients have appointments.
type ReminderClinic struct {
	*Clinic
	Kind, Room string
}

// NewReminded makes a clinic with a type and a resource for appointments.
func (h *Node) NewReminded() ReminderClinic {
	c := h.NewClinic()
	kind := c.NewType(Object{"name": "Checkup", "name_translations": Object{"en": "Checkup", "ar": "فحص"}, "minutes": 30})
	return ReminderClinic{c, kind, c.NewResource(Object{"name": "Dr. Sarah", "name_translations": Object{"ar": "د. سارة"}}, kind)}
}

// Visit makes an appointment for a customer.
func (c ReminderClinic) Visit(military int, customer Object) string {
	c.T.Helper()
	return c.Staff(http.MethodPut, JoinPath, Appointment(c.Kind, "2031-02-05", military, Object{
		"resourceFilters": Object{"resource": c.Room}, "customerIdentifier": customer,
	})).OK().Str("id")
}

// Choose sets the methods of a reminder.
func (c ReminderClinic) Choose(r models.Reminder, methods ...string) {
	c.T.Helper()
	c.Staff(http.MethodPut, "/management/messages", Object{"reminders": Object{string(r): append([]string{}, methods...)}}).OK()
}
