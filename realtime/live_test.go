package realtime_test

import (
	"testing"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/realtime"
)

// everywhere runs a test on each Redis and with each encoding.
func everywhere(t *testing.T, test func(t *testing.T, w *world, n *node, protobuf bool)) {
	t.Helper()
	for name, start := range backends {
		for encoding, protobuf := range map[string]bool{"json": false, "protobuf": true} {
			t.Run(name+"/"+encoding, func(t *testing.T) {
				w := newWorld(t, start(t))
				test(t, w, w.node(realtime.Options{}), protobuf)
			})
		}
	}
}

func TestBookingFromJoinToEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, n *node, protobuf bool) {
		first, second, third := w.join("r1"), w.join("r1", "r2"), w.join("r1")
		p := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "patient"})
		l := p.watch("booking:" + third)

		snapshot := l.next()
		assert.Equal(t, "SNAPSHOT", snapshot.Type)
		assert.Equal(t, 3, snapshot.Booking.QueuePosition)

		require.True(t, w.do(models.ActionAssign, first, "r1"))
		moved := l.next()
		assert.Equal(t, news{
			Type: "QUEUE_POSITION_UPDATED", Via: "scheduling-system", BookingID: third,
			QueuePosition: 2, EstimatedWaitMinutes: 2 * minutes, raw: moved.raw,
		}, moved)

		require.True(t, w.do(models.ActionHold, second))
		assert.Equal(t, 1, l.next().QueuePosition)
		require.True(t, w.do(models.ActionReturn, second))
		assert.Equal(t, 2, l.next().QueuePosition, "who returns keeps the place")
		require.True(t, w.do(models.ActionCancel, second))
		assert.Equal(t, 1, l.next().QueuePosition)

		require.True(t, w.do(models.ActionHold, third))
		held := l.next()
		assert.Equal(t, "BOOKING_UPDATED HELD", held.Type+" "+held.Stage)
		require.True(t, w.do(models.ActionReturn, third))
		assert.Equal(t, "WAITING", l.next().Stage)
		assert.Equal(t, 1, l.next().QueuePosition)

		require.True(t, w.do(models.ActionAssign, third, "r1"))
		assigned := l.next()
		assert.Equal(t, news{
			Type: "MY_BOOKING_ASSIGNED", Via: "scheduling-system", BookingID: third, BookingStatus: "CONFIRMED",
			ResourceID: "r1", ResourceName: "Room 1", Ticket: "A003", raw: assigned.raw,
		}, assigned)
		require.True(t, w.do(models.ActionRecall, third))
		recalled := l.next()
		assert.Equal(t, "MY_BOOKING_CALLED", recalled.Type)
		assert.Equal(t, 1, recalled.RecallCount)
		require.True(t, w.do(models.ActionStart, third))
		assert.Equal(t, "SERVING", l.next().Stage)
		require.True(t, w.do(models.ActionEnd, third))
		ended := l.next()
		assert.Equal(t, "MY_BOOKING_ENDED DONE CONFIRMED", ended.Type+" "+ended.Stage+" "+ended.BookingStatus)
	})
}
