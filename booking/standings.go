package booking

import (
	"context"

	"nowserving/models"
)

// Matched lists the active resources in whose queues a booking waits.
func (s *Service) Matched(ctx context.Context, organizationID, bookingID string) ([]string, error) {
	return nil, nil
}

// Free returns the head of a resource's queue and the resources that could
// take it now: active, not paused and serving nobody. Without a head, "".
func (s *Service) Free(ctx context.Context, organizationID, resourceID string) (bookingID string, resources []string, err error) {
	return "", nil, nil
}

// Standings returns where every waiting booking of an organization stands, all
// at one moment.
func (s *Service) Standings(ctx context.Context, organizationID string) ([]models.Standing, error) {
	return nil, nil
}
