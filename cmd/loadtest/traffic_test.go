package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

// TestMain lets the test program be a worker of itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == loadtest.WorkerCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestFloorRunsInSeveralProcesses(t *testing.T) {
	out, _, err := run(t, "floor", "--patients", "60", "--watch", "3", "--processes", "2", "--rate", "20", "--duration", "300ms", "--json", "-")
	require.NoError(t, err)
	var result report.Report
	require.NoError(t, json.Unmarshal([]byte(out), &result))
	require.True(t, result.OK, "%+v", result.Problems)
	for _, f := range result.Figures {
		if f.Name == "positions checked" {
			require.GreaterOrEqual(t, f.Value, 120., "a snapshot and a push for each patient")
		}
	}
}

func TestScenariosSayWhatTheyNeed(t *testing.T) {
	for _, scenario := range []string{"queue", "connect", "bench"} {
		_, _, err := run(t, scenario)
		require.ErrorContains(t, err, "--key or NOWSERVING_BOOTSTRAP_KEY")
	}
	for want, args := range map[string][]string{
		"the key of the HTTP API":         {"centrifugo"},
		"1 patients are too few":          {"floor", "--patients", "1", "--watch", "2"},
		"idle must be more than zero":     {"connect", "--key", "k", "--idle", "0s"},
		"duration must be more than zero": {"queue", "--key", "k", "--duration", "0s"},
	} {
		_, _, err := run(t, args...)
		require.ErrorContains(t, err, want)
	}
}
