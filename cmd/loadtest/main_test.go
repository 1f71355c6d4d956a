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
	"nowserving/loadtest/report"
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

func TestScenariosNeedAKey(t *testing.T) {
	for _, scenario := range []string{"replay", "day", "storm", "slow"} {
		_, _, err := run(t, scenario)
		require.ErrorContains(t, err, "--key or NOWSERVING_BOOTSTRAP_KEY", scenario)
	}
}

func TestSharesAreReadInPercentOrAsFractions(t *testing.T) {
	for text, want := range map[string]float64{"5%": 0.05, "0.25": 0.25, "12.5%": 0.125} {
		share, err := parseShare(text)
		require.NoError(t, err)
		require.InDelta(t, want, share, 1e-9)
	}
	for _, text := range []string{"", "5", "0%", "100%", "-1%", "five", "NaN"} {
		_, err := parseShare(text)
		require.ErrorContains(t, err, "is not a share", text)
	}
	_, _, err := run(t, "slow", "--key", "k", "--stalled", "all")
	require.ErrorContains(t, err, "--stalled")
}

func TestChurnExcludesRestarts(t *testing.T) {
	_, _, err := run(t, "storm", "--key", "k", "--churn", "1s", "--restart", "true")
	require.ErrorContains(t, err, "--churn excludes --restart and --pid")
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
	result := &report.Report{Scenario: "replay", OK: true, Verdict: "every update was correct"}
	var out bytes.Buffer
	require.NoError(t, (&output{}).write(&out, result))
	require.Contains(t, out.String(), "every update was correct")

	dir := t.TempDir()
	document, page := filepath.Join(dir, "report.json"), filepath.Join(dir, "report.html")
	out.Reset()
	require.NoError(t, (&output{jsonAt: document, htmlAt: page}).write(&out, result))
	require.Contains(t, out.String(), "verdict")
	data, err := os.ReadFile(document)
	require.NoError(t, err)
	require.True(t, json.Valid(data))
	data, err = os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(data), "every update was correct")

	out.Reset()
	require.NoError(t, (&output{jsonAt: "-"}).write(&out, result))
	require.True(t, json.Valid(out.Bytes()))
	require.Error(t, (&output{jsonAt: filepath.Join(document, "nowhere")}).write(&out, result))
	require.Error(t, (&output{htmlAt: filepath.Join(document, "nowhere")}).write(&out, result))
}

func TestBarWithoutATerminalPrintsLines(t *testing.T) {
	var out bytes.Buffer
	b := newBar(&out)
	b.show(report.Progress{Total: 10, What: "visits"})
	b.show(report.Progress{Done: 5, Total: 10, What: "visits"}) // too soon for another line
	b.show(report.Progress{Done: 10, Total: 10, What: "visits", Detail: "70 updates, 2 wrong"})
	b.close()
	require.Equal(t, "[........................] 0/10 visits\n"+
		"[########################] 10/10 visits, 70 updates, 2 wrong\n", out.String())
}
