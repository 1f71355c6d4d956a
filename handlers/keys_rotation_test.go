package handlers_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// TestKeysAreRotatedOneByOne: of rotations at once each gives the successor of
// the one before a successor, and all keys work for another day; a deletion
// leaves none of them.
func TestKeysAreRotatedOneByOne(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		for _, path := range []string{keysPath, accountKeysPath} {
			ask := func(method, path string, body any) (answer, error) {
				return h.try(request{method: method, path: path, token: bootstrapKey, app: c.id, body: body})
			}
			must := func(method, path string, body any) answer {
				a, err := ask(method, path, body)
				require.NoError(t, err)
				return a.ok()
			}
			name := object{"name": "kiosk"}
			var mu sync.Mutex
			keys := []string{must(http.MethodPost, path, name).str("result.key")}
			var crowd sync.WaitGroup
			for range 50 {
				crowd.Go(func() {
					a, err := ask(http.MethodPost, path+"/rotate", name)
					if assert.NoError(t, err) && assert.Equal(t, http.StatusOK, a.status, "%s", a.raw) {
						mu.Lock()
						defer mu.Unlock()
						keys = append(keys, a.str("result.key"))
					}
				})
			}
			crowd.Wait()
			require.Len(t, keys, 51)
			const kiosks = "SELECT COUNT(*) FROM api_keys WHERE name = 'kiosk'"
			assert.Equal(t, 51, scalar[int](h, kiosks))
			assert.Equal(t, 1, scalar[int](h, kiosks+" AND replaced_at IS NULL AND expires_at IS NULL"))
			now := time.Now().UTC()
			assert.Equal(t, 50, scalar[int](h, kiosks+" AND replaced_at IS NOT NULL AND expires_at BETWEEN ? AND ?", now.Add(24*time.Hour-5*time.Minute), now.Add(24*time.Hour)))
			assert.Equal(t, 50, scalar[int](h, "SELECT COUNT(DISTINCT a.subject_id) FROM audit a JOIN api_keys k ON k.id = a.subject_id AND k.name = 'kiosk' WHERE a.action = 'rotateKey'"),
				"each was replaced once")
			for _, key := range keys {
				assert.NotEqual(t, http.StatusUnauthorized, h.send(request{method: http.MethodGet, path: "/management/types", token: key, app: c.id}).status)
			}
			for _, key := range must(http.MethodGet, path, nil).list("result") {
				if at(key, "name") == "kiosk" {
					assert.Nil(t, at(key, "replacedAt"), "the living one first")
					break
				}
			}

			for range 10 {
				crowd.Go(func() {
					a, err := ask(http.MethodPost, path+"/rotate", name)
					if assert.NoError(t, err) && a.status != http.StatusOK {
						assert.Equal(t, string(models.CodeKeyMissing), a.str("code"), "%s", a.raw)
					}
				})
			}
			crowd.Go(func() {
				a, err := ask(http.MethodDelete, path, name)
				if assert.NoError(t, err) {
					assert.Equal(t, http.StatusOK, a.status, "%s", a.raw)
				}
			})
			crowd.Wait()
			assert.Zero(t, scalar[int](h, kiosks), "who rotates a key while it is deleted keeps none")
			for _, key := range keys {
				h.send(keyed(key)).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			}
		}
	})
}
