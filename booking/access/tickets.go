package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"nowserving/models"
)

const (
	// A ticket token is 16 digits of base 62, so that its link fits a text message:
	// random ones, and a tag that only this service can make. A token without the
	// right tag is refused without a look-up; to guess one takes 95 bits.
	ticketRandom = 11
	ticketTag    = 5
	// ticketsAtOnce bounds the tickets in one query, and ticketTimeout its time.
	ticketsAtOnce = 500
	ticketTimeout = 5 * time.Second
	// After fewTickets queries within ticketWindow, the tickets of all visits of the
	// organization are read together, at most maxTickets, and kept for ticketsLife.
	fewTickets             = 4
	ticketWindow           = time.Second
	ticketsLife            = 5 * time.Second
	maxTickets             = 20_000
	maxTicketOrganizations = 50 // organizations
)

// NewTicketToken draws a token that shows and cancels one booking, and nothing
// else, and the hash that the booking keeps of it.
func (a *Access) NewTicketToken() (token, hash string) {
	text := randomText(base62, ticketRandom)
	token = text + a.ticketTag(text)
	return token, a.ticketHash(token)
}

func (a *Access) ticketTag(text string) string {
	mac := hmac.New(sha256.New, a.tickets)
	mac.Write([]byte("tag:" + text))
	sum := mac.Sum(nil)
	tag := make([]byte, ticketTag)
	for i := range tag {
		tag[i] = base62[(int(sum[2*i])<<8|int(sum[2*i+1]))%len(base62)]
	}
	return string(tag)
}

// ticketHash is keyed: a token is shorter than what HashSecret is for.
func (a *Access) ticketHash(token string) string {
	mac := hmac.New(sha256.New, a.tickets)
	mac.Write([]byte("token:" + token))
	return hex.EncodeToString(mac.Sum(nil))
}

// isTicket reports whether a token is one that this service has drawn.
func (a *Access) isTicket(token string) bool {
	return len(token) == ticketRandom+ticketTag && constantEqual(token[ticketRandom:], a.ticketTag(token[:ticketRandom]))
}

// ticketLookups batches the look-ups of ticket tokens. Look-ups that arrive while a
// query runs wait for the next one. When many arrive, because all patients reconnect
// after a restart, the tickets of their organizations are read in one query each.
type ticketLookups struct {
	turn chan struct{} // held by the group whose query runs

	mu            sync.Mutex
	next          *ticketGroup
	queries       int // since
	since         time.Time
	organizations map[string]*organizationTickets // by organization
}

// organizationTickets are the tickets of an organization's visits, by hash.
type organizationTickets struct {
	tickets map[string]*models.Booking
	until   time.Time
}

// inOrganization finds a ticket among those that were read together. The caller holds the
// lock.
func (l *ticketLookups) inOrganization(hash string, now time.Time) *models.Booking {
	for id, c := range l.organizations {
		if now.After(c.until) {
			delete(l.organizations, id)
		} else if b := c.tickets[hash]; b != nil {
			return b
		}
	}
	return nil
}

// many reports whether so many queries run that reading all tickets is cheaper.
// The caller holds the lock.
func (l *ticketLookups) many(now time.Time) bool {
	if now.Sub(l.since) > ticketWindow {
		l.queries, l.since = 0, now
	}
	l.queries++
	return l.queries > fewTickets
}

type ticketGroup struct {
	hashes []string
	done   chan struct{}
	found  map[string]*models.Booking // once done
	err    error
}

// ticket finds the principal of a ticket token.
func (a *Access) ticket(ctx context.Context, token string) (Principal, error) {
	hash := a.ticketHash(token)
	l := &a.ticketLookups
	l.mu.Lock()
	if b := l.inOrganization(hash, time.Now()); b != nil {
		l.mu.Unlock()
		return ticketPrincipal(b), nil
	}
	first := l.next == nil
	if first {
		l.next = &ticketGroup{done: make(chan struct{})}
	}
	g := l.next
	g.hashes = append(g.hashes, hash)
	l.mu.Unlock()
	if first {
		a.readTickets(ctx, g)
	}
	select {
	case <-g.done:
	case <-ctx.Done():
		return Principal{}, ctx.Err()
	}
	if g.err != nil {
		return Principal{}, g.err
	}
	b := g.found[hash]
	if b == nil {
		return Principal{}, errBadToken
	}
	return ticketPrincipal(b), nil
}

func ticketPrincipal(b *models.Booking) Principal {
	expires := b.CreatedAt.Add(ticketLife)
	if b.EndsAt != nil {
		expires = b.EndsAt.Add(ticketLife)
	}
	return Principal{Kind: KindTicket, OrganizationID: b.OrganizationID, SubjectID: b.ID, BookingID: b.ID, ExpiresAt: expires}
}

// readTickets runs the query of a group when its turn comes. It outlives the request
// that started it, because the other requests of the group wait for it.
func (a *Access) readTickets(ctx context.Context, g *ticketGroup) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ticketTimeout)
	defer cancel()
	l := &a.ticketLookups
	defer close(g.done)
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		g.err = ctx.Err()
	}
	l.mu.Lock()
	l.next = nil // later look-ups join the next group
	g.found = make(map[string]*models.Booking, len(g.hashes))
	missing := slices.DeleteFunc(g.hashes, func(hash string) bool { // read while the group waited
		b := l.inOrganization(hash, time.Now())
		if b != nil {
			g.found[hash] = b
		}
		return b != nil
	})
	many := len(missing) > 0 && l.many(time.Now())
	l.mu.Unlock()
	if g.err != nil {
		return
	}
	if g.err = a.findTickets(ctx, missing, g.found); g.err == nil && many {
		g.err = a.readAllTickets(ctx, missing, g.found)
	}
}

const ticketColumns = "id, organization_id, ticket_hash, created_at, ends_at"

// findTickets reads the tickets with some hashes.
func (a *Access) findTickets(ctx context.Context, hashes []string, found map[string]*models.Booking) error {
	for some := range slices.Chunk(hashes, ticketsAtOnce) {
		var rows []models.Booking
		if err := a.store.Read(ctx).Select(ticketColumns).Where("ticket_hash IN ?", some).Find(&rows).Error; err != nil {
			return fmt.Errorf("read tickets: %w", err)
		}
		for i := range rows {
			found[*rows[i].TicketHash] = &rows[i]
		}
	}
	return nil
}

// readAllTickets reads all tickets of the organizations that some tickets belong to.
func (a *Access) readAllTickets(ctx context.Context, hashes []string, found map[string]*models.Booking) error {
	l := &a.ticketLookups
	for _, hash := range hashes {
		b := found[hash]
		if b == nil {
			continue
		}
		l.mu.Lock()
		known := l.organizations[b.OrganizationID]
		l.mu.Unlock()
		if known != nil && time.Now().Before(known.until) {
			continue
		}
		var rows []models.Booking
		err := a.store.Read(ctx).Select(ticketColumns).
			Where("organization_id = ? AND ticket_hash IS NOT NULL AND stage IN ?", b.OrganizationID,
				[]models.Stage{models.StageWaiting, models.StageHeld, models.StageCalled, models.StageServing}).
			Limit(maxTickets).Find(&rows).Error
		if err != nil {
			return fmt.Errorf("read the tickets of an organization: %w", err)
		}
		c := &organizationTickets{tickets: make(map[string]*models.Booking, len(rows)), until: time.Now().Add(ticketsLife)}
		for i := range rows {
			c.tickets[*rows[i].TicketHash] = &rows[i]
		}
		l.mu.Lock()
		if l.organizations == nil || len(l.organizations) >= maxTicketOrganizations {
			l.organizations = map[string]*organizationTickets{}
		}
		l.organizations[b.OrganizationID] = c
		l.mu.Unlock()
	}
	return nil
}
