package realtime

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/centrifugal/protocol"

	"nowserving/booking/queue"
	"nowserving/models"
)

// sourceTimeout bounds one question to the source.
const sourceTimeout = 10 * time.Second

// handle carries out one command. It returns false when the connection is
// closing and the rest of the frame does not matter.
func (c *conn) handle(command *protocol.Command) bool {
	introduced := c.who() != nil
	switch {
	case (command.Connect != nil) == introduced, command.Id == 0 && command.Connect != nil:
		c.close(closeBadRequest) // first, once, and to be answered
		return false
	case command.Connect != nil:
		return c.connect(command.Id, command.Connect.Token)
	case command.Subscribe != nil && command.Id != 0:
		return c.subscribe(command.Id, command.Subscribe)
	case command.Unsubscribe != nil && command.Id != 0:
		return c.unsubscribe(command.Id, command.Unsubscribe.Channel)
	case command.Refresh != nil && command.Id != 0:
		return c.refresh(command.Id, command.Refresh.Token)
	case command.Ping != nil && command.Id != 0:
		return c.answer(&protocol.Reply{Id: command.Id, Ping: &protocol.PingResult{}})
	case command.Send != nil: // it has no answer that could say so
		c.close(closeNotAvailable)
		return false
	case command.Id == 0 && isPong(command):
		return true
	case command.Id != 0 && !isPong(command):
		return c.answer(&protocol.Reply{Id: command.Id, Error: errNotAvailable})
	default:
		c.close(closeBadRequest)
		return false
	}
}

// isPong reports whether a command asks for nothing.
func isPong(command *protocol.Command) bool {
	return command.Connect == nil && command.Subscribe == nil && command.Unsubscribe == nil &&
		command.Publish == nil && command.Presence == nil && command.PresenceStats == nil &&
		command.History == nil && command.Ping == nil && command.Send == nil && command.Rpc == nil &&
		command.Refresh == nil && command.SubRefresh == nil
}

// ask gives a question to the source its time.
func (c *conn) ask() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.hub.ctx, sourceTimeout)
}

// authenticate asks who holds a token. When it may not go on, it has answered.
func (c *conn) authenticate(id uint32, token string) (client Client, ok bool) {
	if token == "" {
		c.close(closeBadToken)
		return Client{}, false
	}
	ctx, cancel := c.ask()
	defer cancel()
	client, err := c.hub.o.Source.Authenticate(ctx, strings.Clone(token))
	if err == nil {
		return client, true
	}
	switch models.CodeOf(err) {
	case models.CodeTokenExpired:
		c.answer(&protocol.Reply{Id: id, Error: errTokenExpired})
	case models.CodeUnauthenticated, models.CodeForbidden, models.CodeOrgMissing:
		c.close(closeBadToken)
	default:
		c.hub.o.Log.Warn("authenticate a live connection", "error", err)
		c.answer(&protocol.Reply{Id: id, Error: errInternal})
	}
	return Client{}, false
}

func (c *conn) connect(id uint32, token string) bool {
	if token == "" {
		token = c.bearer
	}
	client, ok := c.authenticate(id, token)
	if !ok {
		return c.open()
	}
	if c.guest != "" && !c.welcome(client) {
		c.close(closeOrigin)
		return false
	}
	c.bearer = ""
	ttl := c.introduced(client)
	c.count(&client)
	return c.answer(&protocol.Reply{Id: id, Connect: &protocol.ConnectResult{
		Client: c.id, Version: c.hub.o.Version, Expires: ttl > 0, Ttl: ttl,
		Ping: uint32(max(1, (c.hub.o.PingInterval+time.Second-1)/time.Second)), Pong: true,
	}})
}

// welcome reports whether the client's organization lets pages of the origin it
// comes from connect.
func (c *conn) welcome(client Client) bool {
	ctx, cancel := c.ask()
	defer cancel()
	return client.OrganizationID != "" && c.hub.o.Source.OriginAllowed(ctx, client.OrganizationID, c.guest)
}

func (c *conn) refresh(id uint32, token string) bool {
	client, ok := c.authenticate(id, token)
	if !ok {
		return c.open()
	}
	if now := c.who(); client.UserID != now.UserID || client.OrganizationID != now.OrganizationID {
		c.close(closeBadToken)
		return false
	}
	ttl := c.introduced(client)
	return c.answer(&protocol.Reply{Id: id, Refresh: &protocol.RefreshResult{
		Client: c.id, Version: c.hub.o.Version, Expires: ttl > 0, Ttl: ttl,
	}})
}

func (c *conn) unsubscribe(id uint32, channel string) bool {
	if s := c.subscription(channel); s != nil {
		s.leave()
		c.subscriptions = slices.Delete(c.subscriptions, slices.Index(c.subscriptions, s), slices.Index(c.subscriptions, s)+1)
	}
	return c.answer(&protocol.Reply{Id: id, Unsubscribe: &protocol.UnsubscribeResult{}})
}

func (c *conn) subscribe(id uint32, request *protocol.SubscribeRequest) bool {
	kind, target, ok := parseChannel(request.Channel)
	switch {
	case !ok:
		return c.refuse(id, errUnknownChannel)
	case c.subscription(request.Channel) != nil:
		return c.refuse(id, errAlreadySubscribed)
	case len(c.subscriptions) >= maxSubscriptions:
		return c.refuse(id, errLimitExceeded)
	}
	channel := strings.Clone(request.Channel) // the decoder's strings share the frame
	s := &subscription{conn: c, channel: channel, kind: kind, id: channel[len(channel)-len(target):]}
	// reply makes the answer for the snapshot that the subscription settles on.
	reply := func(data json.RawMessage, at queue.Moment) ([]byte, bool) {
		return c.encode(&protocol.Reply{Id: id, Subscribe: &protocol.SubscribeResult{
			Data: protocol.Raw(data), Epoch: at.Epoch, Offset: uint64(at.Version),
			// The library then says where it was when it comes back; the answer is
			// always a snapshot, never what was missed.
			Recoverable: true, Positioned: true, WasRecovering: request.Recover,
		}})
	}
	ctx, cancel := c.ask()
	defer cancel()
	if err := s.begin(ctx, *c.who(), reply); err != nil {
		s.leave()
		why := errorOf(err)
		if why == errInternal {
			c.hub.o.Log.Warn("subscribe a live connection", "error", err)
		}
		return c.refuse(id, why)
	}
	c.subscriptions = append(c.subscriptions, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.await()
}

// open reports whether the connection goes on.
func (c *conn) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bye == nil && !c.dead
}
