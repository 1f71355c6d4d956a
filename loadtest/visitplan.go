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

// visitPlan is a visit and everything that happens in it.
type visitPlan struct {
	Visit
	// phone says that the patient joins by phone. Otherwise the staff makes the join.
	phone bool
	// held and returned are the times of a hold and of the return. returned is zero if the
	// patient leaves while held.
	held, returned time.Time
	// leaves is the time at which the patient leaves without being called. Zero is at closing
	// time.
	leaves time.Time
	// recalls are the times at which a called patient is called again. noShow says that the
	// patient does not come; Completed is then the time of the no-show.
	recalls []time.Time
	noShow  bool
	// from is the visit that this one continues. Its join ends the other visit.
	from string
	// transferred says that another visit continues this one.
	transferred bool
}

// dayService is one service of a generated day.
type dayService struct {
	generatedService // the number of doctors follows from the visits
	transfers        []transferShare
}

// transferShare is the share of patients who go on to another service.
type transferShare struct {
	to    int // a larger index of dayServices
	share float64
}

var dayServices = []dayService{
	{generatedService{name: "general", share: 0.60, minutes: 8, spread: 0.5}, []transferShare{{2, 0.25}, {3, 0.30}}},
	{generatedService{name: "dental", share: 0.15, minutes: 16, spread: 0.6}, []transferShare{{3, 0.15}}},
	{generatedService{name: "laboratory", share: 0.15, minutes: 4, spread: 0.4}, []transferShare{{3, 0.10}}},
	{generatedService{name: "pharmacy", share: 0.10, minutes: 3, spread: 0.4}, nil},
}

// dayHours are the weights of arrivals by hour from 7:00: a peak before 10:00, a quiet noon
// and a lower peak before 17:00.
var dayHours = []float64{3, 9, 16, 13, 7, 4, 4, 7, 11, 10, 5, 2}

const (
	dayOpens = "2024-03-04T07:00:00"
	// dayLoad is the average load of the doctors. At the peaks more patients arrive than they
	// can serve.
	dayLoad = 0.9
	// Shares of all patients.
	phoneShare    = 0.5
	givingUpShare = 0.08
	holdShare     = 0.08
	noShowShare   = 0.06
)

// generateDay generates a day with everything that happens in a clinic. The same seed gives
// the same day.
func generateDay(visits int, seed uint64) ([]visitPlan, error) {
	if visits < 1 || visits > maxVisits {
		return nil, fmt.Errorf("visits must be between 1 and %d, not %d", maxVisits, visits)
	}
	open, err := time.Parse(traceLayout, dayOpens)
	if err != nil {
		return nil, fmt.Errorf("opening hour: %w", err)
	}
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // the same seed must give the same day
	byService := make([][]visitPlan, len(dayServices))
	for i := range visits {
		s := weighted(random, len(dayServices), func(i int) float64 { return dayServices[i].share })
		hour := weighted(random, len(dayHours), func(i int) float64 { return dayHours[i] })
		arrived := open.Add(time.Duration(hour)*time.Hour + time.Duration(random.IntN(3600))*time.Second)
		byService[s] = append(byService[s], visitPlan{
			Visit: Visit{ID: strconv.Itoa(i + 1), Service: dayServices[s].name, Arrived: arrived},
			phone: random.Float64() < phoneShare,
		})
	}
	var day []visitPlan
	for i, s := range dayServices {
		list := byService[i]
		slices.SortStableFunc(list, func(a, b visitPlan) int { return a.Arrived.Compare(b.Arrived) })
		for j := range list {
			list[j].plan(random)
		}
		s.work(random, list)
		for j := range list {
			if next, to, moves := list[j].transfer(random, s.transfers); moves {
				byService[to] = append(byService[to], next)
			}
		}
		day = append(day, list...)
	}
	slices.SortStableFunc(day, func(a, b visitPlan) int { return a.Arrived.Compare(b.Arrived) })
	return day, nil
}

// between returns a random time some minutes later.
func between(random *rand.Rand, at time.Time, from, to float64) time.Time {
	minutes := from + random.Float64()*(to-from)
	return at.Add(time.Duration(minutes * float64(time.Minute))).Truncate(time.Second)
}

// plan decides what a patient does if the wait is long enough.
func (plan *visitPlan) plan(random *rand.Rand) {
	if random.Float64() < holdShare {
		plan.held = between(random, plan.Arrived, 1, 10)
		plan.returned = between(random, plan.held, 3, 20)
	}
	if random.Float64() < givingUpShare {
		plan.leaves = between(random, plan.Arrived, 5, 40)
	}
	plan.noShow = random.Float64() < noShowShare
}

// present reports whether the patient can be called at a moment.
func (plan *visitPlan) present(now time.Time) bool {
	away := !plan.held.IsZero() && !plan.held.After(now) && plan.returned.After(now)
	return !plan.gone(now) && !away
}

// gone reports whether the patient has left by a moment.
func (plan *visitPlan) gone(now time.Time) bool {
	return !plan.leaves.IsZero() && !plan.leaves.After(now)
}

// dropAfterCall removes what the patient would have done after the call.
func (plan *visitPlan) dropAfterCall(now time.Time) {
	plan.leaves = time.Time{}
	if !plan.held.IsZero() && plan.held.After(now) {
		plan.held, plan.returned = time.Time{}, time.Time{}
	}
}

// dropAfterLeaving removes what the patient would have done after leaving.
func (plan *visitPlan) dropAfterLeaving() {
	plan.noShow = false
	if !plan.held.IsZero() && !plan.held.Before(plan.leaves) {
		plan.held, plan.returned = time.Time{}, time.Time{}
	}
	if !plan.returned.IsZero() && !plan.returned.Before(plan.leaves) {
		plan.returned = time.Time{}
	}
}

// work sets the calls and ends of a service's visits, with as many doctors as they need.
func (s dayService) work(random *rand.Rand, list []visitPlan) {
	opened := time.Duration(len(dayHours)) * time.Hour
	s.doctors = max(1, int(math.Ceil(float64(len(list))*s.minutes*math.Exp(s.spread*s.spread/2)/(opened.Minutes()*dayLoad))))
	free := make([]time.Time, s.doctors) // time at which each doctor is free
	var waiting []int
	next := 0
	for next < len(list) || len(waiting) > 0 {
		doctor := earliest(free)
		now := free[doctor]
		for ; next < len(list) && !list[next].Arrived.After(now); next++ {
			waiting = append(waiting, next)
		}
		waiting = slices.DeleteFunc(waiting, func(i int) bool { return list[i].gone(now) })
		turn := slices.IndexFunc(waiting, func(i int) bool { return list[i].present(now) })
		if turn < 0 {
			free[doctor] = nextPresent(list, waiting, next)
			continue
		}
		if random.Float64() < outOfTurnShare {
			if other := random.IntN(min(len(waiting), 4)); list[waiting[other]].present(now) {
				turn = other
			}
		}
		v := &list[waiting[turn]]
		waiting = slices.Delete(waiting, turn, turn+1)
		v.dropAfterCall(now)
		// Some seconds pass between two patients.
		v.Called = now.Add(time.Duration(5+random.IntN(40)) * time.Second)
		minutes := s.minutes * math.Exp(s.spread*random.NormFloat64())
		v.Completed = v.Called.Add(time.Duration(minutes * float64(time.Minute))).Truncate(time.Second)
		if v.noShow {
			v.planRecalls(random)
		}
		free[doctor] = v.Completed
	}
	for i := range list {
		if list[i].Called.IsZero() {
			list[i].dropAfterLeaving()
		}
	}
}

// nextPresent returns when a patient can be called again: the next arrival, or the next
// return of a patient in waiting.
func nextPresent(list []visitPlan, waiting []int, next int) time.Time {
	var at time.Time
	if next < len(list) {
		at = list[next].Arrived
	}
	for _, i := range waiting {
		if back := list[i].returned; at.IsZero() || back.Before(at) {
			at = back
		}
	}
	return at
}

// planRecalls plans one or two recalls of a patient who does not come, and the no-show.
func (plan *visitPlan) planRecalls(random *rand.Rand) {
	at := plan.Called
	for range 1 + random.IntN(2) {
		at = between(random, at, 1.2, 2.5)
		plan.recalls = append(plan.recalls, at)
	}
	plan.Completed = between(random, at, 1, 2)
}

// transfer decides whether a patient goes on to another service.
func (plan *visitPlan) transfer(random *rand.Rand, to []transferShare) (next visitPlan, service int, moves bool) {
	if plan.Called.IsZero() || plan.noShow {
		return visitPlan{}, 0, false
	}
	x := random.Float64()
	for _, o := range to {
		if x -= o.share; x < 0 {
			plan.transferred = true
			return visitPlan{Visit: Visit{ID: plan.ID + "+", Service: dayServices[o.to].name, Arrived: plan.Completed}, from: plan.ID}, o.to, true
		}
	}
	return visitPlan{}, 0, false
}

// end returns the time of the last event of a visit.
func (plan *visitPlan) end() time.Time {
	last := plan.Arrived
	for _, at := range []time.Time{plan.Called, plan.Completed, plan.held, plan.returned, plan.leaves} {
		last = check.Later(last, at)
	}
	return last
}
