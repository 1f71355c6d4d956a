package handlers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// atOnce makes n requests at the same moment.
func (h *house) atOnce(n int, of func(i int) request) []answer {
	h.t.Helper()
	answers, errs := make([]answer, n), make([]error, n)
	gate := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-gate
			answers[i], errs[i] = h.try(of(i))
		})
	}
	close(gate)
	all.Wait()
	for _, err := range errs {
		require.NoError(h.t, err)
	}
	return answers
}

func TestOneOfManyAssignsWins(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		var rooms []string
		for range 8 {
			rooms = append(rooms, c.newResource(nil, kind))
		}
		id := c.join(kind, nil).str("id")
		won := 0
		var winner string
		for i, a := range h.atOnce(64, func(i int) request {
			return request{method: http.MethodPost, path: "/management/bookings/assign", token: c.key, body: object{"bookingId": id, "resourceId": rooms[i%len(rooms)]}}
		}) {
			if a.status == http.StatusOK {
				won, winner = won+1, rooms[i%len(rooms)]
				continue
			}
			a.refused(http.StatusBadRequest, models.CodeAlreadyAssigned)
		}
		assert.Equal(t, 1, won)
		assert.Equal(t, winner, c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok().str("result.resourceId"))
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM events WHERE booking_id = ? AND type = 'MY_BOOKING_ASSIGNED'", id))
	})
}

func TestManyWhoCallNextGetDifferentPatients(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		rooms := []string{c.newResource(nil, kind), c.newResource(nil, kind), c.newResource(nil, kind)}
		var waiting []string
		for range 70 {
			waiting = append(waiting, c.join(kind, nil).str("id"))
		}
		var called []string
		for _, a := range h.atOnce(64, func(i int) request {
			return request{method: http.MethodPost, path: "/management/queue/next", token: c.key, body: object{"resourceId": rooms[i%len(rooms)]}}
		}) {
			called = append(called, a.ok().str("result.id"))
			assert.Equal(t, "CONFIRMED", a.str("result.status"))
			assert.Equal(t, "CALLED", a.str("result.stage"))
		}
		slices.Sort(called)
		first := slices.Sorted(slices.Values(waiting[:64]))
		assert.Equal(t, first, called, "the first 64 who joined, each once")
		for i := range 6 {
			c.next(rooms[0]).ok()
			_ = i
		}
		c.next(rooms[0]).refused(http.StatusNotFound, models.CodeQueueEmpty)
	})
}

func TestTicketsAreUnique(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kinds := []string{c.serve(c.newType(object{"prefix": "A"})), c.serve(c.newType(nil))}
		tickets := map[string]bool{}
		for _, a := range h.atOnce(200, func(i int) request {
			return request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kinds[i%2], nil)}
		}) {
			tickets[a.ok().str("ticket")] = true
		}
		assert.Len(t, tickets, 200)
		assert.True(t, tickets["A001"] && tickets["A100"] && tickets["B001"] && tickets["B100"])
		// In the order of joining, tickets of a type count up.
		rows := c.staff(http.MethodGet, "/management/bookings?dateType=createdAt&limit=500&orderDirection=asc", nil).ok().pluck("result", "ticket")
		var of [2][]string
		for _, ticket := range rows {
			of[strings.Index("AB", ticket[:1])] = append(of[strings.Index("AB", ticket[:1])], ticket)
		}
		assert.True(t, slices.IsSorted(of[0]) && slices.IsSorted(of[1]), "%v", of)
	})
}

func TestUrgentPatientsComeFirst(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		var ids []string
		for _, priority := range []int{0, 5, 0, 100, 5} {
			ids = append(ids, c.join(kind, object{"priority": priority}).str("id"))
		}
		want := []string{ids[3], ids[1], ids[4], ids[0], ids[2]}
		assert.Equal(t, want, c.staff(http.MethodGet, "/management/queue?resourceId="+room, nil).ok().pluck("result", "id"))
		page := c.staff(http.MethodGet, "/management/queue?limit=2&resourceId="+room, nil).ok()
		assert.Equal(t, 5, page.num("total"), "a count is of all who wait, not of the page")
		assert.Equal(t, 5, c.staff(http.MethodGet, "/management/queue?limit=4&resourceId="+room+"&nextPageToken="+page.str("pagination.nextPageToken"), nil).ok().num("total"))
		for i, id := range want {
			assert.Equal(t, 1, c.position(id), "%d", i)
			assert.Equal(t, id, c.next(room).ok().str("result.id"))
		}
	})
}

func TestHeldPatientsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		a, b, d := c.join(kind, nil).str("id"), c.join(kind, nil).str("id"), c.join(kind, nil).str("id")
		held := c.act("hold", a, nil).ok()
		assert.Equal(t, "HELD", held.str("result.stage"))
		assert.Nil(t, held.at("result.queuePosition"))
		assert.Equal(t, []int{0, 1, 2}, []int{c.position(a), c.position(b), c.position(d)})
		c.act("hold", a, nil).refused(http.StatusConflict, models.CodeStage)
		assert.Equal(t, []string{a, b, d}, c.staff(http.MethodGet, "/management/bookings/unassigned?resourceId="+room, nil).ok().pluck("result", "id"))
		assert.Equal(t, []string{b, d}, c.staff(http.MethodGet, "/management/queue?resourceId="+room, nil).ok().pluck("result", "id"))
		assert.Equal(t, b, c.next(room).ok().str("result.id"), "who is held is passed over")
		assert.Equal(t, 1, c.act("return", a, nil).ok().num("result.queuePosition"))
		assert.Equal(t, []int{1, 2}, []int{c.position(a), c.position(d)})
		assert.Equal(t, a, c.next(room).ok().str("result.id"))
		c.act("return", a, nil).refused(http.StatusConflict, models.CodeStage)
	})
}

func TestRecallWaitsAndEnds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		id := c.join(kind, nil).str("id")
		c.act("recall", id, nil).refused(http.StatusConflict, models.CodeStage)
		c.next(room).ok()
		soon := c.act("recall", id, nil).refused(http.StatusConflict, models.CodeRecallTooSoon)
		assert.Regexp(t, `^([1-9]|[1-5]\d|60)$`, soon.header.Get("Retry-After"))
		for n := range models.MaxRecalls {
			h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
			assert.Equal(t, n+1, c.act("recall", id, nil).ok().num("result.recallCount"))
		}
		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.act("recall", id, nil).refused(http.StatusConflict, models.CodeRecallLimit)
		assert.Equal(t, "NO_SHOW", c.act("noShow", id, nil).ok().str("result.stage"))
	})
}

func TestPositionsOverSeveralQueues(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		blood, xray := c.newType(object{"minutes": 10, "prefix": "B"}), c.newType(object{"minutes": 30, "prefix": "X"})
		one, both := c.newResource(object{"category": "lab"}, blood), c.newResource(object{"category": "all"}, blood, xray)
		b1 := c.join(blood, nil)
		assert.Equal(t, 1, b1.num("queuePosition"))
		assert.Equal(t, 10, b1.num("estimatedWaitMinutes"))
		assert.NotNil(t, b1.at("estimatedWait.likely"))
		x1 := c.join(xray, nil)
		assert.Equal(t, 2, x1.num("queuePosition"), "behind the blood test in the only room that does both")
		assert.Equal(t, 60, x1.num("estimatedWaitMinutes"))
		// Only in the room of both: behind two there, though the lab has one only.
		b2 := c.join(blood, object{"resourceFilters": object{"resource": both}})
		assert.Equal(t, 3, b2.num("queuePosition"))
		b3 := c.join(blood, object{"resourceFilters": object{"category": "lab"}})
		assert.Equal(t, 2, b3.num("queuePosition"))
		b4 := c.join(blood, nil)
		assert.Equal(t, 3, b4.num("queuePosition"), "third in the lab, fourth in the other room")

		pending := func() map[string]int {
			counts := map[string]int{}
			a := c.send(request{method: http.MethodPost, path: "/availability/types", app: c.id}).ok()
			for i := range a.list("result") {
				counts[a.str(fmt.Sprintf("result.%d.id", i))] = a.num(fmt.Sprintf("result.%d.pendingCount", i))
			}
			return counts
		}
		assert.Equal(t, map[string]int{blood: 4, xray: 1}, pending())
		assert.Equal(t, b1.str("id"), c.next(one).ok().str("result.id"))
		assert.Equal(t, map[string]int{blood: 3, xray: 1}, pending())
		assert.Equal(t, []int{1, 2, 1, 2}, []int{c.position(x1.str("id")), c.position(b2.str("id")), c.position(b3.str("id")), c.position(b4.str("id"))})
		c.act("cancel", x1.str("id"), nil).ok()
		assert.Equal(t, map[string]int{blood: 3, xray: 0}, pending())
		assert.Equal(t, 1, c.position(b2.str("id")))
		// A resource that begins to serve a type has its queue.
		late := c.newResource(nil, blood)
		assert.Equal(t, []string{b4.str("id")}, c.staff(http.MethodGet, "/management/queue?resourceId="+late, nil).ok().pluck("result", "id"))
		require.Eventually(t, func() bool { return c.position(b4.str("id")) == 1 }, patience, 10*time.Millisecond)
	})
}

func TestTimeoutIsClampedAndExpires(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		minutes := func(a answer) float64 {
			from, err := time.Parse(time.RFC3339Nano, a.str("createdAt"))
			require.NoError(t, err)
			to, err := time.Parse(time.RFC3339Nano, a.str("expiresAt"))
			require.NoError(t, err)
			return to.Sub(from).Minutes()
		}
		for asked, want := range map[any]float64{-3: 5, 0: 5, 5: 5, 5.5: 5, 30: 30, 180: 180, 100000: 180, 1e300: 180, nil: 180} {
			more := object{}
			if asked != nil {
				more["assignmentTimeout"] = asked
			}
			assert.InDelta(t, want, minutes(c.join(kind, more)), 0.001, "asked for %v", asked)
		}
		short := c.newType(object{"queueTimeoutMinutes": 45})
		assert.Equal(t, 45, c.staff(http.MethodGet, "/management/types/"+short, nil).ok().num("result.queueTimeoutMinutes"))
		assert.InDelta(t, 45, minutes(c.join(short, nil)), 0.001, "that of the type, where none is asked for")
		assert.InDelta(t, 60, minutes(c.join(short, object{"assignmentTimeout": 60})), 0.001)
		gone, behind := c.join(kind, object{"priority": 50}).str("id"), c.join(kind, object{"priority": 40}).str("id")
		assert.Equal(t, 2, c.position(behind))
		h.exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), gone)
		require.Eventually(t, func() bool {
			return c.staff(http.MethodGet, "/management/bookings/"+gone, nil).ok().str("result.status") == "REJECTED"
		}, patience, 10*time.Millisecond)
		require.Eventually(t, func() bool { return c.position(behind) == 1 }, patience, 10*time.Millisecond)
		c.act("assign", gone, object{"resourceId": room}).refused(http.StatusBadRequest, models.CodeExpired)
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM events WHERE booking_id = ? AND type = 'MY_BOOKING_EXPIRED'", gone))
	})
}

func TestPausedQueueCallsNobody(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		c.join(kind, nil)
		assert.Equal(t, true, c.staff(http.MethodPost, "/management/queue/pause", object{"resourceId": room}).ok().at("result.paused"))
		c.next(room).refused(http.StatusConflict, models.CodeQueuePaused)
		// A change of something else does not resume it.
		assert.Equal(t, true, c.staff(http.MethodPut, "/management/resources/"+room, object{"category": "x"}).ok().at("result.paused"))
		assert.Equal(t, false, c.staff(http.MethodPost, "/management/queue/resume", object{"resourceId": room}).ok().at("result.paused"))
		c.next(room).ok()
	})
}

func TestVisitShowsRealTimes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 20})
		room := c.newResource(object{"name": "Room 1", "name_translations": object{"en": "Room 1", "ar": "غرفة ١"}}, kind)
		joined := c.join(kind, nil)
		id := joined.str("id")
		assert.Equal(t, 20, joined.num("duration"))
		assert.Nil(t, joined.at("startDateTime"))
		c.next(room).ok()
		c.act("start", id, nil).ok()
		at := time.Date(2026, 3, 1, 21, 5, 0, 0, time.UTC) // five past midnight in Riyadh
		h.exec("UPDATE bookings SET called_at = ?, last_called_at = ?, started_at = ? WHERE id = ?", at.Add(-time.Minute), at.Add(-time.Minute), at, id)
		serving := c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok()
		assert.Equal(t, "2026-03-02", serving.str("result.startDate"))
		assert.Equal(t, 5, serving.num("result.startTime"))
		assert.Equal(t, "2026-03-01T21:05:00.000Z", serving.str("result.startDateTime"))
		assert.Equal(t, "2026-03-01T21:25:00.000Z", serving.str("result.endDateTime"))
		assert.Equal(t, 20, serving.num("result.duration"))
		c.act("cancel", id, nil).refused(http.StatusConflict, models.CodeStage)
		c.act("end", id, nil).ok()
		h.exec("UPDATE bookings SET ended_at = ? WHERE id = ?", at.Add(7*time.Minute+time.Second), id)
		done := c.send(request{method: http.MethodGet, path: "/management/bookings/" + id, token: c.key, lang: "ar"}).ok()
		assert.Equal(t, "DONE", done.str("result.stage"))
		assert.Equal(t, 8, done.num("result.duration"))
		assert.Equal(t, "2026-03-01T21:12:01.000Z", done.str("result.endDateTime"))
		assert.Equal(t, "غرفة ١", done.str("result.resource.name"))
		assert.Equal(t, "غرفة ١", done.str("result.display.resource"))
		assert.Equal(t, "مؤكد", done.str("result.display.status"))
		c.act("end", id, nil).refused(http.StatusConflict, models.CodeStage)
		// A deleted room or type keeps its name on past bookings.
		c.staff(http.MethodDelete, "/management/resources/"+room, nil).ok()
		c.staff(http.MethodDelete, "/management/types/"+kind, nil).ok()
		past := c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok()
		assert.Equal(t, "Room 1", past.str("result.resource.name"))
		assert.Equal(t, "General", past.str("result.type.name"))
		later := c.newType(object{"name": "Later"})
		c.newResource(nil, later)
		c.join(later, nil)
		assert.Equal(t, []string{"Later", "General"}, c.staff(http.MethodGet, "/management/bookings", nil).ok().pluck("result", "display.type"))
	})
}

// A booking that waits over midnight keeps its number, and no booking of the new
// day gets the same. A change of time zone makes it another day.
func TestTicketsDifferAmongThoseWhoAreHere(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		move := func(zone string) {
			h.send(request{method: http.MethodPut, path: "/management/organizations/" + c.id, token: bootstrapKey, body: object{"timezone": zone}}).ok()
		}
		move("Pacific/Kiritimati") // 14 hours ahead of UTC
		waiting := []answer{c.join(kind, nil), c.join(kind, nil), c.join(kind, nil)}
		c.act("cancel", waiting[1].str("id"), nil).ok()
		c.act("hold", waiting[2].str("id"), nil).ok()
		move("Pacific/Pago_Pago") // 11 hours behind it: always another day
		tickets := []string{c.join(kind, nil).str("ticket"), c.join(kind, nil).str("ticket"), c.join(kind, nil).str("ticket")}
		assert.Equal(t, []string{"A001", "A003"}, []string{waiting[0].str("ticket"), waiting[2].str("ticket")})
		assert.Equal(t, []string{"A002", "A004", "A005"}, tickets)
		move("Pacific/Kiritimati")
		assert.Equal(t, "A006", c.join(kind, nil).str("ticket"))
	})
}

// A type is deleted while people join it: either the deletion is refused, or every
// later join is. No booking waits that no resource can call.
func TestADeletedTypeTakesNoJoins(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		deleted := 0
		for range 25 {
			kind := c.serve(c.newType(nil))
			answers := h.atOnce(7, func(i int) request {
				if i == 3 {
					return request{method: http.MethodDelete, path: "/management/types/" + kind, token: c.key}
				}
				return request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kind, nil)}
			})
			waiting := scalar[int](h, "SELECT COUNT(*) FROM bookings WHERE type_id = '"+kind+"' AND stage = 'WAITING'")
			joined := 0
			for i, a := range answers {
				switch {
				case i == 3 && a.status == http.StatusOK:
					deleted++
					assert.Zero(t, waiting)
				case i == 3:
					a.refused(http.StatusConflict, models.CodeTypeInUse)
				case a.status == http.StatusOK:
					joined++
				default:
					a.refused(http.StatusNotFound, models.CodeTypeMissing)
				}
			}
			assert.Equal(t, joined, waiting)
		}
		t.Logf("%d of 25 types were deleted", deleted)
	})
}
