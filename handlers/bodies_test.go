package handlers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// A new name is shown to those who read the language it was sent in.
func TestANewNameIsShownInItsLanguage(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		for _, what := range []string{"types", "resources"} {
			both := nodetest.Object{
				"name": "Old", "name_translations": nodetest.Object{"en": "Old", "ar": "قديم"},
				"description": "Was", "description_translations": nodetest.Object{"en": "Was", "ar": "كان"}, "minutes": 5,
			}
			if what == "resources" {
				delete(both, "minutes")
			}
			id := c.Staff(http.MethodPost, "/management/"+what, both).OK().Str("result.id")
			path := "/management/" + what + "/" + id
			put := func(lang string, body nodetest.Object) {
				t.Helper()
				a := c.Send(nodetest.Request{Method: http.MethodPut, Path: path, Token: c.Key, Lang: lang, Body: body}).OK()
				if name, ok := body["name"].(string); ok && body["name_translations"] == nil {
					assert.Equal(t, name, a.Str("result.name"), "the answer to the change")
				}
			}
			reads := func(lang, name, description string) {
				t.Helper()
				a := c.Send(nodetest.Request{Method: http.MethodGet, Path: path, Token: c.Key, Lang: lang}).OK()
				assert.Equal(t, name, a.Str("result.name"), "%s in %s", what, lang)
				assert.Equal(t, description, a.Str("result.description"), "%s in %s", what, lang)
			}
			put("", nodetest.Object{"name": "New", "description": "Is"})
			reads("en", "New", "Is")
			reads("ar", "قديم", "كان")
			put("ar", nodetest.Object{"name": "جديد", "description": "يكون"})
			reads("en", "New", "Is")
			reads("ar", "جديد", "يكون")
			put("en", nodetest.Object{"name": "Plain", "name_translations": nodetest.Object{"en": "Given", "ar": "معطى"}})
			reads("en", "Given", "Is")
			reads("ar", "معطى", "يكون")
			put("en", nodetest.Object{"name": "Plain", "name_translations": nodetest.Object{"ar": "وحيد"}})
			reads("en", "Plain", "Is")
			reads("ar", "وحيد", "يكون")
			put("en", nodetest.Object{"description": ""})
			assert.NotContains(t, c.Staff(http.MethodGet, path, nil).OK().Members("result.description_translations"), "en")
			plain := c.Staff(http.MethodPost, "/management/"+what, map[string]any{"types": nodetest.Object{"name": "A", "minutes": 5}, "resources": nodetest.Object{"name": "A"}}[what]).OK().Str("result.id")
			path = "/management/" + what + "/" + plain
			put("ar", nodetest.Object{"name": "B"})
			reads("en", "B", "")
			reads("ar", "B", "")
		}
	})
}

// What is sent empty is emptied; what is omitted or null is unchanged.
func TestAFieldThatIsSentEmptyIsEmptied(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		full, photos := nodetest.Object{"a": "b"}, []any{nodetest.Object{"url": "https://clinic.example/1.png"}}
		kind := c.NewType(nodetest.Object{
			"schedule": full, "timeOptions": full, "photos": photos, "paymentMethods": []string{"manual"},
			"oldPrice": "20.00", "category": "a", "color": "red", "description": "A",
		})
		room := c.NewResource(nodetest.Object{"meta": full, "photo": full, "photos": photos, "category": "a", "description": "A"}, kind)
		for path, emptied := range map[string]nodetest.Object{
			"/management/types/" + kind: {
				"schedule": nodetest.Object{}, "timeOptions": nodetest.Object{}, "photos": []any{}, "paymentMethods": []any{},
				"oldPrice": "", "category": "", "color": "", "description": "",
			},
			"/management/resources/" + room: {
				"meta": nodetest.Object{}, "photo": nodetest.Object{}, "photos": []any{}, "types": []any{}, "category": "", "description": "",
			},
		} {
			before := c.Staff(http.MethodGet, path, nil).OK().Members("result")
			nulls := nodetest.Object{}
			for name := range emptied {
				assert.NotEmpty(t, before[name], name)
				nulls[name] = nil
			}
			for _, unchanged := range []nodetest.Object{{}, nulls} {
				c.Staff(http.MethodPut, path, unchanged).OK()
				assert.Equal(t, before, c.Staff(http.MethodGet, path, nil).OK().Members("result"), "%v", unchanged)
			}
			for name, empty := range emptied {
				c.Staff(http.MethodPut, path, nodetest.Object{name: empty}).OK()
				before[name] = empty
				assert.Equal(t, before, c.Staff(http.MethodGet, path, nil).OK().Members("result"), name)
			}
		}
	})
}

// What a stranger sends costs little, and neither fills an answer nor the database.
func TestBodiesWithManyMistakesAreAnsweredBriefly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		c.NewType(nil)
		join := func(body string) nodetest.Request {
			return nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", App: c.ID, Body: body}
		}
		numbers := func(n int) string {
			return `{"type":"x","assign":false,"resourceFilters":{"resources":[` + strings.TrimSuffix(strings.Repeat("1,", n), ",") + `]}}`
		}
		nodetest.Once(h, "many", join(numbers(500_000))).Refused(http.StatusRequestEntityTooLarge, models.CodeTooLarge)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: `[` + strings.TrimSuffix(strings.Repeat("[],", 300_000), ",") + `]`}).
			Refused(http.StatusRequestEntityTooLarge, models.CodeTooLarge)

		some := nodetest.Once(h, "some", join(numbers(9_000))).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Len(t, some.List("errors"), 20)
		long := nodetest.Once(h, "long", join(`{"`+strings.Repeat("ü", 400_000)+`":1}`)).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Less(t, len(long.Raw), 2_000)
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM idempotency_keys WHERE subject LIKE 'guest:%' AND body <> ''"))
	})
}
