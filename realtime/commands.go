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

// handle carries out one command. It returns false if the connection is closing, so
// that the rest of the frame is skipped.
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

// isPong reports whether a command is empty, as the answer to a ping is.
func isPong(command *protocol.Command) bool {
	return command.Connect == nil && command.Subscribe == nil && command.Unsubscribe == nil &&
		command.Publish == nil && command.Presence == nil && command.PresenceStats == nil &&
		command.History == nil && command.Ping == nil && command.Send == nil && command.Rpc == nil &&
		command.Refresh == nil && command.SubRefresh == nil
}

// ask returns a context that bounds the questions to the source of one frame.
func (c *conn) ask() (context.Context, context.CancelFunc) {
	return context.WithDeadline(c.hub.ctx, c.answerBy)
}

// authenticate asks the source for the client of a token. If it returns false, it has
// answered the command or closed the connection.
func (c *conn) authenticate(ctx context.Context, id uint32, token string) (client Client, ok bool) {
	if token == "" {
		c.close(closeBadToken)
		return Client{}, false
	}
	client, err := c.hub.opts.Source.Authenticate(ctx, strings.Clone(token), c.address)
	if err == nil {
		return client, true
	}
	if models.CodeOf(err) == models.CodeInternal {
		c.hub.opts.Log.Warn("authenticate a live connection", "error", err)
	}
	temporary := passing(err)
	switch {
	case temporary != nil:
		c.answer(&protocol.Reply{Id: id, Error: temporary})
	case models.CodeOf(err) != models.CodeTokenExpired:
		c.close(closeBadToken) // also an expired API key: it will not be good again
	case c.who() != nil:
		c.close(closeExpired) // an error would make the library give up
	default:
		c.answer(&protocol.Reply{Id: id, Error: errTokenExpired})
	}
	return Client{}, false
}

func (c *conn) connect(id uint32, token string) bool {
	if token == "" {
		token = c.bearer
	}
	ctx, cancel := c.ask()
	defer cancel()
	client, ok := c.authenticate(ctx, id, token)
	if !ok {
		return c.open()
	}
	if welcome, err := c.welcome(ctx, client); err != nil {
		c.hub.opts.Log.Warn("check the origin of a live connection", "error", err)
		return c.refuse(id, errInternal)
	} else if !welcome {
		c.close(closeOrigin)
		return false
	}
	c.bearer = ""
	ttl := c.introduced(client)
	c.count(ctx, &client)
	return c.answer(&protocol.Reply{Id: id, Connect: &protocol.ConnectResult{
		Client: c.id, Version: c.hub.opts.Version, Expires: ttl > 0, Ttl: ttl,
		Ping: uint32(max(1, (c.hub.opts.PingInterval+time.Second-1)/time.Second)), Pong: true,
	}})
}

// welcome reports whether the client's page may connect. A foreign origin has to be
// allowed by the client's organization.
func (c *conn) welcome(ctx context.Context, client Client) (bool, error) {
	if c.guest == "" || client.OrganizationID == "" {
		return c.guest == "", nil
	}
	return c.hub.opts.Source.OriginAllowed(ctx, client.OrganizationID, c.guest)
}

func (c *conn) refresh(id uint32, token string) bool {
	ctx, cancel := c.ask()
	defer cancel()
	client, ok := c.authenticate(ctx, id, token)
	if !ok {
		return c.open()
	}
	if now := c.who(); client.UserID != now.UserID || client.OrganizationID != now.OrganizationID {
		c.close(closeBadToken)
		return false
	}
	ttl := c.introduced(client)
	return c.answer(&protocol.Reply{Id: id, Refresh: &protocol.RefreshResult{
		Client: c.id, Version: c.hub.opts.Version, Expires: ttl > 0, Ttl: ttl,
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
	reply := func(data json.RawMessage, at queue.StreamPosition) ([]byte, bool) {
		return c.encode(&protocol.Reply{Id: id, Subscribe: &protocol.SubscribeResult{
			Data: protocol.Raw(data), Epoch: at.Epoch, Offset: uint64(at.Version),
			// The library then sends its stream position when it resubscribes. The
			// answer is a snapshot all the same.
			Recoverable: true, Positioned: true, WasRecovering: request.Recover,
		}})
	}
	ctx, cancel := c.ask()
	defer cancel()
	if err := s.begin(ctx, *c.who(), reply); err != nil {
		s.leave()
		why := errorOf(err)
		if models.CodeOf(err) == models.CodeInternal {
			c.hub.opts.Log.Warn("subscribe a live connection", "error", err)
		}
		return c.refuse(id, why)
	}
	c.subscriptions = append(c.subscriptions, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.await()
}

// open reports whether the connection is not closing.
func (c *conn) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bye == nil && !c.dead
}
