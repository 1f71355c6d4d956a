package handlers

import (
	"context"
	"net/http"
	"strings"
	"time"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

type keyView struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Key        string         `json:"key,omitempty" doc:"Shown once, when it is made: nsk_ and 36 letters and digits, of which the last six are a checksum."`
	Scopes     []access.Scope `json:"scopes" nullable:"false" enum:"read,write,admin"`
	CreatedAt  models.Moment  `json:"createdAt"`
	ExpiresAt  *models.Moment `json:"expiresAt" nullable:"true" doc:"Null: never."`
	ReplacedAt *models.Moment `json:"replacedAt" nullable:"true" doc:"When a successor of the same name was made; this one works until expiresAt."`
	CreatedBy  keyMaker       `json:"createdBy"`
	Reduced    bool           `json:"reduced" doc:"The member who created the key, or the key that created it, is no longer an owner or admin, so the key has lost the scope admin. Rotate it to take it over."`
	LastUsedAt *models.Moment `json:"lastUsedAt" nullable:"true" doc:"As of some seconds ago, like the counts."`
	Requests   int64          `json:"requests"`
	Errors     int64          `json:"errors" doc:"Requests that were answered with 400 or above."`
}

// keyMaker is the creator of an API key.
type keyMaker struct {
	Kind string `json:"kind" enum:"member,organization,account,system," doc:"A member, a key of the organization, an account key, or the command line. Empty: not known."`
	ID   string `json:"id"`
	Name string `json:"name" doc:"Empty if they are gone."`
}

func viewKey(k *access.APIKey) keyView {
	return keyView{
		ID: k.ID, Name: k.Name, Scopes: k.Scopes, CreatedAt: models.At(k.CreatedAt), ExpiresAt: models.AtOrNil(k.ExpiresAt), ReplacedAt: models.AtOrNil(k.ReplacedAt),
		CreatedBy: keyMaker{Kind: k.MakerKind, ID: k.MakerID}, Reduced: k.Reduced(), LastUsedAt: models.AtOrNil(k.LastUsedAt), Requests: k.Requests, Errors: k.Errors,
	}
}

// showKey shows a key that was just made.
func showKey(k access.APIKey, secret string, err error) (api.Result[keyView], error) {
	if err != nil {
		return api.Result[keyView]{}, err
	}
	view := viewKey(&k)
	view.Key = secret
	return api.Result[keyView]{Result: view}, nil
}

// emptyView is the answer of deleting a key, as in the API document.
type emptyView struct{}

type keyBody struct {
	Name      string         `json:"name" required:"true" minLength:"1" maxLength:"100" example:"front desk"`
	Scopes    []access.Scope `json:"scopes" minItems:"1" maxItems:"3" enum:"read,write,admin" doc:"Each includes those before it; admin by default."`
	ExpiresAt *time.Time     `json:"expiresAt" doc:"When it stops working; never by default."`
}

type rotateBody struct {
	Name      string     `json:"name" required:"true" minLength:"1" maxLength:"100" example:"front desk"`
	ExpiresAt *time.Time `json:"expiresAt" doc:"When the new key stops working; as the old one by default."`
}

type keyRef struct {
	Name string `json:"name" required:"true" minLength:"1" maxLength:"100"`
}

func (s *Server) keyRoutes() {
	s.keyRoutesAt("/management/apiKeys", "Keys", api.Operation{Roles: api.Managers, Tag: "API keys"}, keysOf{
		s.api.Access, func(c api.Caller) *string { return &c.OrganizationID },
	})
	s.keyRoutesAt("/management/account/apiKeys", "AccountKeys", api.Operation{Roles: api.AccountKey, Tag: "Account API keys", Tenant: api.TenantOptional}, keysOf{
		s.api.Access, func(api.Caller) *string { return nil },
	})
}

// keyRoutesAt registers the operations on the keys of an organization, or of the
// account. They share the fields of common.
func (s *Server) keyRoutesAt(path, nouns string, common api.Operation, keys keysOf) {
	example := map[string]any{"name": "front desk"}
	noun := strings.TrimSuffix(nouns, "s")
	operation := func(method, path, id, summary, about string, example any) api.Operation {
		op := common
		op.Method, op.Path, op.ID, op.Scope, op.Summary, op.About, op.Example = method, path, id, access.ScopeAdmin, summary, about, example
		return op
	}
	api.Register(s.api, operation(
		http.MethodGet, path, "list"+nouns, "List API keys",
		"What they may do and were used for; the keys themselves are never shown again.", nil,
	), keys.list)
	api.Register(s.api, operation(
		http.MethodPost, path, "create"+noun, "Make an API key",
		"The key is shown once. It does no more than the member who made it, and loses the scope admin when they are no owner or admin any more.",
		map[string]any{"name": "front desk", "scopes": []string{"write"}},
	), keys.create)
	api.Register(s.api, operation(
		http.MethodPost, path+"/rotate", "rotate"+noun, "Rotate an API key",
		"The new key is shown once; the old one works for another 24 hours, unless it expires before. An admin rotates the keys of admins. "+
			"The new key is the rotating member's, so that a key whose maker is gone can be taken over.", example,
	), keys.rotate)
	api.Register(s.api, operation(
		http.MethodDelete, path, "delete"+noun, "Delete an API key",
		"By its name, and those it replaced; they are refused from then on.", example,
	), keys.delete)
}

// keysOf answers the operations on the keys of one owner.
type keysOf struct {
	access *access.Access
	// owner returns the organization of the keys. It returns nil for the account.
	owner func(c api.Caller) *string
}

func (k keysOf) list(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[[]keyView], error) {
	keys, err := k.access.Keys(ctx, k.owner(c))
	if err != nil {
		return api.Result[[]keyView]{}, err
	}
	makers := make([]store.Audit, len(keys))
	for i := range keys {
		makers[i] = store.Audit{ActorKind: keys[i].MakerKind, ActorID: keys[i].MakerID}
	}
	names, err := k.access.ActorNames(ctx, makers)
	views := make([]keyView, len(keys))
	for i := range keys {
		views[i] = viewKey(&keys[i])
		views[i].CreatedBy.Name = names[keys[i].MakerID]
	}
	return api.Result[[]keyView]{Result: views}, err
}

func (k keysOf) create(ctx context.Context, c api.Caller, in *api.Body[keyBody]) (api.Result[keyView], error) {
	return showKey(k.access.CreateKey(ctx, k.owner(c), access.KeyPlan{
		Name: in.Body.Name, Scopes: in.Body.Scopes, ExpiresAt: in.Body.ExpiresAt, By: c.Principal,
	}))
}

func (k keysOf) rotate(ctx context.Context, c api.Caller, in *api.Body[rotateBody]) (api.Result[keyView], error) {
	return showKey(k.access.RotateKey(ctx, c.Principal, k.owner(c), in.Body.Name, in.Body.ExpiresAt))
}

func (k keysOf) delete(ctx context.Context, c api.Caller, in *api.Body[keyRef]) (api.Result[emptyView], error) {
	return api.Result[emptyView]{}, k.access.DeleteKey(ctx, k.owner(c), in.Body.Name)
}
