package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Seven people open the link of one ticket. Five are live; the surplus says that it
// rests, throws nobody out, and is live again when somebody turns to it.
func TestTheSurplusOfViewersRests(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	typeID, _ := node.clinic()
	link := strings.Replace(node.join(typeID).text("ticketUrl"), "http://localhost", "http://127.0.0.1", 1)
	open := browse(t)
	const resting = `String(document.querySelector('[data-testid="surplus"]') !== null)`
	var pages []*tab
	for range 7 {
		page := open(link, 390, 844)
		page.shows("connected", attribute("connection", "data-state"))
		pages = append(pages, page)
	}
	for _, page := range pages[:2] {
		page.shows("true", resting)
	}
	// Long enough for a page that fights to come back several times.
	pages[0].eval(`(globalThis.until = performance.now() + 6000)`)
	pages[0].shows("true", `performance.now() > until`)
	for i, page := range pages {
		require.Equal(t, []string{"true", "true", "false", "false", "false", "false", "false"}[i], page.eval(resting))
	}
	pages[0].click("wake")
	pages[0].shows("connected", attribute("connection", "data-state"))
	pages[2].shows("true", resting)
	require.Equal(t, "false", pages[0].eval(resting))
}
