package handlers

import (
	"context"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

const (
	// guestsOfAddress is how many guests may join from an address in codesPeriod, and
	// clinicGuests the factor for an address that the organization names as its
	// clinic's. That is enough for the patients on its Wi-Fi, and too little to flood
	// a queue.
	guestsOfAddress = 60
	clinicGuests    = 5
)

// admitGuest checks that the organization accepts guests, and the proof or code that
// it asks them for.
func (s *Server) admitGuest(ctx context.Context, c api.Caller, body ownScheduleBody) error {
	if c.Organization.GuestJoin == models.GuestsOff || !body.queued() {
		return models.Errorf(models.CodeUnauthenticated, "Sign in first.")
	}
	if c.Organization.GuestJoin == models.GuestsOnSite {
		if err := s.checkOnSite(ctx, c, body.OnSiteCode); err != nil {
			return err
		}
	} else if err := s.api.Access.CheckGuest(ctx, s.proof(OTPBody{Turnstile: body.Turnstile}, c)); err != nil {
		return err
	}
	few := guestsOfAddress
	if s.api.Directory.ClinicAt(c.Address, c.OrganizationID) != "" {
		few *= clinicGuests
	}
	subscriber, network := s.api.HashedNetworksOf(c.Address)
	wait := s.api.Limiter.TakeAll(ctx, []api.NamedLimit{
		budget("guests:"+c.OrganizationID+":"+subscriber, few, codesPeriod),
		budget("guests:"+c.OrganizationID+":"+network, networkFactor*few, codesPeriod),
	})
	if wait <= 0 {
		return nil
	}
	return &models.Error{Code: models.CodeTooManyRequests, RetryAfter: wait, Detail: "Too many guests have joined from this network."}
}

// checkOnSite compares a code with the clinic's on-site code. Wrong codes are charged
// to the address.
func (s *Server) checkOnSite(ctx context.Context, c api.Caller, given string) error {
	code, err := s.onSite.Open(c.Organization.OnSiteCodeSealed)
	if err != nil {
		return err
	}
	budgets := s.guessBudgets(c.Address)
	if wait := s.api.Limiter.Spent(ctx, budgets); wait > 0 {
		return &models.Error{Code: models.CodeTooManyRequests, RetryAfter: wait, Detail: "Too many wrong codes came from this network."}
	}
	if access.SameOnSiteCode(given, code) {
		return nil
	}
	if given == "" {
		return models.Errorf(models.CodeOnSite, "Type the code that the clinic shows at the entrance or the desk.")
	}
	s.api.Limiter.Charge(ctx, budgets)
	return models.Errorf(models.CodeOnSite, "This is not the code of the clinic. It is shown at the entrance or the desk.")
}
