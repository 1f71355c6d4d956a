package push

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"firebase.google.com/go/v4/messaging"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

const (
	// sweepRetry is the pause after a failure. sweepWaits is how often estimated
	// waits are re-evaluated for "come now" by minutes: they shrink even when no
	// event occurs.
	sweepRetry = 2 * time.Second
	sweepWaits = 30 * time.Second
	// joinSettles is how long after joining its answered position is stored.
	joinSettles = time.Second
	// positionLife is how long FCM keeps a position for a phone that is offline.
	positionLife = time.Minute
)

// positionState is what was sent about the position of a waiting booking.
type positionState struct {
	BookingID string `gorm:"primaryKey"`
	// Version is the booking's when its position was last sent, and Sequence a
	// counter within it.
	Version  int64
	Sequence int64
	// Pushed and Hooked are the positions last sent by push and by webhook. Telling
	// is the position that may have arrived by push, or 0.
	Pushed, Hooked, Telling int
	ComeNowAt               *time.Time
	UpdatedAt               time.Time
}

// number orders what was sent over all versions of the booking.
func (s *positionState) number() int64 { return outbox.SequenceOf(s.Version, s.Sequence) }

// waiter is a waiting booking, and what has to be sent about it.
type waiter struct {
	models.Standing
	state  positionState
	phones []phone
	// push and hook report whether the position has to be sent to phones and to
	// webhooks, and come whether the patient has to come now.
	push, hook, come bool
	doubted          bool // a push of this position may have arrived
}

// tell sends each waiting booking's position if it differs from the last one sent. It
// returns after how long it has to run again without an event, or 0. The number of
// statements grows with the number of batches.
func (p *Pushes) tell(ctx context.Context, organizationID string) (again time.Duration, err error) {
	living, err := p.Living(ctx, organizationID)
	if err != nil || !living {
		return 0, err
	}
	waiting, again, err := p.news(ctx, organizationID)
	if err != nil {
		return 0, err
	}
	told := 0
	for batch := range batches(waiting) {
		wait, err := p.tellBatch(ctx, organizationID, batch)
		if err != nil {
			return 0, err
		}
		again = soonest(again, wait)
		for _, w := range batch {
			if w.push || w.hook {
				told++
			}
		}
	}
	p.Stats.Swept(told)
	return again, nil
}

// batches cuts a list so that each part has at most 500 pushes.
func batches(waiting []*waiter) func(yield func([]*waiter) bool) {
	return func(yield func([]*waiter) bool) {
		from, pushes := 0, 0
		for i, w := range waiting {
			n := 0
			if w.push {
				n = len(w.phones)
			}
			if pushes+n > fcmBatch || i-from == fcmBatch {
				if !yield(waiting[from:i]) {
					return
				}
				from, pushes = i, 0
			}
			pushes += n
		}
		if from < len(waiting) {
			yield(waiting[from:])
		}
	}
}

// news lists the bookings about which something has to be sent.
func (p *Pushes) news(ctx context.Context, organizationID string) (news []*waiter, again time.Duration, err error) {
	// The states are read before the positions: a change in between has marked the
	// organization again.
	states, young, err := p.states(ctx, organizationID)
	if err != nil {
		return nil, 0, err
	}
	if young {
		again = joinSettles
	}
	phones, err := p.phones(ctx, organizationID)
	if err != nil {
		return nil, 0, err
	}
	comeNow, err := p.comeNow(ctx, organizationID)
	if err != nil {
		return nil, 0, err
	}
	wants, err := p.opts.Webhooks.WantsPositions(ctx, organizationID)
	if err != nil {
		return nil, 0, err
	}
	standings, err := p.opts.Bookings.Standings(ctx, organizationID)
	if err != nil {
		return nil, 0, err
	}
	held, err := p.live(ctx, organizationID, standings, phones)
	if err != nil {
		return nil, 0, err
	}
	for _, standing := range standings {
		w := &waiter{Standing: standing, phones: phones[standing.BookingID]}
		state, known := states[standing.BookingID]
		if !known {
			continue
		}
		w.state = state
		w.state.BookingID = standing.BookingID
		seen := len(w.phones) > 0 && held[standing.BookingID] == standing.Position && state.Pushed != standing.Position
		w.push = len(w.phones) > 0 && state.Pushed != standing.Position && !seen
		w.hook = wants && state.Hooked != standing.Position
		if t, ok := comeNow[standing.TypeID]; ok && len(w.phones) > 0 && state.ComeNowAt == nil {
			w.come = t.Position > 0 && standing.Position <= t.Position || t.Minutes > 0 && standing.Estimate.Likely <= t.Minutes
			if !w.come && t.Minutes > 0 {
				again = soonest(again, sweepWaits)
			}
		}
		if seen {
			w.state.Pushed = standing.Position
			p.Stats.Count(outbox.ChannelPush, outbox.ResultHeld)
		}
		if w.push || w.hook || w.come || seen {
			news = append(news, w)
		}
	}
	return news, again, nil
}

// soonest returns the shorter of two pauses, where 0 means none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// states reads what was last sent about waiting bookings, or else the position that
// joining answered. Bookings are omitted while that may not be stored yet.
func (p *Pushes) states(ctx context.Context, organizationID string) (states map[string]positionState, young bool, err error) {
	now, err := p.Store.Now(ctx)
	if err != nil {
		return nil, false, err
	}
	var rows []struct {
		State     positionState `gorm:"embedded"`
		Answered  bool
		PendingAt time.Time
	}
	err = p.Store.Read(ctx).Raw(`SELECT b.id AS booking_id, COALESCE(s.version, 0) AS version, COALESCE(s.sequence, 0) AS sequence,
		COALESCE(s.pushed, q.position, 0) AS pushed, COALESCE(s.hooked, q.answered, 0) AS hooked, COALESCE(s.telling, 0) AS telling, s.come_now_at,
		COALESCE(s.booking_id, q.booking_id) IS NOT NULL AS answered, b.pending_at
		FROM bookings b LEFT JOIN position_states s ON s.booking_id = b.id LEFT JOIN quotes q ON q.booking_id = b.id
		WHERE b.organization_id = ? AND b.stage = 'WAITING'`, organizationID).Scan(&rows).Error
	if err != nil {
		return nil, false, fmt.Errorf("read what was told: %w", err)
	}
	states = make(map[string]positionState, len(rows))
	for _, row := range rows {
		if !row.Answered && now.Sub(row.PendingAt) < joinSettles {
			young = true
			continue
		}
		states[row.State.BookingID] = row.State
	}
	return states, young, nil
}

// phones lists the devices of waiting customers, by booking.
func (p *Pushes) phones(ctx context.Context, organizationID string) (map[string][]phone, error) {
	phones := map[string][]phone{}
	if p.client == nil {
		return phones, nil
	}
	var rows []struct {
		BookingID string
		Phone     phone `gorm:"embedded"`
	}
	err := p.Store.Read(ctx).Raw(`SELECT b.id AS booking_id, d.id, d.platform, d.lang, d.token_sealed FROM bookings b
		JOIN devices d ON d.organization_id = b.organization_id AND d.customer_id = b.customer_id
		WHERE b.organization_id = ? AND b.stage = 'WAITING' ORDER BY d.id`, organizationID).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read the devices of those who wait: %w", err)
	}
	for _, row := range rows {
		phones[row.BookingID] = append(phones[row.BookingID], row.Phone)
	}
	return phones, nil
}

// threshold is the position or wait from which the patients of a type are asked to
// come.
type threshold struct {
	TypeID            string
	Position, Minutes int
}

func (p *Pushes) comeNow(ctx context.Context, organizationID string) (map[string]threshold, error) {
	var rows []threshold
	err := p.Store.Read(ctx).Raw(`SELECT id AS type_id, come_now_at_position AS position, come_now_at_minutes AS minutes FROM booking_types
		WHERE organization_id = ? AND (come_now_at_position > 0 OR come_now_at_minutes > 0)`, organizationID).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read from where on patients come: %w", err)
	}
	byType := make(map[string]threshold, len(rows))
	for _, row := range rows {
		byType[row.TypeID] = row
	}
	return byType, nil
}

// live returns the positions that live connections were sent, if those are not to be
// pushed as well.
func (p *Pushes) live(ctx context.Context, organizationID string, standings []models.Standing, phones map[string][]phone) (map[string]int, error) {
	if p.opts.FCM.Live == nil || len(phones) == 0 {
		return nil, nil
	}
	ids := make([]string, 0, len(phones))
	for _, s := range standings {
		if len(phones[s.BookingID]) > 0 {
			ids = append(ids, s.BookingID)
		}
	}
	held, err := p.opts.FCM.Live(ctx, organizationID, ids)
	if err != nil { // a push too many does no harm
		p.Log.Warn("live connections are unknown; every patient gets a push", "error", err)
		return nil, ctx.Err()
	}
	return held, nil
}

// tellBatch sends one batch. It returns after how long some of it has to be sent
// again, or 0.
func (p *Pushes) tellBatch(ctx context.Context, organizationID string, batch []*waiter) (again time.Duration, err error) {
	if wait := p.paused(); wait > 0 {
		for _, w := range batch {
			if w.push {
				w.push, again = false, wait
			}
		}
	}
	if err := p.begin(ctx, organizationID, batch); err != nil {
		return 0, err
	}
	var messages []*messaging.Message
	for _, w := range batch {
		if !w.push {
			continue
		}
		for i := range w.phones {
			m, err := p.position(w, &w.phones[i])
			if err != nil {
				return 0, err
			}
			messages = append(messages, m)
		}
	}
	if len(messages) == 0 {
		return again, nil
	}
	outcomes, err := p.send(ctx, messages)
	if err != nil {
		return 0, err
	}
	return p.settle(context.WithoutCancel(ctx), batch, outcomes)
}

// paused returns how long FCM has asked to wait.
func (p *Pushes) paused() time.Duration {
	if p.client == nil {
		return 0
	}
	return p.line.wait()
}

// begin writes, in one transaction, the positions that are about to be pushed, the
// webhooks, and the jobs that ask patients to come.
func (p *Pushes) begin(ctx context.Context, organizationID string, batch []*waiter) error {
	err := p.Store.Tx(ctx, func(tx *store.Tx) error {
		var rows []positionState
		var hooks []outbox.PositionUpdate
		for _, w := range batch {
			w.numberPosition()
			if w.push {
				w.state.Telling = w.Position
			}
			if w.hook {
				w.state.Hooked = w.Position
				hooks = append(hooks, outbox.PositionUpdate{Standing: w.Standing, Sequence: w.state.number()})
			}
			if w.come {
				w.state.ComeNowAt = &tx.Now
				tx.Enqueue(comeNow(organizationID, w, tx.Now))
			}
			w.state.UpdatedAt = tx.Now
			rows = append(rows, w.state)
		}
		if err := upsert(tx, rows); err != nil {
			return err
		}
		if len(hooks) == 0 {
			return nil
		}
		return p.opts.Webhooks.Positions(tx, organizationID, hooks)
	})
	if err != nil {
		return fmt.Errorf("write the places about to be told: %w", err)
	}
	return nil
}

// numberPosition gives the position the next number, unless a push of it may have been sent
// already: then the same number is sent again.
func (w *waiter) numberPosition() {
	w.doubted = w.push && w.state.Telling == w.Position && w.state.Version == w.Version && !w.hook
	if !w.push && !w.hook || w.doubted {
		return
	}
	if w.state.Version != w.Version {
		w.state.Version, w.state.Sequence = w.Version, 0
	}
	w.state.Sequence++
}

// upsertRows is how many rows go into one statement. On SQLite, the time to bind the
// values grows with their square.
const upsertRows = 50

// upsert inserts rows, or updates those with the same key.
func upsert[T any](tx *store.Tx, rows []T) error {
	return tx.Clauses(clause.OnConflict{UpdateAll: true}).CreateInBatches(rows, upsertRows).Error
}

// comeNow makes the push that asks a patient to come, once for a booking.
func comeNow(organizationID string, w *waiter, now time.Time) push {
	targets := make([]target, len(w.phones))
	for i := range w.phones {
		targets[i].DeviceID = w.phones[i].ID
	}
	return push{
		NotificationID: w.BookingID + ".comeNow", OrganizationID: organizationID, Type: models.EventComeNow, BookingID: w.BookingID,
		Position: w.Position, WaitMinutes: w.WaitMinutes, Until: now.Add(pushLife), Targets: targets,
	}
}

// settle stores the positions that FCM has accepted. A position counts as sent when
// it has to be sent to none of the patient's phones again.
func (p *Pushes) settle(ctx context.Context, batch []*waiter, outcomes []outcome) (again time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, outbox.StopTimeout)
	defer cancel()
	err = p.Store.Tx(ctx, func(tx *store.Tx) error {
		var rows []positionState
		var gone []string
		again = 0
		for _, w := range batch {
			if !w.push {
				continue
			}
			done, doubted := true, false
			for i, o := range outcomes[:len(w.phones)] {
				done, doubted = done && !o.again(), doubted || o.status == pushSending
				if o.status == pushUnregistered {
					gone = append(gone, w.phones[i].ID)
				}
				if o.again() {
					again = max(again, o.wait, sweepRetry)
				}
			}
			outcomes = outcomes[len(w.phones):]
			if done {
				w.state.Pushed = w.Position
			}
			if !doubted {
				w.state.Telling = 0
			}
			w.state.UpdatedAt = tx.Now
			rows = append(rows, w.state)
		}
		if err := upsert(tx, rows); err != nil {
			return err
		}
		return forget(tx, slices.Compact(slices.Sorted(slices.Values(gone))))
	})
	if err != nil {
		return 0, fmt.Errorf("write the places told: %w", err)
	}
	return again, nil
}

// position makes the push of a position. It has data only and shows no notification.
// FCM keeps the newest one for each booking, for a minute.
func (p *Pushes) position(w *waiter, to *phone) (*messaging.Message, error) {
	token, err := p.devices.sealer.Open(to.TokenSealed)
	if err != nil {
		return nil, err
	}
	data := map[string]string{
		"via": models.Via, "type": string(models.EventPositionUpdated), "bookingId": w.BookingID,
		"notificationId": w.BookingID + "." + strconv.FormatInt(w.state.number(), 10),
		"queuePosition":  strconv.Itoa(w.Position), "estimatedWaitMinutes": strconv.Itoa(w.WaitMinutes),
	}
	if w.doubted {
		data["redelivery"] = "true"
	}
	life := positionLife
	seconds := strconv.Itoa(int(life / time.Second))
	return &messaging.Message{
		Token: token, Data: data,
		Android: &messaging.AndroidConfig{CollapseKey: w.BookingID, Priority: "normal", TTL: &life},
		APNS: &messaging.APNSConfig{
			Headers: map[string]string{
				"apns-push-type": "background", "apns-priority": "5", "apns-collapse-id": w.BookingID,
				"apns-expiration": strconv.FormatInt(p.Now().Add(life).Unix(), 10),
			},
			Payload: &messaging.APNSPayload{Aps: &messaging.Aps{ContentAvailable: true}},
		},
		Webpush: &messaging.WebpushConfig{Headers: map[string]string{"TTL": seconds, "Topic": w.BookingID, "Urgency": "low"}},
	}, nil
}
