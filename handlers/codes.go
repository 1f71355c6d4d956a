package handlers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/go-redis/redis_rate/v10"

	"nowserving/booking/access"
	"nowserving/models"
)

const (
	// codesPeriod is the shorter of the two periods in which codes are bounded.
	codesPeriod = 10 * time.Minute
	// codesAtLeast is what an address may always ask for in it: sixty patients on
	// a clinic's Wi-Fi who sign in within some minutes.
	codesAtLeast = 60
	// guessesOfAddress is how many wrong codes come from an address in
	// codesPeriod, and guessesAtContact how many of them for one contact: three
	// codes of the five that a contact gets, so that one stranger can't spoil all.
	guessesOfAddress = 60
	guessesAtContact = 15
	// clinicCodes and clinicDay are how many times as many codes in codesPeriod and
	// in a day are sent to an address that the organization names as its clinic's.
	clinicCodes = 5
	clinicDay   = 2
	// networkFactor is how many times as much as an address the network around it
	// has: 24 bits in IPv4, 48 in IPv6.
	networkFactor = 3
)

// named is a budget with the name it is counted under.
type named struct {
	name  string
	limit redis_rate.Limit
}

func per(n int, period time.Duration) redis_rate.Limit {
	return redis_rate.Limit{Rate: n, Burst: n, Period: period}
}

// takeAll spends one request of each budget, or of none if one is spent. It
// returns how long that one has to be waited for.
func (l *limiter) takeAll(ctx context.Context, budgets []named) time.Duration {
	for i, b := range budgets {
		left := l.take(ctx, b.name, b.limit)
		if left.wait <= 0 {
			continue
		}
		for _, taken := range budgets[:i] {
			l.give(ctx, taken.name, taken.limit)
		}
		return left.wait
	}
	return 0
}

// spent returns how long the first of the budgets that is spent has to be waited
// for, without spending anything.
func (l *limiter) spent(ctx context.Context, budgets []named) time.Duration {
	for _, b := range budgets {
		if wait := l.peek(ctx, b.name, b.limit); wait > 0 {
			return wait
		}
	}
	return 0
}

// codeBudgets are what a code that is sent counts for. From one address an
// organization sends 6 % of its daily messages in ten minutes, at least 60, and
// 30 % in a day; from the network around it three times and twice as many. So a
// stranger can neither run up the bill nor leave a clinic without codes for the
// day, and a clinic whose patients share one address gets through its day: with
// the default of 1,000 messages, 60 sign-ins in ten minutes and 300 in a day.
//
// An address that the organization names as its clinic's has five times as many in
// ten minutes and twice as many in a day. All its addresses share the daily bound.
func (s *Server) codeBudgets(c caller) []named {
	daily := s.o.DailyCodes
	few, many := max(codesAtLeast, daily*6/100), max(codesAtLeast, daily*30/100)
	subscriber, network := s.hiddenNetworksOf(c.Address)
	of := func(part, span string) string { return "codes:" + c.OrganizationID + ":" + part + ":" + span }
	if s.directory.clinicAt(c.Address, c.OrganizationID) != "" {
		return []named{
			{of(subscriber, "clinic10m"), per(clinicCodes*few, codesPeriod)},
			{of("clinic", "10m"), per(networkFactor*clinicCodes*few, codesPeriod)},
			{of("clinic", "day"), per(clinicDay*many, 24*time.Hour)},
		}
	}
	return []named{
		{of(subscriber, "10m"), per(few, codesPeriod)},
		{of(network, "10m"), per(networkFactor*few, codesPeriod)},
		{of(subscriber, "day"), per(many, 24*time.Hour)},
		{of(network, "day"), per(2*many, 24*time.Hour)},
	}
}

// hiddenNetworksOf is networksOf as keyed hashes: these budgets are kept for up to
// a day, which is longer than an erasure may leave an address.
func (s *Server) hiddenNetworksOf(address string) (subscriber, network string) {
	subscriber, network = networksOf(address)
	hide := func(text string) string {
		mac := hmac.New(sha256.New, s.o.Secret)
		mac.Write([]byte("budgets of codes:" + text))
		return hex.EncodeToString(mac.Sum(nil)[:16])
	}
	return hide(subscriber), hide(network)
}

// spendCode charges a code that will be sent to the address that asks for it. The
// answer is the same for known and unknown people.
func (s *Server) spendCode(ctx context.Context, c caller, method string) error {
	if !s.o.Access.SendsCodes(method) {
		return nil // it costs nothing
	}
	wait := s.limiter.takeAll(ctx, s.codeBudgets(c))
	if wait <= 0 {
		return nil
	}
	return &models.Error{
		Code: models.CodeTooManyCodes, RetryAfter: wait, Detail: "Too many one-time codes were asked for from this network.",
	}
}

// guessBudgets are what a wrong code counts for.
func (s *Server) guessBudgets(address, whose string) []named {
	subscriber, network := s.hiddenNetworksOf(address)
	return []named{
		{"guesses:" + subscriber, per(guessesOfAddress, codesPeriod)},
		{"guesses:" + network, per(networkFactor*guessesOfAddress, codesPeriod)},
		{"guesses:" + subscriber + ":" + whose, per(guessesAtContact, codesPeriod)},
	}
}

// verifyCode signs a person in with a one-time code. What a wrong code means to
// the person: see access.VerifyCode.
func (s *Server) verifyCode(ctx context.Context, c caller, to access.Contact, code string) (session access.Session, err error) {
	contact, err := s.o.Access.ContactHash(c.OrganizationID, to)
	if err != nil {
		return access.Session{}, err
	}
	err = s.guess(ctx, c.Address, contact, func() error {
		session, err = s.o.Access.VerifyCode(ctx, c.OrganizationID, to, code, s.guesser(c))
		return err
	})
	return session, err
}

// guesser names the network that a caller guesses from.
func (s *Server) guesser(c caller) string {
	subscriber, _ := s.hiddenNetworksOf(c.Address)
	return subscriber
}

// guess does what takes the one-time code of a person. Wrong codes are charged to the address
// they come from, 60 in ten minutes and 15 for one person, and to the network
// around it, three times as many: beyond that it is not asked what a code is worth.
func (s *Server) guess(ctx context.Context, address, whose string, use func() error) error {
	budgets := s.guessBudgets(address, whose)
	if wait := s.limiter.spent(ctx, budgets); wait > 0 {
		return &models.Error{
			Code: models.CodeTooManyRequests, RetryAfter: wait,
			Detail: "More than " + strconv.Itoa(guessesAtContact) + " wrong codes for one person, or too many at all, came from this network.",
		}
	}
	err := use()
	if access.IsGuess(err) {
		for _, b := range budgets {
			s.limiter.take(ctx, b.name, b.limit)
		}
	}
	return err
}
