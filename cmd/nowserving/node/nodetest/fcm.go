package nodetest

import (
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

	"nowserving/cmd/nowserving/node"
)

// FCM is a server that speaks FCM's HTTP v1 format (projects.messages.send):
// it takes what FCM would take, refuses what it would refuse, and remembers it.
type FCM struct {
	T   *testing.T
	URL string

	mu       sync.Mutex
	taken    map[string][]Push     // by token, what was answered with 200
	requests map[string]int        // by token, however they were answered
	troubles map[string][]FCMReply // by token, for the next requests
	wrong    []string              // what is not in FCM's format
}

// Push is a message in FCM's format. As FCM does, the server refuses other members.
type Push struct {
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
	Raw string
	At  time.Time
}

// FCMReply is an answer other than 200. Without a status the message is taken
// and the answer lost on its way.
type FCMReply struct {
	Status     int
	Code       string // of FcmError
	BadToken   bool
	RetryAfter string
	Hold       chan struct{} // the answer waits until it is closed
}

// NewFCM starts a server that stops with the test.
func NewFCM(t *testing.T) *FCM {
	t.Helper()
	f := &FCM{T: t, taken: map[string][]Push{}, requests: map[string]int{}, troubles: map[string][]FCMReply{}}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.Close()
		assert.Empty(t, f.wrong, "FCM would have refused these")
	})
	f.URL = server.URL
	return f
}

// Pushing lets a node send its pushes here.
func (f *FCM) Pushing(c *node.Config) { c.FCMEndpoint = f.URL }

var fcmTTL = regexp.MustCompile(`^\d+(\.\d{1,9})?s$`)

func (f *FCM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return
	}
	var body struct {
		Message Push `json:"message"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&body)
	m := body.Message
	m.Raw, m.At = string(raw), time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	wrong := func(format string, args ...any) { f.wrong = append(f.wrong, fmt.Sprintf(format, args...)+": "+m.Raw) }
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
	reply := FCMReply{Status: http.StatusOK}
	if next := f.troubles[m.Token]; len(next) > 0 {
		reply, f.troubles[m.Token] = next[0], next[1:]
	}
	if reply.Status == 0 || reply.Status == http.StatusOK {
		f.taken[m.Token] = append(f.taken[m.Token], m)
	}
	if reply.Hold != nil {
		f.mu.Unlock()
		<-reply.Hold
		f.mu.Lock()
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	switch reply.Status {
	case 0:
		panic(http.ErrAbortHandler)
	case http.StatusOK:
		_, _ = fmt.Fprintf(w, `{"name":"projects/nowserving/messages/%d"}`, len(f.taken[m.Token]))
		return
	}
	if reply.RetryAfter != "" {
		w.Header().Set("Retry-After", reply.RetryAfter)
	}
	details := []any{Object{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": reply.Code}}
	if reply.BadToken {
		details = append(details, Object{
			"@type":           "type.googleapis.com/google.rpc.BadRequest",
			"fieldViolations": []any{Object{"field": "message.token", "description": "Invalid registration token"}},
		})
	}
	answer, err := json.Marshal(Object{"error": Object{"code": reply.Status, "message": "The token " + m.Token + " is not right.", "status": "STATUS", "details": details}})
	if err != nil {
		wrong("%v", err)
	}
	w.WriteHeader(reply.Status)
	_, _ = w.Write(answer)
}

// Trouble sets the answers to the next requests for a token.
func (f *FCM) Trouble(token string, replies ...FCMReply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.troubles[token] = append(f.troubles[token], replies...)
}

// Got is what arrived at a token, of some types or of all.
func (f *FCM) Got(token string, types ...string) []Push {
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []Push
	for _, m := range f.taken[token] {
		if len(types) == 0 || slices.Contains(types, m.Data["type"]) {
			got = append(got, m)
		}
	}
	return got
}

// Asked is how many requests there were for a token.
func (f *FCM) Asked(token string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[token]
}

// Await waits until n of a type have arrived at a token, and returns the last.
func (f *FCM) Await(token, typ string, n int) Push {
	f.T.Helper()
	require.Eventually(f.T, func() bool { return len(f.Got(token, typ)) >= n }, Patience, 5*time.Millisecond, "%s for %s", typ, token)
	got := f.Got(token, typ)
	require.Len(f.T, got, n, "%s for %s", typ, token)
	return got[n-1]
}
