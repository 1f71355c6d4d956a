package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// planted is in every text that a customer leaves behind in these tests,
// plantedPhone is their number without the plus, and plantedAddress is where
// they are.
const (
	planted        = "lanted"
	plantedPhone   = "966500000777"
	plantedAddress = "203.0.113.77"
)

// plantedTexts are what nobody may find: the above, as they are and in base64,
// which has three forms of what stands in the middle of a text.
var plantedTexts = func() []string {
	var all []string
	for _, text := range []string{planted, plantedPhone, plantedAddress} {
		all = append(all, text)
		for before := range 3 {
			whole := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
			first, last := (before*8+5)/6, (before+len(text))*8/6
			all = append(all, whole[first:last])
		}
	}
	return all
}()

// traces are the places where a customer's identity is still kept.
func (h *house) traces() []string {
	h.t.Helper()
	var found []string
	look := func(where, text string) {
		if slices.ContainsFunc(plantedTexts, func(one string) bool { return strings.Contains(text, one) }) {
			found = append(found, where+": "+text[:min(len(text), 1000)])
		}
	}
	ctx := h.t.Context()
	names := "SELECT name FROM sqlite_master WHERE type = 'table'"
	if h.Store.Postgres() {
		names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
	}
	var tables []string
	require.NoError(h.t, h.Store.Read(ctx).Raw(names).Scan(&tables).Error)
	require.Greater(h.t, len(tables), 25)
	for _, table := range tables {
		var rows []map[string]any
		require.NoError(h.t, h.Store.Read(ctx).Table(table).Find(&rows).Error)
		for _, row := range rows {
			for column, value := range row {
				if raw, ok := value.([]byte); ok {
					value = string(raw)
				}
				look(table+"."+column, fmt.Sprint(value))
			}
		}
	}
	for table, purpose := range map[string]string{
		"SELECT args ->> 'sealed' FROM river_job WHERE args ->> 'sealed' <> ''": models.SealMessages,
		"SELECT body FROM idempotency_keys WHERE body <> ''":                    models.SealAnswers,
		"SELECT token_sealed FROM devices":                                      models.SealDevices,
	} {
		sealer, err := models.NewSealer([]byte(strings.Repeat("s", 32)), purpose)
		require.NoError(h.t, err)
		var sealed []string
		require.NoError(h.t, h.Store.Read(ctx).Raw(table).Scan(&sealed).Error)
		for _, text := range sealed {
			plain, err := sealer.Open(text)
			require.NoError(h.t, err)
			look(table, plain)
		}
	}
	if !h.Store.Postgres() {
		for _, file := range []string{"nowserving.db", "nowserving.db-wal"} {
			bytes, err := os.ReadFile(filepath.Join(h.config.Data, file))
			require.NoError(h.t, err)
			look("a file", string(bytes))
		}
	}
	keys := h.Redis.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		look("Redis", keys.Val())
		var value string
		switch kind := h.Redis.Type(ctx, keys.Val()).Val(); kind {
		case "string":
			value = h.Redis.Get(ctx, keys.Val()).Val()
		case "hash":
			value = fmt.Sprint(h.Redis.HGetAll(ctx, keys.Val()).Val())
		case "zset":
			value = fmt.Sprint(h.Redis.ZRange(ctx, keys.Val(), 0, -1).Val())
		case "set":
			value = fmt.Sprint(h.Redis.SMembers(ctx, keys.Val()).Val())
		case "none": // gone since
		default:
			require.Fail(h.t, "Redis holds a "+kind)
		}
		look("Redis "+keys.Val(), value)
	}
	require.NoError(h.t, keys.Err())
	for line := range strings.Lines(h.logged.String()) {
		look("log", line)
	}
	return found
}

// echo is a receiver of webhooks that answers with what it was told.
func echo(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// outgoing lets a node send: webhooks to this machine, and e-mail to a server that does
// not answer.
func outgoing(c *node.Config) {
	c.WebhookAllowPrivate, c.SMTPURL = true, "smtp://127.0.0.1:9?from=clinic@mail.example"
}

// leaveTraces makes a customer who leaves their identity wherever they can, and
// returns who they are and a session of theirs.
func (c *clinic) leaveTraces(kind, room string) (customerID string, session answer) {
	t := c.t
	t.Helper()
	get, post, put := http.MethodGet, http.MethodPost, http.MethodPut
	receiver := echo(t)
	for _, trigger := range []string{"bookingUnassigned", "bookingAssigned", "customerCanceled", "newAppointment", "providerCanceled"} {
		for _, to := range []string{receiver, "http://127.0.0.1:9/away"} {
			c.staff(post, "/management/webhooks", object{"trigger": trigger, "url": to}).ok()
		}
	}
	session = c.signIn("+"+plantedPhone, false)
	as := func(method, path string, body any) answer {
		return c.send(request{method: method, path: path, token: session.str("accessToken"), body: body, header: map[string]string{"Idempotency-Key": path}}).ok()
	}
	customerID = as(put, "/customer/profile", object{
		"firstName": "Planted", "lastName": "Plantedson", "email": "planted@example.com", "note": "Planted note", "data": object{"planted": "Planted"},
	}).str("result.id")
	byMail := object{"method": "email", "email": "planted@example.com"}
	c.send(request{method: post, path: "/auth/otp/request", app: c.id, body: byMail}).ok()
	byMail["code"] = "000000"
	c.send(request{method: post, path: "/auth/otp/verify", app: c.id, body: byMail})
	as(post, "/devices", object{"token": "planted token", "platform": "ios"})
	join := func() answer {
		return as(put, "/customer/scheduling/new", joining(kind, object{"note": "Planted aches", "bookingInfoCustomFields": object{"planted": "Planted"}}))
	}
	seen := join().str("result.id")
	c.staff(post, "/management/queue/next", object{"resourceId": room, "reason": "Planted is here"}).ok()
	c.act("start", seen, object{"reason": "Planted came"}).ok()
	c.act("end", seen, nil).ok()
	as(post, "/customer/bookings/cancel", object{"bookingId": c.join(kind, object{"customerIdentifier": object{"id": customerID}}).str("id"), "reason": "Planted left"})
	c.send(request{
		method: put, path: "/management/customers/" + customerID, token: c.key, body: object{"note": "Planted by the desk"}, header: map[string]string{"Idempotency-Key": "desk"},
	}).ok()
	c.send(request{
		method: put, path: "/management/scheduling/new", token: c.key, header: map[string]string{"Idempotency-Key": "desk too"},
		body: appointment(kind, day(2), 900, object{"customerIdentifier": object{"phone": "+" + plantedPhone}, "note": "Planted appointment"}),
	}).ok()
	as(get, "/customer/bookings", nil)
	require.Eventually(t, func() bool {
		return scalar[int](c.house, `SELECT count(*) FROM webhook_attempts a JOIN webhook_deliveries d ON d.id = a.delivery_id
			WHERE d.organization_id = ? AND a.answer LIKE '%Planted%'`, c.id) >= 4
	}, patience, 10*time.Millisecond)
	return customerID, session
}

func TestNothingIsLeftOfACustomerWhoIsErased(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		id, session := c.leaveTraces(kind, room)
		as := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: session.str("accessToken"), body: body})
		}
		ahead := as(http.MethodPut, "/customer/scheduling/new", joining(kind, nil)).ok().str("result.id")
		behind := c.join(kind, nil).str("id")
		require.Equal(t, 2, c.position(behind))
		where := strings.Join(h.traces(), "\n")
		for _, place := range []string{
			"customers.phone", "customers.data", "bookings.note", "bookings.info", "bookings.cancel_reason", "audit.reason", "webhook_deliveries.payload",
			"webhook_attempts.answer", "river_job WHERE", "idempotency_keys WHERE", "FROM devices",
		} {
			require.Contains(t, where, place, "they left a trace there")
		}
		path := "/management/customers/" + id
		c.next(room).ok()
		c.staff(http.MethodDelete, path, nil).refused(http.StatusConflict, models.CodeBeingServed)
		as(http.MethodDelete, "/customer/profile", nil).refused(http.StatusConflict, models.CodeBeingServed)
		assert.Equal(t, "Planted", c.staff(http.MethodGet, path, nil).ok().str("result.firstName"))
		c.act("noShow", ahead, nil).ok()
		ahead = as(http.MethodPut, "/customer/scheduling/new", joining(kind, object{"note": "Planted again"})).ok().str("result.id")
		h.exec("UPDATE bookings SET priority = 1, version = version + 1 WHERE id = ?", ahead)
		const visits = `SELECT string_agg(id || stage || created_at || COALESCE(called_at || ' ' || started_at || ' ' || ended_at, ''), ' ' ORDER BY seq) FROM bookings WHERE stage IN ('DONE', 'NO_SHOW')`
		before := scalar[string](h, visits)
		const away = "SELECT count(*) FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.status = 'pending' AND w.url LIKE '%/away'"
		pending := scalar[int](h, away) // those to a receiver that is never there
		require.Positive(t, pending)

		c.staff(http.MethodDelete, path, nil).ok()

		assert.Empty(t, h.traces())
		assert.Equal(t, before, scalar[string](h, visits), "visits keep their times")
		assert.Equal(t, 1, c.position(behind), "who was behind has moved up")
		assert.Equal(t, "CANCELED", c.staff(http.MethodGet, "/management/bookings/"+ahead, nil).ok().str("result.status"))
		assert.GreaterOrEqual(t, scalar[int](h, away), pending, "what is to be told is told")
		as(http.MethodGet, "/customer/profile", nil).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.send(request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": session.str("refreshToken")}}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		for _, r := range []request{
			{method: http.MethodGet, path: path}, {method: http.MethodPut, path: path, body: object{"firstName": "Back"}},
			{method: http.MethodDelete, path: path}, {method: http.MethodGet, path: path + "/export"},
			{method: http.MethodPut, path: "/management/scheduling/new", body: joining(kind, object{"customerIdentifier": object{"id": id}})},
		} {
			r.token = c.key
			h.send(r).refused(http.StatusNotFound, models.CodeCustomerMissing)
		}
		assert.NotContains(t, c.staff(http.MethodGet, "/management/customers?limit=100", nil).ok().pluck("result", "id"), id)
		line := c.staff(http.MethodGet, "/management/audit?action=eraseCustomer", nil).ok()
		assert.Equal(t, []string{id}, line.pluck("result", "subject.id"))
		assert.Equal(t, "127.0.0.1", line.str("result.0.address"), "of who did it")
		assert.Equal(t, []string{"", ""}, c.staff(http.MethodGet, "/management/audit?action=updateCustomer", nil).ok().pluck("result", "reason"))
		// What the desk asked for about them is not done a second time.

		again := h.send(request{method: http.MethodPut, path: path, token: c.key, body: object{"note": "Planted by the desk"}, header: map[string]string{"Idempotency-Key": "desk"}})
		assert.Equal(t, http.StatusConflict, again.status, "%s", again.raw)

		// The same phone number is somebody new.
		assert.NotEqual(t, id, c.signIn("+"+plantedPhone, false).str("user.id"))
	}, outgoing)
}

// moody is a receiver of webhooks that repeats what it was told in each of its
// answers, few of which are any good.
func moody(t testing.TB) string {
	t.Helper()
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch calls.Add(1) % 4 {
		case 0:
			_, _ = w.Write(body)
		case 1:
			http.Error(w, string(body), http.StatusInternalServerError)
		case 2:
			w.Header().Set("Location", "http://["+string(body))
			w.WriteHeader(http.StatusFound)
		case 3: // no HTTP at all
			conn, _, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				_, _ = conn.Write(append(body, "\r\n\r\n"...))
				assert.NoError(t, conn.Close())
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestNothingIsLeftOfWhatWentWrong erases a customer after requests of theirs
// were refused, and what was to be told about them and to them met receivers and
// carriers that refuse it in words that repeat it.
func TestNothingIsLeftOfWhatWentWrong(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f, phones, mails := newFCM(t), newTwilio(t), newMail(t)
			h := newHouse(t, b, f.pushing, allowPrivate, func(c *node.Config) {
				c.SMSURL, c.SMTPURL, c.TrustedProxies = phones.url, mails.url, []string{"127.0.0.0/8"}
			})
			c := h.newClinic()
			kind := c.newType(nil)
			room := c.newResource(nil, kind)
			receiver := moody(t)
			for _, trigger := range []string{"bookingUnassigned", "bookingAssigned", "customerCanceled", "providerCanceled", "newAppointment", "oneHourBeforeAppointment", "queuePositionUpdated"} {
				c.staff(http.MethodPost, "/management/webhooks", object{"trigger": trigger, "url": receiver}).ok()
			}
			const phone, mail = "+" + plantedPhone, "planted@example.com"
			phones.will(phone, "400 21211", "503", "503", "400 21211")
			mails.will(mail, "550 5.1.1 <"+mail+"> Planted is unknown", "451 4.2.0 Planted is busy", "451 4.2.0 Planted is busy")
			f.trouble("planted token", fcmReply{status: http.StatusInternalServerError, code: "INTERNAL"}, fcmReply{status: http.StatusBadRequest, code: "INVALID_ARGUMENT"})

			from := map[string]string{"X-Forwarded-For": plantedAddress, "User-Agent": "Planted/1.0"}
			as := func(token, method, path string, body any) answer {
				return h.send(request{method: method, path: path, app: c.id, token: token, body: body, header: from})
			}
			contact := object{"method": "sms", "phoneNumber": phone}
			as("", http.MethodPost, "/auth/otp/request", contact).ok()
			contact["code"] = "000000"
			as("", http.MethodPost, "/auth/otp/verify", contact).refused(http.StatusUnauthorized, models.CodeWrongCode)
			contact["code"] = fixedCode
			in := as("", http.MethodPost, "/auth/otp/verify", contact).ok()
			id, token := in.str("user.id"), in.str("accessToken")
			as(token, http.MethodPut, "/customer/profile", object{"firstName": "Planted", "lastName": "Plantedson", "email": mail}).ok()
			c.staff(http.MethodPut, "/management/customers/"+id, object{"email": mail, "data": object{"planted": []string{"Planted"}}}).ok()
			as("", http.MethodPost, "/auth/otp/request", object{"method": "email", "email": mail}).ok()
			as(token, http.MethodPost, "/devices", object{"token": "planted token", "platform": "ios"}).ok()
			join := func() string {
				return as(token, http.MethodPut, "/customer/scheduling/new", joining(kind, object{"note": "Planted", "bookingInfoCustomFields": object{"planted": "Planted"}})).ok().str("result.id")
			}
			seen := join()
			c.next(room).ok()
			c.act("start", seen, object{"reason": "Planted came"}).ok()
			c.act("end", seen, nil).ok()
			as(token, http.MethodPost, "/customer/bookings/cancel", object{"bookingId": join(), "reason": "Planted left"}).ok()
			c.act("cancel", join(), object{"reason": "Planted is ill"}).ok()
			visit := as(token, http.MethodPut, "/customer/scheduling/new", appointment(kind, day(2), 900, object{"note": "Planted"})).ok().str("result.id")
			h.exec("UPDATE bookings SET reminder_next = 'oneHourBeforeAppointment', reminder_at = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), visit)
			for path, body := range map[string]any{
				"/customer/bookings?status=Planted&resource=" + plantedPhone:   nil,
				"/customer/bookings/Planted?includes=" + plantedPhone:          nil,
				"/Planted/" + plantedPhone:                                     nil,
				"/customer/profile?" + strings.Repeat("Planted", 2000) + "%zz": nil,
				"/auth/token":               object{"refreshToken": "nsr_Planted_1_" + plantedPhone},
				"/auth/otp/request":         object{"method": "email", "email": "planted@@" + plantedPhone},
				"/customer/bookings/cancel": `{"bookingId": "Planted`,
				"/devices":                  object{"token": "planted", "platform": "Planted"},
			} {
				method := http.MethodGet
				if body != nil {
					method = http.MethodPost
				}
				assert.NotEqual(t, http.StatusOK, as(token, method, path, body).status, path)
			}
			c.staff(http.MethodGet, "/management/customers?search=Planted&phone="+plantedPhone, nil)
			as(token, http.MethodGet, "/customer/profile/export", nil).ok()
			stolen := object{"refreshToken": in.str("refreshToken")}
			as("", http.MethodPost, "/auth/token", stolen).ok()
			// Whatever can be done is done, and has gone wrong.
			settled := func() bool {
				return scalar[int](h, "SELECT count(*) FROM river_job WHERE finalized_at IS NULL AND scheduled_at < ?", time.Now().UTC().Add(time.Second)) == 0
			}
			require.Eventually(t, func() bool {
				return settled() && scalar[int](h, "SELECT count(*) FROM webhook_attempts WHERE error <> ''") >= 2 &&
					scalar[int](h, "SELECT count(*) FROM message_attempts WHERE error <> ''") >= 3 &&
					f.asked("planted token") >= 1
			}, patience, 10*time.Millisecond)

			c.staff(http.MethodDelete, "/management/customers/"+id, nil).ok()

			require.Eventually(t, settled, patience, 10*time.Millisecond)
			// Requests from an address are counted for a minute at most.
			require.Eventually(t, func() bool {
				counted, err := h.Redis.Exists(t.Context(), "rate:address:"+plantedAddress).Result()
				return err == nil && counted == 0
			}, 2*patience, 10*time.Millisecond)
			assert.Empty(t, h.traces())
			h.exec("UPDATE webhook_deliveries SET next_attempt_at = ? WHERE status = 'pending'", time.Now().UTC().Add(-time.Second))
			h.exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE finalized_at IS NULL", time.Now().UTC().Add(-time.Second))
			require.Eventually(t, settled, patience, 10*time.Millisecond)
			assert.Empty(t, h.traces(), "after what went wrong was done again")
		})
	}
}

// TestErasureMeetsWhatIsOnItsWay erases customers just when what they did is
// being told to others.
func TestErasureMeetsWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		c.newResource(nil, kind)
		for _, trigger := range []string{"bookingUnassigned", "customerCanceled", "queuePositionUpdated"} {
			c.staff(http.MethodPost, "/management/webhooks", object{"trigger": trigger, "url": echo(t)}).ok()
		}
		var all sync.WaitGroup
		for i := range 25 {
			token := c.patient(fmt.Sprintf("+%s%02d", plantedPhone[:10], i))
			all.Go(func() {
				for _, r := range []request{
					{method: http.MethodPut, path: "/customer/profile", body: object{"firstName": "Planted"}},
					{method: http.MethodPut, path: "/customer/scheduling/new", body: joining(kind, object{"note": "Planted"})},
					{method: http.MethodDelete, path: "/customer/profile"},
				} {
					r.token = token
					a, err := h.try(r)
					assert.NoError(t, err)
					assert.Equal(t, http.StatusOK, a.status, "%s %s", a.of, a.raw)
				}
			})
		}
		all.Wait()
		require.Eventually(t, func() bool {
			return scalar[int](h, "SELECT count(*) FROM river_job WHERE kind IN ('announce', 'webhook') AND state <> 'completed'") == 0 &&
				scalar[int](h, "SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'") >= 50
		}, patience, 10*time.Millisecond)
		assert.Empty(t, h.traces())
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM audit WHERE actor_kind = 'customer' AND address <> ''"))
	}, outgoing)
}

// TestErasureMeetsWhoIsUnderWay erases customers while they, and the desk for
// them, join, make appointments, register devices, write profiles and ask for
// what is held about them, through another node too: whatever comes last, nobody
// who is erased is written down again.
func TestErasureMeetsWhoIsUnderWay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		nodes := []*house{h, h} // the embedded database belongs to one node
		if h.server != nil {
			nodes[1] = h.beside(nil)
		}
		const patients = 4
		refused := map[int]bool{http.StatusUnauthorized: true, http.StatusNotFound: true}
		var all sync.WaitGroup
		for i := range patients {
			phone := fmt.Sprintf("+%s%02d", plantedPhone[:10], i)
			in := c.signIn(phone, false)
			id, token := in.str("user.id"), in.str("accessToken")
			gone := make(chan struct{})
			// until repeats a request until the customer is erased, and once more. It
			// does so a few times only, or they would never be.
			until := func(by int, r request) {
				for n := 0; ; n++ {
					if n == 3 {
						<-gone
					}
					last := false
					select {
					case <-gone:
						last = true
					default:
					}
					r.header = map[string]string{"Idempotency-Key": fmt.Sprint(i, by, r.path, n)}
					a, err := nodes[by%2].try(r)
					if !assert.NoError(t, err) {
						return
					}
					assert.True(t, a.status == http.StatusOK || refused[a.status] || a.status == http.StatusConflict, "%s: %s", a.of, a.raw)
					if last {
						assert.True(t, refused[a.status], "%s: %s", a.of, a.raw)
						return
					}
				}
			}
			for by, r := range []request{
				{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: joining(kind, object{"note": "Planted"})},
				{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: joining(kind, object{"note": "Planted"})},
				{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kind, object{"note": "Planted", "customerIdentifier": object{"id": id}})},
				{method: http.MethodPut, path: "/management/customers/" + id, token: c.key, body: object{"lastName": "Planted"}},
				{method: http.MethodPut, path: "/customer/profile", token: token, body: object{"firstName": "Planted"}},
				{method: http.MethodPost, path: "/devices", token: token, body: object{"token": fmt.Sprint("planted", i), "platform": "ios"}},
				{method: http.MethodGet, path: "/customer/profile/export", token: token},
			} {
				all.Go(func() { until(by, r) })
			}
			all.Go(func() {
				defer close(gone)
				for { // until they have not come back meanwhile
					a, err := h.try(request{method: http.MethodDelete, path: "/management/customers/" + id, token: c.key})
					if !assert.NoError(t, err) || a.status == http.StatusOK {
						return
					}
					if !assert.Equal(t, string(models.CodeBeingServed), a.str("code"), "%s", a.raw) {
						return
					}
				}
			})
		}
		all.Wait()
		h.quiet()
		assert.Empty(t, h.traces())
		assert.Equal(t, patients, scalar[int](h, "SELECT count(*) FROM customers WHERE erased_at IS NOT NULL"))
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM devices"))
		// What stays says of whom, and when that was, beside when they were erased.
		for _, kept := range []string{
			"SELECT subject_id || ' ' || created_at FROM sessions",
			"SELECT actor_id || ' ' || action || ' ' || created_at FROM audit WHERE actor_kind = 'customer' AND address <> ''",
		} {
			var lines, erased []string
			require.NoError(t, h.Store.Read(t.Context()).Raw(kept).Scan(&lines).Error)
			require.NoError(t, h.Store.Read(t.Context()).Raw("SELECT id || ' ' || COALESCE(CAST(erased_at AS text), 'never') FROM customers").Scan(&erased).Error)
			assert.Empty(t, lines, "erased: %v", erased)
		}
	}, outgoing)
}

// TestErasureOvertakesAJoin erases a customer while they and the desk are asking
// for places and appointments, and have been found to be allowed to.
func TestErasureOvertakesAJoin(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var held atomic.Bool
			arrived, goOn := make(chan struct{}, 3), make(chan struct{})
			h := newHouse(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					require.NoError(t, s.Read(context.Background()).Callback().Query().Before("gorm:query").Register("test:hold", func(db *gorm.DB) {
						if _, ok := db.Statement.Dest.(*models.BookingType); ok && held.Load() {
							arrived <- struct{}{}
							<-goOn
						}
					}))
				}
			})
			c := h.newClinic()
			kind := c.newType(nil)
			c.newResource(nil, kind)
			in := c.signIn("+"+plantedPhone, false)
			id, token := in.str("user.id"), in.str("accessToken")
			const path = "/scheduling/new"
			held.Store(true)
			var all sync.WaitGroup
			for _, r := range []request{
				{path: "/customer" + path, token: token, body: joining(kind, object{"note": "Planted"})},
				{path: "/customer" + path, token: token, body: appointment(kind, day(2), 900, object{"note": "Planted"})},
				{path: "/management" + path, token: c.key, body: joining(kind, object{"note": "Planted", "customerIdentifier": object{"id": id}})},
			} {
				r.method = http.MethodPut
				all.Go(func() {
					a, err := h.try(r)
					assert.NoError(t, err)
					assert.Equal(t, http.StatusNotFound, a.status, "%s: %s", a.of, a.raw)
					assert.Equal(t, string(models.CodeCustomerMissing), a.str("code"))
				})
			}
			for range 3 {
				<-arrived
			}
			c.staff(http.MethodDelete, "/management/customers/"+id, nil).ok()
			held.Store(false)
			close(goOn)
			all.Wait()
			assert.Empty(t, h.traces())
			assert.Zero(t, scalar[int](h, "SELECT count(*) FROM bookings"))
		})
	}
}

// TestErasureOvertakesAnAnswer erases a customer whom an answer names that has
// not been kept yet: it never is.
func TestErasureOvertakesAnAnswer(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var held atomic.Bool
			arrived, goOn := make(chan struct{}, 1), make(chan struct{})
			h := newHouse(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					require.NoError(t, s.Read(context.Background()).Callback().Query().After("gorm:query").Register("test:hold", func(db *gorm.DB) {
						if _, ok := db.Statement.Dest.(*[]models.Customer); ok && held.Swap(false) {
							arrived <- struct{}{}
							<-goOn
						}
					}))
				}
			})
			c := h.newClinic()
			kind := c.serve(c.newType(nil))
			id := c.signIn("+"+plantedPhone, false).str("user.id")
			join := c.joinRequest(kind)
			join.body, join.header = joining(kind, object{"customerIdentifier": object{"id": id}}), map[string]string{"Idempotency-Key": "join"}
			held.Store(true)
			answered := make(chan answer)
			go func() {
				a, err := h.try(join)
				assert.NoError(t, err)
				answered <- a
			}()
			<-arrived
			c.staff(http.MethodDelete, "/management/customers/"+id, nil).ok()
			close(goOn)
			assert.Contains(t, string((<-answered).ok().raw), plantedPhone)
			assert.Empty(t, h.traces())
			c.once("join", join).refused(http.StatusConflict, models.CodeAnswerLost)
		})
	}
}

// TestBookingsOfWhoIsErasedChangeNoMore tries what can still be done to an
// appointment that was past when its customer was erased.
func TestBookingsOfWhoIsErasedChangeNoMore(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		c.newResource(nil, kind)
		renew := func(in answer) answer {
			return h.send(request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": in.str("refreshToken")}})
		}
		stolen := c.signIn("+"+plantedPhone, false)
		renew(stolen).ok()
		h.exec("UPDATE sessions SET refreshed_at = ?", time.Now().UTC().Add(-time.Minute))
		renew(stolen).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		in := c.signIn("+"+plantedPhone, false)
		made := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: in.str("accessToken"), body: appointment(kind, day(2), 900, nil)}).ok()
		id := made.str("result.id")
		began := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
		h.exec("UPDATE bookings SET starts_at = ?, ends_at = ?, reminder_at = NULL, reminder_next = ''", began, began.Add(time.Minute))
		const from = "SELECT count(*) FROM audit WHERE actor_kind IN ('customer', 'ticket', 'nobody') AND address <> ''"
		require.Equal(t, 4, scalar[int](h, from), "two sessions, a used refresh token and an appointment")

		c.staff(http.MethodDelete, "/management/customers/"+in.str("user.id"), nil).ok()

		body := object{"bookingId": id, "reason": "Planted came late"}
		for _, r := range []request{
			{path: "/customer/bookings/cancel", token: made.str("result.ticketToken")},
			{path: "/management/bookings/cancel", token: c.key},
			{path: "/management/bookings/start", token: c.key},
			{path: "/management/bookings/noShow", token: c.key},
		} {
			r.method, r.body = http.MethodPost, body
			h.send(r).refused(http.StatusNotFound, models.CodeCustomerMissing)
		}
		assert.Empty(t, h.traces())
		assert.Zero(t, scalar[int](h, from))
	})
}

// TestErasureMeetsBookingsThatEnd erases a customer one of whose bookings expires,
// and another is deleted for want of payment, just before they would be canceled.
func TestErasureMeetsBookingsThatEnd(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var meanwhile atomic.Pointer[func()]
			h := newHouse(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					require.NoError(t, s.Read(context.Background()).Callback().Query().After("gorm:query").Register("test:meanwhile", func(db *gorm.DB) {
						if list, ok := db.Statement.Dest.(*[]models.Booking); ok && len(*list) == 3 {
							if do := meanwhile.Swap(nil); do != nil {
								(*do)()
							}
						}
					}))
				}
			})
			c := h.newClinic()
			kind := c.serve(c.newType(nil))
			in := c.signIn("+"+plantedPhone, false)
			var ids []string
			for range 3 {
				join := request{method: http.MethodPut, path: "/customer/scheduling/new", token: in.str("accessToken"), body: joining(kind, object{"note": "Planted"})}
				ids = append(ids, h.send(join).ok().str("result.id"))
			}
			end := func() {
				h.exec("UPDATE bookings SET status = 'REJECTED', stage = 'LEFT', version = version + 1 WHERE id = ?", ids[0])
				h.exec("DELETE FROM quotes WHERE booking_id = ?", ids[1])
				h.exec("DELETE FROM bookings WHERE id = ?", ids[1])
			}
			meanwhile.Store(&end)
			c.staff(http.MethodDelete, "/management/customers/"+in.str("user.id"), nil).ok()
			assert.Nil(t, meanwhile.Load())
			assert.Equal(t, "REJECTED CANCELED", scalar[string](h, "SELECT string_agg(status, ' ' ORDER BY seq) FROM bookings"))
			assert.Empty(t, h.traces())
		})
	}
}

func TestExportHoldsEverything(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, stranger := h.newClinic(), h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		id, session := c.leaveTraces(kind, room)
		other := c.join(kind, object{"customerIdentifier": object{"firstName": "Somebody"}, "note": "else"})
		desk := c.staff(http.MethodGet, "/management/customers/"+id+"/export", nil).ok()
		mine := h.send(request{method: http.MethodGet, path: "/customer/profile/export", token: session.str("accessToken")}).ok()
		for _, a := range []answer{desk, mine} {
			assert.Equal(t, `attachment; filename="customer.json"`, a.header.Get("Content-Disposition"))
			assert.Equal(t, "+"+plantedPhone, a.str("customer.phone"))
			assert.Equal(t, "Planted", a.str("customer.data.planted"))
			assert.Len(t, a.list("bookings"), 3)
			assert.Equal(t, "Planted appointment", a.str("bookings.0.note"))
			assert.Equal(t, "Planted left", a.str("bookings.1.cancelReason"))
			assert.Equal(t, "Planted", a.str("bookings.2.info.planted"))
			assert.NotNil(t, a.at("bookings.0.info"), "an object, as the document says, if an empty one")
			assert.NotEmpty(t, a.str("bookings.2.endedAt"))
			assert.Len(t, a.list("devices"), 1)
			assert.Len(t, a.list("sessions"), 1)
			assert.GreaterOrEqual(t, len(a.list("deliveries")), 8)
			assert.Equal(t, "Planted", a.str("deliveries.0.payload.customer.firstName"))
			assert.Contains(t, a.pluck("audit", "action"), "join")
			assert.Contains(t, a.pluck("audit", "reason"), "Planted came")
			assert.Equal(t, false, a.at("truncated"))
			for _, hidden := range []string{"planted token", session.str("refreshToken"), session.str("accessToken"), other.str("id"), "Somebody"} {
				assert.NotContains(t, string(a.raw), hidden)
			}
		}
		assert.Len(t, c.staff(http.MethodGet, "/management/audit?action=exportCustomer&subjectId="+id, nil).ok().list("result"), 2)
		stranger.staff(http.MethodGet, "/management/customers/"+id+"/export", nil).refused(http.StatusNotFound, models.CodeCustomerMissing)
		stranger.staff(http.MethodDelete, "/management/customers/"+id, nil).refused(http.StatusNotFound, models.CodeCustomerMissing)
		assert.True(t, json.Valid(desk.raw))
	}, outgoing)
}

func TestOldEventsAreForgottenOnceTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		told, untold, fresh := c.join(kind, nil).str("id"), c.join(kind, nil).str("id"), c.join(kind, nil).str("id")
		require.Eventually(t, func() bool {
			return scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'announce' AND state = 'completed'") == 3
		}, patience, 10*time.Millisecond)
		h.exec("UPDATE events SET created_at = ? WHERE booking_id <> ?", time.Now().UTC().Add(-31*24*time.Hour), fresh)
		h.exec("UPDATE river_job SET state = 'scheduled', finalized_at = NULL, scheduled_at = ? WHERE CAST(args ->> 'eventId' AS bigint) = (SELECT id FROM events WHERE booking_id = ?)",
			time.Now().UTC().Add(time.Hour), untold)
		require.NoError(t, h.Notify.Tidy(t.Context()))
		assert.Empty(t, h.eventsOf(told))
		assert.Len(t, h.eventsOf(untold), 1)
		assert.Len(t, h.eventsOf(fresh), 1)
	})
}
