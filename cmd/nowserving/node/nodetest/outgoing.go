package nodetest

import (
	"nowserving/cmd/nowserving/node"
)

// Outgoing lets a node send: webhooks to this machine, and e-mail to a server that does
// not answer.
func Outgoing(c *node.Config) {
	c.WebhookAllowPrivate, c.SMTPURL = true, "smtp://127.0.0.1:9?from=clinic@mail.example"
}
