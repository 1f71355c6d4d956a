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

// schedule maps the trace's time to the replay's.
type schedule struct {
	begin  time.Time
	origin time.Time
	speed  float64
}

func (s schedule) due(at time.Time) time.Time {
	return s.begin.Add(time.Duration(float64(at.Sub(s.origin)) / s.speed))
}

// lane plays one service for a day.
type lane struct {
	*replay
	service  *service
	clock    schedule
	patients *sync.WaitGroup
	// handovers pass patients who move on from the lane of one service to that
	// of the next, by visit; nil is passed when nobody comes. Services form no
	// circle, so that no two lanes wait for each other.
	handovers map[string]chan *patient
	here      map[string]*patient // waiting or held, by visit
}

// step is one change of a service's queue.
type step struct {
	at    time.Time
	do    func(l *lane, ctx context.Context, s story) error
	story story
}

func steps(day []story) []step {
	list := make([]step, 0, 2*len(day))
	for _, s := range day {
		for _, x := range []step{
			{at: s.Arrived, do: (*lane).join},
			{at: s.held, do: (*lane).hold},
			{at: s.back, do: (*lane).comeBack},
			{at: s.Called, do: (*lane).call},
			{at: s.leaves, do: (*lane).cancel},
		} {
			if !x.at.IsZero() {
				x.story = s
				list = append(list, x)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b step) int { return a.at.Compare(b.at) })
	return list
}

func (l *lane) play(ctx context.Context, day []story, closing time.Time) error {
	for _, s := range steps(day) {
		if err := l.wait(ctx, s.at); err != nil {
			return err
		}
		if err := s.do(l, ctx, s.story); err != nil {
			return err
		}
	}
	if len(l.here) == 0 {
		return nil
	}
	if err := l.wait(ctx, closing); err != nil {
		return err
	}
	for _, s := range day {
		if err := l.cancel(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for a moment of the trace and notes how late it is.
func (l *lane) wait(ctx context.Context, at time.Time) error {
	due := l.clock.due(at)
	if ahead := time.Until(due); ahead > 0 {
		if err := client.Pause(ctx, ahead); err != nil {
			return err
		}
	}
	behind := time.Since(due)
	l.lag.Store(int64(behind))
	l.tally.AddLag(behind)
	return ctx.Err()
}

func (l *lane) join(ctx context.Context, s story) error {
	desk, from, err := l.arrive(ctx, s)
	if err != nil || desk == nil {
		return err
	}
	c := &check.Change{Sent: time.Now()}
	var b client.Booking
	switch {
	case from != nil:
		b, err = l.moveOn(ctx, from, c)
	case desk != l.api:
		b, err = desk.JoinByPhone(ctx, l.service.typeID)
	default:
		b, err = desk.Join(ctx, l.service.typeID)
	}
	if err != nil {
		l.handOver(s, nil)
		l.visits.Add(1)
		return l.refused(ctx, s, err)
	}
	c.Answered = time.Now()
	p := &patient{story: s, api: l.api.As(b.TicketToken), watch: l.service.line.Join(c, b), gone: make(chan struct{})}
	l.here[s.ID] = p
	client.StoreMax(&l.peakWaiting, l.waiting.Add(1))

	liveCtx, hangUp := context.WithCancel(ctx)
	p.hangUp = hangUp
	conn := &client.Connection{
		Nodes:     l.api.Nodes,
		FirstNode: int(l.clients.Add(1)) % len(l.api.Nodes),
		Protocol:  l.protocol,
		Token:     b.TicketToken,

		Stats: l.live,
	}
	conn.Add(&client.Subscription{Channel: "booking:" + b.ID, Booking: b.ID, Listener: p.watch})
	l.patients.Go(func() {
		defer close(p.gone)
		var end *client.TerminalError
		if err := conn.Run(liveCtx); errors.As(err, &end) {
			l.tally.AddProblem("refused client", b.ID, "%v", err)
		}
	})
	return nil
}

// arrive says who will make a patient's join: the desk, or the patient itself
// after signing in. It returns neither when the patient does not come after
// all, and from for one who comes from another service.
func (l *lane) arrive(ctx context.Context, s story) (by *client.API, from *patient, err error) {
	switch {
	case s.from != "":
		select {
		case from = <-l.handovers[s.from]:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if from == nil {
			l.handOver(s, nil)
			l.visits.Add(1)
			return nil, nil, nil
		}
		return l.api, from, nil
	case s.phone && l.options.code != "":
		patient, err := l.api.SignIn(ctx, fmt.Sprintf("+9665%08d", l.phoned.Add(1)), l.options.code)
		if err != nil {
			l.handOver(s, nil)
			l.visits.Add(1)
			return nil, nil, l.refused(ctx, s, err)
		}
		return patient, nil, nil
	}
	return l.api, nil, nil
}

// handOver passes a patient who is being served to the lane of the next service.
func (l *lane) handOver(s story, p *patient) {
	if s.movesOn {
		l.handovers[s.ID] <- p
	}
}

// moveOn takes a patient who is being served elsewhere to this service: the
// visit there ends, and another begins here.
func (l *lane) moveOn(ctx context.Context, from *patient, joined *check.Change) (client.Booking, error) {
	defer close(from.movedOn)
	from.watch.Queue.EndVisit(from.watch, check.StageDone, time.Now())
	if err := l.api.End(ctx, from.watch.Booking); err != nil {
		return client.Booking{}, err
	}
	l.movedOn.Add(1)
	joined.Sent = time.Now()
	return l.api.Join(ctx, l.service.typeID)
}

func (l *lane) hold(ctx context.Context, s story) error {
	p := l.here[s.ID]
	if p == nil {
		return nil // its join failed and was counted
	}
	c := l.service.line.Hold(p.watch, time.Now())
	if err := l.api.Hold(ctx, p.watch.Booking); err != nil {
		l.service.line.Undo(p.watch, c)
		return l.refused(ctx, s, err)
	}
	l.service.line.Confirm(c, time.Now())
	p.held = true
	l.held.Add(1)
	l.waiting.Add(-1)
	return nil
}

func (l *lane) comeBack(ctx context.Context, s story) error {
	p := l.here[s.ID]
	if p == nil || !p.held {
		return nil // its join or its hold failed and was counted
	}
	c := l.service.line.Return(p.watch, time.Now())
	b, err := l.api.Return(ctx, p.watch.Booking)
	if err != nil {
		l.service.line.Undo(p.watch, c)
		return l.refused(ctx, s, err)
	}
	l.service.line.Confirm(c, time.Now())
	l.service.line.CheckReturn(p.watch, b)
	p.held = false
	client.StoreMax(&l.peakWaiting, l.waiting.Add(1))
	return nil
}

func (l *lane) call(ctx context.Context, s story) error {
	p := l.here[s.ID]
	if p == nil {
		l.handOver(s, nil)
		return nil // its join failed and was counted
	}
	desk := l.service.desks.take()
	c := l.service.line.Leave(p.watch, check.Assigned, l.service.desks.ids[desk], time.Now())
	if err := l.api.Assign(ctx, p.watch.Booking, l.service.desks.ids[desk]); err != nil {
		l.service.desks.release(desk)
		l.service.line.Undo(p.watch, c)
		l.handOver(s, nil)
		return l.refused(ctx, s, err)
	}
	l.service.line.Confirm(c, time.Now())
	l.noLongerHere(p)
	p.called = time.Now()
	l.patients.Go(func() {
		if s.noShow {
			l.callAgain(ctx, p)
		} else {
			l.treat(ctx, p)
		}
		l.service.desks.release(desk)
		l.farewell(ctx, p)
	})
	return nil
}

func (l *lane) noLongerHere(p *patient) {
	delete(l.here, p.story.ID)
	if !p.held {
		l.waiting.Add(-1)
	}
}

// treat plays the service itself: started at once, ended when the story says
// so. The end of a patient who moves on is the next service's to make.
func (l *lane) treat(ctx context.Context, p *patient) {
	if err := l.api.Start(ctx, p.watch.Booking); err != nil {
		l.note(ctx, p.story, err)
	}
	l.served.Add(1)
	if p.story.movesOn {
		p.movedOn = make(chan struct{})
		l.handOver(p.story, p)
		select {
		case <-p.movedOn:
		case <-ctx.Done():
		}
		return
	}
	if !p.story.Completed.IsZero() {
		if err := client.Pause(ctx, time.Until(l.clock.due(p.story.Completed))); err != nil {
			return // the replay was stopped
		}
	}
	l.service.line.EndVisit(p.watch, check.StageDone, time.Now())
	if err := l.api.End(ctx, p.watch.Booking); err != nil {
		l.note(ctx, p.story, err)
	}
}

// recallPause is how long the desk must wait before it calls again. The two
// clocks may differ about that by a twelfth of it.
const recallPause = time.Minute

// callAgain plays a patient who does not come: called again, and then given up.
// A call that comes too soon by the real clock must be refused, however fast
// the day is played.
func (l *lane) callAgain(ctx context.Context, p *patient) {
	for _, at := range p.story.recalls {
		if client.Pause(ctx, time.Until(l.clock.due(at))) != nil {
			return
		}
		waited := time.Since(p.called)
		c := l.service.line.Recall(p.watch, time.Now())
		err := l.api.Recall(ctx, p.watch.Booking)
		var no *client.RefusalError
		switch {
		case err == nil:
			l.service.line.Confirm(c, time.Now())
			l.recalls.Add(1)
			p.called = time.Now()
			if waited < l.options.recallPause*11/12 {
				l.tally.AddFault(check.WrongNews, p.watch.Booking, "could be called again after %v", waited)
			}
		case errors.As(err, &no) && no.Code == "QUE-RECALL_TOO_SOON" && waited < l.options.recallPause*13/12:
			l.service.line.UndoRecall(p.watch)
			l.tooSoon.Add(1)
		default:
			l.service.line.UndoRecall(p.watch)
			if ctx.Err() == nil {
				l.api.Requests.Failed.Add(1)
			}
			l.note(ctx, p.story, err)
		}
	}
	if client.Pause(ctx, time.Until(l.clock.due(p.story.Completed))) != nil {
		return
	}
	l.service.line.EndVisit(p.watch, check.StageNoShow, time.Now())
	if err := l.api.NoShow(ctx, p.watch.Booking); err != nil {
		l.note(ctx, p.story, err)
	}
	l.noShows.Add(1)
}

func (l *lane) cancel(ctx context.Context, s story) error {
	p := l.here[s.ID]
	if p == nil {
		return nil
	}
	c := l.service.line.Leave(p.watch, check.Canceled, "", time.Now())
	var err error
	if s.phone {
		err = p.api.Leave(ctx, p.watch.Booking)
	} else {
		err = l.api.Cancel(ctx, p.watch.Booking)
	}
	if err != nil {
		l.service.line.Undo(p.watch, c)
		err = l.refused(ctx, s, err)
	} else {
		l.service.line.Confirm(c, time.Now())
		l.left.Add(1)
	}
	l.noLongerHere(p)
	l.patients.Go(func() { l.farewell(ctx, p) })
	return err
}

// farewell gives the last news the bound to arrive, hangs up and closes the
// books on the patient.
func (l *lane) farewell(ctx context.Context, p *patient) {
	timer := time.NewTimer(l.options.Bound)
	defer timer.Stop()
	select {
	case <-p.gone:
	case <-timer.C:
	case <-ctx.Done():
	}
	p.hangUp()
	<-p.gone
	l.visits.Add(1)
	if ctx.Err() == nil {
		p.watch.Finish()
	}
}

// refused lets a replay go on after the server said no, and stops it when the
// outcome is unknown: from there on nobody knows the truth.
func (l *lane) refused(ctx context.Context, s story, err error) error {
	var no *client.RefusalError
	if !errors.As(err, &no) || !no.IsDefinite() {
		return fmt.Errorf("visit %s: %w", s.ID, err)
	}
	l.note(ctx, s, err)
	return nil
}

// note describes a failed request, unless it failed because the replay stops.
func (l *lane) note(ctx context.Context, s story, err error) {
	if ctx.Err() != nil {
		return
	}
	l.tally.AddProblem("failed request", "", "visit %s: %v", s.ID, err)
}
