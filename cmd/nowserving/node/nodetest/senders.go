package nodetest

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Texts are the messages that a provider was asked to send, and its answers.
type Texts struct {
	t  testing.TB
	Mu sync.Mutex
	// answers are those of the next attempts for an address. Later attempts succeed.
	answers  map[string][]string
	Attempts []SentMessage
	taken    []SentMessage
}

// SentMessage is a message as a provider gets it.
type SentMessage struct {
	to, From string
	Body     string
	Header   mail.Header // of an e-mail
	Form     url.Values  // of a message to a phone
	ID       string      // given by the provider
}

// Subject decodes the subject of an e-mail.
func (s SentMessage) Subject() string {
	text, err := new(mime.WordDecoder).DecodeHeader(s.Header.Get("Subject"))
	if err != nil {
		return err.Error()
	}
	return text
}

// Will sets the answers of the next attempts for an address.
func (x *Texts) Will(to string, answers ...string) {
	x.Mu.Lock()
	defer x.Mu.Unlock()
	x.answers[to] = append(x.answers[to], answers...)
}

// attempt notes an attempt and returns how it is answered; empty: well.
func (x *Texts) attempt(s SentMessage) string {
	x.Mu.Lock()
	defer x.Mu.Unlock()
	x.Attempts = append(x.Attempts, s)
	answers := x.answers[s.to]
	if len(answers) == 0 {
		return ""
	}
	x.answers[s.to] = answers[1:]
	return answers[0]
}

func (x *Texts) take(s SentMessage) {
	x.Mu.Lock()
	defer x.Mu.Unlock()
	x.taken = append(x.taken, s)
}

// To returns the messages that were accepted for an address.
func (x *Texts) To(address string) []SentMessage {
	x.Mu.Lock()
	defer x.Mu.Unlock()
	var list []SentMessage
	for _, s := range x.taken {
		if s.to == address {
			list = append(list, s)
		}
	}
	return list
}

// Tries counts the attempts for an address.
func (x *Texts) Tries(address string) int {
	x.Mu.Lock()
	defer x.Mu.Unlock()
	n := 0
	for _, s := range x.Attempts {
		if s.to == address {
			n++
		}
	}
	return n
}

// Next waits for the n-th message to an address, the first being 1.
func (x *Texts) Next(address string, n int) SentMessage {
	x.t.Helper()
	require.Eventually(x.t, func() bool { return len(x.To(address)) >= n }, Patience, 5*time.Millisecond, "no message %d to %s", n, address)
	return x.To(address)[n-1]
}

// The account at Twilio.
const (
	TwilioAccount = "AC0123456789abcdef0123456789abcdef"
	TwilioToken   = "the-token-of-the-account"
	SMSNumber     = "+15005550006"
	WhatsAppFrom  = "+14155238886"
)

// Twilio speaks the messages resource of Twilio's API. Its answers are
// "status", "status code" or "429 - seconds"; "hang" waits for the end.
type Twilio struct {
	Texts
	URL  string // for Options.SMSURL
	Hung chan struct{}
}

// NewTwilio starts a server that stops with the test.
func NewTwilio(t testing.TB) *Twilio {
	t.Helper()
	f := &Twilio{Texts: Texts{t: t, answers: map[string][]string{}}, Hung: make(chan struct{})}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	u.User, u.Path = url.UserPassword(TwilioAccount, TwilioToken), "/2010-04-01"
	u.RawQuery = url.Values{"from": {SMSNumber}, "whatsappFrom": {WhatsAppFrom}}.Encode()
	f.URL = u.String()
	return f
}

func (f *Twilio) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	account, token, _ := r.BasicAuth()
	assert.Equal(f.t, "POST /2010-04-01/Accounts/"+TwilioAccount+"/Messages.json", r.Method+" "+r.URL.Path)
	assert.Equal(f.t, TwilioAccount+" "+TwilioToken, account+" "+token)
	assert.Equal(f.t, "application/x-www-form-urlencoded", r.Header.Get("Content-Type"))
	assert.NoError(f.t, r.ParseForm())
	assert.Empty(f.t, r.URL.RawQuery)
	s := SentMessage{to: r.PostForm.Get("To"), From: r.PostForm.Get("From"), Body: r.PostForm.Get("Body"), Form: r.PostForm, ID: NewSID("SM")}
	if strings.HasPrefix(s.to, "whatsapp:") { // anything but an approved template fails with 63016
		assert.False(f.t, r.PostForm.Has("Body"))
		assert.Regexp(f.t, "^HX[0-9a-f]{32}$", r.PostForm.Get("ContentSid"))
		var variables map[string]string
		assert.NoError(f.t, json.Unmarshal([]byte(r.PostForm.Get("ContentVariables")), &variables))
		s.Body = variables["1"]
	}
	var status, code, wait int
	switch answer := f.attempt(s); {
	case answer == "hang":
		select {
		case <-f.Hung:
		case <-r.Context().Done():
		}
		status = http.StatusServiceUnavailable
	case answer == "":
		status = http.StatusCreated
		f.take(s)
	case strings.Contains(answer, "-"):
		_, err := fmt.Sscanf(answer, "%d - %d", &status, &wait)
		assert.NoError(f.t, err)
		w.Header().Set("Retry-After", fmt.Sprint(wait))
	default:
		_, err := fmt.Sscan(answer+" 0", &status, &code)
		assert.NoError(f.t, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body := Object{"sid": s.ID, "status": "queued", "to": s.to, "body": s.Body, "error_code": nil}
	if status != http.StatusCreated {
		body = Object{"code": code, "message": "The 'To' number " + s.to + " is not right.", "more_info": "https://www.twilio.com/docs/errors", "status": status}
	}
	assert.NoError(f.t, json.NewEncoder(w).Encode(body))
}

// NewSID makes a name as Twilio does.
func NewSID(prefix string) string {
	raw := make([]byte, 16)
	rand.Read(raw)
	return prefix + hex.EncodeToString(raw)
}

// The account at Unifonic.
const (
	UnifonicApp    = "the-app-sid-of-the-account"
	UnifonicSender = "AlNoor"
)

// Unifonic speaks Unifonic's messages resource. Its answers are "status code",
// the code as in "ER-04"; "200 html" is the page of a proxy in between.
type Unifonic struct {
	Texts
	URL string // for Options.SMSURL
}

// NewUnifonic starts a server that stops with the test.
func NewUnifonic(t testing.TB) *Unifonic {
	t.Helper()
	f := &Unifonic{Texts: Texts{t: t, answers: map[string][]string{}}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	u.User, u.Path, u.RawQuery = url.User(UnifonicApp), "/rest/SMS/messages", url.Values{"sender": {UnifonicSender}, "messageType": {"3"}}.Encode()
	f.URL = "unifonic+" + u.String()
	return f
}

func (f *Unifonic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	assert.Equal(f.t, "POST /rest/SMS/messages", r.Method+" "+r.URL.Path)
	assert.Equal(f.t, "application/x-www-form-urlencoded", r.Header.Get("Content-Type"))
	assert.Empty(f.t, r.Header.Get("Authorization"))
	assert.NoError(f.t, r.ParseForm())
	form := r.PostForm
	assert.Equal(f.t, UnifonicApp+" JSON false 3", strings.Join([]string{form.Get("AppSid"), form.Get("responseType"), form.Get("async"), form.Get("MessageType")}, " "))
	assert.NotEmpty(f.t, form.Get("CorrelationID"))
	s := SentMessage{to: form.Get("Recipient"), From: form.Get("SenderID"), Body: form.Get("Body"), Form: form, ID: strconv.FormatInt(time.Now().UnixNano(), 10)}
	status, code, _ := strings.Cut(f.attempt(s), " ")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case status == "":
		f.take(s)
		assert.NoError(f.t, json.NewEncoder(w).Encode(Object{"success": true, "message": "", "errorCode": "ER-00", "data": Object{
			"MessageID": json.Number(s.ID), "CorrelationID": form.Get("CorrelationID"), "Status": "Sent", "NumberOfUnits": 1, "Cost": 0, "Balance": 0,
			"Recipient": s.to, "TimeCreated": "2022-09-06 14:06:25.979", "CurrencyCode": "",
		}}))
	case code == "html":
		_, err := io.WriteString(w, "<html>Please sign in to the network</html>")
		assert.NoError(f.t, err)
	default:
		n, err := strconv.Atoi(status)
		assert.NoError(f.t, err)
		w.WriteHeader(n)
		assert.NoError(f.t, json.NewEncoder(w).Encode(Object{"success": false, "message": "About " + s.to, "errorCode": code, "data": []any{}}))
	}
}

// The account at the mail server.
const (
	mailUser     = "clinic"
	MailPassword = "p@ss/word"
	MailFrom     = "no-reply@clinic.example"
)

// Mail is a mail server. Its answers to RCPT are "code text"; "cut" takes
// the message and hangs up without a word.
type Mail struct {
	Texts
	URL      string // for Options.SMTPURL
	listener net.Listener
	running  sync.WaitGroup
}

// NewMail starts a server that stops with the test.
func NewMail(t testing.TB) *Mail {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &Mail{Texts: Texts{t: t, answers: map[string][]string{}}, listener: listener}
	u := url.URL{Scheme: "smtp", Host: listener.Addr().String(), User: url.UserPassword(mailUser, MailPassword)}
	u.RawQuery = url.Values{"from": {MailFrom}}.Encode()
	f.URL = u.String()
	f.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.running.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() { assert.NoError(t, listener.Close()); f.running.Wait() })
	return f
}

func (f *Mail) serve(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // the client may have closed it
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say("220 mail.clinic.example ESMTP")
	var s SentMessage
	answer, known := "", false
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-mail.clinic.example")
			say("250-8BITMIME")
			say("250-ENHANCEDSTATUSCODES")
			say("250 AUTH PLAIN")
		case "AUTH":
			plain, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			assert.NoError(f.t, err)
			known = string(plain) == "\x00"+mailUser+"\x00"+MailPassword
			say(map[bool]string{true: "235 2.7.0 welcome", false: "535 5.7.8 no"}[known])
		case "MAIL":
			assert.True(f.t, known, "a message without a sign-in")
			s = SentMessage{From: between(rest)}
			say("250 2.1.0 ok")
		case "RCPT":
			s.to = between(rest)
			if answer = f.attempt(s); answer != "" && answer != "cut" {
				say(answer)
				continue
			}
			say("250 2.1.5 ok")
		case "DATA":
			say("354 go on")
			message, err := mail.ReadMessage(bufio.NewReader(in.DotReader()))
			if !assert.NoError(f.t, err) {
				return
			}
			s.Header = message.Header
			s.Body = decoded(f.t, message)
			f.take(s)
			if answer == "cut" {
				return
			}
			say("250 2.0.0 ok: queued as 4QX1")
		case "QUIT":
			say("221 2.0.0 bye")
			return
		default:
			say("250 2.0.0 ok")
		}
	}
}

// between is what stands between < and >.
func between(text string) string {
	_, text, _ = strings.Cut(text, "<")
	text, _, _ = strings.Cut(text, ">")
	return text
}

// decoded is the text of an e-mail.
func decoded(t testing.TB, m *mail.Message) string {
	t.Helper()
	kind, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	assert.NoError(t, err)
	assert.Equal(t, "text/plain", kind)
	assert.Equal(t, "utf-8", strings.ToLower(parameters["charset"]))
	body := m.Body
	switch m.Header.Get("Content-Transfer-Encoding") {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	text, err := io.ReadAll(body)
	assert.NoError(t, err)
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))
}
