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

// Bookings is what notify asks the rules of the queue.
type Bookings interface {
	// Matched lists the active resources in whose queues a booking waits.
	Matched(ctx context.Context, organizationID, bookingID string) ([]string, error)
	// Free returns the head of a resource's queue and the resources that could
	// take it now: active, not paused and serving nobody. Without a head, "".
	Free(ctx context.Context, organizationID, resourceID string) (bookingID string, resources []string, err error)
	// Standings returns where every waiting booking of an organization stands,
	// all at one moment.
	Standings(ctx context.Context, organizationID string) ([]models.Standing, error)
}

// Options configure a Service.
type Options struct {
	Store    *store.Store
	Bookings Bookings
	// Secret seals what is kept and has to be read again: secrets of webhooks,
	// tokens of devices, addresses in jobs. At least 32 bytes.
	Secret []byte
	// PublicURL begins the addresses that messages name.
	PublicURL string
	// Receipts says that carriers can reach PublicURL, and are asked to report
	// there what became of messages.
	Receipts bool
	// Console gets the messages for which no sender is configured; nil: they are
	// not sent. Development only.
	Console io.Writer
	FCM     FCMOptions
	// SMTPURL sends e-mail, SMSURL messages to phones; empty: not configured.
	SMTPURL string
	SMSURL  string
	// AllowPrivate lets webhooks go to addresses inside the network.
	AllowPrivate bool
	// AttemptTimeout bounds one attempt to deliver a webhook; 15 s where it is 0.
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

// Names of the queues of jobs, and how many of each are done at once on a node.
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
	// jobTimeout bounds one job; the limits of what it sends are below it.
	jobTimeout = 20 * time.Second
	// rescueAfter is when a job that did not end is done again with SQLite.
	rescueAfter = 30 * time.Second
	// stopTimeout bounds how long jobs under way may go on after the end.
	stopTimeout = 5 * time.Second
	// finishedLife is how long finished jobs are kept for operators to see.
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

// Run does the jobs and sweeps until ctx ends, then waits a moment for those
// under way. Those that do not end are done again by the next start or another
// node.
func (s *Service) Run(ctx context.Context) error {
	// The other nodes hear of this one until its last job has ended.
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

// startPause is how long after a start that failed the next one follows.
const startPause = time.Second

// start begins to do the jobs, as soon as the database lets it; false when ctx
// has ended before.
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

// JobPages answers what operators ask about jobs and tell them to do.
func (s *Service) JobPages() uiendpoints.Bundle { return s.jobs.Pages() }

// living reports whether an organization is there, and not deleted: nothing is
// sent for one that is.
func (s *Service) living(ctx context.Context, organizationID string) (bool, error) {
	var found int64
	err := s.store.Read(ctx).Model(&models.Organization{}).Where("id = ? AND deleted_at IS NULL", organizationID).Count(&found).Error
	if err != nil {
		return false, fmt.Errorf("look whether an organization is deleted: %w", err)
	}
	return found > 0, nil
}

const (
	// keptFor is how long the logs of what was sent are kept.
	keptFor = 30 * 24 * time.Hour
	// tidyEvery is how often what is older is deleted.
	tidyEvery = time.Hour
)

// tidy deletes what has been kept long enough, every hour.
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

// Tidy deletes the log of what was sent, and the events that were told, more than
// 30 days ago.
func (s *Service) Tidy(ctx context.Context) error {
	now, err := s.store.Now(ctx)
	if err != nil {
		return err
	}
	before := now.Add(-keptFor)
	return errors.Join(s.store.ForgetRequests(ctx), s.hooks.tidy(ctx, before), s.pushes.tidy(ctx, before), s.post.tidy(ctx, before),
		tidyEvents(ctx, s.store, before))
}
