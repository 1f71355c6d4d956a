package handlers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// auditOf are the lines about a booking as "action by kind role: reason", the
// oldest first.
func auditOf(c *nodetest.Clinic, bookingID string) []string {
	c.T.Helper()
	var lines []string
	for _, line := range c.Staff(http.MethodGet, "/management/audit?bookingId="+bookingID, nil).OK().List("result") {
		text := fmt.Sprint(nodetest.At(line, "action"), " by ", nodetest.At(line, "actor.kind"))
		if role := nodetest.At(line, "actor.role"); role != nil {
			text += fmt.Sprint(" ", role)
		}
		if reason := nodetest.At(line, "reason"); reason != "" {
			text += fmt.Sprint(": ", reason)
		}
		lines = append(lines, text)
	}
	slices.Reverse(lines)
	return lines
}

func TestEveryChangeOfABookingIsInTheAuditOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind, paid := c.Serve(c.NewType(nil)), c.NewType(nodetest.Object{"price": "10.00", "paymentMethods": []string{"creditCard"}})
		room := c.NewResource(nodetest.Object{"providerPhone": "+966500000041"}, kind)
		nurse := c.Member(models.RoleReceptionist, "+966500000042")
		doctor, patient := c.SignIn("+966500000041", true), c.SignIn("+966500000043", false)
		as := func(token, method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body}).OK()
		}
		post, put := http.MethodPost, http.MethodPut
		join := func() nodetest.Response {
			return as(patient.Str("accessToken"), put, "/customer/scheduling/new", nodetest.Joining(kind, nil))
		}
		verb := func(token, verb, id string, more nodetest.Object) {
			body := nodetest.Object{"bookingId": id}
			for k, v := range more {
				body[k] = v
			}
			as(token, post, "/management/bookings/"+verb, body)
		}

		seen := join().Str("result.id")
		verb(nurse, "hold", seen, nodetest.Object{"reason": "went for a coffee"})
		verb(nurse, "return", seen, nil)
		as(doctor.Str("accessToken"), post, "/management/queue/next", nodetest.Object{"resourceId": room, "reason": "free"})
		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), seen)
		verb(doctor.Str("accessToken"), "recall", seen, nodetest.Object{"reason": "did not hear"})
		verb(doctor.Str("accessToken"), "start", seen, nil)
		c.Act("start", seen, nil).Refused(http.StatusConflict, models.CodeStage) // what fails leaves no line
		verb(c.Key, "end", seen, nil)
		assert.Equal(t, []string{
			"join by customer", "hold by member receptionist: went for a coffee", "return by member receptionist",
			"assign by member provider: free", "recall by member provider: did not hear", "start by member provider", "end by organization",
		}, auditOf(c, seen))

		left := join()
		as(left.Str("result.ticketToken"), post, "/customer/bookings/cancel", nodetest.Object{"bookingId": left.Str("result.id"), "reason": "كان الانتظار طويلًا"})
		assert.Equal(t, []string{"join by customer", "cancel by ticket: كان الانتظار طويلًا"}, auditOf(c, left.Str("result.id")))

		missed := c.Join(kind, nil).Str("id")
		h.Send(nodetest.Request{Method: post, Path: "/management/bookings/assign", Token: nodetest.BootstrapKey, App: c.ID, Body: nodetest.Object{"bookingId": missed, "resourceId": room}}).OK()
		c.Act("noShow", missed, nodetest.Object{"reason": "called twice"}).OK()
		assert.Equal(t, []string{"join by organization", "assign by account", "noShow by organization: called twice"}, auditOf(c, missed))

		expired, unpaid := c.Join(kind, nil).Str("id"), c.Join(paid, nil).Str("id")
		past := time.Now().UTC().Add(-time.Minute)
		h.Exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", past, expired)
		h.Exec("UPDATE bookings SET payment_deadline = ? WHERE id = ?", past, unpaid)
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE id = ? OR id = ? AND status <> 'REJECTED'", unpaid, expired) == 0
		}, nodetest.Patience, 10*time.Millisecond)
		assert.Equal(t, []string{"join by organization", "expire by system"}, auditOf(c, expired))
		assert.Equal(t, []string{"join by organization", "expirePayment by system"}, auditOf(c, unpaid))

		planned := c.Schedule(kind, 900, nodetest.With(room)).OK().Str("id")
		moved := as(nurse, put, "/management/scheduling/new", nodetest.Appointment(kind, nodetest.Day(4), 900, nodetest.Object{"rescheduleBookingId": planned})).Str("id")
		c.Act("cancel", moved, nodetest.Object{"reason": "The doctor is ill."}).OK()
		assert.Equal(t, []string{"schedule by organization", "cancel by member receptionist"}, auditOf(c, planned))
		assert.Equal(t, []string{"reschedule by member receptionist", "cancel by organization: The doctor is ill."}, auditOf(c, moved))

		// Each change raises the version by one, and writes one line.
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings b WHERE b.version <> (SELECT count(*) FROM audit a WHERE a.subject_kind = 'booking' AND a.subject_id = b.id)"))
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings b JOIN audit a ON a.subject_id = b.id WHERE a.organization_id <> b.organization_id"))
	})
}

func TestAChangeWithoutItsAuditLineIsNotMade(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		waiting := c.Join(kind, nil).Str("id")
		h.Alter("ALTER TABLE audit RENAME TO audit_away")
		for _, r := range []nodetest.Request{
			{Method: http.MethodPut, Path: "/management/scheduling/new", Body: nodetest.Joining(kind, nil)},
			{Method: http.MethodPost, Path: "/management/queue/next", Body: nodetest.Object{"resourceId": room}},
			{Method: http.MethodPost, Path: "/management/queue/pause", Body: nodetest.Object{"resourceId": room}},
			{Method: http.MethodPost, Path: "/management/bookings/cancel", Body: nodetest.Object{"bookingId": waiting}},
			{Method: http.MethodDelete, Path: "/management/resources/" + room},
		} {
			r.Token = c.Key
			h.Unchanged(r).Refused(http.StatusInternalServerError, models.CodeInternal)
		}
		h.Alter("ALTER TABLE audit_away RENAME TO audit")
		assert.Equal(t, waiting, c.Next(room).OK().Str("result.id"))
	})
}

func TestTheAuditOnlyGrows(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		waiting := c.Join(c.Serve(c.NewType(nil)), nil).Str("id")
		c.Act("cancel", waiting, nodetest.Object{"reason": "Asked to"}).OK()
		require.NoError(t, h.Store.Tx(t.Context(), func(tx *store.Tx) error { return tx.Audit("", "createAccountKey", "key", "1") }))
		count := nodetest.Scalar[int](h, "SELECT count(*) FROM audit")
		attempts := []string{
			"DELETE FROM audit", "DELETE FROM audit WHERE action = 'cancel'", "DELETE FROM audit WHERE organization_id = ''",
			"UPDATE audit SET reason = 'Another one' WHERE action = 'cancel'", "UPDATE audit SET address = '192.0.2.1'",
			"UPDATE audit SET address = '' WHERE address <> ''", // without its salt, the text could be guessed
		}
		for column, value := range map[string]string{
			"organization_id": "'x'", "action": "'x'", "subject_kind": "'x'", "subject_id": "'x'", "actor_kind": "'x'",
			"actor_id": "'x'", "actor_role": "'x'", "request_id": "'x'", "created_at": "'2020-01-01 00:00:00'",
			"seq": "seq + 1", "hash": "address_digest", "address_digest": "hash", "reason_digest": "hash", "address_salt": "hash", "reason_salt": "hash",
		} {
			attempts = append(attempts, "UPDATE audit SET "+column+" = "+value)
		}
		if h.Store.Postgres() {
			attempts = append(attempts, "TRUNCATE audit")
		} else {
			attempts = append(attempts, "REPLACE INTO audit SELECT * FROM audit WHERE action = 'cancel'")
		}
		owner := h.Store
		if h.Store.Postgres() {
			var err error
			owner, err = store.Open(t.Context(), storetest.Owner(t, store.Options{URL: h.Config.DatabaseURL, Now: time.Now, Log: slog.Default()}))
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, owner.Close()) })
		}
		for _, sql := range attempts {
			err := h.Store.Tx(context.Background(), func(tx *store.Tx) error { return tx.Exec(sql).Error })
			assert.Error(t, err, sql)
			if h.Store.Postgres() { // the triggers hold the owner of the schema too
				err = owner.Tx(context.Background(), func(tx *store.Tx) error { return tx.Exec(sql).Error })
			}
			assert.ErrorContains(t, err, "audit_append_only", sql)
		}
		assert.Equal(t, count, nodetest.Scalar[int](h, "SELECT count(*) FROM audit"))
		none := []byte{} // as the erasure of a person does
		h.Exec("UPDATE audit SET address = '', address_salt = ?, reason = '', reason_salt = ? WHERE action = 'cancel'", none, none)
		assert.Equal(t, []string{"join by organization", "cancel by organization"}, auditOf(c, waiting))
	})
}

func TestTheAuditIsReadByItsOwners(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, stranger := h.NewClinic(), h.NewClinic()
		kind := c.Serve(c.NewType(nil))
		owner, admin := c.Member(models.RoleOwner, "+966500000051"), c.Member(models.RoleAdmin, "+966500000052")
		h.Exec("UPDATE members SET first_name = 'Amal', last_name = 'Saleh' WHERE phone = '+966500000051'")
		get := func(token, query string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/audit" + query, Token: token})
		}
		get(admin, "").Refused(http.StatusForbidden, models.CodeForbidden)
		get(nodetest.BootstrapKey, "").Refused(http.StatusBadRequest, models.CodeAppRequired)

		ids := make([]string, 3)
		for i := range ids {
			ids[i] = h.Send(nodetest.Request{
				Method: http.MethodPut, Path: "/management/scheduling/new", Token: owner, Body: nodetest.Joining(kind, nil), Header: map[string]string{"X-Request-Id": fmt.Sprint("desk-", i)},
			}).OK().Str("id")
		}
		line := get(owner, "?bookingId="+ids[1]).OK()
		require.Len(t, line.List("result"), 1)
		assert.Equal(t, "Amal Saleh", line.Str("result.0.actor.name"))
		assert.Equal(t, "owner", line.Str("result.0.actor.role"))
		assert.Equal(t, "desk-1", line.Str("result.0.requestId"))
		assert.Equal(t, "127.0.0.1", line.Str("result.0.address"))
		assert.Equal(t, "booking", line.Str("result.0.subject.kind"))
		when, err := time.Parse(time.RFC3339Nano, line.Str("result.0.at"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), when, time.Minute)
		assert.Equal(t, "desk", get(owner, "?action=createType").OK().Str("result.0.actor.name"), "a key's name")
		assert.NotContains(t, string(get(owner, "").OK().Raw), "+9665", "never a phone number")

		member := line.Str("result.0.actor.id")
		assert.Equal(t, []string{ids[2], ids[1], ids[0]}, get(c.Key, "?action=join&actorId="+member).OK().Pluck("result", "subject.id"), "the newest first")
		assert.Equal(t, []string{kind}, get(c.Key, "?subjectId="+kind).OK().Pluck("result", "subject.id"))
		assert.Empty(t, get(c.Key, "?bookingId="+kind).OK().List("result"), "a type is no booking")
		assert.Empty(t, get(c.Key, "?to=2020-01-01").OK().List("result"))
		assert.Empty(t, get(c.Key, "?from="+nodetest.Day(1)).OK().List("result"))
		assert.Len(t, get(c.Key, "?action=join&from="+nodetest.Day(0)+"&to="+nodetest.Day(0)).OK().List("result"), 3)
		get(c.Key, "?from=today").Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		get(c.Key, "?nextPageToken=%25").Refused(http.StatusBadRequest, models.CodePageToken)
		get(c.Key, "?nextPageToken=YQ").Refused(http.StatusBadRequest, models.CodePageToken)

		var walked []string
		for token, more := "", true; more; {
			page := get(c.Key, "?action=join&limit=1&nextPageToken="+token).OK()
			walked = append(walked, page.Pluck("result", "subject.id")...)
			token, more = page.Str("pagination.nextPageToken"), page.At("pagination.hasMore") == true
		}
		assert.Equal(t, []string{ids[2], ids[1], ids[0]}, walked)

		assert.Empty(t, stranger.Staff(http.MethodGet, "/management/audit?bookingId="+ids[0], nil).OK().List("result"), "another tenant's")
		assert.NotContains(t, string(stranger.Staff(http.MethodGet, "/management/audit", nil).OK().Raw), "Amal")
		account := nodetest.Request{Method: http.MethodGet, Path: "/management/account/audit", Token: nodetest.BootstrapKey}
		assert.NotContains(t, string(h.Send(account).OK().Raw), c.ID)
		account.Token = c.Key
		h.Send(account).Refused(http.StatusForbidden, models.CodeForbidden)
	})
}

// TestNoSecretIsInTheAudit does whatever is done with secrets, and then looks
// for them.
func TestNoSecretIsInTheAudit(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.Serve(c.NewType(nil))
		const hook = "https://8.8.8.8/hook?token=hidden-in-the-address"
		secrets := []string{c.Key, nodetest.BootstrapKey, nodetest.FixedCode, "+966500000061", "966500000061", "patient@example.com", "Mona", "hidden-in-the-address", "a registration token", "whsec_"}
		keep := func(a nodetest.Response, paths ...string) nodetest.Response {
			a.OK()
			for _, path := range paths {
				require.NotEmpty(t, a.Str(path), path)
				secrets = append(secrets, a.Str(path), models.HashSecret(a.Str(path)))
			}
			return a
		}
		patient := keep(c.SignIn("+966500000061", false), "accessToken", "refreshToken")
		as := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: patient.Str("accessToken"), Body: body})
		}
		as(http.MethodPut, "/customer/profile", nodetest.Object{"firstName": "Mona", "email": "patient@example.com"}).OK()
		as(http.MethodPost, "/devices", nodetest.Object{"token": "a registration token", "platform": "ios"}).OK()
		keep(as(http.MethodPut, "/customer/scheduling/new", nodetest.Joining(kind, nodetest.Object{"note": "Mona is afraid"})), "result.ticketToken")
		keep(c.Staff(http.MethodPost, "/management/apiKeys", nodetest.Object{"name": "spare"}), "result.key")
		c.Staff(http.MethodDelete, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK()
		screen := keep(c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}), "result.token")
		c.Staff(http.MethodDelete, "/management/displays", nodetest.Object{"id": screen.Str("result.id")}).OK()
		address := nodetest.Object{"trigger": "bookingAssigned", "url": hook}
		keep(c.Staff(http.MethodPost, "/management/webhooks", address), "webhook.secret")
		keep(c.Staff(http.MethodPost, "/management/webhooks/rotate", address), "webhook.secret")
		c.Staff(http.MethodDelete, "/management/webhooks", address).OK()
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": patient.Str("refreshToken")}}).OK()

		var lines []store.Audit
		require.NoError(t, h.Store.Read(t.Context()).Find(&lines).Error)
		all := fmt.Sprint(lines)
		for _, action := range []string{"updateCustomer", "join", "createDisplay", "deleteDisplay", "addWebhook", "rotateWebhook", "deleteWebhook", "createType"} {
			assert.Contains(t, all, " "+action+" ")
		}
		for _, secret := range secrets {
			assert.False(t, nodetest.Tells(all, secret), secret)
		}
	})
}
