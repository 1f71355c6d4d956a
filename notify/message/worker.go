package message

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

const (
	// messageTimeout bounds one attempt to send a message.
	messageTimeout = 15 * time.Second
	// noteTimeout bounds logging the outcome of an attempt.
	noteTimeout = 5 * time.Second
	// firstPause is the pause after the first failure. Each further pause is twice as
	// long, up to maxPause.
	firstPause = 5 * time.Second
	maxPause   = time.Hour
	// messageLife is how long a message is useful by default.
	messageLife = 24 * time.Hour
	// maxSending bounds the messages under way to one provider on a node. It is less
	// than the number of workers, so that a dead provider leaves some free.
	maxSending = 4
	// operatorPause is the pause of a provider that refuses our settings. A node that
	// is started with other settings tries at once.
	operatorPause = time.Minute
	// placePatience is how long a message waits to be one of maxSending.
	placePatience = 250 * time.Millisecond
)

// outgoing is a message that is ready to be sent.
type outgoing struct {
	ID      string // the same each time the message is sent
	To      string // a phone number in E.164, or an e-mail address
	From    string // the organization's name
	Subject string // for e-mail
	Body    string
	// Approved is the WhatsApp template with its variables, in place of the body.
	// Nil: there is none.
	Approved *Approved
}

// sender sends messages by a mail server, an SMS provider or the console. It returns
// the provider's id of the message, if there is one. Its errors are *sendError and
// hold no text and no address.
type sender interface {
	send(ctx context.Context, t outgoing) (receipt string, err error)
}

// sendError is the reason why a provider did not accept a message.
type sendError struct {
	// Code is short and stable, fit for a log: "HTTP 503", "SMTP 550", "timeout".
	Code string
	// Final reports that the message will never be accepted.
	Final bool
	// Operator reports that no message will be accepted until the operator changes a
	// setting or the account, such as a password or a sender's name.
	Operator bool
	// After is the pause that the provider asks for. Zero: none.
	After time.Duration
	// Cause has details, if they are known to hold no personal data.
	Cause error
}

// Error implements error.
func (e *sendError) Error() string {
	if e.Cause != nil {
		return "the carrier did not take the message: " + e.Code + ": " + e.Cause.Error()
	}
	return "the carrier did not take the message: " + e.Code
}

// unreachable is the sendError of a failed network. Only errors of the network itself
// are shown, because they name hosts and no people.
func unreachable(err error) *sendError {
	e := &sendError{Code: "unreachable"}
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		e.Cause = operation
	}
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		e.Code = "timeout"
	}
	return e
}

// provider is a sender with its limits.
type provider struct {
	sender
	setting string // that configures it
	places  chan struct{}

	mu sync.Mutex
	// rests is until when no message is sent, because the provider refuses our
	// settings.
	rests time.Time
}

func newProvider(s sender, setting string, places chan struct{}) *provider {
	return &provider{sender: s, setting: setting, places: places}
}

func newPlaces() chan struct{} { return make(chan struct{}, maxSending) }

// resting returns how long no message is to be sent, or 0.
func (c *provider) resting(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.rests.Sub(now))
}

// rest pauses the provider and reports whether it was not paused already.
func (c *provider) rest(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	begins := !c.rests.After(now)
	c.rests = now.Add(operatorPause)
	return begins
}

// Messages sends messages to people.
type Messages struct {
	outbox.Deps
	opts      Options
	sealer    *models.Sealer
	links     *models.Signer       // of calendar files
	providers map[string]*provider // by method
	// configured are the methods with a provider other than the console.
	configured map[string]bool
	reporting  []*twilio // whose receipts are believed
}

// Options configure messages.
type Options struct {
	outbox.Deps
	// Secret seals addresses and texts in jobs, and signs links; at least 32 bytes.
	Secret []byte
	// PublicURL begins the URLs in messages.
	PublicURL string
	// Receipts reports that PublicURL is reachable from the internet, so that
	// providers are asked for delivery receipts.
	Receipts bool
	// Console gets the messages for which no sender is configured. Nil: they are not
	// sent. Development only.
	Console io.Writer
	// SMTPURL sends e-mail, and SMSURL messages to phones. Empty: not configured.
	SMTPURL string
	SMSURL  string
}

// New makes the channel.
func New(o Options) (*Messages, error) {
	p := &Messages{Deps: o.Deps, opts: o, providers: map[string]*provider{}, configured: map[string]bool{}}
	var err error
	if p.sealer, err = models.NewSealer(o.Secret, models.SealMessages); err != nil {
		return nil, err
	}
	if p.links, err = models.NewSigner(o.Secret, models.SignCalendarLinks); err != nil {
		return nil, err
	}
	if o.SMTPURL != "" {
		mail, err := newSMTP(o.SMTPURL, o.PublicURL, o.Now)
		if err != nil {
			return nil, fmt.Errorf("the URL of the mail server: %w", err)
		}
		p.providers[methodEmail] = newProvider(mail, settingSMTP, newPlaces())
	}
	if o.SMSURL != "" {
		callback := ""
		if o.Receipts {
			callback = strings.TrimRight(o.PublicURL, "/") + ReceiptsPath
		}
		providers, err := newPhones(o.SMSURL, callback)
		if err != nil {
			return nil, fmt.Errorf("the URL of the SMS provider: %w", err)
		}
		for _, senders := range providers {
			places := newPlaces() // of one provider, whatever the method
			for method, sender := range senders {
				p.providers[method] = newProvider(sender, settingSMS, places)
				if t, ok := sender.(*twilio); ok {
					p.reporting = append(p.reporting, t)
				}
			}
		}
	}
	for method := range p.providers {
		p.configured[method] = true
	}
	if o.Console == nil {
		return p, nil
	}
	for _, method := range methods {
		if p.providers[method] == nil {
			p.providers[method] = newProvider(&console{method: method, out: o.Console}, "", newPlaces())
		}
	}
	return p, nil
}

// The methods messages are sent by.
const (
	methodEmail    = "email"
	methodSMS      = "sms"
	methodWhatsApp = "whatsapp"
)

// The settings that configure carriers.
const (
	settingSMTP = "NOWSERVING_SMTP_URL"
	settingSMS  = "NOWSERVING_SMS_URL"
)

var methods = []string{methodEmail, methodSMS, methodWhatsApp}

// CanSend reports whether messages can be sent by a method: sms, whatsapp or
// email.
func (p *Messages) CanSend(method string) bool { return p.providers[method] != nil }

// Configured is CanSend without the console.
func (p *Messages) Configured(method string) bool { return p.configured[method] }

// CheckSenders checks the URLs of Options. Either may be empty. The errors name the
// settings and show no credentials.
func CheckSenders(smtpURL, smsURL string) error {
	var errs []error
	if smtpURL != "" {
		if _, err := newSMTP(smtpURL, "", nil); err != nil {
			errs = append(errs, fmt.Errorf(settingSMTP+": %w", err))
		}
	}
	if smsURL != "" {
		if _, err := newPhones(smsURL, ""); err != nil {
			errs = append(errs, fmt.Errorf(settingSMS+": %w", err))
		}
	}
	return errors.Join(errs...)
}

// loopback reports whether a URL's host is this machine, which needs no encryption.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// messageWorker sends one message. It is a river.Worker.
type messageWorker struct {
	river.WorkerDefaults[models.Message]
	messages *Messages
}

// Register adds the worker that sends messages to workers.
func (p *Messages) Register(workers *river.Workers) {
	river.AddWorker(workers, &messageWorker{messages: p})
}

// messageID returns the id of a message: the same for each attempt, and unique even
// if the database is created again.
func messageID(job *rivertype.JobRow) string {
	return strconv.FormatInt(job.ID, 36) + "." + strconv.FormatInt(job.CreatedAt.UnixMicro(), 36)
}

// Work implements river.Worker: one attempt. Its outcome is logged before the job
// ends, so a message is sent twice only if the node dies in between or the provider's
// answer is lost.
func (w *messageWorker) Work(ctx context.Context, job *river.Job[models.Message]) error {
	p, m := w.messages, &job.Args
	a := &Attempt{
		OrganizationID: m.OrganizationID, MessageID: messageID(job.JobRow), BookingID: m.BookingID, Template: m.Template, Method: m.Method,
	}
	var before struct{ Made, Over int }
	err := p.Store.Read(ctx).Raw("SELECT count(*) AS made, count(CASE WHEN status <> ? THEN 1 END) AS over FROM message_attempts WHERE message_id = ?",
		MessageRetried, a.MessageID).Scan(&before).Error
	if err != nil {
		return fmt.Errorf("read the attempts at a message: %w", err)
	}
	if before.Over > 0 {
		return nil
	}
	a.Attempt = before.Made + 1
	now, err := p.Store.Now(ctx)
	if err != nil {
		return err
	}
	until := m.Until
	if until.IsZero() {
		until = job.CreatedAt.Add(messageLife)
	}
	if !now.Before(until) {
		return p.end(ctx, a, MessageDropped, "too late")
	}
	if obsolete, err := p.obsolete(ctx, m); err != nil {
		return err
	} else if obsolete {
		return p.end(ctx, a, MessageDropped, "obsolete")
	}
	t, err := p.word(ctx, m)
	if err == nil && m.ToMember {
		if known, err := p.member(ctx, m.OrganizationID, t.To); err != nil {
			return err
		} else if !known {
			return p.end(ctx, a, MessageDropped, "nobody")
		}
	}
	if err == nil {
		t.ID = a.MessageID
		err = p.send(ctx, t, a)
	}
	if err == nil {
		return p.end(ctx, a, MessageSent, "")
	}
	failure, ok := errors.AsType[*sendError](err)
	if !ok || ctx.Err() != nil {
		return err // not the provider's fault; or the node stops, and another one retries
	}
	return p.retry(ctx, a, failure, until.Sub(now))
}

// retry logs a failed attempt. It returns when to try again, unless that would be too
// late or of no use.
func (p *Messages) retry(ctx context.Context, a *Attempt, failure *sendError, left time.Duration) error {
	pause := max(failure.After, pauseAfter(a.Attempt))
	if failure.Operator {
		pause = p.providers[a.Method].waitForOperator(p.Now(), p.Log, failure)
	}
	status := MessageRetried
	if failure.Final || pause >= left {
		status = MessageFailed
	}
	p.Log.Warn("a message was not sent", "message", a.MessageID, "template", a.Template, "method", a.Method, "attempt", a.Attempt, "status", status, "error", failure)
	if err := p.end(ctx, a, status, failure.Code); err != nil || status == MessageFailed {
		return err
	}
	return river.JobSnooze(pause)
}

// send sends a message, once the provider has room for it, and records how long that
// took and the provider's id.
func (p *Messages) send(ctx context.Context, t outgoing, a *Attempt) error {
	via := p.providers[a.Method]
	if via == nil { // another node may be set up already
		return &sendError{Code: "no sender"}
	}
	if p.needsApproved(a.Method) && t.Approved == nil { // deleted meanwhile; there may be one again
		return &sendError{Code: "no approved template"}
	}
	if wait := via.resting(p.Now()); wait > 0 {
		return river.JobSnooze(wait + rand.N(operatorPause/10)) //nolint:gosec // spreads attempts, nothing secret
	}
	patience := time.NewTimer(placePatience)
	defer patience.Stop()
	select {
	case via.places <- struct{}{}:
		defer func() { <-via.places }()
	case <-patience.C:
		return river.JobSnooze(time.Second + rand.N(time.Second)) //nolint:gosec // spreads attempts, nothing secret
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, messageTimeout)
	defer cancel()
	began := p.Now()
	receipt, err := via.send(ctx, t)
	a.DurationMS, a.ProviderID = p.Now().Sub(began).Milliseconds(), receipt
	return err
}

// waitForOperator pauses the provider after an error and returns how long the message
// has to wait. No message is lost before it is useless.
func (c *provider) waitForOperator(now time.Time, log *slog.Logger, cause *sendError) time.Duration {
	if c.rest(now) {
		log.Error("the carrier does not accept our settings: messages are kept and tried again every minute, and at once after a restart with other settings",
			"setting", c.setting, "error", cause)
	}
	return operatorPause + rand.N(operatorPause/10) //nolint:gosec // spreads attempts, nothing secret
}

// pauseAfter returns the pause after a failed attempt, the first being 1.
func pauseAfter(attempt int) time.Duration {
	pause := firstPause
	for range attempt - 1 {
		if pause *= 2; pause >= maxPause {
			pause = maxPause
			break
		}
	}
	return pause + rand.N(pause/10) //nolint:gosec // spreads attempts, nothing secret
}

// results are how the states of attempts are counted.
var results = map[Status]string{
	MessageSent: outbox.ResultSent, MessageRetried: outbox.ResultRetried, MessageFailed: outbox.ResultFailed, MessageDropped: outbox.ResultDropped,
}

// end logs the outcome of an attempt, even while the node stops.
func (p *Messages) end(ctx context.Context, a *Attempt, status Status, code string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	a.ID, a.Status, a.Error = models.NewID(), status, code
	err := p.Store.Tx(ctx, func(tx *store.Tx) error {
		var there int64
		if err := tx.Model(&models.Organization{}).Where("id = ?", a.OrganizationID).Count(&there).Error; err != nil || there == 0 {
			return err // deleted for good meanwhile, and its log with it
		}
		a.CreatedAt = tx.Now
		return tx.Create(a).Error
	})
	if err != nil {
		return fmt.Errorf("write down an attempt at a message: %w", err)
	}
	p.Stats.Count(outbox.ChannelMessage, results[status])
	return nil
}

// word opens a message and makes its text. A *sendError is returned if that will
// never be possible.
func (p *Messages) word(ctx context.Context, m *models.Message) (outgoing, error) {
	tmpl, ok := templates[m.Template]
	if !ok {
		return outgoing{}, &sendError{Code: "no template", Final: true}
	}
	content, err := models.OpenMessageContent(p.sealer, m.Sealed)
	if err != nil || content.To == "" {
		return outgoing{}, &sendError{Code: "sealed", Final: true}
	}
	var row struct {
		Name    string
		Subject string
		Text    string
	}
	err = p.Store.Read(ctx).Raw(`SELECT o.name, COALESCE(w.subject, '') AS subject, COALESCE(w.text, '') AS text FROM organizations o
		LEFT JOIN message_wordings w ON w.organization_id = o.id AND w.template = ? AND w.lang = ? WHERE o.id = ?`,
		m.Template, languageOf(m.Lang), m.OrganizationID).Scan(&row).Error
	if err != nil {
		return outgoing{}, fmt.Errorf("read the wording of a message: %w", err)
	}
	w := Wording{row.Subject, row.Text}.or(tmpl.by(m.Method, m.Lang))
	values := map[string]string{}
	for name, value := range content.Values {
		values[name] = value
	}
	if said, ok := reasonsInWords[values["reason"]]; ok {
		values["reason"] = said.In(m.Lang, said.En)
	}
	values[gapOrganization] = row.Name
	subject := strings.Join(strings.Fields(fill(w.Subject, values)), " ") // one line
	t := outgoing{To: content.To, From: row.Name, Subject: subject, Body: fill(w.Text, values)}
	if !p.needsApproved(m.Method) {
		return t, nil
	}
	a, err := approved(p.Store.Read(ctx), m.OrganizationID, m.Template, m.Lang)
	if a != nil {
		t.Approved = a.filled(values)
	}
	return t, err
}

// member reports whether a member of an organization has an address.
func (p *Messages) member(ctx context.Context, organizationID, address string) (bool, error) {
	var known int64
	err := p.Store.Read(ctx).Model(&models.Member{}).Where("organization_id = ? AND (phone = ? OR email = ?)", organizationID, address, address).Count(&known).Error
	if err != nil {
		return false, fmt.Errorf("look for a member: %w", err)
	}
	return known > 0, nil
}

// languageOf returns the supported language that is meant: ar, or en.
func languageOf(lang string) string {
	if lang == "ar" {
		return "ar"
	}
	return "en"
}
