package access_test

import (
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

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
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, elsewhere := h.NewClinic(), h.NewClinic()
		made := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk", "scopes": []string{"read", "write"}, "expiresAt": time.Now().Add(time.Hour)}).OK()
		key := made.Str("result.key")
		require.Regexp(t, `^nsk_[0-9A-Za-z]{36}$`, key, "what scanners look for")
		assert.Equal(t, digits62(crc32.ChecksumIEEE([]byte(key[4:34]))), key[34:], "a checksum they can check")
		assert.Equal(t, []any{"read", "write"}, made.At("result.scopes"))
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM api_keys WHERE key_hash LIKE '%"+key[4:20]+"%'"))
		h.Send(nodetest.Keyed(key)).OK()
		h.Send(nodetest.Keyed(nodetest.OtherChecksum(key))).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		named := strings.Repeat("م", 100) // characters, as the document counts
		c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": named}).OK()
		c.Staff(http.MethodDelete, nodetest.KeysPath, nodetest.Object{"name": named}).OK()

		// A key made before keys had this form, and the one the configuration names.
		old := "nsk_" + strings.Repeat("A", 26)
		h.Exec("INSERT INTO api_keys (id, organization_id, name, key_hash, created_at) VALUES (?, ?, 'old', ?, ?)", models.NewID(), c.ID, models.HashSecret(old), time.Now().UTC())
		h.Send(nodetest.Keyed(old)).OK()
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/organizations", Token: nodetest.BootstrapKey}).OK()

		list := c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK()
		assert.Equal(t, []string{"desk", "kiosk", "old"}, list.Pluck("result", "name"))
		assert.Nil(t, list.At("result.0.expiresAt"))
		assert.Equal(t, made.At("result.expiresAt"), list.At("result.1.expiresAt"))
		assert.Equal(t, []any{"admin"}, list.At("result.2.scopes"))
		for i := range 3 {
			assert.Nil(t, list.At(fmt.Sprintf("result.%d.key", i)), "shown once")
		}

		for field, wrong := range map[string]nodetest.Object{
			"name":      {"name": " "},
			"scopes[0]": {"name": "x", "scopes": []string{"root"}},
			"scopes":    {"name": "x", "scopes": []string{}},
			"expiresAt": {"name": "x", "expiresAt": time.Now().Add(-time.Minute)},
		} {
			assert.Equal(t, field, c.Staff(http.MethodPost, nodetest.KeysPath, wrong).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).Str("errors.0.field"))
		}
		c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk"}).Refused(http.StatusConflict, models.CodeKeyTaken)
		elsewhere.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk"}).OK()
		elsewhere.Staff(http.MethodDelete, nodetest.KeysPath, nodetest.Object{"name": "old"}).Refused(http.StatusNotFound, models.CodeKeyMissing)
		elsewhere.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": "old"}).Refused(http.StatusNotFound, models.CodeKeyMissing)

		// Account keys are for account keys alone.
		for _, r := range []nodetest.Request{{Method: http.MethodGet}, {Method: http.MethodPost, Body: nodetest.Object{"name": "x"}}, {Method: http.MethodDelete, Body: nodetest.Object{"name": "x"}}} {
			r.Path, r.Token = nodetest.AccountKeysPath, c.Key
			h.Send(r).Refused(http.StatusForbidden, models.CodeForbidden)
		}
		account := func(token, method string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: nodetest.AccountKeysPath, Token: token, Body: body})
		}
		reader := account(nodetest.BootstrapKey, http.MethodPost, nodetest.Object{"name": "reader", "scopes": []string{"read"}}).OK().Str("result.key")
		assert.Equal(t, []string{"reader"}, account(nodetest.BootstrapKey, http.MethodGet, nil).OK().Pluck("result", "name"), "not those of organizations")
		assert.Len(t, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/organizations", Token: reader}).OK().List("result"), 2)
		account(reader, http.MethodGet, nil).Refused(http.StatusForbidden, models.CodeScope)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/operator/jobs/", Token: reader}).Refused(http.StatusForbidden, models.CodeScope)
		account(nodetest.BootstrapKey, http.MethodDelete, nodetest.Object{"name": "reader"}).OK()
		account(reader, http.MethodGet, nil).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

// TestKeysOfAdmins: who may not touch owners, nor read the audit, can't make a
// key that may.
func TestKeysOfAdmins(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(_ *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		boss := nodetest.Hire(c, nodetest.Object{"phone": "+966500000431", "role": "owner"}).OK().Str("result.id")
		admin := c.Member(models.RoleAdmin, "+966500000432")
		mint := func(token, name string) string {
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.KeysPath, Token: token, Body: nodetest.Object{"name": name}}).OK().Str("result.key")
		}
		one := mint(admin, "one")
		two := mint(one, "made by the key")
		three := h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.KeysPath + "/rotate", Token: one, Body: nodetest.Object{"name": "one"}}).OK().Str("result.key")
		for _, key := range []string{one, two, three} {
			h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.MembersPath, Token: key, Body: nodetest.Object{"phone": "+966500000433", "role": "owner"}}).
				Refused(http.StatusForbidden, models.CodeForbidden)
			h.Send(nodetest.Request{Method: http.MethodDelete, Path: nodetest.MembersPath, Token: key, Body: nodetest.Object{"id": boss}}).Refused(http.StatusForbidden, models.CodeForbidden)
			h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/audit", Token: key}).Refused(http.StatusForbidden, models.CodeForbidden)
			h.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: key}).OK()
		}
		owner := c.Member(models.RoleOwner, "+966500000434")
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/audit", Token: mint(owner, "an owner's")}).OK()
		mint(c.Key, "the account's")
		rotate := func(token, name string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.KeysPath + "/rotate", Token: token, Body: nodetest.Object{"name": name}})
		}
		for _, name := range []string{"an owner's", "the account's"} {
			rotate(admin, name).Refused(http.StatusForbidden, models.CodeForbidden)
			rotate(one, name).Refused(http.StatusForbidden, models.CodeForbidden)
			rotate(owner, name).OK()
		}
		rotate(owner, "one").OK()
		rotate(admin, "one").OK()
	})
}

// TestKeysExpire: a key stops working at its end, also on a node that knows it.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		var key string
		var ends time.Time
		var gone <-chan centrifuge.DisconnectedEvent
		for life := 2 * time.Second; ; life *= 2 { // until the machine is quick enough to see it work
			ends = time.Now().Add(life)
			key = c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "short", "expiresAt": ends}).OK().Str("result.key")
			if h.Send(nodetest.Keyed(key)).OK(); time.Until(ends) > life/2 {
				gone = nodetest.Attach(h, key)
				break
			}
			c.Staff(http.MethodDelete, nodetest.KeysPath, nodetest.Object{"name": "short"}).OK()
		}
		require.Eventually(t, func() bool { return h.Send(nodetest.Keyed(key)).Status == http.StatusUnauthorized }, nodetest.Patience, 50*time.Millisecond)
		assert.False(t, time.Now().Before(ends))
		assert.Less(t, time.Since(ends), nodetest.DropTime)
		assert.Contains(t, h.Send(nodetest.Keyed(key)).Refused(http.StatusUnauthorized, models.CodeKeyExpired).Str("detail"), "expired")
		select {
		case <-gone:
		case <-time.After(nodetest.DropTime):
			t.Error("its live connection goes on")
		}
		c.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": "short"}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		again := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "short"}).OK().Str("result.key")
		h.Send(nodetest.Keyed(again)).OK()
		assert.Equal(t, []string{"desk", "short"}, c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK().Pluck("result", "name"), "the name was free again")
	})
}

// TestKeysRotate: the old key works for another day, then neither it nor what
// was opened with it.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		first := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk", "scopes": []string{"write"}}).OK()
		gone := nodetest.Attach(h, first.Str("result.key"))
		second := c.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": "kiosk"}).OK()
		assert.NotEqual(t, first.Str("result.key"), second.Str("result.key"))
		assert.Equal(t, []any{"write"}, second.At("result.scopes"))
		assert.Nil(t, second.At("result.expiresAt"))
		for _, made := range []nodetest.Response{first, second} {
			h.Send(nodetest.Keyed(made.Str("result.key"))).OK()
		}
		list := c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK()
		assert.Equal(t, []string{"desk", "kiosk", "kiosk"}, list.Pluck("result", "name"))
		assert.Equal(t, second.Str("result.id"), list.Str("result.1.id"), "the living one first")
		assert.Nil(t, list.At("result.1.replacedAt"))
		until, err := time.Parse(time.RFC3339Nano, list.Str("result.2.expiresAt"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)

		// An end of its own is the successor's too.
		ends := "2098-07-06T05:04:03.000Z"
		c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "season", "expiresAt": ends}).OK()
		assert.Equal(t, ends, c.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": "season"}).OK().Str("result.expiresAt"))
		seasons := c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK()
		assert.Equal(t, ends, seasons.Str("result.3.expiresAt"))
		assert.Less(t, seasons.Str("result.4.expiresAt"), ends, "the old one")
		c.Staff(http.MethodDelete, nodetest.KeysPath, nodetest.Object{"name": "season"}).OK()

		// A day later. A node that doesn't know it refuses it at once, and soon it
		// is gone.
		fresh := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "unknown here"}).OK()
		c.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": "unknown here"}).OK()
		h.Exec("UPDATE api_keys SET expires_at = ? WHERE replaced_at IS NOT NULL", time.Now().UTC().Add(-time.Second))
		h.Send(nodetest.Keyed(fresh.Str("result.key"))).Refused(http.StatusUnauthorized, models.CodeKeyExpired)
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(nodetest.Patience):
			t.Error("a live connection goes on")
		}
		h.Send(nodetest.Keyed(first.Str("result.key"))).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(nodetest.Keyed(second.Str("result.key"))).OK()
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM audit WHERE action = 'rotateKey' AND subject_id = ?", first.Str("result.id")))

		// A deletion takes all of that name.
		c.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": "kiosk"}).OK()
		c.Staff(http.MethodDelete, nodetest.KeysPath, nodetest.Object{"name": "kiosk"}).OK()
		h.Send(nodetest.Keyed(second.Str("result.key"))).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

// TestKeysAreCounted: what keys were used for is added up over all nodes.
func TestKeysAreCounted(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		far := h
		if h.RedisServer != nil {
			far = h.Beside(nil)
		}
		c := h.NewClinic()
		key := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk", "scopes": []string{"read"}}).OK().Str("result.key")
		assert.Nil(t, c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK().At("result.1.lastUsedAt"))
		for range 3 {
			h.Send(nodetest.Keyed(key)).OK()
			far.Send(nodetest.Keyed(key)).OK()
		}
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types/nothing", Token: key}).Refused(http.StatusNotFound, models.CodeTypeMissing)
		far.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/types", Token: key}).Refused(http.StatusForbidden, models.CodeScope)
		var list nodetest.Response
		assert.Eventually(t, func() bool {
			list = c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK()
			return list.Num("result.1.requests") == 8
		}, nodetest.Patience, 50*time.Millisecond)
		assert.Equal(t, 2, list.Num("result.1.errors"))
		used, err := time.Parse(time.RFC3339Nano, list.Str("result.1.lastUsedAt"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), used, time.Minute)
	})
}

// TestHotPathReadsNothing: a known key or display token, or an access token, is
// checked without the database; a mistyped key too.
func TestHotPathReadsNothing(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var looks atomic.Int64
			credentials := regexp.MustCompile("FROM .?(api_keys|displays|sessions|members|customers|revocations).?( |$)")
			h := nodetest.Start(t, b, func(c *node.Config) {
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
			c := h.NewClinic()
			screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK().Str("result.token")
			token := c.Patient("+966500000441")
			ask := func(credential string, status int) {
				// A body that says nothing is refused once it is known who sent it.
				a := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: credential, Body: nodetest.Object{}})
				require.Equal(t, status, a.Status, "%s", a.Raw)
			}
			for credential, status := range map[string]int{c.Key: 403, screen: 403, token: 422} {
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
			ask(nodetest.OtherChecksum(c.Key), 401)
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
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		for _, path := range []string{"/management/apiKeys", "/management/account/apiKeys"} {
			h.Send(nodetest.Request{Method: http.MethodPost, Path: path, Token: nodetest.BootstrapKey, App: c.ID, Body: nodetest.Object{"name": "gone"}}).OK()
			a := h.Send(nodetest.Request{Method: http.MethodDelete, Path: path, Token: nodetest.BootstrapKey, App: c.ID, Body: nodetest.Object{"name": "gone"}}).OK()
			assert.JSONEq(t, `{"result": {}}`, string(a.Raw), path)
		}
	})
}
