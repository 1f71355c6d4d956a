package notify

import (
	"context"
	"time"

	"github.com/riverqueue/river"

	"nowserving/booking/store"
	"nowserving/models"
)

type hooks struct{ s *Service }

func newHooks(s *Service) (*hooks, error) { return &hooks{s}, nil }

func (h *hooks) register(*river.Workers) {}

func (h *hooks) plan(context.Context, *announcement) (step, error) { return nil, nil }

func (h *hooks) tidy(context.Context, time.Time) error { return nil }

// positionUpdate is a new place of a waiting booking.
type positionUpdate struct {
	Standing models.Standing
	Sequence int64
}

// wants reports whether an organization has a webhook for a trigger.
func (h *hooks) wants(context.Context, string, string) (bool, error) { return false, nil }

// positions writes deliveries of queuePositionUpdated in the transaction that
// remembers the places as told.
func (h *hooks) positions(*store.Tx, string, []positionUpdate) error { return nil }
