package notify

import (
	"context"
	"time"

	"github.com/riverqueue/river"
)

// FCMOptions say how pushes reach phones.
type FCMOptions struct {
	// Credentials is a service account as JSON; empty: no pushes.
	Credentials string
	// Endpoint replaces Google's address, without authentication: tests.
	Endpoint string
}

type pushes struct{ s *Service }

func newPushes(_ context.Context, s *Service) (*pushes, error) { return &pushes{s}, nil }

func (p *pushes) register(*river.Workers) {}

func (p *pushes) plan(context.Context, *announcement) (step, error) { return nil, nil }

func (p *pushes) planPositions(context.Context, *announcement) (step, error) { return nil, nil }

func (p *pushes) sweep(context.Context) {}

func (p *pushes) tidy(context.Context, time.Time) error { return nil }
