package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"code.dny.dev/ssrf"
	"github.com/riverqueue/river"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"nowserving/booking/store"
	"nowserving/notify/outbox"
)

const (
	// attemptTimeout bounds one attempt unless Options say otherwise, from looking up the name to the last
	// byte that is read of the answer.
	attemptTimeout = 15 * time.Second
	// answerTimeout is how long the answer's body is waited for: its status has
	// said all that counts.
	answerTimeout = 2 * time.Second
	// answerKept is how much of it is kept, in bytes.
	answerKept = 20_000
	// settleTimeout bounds writing down what came of an attempt, which goes on
	// when the service stops.
	settleTimeout = 5 * time.Second
	// failingLife is how long a webhook may do nothing but fail.
	failingLife = 5 * 24 * time.Hour
	// earlySlack is how much too early a job may come for its attempt.
	earlySlack = 5 * time.Second
)

// errNotHTTP stands in the log for an answer that can't be read.
var errNotHTTP = errors.New("the answer is not HTTP")

// retryWaits are the waits after the first, second, … failure; the failure
// after the last wait is final. (Standard Webhooks, "Retries".)
var retryWaits = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// deliver is the job that brings a delivery to its receiver: one job for all
// its attempts, which sleeps between them. What has happened stands in
// webhook_deliveries.
type deliver struct {
	DeliveryID string `json:"deliveryId"`
	// Round is the delivery's when the job was made; a replay begins another.
	Round int `json:"round"`
	// Receiver is scheme, host and port, so that a job which has to wait for its
	// receiver costs no query.
	Receiver string `json:"receiver"`
}

// Kind implements store.Job.
func (deliver) Kind() string { return "webhook" }

// Queue implements store.Job.
func (deliver) Queue() string { return outbox.QueueWebhooks }

type deliveryWorker struct {
	river.WorkerDefaults[deliver]
	webhooks *Webhooks
}

// dueDelivery is a delivery and what its webhook says about it.
type dueDelivery struct {
	ID             string
	OrganizationID string
	WebhookID      string
	Payload        string
	Status         DeliveryStatus
	Round          int
	Failures       int
	NextAttemptAt  *time.Time

	URL            string
	Secret         string
	OldSecret      string
	OldSecretUntil *time.Time
	FailingSince   *time.Time
}

// Work implements river.Worker.
func (w *deliveryWorker) Work(ctx context.Context, job *river.Job[deliver]) error {
	p, wait := w.webhooks.receivers.enter(ctx, job.Args.Receiver)
	if p == nil {
		return river.JobSnooze(wait)
	}
	d, a, err := w.webhooks.send(ctx, job.Args, p)
	if err != nil || a == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	wait, err = w.webhooks.settle(ctx, d, a)
	if err != nil {
		return fmt.Errorf("write down an attempt: %w", err)
	}
	if wait > 0 {
		return river.JobSnooze(wait)
	}
	return nil
}

// send makes an attempt if one is due; nil if there is nothing left to send. It
// gives the place back: what follows is the database's, not the receiver's.
func (h *Webhooks) send(ctx context.Context, job deliver, p *slot) (*dueDelivery, *attempt, error) {
	seen := healthUnknown
	defer func() { p.leave(seen) }()
	var d dueDelivery
	err := h.Store.Read(ctx).Raw(`SELECT d.id, d.organization_id, d.webhook_id, d.payload, d.status, d.round, d.failures, d.next_attempt_at,
		w.url, w.secret, w.old_secret, w.old_secret_until, w.failing_since
		FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
		JOIN organizations o ON o.id = d.organization_id AND o.deleted_at IS NULL WHERE d.id = ?`, job.DeliveryID).Scan(&d).Error
	if err != nil {
		return nil, nil, fmt.Errorf("read a delivery: %w", err)
	}
	if d.Status != DeliveryPending || d.Round != job.Round {
		return nil, nil, nil // delivered, given up, another job's since a replay, or of an organization that is deleted
	}
	// After a crash a job comes back at once, whenever its next attempt is due.
	if early := d.NextAttemptAt.Sub(h.Now()); early > earlySlack {
		return nil, nil, river.JobSnooze(early)
	}
	a, err := h.attempt(ctx, &d)
	if err != nil {
		return nil, nil, err
	}
	seen = a.health()
	return &d, a, nil
}

// attempt is what came of sending a delivery once.
type attempt struct {
	at      time.Time
	took    time.Duration // to the answer's headers, or to the failure
	status  int           // 0: no answer
	failure string        // one of the Failure constants, empty when delivered
	answer  string
	asked   time.Duration
}

func (a *attempt) delivered() bool { return a.status >= 200 && a.status <= 299 }

// health tells a receiver that is broken from one that dislikes this request:
// many organizations may share it.
func (a *attempt) health() health {
	if a.status == 0 || a.status >= http.StatusInternalServerError {
		return healthDead
	}
	return healthAlive
}

// attempt sends a delivery once. It fails only where nothing can be said of the
// receiver: the secret can't be read, or the service is stopping.
func (h *Webhooks) attempt(ctx context.Context, d *dueDelivery) (*attempt, error) {
	a := &attempt{at: h.Now()}
	within, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	var handshake atomic.Bool // failed
	traced := httptrace.WithClientTrace(within, &httptrace.ClientTrace{TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
		handshake.Store(err != nil)
	}})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, d.URL, strings.NewReader(d.Payload))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if err := h.sign(req.Header, d, a.at); err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "NowServing-Webhooks/1.0")
	began := time.Now()
	res, err := h.client.Do(req)
	a.took = time.Since(began)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // stopping: it may have arrived
		}
		a.failure = outbox.FailureOf(err, handshake.Load())
		// The address may hold a token, and an answer that is no HTTP may hold
		// anything: the error is logged without either.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		if a.failure == outbox.FailureProtocol {
			err = errNotHTTP
		}
		h.Log.Info("a webhook got no answer", "organization", d.OrganizationID, "webhook", d.WebhookID, "delivery", d.ID, "reason", a.failure, "error", err)
		return a, nil
	}
	defer res.Body.Close() //nolint:errcheck // it was read as far as it interests
	a.status, a.asked = res.StatusCode, askedWait(res)
	a.failure = outbox.FailureOfStatus(a.status)
	stop := time.AfterFunc(answerTimeout, cancel)
	defer stop.Stop()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, answerKept)) // half an answer is kept as well
	a.answer = strings.ReplaceAll(strings.ToValidUTF8(string(answer), "?"), "\x00", "?")
	return a, nil
}

// sign sets the signatures: those of Standard Webhooks, one for each secret
// that is valid, and the hex HMAC-SHA256 of the body under the newest secret as
// it is written, "whsec_" and all (iclinicos, "Webhooks").
func (h *Webhooks) sign(header http.Header, d *dueDelivery, at time.Time) error {
	secret, err := h.sealer.Open(d.Secret)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", d.WebhookID, err)
	}
	secrets := []string{secret}
	if d.OldSecretUntil != nil && at.Before(*d.OldSecretUntil) {
		old, err := h.sealer.Open(d.OldSecret)
		if err != nil {
			return fmt.Errorf("webhook %s: %w", d.WebhookID, err)
		}
		secrets = append(secrets, old)
	}
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		signer, err := standardwebhooks.NewWebhook(s)
		if err == nil {
			signatures[i], err = signer.Sign(d.ID, at, []byte(d.Payload))
		}
		if err != nil {
			return fmt.Errorf("sign for webhook %s: %w", d.WebhookID, err)
		}
	}
	header.Set(standardwebhooks.HeaderWebhookID, d.ID)
	header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(d.Payload))
	header.Set("x-icos-signature", hex.EncodeToString(mac.Sum(nil)))
	return nil
}

// askedWait is what a receiver that is busy asks for (RFC 9110, 10.2.3).
func askedWait(res *http.Response) time.Duration {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	return outbox.RetryAfter(res.Header, outbox.MaxRetryAfter, 0)
}

// verdict is what an attempt makes of its delivery.
type verdict struct {
	status  DeliveryStatus
	reason  string
	result  string        // as counted
	wait    time.Duration // until the next attempt, while pending
	dropped int           // other deliveries, of a webhook that was disabled
}

// settle writes down an attempt and returns how long to wait for the next one;
// 0: there is none.
func (h *Webhooks) settle(ctx context.Context, d *dueDelivery, a *attempt) (time.Duration, error) {
	var v verdict
	err := h.Store.Tx(ctx, func(tx *store.Tx) (err error) {
		// The webhook is changed before its deliveries, here and elsewhere, so
		// that two transactions can't wait for each other.
		if v, err = h.classify(tx, d, a); err != nil {
			return err
		}
		set := map[string]any{"status": v.status, "reason": v.reason, "next_attempt_at": nil, "finished_at": tx.Now}
		if v.status == DeliveryPending {
			set["next_attempt_at"], set["finished_at"] = tx.Now.Add(v.wait), nil
		}
		q := tx.Table("webhook_deliveries").Where("id = ?", d.ID)
		if v.status != DeliveryDelivered {
			set["failures"] = d.Failures + 1
			q = q.Where("round = ? AND status = ?", d.Round, DeliveryPending) // not replayed or dropped meanwhile
		}
		changed := q.Updates(set)
		if changed.Error != nil {
			return changed.Error
		}
		if changed.RowsAffected == 0 {
			v = verdict{result: outbox.ResultDropped}
		}
		return writeAttempt(tx, d, a)
	})
	if err != nil {
		return 0, err
	}
	h.Stats.Count(outbox.ChannelWebhook, v.result)
	for range v.dropped {
		h.Stats.Count(outbox.ChannelWebhook, outbox.ResultDropped)
	}
	return v.wait, nil
}

// classify decides what follows from an attempt, for the delivery and its webhook.
func (h *Webhooks) classify(tx *store.Tx, d *dueDelivery, a *attempt) (verdict, error) {
	webhook := tx.Table("webhooks").Where("id = ?", d.WebhookID)
	if a.delivered() {
		v := verdict{status: DeliveryDelivered, result: outbox.ResultSent}
		if d.FailingSince == nil {
			return v, nil
		}
		return v, webhook.Update("failing_since", nil).Error
	}
	reason := ""
	switch {
	case a.status == http.StatusGone:
		reason = outbox.ReasonGone
	case d.FailingSince != nil && tx.Now.Sub(*d.FailingSince) >= failingLife:
		reason = outbox.ReasonFailing
	}
	if reason != "" {
		dropped, err := h.disable(tx, d, reason)
		return verdict{status: DeliveryFailed, reason: reason, result: outbox.ResultFailed, dropped: dropped}, err
	}
	if d.FailingSince == nil {
		if err := webhook.Where("failing_since IS NULL").Update("failing_since", tx.Now).Error; err != nil {
			return verdict{}, err
		}
	}
	if d.Failures >= len(retryWaits) {
		return verdict{status: DeliveryFailed, reason: ReasonAttempts, result: outbox.ResultFailed}, nil
	}
	return verdict{status: DeliveryPending, result: outbox.ResultRetried, wait: waitAfter(d.Failures, a.asked)}, nil
}

// writeAttempt keeps the attempt itself for the log.
func writeAttempt(tx *store.Tx, d *dueDelivery, a *attempt) error {
	var now []Delivery
	err := tx.Raw("UPDATE webhook_deliveries SET attempts = attempts + 1 WHERE id = ? RETURNING attempts, payload", d.ID).Scan(&now).Error
	if err != nil || len(now) == 0 {
		return err // it was older than the log is kept
	}
	if now[0].Payload != d.Payload {
		a.answer = "" // whom they may repeat was erased meanwhile
	}
	return tx.Create(&Attempt{
		DeliveryID: d.ID, Number: now[0].Attempts, At: a.at.UTC().Truncate(time.Microsecond), DurationMs: int(a.took.Milliseconds()),
		StatusCode: a.status, Error: a.failure, Answer: a.answer,
	}).Error
}

// waitAfter is how long to wait after so many failures before the one at hand:
// as planned less up to a tenth, so that many that failed together part, or as
// long as the receiver asks.
func waitAfter(failures int, asked time.Duration) time.Duration {
	planned := retryWaits[failures]
	return max(planned-rand.N(planned/10), asked) //nolint:gosec // spreads load, guards nothing
}

// newHTTPClient makes the client of all deliveries. It follows no redirect and
// no proxy, and reaches nothing inside the network unless that is allowed: the
// address is checked when it is dialled, whatever the name led to before.
func newHTTPClient(guard *ssrf.Guardian) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if guard != nil {
		dialer.Control = guard.Safe
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			MaxIdleConns: 256, MaxIdleConnsPerHost: placesOfReceiver, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
