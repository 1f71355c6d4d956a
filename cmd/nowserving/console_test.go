package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// openConsole opens the console of a clinic's only resource, signed in with a key.
func openConsole(open func(url string, width, height int64) *tab, c *nodetest.Clinic, query string) *tab {
	page := open(c.URL+"/console"+query, 1280, 800)
	page.fill("organization", c.ID)
	page.fill("api-key", nodetest.BootstrapKey)
	page.click("sign-in")
	page.shows("true", `document.querySelector('[data-testid="take-next"]') !== null`)
	return page
}

// A call and a no-show can be undone.
func TestTwoQuickPressesCallOnePatient(t *testing.T) {
	t.Parallel()
	c, typeID, _ := startProcess(t, environ(t, nodetest.Embedded)).NewQueue()
	for range 3 {
		c.Join(typeID, nil)
	}
	called := func() int {
		a := c.Staff(http.MethodGet, "/management/bookings?status=CONFIRMED", nil).OK()
		return strings.Count(string(a.Raw), `"stage":"CALLED"`)
	}
	doctor := openConsole(browse(t), c, "")
	doctor.shows("3", content("waiting-count"))
	for _, gap := range []int{80, 250} {
		for how, press := range map[string]string{
			"clicks": `document.querySelector('[data-testid="take-next"]').click()`,
			"keys":   `document.body.dispatchEvent(new KeyboardEvent('keydown', { code: 'KeyN', key: 'n', bubbles: true }))`,
		} {
			doctor.eval(fmt.Sprintf("(%s, setTimeout(() => { %s; document.body.dataset.pressed = 'twice'; }, %d))", press, press, gap))
			doctor.shows("twice", "document.body.dataset.pressed")
			doctor.shows("2", content("waiting-count"))
			require.Equal(t, 1, called(), "two %s %d ms apart", how, gap)
			doctor.eval("delete document.body.dataset.pressed")
			doctor.click("undo")
			doctor.shows("3", content("waiting-count"))
			require.Equal(t, 0, called())
			// A later press counts as another one.
			doctor.shows("true", "(globalThis.rest ??= performance.now(), performance.now() - rest > 600)")
			doctor.eval("delete globalThis.rest")
		}
	}
	doctor.click("take-next")
	doctor.click("no-show")
	doctor.run("confirm", chromedp.WaitVisible("#confirm-yes"), chromedp.Click("#confirm-yes"))
	doctor.shows("0", `document.querySelectorAll('[data-testid="current"] [data-booking-id]').length`)
	doctor.click("undo")
	doctor.shows("CALLED", `document.querySelector('[data-testid="current"] [data-booking-id]')?.dataset.stage`)
}

// The count is of all patients who wait, not of those on the page. In Arabic a long Latin
// name is cut at its end too.
func TestTheConsoleCountsAllPatientsAndCutsLongNamesAtTheirEnd(t *testing.T) {
	t.Parallel()
	c, typeID, _ := startProcess(t, environ(t, nodetest.Embedded)).NewQueue()
	c.Join(typeID, nodetest.Object{"customerIdentifier": nodetest.Object{
		"phone": "+966500000111", "firstName": "Bartholomew-Maximilian-Alexander", "lastName": "Featherstonehaugh-Cholmondeley-Worthington of the Western Isles",
	}})
	for range 519 {
		c.Join(typeID, nil)
	}
	desk := openConsole(browse(t), c, "?lang=ar")
	desk.shows("520", content("waiting-count"))
	require.Equal(t, "500", desk.eval(`document.querySelectorAll('[data-testid="waiting"] li').length`))
	name := `document.querySelector('[data-testid="waiting"] .detail strong')`
	require.Equal(t, "ltr", desk.eval("getComputedStyle("+name+").direction"), "so the ellipsis stands at the end of a Latin name")
	require.Equal(t, "right", desk.eval("getComputedStyle("+name+").textAlign"))
	require.Equal(t, "true", desk.eval(name+".scrollWidth > "+name+".clientWidth"), "the name is longer than its place")
	desk.click("take-next")
	desk.shows("519", content("waiting-count"))
}
