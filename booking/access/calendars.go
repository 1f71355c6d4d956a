package access

import (
	"context"
	"fmt"
	"strings"

	"nowserving/models"
)

// feedPrefix begins the token of a calendar feed, which otherwise has the form of a key.
const feedPrefix = "nsf_"

// NewFeedToken draws the token of a calendar feed.
func NewFeedToken() string { return newSecret(feedPrefix) }

// IsFeedToken reports whether a token has the form of those that NewFeedToken draws. One
// that is made up is refused without a look-up.
func IsFeedToken(token string) bool {
	text, ok := strings.CutPrefix(token, feedPrefix)
	return ok && len(text) == keyRandom+keyChecksum && checksum(text[:keyRandom]) == text[keyRandom:]
}

// CalendarLink authenticates a link to the calendar file of a booking, because a calendar
// app sends no headers. The token is either a ticket token or the tag that
// models.SignCalendarLinks makes of the booking's id. The tag is in messages: they are
// sent when the ticket token, of which only a hash is kept, is no longer known. It is valid
// as long as the ticket token, shows the file and nothing else, and is accepted here only.
func (a *Access) CalendarLink(ctx context.Context, bookingID, token string) (Principal, error) {
	switch {
	case a.isTicket(token):
		return a.Authenticate(ctx, token, nil)
	case !a.calendarLinks.Signed(bookingID, token):
		return Principal{}, errBadToken
	}
	var rows []models.Booking
	if err := a.store.Read(ctx).Select(ticketColumns).Where("id = ?", bookingID).Limit(1).Find(&rows).Error; err != nil {
		return Principal{}, fmt.Errorf("read the booking of a calendar link: %w", err)
	}
	if len(rows) == 0 {
		return Principal{}, errBadToken
	}
	p := ticketPrincipal(&rows[0])
	if !p.ExpiresAt.After(a.opts.Now()) {
		return Principal{}, errTokenExpired
	}
	return p, nil
}
