package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const organizationsPath = "/management/organizations"

// organization asks for something about a clinic with the account's key.
func (c *clinic) organization(method, more string, body any) answer {
	c.t.Helper()
	return c.send(request{method: method, path: organizationsPath + "/" + c.id + more, token: bootstrapKey, body: body})
}

func TestAnOrganizationIsChangedAndDeleted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, elsewhere := h.newClinic(), h.newClinic()
		assert.Equal(t, []any{}, c.organization(http.MethodGet, "", nil).ok().at("result.allowedOrigins"))
		changed := c.organization(http.MethodPut, "", object{
			"name": "Al Noor II", "timezone": "Asia/Dubai", "businessTypeId": "clinic", "businessCustomConfig": object{"floors": 3},
			"allowedOrigins": []string{"HTTPS://Clinic.Example", "http://localhost:3000", "https://clinic.example:443", "Capacitor://localhost", "ionic://localhost"},
		}).ok()
		want := object{"name": "Al Noor II", "timezone": "Asia/Dubai", "businessTypeId": "clinic", "businessCustomConfig": object{"floors": 3.0},
			"allowedOrigins": []any{"capacitor://localhost", "http://localhost:3000", "https://clinic.example", "ionic://localhost"}, "isDeleted": false}
		same := func(a answer) {
			for field, value := range want {
				assert.Equal(t, value, a.at("result."+field), field)
			}
		}
		same(changed)
		same(c.organization(http.MethodGet, "", nil).ok())
		want["name"] = "Al Noor"
		same(c.staff(http.MethodPut, organizationsPath+"/"+c.id, object{"name": "Al Noor"}).ok()) // its own key may, and what is absent stays
		same(c.organization(http.MethodGet, "", nil).ok())

		for field, wrong := range map[string]object{
			"name":                 {"name": " "},
			"timezone":             {"timezone": "Mars/Olympus"},
			"businessCustomConfig": {"businessCustomConfig": object{"x": strings.Repeat("x", 40_000)}},
			"allowedOrigins":       {"allowedOrigins": make([]string, 51)},
		} {
			assert.Equal(t, field, c.organization(http.MethodPut, "", wrong).refused(http.StatusUnprocessableEntity, models.CodeInvalid).str("errors.0.field"))
		}
		for _, origin := range []string{"", "*", "null", "clinic.example", "ftp://clinic.example", "https://", "https://clinic.example/", "https://clinic.example/x",
			"https://u:p@clinic.example", "https://clinic.example?x", "https://clinic.example#x", "https://clínica.example", "https://a b", "https://clinic.example\n",
			"https://*.clinic.example", "file://", "file://localhost", "javascript://localhost", "capacitor://", "capacitor:localhost", "https://a+b.example", "https://clinic.example'", "https://clinic.example:", "https://clinic.example:65536"} {
			c.organization(http.MethodPut, "", object{"allowedOrigins": []string{origin}}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
		same(c.organization(http.MethodGet, "", nil).ok())

		// Nobody touches another's.
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			h.send(request{method: method, path: organizationsPath + "/" + c.id, token: elsewhere.key, body: object{"name": "Stolen"}}).refused(http.StatusNotFound, models.CodeOrgMissing)
		}
		elsewhere.hire(object{"phone": "+966500000451", "role": "owner"}).ok()
		boss := elsewhere.signIn("+966500000451", true).str("accessToken")
		h.send(request{method: http.MethodDelete, path: organizationsPath + "/" + c.id, token: boss}).refused(http.StatusNotFound, models.CodeOrgMissing)
		c.staff(http.MethodDelete, organizationsPath+"/"+c.id, nil).refused(http.StatusForbidden, models.CodeForbidden)
		same(c.organization(http.MethodGet, "", nil).ok())

		// An owner deletes their own.
		assert.Equal(t, true, h.send(request{method: http.MethodDelete, path: organizationsPath + "/" + elsewhere.id, token: boss}).ok().at("result.isDeleted"))
		assert.Equal(t, []string{c.id}, h.send(request{method: http.MethodGet, path: organizationsPath, token: bootstrapKey}).ok().pluck("result", "id"))
		actions := "SELECT COUNT(*) FROM audit WHERE organization_id = ? AND subject_id = ? AND subject_kind = 'organization' AND action = ?"
		assert.Equal(t, 2, scalar[int](h, actions, c.id, c.id, "updateOrganization"))
		assert.Equal(t, 1, scalar[int](h, actions, elsewhere.id, elsewhere.id, "deleteOrganization"))
	})
}

// TestTimeZoneDecidesTheDay moves a clinic between two places where it is never
// the same day. Each day has its own numbers, and none of them comes twice.
func TestTimeZoneDecidesTheDay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		move := func(zone string) { c.organization(http.MethodPut, "", object{"timezone": zone}).ok() }
		draw := func(zone string) string {
			place, err := time.LoadLocation(zone)
			require.NoError(t, err)
			before := time.Now().In(place).Format(time.DateOnly)
			b := c.join(kind, nil)
			if after := time.Now().In(place).Format(time.DateOnly); before == after { // else it was midnight there
				assert.Equal(t, before, scalar[string](h, "SELECT local_day FROM bookings WHERE id = ?", b.str("id")))
			}
			c.act("cancel", b.str("id"), nil).ok() // the number of a waiting booking is passed over
			return b.str("ticket")
		}
		early, late := "Pacific/Kiritimati", "Pacific/Honolulu" // UTC+14 and UTC-10: midnight is at 10:00 UTC
		if time.Now().UTC().Add(30*time.Minute).Hour() == 10 {
			early, late = "Pacific/Tongatapu", "Pacific/Pago_Pago" // UTC+13 and UTC-11: an hour later
		}
		move(early)
		assert.Equal(t, "A001", draw(early))
		assert.Equal(t, "A002", draw(early))
		move(late)
		assert.Equal(t, "A001", draw(late))
		move(early)
		assert.Equal(t, "A003", draw(early))
		move(late)
		assert.Equal(t, "A002", draw(late))
	})
}

// TestDeletedOrganization deletes a clinic in the midst of its work.
func TestDeletedOrganization(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f, phones, mails := newFCM(t), newTwilio(t), newMail(t)
			h := newHouse(t, b, f.pushing, allowPrivate, func(c *node.Config) { c.SMSURL, c.SMTPURL = phones.url, mails.url })
			far := h
			if h.server != nil {
				far = h.beside(nil)
			}
			failing := newReceiver(t, answering(http.StatusInternalServerError))
			c, stays := h.newReminded(), h.newClinic()
			stays.key = stays.staff(http.MethodPost, keysPath, object{"name": "kiosk"}).ok().str("result.key")
			for _, trigger := range []string{"bookingUnassigned", "bookingExpired", "oneDayBeforeAppointment", "queuePositionUpdated"} {
				c.hook(trigger, failing.url, nil)
			}
			c.choose(models.ReminderDayBefore, "sms")
			c.hire(object{"phone": "+966500000461", "role": "owner"}).ok()
			owner, patient := c.signIn("+966500000461", true), c.signIn("+966500000462", false)
			c.device(patient.str("accessToken"), "phone", "en").ok()
			visit := c.visit(1820, object{"phone": "+966500000462"})
			waiting := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: patient.str("accessToken"), body: joining(c.kind, nil)}).ok()
			screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok().str("result.token")
			failing.await(1)
			h.quiet()
			// A push and a message that have to be tried again.
			f.trouble("phone", slices.Repeat([]fcmReply{{status: http.StatusInternalServerError, code: "INTERNAL"}}, 20)...)
			called := c.staff(http.MethodPut, "/management/scheduling/new", joining(c.kind, object{"customerIdentifier": object{"phone": "+966500000462"}, "priority": 9})).ok().str("id")
			c.act("assign", called, object{"resourceId": c.room}).ok()
			require.Eventually(t, func() bool { return f.asked("phone") > 0 }, patience, 5*time.Millisecond)
			require.NoError(t, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
				tx.EnqueueAt(time.Now().Add(time.Hour), models.Message{OrganizationID: c.id, Template: models.TemplateOTP, Method: "sms", Until: time.Now().Add(time.Hour)})
				return nil
			}))

			tokens := map[string]string{
				"key": c.key, "owner": owner.str("accessToken"), "patient": patient.str("accessToken"), "ticket": waiting.str("result.ticketToken"), "display": screen,
			}
			gone := map[string]<-chan centrifuge.DisconnectedEvent{}
			for who, token := range tokens {
				gone[who] = far.attach(token)
			}
			kept := far.attach(stays.key)
			refusals := []struct {
				r      request
				status int
			}{
				{request{method: http.MethodGet, path: "/management/types", token: tokens["key"]}, 401},
				{request{method: http.MethodGet, path: "/management/types", token: tokens["owner"]}, 401},
				{request{method: http.MethodGet, path: "/customer/bookings", token: tokens["patient"]}, 401},
				{request{method: http.MethodGet, path: "/customer/bookings/" + waiting.str("result.id"), token: tokens["ticket"]}, 401},
				{request{method: http.MethodGet, path: "/management/types", token: bootstrapKey, app: c.id}, 404},
				{request{method: http.MethodGet, path: organizationsPath + "/" + c.id, token: bootstrapKey}, 404},
				{request{method: http.MethodPut, path: organizationsPath + "/" + c.id, token: bootstrapKey, body: object{"name": "Back"}}, 404},
				{request{method: http.MethodDelete, path: organizationsPath + "/" + c.id, token: bootstrapKey}, 404},
				{request{method: http.MethodPost, path: "/availability/types", app: c.id}, 404},
				{request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: object{"method": "sms", "phoneNumber": "+966500000462"}}, 404},
				{request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: object{"method": "sms", "phoneNumber": "+966500000462", "code": fixedCode}}, 404},
				{request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": patient.str("refreshToken")}}, 401},
			}
			for _, refused := range refusals {
				if refused.r.method == http.MethodGet {
					far.send(refused.r).ok() // it is known there
				}
			}

			assert.Equal(t, true, c.organization(http.MethodDelete, "", nil).ok().at("result.isDeleted"))
			for _, refused := range refusals {
				assert.Equal(t, refused.status, h.send(refused.r).status, "%s %s", refused.r.method, refused.r.path)
				assert.Eventually(t, func() bool { return far.send(refused.r).status == refused.status }, dropTime, 20*time.Millisecond, "%s %s", refused.r.method, refused.r.path)
			}
			for who, told := range gone {
				select {
				case e := <-told:
					assert.EqualValues(t, 3501, e.Code, who)
				case <-time.After(dropTime):
					t.Errorf("the live connection of the %s goes on", who)
				}
			}
			assert.Empty(t, kept, "those of others go on")
			far.send(keyed(stays.key)).ok()

			// Deadlines pass, attempts come due: nothing leaves the house.
			now := time.Now().UTC()
			sent := func() []int {
				return []int{
					len(failing.arrivals()), f.asked("phone"), phones.tries("+966500000462"), scalar[int](h, "SELECT COUNT(*) FROM webhook_deliveries"),
					scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind IN ('push', 'message', 'webhook')"),
				}
			}
			h.exec("INSERT INTO position_marks (organization_id, due_at) VALUES (?, ?) ON CONFLICT (organization_id) DO UPDATE SET due_at = ?", c.id, now.Add(-time.Second), now.Add(-time.Second))
			h.exec("INSERT INTO position_states (booking_id, version, sequence, pushed, hooked, telling, updated_at) VALUES (?, 1, 1, 9, 9, 0, ?) ON CONFLICT (booking_id) DO UPDATE SET pushed = 9, hooked = 9",
				waiting.str("result.id"), now)
			before := sent()
			require.Eventually(t, func() bool { return scalar[int](h, "SELECT COUNT(*) FROM position_marks") == 0 }, patience, 20*time.Millisecond)
			h.exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", now, waiting.str("result.id"))
			h.exec("UPDATE bookings SET reminder_at = ? WHERE id = ?", now, visit)
			h.hurry()
			h.exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE state IN ('scheduled', 'retryable')", now.Add(-time.Minute))
			require.Eventually(t, func() bool {
				return scalar[string](h, "SELECT status FROM bookings WHERE id = ?", waiting.str("result.id")) == "REJECTED" &&
					scalar[string](h, "SELECT reminder_next FROM bookings WHERE id = ?", visit) != string(models.ReminderDayBefore) &&
					scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE state IN ('available', 'running', 'scheduled', 'retryable')") == 0
			}, patience, 20*time.Millisecond)
			assert.Equal(t, before, sent())
			assert.Equal(t, 1, scalar[int](h, "SELECT COUNT(*) FROM message_attempts WHERE organization_id = ? AND status = 'dropped'", c.id), "the message, and it was not even read")
		})
	}
}

// mentions are the tables in which a text is found, with the number of rows.
func (h *house) mentions(text string) map[string]int {
	h.t.Helper()
	found := map[string]int{}
	for _, table := range h.everyTable() {
		var rows []map[string]any
		require.NoError(h.t, h.Store.Read(context.Background()).Table(table).Find(&rows).Error)
		for _, row := range rows {
			if strings.Contains(fmt.Sprintf("%s", row), text) {
				found[table]++
			}
		}
	}
	return found
}

func (h *house) everyTable() []string {
	h.t.Helper()
	query := "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
	if h.Store.Postgres() {
		query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name"
	}
	var names []string
	require.NoError(h.t, h.Store.Read(context.Background()).Raw(query).Scan(&names).Error)
	return names
}

var anyID = regexp.MustCompile(`[0-9a-v]{20}`)

// idsIn are the ids that stand anywhere in some rows.
func (h *house) idsIn(query *gorm.DB) map[string]bool {
	h.t.Helper()
	var rows []map[string]any
	require.NoError(h.t, query.Find(&rows).Error)
	ids := map[string]bool{}
	for _, row := range rows {
		for _, id := range anyID.FindAllString(fmt.Sprintf("%s", row), -1) {
			ids[id] = true
		}
	}
	return ids
}

// idsOf are the ids in all rows of an organization.
func (h *house) idsOf(organizationID string) map[string]bool {
	h.t.Helper()
	ids := map[string]bool{}
	for _, table := range h.tenantTables() {
		maps.Copy(ids, h.idsIn(h.Store.Read(context.Background()).Table(table).Where("organization_id = ?", organizationID)))
	}
	return ids
}

// tenantTables are the tables that name the organization of each row.
func (h *house) tenantTables() []string {
	return slices.DeleteFunc(h.everyTable(), func(table string) bool {
		columns, err := h.Store.Read(context.Background()).Migrator().ColumnTypes(table)
		require.NoError(h.t, err)
		for _, column := range columns {
			if column.Name() == "organization_id" {
				return false
			}
		}
		return true
	})
}

// TestHardDeletion fills every table that knows of organizations, deletes one
// for good and finds nothing left of it, and everything of the other.
func TestHardDeletion(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f := newFCM(t)
			h := newHouse(t, b, f.pushing, allowPrivate)
			var clinics []*clinic
			for i := range 2 {
				clinics = append(clinics, h.fillEverything(fmt.Sprintf("+96650000047%d", i)))
			}
			h.quiet()
			h.rest()
			c, stays := clinics[0], clinics[1]
			for _, table := range h.tenantTables() {
				for _, one := range clinics {
					assert.Positive(t, scalar[int](h, "SELECT COUNT(*) FROM "+table+" WHERE organization_id = ?", one.id), "%s is empty: fill it, and see that a deletion empties it", table)
				}
			}
			theirs, others := h.idsOf(c.id), h.idsOf(stays.id)
			maps.DeleteFunc(theirs, func(id string, _ bool) bool { return others[id] || id == c.id })
			require.Greater(t, len(theirs), 20)
			rest := h.mentions(stays.id)

			c.organization(http.MethodDelete, "", nil).ok() // hidden
			h.exec("UPDATE river_job SET scheduled_at = ? WHERE state IN ('scheduled', 'retryable')", time.Now().UTC().Add(time.Hour))
			h.still() // a job under way would stay
			gone := c.organization(http.MethodDelete, "?hardDelete=true", nil).ok()
			assert.Equal(t, c.id, gone.str("result.id"))
			assert.Equal(t, []any{"https://clinic.example"}, gone.list("result.allowedOrigins"), "as it was")
			assert.Equal(t, map[string]int{"audit": 1, "audit_chains": 1, "revocations": 2}, h.mentions(c.id), "that it is gone, by whom, how long its audit was, and that its credentials ended")
			for _, id := range []string{"", c.id, stays.id} {
				report, err := h.Store.VerifyAudit(t.Context(), id, nil)
				require.NoError(t, err)
				assert.Empty(t, report.Faults, "the audit of %q", id)
				assert.Positive(t, report.Lines)
			}
			assert.Equal(t, 1, scalar[int](h, "SELECT COUNT(*) FROM audit WHERE organization_id = '' AND action = 'dropOrganization' AND actor_kind = 'account' AND subject_id = ?", c.id))
			for _, table := range h.everyTable() {
				if table == "revocations" { // of what may still come with a credential
					continue
				}
				for id := range h.idsIn(h.Store.Read(context.Background()).Table(table)) {
					assert.False(t, theirs[id], "%s in %s", id, table)
				}
			}
			assert.Zero(t, scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'announce' AND CAST(args ->> 'eventId' AS bigint) NOT IN (SELECT id FROM events)"))
			assert.Equal(t, rest, h.mentions(stays.id))
			c.organization(http.MethodDelete, "?hardDelete=true", nil).refused(http.StatusNotFound, models.CodeOrgMissing)
			keys, err := h.Redis.Keys(t.Context(), "*"+c.id+"*").Result()
			require.NoError(t, err)
			assert.Empty(t, keys)
			keys, err = h.Redis.Keys(t.Context(), "*"+stays.id+"*").Result()
			require.NoError(t, err)
			assert.NotEmpty(t, keys)
			stays.staff(http.MethodGet, "/management/bookings", nil).ok()
		})
	}
}

// TestHardDeletionLeavesAJobUnderWay deletes an organization while a webhook of it
// is being called. The job ends by itself: were it taken away, ending it could
// stop the process.
func TestHardDeletionLeavesAJobUnderWay(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		answer := make(chan struct{})
		slow := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-answer })
		release := sync.OnceFunc(func() { close(answer) })
		t.Cleanup(release) // the receiver waits for its calls
		c.hook("bookingUnassigned", slow.url, nil)
		kind := c.newType(nil)
		c.newResource(nil, kind)
		c.join(kind, nil)
		slow.await(1)

		assert.Empty(t, c.organization(http.MethodDelete, "?hardDelete=true", nil).ok().list("result.allowedOrigins"))
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'webhook' AND state = 'running'"))
		release()
		h.still()
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'webhook' AND state <> 'completed'"), "it found nothing to do again")
	})
}

// TestHardDeletionMeetsWhatIsWritten deletes an organization while a transaction
// that wrote something of it has not ended, and while a message of it is sent.
func TestHardDeletionMeetsWhatIsWritten(t *testing.T) {
	t.Parallel()
	onBothWithCarriers(t, func(t *testing.T, h *house, phones *fakeTwilio, _ *fakeMail) {
		c := h.newClinic()
		phones.will("+966500000481", "hang")
		c.askCode("sms", "+966500000481", "en").ok()
		require.Eventually(t, func() bool { return phones.tries("+966500000481") == 1 }, patience, 5*time.Millisecond)

		written, end, ended := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			ended <- h.Store.Tx(context.Background(), func(tx *store.Tx) error {
				defer func() { close(written); <-end }()
				return tx.Exec("INSERT INTO customers (id, organization_id, created_at, updated_at) VALUES ('late', ?, ?, ?)", c.id, tx.Now, tx.Now).Error
			})
		}()
		<-written
		dropped := make(chan answer)
		go func() { dropped <- c.organization(http.MethodDelete, "?hardDelete=true", nil) }()
		if h.Store.Postgres() { // it has deleted what it saw, and waits
			require.Eventually(t, func() bool {
				return scalar[int](h, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE 'DELETE FROM organizations%'") == 1
			}, patience, 5*time.Millisecond)
		}
		close(end)
		require.NoError(t, <-ended)
		(<-dropped).ok()
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM customers WHERE id = 'late'"))

		close(phones.hung)
		require.Eventually(t, func() bool {
			h.exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE state IN ('scheduled', 'retryable')", time.Now().UTC().Add(-time.Minute))
			return scalar[int](h, "SELECT count(*) FROM river_job WHERE state <> 'completed'") == 0
		}, patience, 20*time.Millisecond, "the message has nobody to be from any more")
	})
}

// fillEverything makes a clinic with a row in every table.
func (h *house) fillEverything(phone string) *clinic {
	h.t.Helper()
	c := h.newClinic()
	c.organization(http.MethodPut, "", object{"allowedOrigins": []string{"https://clinic.example"}}).ok()
	failing := newReceiver(h.t, answering(http.StatusInternalServerError))
	c.hook("bookingUnassigned", failing.url, nil)
	kind := c.newType(nil)
	room := c.newResource(nil, kind)
	member := c.hire(object{"phone": phone, "role": "provider", "resources": []string{room}}).ok().str("result.id")
	patient := c.patient(phone)
	c.device(patient, "phone of "+phone, "en").ok()
	h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: patient, body: joining(kind, object{"resourceFilters": object{"resource": room}})}).ok()
	c.once("key", request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kind, nil)}).ok()
	c.next(room).ok()
	c.staff(http.MethodPut, "/management/messages", object{
		"reminders": object{"afterAppointment": []string{"sms"}}, "templates": object{"otp": object{"en": object{
			"text": "{{code}}", "whatsapp": object{"contentSid": "HX" + strings.Repeat("0", 32), "variables": object{"1": "{{code}}"}},
		}}},
	}).ok()
	c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()
	h.send(request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: object{"method": "sms", "phoneNumber": phone, "code": "000000"}}).
		refused(http.StatusUnauthorized, models.CodeWrongCode)
	failing.await(1)
	h.quiet()
	now := time.Now().UTC()
	// What comes and goes by itself, or needs a message that is really sent.
	h.exec("INSERT INTO code_budgets (organization_id, day, country, sent) VALUES (?, ?, '', 1)", c.id, now.Truncate(24*time.Hour))
	h.exec("INSERT INTO member_views (organization_id, member_id, resource_id, confirmed, requests) VALUES (?, ?, ?, ?, ?)", c.id, member, room, true, false)
	h.exec("INSERT INTO position_marks (organization_id, due_at) VALUES (?, ?) ON CONFLICT (organization_id) DO UPDATE SET due_at = excluded.due_at", c.id, now.Add(time.Hour))
	h.exec("INSERT INTO message_attempts (id, organization_id, message_id, booking_id, template, method, attempt, status, provider_id, error, duration_ms, created_at) VALUES (?, ?, 'm', '', 'otp', 'sms', 1, 'sent', '', '', 1, ?)",
		models.NewID(), c.id, now)
	h.exec("INSERT INTO push_log (notification_id, device_id, organization_id, booking_id, type, status, at) VALUES (?, 'd', ?, 'b', 'T', 'sent', ?) ON CONFLICT DO NOTHING", models.NewID(), c.id, now)
	require.NoError(h.t, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
		tx.EnqueueAt(now.Add(time.Hour), models.Message{OrganizationID: c.id, Template: models.TemplateOTP, Method: "sms"})
		return nil
	}))
	return c
}

// TestHardDeletionIsForDevelopment only.
func TestHardDeletionIsForDevelopment(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded, func(c *node.Config) { c.Env = "production" })
	c := h.newClinic()
	before := h.contents()
	c.organization(http.MethodDelete, "?hardDelete=true", nil).refused(http.StatusForbidden, models.CodeHardDelete)
	assert.Equal(t, before, h.contents())
	c.organization(http.MethodDelete, "?hardDelete=false", nil).ok()
	c.organization(http.MethodGet, "", nil).refused(http.StatusNotFound, models.CodeOrgMissing)
}
