package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	newPending = "NEW_PENDING_UNASSIGNED_BOOKING"
	assigned   = "MY_BOOKING_ASSIGNED"
	moved      = "QUEUE_POSITION_UPDATED"
)

// onBothPushing runs a test in a house on each backend that pushes to a server
// of its own.
func onBothPushing(t *testing.T, test func(t *testing.T, h *house, f *fcm)) {
	t.Helper()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f := newFCM(t)
			test(t, newHouse(t, b, f.pushing), f)
		})
	}
}

// device registers a device of whoever has an access token.
func (h *house) device(access, token, lang string) answer {
	h.t.Helper()
	return h.send(request{method: http.MethodPost, path: "/devices", token: access, body: object{"token": token, "platform": "android", "lang": lang}})
}

// doctor makes a provider with a device and a resource of theirs.
func (c *clinic) doctor(phone, token, lang string, types ...string) (resourceID string) {
	c.t.Helper()
	access := c.member(models.RoleProvider, phone)
	c.device(access, token, lang).ok()
	resourceID = c.newResource(nil, types...)
	c.exec("UPDATE resources SET provider_id = (SELECT id FROM members WHERE organization_id = ? AND phone = ?) WHERE id = ?", c.id, phone, resourceID)
	return resourceID
}

// app is a customer with a device.
type app struct {
	*clinic
	access, token string
}

func (c *clinic) app(phone, token, lang string) app {
	c.t.Helper()
	a := app{c, c.patient(phone), token}
	c.device(a.access, token, lang).ok()
	return a
}

// join puts the customer into a queue.
func (a app) join(typeID string) answer {
	a.t.Helper()
	return a.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: a.access, body: joining(typeID, nil)}).ok()
}

// quiet waits until nothing is left to be announced, pushed or swept.
func (h *house) quiet() {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		return scalar[int](h, `SELECT (SELECT count(*) FROM river_job WHERE finalized_at IS NULL AND queue IN ('announce', 'pushes'))
			+ (SELECT count(*) FROM position_marks WHERE due_at IS NULL OR due_at < ?)`, time.Now().UTC().Add(5*time.Second)) == 0
	}, patience, 10*time.Millisecond)
}

func TestPushesOfAVisit(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind, other := c.newType(object{"minutes": 20}), c.newType(nil)
		room := c.doctor("+966500000101", "doctor", "ar", kind)
		c.doctor("+966500000102", "second", "en", kind)
		c.doctor("+966500000103", "elsewhere", "en", other)
		// A provider of two matching resources is told once.
		c.exec("UPDATE resources SET provider_id = (SELECT provider_id FROM resources WHERE id = ?) WHERE id = ?", room, c.newResource(nil, kind))
		mona := c.app("+966500000111", "mona", "ar")
		c.device(mona.access, "mona's tablet", "en").ok()
		h.send(request{method: http.MethodPut, path: "/customer/profile", token: mona.access, body: object{"firstName": "Mona", "lastName": "Abdullah"}}).ok()

		joined := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: mona.access, body: joining(kind, object{"note": "chest pain"})}).ok()
		id := joined.str("result.id")
		told := f.await("doctor", newPending, 1)
		delete(told.Data, "notificationId")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": newPending, "bookingId": id, "resourceId": told.Data["resourceId"]}, told.Data)
		assert.NotEmpty(t, told.Data["resourceId"])
		assert.Equal(t, "مراجع ينتظر", told.Notification.Title)
		assert.Equal(t, "A patient is waiting", f.await("second", newPending, 1).Notification.Title)

		c.act("assign", id, object{"resourceId": room}).ok()
		won := f.await("mona", assigned, 1)
		assert.NotEmpty(t, won.Data["notificationId"])
		assert.Equal(t, won.Data["notificationId"], won.Android.Notification.Tag)
		assert.Equal(t, won.Data["notificationId"], won.APNS.Headers["apns-collapse-id"])
		assert.Equal(t, "high", won.Android.Priority)
		delete(won.Data, "notificationId")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": assigned, "bookingId": id, "bookingStatus": "CONFIRMED"}, won.Data)
		assert.Equal(t, "حان دورك", won.Notification.Title)
		assert.Equal(t, "It is your turn", f.await("mona's tablet", assigned, 1).Notification.Title)

		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.act("recall", id, nil).ok()
		assert.Equal(t, id, f.await("mona", "MY_BOOKING_CALLED", 1).Data["bookingId"])

		// Two wait; at the end of a visit those who are free hear of the first.
		omar := c.app("+966500000112", "omar", "en")
		first := omar.join(kind).str("result.id")
		c.join(kind, nil)
		f.await("second", newPending, 3)
		f.await("doctor", newPending, 3)
		c.act("end", id, nil).ok()
		assert.Equal(t, first, f.await("second", newPending, 4).Data["bookingId"])
		assert.Equal(t, first, f.await("doctor", newPending, 4).Data["bookingId"])

		// Who leaves knows it; who is sent away or left waiting is told.
		h.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: omar.access, body: object{"bookingId": first}}).ok()
		second := omar.join(kind).str("result.id")
		h.quiet()
		c.act("cancel", second, object{"reason": "Asked for twice"}).ok()
		sent := f.await("omar", "MY_BOOKING_CANCELED", 1)
		assert.Equal(t, second, sent.Data["bookingId"])
		assert.Equal(t, "CANCELED", sent.Data["bookingStatus"])
		third := omar.join(kind).str("result.id")
		h.exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), third)
		expired := f.await("omar", "MY_BOOKING_EXPIRED", 1)
		assert.Equal(t, "REJECTED", expired.Data["bookingStatus"])
		assert.Equal(t, third, expired.Data["bookingId"])

		h.quiet()
		assert.Len(t, f.got("mona", assigned), 1)
		assert.Empty(t, f.got("elsewhere"))
		for _, token := range []string{"doctor", "second", "mona", "mona's tablet", "omar"} {
			for _, m := range f.got(token) {
				for _, private := range []string{"Mona", "Abdullah", "+9665", "chest", "Asked"} {
					assert.NotContains(t, m.raw, private)
				}
				assert.Empty(t, m.Data["redelivery"])
			}
		}
		assert.NotContains(t, h.logged.String(), "mona's tablet")
	})
}

// TestPushesOfReminders writes the event of a reminder as the sweeper of
// appointments does.
func TestPushesOfReminders(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		mona := c.app("+966500000111", "mona", "ar")
		id := mona.join(kind).str("result.id")
		c.next(room).ok()
		f.await("mona", assigned, 1)
		h.remind(c.id, id, models.ReminderTenBefore, time.Now())
		told := f.await("mona", "MY_BOOKING_REMINDER", 1)
		delete(told.Data, "notificationId")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": "MY_BOOKING_REMINDER", "bookingId": id, "reminder": "tenMinutesBeforeAppointment"}, told.Data)
		assert.Equal(t, "موعدك بعد عشر دقائق", told.Notification.Title)
		life, err := time.ParseDuration(told.Android.TTL)
		require.NoError(t, err)
		assert.InDelta(t, 5*time.Minute, life, float64(time.Minute), "no longer than it is of use")
		// After an outage a reminder whose moment has passed is not shown.
		h.remind(c.id, id, models.ReminderTenBefore, time.Now().Add(-6*time.Minute))
		h.quiet()
		h.remind(c.id, id, models.ReminderDayBefore, time.Now().Add(-5*time.Hour))
		assert.Equal(t, "oneDayBeforeAppointment", f.await("mona", "MY_BOOKING_REMINDER", 2).Data["reminder"])
		h.quiet()
		f.await("mona", "MY_BOOKING_REMINDER", 2)
	})
}

// A device ends with the session that registered it, however that ends; those of
// other sessions of the person stay.
func TestDevicesEndWithTheirSession(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, _ *fcm) {
		c := h.newClinic()
		signIn := func() answer {
			c.send(c.asking("+966500000121", false)).ok()
			return c.send(c.verifying("+966500000121", fixedCode, false)).ok()
		}
		lost, kept := signIn(), signIn()
		c.device(lost.str("accessToken"), "of the lost phone", "en").ok()
		c.device(kept.str("accessToken"), "of the other", "en").ok()
		logout := request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": lost.str("refreshToken")}}
		h.send(logout).ok()
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM devices"))
		assert.Equal(t, http.StatusUnauthorized, c.device(lost.str("accessToken"), "again", "en").status)

		t.Log("a device that another session takes over does not end with the first")
		third := signIn()
		c.device(third.str("accessToken"), "of the other", "en").ok()
		h.send(request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": kept.str("refreshToken")}}).ok()
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM devices"))

		t.Log("the desk corrects the number")
		customer := h.send(request{method: http.MethodGet, path: "/customer/profile", token: third.str("accessToken")}).ok().str("result.id")
		c.staff(http.MethodPut, "/management/customers/"+customer, object{"phone": "+966500000122"}).ok()
		assert.Equal(t, 0, scalar[int](h, "SELECT count(*) FROM devices"))
	})
}

func TestADeviceBelongsToItsLastOwner(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		mona, omar := c.patient("+966500000111"), c.patient("+966500000112")
		first := c.device(mona, "shared", "ar-SA").ok()
		assert.Equal(t, "ar", first.str("result.lang"))
		assert.Equal(t, "android", first.str("result.platform"))
		again := h.send(request{method: http.MethodPost, path: "/devices", token: mona, lang: "ar", body: object{"token": "shared", "platform": "ios"}}).ok()
		assert.Equal(t, first.str("result.id"), again.str("result.id"))
		assert.Equal(t, "ar", again.str("result.lang"), "that of the request")
		assert.Equal(t, "ios", again.str("result.platform"))
		assert.Equal(t, 0, scalar[int](h, "SELECT count(*) FROM devices WHERE token_sealed LIKE '%shared%' OR token_hash LIKE '%shared%'"))

		// It changes hands: nothing that is on its way to Mona reaches Omar.
		id := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: mona, body: joining(kind, nil)}).ok().str("result.id")
		assert.NotEqual(t, first.str("result.id"), c.device(omar, "shared", "en").ok().str("result.id"))
		c.next(room).ok()
		c.act("end", id, nil).ok()
		h.quiet()
		assert.Empty(t, f.got("shared"))
		h.send(request{method: http.MethodDelete, path: "/devices", token: mona, body: object{"token": "shared"}}).ok()
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM devices"), "it is not hers any more")
		h.send(request{method: http.MethodDelete, path: "/devices", token: omar, body: object{"token": "shared"}}).ok()
		assert.Equal(t, 0, scalar[int](h, "SELECT count(*) FROM devices"))

		for i := range 22 {
			c.device(mona, fmt.Sprintf("phone %d", i), "en").ok()
		}
		c.device(omar, "omar", "en").ok()
		assert.Equal(t, 21, scalar[int](h, "SELECT count(*) FROM devices"), "20 of Mona's")
		h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: mona, body: joining(kind, nil)}).ok()
		c.next(room).ok()
		f.await("phone 2", assigned, 1)
		f.await("phone 21", assigned, 1)
		h.quiet()
		assert.Empty(t, f.got("phone 0"))
		assert.Empty(t, f.got("phone 1"))
		assert.Empty(t, f.got("omar"))

		member := c.member(models.RoleReceptionist, "+966500000121")
		c.device(member, "desk", "en").ok()
		for _, bad := range []object{
			{"platform": "ios"}, {"token": "", "platform": "ios"}, {"token": "a", "platform": "fax"}, {"token": "a"},
			{"token": strings.Repeat("a", 4097), "platform": "ios"},
		} {
			h.unchanged(request{method: http.MethodPost, path: "/devices", token: mona, body: bad}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
		c.staff(http.MethodPost, "/devices", object{"token": "a", "platform": "ios"}).refused(http.StatusForbidden, models.CodeForbidden)
	})
}

// TestWithoutFCM registers devices where pushes are off.
func TestWithoutFCM(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		mona := c.app("+966500000111", "mona", "ar")
		mona.join(kind)
		c.next(room).ok()
		h.quiet()
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM devices"))
		assert.Equal(t, 0, scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'push'"))
		assert.Equal(t, 0, scalar[int](h, "SELECT count(*) FROM position_states"))
	})
}

func TestPhonesThatAreGone(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		mona := c.app("+966500000111", "good", "en")
		for _, token := range []string{"gone", "garbled", "foreign"} {
			c.device(mona.access, token, "en").ok()
		}
		f.trouble("gone", fcmReply{status: 404, code: "UNREGISTERED"})
		f.trouble("garbled", fcmReply{status: 400, code: "INVALID_ARGUMENT", badToken: true})
		f.trouble("foreign", fcmReply{status: 403, code: "SENDER_ID_MISMATCH"})
		mona.join(kind)
		c.next(room).ok()
		f.await("good", assigned, 1)
		h.quiet()
		assert.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM devices"), "a wrong setting of ours is no reason to forget a phone")
		for _, token := range []string{"good", "gone", "garbled", "foreign"} {
			assert.Equal(t, 1, f.asked(token), token)
		}
		for status, n := range map[string]int{"sent": 1, "unregistered": 2, "failed": 1} {
			assert.Equal(t, n, scalar[int](h, "SELECT count(*) FROM push_log WHERE type = 'MY_BOOKING_ASSIGNED' AND status = ?", status), status)
		}
	})
}

func TestFCMThatIsBusy(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		mona := c.app("+966500000111", "slow", "en")
		c.device(mona.access, "quick", "en").ok()

		// 429 waits as long as it says, for everybody; only what failed goes again.
		f.trouble("slow", fcmReply{status: 429, code: "QUOTA_EXCEEDED", retryAfter: "1"})
		mona.join(kind)
		began := time.Now()
		c.next(room).ok()
		won := f.await("slow", assigned, 1)
		assert.Greater(t, won.at.Sub(began), 900*time.Millisecond)
		assert.Empty(t, won.Data["redelivery"], "it had been refused")
		h.quiet()
		assert.Equal(t, 2, f.asked("slow"))
		assert.Len(t, f.got("quick", assigned), 1)

		// 503 is tried again soon, by the job and not behind its back.
		f.trouble("slow", fcmReply{status: 503, code: "UNAVAILABLE"})
		mona.join(kind)
		c.next(room).ok()
		assert.Empty(t, f.await("slow", assigned, 2).Data["redelivery"])
		h.quiet()
		assert.Equal(t, 4, f.asked("slow"))

		// What was taken, and whose answer was lost, says that it comes again.
		f.trouble("slow", fcmReply{})
		mona.join(kind)
		c.next(room).ok()
		again := f.await("slow", assigned, 4)
		lost := f.got("slow", assigned)[2]
		assert.Equal(t, lost.Data["notificationId"], again.Data["notificationId"])
		assert.Equal(t, lost.Android.Notification.Tag, again.Android.Notification.Tag, "the phone shows one")
		assert.Empty(t, lost.Data["redelivery"])
		assert.Equal(t, "true", again.Data["redelivery"])
		assert.Len(t, f.got("quick", assigned), 3)

		// 429 without Retry-After waits a minute.
		f.trouble("slow", fcmReply{status: 429, code: "QUOTA_EXCEEDED"})
		began = time.Now()
		mona.join(kind)
		c.next(room).ok()
		var at time.Time
		require.Eventually(t, func() bool {
			rows, err := h.Store.Read(t.Context()).Raw("SELECT scheduled_at FROM river_job WHERE kind = 'push' AND state = 'scheduled'").Rows()
			require.NoError(t, err)
			defer func() { assert.NoError(t, rows.Close()) }()
			if !rows.Next() {
				return rows.Err() != nil
			}
			return assert.NoError(t, rows.Scan(&at))
		}, patience, 10*time.Millisecond)
		assert.True(t, at.After(began.Add(time.Minute)) && at.Before(time.Now().Add(time.Minute+20*time.Second)), "%v", at.Sub(began))
		assert.Len(t, f.got("slow", assigned), 4)
	})
}

// TestPushesThatAreDoneAgain lets a job be done again as after a crash: before
// anything was sent, in the middle, and after all was.
func TestPushesThatAreDoneAgain(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		mona := c.app("+966500000111", "mona", "en")
		c.device(mona.access, "tablet", "en").ok()
		id := mona.join(kind).str("result.id")
		c.next(room).ok()
		f.await("mona", assigned, 1)
		f.await("tablet", assigned, 1)
		h.quiet()
		again := func() {
			h.exec("UPDATE river_job SET state = 'available', finalized_at = NULL, scheduled_at = ? WHERE kind = 'push'", time.Now().UTC())
			h.quiet()
		}
		again()
		assert.Len(t, f.got("mona", assigned), 1)
		assert.Len(t, f.got("tablet", assigned), 1)

		h.exec("UPDATE push_log SET status = 'sending' WHERE type = 'MY_BOOKING_ASSIGNED' AND device_id = (SELECT MIN(id) FROM devices)")
		again()
		assert.Equal(t, 3, len(f.got("mona", assigned))+len(f.got("tablet", assigned)))
		both := append(f.got("mona", assigned), f.got("tablet", assigned)...)
		doubted := 0
		for _, m := range both {
			assert.Equal(t, both[0].Data["notificationId"], m.Data["notificationId"])
			if m.Data["redelivery"] == "true" {
				doubted++
			}
		}
		assert.Equal(t, 1, doubted)

		// When it is not so any more, it is not told; that the visit is over is
		// no reason, for everybody who was assigned hears of it once.
		h.exec("DELETE FROM push_log")
		c.act("cancel", id, nil).ok()
		again()
		assert.Equal(t, 3, len(f.got("mona", assigned))+len(f.got("tablet", assigned)))
	})
}

// remind makes a booking an appointment whose reminder was due at a moment, and
// writes the event of it.
func (h *house) remind(organizationID, bookingID string, r models.Reminder, at time.Time) {
	h.t.Helper()
	require.NoError(h.t, h.Store.Tx(h.t.Context(), func(tx *store.Tx) error {
		var b models.Booking
		starts := at.UTC().Add(at.Sub(r.Due(at, at))) // so that it was due at the moment given
		if err := tx.Exec("UPDATE bookings SET starts_at = ?, ends_at = ? WHERE id = ?", starts, starts.Add(10*time.Minute), bookingID).Error; err != nil {
			return err
		}
		if err := tx.Raw("UPDATE bookings SET version = version + 1 WHERE id = ? RETURNING *", bookingID).Scan(&b).Error; err != nil {
			return err
		}
		e := models.EventOf(models.EventReminder, &b)
		e.Reminder = r
		return tx.Emit(organizationID, e)
	}))
}
