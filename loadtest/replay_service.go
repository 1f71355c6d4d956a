package loadtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
)

// schedule converts the trace's times to the replay's.
type schedule struct {
	begin  time.Time
	origin time.Time
	speed  float64
}

func (s schedule) due(at time.Time) time.Time {
	return s.begin.Add(time.Duration(float64(at.Sub(s.origin)) / s.speed))
}

// serviceReplay replays one service for a day.
type serviceReplay struct {
	*replay
	service  *service
	clock    schedule
	patients *sync.WaitGroup
	// transfers pass patients who go on to another service to its serviceReplay, by visit. nil
	// means that the patient does not come. Services form no cycle, so no two replays wait for
	// each other.
	transfers map[string]chan *patient
	present   map[string]*patient // waiting or held, by visit
}

// step is one change of a service's queue.
type step struct {
	at   time.Time
	do   func(s *serviceReplay, ctx context.Context, plan visitPlan) error
	plan visitPlan
}

func steps(day []visitPlan) []step {
	list := make([]step, 0, 2*len(day))
	for _, plan := range day {
		for _, x := range []step{
			{at: plan.Arrived, do: (*serviceReplay).join},
			{at: plan.held, do: (*serviceReplay).hold},
			{at: plan.returned, do: (*serviceReplay).returnFromHold},
			{at: plan.Called, do: (*serviceReplay).call},
			{at: plan.leaves, do: (*serviceReplay).cancel},
		} {
			if !x.at.IsZero() {
				x.plan = plan
				list = append(list, x)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b step) int { return a.at.Compare(b.at) })
	return list
}

func (s *serviceReplay) play(ctx context.Context, day []visitPlan, closing time.Time) error {
	for _, next := range steps(day) {
		if err := s.wait(ctx, next.at); err != nil {
			return err
		}
		if err := next.do(s, ctx, next.plan); err != nil {
			return err
		}
	}
	if len(s.present) == 0 {
		return nil
	}
	if err := s.wait(ctx, closing); err != nil {
		return err
	}
	for _, plan := range day {
		if err := s.cancel(ctx, plan); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for a moment of the trace and records the delay.
func (s *serviceReplay) wait(ctx context.Context, at time.Time) error {
	due := s.clock.due(at)
	if ahead := time.Until(due); ahead > 0 {
		if err := client.Pause(ctx, ahead); err != nil {
			return err
		}
	}
	behind := time.Since(due)
	s.lag.Store(int64(behind))
	s.tally.AddLag(behind)
	return ctx.Err()
}

func (s *serviceReplay) join(ctx context.Context, plan visitPlan) error {
	api, from, err := s.prepareJoin(ctx, plan)
	if err != nil || api == nil {
		return err
	}
	c := &check.Change{Sent: time.Now()}
	var b client.Booking
	switch {
	case from != nil:
		b, err = s.joinTransferred(ctx, from, c)
	case api != s.api:
		b, err = api.JoinByPhone(ctx, s.service.typeID)
	default:
		b, err = api.Join(ctx, s.service.typeID)
	}
	if err != nil {
		s.transfer(plan, nil)
		s.visits.Add(1)
		return s.handleError(ctx, plan, err)
	}
	c.Answered = time.Now()
	p := &patient{plan: plan, api: s.api.As(b.TicketToken), watcher: s.service.queue.Join(c, b), disconnected: make(chan struct{})}
	s.present[plan.ID] = p
	client.StoreMax(&s.peakWaiting, s.waiting.Add(1))

	liveCtx, disconnect := context.WithCancel(ctx)
	p.disconnect = disconnect
	conn := &client.Connection{
		Nodes:     s.api.Nodes,
		FirstNode: int(s.clients.Add(1)) % len(s.api.Nodes),
		Protocol:  s.protocol,
		Token:     b.TicketToken,
		Stats:     s.stats,
	}
	conn.Add(&client.Subscription{Channel: "booking:" + b.ID, Booking: b.ID, Listener: p.watcher})
	s.patients.Go(func() {
		defer close(p.disconnected)
		var end *client.TerminalError
		if err := conn.Run(liveCtx); errors.As(err, &end) {
			s.tally.AddProblem("refused client", b.ID, "%v", err)
		}
	})
	return nil
}

// prepareJoin returns the API that makes a patient's join: that of the staff, or of the
// patient after signing in. It returns nil if the patient does not come, and from if the
// patient comes from another service.
func (s *serviceReplay) prepareJoin(ctx context.Context, plan visitPlan) (by *client.API, from *patient, err error) {
	switch {
	case plan.from != "":
		select {
		case from = <-s.transfers[plan.from]:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if from == nil {
			s.transfer(plan, nil)
			s.visits.Add(1)
			return nil, nil, nil
		}
		return s.api, from, nil
	case plan.phone && s.opts.code != "":
		patient, err := s.api.SignIn(ctx, fmt.Sprintf("+9665%08d", s.joinedByPhone.Add(1)), s.opts.code)
		if err != nil {
			s.transfer(plan, nil)
			s.visits.Add(1)
			return nil, nil, s.handleError(ctx, plan, err)
		}
		return patient, nil, nil
	}
	return s.api, nil, nil
}

// transfer passes a patient who is being served to the next service.
func (s *serviceReplay) transfer(plan visitPlan, p *patient) {
	if plan.transferred {
		s.transfers[plan.ID] <- p
	}
}

// joinTransferred ends the visit at the previous service and joins this one.
func (s *serviceReplay) joinTransferred(ctx context.Context, from *patient, joined *check.Change) (client.Booking, error) {
	defer close(from.transferred)
	from.watcher.Queue.EndVisit(from.watcher, check.StageDone, time.Now())
	if err := s.api.End(ctx, from.watcher.Booking); err != nil {
		return client.Booking{}, err
	}
	s.transferred.Add(1)
	joined.Sent = time.Now()
	return s.api.Join(ctx, s.service.typeID)
}

func (s *serviceReplay) hold(ctx context.Context, plan visitPlan) error {
	p := s.present[plan.ID]
	if p == nil {
		return nil // the join failed and was counted
	}
	c := s.service.queue.Hold(p.watcher, time.Now())
	if err := s.api.Hold(ctx, p.watcher.Booking); err != nil {
		s.service.queue.Undo(p.watcher, c)
		return s.handleError(ctx, plan, err)
	}
	s.service.queue.Confirm(c, time.Now())
	p.held = true
	s.held.Add(1)
	s.waiting.Add(-1)
	return nil
}

func (s *serviceReplay) returnFromHold(ctx context.Context, plan visitPlan) error {
	p := s.present[plan.ID]
	if p == nil || !p.held {
		return nil // the join or the hold failed and was counted
	}
	c := s.service.queue.Return(p.watcher, time.Now())
	b, err := s.api.Return(ctx, p.watcher.Booking)
	if err != nil {
		s.service.queue.Undo(p.watcher, c)
		return s.handleError(ctx, plan, err)
	}
	s.service.queue.Confirm(c, time.Now())
	s.service.queue.CheckReturn(p.watcher, b)
	p.held = false
	client.StoreMax(&s.peakWaiting, s.waiting.Add(1))
	return nil
}

func (s *serviceReplay) call(ctx context.Context, plan visitPlan) error {
	p := s.present[plan.ID]
	if p == nil {
		s.transfer(plan, nil)
		return nil // the join failed and was counted
	}
	resource := s.service.resources.take()
	c := s.service.queue.Leave(p.watcher, check.Assigned, s.service.resources.ids[resource], time.Now())
	if err := s.api.Assign(ctx, p.watcher.Booking, s.service.resources.ids[resource]); err != nil {
		s.service.resources.release(resource)
		s.service.queue.Undo(p.watcher, c)
		s.transfer(plan, nil)
		return s.handleError(ctx, plan, err)
	}
	s.service.queue.Confirm(c, time.Now())
	s.remove(p)
	p.called = time.Now()
	s.patients.Go(func() {
		if plan.noShow {
			s.recall(ctx, p)
		} else {
			s.serve(ctx, p)
		}
		s.service.resources.release(resource)
		s.finish(ctx, p)
	})
	return nil
}

func (s *serviceReplay) remove(p *patient) {
	delete(s.present, p.plan.ID)
	if !p.held {
		s.waiting.Add(-1)
	}
}

// serve starts the visit and ends it at its planned time. If the patient goes on to another
// service, that one ends the visit.
func (s *serviceReplay) serve(ctx context.Context, p *patient) {
	if err := s.api.Start(ctx, p.watcher.Booking); err != nil {
		s.reportFailure(ctx, p.plan, err)
	}
	s.served.Add(1)
	if p.plan.transferred {
		p.transferred = make(chan struct{})
		s.transfer(p.plan, p)
		select {
		case <-p.transferred:
		case <-ctx.Done():
		}
		return
	}
	if !p.plan.Completed.IsZero() {
		if err := client.Pause(ctx, time.Until(s.clock.due(p.plan.Completed))); err != nil {
			return // the replay was stopped
		}
	}
	s.service.queue.EndVisit(p.watcher, check.StageDone, time.Now())
	if err := s.api.End(ctx, p.watcher.Booking); err != nil {
		s.reportFailure(ctx, p.plan, err)
	}
}

// recallPause is the time before staff may call a patient again. The clocks of server and
// client may differ by a twelfth of it.
const recallPause = time.Minute

// recall calls a patient who does not come again and then ends the visit as a no-show. The
// server must refuse a recall within recallPause of real time, at any speed.
func (s *serviceReplay) recall(ctx context.Context, p *patient) {
	for _, at := range p.plan.recalls {
		if client.Pause(ctx, time.Until(s.clock.due(at))) != nil {
			return
		}
		waited := time.Since(p.called)
		c := s.service.queue.Recall(p.watcher, time.Now())
		err := s.api.Recall(ctx, p.watcher.Booking)
		var no *client.RefusalError
		switch {
		case err == nil:
			s.service.queue.Confirm(c, time.Now())
			s.recalls.Add(1)
			p.called = time.Now()
			if waited < s.opts.recallPause*11/12 {
				s.tally.AddFault(check.WrongNews, p.watcher.Booking, "was called again after only %v", waited)
			}
		case errors.As(err, &no) && no.Code == "QUE-RECALL_TOO_SOON" && waited < s.opts.recallPause*13/12:
			s.service.queue.UndoRecall(p.watcher)
			s.refusedRecalls.Add(1)
		default:
			s.service.queue.UndoRecall(p.watcher)
			if ctx.Err() == nil {
				s.api.Requests.Failed.Add(1)
			}
			s.reportFailure(ctx, p.plan, err)
		}
	}
	if client.Pause(ctx, time.Until(s.clock.due(p.plan.Completed))) != nil {
		return
	}
	s.service.queue.EndVisit(p.watcher, check.StageNoShow, time.Now())
	if err := s.api.NoShow(ctx, p.watcher.Booking); err != nil {
		s.reportFailure(ctx, p.plan, err)
	}
	s.noShows.Add(1)
}

func (s *serviceReplay) cancel(ctx context.Context, plan visitPlan) error {
	p := s.present[plan.ID]
	if p == nil {
		return nil
	}
	c := s.service.queue.Leave(p.watcher, check.Canceled, "", time.Now())
	var err error
	if plan.phone {
		err = p.api.Leave(ctx, p.watcher.Booking)
	} else {
		err = s.api.Cancel(ctx, p.watcher.Booking)
	}
	if err != nil {
		s.service.queue.Undo(p.watcher, c)
		err = s.handleError(ctx, plan, err)
	} else {
		s.service.queue.Confirm(c, time.Now())
		s.left.Add(1)
	}
	s.remove(p)
	s.patients.Go(func() { s.finish(ctx, p) })
	return err
}

// finish waits until the last updates have arrived or are late, disconnects the client and
// checks its final state.
func (s *serviceReplay) finish(ctx context.Context, p *patient) {
	timer := time.NewTimer(s.opts.Bound)
	defer timer.Stop()
	select {
	case <-p.disconnected:
	case <-timer.C:
	case <-ctx.Done():
	}
	p.disconnect()
	<-p.disconnected
	s.visits.Add(1)
	if ctx.Err() == nil {
		p.watcher.Finish()
	}
}

// handleError reports a refusal and continues. If the outcome of a request is unknown, it
// returns an error, because the truth is then unknown too.
func (s *serviceReplay) handleError(ctx context.Context, plan visitPlan, err error) error {
	var no *client.RefusalError
	if !errors.As(err, &no) || !no.IsDefinite() {
		return fmt.Errorf("visit %s: %w", plan.ID, err)
	}
	s.reportFailure(ctx, plan, err)
	return nil
}

// reportFailure describes a failed request, unless the replay is being stopped.
func (s *serviceReplay) reportFailure(ctx context.Context, plan visitPlan, err error) {
	if ctx.Err() != nil {
		return
	}
	s.tally.AddProblem("failed request", "", "visit %s: %v", plan.ID, err)
}
