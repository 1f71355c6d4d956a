package push_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

const (
	newPending = "NEW_PENDING_UNASSIGNED_BOOKING"
	assigned   = "MY_BOOKING_ASSIGNED"
	moved      = "QUEUE_POSITION_UPDATED"
)

// onBothPushing runs a test in a house on each backend that pushes to a server
// of its own.
func onBothPushing(t *testing.T, test func(t *testing.T, h *nodetest.Node, f *nodetest.FCM)) {
	t.Helper()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f := nodetest.NewFCM(t)
			test(t, nodetest.Start(t, b, f.Pushing), f)
		})
	}
}

// doctor makes a provider with a device and a resource of theirs.
func doctor(c *nodetest.Clinic, phone, token, lang string, types ...string) (resourceID string) {
	c.T.Helper()
	access := c.Member(models.RoleProvider, phone)
	c.Device(access, token, lang).OK()
	resourceID = c.NewResource(nil, types...)
	c.Exec("UPDATE resources SET provider_id = (SELECT id FROM members WHERE organization_id = ? AND phone = ?) WHERE id = ?", c.ID, phone, resourceID)
	return resourceID
}

// app is a customer with a device.
type app struct {
	*nodetest.Clinic
	access, token string
}

func newApp(c *nodetest.Clinic, phone, token, lang string) app {
	c.T.Helper()
	a := app{c, c.Patient(phone), token}
	c.Device(a.access, token, lang).OK()
	return a
}

// join puts the customer into a queue.
func (a app) join(typeID string) nodetest.Response {
	a.T.Helper()
	return a.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: a.access, Body: nodetest.Joining(typeID, nil)}).OK()
}

func TestPushesOfAVisit(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind, other := c.NewType(nodetest.Object{"minutes": 20}), c.NewType(nil)
		room := doctor(c, "+966500000101", "doctor", "ar", kind)
		doctor(c, "+966500000102", "second", "en", kind)
		doctor(c, "+966500000103", "elsewhere", "en", other)
		// A provider of two matching resources is told once.
		c.Exec("UPDATE resources SET provider_id = (SELECT provider_id FROM resources WHERE id = ?) WHERE id = ?", room, c.NewResource(nil, kind))
		mona := newApp(c, "+966500000111", "mona", "ar")
		c.Device(mona.access, "mona's tablet", "en").OK()
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: mona.access, Body: nodetest.Object{"firstName": "Mona", "lastName": "Abdullah"}}).OK()

		joined := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: mona.access, Body: nodetest.Joining(kind, nodetest.Object{"note": "chest pain"})}).OK()
		id := joined.Str("result.id")
		told := f.Await("doctor", newPending, 1)
		delete(told.Data, "notificationId")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": newPending, "bookingId": id, "resourceId": told.Data["resourceId"]}, told.Data)
		assert.NotEmpty(t, told.Data["resourceId"])
		assert.Equal(t, "مراجع ينتظر", told.Notification.Title)
		assert.Equal(t, "A patient is waiting", f.Await("second", newPending, 1).Notification.Title)

		c.Act("assign", id, nodetest.Object{"resourceId": room}).OK()
		won := f.Await("mona", assigned, 1)
		assert.NotEmpty(t, won.Data["notificationId"])
		assert.Equal(t, won.Data["notificationId"], won.Android.Notification.Tag)
		assert.Equal(t, won.Data["notificationId"], won.APNS.Headers["apns-collapse-id"])
		assert.Equal(t, "high", won.Android.Priority)
		delete(won.Data, "notificationId")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": assigned, "bookingId": id, "bookingStatus": "CONFIRMED"}, won.Data)
		assert.Equal(t, "حان دورك", won.Notification.Title)
		assert.Equal(t, "It is your turn", f.Await("mona's tablet", assigned, 1).Notification.Title)

		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.Act("recall", id, nil).OK()
		assert.Equal(t, id, f.Await("mona", "MY_BOOKING_CALLED", 1).Data["bookingId"])

		// Two wait; at the end of a visit those who are free hear of the first.
		omar := newApp(c, "+966500000112", "omar", "en")
		first := omar.join(kind).Str("result.id")
		c.Join(kind, nil)
		f.Await("second", newPending, 3)
		f.Await("doctor", newPending, 3)
		c.Act("end", id, nil).OK()
		assert.Equal(t, first, f.Await("second", newPending, 4).Data["bookingId"])
		assert.Equal(t, first, f.Await("doctor", newPending, 4).Data["bookingId"])

		// Who leaves knows it; who is sent away or left waiting is told.
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: omar.access, Body: nodetest.Object{"bookingId": first}}).OK()
		second := omar.join(kind).Str("result.id")
		h.Quiet()
		c.Act("cancel", second, nodetest.Object{"reason": "Asked for twice"}).OK()
		sent := f.Await("omar", "MY_BOOKING_CANCELED", 1)
		assert.Equal(t, second, sent.Data["bookingId"])
		assert.Equal(t, "CANCELED", sent.Data["bookingStatus"])
		third := omar.join(kind).Str("result.id")
		h.Exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), third)
		expired := f.Await("omar", "MY_BOOKING_EXPIRED", 1)
		assert.Equal(t, "REJECTED", expired.Data["bookingStatus"])
		assert.Equal(t, third, expired.Data["bookingId"])

		h.Quiet()
		assert.Len(t, f.Got("mona", assigned), 1)
		assert.Empty(t, f.Got("elsewhere"))
		for _, token := range []string{"doctor", "second", "mona", "mona's tablet", "omar"} {
			for _, m := range f.Got(token) {
				for _, private := range []string{"Mona", "Abdullah", "+9665", "chest", "Asked"} {
					assert.NotContains(t, m.Raw, private)
				}
				assert.Empty(t, m.Data["redelivery"])
			}
		}
		assert.NotContains(t, h.Log.String(), "mona's tablet")
	})
}

// TestPushesOfReminders writes the event of a reminder as the sweeper of
// appointments does.
func TestPushesOfReminders(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		mona := newApp(c, "+966500000111", "mona", "ar")
		id := mona.join(kind).Str("result.id")
		c.Next(room).OK()
		f.Await("mona", assigned, 1)
		remind(h, c.ID, id, models.ReminderTenBefore, time.Now())
		told := f.Await("mona", "MY_BOOKING_REMINDER", 1)
		delete(told.Data, "notificationId")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": "MY_BOOKING_REMINDER", "bookingId": id, "reminder": "tenMinutesBeforeAppointment"}, told.Data)
		assert.Equal(t, "موعدك بعد عشر دقائق", told.Notification.Title)
		life, err := time.ParseDuration(told.Android.TTL)
		require.NoError(t, err)
		assert.InDelta(t, 5*time.Minute, life, float64(time.Minute), "no longer than it is of use")
		// After an outage a reminder whose moment has passed is not shown.
		remind(h, c.ID, id, models.ReminderTenBefore, time.Now().Add(-6*time.Minute))
		h.Quiet()
		remind(h, c.ID, id, models.ReminderDayBefore, time.Now().Add(-5*time.Hour))
		assert.Equal(t, "oneDayBeforeAppointment", f.Await("mona", "MY_BOOKING_REMINDER", 2).Data["reminder"])
		h.Quiet()
		f.Await("mona", "MY_BOOKING_REMINDER", 2)
	})
}

// A device ends with the session that registered it, however that ends; those of
// other sessions of the person stay.
func TestDevicesEndWithTheirSession(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, _ *nodetest.FCM) {
		c := h.NewClinic()
		signIn := func() nodetest.Response {
			c.Send(c.Asking("+966500000121", false)).OK()
			return c.Send(c.Verifying("+966500000121", nodetest.FixedCode, false)).OK()
		}
		lost, kept := signIn(), signIn()
		c.Device(lost.Str("accessToken"), "of the lost phone", "en").OK()
		c.Device(kept.Str("accessToken"), "of the other", "en").OK()
		logout := nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": lost.Str("refreshToken")}}
		h.Send(logout).OK()
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))
		assert.Equal(t, http.StatusUnauthorized, c.Device(lost.Str("accessToken"), "again", "en").Status)

		t.Log("a device that another session takes over does not end with the first")
		third := signIn()
		c.Device(third.Str("accessToken"), "of the other", "en").OK()
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": kept.Str("refreshToken")}}).OK()
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))

		t.Log("the desk corrects the number")
		customer := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: third.Str("accessToken")}).OK().Str("result.id")
		c.Staff(http.MethodPut, "/management/customers/"+customer, nodetest.Object{"phone": "+966500000122"}).OK()
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))
	})
}

func TestADeviceBelongsToItsLastOwner(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		mona, omar := c.Patient("+966500000111"), c.Patient("+966500000112")
		first := c.Device(mona, "shared", "ar-SA").OK()
		assert.Equal(t, "ar", first.Str("result.lang"))
		assert.Equal(t, "android", first.Str("result.platform"))
		again := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/devices", Token: mona, Lang: "ar", Body: nodetest.Object{"token": "shared", "platform": "ios"}}).OK()
		assert.Equal(t, first.Str("result.id"), again.Str("result.id"))
		assert.Equal(t, "ar", again.Str("result.lang"), "that of the request")
		assert.Equal(t, "ios", again.Str("result.platform"))
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT count(*) FROM devices WHERE token_sealed LIKE '%shared%' OR token_hash LIKE '%shared%'"))

		// It changes hands: nothing that is on its way to Mona reaches Omar.
		id := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: mona, Body: nodetest.Joining(kind, nil)}).OK().Str("result.id")
		assert.NotEqual(t, first.Str("result.id"), c.Device(omar, "shared", "en").OK().Str("result.id"))
		c.Next(room).OK()
		c.Act("end", id, nil).OK()
		h.Quiet()
		assert.Empty(t, f.Got("shared"))
		h.Send(nodetest.Request{Method: http.MethodDelete, Path: "/devices", Token: mona, Body: nodetest.Object{"token": "shared"}}).OK()
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"), "it is not hers any more")
		h.Send(nodetest.Request{Method: http.MethodDelete, Path: "/devices", Token: omar, Body: nodetest.Object{"token": "shared"}}).OK()
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))

		for i := range 22 {
			c.Device(mona, fmt.Sprintf("phone %d", i), "en").OK()
		}
		c.Device(omar, "omar", "en").OK()
		assert.Equal(t, 21, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"), "20 of Mona's")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: mona, Body: nodetest.Joining(kind, nil)}).OK()
		c.Next(room).OK()
		f.Await("phone 2", assigned, 1)
		f.Await("phone 21", assigned, 1)
		h.Quiet()
		assert.Empty(t, f.Got("phone 0"))
		assert.Empty(t, f.Got("phone 1"))
		assert.Empty(t, f.Got("omar"))

		member := c.Member(models.RoleReceptionist, "+966500000121")
		c.Device(member, "desk", "en").OK()
		for _, bad := range []nodetest.Object{
			{"platform": "ios"}, {"token": "", "platform": "ios"}, {"token": "a", "platform": "fax"}, {"token": "a"},
			{"token": strings.Repeat("a", 4097), "platform": "ios"},
		} {
			h.Unchanged(nodetest.Request{Method: http.MethodPost, Path: "/devices", Token: mona, Body: bad}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
		c.Staff(http.MethodPost, "/devices", nodetest.Object{"token": "a", "platform": "ios"}).Refused(http.StatusForbidden, models.CodeForbidden)
	})
}

// TestWithoutFCM registers devices where pushes are off.
func TestWithoutFCM(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		mona := newApp(c, "+966500000111", "mona", "ar")
		mona.join(kind)
		c.Next(room).OK()
		h.Quiet()
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'push'"))
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT count(*) FROM position_states"))
	})
}

func TestPhonesThatAreGone(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		mona := newApp(c, "+966500000111", "good", "en")
		for _, token := range []string{"gone", "garbled", "foreign"} {
			c.Device(mona.access, token, "en").OK()
		}
		f.Trouble("gone", nodetest.FCMReply{Status: 404, Code: "UNREGISTERED"})
		f.Trouble("garbled", nodetest.FCMReply{Status: 400, Code: "INVALID_ARGUMENT", BadToken: true})
		f.Trouble("foreign", nodetest.FCMReply{Status: 403, Code: "SENDER_ID_MISMATCH"})
		mona.join(kind)
		c.Next(room).OK()
		f.Await("good", assigned, 1)
		h.Quiet()
		assert.Equal(t, 2, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"), "a wrong setting of ours is no reason to forget a phone")
		for _, token := range []string{"good", "gone", "garbled", "foreign"} {
			assert.Equal(t, 1, f.Asked(token), token)
		}
		for status, n := range map[string]int{"sent": 1, "unregistered": 2, "failed": 1} {
			assert.Equal(t, n, nodetest.Scalar[int](h, "SELECT count(*) FROM push_log WHERE type = 'MY_BOOKING_ASSIGNED' AND status = ?", status), status)
		}
	})
}

func TestFCMThatIsBusy(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		mona := newApp(c, "+966500000111", "slow", "en")
		c.Device(mona.access, "quick", "en").OK()

		// 429 waits as long as it says, for everybody; only what failed goes again.
		f.Trouble("slow", nodetest.FCMReply{Status: 429, Code: "QUOTA_EXCEEDED", RetryAfter: "1"})
		mona.join(kind)
		began := time.Now()
		c.Next(room).OK()
		won := f.Await("slow", assigned, 1)
		assert.Greater(t, won.At.Sub(began), 900*time.Millisecond)
		assert.Empty(t, won.Data["redelivery"], "it had been refused")
		h.Quiet()
		assert.Equal(t, 2, f.Asked("slow"))
		assert.Len(t, f.Got("quick", assigned), 1)

		// 503 is tried again soon, by the job and not behind its back.
		f.Trouble("slow", nodetest.FCMReply{Status: 503, Code: "UNAVAILABLE"})
		mona.join(kind)
		c.Next(room).OK()
		assert.Empty(t, f.Await("slow", assigned, 2).Data["redelivery"])
		h.Quiet()
		assert.Equal(t, 4, f.Asked("slow"))

		// What was taken, and whose answer was lost, says that it comes again.
		f.Trouble("slow", nodetest.FCMReply{})
		mona.join(kind)
		c.Next(room).OK()
		again := f.Await("slow", assigned, 4)
		lost := f.Got("slow", assigned)[2]
		assert.Equal(t, lost.Data["notificationId"], again.Data["notificationId"])
		assert.Equal(t, lost.Android.Notification.Tag, again.Android.Notification.Tag, "the phone shows one")
		assert.Empty(t, lost.Data["redelivery"])
		assert.Equal(t, "true", again.Data["redelivery"])
		assert.Len(t, f.Got("quick", assigned), 3)

		// 429 without Retry-After waits a minute.
		f.Trouble("slow", nodetest.FCMReply{Status: 429, Code: "QUOTA_EXCEEDED"})
		began = time.Now()
		mona.join(kind)
		c.Next(room).OK()
		var at time.Time
		require.Eventually(t, func() bool {
			rows, err := h.Store.Read(t.Context()).Raw("SELECT scheduled_at FROM river_job WHERE kind = 'push' AND state = 'scheduled'").Rows()
			require.NoError(t, err)
			defer func() { assert.NoError(t, rows.Close()) }()
			if !rows.Next() {
				return rows.Err() != nil
			}
			return assert.NoError(t, rows.Scan(&at))
		}, nodetest.Patience, 10*time.Millisecond)
		assert.True(t, at.After(began.Add(time.Minute)) && at.Before(time.Now().Add(time.Minute+20*time.Second)), "%v", at.Sub(began))
		assert.Len(t, f.Got("slow", assigned), 4)
	})
}

// TestPushesThatAreDoneAgain lets a job be done again as after a crash: before
// anything was sent, in the middle, and after all was.
func TestPushesThatAreDoneAgain(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		mona := newApp(c, "+966500000111", "mona", "en")
		c.Device(mona.access, "tablet", "en").OK()
		id := mona.join(kind).Str("result.id")
		c.Next(room).OK()
		f.Await("mona", assigned, 1)
		f.Await("tablet", assigned, 1)
		h.Quiet()
		again := func() {
			h.Exec("UPDATE river_job SET state = 'available', finalized_at = NULL, scheduled_at = ? WHERE kind = 'push'", time.Now().UTC())
			h.Quiet()
		}
		again()
		assert.Len(t, f.Got("mona", assigned), 1)
		assert.Len(t, f.Got("tablet", assigned), 1)

		h.Exec("UPDATE push_log SET status = 'sending' WHERE type = 'MY_BOOKING_ASSIGNED' AND device_id = (SELECT MIN(id) FROM devices)")
		again()
		assert.Equal(t, 3, len(f.Got("mona", assigned))+len(f.Got("tablet", assigned)))
		both := append(f.Got("mona", assigned), f.Got("tablet", assigned)...)
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
		h.Exec("DELETE FROM push_log")
		c.Act("cancel", id, nil).OK()
		again()
		assert.Equal(t, 3, len(f.Got("mona", assigned))+len(f.Got("tablet", assigned)))
	})
}

// remind makes a booking an appointment whose reminder was due at a moment, and
// writes the event of it.
func remind(h *nodetest.Node, organizationID, bookingID string, r models.Reminder, at time.Time) {
	h.T.Helper()
	require.NoError(h.T, h.Store.Tx(h.T.Context(), func(tx *store.Tx) error {
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
