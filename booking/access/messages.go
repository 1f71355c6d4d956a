package access

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nyaruka/phonenumbers"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// DailyCodes is how many messages with codes an organization sends its
	// customers in a day, unless Options or the organization say otherwise.
	DailyCodes = 1000
	// foreignShare is the divisor of the limit for a foreign country: a tenth.
	foreignShare = 10
)

// spendMessage counts a message with a code to a customer. It refuses the message if
// the organization's messages of the day, or those to a foreign country, are spent.
// Days are in UTC. Messages to members are not counted: each member gets five in ten
// minutes at most. phone is empty for e-mail.
func (a *Access) spendMessage(tx *store.Tx, organizationID, phone string) error {
	var own []int
	err := tx.Model(&models.Organization{}).Where("id = ? AND otp_daily_limit IS NOT NULL", organizationID).Pluck("otp_daily_limit", &own).Error
	if err != nil {
		return fmt.Errorf("read the daily limit of codes: %w", err)
	}
	limit := a.opts.DailyCodes
	if len(own) == 1 {
		limit = own[0]
	}
	if err := spendDay(tx, organizationID, "", limit); err != nil {
		return err
	}
	country := callingCode(phone)
	if country == "" {
		return nil
	}
	foreign, err := a.foreign(tx, organizationID, country)
	if err != nil || !foreign {
		return err
	}
	return spendDay(tx, organizationID, country, max(1, limit/foreignShare))
}

// spendDay counts a message of the day, to a country or, if that is empty, to any.
// Other messages of the organization wait until the transaction ends.
func spendDay(tx *store.Tx, organizationID, country string, limit int) error {
	day := tx.Now.UTC().Truncate(24 * time.Hour)
	var sent int
	err := tx.Raw(`INSERT INTO code_budgets (organization_id, day, country, sent) VALUES (?, ?, ?, 1)
		ON CONFLICT (organization_id, day, country) DO UPDATE SET sent = code_budgets.sent + 1 RETURNING sent`,
		organizationID, day, country).Row().Scan(&sent)
	if err != nil {
		return fmt.Errorf("count the messages with codes: %w", err)
	}
	if sent <= limit {
		return nil
	}
	e := models.Errorf(models.CodeTooManyCodes, "No more one-time codes are sent for this organization today.")
	if country != "" {
		e = models.Errorf(models.CodeTooManyCodes, "No more one-time codes are sent to numbers of +%s for this organization today.", country)
	}
	e.RetryAfter = day.Add(24 * time.Hour).Sub(tx.Now)
	return e
}

// foreign reports whether an organization is not expected to have customers in a
// country. If its members have no phones and Options name no countries, no country is
// foreign.
func (a *Access) foreign(tx *store.Tx, organizationID, country string) (bool, error) {
	var phones []string
	err := tx.Model(&models.Member{}).Where("organization_id = ? AND phone IS NOT NULL", organizationID).Pluck("phone", &phones).Error
	if err != nil {
		return false, fmt.Errorf("look for the countries of members: %w", err)
	}
	home := slices.Clone(a.opts.CodeCountries)
	for _, phone := range phones {
		home = append(home, callingCode(phone))
	}
	return len(home) > 0 && !slices.Contains(home, country), nil
}

// callingCode returns the country calling code of a phone number in E.164, such as
// 966.
func callingCode(phone string) string {
	number, err := phonenumbers.Parse(phone, "ZZ")
	if err != nil {
		return ""
	}
	return strconv.Itoa(int(number.GetCountryCode()))
}
