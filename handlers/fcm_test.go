package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fcm is a server that speaks FCM's HTTP v1 format (projects.messages.send):
// it takes what FCM would take, refuses what it would refuse, and remembers it.
type fcm struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	taken    map[string][]pushed   // by token, what was answered with 200
	requests map[string]int        // by token, however they were answered
	troubles map[string][]fcmReply // by token, for the next requests
	wrong    []string              // what is not in FCM's format
}

// pushed is a message as FCM has it; whatever else is in one is refused, as
// FCM does.
type pushed struct {
	Token        string            `json:"token"`
	Data         map[string]string `json:"data"`
	Notification *struct {
		Title string `json:"title"`
		Body  string `json:"body"`
	} `json:"notification"`
	Android struct {
		CollapseKey  string `json:"collapse_key"`
		Priority     string `json:"priority"`
		TTL          string `json:"ttl"`
		Notification *struct {
			Tag string `json:"tag"`
		} `json:"notification"`
	} `json:"android"`
	APNS struct {
		Headers map[string]string `json:"headers"`
		Payload struct {
			Aps map[string]any `json:"aps"`
		} `json:"payload"`
	} `json:"apns"`
	Webpush struct {
		Headers      map[string]string `json:"headers"`
		Notification *struct {
			Title string `json:"title"`
			Body  string `json:"body"`
			Tag   string `json:"tag"`
			Lang  string `json:"lang"`
		} `json:"notification"`
	} `json:"webpush"`
	raw string
	at  time.Time
}

// fcmReply is an answer other than 200. Without a status the message is taken
// and the answer lost on its way.
type fcmReply struct {
	status     int
	code       string // of FcmError
	badToken   bool
	retryAfter string
	hold       chan struct{} // the answer waits until it is closed
}

func newFCM(t *testing.T) *fcm {
	t.Helper()
	f := &fcm{t: t, taken: map[string][]pushed{}, requests: map[string]int{}, troubles: map[string][]fcmReply{}}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.Close()
		assert.Empty(t, f.wrong, "FCM would have refused these")
	})
	f.url = server.URL
	return f
}

// pushing lets a node send its pushes here.
func (f *fcm) pushing(c *node.Config) { c.FCMEndpoint = f.url }

var fcmTTL = regexp.MustCompile(`^\d+(\.\d{1,9})?s$`)

func (f *fcm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return
	}
	var body struct {
		Message pushed `json:"message"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&body)
	m := body.Message
	m.raw, m.at = string(raw), time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	wrong := func(format string, args ...any) { f.wrong = append(f.wrong, fmt.Sprintf(format, args...)+": "+m.raw) }
	switch {
	case err != nil:
		wrong("%v", err)
	case r.Method != http.MethodPost || r.URL.Path != "/v1/projects/nowserving/messages:send":
		wrong("%s %s", r.Method, r.URL.Path)
	case m.Token == "":
		wrong("no token")
	case len(raw) > 4096:
		wrong("larger than 4096 bytes")
	case m.Android.TTL != "" && !fcmTTL.MatchString(m.Android.TTL):
		wrong("ttl %s", m.Android.TTL)
	case len(m.APNS.Headers["apns-collapse-id"]) > 64:
		wrong("apns-collapse-id")
	}
	f.requests[m.Token]++
	reply := fcmReply{status: http.StatusOK}
	if next := f.troubles[m.Token]; len(next) > 0 {
		reply, f.troubles[m.Token] = next[0], next[1:]
	}
	if reply.status == 0 || reply.status == http.StatusOK {
		f.taken[m.Token] = append(f.taken[m.Token], m)
	}
	if reply.hold != nil {
		f.mu.Unlock()
		<-reply.hold
		f.mu.Lock()
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	switch reply.status {
	case 0:
		panic(http.ErrAbortHandler)
	case http.StatusOK:
		_, _ = fmt.Fprintf(w, `{"name":"projects/nowserving/messages/%d"}`, len(f.taken[m.Token]))
		return
	}
	if reply.retryAfter != "" {
		w.Header().Set("Retry-After", reply.retryAfter)
	}
	details := []any{object{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": reply.code}}
	if reply.badToken {
		details = append(details, object{
			"@type":           "type.googleapis.com/google.rpc.BadRequest",
			"fieldViolations": []any{object{"field": "message.token", "description": "Invalid registration token"}},
		})
	}
	answer, err := json.Marshal(object{"error": object{"code": reply.status, "message": "The token " + m.Token + " is not right.", "status": "STATUS", "details": details}})
	if err != nil {
		wrong("%v", err)
	}
	w.WriteHeader(reply.status)
	_, _ = w.Write(answer)
}

// trouble sets the answers to the next requests for a token.
func (f *fcm) trouble(token string, replies ...fcmReply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.troubles[token] = append(f.troubles[token], replies...)
}

// got is what arrived at a token, of some types or of all.
func (f *fcm) got(token string, types ...string) []pushed {
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []pushed
	for _, m := range f.taken[token] {
		if len(types) == 0 || slices.Contains(types, m.Data["type"]) {
			got = append(got, m)
		}
	}
	return got
}

// asked is how many requests there were for a token.
func (f *fcm) asked(token string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[token]
}

// await waits until n of a type have arrived at a token, and returns the last.
func (f *fcm) await(token, typ string, n int) pushed {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return len(f.got(token, typ)) >= n }, patience, 5*time.Millisecond, "%s for %s", typ, token)
	got := f.got(token, typ)
	require.Len(f.t, got, n, "%s for %s", typ, token)
	return got[n-1]
}
