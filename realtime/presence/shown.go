package presence

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// shownEvery is how often a node says what its live clients were shown, and
	// shownLife how long that is believed.
	shownEvery = 500 * time.Millisecond
	shownLife  = 5 * time.Second
	// shownIdle is when what dead nodes said is forgotten.
	shownIdle = time.Minute
)

// Positions shares the positions that live clients were shown.
type Positions struct {
	rdb redis.UniversalClient
	now func() time.Time
}

// NewPositions makes a Positions.
func NewPositions(rdb redis.UniversalClient, now func() time.Time) *Positions {
	return &Positions{rdb, now}
}

func shownKey(organizationID string) string { return "ns:{" + organizationID + "}:shown" }

// Run stores the positions that this node's clients were shown, by organization and
// booking, until ctx ends. failed is called with errors: positions are then pushed to
// connected clients, too.
func (s *Positions) Run(ctx context.Context, shown func() map[string]map[string]int, failed func(error)) {
	ticker := time.NewTicker(shownEvery)
	defer ticker.Stop()
	said := map[string]map[string]int{}
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := shown()
		if err := s.say(ctx, now, said); err != nil && ctx.Err() == nil {
			failed(err)
		}
		said = now
	}
}

func (s *Positions) say(ctx context.Context, now, said map[string]map[string]int) error {
	ctx, cancel := context.WithTimeout(ctx, shownLife)
	defer cancel()
	at := ":" + strconv.FormatInt(s.now().UnixMilli(), 10)
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for id, places := range said {
			for booking := range places {
				if now[id][booking] == 0 {
					pipe.HDel(ctx, shownKey(id), booking)
				}
			}
		}
		for id, places := range now {
			fields := make(map[string]any, len(places))
			for booking, place := range places {
				fields[booking] = strconv.Itoa(place) + at
			}
			pipe.HSet(ctx, shownKey(id), fields)
			pipe.Expire(ctx, shownKey(id), shownIdle)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("say what live clients were shown: %w", err)
	}
	return nil
}

// Places returns the position last shown for those of some bookings whose customer is
// connected to any node.
func (s *Positions) Places(ctx context.Context, organizationID string, bookingIDs []string) (map[string]int, error) {
	values, err := s.rdb.HMGet(ctx, shownKey(organizationID), bookingIDs...).Result()
	if err != nil {
		return nil, fmt.Errorf("ask what live clients were shown: %w", err)
	}
	places := map[string]int{}
	oldest := s.now().Add(-shownLife).UnixMilli()
	for i, value := range values {
		text, _ := value.(string)
		place, at, _ := strings.Cut(text, ":")
		n, broken := strconv.Atoi(place)
		said, late := strconv.ParseInt(at, 10, 64)
		if broken == nil && late == nil && said >= oldest {
			places[bookingIDs[i]] = n
		}
	}
	return places, nil
}
