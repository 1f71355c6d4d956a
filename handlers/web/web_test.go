package web_test

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/handlers/web"
)

func serve(t *testing.T, challenges ...web.Challenge) *httptest.Server {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	web.Register(r, func(*gin.Context) {}, func(_ context.Context, organizationID string) []string {
		if organizationID == "framed" {
			return []string{"https://clinic.example", "http://localhost:3000"}
		}
		return nil
	}, challenges)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return server
}

// answer is a response that has been read.
type answer struct {
	StatusCode int
	Header     http.Header
}

func fetch(t *testing.T, method, url string, header ...string) (answer, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return answer{response.StatusCode, response.Header}, string(body)
}

var pages = []string{"/", "/join/some-clinic", "/ticket/some-booking", "/console", "/display/some-screen", "/docs"}

func TestPagesAreServedLockedDown(t *testing.T) {
	t.Parallel()
	server := serve(t)
	for _, page := range pages {
		response, body := fetch(t, http.MethodGet, server.URL+page)
		assert.Equal(t, http.StatusOK, response.StatusCode, page)
		assert.Equal(t, "text/html; charset=utf-8", response.Header.Get("Content-Type"), page)
		assert.Equal(t, "no-cache", response.Header.Get("Cache-Control"), page)
		assert.Equal(t, "nosniff", response.Header.Get("X-Content-Type-Options"), page)
		assert.Equal(t, "no-referrer", response.Header.Get("Referrer-Policy"), page)
		assert.NotEmpty(t, response.Header.Get("Permissions-Policy"), page)
		policy := response.Header.Get("Content-Security-Policy")
		assert.True(t, strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "), policy)
		for _, hole := range []string{"unsafe", "http:", "https:", "*"} {
			assert.NotContains(t, policy, hole, page)
		}

		head, empty := fetch(t, http.MethodHead, server.URL+page)
		assert.Equal(t, http.StatusOK, head.StatusCode, page)
		assert.Empty(t, empty)

		again, _ := fetch(t, http.MethodGet, server.URL+page, "If-None-Match", response.Header.Get("ETag"))
		assert.Equal(t, http.StatusNotModified, again.StatusCode, page)
		assert.Contains(t, body, `data-testid="connection"`, "every page shows whether it is alive: %s", page)
		assert.Contains(t, body, `data-testid="updated"`, page)
	}
}

func TestOnlyTheWidgetIsFramed(t *testing.T) {
	t.Parallel()
	server := serve(t)
	for _, page := range append(slices.Clone(pages), "/static/base.css", "/static/none") {
		response, _ := fetch(t, http.MethodGet, server.URL+page)
		assert.Equal(t, "DENY", response.Header.Get("X-Frame-Options"), page)
		assert.Contains(t, response.Header.Get("Content-Security-Policy"), "; frame-ancestors 'none'", page)
	}
	widget, _ := fetch(t, http.MethodGet, server.URL+"/join/framed")
	assert.Empty(t, widget.Header.Get("X-Frame-Options"))
	policy := widget.Header.Get("Content-Security-Policy")
	assert.True(t, strings.HasSuffix(policy, "; frame-ancestors https://clinic.example http://localhost:3000"), policy)
	assert.NotContains(t, policy, "none'; frame", "nothing else is loosened")
}

// A page may run the challenges only if people sign in there.
func TestOnlySignInRunsChallenges(t *testing.T) {
	t.Parallel()
	at := func(text string) *url.URL {
		u, err := url.Parse(text)
		require.NoError(t, err)
		return u
	}
	turnstile := web.Challenge{Provider: web.Turnstile, SiteKey: `0x4"><script>`, Script: at("https://challenges.cloudflare.com/turnstile/v0/api.js")}
	recaptcha := web.Challenge{Provider: web.Recaptcha, SiteKey: "6Le-x_y", Script: at("https://www.google.com/recaptcha/api.js")}
	const start, end = "default-src 'none'; script-src 'self'", "img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	const cloudflare, google = " https://challenges.cloudflare.com", " https://www.google.com/recaptcha/"
	alone := start + "; style-src 'self'; connect-src 'self'; " + end
	for _, try := range []struct {
		challenges []web.Challenge
		policy     string
	}{
		{nil, alone},
		{[]web.Challenge{turnstile}, start + cloudflare + "; style-src 'self'; connect-src 'self'; frame-src" + cloudflare + "; " + end},
		{[]web.Challenge{recaptcha}, start + google + " https://www.gstatic.com/recaptcha/; style-src 'self'; connect-src 'self'" + google + "; frame-src" + google + "; " + end},
		{[]web.Challenge{turnstile, recaptcha}, start + cloudflare + google + " https://www.gstatic.com/recaptcha/; style-src 'self'; connect-src 'self'" + google + "; frame-src" + cloudflare + google + "; " + end},
	} {
		server := serve(t, try.challenges...)
		for _, page := range pages {
			response, body := fetch(t, http.MethodGet, server.URL+page)
			signsIn := page == "/console" || strings.HasPrefix(page, "/join/")
			policy := alone
			if signsIn {
				policy = try.policy
			}
			assert.Equal(t, policy, response.Header.Get("Content-Security-Policy"), page)
			for _, c := range try.challenges {
				meta := `<meta name="` + c.Provider + `" content="` + html.EscapeString(c.SiteKey) + `" data-script="` + c.Script.String() + `">`
				assert.Equal(t, signsIn, strings.Contains(body, meta), "%s: %s", page, meta)
				assert.Equal(t, signsIn, strings.Contains(body, c.Provider), page)
			}
		}
		for _, file := range []string{"/static/base.css", "/static/none"} {
			response, _ := fetch(t, http.MethodGet, server.URL+file)
			assert.Equal(t, alone, response.Header.Get("Content-Security-Policy"), file)
		}
	}
}

// The policy would block inline code without a word, so none may be written.
func TestPagesCarryNoInlineCode(t *testing.T) {
	t.Parallel()
	server := serve(t)
	inline := regexp.MustCompile(`(?i)\sstyle\s*=|\son[a-z]+\s*=|<style|javascript:|<script(?:\s[^>]*)?>[^<]`)
	outside := regexp.MustCompile(`(?i)(?:src|href)="(?:https?:)?//`)
	for _, page := range pages {
		_, body := fetch(t, http.MethodGet, server.URL+page)
		assert.NotRegexp(t, inline, body, page)
		assert.NotRegexp(t, outside, body, "nothing is loaded from elsewhere: %s", page)
	}
}

func TestEverythingAPageAsksForIsThere(t *testing.T) {
	t.Parallel()
	server := serve(t)
	reference := regexp.MustCompile(`"(/static/[^"]+)"`)
	imported := regexp.MustCompile(`(?:from|import) '\./([^']+)'`)
	seen := map[string]bool{}
	var follow func(address string)
	follow = func(address string) {
		if seen[address] {
			return
		}
		seen[address] = true
		response, body := fetch(t, http.MethodGet, server.URL+address)
		require.Equal(t, http.StatusOK, response.StatusCode, address)
		assert.Equal(t, "public, max-age=31536000, immutable", response.Header.Get("Cache-Control"), address)
		for _, match := range imported.FindAllStringSubmatch(body, -1) {
			follow(path.Dir(address) + "/" + match[1])
		}
	}
	for _, page := range pages {
		_, body := fetch(t, http.MethodGet, server.URL+page)
		for _, match := range reference.FindAllStringSubmatch(body, -1) {
			follow(match[1])
		}
	}
	assert.Greater(t, len(seen), 10)
}

func TestStaticFiles(t *testing.T) {
	t.Parallel()
	server := serve(t)
	types := map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".png": "image/png",
		".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
	}
	err := fs.WalkDir(os.DirFS("static"), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		response, _ := fetch(t, http.MethodGet, server.URL+"/static/"+name)
		assert.Equal(t, http.StatusOK, response.StatusCode, name)
		assert.Equal(t, types[path.Ext(name)], response.Header.Get("Content-Type"), name)
		assert.Equal(t, "no-cache", response.Header.Get("Cache-Control"), "without the hash it may change: %s", name)
		assert.Equal(t, "nosniff", response.Header.Get("X-Content-Type-Options"), name)
		return nil
	})
	require.NoError(t, err)

	// A page of another version may ask this node: it gets an answer, but must not keep it.
	other, _ := fetch(t, http.MethodGet, server.URL+"/static/~000000000000/base.css")
	assert.Equal(t, http.StatusOK, other.StatusCode)
	assert.Equal(t, "no-cache", other.Header.Get("Cache-Control"))

	for _, name := range []string{"nothing.js", "", "../web.go", "vendor", "~/../pages/home.html"} {
		missing, _ := fetch(t, http.MethodGet, server.URL+"/static/"+name)
		assert.Equal(t, http.StatusNotFound, missing.StatusCode, name)
		assert.Equal(t, "nosniff", missing.Header.Get("X-Content-Type-Options"), name)
	}

	sdk, _ := fetch(t, http.MethodGet, server.URL+"/static/vendor/centrifuge.LICENSE.txt")
	assert.Equal(t, http.StatusOK, sdk.StatusCode, "the licence travels with the library")
}

// texts reads the one module that holds every text.
func texts(t *testing.T) map[string]map[string]any {
	t.Helper()
	source, err := os.ReadFile("static/messages.js")
	require.NoError(t, err)
	_, object, found := strings.Cut(string(source), "export const messages = ")
	require.True(t, found)
	var all map[string]map[string]any
	require.NoError(t, json.Unmarshal([]byte(strings.TrimSuffix(strings.TrimSpace(object), ";")), &all))
	return all
}

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

// placeholders are those of the fullest form: "one minute" may leave out its number.
func placeholders(text any) []string {
	names := map[string]bool{}
	add := func(s string) {
		for _, match := range placeholder.FindAllStringSubmatch(s, -1) {
			names[match[1]] = true
		}
	}
	switch text := text.(type) {
	case string:
		add(text)
	case map[string]any:
		for _, form := range text {
			if form, ok := form.(string); ok {
				add(form)
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func TestEveryTextExistsInBothLanguages(t *testing.T) {
	t.Parallel()
	for key, text := range texts(t) {
		require.Len(t, text, 2, key)
		for _, language := range []string{"en", "ar"} {
			require.Contains(t, text, language, key)
			switch form := text[language].(type) {
			case string:
				assert.NotEmpty(t, form, "%s in %s", key, language)
			case map[string]any:
				if key != "place.words" { // whole words for some numbers only
					assert.Contains(t, form, "other", "%s in %s: the form for every number", key, language)
				}
			default:
				t.Errorf("%s in %s is neither a text nor plural forms", key, language)
			}
		}
		if key != "place.words" && !strings.HasPrefix(key, "console.waiting") {
			assert.Equal(t, placeholders(text["en"]), placeholders(text["ar"]), "%s fills in the same values", key)
		}
	}
}

func TestEveryTextThatIsUsedExists(t *testing.T) {
	t.Parallel()
	all := texts(t)
	inModule := regexp.MustCompile(`\bt\((?:[^'"()]*\? )?'([\w.]+)'(?: : '([\w.]+)')?`)
	inPage := regexp.MustCompile(`data-(?:i18n|both)="([^"]+)"`)
	inAttribute := regexp.MustCompile(`data-i18n-attr="([^"]+)"`)
	used := 0
	check := func(key, where string) {
		if key == "" {
			return
		}
		used++
		assert.Contains(t, all, key, where)
	}
	for _, dir := range []string{"static", "pages"} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, entry := range entries {
			if extension := path.Ext(entry.Name()); entry.IsDir() || extension != ".js" && extension != ".html" {
				continue
			}
			source, err := os.ReadFile(path.Join(dir, entry.Name()))
			require.NoError(t, err)
			for _, match := range inModule.FindAllStringSubmatch(string(source), -1) {
				check(match[1], entry.Name())
				check(match[2], entry.Name())
			}
			for _, match := range inPage.FindAllStringSubmatch(string(source), -1) {
				check(match[1], entry.Name())
			}
			for _, match := range inAttribute.FindAllStringSubmatch(string(source), -1) {
				for pair := range strings.SplitSeq(match[1], ";") {
					_, key, found := strings.Cut(pair, ":")
					assert.True(t, found, entry.Name())
					check(key, entry.Name())
				}
			}
		}
	}
	assert.Greater(t, used, 150)

	// Texts chosen by what the server says: each value has one.
	for prefix, values := range map[string]string{
		"state": "waiting held called serving done missed cancelled expired payment approval",
		"about": "held serving done missed cancelled expired payment approval",
		"stage": "CALLED SERVING", "next": "waiting held called serving", "keys": "N S E R X W P", "priority": "routine soon urgent",
	} {
		for value := range strings.FieldsSeq(values) {
			assert.Contains(t, all, prefix+"."+value)
		}
	}
}
