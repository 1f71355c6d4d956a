package handlers_test

import (
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
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
func traces(h *nodetest.Node) []string {
	h.T.Helper()
	var found []string
	look := func(where, text string) {
		if slices.ContainsFunc(plantedTexts, func(one string) bool { return strings.Contains(text, one) }) {
			found = append(found, where+": "+text[:min(len(text), 1000)])
		}
	}
	ctx := h.T.Context()
	names := "SELECT name FROM sqlite_master WHERE type = 'table'"
	if h.Store.Postgres() {
		names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
	}
	var tables []string
	require.NoError(h.T, h.Store.Read(ctx).Raw(names).Scan(&tables).Error)
	require.Greater(h.T, len(tables), 25)
	for _, table := range tables {
		var rows []map[string]any
		require.NoError(h.T, h.Store.Read(ctx).Table(table).Find(&rows).Error)
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
		require.NoError(h.T, err)
		var sealed []string
		require.NoError(h.T, h.Store.Read(ctx).Raw(table).Scan(&sealed).Error)
		for _, text := range sealed {
			plain, err := sealer.Open(text)
			require.NoError(h.T, err)
			look(table, plain)
		}
	}
	if !h.Store.Postgres() {
		for _, file := range []string{"nowserving.db", "nowserving.db-wal"} {
			bytes, err := os.ReadFile(filepath.Join(h.Config.Data, file))
			require.NoError(h.T, err)
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
			require.Fail(h.T, "Redis holds a "+kind)
		}
		look("Redis "+keys.Val(), value)
	}
	require.NoError(h.T, keys.Err())
	for line := range strings.Lines(h.Log.String()) {
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

// leaveTraces makes a customer who leaves their identity wherever they can, and
// returns who they are and a session of theirs.
func leaveTraces(c *nodetest.Clinic, kind, room string) (customerID string, session nodetest.Response) {
	t := c.T
	t.Helper()
	get, post, put := http.MethodGet, http.MethodPost, http.MethodPut
	receiver := echo(t)
	for _, trigger := range []string{"bookingUnassigned", "bookingAssigned", "customerCanceled", "newAppointment", "providerCanceled"} {
		for _, to := range []string{receiver, "http://127.0.0.1:9/away"} {
			c.Staff(post, "/management/webhooks", nodetest.Object{"trigger": trigger, "url": to}).OK()
		}
	}
	session = c.SignIn("+"+plantedPhone, false)
	as := func(method, path string, body any) nodetest.Response {
		return c.Send(nodetest.Request{Method: method, Path: path, Token: session.Str("accessToken"), Body: body, Header: map[string]string{"Idempotency-Key": path}}).OK()
	}
	customerID = as(put, "/customer/profile", nodetest.Object{
		"firstName": "Planted", "lastName": "Plantedson", "email": "planted@example.com", "note": "Planted note", "data": nodetest.Object{"planted": "Planted"},
	}).Str("result.id")
	byMail := nodetest.Object{"method": "email", "email": "planted@example.com"}
	c.Send(nodetest.Request{Method: post, Path: "/auth/otp/request", App: c.ID, Body: byMail}).OK()
	byMail["code"] = "000000"
	c.Send(nodetest.Request{Method: post, Path: "/auth/otp/verify", App: c.ID, Body: byMail})
	as(post, "/devices", nodetest.Object{"token": "planted token", "platform": "ios"})
	join := func() nodetest.Response {
		return as(put, "/customer/scheduling/new", nodetest.Joining(kind, nodetest.Object{"note": "Planted aches", "bookingInfoCustomFields": nodetest.Object{"planted": "Planted"},
			"timeAdjustersCustomFields": nodetest.Object{"planted": "Planted"}}))
	}
	seen := join().Str("result.id")
	c.Staff(post, "/management/queue/next", nodetest.Object{"resourceId": room, "reason": "Planted is here"}).OK()
	c.Act("start", seen, nodetest.Object{"reason": "Planted came"}).OK()
	c.Act("end", seen, nil).OK()
	as(post, "/customer/bookings/cancel", nodetest.Object{"bookingId": c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"id": customerID}}).Str("id"), "reason": "Planted left"})
	c.Send(nodetest.Request{
		Method: put, Path: "/management/customers/" + customerID, Token: c.Key, Body: nodetest.Object{"note": "Planted by the desk"}, Header: map[string]string{"Idempotency-Key": "desk"},
	}).OK()
	c.Send(nodetest.Request{
		Method: put, Path: "/management/scheduling/new", Token: c.Key, Header: map[string]string{"Idempotency-Key": "desk too"},
		Body: nodetest.Appointment(kind, nodetest.Day(2), 900, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+" + plantedPhone}, "note": "Planted appointment"}),
	}).OK()
	as(get, "/customer/bookings", nil)
	require.Eventually(t, func() bool {
		return nodetest.Scalar[int](c.Node, `SELECT count(*) FROM webhook_attempts a JOIN webhook_deliveries d ON d.id = a.delivery_id
			WHERE d.organization_id = ? AND a.answer LIKE '%Planted%'`, c.ID) >= 4
	}, nodetest.Patience, 10*time.Millisecond)
	return customerID, session
}

func TestNothingIsLeftOfACustomerWhoIsErased(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		id, session := leaveTraces(c, kind, room)
		as := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: session.Str("accessToken"), Body: body})
		}
		ahead := as(http.MethodPut, "/customer/scheduling/new", nodetest.Joining(kind, nil)).OK().Str("result.id")
		behind := c.Join(kind, nil).Str("id")
		require.Equal(t, 2, c.Position(behind))
		where := strings.Join(traces(h), "\n")
		for _, place := range []string{
			"customers.phone", "customers.data", "bookings.note", "bookings.info", "bookings.adjusters", "bookings.cancel_reason", "audit.reason", "webhook_deliveries.payload",
			"webhook_attempts.answer", "river_job WHERE", "idempotency_keys WHERE", "FROM devices",
		} {
			require.Contains(t, where, place, "they left a trace there")
		}
		path := "/management/customers/" + id
		c.Next(room).OK()
		c.Staff(http.MethodDelete, path, nil).Refused(http.StatusConflict, models.CodeBeingServed)
		as(http.MethodDelete, "/customer/profile", nil).Refused(http.StatusConflict, models.CodeBeingServed)
		assert.Equal(t, "Planted", c.Staff(http.MethodGet, path, nil).OK().Str("result.firstName"))
		c.Act("noShow", ahead, nil).OK()
		ahead = as(http.MethodPut, "/customer/scheduling/new", nodetest.Joining(kind, nodetest.Object{"note": "Planted again"})).OK().Str("result.id")
		h.Exec("UPDATE bookings SET priority = 1, version = version + 1 WHERE id = ?", ahead)
		const visits = `SELECT string_agg(id || stage || created_at || COALESCE(called_at || ' ' || started_at || ' ' || ended_at, ''), ' ' ORDER BY seq) FROM bookings WHERE stage IN ('DONE', 'NO_SHOW')`
		before := nodetest.Scalar[string](h, visits)
		const away = "SELECT count(*) FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.status = 'pending' AND w.url LIKE '%/away'"
		pending := nodetest.Scalar[int](h, away) // those to a receiver that is never there
		require.Positive(t, pending)

		c.Staff(http.MethodDelete, path, nil).OK()

		assert.Empty(t, traces(h))
		assert.Equal(t, before, nodetest.Scalar[string](h, visits), "visits keep their times")
		assert.Equal(t, 1, c.Position(behind), "who was behind has moved up")
		assert.Equal(t, "CANCELED", c.Staff(http.MethodGet, "/management/bookings/"+ahead, nil).OK().Str("result.status"))
		assert.GreaterOrEqual(t, nodetest.Scalar[int](h, away), pending, "what is to be told is told")
		as(http.MethodGet, "/customer/profile", nil).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/token", Body: nodetest.Object{"refreshToken": session.Str("refreshToken")}}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		for _, r := range []nodetest.Request{
			{Method: http.MethodGet, Path: path}, {Method: http.MethodPut, Path: path, Body: nodetest.Object{"firstName": "Back"}},
			{Method: http.MethodDelete, Path: path}, {Method: http.MethodGet, Path: path + "/export"},
			{Method: http.MethodPut, Path: "/management/scheduling/new", Body: nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"id": id}})},
		} {
			r.Token = c.Key
			h.Send(r).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		}
		assert.NotContains(t, c.Staff(http.MethodGet, "/management/customers?limit=100", nil).OK().Pluck("result", "id"), id)
		line := c.Staff(http.MethodGet, "/management/audit?action=eraseCustomer", nil).OK()
		assert.Equal(t, []string{id}, line.Pluck("result", "subject.id"))
		assert.Equal(t, "127.0.0.1", line.Str("result.0.address"), "of who did it")
		assert.Equal(t, []string{"", ""}, c.Staff(http.MethodGet, "/management/audit?action=updateCustomer", nil).OK().Pluck("result", "reason"))
		// What the desk asked for about them is not done a second time.

		again := h.Send(nodetest.Request{Method: http.MethodPut, Path: path, Token: c.Key, Body: nodetest.Object{"note": "Planted by the desk"}, Header: map[string]string{"Idempotency-Key": "desk"}})
		assert.Equal(t, http.StatusConflict, again.Status, "%s", again.Raw)

		// The same phone number is somebody new.
		assert.NotEqual(t, id, c.SignIn("+"+plantedPhone, false).Str("user.id"))
	}, nodetest.Outgoing)
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

// TestErasureClearsFailedRequestsAndDeliveries erases a customer whose requests were
// refused, and whose webhooks and messages failed with answers that repeat the
// identity.
func TestErasureClearsFailedRequestsAndDeliveries(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f, phones, mails := nodetest.NewFCM(t), nodetest.NewTwilio(t), nodetest.NewMail(t)
			h := nodetest.Start(t, b, f.Pushing, nodetest.AllowPrivate, func(c *node.Config) {
				c.SMSURL, c.SMTPURL, c.TrustedProxies = phones.URL, mails.URL, []string{"127.0.0.0/8"}
			})
			c := h.NewClinic()
			kind := c.NewType(nil)
			room := c.NewResource(nil, kind)
			receiver := moody(t)
			for _, trigger := range []string{"bookingUnassigned", "bookingAssigned", "customerCanceled", "providerCanceled", "newAppointment", "oneHourBeforeAppointment", "queuePositionUpdated"} {
				c.Staff(http.MethodPost, "/management/webhooks", nodetest.Object{"trigger": trigger, "url": receiver}).OK()
			}
			const phone, mail = "+" + plantedPhone, "planted@example.com"
			phones.Will(phone, "400 21211", "503", "503", "400 21211")
			mails.Will(mail, "550 5.1.1 <"+mail+"> Planted is unknown", "451 4.2.0 Planted is busy", "451 4.2.0 Planted is busy")
			f.Trouble("planted token", nodetest.FCMReply{Status: http.StatusInternalServerError, Code: "INTERNAL"}, nodetest.FCMReply{Status: http.StatusBadRequest, Code: "INVALID_ARGUMENT"})

			from := map[string]string{"X-Forwarded-For": plantedAddress, "User-Agent": "Planted/1.0"}
			as := func(token, method, path string, body any) nodetest.Response {
				return h.Send(nodetest.Request{Method: method, Path: path, App: c.ID, Token: token, Body: body, Header: from})
			}
			contact := nodetest.Object{"method": "sms", "phoneNumber": phone}
			as("", http.MethodPost, "/auth/otp/request", contact).OK()
			contact["code"] = "000000"
			as("", http.MethodPost, "/auth/otp/verify", contact).Refused(http.StatusUnauthorized, models.CodeWrongCode)
			contact["code"] = nodetest.FixedCode
			in := as("", http.MethodPost, "/auth/otp/verify", contact).OK()
			id, token := in.Str("user.id"), in.Str("accessToken")
			as(token, http.MethodPut, "/customer/profile", nodetest.Object{"firstName": "Planted", "lastName": "Plantedson", "email": mail}).OK()
			c.Staff(http.MethodPut, "/management/customers/"+id, nodetest.Object{"email": mail, "data": nodetest.Object{"planted": []string{"Planted"}}}).OK()
			as("", http.MethodPost, "/auth/otp/request", nodetest.Object{"method": "email", "email": mail}).OK()
			as(token, http.MethodPost, "/devices", nodetest.Object{"token": "planted token", "platform": "ios"}).OK()
			join := func() string {
				return as(token, http.MethodPut, "/customer/scheduling/new", nodetest.Joining(kind, nodetest.Object{"note": "Planted", "bookingInfoCustomFields": nodetest.Object{"planted": "Planted"}})).OK().Str("result.id")
			}
			seen := join()
			c.Next(room).OK()
			c.Act("start", seen, nodetest.Object{"reason": "Planted came"}).OK()
			c.Act("end", seen, nil).OK()
			as(token, http.MethodPost, "/customer/bookings/cancel", nodetest.Object{"bookingId": join(), "reason": "Planted left"}).OK()
			c.Act("cancel", join(), nodetest.Object{"reason": "Planted is ill"}).OK()
			visit := as(token, http.MethodPut, "/customer/scheduling/new", nodetest.Appointment(kind, nodetest.Day(2), 900, nodetest.Object{"note": "Planted"})).OK().Str("result.id")
			h.Exec("UPDATE bookings SET reminder_next = 'oneHourBeforeAppointment', reminder_at = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), visit)
			for path, body := range map[string]any{
				"/customer/bookings?status=Planted&resource=" + plantedPhone:   nil,
				"/customer/bookings/Planted?includes=" + plantedPhone:          nil,
				"/Planted/" + plantedPhone:                                     nil,
				"/customer/profile?" + strings.Repeat("Planted", 2000) + "%zz": nil,
				"/auth/token":               nodetest.Object{"refreshToken": "nsr_Planted_1_" + plantedPhone},
				"/auth/otp/request":         nodetest.Object{"method": "email", "email": "planted@@" + plantedPhone},
				"/customer/bookings/cancel": `{"bookingId": "Planted`,
				"/devices":                  nodetest.Object{"token": "planted", "platform": "Planted"},
			} {
				method := http.MethodGet
				if body != nil {
					method = http.MethodPost
				}
				assert.NotEqual(t, http.StatusOK, as(token, method, path, body).Status, path)
			}
			c.Staff(http.MethodGet, "/management/customers?search=Planted&phone="+plantedPhone, nil)
			as(token, http.MethodGet, "/customer/profile/export", nil).OK()
			stolen := nodetest.Object{"refreshToken": in.Str("refreshToken")}
			as("", http.MethodPost, "/auth/token", stolen).OK()
			// Whatever can be done is done, and has gone wrong.
			settled := func() bool {
				return nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE finalized_at IS NULL AND scheduled_at < ?", time.Now().UTC().Add(time.Second)) == 0
			}
			require.Eventually(t, func() bool {
				return settled() && nodetest.Scalar[int](h, "SELECT count(*) FROM webhook_attempts WHERE error <> ''") >= 2 &&
					nodetest.Scalar[int](h, "SELECT count(*) FROM message_attempts WHERE error <> ''") >= 3 &&
					f.Asked("planted token") >= 1
			}, nodetest.Patience, 10*time.Millisecond)

			c.Staff(http.MethodDelete, "/management/customers/"+id, nil).OK()

			require.Eventually(t, settled, nodetest.Patience, 10*time.Millisecond)
			// Requests from an address are counted for a minute at most.
			require.Eventually(t, func() bool {
				counted, err := h.Redis.Exists(t.Context(), "rate:address:"+plantedAddress).Result()
				return err == nil && counted == 0
			}, 2*nodetest.Patience, 10*time.Millisecond)
			assert.Empty(t, traces(h))
			h.Exec("UPDATE webhook_deliveries SET next_attempt_at = ? WHERE status = 'pending'", time.Now().UTC().Add(-time.Second))
			h.Exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE finalized_at IS NULL", time.Now().UTC().Add(-time.Second))
			require.Eventually(t, settled, nodetest.Patience, 10*time.Millisecond)
			assert.Empty(t, traces(h), "after what went wrong was done again")
		})
	}
}

// TestErasureDuringDeliveriesLeavesNoTraces erases customers while the events of
// their bookings are being delivered.
func TestErasureDuringDeliveriesLeavesNoTraces(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		c.NewResource(nil, kind)
		for _, trigger := range []string{"bookingUnassigned", "customerCanceled", "queuePositionUpdated"} {
			c.Staff(http.MethodPost, "/management/webhooks", nodetest.Object{"trigger": trigger, "url": echo(t)}).OK()
		}
		var all sync.WaitGroup
		for i := range 25 {
			token := c.Patient(fmt.Sprintf("+%s%02d", plantedPhone[:10], i))
			all.Go(func() {
				for _, r := range []nodetest.Request{
					{Method: http.MethodPut, Path: "/customer/profile", Body: nodetest.Object{"firstName": "Planted"}},
					{Method: http.MethodPut, Path: "/customer/scheduling/new", Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted"})},
					{Method: http.MethodDelete, Path: "/customer/profile"},
				} {
					r.Token = token
					a, err := h.Try(r)
					assert.NoError(t, err)
					assert.Equal(t, http.StatusOK, a.Status, "%s %s", a.Of, a.Raw)
				}
			})
		}
		all.Wait()
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind IN ('announce', 'webhook') AND state <> 'completed'") == 0 &&
				nodetest.Scalar[int](h, "SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'") >= 50
		}, nodetest.Patience, 10*time.Millisecond)
		assert.Empty(t, traces(h))
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM audit WHERE actor_kind = 'customer' AND address <> ''"))
	}, nodetest.Outgoing)
}

// TestErasureDuringRequestsLeavesNoTraces erases customers while they, and the desk
// for them, join, make appointments, register devices, change profiles and export
// data, through another node too. No identity is written after the erasure.
func TestErasureDuringRequestsLeavesNoTraces(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		nodes := []*nodetest.Node{h, h} // the embedded database belongs to one node
		if h.RedisServer != nil {
			nodes[1] = h.Beside(nil)
		}
		const patients = 4
		refused := map[int]bool{http.StatusUnauthorized: true, http.StatusNotFound: true}
		var all sync.WaitGroup
		for i := range patients {
			phone := fmt.Sprintf("+%s%02d", plantedPhone[:10], i)
			in := c.SignIn(phone, false)
			id, token := in.Str("user.id"), in.Str("accessToken")
			gone := make(chan struct{})
			// until repeats a request until the customer is erased, and once more. It
			// does so a few times only, or they would never be.
			until := func(by int, r nodetest.Request) {
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
					r.Header = map[string]string{"Idempotency-Key": fmt.Sprint(i, by, r.Path, n)}
					a, err := nodes[by%2].Try(r)
					if !assert.NoError(t, err) {
						return
					}
					assert.True(t, a.Status == http.StatusOK || refused[a.Status] || a.Status == http.StatusConflict, "%s: %s", a.Of, a.Raw)
					if last {
						assert.True(t, refused[a.Status], "%s: %s", a.Of, a.Raw)
						return
					}
				}
			}
			for by, r := range []nodetest.Request{
				{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted"})},
				{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted"})},
				{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted", "customerIdentifier": nodetest.Object{"id": id}})},
				{Method: http.MethodPut, Path: "/management/customers/" + id, Token: c.Key, Body: nodetest.Object{"lastName": "Planted"}},
				{Method: http.MethodPut, Path: "/customer/profile", Token: token, Body: nodetest.Object{"firstName": "Planted"}},
				{Method: http.MethodPost, Path: "/devices", Token: token, Body: nodetest.Object{"token": fmt.Sprint("planted", i), "platform": "ios"}},
				{Method: http.MethodGet, Path: "/customer/profile/export", Token: token},
			} {
				all.Go(func() { until(by, r) })
			}
			all.Go(func() {
				defer close(gone)
				for { // until they have not come back meanwhile
					a, err := h.Try(nodetest.Request{Method: http.MethodDelete, Path: "/management/customers/" + id, Token: c.Key})
					if !assert.NoError(t, err) || a.Status == http.StatusOK {
						return
					}
					if !assert.Equal(t, string(models.CodeBeingServed), a.Str("code"), "%s", a.Raw) {
						return
					}
				}
			})
		}
		all.Wait()
		h.Quiet()
		assert.Empty(t, traces(h))
		assert.Equal(t, patients, nodetest.Scalar[int](h, "SELECT count(*) FROM customers WHERE erased_at IS NOT NULL"))
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))
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
	}, nodetest.Outgoing)
}

// TestAJoinThatErasureOvertakesIsRefused erases a customer after requests for places
// and appointments were authorized and before they are carried out.
func TestAJoinThatErasureOvertakesIsRefused(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var held atomic.Bool
			arrived, goOn := make(chan struct{}, 3), make(chan struct{})
			h := nodetest.Start(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					require.NoError(t, s.Read(context.Background()).Callback().Query().Before("gorm:query").Register("test:hold", func(db *gorm.DB) {
						if _, ok := db.Statement.Dest.(*models.BookingType); ok && held.Load() {
							arrived <- struct{}{}
							<-goOn
						}
					}))
				}
			})
			c := h.NewClinic()
			kind := c.NewType(nil)
			c.NewResource(nil, kind)
			in := c.SignIn("+"+plantedPhone, false)
			id, token := in.Str("user.id"), in.Str("accessToken")
			const path = "/scheduling/new"
			held.Store(true)
			var all sync.WaitGroup
			for _, r := range []nodetest.Request{
				{Path: "/customer" + path, Token: token, Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted"})},
				{Path: "/customer" + path, Token: token, Body: nodetest.Appointment(kind, nodetest.Day(2), 900, nodetest.Object{"note": "Planted"})},
				{Path: "/management" + path, Token: c.Key, Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted", "customerIdentifier": nodetest.Object{"id": id}})},
			} {
				r.Method = http.MethodPut
				all.Go(func() {
					a, err := h.Try(r)
					assert.NoError(t, err)
					assert.Equal(t, http.StatusNotFound, a.Status, "%s: %s", a.Of, a.Raw)
					assert.Equal(t, string(models.CodeCustomerMissing), a.Str("code"))
				})
			}
			for range 3 {
				<-arrived
			}
			c.Staff(http.MethodDelete, "/management/customers/"+id, nil).OK()
			held.Store(false)
			close(goOn)
			all.Wait()
			assert.Empty(t, traces(h))
			assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
		})
	}
}

// TestAnAnswerThatErasureOvertakesIsNotKept erases a customer before an answer that
// names them is kept.
func TestAnAnswerThatErasureOvertakesIsNotKept(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var held atomic.Bool
			arrived, goOn := make(chan struct{}, 1), make(chan struct{})
			h := nodetest.Start(t, b, func(c *node.Config) {
				c.Adjust.Store = func(s *store.Store) {
					require.NoError(t, s.Read(context.Background()).Callback().Query().After("gorm:query").Register("test:hold", func(db *gorm.DB) {
						if _, ok := db.Statement.Dest.(*[]models.Customer); ok && held.Swap(false) {
							arrived <- struct{}{}
							<-goOn
						}
					}))
				}
			})
			c := h.NewClinic()
			kind := c.Serve(c.NewType(nil))
			id := c.SignIn("+"+plantedPhone, false).Str("user.id")
			join := joinRequest(c, kind)
			join.Body, join.Header = nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"id": id}}), map[string]string{"Idempotency-Key": "join"}
			held.Store(true)
			answered := make(chan nodetest.Response)
			go func() {
				a, err := h.Try(join)
				assert.NoError(t, err)
				answered <- a
			}()
			<-arrived
			c.Staff(http.MethodDelete, "/management/customers/"+id, nil).OK()
			close(goOn)
			assert.Contains(t, string((<-answered).OK().Raw), plantedPhone)
			assert.Empty(t, traces(h))
			nodetest.Once(c.Node, "join", join).Refused(http.StatusConflict, models.CodeAnswerLost)
		})
	}
}

// TestBookingsOfAnErasedCustomerDoNotChange tries what can still be done to an
// appointment that was past when its customer was erased.
func TestBookingsOfAnErasedCustomerDoNotChange(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		c.NewResource(nil, kind)
		renew := func(in nodetest.Response) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/token", Body: nodetest.Object{"refreshToken": in.Str("refreshToken")}})
		}
		stolen := c.SignIn("+"+plantedPhone, false)
		renew(stolen).OK()
		h.Exec("UPDATE sessions SET refreshed_at = ?", time.Now().UTC().Add(-time.Minute))
		renew(stolen).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		in := c.SignIn("+"+plantedPhone, false)
		made := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: in.Str("accessToken"), Body: nodetest.Appointment(kind, nodetest.Day(2), 900, nil)}).OK()
		id := made.Str("result.id")
		began := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
		h.Exec("UPDATE bookings SET starts_at = ?, ends_at = ?, reminder_at = NULL, reminder_next = ''", began, began.Add(time.Minute))
		const from = "SELECT count(*) FROM audit WHERE actor_kind IN ('customer', 'ticket', 'nobody') AND address <> ''"
		require.Equal(t, 4, nodetest.Scalar[int](h, from), "two sessions, a used refresh token and an appointment")

		c.Staff(http.MethodDelete, "/management/customers/"+in.Str("user.id"), nil).OK()

		body := nodetest.Object{"bookingId": id, "reason": "Planted came late"}
		for _, r := range []nodetest.Request{
			{Path: "/customer/bookings/cancel", Token: made.Str("result.ticketToken")},
			{Path: "/management/bookings/cancel", Token: c.Key},
			{Path: "/management/bookings/start", Token: c.Key},
			{Path: "/management/bookings/noShow", Token: c.Key},
		} {
			r.Method, r.Body = http.MethodPost, body
			h.Send(r).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		}
		assert.Empty(t, traces(h))
		assert.Zero(t, nodetest.Scalar[int](h, from))
	})
}

// TestErasureSucceedsWhileBookingsEnd erases a customer. Just before the
// cancellation, one booking expires and another is deleted because it was not paid.
func TestErasureSucceedsWhileBookingsEnd(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			var meanwhile atomic.Pointer[func()]
			h := nodetest.Start(t, b, func(c *node.Config) {
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
			c := h.NewClinic()
			kind := c.Serve(c.NewType(nil))
			in := c.SignIn("+"+plantedPhone, false)
			var ids []string
			for range 3 {
				join := nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: in.Str("accessToken"), Body: nodetest.Joining(kind, nodetest.Object{"note": "Planted"})}
				ids = append(ids, h.Send(join).OK().Str("result.id"))
			}
			end := func() {
				h.Exec("UPDATE bookings SET status = 'REJECTED', stage = 'LEFT', version = version + 1 WHERE id = ?", ids[0])
				h.Exec("DELETE FROM quotes WHERE booking_id = ?", ids[1])
				h.Exec("DELETE FROM bookings WHERE id = ?", ids[1])
			}
			meanwhile.Store(&end)
			c.Staff(http.MethodDelete, "/management/customers/"+in.Str("user.id"), nil).OK()
			assert.Nil(t, meanwhile.Load())
			assert.Equal(t, "REJECTED CANCELED", nodetest.Scalar[string](h, "SELECT string_agg(status, ' ' ORDER BY seq) FROM bookings"))
			assert.Empty(t, traces(h))
		})
	}
}

func TestExportHoldsEverything(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, stranger := h.NewClinic(), h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		id, session := leaveTraces(c, kind, room)
		other := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"firstName": "Somebody"}, "note": "else"})
		desk := c.Staff(http.MethodGet, "/management/customers/"+id+"/export", nil).OK()
		mine := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile/export", Token: session.Str("accessToken")}).OK()
		for _, a := range []nodetest.Response{desk, mine} {
			assert.Equal(t, `attachment; filename="customer.json"`, a.Header.Get("Content-Disposition"))
			assert.Equal(t, "+"+plantedPhone, a.Str("customer.phone"))
			assert.Equal(t, "Planted", a.Str("customer.data.planted"))
			assert.Len(t, a.List("bookings"), 3)
			assert.Equal(t, "Planted appointment", a.Str("bookings.0.note"))
			assert.Equal(t, "Planted left", a.Str("bookings.1.cancelReason"))
			assert.Equal(t, "Planted", a.Str("bookings.2.info.planted"))
			assert.NotNil(t, a.At("bookings.0.info"), "an object, as the document says, if an empty one")
			assert.NotEmpty(t, a.Str("bookings.2.endedAt"))
			assert.Len(t, a.List("devices"), 1)
			assert.Len(t, a.List("sessions"), 1)
			assert.GreaterOrEqual(t, len(a.List("deliveries")), 8)
			assert.Equal(t, "Planted", a.Str("deliveries.0.payload.customer.firstName"))
			assert.Contains(t, a.Pluck("audit", "action"), "join")
			assert.Contains(t, a.Pluck("audit", "reason"), "Planted came")
			assert.Equal(t, false, a.At("truncated"))
			for _, hidden := range []string{"planted token", session.Str("refreshToken"), session.Str("accessToken"), other.Str("id"), "Somebody"} {
				assert.NotContains(t, string(a.Raw), hidden)
			}
		}
		assert.Len(t, c.Staff(http.MethodGet, "/management/audit?action=exportCustomer&subjectId="+id, nil).OK().List("result"), 2)
		stranger.Staff(http.MethodGet, "/management/customers/"+id+"/export", nil).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		stranger.Staff(http.MethodDelete, "/management/customers/"+id, nil).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		assert.True(t, json.Valid(desk.Raw))
	}, nodetest.Outgoing)
}

func TestOldEventsAreDeletedOnceDelivered(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		told, untold, fresh := c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'announce' AND state = 'completed'") == 3
		}, nodetest.Patience, 10*time.Millisecond)
		h.Exec("UPDATE events SET created_at = ? WHERE booking_id <> ?", time.Now().UTC().Add(-31*24*time.Hour), fresh)
		h.Exec("UPDATE river_job SET state = 'scheduled', finalized_at = NULL, scheduled_at = ? WHERE CAST(args ->> 'eventId' AS bigint) = (SELECT id FROM events WHERE booking_id = ?)",
			time.Now().UTC().Add(time.Hour), untold)
		require.NoError(t, h.Notify.Tidy(t.Context()))
		assert.Empty(t, h.EventsOf(told))
		assert.Len(t, h.EventsOf(untold), 1)
		assert.Len(t, h.EventsOf(fresh), 1)
	})
}
