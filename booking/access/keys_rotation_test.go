package access_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestKeysAreRotatedOneByOne: of rotations at once each gives the successor of
// the one before a successor, and all keys work for another day; a deletion
// leaves none of them.
func TestKeysAreRotatedOneByOne(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		for _, path := range []string{nodetest.KeysPath, nodetest.AccountKeysPath} {
			ask := func(method, path string, body any) (nodetest.Response, error) {
				return h.Try(nodetest.Request{Method: method, Path: path, Token: nodetest.BootstrapKey, App: c.ID, Body: body})
			}
			must := func(method, path string, body any) nodetest.Response {
				a, err := ask(method, path, body)
				require.NoError(t, err)
				return a.OK()
			}
			name := nodetest.Object{"name": "kiosk"}
			var mu sync.Mutex
			keys := []string{must(http.MethodPost, path, name).Str("result.key")}
			var crowd sync.WaitGroup
			for range 50 {
				crowd.Go(func() {
					a, err := ask(http.MethodPost, path+"/rotate", name)
					if assert.NoError(t, err) && assert.Equal(t, http.StatusOK, a.Status, "%s", a.Raw) {
						mu.Lock()
						defer mu.Unlock()
						keys = append(keys, a.Str("result.key"))
					}
				})
			}
			crowd.Wait()
			require.Len(t, keys, 51)
			const kiosks = "SELECT COUNT(*) FROM api_keys WHERE name = 'kiosk'"
			assert.Equal(t, 51, nodetest.Scalar[int](h, kiosks))
			assert.Equal(t, 1, nodetest.Scalar[int](h, kiosks+" AND replaced_at IS NULL AND expires_at IS NULL"))
			now := time.Now().UTC()
			assert.Equal(t, 50, nodetest.Scalar[int](h, kiosks+" AND replaced_at IS NOT NULL AND expires_at BETWEEN ? AND ?", now.Add(24*time.Hour-5*time.Minute), now.Add(24*time.Hour)))
			assert.Equal(t, 50, nodetest.Scalar[int](h, "SELECT COUNT(DISTINCT a.subject_id) FROM audit a JOIN api_keys k ON k.id = a.subject_id AND k.name = 'kiosk' WHERE a.action = 'rotateKey'"),
				"each was replaced once")
			for _, key := range keys {
				assert.NotEqual(t, http.StatusUnauthorized, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: key, App: c.ID}).Status)
			}
			for _, key := range must(http.MethodGet, path, nil).List("result") {
				if nodetest.At(key, "name") == "kiosk" {
					assert.Nil(t, nodetest.At(key, "replacedAt"), "the living one first")
					break
				}
			}

			for range 10 {
				crowd.Go(func() {
					a, err := ask(http.MethodPost, path+"/rotate", name)
					if assert.NoError(t, err) && a.Status != http.StatusOK {
						assert.Equal(t, string(models.CodeKeyMissing), a.Str("code"), "%s", a.Raw)
					}
				})
			}
			crowd.Go(func() {
				a, err := ask(http.MethodDelete, path, name)
				if assert.NoError(t, err) {
					assert.Equal(t, http.StatusOK, a.Status, "%s", a.Raw)
				}
			})
			crowd.Wait()
			assert.Zero(t, nodetest.Scalar[int](h, kiosks), "who rotates a key while it is deleted keeps none")
			for _, key := range keys {
				h.Send(nodetest.Keyed(key)).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			}
		}
	})
}
