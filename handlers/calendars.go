package handlers

import (
	"context"
	"net/http"

	"nowserving/booking"
	"nowserving/booking/catalog"
	"nowserving/handlers/api"
	"nowserving/models"
)

// timeRuleBody is a rule that opens a resource.
type timeRuleBody struct {
	ID       string         `json:"id" maxLength:"64" doc:"Default: a new one."`
	Name     string         `json:"name" maxLength:"200"`
	Weekdays []int          `json:"weekdays" maxItems:"7" example:"[0,1,2,3,4]" doc:"0 is Sunday. Empty: every day of the dates or of the recurrence."`
	Slots    []timeSlotBody `json:"slots" required:"true" doc:"The hours of such a day."`
	From     string         `json:"from" maxLength:"10" example:"2026-01-01" doc:"The first day. A rule with dates replaces those without on its days."`
	To       string         `json:"to" maxLength:"10" example:"2026-03-31" doc:"The last day."`
	RRule    string         `json:"rrule" maxLength:"500" example:"FREQ=MONTHLY;BYDAY=1MO" doc:"A recurrence of days (RFC 5545). It begins on from."`
	Types    []string       `json:"types" maxItems:"200" doc:"Only for these booking types. Empty: for all."`
}

// timeSlotBody is a stretch of a day.
type timeSlotBody struct {
	From int `json:"from" required:"true" example:"800" doc:"Military time."`
	To   int `json:"to" required:"true" example:"1200" doc:"Military time, 2400 at most. One that is not after from is on the next day."`
}

// timeRulesBody changes time rules. Omitted fields are unchanged.
type timeRulesBody struct {
	DepthOfDays *int            `json:"depthOfDays" example:"60" doc:"How many days ahead patients can book; 0 is today only."`
	Notice      *int            `json:"scheduleAfterHoursFromNow" example:"2" doc:"How many hours ahead patients book at least: 0 at once, -1 from tomorrow."`
	Rules       *[]timeRuleBody `json:"rules" doc:"Replaced as a whole. Empty, a resource follows the organization's hours."`
}

func (b timeRulesBody) change() booking.TimeRulesChange {
	change := booking.TimeRulesChange{DepthOfDays: b.DepthOfDays, ScheduleAfterHoursFromNow: b.Notice}
	if b.Rules != nil {
		rules := make([]models.TimeRule, len(*b.Rules))
		for i, r := range *b.Rules {
			slots := make([]models.TimeSlot, len(r.Slots))
			for k, slot := range r.Slots {
				slots[k] = models.TimeSlot(slot)
			}
			rules[i] = models.TimeRule{ID: r.ID, Name: r.Name, Weekdays: r.Weekdays, Slots: slots, From: r.From, To: r.To, RRule: r.RRule, Types: r.Types}
		}
		change.Rules = &rules
	}
	return change
}

// timeRulesView are the time rules that hold.
type timeRulesView struct {
	DepthOfDays int               `json:"depthOfDays"`
	Notice      int               `json:"scheduleAfterHoursFromNow"`
	Rules       []models.TimeRule `json:"rules" nullable:"false"`
	Inherited   bool              `json:"inherited" doc:"Whether the rules are the organization's, because the resource has none of its own."`
}

func viewTimeRules(own, common models.Calendar, err error) (api.Result[timeRulesView], error) {
	if err != nil {
		return api.Result[timeRulesView]{}, err
	}
	r, inherited := catalog.RulesOf(own, common)
	if r.Rules == nil {
		r.Rules = []models.TimeRule{}
	}
	return api.Result[timeRulesView]{Result: timeRulesView{r.DepthOfDays, r.ScheduleAfterHoursFromNow, r.Rules, inherited}}, nil
}

// offRuleBody is a rule that closes a resource.
type offRuleBody struct {
	ID       string `json:"id" maxLength:"64" doc:"Default: a new one."`
	Name     string `json:"name" maxLength:"200" example:"National day"`
	From     string `json:"from" required:"true" maxLength:"10" example:"2026-09-23" doc:"The first day."`
	To       string `json:"to" maxLength:"10" example:"2026-09-23" doc:"The last day. Default: from."`
	FromTime *int   `json:"fromTime" example:"1300" doc:"Military time of the first day. Default: its beginning."`
	ToTime   *int   `json:"toTime" example:"1400" doc:"Military time of the last day. Default: its end."`
	RRule    string `json:"rrule" maxLength:"500" example:"FREQ=YEARLY" doc:"Repeats the rule (RFC 5545). It begins on from."`
}

// offRulesBody replaces off rules.
type offRulesBody struct {
	Rules []offRuleBody `json:"rules" required:"true" doc:"Replaced as a whole. Empty, a resource follows the organization's."`
	Force bool          `json:"force" doc:"Close the time even if appointments are booked in it. They stay booked."`
}

func (b offRulesBody) rules() []models.OffRule {
	rules := make([]models.OffRule, len(b.Rules))
	for i, r := range b.Rules {
		rules[i] = models.OffRule(r)
	}
	return rules
}

// offRulesView are the off rules that hold.
type offRulesView struct {
	Rules     []models.OffRule `json:"rules" nullable:"false"`
	Inherited bool             `json:"inherited" doc:"Whether the rules are the organization's, because the resource has none of its own."`
}

func viewOffRules(own, common models.Calendar, err error) (api.Result[offRulesView], error) {
	if err != nil {
		return api.Result[offRulesView]{}, err
	}
	rules, inherited := catalog.OffRulesOf(own, common)
	if rules == nil {
		rules = []models.OffRule{}
	}
	return api.Result[offRulesView]{Result: offRulesView{rules, inherited}}, nil
}

func (s *Server) calendarRoutes() {
	ruleExample := map[string]any{
		"depthOfDays": 60, "scheduleAfterHoursFromNow": 2,
		"rules": []any{map[string]any{"weekdays": []int{0, 1, 2, 3, 4}, "slots": []any{map[string]any{"from": 900, "to": 1200}, map[string]any{"from": 1300, "to": 1700}}}},
	}
	offExample := map[string]any{"rules": []any{map[string]any{"name": "National day", "from": "2026-09-23", "rrule": "FREQ=YEARLY"}}}
	const hours = "Times are military and in the organization's time zone. A slot that ends before it begins goes past midnight. Rules that overlap or that no day matches are refused."
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/timeRules", ID: "getTimeRules", Tag: "Calendar", Roles: api.Staff,
		Summary: "Get the organization's time rules", About: "They hold for resources without rules of their own. A new organization is open from 09:00 to 17:00 every day.",
	}, s.getTimeRules)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/timeRules", ID: "updateTimeRules", Tag: "Calendar", Roles: api.Managers,
		Summary: "Change the organization's time rules", About: hours, Example: ruleExample,
	}, s.updateTimeRules)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/timeRules/{resourceId}", ID: "getResourceTimeRules", Tag: "Calendar", Roles: api.Staff,
		Summary: "Get a resource's time rules",
	}, s.getResourceTimeRules)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/timeRules/{resourceId}", ID: "updateResourceTimeRules", Tag: "Calendar", Roles: api.Staff,
		Summary: "Change a resource's time rules", About: hours + " A provider changes those of their own resources.", Example: ruleExample,
	}, s.updateResourceTimeRules)

	const closing = "If appointments are booked in time that the rules newly close, nothing is changed and the answer lists them (409, CAL-BOOKED), unless force is true."
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/offRules", ID: "getOffRules", Tag: "Calendar", Roles: api.Staff,
		Summary: "Get the organization's off rules", About: "Holidays. They hold for resources without off rules of their own.",
	}, s.getOffRules)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/offRules", ID: "updateOffRules", Tag: "Calendar", Roles: api.Managers,
		Summary: "Replace the organization's off rules", About: closing, Example: offExample,
	}, s.updateOffRules)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/offRules/{resourceId}", ID: "getResourceOffRules", Tag: "Calendar", Roles: api.Staff,
		Summary: "Get a resource's off rules",
	}, s.getResourceOffRules)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/offRules/{resourceId}", ID: "updateResourceOffRules", Tag: "Calendar", Roles: api.Staff,
		Summary: "Replace a resource's off rules", About: closing + " A resource with off rules of its own does not follow the organization's: keep those of GET that should hold. A provider changes those of their own resources.",
		Example: offExample,
	}, s.updateResourceOffRules)
}

func (s *Server) getTimeRules(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[timeRulesView], error) {
	return viewTimeRules(s.api.Catalog.CalendarOf(ctx, c.OrganizationID, ""))
}

func (s *Server) updateTimeRules(ctx context.Context, c api.Caller, in *api.Body[timeRulesBody]) (api.Result[timeRulesView], error) {
	return viewTimeRules(s.api.Bookings.ChangeTimeRules(ctx, c.Scope(), "", in.Body.change()))
}

func (s *Server) getResourceTimeRules(ctx context.Context, c api.Caller, in *byResource) (api.Result[timeRulesView], error) {
	return viewTimeRules(s.api.Catalog.CalendarOf(ctx, c.OrganizationID, in.ID))
}

type timeRulesChange struct {
	ID   string `path:"resourceId" maxLength:"64"`
	Body timeRulesBody
}

func (s *Server) updateResourceTimeRules(ctx context.Context, c api.Caller, in *timeRulesChange) (api.Result[timeRulesView], error) {
	return viewTimeRules(s.api.Bookings.ChangeTimeRules(ctx, c.Scope(), in.ID, in.Body.change()))
}

func (s *Server) getOffRules(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[offRulesView], error) {
	return viewOffRules(s.api.Catalog.CalendarOf(ctx, c.OrganizationID, ""))
}

func (s *Server) updateOffRules(ctx context.Context, c api.Caller, in *api.Body[offRulesBody]) (api.Result[offRulesView], error) {
	return viewOffRules(s.api.Bookings.ChangeOffRules(ctx, c.Scope(), "", in.Body.rules(), in.Body.Force))
}

func (s *Server) getResourceOffRules(ctx context.Context, c api.Caller, in *byResource) (api.Result[offRulesView], error) {
	return viewOffRules(s.api.Catalog.CalendarOf(ctx, c.OrganizationID, in.ID))
}

type offRulesChange struct {
	ID   string `path:"resourceId" maxLength:"64"`
	Body offRulesBody
}

func (s *Server) updateResourceOffRules(ctx context.Context, c api.Caller, in *offRulesChange) (api.Result[offRulesView], error) {
	return viewOffRules(s.api.Bookings.ChangeOffRules(ctx, c.Scope(), in.ID, in.Body.rules(), in.Body.Force))
}
