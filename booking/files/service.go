// Package files keeps what customers and staff upload: photos and documents in the
// values of custom fields. A file arrives as a data URL in a request's JSON. Its content
// decides what it is. A photo loses its metadata, which may say where it was taken. The
// contents are in a bucket (gocloud.dev/blob), and the database has one row for each.
//
// A content is stored before the transaction that inserts its row, because no transaction
// waits for the network. A content without a row is removed after an hour. A row is
// deleted together with a note that its content has to be removed, which is done after
// the commit.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/memblob"  // mem://, for tests
	_ "gocloud.dev/blob/s3blob"   // s3://
	"gocloud.dev/gcerrors"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// callTimeout bounds one call of the bucket: storing, listing or removing.
	callTimeout = 10 * time.Second
	// openTimeout bounds the reading of one content, which a slow client may draw out.
	openTimeout = 2 * time.Minute
	// Path is where files are served, below the public URL.
	Path = "/files/"
)

// Options configure a Service. All fields are required unless they say otherwise.
type Options struct {
	Store *store.Store
	// URL names the bucket: file:///folder, s3://bucket?region=… or mem://.
	URL string
	// Bucket is used instead of URL if it is set. Close closes it.
	Bucket *blob.Bucket
	// PublicURL is under which people reach the service, without a slash at its end.
	PublicURL string
	Log       *slog.Logger
}

// Service stores files. It is safe for concurrent use.
type Service struct {
	store     *store.Store
	bucket    *blob.Bucket
	publicURL string
	log       *slog.Logger

	// decoding holds one while a photo is decoded: the largest takes some 300 MB.
	decoding chan struct{}
}

// New makes a Service and opens its bucket. The caller calls Close.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Store == nil || o.URL == "" && o.Bucket == nil || o.PublicURL == "" || o.Log == nil {
		return nil, errors.New("files: an option is missing")
	}
	s := &Service{
		store: o.Store, bucket: o.Bucket, publicURL: strings.TrimRight(o.PublicURL, "/"), log: o.Log,
		decoding: make(chan struct{}, 1),
	}
	if s.bucket != nil {
		return s, nil
	}
	address, err := completed(o.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if s.bucket, err = blob.OpenBucket(ctx, address); err != nil {
		return nil, fmt.Errorf("open the bucket of files: %w", err)
	}
	return s, nil
}

// Without makes a Service for a node without a bucket. What it is asked to store or to
// read fails with CodeUnavailable.
func Without(o Options) *Service {
	return &Service{store: o.Store, publicURL: strings.TrimRight(o.PublicURL, "/"), log: o.Log, decoding: make(chan struct{}, 1)}
}

// errNoBucket is the failure of a Service without a bucket.
var errNoBucket = errors.New("there is no bucket of files")

// Folder is the URL of a folder on this machine.
func Folder(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the folder of files: %w", err)
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(absolute)}).String(), nil
}

// CheckURL reports what is wrong with the URL of a bucket.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is a URL such as file:///var/lib/files or s3://bucket?region=eu-west-1")
	case u.Scheme == "file" && u.Host == "" && u.Path != "", u.Scheme == "s3" && u.Host != "", u.Scheme == "mem":
		return nil
	}
	return errors.New("it begins with file:/// and a folder, or with s3:// and a bucket")
}

// completed adds what a folder needs: no files beside the contents, no second file system
// for unfinished ones, and a folder that other users of the machine can't read.
func completed(text string) (string, error) {
	if err := CheckURL(text); err != nil {
		return "", fmt.Errorf("the bucket of files: %w", err)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "file" {
		return text, err
	}
	if err := os.MkdirAll(filepath.FromSlash(u.Path), 0o700); err != nil {
		return "", fmt.Errorf("make the folder of files: %w", err)
	}
	query := u.Query()
	query.Set("metadata", "skip")
	query.Set("no_tmp_dir", "true")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// Close closes the bucket.
func (s *Service) Close() error {
	if s.bucket == nil {
		return nil
	}
	return s.bucket.Close()
}

// Accessible reports whether the bucket can be reached.
func (s *Service) Accessible(ctx context.Context) error {
	if s.bucket == nil {
		return errNoBucket
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ok, err := s.bucket.IsAccessible(ctx)
	if err == nil && !ok {
		err = errors.New("there is no such bucket or folder")
	}
	return err
}

// File is the row of a stored file.
type File struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	// CustomerID is the customer whose profile or booking has the file.
	CustomerID *string
	// BookingID is the booking that the file came with. It is null for a profile's.
	BookingID   *string
	Name        string
	ContentType string
	Size        int64
	CreatedAt   time.Time
}

// key is where the content is in the bucket.
func (f *File) key() string { return f.OrganizationID + "/" + f.ID }

// image reports whether the content is a picture.
func (f *File) image() bool { return strings.HasPrefix(f.ContentType, "image/") }

// Inline reports whether a browser may show the file rather than save it.
func (f *File) Inline() bool { return f.image() }

// URL is the permanent address of a file. Its id is the credential.
func (s *Service) URL(f *File) string {
	return s.publicURL + Path + f.ID + "/" + url.PathEscape(f.Name)
}

// errMissing is returned for an id that no file has.
var errMissing = models.Errorf(models.CodeFileMissing, "There is no such file.")

// Open finds a file and opens its content, which is read within two minutes. The caller
// closes it. Open fails with CodeFileMissing, and with CodeUnavailable if the bucket does
// not answer.
func (s *Service) Open(ctx context.Context, id string) (*File, io.ReadSeekCloser, error) {
	var f File
	err := s.store.Read(ctx).Where("id = ?", id).Take(&f).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil, errMissing
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read a file's row: %w", err)
	}
	if s.bucket == nil {
		return nil, nil, s.unavailable("open", errNoBucket)
	}
	// The reading outlives the deadline of a request, as the client may be slow.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	r, err := s.bucket.NewReader(ctx, f.key(), nil)
	if err != nil {
		cancel()
		if gcerrors.Code(err) == gcerrors.NotFound {
			s.log.Error("a file's content is missing in the bucket", "organization", f.OrganizationID, "size", f.Size)
			return nil, nil, errMissing
		}
		return nil, nil, s.unavailable("open", err)
	}
	return &f, &content{r, cancel}, nil
}

// content is an open content with the end of its context.
type content struct {
	*blob.Reader
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (c *content) Close() error {
	defer c.cancel()
	return c.Reader.Close()
}

// unavailable logs that the bucket failed and returns the error for the client. The id of
// a file is a credential, and an error of a bucket may name it: only its kind is logged.
func (s *Service) unavailable(doing string, err error) error {
	s.log.Error("the bucket of files failed", "doing", doing, "kind", gcerrors.Code(err).String())
	return &models.Error{Code: models.CodeUnavailable, Detail: "Files can't be stored or read at the moment.", RetryAfter: time.Second}
}
