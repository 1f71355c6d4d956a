package handlers

import (
	"encoding/json"
	"net/url"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/handlers/api"
	"nowserving/handlers/live"
	"nowserving/models"
	"nowserving/realtime"
)

const aboutLive = "What phones, consoles and screens are told as it happens. The protocol is Centrifuge's client protocol, JSON or Protobuf, over WebSocket: " +
	"use one of its libraries (centrifuge-js, -swift, -java, -dart, -go, -python). " +
	"The token of the connect command is an access token, an API key, the token of a ticket or of a display; give the library a getToken, because access tokens live 15 minutes. " +
	"Subscribe to a channel by its address. The data of the subscribe reply is a snapshot of the state, and publications tell what changed since. " +
	"Nothing is recovered after a gap: the library subscribes again and gets a new snapshot, so render the data of every subscribe reply and ask for no history. " +
	"The service pings every 25 s. x-close-codes and x-errors list the codes; after a close code from 3500 on, the library does not connect again."

// channel describes a kind of channel.
type channel struct {
	kind, parameter, about string
	snapshot               reflect.Type // nil: among realtime.Messages
}

var channels = []channel{
	{"booking", "bookingId", "One booking: for its customer, for the token of its ticket and for staff.", reflect.TypeFor[live.BookingSnapshot]()},
	{"queue", "resourceId", "The queue of a resource: for its provider and for staff.", reflect.TypeFor[live.QueueSnapshot]()},
	{"display", "displayId", "A waiting-room screen: for the display's token and for staff. It shows ticket numbers, never names.", nil},
}

// liveDocument writes the AsyncAPI document of the live connection. Its schemas
// come from the types that are sent.
func liveDocument(info *huma.Info, publicURL string) ([]byte, error) {
	d := newLiveParts()
	for _, c := range channels {
		d.addChannel(c)
	}
	for _, schema := range d.schemas.Map() {
		schema.AdditionalProperties = true // later versions may add members
	}
	document := map[string]any{
		"asyncapi": "3.0.0", "defaultContentType": "application/json",
		"info": map[string]any{
			"title": info.Title + ": live channels", "version": info.Version, "description": aboutLive, "license": info.License, "contact": info.Contact,
			"tags": []any{map[string]any{"name": "live", "description": "What is told as it happens."}},
		},
		"channels": d.channels, "operations": d.operations,
		"components": map[string]any{
			"messages": d.messages, "schemas": d.schemas,
			"securitySchemes": map[string]any{"token": map[string]any{
				"type": "httpApiKey", "in": "header", "name": "Authorization",
				"description": "In the connect command, or as Authorization: Bearer. Never in an address.",
			}},
		},
		"x-close-codes": realtime.CloseCodes, "x-errors": realtime.Errors,
	}
	if u, err := url.Parse(publicURL); err == nil && u.Host != "" {
		document["servers"] = map[string]any{"service": liveServer(u)}
	}
	written, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	// AsyncAPI ignores members beside a reference too.
	var plain any
	if err := json.Unmarshal(written, &plain); err != nil {
		return nil, err
	}
	api.WrapReferences(plain)
	return json.Marshal(plain)
}

// liveParts are the parts of the AsyncAPI document that the channels add to. All of
// them are by name.
type liveParts struct {
	channels, messages, operations map[string]any
	schemas                        huma.Registry
}

func newLiveParts() *liveParts {
	schemas := huma.NewMapRegistry(api.SchemaPrefix, huma.DefaultSchemaNamer)
	schemas.RegisterTypeAlias(reflect.TypeFor[models.Moment](), reflect.TypeFor[time.Time]())
	return &liveParts{map[string]any{}, map[string]any{}, map[string]any{}, schemas}
}

// addChannel describes a channel, its messages and the operation of its subscribers.
func (d *liveParts) addChannel(c channel) {
	messages, refs := map[string]any{}, []any{}
	add := func(t models.EventType, about string, payload reflect.Type) {
		name := c.kind + "-" + string(t)
		d.messages[name] = d.message(t, about, payload)
		messages[name] = reference("/components/messages/" + name)
		refs = append(refs, reference("/channels/"+c.kind+"/messages/"+name))
	}
	if c.snapshot != nil {
		add(models.EventSnapshot, "The state; the data of the subscribe reply.", c.snapshot)
	}
	for _, m := range realtime.Messages {
		if m.Channel == c.kind {
			add(m.Type, m.About, m.Payload)
		}
	}
	d.channels[c.kind] = map[string]any{
		"address": c.kind + ":{" + c.parameter + "}", "description": c.about, "messages": messages,
		"parameters": map[string]any{c.parameter: map[string]any{"description": "Its id.", "examples": []string{exampleID}}},
	}
	d.operations["watch-"+c.kind] = map[string]any{
		"action": "send", "summary": "What a subscriber of " + c.kind + ":<id> gets", "description": "First the snapshot, then what changes.",
		"channel": reference("/channels/" + c.kind), "messages": refs,
	}
}

// message describes a message.
func (d *liveParts) message(t models.EventType, about string, payload reflect.Type) map[string]any {
	return map[string]any{
		"name": string(t), "title": string(t), "summary": about, "contentType": "application/json",
		"payload": map[string]any{"allOf": []any{
			d.schemas.Schema(payload, true, ""),
			map[string]any{"type": "object", "properties": map[string]any{"type": map[string]any{"const": string(t)}}},
		}},
	}
}

// liveServer describes the server at a public address.
func liveServer(u *url.URL) map[string]any {
	protocol := "wss"
	if u.Scheme == "http" {
		protocol = "ws"
	}
	return map[string]any{
		"host": u.Host, "pathname": u.Path + api.LivePath, "protocol": protocol, "description": "The Centrifuge client protocol.",
		"security": []any{reference("/components/securitySchemes/token")},
	}
}

func reference(to string) map[string]any { return map[string]any{"$ref": "#" + to} }
