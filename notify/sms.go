package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// twilio sends SMS or WhatsApp messages through the messages resource of
// Twilio's API, version 2010-04-01, which others offer as well:
// https://www.twilio.com/docs/messaging/api/message-resource
type twilio struct {
	client         *http.Client
	address        string // of the resource
	account, token string
	from           string // with prefix
	prefix         string // of every number: "whatsapp:" or nothing
}

// maxAnswer bounds what is read of a provider's answer, in bytes.
const maxAnswer = 64 << 10

// newTwilio reads a URL such as
// https://ACxxx:token@api.twilio.com/2010-04-01?from=%2B15005550006&whatsappFrom=%2B14155238886
// and returns a sender for each method it has a number for.
func newTwilio(raw string) (map[string]sender, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("it is no URL") // the cause would show the token
	}
	token, _ := u.User.Password()
	switch {
	case u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u)):
		return nil, errors.New("it begins with https://; http:// is for this machine only")
	case u.User.Username() == "" || token == "":
		return nil, errors.New("it names the account and its token: https://account:token@host/version")
	}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConns: maxSending, MaxIdleConnsPerHost: maxSending, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: maxAnswer,
		},
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	address := base.JoinPath("Accounts", u.User.Username(), "Messages.json").String()
	senders := map[string]sender{}
	for name, values := range u.Query() {
		t := &twilio{client: client, address: address, account: u.User.Username(), token: token}
		method := methodSMS
		switch name {
		case "from":
		case "whatsappFrom":
			method, t.prefix = methodWhatsApp, "whatsapp:"
		default:
			return nil, errors.New("its parameters are from and whatsappFrom")
		}
		if len(values) != 1 || values[0] == "" || strings.ContainsAny(values[0], " \t") {
			return nil, errors.New("from and whatsappFrom are numbers such as %2B15005550006, the plus sign written %2B")
		}
		t.from = t.prefix + values[0]
		senders[method] = t
	}
	if len(senders) == 0 {
		return nil, errors.New("it needs the number to send from: ?from=%2B15005550006, or whatsappFrom for WhatsApp")
	}
	return senders, nil
}

func (t *twilio) send(ctx context.Context, m outgoing) (string, error) {
	form := url.Values{"To": {t.prefix + m.To}, "From": {t.from}, "Body": {m.Body}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", &sendError{Code: "bad address", Final: true}
	}
	req.SetBasicAuth(t.account, t.token)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	res, err := t.client.Do(req)
	if err != nil {
		return "", unreachable(err)
	}
	raw, reading := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err := res.Body.Close(); reading == nil {
		reading = err
	}
	var answer struct {
		SID  string `json:"sid"`
		Code int    `json:"code"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || len(answer.SID) > 64 {
		answer.SID = "" // the status says enough
	}
	if res.StatusCode/100 == 2 {
		return answer.SID, nil // taken, whether or not all of the answer came
	}
	if reading != nil {
		return "", unreachable(reading)
	}
	e := &sendError{Code: "HTTP " + strconv.Itoa(res.StatusCode)}
	if answer.Code != 0 {
		e.Code += " " + strconv.Itoa(answer.Code) // see https://www.twilio.com/docs/api/errors
	}
	switch {
	case res.StatusCode == http.StatusTooManyRequests:
		e.After = retryAfter(res.Header, maxRetryAfter, 0)
	case res.StatusCode/100 == 4:
		e.Final = true
	}
	return "", e
}
