package message

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// unifonicPrefix begins the URL of an account with Unifonic.
const unifonicPrefix = "unifonic+"

// unifonic sends SMS through Unifonic, a provider for the Gulf and Egypt:
// https://docs.unifonic.com/reference/sms-api
type unifonic struct {
	client  *http.Client
	address string
	app     string // its AppSid, a secret
	name    string // the registered name of the sender
	kind    string // MessageType, which Saudi Arabia asks for; empty: not said
}

// newUnifonic reads a URL such as
// unifonic+https://appsid@el.cloud.unifonic.com/rest/SMS/messages?sender=AlNoor
func newUnifonic(raw string) (map[string]sender, error) {
	u, err := url.Parse(strings.TrimPrefix(raw, unifonicPrefix))
	if err != nil {
		return nil, errors.New("it is no URL") // the cause would show the AppSid
	}
	_, password := u.User.Password()
	query := u.Query()
	for name, values := range query {
		if name != "sender" && name != "messageType" || len(values) != 1 {
			return nil, errors.New("the parameters of Unifonic's are sender and messageType")
		}
	}
	switch {
	case !secured(u):
		return nil, errNotSecured
	case u.User.Username() == "" || password:
		return nil, errors.New("it names the AppSid: unifonic+https://appsid@el.cloud.unifonic.com/rest/SMS/messages?sender=Clinic")
	case query.Get("sender") == "":
		return nil, errors.New("it needs the registered name of the sender: ?sender=Clinic")
	}
	address := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return map[string]sender{methodSMS: &unifonic{
		client: newPhoneClient(), address: address.String(), app: u.User.Username(), name: query.Get("sender"), kind: query.Get("messageType"),
	}}, nil
}

// The codes of Unifonic that are documented:
// https://docs.unifonic.com/docs/understanding-reasons-of-sms-non-delivery
var (
	unifonicOperator = map[string]bool{
		"ER-01": true, // no rate for the country, or no money left
		"ER-08": true, // the sender's name is not registered
	}
	unifonicFinal = map[string]bool{
		"ER-02": true, "ER-03": true, "ER-04": true, // the number is not valid, too long, too short
		"ER-05": true, // no route to the number
		"ER-06": true, // no text
		"ER-07": true, // the text is not allowed
		"ER-09": true, // the same text has just been sent to the number
	}
	unifonicCode = regexp.MustCompile(`^[A-Za-z0-9-]{1,20}$`)
)

// unifonicAnswer is what Unifonic answers. Numbers may be written as texts.
type unifonicAnswer struct {
	Success bool            `json:"success"`
	Code    json.RawMessage `json:"errorCode"`
	Data    json.RawMessage `json:"data"` // an object, or something empty
}

func (u *unifonic) send(ctx context.Context, m outgoing) (string, error) {
	form := url.Values{
		"AppSid": {u.app}, "SenderID": {u.name}, "Recipient": {strings.TrimPrefix(m.To, "+")}, "Body": {m.Body},
		"responseType": {"JSON"}, "CorrelationID": {m.ID}, "async": {"false"},
	}
	if u.kind != "" {
		form.Set("MessageType", u.kind)
	}
	res, err := postForm(ctx, u.client, u.address, form, nil)
	if err != nil {
		return "", err
	}
	var answer unifonicAnswer
	var data struct {
		ID     json.RawMessage `json:"MessageID"`
		Status string          `json:"Status"`
	}
	unreadable := json.Unmarshal(res.body, &answer)
	if json.Unmarshal(answer.Data, &data) != nil {
		data.ID, data.Status = nil, ""
	}
	taken := res.status/100 == 2
	if taken && unreadable != nil {
		return "", &sendError{Code: "unreadable answer"} // it may come from something in between
	}
	if taken && answer.Success && data.Status != "Rejected" && data.Status != "Failed" {
		return plain(data.ID), nil
	}
	e := refusedWith(res)
	if taken { // the code alone says what is wrong; one that is not known may pass
		e = &sendError{Code: "refused"}
	}
	if code := plain(answer.Code); code != "" {
		e.Code += " " + code
		if unifonicOperator[code] || unifonicFinal[code] {
			e.Operator, e.Final = unifonicOperator[code], unifonicFinal[code]
		}
	}
	return "", e
}

// plain is a short code or number, without quotes; empty where it is neither.
func plain(raw json.RawMessage) string {
	text := strings.Trim(string(raw), `"`)
	if !unifonicCode.MatchString(text) || text == "null" {
		return ""
	}
	return text
}
