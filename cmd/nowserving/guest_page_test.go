package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// A guest with a wrong code reads so beside the code, and keeps what was typed.
func TestAGuestSeesAtTheCodeThatItIsWrong(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	typeID, _ := node.clinic()
	organization := node.call("PUT", "/management/organizations/"+node.appID, map[string]any{"guestJoin": "onSite"})
	guest := browse(t)(node.url+"/join/"+node.appID+"#code=WRONG9", 390, 844)
	guest.click("type-" + typeID)
	guest.fill("guest-name", "Layla")
	guest.click("join-guest")
	guest.shows("on-site-code", "document.activeElement.dataset.testid")
	assert.NotEmpty(t, guest.eval(content("guest-problem")))
	assert.Equal(t, "Layla", guest.eval(`document.querySelector('[data-testid="guest-name"]').value`))
	assert.Equal(t, "true", guest.eval(`String((box => box.top >= 0 && box.bottom <= innerHeight)(document.querySelector('[data-testid="guest-problem"]').getBoundingClientRect()))`))

	guest.eval(`document.activeElement.value = ""`)
	guest.fill("on-site-code", organization.text("onSiteCode"))
	guest.click("join-guest")
	guest.shows("1", attribute("position", "data-position"))
}
