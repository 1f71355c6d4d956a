package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"context"
	"fmt"
	"hash/crc32"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	keysPath        = "/management/apiKeys"
	accountKeysPath = "/management/account/apiKeys"
)

// keyed asks with a key for what every key may see, and reads nothing.
func keyed(key string) request {
	return request{method: http.MethodGet, path: "/management/resources/mine", token: key}
}

// otherChecksum mistypes a key.
func otherChecksum(key string) string {
	last := "0"
	if strings.HasSuffix(key, last) {
		last = "1"
	}
	return key[:len(key)-1] + last
}

// digits62 writes a number the way keys end.
func digits62(n uint32) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	text := ""
	for range 6 {
		text = string(digits[n%62]) + text
		n /= 62
	}
	return text
}

func TestAKeyIsShownOnceAndEnds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, elsewhere := h.newClinic(), h.newClinic()
		made := c.staff(http.MethodPost, keysPath, object{"name": "kiosk", "scopes": []string{"read", "write"}, "expiresAt": time.Now().Add(time.Hour)}).ok()
		key := made.str("result.key")
		require.Regexp(t, `^nsk_[0-9A-Za-z]{36}$`, key, "what scanners look for")
		assert.Equal(t, digits62(crc32.ChecksumIEEE([]byte(key[4:34]))), key[34:], "a checksum they can check")
		assert.Equal(t, []any{"read", "write"}, made.at("result.scopes"))
		assert.Equal(t, 0, scalar[int](h, "SELECT COUNT(*) FROM api_keys WHERE key_hash LIKE '%"+key[4:20]+"%'"))
		h.send(keyed(key)).ok()
		h.send(keyed(otherChecksum(key))).refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		named := strings.Repeat("م", 100) // characters, as the document counts
		c.staff(http.MethodPost, keysPath, object{"name": named}).ok()
		c.staff(http.MethodDelete, keysPath, object{"name": named}).ok()

		// A key made before keys had this form, and the one the configuration names.
		old := "nsk_" + strings.Repeat("A", 26)
		h.exec("INSERT INTO api_keys (id, organization_id, name, key_hash, created_at) VALUES (?, ?, 'old', ?, ?)", models.NewID(), c.id, models.HashSecret(old), time.Now().UTC())
		h.send(keyed(old)).ok()
		h.send(request{method: http.MethodGet, path: "/management/organizations", token: bootstrapKey}).ok()

		list := c.staff(http.MethodGet, keysPath, nil).ok()
		assert.Equal(t, []string{"desk", "kiosk", "old"}, list.pluck("result", "name"))
		assert.Nil(t, list.at("result.0.expiresAt"))
		assert.Equal(t, made.at("result.expiresAt"), list.at("result.1.expiresAt"))
		assert.Equal(t, []any{"admin"}, list.at("result.2.scopes"))
		for i := range 3 {
			assert.Nil(t, list.at(fmt.Sprintf("result.%d.key", i)), "shown once")
		}

		for field, wrong := range map[string]object{
			"name":      {"name": " "},
			"scopes[0]": {"name": "x", "scopes": []string{"root"}},
			"scopes":    {"name": "x", "scopes": []string{}},
			"expiresAt": {"name": "x", "expiresAt": time.Now().Add(-time.Minute)},
		} {
			assert.Equal(t, field, c.staff(http.MethodPost, keysPath, wrong).refused(http.StatusUnprocessableEntity, models.CodeInvalid).str("errors.0.field"))
		}
		c.staff(http.MethodPost, keysPath, object{"name": "kiosk"}).refused(http.StatusConflict, models.CodeKeyTaken)
		elsewhere.staff(http.MethodPost, keysPath, object{"name": "kiosk"}).ok()
		elsewhere.staff(http.MethodDelete, keysPath, object{"name": "old"}).refused(http.StatusNotFound, models.CodeKeyMissing)
		elsewhere.staff(http.MethodPost, keysPath+"/rotate", object{"name": "old"}).refused(http.StatusNotFound, models.CodeKeyMissing)

		// Account keys are for account keys alone.
		for _, r := range []request{{method: http.MethodGet}, {method: http.MethodPost, body: object{"name": "x"}}, {method: http.MethodDelete, body: object{"name": "x"}}} {
			r.path, r.token = accountKeysPath, c.key
			h.send(r).refused(http.StatusForbidden, models.CodeForbidden)
		}
		account := func(token, method string, body any) answer {
			return h.send(request{method: method, path: accountKeysPath, token: token, body: body})
		}
		reader := account(bootstrapKey, http.MethodPost, object{"name": "reader", "scopes": []string{"read"}}).ok().str("result.key")
		assert.Equal(t, []string{"reader"}, account(bootstrapKey, http.MethodGet, nil).ok().pluck("result", "name"), "not those of organizations")
		assert.Len(t, h.send(request{method: http.MethodGet, path: "/management/organizations", token: reader}).ok().list("result"), 2)
		account(reader, http.MethodGet, nil).refused(http.StatusForbidden, models.CodeScope)
		h.send(request{method: http.MethodGet, path: "/operator/jobs/", token: reader}).refused(http.StatusForbidden, models.CodeScope)
		account(bootstrapKey, http.MethodDelete, object{"name": "reader"}).ok()
		account(reader, http.MethodGet, nil).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

// TestKeysOfAdmins: who may not touch owners, nor read the audit, can't make a
// key that may.
func TestKeysOfAdmins(t *testing.T) {
	t.Parallel()
	onBoth(t, func(_ *testing.T, h *house) {
		c := h.newClinic()
		boss := c.hire(object{"phone": "+966500000431", "role": "owner"}).ok().str("result.id")
		admin := c.member(models.RoleAdmin, "+966500000432")
		mint := func(token, name string) string {
			return h.send(request{method: http.MethodPost, path: keysPath, token: token, body: object{"name": name}}).ok().str("result.key")
		}
		one := mint(admin, "one")
		two := mint(one, "made by the key")
		three := h.send(request{method: http.MethodPost, path: keysPath + "/rotate", token: one, body: object{"name": "one"}}).ok().str("result.key")
		for _, key := range []string{one, two, three} {
			h.send(request{method: http.MethodPost, path: membersPath, token: key, body: object{"phone": "+966500000433", "role": "owner"}}).
				refused(http.StatusForbidden, models.CodeForbidden)
			h.send(request{method: http.MethodDelete, path: membersPath, token: key, body: object{"id": boss}}).refused(http.StatusForbidden, models.CodeForbidden)
			h.send(request{method: http.MethodGet, path: "/management/audit", token: key}).refused(http.StatusForbidden, models.CodeForbidden)
			h.send(request{method: http.MethodGet, path: membersPath, token: key}).ok()
		}
		owner := c.member(models.RoleOwner, "+966500000434")
		h.send(request{method: http.MethodGet, path: "/management/audit", token: mint(owner, "an owner's")}).ok()
		mint(c.key, "the account's")
		rotate := func(token, name string) answer {
			return h.send(request{method: http.MethodPost, path: keysPath + "/rotate", token: token, body: object{"name": name}})
		}
		for _, name := range []string{"an owner's", "the account's"} {
			rotate(admin, name).refused(http.StatusForbidden, models.CodeForbidden)
			rotate(one, name).refused(http.StatusForbidden, models.CodeForbidden)
			rotate(owner, name).ok()
		}
		rotate(owner, "one").ok()
		rotate(admin, "one").ok()
	})
}

// TestAKeyWithoutTheScopeIsRefused tries every operation that takes keys with keys of each scope: one
// that doesn't reach is refused before anything else is looked at.
func TestAKeyWithoutTheScopeIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	c := h.newClinic()
	order := []string{"read", "write", "admin"}
	keys, accountKeys := map[string]string{}, map[string]string{}
	for _, scope := range order {
		body := object{"name": scope, "scopes": []string{scope}}
		keys[scope] = c.staff(http.MethodPost, keysPath, body).ok().str("result.key")
		accountKeys[scope] = h.send(request{method: http.MethodPost, path: accountKeysPath, token: bootstrapKey, body: body}).ok().str("result.key")
	}
	doc := h.document()
	counted := map[string]int{}
	for _, op := range h.operations() {
		needed, _ := at(doc.operationsAt(op.path)[strings.ToLower(op.method)], "x-scope").(string)
		if needed == "" {
			continue
		}
		counted[needed]++
		assert.Contains(t, at(doc.operationsAt(op.path)[strings.ToLower(op.method)], "description"), "an API key needs the scope "+needed)
		for i, scope := range order {
			// Nothing of the kind exists, and the body says nothing: who is let in
			// changes nothing.
			r := request{method: op.method, path: regexp.MustCompile(`\{\w+\}`).ReplaceAllString(op.path, "nothing"), app: c.id, token: accountKeys[scope]}
			if op.method != http.MethodGet {
				r.body = "[]"
			}
			a := h.send(r)
			if i >= strings.Index("read write admin", needed)/5 {
				assert.NotEqual(t, http.StatusForbidden, a.status, "%s %s with %s: %s", op.method, op.path, scope, a.raw)
			} else {
				assert.Contains(t, a.refused(http.StatusForbidden, models.CodeScope).str("detail"), needed)
			}
		}
	}
	assert.Greater(t, counted["read"], 10)
	assert.Greater(t, counted["write"], 15)
	assert.Greater(t, counted["admin"], 15)

	// The same as a clinic sees it.
	kind := c.serve(c.newType(nil))
	with := func(scope, method, path string, body any) answer {
		return h.send(request{method: method, path: path, token: keys[scope], body: body})
	}
	with("read", http.MethodGet, "/management/types/"+kind, nil).ok()
	with("read", http.MethodPut, "/management/scheduling/new", joining(kind, nil)).refused(http.StatusForbidden, models.CodeScope)
	with("write", http.MethodPut, "/management/scheduling/new", joining(kind, nil)).ok()
	with("write", http.MethodPost, "/management/types", object{"name": "X", "minutes": 5}).ok()
	with("write", http.MethodPost, keysPath, object{"name": "more"}).refused(http.StatusForbidden, models.CodeScope)
	with("admin", http.MethodPost, keysPath, object{"name": "more"}).ok()
}

// TestKeysExpire: a key stops working at its end, also on a node that knows it.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		var key string
		var ends time.Time
		var gone <-chan centrifuge.DisconnectedEvent
		for life := 2 * time.Second; ; life *= 2 { // until the machine is quick enough to see it work
			ends = time.Now().Add(life)
			key = c.staff(http.MethodPost, keysPath, object{"name": "short", "expiresAt": ends}).ok().str("result.key")
			if h.send(keyed(key)).ok(); time.Until(ends) > life/2 {
				gone = h.attach(key)
				break
			}
			c.staff(http.MethodDelete, keysPath, object{"name": "short"}).ok()
		}
		require.Eventually(t, func() bool { return h.send(keyed(key)).status == http.StatusUnauthorized }, patience, 50*time.Millisecond)
		assert.False(t, time.Now().Before(ends))
		assert.Less(t, time.Since(ends), dropTime)
		assert.Contains(t, h.send(keyed(key)).refused(http.StatusUnauthorized, models.CodeKeyExpired).str("detail"), "expired")
		select {
		case <-gone:
		case <-time.After(dropTime):
			t.Error("its live connection goes on")
		}
		c.staff(http.MethodPost, keysPath+"/rotate", object{"name": "short"}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		again := c.staff(http.MethodPost, keysPath, object{"name": "short"}).ok().str("result.key")
		h.send(keyed(again)).ok()
		assert.Equal(t, []string{"desk", "short"}, c.staff(http.MethodGet, keysPath, nil).ok().pluck("result", "name"), "the name was free again")
	})
}

// TestKeysRotate: the old key works for another day, then neither it nor what
// was opened with it.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		first := c.staff(http.MethodPost, keysPath, object{"name": "kiosk", "scopes": []string{"write"}}).ok()
		gone := h.attach(first.str("result.key"))
		second := c.staff(http.MethodPost, keysPath+"/rotate", object{"name": "kiosk"}).ok()
		assert.NotEqual(t, first.str("result.key"), second.str("result.key"))
		assert.Equal(t, []any{"write"}, second.at("result.scopes"))
		assert.Nil(t, second.at("result.expiresAt"))
		for _, made := range []answer{first, second} {
			h.send(keyed(made.str("result.key"))).ok()
		}
		list := c.staff(http.MethodGet, keysPath, nil).ok()
		assert.Equal(t, []string{"desk", "kiosk", "kiosk"}, list.pluck("result", "name"))
		assert.Equal(t, second.str("result.id"), list.str("result.1.id"), "the living one first")
		assert.Nil(t, list.at("result.1.replacedAt"))
		until, err := time.Parse(time.RFC3339Nano, list.str("result.2.expiresAt"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)

		// An end of its own is the successor's too.
		ends := "2098-07-06T05:04:03.000Z"
		c.staff(http.MethodPost, keysPath, object{"name": "season", "expiresAt": ends}).ok()
		assert.Equal(t, ends, c.staff(http.MethodPost, keysPath+"/rotate", object{"name": "season"}).ok().str("result.expiresAt"))
		seasons := c.staff(http.MethodGet, keysPath, nil).ok()
		assert.Equal(t, ends, seasons.str("result.3.expiresAt"))
		assert.Less(t, seasons.str("result.4.expiresAt"), ends, "the old one")
		c.staff(http.MethodDelete, keysPath, object{"name": "season"}).ok()

		// A day later. A node that doesn't know it refuses it at once, and soon it
		// is gone.
		fresh := c.staff(http.MethodPost, keysPath, object{"name": "unknown here"}).ok()
		c.staff(http.MethodPost, keysPath+"/rotate", object{"name": "unknown here"}).ok()
		h.exec("UPDATE api_keys SET expires_at = ? WHERE replaced_at IS NOT NULL", time.Now().UTC().Add(-time.Second))
		h.send(keyed(fresh.str("result.key"))).refused(http.StatusUnauthorized, models.CodeKeyExpired)
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(patience):
			t.Error("a live connection goes on")
		}
		h.send(keyed(first.str("result.key"))).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.send(keyed(second.str("result.key"))).ok()
		assert.Equal(t, 1, scalar[int](h, "SELECT COUNT(*) FROM audit WHERE action = 'rotateKey' AND subject_id = ?", first.str("result.id")))

		// A deletion takes all of that name.
		c.staff(http.MethodPost, keysPath+"/rotate", object{"name": "kiosk"}).ok()
		c.staff(http.MethodDelete, keysPath, object{"name": "kiosk"}).ok()
		h.send(keyed(second.str("result.key"))).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

// TestKeysAreCounted: what keys were used for is added up over all nodes.
func TestKeysAreCounted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		far := h
		if h.server != nil {
			far = h.beside(nil)
		}
		c := h.newClinic()
		key := c.staff(http.MethodPost, keysPath, object{"name": "kiosk", "scopes": []string{"read"}}).ok().str("result.key")
		assert.Nil(t, c.staff(http.MethodGet, keysPath, nil).ok().at("result.1.lastUsedAt"))
		for range 3 {
			h.send(keyed(key)).ok()
			far.send(keyed(key)).ok()
		}
		h.send(request{method: http.MethodGet, path: "/management/types/nothing", token: key}).refused(http.StatusNotFound, models.CodeTypeMissing)
		far.send(request{method: http.MethodPost, path: "/management/types", token: key}).refused(http.StatusForbidden, models.CodeScope)
		var list answer
		assert.Eventually(t, func() bool {
			list = c.staff(http.MethodGet, keysPath, nil).ok()
			return list.num("result.1.requests") == 8
		}, patience, 50*time.Millisecond)
		assert.Equal(t, 2, list.num("result.1.errors"))
		used, err := time.Parse(time.RFC3339Nano, list.str("result.1.lastUsedAt"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), used, time.Minute)
	})
}

// TestHotPathReadsNothing: a known key or display token, or an access token, is
// checked without the database; a mistyped key too.
func TestHotPathReadsNothing(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var looks atomic.Int64
			credentials := regexp.MustCompile("FROM .?(api_keys|displays|sessions|members|customers|revocations).?( |$)")
			h := newHouse(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					note := func(db *gorm.DB) {
						sql := db.Statement.SQL.String()
						if credentials.MatchString(sql) && !strings.Contains(sql, "at >= ") && !strings.Contains(sql, "replaced_at") { // which a node asks by itself
							looks.Add(1)
						}
					}
					on := s.Read(context.Background()).Callback()
					require.NoError(t, on.Query().After("gorm:query").Register("test:query", note))
					require.NoError(t, on.Raw().After("gorm:raw").Register("test:raw", note))
					require.NoError(t, on.Row().After("gorm:row").Register("test:row", note))
				}
			})
			c := h.newClinic()
			screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok().str("result.token")
			token := c.patient("+966500000441")
			ask := func(credential string, status int) {
				// A body that says nothing is refused once it is known who sent it.
				a := h.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: credential, body: object{}})
				require.Equal(t, status, a.status, "%s", a.raw)
			}
			for credential, status := range map[string]int{c.key: 403, screen: 403, token: 422} {
				before := looks.Load()
				ask(credential, status)
				if credential == token {
					assert.Equal(t, before, looks.Load(), "an access token, even the first time")
				}
				before = looks.Load()
				for range 20 {
					ask(credential, status)
				}
				assert.Equal(t, before, looks.Load())
			}
			before := looks.Load()
			ask(otherChecksum(c.key), 401)
			assert.Equal(t, before, looks.Load(), "a mistyped key")
			ask("nsk_"+strings.Repeat("A", 26), 401)
			assert.Equal(t, before+1, looks.Load(), "an unknown one is looked for")
			ask("nsk_"+strings.Repeat("A", 26), 401)
			assert.Equal(t, before+2, looks.Load(), "and is not remembered")
		})
	}
}

func TestDeletingAKeyAnswersAsTheDocumentShows(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		for _, path := range []string{"/management/apiKeys", "/management/account/apiKeys"} {
			h.send(request{method: http.MethodPost, path: path, token: bootstrapKey, app: c.id, body: object{"name": "gone"}}).ok()
			a := h.send(request{method: http.MethodDelete, path: path, token: bootstrapKey, app: c.id, body: object{"name": "gone"}}).ok()
			assert.JSONEq(t, `{"result": {}}`, string(a.raw), path)
		}
	})
}
