package calendar

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Visit is what has to fit between other visits, in minutes.
type Visit struct {
	Minutes int
	// Before and After are the buffers. They are kept free of other visits and of
	// these visits' buffers, but need not be within the hours.
	Before, After int
}

// Time is a time at which a visit may begin.
type Time struct {
	Day Day
	// OfDay is what the clocks show, in minutes since midnight.
	OfDay int
	// Minute is the moment, in minutes since 1970.
	Minute int64
	// Resources are the positions, in Search.Resources, of those that are free.
	Resources []int32
}

// Start returns the moment.
func (t Time) Start() time.Time { return moment(t.Minute) }

// Resource is one of the resources that a visit may have.
type Resource struct {
	Hours *Hours
	// Busy is when it is taken, with the buffers of these visits, in minutes since
	// 1970. In any order.
	Busy []Span
}

// Search asks for the free times of the days From to To.
type Search struct {
	Zone     *time.Location
	From, To Day
	TypeID   string
	// Narrow, if there is one, has to be open as well: the hours of the booking type.
	Narrow *Hours
	Visit  Visit
	Grid   Grid
	// Bookable is where a visit may begin, by a resource's Hours. Nil: anywhere.
	Bookable  func(h *Hours) Span
	Resources []Resource
}

// Free returns the free times of the days, in order.
func (s *Search) Free() []Time {
	points := s.points()
	w := s.newSweep()
	taken := make([][]int32, len(points))
	between := map[int64][]int32{}
	for i := range s.Resources {
		w.start(&s.Resources[i])
		for k := range points {
			if w.fits(points[k].Minute) {
				taken[k] = append(taken[k], int32(i))
			}
		}
		if s.Grid.InBetween {
			w.start(&s.Resources[i])
			w.eachBetween(func(minute int64) {
				between[minute] = append(between[minute], int32(i))
			})
		}
	}
	times := points[:0]
	for k, p := range points {
		delete(between, p.Minute)
		if p.Resources = taken[k]; len(p.Resources) > 0 {
			times = append(times, p)
		}
	}
	for minute, resources := range between {
		if day, ofDay, first := clock(minute, s.Zone); first && day >= s.From && day <= s.To {
			times = append(times, Time{day, ofDay, minute, resources})
		}
	}
	if s.Grid.InBetween {
		slices.SortFunc(times, func(a, b Time) int { return cmp.Compare(a.Minute, b.Minute) })
	}
	return times
}

// FreeAt returns the positions, in Resources, of those that are free for a visit that
// begins at a minute since 1970 of the days.
func (s *Search) FreeAt(minute int64) []int32 {
	w := s.newSweep()
	var free []int32
	for i := range s.Resources {
		if w.start(&s.Resources[i]); w.fits(minute) {
			free = append(free, int32(i))
		}
	}
	return free
}

// points lists the times of the grid that exist on the days, in order.
func (s *Search) points() []Time {
	var ofDay []int
	for hour := range 24 {
		for _, minute := range s.Grid.OfHour {
			ofDay = append(ofDay, hour*60+minute)
		}
	}
	ofDay = append(ofDay, s.Grid.OfDay...)
	slices.Sort(ofDay)
	ofDay = slices.Compact(ofDay)
	var points []Time
	for day := s.From; day <= s.To; day++ {
		for _, of := range ofDay {
			if minute, exists := day.Minute(of, s.Zone); exists {
				points = append(points, Time{Day: day, OfDay: of, Minute: minute})
			}
		}
	}
	return points
}

// sweep goes through the time of one resource after another, from the beginning to the
// end.
type sweep struct {
	*Search
	hours map[*Hours]openHours // of resources that share them

	open, begin []Span // those that are left
	busy        []Span
	bookable    Span
}

// openHours are the hours of resources, and where in them a visit may begin.
type openHours struct {
	open, begin []Span
	bookable    Span
}

func (s *Search) newSweep() *sweep { return &sweep{Search: s, hours: map[*Hours]openHours{}} }

// start goes to the beginning of a resource.
func (w *sweep) start(r *Resource) {
	h, known := w.hours[r.Hours]
	if !known {
		h.open = r.Hours.Open(w.From, w.To+1, w.TypeID)
		h.begin = h.open
		if !w.Grid.AfterMidnight {
			h.begin = r.Hours.beforeMidnight(w.From, w.To, w.TypeID)
		}
		if w.Narrow != nil {
			h.open = intersect(h.open, w.Narrow.Open(w.From, w.To+1, w.TypeID))
		}
		h.bookable = Span{math.MinInt64, math.MaxInt64}
		if w.Bookable != nil {
			h.bookable = w.Bookable(r.Hours)
		}
		w.hours[r.Hours] = h
	}
	r.Busy = merge(r.Busy)
	w.open, w.begin, w.bookable, w.busy = h.open, h.begin, h.bookable, r.Busy
}

// fits reports whether a visit may begin at a minute. Minutes have to ascend.
func (w *sweep) fits(minute int64) bool {
	v := w.Visit
	end := minute + int64(v.Minutes)
	w.open, w.begin = after(w.open, minute), after(w.begin, minute)
	w.busy = after(w.busy, minute-int64(v.Before))
	return minute >= w.bookable.From && minute < w.bookable.To &&
		len(w.open) > 0 && w.open[0].From <= minute && end <= w.open[0].To &&
		len(w.begin) > 0 && w.begin[0].From <= minute &&
		(len(w.busy) == 0 || end+int64(v.After) <= w.busy[0].From)
}

// after drops the spans that have ended at a minute.
func after(spans []Span, minute int64) []Span {
	for len(spans) > 0 && spans[0].To <= minute {
		spans = spans[1:]
	}
	return spans
}

// eachBetween calls offer with the times that leave no gap.
func (w *sweep) eachBetween(offer func(minute int64)) {
	v := w.Visit
	for _, span := range w.open {
		minute := max(span.From, w.bookable.From)
		for minute+int64(v.Minutes) <= span.To && minute < w.bookable.To {
			switch fits := w.fits(minute); {
			case fits:
				offer(minute)
				minute += int64(v.Before + v.Minutes + v.After)
			case len(w.busy) > 0 && w.busy[0].From < minute+int64(v.Minutes+v.After):
				minute = w.busy[0].To + int64(v.Before)
			case len(w.begin) > 0 && w.begin[0].From > minute:
				minute = w.begin[0].From
			default:
				minute = span.To
			}
		}
	}
}
