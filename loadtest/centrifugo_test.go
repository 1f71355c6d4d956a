package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"nowserving/loadtest/report"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeCentrifugo is as much of Centrifugo as the comparison uses, and stricter:
// it takes nothing that its documentation does not show.
type fakeCentrifugo struct {
	t       *testing.T
	url     string
	metrics bool
	// refuse answers a publication with an error.
	refuse func(channel string) *centrifugoError
	// lose keeps a publication from its subscriber.
	lose func(channel string, data []byte) bool

	mu          sync.Mutex
	subscribers map[string]*fakeConn // one for each channel, as the scenario has them
	batches     int
	handlers    sync.WaitGroup
}

const (
	centrifugoKey    = "api key"
	centrifugoSecret = "secret of the tokens"
)

func newFakeCentrifugo(t *testing.T) *fakeCentrifugo {
	t.Helper()
	s := &fakeCentrifugo{t: t, metrics: true, subscribers: map[string]*fakeConn{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/batch", s.serveBatch)
	mux.HandleFunc("GET /connection/websocket", s.serveLive)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !s.metrics {
			http.NotFound(w, r)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintf(w, "process_cpu_seconds_total %d\nprocess_resident_memory_bytes 1e6\ngo_goroutines 5\n", s.batches) //nolint:errcheck // the client reports a lost response
	})
	server := httptest.NewServer(mux)
	s.url = server.URL
	t.Cleanup(func() {
		server.Close()
		s.handlers.Wait()
	})
	return s
}

func (s *fakeCentrifugo) serveBatch(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-API-Key") != centrifugoKey {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	assert.Equal(s.t, "application/json", r.Header.Get("Content-Type"))
	var request struct {
		Parallel bool `json:"parallel"`
		Commands []struct {
			Publish *struct {
				Channel string          `json:"channel"`
				Data    json.RawMessage `json:"data"`
			} `json:"publish"`
		} `json:"commands"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if !assert.NoError(s.t, decoder.Decode(&request)) || !assert.True(s.t, request.Parallel) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches++
	replies := make([]message, len(request.Commands))
	for i, c := range request.Commands {
		replies[i] = message{"publish": message{}}
		if s.refuse != nil {
			if no := s.refuse(c.Publish.Channel); no != nil {
				replies[i] = message{"error": no}
				continue
			}
		}
		if s.lose != nil && s.lose(c.Publish.Channel, c.Publish.Data) {
			continue
		}
		if to := s.subscribers[c.Publish.Channel]; to != nil {
			to.send(&protocol.Reply{Push: &protocol.Push{Channel: c.Publish.Channel, Pub: &protocol.Publication{Data: protocol.Raw(c.Publish.Data)}}})
		}
	}
	answer(w, message{"replies": replies})
}

func (s *fakeCentrifugo) serveLive(w http.ResponseWriter, r *http.Request) {
	s.handlers.Add(1)
	defer s.handlers.Done()
	kind := protocol.TypeJSON
	opts := &websocket.AcceptOptions{}
	if r.URL.Query().Get("format") == "protobuf" {
		kind, opts.Subprotocols = protocol.TypeProtobuf, []string{"centrifuge-protobuf"}
	}
	ws, err := websocket.Accept(w, r, opts)
	if err != nil {
		return
	}
	c := &fakeConn{kind: kind, ws: ws, out: make(chan []byte, 10_000), over: make(chan websocket.StatusCode, 1)}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.handlers.Go(func() { c.write(ctx, nil) })
	user := ""
	for {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			return
		}
		decoder := protocol.GetCommandDecoder(kind, frame)
		for {
			command, err := decoder.Decode()
			if command != nil {
				user = s.command(c, user, command)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if !assert.NoError(s.t, err) {
				return
			}
		}
		protocol.PutCommandDecoder(kind, decoder)
	}
}

func (s *fakeCentrifugo) command(c *fakeConn, user string, command *protocol.Command) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims := func(token string) jwt.MapClaims {
		var found jwt.MapClaims
		_, err := jwt.ParseWithClaims(token, &found, func(*jwt.Token) (any, error) { return []byte(centrifugoSecret), nil }, jwt.WithValidMethods([]string{"HS256"}))
		if err != nil {
			return nil
		}
		return found
	}
	switch {
	case command.Connect != nil:
		subject, ok := claims(command.Connect.Token)["sub"].(string)
		if !ok || user != "" {
			c.finish(3500)
			return user
		}
		user = strings.Clone(subject)
		c.send(&protocol.Reply{Id: command.Id, Connect: &protocol.ConnectResult{Client: "c", Version: "6", Ping: 25, Pong: true}})
	case command.Subscribe != nil:
		given := claims(command.Subscribe.Token)
		channel := strings.Clone(command.Subscribe.Channel)
		if user == "" || given["sub"] != user || given["channel"] != channel {
			c.send(&protocol.Reply{Id: command.Id, Error: &protocol.Error{Code: 103, Message: "permission denied"}})
			return user
		}
		if strings.Contains(channel, ":") {
			c.send(&protocol.Reply{Id: command.Id, Error: &protocol.Error{Code: 102, Message: "unknown channel"}})
			return user
		}
		c.send(&protocol.Reply{Id: command.Id, Subscribe: &protocol.SubscribeResult{}})
		s.subscribers[channel] = c
	default:
		assert.Equal(s.t, &protocol.Command{}, command, "a pong")
	}
	return user
}

func centrifugoOptions(s *fakeCentrifugo) CentrifugoOptions {
	return CentrifugoOptions{
		Traffic: Traffic{Patients: 25, Watch: 2, Rate: 40, Duration: 200 * time.Millisecond},
		URL:     s.url, APIKey: centrifugoKey, TokenSecret: centrifugoSecret, ChannelPrefix: "p_", Batch: 7, Publishers: 3,
	}
}

func TestCentrifugoIsSentTheSameTraffic(t *testing.T) {
	for name, change := range map[string]func(opts *CentrifugoOptions){
		"at a rate":       func(*CentrifugoOptions) {},
		"at its own pace": func(opts *CentrifugoOptions) { opts.Rate = 0 },
		"in bursts":       func(opts *CentrifugoOptions) { opts.Burst, opts.Rate = 3, 0 },
		"two queues":      func(opts *CentrifugoOptions) { opts.Queues = 2 },
		"protobuf":        func(opts *CentrifugoOptions) { opts.Protocol = "protobuf" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeCentrifugo(t)
			opts := centrifugoOptions(s)
			change(&opts)
			result, err := Centrifugo(t.Context(), opts)
			require.NoError(t, err)
			require.True(t, result.OK, "%+v", result.Problems)
			require.Positive(t, result.Figure("deliveries").Value)
			require.Positive(t, result.Figure("CPU per million deliveries").Value)
			require.Positive(t, result.Curve(headToLast).Count)
			require.Zero(t, result.Figure("positions skipped").Value, "every change is published to all patients")
		})
	}
}

func TestCentrifugoWithoutMetricsHasNoCost(t *testing.T) {
	s := newFakeCentrifugo(t)
	s.metrics = false
	result, err := Centrifugo(t.Context(), centrifugoOptions(s))
	require.NoError(t, err)
	require.True(t, result.OK)
	require.Zero(t, result.Figure("CPU per million deliveries"))
	require.Contains(t, result.Settings[len(result.Settings)-1].Value, "unknown: read "+s.url+"/metrics: HTTP 404")
}

func TestCentrifugoReportsALostPublication(t *testing.T) {
	s := newFakeCentrifugo(t)
	s.lose = func(channel string, _ []byte) bool { return channel == "p_"+bareBooking(3) }
	opts := centrifugoOptions(s)
	opts.Bound = time.Second
	result, err := Centrifugo(t.Context(), opts)
	require.NoError(t, err)
	require.Equal(t, report.Faults{Missed: 1}, *result.Faults, "%+v", result.Problems)
}

func TestCentrifugoSaysWhatWasRefused(t *testing.T) {
	for want, change := range map[string]func(s *fakeCentrifugo, opts *CentrifugoOptions){
		"batch: HTTP 401": func(_ *fakeCentrifugo, opts *CentrifugoOptions) { opts.APIKey = "wrong" },
		"1 were refused":  func(_ *fakeCentrifugo, opts *CentrifugoOptions) { opts.TokenSecret, opts.Patients = "wrong", 2 },
		"0 of 1 clients":  func(_ *fakeCentrifugo, opts *CentrifugoOptions) { opts.ChannelPrefix, opts.Patients = "a:", 2 },
		"batch: error 102 planted": func(s *fakeCentrifugo, _ *CentrifugoOptions) {
			s.refuse = func(channel string) *centrifugoError {
				if channel == "p_"+bareBooking(9) {
					return &centrifugoError{102, "planted"}
				}
				return nil
			}
		},
		"the secret of the tokens are required": func(_ *fakeCentrifugo, opts *CentrifugoOptions) { opts.TokenSecret = "" },
		"batch and publishers":                  func(_ *fakeCentrifugo, opts *CentrifugoOptions) { opts.Batch = -1 },
		"want http://host:port":                 func(_ *fakeCentrifugo, opts *CentrifugoOptions) { opts.URL = "here" },
	} {
		t.Run(want, func(t *testing.T) {
			s := newFakeCentrifugo(t)
			opts := centrifugoOptions(s)
			change(s, &opts)
			_, err := Centrifugo(t.Context(), opts)
			require.ErrorContains(t, err, want)
		})
	}
}
