package handlers_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

const websitePath = "/management/website"

// wholeWebsite has every field of a website, none of them as by default.
var wholeWebsite = nodetest.Object{
	"name": "Noor", "timezone": "Asia/Dubai", "on": true, "logo": nodetest.Object{"url": "https://x.example/logo.png"}, "logoFavIcon": nodetest.Object{"url": "https://x.example/icon.png"},
	"displayName": "Al Noor Clinic", "description": "Teeth and eyes", "terms": "Come on time.", "bookingSuccessMessage": "See you!", "bookingPolicy": "leastFirst",
	"bookingTimePolicy": "suggest", "suggestedTimes": 5, "bookingTimeSplitting": "fixed", "fixedTimes": []any{480, 750}, "bookingTimeSplittingOptimize": true,
	"bookingTimeShowMidnight": false, "selectTypeFirst": true, "selectResourceCategory": true, "hideResource": true,
	"theme": nodetest.Object{"primaryColor": "#0099ff", "font": "Amiri"}, "callSupport": "+966500000001", "whatsapp": "+966500000002", "emailSupport": "help@clinic.example",
	"twitter": "noor", "instagram": "noor.clinic", "facebook": "Noor Clinic", "tiktok": "noortok", "snapchat": "noorsnap", "map": nodetest.Object{"latitude": 24.7, "longitude": 46.6},
	"maroof": "12345", "saudiBusinessCenter": "0000067890",
}

// site changes the default version of a clinic's website.
func site(c *nodetest.Clinic, change nodetest.Object) {
	c.T.Helper()
	c.Staff(http.MethodPut, websitePath, change).OK()
}

func TestWebsite_HasTheOrganizationsNameAndDefaultsUntilItIsStored(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		want := nodetest.Object{
			"id": c.ID, "version": "default", "shortName": "", "name": "Al Noor", "displayName": "Al Noor", "timezone": "Asia/Riyadh", "on": true, "bookingPolicy": "specifyAndLeastFirst",
			"bookingTimePolicy": "displayAll", "suggestedTimes": 3, "bookingTimeSplitting": "oclock", "bookingTimeShowMidnight": true, "fixedTimes": []any{},
			"bookingTimeSplittingOptimize": false, "selectTypeFirst": false, "selectResourceCategory": false, "hideResource": false,
			"logo": nodetest.Object{}, "logoFavIcon": nodetest.Object{}, "theme": nodetest.Object{}, "map": nodetest.Object{},
		}
		for field := range wholeWebsite {
			if _, special := want[field]; !special {
				want[field] = ""
			}
		}
		assert.Len(t, wholeWebsite, 31, "fields of the document")
		for _, version := range []string{"default", "draft"} {
			want["version"] = version
			assert.Equal(t, number(want), c.Staff(http.MethodGet, websitePath+"?version="+version, nil).OK().At("result"))
			assert.Equal(t, number(want), h.Send(nodetest.Request{Method: http.MethodGet, Path: "/website?version=" + version, App: c.ID}).OK().At("result"))
		}
		h.Unchanged(nodetest.Request{Method: http.MethodPost, Path: websitePath + "/publish", Token: c.Key}).OK()
	})
}

func TestWebsite_KeepsWhatAChangeOmitsAndEmptiesWhatIsSentEmpty(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey, Body: nodetest.Object{"shortName": "al-noor"}}).OK()
		want := maps.Clone(wholeWebsite)
		want["id"], want["version"], want["shortName"] = c.ID, "default", "al-noor"
		want["fixedTimes"] = []any{480.0, 750.0}
		assert.Equal(t, number(want), c.Staff(http.MethodPut, websitePath, wholeWebsite).OK().At("result"))
		assert.Equal(t, number(want), c.Staff(http.MethodGet, websitePath, nil).OK().At("result"))
		emptied := nodetest.Object{"description": "", "theme": nodetest.Object{"accent": "x"}, "map": nodetest.Object{}, "fixedTimes": []any{}, "emailSupport": "", "hideResource": false}
		maps.Copy(want, emptied)
		assert.Equal(t, number(want), c.Staff(http.MethodPut, websitePath, emptied).OK().At("result"))
		assert.Equal(t, number(want), c.Staff(http.MethodPut, websitePath, nodetest.Object{"logo": nil, "name": nil}).OK().At("result"), "null is as omitted")
	})
}

func TestWebsite_ShowsADraftToVisitorsOnceItIsPublished(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		shown := func(c *nodetest.Clinic, version string) string {
			t.Helper()
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/website?version=" + version, App: c.ID}).OK().Str("result.displayName")
		}
		site(c, nodetest.Object{"displayName": "First"})
		assert.Equal(t, "First", shown(c, "draft"), "a draft that was never stored is the default version")
		draft := c.Staff(http.MethodPut, websitePath+"?version=draft", nodetest.Object{"displayName": "Second"}).OK()
		assert.Equal(t, "draft", draft.Str("result.version"))
		assert.Equal(t, "First", shown(c, "default"))
		assert.Equal(t, "Second", shown(c, "draft"))
		published := c.Staff(http.MethodPost, websitePath+"/publish", nil).OK()
		assert.Equal(t, "Second", published.Str("result.displayName"))
		assert.Equal(t, "default", published.Str("result.version"))
		assert.Equal(t, "Second", shown(c, "default"))
		assert.Equal(t, "Al Noor", shown(other, "default"))
		for action, version := range map[string]string{"updateWebsite": "draft", "publishWebsite": "default"} {
			assert.Equal(t, version, c.Staff(http.MethodGet, "/management/audit?action="+action, nil).OK().Str("result.0.subject.id"), action)
		}
	})
}

func TestWebsite_RefusesWhatIsNoValueOfItsField(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		big := strings.Repeat("x", 40<<10)
		for _, wrong := range []struct {
			field string
			body  nodetest.Object
		}{
			{"timezone", nodetest.Object{"timezone": "Riyadh"}}, {"timezone", nodetest.Object{"timezone": ""}}, {"timezone", nodetest.Object{"timezone": "Local"}},
			{"bookingPolicy", nodetest.Object{"bookingPolicy": "any"}}, {"bookingPolicy", nodetest.Object{"bookingPolicy": ""}}, {"bookingTimePolicy", nodetest.Object{"bookingTimePolicy": "last"}},
			{"bookingTimeSplitting", nodetest.Object{"bookingTimeSplitting": "30"}}, {"suggestedTimes", nodetest.Object{"suggestedTimes": 0}}, {"suggestedTimes", nodetest.Object{"suggestedTimes": 51}},
			{"fixedTimes[0]", nodetest.Object{"fixedTimes": []int{1440}}}, {"fixedTimes[1]", nodetest.Object{"fixedTimes": []int{0, -1}}}, {"fixedTimes", nodetest.Object{"fixedTimes": make([]int, 201)}},
			{"emailSupport", nodetest.Object{"emailSupport": "help"}}, {"emailSupport", nodetest.Object{"emailSupport": "Help <help@clinic.example>"}},
			{"name", nodetest.Object{"name": strings.Repeat("x", 201)}}, {"theme", nodetest.Object{"logo": nodetest.Object{"data": big}, "map": nodetest.Object{"data": big}}},
			{"theme.primaryColor", nodetest.Object{"theme": nodetest.Object{"primaryColor": "red;} body{display:none"}}},
			{"theme.dark.color", nodetest.Object{"theme": nodetest.Object{"dark": nodetest.Object{"color": "url(https://x.example)"}}}},
			{"theme.colors.text", nodetest.Object{"theme": nodetest.Object{"colors": nodetest.Object{"text": "#12345"}}}},
			{"theme.linkColor", nodetest.Object{"theme": nodetest.Object{"linkColor": []string{"red", "reddish"}}}},
			{"version", nil},
		} {
			path := websitePath
			if wrong.body == nil {
				path += "?version=old"
				wrong.body = nodetest.Object{}
			}
			refused := h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: path, Token: c.Key, Body: wrong.body}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{wrong.field}, refused.WrongFields(), "%.100v", wrong.body)
		}
		for _, path := range []string{websitePath, "/website"} {
			refused := h.Send(nodetest.Request{Method: http.MethodGet, Path: path + "?version=old", Token: c.Key}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{"version"}, refused.WrongFields())
		}
		site(c, nodetest.Object{"theme": nodetest.Object{"aColor": "#09f", "bColor": "#0099FF80", "color": "RebeccaPurple", "cColor": "", "colors": []string{"red", "#abcdef"}, "font": "a;b"}})
	})
}

func TestWebsite_ThatIsOffShowsVisitorsItsNameOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		c.Staff(http.MethodPut, websitePath, wholeWebsite).OK()
		site(c, nodetest.Object{"on": false})
		for _, request := range []nodetest.Request{
			{Method: http.MethodGet, Path: "/website", App: c.ID}, {Method: http.MethodGet, Path: "/website/find?url=" + url.QueryEscape(nodetest.PublicURL+"/join/"+c.ID)},
		} {
			a := h.Send(request).OK()
			for field, value := range a.Members("result") {
				switch field {
				case "id", "name", "version":
				default:
					assert.Contains(t, []any{"", false, 0.0}, emptyOr(value), field)
				}
			}
			assert.Equal(t, c.ID, a.Str("result.id"))
			assert.Equal(t, "Noor", a.Str("result.name"))
			assert.Equal(t, false, a.At("result.on"))
		}
		assert.Equal(t, "Teeth and eyes", c.Staff(http.MethodGet, websitePath, nil).OK().Str("result.description"), "staff see it whole")
	})
}

// emptyOr returns "" for an empty list or object, and any other value as it is.
func emptyOr(value any) any {
	switch v := value.(type) {
	case []any:
		if len(v) == 0 {
			return ""
		}
	case nodetest.Object:
		if len(v) == 0 {
			return ""
		}
	}
	return value
}

func TestWebsite_IsFoundByAddressesOfItsOrganizationOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, late := h.NewClinic(), h.NewClinic()
		change := func(c *nodetest.Clinic, body nodetest.Object) {
			t.Helper()
			h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey, Body: body}).OK()
		}
		change(late, nodetest.Object{"allowedOrigins": []string{"https://noor.example", "https://late.example:8443"}})
		change(c, nodetest.Object{"shortName": "al-noor", "allowedOrigins": []string{"https://noor.example"}})
		find := func(address string) nodetest.Response {
			t.Helper()
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/website/find?url=" + url.QueryEscape(address)})
		}
		for address, want := range map[string]*nodetest.Clinic{
			nodetest.PublicURL + "/join/" + c.ID: c, nodetest.PublicURL + "/join/al-noor": c, "HTTPS://Clinic.Example:443/join/AL-NOOR/?type=x#top": c,
			nodetest.PublicURL + "/join/" + late.ID: late, "https://noor.example/book?x=1": c, "https://NOOR.example": c, "https://late.example:8443/": late,
		} {
			assert.Equal(t, want.ID, find(address).OK().Str("result.id"), address)
		}
		for _, address := range []string{
			nodetest.PublicURL, nodetest.PublicURL + "/", nodetest.PublicURL + "/join/", nodetest.PublicURL + "/join/none", nodetest.PublicURL + "/join/" + c.ID + "/x",
			nodetest.PublicURL + "/ticket/" + c.ID, nodetest.PublicURL + "/display/" + c.ID, "http://noor.example", "https://noor.example:8443", "https://late.example", "https://elsewhere.example/join/" + c.ID,
		} {
			find(address).Refused(http.StatusNotFound, models.CodeOrgMissing)
		}
		for _, address := range []string{"noor", "/join/al-noor", "https://", "https://%zz", "mailto:help@noor.example", "https:noor.example"} {
			refused := find(address).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{"url"}, refused.WrongFields(), address)
		}
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/website/find"}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		h.Send(nodetest.Request{Method: http.MethodDelete, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey}).OK()
		find(nodetest.PublicURL+"/join/"+c.ID).Refused(http.StatusNotFound, models.CodeOrgMissing)
		assert.Equal(t, late.ID, find("https://noor.example").OK().Str("result.id"))
	})
}

func TestTimes_FollowTheWebsiteWhereTypeAndRequestSayNothing(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 25})
		c.NewResource(nil, visit)
		day := nodetest.Day(3)
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"rules": []any{rule(900, 1100)}}).OK()
		for _, split := range []struct {
			change nodetest.Object
			want   []int
		}{
			{nodetest.Object{"bookingTimeSplitting": "oclock"}, []int{900, 1000}},
			{nodetest.Object{"bookingTimeSplitting": "oclockAndHalf"}, []int{900, 930, 1000, 1030}},
			{nodetest.Object{"bookingTimeSplitting": "20"}, []int{900, 920, 940, 1000, 1020}},
			{nodetest.Object{"bookingTimeSplitting": "15"}, []int{900, 915, 930, 945, 1000, 1015, 1030}},
			{nodetest.Object{"bookingTimeSplitting": "10"}, []int{900, 910, 920, 930, 940, 950, 1000, 1010, 1020, 1030}},
			{nodetest.Object{"bookingTimeSplitting": "fixed", "fixedTimes": []int{545, 630}}, []int{905, 1030}},
			{nodetest.Object{"bookingTimeSplitting": "optimize"}, []int{900, 925, 950, 1015}},
			{nodetest.Object{"bookingTimeSplitting": "oclock", "bookingTimeSplittingOptimize": true}, []int{900, 925, 950, 1000, 1015}},
		} {
			site(c, split.change)
			assert.Equal(t, split.want, times(c, visit, day, nil), "%v", split.change)
		}
		site(c, nodetest.Object{"bookingTimeSplitting": "oclock", "bookingTimeSplittingOptimize": false})
		assert.Equal(t, []int{900, 930, 1000, 1030}, times(c, visit, day, nodetest.Object{"showHalfHour": true}))
		c.Staff(http.MethodPut, "/management/types/"+visit, nodetest.Object{"timeOptions": nodetest.Object{"showOclock": false, "showFixedTimes": "1005"}}).OK()
		assert.Equal(t, []int{1005}, times(c, visit, day, nil), "the type comes before the website")
		assert.Equal(t, []int{900, 1000, 1005}, times(c, visit, day, nodetest.Object{"showOclock": true}), "the request comes before the type")

		c.Staff(http.MethodPut, "/management/types/"+visit, nodetest.Object{"timeOptions": nodetest.Object{}}).OK()
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"rules": []any{rule(2200, 200)}}).OK()
		assert.Equal(t, []int{0, 100, 2200, 2300}, times(c, visit, day, nil))
		site(c, nodetest.Object{"bookingTimeShowMidnight": false})
		assert.Equal(t, []int{2200, 2300}, times(c, visit, day, nil))
		assert.Equal(t, []int{0, 100, 2200, 2300}, times(c, visit, day, nodetest.Object{"showAfterMidnight": true}))
	})
}

func TestTimes_AreAsManyADayAsTheWebsitesPolicyOffers(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 60})
		room := c.NewResource(nil, visit)
		day := nodetest.Day(3)
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"rules": []any{rule(900, 1700)}}).OK()
		whole := []int{900, 1000, 1100, 1200, 1300, 1400, 1500, 1600}
		for _, policy := range []struct {
			name    string
			suggest int
			want    []int
		}{
			{"displayAll", 3, whole}, {"first", 3, []int{900}}, {"suggest", 1, []int{900}}, {"suggest", 2, []int{900, 1600}}, {"suggest", 3, []int{900, 1300, 1600}},
			{"suggest", 4, []int{900, 1100, 1400, 1600}}, {"suggest", 8, whole}, {"suggest", 50, whole},
		} {
			site(c, nodetest.Object{"bookingTimePolicy": policy.name, "suggestedTimes": policy.suggest})
			assert.Equal(t, policy.want, times(c, visit, day, nil), "%s %d", policy.name, policy.suggest)
			assert.Equal(t, whole, times(c, visit, day, nodetest.Object{"showAll": true}))
		}
		site(c, nodetest.Object{"bookingTimePolicy": "first"})
		days := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/times", App: c.ID, Body: nodetest.Object{"type": visit, "from": day, "limit": 3}}).OK()
		for i := range 3 {
			assert.Len(t, days.List(fmt.Sprintf("result.%d.times", i)), 1, "one of each day")
		}
		c.Schedule(visit, 900, nil).OK()
		assert.Equal(t, []int{1000}, times(c, visit, day, nil), "the first that is free")

		t.Log("the resources are hidden from visitors, also where a time is taken")
		resources := func(more nodetest.Object) any {
			t.Helper()
			body := nodetest.Object{"type": visit, "from": day, "to": day}
			maps.Copy(body, more)
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/times", App: c.ID, Body: body}).OK().At("result.0.times.0.resources")
		}
		taken := func() any {
			t.Helper()
			return c.Schedule(visit, 900, nil).Refused(http.StatusConflict, models.CodeSlotTaken).At("alternatives.0.resources")
		}
		assert.Equal(t, []any{room}, resources(nil))
		assert.Equal(t, []any{room}, taken())
		site(c, nodetest.Object{"hideResource": true})
		assert.Equal(t, []any{}, resources(nil))
		assert.Equal(t, []any{}, taken())
		assert.Equal(t, []any{room}, resources(nodetest.Object{"showAll": true}))
	})
}

func TestAppointments_WithoutAResourceGetTheOneOfTheWebsitesPolicy(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 30})
		first, second := c.NewResource(nodetest.Object{"category": "doctors"}, visit), c.NewResource(nodetest.Object{"category": "doctors"}, visit)
		patient := c.Patient("+966500000061")
		military := 700
		book := func(day int, filters nodetest.Object) string {
			t.Helper()
			military += 100
			body := nodetest.Appointment(visit, nodetest.Day(day), military, nil)
			if filters != nil {
				body["resourceFilters"] = filters
			}
			return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: body}).OK().Str("result.resource.id")
		}
		site(c, nodetest.Object{"bookingPolicy": "specify"})
		assert.Equal(t, first, book(3, nil))
		assert.Equal(t, first, book(3, nil), "the first that is free")
		site(c, nodetest.Object{"bookingPolicy": "leastFirst"})
		assert.Equal(t, second, book(3, nil), "one against two")
		assert.Equal(t, first, book(3, nodetest.Object{"resource": first}), "a resource that is named is taken")
		assert.Equal(t, second, book(3, nodetest.Object{"category": "doctors"}), "a category names no resource")
		site(c, nodetest.Object{"bookingPolicy": "specifyAndLeastFirst", "hideResource": true})
		assert.Equal(t, second, book(3, nil))
		assert.Equal(t, first, book(4, nil), "another day has counts of its own")
		assert.Equal(t, second, c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Appointment(visit, nodetest.Day(4), 800, nil)).OK().Str("resource.id"), "the desk, too")
	})
}
