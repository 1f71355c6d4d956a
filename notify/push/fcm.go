package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"nowserving/notify/outbox"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/errorutils"
	"firebase.google.com/go/v4/messaging"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"
)

// FCMOptions configure pushes.
type FCMOptions struct {
	// Credentials is a service account as JSON. Empty: no pushes.
	Credentials string
	// Endpoint replaces Google's address, without authentication: tests.
	Endpoint string
	// Live, if set, returns the positions that customers were last sent over live
	// connections. They are not pushed as well.
	Live func(ctx context.Context, organizationID string, bookingIDs []string) (map[string]int, error)
}

const (
	// fcmScope is the OAuth scope of a service account.
	fcmScope = "https://www.googleapis.com/auth/firebase.messaging"
	// fcmBatch is the most messages of one call (FCM, "Send messages in batches").
	fcmBatch = 500
	// fcmPause is the pause after a 429 without Retry-After (FCM, "Scale your send
	// rate"), and fcmPauseMost the longest pause.
	fcmPause     = time.Minute
	fcmPauseMost = time.Hour
	// fcmAnswer bounds an answer, in bytes.
	fcmAnswer = 64 << 10
	// sendTimeout bounds sending a batch.
	sendTimeout = 15 * time.Second
)

// newMessaging makes the client of FCM and its transport. Both are nil if FCM is not
// configured.
func newMessaging(ctx context.Context, o FCMOptions) (*messaging.Client, *throttledTransport, error) {
	if o.Credentials == "" && o.Endpoint == "" {
		return nil, nil, nil
	}
	account := struct {
		ProjectID string `json:"project_id"`
	}{"nowserving"}
	if o.Credentials != "" {
		account.ProjectID = ""
		if err := json.Unmarshal([]byte(o.Credentials), &account); err != nil || account.ProjectID == "" {
			return nil, nil, errors.New("NOWSERVING_FCM_CREDENTIALS is not the JSON of a service account with a project_id")
		}
	}
	var way http.RoundTripper = &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second,
	}
	var options []option.ClientOption
	if o.Endpoint != "" {
		endpoint := strings.TrimRight(o.Endpoint, "/")
		if !strings.HasSuffix(endpoint, "/v1") {
			endpoint += "/v1"
		}
		options = append(options, option.WithEndpoint(endpoint))
	} else {
		var err error
		way, err = htransport.NewTransport(ctx, way, option.WithScopes(fcmScope), option.WithAuthCredentialsJSON(option.ServiceAccount, []byte(o.Credentials)))
		if err != nil {
			return nil, nil, fmt.Errorf("use NOWSERVING_FCM_CREDENTIALS: %w", err)
		}
	}
	l := &throttledTransport{way: way}
	app, err := firebase.NewApp(ctx, &firebase.Config{ProjectID: account.ProjectID}, append(options, option.WithHTTPClient(&http.Client{Transport: l}))...)
	if err != nil {
		return nil, nil, fmt.Errorf("set FCM up: %w", err)
	}
	client, err := app.Messaging(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("set FCM up: %w", err)
	}
	return client, l, nil
}

// throttledTransport is the HTTP transport to FCM. The SDK would retry a 503 or a
// lost answer by itself, ignoring the Retry-After of other requests and without
// marking a redelivery. So each attempt is one request here, and the caller retries.
// After a 429 no request is sent until FCM allows it.
type throttledTransport struct {
	way http.RoundTripper

	mu     sync.Mutex
	closed time.Time // until when nothing is sent
}

// wait returns how long no request is sent.
func (l *throttledTransport) wait() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(time.Until(l.closed), 0)
}

func (l *throttledTransport) close(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.closed) {
		l.closed = until
	}
}

// The codes of answers that are made here, in the place of FCM's.
const (
	codeClosed   = "PAUSED"
	codeNoAnswer = "NO_ANSWER"
)

// RoundTrip implements http.RoundTripper. It never fails.
func (l *throttledTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if wait := l.wait(); wait > 0 {
		if r.Body != nil {
			r.Body.Close() //nolint:errcheck // it was never read
		}
		return answerWith(r, http.StatusTooManyRequests, codeClosed, "", wait), nil
	}
	res, err := l.way.RoundTrip(r)
	if err != nil {
		return answerWith(r, http.StatusBadGateway, codeNoAnswer, err.Error(), 0), nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, fcmAnswer))
	if closing := res.Body.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return answerWith(r, http.StatusBadGateway, codeNoAnswer, err.Error(), 0), nil
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	switch res.StatusCode {
	case http.StatusTooManyRequests:
		l.close(outbox.RetryAfter(res.Header, fcmPauseMost, fcmPause))
	case http.StatusServiceUnavailable:
		res.StatusCode = http.StatusInternalServerError // the body still says which
	}
	return res, nil
}

// answerWith makes an answer in FCM's form.
func answerWith(r *http.Request, status int, code, message string, wait time.Duration) *http.Response {
	var told fcmError
	told.Error.Status, told.Error.Message = code, message
	body, err := json.Marshal(told)
	if err != nil {
		body = nil // a code and a text are always JSON
	}
	res := &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	if wait > 0 {
		res.Header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	}
	return res
}

// fcmError is the body of an answer that is not 200
// (google.rpc.Status with google.firebase.fcm.v1.FcmError among its details).
type fcmError struct {
	Error struct {
		Status  string `json:"status"`
		Message string `json:"message"`
		Details []struct {
			ErrorCode       string `json:"errorCode"`
			FieldViolations []struct {
				Field string `json:"field"`
			} `json:"fieldViolations"`
		} `json:"details"`
	} `json:"error"`
}

// What becomes of a push.
const (
	pushSending      = "sending"      // or in doubt: it may have arrived
	pushRefused      = "refused"      // not now; to be tried again
	pushSent         = "sent"         // FCM has it
	pushFailed       = "failed"       // for good
	pushUnregistered = "unregistered" // for good: the device is gone
)

// outcome is the outcome of one push.
type outcome struct {
	status string
	code   string        // why not, in FCM's words
	detail string        // of what went wrong on the way
	wait   time.Duration // FCM asks to wait so long; 0: it does not say
}

// again reports whether the push has to be sent again.
func (o outcome) again() bool { return o.status == pushSending || o.status == pushRefused }

// judge reads the answer to one message (FCM, "ErrorCode").
func judge(err error) outcome {
	if err == nil {
		return outcome{status: pushSent}
	}
	res := errorutils.HTTPResponse(err) //nolint:bodyclose // a copy in memory
	if res == nil {
		return outcome{status: pushSending, code: codeNoAnswer, detail: err.Error()}
	}
	var told fcmError
	body, broken := io.ReadAll(res.Body)
	if broken == nil {
		broken = json.Unmarshal(body, &told)
	}
	o := outcome{status: pushFailed, code: told.Error.Status, wait: outbox.RetryAfter(res.Header, fcmPauseMost, 0)}
	badToken := false
	for _, d := range told.Error.Details {
		if d.ErrorCode != "" {
			o.code = d.ErrorCode
		}
		for _, v := range d.FieldViolations {
			badToken = badToken || v.Field == "message.token"
		}
	}
	if broken != nil || o.code == "" {
		o.code = strconv.Itoa(res.StatusCode)
	}
	switch {
	case o.code == "UNREGISTERED", o.code == "INVALID_ARGUMENT" && badToken:
		o.status = pushUnregistered
	case res.StatusCode == http.StatusTooManyRequests:
		o.status, o.wait = pushRefused, outbox.RetryAfter(res.Header, fcmPauseMost, fcmPause)
	case o.code == "UNAVAILABLE", res.StatusCode == http.StatusUnauthorized:
		o.status = pushRefused
	case res.StatusCode >= http.StatusInternalServerError:
		o.status = pushSending
		if o.code == codeNoAnswer { // the words of the line; FCM's may repeat a token
			o.detail = told.Error.Message
		}
	}
	return o
}

// send sends at most 500 messages and returns the outcome of each.
func (p *Pushes) send(ctx context.Context, messages []*messaging.Message) ([]outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	batch, err := p.client.SendEach(ctx, messages)
	if err != nil {
		return nil, fmt.Errorf("send pushes: %w", err)
	}
	outcomes := make([]outcome, len(messages))
	var trouble *outcome
	retried := 0
	for i, r := range batch.Responses {
		o := judge(r.Error)
		outcomes[i] = o
		switch {
		case o.again():
			retried++
			trouble = &outcomes[i]
			p.Stats.Count(outbox.ChannelPush, outbox.ResultRetried)
		case o.status == pushUnregistered:
			p.Stats.Count(outbox.ChannelPush, outbox.ResultUnregistered)
		case o.status == pushFailed:
			trouble = &outcomes[i]
			p.Stats.Count(outbox.ChannelPush, outbox.ResultFailed)
		default:
			p.Stats.Count(outbox.ChannelPush, outbox.ResultSent)
		}
	}
	if trouble != nil && trouble.code != codeClosed {
		p.Log.Warn("FCM did not take all pushes", "of", len(messages), "again", retried, "code", trouble.code, "detail", trouble.detail, "wait", trouble.wait.String())
	}
	return outcomes, nil
}
