package handlers_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

const receiptsPath = "/messages/receipts/twilio"

// signedAs signs a form as Twilio does.
func signedAs(token, address string, form url.Values) string {
	text := address
	for _, name := range slices.Sorted(maps.Keys(form)) {
		text += name + form.Get(name)
	}
	mac := hmac.New(sha1.New, []byte(token))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// receipt is what Twilio reports of a message.
func receipt(sid, status, code string) url.Values {
	form := url.Values{
		"MessageSid": {sid}, "SmsSid": {sid}, "MessageStatus": {status}, "SmsStatus": {status}, "To": {"+966500000201"}, "From": {nodetest.SMSNumber},
		"AccountSid": {nodetest.TwilioAccount}, "ApiVersion": {"2010-04-01"},
	}
	if code != "" {
		form.Set("ErrorCode", code)
	}
	return form
}

// report sends a receipt with a signature.
func report(h *nodetest.Node, form url.Values, signature string) nodetest.Response {
	h.T.Helper()
	header := map[string]string{"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}
	if signature == "" {
		delete(header, "X-Twilio-Signature")
	}
	return h.Send(nodetest.Request{Method: http.MethodPost, Path: receiptsPath, Body: form.Encode(), Header: header})
}

func TestTheLogShowsTheDeliveryOfTexts(t *testing.T) {
	t.Parallel()
	// The example of Twilio's documentation.
	example := url.Values{"CallSid": {"CA1234567890ABCDE"}, "Caller": {"+14158675309"}, "Digits": {"1234"}, "From": {"+14158675309"}, "To": {"+18005551212"}}
	require.Equal(t, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", signedAs("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", example))
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, mails *nodetest.Mail) {
		c := h.NewClinic()
		address := nodetest.PublicURL + receiptsPath
		signed := func(form url.Values) nodetest.Response {
			return report(h, form, signedAs(nodetest.TwilioToken, address, form))
		}
		sent := func(phone string) (sid string) {
			c.AskCode("sms", phone, "").OK()
			got := phones.Next(phone, 1)
			assert.Equal(t, address, got.Form.Get("StatusCallback"))
			return got.ID
		}
		line := func(sid string) string {
			for _, line := range c.MessageLog("") {
				if line["providerId"] == sid {
					assert.Equal(t, line["delivery"] == "", line["deliveryAt"] == nil)
					return strings.Join(strings.Fields(fmt.Sprint(line["status"], " ", line["delivery"], " ", line["deliveryError"])), " ")
				}
			}
			return "no line"
		}
		for phone, one := range map[string]struct {
			reports [][2]string
			want    string
		}{
			"+966500000201": {[][2]string{{"queued", ""}, {"sent", ""}}, "sent"},
			"+966500000202": {[][2]string{{"sent", ""}, {"delivered", ""}}, "sent delivered"},
			"+966500000203": {[][2]string{{"delivered", ""}, {"sent", ""}, {"queued", ""}, {"delivered", ""}}, "sent delivered"},
			"+966500000204": {[][2]string{{"undelivered", "30003"}, {"undelivered", "30003"}}, "sent undelivered 30003"},
			"+966500000205": {[][2]string{{"failed", "30007"}, {"sent", ""}}, "sent failed 30007"},
			"+966500000206": {[][2]string{{"undelivered", "30003"}, {"delivered", ""}, {"undelivered", "30003"}}, "sent delivered"},
			"+966500000207": {[][2]string{{"read", ""}, {"delivered", ""}}, "sent delivered"},
			"+966500000208": {[][2]string{{"undelivered", "<b>+966500000208"}}, "sent undelivered"},
			"+966500000209": {[][2]string{{"strange", "1"}}, "sent"},
		} {
			sid := sent(phone) // the first receipt may come before the attempt is written down
			for _, report := range one.reports {
				require.Equal(t, http.StatusNoContent, signed(receipt(sid, report[0], report[1])).Status)
			}
			assert.Equal(t, one.want, line(sid), phone)
		}
		assert.Len(t, c.MessageLog("&delivery=undelivered"), 2)
		c.AskCode("email", "mona@example.com", "").OK()
		mails.Next("mona@example.com", 1)
		mailed := fmt.Sprint(c.Attempts("&method=email", 1)[0]["providerId"])

		t.Log("what Twilio did not sign changes nothing")
		sid := sent("+966500000210")
		form := receipt(sid, "failed", "30007")
		for _, signature := range []string{
			"", "nonsense", signedAs("another token", address, form), signedAs(nodetest.TwilioToken, "https://other.example"+receiptsPath, form),
			signedAs(nodetest.TwilioToken, address, receipt(sid, "delivered", "")),
		} {
			report(h, form, signature).Refused(http.StatusForbidden, models.CodeForbidden)
		}
		assert.Equal(t, "sent", line(sid))
		withPort := strings.Replace(address, "clinic.example", "clinic.example:443", 1)
		require.Equal(t, http.StatusNoContent, report(h, form, signedAs(nodetest.TwilioToken, withPort, form)).Status)
		assert.Equal(t, "sent failed 30007", line(sid))

		t.Log("a message that is not known")
		for _, unknown := range []string{nodetest.NewSID("SM"), "", mailed} {
			refused := signed(receipt(unknown, "delivered", "")).Refused(http.StatusNotFound, models.CodeRouteMissing)
			assert.Equal(t, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/nowhere"}).Str("detail"), refused.Str("detail"))
		}
		h.Send(nodetest.Request{Method: http.MethodGet, Path: receiptsPath}).Refused(http.StatusMethodNotAllowed, models.CodeMethod)
		h.QuietAbout("966500000201", "966500000208")
	})
}

// TestReceiptsAreCounted: what is not signed is charged to its address; what is
// signed has a budget of its own.
func TestReceiptsAreCounted(t *testing.T) {
	t.Parallel()
	const limit = 6
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.Twilio, _ *nodetest.Mail) {
		form := receipt(nodetest.NewSID("SM"), "delivered", "")
		signature := signedAs(nodetest.TwilioToken, nodetest.PublicURL+receiptsPath, form)
		refusals := 0
		for report(h, form, "nonsense").Status == http.StatusForbidden {
			refusals++
			require.Less(t, refusals, 100)
		}
		assert.GreaterOrEqual(t, refusals, limit)
		report(h, form, "nonsense").Refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
		report(h, form, signature).Refused(http.StatusNotFound, models.CodeRouteMissing)
	}, nodetest.LimitedTo(limit))
}

// TestWithoutAPublicAddressNothingIsReported: Twilio is not asked to report to an
// address that it can't reach, and nothing is believed.
func TestWithoutAPublicAddressNothingIsReported(t *testing.T) {
	t.Parallel()
	const inside = "http://clinic"
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		c.AskCode("sms", "+966500000221", "").OK()
		got := phones.Next("+966500000221", 1)
		assert.False(t, got.Form.Has("StatusCallback"))
		form := receipt(got.ID, "delivered", "")
		report(h, form, signedAs(nodetest.TwilioToken, inside+receiptsPath, form)).Refused(http.StatusForbidden, models.CodeForbidden)
	}, func(c *node.Config) { c.PublicURL = inside })
}
