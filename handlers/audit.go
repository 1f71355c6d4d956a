package handlers

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

// AuditLine is one entry of the audit.
type AuditLine struct {
	ID      string        `json:"id"`
	At      models.Moment `json:"at"`
	Action  string        `json:"action" example:"assign" doc:"join, schedule, reschedule, assign, recall, start, end, noShow, hold, return, cancel, undo, expire or expirePayment of a booking; else the id of the operation."`
	Subject AuditSubject  `json:"subject"`
	Actor   AuditActor    `json:"actor"`
	Address string        `json:"address" doc:"The network address it was asked from."`
	Reason  string        `json:"reason" doc:"Why, as they said."`
	Request string        `json:"requestId"`
}

// AuditSubject is the object of an entry.
type AuditSubject struct {
	Kind string `json:"kind" example:"booking"`
	ID   string `json:"id"`
}

// AuditActor is the caller who made the change.
type AuditActor struct {
	Kind string      `json:"kind" enum:"account,organization,member,customer,ticket,display,nobody,system" doc:"account and organization: a key. ticket: the holder of a ticket link. nobody: a request without a credential. system: a deadline that passed."`
	ID   string      `json:"id"`
	Role models.Role `json:"role,omitempty" doc:"A member's, at the time."`
	Name string      `json:"name,omitempty" doc:"A member's or key's, as it is now."`
}

// auditQuery narrows the audit.
type auditQuery struct {
	BookingID string `query:"bookingId" maxLength:"64" doc:"What was done to a booking."`
	SubjectID string `query:"subjectId" maxLength:"64" doc:"What was done to a customer, key, member, resource …"`
	ActorID   string `query:"actorId" maxLength:"64" doc:"What a member, key or customer did."`
	Action    string `query:"action" maxLength:"64"`
	From      string `query:"from" doc:"A day (2026-03-01) of the organization, or a moment (RFC 3339)."`
	To        string `query:"to" doc:"A day, to its end, or a moment."`
	Limit     int    `query:"limit" default:"100" minimum:"1" doc:"At most 500; more are not given."`
	Token     string `query:"nextPageToken"`
}

// maxAudit bounds a page of the audit.
const maxAudit = 500

func (q auditQuery) filter(zone *time.Location) (access.AuditFilter, error) {
	f := access.AuditFilter{
		BookingID: q.BookingID, SubjectID: q.SubjectID, ActorID: q.ActorID, Action: q.Action, Limit: min(q.Limit, maxAudit),
	}
	var err error
	if q.Token != "" {
		if f.Before, err = strconv.ParseInt(q.Token, 10, 64); err != nil {
			return f, err
		}
	}
	if f.From, err = beginning(q.From, zone); err != nil {
		return f, err
	}
	f.To, err = ending(q.To, zone)
	return f, err
}

func (s *Server) auditRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/audit", ID: "listAudit", Tag: "Audit", Roles: api.AnyKey | api.Owner, Scope: access.ScopeAdmin,
		Summary: "List audit entries", About: "Newest first. Entries can't be changed or deleted; erasing a patient only empties the address and the reason of their entries.",
	}, s.listAudit)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/account/audit", ID: "listAccountAudit", Tag: "Audit", Roles: api.AccountKey, Scope: access.ScopeAdmin, Tenant: api.NoTenant,
		Summary: "List audit entries of the account", About: "Changes that belong to no organization, such as account keys. Days are in UTC.",
	}, s.listAccountAudit)
}

func (s *Server) listAudit(ctx context.Context, c api.Caller, in *auditQuery) (api.List[AuditLine], error) {
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return api.List[AuditLine]{}, err
	}
	return s.audit(ctx, c.OrganizationID, *in, o.Zone)
}

func (s *Server) listAccountAudit(ctx context.Context, _ api.Caller, in *auditQuery) (api.List[AuditLine], error) {
	return s.audit(ctx, "", *in, time.UTC)
}

func (s *Server) audit(ctx context.Context, organizationID string, q auditQuery, zone *time.Location) (api.List[AuditLine], error) {
	f, err := q.filter(zone)
	if err != nil {
		return api.List[AuditLine]{}, err
	}
	lines, err := s.api.Access.Audit(ctx, organizationID, f)
	if err != nil {
		return api.List[AuditLine]{}, err
	}
	names, err := s.api.Access.ActorNames(ctx, lines)
	return api.ListOf(lines, f.Limit, auditID, func(a *store.Audit) AuditLine { return viewAudit(a, names[a.ActorID]) }), err
}

func auditID(a *store.Audit) string { return strconv.FormatInt(a.ID, 10) }

func viewAudit(a *store.Audit, actor string) AuditLine {
	return AuditLine{
		ID: auditID(a), At: models.At(a.CreatedAt), Action: a.Action, Subject: AuditSubject{a.SubjectKind, a.SubjectID},
		Actor: AuditActor{a.ActorKind, a.ActorID, a.ActorRole, actor}, Address: a.Address, Reason: a.Reason, Request: a.RequestID,
	}
}
