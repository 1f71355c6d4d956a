package push_test

import (
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/notify/push"
)

const comeNow = "MY_BOOKING_COME_NOW"

// waitingRoom fills the queue of a type with n customers who have waited for an
// hour and were told nothing yet. All but the first few have a device: "phone 7"
// is the eighth's.
func waitingRoom(c *nodetest.Clinic, typeID string, n, without int) {
	c.T.Helper()
	sealer, err := models.NewSealer([]byte(strings.Repeat("s", 32)), models.SealDevices)
	require.NoError(c.T, err)
	require.NoError(c.T, c.Store.Tx(c.T.Context(), func(tx *store.Tx) error {
		since, deadline := tx.Now.Add(-time.Hour), tx.Now.Add(time.Hour)
		people, bookings, devices := make([]models.Customer, n), make([]models.Booking, n), make([]push.Device, n)
		for i := range n {
			phone, token := fmt.Sprintf("+9665100%05d", i), fmt.Sprintf("phone %d", i)
			people[i] = models.Customer{ID: models.NewID(), OrganizationID: c.ID, Phone: &phone, CreatedAt: since, UpdatedAt: since}
			bookings[i] = models.Booking{
				ID: models.NewID(), OrganizationID: c.ID, CustomerID: people[i].ID, TypeID: typeID, Version: 1,
				Status: models.StatusPendingAssignment, Stage: models.StageWaiting, Ticket: fmt.Sprintf("Z%05d", i), LocalDay: "2026-01-01",
				AssignmentTimeout: 60, AssignmentDeadline: &deadline, CreatedAt: since, UpdatedAt: since, PendingAt: &since,
			}
			devices[i] = push.Device{
				ID: models.NewID(), OrganizationID: c.ID, CustomerID: &people[i].ID, Platform: "ios", Lang: "en",
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
func place(f *nodetest.FCM, token string) int {
	f.T.Helper()
	got := f.Got(token, moved)
	if len(got) == 0 {
		return 0
	}
	place, err := strconv.Atoi(got[len(got)-1].Data["queuePosition"])
	require.NoError(f.T, err)
	return place
}

func TestPositionsAreLevels(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		people, moves := 1000, 100
		if h.RedisServer == nil {
			people, moves = 200, 20 // the race detector slows SQLite down most of all
		}
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		h.Quiet() // nothing is to be told of what was before
		waitingRoom(c, kind, people, moves)
		began := time.Now()
		for range moves {
			c.Next(room).OK()
		}
		h.Quiet()
		most := int(time.Since(began)/(1200*time.Millisecond)) + 1 // so never more than 9 in 10 s
		for i := moves; i < people; i++ {
			token := fmt.Sprintf("phone %d", i)
			require.Equal(t, i-moves+1, place(f, token), token)
			require.LessOrEqual(t, len(f.Got(token)), most, token)
		}
	})
}

func TestPlaceThatJoiningAnswered(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, kind)
		mona, omar := newApp(c, "+966500000111", "mona", "en"), newApp(c, "+966500000112", "omar", "en")
		first := c.Join(kind, nil).Str("id")
		joined := mona.join(kind)
		assert.Equal(t, 2, joined.Num("result.queuePosition"))
		c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000112"}})
		told := f.Await("omar", moved, 1)
		assert.Equal(t, "3", told.Data["queuePosition"], "the desk joined for him, so he has not been told")
		h.Quiet()
		assert.Empty(t, f.Got("mona"))

		c.Act("cancel", first, nil).OK()
		told = f.Await("mona", moved, 1)
		assert.NotEmpty(t, told.Data["notificationId"])
		delete(told.Data, "notificationId")
		id := joined.Str("result.id")
		assert.Equal(t, map[string]string{"via": "scheduling-system", "type": moved, "bookingId": id, "queuePosition": "1", "estimatedWaitMinutes": "30"}, told.Data)
		assert.Nil(t, told.Notification, "data alone")
		assert.Equal(t, id, told.Android.CollapseKey)
		assert.Equal(t, "normal", told.Android.Priority, "it wakes nobody")
		assert.Equal(t, "60s", told.Android.TTL)
		assert.Equal(t, id, told.APNS.Headers["apns-collapse-id"])
		assert.Equal(t, "background", told.APNS.Headers["apns-push-type"])
		assert.Equal(t, "5", told.APNS.Headers["apns-priority"])
		assert.Equal(t, map[string]any{"content-available": 1.0}, told.APNS.Payload.Aps)
		assert.Equal(t, "2", f.Await("omar", moved, 2).Data["queuePosition"])

		// A new phone of somebody whose place has changed is told it.
		c.Device(omar.access, "omar's new phone", "en").OK()
		h.Quiet()
		c.Next(room).OK()
		assert.Equal(t, "1", f.Await("omar's new phone", moved, 1).Data["queuePosition"])
		f.Await("omar", moved, 3)
		f.Await("mona", assigned, 1)
		h.Quiet()
		assert.Len(t, f.Got("mona", moved), 1)
	})
}

func TestNothingIsToldBeforePayment(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"price": "100.00", "paymentMethods": []string{"creditCard"}, "comeNowAtPosition": 5})
		doctor(c, "+966500000101", "doctor", "en", kind)
		mona := newApp(c, "+966500000111", "mona", "en")
		joined := mona.join(kind)
		assert.Equal(t, "PENDING_PAYMENT", joined.Str("result.status"))
		c.Act("cancel", joined.Str("result.id"), nil).OK()
		h.Quiet()
		assert.Empty(t, f.Got("doctor"))
		assert.Empty(t, f.Got("mona"))
	})
}

func TestAPatientIsAskedToComeOnce(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		// With one free provider the likely waits are 0, 10, 20 … minutes, so both
		// types ask the first two to come.
		limits := []nodetest.Object{{"minutes": 10, "comeNowAtPosition": 2}, {"minutes": 10, "comeNowAtMinutes": 15}}
		token := func(i, k int) string { return fmt.Sprintf("%d of %d", i, k) }
		ids := make([][]string, len(limits))
		for k, limit := range limits {
			kind := c.NewType(limit)
			c.NewResource(nil, kind)
			for i := range 4 {
				a := newApp(c, fmt.Sprintf("+9665000003%d%d", k, i), token(i, k), []string{"ar", "en"}[i%2])
				ids[k] = append(ids[k], a.join(kind).Str("result.id"))
			}
		}
		for k := range limits {
			assert.Equal(t, "ترتيبك 1: تفضل بالحضور الآن", f.Await(token(0, k), comeNow, 1).Notification.Title)
			told := f.Await(token(1, k), comeNow, 1)
			assert.Equal(t, "You are number 2: come now", told.Notification.Title)
			assert.Equal(t, ids[k][1]+".comeNow", told.Data["notificationId"])
			delete(told.Data, "notificationId")
			assert.Equal(t, map[string]string{
				"via": "scheduling-system", "type": comeNow, "bookingId": ids[k][1], "queuePosition": "2", "estimatedWaitMinutes": "20",
			}, told.Data)
			assert.Empty(t, f.Got(token(2, k), comeNow))
			c.Act("cancel", ids[k][0], nil).OK()
		}
		for k := range limits {
			f.Await(token(2, k), comeNow, 1)
			assert.Empty(t, f.Got(token(3, k), comeNow))
			c.Act("cancel", ids[k][1], nil).OK()
		}
		for k := range limits {
			f.Await(token(3, k), comeNow, 1)
			for i := range 4 {
				assert.Len(t, f.Got(token(i, k), comeNow), 1, "once")
			}
		}
		seen := c.Staff(http.MethodGet, "/management/types", nil).OK()
		assert.Equal(t, 2, seen.Num("result.0.comeNowAtPosition"))
		assert.Equal(t, 15, seen.Num("result.1.comeNowAtMinutes"))
		c.Staff(http.MethodPost, "/management/types", nodetest.Object{"name": "a", "minutes": 5, "comeNowAtPosition": -1}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
	})
}

func TestSweepsThatGoWrong(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		waitingRoom(c, kind, 6, 0)

		// A phone that is gone keeps nobody from being told. A 429 does for as long
		// as it says, and then the place is that of then.
		f.Trouble("phone 5", nodetest.FCMReply{Status: 404, Code: "UNREGISTERED"})
		f.Trouble("phone 4", nodetest.FCMReply{Status: 429, Code: "QUOTA_EXCEEDED", RetryAfter: "3"})
		c.Next(room).OK()
		require.Eventually(t, func() bool { return f.Asked("phone 4") >= 1 }, nodetest.Patience, time.Millisecond)
		c.Next(room).OK()
		assert.Equal(t, "3", f.Await("phone 4", moved, 1).Data["queuePosition"])
		h.Quiet()
		assert.Equal(t, 1, f.Asked("phone 5"))
		assert.Equal(t, 1, place(f, "phone 2"))

		// A place whose answer was lost comes again, the same and saying so, unless
		// it has changed.
		f.Trouble("phone 3", nodetest.FCMReply{})
		f.Trouble("phone 4", nodetest.FCMReply{})
		told := len(f.Got("phone 3", moved))
		c.Next(room).OK()
		again := f.Await("phone 3", moved, told+2)
		got := f.Got("phone 3", moved)
		assert.Equal(t, got[len(got)-2].Data["notificationId"], again.Data["notificationId"])
		assert.Equal(t, "true", again.Data["redelivery"])
		assert.Equal(t, "1", again.Data["queuePosition"])
		h.Quiet()

		// A change while a sweep is under way is told by the next.
		hold := make(chan struct{})
		f.Trouble("phone 4", nodetest.FCMReply{Status: http.StatusOK, Hold: hold})
		asked := f.Asked("phone 4")
		late := newApp(c, "+966500000111", "late", "en")
		id := late.join(kind).Str("result.id")
		c.Act("cancel", id, nil).OK()
		c.Next(room).OK()
		require.Eventually(t, func() bool { return f.Asked("phone 4") > asked }, nodetest.Patience, time.Millisecond)
		urgent := c.Join(kind, nodetest.Object{"priority": 9}).Str("id")
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM position_marks WHERE due_at IS NOT NULL") == 1
		}, nodetest.Patience, time.Millisecond)
		close(hold)
		h.Quiet()
		assert.Equal(t, 2, place(f, "phone 4"))
		c.Act("cancel", urgent, nil).OK()
		h.Quiet()
		assert.Equal(t, 1, place(f, "phone 4"))

		// What a node that died had claimed is swept by another.
		told = len(f.Got("phone 4", moved))
		h.Exec("UPDATE position_states SET pushed = 7")
		h.Exec("INSERT INTO position_marks (organization_id, leased_until) VALUES (?, ?)", c.ID, time.Now().UTC().Add(-time.Second))
		f.Await("phone 4", moved, told+1)
		h.Quiet()
		numbers := map[string]bool{}
		for _, m := range f.Got("phone 4", moved) {
			if m.Data["redelivery"] == "" {
				assert.False(t, numbers[m.Data["notificationId"]], "each telling has a number of its own")
				numbers[m.Data["notificationId"]] = true
			}
		}
	})
}

// connected makes a client that watches a channel, until it is closed.
func connected(h *nodetest.Node, token, channel string) *centrifuge.Client {
	h.T.Helper()
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", centrifuge.Config{Token: token})
	h.T.Cleanup(client.Close)
	require.NoError(h.T, client.Connect())
	sub, err := client.NewSubscription(channel)
	require.NoError(h.T, err)
	subscribed := make(chan struct{})
	sub.OnSubscribed(func(centrifuge.SubscribedEvent) { close(subscribed) })
	require.NoError(h.T, sub.Subscribe())
	select {
	case <-subscribed:
	case <-time.After(nodetest.Patience):
		h.T.Fatal("no answer to a subscription")
	}
	return client
}

// TestPlacesThatAreLiveAlready turns on the mode that holds back what a
// connected customer has seen, on two nodes.
func TestPlacesThatAreLiveAlready(t *testing.T) {
	t.Parallel()
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			f := nodetest.NewFCM(t)
			h := nodetest.Start(t, b, f.Pushing, func(c *node.Config) { c.FCMHoldLive = true })
			c := h.NewClinic()
			kind := c.NewType(nil)
			c.NewResource(nil, kind)
			ahead := []string{c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")}
			mona, omar := newApp(c, "+966500000111", "mona", "en"), newApp(c, "+966500000112", "omar", "en")
			id, other := mona.join(kind).Str("result.id"), omar.join(kind).Str("result.id")
			node := h
			if b == nodetest.Postgres {
				node = h.Beside(nil)
			}
			live := connected(node, mona.access, "booking:"+id)
			connected(node, c.Key, "booking:"+other) // the desk looks at Omar's; he does not
			// shown is the place that Mona's connection was shown, as all nodes know.
			shown := func(place string) func() bool {
				return func() bool {
					said, _, _ := strings.Cut(h.Redis.HGet(t.Context(), "ns:{"+c.ID+"}:shown", id).Val(), ":")
					return said == place
				}
			}
			require.Eventually(t, shown("3"), nodetest.Patience, 5*time.Millisecond)
			// The sweep comes when the live connection has surely been told.
			h.Quiet()
			h.Exec("INSERT INTO position_marks (organization_id, leased_until) VALUES (?, ?)", c.ID, time.Now().UTC().Add(time.Hour))
			c.Act("cancel", ahead[0], nil).OK()
			require.Eventually(t, shown("2"), nodetest.Patience, 5*time.Millisecond)
			h.Exec("UPDATE position_marks SET leased_until = ?", time.Now().UTC().Add(-time.Second))
			f.Await("omar", moved, 1)
			h.Quiet()
			assert.Empty(t, f.Got("mona"))
			live.Close()
			require.Eventually(t, shown(""), nodetest.Patience, 5*time.Millisecond)
			c.Act("cancel", ahead[1], nil).OK()
			assert.Equal(t, "1", f.Await("mona", moved, 1).Data["queuePosition"])
		})
	}
}

// TestAChangedCatalogueMovesPlaces: the desk's only free doctor goes home.
func TestAChangedCatalogueMovesPlaces(t *testing.T) {
	t.Parallel()
	onBothPushing(t, func(t *testing.T, h *nodetest.Node, f *nodetest.FCM) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		busy := c.NewResource(nil, kind)
		free := c.NewResource(nil, kind)
		for range 2 {
			c.Join(kind, nodetest.Object{"resourceFilters": nodetest.Object{"resource": busy}})
		}
		mona := newApp(c, "+966500000111", "mona", "en")
		assert.Equal(t, 1, mona.join(kind).Num("result.queuePosition"))
		h.Quiet()
		c.Staff(http.MethodPut, "/management/resources/"+free, nodetest.Object{"on": false}).OK()
		require.Eventually(t, func() bool { return place(f, "mona") == 3 }, nodetest.Patience, 10*time.Millisecond)
	})
}
