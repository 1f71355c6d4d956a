package handlers

import (
	"context"
	"net/http"
	"net/url"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

// OTPBody says where a one-time code goes.
type OTPBody struct {
	Method   string `json:"method" required:"true" enum:"sms,whatsapp,email"`
	Phone    string `json:"phoneNumber" maxLength:"40" example:"+966500000001"`
	Email    string `json:"email" maxLength:"254"`
	IsMember bool   `json:"isOrgMember" doc:"true for members, false for customers."`

	Turnstile string `json:"turnstileToken" maxLength:"8192" doc:"Of Cloudflare Turnstile. Asking for a code needs it where the server is set up with it; signing in checks it only if it is there, as most are good once only."`
	Recaptcha string `json:"recaptchaToken" maxLength:"8192" doc:"Of Google reCAPTCHA v3, likewise."`
}

func (b OTPBody) contact(c api.Caller) access.Contact {
	return access.Contact{Method: b.Method, Phone: c.International(b.Phone), Email: b.Email, Member: b.IsMember}
}

// proof returns the captcha proofs of a request. In development they are accepted
// from any page, because the test keys of the providers name pages of their own.
func (s *Server) proof(b OTPBody, c api.Caller) access.Proof {
	p := access.Proof{Turnstile: b.Turnstile, Recaptcha: b.Recaptcha, Address: c.Address}
	if s.opts.Development {
		return p
	}
	origins := append([]string{s.api.PublicURL}, s.api.AllowedOrigins...)
	if c.Organization != nil {
		origins = append(origins, c.Organization.AllowedOrigins...)
	}
	for _, origin := range origins {
		if u, err := url.Parse(origin); err == nil && u.Hostname() != "" {
			p.Hosts = append(p.Hosts, u.Hostname())
		}
	}
	return p
}

type otpVerifyBody struct {
	OTPBody
	Code string `json:"code" required:"true" minLength:"1" maxLength:"20"`
}

type refreshBody struct {
	RefreshToken string `json:"refreshToken" maxLength:"500" doc:"Needed without X-Session."`
}

// ofPage is an input that may come from one of our own pages.
type ofPage[B any] struct {
	Session string `header:"X-Session" enum:"member,customer" doc:"For our own pages: the tokens come and go as cookies that no script can read, and the answer shows none. Other requests with this header and no other credential are known by those cookies. Never from another site."`
	Body    B
}

// token is the refresh token that came: in the page's cookie, else in the body.
func (b refreshBody) token(c api.Caller) (string, error) {
	token := b.RefreshToken
	if c.Page != nil {
		token = c.Page.RefreshToken()
		if token == "" {
			return "", models.Errorf(models.CodeUnauthenticated, "The page has no session.")
		}
	}
	if token == "" {
		return "", models.Invalid("refreshToken", "It is missing.")
	}
	return token, nil
}

type codeSent struct {
	ExpiresAt models.Moment `json:"expiresAt"`
}

// sessionView is the answer of signing in.
type sessionView struct {
	RefreshToken         string        `json:"refreshToken,omitempty"`
	AccessToken          string        `json:"accessToken,omitempty"`
	AccessTokenExpiresAt models.Moment `json:"accessTokenExpiresAt"`
	User                 userView      `json:"user"`
}

type userView struct {
	ID             string      `json:"id"`
	Kind           access.Kind `json:"kind" enum:"customer,member"`
	Role           models.Role `json:"role,omitempty" enum:"owner,admin,provider,receptionist,screen"`
	FirstName      string      `json:"firstName"`
	LastName       string      `json:"lastName"`
	Phone          string      `json:"phone"`
	Email          string      `json:"email"`
	OrganizationID string      `json:"organizationId"`
	ResourceIDs    []string    `json:"resourceIds,omitempty" nullable:"false" doc:"Of a member: the resources they act for."`
}

// viewSession makes the view of a session. One of our pages gets its tokens as
// cookies.
func viewSession(c api.Caller) func(access.Session, error) (sessionView, error) {
	return func(x access.Session, err error) (sessionView, error) {
		if err != nil {
			return sessionView{}, err
		}
		u := x.User
		v := sessionView{x.RefreshToken, x.AccessToken, models.At(x.AccessTokenExpiresAt), userView{
			u.ID, u.Kind, u.Role, u.FirstName, u.LastName, u.Phone, u.Email, u.OrganizationID, u.ResourceIDs,
		}}
		if c.Page != nil {
			c.Page.Keep(x)
			v.RefreshToken, v.AccessToken = "", ""
		}
		return v, nil
	}
}

type setupBody struct {
	Token string `json:"token" required:"true" minLength:"1" maxLength:"100" doc:"From the one-time link that the first start prints."`
}

func (s *Server) signInRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/auth/setup", ID: "setUp", Tag: "Sign-in", Tenant: api.NoTenant,
		Summary: "Create the first account key", About: "Once, with the token of the link that the first start prints. The link ends with the first account key, and after a day. The key is shown once.",
		Example: map[string]any{"token": "what follows # in the link"},
	}, s.setUp)
	example := map[string]any{"method": "sms", "phoneNumber": "+966500000001", "isOrgMember": false}
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/auth/otp/request", ID: "requestCode", Tag: "Sign-in", Tenant: api.TenantFromHeader,
		Summary: "Ask for a one-time code",
		About:   "It goes out by SMS, WhatsApp or e-mail, in the language asked for, and is valid for ten minutes; a contact gets five in ten minutes, and the network that asks and the organization have bounds as well (429 with Retry-After). The answer is the same whether the person is known or not.",
		Example: example,
	}, s.requestCode)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/auth/otp/verify", ID: "verifyCode", Tag: "Sign-in", Tenant: api.TenantFromHeader,
		Summary: "Sign in with a one-time code", About: "A new customer is created. After five wrong codes from a network the code is no longer accepted from it; ask for a new one.",
		Example: map[string]any{"method": "sms", "phoneNumber": "+966500000001", "isOrgMember": false, "code": "123456"},
	}, s.verifyCode)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/auth/token", ID: "refreshToken", Tag: "Sign-in", Tenant: api.NoTenant,
		Summary: "Get a new access token, and the next refresh token",
		About:   "Each refresh token is good once. For ten seconds it gives the same successor again, in case the answer was lost; when it comes later than that, it is in two hands, and the session ends. A session lasts 30 days from its last refresh, and at most 180.",
		Example: map[string]any{"refreshToken": "…"},
	}, s.refreshToken)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/auth/token", ID: "refreshTokenByQuery", Tag: "Sign-in", Tenant: api.NoTenant,
		Summary: "Get a new access token, as older clients do", About: "Prefer POST: an address may end up in a log.",
	}, s.refreshTokenByQuery)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/auth/logout", ID: "logout", Tag: "Sign-in", Tenant: api.NoTenant,
		Summary: "End a session",
		About:   "The refresh token and the access token are refused from then on, and live connections are closed. Without a refresh token, that of the access token in Authorization ends.",
		Example: map[string]any{"refreshToken": "…"},
	}, s.logout)
}

func (s *Server) setUp(ctx context.Context, _ api.Caller, in *api.Body[setupBody]) (api.Result[keyView], error) {
	return showKey(s.api.Access.Setup(ctx, in.Body.Token))
}

func (s *Server) requestCode(ctx context.Context, c api.Caller, in *api.Body[OTPBody]) (api.Result[codeSent], error) {
	if err := s.api.Access.CheckProof(ctx, s.proof(in.Body, c), true); err != nil {
		return api.Result[codeSent]{}, err
	}
	to := in.Body.contact(c)
	to.Lang = c.Lang
	if err := s.spendCode(ctx, c, to.Method); err != nil {
		return api.Result[codeSent]{}, err
	}
	expires, err := s.api.Access.RequestCode(ctx, c.OrganizationID, to)
	return api.Result[codeSent]{Result: codeSent{models.At(expires)}}, err
}

func (s *Server) verifyCode(ctx context.Context, c api.Caller, in *ofPage[otpVerifyBody]) (sessionView, error) {
	if c.Page != nil && (c.Page.Kind == access.KindMember) != in.Body.IsMember {
		return sessionView{}, models.Invalid(api.SessionHeader, "It does not go with isOrgMember.")
	}
	if err := s.api.Access.CheckProof(ctx, s.proof(in.Body.OTPBody, c), false); err != nil {
		return sessionView{}, err
	}
	return viewSession(c)(s.signIn(ctx, c, in.Body.contact(c), in.Body.Code))
}

func (s *Server) refreshToken(ctx context.Context, c api.Caller, in *ofPage[refreshBody]) (sessionView, error) {
	token, err := in.Body.token(c)
	if err != nil {
		return sessionView{}, err
	}
	return viewSession(c)(s.api.Access.Refresh(ctx, c.OrganizationID, token))
}

type refreshQuery struct {
	RefreshToken string `query:"refreshToken" required:"true" maxLength:"500"`
}

func (s *Server) refreshTokenByQuery(ctx context.Context, c api.Caller, in *refreshQuery) (sessionView, error) {
	c.Page = nil
	return viewSession(c)(s.api.Access.Refresh(ctx, c.OrganizationID, in.RefreshToken))
}

func (s *Server) logout(ctx context.Context, c api.Caller, in *ofPage[refreshBody]) (api.Message, error) {
	token, err := in.Body.token(c)
	switch {
	case token != "" || c.Page != nil:
		err = s.api.Access.Logout(ctx, token)
	case c.HeaderCredential != "":
		err = s.api.Access.LogoutBearer(ctx, c.HeaderCredential)
	}
	if err != nil {
		return api.Message{}, err
	}
	if c.Page != nil {
		c.Page.Forget()
	}
	return api.Message{Message: "You are signed out."}, nil
}
