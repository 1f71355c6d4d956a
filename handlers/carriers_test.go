package handlers_test

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
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

// texts are what a carrier was asked to bring to people, and how it answers.
type texts struct {
	t  testing.TB
	mu sync.Mutex
	// answers are given to the next attempts for an address; then all is well.
	answers  map[string][]string
	attempts []sentText
	taken    []sentText
}

// sentText is a message as a carrier gets it.
type sentText struct {
	to, from string
	body     string
	header   mail.Header // of an e-mail
	form     url.Values  // of a message to a phone
	id       string      // that the carrier gave it
}

func (s sentText) subject() string {
	text, err := new(mime.WordDecoder).DecodeHeader(s.header.Get("Subject"))
	if err != nil {
		return err.Error()
	}
	return text
}

// will makes the next attempts for an address be answered as said.
func (x *texts) will(to string, answers ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answers[to] = append(x.answers[to], answers...)
}

// attempt notes an attempt and returns how it is answered; empty: well.
func (x *texts) attempt(s sentText) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.attempts = append(x.attempts, s)
	answers := x.answers[s.to]
	if len(answers) == 0 {
		return ""
	}
	x.answers[s.to] = answers[1:]
	return answers[0]
}

func (x *texts) take(s sentText) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.taken = append(x.taken, s)
}

// to are the messages taken for an address.
func (x *texts) to(address string) []sentText {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []sentText
	for _, s := range x.taken {
		if s.to == address {
			list = append(list, s)
		}
	}
	return list
}

// tries are the attempts for an address.
func (x *texts) tries(address string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := 0
	for _, s := range x.attempts {
		if s.to == address {
			n++
		}
	}
	return n
}

// next waits for the n-th message to an address, the first being 1.
func (x *texts) next(address string, n int) sentText {
	x.t.Helper()
	require.Eventually(x.t, func() bool { return len(x.to(address)) >= n }, patience, 5*time.Millisecond, "no message %d to %s", n, address)
	return x.to(address)[n-1]
}

const (
	twilioAccount = "AC0123456789abcdef0123456789abcdef"
	twilioToken   = "the-token-of-the-account"
	smsNumber     = "+15005550006"
	whatsAppFrom  = "+14155238886"
)

// fakeTwilio speaks the messages resource of Twilio's API. Its answers are
// "status", "status code" or "429 - seconds"; "hang" waits for the end.
type fakeTwilio struct {
	texts
	url  string // for Options.SMSURL
	hung chan struct{}
}

func newTwilio(t testing.TB) *fakeTwilio {
	t.Helper()
	f := &fakeTwilio{texts: texts{t: t, answers: map[string][]string{}}, hung: make(chan struct{})}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	u.User, u.Path = url.UserPassword(twilioAccount, twilioToken), "/2010-04-01"
	u.RawQuery = url.Values{"from": {smsNumber}, "whatsappFrom": {whatsAppFrom}}.Encode()
	f.url = u.String()
	return f
}

func (f *fakeTwilio) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	account, token, _ := r.BasicAuth()
	assert.Equal(f.t, "POST /2010-04-01/Accounts/"+twilioAccount+"/Messages.json", r.Method+" "+r.URL.Path)
	assert.Equal(f.t, twilioAccount+" "+twilioToken, account+" "+token)
	assert.Equal(f.t, "application/x-www-form-urlencoded", r.Header.Get("Content-Type"))
	assert.NoError(f.t, r.ParseForm())
	assert.Empty(f.t, r.URL.RawQuery)
	s := sentText{to: r.PostForm.Get("To"), from: r.PostForm.Get("From"), body: r.PostForm.Get("Body"), form: r.PostForm, id: newSID("SM")}
	if strings.HasPrefix(s.to, "whatsapp:") { // anything but an approved template fails with 63016
		assert.False(f.t, r.PostForm.Has("Body"))
		assert.Regexp(f.t, "^HX[0-9a-f]{32}$", r.PostForm.Get("ContentSid"))
		var variables map[string]string
		assert.NoError(f.t, json.Unmarshal([]byte(r.PostForm.Get("ContentVariables")), &variables))
		s.body = variables["1"]
	}
	var status, code, wait int
	switch answer := f.attempt(s); {
	case answer == "hang":
		select {
		case <-f.hung:
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
	body := object{"sid": s.id, "status": "queued", "to": s.to, "body": s.body, "error_code": nil}
	if status != http.StatusCreated {
		body = object{"code": code, "message": "The 'To' number " + s.to + " is not right.", "more_info": "https://www.twilio.com/docs/errors", "status": status}
	}
	assert.NoError(f.t, json.NewEncoder(w).Encode(body))
}

// newSID makes a name as Twilio does.
func newSID(prefix string) string {
	raw := make([]byte, 16)
	rand.Read(raw)
	return prefix + hex.EncodeToString(raw)
}

const (
	unifonicApp    = "the-app-sid-of-the-account"
	unifonicSender = "AlNoor"
)

// fakeUnifonic speaks Unifonic's messages resource. Its answers are "status code",
// the code as in "ER-04"; "200 html" is the page of a proxy in between.
type fakeUnifonic struct {
	texts
	url string // for Options.SMSURL
}

func newUnifonic(t testing.TB) *fakeUnifonic {
	t.Helper()
	f := &fakeUnifonic{texts: texts{t: t, answers: map[string][]string{}}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	u.User, u.Path, u.RawQuery = url.User(unifonicApp), "/rest/SMS/messages", url.Values{"sender": {unifonicSender}, "messageType": {"3"}}.Encode()
	f.url = "unifonic+" + u.String()
	return f
}

func (f *fakeUnifonic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	assert.Equal(f.t, "POST /rest/SMS/messages", r.Method+" "+r.URL.Path)
	assert.Equal(f.t, "application/x-www-form-urlencoded", r.Header.Get("Content-Type"))
	assert.Empty(f.t, r.Header.Get("Authorization"))
	assert.NoError(f.t, r.ParseForm())
	form := r.PostForm
	assert.Equal(f.t, unifonicApp+" JSON false 3", strings.Join([]string{form.Get("AppSid"), form.Get("responseType"), form.Get("async"), form.Get("MessageType")}, " "))
	assert.NotEmpty(f.t, form.Get("CorrelationID"))
	s := sentText{to: form.Get("Recipient"), from: form.Get("SenderID"), body: form.Get("Body"), form: form, id: strconv.FormatInt(mathrand.Int64N(1e14), 10)}
	status, code, _ := strings.Cut(f.attempt(s), " ")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case status == "":
		f.take(s)
		assert.NoError(f.t, json.NewEncoder(w).Encode(object{"success": true, "message": "", "errorCode": "ER-00", "data": object{
			"MessageID": json.Number(s.id), "CorrelationID": form.Get("CorrelationID"), "Status": "Sent", "NumberOfUnits": 1, "Cost": 0, "Balance": 0,
			"Recipient": s.to, "TimeCreated": "2022-09-06 14:06:25.979", "CurrencyCode": "",
		}}))
	case code == "html":
		_, err := io.WriteString(w, "<html>Please sign in to the network</html>")
		assert.NoError(f.t, err)
	default:
		n, err := strconv.Atoi(status)
		assert.NoError(f.t, err)
		w.WriteHeader(n)
		assert.NoError(f.t, json.NewEncoder(w).Encode(object{"success": false, "message": "About " + s.to, "errorCode": code, "data": []any{}}))
	}
}

const (
	mailUser     = "clinic"
	mailPassword = "p@ss/word"
	mailFrom     = "no-reply@clinic.example"
)

// fakeMail is a mail server. Its answers to RCPT are "code text"; "cut" takes
// the message and hangs up without a word.
type fakeMail struct {
	texts
	url      string // for Options.SMTPURL
	listener net.Listener
	running  sync.WaitGroup
}

func newMail(t testing.TB) *fakeMail {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &fakeMail{texts: texts{t: t, answers: map[string][]string{}}, listener: listener}
	u := url.URL{Scheme: "smtp", Host: listener.Addr().String(), User: url.UserPassword(mailUser, mailPassword)}
	u.RawQuery = url.Values{"from": {mailFrom}}.Encode()
	f.url = u.String()
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

func (f *fakeMail) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say("220 mail.clinic.example ESMTP")
	var s sentText
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
			known = string(plain) == "\x00"+mailUser+"\x00"+mailPassword
			say(map[bool]string{true: "235 2.7.0 welcome", false: "535 5.7.8 no"}[known])
		case "MAIL":
			assert.True(f.t, known, "nobody signed in")
			s = sentText{from: between(rest)}
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
			s.header = message.Header
			s.body = decoded(f.t, message)
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
