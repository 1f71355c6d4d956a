package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nowserving/notify/outbox"
)

// newPhones reads one URL of a provider, or several with spaces between, and
// returns the senders of each by method. callback is where Twilio reports what
// became of a message; empty: it is not asked to.
func newPhones(raw, callback string) ([]map[string]sender, error) {
	var providers []map[string]sender
	taken := map[string]bool{}
	for _, one := range strings.Fields(raw) {
		senders, err := newPhone(one, callback)
		if err != nil {
			return nil, err
		}
		for method := range senders {
			if taken[method] {
				return nil, fmt.Errorf("two providers send %s; keep one", method)
			}
			taken[method] = true
		}
		providers = append(providers, senders)
	}
	if len(providers) == 0 {
		return nil, errors.New("it is no URL")
	}
	return providers, nil
}

func newPhone(raw, callback string) (map[string]sender, error) {
	if strings.HasPrefix(raw, unifonicPrefix) {
		return newUnifonic(raw)
	}
	return newTwilio(raw, callback)
}

// newPhoneClient makes the HTTP client of a provider. Each request has the time
// limit of its context.
func newPhoneClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConns: maxSending, MaxIdleConnsPerHost: maxSending, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: maxAnswer,
		},
	}
}

// secured reports whether a URL's scheme encrypts, or its host is this machine.
func secured(u *url.URL) bool {
	return u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && loopback(u))
}

// errNotSecured reports a provider URL without TLS.
var errNotSecured = errors.New("it begins with https://; http:// is for this machine only")

// twilio sends SMS or WhatsApp messages through the messages resource of
// Twilio's API, version 2010-04-01, which others offer as well:
// https://www.twilio.com/docs/messaging/api/message-resource
type twilio struct {
	client         *http.Client
	address        string // of the resource
	account, token string
	from           string // with prefix
	service        string // the SID of a messaging service, instead of from
	prefix         string // of every number: "whatsapp:" or nothing
	callback       string // where it reports; empty: it does not
}

// The codes of Twilio that concern the account or our settings, whatever the
// message: https://www.twilio.com/docs/api/errors
var twilioOperator = []int{
	20003, // authenticate
	20005, // the account is not active
	21212, // the sender is not valid
	21603, // no sender
	21606, // the sender is not the account's, or can't send
	21701, // no such messaging service
	21703, // the messaging service has no sender
	63007, // no such sender for WhatsApp
}

// The codes of Twilio that concern the template of WhatsApp, which the
// organization can put right.
var twilioTemplate = []int{
	21655, // no such template
	21656, // the variables are not those of the template
}

// maxAnswer bounds what is read of a provider's answer, in bytes.
const maxAnswer = 64 << 10

// newTwilio reads a URL such as
// https://ACxxx:token@api.twilio.com/2010-04-01?from=%2B15005550006&whatsappFrom=%2B14155238886
// and returns a sender for each method it has a number for.
func newTwilio(raw, callback string) (map[string]sender, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("it is no URL") // the cause would show the token
	}
	token, _ := u.User.Password()
	switch {
	case !secured(u):
		return nil, errNotSecured
	case u.User.Username() == "" || token == "":
		return nil, errors.New("it names the account and its token: https://account:token@host/version")
	}
	client := newPhoneClient()
	base := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	address := base.JoinPath("Accounts", u.User.Username(), "Messages.json").String()
	senders := map[string]sender{}
	for name, values := range u.Query() {
		t := &twilio{client: client, address: address, account: u.User.Username(), token: token, callback: callback}
		method := methodSMS
		switch name {
		case "from", "messagingServiceSid":
		case "whatsappFrom":
			method, t.prefix = methodWhatsApp, "whatsapp:"
		default:
			return nil, errors.New("its parameters are from or messagingServiceSid, and whatsappFrom")
		}
		if len(values) != 1 || values[0] == "" || strings.ContainsAny(values[0], " \t") {
			return nil, errors.New("from and whatsappFrom are numbers such as %2B15005550006, the plus sign written %2B")
		}
		if t.from = t.prefix + values[0]; name == "messagingServiceSid" {
			t.from, t.service = "", values[0]
		}
		if senders[method] != nil {
			return nil, errors.New("it has from and messagingServiceSid; keep one")
		}
		senders[method] = t
	}
	if len(senders) == 0 {
		return nil, errors.New("it needs the number to send from: ?from=%2B15005550006 or messagingServiceSid=MG…, or whatsappFrom for WhatsApp")
	}
	return senders, nil
}

func (t *twilio) send(ctx context.Context, m outgoing) (string, error) {
	form := url.Values{"To": {t.prefix + m.To}}
	if m.Approved != nil {
		variables, err := json.Marshal(m.Approved.Variables)
		if err != nil {
			return "", &sendError{Code: "bad template", Final: true}
		}
		form.Set("ContentSid", m.Approved.ContentSID)
		form.Set("ContentVariables", string(variables))
	} else {
		form.Set("Body", m.Body)
	}
	if t.service != "" {
		form.Set("MessagingServiceSid", t.service)
	} else {
		form.Set("From", t.from)
	}
	if t.callback != "" {
		form.Set("StatusCallback", t.callback)
	}
	res, err := postForm(ctx, t.client, t.address, form, func(req *http.Request) { req.SetBasicAuth(t.account, t.token) })
	if res == nil {
		return "", err
	}
	var answer struct {
		SID  string `json:"sid"`
		Code int    `json:"code"`
	}
	if err := json.Unmarshal(res.body, &answer); err != nil || len(answer.SID) > 64 {
		answer.SID = "" // the status says enough
	}
	if res.status/100 == 2 {
		return answer.SID, nil // taken, whether or not all of the answer came
	}
	if err != nil {
		return "", err
	}
	e := refusedWith(res)
	if answer.Code != 0 {
		e.Code += " " + strconv.Itoa(answer.Code) // see https://www.twilio.com/docs/api/errors
	}
	switch {
	case slices.Contains(twilioOperator, answer.Code):
		e.Final, e.Operator = false, true
	case slices.Contains(twilioTemplate, answer.Code):
		e.Final = false
	}
	return "", e
}

// phoneAnswer is what a provider answered.
type phoneAnswer struct {
	status int
	header http.Header
	body   []byte
}

// postForm sends a form to a provider. Its errors are *sendError; the answer is
// there without all of its body when reading that failed.
func postForm(ctx context.Context, client *http.Client, address string, form url.Values, change func(*http.Request)) (*phoneAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &sendError{Code: "bad settings", Operator: true}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if change != nil {
		change(req)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if closing := res.Body.Close(); err == nil {
		err = closing
	}
	answer := &phoneAnswer{res.StatusCode, res.Header, raw}
	if err != nil {
		return answer, unreachable(err)
	}
	return answer, nil
}

// refusedWith is the sendError of an answer that is no success. 401, 403 and 404
// are about the credentials and the address of the provider, which every message
// shares; any other 4xx is about the message.
func refusedWith(res *phoneAnswer) *sendError {
	e := &sendError{Code: "HTTP " + strconv.Itoa(res.status)}
	switch res.status {
	case http.StatusTooManyRequests:
		e.After = outbox.RetryAfter(res.header, outbox.MaxRetryAfter, 0)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		e.Operator = true
	default:
		e.Final = res.status/100 == 4
	}
	return e
}
