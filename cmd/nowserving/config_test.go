package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

func TestConfigListExplainsEverySetting(t *testing.T) {
	t.Parallel()
	list := run(t, "config", "list")
	names, err := knownNames()
	require.NoError(t, err)
	for _, name := range names {
		assert.Contains(t, list, name)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		if field.Tag.Get("env") != "" {
			assert.NotEmpty(t, field.Tag.Get("about"), field.Name)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	t.Parallel()
	assert.Equal(t, version()+"\n", run(t, "version"))
	assert.Contains(t, run(t, "--version"), version())
}

// A misspelt setting is refused with the one that was meant.
func Example_configCheck() {
	_, err := readConfig([]string{"NOWSERVING_ADRR=:9000", "NOWSERVING_RATE_LIMIT=0"})
	fmt.Println(err)
	// Output:
	// NOWSERVING_ADRR is not a setting; did you mean NOWSERVING_ADDR?
	// NOWSERVING_RATE_LIMIT is a number of requests a minute, 1 or more
}
