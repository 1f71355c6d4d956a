package booking

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"nowserving/models"
)

const (
	// serviceLife is how long the observed service times of a type are used.
	serviceLife = 4 * time.Second
	// observedVisits is how many of today's finished visits the mean covers, and
	// enoughVisits the least number for which the mean is used.
	observedVisits = 50
	enoughVisits   = 5
	// maxServices bounds the cached types.
	maxServices = 10_000
)

// service holds how fast a type is served at present.
type service struct {
	minutes int     // of the type: what the document's formula uses
	mean    float64 // observed minutes of a visit, or minutes until enough are seen
	// free lists, for each provider present, the minutes until they can take
	// the next patient, the soonest first.
	free []float64
}

func (s *Service) serviceOf(ctx context.Context, organizationID, typeID string) (service, error) {
	return s.services.Get(ctx, typeID, func() (service, error) { return s.observe(ctx, organizationID, typeID) })
}

// ForgetType drops a type after a change through this node, so that the next estimate
// reads it again. Other nodes read it within serviceLife.
func (s *Service) ForgetType(typeID string) { s.services.Forget(typeID) }

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
	out := service{minutes: t.Minutes, mean: float64(t.Minutes)}

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
		out.free = append(out.free, min(remaining[id], out.mean))
	}
	if len(out.free) == 0 { // no resource is available: as if one came now
		out.free = []float64{0}
	}
	slices.Sort(out.free)
	return out, nil
}

// Spread of a forecast: visits that all go quickly, and all slowly.
const (
	quick = 0.6
	slow  = 1.6
)

// estimate forecasts the wait at a position: the providers present take
// patients in order, each visit as long as the mean, or all shorter or longer.
func (v service) estimate(position int) models.Estimate {
	wait := v.wait(position)
	return models.Estimate{
		Low:    int(math.Floor(wait * quick)),
		Likely: int(math.Round(wait)),
		High:   int(math.Ceil(wait * slow)),
	}
}

// wait returns the minutes until a position is called. Every resource is free within
// one visit, so they take patients in turn: the first to be free takes the first
// patient, and is the last to be free again.
func (v service) wait(position int) float64 {
	ahead := position - 1
	return v.free[ahead%len(v.free)] + float64(ahead/len(v.free))*v.mean
}
