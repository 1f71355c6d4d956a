package handlers

import (
	"cmp"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"

	"nowserving/models"
	"nowserving/notify"
)

// receiptShare is how many times the budget of a credential all signed receipts
// together have: each message makes about three.
const receiptShare = 30

// receiptRoutes are for carriers, not for clients of the API, so the API document
// does not list them.
func (s *Server) receiptRoutes() { s.engine.POST(notify.ReceiptsPath, s.receipt) }

// receipt takes what Twilio reports of a message. Nothing is looked up for a
// request that it did not sign, and such a request is charged to its address.
func (s *Server) receipt(c *gin.Context) {
	body, err := s.body(c)
	var form url.Values
	if err == nil {
		if form, err = url.ParseQuery(string(body)); err != nil || !isText(string(body)) || !isText(form.Get("MessageSid")) {
			err = models.Errorf(models.CodeMalformed, "The body is not a form.")
		}
	}
	if err == nil {
		err = s.o.Notify.SignedReceipt(form, c.GetHeader("X-Twilio-Signature"))
	}
	if err != nil {
		s.answer(c, cmp.Or(s.spendAddress(c), err))
		return
	}
	left := s.limiter.take(c.Request.Context(), "receipts", redis_rate.PerMinute(receiptShare*s.o.RateLimit))
	if err = left.tooMany(); err == nil {
		err = s.o.Notify.Receipt(c.Request.Context(), form)
	}
	if err != nil {
		s.answer(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}
