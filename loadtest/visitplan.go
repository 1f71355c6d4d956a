package loadtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"nowserving/loadtest/check"
)

// story is a visit and all that happens in it.
type story struct {
	Visit
	// phone says that the patient joins by phone; otherwise the desk does it.
	phone bool
	// held and back are when the patient steps aside and comes back. A patient
	// who leaves while held has no back.
	held, back time.Time
	// leaves is when a patient gives up waiting. Zero: at closing time, if the
	// patient was not called.
	leaves time.Time
	// recalls are when a patient who was called is called again; noShow says
	// that it was in vain, and Completed is when that was recorded.
	recalls []time.Time
	noShow  bool
	// from is the visit this one continues: the patient is moved on when it
	// arrives here, and that ends the other.
	from string
	// movesOn says that another visit continues this one.
	movesOn bool
}

// dayService is one service of a made-up day.
type dayService struct {
	generatedService // doctors are as many as the visits need
	onward           []onward
}

// onward is where patients go afterwards.
type onward struct {
	to    int // an index further down the list
	share float64
}

var dayServices = []dayService{
	{generatedService{name: "general", share: 0.60, minutes: 8, spread: 0.5}, []onward{{2, 0.25}, {3, 0.30}}},
	{generatedService{name: "dental", share: 0.15, minutes: 16, spread: 0.6}, []onward{{3, 0.15}}},
	{generatedService{name: "laboratory", share: 0.15, minutes: 4, spread: 0.4}, []onward{{3, 0.10}}},
	{generatedService{name: "pharmacy", share: 0.10, minutes: 3, spread: 0.4}, nil},
}

// dayHours weighs arrivals by the hour from seven in the morning: a peak before
// ten, a quiet noon and a second, lower peak before five.
var dayHours = []float64{3, 9, 16, 13, 7, 4, 4, 7, 11, 10, 5, 2}

const (
	dayOpens = "2024-03-04T07:00:00"
	// dayLoad is how busy the doctors of a day are on average. At the peaks
	// more come than they can see.
	dayLoad = 0.9
	// Shares of the patients.
	byPhone   = 0.5
	givingUp  = 0.08
	holding   = 0.08
	notComing = 0.06
)

// generateDay makes up a day with all that happens in a clinic. The same seed
// gives the same day.
func generateDay(visits int, seed uint64) ([]story, error) {
	if visits < 1 || visits > maxVisits {
		return nil, fmt.Errorf("visits must be between 1 and %d, not %d", maxVisits, visits)
	}
	open, err := time.Parse(traceLayout, dayOpens)
	if err != nil {
		return nil, fmt.Errorf("opening hour: %w", err)
	}
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // the same seed must give the same day
	byService := make([][]story, len(dayServices))
	for i := range visits {
		s := weighted(random, len(dayServices), func(i int) float64 { return dayServices[i].share })
		hour := weighted(random, len(dayHours), func(i int) float64 { return dayHours[i] })
		arrived := open.Add(time.Duration(hour)*time.Hour + time.Duration(random.IntN(3600))*time.Second)
		byService[s] = append(byService[s], story{
			Visit: Visit{ID: strconv.Itoa(i + 1), Service: dayServices[s].name, Arrived: arrived},
			phone: random.Float64() < byPhone,
		})
	}
	var day []story
	for i, s := range dayServices {
		list := byService[i]
		slices.SortStableFunc(list, func(a, b story) int { return a.Arrived.Compare(b.Arrived) })
		for j := range list {
			list[j].plan(random)
		}
		s.work(random, list)
		for j := range list {
			if next, to, moves := list[j].moveOn(random, s.onward); moves {
				byService[to] = append(byService[to], next)
			}
		}
		day = append(day, list...)
	}
	slices.SortStableFunc(day, func(a, b story) int { return a.Arrived.Compare(b.Arrived) })
	return day, nil
}

// between is a random moment some minutes later.
func between(random *rand.Rand, at time.Time, from, to float64) time.Time {
	minutes := from + random.Float64()*(to-from)
	return at.Add(time.Duration(minutes * float64(time.Minute))).Truncate(time.Second)
}

// plan decides what a patient will do, should it have to wait so long.
func (s *story) plan(random *rand.Rand) {
	if random.Float64() < holding {
		s.held = between(random, s.Arrived, 1, 10)
		s.back = between(random, s.held, 3, 20)
	}
	if random.Float64() < givingUp {
		s.leaves = between(random, s.Arrived, 5, 40)
	}
	s.noShow = random.Float64() < notComing
}

// here tells whether the patient can be called at a moment.
func (s *story) here(now time.Time) bool {
	away := !s.held.IsZero() && !s.held.After(now) && s.back.After(now)
	return !s.gone(now) && !away
}

// gone tells whether the patient has left by a moment.
func (s *story) gone(now time.Time) bool { return !s.leaves.IsZero() && !s.leaves.After(now) }

// called drops what the patient would have done had the wait been longer.
func (s *story) called(now time.Time) {
	s.leaves = time.Time{}
	if !s.held.IsZero() && s.held.After(now) {
		s.held, s.back = time.Time{}, time.Time{}
	}
}

// left drops what the patient would have done had it stayed.
func (s *story) left() {
	s.noShow = false
	if !s.held.IsZero() && !s.held.Before(s.leaves) {
		s.held, s.back = time.Time{}, time.Time{}
	}
	if !s.back.IsZero() && !s.back.Before(s.leaves) {
		s.back = time.Time{}
	}
}

// work lets as many doctors as are needed work through a service's arrivals.
func (s dayService) work(random *rand.Rand, list []story) {
	opened := time.Duration(len(dayHours)) * time.Hour
	s.doctors = max(1, int(math.Ceil(float64(len(list))*s.minutes*math.Exp(s.spread*s.spread/2)/(opened.Minutes()*dayLoad))))
	free := make([]time.Time, s.doctors) // when each doctor will be
	var waiting []int
	next := 0
	for next < len(list) || len(waiting) > 0 {
		doctor := earliest(free)
		now := free[doctor]
		for ; next < len(list) && !list[next].Arrived.After(now); next++ {
			waiting = append(waiting, next)
		}
		waiting = slices.DeleteFunc(waiting, func(i int) bool { return list[i].gone(now) })
		turn := slices.IndexFunc(waiting, func(i int) bool { return list[i].here(now) })
		if turn < 0 {
			// Nobody to call: the doctor is idle until somebody arrives or comes back.
			wake := time.Time{}
			if next < len(list) {
				wake = list[next].Arrived
			}
			for _, i := range waiting {
				if back := list[i].back; wake.IsZero() || back.Before(wake) {
					wake = back
				}
			}
			if !wake.IsZero() {
				free[doctor] = wake
			}
			continue
		}
		if random.Float64() < outOfTurn {
			if other := random.IntN(min(len(waiting), 4)); list[waiting[other]].here(now) {
				turn = other
			}
		}
		v := &list[waiting[turn]]
		waiting = slices.Delete(waiting, turn, turn+1)
		v.called(now)
		// A few seconds pass between two patients.
		v.Called = now.Add(time.Duration(5+random.IntN(40)) * time.Second)
		minutes := s.minutes * math.Exp(s.spread*random.NormFloat64())
		v.Completed = v.Called.Add(time.Duration(minutes * float64(time.Minute))).Truncate(time.Second)
		if v.noShow {
			v.callAgain(random)
		}
		free[doctor] = v.Completed
	}
	for i := range list {
		if list[i].Called.IsZero() {
			list[i].left()
		}
	}
}

// callAgain calls somebody who does not come once or twice more, and gives up.
func (s *story) callAgain(random *rand.Rand) {
	at := s.Called
	for range 1 + random.IntN(2) {
		at = between(random, at, 1.2, 2.5)
		s.recalls = append(s.recalls, at)
	}
	s.Completed = between(random, at, 1, 2)
}

// moveOn decides where a patient goes after a visit.
func (s *story) moveOn(random *rand.Rand, to []onward) (next story, service int, moves bool) {
	if s.Called.IsZero() || s.noShow {
		return story{}, 0, false
	}
	x := random.Float64()
	for _, o := range to {
		if x -= o.share; x < 0 {
			s.movesOn = true
			return story{Visit: Visit{ID: s.ID + "+", Service: dayServices[o.to].name, Arrived: s.Completed}, from: s.ID}, o.to, true
		}
	}
	return story{}, 0, false
}

// over is when the last thing of a visit happens.
func (s *story) over() time.Time {
	last := s.Arrived
	for _, at := range []time.Time{s.Called, s.Completed, s.held, s.back, s.leaves} {
		last = check.Later(last, at)
	}
	return last
}
