package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
)

func run(t testing.TB, args ...string) string {
	t.Helper()
	var out strings.Builder
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	require.NoError(t, cmd.ExecuteContext(t.Context()))
	return out.String()
}

func TestVersionIsPrinted(t *testing.T) {
	t.Parallel()
	assert.Equal(t, node.Version()+"\n", run(t, "version"))
	assert.Contains(t, run(t, "--version"), node.Version())
}

func TestConfigListPrintsTheSettings(t *testing.T) {
	t.Parallel()
	assert.Contains(t, run(t, "config", "list"), "NOWSERVING_ADDR = :8080\n")
}
