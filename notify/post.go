package notify

import (
	"context"
	"time"

	"github.com/riverqueue/river"
)

type post struct{ s *Service }

func newPost(s *Service) (*post, error) { return &post{s}, nil }

func (p *post) register(*river.Workers) {}

func (p *post) plan(context.Context, *announcement) (step, error) { return nil, nil }

func (p *post) tidy(context.Context, time.Time) error { return nil }
