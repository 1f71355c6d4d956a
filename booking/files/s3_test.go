package files_test

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/files"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

// s3 is a server that speaks the part of S3 that the service uses.
type s3 struct {
	mu      sync.Mutex
	objects map[string][]byte
	types   map[string]string
}

func (s *s3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=key/") {
		http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/clinic/")
	content, found := s.objects[key]
	switch {
	case !ok || key == "": // the bucket
		var list struct {
			XMLName  xml.Name `xml:"ListBucketResult"`
			Contents []struct {
				Key          string
				Size         int
				LastModified string
			}
		}
		for name, content := range s.objects {
			list.Contents = append(list.Contents, struct {
				Key          string
				Size         int
				LastModified string
			}{name, len(content), time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339)})
		}
		w.Header().Set("Content-Type", "application/xml")
		if err := xml.NewEncoder(w).Encode(list); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err == nil && strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
			body, err = chunks(body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.objects[key], s.types[key] = body, r.Header.Get("Content-Type")
		w.Header().Set("ETag", `"made"`)
	case r.Method == http.MethodDelete:
		delete(s.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case !found:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
	default:
		w.Header().Set("Content-Type", s.types[key])
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(content))
	}
}

// chunks reads a body in the form of aws-chunked.
func chunks(body []byte) ([]byte, error) {
	var out []byte
	for r := bufio.NewReader(bytes.NewReader(body)); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(size, 16, 32)
		if err != nil || n == 0 {
			return out, err
		}
		chunk := make([]byte, n+2) // with the end of its line
		if _, err := io.ReadFull(r, chunk); err != nil {
			return nil, err
		}
		out = append(out, chunk[:n]...)
	}
}

func TestFilesAreKeptInS3(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	bucket := &s3{objects: map[string][]byte{}, types: map[string]string{}}
	server := httptest.NewServer(bucket)
	defer server.Close()
	o := storetest.Migrated(t, false)
	o.Now, o.Log = time.Now, slog.New(slog.DiscardHandler)
	db, err := store.Open(t.Context(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	s, err := files.New(t.Context(), files.Options{
		Store: db, URL: "s3://clinic?region=eu-west-1&use_path_style=true&endpoint=" + server.URL, PublicURL: "https://clinic.example", Log: o.Log,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Accessible(t.Context()))

	require.NoError(t, db.Tx(t.Context(), func(tx *store.Tx) error {
		return tx.Exec("INSERT INTO organizations (id, name, timezone, created_at) VALUES ('org', 'Al Noor', 'UTC', ?)", tx.Now).Error
	}))
	values := models.Fields{"1": map[string]any{"fileName": "a.pdf", "data": dataURL("application/pdf", pdf)}}
	_, lost, err := s.Replace(t.Context(), files.Values{OrganizationID: "org", Fields: values})
	require.NoError(t, err)
	require.Len(t, bucket.objects, 1)
	for key, content := range bucket.objects {
		assert.Regexp(t, `^org/[0-9a-f]{32}$`, key)
		assert.Equal(t, pdf, string(content))
		assert.Equal(t, "application/pdf", bucket.types[key])
	}
	lost.Discard(t.Context())
	assert.Empty(t, bucket.objects)

	replaced, _, err := s.Replace(t.Context(), files.Values{OrganizationID: "org", Fields: values})
	require.NoError(t, err)
	address, _ := replaced["1"].(map[string]any)["data"].(string)
	id := strings.Split(address, "/")[4]
	require.NoError(t, db.Tx(t.Context(), func(tx *store.Tx) error {
		return tx.Create(&files.File{ID: id, OrganizationID: "org", Name: "a.pdf", ContentType: "application/pdf", Size: int64(len(pdf)), CreatedAt: tx.Now}).Error
	}))
	bucket.objects["org/orphan"] = []byte("orphan")
	require.NoError(t, s.Sweep(t.Context()))
	assert.NotContains(t, bucket.objects, "org/orphan")
	_, content, err := s.Open(t.Context(), id)
	require.NoError(t, err)
	read, err := io.ReadAll(content)
	require.NoError(t, err)
	assert.Equal(t, pdf, string(read))
	require.NoError(t, content.Close())

	delete(bucket.objects, "org/"+id)
	_, _, err = s.Open(t.Context(), id)
	assert.Equal(t, models.CodeFileMissing, models.CodeOf(err))
}
