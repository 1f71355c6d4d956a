package handlers

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"nowserving/booking/files"
)

const (
	// uploadBody bounds the body of an operation that takes files, in bytes.
	uploadBody = 25 << 20
	// filePolicy is the Content-Security-Policy of files: a browser that shows one runs
	// nothing in it.
	filePolicy = "sandbox; default-src 'none'"
	// downloadTimeout bounds how long a client may take to read a file.
	downloadTimeout = 2 * time.Minute
	// purgeTimeout bounds how long a request waits for the removal of contents.
	purgeTimeout = 5 * time.Second
)

// fileRoutes serves files to those who know their ids, as a page does with a picture.
// They are no operations of the API.
func (s *Server) fileRoutes() {
	const path = files.Path + ":fileId/:name"
	s.api.Router.GET(path, s.api.CountPage, s.serveFile)
	s.api.Router.HEAD(path, s.api.CountPage, s.serveFile)
}

// serveFile answers with the content of a file, or a range of it. The name in the address
// is for people; the id finds the file.
func (s *Server) serveFile(c *gin.Context) {
	f, content, err := s.opts.Files.Open(c.Request.Context(), c.Param("fileId"))
	if err != nil {
		s.api.WriteError(c, err)
		return
	}
	defer func() {
		if err := content.Close(); err != nil {
			s.api.Log.Debug("close a file", "error", err)
		}
	}()
	deadline := time.Now().Add(downloadTimeout)
	if err := http.NewResponseController(c.Writer).SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.api.WriteError(c, err)
		return
	}
	disposition := "attachment"
	if f.Inline() {
		disposition = "inline"
	}
	c.Header("Content-Type", f.ContentType)
	c.Header("Content-Disposition", mime.FormatMediaType(disposition, map[string]string{"filename": f.Name}))
	c.Header("Content-Security-Policy", filePolicy)
	c.Header("Cache-Control", "private, max-age=31536000, immutable")
	c.Header("ETag", `"`+f.ID+`"`)
	http.ServeContent(c.Writer, c.Request, "", f.CreatedAt, content)
}

// purgeFiles removes the contents of deleted files after the commit. What fails is tried
// again in the background.
func (s *Server) purgeFiles(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), purgeTimeout)
	defer cancel()
	if err := s.opts.Files.Purge(ctx); err != nil {
		s.api.Log.Warn("erased files are removed from their bucket later", "error", err)
	}
}
