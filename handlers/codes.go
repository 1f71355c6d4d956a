package handlers

import (
	"context"
	"strconv"
	"time"

	"github.com/go-redis/redis_rate/v10"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

const (
	// codesPeriod is the shorter of the two periods in which codes are bounded.
	codesPeriod = 10 * time.Minute
	// codesAtLeast is how many codes an address may always ask for in codesPeriod:
	// sixty patients who sign in on a clinic's Wi-Fi.
	codesAtLeast = 60
	// guessesOfAddress is how many wrong codes come from an address in
	// codesPeriod, and guessesAtContact how many of them for one contact: three
	// codes of the five that a contact gets, so that one attacker can't use up all.
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

// budget makes a budget of n in a period.
func budget(name string, n int, period time.Duration) api.NamedLimit {
	return api.NamedLimit{Name: name, Limit: redis_rate.Limit{Rate: n, Burst: n, Period: period}}
}

// codeBudgets are the budgets that a sent code is charged to. An address may ask for
// 6 % of the organization's daily messages in ten minutes, at least 60, and for 30 %
// in a day; the network around it for three times and twice as many. So an attacker
// can neither run up the bill nor use up a clinic's codes, and the default of 1,000
// messages is enough for 60 sign-ins in ten minutes and 300 in a day from one
// address.
//
// An address that the organization names as its clinic's has five times as many in
// ten minutes and twice as many in a day. All its addresses share the daily bound.
func (s *Server) codeBudgets(c api.Caller) []api.NamedLimit {
	daily := s.opts.DailyCodes
	few, many := max(codesAtLeast, daily*6/100), max(codesAtLeast, daily*30/100)
	subscriber, network := s.api.HashedNetworksOf(c.Address)
	of := func(part, span string) string { return "codes:" + c.OrganizationID + ":" + part + ":" + span }
	if s.api.Directory.ClinicAt(c.Address, c.OrganizationID) != "" {
		return []api.NamedLimit{
			budget(of(subscriber, "clinic10m"), clinicCodes*few, codesPeriod),
			budget(of("clinic", "10m"), networkFactor*clinicCodes*few, codesPeriod),
			budget(of("clinic", "day"), clinicDay*many, 24*time.Hour),
		}
	}
	return []api.NamedLimit{
		budget(of(subscriber, "10m"), few, codesPeriod),
		budget(of(network, "10m"), networkFactor*few, codesPeriod),
		budget(of(subscriber, "day"), many, 24*time.Hour),
		budget(of(network, "day"), 2*many, 24*time.Hour),
	}
}

// spendCode charges a code that will be sent to the caller's address. The answer is
// the same whether or not the person is known.
func (s *Server) spendCode(ctx context.Context, c api.Caller, method string) error {
	if !s.api.Access.SendsCodes(method) {
		return nil // it costs nothing
	}
	wait := s.api.Limiter.TakeAll(ctx, s.codeBudgets(c))
	if wait <= 0 {
		return nil
	}
	return &models.Error{
		Code: models.CodeTooManyCodes, RetryAfter: wait, Detail: "Too many one-time codes were asked for from this network.",
	}
}

// guessBudgets are the budgets that a wrong code from an address is charged to:
// those of its network, and one for each of the people it was to be the code of.
func (s *Server) guessBudgets(address string, whose ...string) []api.NamedLimit {
	subscriber, network := s.api.HashedNetworksOf(address)
	budgets := []api.NamedLimit{
		budget("guesses:"+subscriber, guessesOfAddress, codesPeriod),
		budget("guesses:"+network, networkFactor*guessesOfAddress, codesPeriod),
	}
	for _, id := range whose {
		budgets = append(budgets, budget("guesses:"+subscriber+":"+id, guessesAtContact, codesPeriod))
	}
	return budgets
}

// signIn signs a person in with a one-time code. What a wrong code means to
// the person: see access.VerifyCode.
func (s *Server) signIn(ctx context.Context, c api.Caller, to access.Contact, code string) (session access.Session, err error) {
	contact, err := s.api.Access.ContactHash(c.OrganizationID, to)
	if err != nil {
		return access.Session{}, err
	}
	err = s.guess(ctx, c.Address, contact, func() error {
		session, err = s.api.Access.VerifyCode(ctx, c.OrganizationID, to, code, s.api.HashedNetwork(c))
		return err
	})
	return session, err
}

// guess calls use, which checks a one-time code. Wrong codes are charged to the
// caller's address, 60 in ten minutes and 15 for one person, and to the network
// around it, three times as many. Beyond that, use is not called.
func (s *Server) guess(ctx context.Context, address, whose string, use func() error) error {
	budgets := s.guessBudgets(address, whose)
	if wait := s.api.Limiter.Spent(ctx, budgets); wait > 0 {
		return &models.Error{
			Code: models.CodeTooManyRequests, RetryAfter: wait,
			Detail: "More than " + strconv.Itoa(guessesAtContact) + " wrong codes for one person, or too many at all, came from this network.",
		}
	}
	err := use()
	if access.IsGuess(err) {
		s.api.Limiter.Charge(ctx, budgets)
	}
	return err
}
