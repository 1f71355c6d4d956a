package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRollRestartsEachNodeInTurn(t *testing.T) {
	s := newFake(t)
	list := filepath.Join(t.TempDir(), "restarts")
	result := mustReplay(t, s, func(opts *ReplayOptions) {
		opts.Nodes = []string{s.url, s.url + "/"}
		opts.Speed = 600 // two and a half seconds
		opts.RollingRestart = &RollingRestart{Command: `echo "$NODE $INDEX" >> ` + list, Every: time.Millisecond, Rounds: 2}
	})
	require.True(t, result.OK, "%+v", result.Problems)
	data, err := os.ReadFile(list)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat(fmt.Sprintf("%s 0\n%s 1\n", s.url, s.url), 2), string(data))
	require.Len(t, result.Marks, 8)
	require.Equal(t, "restart 1", result.Marks[0].Text)
	require.Equal(t, "1 ready", result.Marks[1].Text)
}

func TestARestartThatFailsFailsTheRun(t *testing.T) {
	s := newFake(t)
	result := mustReplay(t, s, func(opts *ReplayOptions) {
		opts.Speed = 600
		opts.RollingRestart = &RollingRestart{Command: "echo no such server; exit 3", Every: time.Millisecond}
	})
	require.False(t, result.OK)
	require.Equal(t, "a restart failed", result.Verdict)
	require.Contains(t, result.Problems[0].Detail, "no such server")
}

// cutter forwards requests to the fake and treats one of them as a dying node would.
func cutter(t *testing.T, s *fakeServer, treat func(w http.ResponseWriter, forward func())) *httptest.Server {
	t.Helper()
	joins := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forward := func() {
			req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, s.url+r.URL.Path, r.Body)
			if err != nil {
				panic(err)
			}
			req.Header = r.Header
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				panic(err)
			}
			w.WriteHeader(res.StatusCode)
			_, err = io.Copy(w, res.Body)
			if err := errors.Join(err, res.Body.Close()); err != nil {
				panic(err)
			}
		}
		if r.URL.Path == "/connection/websocket" {
			w.WriteHeader(http.StatusServiceUnavailable) // they go to the fake itself
			return
		}
		if r.URL.Path == "/management/scheduling/new" {
			if joins++; joins == 2 {
				treat(w, forward)
				return
			}
		}
		forward()
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return server
}

// The second join is always on a connection that was used before: the transport
// would repeat it unseen.
func TestALostAnswerIsAFailedRequestEvenWhenRepeated(t *testing.T) {
	for name, treat := range map[string]func(w http.ResponseWriter, forward func()){
		"before a byte of it": func(http.ResponseWriter, func()) { panic(http.ErrAbortHandler) },
		"half-way": func(w http.ResponseWriter, _ func()) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusOK)
			io.WriteString(w, `{"id":`) //nolint:errcheck // the client reports a lost response
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFake(t)
			node := cutter(t, s, treat)
			result, err := replayFake(t, s, func(opts *ReplayOptions) {
				opts.Nodes = []string{node.URL, s.url}
				opts.Trace = readTrace(t, "1,a,2019-11-01T08:00:00,,", "2,a,2019-11-01T08:00:01,,", "3,a,2019-11-01T08:00:02,,", "4,a,2019-11-01T08:00:03,,")
			})
			require.NoError(t, err)
			require.EqualValues(t, 1, result.Faults.FailedRequests, "%+v", result.Problems)
			require.Equal(t, 1, counted(t, result, "answers lost"))
			require.Zero(t, counted(t, result, "moved to another node"))
			require.Equal(t, 4, counted(t, result, "left"), "and the run goes on")
			require.False(t, result.OK)
			require.Contains(t, result.Problems[0].Detail, "join at "+node.URL)
		})
	}
}

func TestAFaultInsideTheServerIsAFailedRequest(t *testing.T) {
	s := newFake(t)
	node := cutter(t, s, func(w http.ResponseWriter, _ func()) { w.WriteHeader(http.StatusInternalServerError) })
	result := mustReplay(t, s, func(opts *ReplayOptions) { opts.Nodes = []string{node.URL, s.url} })
	require.EqualValues(t, 1, result.Faults.FailedRequests, "%+v", result.Problems)
	require.Equal(t, 1, counted(t, result, "faults inside the server"))
}

func TestANodeThatCannotWorkNowIsPassedOver(t *testing.T) {
	s := newFake(t)
	node := cutter(t, s, func(w http.ResponseWriter, _ func()) { w.WriteHeader(http.StatusServiceUnavailable) })
	result := mustReplay(t, s, func(opts *ReplayOptions) { opts.Nodes = []string{node.URL, s.url} })
	require.True(t, result.OK, "%+v", result.Problems)
	require.Equal(t, 1, counted(t, result, "moved to another node"))
}
