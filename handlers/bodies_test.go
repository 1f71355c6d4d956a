package handlers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

// A new name is shown to those who read the language it was sent in.
func TestANewNameIsShownInItsLanguage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		for _, what := range []string{"types", "resources"} {
			both := object{
				"name": "Old", "name_translations": object{"en": "Old", "ar": "قديم"},
				"description": "Was", "description_translations": object{"en": "Was", "ar": "كان"}, "minutes": 5,
			}
			if what == "resources" {
				delete(both, "minutes")
			}
			id := c.staff(http.MethodPost, "/management/"+what, both).ok().str("result.id")
			path := "/management/" + what + "/" + id
			put := func(lang string, body object) {
				t.Helper()
				a := c.send(request{method: http.MethodPut, path: path, token: c.key, lang: lang, body: body}).ok()
				if name, ok := body["name"].(string); ok && body["name_translations"] == nil {
					assert.Equal(t, name, a.str("result.name"), "the answer to the change")
				}
			}
			reads := func(lang, name, description string) {
				t.Helper()
				a := c.send(request{method: http.MethodGet, path: path, token: c.key, lang: lang}).ok()
				assert.Equal(t, name, a.str("result.name"), "%s in %s", what, lang)
				assert.Equal(t, description, a.str("result.description"), "%s in %s", what, lang)
			}
			put("", object{"name": "New", "description": "Is"})
			reads("en", "New", "Is")
			reads("ar", "قديم", "كان")
			put("ar", object{"name": "جديد", "description": "يكون"})
			reads("en", "New", "Is")
			reads("ar", "جديد", "يكون")
			put("en", object{"name": "Plain", "name_translations": object{"en": "Given", "ar": "معطى"}})
			reads("en", "Given", "Is")
			reads("ar", "معطى", "يكون")
			put("en", object{"name": "Plain", "name_translations": object{"ar": "وحيد"}})
			reads("en", "Plain", "Is")
			reads("ar", "وحيد", "يكون")
			put("en", object{"description": ""})
			assert.NotContains(t, c.staff(http.MethodGet, path, nil).ok().members("result.description_translations"), "en")
			plain := c.staff(http.MethodPost, "/management/"+what, map[string]any{"types": object{"name": "A", "minutes": 5}, "resources": object{"name": "A"}}[what]).ok().str("result.id")
			path = "/management/" + what + "/" + plain
			put("ar", object{"name": "B"})
			reads("en", "B", "")
			reads("ar", "B", "")
		}
	})
}

// What is sent empty is emptied; what is omitted or null is unchanged.
func TestWhatIsSentEmptyIsEmptied(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		full, photos := object{"a": "b"}, []any{object{"url": "https://clinic.example/1.png"}}
		kind := c.newType(object{
			"schedule": full, "timeOptions": full, "photos": photos, "paymentMethods": []string{"manual"},
			"oldPrice": "20.00", "category": "a", "color": "red", "description": "A",
		})
		room := c.newResource(object{"meta": full, "photo": full, "photos": photos, "category": "a", "description": "A"}, kind)
		for path, emptied := range map[string]object{
			"/management/types/" + kind: {
				"schedule": object{}, "timeOptions": object{}, "photos": []any{}, "paymentMethods": []any{},
				"oldPrice": "", "category": "", "color": "", "description": "",
			},
			"/management/resources/" + room: {
				"meta": object{}, "photo": object{}, "photos": []any{}, "types": []any{}, "category": "", "description": "",
			},
		} {
			before := c.staff(http.MethodGet, path, nil).ok().members("result")
			nulls := object{}
			for name := range emptied {
				assert.NotEmpty(t, before[name], name)
				nulls[name] = nil
			}
			for _, unchanged := range []object{{}, nulls} {
				c.staff(http.MethodPut, path, unchanged).ok()
				assert.Equal(t, before, c.staff(http.MethodGet, path, nil).ok().members("result"), "%v", unchanged)
			}
			for name, empty := range emptied {
				c.staff(http.MethodPut, path, object{name: empty}).ok()
				before[name] = empty
				assert.Equal(t, before, c.staff(http.MethodGet, path, nil).ok().members("result"), name)
			}
		}
	})
}

// What a stranger sends costs little, and neither fills an answer nor the database.
func TestBodiesWithManyMistakesAreAnsweredBriefly(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		c.newType(nil)
		join := func(body string) request {
			return request{method: http.MethodPut, path: "/customer/scheduling/new", app: c.id, body: body}
		}
		numbers := func(n int) string {
			return `{"type":"x","assign":false,"resourceFilters":{"resources":[` + strings.TrimSuffix(strings.Repeat("1,", n), ",") + `]}}`
		}
		h.once("many", join(numbers(500_000))).refused(http.StatusRequestEntityTooLarge, models.CodeTooLarge)
		h.send(request{method: http.MethodPost, path: "/availability/types", app: c.id, body: `[` + strings.TrimSuffix(strings.Repeat("[],", 300_000), ",") + `]`}).
			refused(http.StatusRequestEntityTooLarge, models.CodeTooLarge)

		some := h.once("some", join(numbers(9_000))).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Len(t, some.list("errors"), 20)
		long := h.once("long", join(`{"`+strings.Repeat("ü", 400_000)+`":1}`)).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Less(t, len(long.raw), 2_000)
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM idempotency_keys WHERE subject LIKE 'guest:%' AND body <> ''"))
	})
}
