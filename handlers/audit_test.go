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
	"nowserving/models"
)

// auditOf are the lines about a booking as "action by kind role: reason", the
// oldest first.
func (c *clinic) auditOf(bookingID string) []string {
	c.t.Helper()
	var lines []string
	for _, line := range c.staff(http.MethodGet, "/management/audit?bookingId="+bookingID, nil).ok().list("result") {
		text := fmt.Sprint(at(line, "action"), " by ", at(line, "actor.kind"))
		if role := at(line, "actor.role"); role != nil {
			text += fmt.Sprint(" ", role)
		}
		if reason := at(line, "reason"); reason != "" {
			text += fmt.Sprint(": ", reason)
		}
		lines = append(lines, text)
	}
	slices.Reverse(lines)
	return lines
}

func TestEveryChangeOfABookingIsInTheAuditOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind, paid := c.serve(c.newType(nil)), c.newType(object{"price": "10.00", "paymentMethods": []string{"creditCard"}})
		room := c.newResource(object{"providerPhone": "+966500000041"}, kind)
		nurse := c.member(models.RoleReceptionist, "+966500000042")
		doctor, patient := c.signIn("+966500000041", true), c.signIn("+966500000043", false)
		as := func(token, method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: token, body: body}).ok()
		}
		post, put := http.MethodPost, http.MethodPut
		join := func() answer {
			return as(patient.str("accessToken"), put, "/customer/scheduling/new", joining(kind, nil))
		}
		verb := func(token, verb, id string, more object) {
			body := object{"bookingId": id}
			for k, v := range more {
				body[k] = v
			}
			as(token, post, "/management/bookings/"+verb, body)
		}

		seen := join().str("result.id")
		verb(nurse, "hold", seen, object{"reason": "went for a coffee"})
		verb(nurse, "return", seen, nil)
		as(doctor.str("accessToken"), post, "/management/queue/next", object{"resourceId": room, "reason": "free"})
		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), seen)
		verb(doctor.str("accessToken"), "recall", seen, object{"reason": "did not hear"})
		verb(doctor.str("accessToken"), "start", seen, nil)
		c.act("start", seen, nil).refused(http.StatusConflict, models.CodeStage) // what fails leaves no line
		verb(c.key, "end", seen, nil)
		assert.Equal(t, []string{
			"join by customer", "hold by member receptionist: went for a coffee", "return by member receptionist",
			"assign by member provider: free", "recall by member provider: did not hear", "start by member provider", "end by organization",
		}, c.auditOf(seen))

		left := join()
		as(left.str("result.ticketToken"), post, "/customer/bookings/cancel", object{"bookingId": left.str("result.id"), "reason": "كان الانتظار طويلًا"})
		assert.Equal(t, []string{"join by customer", "cancel by ticket: كان الانتظار طويلًا"}, c.auditOf(left.str("result.id")))

		missed := c.join(kind, nil).str("id")
		h.send(request{method: post, path: "/management/bookings/assign", token: bootstrapKey, app: c.id, body: object{"bookingId": missed, "resourceId": room}}).ok()
		c.act("noShow", missed, object{"reason": "called twice"}).ok()
		assert.Equal(t, []string{"join by organization", "assign by account", "noShow by organization: called twice"}, c.auditOf(missed))

		expired, unpaid := c.join(kind, nil).str("id"), c.join(paid, nil).str("id")
		past := time.Now().UTC().Add(-time.Minute)
		h.exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", past, expired)
		h.exec("UPDATE bookings SET payment_deadline = ? WHERE id = ?", past, unpaid)
		require.Eventually(t, func() bool {
			return scalar[int](h, "SELECT count(*) FROM bookings WHERE id = ? OR id = ? AND status <> 'REJECTED'", unpaid, expired) == 0
		}, patience, 10*time.Millisecond)
		assert.Equal(t, []string{"join by organization", "expire by system"}, c.auditOf(expired))
		assert.Equal(t, []string{"join by organization", "expirePayment by system"}, c.auditOf(unpaid))

		planned := c.schedule(kind, 900, with(room)).ok().str("id")
		moved := as(nurse, put, "/management/scheduling/new", appointment(kind, day(4), 900, object{"rescheduleBookingId": planned})).str("id")
		c.act("cancel", moved, object{"reason": "The doctor is ill."}).ok()
		assert.Equal(t, []string{"schedule by organization", "cancel by member receptionist"}, c.auditOf(planned))
		assert.Equal(t, []string{"reschedule by member receptionist", "cancel by organization: The doctor is ill."}, c.auditOf(moved))

		// Each change raises the version by one, and writes one line.
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM bookings b WHERE b.version <> (SELECT count(*) FROM audit a WHERE a.subject_kind = 'booking' AND a.subject_id = b.id)"))
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM bookings b JOIN audit a ON a.subject_id = b.id WHERE a.organization_id <> b.organization_id"))
	})
}

func TestAChangeThatCannotBeWrittenDownIsNotMade(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		waiting := c.join(kind, nil).str("id")
		h.alter("ALTER TABLE audit RENAME TO audit_away")
		for _, r := range []request{
			{method: http.MethodPut, path: "/management/scheduling/new", body: joining(kind, nil)},
			{method: http.MethodPost, path: "/management/queue/next", body: object{"resourceId": room}},
			{method: http.MethodPost, path: "/management/queue/pause", body: object{"resourceId": room}},
			{method: http.MethodPost, path: "/management/bookings/cancel", body: object{"bookingId": waiting}},
			{method: http.MethodDelete, path: "/management/resources/" + room},
		} {
			r.token = c.key
			h.unchanged(r).refused(http.StatusInternalServerError, models.CodeInternal)
		}
		h.alter("ALTER TABLE audit_away RENAME TO audit")
		assert.Equal(t, waiting, c.next(room).ok().str("result.id"))
	})
}

func TestTheAuditOnlyGrows(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		waiting := c.join(c.serve(c.newType(nil)), nil).str("id")
		c.act("cancel", waiting, object{"reason": "Asked to"}).ok()
		require.NoError(t, h.Store.Tx(t.Context(), func(tx *store.Tx) error { return tx.Audit("", "createAccountKey", "key", "1") }))
		count := scalar[int](h, "SELECT count(*) FROM audit")
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
			owner, err = store.Open(t.Context(), storetest.Owner(t, store.Options{URL: h.config.DatabaseURL, Now: time.Now, Log: slog.Default()}))
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
		assert.Equal(t, count, scalar[int](h, "SELECT count(*) FROM audit"))
		none := []byte{} // as the erasure of a person does
		h.exec("UPDATE audit SET address = '', address_salt = ?, reason = '', reason_salt = ? WHERE action = 'cancel'", none, none)
		assert.Equal(t, []string{"join by organization", "cancel by organization"}, c.auditOf(waiting))
	})
}

func TestTheAuditIsReadByItsOwners(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, stranger := h.newClinic(), h.newClinic()
		kind := c.serve(c.newType(nil))
		owner, admin := c.member(models.RoleOwner, "+966500000051"), c.member(models.RoleAdmin, "+966500000052")
		h.exec("UPDATE members SET first_name = 'Amal', last_name = 'Saleh' WHERE phone = '+966500000051'")
		get := func(token, query string) answer {
			return h.send(request{method: http.MethodGet, path: "/management/audit" + query, token: token})
		}
		get(admin, "").refused(http.StatusForbidden, models.CodeForbidden)
		get(bootstrapKey, "").refused(http.StatusBadRequest, models.CodeAppRequired)

		ids := make([]string, 3)
		for i := range ids {
			ids[i] = h.send(request{
				method: http.MethodPut, path: "/management/scheduling/new", token: owner, body: joining(kind, nil), header: map[string]string{"X-Request-Id": fmt.Sprint("desk-", i)},
			}).ok().str("id")
		}
		line := get(owner, "?bookingId="+ids[1]).ok()
		require.Len(t, line.list("result"), 1)
		assert.Equal(t, "Amal Saleh", line.str("result.0.actor.name"))
		assert.Equal(t, "owner", line.str("result.0.actor.role"))
		assert.Equal(t, "desk-1", line.str("result.0.requestId"))
		assert.Equal(t, "127.0.0.1", line.str("result.0.address"))
		assert.Equal(t, "booking", line.str("result.0.subject.kind"))
		when, err := time.Parse(time.RFC3339Nano, line.str("result.0.at"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), when, time.Minute)
		assert.Equal(t, "desk", get(owner, "?action=createType").ok().str("result.0.actor.name"), "a key's name")
		assert.NotContains(t, string(get(owner, "").ok().raw), "+9665", "never a phone number")

		member := line.str("result.0.actor.id")
		assert.Equal(t, []string{ids[2], ids[1], ids[0]}, get(c.key, "?action=join&actorId="+member).ok().pluck("result", "subject.id"), "the newest first")
		assert.Equal(t, []string{kind}, get(c.key, "?subjectId="+kind).ok().pluck("result", "subject.id"))
		assert.Empty(t, get(c.key, "?bookingId="+kind).ok().list("result"), "a type is no booking")
		assert.Empty(t, get(c.key, "?to=2020-01-01").ok().list("result"))
		assert.Empty(t, get(c.key, "?from="+day(1)).ok().list("result"))
		assert.Len(t, get(c.key, "?action=join&from="+day(0)+"&to="+day(0)).ok().list("result"), 3)
		get(c.key, "?from=today").refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		get(c.key, "?nextPageToken=%25").refused(http.StatusBadRequest, models.CodePageToken)
		get(c.key, "?nextPageToken=YQ").refused(http.StatusBadRequest, models.CodePageToken)

		var walked []string
		for token, more := "", true; more; {
			page := get(c.key, "?action=join&limit=1&nextPageToken="+token).ok()
			walked = append(walked, page.pluck("result", "subject.id")...)
			token, more = page.str("pagination.nextPageToken"), page.at("pagination.hasMore") == true
		}
		assert.Equal(t, []string{ids[2], ids[1], ids[0]}, walked)

		assert.Empty(t, stranger.staff(http.MethodGet, "/management/audit?bookingId="+ids[0], nil).ok().list("result"), "another tenant's")
		assert.NotContains(t, string(stranger.staff(http.MethodGet, "/management/audit", nil).ok().raw), "Amal")
		account := request{method: http.MethodGet, path: "/management/account/audit", token: bootstrapKey}
		assert.NotContains(t, string(h.send(account).ok().raw), c.id)
		account.token = c.key
		h.send(account).refused(http.StatusForbidden, models.CodeForbidden)
	})
}

// TestNoSecretIsInTheAudit does whatever is done with secrets, and then looks
// for them.
func TestNoSecretIsInTheAudit(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.serve(c.newType(nil))
		const hook = "https://8.8.8.8/hook?token=hidden-in-the-address"
		secrets := []string{c.key, bootstrapKey, fixedCode, "+966500000061", "966500000061", "patient@example.com", "Mona", "hidden-in-the-address", "a registration token", "whsec_"}
		keep := func(a answer, paths ...string) answer {
			a.ok()
			for _, path := range paths {
				require.NotEmpty(t, a.str(path), path)
				secrets = append(secrets, a.str(path), models.HashSecret(a.str(path)))
			}
			return a
		}
		patient := keep(c.signIn("+966500000061", false), "accessToken", "refreshToken")
		as := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: patient.str("accessToken"), body: body})
		}
		as(http.MethodPut, "/customer/profile", object{"firstName": "Mona", "email": "patient@example.com"}).ok()
		as(http.MethodPost, "/devices", object{"token": "a registration token", "platform": "ios"}).ok()
		keep(as(http.MethodPut, "/customer/scheduling/new", joining(kind, object{"note": "Mona is afraid"})), "result.ticketToken")
		keep(c.staff(http.MethodPost, "/management/apiKeys", object{"name": "spare"}), "result.key")
		c.staff(http.MethodDelete, "/management/apiKeys", object{"name": "spare"}).ok()
		screen := keep(c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}), "result.token")
		c.staff(http.MethodDelete, "/management/displays", object{"id": screen.str("result.id")}).ok()
		address := object{"trigger": "bookingAssigned", "url": hook}
		keep(c.staff(http.MethodPost, "/management/webhooks", address), "webhook.secret")
		keep(c.staff(http.MethodPost, "/management/webhooks/rotate", address), "webhook.secret")
		c.staff(http.MethodDelete, "/management/webhooks", address).ok()
		h.send(request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": patient.str("refreshToken")}}).ok()

		var lines []store.Audit
		require.NoError(t, h.Store.Read(t.Context()).Find(&lines).Error)
		all := fmt.Sprint(lines)
		for _, action := range []string{"updateCustomer", "join", "createDisplay", "deleteDisplay", "addWebhook", "rotateWebhook", "deleteWebhook", "createType"} {
			assert.Contains(t, all, " "+action+" ")
		}
		for _, secret := range secrets {
			assert.False(t, tells(all, secret), secret)
		}
	})
}
