package calendar_test

import (
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"nowserving/booking/calendar"
	"nowserving/models"
)

// TestMain looks at two thousand calendars by default; -rapid.checks=10000 at ten thousand.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// changes are nights on which clocks change, by an hour, at midnight and elsewhere.
var changes = map[string][]string{
	"Europe/Berlin":     {"2026-03-29", "2026-10-25"},
	"Asia/Beirut":       {"2026-03-29", "2026-10-25"},
	"Africa/Cairo":      {"2026-04-24", "2026-10-30"},
	"America/Sao_Paulo": {"2018-11-04", "2018-02-18"},
	"Asia/Riyadh":       {"2026-05-05"},
}

func zoneOf(t require.TestingT, name string) *time.Location {
	zone, err := time.LoadLocation(name)
	require.NoError(t, err)
	return zone
}

func day(t require.TestingT, text string) calendar.Day {
	d, ok := calendar.ParseDay(text)
	require.True(t, ok)
	return d
}

// model is a calendar that goes through every minute around a change of the clocks.
type model struct {
	begin int64
	first map[shown]int64 // the first moment at which the clocks show something
	shows []shown         // from begin on
}

// shown is what clocks show: a day and a minute of it.
type shown struct {
	day   calendar.Day
	ofDay int
}

func newModel(zone *time.Location, change calendar.Day) *model {
	begin, _ := (change - 9).Minute(0, zone)
	end, _ := (change + 9).Minute(0, zone)
	m := &model{begin, map[shown]int64{}, nil}
	for minute := begin; minute < end; minute++ {
		t := time.Unix(minute*60, 0).In(zone)
		at := shown{calendar.DayOf(t, zone), t.Hour()*60 + t.Minute()}
		m.shows = append(m.shows, at)
		if _, again := m.first[at]; !again {
			m.first[at] = minute
		}
	}
	return m
}

// minutes has a false for each minute.
func (m *model) minutes() []bool { return make([]bool, len(m.shows)) }

// at is the first moment at which the clocks show a day and a minute of it, or a later
// minute if they leap.
func (m *model) at(d calendar.Day, ofDay int) int64 {
	for last := ofDay + 180; ofDay < last; ofDay++ {
		if minute, ok := m.first[shown{d + calendar.Day(ofDay/1440), ofDay % 1440}]; ok {
			return minute
		}
	}
	panic("the model is too short")
}

// TestFreeTimes_EqualAMinuteByMinuteModel compares the search with a model that looks at
// each minute of a visit, on random calendars across clock changes.
func TestFreeTimes_EqualAMinuteByMinuteModel(t *testing.T) {
	around := map[string]*model{}
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom([]string{"Europe/Berlin", "Asia/Beirut", "Africa/Cairo", "America/Sao_Paulo", "Asia/Riyadh"}).Draw(r, "zone")
		zone := zoneOf(r, name)
		date := rapid.SampledFrom(changes[name]).Draw(r, "change")
		change := day(r, date)
		from := change - calendar.Day(rapid.IntRange(0, 2).Draw(r, "before"))
		to := from + calendar.Day(rapid.IntRange(0, 2).Draw(r, "days"))
		m := around[name+date]
		if m == nil {
			m = newModel(zone, change)
			around[name+date] = m
		}
		const typeID = "visit"

		// Rules: every kind of days, slots anywhere, off rules of parts of days.
		anyTime := rapid.Custom(func(r *rapid.T) int {
			return calendar.Military(rapid.IntRange(0, 95).Draw(r, "quarter") * 15)
		})
		anyDay := func(label string) calendar.Day {
			return change + calendar.Day(rapid.IntRange(-2, 2).Draw(r, label))
		}
		var rules models.TimeRules
		for range rapid.IntRange(1, 3).Draw(r, "rules") {
			rule := models.TimeRule{Slots: []models.TimeSlot{{From: anyTime.Draw(r, "from"), To: anyTime.Draw(r, "to")}}}
			switch rapid.IntRange(0, 2).Draw(r, "kind") {
			case 0:
				rule.Weekdays = rapid.SliceOfNDistinct(rapid.IntRange(0, 6), 1, 7, rapid.ID).Draw(r, "weekdays")
			case 1:
				first := anyDay("first")
				rule.From, rule.To = first.String(), (first + 1).String()
			case 2:
				rule.RRule = rapid.SampledFrom([]string{"FREQ=DAILY;INTERVAL=2", "FREQ=WEEKLY;BYDAY=SU,FR", "FREQ=MONTHLY;BYDAY=-1SU"}).Draw(r, "rrule")
			}
			rule.Types = rapid.SampledFrom([][]string{nil, {typeID}, {"another"}}).Draw(r, "types")
			rules.Rules = append(rules.Rules, rule)
		}
		var off []models.OffRule
		for range rapid.IntRange(0, 2).Draw(r, "offRules") {
			first := anyDay("off")
			one := models.OffRule{From: first.String(), To: (first + calendar.Day(rapid.IntRange(0, 1).Draw(r, "offDays"))).String()}
			if rapid.Bool().Draw(r, "part") {
				from, to := rapid.IntRange(0, 40).Draw(r, "offFrom")*15, rapid.IntRange(41, 96).Draw(r, "offTo")*15
				start, until := calendar.Military(from), calendar.Military(to)
				one.FromTime, one.ToTime = &start, &until
			}
			off = append(off, one)
		}
		hours, err := calendar.NewHours(rules, off, zone)
		if err != nil { // a Sunday that is not among the dates of the rule
			return
		}
		visit := calendar.Visit{
			Minutes: rapid.IntRange(1, 12).Draw(r, "minutes") * 10,
			Before:  rapid.IntRange(0, 3).Draw(r, "buffer") * 5, After: rapid.IntRange(0, 3).Draw(r, "after") * 5,
		}
		var busy []calendar.Span
		for range rapid.IntRange(0, 6).Draw(r, "visits") {
			at := m.at(from, rapid.IntRange(0, 72*12).Draw(r, "at")*5)
			busy = append(busy, calendar.Span{From: at, To: at + int64(rapid.IntRange(1, 18).Draw(r, "long")*5)})
		}
		grid := calendar.Grid{
			OfHour: []int{0, 20, 30}, OfDay: []int{125, 1430}, AfterMidnight: rapid.Bool().Draw(r, "afterMidnight"),
		}

		// The model: which minutes are open and which are taken.
		open, begins, taken := m.minutes(), m.minutes(), m.minutes()
		for d := from - 1; d <= to+1; d++ {
			for _, dated := range []bool{true, false} {
				found := false
				for _, rule := range rules.Rules {
					if (rule.From != "") != dated || !modelHolds(r, rule, d, typeID) {
						continue
					}
					found = true
					a, b := ofDay(rule.Slots[0].From), ofDay(rule.Slots[0].To)
					if b <= a {
						b += 1440
					}
					for minute := m.at(d, a); minute < m.at(d, b); minute++ {
						open[minute-m.begin] = true
						begins[minute-m.begin] = begins[minute-m.begin] || grid.AfterMidnight || minute < m.at(d+1, 0)
					}
				}
				if found {
					break
				}
			}
		}
		for _, one := range off {
			a, b := 0, 1440
			if one.FromTime != nil {
				a, b = ofDay(*one.FromTime), ofDay(*one.ToTime)
			}
			for minute := m.at(day(r, one.From), a); minute < m.at(day(r, one.To), b); minute++ {
				open[minute-m.begin] = false
			}
		}
		for _, b := range busy {
			for minute := b.From; minute < b.To; minute++ {
				taken[minute-m.begin] = true
			}
		}
		fits := func(minute int64) bool {
			if !begins[minute-m.begin] {
				return false
			}
			for k := range int64(visit.Minutes) {
				if !open[minute-m.begin+k] {
					return false
				}
			}
			for k := -int64(visit.Before); k < int64(visit.Minutes+visit.After); k++ {
				if taken[minute-m.begin+k] {
					return false
				}
			}
			return true
		}
		var want []shown
		for minute := m.at(from, 0); minute < m.at(to+1, 0); minute++ {
			at := m.shows[minute-m.begin]
			onGrid := slices.Contains(grid.OfHour, at.ofDay%60) || slices.Contains(grid.OfDay, at.ofDay)
			if onGrid && m.first[at] == minute && fits(minute) {
				want = append(want, at)
			}
		}

		search := calendar.Search{
			Zone: zone, From: from, To: to, TypeID: typeID, Visit: visit, Grid: grid,
			Resources: []calendar.Resource{{Hours: hours, Busy: slices.Clone(busy)}},
		}
		var got []shown
		for _, free := range search.Free() {
			got = append(got, shown{free.Day, free.OfDay})
			require.Equal(r, m.shows[free.Minute-m.begin], got[len(got)-1])
		}
		require.Equal(r, want, got)

		// In between, all times are free, none can be put between two, and each ends where
		// the next may begin.
		search.Grid = calendar.Grid{InBetween: true, AfterMidnight: grid.AfterMidnight}
		for _, free := range search.Free() {
			require.True(r, fits(free.Minute), "%s %d is not free", free.Day, free.OfDay)
			require.Equal(r, []int32{0}, search.FreeAt(free.Minute))
		}
	})
}

func ofDay(military int) int { return military/100*60 + military%100 }

// modelHolds is the days of a rule, written down once more.
func modelHolds(t require.TestingT, rule models.TimeRule, d calendar.Day, typeID string) bool {
	if len(rule.Types) > 0 && !slices.Contains(rule.Types, typeID) {
		return false
	}
	at, err := time.Parse(time.DateOnly, d.String())
	require.NoError(t, err)
	switch rule.RRule {
	case "FREQ=DAILY;INTERVAL=2":
		return (d-day(t, "2018-01-01"))%2 == 0
	case "FREQ=WEEKLY;BYDAY=SU,FR":
		return at.Weekday() == time.Sunday || at.Weekday() == time.Friday
	case "FREQ=MONTHLY;BYDAY=-1SU":
		return at.Weekday() == time.Sunday && at.AddDate(0, 0, 7).Month() != at.Month()
	}
	if rule.From != "" {
		return d >= day(t, rule.From) && d <= day(t, rule.To)
	}
	return slices.Contains(rule.Weekdays, int(at.Weekday()))
}
