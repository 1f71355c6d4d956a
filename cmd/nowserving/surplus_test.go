package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// Seven pages open the link of one ticket. Five are live. The other two show that they are
// paused, disconnect no other page, and are live again after a click.
func TestPagesBeyondTheFifthOfATicketArePaused(t *testing.T) {
	t.Parallel()
	c, typeID, _ := startProcess(t, environ(t, nodetest.Embedded)).NewQueue()
	link := strings.Replace(c.Join(typeID, nil).Str("ticketUrl"), "http://localhost", "http://127.0.0.1", 1)
	open := browse(t)
	const paused = `String(document.querySelector('[data-testid="surplus"]') !== null)`
	var pages []*tab
	for range 7 {
		page := open(link, 390, 844)
		page.shows("connected", attribute("connection", "data-state"))
		pages = append(pages, page)
	}
	for _, page := range pages[:2] {
		page.shows("true", paused)
	}
	// Long enough for a page that reconnects to do so several times.
	pages[0].eval(`(globalThis.until = performance.now() + 6000)`)
	pages[0].shows("true", `performance.now() > until`)
	for i, page := range pages {
		require.Equal(t, []string{"true", "true", "false", "false", "false", "false", "false"}[i], page.eval(paused))
	}
	pages[0].click("wake")
	pages[0].shows("connected", attribute("connection", "data-state"))
	pages[2].shows("true", paused)
	require.Equal(t, "false", pages[0].eval(paused))
}
