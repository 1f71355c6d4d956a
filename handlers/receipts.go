package handlers

import (
	"cmp"
	"net/http"
	"net/url"

	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"

	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/message"
)

// receiptShare is how many times the budget of a credential all signed receipts
// together have: each message makes about three.
const receiptShare = 30

// receiptRoutes are for carriers, not for clients of the API, so the API document
// does not list them.
func (s *Server) receiptRoutes() { s.api.Router.POST(message.ReceiptsPath, s.receipt) }

// receipt takes a delivery receipt of Twilio. A request without its signature looks
// nothing up and is charged to its address.
func (s *Server) receipt(c *gin.Context) {
	body, err := s.api.ReadBody(c, api.MaxBody)
	var form url.Values
	if err == nil {
		if form, err = url.ParseQuery(string(body)); err != nil || !api.IsText(string(body)) || !api.IsText(form.Get("MessageSid")) {
			err = models.Errorf(models.CodeMalformed, "The body is not a form.")
		}
	}
	if err == nil {
		err = s.opts.Notify.Messages.SignedReceipt(form, c.GetHeader("X-Twilio-Signature"))
	}
	if err != nil {
		s.api.WriteError(c, cmp.Or(s.api.ChargeAddress(c), err))
		return
	}
	left := s.api.Limiter.Take(c.Request.Context(), "receipts", redis_rate.PerMinute(receiptShare*s.api.RateLimit))
	if err = left.Err(); err == nil {
		err = s.opts.Notify.Messages.Receipt(c.Request.Context(), form)
	}
	if err != nil {
		s.api.WriteError(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}
