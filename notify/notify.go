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
	"github.com/riverqueue/river/rivertype"
	"riverqueue.com/riverui/uiendpoints"

	"nowserving/booking/clock"
	"nowserving/booking/store"
	"nowserving/notify/message"
	"nowserving/notify/outbox"
	"nowserving/notify/push"
	"nowserving/notify/webhook"
)

// Options configure a Service.
type Options struct {
	Store    *store.Store
	Bookings push.Bookings
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
	FCM     push.FCMOptions
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
	// Webhooks are the webhooks of organizations, and their deliveries.
	Webhooks *webhook.Webhooks
	// Pushes are pushes to devices.
	Pushes *push.Pushes
	// Messages are e-mails, SMS and WhatsApp messages.
	Messages *message.Messages

	outbox.Deps
	jobs store.JobClient
}

// workersOf is how many jobs of each queue a node does at once.
var workersOf = map[string]river.QueueConfig{
	outbox.QueueAnnounce: {MaxWorkers: 64}, // most wait to be expanded together
	outbox.QueueWebhooks: {MaxWorkers: 64},
	outbox.QueuePushes:   {MaxWorkers: 4},
	outbox.QueueMessages: {MaxWorkers: 8},
}

const (
	// jobTimeout bounds one job. The timeouts of what it sends are shorter.
	jobTimeout = 20 * time.Second
	// rescueAfter is when, with SQLite, a job that did not end is done again.
	rescueAfter = 30 * time.Second
	// finishedLife is how long finished jobs are kept for operators.
	finishedLife = time.Hour
)

// New makes a Service on a database that is up to date.
func New(ctx context.Context, o Options) (*Service, error) {
	deps := outbox.Deps{Store: o.Store, Stats: &outbox.Counter{}, Log: o.Log, Now: o.Now}
	s := &Service{Deps: deps}
	var err error
	s.Webhooks, err = webhook.New(webhook.Options{Deps: deps, Secret: o.Secret, AllowPrivate: o.AllowPrivate, AttemptTimeout: o.AttemptTimeout})
	if err != nil {
		return nil, err
	}
	s.Pushes, err = push.New(ctx, push.Options{Deps: deps, Secret: o.Secret, FCM: o.FCM, Bookings: o.Bookings, Webhooks: s.Webhooks})
	if err != nil {
		return nil, err
	}
	s.Messages, err = message.New(message.Options{
		Deps: deps, Secret: o.Secret, PublicURL: o.PublicURL, Receipts: o.Receipts, Console: o.Console, SMTPURL: o.SMTPURL, SMSURL: o.SMSURL,
	})
	if err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, newAnnouncer(s))
	s.Pushes.Register(workers)
	s.Webhooks.Register(workers)
	s.Messages.Register(workers)
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
		s.Store.WatchJobs(alive, func(n int) { s.Log.Warn("jobs that no node was doing are done again", "count", n) },
			func(err error) { s.Log.Error("other nodes may take this one for dead", "error", err) })
	})
	if !s.start(ctx) {
		return nil
	}
	var sweeping sync.WaitGroup
	sweeping.Go(func() { s.Pushes.Sweep(ctx) })
	sweeping.Go(func() { s.tidy(ctx) })
	<-ctx.Done()
	sweeping.Wait()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), outbox.StopTimeout)
	defer cancel()
	defer s.Webhooks.Close()
	err := s.jobs.Stop(stopping)
	if errors.Is(err, context.DeadlineExceeded) {
		cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), outbox.StopTimeout)
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
		s.Log.Error("jobs can't be done yet; trying again", "error", err)
		if !clock.Sleep(ctx, startPause) {
			return false
		}
	}
}

// JobPages returns the pages about jobs, for operators.
func (s *Service) JobPages() uiendpoints.Bundle { return s.jobs.Pages() }

const (
	// keptFor is how long the logs of deliveries are kept.
	keptFor = 30 * 24 * time.Hour
	// tidyEvery is how often older logs are deleted.
	tidyEvery = time.Hour
)

// tidy calls Tidy every hour until ctx ends.
func (s *Service) tidy(ctx context.Context) {
	clock.Every(ctx, tidyEvery, func() {
		if err := s.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("delete old deliveries", "error", err)
		}
	})
}

// Tidy deletes logs of deliveries, and announced events, that are older than 30 days.
func (s *Service) Tidy(ctx context.Context) error {
	now, err := s.Store.Now(ctx)
	if err != nil {
		return err
	}
	before := now.Add(-keptFor)
	return errors.Join(s.Store.ForgetRequests(ctx), s.Webhooks.Tidy(ctx, before), s.Pushes.Tidy(ctx, before), s.Messages.Tidy(ctx, before),
		tidyEvents(ctx, s.Store, before))
}

// Counts returns the counts of deliveries since the start. Every possible outcome is
// in it.
func (s *Service) Counts() outbox.Stats { return s.Stats.Snapshot() }

// OldestDue returns for each queue of jobs how long ago the oldest job that is
// not done should have been, on all nodes; 0 when nothing is due. A job that
// waits for its next attempt is due at that attempt.
func (s *Service) OldestDue(ctx context.Context) (map[string]time.Duration, error) {
	now, err := s.Store.Now(ctx)
	if err != nil {
		return nil, err
	}
	oldest := make(map[string]time.Duration, len(workersOf))
	for queue := range workersOf {
		oldest[queue] = 0
		for _, state := range []rivertype.JobState{
			rivertype.JobStateAvailable, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
		} {
			// The index of jobs to fetch has just these columns, in this order.
			var due []time.Time
			err := s.Store.Read(ctx).Raw("SELECT scheduled_at FROM river_job WHERE state = ? AND queue = ? AND priority = ? ORDER BY scheduled_at LIMIT 1",
				state, queue, river.PriorityDefault).Scan(&due).Error
			if err != nil {
				return nil, fmt.Errorf("look for the oldest job: %w", err)
			}
			for _, at := range due {
				oldest[queue] = max(oldest[queue], now.Sub(at))
			}
		}
	}
	return oldest, nil
}
