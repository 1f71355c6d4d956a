package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"riverqueue.com/riverui/uiendpoints"

	"nowserving/booking/store"
	"nowserving/models"
)

// Bookings answers questions about queues. booking.Service implements it.
type Bookings interface {
	// Matched lists the active resources in whose queues a booking waits.
	Matched(ctx context.Context, organizationID, bookingID string) ([]string, error)
	// Free returns the first booking in a resource's queue and the resources that
	// could take it now: active, not paused and idle. bookingID is empty if the
	// queue is empty.
	Free(ctx context.Context, organizationID, resourceID string) (bookingID string, resources []string, err error)
	// Standings returns where every waiting booking of an organization stands,
	// all at one moment.
	Standings(ctx context.Context, organizationID string) ([]models.Standing, error)
}

// Options configure a Service.
type Options struct {
	Store    *store.Store
	Bookings Bookings
	// Secret seals secrets of webhooks, tokens of devices and addresses in jobs. At
	// least 32 bytes.
	Secret []byte
	// PublicURL begins the URLs in messages.
	PublicURL string
	// Receipts reports that PublicURL is reachable from the internet, so that
	// providers are asked for delivery receipts.
	Receipts bool
	// Console gets the messages for which no sender is configured. Nil: they are not
	// sent. Development only.
	Console io.Writer
	FCM     FCMOptions
	// SMTPURL sends e-mail, and SMSURL messages to phones. Empty: not configured.
	SMTPURL string
	SMSURL  string
	// AllowPrivate lets webhooks go to addresses inside the network.
	AllowPrivate bool
	// AttemptTimeout bounds one attempt to deliver a webhook. Default 15 s.
	AttemptTimeout time.Duration
	Now            func() time.Time
	Log            *slog.Logger
}

// Service sends. It is safe for concurrent use.
type Service struct {
	o       Options
	store   *store.Store
	log     *slog.Logger
	jobs    store.JobClient
	devices *devices
	pushes  *pushes
	hooks   *webhooks
	post    *messages
	stats   stats
}

// The queues of jobs, and how many jobs of each a node does at once.
const (
	queueAnnounce = "announce"
	queueWebhooks = "webhooks"
	queuePushes   = "pushes"
	queueMessages = "messages"
)

var workersOf = map[string]river.QueueConfig{
	queueAnnounce: {MaxWorkers: 64}, // most wait to be expanded together
	queueWebhooks: {MaxWorkers: 64},
	queuePushes:   {MaxWorkers: 4},
	queueMessages: {MaxWorkers: 8},
}

const (
	// jobTimeout bounds one job. The timeouts of what it sends are shorter.
	jobTimeout = 20 * time.Second
	// rescueAfter is when, with SQLite, a job that did not end is done again.
	rescueAfter = 30 * time.Second
	// stopTimeout bounds how long jobs under way may run after Run has to end.
	stopTimeout = 5 * time.Second
	// finishedLife is how long finished jobs are kept for operators.
	finishedLife = time.Hour
)

// New makes a Service on a database that is up to date.
func New(ctx context.Context, o Options) (*Service, error) {
	s := &Service{o: o, store: o.Store, log: o.Log}
	var err error
	if s.devices, err = newDevices(s); err != nil {
		return nil, err
	}
	if s.pushes, err = newPushes(ctx, s); err != nil {
		return nil, err
	}
	if s.hooks, err = newHooks(s); err != nil {
		return nil, err
	}
	if s.post, err = newPost(s); err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, newAnnouncer(s))
	s.pushes.register(workers)
	s.hooks.register(workers)
	s.post.register(workers)
	s.jobs, err = o.Store.JobClient(ctx, river.Config{
		Workers: workers, Queues: workersOf,
		JobTimeout: jobTimeout, RescueStuckJobsAfter: rescueAfter, CompletedJobRetentionPeriod: finishedLife,
	})
	if err != nil {
		return nil, fmt.Errorf("make the client of jobs: %w", err)
	}
	return s, nil
}

// Run does jobs and sweeps until ctx ends, then waits for jobs under way. Jobs that
// do not end are done again by another node or after the next start.
func (s *Service) Run(ctx context.Context) error {
	// This node shows other nodes that it lives until its last job has ended.
	alive, die := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer die()
	watching.Go(func() {
		s.store.WatchJobs(alive, func(n int) { s.log.Warn("jobs that no node was doing are done again", "count", n) },
			func(err error) { s.log.Error("other nodes may take this one for dead", "error", err) })
	})
	if !s.start(ctx) {
		return nil
	}
	var sweeping sync.WaitGroup
	sweeping.Go(func() { s.pushes.sweep(ctx) })
	sweeping.Go(func() { s.tidy(ctx) })
	<-ctx.Done()
	sweeping.Wait()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	defer s.hooks.stop()
	err := s.jobs.Stop(stopping)
	if errors.Is(err, context.DeadlineExceeded) {
		cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = s.jobs.StopAndCancel(cut)
	}
	if err != nil {
		return fmt.Errorf("stop the jobs: %w", err)
	}
	return nil
}

// startPause is the pause after a failed start.
const startPause = time.Second

// start starts the workers as soon as the database is available. It returns false if
// ctx ends before.
func (s *Service) start(ctx context.Context) bool {
	for {
		err := s.jobs.Start(context.WithoutCancel(ctx))
		if err == nil {
			return true
		}
		s.log.Error("jobs can't be done yet; trying again", "error", err)
		pause := time.NewTimer(startPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return false
		}
	}
}

// JobPages returns the pages about jobs, for operators.
func (s *Service) JobPages() uiendpoints.Bundle { return s.jobs.Pages() }

// living reports whether an organization exists and is not deleted. Nothing is sent
// for a deleted one.
func (s *Service) living(ctx context.Context, organizationID string) (bool, error) {
	var found int64
	err := s.store.Read(ctx).Model(&models.Organization{}).Where("id = ? AND deleted_at IS NULL", organizationID).Count(&found).Error
	if err != nil {
		return false, fmt.Errorf("look whether an organization is deleted: %w", err)
	}
	return found > 0, nil
}

const (
	// keptFor is how long the logs of deliveries are kept.
	keptFor = 30 * 24 * time.Hour
	// tidyEvery is how often older logs are deleted.
	tidyEvery = time.Hour
)

// tidy calls Tidy every hour until ctx ends.
func (s *Service) tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		if err := s.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("delete old deliveries", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Tidy deletes logs of deliveries, and announced events, that are older than 30 days.
func (s *Service) Tidy(ctx context.Context) error {
	now, err := s.store.Now(ctx)
	if err != nil {
		return err
	}
	before := now.Add(-keptFor)
	return errors.Join(s.store.ForgetRequests(ctx), s.hooks.tidy(ctx, before), s.pushes.tidy(ctx, before), s.post.tidy(ctx, before),
		tidyEvents(ctx, s.store, before))
}
