package api

import (
	"net/http"
	"strings"

	"nowserving/booking/access"
	"nowserving/models"
)

// scopeNeeded is the scope an API key needs for the operation: the one it names,
// or else read for a GET and write for the rest.
func (op Operation) scopeNeeded() access.Scope {
	switch {
	case op.Scope != "":
		return op.Scope
	case op.Method == http.MethodGet:
		return access.ScopeRead
	}
	return access.ScopeWrite
}

// description returns About with the roles and the scope.
func (op Operation) description() string {
	if op.Roles == Public {
		return op.About
	}
	text := "For: " + strings.Join(op.Roles.names(), ", ")
	if op.Roles&AnyKey != 0 {
		text += "; an API key needs the scope " + string(op.scopeNeeded())
	}
	return strings.TrimSpace(op.About + " " + text + ".")
}

// Allows refuses an API key without the scope that the operation needs, and one made
// by a member who may not call the operation. Other credentials have no scopes; their
// role decides.
func (op Operation) Allows(p access.Principal) error {
	if p.Kind != access.KindAccount && p.Kind != access.KindOrganization {
		return nil
	}
	if p.Role != "" && op.Roles&RoleOf(access.Principal{Kind: access.KindMember, Role: p.Role}) == 0 {
		return models.Errorf(models.CodeForbidden, "Who made this API key may not do this.")
	}
	return requireScope(p, op.scopeNeeded())
}

// RequireScope refuses an API key without the scope that part of an operation needs.
func (c Caller) RequireScope(needed access.Scope) error { return requireScope(c.Principal, needed) }

func requireScope(p access.Principal, needed access.Scope) error {
	if p.Kind != access.KindAccount && p.Kind != access.KindOrganization || p.Scope.Includes(needed) {
		return nil
	}
	if p.Reduced && needed == access.ScopeAdmin {
		return models.Errorf(models.CodeKeyReduced, "The member who made this API key is no owner or admin any more; it has only the scope write.")
	}
	return models.Errorf(models.CodeScope, "This needs an API key with the scope %s.", needed)
}
