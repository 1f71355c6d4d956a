package booking

import (
	"context"
	"fmt"
	"time"

	"nowserving/models"
)

const (
	// feedBefore and feedAhead are the time around now whose appointments are in a
	// calendar feed.
	feedBefore = 30 * 24 * time.Hour
	feedAhead  = 365 * 24 * time.Hour
	// maxFeed bounds the appointments in a calendar feed.
	maxFeed = 2000
)

// ReplaceFeed gives the calendar feed of a resource a token; see catalog.ReplaceFeed. It
// fails with CodeResourceMissing, and with CodeForbidden if the caller does not act for
// the resource.
func (s *Service) ReplaceFeed(ctx context.Context, sc Scope, resourceID, token string) error {
	if err := s.mayShare(ctx, sc, resourceID); err != nil {
		return err
	}
	return s.catalog.ReplaceFeed(ctx, sc.OrganizationID, resourceID, token)
}

// DeleteFeed deletes the calendar feed of a resource. It fails like ReplaceFeed, and with
// CodeFeedMissing.
func (s *Service) DeleteFeed(ctx context.Context, sc Scope, resourceID string) error {
	if err := s.mayShare(ctx, sc, resourceID); err != nil {
		return err
	}
	return s.catalog.DeleteFeed(ctx, sc.OrganizationID, resourceID)
}

// mayShare returns an error if the caller may not give the appointments of a resource away.
func (s *Service) mayShare(ctx context.Context, sc Scope, resourceID string) error {
	if _, err := s.catalog.Resource(ctx, sc.OrganizationID, resourceID); err != nil {
		return err
	}
	if !sc.serves(resourceID) {
		return forbiddenResource()
	}
	return nil
}

// OfFeed returns the appointments in the calendar feed of a resource, by their start: at
// most 2,000 from 30 days ago to a year ahead. Canceled ones are included. Of a visit that
// was rescheduled only the newest booking is, because each visit is one entry of a calendar.
func (s *Service) OfFeed(ctx context.Context, f *models.CalendarFeed) ([]models.Booking, error) {
	now := s.store.Time().UTC()
	var list []models.Booking
	err := s.store.Read(ctx).
		Where("organization_id = ? AND resource_id = ?", f.OrganizationID, f.ResourceID).
		Where("starts_at >= ? AND starts_at < ?", now.Add(-feedBefore), now.Add(feedAhead)).
		Order("starts_at, seq").Limit(maxFeed).Find(&list).Error
	if err != nil {
		return nil, fmt.Errorf("list the appointments of a calendar feed: %w", err)
	}
	newest := map[string]int64{} // seq by origin
	for i := range list {
		newest[list[i].Origin()] = max(newest[list[i].Origin()], list[i].Seq)
	}
	kept := list[:0]
	for i := range list {
		if newest[list[i].Origin()] == list[i].Seq {
			kept = append(kept, list[i])
		}
	}
	return kept, nil
}
