package node

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestListConfigExplainsEverySetting(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, ListConfig(&out))
	names, err := knownNames()
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		assert.Contains(t, out.String(), name)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if field.Tag.Get("env") != "" {
			assert.NotEmpty(t, field.Tag.Get("about"), field.Name)
		}
	}
}

func TestASiteKeyNeedsItsSecret(t *testing.T) {
	t.Parallel()
	for _, one := range []string{"NOWSERVING_TURNSTILE", "NOWSERVING_RECAPTCHA"} {
		_, err := ReadConfig([]string{one + "_SITE_KEY=x"})
		require.ErrorContains(t, err, one+"_SECRET")
		c, err := ReadConfig([]string{one + "_SECRET=x"})
		require.NoError(t, err)
		require.Empty(t, c.challenges(), "clients bring their own")
		c, err = ReadConfig([]string{one + "_SECRET=x", one + "_SITE_KEY=y", one + "_URL=https://user:password@proxy.example/a/b/siteverify?c=d"})
		require.NoError(t, err)
		require.Len(t, c.challenges(), 1)
		script := c.challenges()[0].Script
		require.Equal(t, url.URL{Scheme: "https", Host: "proxy.example", Path: script.Path}, *script)
	}
	c, err := ReadConfig(nil)
	require.NoError(t, err)
	require.Empty(t, c.challenges())

	c.TurnstileSiteKey, c.RecaptchaSiteKey = "tkey", "rkey"
	var scripts []string
	for _, challenge := range c.challenges() {
		scripts = append(scripts, challenge.Provider+" "+challenge.SiteKey+" "+challenge.Script.String())
	}
	require.Equal(t, []string{
		"turnstile tkey https://challenges.cloudflare.com/turnstile/v0/api.js",
		"recaptcha rkey https://www.google.com/recaptcha/api.js",
	}, scripts)
}

func TestSettingsThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string][]string{
		"did you mean NOWSERVING_ADDR":      {"NOWSERVING_ADR=:1"},
		"NOWSERVING_ENV":                    {"NOWSERVING_ENV=prod"},
		"NOWSERVING_OTP_FIXED_CODE":         {"NOWSERVING_ENV=production", "NOWSERVING_OTP_FIXED_CODE=1"},
		"NOWSERVING_SECRET_KEY is required": {"DATABASE_URL=postgres://x/y", "REDIS_URL=redis://x"},
		"at least 32 bytes":                 {"NOWSERVING_SECRET_KEY=short"},
		"DATABASE_URL is a URL":             {"DATABASE_URL=mysql://x"},
		"REDIS_URL is a URL":                {"REDIS_URL=localhost:6379"},
		"NOWSERVING_ADDR is":                {"NOWSERVING_ADDR=notaport"},
		"both set":                          {"DATABASE_URL=a", "DATABASE_URL_FILE=b"},
		"NOWSERVING_PUBLIC_URL":             {"NOWSERVING_PUBLIC_URL=clinic"},
		"NOWSERVING_BLOB_URL":               {"NOWSERVING_BLOB_URL=clinic"},
		"folder":                            {"NOWSERVING_BLOB_URL=gs://clinic"},
		"in memory":                         {"NOWSERVING_BLOB_URL=mem://", "NOWSERVING_ENV=production"},
		"NOWSERVING_ALLOWED_ORIGINS":        {"NOWSERVING_ALLOWED_ORIGINS=https://a.example/path"},
		"NOWSERVING_RATE_LIMIT":             {"NOWSERVING_RATE_LIMIT=0"},
		"NOWSERVING_TRUSTED_PROXIES":        {"NOWSERVING_TRUSTED_PROXIES=10.0.0.0/8,proxy.example"},
		"RateLimit":                         {"NOWSERVING_RATE_LIMIT=many"},
		"NOWSERVING_POSITION_TICK":          {"NOWSERVING_POSITION_TICK=2s"},
		"PositionTick":                      {"NOWSERVING_POSITION_TICK=1"},
		"NOWSERVING_DEBUG_ADDR":             {"NOWSERVING_DEBUG_ADDR=6060"},
		"it is full or normal":              {"NOWSERVING_SQLITE_SYNC=off"},
		"unset DATABASE_URL":                {"NOWSERVING_SQLITE_SYNC=full", "DATABASE_URL=postgres://x"},
	} {
		_, err := ReadConfig(environ)
		require.ErrorContains(t, err, name)
	}
	for _, setting := range []string{
		"NOWSERVING_SMTP_URL=http://u:hush-hush@mail.example?from=a@b.example", "NOWSERVING_SMTP_URL=smtp://u:hush-hush@mail.example",
		"NOWSERVING_SMTP_URL=smtp://u:hush-hush@mail.example?from=nobody", "NOWSERVING_SMTP_URL=smtp://u:hush-hush@mail.example?from=a@b.example&tls=no",
		"NOWSERVING_SMTP_URL=smtp://u@mail.example?from=a@b.example", "NOWSERVING_SMTP_URL=smtp://u:hush-hush@mail.example:x?from=a@b.example",
		"NOWSERVING_SMTP_URL=smtp://u:hush-hush@mail.example/inbox?from=a@b.example",
		"NOWSERVING_SMS_URL=http://AC1:hush-hush@sms.example/2010?from=%2B1500", "NOWSERVING_SMS_URL=https://sms.example/2010?from=%2B1500",
		"NOWSERVING_SMS_URL=https://AC1@sms.example/2010?from=%2B1500", "NOWSERVING_SMS_URL=https://AC1:hush-hush@sms.example/2010",
		"NOWSERVING_SMS_URL=https://AC1:hush-hush@sms.example/2010?from=+1500", "NOWSERVING_SMS_URL=https://AC1:hush-hush@sms.example/2010?form=%2B1500",
		"NOWSERVING_SMS_URL=https://AC1:hush-hush@sms.example:x/2010?from=%2B1500",
		"NOWSERVING_SMS_URL=https://AC1:hush-hush@sms.example/2010?from=%2B1500&messagingServiceSid=MG1",
		"NOWSERVING_SMS_URL=unifonic+https://hush-hush@sms.example/rest", "NOWSERVING_SMS_URL=unifonic+https://sms.example/rest?sender=Clinic",
		"NOWSERVING_SMS_URL=unifonic+http://hush-hush@sms.example/rest?sender=Clinic", "NOWSERVING_SMS_URL=unifonic+https://hush-hush@sms.example/rest?sender=A&from=B",
		"NOWSERVING_SMS_URL=https://AC1:hush-hush@sms.example/2010?from=%2B1500 unifonic+https://hush-hush@sms.example/rest?sender=Clinic",
	} {
		_, err := ReadConfig([]string{setting})
		name, _, _ := strings.Cut(setting, "=")
		require.ErrorContains(t, err, name+": ", setting)
		require.NotContains(t, err.Error(), "hush-hush", setting)
	}
	_, err := ReadConfig([]string{
		"NOWSERVING_SMTP_URL=smtps://u:p@mail.example?from=Clinic+<a@b.example>", "NOWSERVING_SMS_URL=https://AC1:t@sms.example/2010?whatsappFrom=%2B1500",
	})
	require.NoError(t, err)
	_, err = ReadConfig([]string{"HOME=/root", "NOWSERVING_ADDR=:1"})
	require.NoError(t, err)
}

// A misspelt setting is refused with the one that was meant.
func ExampleReadConfig() {
	_, err := ReadConfig([]string{"NOWSERVING_ADRR=:9000", "NOWSERVING_RATE_LIMIT=0"})
	fmt.Println(err)
	// Output:
	// NOWSERVING_ADRR is not a setting; did you mean NOWSERVING_ADDR?
	// NOWSERVING_RATE_LIMIT is a number of requests a minute, 1 or more
}
