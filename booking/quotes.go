package booking

import (
	"context"
	"fmt"
	"sync"

	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

// maxQuotes bounds the quotes that wait to be written.
const maxQuotes = 10_000

// quote is the estimate and the position that joining answered. Position is 0 if the
// desk joined for the customer, who then has not seen it.
type quote struct {
	BookingID string `gorm:"primaryKey"`
	Position  int
	Answered  int
	Low       int
	Likely    int
	High      int
}

// quotes are on their way to the database. They are written in batches by the
// sweeper, for a statistic is not worth a transaction of every join; a crash
// loses those of the last half second.
type quotes struct {
	mu    sync.Mutex
	given []quote
}

func (q *quotes) add(bookingID string, told, answered int, e models.Estimate) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.given) < maxQuotes {
		q.given = append(q.given, quote{bookingID, told, answered, e.Low, e.Likely, e.High})
	}
}

func (q *quotes) take() []quote {
	q.mu.Lock()
	defer q.mu.Unlock()
	given := q.given
	q.given = nil
	return given
}

// keepQuotes writes the quotes given since the last time.
func (s *Service) keepQuotes(ctx context.Context) error {
	given := s.quotes.take()
	if len(given) == 0 {
		return nil
	}
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		return tx.Clauses(clause.OnConflict{DoNothing: true}).CreateInBatches(given, sweepBatch).Error
	})
	if err != nil {
		return fmt.Errorf("keep quotes: %w", err)
	}
	return nil
}
