package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

const (
	// maxWebhooks bounds the webhooks of an organization.
	maxWebhooks = 100
	// maxURL bounds an address, in bytes.
	maxURL = 2048
	// lookupTimeout bounds looking up a name when a webhook is added.
	lookupTimeout = 2 * time.Second
	// oldSecretLife is how long the secret before signs too.
	oldSecretLife = 24 * time.Hour
	// secretPrefix marks a secret, whose rest is 24 to 64 bytes in base64
	// (Standard Webhooks, "Signature scheme").
	secretPrefix          = "whsec_"
	minSecret, maxSecret  = 24, 64
	newSecret             = 32
	maxOwnersTold         = 20
	templateWebhookClosed = "webhookDisabled"
)

// The reasons why a delivery was given up.
const (
	ReasonAttempts = "attempts" // the last attempt of ten failed
	ReasonDisabled = "disabled" // with its webhook
	ReasonDeleted  = "deleted"  // with its webhook
)

// Webhook is a URL that gets the deliveries of a trigger.
type Webhook struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Trigger        Trigger
	URL            string
	Reference      string
	Secret         string // sealed
	OldSecret      string // sealed
	OldSecretUntil *time.Time
	CreatedAt      time.Time
	FailingSince   *time.Time
	DisabledAt     *time.Time
	DisabledReason string
	DeletedAt      *time.Time
}

// audit writes down what was done to the webhook; its address may hold a secret.
func (w *Webhook) audit(tx *store.Tx, action string) error {
	return tx.Audit(w.OrganizationID, action, "webhook", w.ID)
}

// Key names a webhook of an organization.
type Key struct {
	Trigger   Trigger
	URL       string
	Reference string
}

func noWebhook() error {
	return models.Errorf(models.CodeWebhookMissing, "There is no webhook of this trigger, url and reference.")
}

// List lists an organization's webhooks in the order of their making.
func (h *Webhooks) List(ctx context.Context, organizationID string) ([]Webhook, error) {
	var list []Webhook
	err := h.Store.Read(ctx).Where("organization_id = ? AND deleted_at IS NULL", organizationID).Order("id").Limit(maxWebhooks).Find(&list).Error
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	return list, nil
}

// Put makes a webhook or changes an existing one, which is enabled again and signs with
// the given secret. Without a secret, a new webhook gets a random one, which is
// returned as made; otherwise made is "".
func (h *Webhooks) Put(ctx context.Context, organizationID string, k Key, secret string) (w *Webhook, made string, err error) {
	if err := h.checkAddress(ctx, k.URL); err != nil {
		return nil, "", err
	}
	if err := checkSecret(secret); err != nil {
		return nil, "", err
	}
	err = h.Store.Tx(ctx, func(tx *store.Tx) error {
		made = ""
		if err := lockWebhooks(tx, organizationID); err != nil {
			return err
		}
		var err error
		w, err = findWebhook(tx, organizationID, k)
		if models.CodeOf(err) == models.CodeWebhookMissing {
			if w, made, err = h.add(tx, organizationID, k, secret); err != nil {
				return err
			}
			return w.audit(tx, "addWebhook")
		}
		if err != nil {
			return err
		}
		w.FailingSince, w.DisabledAt, w.DisabledReason = nil, nil, ""
		if secret != "" {
			if err := h.changeSecret(tx, w, secret); err != nil {
				return err
			}
		}
		if err := tx.Save(w).Error; err != nil {
			return err
		}
		return w.audit(tx, "addWebhook")
	})
	if err != nil {
		return nil, "", err
	}
	return w, made, nil
}

// add makes a webhook within a transaction.
func (h *Webhooks) add(tx *store.Tx, organizationID string, k Key, secret string) (w *Webhook, made string, err error) {
	var others int64
	if err := tx.Model(&Webhook{}).Where("organization_id = ? AND deleted_at IS NULL", organizationID).Count(&others).Error; err != nil {
		return nil, "", fmt.Errorf("count webhooks: %w", err)
	}
	if others >= maxWebhooks {
		return nil, "", models.Errorf(models.CodeWebhookLimit, "The organization has %d webhooks.", others)
	}
	if secret == "" {
		made = makeSecret()
		secret = made
	}
	w = &Webhook{
		ID: models.NewID(), OrganizationID: organizationID, Trigger: k.Trigger, URL: k.URL, Reference: k.Reference,
		Secret: h.sealer.Seal(secret), CreatedAt: tx.Now,
	}
	if err := tx.Create(w).Error; err != nil {
		return nil, "", fmt.Errorf("make a webhook: %w", err)
	}
	return w, made, nil
}

// Rotate gives a webhook a new secret, which is returned. The old one
// signs too for 24 hours.
func (h *Webhooks) Rotate(ctx context.Context, organizationID string, k Key) (w *Webhook, secret string, err error) {
	secret = makeSecret()
	err = h.Store.Tx(ctx, func(tx *store.Tx) error {
		if err := lockWebhooks(tx, organizationID); err != nil {
			return err
		}
		var err error
		if w, err = findWebhook(tx, organizationID, k); err != nil {
			return err
		}
		if err := h.changeSecret(tx, w, secret); err != nil {
			return err
		}
		if err := tx.Save(w).Error; err != nil {
			return err
		}
		return w.audit(tx, "rotateWebhook")
	})
	return w, secret, err
}

// Delete deletes a webhook. Its pending deliveries are dropped, and its log is kept as
// long as others.
func (h *Webhooks) Delete(ctx context.Context, organizationID string, k Key) error {
	dropped := 0
	err := h.Store.Tx(ctx, func(tx *store.Tx) error {
		if err := lockWebhooks(tx, organizationID); err != nil {
			return err
		}
		w, err := findWebhook(tx, organizationID, k)
		if err != nil {
			return err
		}
		w.DeletedAt, w.Secret, w.OldSecret, w.OldSecretUntil = &tx.Now, "", "", nil
		if err := tx.Save(w).Error; err != nil {
			return err
		}
		if dropped, err = drop(tx, w.ID, "", ReasonDeleted); err != nil {
			return err
		}
		return w.audit(tx, "deleteWebhook")
	})
	if err != nil {
		return err
	}
	for range dropped {
		h.Stats.Count(outbox.ChannelWebhook, outbox.ResultDropped)
	}
	return nil
}

// lockWebhooks makes the changes of an organization's webhooks wait for each
// other, so that their number keeps its bound and deliveries change in one
// order. SQLite, with one writer, has no such lock.
func lockWebhooks(tx *store.Tx, organizationID string) error {
	var locked []string
	return tx.Table("organizations").Clauses(clause.Locking{Strength: "NO KEY UPDATE"}).Where("id = ?", organizationID).Pluck("id", &locked).Error
}

func findWebhook(tx *store.Tx, organizationID string, k Key) (*Webhook, error) {
	var w Webhook
	err := tx.Where("organization_id = ? AND trigger = ? AND url = ? AND reference = ? AND deleted_at IS NULL", organizationID, k.Trigger, k.URL, k.Reference).
		Take(&w).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, noWebhook()
	}
	if err != nil {
		return nil, fmt.Errorf("find a webhook: %w", err)
	}
	return &w, nil
}

// changeSecret lets a webhook sign with a secret, and for a while with the one
// before.
func (h *Webhooks) changeSecret(tx *store.Tx, w *Webhook, secret string) error {
	before, err := h.sealer.Open(w.Secret)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", w.ID, err)
	}
	if before == secret {
		return nil
	}
	until := tx.Now.Add(oldSecretLife)
	w.OldSecret, w.OldSecretUntil, w.Secret = w.Secret, &until, h.sealer.Seal(secret)
	return nil
}

func makeSecret() string {
	raw := make([]byte, newSecret)
	_, _ = rand.Read(raw) // it never fails (crypto/rand)
	return secretPrefix + base64.StdEncoding.EncodeToString(raw)
}

// checkSecret refuses a secret of the caller's that verifiers would not take.
func checkSecret(secret string) error {
	if secret == "" {
		return nil
	}
	encoded, marked := strings.CutPrefix(secret, secretPrefix)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !marked || err != nil || len(raw) < minSecret || len(raw) > maxSecret {
		return models.Invalid("secret", "Give %s and %d to %d bytes in base64, or nothing.", secretPrefix, minSecret, maxSecret)
	}
	return nil
}

// checkAddress refuses an address that no delivery could or should reach. A
// name is looked up as well; one that is not found yet is let through, because
// what it leads to is checked again whenever it is dialled.
func (h *Webhooks) checkAddress(ctx context.Context, address string) error {
	refuse := func(why string) error { return models.Invalid("url", "%s", why) }
	u, err := url.Parse(address)
	switch {
	case len(address) > maxURL:
		return refuse("An address takes at most 2,048 bytes.")
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return refuse("Give an address that begins with https:// or http://.")
	case u.User != nil:
		return refuse("A name and password in the address are not sent; check the signature instead.")
	}
	if port, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || port < 1 || port > 65535) {
		return refuse("There is no such port.")
	}
	if h.guard == nil {
		return nil
	}
	const inside = "The address is not on the public internet."
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		if h.guard.SafeAddr(ip) != nil {
			return refuse(inside)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(u.Hostname(), "."))
	if err != nil {
		return nil // the name may be set up later; the dial decides
	}
	for _, ip := range ips {
		if h.guard.SafeAddr(ip.Unmap()) != nil {
			return refuse(inside)
		}
	}
	return nil
}

// disable ends a webhook until it is posted again, drops what else it had to
// deliver, and tells the owners. It returns how many deliveries it dropped.
func (h *Webhooks) disable(tx *store.Tx, d *dueDelivery, reason string) (int, error) {
	if err := lockWebhooks(tx, d.OrganizationID); err != nil {
		return 0, err
	}
	done := tx.Model(&Webhook{}).Where("id = ? AND disabled_at IS NULL AND deleted_at IS NULL", d.WebhookID).
		Updates(map[string]any{"disabled_at": tx.Now, "disabled_reason": reason})
	if done.Error != nil || done.RowsAffected == 0 {
		return 0, done.Error // another request has
	}
	if err := tx.Audit(d.OrganizationID, "disableWebhook", "webhook", d.WebhookID); err != nil {
		return 0, err
	}
	h.Log.Warn("a webhook was disabled", "organization", d.OrganizationID, "webhook", d.WebhookID, "reason", reason)
	dropped, err := drop(tx, d.WebhookID, d.ID, ReasonDisabled)
	if err != nil {
		return 0, err
	}
	return dropped, h.tellOwners(tx, d, reason)
}

// drop gives up what a webhook still has to deliver, but for one delivery.
func drop(tx *store.Tx, webhookID, but, reason string) (int, error) {
	done := tx.Model(&Delivery{}).Where("webhook_id = ? AND status = ? AND id <> ?", webhookID, DeliveryPending, but).
		Updates(map[string]any{"status": DeliveryDropped, "reason": reason, "next_attempt_at": nil, "finished_at": tx.Now})
	if done.Error != nil {
		return 0, fmt.Errorf("drop deliveries: %w", done.Error)
	}
	return int(done.RowsAffected), nil
}

// tellOwners writes to the owners of an organization that a webhook is off.
func (h *Webhooks) tellOwners(tx *store.Tx, d *dueDelivery, reason string) error {
	u, err := url.Parse(d.URL)
	if err != nil {
		return err
	}
	var owners []models.Member
	err = tx.Where("organization_id = ? AND role = ?", d.OrganizationID, models.RoleOwner).Order("id").Limit(maxOwnersTold).Find(&owners).Error
	if err != nil {
		return fmt.Errorf("look for owners: %w", err)
	}
	for _, o := range owners {
		m := models.Message{OrganizationID: d.OrganizationID, Template: templateWebhookClosed, Method: "email", Lang: "en"}
		content := models.MessageContent{To: models.Text(o.Email), Values: map[string]string{"url": u.Hostname(), "reason": reason}}
		if content.To == "" {
			m.Method, content.To = "sms", models.Text(o.Phone)
		}
		if m.Sealed, err = content.Seal(h.messages); err != nil {
			return err
		}
		tx.Enqueue(m)
	}
	return nil
}
