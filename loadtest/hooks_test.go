package loadtest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"nowserving/loadtest/report"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// hookServer is a fake that calls its webhooks once, without retries.
type hookServer struct {
	*fakeServer
	// spoil changes a delivery before it is signed; it returns how often it is sent.
	spoil func(d *fakeDelivery) int

	mu      sync.Mutex
	serial  int
	hooks   map[string][]fakeHook // by tenant and trigger
	sending sync.WaitGroup
}

type fakeHook struct {
	Trigger string `json:"trigger"`
	URL     string `json:"url"`
	Secret  string `json:"secret"`
}

type fakeDelivery struct {
	id, booking, trigger, secret string
	sequence                     int64
	ids                          int // how many ids it is sent under
}

const fakeMetrics = "process_cpu_seconds_total 1\nprocess_resident_memory_bytes 1\ngo_goroutines 1\n"

func newHookFake(t *testing.T) *hookServer {
	t.Helper()
	s := &hookServer{fakeServer: newFake(t), hooks: map[string][]fakeHook{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/management/", s.serveAPI)
	mux.HandleFunc("POST /management/webhooks", func(w http.ResponseWriter, r *http.Request) {
		var hook fakeHook
		if err := json.NewDecoder(r.Body).Decode(&hook); err != nil {
			panic(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		key := r.Header.Get("X-APP-ID") + hook.Trigger
		s.hooks[key] = append(s.hooks[key], hook)
		answer(w, message{"result": "success"})
	})
	mux.HandleFunc("PUT /management/scheduling/new", s.sendAfter("bookingUnassigned", 1_000_000))
	mux.HandleFunc("POST /management/bookings/cancel", s.sendAfter("providerCanceled", 2_000_000))
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, fakeMetrics) //nolint:errcheck // the client reports a lost response
	})
	server := httptest.NewServer(mux)
	s.url = server.URL
	t.Cleanup(func() {
		s.sending.Wait()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// sendAfter serves a request and calls the webhooks of a trigger.
func (s *hookServer) sendAfter(trigger string, sequence int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := time.Now().UTC()
		recorded := httptest.NewRecorder()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.serveAPI(recorded, r)
		var shown struct {
			ID     string
			Result struct{ ID string }
		}
		if err := json.Unmarshal(recorded.Body.Bytes(), &shown); err != nil {
			panic(err)
		}
		s.mu.Lock()
		for _, hook := range s.hooks[r.Header.Get("X-APP-ID")+trigger] {
			s.serial++
			d := &fakeDelivery{id: fmt.Sprintf("delivery%d", s.serial), booking: shown.ID + shown.Result.ID, trigger: trigger, secret: hook.Secret, sequence: sequence, ids: 1}
			times := 1
			if s.spoil != nil {
				times = s.spoil(d)
			}
			s.sending.Go(func() {
				for i := range times {
					s.send(hook.URL, d, fmt.Sprint(d.id, min(i, d.ids-1)), at)
				}
			})
		}
		s.mu.Unlock()
		w.WriteHeader(recorded.Code)
		w.Write(recorded.Body.Bytes()) //nolint:errcheck // the client reports a lost response
	}
}

func (s *hookServer) send(url string, d *fakeDelivery, id string, at time.Time) {
	payload, err := json.Marshal(message{"id": d.booking, "trigger": d.trigger, "data": message{"sequence": d.sequence, "at": at}})
	if err != nil {
		panic(err)
	}
	signer, err := standardwebhooks.NewWebhook(d.secret)
	if err != nil {
		panic(err)
	}
	signature, err := signer.Sign(id, at, payload)
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, []byte(d.secret))
	mac.Write(payload)
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(payload)) //nolint:noctx // a receiver that never answers is closed by the run
	if err != nil {
		panic(err)
	}
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	req.Header.Set("x-icos-signature", hex.EncodeToString(mac.Sum(nil)))
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close() //nolint:errcheck // the response has no body that matters
	}
}

func hooksOf(t *testing.T, s *hookServer, change func(*HooksOptions)) *report.Report {
	t.Helper()
	opts := HooksOptions{Nodes: []string{s.url}, Key: fakeKey, Endpoints: 3, Events: 40, Patience: 20 * time.Second, Host: "127.0.0.1"}
	if change != nil {
		change(&opts)
	}
	result, err := Hooks(t.Context(), opts)
	require.NoError(t, err)
	return result
}

func TestHooksMeasuresDeliveries(t *testing.T) {
	result := hooksOf(t, newHookFake(t), func(opts *HooksOptions) { opts.Dead = 1 })
	require.True(t, result.OK, "%+v", result)
	require.InDelta(t, 2*40, result.Figure("deliveries").Value, 0)
	require.InDelta(t, 40, result.Figure("attempts at dead receivers").Value, 0)
	require.Positive(t, result.Figure("deliveries a second").Value)
	require.EqualValues(t, 2*40, result.Curves[0].Count)
}

func TestHooksSharesReceiversAmongOrganizations(t *testing.T) {
	result := hooksOf(t, newHookFake(t), func(opts *HooksOptions) { opts.Endpoints, opts.Events, opts.Rate = 70, 8, 400 })
	require.True(t, result.OK, "%+v", result)
	// Two visits of the first organization, two of the second, two events each.
	require.InDelta(t, 2*2*50+2*2*20, result.Figure("deliveries").Value, 0)
}

func TestHooksFindsWhatIsWrong(t *testing.T) {
	left := func(d *fakeDelivery) bool { return d.booking == "booking3" && d.trigger == triggerLeft }
	for want, spoil := range map[string]func(d *fakeDelivery) int{
		"missed": func(d *fakeDelivery) int {
			if left(d) {
				return 0
			}
			return 1
		},
		"duplicate": func(d *fakeDelivery) int {
			if left(d) {
				d.ids = 2
				return 2
			}
			return 1
		},
		"out of order": func(d *fakeDelivery) int {
			if left(d) {
				d.sequence = 1_000_000
			}
			return 1
		},
		"malformed": func(d *fakeDelivery) int {
			if left(d) {
				d.secret = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldA=="
			}
			return 1
		},
		"wrong news": func(d *fakeDelivery) int {
			if left(d) {
				d.trigger = "bookingExpired"
			}
			return 1
		},
	} {
		t.Run(want, func(t *testing.T) {
			s := newHookFake(t)
			s.spoil = spoil
			result := hooksOf(t, s, func(opts *HooksOptions) { opts.Patience = 500 * time.Millisecond })
			require.False(t, result.OK)
			var kinds []string
			for _, p := range result.Problems {
				kinds = append(kinds, p.Kind)
			}
			require.Contains(t, kinds, want)
		})
	}
	t.Run("repeated with the same id", func(t *testing.T) {
		s := newHookFake(t)
		s.spoil = func(d *fakeDelivery) int {
			switch {
			case left(d):
				return 2
			case d.booking == "booking4": // one is missing, so that the run waits for the repeated one
				return 0
			}
			return 1
		}
		result := hooksOf(t, s, func(opts *HooksOptions) { opts.Patience = 2 * time.Second })
		require.InDelta(t, 3, result.Figure("repeated").Value, 0)
		require.Equal(t, report.Faults{Missed: 6}, *result.Faults)
	})
}

func TestHooksRefusesOptions(t *testing.T) {
	fine := HooksOptions{Key: "k", Endpoints: 1, Events: 2, Patience: time.Second, Nodes: []string{"http://127.0.0.1:1"}}
	for want, change := range map[string]func(*HooksOptions){
		"an account API key is required": func(opts *HooksOptions) { opts.Key = "" },
		"0 endpoints":                    func(opts *HooksOptions) { opts.Endpoints = 0 },
		"1 of 1 endpoints cannot be":     func(opts *HooksOptions) { opts.Dead = 1 },
		"at least two events":            func(opts *HooksOptions) { opts.Events = 1 },
		"patience must be":               func(opts *HooksOptions) { opts.Patience = 0 },
		"rate must not be":               func(opts *HooksOptions) { opts.Rate = -1 },
		"at least one URL":               func(opts *HooksOptions) { opts.Nodes = nil },
	} {
		opts := fine
		change(&opts)
		_, err := Hooks(t.Context(), opts)
		require.ErrorContains(t, err, want)
	}
}
