package booking

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"nowserving/models"
)

const (
	// serviceLife is how long an observation of a type's service is believed.
	serviceLife = 2 * time.Second
	// observedVisits is how many finished visits of today the mean is taken
	// over, and enoughVisits how many it takes to trust it at all.
	observedVisits = 50
	enoughVisits   = 5
	// maxServices bounds the cache; beyond it the cache starts over.
	maxServices = 10_000
)

// service is what is known about how fast a type is served just now.
type service struct {
	minutes int     // of the type: what the document's formula uses
	mean    float64 // observed minutes of a visit, or minutes until enough are seen
	// free lists, for each provider present, the minutes until they can take
	// the next patient.
	free []float64
	read time.Time
}

// serviceTimes caches services by type.
type serviceTimes struct {
	mu     sync.Mutex
	byType map[string]service
}

func newServiceTimes() *serviceTimes { return &serviceTimes{byType: map[string]service{}} }

func (s *Service) serviceOf(ctx context.Context, organizationID, typeID string) (service, error) {
	s.stats.mu.Lock()
	known, ok := s.stats.byType[typeID]
	s.stats.mu.Unlock()
	if ok && time.Since(known.read) < serviceLife {
		return known, nil
	}
	fresh, err := s.observe(ctx, organizationID, typeID)
	if err != nil {
		return service{}, err
	}
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	if len(s.stats.byType) >= maxServices {
		clear(s.stats.byType)
	}
	s.stats.byType[typeID] = fresh
	return fresh, nil
}

// ForgetType makes the next estimate of a type look at it anew, after it was
// changed through this node; other nodes look again within serviceLife.
func (s *Service) ForgetType(typeID string) {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	delete(s.stats.byType, typeID)
}

func (s *Service) observe(ctx context.Context, organizationID, typeID string) (service, error) {
	db := s.store.Read(ctx)
	var t models.BookingType
	if err := db.Select("minutes").Where("organization_id = ? AND id = ?", organizationID, typeID).Take(&t).Error; err != nil {
		return service{}, fmt.Errorf("read booking type: %w", err)
	}
	now, err := s.store.Now(ctx)
	if err != nil {
		return service{}, err
	}
	out := service{minutes: t.Minutes, mean: float64(t.Minutes), read: time.Now()}

	var visits []models.Booking
	err = db.Select("called_at, started_at, ended_at").
		Where("type_id = ? AND stage = ? AND ended_at > ?", typeID, models.StageDone, now.Add(-24*time.Hour)).
		Order("ended_at DESC").Limit(observedVisits).Find(&visits).Error
	if err != nil {
		return service{}, fmt.Errorf("read finished visits: %w", err)
	}
	if len(visits) >= enoughVisits {
		total := 0.0
		for i := range visits {
			total += visits[i].EndedAt.Sub(*visits[i].CalledAt).Minutes()
		}
		// A minute at least: an average of nothing would promise no wait at all.
		out.mean = max(total/float64(len(visits)), 1)
	}

	var present []string
	err = db.Raw(`SELECT r.id FROM resources r JOIN resource_types rt ON rt.resource_id = r.id
		WHERE rt.type_id = ? AND r.is_on AND r.activated AND NOT r.paused AND r.deleted_at IS NULL`, typeID).Scan(&present).Error
	if err != nil {
		return service{}, fmt.Errorf("read who is present: %w", err)
	}
	var busy []models.Booking
	err = db.Select("resource_id, last_called_at").Where("organization_id = ? AND resource_id IN ? AND stage IN ?",
		organizationID, append([]string{""}, present...), []models.Stage{models.StageCalled, models.StageServing}).Find(&busy).Error
	if err != nil {
		return service{}, fmt.Errorf("read who is being served: %w", err)
	}
	remaining := map[string]float64{}
	for i := range busy {
		left := out.mean - now.Sub(*busy[i].LastCalledAt).Minutes()
		// A visit that runs over is expected to end soon, not at once.
		remaining[*busy[i].ResourceID] = max(left, out.mean/10, remaining[*busy[i].ResourceID])
	}
	for _, id := range present {
		out.free = append(out.free, remaining[id])
	}
	return out, nil
}

// Spread of a forecast: visits that all go quickly, and all slowly.
const (
	quick = 0.6
	slow  = 1.6
)

// estimate forecasts the wait at a position: the providers present take
// patients in order, each visit as long as the mean.
func (v service) estimate(position int) models.Estimate {
	return models.Estimate{
		Low:    int(math.Floor(v.wait(position, quick))),
		Likely: int(math.Round(v.wait(position, 1))),
		High:   int(math.Ceil(v.wait(position, slow))),
	}
}

func (v service) wait(position int, pace float64) float64 {
	free := make([]float64, 0, len(v.free)+1)
	for _, left := range v.free {
		free = append(free, left*pace)
	}
	if len(free) == 0 { // nobody is in: as if one came now
		free = append(free, 0)
	}
	slices.Sort(free)
	// Everybody is free within one visit, so patients go round in turn: whole
	// rounds add a visit each, and only the rest has to be played out.
	rounds := (position - 1) / len(free)
	for i := range free {
		free[i] += float64(rounds) * v.mean * pace
	}
	for range (position - 1) % len(free) {
		free[0] += v.mean * pace
		slices.Sort(free)
	}
	return free[0]
}
