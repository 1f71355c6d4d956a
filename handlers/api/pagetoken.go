package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/models"
)

// pageTokenLife is how long a page token is valid.
const pageTokenLife = 24 * time.Hour

// pageTokenName is the query parameter, or the member of a body, with the page token.
const pageTokenName = "nextPageToken"

// pageTokens seals and opens page tokens. A token is opaque, valid for its own query
// only, and expires after pageTokenLife. It holds a position in the order of the list,
// so it stays valid if the row at that position is deleted.
type pageTokens struct {
	sealer *models.Sealer
	now    func() time.Time
}

// PagedAnswer is an answer with a page of a list. On the way out, its page token
// is sealed.
type PagedAnswer interface{ PageInfo() *Pagination }

// PagedBody is an input with a page token in its body. On the way in, the token is
// replaced by the position that it holds.
type PagedBody interface {
	PageToken() *string
	// Query returns the body without the members that choose a page, so that the
	// token of one page is valid for the next.
	Query() any
}

// bindingOf identifies the query of a request without the members that choose a page.
func bindingOf(ctx huma.Context, op Operation, organizationID string) string {
	u := ctx.URL()
	query := u.Query()
	query.Del(pageTokenName)
	query.Del("limit")
	return fmt.Sprintf("%s %s %s?%s", op.ID, organizationID, u.Path, query.Encode())
}

// openBody opens the page token of a body, and binds the tokens of the answer to
// the body.
func (p pageTokens) openBody(c *Caller, b PagedBody) error {
	query, err := json.Marshal(b.Query())
	if err != nil {
		return fmt.Errorf("bind a page token: %w", err)
	}
	c.pageBinding += "\n" + string(query)
	*b.PageToken(), err = p.open(*b.PageToken(), c.pageBinding)
	return err
}

// sealAnswer seals the page token of an answer.
func (p pageTokens) sealAnswer(c Caller, answer PagedAnswer) {
	if page := answer.PageInfo(); page.NextPageToken != nil {
		token := p.seal(*page.NextPageToken, c.pageBinding)
		page.NextPageToken = &token
	}
}

func fingerprint(binding string) string {
	sum := sha256.Sum256([]byte(binding))
	return string(sum[:16])
}

func (p pageTokens) seal(place, binding string) string {
	ends := binary.BigEndian.AppendUint64(nil, uint64(p.now().Add(pageTokenLife).Unix()))
	sealed := p.sealer.Seal(string(ends) + fingerprint(binding) + place)
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// open returns the position that a token holds. An empty token is that of the first
// page.
func (p pageTokens) open(token, binding string) (string, error) {
	if token == "" {
		return "", nil
	}
	wrong := models.Errorf(models.CodePageToken, "This token was not given for this list, or more than a day ago; start from the first page.")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", wrong
	}
	text, err := p.sealer.Open(base64.RawStdEncoding.EncodeToString(raw))
	if err != nil || len(text) < 24 {
		return "", wrong
	}
	ends := time.Unix(int64(binary.BigEndian.Uint64([]byte(text[:8]))), 0)
	if text[8:24] != fingerprint(binding) || p.now().After(ends) {
		return "", wrong
	}
	return text[24:], nil
}

// humaContext avoids a clash between the embedded field and the method Context.
type humaContext huma.Context

// opened is a request with its page token replaced by the position it holds.
type opened struct {
	humaContext
	place string
}

// Query implements huma.Context.
func (o opened) Query(name string) string {
	if name == pageTokenName {
		return o.place
	}
	return o.humaContext.Query(name)
}

// Unwrap returns the request itself; humagin looks for it.
func (o opened) Unwrap() huma.Context { return o.humaContext }
