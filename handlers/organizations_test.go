package handlers_test

import (
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

const organizationsPath = "/management/organizations"

// organization asks for something about a clinic with the account's key.
func organization(c *nodetest.Clinic, method, more string, body any) nodetest.Response {
	c.T.Helper()
	return c.Send(nodetest.Request{Method: method, Path: organizationsPath + "/" + c.ID + more, Token: nodetest.BootstrapKey, Body: body})
}

func TestAnOrganizationIsChangedAndDeleted(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, elsewhere := h.NewClinic(), h.NewClinic()
		assert.Equal(t, []any{}, organization(c, http.MethodGet, "", nil).OK().At("result.allowedOrigins"))
		changed := organization(c, http.MethodPut, "", nodetest.Object{
			"name": "Al Noor II", "timezone": "Asia/Dubai", "businessTypeId": "clinic", "businessCustomConfig": nodetest.Object{"floors": 3},
			"allowedOrigins": []string{"HTTPS://Clinic.Example", "http://localhost:3000", "https://clinic.example:443", "Capacitor://localhost", "ionic://localhost"},
		}).OK()
		want := nodetest.Object{"name": "Al Noor II", "timezone": "Asia/Dubai", "businessTypeId": "clinic", "businessCustomConfig": nodetest.Object{"floors": 3.0},
			"allowedOrigins": []any{"capacitor://localhost", "http://localhost:3000", "https://clinic.example", "ionic://localhost"}, "isDeleted": false}
		same := func(a nodetest.Response) {
			for field, value := range want {
				assert.Equal(t, value, a.At("result."+field), field)
			}
		}
		same(changed)
		same(organization(c, http.MethodGet, "", nil).OK())
		want["name"] = "Al Noor"
		same(c.Staff(http.MethodPut, organizationsPath+"/"+c.ID, nodetest.Object{"name": "Al Noor"}).OK()) // its own key may, and what is absent stays
		same(organization(c, http.MethodGet, "", nil).OK())

		for field, wrong := range map[string]nodetest.Object{
			"name":                 {"name": " "},
			"timezone":             {"timezone": "Mars/Olympus"},
			"businessCustomConfig": {"businessCustomConfig": nodetest.Object{"x": strings.Repeat("x", 40_000)}},
			"allowedOrigins":       {"allowedOrigins": make([]string, 51)},
		} {
			assert.Equal(t, field, organization(c, http.MethodPut, "", wrong).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).Str("errors.0.field"))
		}
		for _, origin := range []string{"", "*", "null", "clinic.example", "ftp://clinic.example", "https://", "https://clinic.example/", "https://clinic.example/x",
			"https://u:p@clinic.example", "https://clinic.example?x", "https://clinic.example#x", "https://clínica.example", "https://a b", "https://clinic.example\n",
			"https://*.clinic.example", "file://", "file://localhost", "javascript://localhost", "capacitor://", "capacitor:localhost", "https://a+b.example", "https://clinic.example'", "https://clinic.example:", "https://clinic.example:65536"} {
			organization(c, http.MethodPut, "", nodetest.Object{"allowedOrigins": []string{origin}}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
		same(organization(c, http.MethodGet, "", nil).OK())

		// Nobody touches another's.
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			h.Send(nodetest.Request{Method: method, Path: organizationsPath + "/" + c.ID, Token: elsewhere.Key, Body: nodetest.Object{"name": "Stolen"}}).Refused(http.StatusNotFound, models.CodeOrgMissing)
		}
		nodetest.Hire(elsewhere, nodetest.Object{"phone": "+966500000451", "role": "owner"}).OK()
		boss := elsewhere.SignIn("+966500000451", true).Str("accessToken")
		h.Send(nodetest.Request{Method: http.MethodDelete, Path: organizationsPath + "/" + c.ID, Token: boss}).Refused(http.StatusNotFound, models.CodeOrgMissing)
		c.Staff(http.MethodDelete, organizationsPath+"/"+c.ID, nil).Refused(http.StatusForbidden, models.CodeForbidden)
		same(organization(c, http.MethodGet, "", nil).OK())

		// An owner deletes their own.
		assert.Equal(t, true, h.Send(nodetest.Request{Method: http.MethodDelete, Path: organizationsPath + "/" + elsewhere.ID, Token: boss}).OK().At("result.isDeleted"))
		assert.Equal(t, []string{c.ID}, h.Send(nodetest.Request{Method: http.MethodGet, Path: organizationsPath, Token: nodetest.BootstrapKey}).OK().Pluck("result", "id"))
		actions := "SELECT COUNT(*) FROM audit WHERE organization_id = ? AND subject_id = ? AND subject_kind = 'organization' AND action = ?"
		assert.Equal(t, 2, nodetest.Scalar[int](h, actions, c.ID, c.ID, "updateOrganization"))
		assert.Equal(t, 1, nodetest.Scalar[int](h, actions, elsewhere.ID, elsewhere.ID, "deleteOrganization"))
	})
}

// TestTimeZoneDecidesTheDay moves a clinic between two places where it is never
// the same day. Each day has its own numbers, and none of them comes twice.
func TestTimeZoneDecidesTheDay(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		move := func(zone string) { organization(c, http.MethodPut, "", nodetest.Object{"timezone": zone}).OK() }
		draw := func(zone string) string {
			place, err := time.LoadLocation(zone)
			require.NoError(t, err)
			before := time.Now().In(place).Format(time.DateOnly)
			b := c.Join(kind, nil)
			if after := time.Now().In(place).Format(time.DateOnly); before == after { // else it was midnight there
				assert.Equal(t, before, nodetest.Scalar[string](h, "SELECT local_day FROM bookings WHERE id = ?", b.Str("id")))
			}
			c.Act("cancel", b.Str("id"), nil).OK() // the number of a waiting booking is passed over
			return b.Str("ticket")
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

// TestADeletedOrganizationIsHiddenAndSendsNothing deletes an organization with open
// bookings, messages and webhooks.
func TestADeletedOrganizationIsHiddenAndSendsNothing(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f, phones, mails := nodetest.NewFCM(t), nodetest.NewTwilio(t), nodetest.NewMail(t)
			h := nodetest.Start(t, b, f.Pushing, nodetest.AllowPrivate, func(c *node.Config) { c.SMSURL, c.SMTPURL = phones.URL, mails.URL })
			far := h
			if h.RedisServer != nil {
				far = h.Beside(nil)
			}
			failing := nodetest.NewReceiver(t, nodetest.Answering(http.StatusInternalServerError))
			c, stays := h.NewReminded(), h.NewClinic()
			stays.Key = stays.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk"}).OK().Str("result.key")
			for _, trigger := range []string{"bookingUnassigned", "bookingExpired", "oneDayBeforeAppointment", "queuePositionUpdated"} {
				c.Hook(trigger, failing.URL, nil)
			}
			c.Choose(models.ReminderDayBefore, "sms")
			nodetest.Hire(c.Clinic, nodetest.Object{"phone": "+966500000461", "role": "owner"}).OK()
			owner, patient := c.SignIn("+966500000461", true), c.SignIn("+966500000462", false)
			c.Device(patient.Str("accessToken"), "phone", "en").OK()
			visit := c.Visit(1820, nodetest.Object{"phone": "+966500000462"})
			waiting := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient.Str("accessToken"), Body: nodetest.Joining(c.Kind, nil)}).OK()
			screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK().Str("result.token")
			failing.Await(1)
			h.Quiet()
			// A push and a message that have to be tried again.
			f.Trouble("phone", slices.Repeat([]nodetest.FCMReply{{Status: http.StatusInternalServerError, Code: "INTERNAL"}}, 20)...)
			called := c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(c.Kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000462"}, "priority": 9})).OK().Str("id")
			c.Act("assign", called, nodetest.Object{"resourceId": c.Room}).OK()
			require.Eventually(t, func() bool { return f.Asked("phone") > 0 }, nodetest.Patience, 5*time.Millisecond)
			require.NoError(t, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
				tx.EnqueueAt(time.Now().Add(time.Hour), models.Message{OrganizationID: c.ID, Template: models.TemplateOTP, Method: "sms", Until: time.Now().Add(time.Hour)})
				return nil
			}))

			tokens := map[string]string{
				"key": c.Key, "owner": owner.Str("accessToken"), "patient": patient.Str("accessToken"), "ticket": waiting.Str("result.ticketToken"), "display": screen,
			}
			gone := map[string]<-chan centrifuge.DisconnectedEvent{}
			for who, token := range tokens {
				gone[who] = nodetest.Attach(far, token)
			}
			kept := nodetest.Attach(far, stays.Key)
			refusals := []struct {
				r      nodetest.Request
				status int
			}{
				{nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: tokens["key"]}, 401},
				{nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: tokens["owner"]}, 401},
				{nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: tokens["patient"]}, 401},
				{nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + waiting.Str("result.id"), Token: tokens["ticket"]}, 401},
				{nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: nodetest.BootstrapKey, App: c.ID}, 404},
				{nodetest.Request{Method: http.MethodGet, Path: organizationsPath + "/" + c.ID, Token: nodetest.BootstrapKey}, 404},
				{nodetest.Request{Method: http.MethodPut, Path: organizationsPath + "/" + c.ID, Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "Back"}}, 404},
				{nodetest.Request{Method: http.MethodDelete, Path: organizationsPath + "/" + c.ID, Token: nodetest.BootstrapKey}, 404},
				{nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID}, 404},
				{nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000462"}}, 404},
				{nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000462", "code": nodetest.FixedCode}}, 404},
				{nodetest.Request{Method: http.MethodPost, Path: "/auth/token", Body: nodetest.Object{"refreshToken": patient.Str("refreshToken")}}, 401},
			}
			for _, refused := range refusals {
				if refused.r.Method == http.MethodGet {
					far.Send(refused.r).OK() // it is known there
				}
			}

			assert.Equal(t, true, organization(c.Clinic, http.MethodDelete, "", nil).OK().At("result.isDeleted"))
			for _, refused := range refusals {
				assert.Equal(t, refused.status, h.Send(refused.r).Status, "%s %s", refused.r.Method, refused.r.Path)
				assert.Eventually(t, func() bool { return far.Send(refused.r).Status == refused.status }, nodetest.DropTime, 20*time.Millisecond, "%s %s", refused.r.Method, refused.r.Path)
			}
			for who, told := range gone {
				select {
				case e := <-told:
					assert.EqualValues(t, 3501, e.Code, who)
				case <-time.After(nodetest.DropTime):
					t.Errorf("the live connection of the %s goes on", who)
				}
			}
			assert.Empty(t, kept, "those of others go on")
			far.Send(nodetest.Keyed(stays.Key)).OK()

			// Deadlines pass and attempts come due, but nothing is sent.
			now := time.Now().UTC()
			sent := func() []int {
				return []int{
					len(failing.Arrivals()), f.Asked("phone"), phones.Tries("+966500000462"), nodetest.Scalar[int](h, "SELECT COUNT(*) FROM webhook_deliveries"),
					nodetest.Scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE kind IN ('push', 'message', 'webhook')"),
				}
			}
			h.Exec("INSERT INTO position_marks (organization_id, due_at) VALUES (?, ?) ON CONFLICT (organization_id) DO UPDATE SET due_at = ?", c.ID, now.Add(-time.Second), now.Add(-time.Second))
			h.Exec("INSERT INTO position_states (booking_id, version, sequence, pushed, hooked, telling, updated_at) VALUES (?, 1, 1, 9, 9, 0, ?) ON CONFLICT (booking_id) DO UPDATE SET pushed = 9, hooked = 9",
				waiting.Str("result.id"), now)
			before := sent()
			require.Eventually(t, func() bool { return nodetest.Scalar[int](h, "SELECT COUNT(*) FROM position_marks") == 0 }, nodetest.Patience, 20*time.Millisecond)
			h.Exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", now, waiting.Str("result.id"))
			h.Exec("UPDATE bookings SET reminder_at = ? WHERE id = ?", now, visit)
			h.Hurry()
			h.Exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE state IN ('scheduled', 'retryable')", now.Add(-time.Minute))
			require.Eventually(t, func() bool {
				return nodetest.Scalar[string](h, "SELECT status FROM bookings WHERE id = ?", waiting.Str("result.id")) == "REJECTED" &&
					nodetest.Scalar[string](h, "SELECT reminder_next FROM bookings WHERE id = ?", visit) != string(models.ReminderDayBefore) &&
					nodetest.Scalar[int](h, "SELECT COUNT(*) FROM river_job WHERE state IN ('available', 'running', 'scheduled', 'retryable')") == 0
			}, nodetest.Patience, 20*time.Millisecond)
			assert.Equal(t, before, sent())
			assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM message_attempts WHERE organization_id = ? AND status = 'dropped'", c.ID), "the message, and it was not even read")
		})
	}
}

// mentions are the tables in which a text is found, with the number of rows.
func mentions(h *nodetest.Node, text string) map[string]int {
	h.T.Helper()
	found := map[string]int{}
	for _, table := range everyTable(h) {
		var rows []map[string]any
		require.NoError(h.T, h.Store.Read(context.Background()).Table(table).Find(&rows).Error)
		for _, row := range rows {
			if strings.Contains(fmt.Sprintf("%s", row), text) {
				found[table]++
			}
		}
	}
	return found
}

func everyTable(h *nodetest.Node) []string {
	h.T.Helper()
	query := "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
	if h.Store.Postgres() {
		query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name"
	}
	var names []string
	require.NoError(h.T, h.Store.Read(context.Background()).Raw(query).Scan(&names).Error)
	return names
}

var anyID = regexp.MustCompile(`[0-9a-v]{20}`)

// idsIn are the ids that stand anywhere in some rows.
func idsIn(h *nodetest.Node, query *gorm.DB) map[string]bool {
	h.T.Helper()
	var rows []map[string]any
	require.NoError(h.T, query.Find(&rows).Error)
	ids := map[string]bool{}
	for _, row := range rows {
		for _, id := range anyID.FindAllString(fmt.Sprintf("%s", row), -1) {
			ids[id] = true
		}
	}
	return ids
}

// idsOf are the ids in all rows of an organization.
func idsOf(h *nodetest.Node, organizationID string) map[string]bool {
	h.T.Helper()
	ids := map[string]bool{}
	for _, table := range tenantTables(h) {
		maps.Copy(ids, idsIn(h, h.Store.Read(context.Background()).Table(table).Where("organization_id = ?", organizationID)))
	}
	return ids
}

// tenantTables are the tables that name the organization of each row.
func tenantTables(h *nodetest.Node) []string {
	return slices.DeleteFunc(everyTable(h), func(table string) bool {
		columns, err := h.Store.Read(context.Background()).Migrator().ColumnTypes(table)
		require.NoError(h.T, err)
		for _, column := range columns {
			if column.Name() == "organization_id" {
				return false
			}
		}
		return true
	})
}

// TestHardDeletionLeavesNothingOfTheOrganization fills every table that has rows of
// organizations, deletes one organization for good, and finds no row of it. The
// other organization keeps all its rows.
func TestHardDeletionLeavesNothingOfTheOrganization(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f := nodetest.NewFCM(t)
			h := nodetest.Start(t, b, f.Pushing, nodetest.AllowPrivate)
			var clinics []*nodetest.Clinic
			for i := range 2 {
				clinics = append(clinics, fillEverything(h, fmt.Sprintf("+96650000047%d", i)))
			}
			h.Quiet()
			h.Rest()
			c, stays := clinics[0], clinics[1]
			for _, table := range tenantTables(h) {
				for _, one := range clinics {
					assert.Positive(t, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM "+table+" WHERE organization_id = ?", one.ID), "%s is empty: fill it, and see that a deletion empties it", table)
				}
			}
			theirs, others := idsOf(h, c.ID), idsOf(h, stays.ID)
			maps.DeleteFunc(theirs, func(id string, _ bool) bool { return others[id] || id == c.ID })
			require.Greater(t, len(theirs), 20)
			rest := mentions(h, stays.ID)

			organization(c, http.MethodDelete, "", nil).OK() // hidden
			h.Exec("UPDATE river_job SET scheduled_at = ? WHERE state IN ('scheduled', 'retryable')", time.Now().UTC().Add(time.Hour))
			h.Still() // a job under way would stay
			gone := organization(c, http.MethodDelete, "?hardDelete=true", nil).OK()
			assert.Equal(t, c.ID, gone.Str("result.id"))
			assert.Equal(t, []any{"https://clinic.example"}, gone.List("result.allowedOrigins"), "as it was")
			assert.Equal(t, map[string]int{"audit": 1, "audit_chains": 1, "revocations": 2}, mentions(h, c.ID), "that it is gone, by whom, how long its audit was, and that its credentials ended")
			for _, id := range []string{"", c.ID, stays.ID} {
				report, err := h.Store.VerifyAudit(t.Context(), id, nil)
				require.NoError(t, err)
				assert.Empty(t, report.Faults, "the audit of %q", id)
				assert.Positive(t, report.Lines)
			}
			assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM audit WHERE organization_id = '' AND action = 'dropOrganization' AND actor_kind = 'account' AND subject_id = ?", c.ID))
			for _, table := range everyTable(h) {
				if table == "revocations" { // of what may still come with a credential
					continue
				}
				for id := range idsIn(h, h.Store.Read(context.Background()).Table(table)) {
					assert.False(t, theirs[id], "%s in %s", id, table)
				}
			}
			assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'announce' AND CAST(args ->> 'eventId' AS bigint) NOT IN (SELECT id FROM events)"))
			assert.Equal(t, rest, mentions(h, stays.ID))
			organization(c, http.MethodDelete, "?hardDelete=true", nil).Refused(http.StatusNotFound, models.CodeOrgMissing)
			keys, err := h.Redis.Keys(t.Context(), "*"+c.ID+"*").Result()
			require.NoError(t, err)
			assert.Empty(t, keys)
			keys, err = h.Redis.Keys(t.Context(), "*"+stays.ID+"*").Result()
			require.NoError(t, err)
			assert.NotEmpty(t, keys)
			stays.Staff(http.MethodGet, "/management/bookings", nil).OK()
		})
	}
}

// TestHardDeletionLeavesAJobUnderWay deletes an organization while a webhook of it
// is being called. The job ends by itself: were it taken away, ending it could
// stop the process.
func TestHardDeletionLeavesAJobUnderWay(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		answer := make(chan struct{})
		slow := nodetest.NewReceiver(t, func(http.ResponseWriter, *http.Request) { <-answer })
		release := sync.OnceFunc(func() { close(answer) })
		t.Cleanup(release) // the receiver waits for its calls
		c.Hook("bookingUnassigned", slow.URL, nil)
		kind := c.NewType(nil)
		c.NewResource(nil, kind)
		c.Join(kind, nil)
		slow.Await(1)

		assert.Empty(t, organization(c, http.MethodDelete, "?hardDelete=true", nil).OK().List("result.allowedOrigins"))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'webhook' AND state = 'running'"))
		release()
		h.Still()
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'webhook' AND state <> 'completed'"), "it found nothing to do again")
	})
}

// TestHardDeletionDeletesWhatAnOpenTransactionWrites deletes an organization while a
// transaction with a row of it is open, and while a message of it is being sent.
func TestHardDeletionDeletesWhatAnOpenTransactionWrites(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWithSenders(t, func(t *testing.T, h *nodetest.Node, phones *nodetest.Twilio, _ *nodetest.Mail) {
		c := h.NewClinic()
		phones.Will("+966500000481", "hang")
		c.AskCode("sms", "+966500000481", "en").OK()
		require.Eventually(t, func() bool { return phones.Tries("+966500000481") == 1 }, nodetest.Patience, 5*time.Millisecond)

		written, end, ended := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			ended <- h.Store.Tx(context.Background(), func(tx *store.Tx) error {
				defer func() { close(written); <-end }()
				return tx.Exec("INSERT INTO customers (id, organization_id, created_at, updated_at) VALUES ('late', ?, ?, ?)", c.ID, tx.Now, tx.Now).Error
			})
		}()
		<-written
		dropped := make(chan nodetest.Response)
		go func() { dropped <- organization(c, http.MethodDelete, "?hardDelete=true", nil) }()
		if h.Store.Postgres() { // it has deleted what it saw, and waits
			require.Eventually(t, func() bool {
				return nodetest.Scalar[int](h, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE 'DELETE FROM organizations%'") == 1
			}, nodetest.Patience, 5*time.Millisecond)
		}
		close(end)
		require.NoError(t, <-ended)
		(<-dropped).OK()
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM customers WHERE id = 'late'"))

		close(phones.Hung)
		require.Eventually(t, func() bool {
			h.Exec("UPDATE river_job SET state = 'available', scheduled_at = ? WHERE state IN ('scheduled', 'retryable')", time.Now().UTC().Add(-time.Minute))
			return nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE state <> 'completed'") == 0
		}, nodetest.Patience, 20*time.Millisecond, "the message has nobody to be from any more")
	})
}

// fillEverything makes a clinic with a row in every table.
func fillEverything(h *nodetest.Node, phone string) *nodetest.Clinic {
	h.T.Helper()
	c := h.NewClinic()
	organization(c, http.MethodPut, "", nodetest.Object{"allowedOrigins": []string{"https://clinic.example"}}).OK()
	failing := nodetest.NewReceiver(h.T, nodetest.Answering(http.StatusInternalServerError))
	c.Hook("bookingUnassigned", failing.URL, nil)
	kind := c.NewType(nil)
	room := c.NewResource(nil, kind)
	member := nodetest.Hire(c, nodetest.Object{"phone": phone, "role": "provider", "resources": []string{room}}).OK().Str("result.id")
	patient := c.Patient(phone)
	c.Device(patient, "phone of "+phone, "en").OK()
	h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: nodetest.Joining(kind, nodetest.Object{"resourceFilters": nodetest.Object{"resource": room}})}).OK()
	nodetest.Once(c.Node, "key", nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key,
		Body: withInfo(kind, nodetest.Object{"letter": upload("application/pdf", "letter.pdf", smallPDF)})}).OK()
	c.Next(room).OK()
	c.Staff(http.MethodPut, "/management/messages", nodetest.Object{
		"reminders": nodetest.Object{"afterAppointment": []string{"sms"}}, "templates": nodetest.Object{"otp": nodetest.Object{"en": nodetest.Object{
			"text": "{{code}}", "whatsapp": nodetest.Object{"contentSid": "HX" + strings.Repeat("0", 32), "variables": nodetest.Object{"1": "{{code}}"}},
		}}},
	}).OK()
	c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
	c.Staff(http.MethodPut, "/management/website", nodetest.Object{"terms": "Come on time."}).OK()
	c.Staff(http.MethodPost, "/management/resources/"+room+"/calendarFeed", nil).OK()
	c.Staff(http.MethodPut, "/management/customFields/booking", []any{nodetest.Object{"id": "reason", "name": "Reason", "type": "text"}}).OK()
	h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": phone, "code": "000000"}}).
		Refused(http.StatusUnauthorized, models.CodeWrongCode)
	failing.Await(1)
	h.Quiet()
	now := time.Now().UTC()
	// What comes and goes by itself, or needs a message that is really sent.
	h.Exec("INSERT INTO code_budgets (organization_id, day, country, sent) VALUES (?, ?, '', 1)", c.ID, now.Truncate(24*time.Hour))
	h.Exec("INSERT INTO member_views (organization_id, member_id, resource_id, confirmed, requests) VALUES (?, ?, ?, ?, ?)", c.ID, member, room, true, false)
	h.Exec("INSERT INTO position_marks (organization_id, due_at) VALUES (?, ?) ON CONFLICT (organization_id) DO UPDATE SET due_at = excluded.due_at", c.ID, now.Add(time.Hour))
	h.Exec("INSERT INTO message_attempts (id, organization_id, message_id, booking_id, template, method, attempt, status, provider_id, error, duration_ms, created_at) VALUES (?, ?, 'm', '', 'otp', 'sms', 1, 'sent', '', '', 1, ?)",
		models.NewID(), c.ID, now)
	h.Exec("INSERT INTO push_log (notification_id, device_id, organization_id, booking_id, type, status, at) VALUES (?, 'd', ?, 'b', 'T', 'sent', ?) ON CONFLICT DO NOTHING", models.NewID(), c.ID, now)
	require.NoError(h.T, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
		tx.EnqueueAt(now.Add(time.Hour), models.Message{OrganizationID: c.ID, Template: models.TemplateOTP, Method: "sms"})
		return nil
	}))
	return c
}

// TestHardDeletionIsForDevelopment only.
func TestHardDeletionIsForDevelopment(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) { c.Env = "production" })
	c := h.NewClinic()
	before := h.Contents()
	organization(c, http.MethodDelete, "?hardDelete=true", nil).Refused(http.StatusForbidden, models.CodeHardDelete)
	assert.Equal(t, before, h.Contents())
	organization(c, http.MethodDelete, "?hardDelete=false", nil).OK()
	organization(c, http.MethodGet, "", nil).Refused(http.StatusNotFound, models.CodeOrgMissing)
}
