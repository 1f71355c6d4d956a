package message

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// smtp sends e-mail through a mail server, one connection a message.
type smtp struct {
	host     string
	port     int
	user     string
	password string
	from     mail.Address
	tls      bool // from the first byte (RFC 8314); otherwise by STARTTLS
	// plain lets credentials and mail go unencrypted where the server offers no
	// better: on this machine only.
	plain  bool
	domain string // of message ids
	now    func() time.Time
}

// farewell is how long a server that has the message may take to say goodbye.
const farewell = 2 * time.Second

// newSMTP reads a URL such as
// smtp://user:password@mail.example:587?from=clinic@mail.example or smtps://….
func newSMTP(raw, publicURL string, now func() time.Time) (*smtp, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("it is no URL") // the cause would show the password
	}
	m := &smtp{host: u.Hostname(), port: 587, user: u.User.Username(), plain: loopback(u), domain: "localhost", now: now}
	m.password, _ = u.User.Password()
	switch u.Scheme {
	case "smtp":
	case "smtps":
		m.tls, m.port = true, 465
	default:
		return nil, errors.New("it begins with smtp:// or smtps://")
	}
	if m.host == "" || u.Path != "" && u.Path != "/" {
		return nil, errors.New("it names a host and nothing behind it: smtp://user:password@mail.example:587?from=clinic@mail.example")
	}
	if port := u.Port(); port != "" {
		if m.port, err = strconv.Atoi(port); err != nil || m.port < 1 || m.port > 65535 {
			return nil, errors.New("its port is a number up to 65535")
		}
	}
	if (m.user == "") != (m.password == "") {
		return nil, errors.New("a user comes with a password")
	}
	query := u.Query()
	from, err := mail.ParseAddress(query.Get("from"))
	if err != nil || len(query) != 1 {
		return nil, errors.New("its one parameter is the address to send from: ?from=clinic@mail.example")
	}
	m.from = *from
	if public, err := url.Parse(publicURL); err == nil && public.Hostname() != "" {
		m.domain = public.Hostname()
	}
	return m, nil
}

// dialer connects, and closes the connection when ctx ends: go-mail leaves the
// greeting of a server to the server's good will, and a connection open where
// the greeting fails.
func (m *smtp) dialer(ctx context.Context) gomail.DialContextFunc {
	return func(dialing context.Context, network, address string) (net.Conn, error) {
		var conn net.Conn
		var err error
		if m.tls {
			conn, err = (&tls.Dialer{Config: m.tlsConfig()}).DialContext(dialing, network, address)
		} else {
			conn, err = (&net.Dialer{}).DialContext(dialing, network, address)
		}
		if err == nil {
			context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // the session sees the closed connection
		}
		return conn, err
	}
}

func (m *smtp) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: m.host, MinVersion: tls.VersionTLS12}
}

func (m *smtp) send(ctx context.Context, t outgoing) (string, error) {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	mail := gomail.NewMsg()
	from := m.from
	if from.Name == "" {
		from.Name = t.From
	}
	mail.FromMailAddress(&from)
	if err := mail.To(t.To); err != nil {
		return "", &sendError{Code: "bad address", Final: true}
	}
	mail.Subject(t.Subject)
	mail.SetDateWithValue(m.now())
	id := t.ID + "@" + m.domain
	mail.SetMessageIDWithValue(id)
	mail.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office answers
	mail.SetBodyString(gomail.TypeTextPlain, t.Body)

	options := []gomail.Option{
		gomail.WithPort(m.port), gomail.WithTimeout(messageTimeout), gomail.WithDialContextFunc(m.dialer(ctx)),
		gomail.WithoutNoop(), gomail.WithTLSConfig(m.tlsConfig()),
	}
	policy := gomail.TLSMandatory
	if m.tls || m.plain {
		policy = gomail.TLSOpportunistic
	}
	options = append(options, gomail.WithTLSPolicy(policy))
	if m.user != "" {
		auth := gomail.SMTPAuthAutoDiscover
		if m.plain {
			auth = gomail.SMTPAuthPlainNoEnc
		}
		options = append(options, gomail.WithSMTPAuth(auth), gomail.WithUsername(m.user), gomail.WithPassword(m.password))
	}
	client, err := gomail.NewClient(m.host, options...)
	if err != nil {
		return "", &sendError{Code: "bad settings", Operator: true}
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		e := refusedBy(ctx, err)
		if e.Code == "unreachable" && e.Cause == nil {
			e.Code, e.Cause, e.Operator = "handshake", err, true // about the server and us; no recipient is named yet
		}
		return "", e
	}
	err = client.SendWithSMTPClient(session, mail)
	if mail.IsDelivered() { // whatever the server says after taking it
		if session.UpdateDeadline(farewell) == nil {
			client.CloseWithSMTPClient(session) //nolint:errcheck // the server has the message
		}
		return id, nil
	}
	if err == nil {
		return "", &sendError{Code: "unknown"}
	}
	return "", refusedBy(ctx, err)
}

// refusedBy turns an error of a conversation with a mail server into a
// sendError. A server's own words may hold the address and are left out. What
// goes wrong before the message is offered (a password, a certificate, the address
// it is from) concerns the operator.
func refusedBy(ctx context.Context, err error) *sendError {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &sendError{Code: "timeout"}
	}
	if failure, ok := errors.AsType[*gomail.SendError](err); ok && failure.ErrorCode() != 0 {
		e := &sendError{Code: fmt.Sprintf("SMTP %d", failure.ErrorCode()), Final: failure.ErrorCode() >= 500}
		if detail := failure.EnhancedStatusCode(); detail != "" {
			e.Code += " " + detail // RFC 3463
		}
		if failure.Reason == gomail.ErrSMTPMailFrom && e.Final {
			e.Final, e.Operator = false, true
		}
		return e
	}
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		return &sendError{Code: fmt.Sprintf("SMTP %d", reply.Code), Operator: reply.Code >= 500}
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &sendError{Code: "TLS", Cause: certificate, Operator: true}
	}
	return unreachable(err)
}
