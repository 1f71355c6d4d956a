// Package web serves the pages people look at: the patient's page, the doctor's
// console, the waiting-room display and the API reference. Everything is plain
// HTML, CSS and ES modules, embedded as written, with no build step.
//
// The pages are clients like any other: they speak the public HTTP API and the
// live connection and nothing else. No domain rule, token or database access
// lives here, and no page is rendered from data.
package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

//go:embed pages static
var embedded embed.FS

// Challenge is a service that tells people from programs. The pages on which
// people sign in ask it for a proof before they ask for a one-time code.
type Challenge struct {
	Provider string // Turnstile or Recaptcha
	SiteKey  string
	Script   *url.URL
}

// The providers, by the names the pages know them by.
const (
	Turnstile = "turnstile" // Cloudflare Turnstile
	Recaptcha = "recaptcha" // Google reCAPTCHA v3
)

// policy is the Content-Security-Policy of a page but for its end, which says
// who may frame it. It allows this origin, what the challenges need, and nothing
// else: no inline script, no inline style. Live updates are a WebSocket to this origin.
func policy(challenges []Challenge) string {
	scripts, connections, frames := "'self'", "'self'", ""
	for _, c := range challenges {
		at := c.Script.Scheme + "://" + c.Script.Host
		switch c.Provider {
		case Turnstile: // developers.cloudflare.com/turnstile/reference/content-security-policy
			scripts += " " + at
			frames += " " + at
		case Recaptcha: // docs.cloud.google.com/recaptcha/docs/faq; its script reports to where it comes from
			at += path.Dir(c.Script.Path) + "/"
			scripts += " " + at + " https://www.gstatic.com/recaptcha/"
			connections += " " + at
			frames += " " + at
		}
	}
	if frames != "" {
		frames = "frame-src" + frames + "; "
	}
	return "default-src 'none'; script-src " + scripts + "; style-src 'self'; connect-src " + connections + "; " + frames +
		"img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors "
}

// named returns a page that names the challenges to its scripts.
func named(page File, challenges []Challenge) File {
	var metas strings.Builder
	for _, c := range challenges {
		fmt.Fprintf(&metas, "<meta name=\"%s\" content=\"%s\" data-script=\"%s\">\n", c.Provider, html.EscapeString(c.SiteKey), html.EscapeString(c.Script.String()))
	}
	return newFile(".html", bytes.Replace(page.body, []byte("</head>"), []byte(metas.String()+"</head>"), 1))
}

// contentTypes is spelled out because the system's table differs from one
// container image to the next, and nosniff makes a wrong one fatal.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".png":  "image/png",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// File is an immutable file, ready to send: plain, and compressed for clients that
// accept gzip.
type File struct {
	body, zipped []byte
	contentType  string
	etag         string
}

// leastSaving is how much of a file, in percent, compressing must save to be worth it.
const leastSaving = 10

// NewFile makes a File.
func NewFile(contentType string, body []byte) (File, error) {
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		return File{}, err
	}
	if _, err = z.Write(body); err != nil {
		return File{}, err
	}
	if err := z.Close(); err != nil {
		return File{}, err
	}
	sum := sha256.Sum256(body)
	f := File{body: body, contentType: contentType, etag: hex.EncodeToString(sum[:8])}
	if zipped.Len() < len(body)*(100-leastSaving)/100 {
		f.zipped = zipped.Bytes()
	}
	return f, nil
}

// Send answers a request with the file.
func (f File) Send(c *gin.Context) {
	body, etag := f.body, f.etag
	if f.zipped != nil {
		c.Writer.Header().Add("Vary", "Accept-Encoding")
		if takesGzip(c.Request) {
			body, etag = f.zipped, f.etag+"-gzip"
			c.Header("Content-Encoding", "gzip")
		}
	}
	c.Header("Content-Type", f.contentType)
	c.Header("ETag", `"`+etag+`"`)
	// ServeContent answers If-None-Match, HEAD and ranges.
	http.ServeContent(c.Writer, c.Request, "", time.Time{}, bytes.NewReader(body))
}

// takesGzip reports whether Accept-Encoding lists gzip with a weight above 0
// (RFC 9110, section 12.5.3).
func takesGzip(r *http.Request) bool {
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, weight, weighted := strings.Cut(strings.ReplaceAll(part, " ", ""), ";q=")
		if strings.EqualFold(coding, "gzip") {
			return !weighted || strings.Trim(weight, "0.") != ""
		}
	}
	return false
}

// Register mounts the pages and /static/ on r.
//
// Pages refer to their files under /static/~<hash>/, where the hash covers the
// whole static tree. Those addresses never change their content, so browsers may
// keep them for ever; pages themselves are revalidated on every visit.
//
// count runs before every page and may refuse it; files under /static/ are not
// counted, as they cost no look-up.
//
// framers lists the origins that may show the page of an organization's queue in
// a frame, as a widget; no other page is ever framed. The pages with a sign-in
// run the challenges; no other page may.
func Register(r gin.IRouter, count gin.HandlerFunc, framers func(ctx context.Context, organizationID string) []string, challenges []Challenge) {
	alone := policy(nil)
	all := files()
	static, pages, hash := all.static, all.pages, all.hash

	for route, name := range map[string]string{
		"/":                   "home.html",
		"/ticket/:bookingId":  "patient.html",
		"/display/:displayId": "display.html",
		"/docs":               "docs.html",
		"/setup":              "setup.html",
	} {
		page := pages[name]
		handle(r, route, count, func(c *gin.Context) {
			c.Header("Cache-Control", "no-cache")
			send(c, page, alone, nil)
		})
	}
	signingIn := policy(challenges)
	for route, name := range map[string]string{"/join/:organizationId": "patient.html", "/console": "console.html"} {
		page := named(pages[name], challenges)
		handle(r, route, count, func(c *gin.Context) {
			c.Header("Cache-Control", "no-cache")
			var origins []string
			if id := c.Param("organizationId"); id != "" {
				origins = framers(c.Request.Context(), id)
			}
			send(c, page, signingIn, origins)
		})
	}

	handle(r, "/static/*path", func(c *gin.Context) {
		name := strings.TrimPrefix(c.Param("path"), "/")
		c.Header("Cache-Control", "no-cache")
		if version, rest, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(version, "~") {
			name = rest
			// While nodes are being replaced, a new page may ask an old node.
			// Only the matching hash may be kept for ever.
			if version == "~"+hash {
				c.Header("Cache-Control", "public, max-age=31536000, immutable")
			}
		}
		f, ok := static[name]
		if !ok {
			c.Header("Cache-Control", "no-store")
			secure(c, alone, nil)
			c.String(http.StatusNotFound, "no such file\n")
			return
		}
		send(c, f, alone, nil)
	})
}

func handle(r gin.IRouter, route string, h ...gin.HandlerFunc) {
	r.GET(route, h...)
	r.HEAD(route, h...)
}

func send(c *gin.Context, f File, policy string, framers []string) {
	secure(c, policy, framers)
	f.Send(c)
}

// secure sets the headers every answer of this package carries: its policy, and
// that pages of the origins in framers may show it in a frame.
func secure(c *gin.Context, policy string, framers []string) {
	if len(framers) == 0 {
		c.Header("Content-Security-Policy", policy+"'none'")
		c.Header("X-Frame-Options", "DENY")
	} else {
		c.Header("Content-Security-Policy", policy+strings.Join(framers, " "))
		c.Writer.Header().Del("X-Frame-Options") // it can't name origins
	}
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "no-referrer")
	c.Header("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=(), screen-wake-lock=(self)")
	c.Header("Cross-Origin-Opener-Policy", "same-origin")
}

// files are all files, and what names exactly this set of static ones. Pages refer to
// them by it.
var files = sync.OnceValue(func() (all struct {
	static, pages map[string]File
	hash          string
},
) {
	all.static, all.pages = load("static"), load("pages")
	all.hash = treeHash(all.static)
	for name, page := range all.pages {
		all.pages[name] = newFile(name, bytes.ReplaceAll(page.body, []byte(`"/static/`), []byte(`"/static/~`+all.hash+`/`)))
	}
	return all
})

// load reads every file below dir. The files are part of the binary, so an error
// here is a mistake in the program and cannot be handled by anyone.
func load(dir string) map[string]File {
	files := map[string]File{}
	err := fs.WalkDir(embedded, dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		relative := strings.TrimPrefix(name, dir+"/")
		files[relative] = newFile(relative, body)
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("web: reading embedded %s: %v", dir, err))
	}
	return files
}

// newFile makes a file that is part of the binary; it fails as load does.
func newFile(name string, body []byte) File {
	contentType, ok := contentTypes[path.Ext(name)]
	if !ok {
		panic(fmt.Sprintf("web: no content type for embedded file %s", name))
	}
	f, err := NewFile(contentType, body)
	if err != nil {
		panic(fmt.Sprintf("web: compressing embedded file %s: %v", name, err))
	}
	return f
}

// treeHash names one exact set of files: names and contents both count.
func treeHash(files map[string]File) string {
	var all [sha256.Size]byte
	for name, f := range files {
		sum := sha256.Sum256([]byte(name + "\x00" + f.etag))
		// XOR makes the result independent of map order.
		for i := range all {
			all[i] ^= sum[i]
		}
	}
	return hex.EncodeToString(all[:6])
}
