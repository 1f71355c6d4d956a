package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/caarlos0/env/v11"

	"nowserving/booking/access"
	"nowserving/booking/files"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/handlers/web"
	"nowserving/notify"
	"nowserving/notify/message"
	"nowserving/realtime"
	"nowserving/realtime/presence"
)

// Config holds all settings. Those with the tag env come from the environment;
// `config list` prints the tag about of each.
type Config struct {
	DatabaseURL string `env:"DATABASE_URL" about:"PostgreSQL, not through a pooler that shares sessions. Default: embedded SQLite"`
	MigrateURL  string `env:"NOWSERVING_MIGRATE_URL" about:"the owner of the PostgreSQL schema, for migrate alone; serve and keys refuse it"`
	RedisURL    string `env:"REDIS_URL" about:"redis://, rediss://, redis+sentinel://…?master_name= or redis+cluster://…?addr=. Default: in this process"`
	Data        string `env:"NOWSERVING_DATA" envDefault:"./data" about:"folder of the embedded database and the secret key"`
	BlobURL     string `env:"NOWSERVING_BLOB_URL" about:"where uploaded files are kept: file:///folder, or s3://bucket?region=eu-west-1 with the credentials of the AWS environment; other servers that speak S3 add &endpoint=https://…&use_path_style=true. Several nodes must share it. Default: files in the data folder"`
	SQLiteSync  string `env:"NOWSERVING_SQLITE_SYNC" about:"of the embedded database: full waits for the disk with every change; normal does not, and a power cut can lose the last seconds. Default: full"`

	Env       string `env:"NOWSERVING_ENV" envDefault:"development" about:"development or production"`
	Addr      string `env:"NOWSERVING_ADDR" envDefault:":8080" about:"address to listen on"`
	PublicURL string `env:"NOWSERVING_PUBLIC_URL" about:"URL under which people reach the service. Default: the address to listen on"`
	DebugAddr string `env:"NOWSERVING_DEBUG_ADDR" about:"address of /metrics and /debug/pprof/ for operators, such as 127.0.0.1:6060. Default: off"`

	SecretKey    string `env:"NOWSERVING_SECRET_KEY" about:"signs tokens and hashes keys; 32 bytes or more, the same on every node. Default: made and kept in the data folder when embedded"`
	BootstrapKey string `env:"NOWSERVING_BOOTSTRAP_KEY" about:"an account API key that exists from the first start"`

	AllowedOrigins []string `env:"NOWSERVING_ALLOWED_ORIGINS" about:"origins of other sites whose pages may call for every organization; each organization has allowedOrigins of its own"`
	TrustedProxies []string `env:"NOWSERVING_TRUSTED_PROXIES" about:"addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted. Without it, all clients behind a proxy share one address's requests"`
	RateLimit      int      `env:"NOWSERVING_RATE_LIMIT" envDefault:"100" about:"requests a minute for each credential, and for each address without one. In IPv6 the first 64 bits are an address, and 48 bits have five times as many. An address in an organization's clinicAddresses has ten times as many, all of them together fifty times"`

	OTPDailyLimit int      `env:"NOWSERVING_OTP_DAILY_LIMIT" envDefault:"1000" about:"messages with codes that an organization sends its customers in a day of UTC; account keys set otpDailyLimit for one"`
	OTPCountries  []string `env:"NOWSERVING_OTP_COUNTRIES" about:"calling codes of the customers' countries, such as 966,971; other countries get a tenth of the daily limit. Default: those of the members' phones"`
	OTPFixedCode  string   `env:"NOWSERVING_OTP_FIXED_CODE" about:"every one-time code; development only"`

	SMTPURL string `env:"NOWSERVING_SMTP_URL" about:"e-mail: smtp://user:password@host:587?from=queue@clinic.example, or smtps://. Default: the console in development"`
	SMSURL  string `env:"NOWSERVING_SMS_URL" about:"SMS and WhatsApp by Twilio: https://account:token@api.twilio.com/2010-04-01?from=%2B15005550006&whatsappFrom=…, or messagingServiceSid=MG… instead of from; SMS by Unifonic: unifonic+https://appsid@el.cloud.unifonic.com/rest/SMS/messages?sender=Clinic; both, separated by a space. Default: the console in development"`

	FCMCredentials      string `env:"NOWSERVING_FCM_CREDENTIALS" about:"a Firebase service account, as JSON. Default: no pushes"`
	FCMEndpoint         string `env:"NOWSERVING_FCM_ENDPOINT" about:"another server that speaks the protocol of FCM, for tests"`
	FCMHoldLive         bool   `env:"NOWSERVING_FCM_HOLD_LIVE" about:"send no position to a phone whose live connection has shown it"`
	WebhookAllowPrivate bool   `env:"NOWSERVING_WEBHOOK_ALLOW_PRIVATE" about:"let webhooks go to addresses inside the network, for tests"`

	PositionTick time.Duration `env:"NOWSERVING_POSITION_TICK" envDefault:"0s" about:"positions beyond the 20th are sent at most this often, 0s to 1s"`

	TurnstileSecret  string `env:"NOWSERVING_TURNSTILE_SECRET" about:"require a proof of Cloudflare Turnstile before a one-time code is sent"`
	TurnstileSiteKey string `env:"NOWSERVING_TURNSTILE_SITE_KEY" about:"the site key that our own pages use"`
	TurnstileURL     string `env:"NOWSERVING_TURNSTILE_URL" envDefault:"https://challenges.cloudflare.com/turnstile/v0/siteverify" about:"another verifier, with its script beside it"`
	RecaptchaSecret  string `env:"NOWSERVING_RECAPTCHA_SECRET" about:"require a proof of reCAPTCHA v3 before a one-time code is sent"`
	RecaptchaSiteKey string `env:"NOWSERVING_RECAPTCHA_SITE_KEY" about:"the site key that our own pages use"`
	RecaptchaURL     string `env:"NOWSERVING_RECAPTCHA_URL" envDefault:"https://www.google.com/recaptcha/api/siteverify" about:"another verifier, with its script beside it"`

	// EndlessCodes lifts the limit of one-time codes for an address. For the demo, whose
	// visitors share phone numbers.
	EndlessCodes bool
	// Log gets the log lines. Default slog.Default().
	Log *slog.Logger
	// Console gets the messages for which no sender is configured. Default: the
	// standard output in development, none in production.
	Console io.Writer
	// Adjust changes parts before they are used. For tests.
	Adjust Adjust
}

// Adjust changes the options of parts after the configuration made them. Nil
// functions change nothing.
type Adjust struct {
	Store    func(*store.Store) // before anything uses it
	API      func(*api.Options)
	Access   func(*access.Options)
	Notify   func(*notify.Options)
	Live     func(*realtime.Options)
	Presence func(*presence.Connections)
}

// adjust calls change, if any.
func adjust[T any](change func(*T), part *T) {
	if change != nil {
		change(part)
	}
}

// ListConfig prints every setting with its default and its meaning.
func ListConfig(out io.Writer) error {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		name := field.Tag.Get("env")
		if name == "" {
			continue
		}
		if slices.Contains(secrets, name) {
			name += " (or " + name + "_FILE)"
		}
		if value := field.Tag.Get("envDefault"); value != "" {
			name += " = " + value
		}
		if _, err := fmt.Fprintf(out, "%s\n    %s\n", name, field.Tag.Get("about")); err != nil {
			return err
		}
	}
	return nil
}

// secrets are the names that _FILE works for.
var secrets = []string{
	"DATABASE_URL", "REDIS_URL", "NOWSERVING_MIGRATE_URL", "NOWSERVING_SECRET_KEY", "NOWSERVING_BOOTSTRAP_KEY",
	"NOWSERVING_FCM_CREDENTIALS", "NOWSERVING_SMTP_URL", "NOWSERVING_SMS_URL",
	"NOWSERVING_TURNSTILE_SECRET", "NOWSERVING_RECAPTCHA_SECRET",
}

// prefix begins the names of settings. An unknown name with it is an error.
const prefix = "NOWSERVING_"

// maxPositionTick is the longest a client may be left with an old place.
const maxPositionTick = time.Second

// minSecret is the least length of a secret, in bytes.
const minSecret = 32

// ReadConfig reads the settings from the environment, as os.Environ lists it. The
// error names every wrong setting.
func ReadConfig(environ []string) (Config, error) {
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
			return Config{}, fmt.Errorf("%s and %s_FILE are both set; keep one", name, name)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return Config{}, fmt.Errorf("%s_FILE: %w", name, err)
		}
		values[name] = strings.TrimSpace(string(content))
		delete(values, name+"_FILE")
	}
	var c Config
	if err := env.ParseWithOptions(&c, env.Options{Environment: values}); err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return c, errors.Join(unknown(values), c.check())
}

// unknown refuses unknown names with the prefix, and names the nearest setting.
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
	params, err := env.GetFieldParams(&Config{})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(params))
	for _, p := range params {
		names = append(names, p.Key)
	}
	return names, nil
}

func (c *Config) check() error {
	return errors.Join(
		c.checkMode(), c.checkSecrets(), c.checkDatabases(), c.checkAddresses(), c.checkFiles(), c.checkLimits(), c.checkCodes(), c.checkCaptchas(),
		message.CheckSenders(c.SMTPURL, c.SMSURL),
	)
}

func (c *Config) checkMode() error {
	if c.Env != "development" && c.Env != "production" {
		return fmt.Errorf("NOWSERVING_ENV is %q; it is development or production", c.Env)
	}
	return nil
}

func (c *Config) checkSecrets() error {
	var errs []error
	if c.SecretKey != "" && len(c.SecretKey) < minSecret {
		errs = append(errs, fmt.Errorf("NOWSERVING_SECRET_KEY needs at least %d bytes; try: openssl rand -hex 32", minSecret))
	}
	if c.SecretKey == "" && c.DatabaseURL != "" && c.MigrateURL == "" { // migrations need no key
		errs = append(errs, errors.New("NOWSERVING_SECRET_KEY is required with DATABASE_URL, the same on every node; try: openssl rand -hex 32"))
	}
	if c.BootstrapKey != "" && len(c.BootstrapKey) < 16 && c.Env == "production" {
		errs = append(errs, errors.New("NOWSERVING_BOOTSTRAP_KEY needs at least 16 bytes in production"))
	}
	return errors.Join(errs...)
}

// checkDatabases checks the settings of PostgreSQL, SQLite and Redis.
func (c *Config) checkDatabases() error {
	var errs []error
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
	if c.MigrateURL != "" && c.DatabaseURL == "" {
		errs = append(errs, errors.New("NOWSERVING_MIGRATE_URL needs DATABASE_URL, whose role is given the rights of the service"))
	}
	if !slices.Contains([]string{"", "full", "normal"}, c.SQLiteSync) {
		errs = append(errs, fmt.Errorf("NOWSERVING_SQLITE_SYNC is %q; it is full or normal", c.SQLiteSync))
	}
	if c.SQLiteSync != "" && c.DatabaseURL != "" {
		errs = append(errs, errors.New("NOWSERVING_SQLITE_SYNC is for the embedded database; unset it, or unset DATABASE_URL"))
	}
	return errors.Join(errs...)
}

// checkAddresses checks the addresses to listen on, of other services, of other sites
// and of proxies.
func (c *Config) checkAddresses() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		errs = append(errs, fmt.Errorf("NOWSERVING_ADDR is %q; it is like :8080 or 127.0.0.1:8080", c.Addr))
	}
	if _, _, err := net.SplitHostPort(c.DebugAddr); c.DebugAddr != "" && err != nil {
		errs = append(errs, fmt.Errorf("NOWSERVING_DEBUG_ADDR is %q; it is like 127.0.0.1:6060, which only operators can reach", c.DebugAddr))
	}
	for _, setting := range []struct{ name, value string }{
		{"NOWSERVING_PUBLIC_URL", c.PublicURL}, {"NOWSERVING_FCM_ENDPOINT", c.FCMEndpoint},
		{"NOWSERVING_TURNSTILE_URL", c.TurnstileURL}, {"NOWSERVING_RECAPTCHA_URL", c.RecaptchaURL},
	} {
		if u, err := url.Parse(setting.value); setting.value != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, fmt.Errorf("%s is %q; it is an http or https URL", setting.name, setting.value))
		}
	}
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

// checkFiles checks the URL of the bucket of files. A bucket in memory loses them with the
// process.
func (c *Config) checkFiles() error {
	if c.BlobURL == "" {
		return nil
	}
	if err := files.CheckURL(c.BlobURL); err != nil {
		return fmt.Errorf("NOWSERVING_BLOB_URL: %w", err)
	}
	if strings.HasPrefix(c.BlobURL, "mem:") && c.Env == "production" {
		return errors.New("NOWSERVING_BLOB_URL keeps files in memory; it needs NOWSERVING_ENV=development")
	}
	return nil
}

func (c *Config) checkLimits() error {
	var errs []error
	if c.PositionTick < 0 || c.PositionTick > maxPositionTick {
		errs = append(errs, fmt.Errorf("NOWSERVING_POSITION_TICK is %v; it is 0s to %v", c.PositionTick, maxPositionTick))
	}
	if c.RateLimit < 1 {
		errs = append(errs, errors.New("NOWSERVING_RATE_LIMIT is a number of requests a minute, 1 or more"))
	}
	if c.OTPDailyLimit < 1 {
		errs = append(errs, errors.New("NOWSERVING_OTP_DAILY_LIMIT is a number of messages a day, 1 or more"))
	}
	return errors.Join(errs...)
}

// checkCodes checks the settings of one-time codes.
func (c *Config) checkCodes() error {
	var errs []error
	if c.OTPFixedCode != "" && c.Env != "development" {
		errs = append(errs, errors.New("NOWSERVING_OTP_FIXED_CODE lets anyone sign in; it needs NOWSERVING_ENV=development"))
	}
	for _, country := range c.OTPCountries {
		if n, err := strconv.Atoi(country); err != nil || n < 1 || n > 999 {
			errs = append(errs, fmt.Errorf("NOWSERVING_OTP_COUNTRIES holds %q; a calling code is like 966", country))
		}
	}
	return errors.Join(errs...)
}

// checkCaptchas refuses a site key without a secret. A secret without a site key is
// for clients with a site key of their own.
func (c *Config) checkCaptchas() error {
	var errs []error
	for _, pair := range []struct{ name, secret, siteKey string }{
		{"NOWSERVING_TURNSTILE", c.TurnstileSecret, c.TurnstileSiteKey}, {"NOWSERVING_RECAPTCHA", c.RecaptchaSecret, c.RecaptchaSiteKey},
	} {
		if pair.secret == "" && pair.siteKey != "" {
			errs = append(errs, fmt.Errorf("%s_SITE_KEY proves nothing without %s_SECRET", pair.name, pair.name))
		}
	}
	return errors.Join(errs...)
}

// challenges returns the captchas of our own pages. The URL of a provider's script
// follows from that of its verifier.
func (c *Config) challenges() []web.Challenge {
	var list []web.Challenge
	for _, one := range []struct{ provider, siteKey, verifier, script string }{
		{web.Turnstile, c.TurnstileSiteKey, c.TurnstileURL, "api.js"}, {web.Recaptcha, c.RecaptchaSiteKey, c.RecaptchaURL, "../api.js"},
	} {
		if at, err := url.Parse(one.verifier); err == nil && one.siteKey != "" {
			script := at.ResolveReference(&url.URL{Path: one.script})
			script.User = nil // pages show it
			list = append(list, web.Challenge{Provider: one.provider, SiteKey: one.siteKey, Script: script})
		}
	}
	return list
}

// Secret returns the secret that signs and seals: the one that is set or, for
// the embedded database, one that was made at the first start and kept in the
// data folder.
func (c *Config) Secret() ([]byte, error) {
	if c.SecretKey != "" {
		return []byte(c.SecretKey), nil
	}
	path := filepath.Join(c.Data, "secret.key")
	kept, err := os.ReadFile(path)
	if err == nil && len(kept) >= minSecret {
		return kept, nil
	}
	if err == nil {
		return nil, fmt.Errorf("%s is too short to be our key; restore it, or delete it, which signs every user out", path)
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

// OpenStore opens the database.
func (c *Config) OpenStore(ctx context.Context) (*store.Store, error) {
	log := c.Log
	if log == nil {
		log = slog.Default()
	}
	return store.Open(ctx, store.Options{URL: c.DatabaseURL, DataDir: c.Data, SQLiteNormalSync: c.SQLiteSync == "normal", Now: time.Now, Log: log})
}

// Prepare migrates an embedded schema and checks any other. A command of the service
// must not have the password of the schema's owner.
func (c *Config) Prepare(ctx context.Context, s *store.Store) error {
	if c.MigrateURL != "" {
		return errors.New("NOWSERVING_MIGRATE_URL is for `nowserving migrate` alone: unset it here")
	}
	owner, err := s.Prepare(ctx)
	if owner && c.Env == "production" {
		slog.Default().Warn("the role of DATABASE_URL owns the schema and can alter the audit; use another role for the service, see NOWSERVING_MIGRATE_URL")
	}
	return err
}

func (c *Config) development() bool { return c.Env == "development" }
