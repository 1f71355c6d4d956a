package access_test

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

// TestSetupLink_AfterTheFirstKeyOrADay_IsRefused opens the link on one node and
// ends it on another.
func TestSetupLink_AfterTheFirstKeyOrADay_IsRefused(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"embedded", "postgres"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			o := storetest.Migrated(t, backend == "postgres")
			o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			s, err := store.Open(t.Context(), o)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, s.Close()) })
			node := func() *access.Access {
				a, err := access.New(s, access.Options{Secret: []byte(strings.Repeat("s", 32)), Now: o.Now, Log: slog.Default()})
				require.NoError(t, err)
				return a
			}
			here, there := node(), node()
			refused := func(a *access.Access, token string) {
				t.Helper()
				_, _, err := a.Setup(t.Context(), token)
				require.Equal(t, models.CodeUnauthenticated, models.CodeOf(err), "%v", err)
			}
			create := func(name string) {
				t.Helper()
				_, _, err := there.CreateKey(t.Context(), nil, access.KeyPlan{Name: name})
				require.NoError(t, err)
			}
			open := func(a *access.Access) string {
				t.Helper()
				token, err := a.OpenSetup(t.Context())
				require.NoError(t, err)
				require.NotEmpty(t, token)
				return token
			}

			// A key that the command line makes ends it, for good.
			token := open(here)
			create("mine")
			refused(here, token)
			none, err := there.OpenSetup(t.Context())
			require.NoError(t, err)
			require.Empty(t, none, "there is a key")
			require.NoError(t, there.DeleteKey(t.Context(), nil, "mine"))
			refused(here, token)
			token = open(here)
			create("mine")
			require.NoError(t, there.DeleteKey(t.Context(), nil, "mine"))
			refused(here, token)

			if backend == "embedded" { // whose clock a test can move
				token = open(here)
				ahead.Store(int64(24*time.Hour + time.Second))
				refused(here, token)
			}

			// Of two nodes' links one works, once.
			first, second := open(here), open(there)
			refused(here, "guessed")
			k, _, err := here.Setup(t.Context(), first)
			require.NoError(t, err)
			assert.Equal(t, "first", k.Name)
			refused(here, first)
			refused(there, second)
		})
	}
}
