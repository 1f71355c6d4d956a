package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/notify/webhook"
)

func TestACallIsTakenBack(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		for _, trigger := range []webhook.Trigger{webhook.TriggerBookingCalled, webhook.TriggerBookingReturned, webhook.TriggerNewAppointment} {
			c.hook(string(trigger), r.url, nil)
		}
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		first, second := c.join(kind, nil), c.join(kind, nil).str("id")
		id := first.str("id")
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()
		_, display, err := h.watch(screen.str("result.token"), "display:"+screen.str("result.id"))
		require.NoError(t, err)
		_, ticket, err := h.watch(first.str("ticketToken"), "booking:"+id)
		require.NoError(t, err)
		deadline := scalar[time.Time](h, "SELECT assignment_deadline FROM bookings WHERE id = ?", id)

		until := c.next(room).ok().str("result.undoUntil")
		assert.WithinDuration(t, time.Now().Add(models.UndoWindow), moment(t, until), 15*time.Second)
		nextOf(t, ticket, "MY_BOOKING_ASSIGNED")
		nextOf(t, display, "NOW_SERVING")

		back := c.act("undo", id, nil).ok()
		assert.Equal(t, "PENDING_ASSIGNMENT", back.str("result.status"))
		assert.Equal(t, "WAITING", back.str("result.stage"))
		assert.Equal(t, first.str("ticket"), back.str("result.ticket"))
		assert.Equal(t, 1, back.num("result.queuePosition"))
		for _, gone := range []string{"resourceId", "calledAt", "undoUntil"} {
			assert.NotContains(t, back.members("result"), gone)
		}
		assert.Equal(t, 2, c.position(second))
		assert.True(t, scalar[time.Time](h, "SELECT assignment_deadline FROM bookings WHERE id = ?", id).After(deadline),
			"the time as called does not count against the patient")
		assert.Equal(t, "WAITING", at(nextOf(t, ticket, "BOOKING_UPDATED"), "stage"))
		nextOf(t, ticket, "QUEUE_POSITION_UPDATED")
		for state := nextOf(t, display, "DISPLAY_UPDATED"); ; state = nextOf(t, display, "DISPLAY_UPDATED") {
			if lines, _ := at(state, "lastCalled").([]any); len(lines) == 0 {
				break // the screen shows no call that never was
			}
		}

		t.Log("the next call is a call like any other")
		assert.Equal(t, id, c.next(room).ok().str("result.id"))
		nextOf(t, ticket, "MY_BOOKING_ASSIGNED")
		nextOf(t, display, "NOW_SERVING")
		c.act("start", id, nil).ok()
		c.act("undo", id, nil).ok()
		visit := c.schedule(kind, 1000, nil).ok().str("id")
		c.act("cancel", visit, nil).ok()
		c.act("undo", visit, nil).ok()
		var told []string
		for _, a := range r.await(6) {
			undone, _ := at(a.body, "data.undone").(string)
			told = append(told, strings.TrimSpace(a.trigger()+" "+undone))
		}
		assert.ElementsMatch(t, []string{
			"bookingCalled", "bookingReturned assign", "bookingCalled", "bookingCalled start", "newAppointment", "newAppointment cancel",
		}, told, "receivers can tell a step that is taken back")
		assert.Equal(t, []string{
			"join by organization", "assign by organization", "undo by organization", "assign by organization", "start by organization", "undo by organization",
		}, c.auditOf(id))
	})
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return m
}

// Each step is taken back to what was there before it, the version apart.
func TestEveryStepIsTakenBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		room := c.newResource(nil, kind)
		queued := func(verbs ...string) string {
			id := c.join(kind, nil).ok().str("id")
			for _, verb := range verbs {
				if verb == "assign" {
					c.act(verb, id, object{"resourceId": room}).ok()
					continue
				}
				c.act(verb, id, nil).ok()
			}
			return id
		}
		for name, step := range map[string]struct {
			id, verb string
		}{
			"assign what waits":      {queued(), "assign"},
			"assign what is on hold": {queued("hold"), "assign"},
			"start":                  {queued("assign"), "start"},
			"end when called":        {queued("assign"), "end"},
			"end when served":        {queued("assign", "start"), "end"},
			"no-show":                {queued("assign"), "noShow"},
			"hold":                   {queued(), "hold"},
			"return":                 {queued("hold"), "return"},
			"cancel what waits":      {queued(), "cancel"},
			"cancel what is called":  {queued("assign"), "cancel"},
			"start an appointment":   {c.schedule(kind, 1000, nil).ok().str("id"), "start"},
			"miss an appointment":    {c.schedule(kind, 1100, nil).ok().str("id"), "noShow"},
			"cancel an appointment":  {c.schedule(kind, 1200, nil).ok().str("id"), "cancel"},
		} {
			see := func() object {
				view := c.staff(http.MethodGet, "/management/bookings/"+step.id, nil).ok().members("result")
				// How many wait changes with every step of the others.
				for _, moving := range []string{"version", "undoUntil", "expiresAt", "queuePosition", "estimatedWaitMinutes", "estimatedWait"} {
					delete(view, moving)
				}
				return view
			}
			reminder := func() string {
				return scalar[string](h, "SELECT reminder_next FROM bookings WHERE id = ?", step.id)
			}
			before, next := see(), reminder()
			var more object
			if step.verb == "assign" {
				more = object{"resourceId": room}
			}
			c.act(step.verb, step.id, more).ok()
			assert.NotEqual(t, before, see(), name)
			c.act("undo", step.id, nil).ok()
			assert.Equal(t, before, see(), name)
			assert.Equal(t, next, reminder(), name)
			events := h.eventsOf(step.id)
			assert.Equal(t, step.verb, string(events[len(events)-1].Undone), name)
			c.act("undo", step.id, nil).refused(http.StatusConflict, models.CodeNothingToUndo)
		}
	})
}

func TestWhatCannotBeTakenBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		room := c.newResource(nil, kind)
		refused := func(id string) {
			t.Helper()
			c.act("undo", id, nil).refused(http.StatusConflict, models.CodeNothingToUndo)
		}
		id := c.join(kind, nil).str("id")
		refused(id) // a patient joined; nobody did anything to the booking

		c.next(room).ok()
		h.exec("UPDATE bookings SET undo_until = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), id)
		refused(id) // half a minute is over

		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.act("recall", id, nil).ok()
		refused(id) // the whole room has heard it

		mine := c.patient("+966500000091")
		own := c.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: mine, app: c.id, body: object{"type": kind, "assign": false}}).ok().str("result.id")
		c.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: mine, app: c.id, body: object{"bookingId": own}}).ok()
		refused(own) // the patient left

		c.schedule(kind, 1000, nil).ok()
		moved := c.schedule(kind, 1100, nil).ok().str("id")
		c.schedule(kind, 1200, object{"rescheduleBookingId": moved}).ok()
		refused(moved) // another has taken its place

		given := c.schedule(kind, 1400, nil).ok().str("id")
		c.act("cancel", given, nil).ok()
		c.schedule(kind, 1400, nil).ok()
		c.act("undo", given, nil).refused(http.StatusConflict, models.CodeSlotTaken)

		gone := c.newType(nil)
		lone := c.newResource(nil, gone)
		stranded := c.join(gone, nil).str("id")
		c.next(lone).ok()
		c.staff(http.MethodDelete, "/management/types/"+gone, nil).ok()
		c.act("undo", stranded, nil).refused(http.StatusNotFound, models.CodeTypeMissing) // nobody could call them
		assert.Equal(t, "CALLED", c.staff(http.MethodGet, "/management/bookings/"+stranded, nil).ok().str("result.stage"))

		for _, verb := range []string{"cancel", "noShow"} {
			leaving := c.newType(nil)
			closing := c.newResource(nil, leaving)
			visit := c.schedule(leaving, 1000, nil).ok().str("id")
			c.act(verb, visit, nil).ok()
			c.staff(http.MethodDelete, "/management/resources/"+closing, nil).ok()
			c.act("undo", visit, nil).refused(http.StatusNotFound, models.CodeResourceMissing)
			c.staff(http.MethodDelete, "/management/types/"+leaving, nil).ok()
			c.act("undo", visit, nil).refused(http.StatusNotFound, models.CodeTypeMissing)
		}

		elsewhere := h.newClinic()
		held := c.join(kind, nil).str("id")
		c.act("hold", held, nil).ok()
		elsewhere.act("undo", held, nil).refused(http.StatusNotFound, models.CodeBookingNotFound)
	})
}

func TestOneOfManyUndoesWins(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		id := c.join(kind, nil).str("id")
		c.next(room).ok()
		won := 0
		for _, a := range h.atOnce(32, func(int) request {
			return request{method: http.MethodPost, path: "/management/bookings/undo", token: c.key, body: object{"bookingId": id}}
		}) {
			if a.status == http.StatusOK {
				won++
				continue
			}
			a.refused(http.StatusConflict, models.CodeNothingToUndo)
		}
		assert.Equal(t, 1, won)
	})
}
