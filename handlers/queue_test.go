package handlers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestOneOfManyAssignsWins(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		var rooms []string
		for range 8 {
			rooms = append(rooms, c.NewResource(nil, kind))
		}
		id := c.Join(kind, nil).Str("id")
		won := 0
		var winner string
		for i, a := range nodetest.AtOnce(h, 64, func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/management/bookings/assign", Token: c.Key, Body: nodetest.Object{"bookingId": id, "resourceId": rooms[i%len(rooms)]}}
		}) {
			if a.Status == http.StatusOK {
				won, winner = won+1, rooms[i%len(rooms)]
				continue
			}
			a.Refused(http.StatusBadRequest, models.CodeAlreadyAssigned)
		}
		assert.Equal(t, 1, won)
		assert.Equal(t, winner, c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK().Str("result.resourceId"))
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM events WHERE booking_id = ? AND type = 'MY_BOOKING_ASSIGNED'", id))
	})
}

func TestConcurrentCallsGetDifferentPatients(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		rooms := []string{c.NewResource(nil, kind), c.NewResource(nil, kind), c.NewResource(nil, kind)}
		var waiting []string
		for range 70 {
			waiting = append(waiting, c.Join(kind, nil).Str("id"))
		}
		var called []string
		for _, a := range nodetest.AtOnce(h, 64, func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/management/queue/next", Token: c.Key, Body: nodetest.Object{"resourceId": rooms[i%len(rooms)]}}
		}) {
			called = append(called, a.OK().Str("result.id"))
			assert.Equal(t, "CONFIRMED", a.Str("result.status"))
			assert.Equal(t, "CALLED", a.Str("result.stage"))
		}
		slices.Sort(called)
		first := slices.Sorted(slices.Values(waiting[:64]))
		assert.Equal(t, first, called, "the first 64 who joined, each once")
		for i := range 6 {
			c.Next(rooms[0]).OK()
			_ = i
		}
		c.Next(rooms[0]).Refused(http.StatusNotFound, models.CodeQueueEmpty)
	})
}

func TestTicketsAreUnique(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kinds := []string{c.Serve(c.NewType(nodetest.Object{"prefix": "A"})), c.Serve(c.NewType(nil))}
		tickets := map[string]bool{}
		for _, a := range nodetest.AtOnce(h, 200, func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(kinds[i%2], nil)}
		}) {
			tickets[a.OK().Str("ticket")] = true
		}
		assert.Len(t, tickets, 200)
		assert.True(t, tickets["A001"] && tickets["A100"] && tickets["B001"] && tickets["B100"])
		// In the order of joining, tickets of a type count up.
		rows := c.Staff(http.MethodGet, "/management/bookings?dateType=createdAt&limit=500&orderDirection=asc", nil).OK().Pluck("result", "ticket")
		var of [2][]string
		for _, ticket := range rows {
			of[strings.Index("AB", ticket[:1])] = append(of[strings.Index("AB", ticket[:1])], ticket)
		}
		assert.True(t, slices.IsSorted(of[0]) && slices.IsSorted(of[1]), "%v", of)
	})
}

func TestUrgentPatientsComeFirst(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		var ids []string
		for _, priority := range []int{0, 5, 0, 100, 5} {
			ids = append(ids, c.Join(kind, nodetest.Object{"priority": priority}).Str("id"))
		}
		want := []string{ids[3], ids[1], ids[4], ids[0], ids[2]}
		assert.Equal(t, want, c.Staff(http.MethodGet, "/management/queue?resourceId="+room, nil).OK().Pluck("result", "id"))
		page := c.Staff(http.MethodGet, "/management/queue?limit=2&resourceId="+room, nil).OK()
		assert.Equal(t, 5, page.Num("total"), "a count is of all who wait, not of the page")
		assert.Equal(t, 5, c.Staff(http.MethodGet, "/management/queue?limit=4&resourceId="+room+"&nextPageToken="+page.Str("pagination.nextPageToken"), nil).OK().Num("total"))
		for i, id := range want {
			assert.Equal(t, 1, c.Position(id), "%d", i)
			assert.Equal(t, id, c.Next(room).OK().Str("result.id"))
		}
	})
}

func TestHeldPatientsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		a, b, d := c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")
		held := c.Act("hold", a, nil).OK()
		assert.Equal(t, "HELD", held.Str("result.stage"))
		assert.Nil(t, held.At("result.queuePosition"))
		assert.Equal(t, []int{0, 1, 2}, []int{c.Position(a), c.Position(b), c.Position(d)})
		c.Act("hold", a, nil).Refused(http.StatusConflict, models.CodeStage)
		assert.Equal(t, []string{a, b, d}, c.Staff(http.MethodGet, "/management/bookings/unassigned?resourceId="+room, nil).OK().Pluck("result", "id"))
		assert.Equal(t, []string{b, d}, c.Staff(http.MethodGet, "/management/queue?resourceId="+room, nil).OK().Pluck("result", "id"))
		assert.Equal(t, b, c.Next(room).OK().Str("result.id"), "who is held is passed over")
		assert.Equal(t, 1, c.Act("return", a, nil).OK().Num("result.queuePosition"))
		assert.Equal(t, []int{1, 2}, []int{c.Position(a), c.Position(d)})
		assert.Equal(t, a, c.Next(room).OK().Str("result.id"))
		c.Act("return", a, nil).Refused(http.StatusConflict, models.CodeStage)
	})
}

func TestRecallIsLimitedInTimeAndNumber(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		id := c.Join(kind, nil).Str("id")
		c.Act("recall", id, nil).Refused(http.StatusConflict, models.CodeStage)
		c.Next(room).OK()
		soon := c.Act("recall", id, nil).Refused(http.StatusConflict, models.CodeRecallTooSoon)
		assert.Regexp(t, `^([1-9]|[1-5]\d|60)$`, soon.Header.Get("Retry-After"))
		for n := range models.MaxRecalls {
			h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
			assert.Equal(t, n+1, c.Act("recall", id, nil).OK().Num("result.recallCount"))
		}
		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.Act("recall", id, nil).Refused(http.StatusConflict, models.CodeRecallLimit)
		assert.Equal(t, "NO_SHOW", c.Act("noShow", id, nil).OK().Str("result.stage"))
	})
}

func TestABookingInSeveralQueuesShowsItsBestPosition(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		blood, xray := c.NewType(nodetest.Object{"minutes": 10, "prefix": "B"}), c.NewType(nodetest.Object{"minutes": 30, "prefix": "X"})
		one, both := c.NewResource(nodetest.Object{"category": "lab"}, blood), c.NewResource(nodetest.Object{"category": "all"}, blood, xray)
		b1 := c.Join(blood, nil)
		assert.Equal(t, 1, b1.Num("queuePosition"))
		assert.Equal(t, 10, b1.Num("estimatedWaitMinutes"))
		assert.NotNil(t, b1.At("estimatedWait.likely"))
		x1 := c.Join(xray, nil)
		assert.Equal(t, 2, x1.Num("queuePosition"), "behind the blood test in the only room that does both")
		assert.Equal(t, 60, x1.Num("estimatedWaitMinutes"))
		// Only in the room of both: behind two there, though the lab has one only.
		b2 := c.Join(blood, nodetest.Object{"resourceFilters": nodetest.Object{"resource": both}})
		assert.Equal(t, 3, b2.Num("queuePosition"))
		b3 := c.Join(blood, nodetest.Object{"resourceFilters": nodetest.Object{"category": "lab"}})
		assert.Equal(t, 2, b3.Num("queuePosition"))
		b4 := c.Join(blood, nil)
		assert.Equal(t, 3, b4.Num("queuePosition"), "third in the lab, fourth in the other room")

		pending := func() map[string]int {
			counts := map[string]int{}
			a := c.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID}).OK()
			for i := range a.List("result") {
				counts[a.Str(fmt.Sprintf("result.%d.id", i))] = a.Num(fmt.Sprintf("result.%d.pendingCount", i))
			}
			return counts
		}
		assert.Equal(t, map[string]int{blood: 4, xray: 1}, pending())
		assert.Equal(t, b1.Str("id"), c.Next(one).OK().Str("result.id"))
		assert.Equal(t, map[string]int{blood: 3, xray: 1}, pending())
		assert.Equal(t, []int{1, 2, 1, 2}, []int{c.Position(x1.Str("id")), c.Position(b2.Str("id")), c.Position(b3.Str("id")), c.Position(b4.Str("id"))})
		c.Act("cancel", x1.Str("id"), nil).OK()
		assert.Equal(t, map[string]int{blood: 3, xray: 0}, pending())
		assert.Equal(t, 1, c.Position(b2.Str("id")))
		// A resource that begins to serve a type has its queue.
		late := c.NewResource(nil, blood)
		assert.Equal(t, []string{b4.Str("id")}, c.Staff(http.MethodGet, "/management/queue?resourceId="+late, nil).OK().Pluck("result", "id"))
		require.Eventually(t, func() bool { return c.Position(b4.Str("id")) == 1 }, nodetest.Patience, 10*time.Millisecond)
	})
}

func TestTimeoutIsClampedAndExpires(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		minutes := func(a nodetest.Response) float64 {
			from, err := time.Parse(time.RFC3339Nano, a.Str("createdAt"))
			require.NoError(t, err)
			to, err := time.Parse(time.RFC3339Nano, a.Str("expiresAt"))
			require.NoError(t, err)
			return to.Sub(from).Minutes()
		}
		for asked, want := range map[any]float64{-3: 5, 0: 5, 5: 5, 5.5: 5, 30: 30, 180: 180, 100000: 180, 1e300: 180, nil: 180} {
			more := nodetest.Object{}
			if asked != nil {
				more["assignmentTimeout"] = asked
			}
			assert.InDelta(t, want, minutes(c.Join(kind, more)), 0.001, "asked for %v", asked)
		}
		short := c.NewType(nodetest.Object{"queueTimeoutMinutes": 45})
		assert.Equal(t, 45, c.Staff(http.MethodGet, "/management/types/"+short, nil).OK().Num("result.queueTimeoutMinutes"))
		assert.InDelta(t, 45, minutes(c.Join(short, nil)), 0.001, "that of the type, where none is asked for")
		assert.InDelta(t, 60, minutes(c.Join(short, nodetest.Object{"assignmentTimeout": 60})), 0.001)
		gone, behind := c.Join(kind, nodetest.Object{"priority": 50}).Str("id"), c.Join(kind, nodetest.Object{"priority": 40}).Str("id")
		assert.Equal(t, 2, c.Position(behind))
		h.Exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), gone)
		require.Eventually(t, func() bool {
			return c.Staff(http.MethodGet, "/management/bookings/"+gone, nil).OK().Str("result.status") == "REJECTED"
		}, nodetest.Patience, 10*time.Millisecond)
		require.Eventually(t, func() bool { return c.Position(behind) == 1 }, nodetest.Patience, 10*time.Millisecond)
		c.Act("assign", gone, nodetest.Object{"resourceId": room}).Refused(http.StatusBadRequest, models.CodeExpired)
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM events WHERE booking_id = ? AND type = 'MY_BOOKING_EXPIRED'", gone))
	})
}

func TestAPausedQueueRefusesCalls(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		c.Join(kind, nil)
		assert.Equal(t, true, c.Staff(http.MethodPost, "/management/queue/pause", nodetest.Object{"resourceId": room}).OK().At("result.paused"))
		c.Next(room).Refused(http.StatusConflict, models.CodeQueuePaused)
		// A change of something else does not resume it.
		assert.Equal(t, true, c.Staff(http.MethodPut, "/management/resources/"+room, nodetest.Object{"category": "x"}).OK().At("result.paused"))
		assert.Equal(t, false, c.Staff(http.MethodPost, "/management/queue/resume", nodetest.Object{"resourceId": room}).OK().At("result.paused"))
		c.Next(room).OK()
	})
}

func TestVisitShowsRealTimes(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 20})
		room := c.NewResource(nodetest.Object{"name": "Room 1", "name_translations": nodetest.Object{"en": "Room 1", "ar": "غرفة ١"}}, kind)
		joined := c.Join(kind, nil)
		id := joined.Str("id")
		assert.Equal(t, 20, joined.Num("duration"))
		assert.Nil(t, joined.At("startDateTime"))
		c.Next(room).OK()
		c.Act("start", id, nil).OK()
		at := time.Date(2026, 3, 1, 21, 5, 0, 0, time.UTC) // five past midnight in Riyadh
		h.Exec("UPDATE bookings SET called_at = ?, last_called_at = ?, started_at = ? WHERE id = ?", at.Add(-time.Minute), at.Add(-time.Minute), at, id)
		serving := c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK()
		assert.Equal(t, "2026-03-02", serving.Str("result.startDate"))
		assert.Equal(t, 5, serving.Num("result.startTime"))
		assert.Equal(t, "2026-03-01T21:05:00.000Z", serving.Str("result.startDateTime"))
		assert.Equal(t, "2026-03-01T21:25:00.000Z", serving.Str("result.endDateTime"))
		assert.Equal(t, 20, serving.Num("result.duration"))
		c.Act("cancel", id, nil).Refused(http.StatusConflict, models.CodeStage)
		c.Act("end", id, nil).OK()
		h.Exec("UPDATE bookings SET ended_at = ? WHERE id = ?", at.Add(7*time.Minute+time.Second), id)
		done := c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/bookings/" + id, Token: c.Key, Lang: "ar"}).OK()
		assert.Equal(t, "DONE", done.Str("result.stage"))
		assert.Equal(t, 8, done.Num("result.duration"))
		assert.Equal(t, "2026-03-01T21:12:01.000Z", done.Str("result.endDateTime"))
		assert.Equal(t, "غرفة ١", done.Str("result.resource.name"))
		assert.Equal(t, "غرفة ١", done.Str("result.display.resource"))
		assert.Equal(t, "مؤكد", done.Str("result.display.status"))
		c.Act("end", id, nil).Refused(http.StatusConflict, models.CodeStage)
		// A deleted room or type keeps its name on past bookings.
		c.Staff(http.MethodDelete, "/management/resources/"+room, nil).OK()
		c.Staff(http.MethodDelete, "/management/types/"+kind, nil).OK()
		past := c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK()
		assert.Equal(t, "Room 1", past.Str("result.resource.name"))
		assert.Equal(t, "General", past.Str("result.type.name"))
		later := c.NewType(nodetest.Object{"name": "Later"})
		c.NewResource(nil, later)
		c.Join(later, nil)
		assert.Equal(t, []string{"Later", "General"}, c.Staff(http.MethodGet, "/management/bookings", nil).OK().Pluck("result", "display.type"))
	})
}

// A booking that waits over midnight keeps its number, and no booking of the new
// day gets the same. A change of time zone makes it another day.
func TestTicketsOfWaitingPatientsDifferAfterMidnight(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		move := func(zone string) {
			h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey, Body: nodetest.Object{"timezone": zone}}).OK()
		}
		move("Pacific/Kiritimati") // 14 hours ahead of UTC
		waiting := []nodetest.Response{c.Join(kind, nil), c.Join(kind, nil), c.Join(kind, nil)}
		c.Act("cancel", waiting[1].Str("id"), nil).OK()
		c.Act("hold", waiting[2].Str("id"), nil).OK()
		move("Pacific/Pago_Pago") // 11 hours behind it: always another day
		tickets := []string{c.Join(kind, nil).Str("ticket"), c.Join(kind, nil).Str("ticket"), c.Join(kind, nil).Str("ticket")}
		assert.Equal(t, []string{"A001", "A003"}, []string{waiting[0].Str("ticket"), waiting[2].Str("ticket")})
		assert.Equal(t, []string{"A002", "A004", "A005"}, tickets)
		move("Pacific/Kiritimati")
		assert.Equal(t, "A006", c.Join(kind, nil).Str("ticket"))
	})
}

// A type is deleted while people join it: either the deletion is refused, or every
// later join is. No booking waits that no resource can call.
func TestADeletedTypeTakesNoJoins(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		deleted := 0
		for range 25 {
			kind := c.Serve(c.NewType(nil))
			answers := nodetest.AtOnce(h, 7, func(i int) nodetest.Request {
				if i == 3 {
					return nodetest.Request{Method: http.MethodDelete, Path: "/management/types/" + kind, Token: c.Key}
				}
				return nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(kind, nil)}
			})
			waiting := nodetest.Scalar[int](h, "SELECT COUNT(*) FROM bookings WHERE type_id = '"+kind+"' AND stage = 'WAITING'")
			joined := 0
			for i, a := range answers {
				switch {
				case i == 3 && a.Status == http.StatusOK:
					deleted++
					assert.Zero(t, waiting)
				case i == 3:
					a.Refused(http.StatusConflict, models.CodeTypeInUse)
				case a.Status == http.StatusOK:
					joined++
				default:
					a.Refused(http.StatusNotFound, models.CodeTypeMissing)
				}
			}
			assert.Equal(t, joined, waiting)
		}
		t.Logf("%d of 25 types were deleted", deleted)
	})
}
