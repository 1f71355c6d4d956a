package handlers

import (
	"context"
	"net/http"
	"time"

	"nowserving/booking/access"
	"nowserving/models"
)

// OTPBody says where a one-time code goes.
type OTPBody struct {
	Method   string `json:"method" required:"true" enum:"sms,whatsapp,email"`
	Phone    string `json:"phoneNumber" maxLength:"40" example:"+966500000001"`
	Email    string `json:"email" maxLength:"254"`
	IsMember bool   `json:"isOrgMember" doc:"true for those who work there, false for customers."`
}

func (b OTPBody) contact() access.Contact {
	return access.Contact{Method: b.Method, Phone: b.Phone, Email: b.Email, Member: b.IsMember}
}

type otpVerifyBody struct {
	OTPBody
	Code string `json:"code" required:"true" minLength:"1" maxLength:"20"`
}

type refreshBody struct {
	RefreshToken string `json:"refreshToken" required:"true" minLength:"1" maxLength:"500"`
}

type codeSent struct {
	ExpiresAt time.Time `json:"expiresAt"`
}

// sessionView is the answer of signing in.
type sessionView struct {
	RefreshToken         string    `json:"refreshToken"`
	AccessToken          string    `json:"accessToken"`
	AccessTokenExpiresAt time.Time `json:"accessTokenExpiresAt"`
	User                 userView  `json:"user"`
}

type userView struct {
	ID             string      `json:"id"`
	Kind           access.Kind `json:"kind" enum:"customer,member"`
	Role           models.Role `json:"role,omitempty" enum:"owner,admin,provider,receptionist"`
	FirstName      string      `json:"firstName"`
	LastName       string      `json:"lastName"`
	Phone          string      `json:"phone"`
	Email          string      `json:"email"`
	OrganizationID string      `json:"organizationId"`
	ResourceIDs    []string    `json:"resourceIds,omitempty" nullable:"false" doc:"Of a member: the resources they act for."`
}

func viewSession(x access.Session, err error) (sessionView, error) {
	u := x.User
	return sessionView{x.RefreshToken, x.AccessToken, x.AccessTokenExpiresAt.UTC(), userView{
		u.ID, u.Kind, u.Role, u.FirstName, u.LastName, u.Phone, u.Email, u.OrganizationID, u.ResourceIDs,
	}}, err
}

type setupBody struct {
	Token string `json:"token" required:"true" minLength:"1" maxLength:"100" doc:"From the one-time link that the first start prints."`
}

func (s *Server) signInRoutes() {
	register(s, operation{
		method: http.MethodPost, path: "/auth/setup", id: "setUp", tag: "Sign-in", tenancy: untold,
		summary: "Make the first account key", about: "Once, with the token of the link that the first start prints. The key is shown once.",
		example: map[string]any{"token": "what follows # in the link"},
	}, func(ctx context.Context, _ caller, in *with[setupBody]) (result[keyView], error) {
		k, secret, err := s.o.Access.Setup(ctx, in.Body.Token)
		view := viewKey(k)
		view.Key = secret
		return result[keyView]{view}, err
	})
	example := map[string]any{"method": "sms", "phoneNumber": "+966500000001", "isOrgMember": false}
	register(s, operation{
		method: http.MethodPost, path: "/auth/otp/request", id: "requestCode", tag: "Sign-in", tenancy: fromHeader,
		summary: "Ask for a one-time code",
		about:   "It goes out by SMS, WhatsApp or e-mail, in the language asked for, and is valid for ten minutes; an address gets five in ten minutes. The answer is the same whether the person is known or not.",
		example: example,
	}, func(ctx context.Context, c caller, in *with[OTPBody]) (result[codeSent], error) {
		to := in.Body.contact()
		to.Lang = c.Lang
		expires, err := s.o.Access.RequestCode(ctx, c.OrganizationID, to)
		return result[codeSent]{codeSent{expires.UTC()}}, err
	})
	register(s, operation{
		method: http.MethodPost, path: "/auth/otp/verify", id: "verifyCode", tag: "Sign-in", tenancy: fromHeader,
		summary: "Sign in with a one-time code", about: "A customer who is new is made.",
		example: map[string]any{"method": "sms", "phoneNumber": "+966500000001", "isOrgMember": false, "code": "123456"},
	}, func(ctx context.Context, c caller, in *with[otpVerifyBody]) (sessionView, error) {
		return viewSession(s.o.Access.VerifyCode(ctx, c.OrganizationID, in.Body.contact(), in.Body.Code))
	})

	register(s, operation{
		method: http.MethodPost, path: "/auth/token", id: "refreshToken", tag: "Sign-in", tenancy: untold,
		summary: "Get a new access token", example: map[string]any{"refreshToken": "…"},
	}, func(ctx context.Context, c caller, in *with[refreshBody]) (sessionView, error) {
		return viewSession(s.o.Access.Refresh(ctx, c.OrganizationID, in.Body.RefreshToken))
	})
	type refreshQuery struct {
		RefreshToken string `query:"refreshToken" required:"true" maxLength:"500"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/auth/token", id: "refreshTokenByQuery", tag: "Sign-in", tenancy: untold,
		summary: "Get a new access token, as older clients do", about: "Prefer POST: an address may end up in a log.",
	}, func(ctx context.Context, c caller, in *refreshQuery) (sessionView, error) {
		return viewSession(s.o.Access.Refresh(ctx, c.OrganizationID, in.RefreshToken))
	})
	register(s, operation{
		method: http.MethodPost, path: "/auth/logout", id: "logout", tag: "Sign-in", tenancy: untold,
		summary: "End a session", about: "The refresh token works no more; the access token runs out by itself.",
		example: map[string]any{"refreshToken": "…"},
	}, func(ctx context.Context, _ caller, in *with[refreshBody]) (message, error) {
		return message{"You are signed out."}, s.o.Access.Logout(ctx, in.Body.RefreshToken)
	})
}
