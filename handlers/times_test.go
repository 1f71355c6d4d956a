package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// rule is a time rule on every day of the week.
func rule(from, to int) nodetest.Object {
	return nodetest.Object{"weekdays": []int{0, 1, 2, 3, 4, 5, 6}, "slots": []any{nodetest.Object{"from": from, "to": to}}}
}

// times returns the free times of a day as military times.
func times(c *nodetest.Clinic, typeID, date string, more nodetest.Object) []int {
	c.T.Helper()
	body := nodetest.Object{"type": typeID, "from": date, "to": date}
	for k, v := range more {
		body[k] = v
	}
	a := c.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/times", App: c.ID, Body: body}).OK()
	out := []int{}
	for _, day := range a.List("result") {
		require.Equal(c.T, date, nodetest.At(day, "date"))
		list, _ := nodetest.At(day, "times").([]any)
		for _, t := range list {
			number, _ := nodetest.At(t, "time").(float64)
			out = append(out, int(number))
		}
	}
	return out
}

func TestTimes_FollowRulesBuffersAndOtherAppointments(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 60})
		room := c.NewResource(nil, visit)
		day := nodetest.Day(3)
		set := func(path string, rules ...any) {
			t.Helper()
			c.Staff(http.MethodPut, "/management/timeRules"+path, nodetest.Object{"rules": rules}).OK()
		}
		set("", rule(900, 1700))
		assert.Equal(t, []int{900, 1000, 1100, 1200, 1300, 1400, 1500, 1600}, times(c, visit, day, nil))
		set("/"+room, rule(1000, 1200))
		assert.Equal(t, []int{1000, 1100}, times(c, visit, day, nil), "a resource's own rules replace the organization's")
		assert.Equal(t, []int{1000, 1030, 1100}, times(c, visit, day, nodetest.Object{"showHalfHour": true}))
		assert.Equal(t, []int{1010, 1050}, times(c, visit, day, nodetest.Object{"showOclock": false, "showSixthHour": true}))
		assert.Equal(t, []int{1040}, times(c, visit, day, nodetest.Object{"showOclock": false, "showFixedTimes": "800,1040"}))

		c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Appointment(visit, day, 1000, nil)).OK()
		assert.Equal(t, []int{1100}, times(c, visit, day, nil))

		// Ten minutes after a visit and five before the next one.
		c.Staff(http.MethodPut, "/management/types/"+visit, nodetest.Object{"leaveMinutesBefore": 5, "leaveMinutesAfter": 10}).OK()
		set("/"+room, rule(800, 1400))
		// The visit at ten had no buffers when it was made: the next one needs its own.
		assert.Equal(t, []int{800, 810, 820, 830, 840, 850, 1110, 1120, 1130, 1140, 1150, 1200, 1210, 1220, 1230, 1240, 1250, 1300},
			times(c, visit, day, nodetest.Object{"showSixthHour": true, "showThirdHour": true, "showHalfHour": true, "limit": 1}))
	})
}

func TestTimes_PagesOfDaysAreTheWholeList(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 60})
		c.NewResource(nil, visit)
		mondays := nodetest.Object{"weekdays": []int{1}, "slots": []any{nodetest.Object{"from": 900, "to": 1000}}}
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"depthOfDays": 400, "rules": []any{mondays}}).OK()
		ask := func(more nodetest.Object) nodetest.Response {
			body := nodetest.Object{"type": visit, "from": nodetest.Day(1), "to": nodetest.Day(200)}
			for k, v := range more {
				body[k] = v
			}
			return c.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/times", App: c.ID, Body: body}).OK()
		}
		whole := ask(nil)
		assert.Equal(t, false, whole.At("pagination.hasMore"))
		want := whole.Pluck("result", "date")
		require.Greater(t, len(want), 25)
		for _, limit := range []int{1, 7, 200} {
			var got []string
			token := any(nil)
			for {
				page := ask(nodetest.Object{"limit": limit, "nextPageToken": token})
				got = append(got, page.Pluck("result", "date")...)
				if token = page.At("pagination.nextPageToken"); token == nil {
					break
				}
				require.Len(t, page.List("result"), limit)
			}
			assert.Equal(t, want, got, "%d", limit)
		}
	})
}
