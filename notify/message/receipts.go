package message

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Twilio's choice
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"nowserving/booking/clock"
	"nowserving/booking/store"
	"nowserving/models"
)

// ReceiptsPath is the path below the public URL to which Twilio sends delivery
// receipts.
const ReceiptsPath = "/messages/receipts/twilio"

// Receipt is what a carrier reported about a message that it accepted.
type Receipt string

// The reports that are stored. Others (queued, sending, sent) only repeat that the
// carrier accepted the message.
const (
	ReceiptNone        Receipt = ""
	ReceiptDelivered   Receipt = "delivered"
	ReceiptUndelivered Receipt = "undelivered" // the phone's network did not
	ReceiptFailed      Receipt = "failed"      // the carrier could not
)

// deliveries are Twilio's last states of a message.
var deliveries = map[string]Receipt{
	"delivered": ReceiptDelivered, "read": ReceiptDelivered, "undelivered": ReceiptUndelivered, "failed": ReceiptFailed, "canceled": ReceiptFailed,
}

// deliveryRank orders reports, so that the order in which they arrive does not
// matter: what a phone confirmed stays.
const deliveryRank = "CASE %s WHEN 'delivered' THEN 3 WHEN 'undelivered' THEN 2 WHEN 'failed' THEN 1 ELSE 0 END"

var receiptCode = regexp.MustCompile(`^\d{1,10}$`)

const (
	// receiptLooks is how often a message is looked for, receiptPause apart: its
	// receipt may arrive before the attempt is written down.
	receiptLooks = 5
	receiptPause = 200 * time.Millisecond
)

var (
	errReceiptSignature = models.Errorf(models.CodeForbidden, "The request is not signed by the provider.")
	errReceiptUnknown   = models.Errorf(models.CodeRouteMissing, "There is no such address.")
)

// SignedReceipt returns an error unless Twilio has signed the receipt. It reads no
// database.
func (p *Messages) SignedReceipt(form url.Values, signature string) error {
	if slices.ContainsFunc(p.reporting, func(t *twilio) bool { return t.signed(form, signature) }) {
		return nil
	}
	return errReceiptSignature
}

// Receipt stores a signed receipt. A repeated or older receipt changes nothing.
func (p *Messages) Receipt(ctx context.Context, form url.Values) error {
	id := form.Get("MessageSid")
	if id == "" {
		return errReceiptUnknown
	}
	var attempt Attempt
	for look := 0; ; look++ {
		err := p.Store.Read(ctx).Where("provider_id = ? AND method IN ?", id, []string{methodSMS, methodWhatsApp}).Limit(1).Find(&attempt).Error
		if err != nil {
			return fmt.Errorf("look for the message of a receipt: %w", err)
		}
		if attempt.ID != "" {
			break
		}
		if look == receiptLooks-1 {
			return errReceiptUnknown
		}
		if !clock.Sleep(ctx, receiptPause) {
			return ctx.Err()
		}
	}
	delivery := deliveries[form.Get("MessageStatus")]
	if delivery == ReceiptNone {
		return nil
	}
	code := form.Get("ErrorCode")
	if delivery == ReceiptDelivered || !receiptCode.MatchString(code) || code == "0" {
		code = ""
	}
	err := p.Store.Tx(ctx, func(tx *store.Tx) error {
		return tx.Model(&Attempt{}).
			Where("id = ? AND "+fmt.Sprintf(deliveryRank, "delivery")+" < "+fmt.Sprintf(deliveryRank, "CAST(? AS text)"), attempt.ID, delivery).
			Updates(map[string]any{"delivery": delivery, "delivery_error": code, "delivery_at": tx.Now}).Error
	})
	if err != nil {
		return fmt.Errorf("keep a receipt: %w", err)
	}
	return nil
}

// signed reports whether Twilio signed a receipt: the base64 of the HMAC-SHA1,
// under the account's token, of the URL followed by the names and values of the
// form in the order of the names. The port may be in the URL or not, so both are
// tried: https://www.twilio.com/docs/usage/security#validating-requests
func (t *twilio) signed(form url.Values, signature string) bool {
	sent, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || t.callback == "" {
		return false
	}
	var text strings.Builder
	for _, name := range sorted(form) {
		values := slices.Clone(form[name])
		slices.Sort(values)
		for _, value := range slices.Compact(values) {
			text.WriteString(name + value)
		}
	}
	return slices.ContainsFunc(withAndWithoutPort(t.callback), func(address string) bool {
		mac := hmac.New(sha1.New, []byte(t.token))
		mac.Write([]byte(address + text.String()))
		return hmac.Equal(mac.Sum(nil), sent)
	})
}

// withAndWithoutPort returns a URL as it is written and in its other form.
func withAndWithoutPort(address string) []string {
	u, err := url.Parse(address)
	if err != nil {
		return []string{address}
	}
	other := *u
	switch {
	case u.Port() != "":
		other.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	case u.Scheme == "https":
		other.Host += ":443"
	default:
		other.Host += ":80"
	}
	return []string{address, other.String()}
}
