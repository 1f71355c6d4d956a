package models

// TimeOptions say at which times of a day a visit may begin. Each adds times; nil is not
// said.
type TimeOptions struct {
	InBetween     *bool   `json:"showInBetweenSlots,omitempty" doc:"Times that leave no gap: when a slot opens, and when another visit ends."`
	Oclock        *bool   `json:"showOclock,omitempty" doc:"On the hour. Default true."`
	HalfHour      *bool   `json:"showHalfHour,omitempty" doc:"At half past."`
	ThirdHour     *bool   `json:"showThirdHour,omitempty" doc:"At 20 and 40 minutes past."`
	QuarterHour   *bool   `json:"showQuarterHour,omitempty" doc:"At 15 and 45 minutes past."`
	SixthHour     *bool   `json:"showSixthHour,omitempty" doc:"At 10 and 50 minutes past."`
	AfterMidnight *bool   `json:"showAfterMidnight,omitempty" doc:"Also the part of a slot that is after midnight. Default true."`
	FixedTimes    *string `json:"showFixedTimes,omitempty" maxLength:"1000" example:"800,1200" doc:"Military times, separated by comma."`
}

// Or returns the options with those of others where they say nothing.
func (o TimeOptions) Or(others TimeOptions) TimeOptions {
	for _, pair := range []struct{ own, other **bool }{
		{&o.InBetween, &others.InBetween}, {&o.Oclock, &others.Oclock}, {&o.HalfHour, &others.HalfHour},
		{&o.ThirdHour, &others.ThirdHour}, {&o.QuarterHour, &others.QuarterHour}, {&o.SixthHour, &others.SixthHour},
		{&o.AfterMidnight, &others.AfterMidnight},
	} {
		if *pair.own == nil {
			*pair.own = *pair.other
		}
	}
	if o.FixedTimes == nil {
		o.FixedTimes = others.FixedTimes
	}
	return o
}
