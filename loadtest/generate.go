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

// generatedService is one service of a generated clinic.
type generatedService struct {
	name    string
	share   float64 // share of all visits
	doctors int
	minutes float64 // median service time
	spread  float64 // sigma of the logarithm of the service time
}

var generatedServices = []generatedService{
	{name: "general", share: 0.55, doctors: 3, minutes: 8, spread: 0.5},
	{name: "laboratory", share: 0.30, doctors: 1, minutes: 4, spread: 0.4},
	{name: "dental", share: 0.15, doctors: 1, minutes: 16, spread: 0.6},
}

// generatedHours are the weights of arrivals by hour from 8:00: a peak at 9:00, a quiet noon
// and a lower peak late in the afternoon.
var generatedHours = []float64{8, 16, 13, 9, 5, 4, 7, 10, 8, 3}

const (
	generatedDay = "2024-03-04T08:00:00"
	// leaveShare is the share of patients who leave without being served.
	leaveShare = 0.03
	// outOfTurnShare is the share of calls that do not take the first patient, as recorded
	// days show.
	outOfTurnShare = 0.1
)

// GenerateTrace generates one day of a small clinic. Arrivals peak by the hour, service times
// are log-normal, and there are few doctors. The same seed gives the same day.
func GenerateTrace(visits int, seed uint64) (*Trace, error) {
	if visits < 1 || visits > maxVisits {
		return nil, fmt.Errorf("visits must be between 1 and %d, not %d", maxVisits, visits)
	}
	open, err := time.Parse(traceLayout, generatedDay)
	if err != nil {
		return nil, fmt.Errorf("opening hour: %w", err)
	}
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // the same seed must give the same day

	byService := make([][]Visit, len(generatedServices))
	for range visits {
		s := weighted(random, len(generatedServices), func(i int) float64 { return generatedServices[i].share })
		hour := weighted(random, len(generatedHours), func(i int) float64 { return generatedHours[i] })
		arrived := open.Add(time.Duration(hour)*time.Hour + time.Duration(random.IntN(3600))*time.Second)
		byService[s] = append(byService[s], Visit{Service: generatedServices[s].name, Arrived: arrived})
	}
	t := &Trace{Name: "generated"}
	for s, list := range byService {
		slices.SortStableFunc(list, func(a, b Visit) int { return a.Arrived.Compare(b.Arrived) })
		serve(random, generatedServices[s], list)
		t.Visits = append(t.Visits, list...)
	}
	slices.SortStableFunc(t.Visits, func(a, b Visit) int { return a.Arrived.Compare(b.Arrived) })
	for i := range t.Visits {
		t.Visits[i].ID = strconv.Itoa(i + 1)
	}
	return t, nil
}

// serve sets the calls and ends of one service's visits.
func serve(random *rand.Rand, s generatedService, list []Visit) {
	free := make([]time.Time, s.doctors) // time at which each doctor is free
	var waiting []int
	var now time.Time
	next := 0
	for next < len(list) || len(waiting) > 0 {
		doctor := earliest(free)
		// An idle doctor may have been free for a while.
		now = check.Later(now, free[doctor])
		if len(waiting) == 0 && next < len(list) && list[next].Arrived.After(now) {
			now = list[next].Arrived
		}
		for next < len(list) && !list[next].Arrived.After(now) {
			if random.Float64() >= leaveShare {
				waiting = append(waiting, next)
			}
			next++
		}
		if len(waiting) == 0 {
			continue
		}
		turn := 0
		if random.Float64() < outOfTurnShare {
			turn = random.IntN(min(len(waiting), 4))
		}
		v := &list[waiting[turn]]
		waiting = slices.Delete(waiting, turn, turn+1)
		// Some seconds pass between two patients.
		v.Called = now.Add(time.Duration(5+random.IntN(40)) * time.Second)
		minutes := s.minutes * math.Exp(s.spread*random.NormFloat64())
		v.Completed = v.Called.Add(time.Duration(minutes * float64(time.Minute))).Truncate(time.Second)
		free[doctor] = v.Completed
	}
}

// weighted returns an index with a probability in proportion to its weight.
func weighted(random *rand.Rand, n int, weight func(int) float64) int {
	total := 0.0
	for i := range n {
		total += weight(i)
	}
	x := random.Float64() * total
	for i := range n {
		if x -= weight(i); x < 0 {
			return i
		}
	}
	return n - 1
}

func earliest(list []time.Time) int {
	first := 0
	for i, at := range list {
		if at.Before(list[first]) {
			first = i
		}
	}
	return first
}
