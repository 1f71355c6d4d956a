package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
)

func TestAGuestWithAWrongCodeSeesItBesideTheCodeAndKeepsTheTypedName(t *testing.T) {
	t.Parallel()
	node := startProcess(t, environ(t, nodetest.Embedded))
	c, typeID, _ := node.NewQueue()
	organization := c.Staff(http.MethodPut, "/management/organizations/"+c.ID, nodetest.Object{"guestJoin": "onSite"}).OK()
	guest := browse(t)(node.URL+"/join/"+c.ID+"#code=WRONG9", 390, 844)
	guest.click("type-" + typeID)
	guest.fill("guest-name", "Layla")
	guest.click("join-guest")
	guest.shows("on-site-code", "document.activeElement.dataset.testid")
	assert.NotEmpty(t, guest.eval(content("guest-problem")))
	assert.Equal(t, "Layla", guest.eval(`document.querySelector('[data-testid="guest-name"]').value`))
	assert.Equal(t, "true", guest.eval(`String((box => box.top >= 0 && box.bottom <= innerHeight)(document.querySelector('[data-testid="guest-problem"]').getBoundingClientRect()))`))

	guest.eval(`document.activeElement.value = ""`)
	guest.fill("on-site-code", organization.Str("result.onSiteCode"))
	guest.click("join-guest")
	guest.shows("1", attribute("position", "data-position"))
}
