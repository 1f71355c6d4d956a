package access_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"hash"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// forge makes tokens as somebody would who knows everything of the service, and
// for some of them even the key it signs with.
type forge struct {
	t      *testing.T
	key    []byte          // what access signs with
	claims nodetest.Object // of a good access token
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// text is a part of a token: texts as they are, all else as JSON.
func (f *forge) text(part any) string {
	if text, ok := part.(string); ok {
		return encode([]byte(text))
	}
	data, err := json.Marshal(part)
	require.NoError(f.t, err)
	return encode(data)
}

// token joins a header and claims with what sign makes of them.
func (f *forge) token(header, claims any, sign func(signed []byte) []byte) string {
	signed := f.text(header) + "." + f.text(claims)
	return signed + "." + encode(sign([]byte(signed)))
}

func signing(hash func() hash.Hash, key []byte) func([]byte) []byte {
	return func(signed []byte) []byte {
		mac := hmac.New(hash, key)
		mac.Write(signed)
		return mac.Sum(nil)
	}
}

func alg(name string) nodetest.Object { return nodetest.Object{"alg": name, "typ": "JWT"} }

// good signs claims as access does.
func (f *forge) good(claims any) string {
	return f.token(alg("HS256"), claims, signing(sha256.New, f.key))
}

// but returns the good claims with some changed, and without those that are nil.
func (f *forge) but(change nodetest.Object) nodetest.Object {
	claims := maps.Clone(f.claims)
	for name, value := range change {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// changed returns a token with other claims and the signature it had.
func (f *forge) changed(token string, change func(claims string) string) string {
	parts := strings.Split(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(f.t, err)
	forged := change(string(claims))
	require.NotEqual(f.t, string(claims), forged)
	return parts[0] + "." + encode([]byte(forged)) + "." + parts[2]
}

// algorithms signs with what we do not, and mixes up what we do.
func (f *forge) algorithms() map[string]string {
	tokens := map[string]string{}
	nothing := func([]byte) []byte { return nil }
	for _, none := range []string{"none", "None", "NONE", "nOnE", ""} {
		tokens["alg "+none] = f.token(alg(none), f.claims, nothing)
	}
	hs256 := signing(sha256.New, f.key)
	tokens["alg none, signed"] = f.token(alg("none"), f.claims, hs256)
	tokens["no alg"] = f.token(nodetest.Object{"typ": "JWT"}, f.claims, hs256)
	tokens["alg in small letters"] = f.token(alg("hs256"), f.claims, hs256)
	tokens["alg that is no text"] = f.token(nodetest.Object{"alg": []string{"HS256"}}, f.claims, hs256)
	tokens["HS384"] = f.token(alg("HS384"), f.claims, signing(sha512.New384, f.key))
	tokens["HS512"] = f.token(alg("HS512"), f.claims, signing(sha512.New, f.key))

	private, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(f.t, err)
	rs256 := func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		signature, err := rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
		require.NoError(f.t, err)
		return signature
	}
	tokens["RS256"] = f.token(alg("RS256"), f.claims, rs256)
	jwk := nodetest.Object{"kty": "RSA", "n": encode(private.N.Bytes()), "e": "AQAB"}
	tokens["a key of its own in the header"] = f.token(nodetest.Object{"alg": "RS256", "jwk": jwk}, f.claims, rs256)
	tokens["the address of a key"] = f.token(nodetest.Object{"alg": "RS256", "jku": "https://evil.example/keys"}, f.claims, rs256)
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	require.NoError(f.t, err)
	tokens["a public key as secret"] = f.token(alg("HS256"), f.claims,
		signing(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f.t, err)
	tokens["ES256"] = f.token(alg("ES256"), f.claims, func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		r, s, err := ecdsa.Sign(rand.Reader, curve, sum[:])
		require.NoError(f.t, err)
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	})
	tokens["ES256 of nothing but zeros"] = f.token(alg("ES256"), f.claims, func([]byte) []byte { return make([]byte, 64) })
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f.t, err)
	tokens["EdDSA"] = f.token(alg("EdDSA"), f.claims, func(signed []byte) []byte { return ed25519.Sign(edwards, signed) })

	for name, key := range map[string][]byte{
		"another key": []byte(strings.Repeat("x", 32)), "no key": {}, "the secret itself": []byte(strings.Repeat("s", 32)), "a zero": {0},
	} {
		tokens[name] = f.token(alg("HS256"), f.claims, signing(sha256.New, key))
	}
	tokens["the key of a file"] = f.token(nodetest.Object{"alg": "HS256", "kid": "../../../../dev/null"}, f.claims, signing(sha256.New, nil))
	tokens["the key of a query"] = f.token(nodetest.Object{"alg": "HS256", "kid": "' UNION SELECT 'x"}, f.claims, signing(sha256.New, []byte("x")))
	return tokens
}

// contents signs, with the right key, what we would never say.
func (f *forge) contents(gone string, ended any) map[string]string {
	tokens := map[string]string{}
	past, future := time.Now().Add(-time.Minute).Unix(), time.Now().Add(time.Hour).Unix()
	for name, change := range map[string]nodetest.Object{
		"another issuer": {"iss": "somebody"}, "no issuer": {"iss": nil}, "another audience": {"aud": "else"}, "no audience": {"aud": nil},
		"an empty audience": {"aud": []string{}}, "expired": {"exp": past}, "no expiry": {"exp": nil}, "an expiry in words": {"exp": "never"},
		"not yet valid": {"nbf": future}, "issued in the future": {"iat": future},
		"no tenant": {"org": nil}, "an empty tenant": {"org": ""}, "an unknown tenant": {"org": "d3q1v5s8k7c0a1b2c3d0"}, "a deleted tenant": {"org": gone},
		"no subject": {"sub": nil}, "an empty subject": {"sub": ""},
		"no kind": {"kind": nil}, "an unknown kind": {"kind": "king"}, "an account": {"kind": "account"}, "a key": {"kind": "organization"},
		"a display": {"kind": "display"}, "a customer without a session": {"kind": "customer", "sid": nil},
		"no session": {"sid": nil}, "a session that has ended": {"sid": ended},
		"no role": {"role": nil}, "an unknown role": {"role": "god"}, "a customer with a role": {"kind": "customer"},
	} {
		tokens[name] = f.good(f.but(change))
	}
	tokens["claims that are no object"] = f.good("[]")
	tokens["claims that are nothing"] = f.good("null")
	tokens["claims that are no JSON"] = f.good("{")
	tokens["a header that is no object"] = f.token("[]", f.claims, signing(sha256.New, f.key))
	return tokens
}

// mutations are good tokens that somebody has had in their hands.
func (f *forge) mutations(token, other, ticket string) map[string]string {
	parts := strings.Split(token, ".")
	signature := parts[2]
	last := map[byte]string{'A': "B", 'Q': "R", 'g': "h", 'w': "x"} // the same bytes to a lenient decoder
	next, ok := last[signature[len(signature)-1]]
	if !ok { // 32 bytes end with two bits that mean nothing
		next = string(signature[len(signature)-1] ^ 1)
	}
	return map[string]string{
		"another role":       f.changed(token, func(c string) string { return strings.Replace(c, "receptionist", "owner", 1) }),
		"another tenant":     f.changed(token, func(c string) string { return strings.Replace(c, `"org":"`, `"org":"d`, 1) }),
		"a claim said twice": f.changed(token, func(c string) string { return strings.TrimSuffix(c, "}") + `,"role":"owner"}` }),
		"a longer life":      f.changed(token, func(c string) string { return strings.Replace(c, `"exp":`, `"exp":9`, 1) }),
		"a ticket that says it is a customer": f.changed(ticket, func(c string) string {
			return strings.Replace(c, `"kind":"ticket"`, `"kind":"customer"`, 1)
		}),
		"no signature":            parts[0] + "." + parts[1] + ".",
		"no third part":           parts[0] + "." + parts[1],
		"half a signature":        token[:len(token)-20],
		"another one's signature": parts[0] + "." + parts[1] + "." + strings.Split(other, ".")[2],
		"unused bits set":         token[:len(token)-1] + next,
		"padding":                 token + "=",
		"a fourth part":           token + ".x",
		"five parts":              token + "..",
		"something behind":        token + " x",
		"something before":        "x" + token,
		"standard base64":         parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(signature) + "=",
		"two tokens":              token + "," + other,
		"quotes":                  `"` + token + `"`,
		"a header twice as long":  strings.Repeat(parts[0], 2) + "." + parts[1] + "." + signature,
		"a token without end":     token + strings.Repeat("A", 8<<10),
		"nothing but dots":        "..",
		"three letters":           "a.b.c",
		"nonsense":                "nonsense",
		"a NUL":                   "%00.%00.%00",
	}
}

// secrets are keys and other secrets that are nearly right, or not meant to
// open anything.
func secrets(c *nodetest.Clinic, refresh, screen string) map[string]string {
	swap := func(secret string) string {
		end := "a"
		if strings.HasSuffix(secret, end) {
			end = "b"
		}
		return secret[:len(secret)-1] + end
	}
	return map[string]string{
		"a refresh token": refresh, "a key with another last character": swap(c.Key), "half a key": c.Key[:len(c.Key)-1], "a key and more": c.Key + "x",
		"a key in capitals": strings.ToUpper(c.Key), "the hash of a key": models.HashSecret(c.Key), "the prefix of keys": "nsk_",
		"a display's token, nearly": swap(screen), "the account key, nearly": swap(nodetest.BootstrapKey), "an organization's id": c.ID,
		"any": "%", "a query": "' OR '1'='1",
	}
}

// TestForgedTokens tries what somebody without a good credential might send.
// None of it opens anything, by HTTP or live.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.Serve(c.NewType(nil))
		ticket := c.Join(kind, nil)
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Door"}).OK().Str("result.token")
		token := c.Member(models.RoleReceptionist, "+966500000071")
		other := c.Member(models.RoleReceptionist, "+966500000072")
		ended := c.SignIn("+966500000071", true)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": ended.Str("refreshToken")}}).OK()
		h.Exec("INSERT INTO organizations (id, name, timezone, created_at, deleted_at) VALUES ('gone', 'Gone', 'UTC', ?, ?)", time.Now().UTC(), time.Now().UTC())

		f := &forge{t: t, claims: claimsOf(t, token)}
		var err error
		f.key, err = hkdf.Key(sha256.New, []byte(strings.Repeat("s", 32)), nil, "access tokens", 32)
		require.NoError(t, err)
		ahead := f.good(f.but(nodetest.Object{"iat": time.Now().Add(5 * time.Second).Unix()}))
		for name, good := range map[string]string{"as it came": token, "made anew": f.good(f.claims), "made by a node whose clock is ahead": ahead} {
			h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: good}).OK()
			assert.Zero(t, nodetest.ConnectWith(h, good, nil, ""), name)
		}
		brief := nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: f.good(f.but(nodetest.Object{"exp": time.Now().Add(4 * time.Second).Unix()}))}
		h.Send(brief).OK()

		forged := f.algorithms()
		maps.Copy(forged, f.contents("gone", claimsOf(t, ended.Str("accessToken"))["sid"]))
		// Tickets of earlier versions are signed tokens.
		signed := f.good(f.but(nodetest.Object{"kind": "ticket", "sub": ticket.Str("id"), "role": nil, "sid": nil}))
		maps.Copy(forged, f.mutations(token, other, signed))
		short := ticket.Str("ticketToken")
		maps.Copy(forged, map[string]string{
			"a ticket in capitals": strings.ToUpper(short), "half a ticket": short[:15], "a ticket and more": short + "A",
			"a ticket with another first character": map[bool]string{true: "B", false: "A"}[short[0] == 'A'] + short[1:],
			"a ticket backwards":                    string([]rune(short)[8:]) + short[:8],
		})
		maps.Copy(forged, secrets(c, ended.Str("refreshToken"), screen))
		assert.Greater(t, len(forged), 60)
		paths := []string{"/management/types", "/customer/profile", "/customer/bookings/" + ticket.Str("id"), "/operator/jobs/"}
		before := h.Contents()
		for name, token := range forged {
			for _, path := range paths {
				unauthenticated(h.Send(nodetest.Request{Method: http.MethodGet, Path: path, Token: token}), name)
			}
			unauthenticated(h.Send(nodetest.Request{Method: http.MethodGet, Path: paths[0], Header: map[string]string{"X-API-KEY": token}}), name)
			assert.Contains(t, []int{3500, 109}, nodetest.ConnectWith(h, token, nil, ""), name)
			assert.Contains(t, []int{3500, 109}, nodetest.ConnectWith(h, "", http.Header{"Authorization": {"Bearer " + token}}, ""), name)
		}
		assert.Equal(t, 3500, nodetest.ConnectWith(h, token+"\n", nil, ""), "a line more, which no HTTP header could carry")

		// What is good, but not where credentials are looked for.
		misplaced := map[string]nodetest.Request{
			"nothing": {}, "an empty one": {Header: map[string]string{"Authorization": "Bearer "}}, "an empty key": {Header: map[string]string{"X-API-KEY": ""}},
			"in the query":      {Path: paths[0] + "?access_token=" + token + "&token=" + token + "&authorization=Bearer%20" + token + "&apiKey=" + url.QueryEscape(c.Key)},
			"in a cookie":       {Header: map[string]string{"Cookie": "access_token=" + token + "; token=" + token + "; session=" + token}},
			"as a password":     {Header: map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+token))}},
			"without a word":    {Header: map[string]string{"Authorization": token}},
			"by another word":   {Header: map[string]string{"Authorization": "Token " + token}},
			"in another header": {Header: map[string]string{"X-Access-Token": token, "Proxy-Authorization": "Bearer " + token}},
		}
		for name, r := range misplaced {
			r.Method = http.MethodGet
			if r.Path == "" {
				r.Path = paths[0]
			}
			unauthenticated(h.Send(r), name)
		}
		for _, two := range [][]string{{token, "nonsense"}, {"nonsense", token}, {token, token}} {
			header := http.Header{}
			for _, one := range two {
				header.Add("Authorization", "Bearer "+one)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+paths[0], nil)
			require.NoError(t, err)
			req.Header = header
			res, err := h.Client.Do(req)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "two credentials: %v", two)
			assert.Equal(t, 3500, nodetest.ConnectWith(h, "", header, ""), "two credentials")
		}
		assert.Equal(t, 3500, nodetest.ConnectWith(h, "", nil, "?token="+token+"&access_token="+token), "in the query")
		assert.Equal(t, 3500, nodetest.ConnectWith(h, "", http.Header{"Cookie": {"access_token=" + token}}, ""), "in a cookie")
		assert.Equal(t, before, h.Contents())
		assert.Eventually(t, func() bool { return h.Send(brief).Status != http.StatusOK }, 20*time.Second, 50*time.Millisecond,
			"known is not good for ever: less than knownLife after its end")
		h.Send(brief).Refused(http.StatusUnauthorized, models.CodeTokenExpired)
	})
}

// unauthenticated requires an answer to nobody.
func unauthenticated(a nodetest.Response, name string) {
	a.T.Helper()
	assert.Equal(a.T, http.StatusUnauthorized, a.Status, "%s: %s: %s", name, a.Of, a.Raw)
	assert.Contains(a.T, []string{string(models.CodeUnauthenticated), string(models.CodeTokenExpired)}, a.Str("code"), name)
	assert.NotEmpty(a.T, a.Header.Get("WWW-Authenticate"), name)
}

// claimsOf reads what a token says.
func claimsOf(t *testing.T, token string) nodetest.Object {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	var claims nodetest.Object
	require.NoError(t, json.Unmarshal(data, &claims))
	return claims
}
