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
)

// NewTicketToken draws a token that shows and cancels one booking, and nothing
// else, and the hash that the booking keeps of it.
func (a *Access) NewTicketToken() (token, hash string) {
	text := randomText(ticketRandom)
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

// ticketLookups ask the database about tickets. Those that come while a query runs
// wait, and are asked about together: after a restart a whole waiting room comes
// back at once.
type ticketLookups struct {
	turn chan struct{} // held by the group that is asked about

	mu   sync.Mutex
	next *ticketGroup
}

type ticketGroup struct {
	hashes []string
	done   chan struct{}
	found  map[string]*models.Booking // once done
	err    error
}

// ticket finds who comes with a ticket's token.
func (a *Access) ticket(ctx context.Context, token string) (Principal, error) {
	hash := a.ticketHash(token)
	l := &a.ticketLookups
	l.mu.Lock()
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
	expires := b.CreatedAt.Add(ticketLife)
	if b.EndsAt != nil {
		expires = b.EndsAt.Add(ticketLife)
	}
	return Principal{Kind: KindTicket, OrganizationID: b.OrganizationID, SubjectID: b.ID, BookingID: b.ID, ExpiresAt: expires}, nil
}

// readTickets asks about a group when its turn has come. It does not end with the
// one request that does it for all.
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
	l.next = nil // who comes from now on is asked about with the next group
	l.mu.Unlock()
	if g.err != nil {
		return
	}
	g.found = make(map[string]*models.Booking, len(g.hashes))
	for some := range slices.Chunk(g.hashes, ticketsAtOnce) {
		var rows []models.Booking
		err := a.store.Read(ctx).Select("id, organization_id, ticket_hash, created_at, ends_at").Where("ticket_hash IN ?", some).Find(&rows).Error
		if err != nil {
			g.err = fmt.Errorf("read tickets: %w", err)
			return
		}
		for i := range rows {
			g.found[*rows[i].TicketHash] = &rows[i]
		}
	}
}
