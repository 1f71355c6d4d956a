package handlers_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
)

// categories answers a page of the categories of resources.
func categories(c *nodetest.Clinic, body nodetest.Object) nodetest.Response {
	c.T.Helper()
	return c.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/resourceCategories", App: c.ID, Body: body}).OK()
}

// byCategory are the ids of resources by category.
func byCategory(a nodetest.Response) map[string][]string {
	a.T.Helper()
	found := map[string][]string{}
	for i, name := range a.Pluck("result", "name") {
		found[name] = a.Pluck(fmt.Sprintf("result.%d.resources", i), "id")
	}
	return found
}

func TestCategories_HaveTheResourcesThatPatientsMayChoose(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		visit, scan := c.NewType(nil), c.NewType(nil)
		in := func(category string, more nodetest.Object, types ...string) string {
			body := nodetest.Object{"category": category, "meta": nodetest.Object{"floor": 2}}
			for k, v := range more {
				body[k] = v
			}
			return c.NewResource(body, types...)
		}
		nurse := in("nurses", nil, visit)
		one, two := in("doctors", nil, visit), in("doctors", nil, scan)
		desk := in("desks", nodetest.Object{"bookFromWebsite": false}, visit)
		in("", nil, visit)
		in("away", nodetest.Object{"on": false}, visit)
		in("retired", nodetest.Object{"activated": false}, visit)
		other.NewResource(nodetest.Object{"category": "theirs"}, other.NewType(nil))

		all := categories(c, nodetest.Object{})
		assert.Equal(t, []string{"doctors", "nurses"}, all.Pluck("result", "name"), "by name")
		assert.Equal(t, []string{"doctors", "nurses"}, all.Pluck("result", "id"))
		assert.Equal(t, map[string][]string{"doctors": {one, two}, "nurses": {nurse}}, byCategory(all))
		assert.Equal(t, []any{visit}, all.At("result.0.resources.0.types"))
		assert.Nil(t, all.At("result.0.resources.0.meta"), "for staff only")
		assert.Equal(t, map[string][]string{"desks": {desk}, "doctors": {one, two}, "nurses": {nurse}}, byCategory(categories(c, nodetest.Object{"showAll": true})))
		assert.Equal(t, map[string][]string{"doctors": {two}}, byCategory(categories(c, nodetest.Object{"type": scan})))
		assert.Equal(t, map[string][]string{"nurses": {nurse}}, byCategory(categories(c, nodetest.Object{"resourceFilters": nodetest.Object{"category": "nurses"}})))
		assert.Equal(t, map[string][]string{"doctors": {one}}, byCategory(categories(c, nodetest.Object{"resourceFilters": nodetest.Object{"resource": one}})))
	})
}

func TestCategories_AreGivenOnceEachInPagesOfWholeCategories(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nil)
		for _, name := range []string{"e", "a", "c", "b", "d"} {
			for range 2 {
				c.NewResource(nodetest.Object{"category": name}, visit)
			}
		}
		names, token := []string{}, ""
		for page := range 3 {
			a := categories(c, nodetest.Object{"limit": 2, "nextPageToken": token})
			for name, resources := range byCategory(a) {
				assert.Len(t, resources, 2, name)
			}
			names = append(names, a.Pluck("result", "name")...)
			if page == 0 { // a category before the next page does not move it
				c.NewResource(nodetest.Object{"category": "aa"}, visit)
			}
			token, _ = a.At("pagination.nextPageToken").(string)
			assert.Equal(t, page < 2, a.At("pagination.hasMore"))
		}
		assert.Equal(t, []string{"a", "b", "c", "d", "e"}, names)
	})
}
