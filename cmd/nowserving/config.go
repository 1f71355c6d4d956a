package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/caarlos0/env/v11"

	"nowserving/handlers/web"
	"nowserving/notify"
)

// config is everything that can be set, by environment only. A name ending in
// _FILE gives the path of a file that holds the value of the name without it.
type config struct {
	DatabaseURL string `env:"DATABASE_URL"`
	RedisURL    string `env:"REDIS_URL"`
	MigrateURL  string `env:"NOWSERVING_MIGRATE_URL"`

	Addr      string `env:"NOWSERVING_ADDR" envDefault:":8080"`
	PublicURL string `env:"NOWSERVING_PUBLIC_URL"`
	Data      string `env:"NOWSERVING_DATA" envDefault:"./data"`
	Env       string `env:"NOWSERVING_ENV" envDefault:"development"`

	SQLiteSync string `env:"NOWSERVING_SQLITE_SYNC"` // full, the default, or normal

	SecretKey    string `env:"NOWSERVING_SECRET_KEY"`
	BootstrapKey string `env:"NOWSERVING_BOOTSTRAP_KEY"`
	OTPFixedCode string `env:"NOWSERVING_OTP_FIXED_CODE"`

	OTPDailyLimit int      `env:"NOWSERVING_OTP_DAILY_LIMIT" envDefault:"1000"`
	OTPCountries  []string `env:"NOWSERVING_OTP_COUNTRIES"`

	AllowedOrigins []string `env:"NOWSERVING_ALLOWED_ORIGINS"`
	TrustedProxies []string `env:"NOWSERVING_TRUSTED_PROXIES"`
	RateLimit      int      `env:"NOWSERVING_RATE_LIMIT" envDefault:"100"`

	PositionTick time.Duration `env:"NOWSERVING_POSITION_TICK" envDefault:"0s"`
	DebugAddr    string        `env:"NOWSERVING_DEBUG_ADDR"`

	FCMCredentials      string `env:"NOWSERVING_FCM_CREDENTIALS"`
	FCMEndpoint         string `env:"NOWSERVING_FCM_ENDPOINT"`
	FCMHoldLive         bool   `env:"NOWSERVING_FCM_HOLD_LIVE"`
	WebhookAllowPrivate bool   `env:"NOWSERVING_WEBHOOK_ALLOW_PRIVATE"`
	SMTPURL             string `env:"NOWSERVING_SMTP_URL"`
	SMSURL              string `env:"NOWSERVING_SMS_URL"`

	TurnstileSecret  string `env:"NOWSERVING_TURNSTILE_SECRET"`
	TurnstileSiteKey string `env:"NOWSERVING_TURNSTILE_SITE_KEY"`
	TurnstileURL     string `env:"NOWSERVING_TURNSTILE_URL" envDefault:"https://challenges.cloudflare.com/turnstile/v0/siteverify"`
	RecaptchaSecret  string `env:"NOWSERVING_RECAPTCHA_SECRET"`
	RecaptchaSiteKey string `env:"NOWSERVING_RECAPTCHA_SITE_KEY"`
	RecaptchaURL     string `env:"NOWSERVING_RECAPTCHA_URL" envDefault:"https://www.google.com/recaptcha/api/siteverify"`

	// Settings that are checked like the others; ahead names those that nothing
	// reads yet.
	OTELEndpoint string `env:"NOWSERVING_OTEL_ENDPOINT"`

	endlessCodes bool // set by demo alone
}

// ahead are settings of the design that this version accepts and does not use;
// the start says so for each that is set.
var ahead = []string{
	"NOWSERVING_OTEL_ENDPOINT",
}

// secrets are the names that _FILE works for.
var secrets = []string{
	"DATABASE_URL", "REDIS_URL", "NOWSERVING_MIGRATE_URL", "NOWSERVING_SECRET_KEY", "NOWSERVING_BOOTSTRAP_KEY",
	"NOWSERVING_FCM_CREDENTIALS", "NOWSERVING_SMTP_URL", "NOWSERVING_SMS_URL",
	"NOWSERVING_TURNSTILE_SECRET", "NOWSERVING_RECAPTCHA_SECRET",
}

// prefix marks the names that are ours: an unknown one is a mistake.
const prefix = "NOWSERVING_"

// maxPositionTick is the longest a client may be left with an old place.
const maxPositionTick = time.Second

// minSecret is the least length of a secret, in bytes.
const minSecret = 32

func readConfig(environ []string) (config, error) {
	values := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	for _, name := range secrets {
		path, ok := values[name+"_FILE"]
		if !ok {
			continue
		}
		if values[name] != "" {
			return config{}, fmt.Errorf("%s and %s_FILE are both set; keep one", name, name)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return config{}, fmt.Errorf("%s_FILE: %w", name, err)
		}
		values[name] = strings.TrimSpace(string(content))
		delete(values, name+"_FILE")
	}
	var c config
	if err := env.ParseWithOptions(&c, env.Options{Environment: values}); err != nil {
		return config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return c, errors.Join(unknown(values), c.check())
}

// unknown refuses names of ours that mean nothing, with the nearest that does.
func unknown(values map[string]string) error {
	known, err := knownNames()
	if err != nil {
		return err
	}
	var errs []error
	for name := range values {
		if !strings.HasPrefix(name, prefix) || slices.Contains(known, name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int {
			return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
		})
		errs = append(errs, fmt.Errorf("%s is not a setting; did you mean %s?", name, nearest))
	}
	return errors.Join(errs...)
}

func knownNames() ([]string, error) {
	params, err := env.GetFieldParams(&config{})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(params))
	for _, p := range params {
		names = append(names, p.Key)
	}
	return names, nil
}

func (c *config) check() error {
	var errs []error
	if c.Env != "development" && c.Env != "production" {
		errs = append(errs, fmt.Errorf("NOWSERVING_ENV is %q; it is development or production", c.Env))
	}
	if c.OTPFixedCode != "" && c.Env != "development" {
		errs = append(errs, errors.New("NOWSERVING_OTP_FIXED_CODE lets anyone sign in; it needs NOWSERVING_ENV=development"))
	}
	if c.SecretKey != "" && len(c.SecretKey) < minSecret {
		errs = append(errs, fmt.Errorf("NOWSERVING_SECRET_KEY needs at least %d bytes; try: openssl rand -hex 32", minSecret))
	}
	if c.MigrateURL != "" && c.DatabaseURL == "" {
		errs = append(errs, errors.New("NOWSERVING_MIGRATE_URL needs DATABASE_URL, whose role is given the rights of the service"))
	}
	if c.SecretKey == "" && c.DatabaseURL != "" && c.MigrateURL == "" { // migrations need no key
		errs = append(errs, errors.New("NOWSERVING_SECRET_KEY is required with DATABASE_URL, the same on every node; try: openssl rand -hex 32"))
	}
	if !slices.Contains([]string{"", "full", "normal"}, c.SQLiteSync) {
		errs = append(errs, fmt.Errorf("NOWSERVING_SQLITE_SYNC is %q; it is full or normal", c.SQLiteSync))
	}
	if c.SQLiteSync != "" && c.DatabaseURL != "" {
		errs = append(errs, errors.New("NOWSERVING_SQLITE_SYNC is for the embedded database; unset it, or unset DATABASE_URL"))
	}
	if c.BootstrapKey != "" && len(c.BootstrapKey) < 16 && c.Env == "production" {
		errs = append(errs, errors.New("NOWSERVING_BOOTSTRAP_KEY needs at least 16 bytes in production"))
	}
	for _, setting := range []struct {
		name, value string
		schemes     []string
	}{
		{"DATABASE_URL", c.DatabaseURL, []string{"postgres", "postgresql"}},
		{"NOWSERVING_MIGRATE_URL", c.MigrateURL, []string{"postgres", "postgresql"}},
		{"REDIS_URL", c.RedisURL, []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}},
	} {
		// The value may hold a password, so it is not shown.
		if u, err := url.Parse(setting.value); setting.value != "" && (err != nil || !slices.Contains(setting.schemes, u.Scheme)) {
			errs = append(errs, fmt.Errorf("%s is a URL that begins with %s://", setting.name, setting.schemes[0]))
		}
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		errs = append(errs, fmt.Errorf("NOWSERVING_ADDR is %q; it is like :8080 or 127.0.0.1:8080", c.Addr))
	}
	if _, _, err := net.SplitHostPort(c.DebugAddr); c.DebugAddr != "" && err != nil {
		errs = append(errs, fmt.Errorf("NOWSERVING_DEBUG_ADDR is %q; it is like 127.0.0.1:6060, where only operators come", c.DebugAddr))
	}
	if c.PositionTick < 0 || c.PositionTick > maxPositionTick {
		errs = append(errs, fmt.Errorf("NOWSERVING_POSITION_TICK is %v; it is 0s to %v", c.PositionTick, maxPositionTick))
	}
	if c.RateLimit < 1 {
		errs = append(errs, errors.New("NOWSERVING_RATE_LIMIT is a number of requests a minute, 1 or more"))
	}
	if c.OTPDailyLimit < 1 {
		errs = append(errs, errors.New("NOWSERVING_OTP_DAILY_LIMIT is a number of messages a day, 1 or more"))
	}
	for _, country := range c.OTPCountries {
		if n, err := strconv.Atoi(country); err != nil || n < 1 || n > 999 {
			errs = append(errs, fmt.Errorf("NOWSERVING_OTP_COUNTRIES holds %q; a calling code is like 966", country))
		}
	}
	for _, setting := range []struct{ name, value string }{
		{"NOWSERVING_PUBLIC_URL", c.PublicURL}, {"NOWSERVING_FCM_ENDPOINT", c.FCMEndpoint}, {"NOWSERVING_OTEL_ENDPOINT", c.OTELEndpoint},
		{"NOWSERVING_TURNSTILE_URL", c.TurnstileURL}, {"NOWSERVING_RECAPTCHA_URL", c.RecaptchaURL},
	} {
		if u, err := url.Parse(setting.value); setting.value != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, fmt.Errorf("%s is %q; it is an http or https URL", setting.name, setting.value))
		}
	}
	// A secret alone is for clients that bring a site key of their own.
	for _, pair := range []struct{ name, secret, siteKey string }{
		{"NOWSERVING_TURNSTILE", c.TurnstileSecret, c.TurnstileSiteKey}, {"NOWSERVING_RECAPTCHA", c.RecaptchaSecret, c.RecaptchaSiteKey},
	} {
		if pair.secret == "" && pair.siteKey != "" {
			errs = append(errs, fmt.Errorf("%s_SITE_KEY proves nothing without %s_SECRET", pair.name, pair.name))
		}
	}
	errs = append(errs, notify.CheckSenders(c.SMTPURL, c.SMSURL))
	for _, origin := range c.AllowedOrigins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			errs = append(errs, fmt.Errorf("NOWSERVING_ALLOWED_ORIGINS holds %q; an origin is like https://clinic.example", origin))
		}
	}
	for _, proxy := range c.TrustedProxies {
		_, notAddress := netip.ParseAddr(proxy)
		_, notNetwork := netip.ParsePrefix(proxy)
		if notAddress != nil && notNetwork != nil {
			errs = append(errs, fmt.Errorf("NOWSERVING_TRUSTED_PROXIES holds %q; it is an address or a network, like 10.0.0.0/8", proxy))
		}
	}
	return errors.Join(errs...)
}

// challenges are what our own pages run to prove that a person asks. Each
// provider's script is found from the address of its verifier, which check has
// looked at.
func (c *config) challenges() []web.Challenge {
	var list []web.Challenge
	for _, one := range []struct{ provider, siteKey, verifier, script string }{
		{web.Turnstile, c.TurnstileSiteKey, c.TurnstileURL, "api.js"}, {web.Recaptcha, c.RecaptchaSiteKey, c.RecaptchaURL, "../api.js"},
	} {
		if at, err := url.Parse(one.verifier); err == nil && one.siteKey != "" {
			script := at.ResolveReference(&url.URL{Path: one.script})
			script.User = nil // everybody sees it
			list = append(list, web.Challenge{Provider: one.provider, SiteKey: one.siteKey, Script: script})
		}
	}
	return list
}

// secret returns the secret that signs and seals: the one that is set or, for
// the embedded database, one that was made at the first start and kept in the
// data folder.
func (c *config) secret() ([]byte, error) {
	if c.SecretKey != "" {
		return []byte(c.SecretKey), nil
	}
	path := filepath.Join(c.Data, "secret.key")
	kept, err := os.ReadFile(path)
	if err == nil && len(kept) >= minSecret {
		return kept, nil
	}
	if err == nil {
		return nil, fmt.Errorf("%s is too short to be our key; restore it, or delete it and sign everybody out", path)
	}
	if !os.IsNotExist(err) {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	raw := make([]byte, minSecret)
	rand.Read(raw)
	made := []byte(hex.EncodeToString(raw))
	if err := os.WriteFile(path, made, 0o600); err != nil {
		return nil, fmt.Errorf("keep the secret key: %w", err)
	}
	return made, nil
}
