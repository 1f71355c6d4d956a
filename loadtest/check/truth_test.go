package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/stretchr/testify/require"
)

// queueTest is a queue with its own clock, in milliseconds.
type queueTest struct {
	t     *testing.T
	queue *Queue
	zero  time.Time
}

// testMinutes is the duration of the booking type, testBound the time after which an update is
// late.
const (
	testMinutes = 7
	testBound   = 1000 // ms
)

func newQueueTest(t *testing.T) *queueTest {
	t.Helper()
	return &queueTest{
		t:     t,
		queue: NewQueue(testMinutes, testBound*time.Millisecond, NewTally()),
		zero:  time.Date(2024, 3, 4, 8, 0, 0, 0, time.UTC),
	}
}

func (d *queueTest) at(ms int) time.Time { return d.zero.Add(time.Duration(ms) * time.Millisecond) }

// joined adds patients at 0 ms and connects each at 10 ms.
func (d *queueTest) joined(n int) []*Watcher {
	var list []*Watcher
	for i := range n {
		id := fmt.Sprintf("b%d", i+1)
		position, minutes := i+1, (i+1)*testMinutes
		w := d.queue.Join(&Change{Sent: d.at(0), Answered: d.at(1)}, client.Booking{
			ID: id, Status: "PENDING_ASSIGNMENT", Stage: "WAITING", Ticket: "A" + id, TicketToken: "secret",
			QueuePosition: &position, EstimatedWaitMinutes: &minutes,
		})
		d.snapshot(w, position, 10, 11)
		list = append(list, w)
	}
	d.none()
	return list
}

// called assigns a patient: sent and answered at the given moments.
func (d *queueTest) called(w *Watcher, sent, answered int) {
	c := d.queue.Leave(w, Assigned, "room", d.at(sent))
	d.queue.Confirm(c, d.at(answered))
}

func (d *queueTest) snapshot(w *Watcher, position, requested, received int) bool {
	return d.show(w, map[string]any{
		"id": w.Booking, "ticket": w.ticket, "status": "PENDING_ASSIGNMENT", "stage": "WAITING",
		"queuePosition": position, "estimatedWaitMinutes": position * testMinutes,
	}, requested, received)
}

func (d *queueTest) show(w *Watcher, booking map[string]any, requested, received int) bool {
	data, err := json.Marshal(map[string]any{"type": "SNAPSHOT", "booking": booking})
	require.NoError(d.t, err)
	return w.OnSnapshot(data, d.at(requested), d.at(received))
}

func (d *queueTest) push(w *Watcher, at int, fields map[string]any) bool {
	message := map[string]any{"via": "scheduling-system", "bookingId": w.Booking}
	for k, v := range fields {
		message[k] = v
	}
	data, err := json.Marshal(message)
	require.NoError(d.t, err)
	return w.OnPublication(data, d.at(at))
}

func (d *queueTest) position(w *Watcher, position, at int) {
	d.push(w, at, map[string]any{"type": "QUEUE_POSITION_UPDATED", "queuePosition": position, "estimatedWaitMinutes": position * testMinutes})
}

func (d *queueTest) assigned(w *Watcher, at int) {
	d.push(w, at, map[string]any{"type": "MY_BOOKING_ASSIGNED", "bookingStatus": "CONFIRMED", "resourceId": "room", "ticket": w.ticket})
}

func (d *queueTest) ended(w *Watcher, at int) bool {
	return d.push(w, at, map[string]any{"type": "MY_BOOKING_ENDED", "bookingStatus": "CONFIRMED", "stage": "DONE"})
}

// faults checks that exactly these faults were found.
func (d *queueTest) faults(want map[FaultKind]int64) {
	d.t.Helper()
	var expected [faultKinds]int64
	for kind, n := range want {
		expected[kind] = n
	}
	require.Equal(d.t, expected, d.queue.tally.faults, "%+v", d.queue.tally.problems)
}

func (d *queueTest) none() {
	d.t.Helper()
	d.faults(nil)
}

func TestCorrectUpdatesAreNoFaults(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(3)
	d.called(w[1], 100, 105)
	d.position(w[2], 2, 103) // before the response
	d.assigned(w[1], 104)
	d.called(w[0], 200, 205)
	d.assigned(w[0], 206)
	d.position(w[2], 1, 207)
	d.queue.EndVisit(w[0], StageDone, d.at(300))
	require.True(t, d.ended(w[0], 301), "an ended visit hangs up")
	c := d.queue.Leave(w[2], Canceled, "", d.at(400))
	d.queue.Confirm(c, d.at(405))
	require.True(t, d.push(w[2], 404, map[string]any{"type": "MY_BOOKING_CANCELED", "bookingStatus": "CANCELED"}))
	w[0].Finish()
	w[2].Finish()
	d.none()
	require.EqualValues(t, 2, d.queue.tally.Latency.Count())
	require.Equal(t, 7*time.Millisecond, d.queue.tally.Latency.Quantile(1), "counted from the request")
	require.Equal(t, 6*time.Millisecond, d.queue.tally.CallLatency.Quantile(1))
	require.Zero(t, d.queue.tally.Conflated.Load())
	require.Empty(t, d.queue.waitingInOrder())
}

func TestSkippingPositionsIsRight(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(4)
	for i := range 3 {
		d.called(w[i], 100+10*i, 105+10*i)
	}
	d.position(w[3], 1, 200)
	d.none()
	require.EqualValues(t, 2, d.queue.tally.Conflated.Load())
	require.Equal(t, 80*time.Millisecond, d.queue.tally.Latency.Quantile(1), "since the change that made it true")
}

func TestInventedPositionIsWrong(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(3)
	d.position(w[2], 4, 90)
	d.position(w[2], 2, 95) // no patient was called yet
	d.called(w[0], 100, 105)
	d.position(w[2], 0, 110)
	d.faults(map[FaultKind]int64{WrongPosition: 3})
}

func TestRepeatedPositionIsADuplicate(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(2)
	d.position(w[1], 2, 50) // already in the snapshot
	d.called(w[0], 100, 105)
	d.position(w[1], 1, 110)
	d.position(w[1], 1, 111)
	d.faults(map[FaultKind]int64{Duplicate: 2})
}

func TestAnOlderPositionIsOutOfOrder(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(3)
	d.called(w[0], 100, 105)
	d.called(w[1], 110, 115)
	d.position(w[2], 1, 120)
	d.position(w[2], 2, 121)
	d.faults(map[FaultKind]int64{OutOfOrder: 1})

	d.called(w[2], 200, 205)
	d.assigned(w[2], 206)
	d.position(w[2], 1, 207) // a called patient has no position
	d.faults(map[FaultKind]int64{OutOfOrder: 2})
}

func TestDroppedUpdateIsMissed(t *testing.T) {
	t.Run("until the next change", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(3)
		d.called(w[0], 100, 105)
		d.called(w[1], 2000, 2005)
		d.position(w[2], 1, 2010)
		d.faults(map[FaultKind]int64{Missed: 1})
	})
	t.Run("until the call", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(3)
		d.called(w[0], 100, 105)
		d.called(w[2], 2000, 2005)
		d.assigned(w[2], 2010)
		d.faults(map[FaultKind]int64{Missed: 1})
	})
	t.Run("until the connection broke", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(3)
		d.called(w[0], 100, 105)
		w[2].OnDisconnect(d.at(2000))
		d.snapshot(w[2], 2, 2100, 2101)
		d.faults(map[FaultKind]int64{Missed: 1})
	})
	t.Run("overtaken in time", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(3)
		d.called(w[0], 100, 105)
		d.called(w[1], 500, 505)
		d.position(w[2], 1, 600)
		d.none()
	})
	t.Run("starving in a busy queue", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(5)
		for i := range 4 {
			d.called(w[i], 100+600*i, 105+600*i)
		}
		d.position(w[4], 1, 1910)
		d.faults(map[FaultKind]int64{Missed: 1})
	})
}

func TestUpdateAfterTheBoundIsLate(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(2)
	d.called(w[0], 100, 105)
	d.position(w[1], 1, 105+testBound+1)
	d.faults(map[FaultKind]int64{Late: 1})
}

func TestUpdateWithinTheBoundIsInTime(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(2)
	d.called(w[0], 100, 105)
	d.position(w[1], 1, 105+testBound)
	d.none()
}

func TestUpdatesAreNotLateForADisconnectedClient(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(3)
	w[2].OnDisconnect(d.at(50))
	d.called(w[0], 100, 105)
	d.snapshot(w[2], 2, 5000, 5001)
	d.called(w[1], 6000, 6005)
	d.position(w[2], 1, 6010)
	d.none()
}

func TestACallMustArriveOnce(t *testing.T) {
	t.Run("never", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		d.called(w, 100, 105)
		w.Finish()
		d.faults(map[FaultKind]int64{Missed: 1})
	})
	t.Run("twice", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		d.called(w, 100, 105)
		d.assigned(w, 106)
		d.assigned(w, 107)
		d.faults(map[FaultKind]int64{Duplicate: 1})
	})
	t.Run("too early", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		d.assigned(w, 50)
		d.faults(map[FaultKind]int64{WrongNews: 1})
	})
	t.Run("too late", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		d.called(w, 100, 105)
		d.assigned(w, 2000)
		d.faults(map[FaultKind]int64{Late: 1})
	})
	t.Run("to another desk", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		d.called(w, 100, 105)
		d.push(w, 106, map[string]any{"type": "MY_BOOKING_ASSIGNED", "bookingStatus": "CONFIRMED", "resourceId": "other", "ticket": w.ticket})
		d.faults(map[FaultKind]int64{WrongNews: 1})
	})
	t.Run("by a snapshot", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		w.OnDisconnect(d.at(50))
		d.called(w, 100, 105)
		d.show(w, map[string]any{"id": w.Booking, "ticket": w.ticket, "stage": "SERVING"}, 110, 111)
		d.assigned(w, 112) // one publication may still follow
		w.Finish()
		d.none()
	})
}

func TestAnEndMustArriveOnce(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(d *queueTest, w *Watcher)
		want map[FaultKind]int64
	}{
		"told":  {func(d *queueTest, w *Watcher) { d.ended(w, 310) }, nil},
		"never": {func(*queueTest, *Watcher) {}, map[FaultKind]int64{Missed: 1}},
		"twice": {func(d *queueTest, w *Watcher) { d.ended(w, 310); d.ended(w, 311) }, map[FaultKind]int64{Duplicate: 1}},
		"as a miss": {func(d *queueTest, w *Watcher) {
			d.push(w, 310, map[string]any{"type": "MY_BOOKING_ENDED", "stage": "NO_SHOW"})
		}, map[FaultKind]int64{WrongNews: 1}},
		"as expired": {func(d *queueTest, w *Watcher) {
			d.ended(w, 309)
			d.push(w, 310, map[string]any{"type": "MY_BOOKING_EXPIRED"})
		}, map[FaultKind]int64{WrongNews: 1}},
		"as canceled": {func(d *queueTest, w *Watcher) {
			d.ended(w, 309)
			d.push(w, 310, map[string]any{"type": "MY_BOOKING_CANCELED"})
		}, map[FaultKind]int64{WrongNews: 1}},
		"by a snapshot": {func(d *queueTest, w *Watcher) {
			w.OnDisconnect(d.at(305))
			require.True(d.t, d.show(w, map[string]any{"id": w.Booking, "ticket": w.ticket, "stage": "DONE"}, 310, 311))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := newQueueTest(t)
			w := d.joined(1)[0]
			d.called(w, 100, 105)
			d.assigned(w, 106)
			d.queue.EndVisit(w, StageDone, d.at(300))
			c.tell(d, w)
			w.Finish()
			d.faults(c.want)
		})
	}
}

func TestAPatientWhoNeverConnectedIsReported(t *testing.T) {
	d := newQueueTest(t)
	position, minutes := 1, testMinutes
	w := d.queue.Join(&Change{Sent: d.at(0), Answered: d.at(1)}, client.Booking{
		ID: "b", Status: "PENDING_ASSIGNMENT", Stage: "WAITING", Ticket: "A1", TicketToken: "secret",
		QueuePosition: &position, EstimatedWaitMinutes: &minutes,
	})
	d.called(w, 100, 105)
	w.Finish()
	d.faults(map[FaultKind]int64{Missed: 1})
}

func TestSnapshotMustBeCurrent(t *testing.T) {
	for name, c := range map[string]struct {
		position, asked, got int
		want                 map[FaultKind]int64
	}{
		"before the change":               {3, 150, 151, nil},
		"old while the change is on":      {3, 202, 203, nil},
		"new while the change is on":      {2, 202, 203, nil},
		"old, asked before the answer":    {3, 210, 290, nil},
		"new, asked before the change":    {2, 150, 201, nil},
		"after the change":                {2, 250, 251, nil},
		"old after the answer":            {3, 250, 251, map[FaultKind]int64{StaleSnapshot: 1}},
		"new before the change was asked": {2, 150, 151, map[FaultKind]int64{WrongPosition: 1}},
		"never true":                      {9, 150, 151, map[FaultKind]int64{WrongPosition: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newQueueTest(t)
			w := d.joined(3)
			w[2].OnDisconnect(d.at(20))
			d.called(w[0], 200, 210)
			d.snapshot(w[2], c.position, c.asked, c.got)
			d.faults(c.want)
		})
	}
	t.Run("older than told", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(2)
		d.called(w[0], 200, 300)
		d.position(w[1], 1, 210)
		w[1].OnDisconnect(d.at(220))
		d.snapshot(w[1], 2, 230, 231)
		d.faults(map[FaultKind]int64{OutOfOrder: 1})
	})
	t.Run("waiting after the call", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		w.OnDisconnect(d.at(50))
		d.called(w, 100, 105)
		d.snapshot(w, 1, 405, 406)
		d.faults(map[FaultKind]int64{StaleSnapshot: 1})
		require.Equal(t, 300*time.Millisecond, d.queue.tally.worstStale)
	})
	t.Run("called before the call", func(t *testing.T) {
		d := newQueueTest(t)
		w := d.joined(1)[0]
		w.OnDisconnect(d.at(50))
		d.show(w, map[string]any{"id": w.Booking, "ticket": w.ticket, "stage": "CALLED"}, 60, 61)
		d.faults(map[FaultKind]int64{WrongPosition: 1})
	})
}

func TestJoinAnswerIsChecked(t *testing.T) {
	one, two, minutes := 1, 2, testMinutes
	good := client.Booking{ID: "b", Status: "PENDING_ASSIGNMENT", Stage: "WAITING", Ticket: "A1", TicketToken: "s", QueuePosition: &one, EstimatedWaitMinutes: &minutes}
	for name, c := range map[string]struct {
		spoil func(b *client.Booking)
		want  map[FaultKind]int64
	}{
		"right":              {func(*client.Booking) {}, nil},
		"position":           {func(b *client.Booking) { b.QueuePosition = &two }, map[FaultKind]int64{WrongPosition: 1, WrongEstimate: 1}},
		"no position":        {func(b *client.Booking) { b.QueuePosition = nil }, map[FaultKind]int64{Malformed: 1}},
		"estimate":           {func(b *client.Booking) { b.EstimatedWaitMinutes = &two }, map[FaultKind]int64{WrongEstimate: 1}},
		"no estimate":        {func(b *client.Booking) { b.EstimatedWaitMinutes = nil }, map[FaultKind]int64{WrongEstimate: 1}},
		"status":             {func(b *client.Booking) { b.Status = "CONFIRMED" }, map[FaultKind]int64{Malformed: 1}},
		"no way to watch it": {func(b *client.Booking) { b.TicketToken = "" }, map[FaultKind]int64{Malformed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newQueueTest(t)
			b := good
			c.spoil(&b)
			d.queue.Join(&Change{Sent: d.at(0), Answered: d.at(1)}, b)
			d.faults(c.want)
		})
	}
}

func TestInvalidMessagesAreFaults(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(1)[0]
	w.OnPublication([]byte(`not json`), d.at(20))
	d.push(w, 21, map[string]any{"type": "SOMETHING_ELSE"})
	d.push(w, 22, map[string]any{"type": "QUEUE_POSITION_UPDATED"})
	d.push(w, 23, map[string]any{"type": "QUEUE_POSITION_UPDATED", "queuePosition": 1, "via": ""})
	d.push(w, 24, map[string]any{"type": "QUEUE_POSITION_UPDATED", "queuePosition": 1, "bookingId": "another"})
	d.push(w, 25, map[string]any{"type": "QUEUE_POSITION_UPDATED", "queuePosition": "1"})
	d.faults(map[FaultKind]int64{Malformed: 6})
	w.OnSnapshot([]byte(`{}`), d.at(26), d.at(27))
	d.show(w, map[string]any{"id": w.Booking, "ticket": w.ticket, "stage": "WAITING"}, 28, 29)
	d.faults(map[FaultKind]int64{Malformed: 8})
	d.push(w, 30, map[string]any{"type": "BOOKING_UPDATED", "stage": "SERVING"})
	d.push(w, 31, map[string]any{"type": "MY_BOOKING_CALLED", "recallCount": 1})
	d.faults(map[FaultKind]int64{Malformed: 8, WrongNews: 2})
}

func (d *queueTest) hold(w *Watcher, sent, answered int) {
	d.queue.Confirm(d.queue.Hold(w, d.at(sent)), d.at(answered))
}

func (d *queueTest) comeBack(w *Watcher, sent, answered int) {
	d.queue.Confirm(d.queue.Return(w, d.at(sent)), d.at(answered))
}

func (d *queueTest) stage(w *Watcher, stage string, at int) {
	d.push(w, at, map[string]any{"type": "BOOKING_UPDATED", "stage": stage})
}

func TestAHeldPatientCountsInNoPositionAndKeepsItsPlace(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(4)
	d.hold(w[1], 100, 105)
	require.Equal(t, []*Watcher{w[0], w[2], w[3]}, d.queue.waitingInOrder())
	d.stage(w[1], "HELD", 103)
	d.position(w[2], 2, 104)
	d.position(w[3], 3, 104)
	d.show(w[1], map[string]any{"id": "b2", "ticket": "Ab2", "status": "PENDING_ASSIGNMENT", "stage": "HELD"}, 110, 111)
	d.called(w[0], 200, 205)
	d.assigned(w[0], 202)
	d.position(w[2], 1, 203)
	d.position(w[3], 2, 203)

	d.comeBack(w[1], 300, 305)
	require.Equal(t, []*Watcher{w[1], w[2], w[3]}, d.queue.waitingInOrder(), "before those who joined later")
	position, minutes := 1, testMinutes
	d.queue.CheckReturn(w[1], client.Booking{ID: "b2", Stage: "WAITING", QueuePosition: &position, EstimatedWaitMinutes: &minutes})
	d.stage(w[1], "WAITING", 303)
	d.position(w[1], 1, 303)
	d.position(w[2], 2, 303)
	d.position(w[3], 3, 304)
	d.none()

	d.hold(w[1], 400, 405)
	d.queue.Confirm(d.queue.Leave(w[1], Canceled, "", d.at(500)), d.at(505))
	require.Equal(t, []*Watcher{w[2], w[3]}, d.queue.waitingInOrder())
	require.True(t, d.push(w[1], 502, map[string]any{"type": "MY_BOOKING_CANCELED"}))
	d.position(w[2], 1, 402)
	d.position(w[3], 2, 402)
	d.none()
	for _, x := range w[1:] {
		x.Finish()
	}
	d.none()
}

// A position may be true twice. A client that skips the state in between is correct if that
// state was short.
func TestAStateThatBecomesTrueAgainNeedsNoUpdate(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(2)
	d.hold(w[0], 100, 101)
	d.comeBack(w[0], 102, 103)
	w[1].OnDisconnect(d.at(testBound * 2)) // would report a client that is behind
	d.none()
	w[1].Finish()
	d.none()
}

func TestAHoldWithoutAnUpdateIsMissed(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(2)
	d.hold(w[0], 100, 101)
	d.comeBack(w[0], 102+testBound, 103+testBound)
	w[1].OnDisconnect(d.at(200 + testBound)) // kept at 2 while 1 was true, for longer than the bound
	d.faults(map[FaultKind]int64{Missed: 1})
}

func TestUpdatesOfHoldsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(d *queueTest, w []*Watcher)
		want map[FaultKind]int64
	}{
		"a position that counts the held": {func(d *queueTest, w []*Watcher) {
			d.hold(w[0], 100, 105)
			d.position(w[2], 3, 110)
		}, map[FaultKind]int64{Duplicate: 1}},
		"back at the end instead of its turn": {func(d *queueTest, w []*Watcher) {
			d.hold(w[0], 100, 105)
			d.stage(w[0], "HELD", 106)
			d.comeBack(w[0], 200, 205)
			d.position(w[0], 3, 206)
		}, map[FaultKind]int64{WrongPosition: 1}},
		"a return that says otherwise": {func(d *queueTest, w []*Watcher) {
			d.hold(w[0], 100, 105)
			d.comeBack(w[0], 200, 205)
			position, minutes := 3, 3*testMinutes
			d.queue.CheckReturn(w[0], client.Booking{Stage: "WAITING", QueuePosition: &position, EstimatedWaitMinutes: &minutes})
		}, map[FaultKind]int64{WrongPosition: 1}},
		"a hold that never was": {func(d *queueTest, w []*Watcher) {
			d.stage(w[0], "HELD", 100)
		}, map[FaultKind]int64{WrongPosition: 1}},
		"a hold told twice": {func(d *queueTest, w []*Watcher) {
			d.hold(w[0], 100, 105)
			d.stage(w[0], "HELD", 106)
			d.stage(w[0], "HELD", 107)
		}, map[FaultKind]int64{Duplicate: 1}},
		"a return that never was": {func(d *queueTest, w []*Watcher) {
			d.stage(w[0], "WAITING", 100)
		}, map[FaultKind]int64{WrongNews: 1}},
		"a snapshot with the place it had": {func(d *queueTest, w []*Watcher) {
			d.hold(w[0], 100, 105)
			d.snapshot(w[0], 1, 110, 111)
		}, map[FaultKind]int64{StaleSnapshot: 1}},
		"a snapshot that shows a place on hold": {func(d *queueTest, w []*Watcher) {
			d.hold(w[0], 100, 105)
			d.show(w[0], map[string]any{"id": "b1", "ticket": "Ab1", "stage": "HELD", "queuePosition": 1}, 110, 111)
		}, map[FaultKind]int64{Malformed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newQueueTest(t)
			c.do(d, d.joined(3))
			d.faults(c.want)
		})
	}
}

func TestRefusedHoldIsTakenBack(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(3)
	d.queue.Undo(w[0], d.queue.Hold(w[0], d.at(100)))
	require.Equal(t, w, d.queue.waitingInOrder())
	d.hold(w[0], 200, 205)
	d.queue.Undo(w[0], d.queue.Return(w[0], d.at(300)))
	require.Equal(t, w[1:], d.queue.waitingInOrder())
	d.stage(w[0], "HELD", 301)
	d.position(w[1], 1, 301)
	d.none()
}

func TestRecallsAreChecked(t *testing.T) {
	called := func(d *queueTest, w *Watcher, count, at int) {
		d.push(w, at, map[string]any{"type": "MY_BOOKING_CALLED", "recallCount": count, "ticket": w.ticket, "resourceId": "room"})
	}
	for name, c := range map[string]struct {
		told []int
		want map[FaultKind]int64
	}{
		"each once":    {[]int{1, 2}, nil},
		"only the new": {[]int{2}, nil},
		"one twice":    {[]int{1, 1, 2}, map[FaultKind]int64{Duplicate: 1}},
		"one too many": {[]int{1, 2, 3}, map[FaultKind]int64{WrongNews: 1}},
		"not the last": {[]int{1}, map[FaultKind]int64{Missed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newQueueTest(t)
			w := d.joined(1)[0]
			d.called(w, 100, 105)
			d.assigned(w, 106)
			for i := range 2 {
				d.queue.Confirm(d.queue.Recall(w, d.at(200+i)), d.at(201+i))
			}
			d.queue.Recall(w, d.at(203))
			d.queue.UndoRecall(w)
			for i, n := range c.told {
				called(d, w, n, 300+i)
			}
			d.queue.EndVisit(w, StageNoShow, d.at(400+testBound))
			require.True(t, d.push(w, 500+testBound, map[string]any{"type": "MY_BOOKING_ENDED", "stage": "NO_SHOW"}))
			w.Finish()
			d.faults(c.want)
		})
	}
}

func TestANoShowIsNoEnd(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(1)[0]
	d.called(w, 100, 105)
	d.assigned(w, 106)
	d.queue.EndVisit(w, StageNoShow, d.at(200))
	require.False(t, d.ended(w, 201))
	d.faults(map[FaultKind]int64{WrongNews: 1})
}

func TestWrongEstimateInAPush(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(2)
	d.called(w[0], 100, 105)
	d.push(w[1], 110, map[string]any{"type": "QUEUE_POSITION_UPDATED", "queuePosition": 1, "estimatedWaitMinutes": testMinutes + 1})
	d.faults(map[FaultKind]int64{WrongEstimate: 1})
}

func TestRefusedChangeIsTakenBack(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(3)
	c := d.queue.Leave(w[1], Assigned, "room", d.at(100))
	d.queue.Undo(w[1], c)
	require.Equal(t, w, d.queue.waitingInOrder())
	d.position(w[2], 2, 110)
	d.faults(map[FaultKind]int64{WrongPosition: 1})
	d.called(w[0], 200, 205)
	d.position(w[1], 1, 210)
	d.position(w[2], 2, 211)
	d.faults(map[FaultKind]int64{WrongPosition: 1})

	c = d.queue.Leave(w[1], Assigned, "room", d.at(300))
	d.position(w[2], 1, 301) // received before the server refused
	d.queue.Undo(w[1], c)
	d.faults(map[FaultKind]int64{WrongPosition: 2})
}

func TestProblemsAreBounded(t *testing.T) {
	d := newQueueTest(t)
	w := d.joined(1)[0]
	for range 100 {
		d.position(w, 9, 20)
	}
	d.faults(map[FaultKind]int64{WrongPosition: 100})
	require.Len(t, d.queue.tally.problems, report.MaxProblems)
}

// waitingInOrder returns the waiting patients in order.
func (q *Queue) waitingInOrder() []*Watcher {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.waiting)
}
