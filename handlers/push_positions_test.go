package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/push"
)

const comeNow = "MY_BOOKING_COME_NOW"

// waitingRoom fills the queue of a type with n customers who have waited for an
// hour and were told nothing yet. All but the first few have a device: "phone 7"
// is the eighth's.
func (c *clinic) waitingRoom(typeID string, n, without int) {
	c.t.Helper()
	sealer, err := models.NewSealer([]byte(strings.Repeat("s", 32)), models.SealDevices)
	require.NoError(c.t, err)
	require.NoError(c.t, c.Store.Tx(c.t.Context(), func(tx *store.Tx) error {
		since, deadline := tx.Now.Add(-time.Hour), tx.Now.Add(time.Hour)
		people, bookings, devices := make([]models.Customer, n), make([]models.Booking, n), make([]push.Device, n)
		for i := range n {
			phone, token := fmt.Sprintf("+9665100%05d", i), fmt.Sprintf("phone %d", i)
			people[i] = models.Customer{ID: models.NewID(), OrganizationID: c.id, Phone: &phone, CreatedAt: since, UpdatedAt: since}
			bookings[i] = models.Booking{
				ID: models.NewID(), OrganizationID: c.id, CustomerID: people[i].ID, TypeID: typeID, Version: 1,
				Status: models.StatusPendingAssignment, Stage: models.StageWaiting, Ticket: fmt.Sprintf("Z%05d", i), LocalDay: "2026-01-01",
				AssignmentTimeout: 60, AssignmentDeadline: &deadline, CreatedAt: since, UpdatedAt: since, PendingAt: &since,
			}
			devices[i] = push.Device{
				ID: models.NewID(), OrganizationID: c.id, CustomerID: &people[i].ID, Platform: "ios", Lang: "en",
				TokenHash: models.HashSecret(token), TokenSealed: sealer.Seal(token), CreatedAt: since, UpdatedAt: since,
			}
		}
		devices = devices[without:]
		for _, rows := range []any{&people, &bookings, &devices} {
			if err := tx.CreateInBatches(rows, 20).Error; err != nil {
				return err
			}
		}
		return nil
	}))
}

// place is the last place told to a phone; 0 when none was.
func (f *fcm) place(token string) int {
	f.t.Helper()
	got := f.got(token, moved)
	if len(got) == 0 {
		return 0
	}
	place, err := strconv.Atoi(got[len(got)-1].Data["queuePosition"])
	require.NoError(f.t, err)
	return place
}

func TestPositionsAreLevels(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		people, moves := 1000, 100
		if h.server == nil {
			people, moves = 200, 20 // the race detector slows SQLite down most of all
		}
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		h.quiet() // nothing is to be told of what was before
		c.waitingRoom(kind, people, moves)
		began := time.Now()
		for range moves {
			c.next(room).ok()
		}
		h.quiet()
		most := int(time.Since(began)/(1200*time.Millisecond)) + 1 // so never more than 9 in 10 s
		for i := moves; i < people; i++ {
			token := fmt.Sprintf("phone %d", i)
			require.Equal(t, i-moves+1, f.place(token), token)
			require.LessOrEqual(t, len(f.got(token)), most, token)
		}
	})
}

func TestPlaceThatJoiningAnswered(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		room := c.newResource(nil, kind)
		mona, omar := c.app("+966500000111", "mona", "en"), c.app("+966500000112", "omar", "en")
		first := c.join(kind, nil).str("id")
		joined := mona.join(kind)
		assert.Equal(t, 2, joined.num("result.queuePosition"))
		c.join(kind, object{"customerIdentifier": object{"phone": "+966500000112"}})
		told := f.await("omar", moved, 1)
		assert.Equal(t, "3", told.Data["queuePosition"], "the desk joined for him, so he has not been told")
		h.quiet()
		assert.Empty(t, f.got("mona"))

		c.act("cancel", first, nil).ok()
		told = f.await("mona", moved, 1)
		assert.NotEmpty(t, told.Data["notificationId"])
		delete(told.Data, "notificationId")
		id := joined.str("result.id")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": moved, "bookingId": id, "queuePosition": "1", "estimatedWaitMinutes": "30"}, told.Data)
		assert.Nil(t, told.Notification, "data alone")
		assert.Equal(t, id, told.Android.CollapseKey)
		assert.Equal(t, "normal", told.Android.Priority, "it wakes nobody")
		assert.Equal(t, "60s", told.Android.TTL)
		assert.Equal(t, id, told.APNS.Headers["apns-collapse-id"])
		assert.Equal(t, "background", told.APNS.Headers["apns-push-type"])
		assert.Equal(t, "5", told.APNS.Headers["apns-priority"])
		assert.Equal(t, map[string]any{"content-available": 1.0}, told.APNS.Payload.Aps)
		assert.Equal(t, "2", f.await("omar", moved, 2).Data["queuePosition"])

		// A new phone of somebody whose place has changed is told it.
		c.device(omar.access, "omar's new phone", "en").ok()
		h.quiet()
		c.next(room).ok()
		assert.Equal(t, "1", f.await("omar's new phone", moved, 1).Data["queuePosition"])
		f.await("omar", moved, 3)
		f.await("mona", assigned, 1)
		h.quiet()
		assert.Len(t, f.got("mona", moved), 1)
	})
}

func TestNothingIsToldBeforePayment(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(object{"price": "100.00", "paymentMethods": []string{"creditCard"}, "comeNowAtPosition": 5})
		c.doctor("+966500000101", "doctor", "en", kind)
		mona := c.app("+966500000111", "mona", "en")
		joined := mona.join(kind)
		assert.Equal(t, "PENDING_PAYMENT", joined.str("result.status"))
		c.act("cancel", joined.str("result.id"), nil).ok()
		h.quiet()
		assert.Empty(t, f.got("doctor"))
		assert.Empty(t, f.got("mona"))
	})
}

func TestAPatientIsAskedToComeOnce(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		// With one free provider the likely waits are 0, 10, 20 … minutes, so both
		// types ask the first two to come.
		limits := []object{{"minutes": 10, "comeNowAtPosition": 2}, {"minutes": 10, "comeNowAtMinutes": 15}}
		token := func(i, k int) string { return fmt.Sprintf("%d of %d", i, k) }
		ids := make([][]string, len(limits))
		for k, limit := range limits {
			kind := c.newType(limit)
			c.newResource(nil, kind)
			for i := range 4 {
				a := c.app(fmt.Sprintf("+9665000003%d%d", k, i), token(i, k), []string{"ar", "en"}[i%2])
				ids[k] = append(ids[k], a.join(kind).str("result.id"))
			}
		}
		for k := range limits {
			assert.Equal(t, "ترتيبك 1: تفضل بالحضور الآن", f.await(token(0, k), comeNow, 1).Notification.Title)
			told := f.await(token(1, k), comeNow, 1)
			assert.Equal(t, "You are number 2: come now", told.Notification.Title)
			assert.Equal(t, ids[k][1]+".comeNow", told.Data["notificationId"])
			delete(told.Data, "notificationId")
			assert.Equal(t, map[string]string{
				"via": "scheduling-system", "type": comeNow, "bookingId": ids[k][1], "queuePosition": "2", "estimatedWaitMinutes": "20",
			}, told.Data)
			assert.Empty(t, f.got(token(2, k), comeNow))
			c.act("cancel", ids[k][0], nil).ok()
		}
		for k := range limits {
			f.await(token(2, k), comeNow, 1)
			assert.Empty(t, f.got(token(3, k), comeNow))
			c.act("cancel", ids[k][1], nil).ok()
		}
		for k := range limits {
			f.await(token(3, k), comeNow, 1)
			for i := range 4 {
				assert.Len(t, f.got(token(i, k), comeNow), 1, "once")
			}
		}
		seen := c.staff(http.MethodGet, "/management/types", nil).ok()
		assert.Equal(t, 2, seen.num("result.0.comeNowAtPosition"))
		assert.Equal(t, 15, seen.num("result.1.comeNowAtMinutes"))
		c.staff(http.MethodPost, "/management/types", object{"name": "a", "minutes": 5, "comeNowAtPosition": -1}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
	})
}

func TestSweepsThatGoWrong(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		c.waitingRoom(kind, 6, 0)

		// A phone that is gone keeps nobody from being told. A 429 does for as long
		// as it says, and then the place is that of then.
		f.trouble("phone 5", fcmReply{status: 404, code: "UNREGISTERED"})
		f.trouble("phone 4", fcmReply{status: 429, code: "QUOTA_EXCEEDED", retryAfter: "3"})
		c.next(room).ok()
		require.Eventually(t, func() bool { return f.asked("phone 4") >= 1 }, patience, time.Millisecond)
		c.next(room).ok()
		assert.Equal(t, "3", f.await("phone 4", moved, 1).Data["queuePosition"])
		h.quiet()
		assert.Equal(t, 1, f.asked("phone 5"))
		assert.Equal(t, 1, f.place("phone 2"))

		// A place whose answer was lost comes again, the same and saying so, unless
		// it has changed.
		f.trouble("phone 3", fcmReply{})
		f.trouble("phone 4", fcmReply{})
		told := len(f.got("phone 3", moved))
		c.next(room).ok()
		again := f.await("phone 3", moved, told+2)
		got := f.got("phone 3", moved)
		assert.Equal(t, got[len(got)-2].Data["notificationId"], again.Data["notificationId"])
		assert.Equal(t, "true", again.Data["redelivery"])
		assert.Equal(t, "1", again.Data["queuePosition"])
		h.quiet()

		// A change while a sweep is under way is told by the next.
		hold := make(chan struct{})
		f.trouble("phone 4", fcmReply{status: http.StatusOK, hold: hold})
		asked := f.asked("phone 4")
		late := c.app("+966500000111", "late", "en")
		id := late.join(kind).str("result.id")
		c.act("cancel", id, nil).ok()
		c.next(room).ok()
		require.Eventually(t, func() bool { return f.asked("phone 4") > asked }, patience, time.Millisecond)
		urgent := c.join(kind, object{"priority": 9}).str("id")
		require.Eventually(t, func() bool {
			return scalar[int](h, "SELECT count(*) FROM position_marks WHERE due_at IS NOT NULL") == 1
		}, patience, time.Millisecond)
		close(hold)
		h.quiet()
		assert.Equal(t, 2, f.place("phone 4"))
		c.act("cancel", urgent, nil).ok()
		h.quiet()
		assert.Equal(t, 1, f.place("phone 4"))

		// What a node that died had claimed is swept by another.
		told = len(f.got("phone 4", moved))
		h.exec("UPDATE position_states SET pushed = 7")
		h.exec("INSERT INTO position_marks (organization_id, leased_until) VALUES (?, ?)", c.id, time.Now().UTC().Add(-time.Second))
		f.await("phone 4", moved, told+1)
		h.quiet()
		numbers := map[string]bool{}
		for _, m := range f.got("phone 4", moved) {
			if m.Data["redelivery"] == "" {
				assert.False(t, numbers[m.Data["notificationId"]], "each telling has a number of its own")
				numbers[m.Data["notificationId"]] = true
			}
		}
	})
}

// connected makes a client that watches a channel, until it is closed.
func (h *house) connected(token, channel string) *centrifuge.Client {
	h.t.Helper()
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", centrifuge.Config{Token: token})
	h.t.Cleanup(client.Close)
	require.NoError(h.t, client.Connect())
	sub, err := client.NewSubscription(channel)
	require.NoError(h.t, err)
	subscribed := make(chan struct{})
	sub.OnSubscribed(func(centrifuge.SubscribedEvent) { close(subscribed) })
	require.NoError(h.t, sub.Subscribe())
	select {
	case <-subscribed:
	case <-time.After(patience):
		h.t.Fatal("no answer to a subscription")
	}
	return client
}

// TestPlacesThatAreLiveAlready turns on the mode that holds back what a
// connected customer has seen, on two nodes.
func TestPlacesThatAreLiveAlready(t *testing.T) {
	t.Parallel()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f := newFCM(t)
			h := newHouse(t, b, f.pushing, func(c *node.Config) { c.FCMHoldLive = true })
			c := h.newClinic()
			kind := c.newType(nil)
			c.newResource(nil, kind)
			ahead := []string{c.join(kind, nil).str("id"), c.join(kind, nil).str("id")}
			mona, omar := c.app("+966500000111", "mona", "en"), c.app("+966500000112", "omar", "en")
			id, other := mona.join(kind).str("result.id"), omar.join(kind).str("result.id")
			node := h
			if b == postgres {
				node = h.beside(nil)
			}
			live := node.connected(mona.access, "booking:"+id)
			node.connected(c.key, "booking:"+other) // the desk looks at Omar's; he does not
			// shown is the place that Mona's connection was shown, as all nodes know.
			shown := func(place string) func() bool {
				return func() bool {
					said, _, _ := strings.Cut(h.Redis.HGet(t.Context(), "ns:{"+c.id+"}:shown", id).Val(), ":")
					return said == place
				}
			}
			require.Eventually(t, shown("3"), patience, 5*time.Millisecond)
			// The sweep comes when the live connection has surely been told.
			h.quiet()
			h.exec("INSERT INTO position_marks (organization_id, leased_until) VALUES (?, ?)", c.id, time.Now().UTC().Add(time.Hour))
			c.act("cancel", ahead[0], nil).ok()
			require.Eventually(t, shown("2"), patience, 5*time.Millisecond)
			h.exec("UPDATE position_marks SET leased_until = ?", time.Now().UTC().Add(-time.Second))
			f.await("omar", moved, 1)
			h.quiet()
			assert.Empty(t, f.got("mona"))
			live.Close()
			require.Eventually(t, shown(""), patience, 5*time.Millisecond)
			c.act("cancel", ahead[1], nil).ok()
			assert.Equal(t, "1", f.await("mona", moved, 1).Data["queuePosition"])
		})
	}
}

// TestAChangedCatalogueMovesPlaces: the desk's only free doctor goes home.
func TestAChangedCatalogueMovesPlaces(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *house, f *fcm) {
		c := h.newClinic()
		kind := c.newType(nil)
		busy := c.newResource(nil, kind)
		free := c.newResource(nil, kind)
		for range 2 {
			c.join(kind, object{"resourceFilters": object{"resource": busy}})
		}
		mona := c.app("+966500000111", "mona", "en")
		assert.Equal(t, 1, mona.join(kind).num("result.queuePosition"))
		h.quiet()
		c.staff(http.MethodPut, "/management/resources/"+free, object{"on": false}).ok()
		require.Eventually(t, func() bool { return f.place("mona") == 3 }, patience, 10*time.Millisecond)
	})
}
