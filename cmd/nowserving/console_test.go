package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// consoleOf opens the console of a node's only resource, signed in with its key.
func consoleOf(open func(url string, width, height int64) *tab, node *process, query string) *tab {
	page := open(node.url+"/console"+query, 1280, 800)
	page.fill("organization", node.appID)
	page.fill("api-key", testKey)
	page.click("sign-in")
	page.shows("true", `document.querySelector('[data-testid="take-next"]') !== null`)
	return page
}

// Two clicks of one hand, or a key that bounces, call one patient; a call and a
// no-show can be taken back.
func TestADoublePressIsOneAndCanBeUndone(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	typeID, _ := node.clinic()
	for range 3 {
		node.join(typeID)
	}
	called := func() int {
		_, answer, err := node.try("GET", "/management/bookings?status=CONFIRMED", nil)
		require.NoError(t, err)
		return strings.Count(string(answer), `"stage":"CALLED"`)
	}
	doctor := consoleOf(browse(t), node, "")
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
			// The next press is another one.
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

// A count is of all who wait, and not of those on the page; in Arabic a long
// Latin name keeps its beginning.
func TestTheConsoleCountsAllAndCutsNamesAtTheirEnd(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	typeID, _ := node.clinic()
	node.call("PUT", "/management/scheduling/new", map[string]any{"type": typeID, "assign": false, "customerIdentifier": map[string]any{
		"phone": "+966500000111", "firstName": "Bartholomew-Maximilian-Alexander", "lastName": "Featherstonehaugh-Cholmondeley-Worthington of the Western Isles",
	}})
	for range 519 {
		node.join(typeID)
	}
	desk := consoleOf(browse(t), node, "?lang=ar")
	desk.shows("520", content("waiting-count"))
	require.Equal(t, "500", desk.eval(`document.querySelectorAll('[data-testid="waiting"] li').length`))
	name := `document.querySelector('[data-testid="waiting"] .detail strong')`
	require.Equal(t, "ltr", desk.eval("getComputedStyle("+name+").direction"), "so the ellipsis stands at the end of a Latin name")
	require.Equal(t, "right", desk.eval("getComputedStyle("+name+").textAlign"))
	require.Equal(t, "true", desk.eval(name+".scrollWidth > "+name+".clientWidth"), "the name is longer than its place")
	desk.click("take-next")
	desk.shows("519", content("waiting-count"))
}
