package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/loadtest"
)

func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	t.Setenv(keyVariable, "")
	var out, progress bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&progress)
	err = root.ExecuteContext(t.Context())
	return out.String(), progress.String(), err
}

func TestTracePrintsADayThatCanBeRead(t *testing.T) {
	out, _, err := run(t, "trace", "--visits", "30", "--seed", "5")
	require.NoError(t, err)
	trace, err := loadtest.ReadTrace("out", bytes.NewBufferString(out))
	require.NoError(t, err)
	require.Len(t, trace.Visits, 30)
}

func TestReplayNeedsAKey(t *testing.T) {
	_, _, err := run(t, "replay")
	require.ErrorContains(t, err, "--key or NOWSERVING_BOOTSTRAP_KEY")
}

func TestReplayNamesTheLineOfABadTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.csv")
	require.NoError(t, os.WriteFile(path, []byte("visit,service,arrived_at,called_at,completed_at\n1,a,now,,\n"), 0o600))
	_, _, err := run(t, "replay", "--key", "k", "--trace", path)
	require.ErrorContains(t, err, "bad.csv: line 2: arrived_at")
	_, _, err = run(t, "replay", "--key", "k", "--trace", path+".missing")
	require.ErrorContains(t, err, "open trace")
}

func TestReplaySaysWhatTheServerRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"code":"RATE"}`, http.StatusTooManyRequests)
	}))
	defer server.Close()
	_, _, err := run(t, "replay", "--key", "k", "--url", server.URL)
	require.ErrorContains(t, err, "create organization: HTTP 429 RATE (start the server with a larger NOWSERVING_RATE_LIMIT)")
}

func TestReportGoesWhereItIsAsked(t *testing.T) {
	report := &loadtest.Report{Trace: "day.csv", OK: true}
	var out bytes.Buffer
	require.NoError(t, writeReport(&out, "", report))
	require.Contains(t, out.String(), "every client was told the truth")

	path := filepath.Join(t.TempDir(), "report.json")
	out.Reset()
	require.NoError(t, writeReport(&out, path, report))
	require.Contains(t, out.String(), "verdict")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, json.Valid(data))

	out.Reset()
	require.NoError(t, writeReport(&out, "-", report))
	require.True(t, json.Valid(out.Bytes()))
	require.Error(t, writeReport(&out, filepath.Join(path, "nowhere"), report))
}

func TestBarWithoutATerminalPrintsLines(t *testing.T) {
	var out bytes.Buffer
	b := newBar(&out)
	b.show(loadtest.Progress{Total: 10})
	b.show(loadtest.Progress{Visits: 5, Total: 10}) // too soon for another line
	b.show(loadtest.Progress{Visits: 10, Total: 10, Waiting: 0, Updates: 70, Wrong: 2})
	b.close()
	require.Equal(t, "[........................] 0/10 visits, 0 waiting, 0 updates, 0 wrong, 0s behind\n"+
		"[########################] 10/10 visits, 0 waiting, 70 updates, 2 wrong, 0s behind\n", out.String())
}
