package files

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gocloud.dev/blob"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// MaxSize bounds one file, in bytes.
	MaxSize = 10 << 20
	// MaxFiles bounds the files of one request.
	MaxFiles = 20
	// maxName bounds a file's name, in characters.
	maxName = 100
)

// Kind is which uploads a custom field takes.
type Kind string

// The kinds. A field of another type has none.
const (
	NoFile Kind = ""
	Photo  Kind = "photo"
	Photos Kind = "photos"
	One    Kind = "file"
	Many   Kind = "files"
)

// Values are the values of custom fields in a request.
type Values struct {
	OrganizationID string
	// Field is the member of the body that has the values. Errors name it.
	Field  string
	Fields models.Fields
	// Kind returns which uploads a field takes, by its id. If it is nil, a value is an
	// upload by its shape: an object, or an array of objects, whose data is a data URL or
	// the address of a file.
	Kind func(id string) Kind
}

// KindsOf returns Values.Kind for fields that are defined, or nil if there are none.
func KindsOf(defined []models.FormField) func(id string) Kind {
	if len(defined) == 0 {
		return nil
	}
	return func(id string) Kind {
		for i := range defined {
			if f := &defined[i]; f.ID == id {
				switch f.Type {
				case models.FieldPhoto, models.FieldPhotos, models.FieldFile, models.FieldFiles:
					return Kind(f.Type)
				default:
					return NoFile
				}
			}
		}
		return NoFile
	}
}

// Members of an upload.
const (
	memberData = "data"
	memberName = "fileName"
)

// Bare returns values without the contents of their uploads, to measure what stays of
// them.
func Bare(values models.Fields) models.Fields {
	bare := func(value any) any {
		object, ok := value.(map[string]any)
		if !ok || !isDataURL(object[memberData]) {
			return value
		}
		object = maps.Clone(object)
		delete(object, memberData)
		return object
	}
	out := maps.Clone(values)
	for id, value := range out {
		if list, ok := value.([]any); ok {
			list = slices.Clone(list)
			for i := range list {
				list[i] = bare(list[i])
			}
			out[id] = list
			continue
		}
		out[id] = bare(value)
	}
	return out
}

// isDataURL reports whether a value is a data URL.
func isDataURL(value any) bool {
	text, ok := value.(string)
	return ok && len(text) >= 5 && strings.EqualFold(text[:5], "data:")
}

// Replace checks the uploads among values, stores their contents and returns the values
// with the address of each file in place of its data. It stores nothing unless all are
// right. A value that already has the address of a file of the organization keeps it.
//
// The caller saves the Batch in the transaction that stores the values, and discards it
// if that fails.
func (s *Service) Replace(ctx context.Context, v Values) (models.Fields, *Batch, error) {
	b := &Batch{service: s, organizationID: v.OrganizationID}
	if v.Fields == nil {
		return nil, b, nil
	}
	out := maps.Clone(v.Fields)
	for _, id := range slices.Sorted(maps.Keys(out)) {
		value, err := b.field(ctx, v, id, out[id])
		if err != nil {
			return nil, nil, err
		}
		out[id] = value
	}
	if err := b.store(ctx); err != nil {
		b.Discard(ctx)
		return nil, nil, err
	}
	return out, b, nil
}

// Batch is what a request uploads. It belongs to one request.
type Batch struct {
	service        *Service
	organizationID string
	files          []File
	contents       [][]byte // of files, until they are stored
	kept           []string // the ids of earlier files that the values name
}

// field returns the value of a field with its uploads replaced.
func (b *Batch) field(ctx context.Context, v Values, id string, value any) (any, error) {
	kind, field := Many, v.Field+"."+id
	if v.Kind != nil {
		if kind = v.Kind(id); kind == NoFile || value == nil {
			return value, nil
		}
	}
	shaped := v.Kind == nil
	list, ok := value.([]any)
	switch {
	case !shaped && ok != (kind == Photos || kind == Many):
		if ok {
			return nil, models.Invalid(field, "It takes one file, not a list.")
		}
		return nil, models.Invalid(field, "It takes a list of files.")
	case !ok:
		return b.item(ctx, field, kind, shaped, value)
	}
	list = slices.Clone(list)
	for i := range list {
		var err error
		if list[i], err = b.item(ctx, fmt.Sprintf("%s[%d]", field, i), kind, shaped, list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// item returns one upload with its data replaced.
func (b *Batch) item(ctx context.Context, field string, kind Kind, shaped bool, value any) (any, error) {
	object, ok := value.(map[string]any)
	var data string
	if ok {
		data, ok = object[memberData].(string)
	}
	isNew := ok && isDataURL(data)
	if !isNew && shaped && (!ok || !strings.HasPrefix(data, b.service.publicURL+Path)) {
		return value, nil // not an upload
	}
	if !ok {
		return nil, models.Invalid(field, "A file is an object with data, a data URL, and fileName.")
	}
	if len(b.files)+len(b.kept) == MaxFiles {
		return nil, models.Invalid(field, "A request has at most %d files.", MaxFiles)
	}
	var f *File
	var err error
	if isNew {
		f, err = b.add(ctx, field, kind, object)
	} else {
		f, err = b.keep(ctx, field, kind, data)
	}
	if err != nil {
		return nil, err
	}
	object = maps.Clone(object)
	object[memberData], object[memberName] = b.service.URL(f), f.Name
	object["contentType"], object["size"] = f.ContentType, f.Size
	return object, nil
}

// add checks an upload and adds it to the batch.
func (b *Batch) add(ctx context.Context, field string, kind Kind, object map[string]any) (*File, error) {
	data, _ := object[memberData].(string)
	declared, raw, err := decode(field, data)
	if err != nil {
		return nil, err
	}
	t, cleaned, err := b.service.clean(ctx, declared, raw)
	if err == nil && !t.image && (kind == Photo || kind == Photos) {
		err = refuse("It takes photos only.")
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		return nil, models.Invalid(field, "%s", refused.why)
	}
	if err != nil {
		return nil, err
	}
	name, err := safeName(field, object[memberName], t)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	b.files = append(b.files, File{
		ID: hex.EncodeToString(id), OrganizationID: b.organizationID, Name: name, ContentType: t.mime, Size: int64(len(cleaned)),
	})
	b.contents = append(b.contents, cleaned)
	return &b.files[len(b.files)-1], nil
}

// keep finds an earlier file of the organization by its address.
func (b *Batch) keep(ctx context.Context, field string, kind Kind, address string) (*File, error) {
	unknown := models.Invalid(field, "The data is neither a data URL nor the address of a file that is stored here.")
	rest, ok := strings.CutPrefix(address, b.service.publicURL+Path)
	if !ok {
		return nil, unknown
	}
	id, _, _ := strings.Cut(rest, "/")
	var f File
	err := b.service.store.Read(ctx).Where("id = ? AND organization_id = ?", id, b.organizationID).Take(&f).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, unknown
	}
	if err != nil {
		return nil, fmt.Errorf("read a file's row: %w", err)
	}
	if !f.image() && (kind == Photo || kind == Photos) {
		return nil, models.Invalid(field, "It takes photos only.")
	}
	b.kept = append(b.kept, f.ID)
	return &f, nil
}

// decode reads a data URL: data:<mime>;base64,<content>.
func decode(field, data string) (declared string, raw []byte, err error) {
	head, encoded, ok := strings.Cut(data[len("data:"):], ",")
	parts := strings.Split(strings.ToLower(head), ";")
	if !ok || len(parts) < 2 || parts[len(parts)-1] != "base64" {
		return "", nil, models.Invalid(field, "The data is a URL such as data:image/jpeg;base64,…")
	}
	if base64.StdEncoding.DecodedLen(len(encoded)) > MaxSize+2 { // the padding
		return "", nil, tooLarge(field)
	}
	raw, err = base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return "", nil, models.Invalid(field, "The data is not base64 of RFC 4648 with padding.")
	case len(raw) == 0:
		return "", nil, models.Invalid(field, "The file is empty.")
	case len(raw) > MaxSize:
		return "", nil, tooLarge(field)
	}
	return strings.TrimSpace(parts[0]), raw, nil
}

func tooLarge(field string) error {
	return models.Invalid(field, "A file has at most %d MiB.", MaxSize>>20)
}

// safeName returns a name under which every system can store the file: letters, digits
// and few signs, at most 100 characters, with the extension of its type.
func safeName(field string, value any, t kindOfContent) (string, error) {
	name, isText := value.(string)
	if value == nil || isText && name == "" {
		name, isText = "file"+t.extensions[0], true
	}
	if !isText {
		return "", models.Invalid(field, "fileName is a text.")
	}
	refused := func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) || r == utf8.RuneError }
	if strings.ContainsFunc(name, refused) {
		return "", models.Invalid(field, "fileName has a slash, a backslash or a control character.")
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || strings.ContainsRune(" ._-()", r) {
			return r
		}
		return '_'
	}, name)
	name = strings.Trim(name, " .")
	if !strings.ContainsFunc(name, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
		return "", models.Invalid(field, "fileName has no letter and no digit.")
	}
	extension := path.Ext(name)
	if !slices.Contains(t.extensions, strings.ToLower(extension)) {
		extension = t.extensions[0] // a browser that saves the file goes by it
	} else {
		name = strings.TrimSuffix(name, extension)
	}
	stem := []rune(name)
	return string(stem[:min(len(stem), maxName-len(extension))]) + extension, nil
}

// store stores the contents in the bucket.
func (b *Batch) store(ctx context.Context) error {
	for i := range b.files {
		if err := b.service.put(ctx, &b.files[i], b.contents[i]); err != nil {
			return err
		}
	}
	b.contents = nil
	return nil
}

func (s *Service) put(ctx context.Context, f *File, content []byte) error {
	if s.bucket == nil {
		return s.unavailable("store", errNoBucket)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.bucket.WriteAll(ctx, f.key(), content, &blob.WriterOptions{ContentType: f.ContentType, DisableContentTypeDetection: true}); err != nil {
		return s.unavailable("store", err)
	}
	return nil
}

// Save inserts the rows of the files of a customer's booking.
func (b *Batch) Save(tx *store.Tx, customerID, bookingID string) error {
	return b.save(tx, &customerID, &bookingID)
}

// SaveProfile inserts the rows of the files of a customer's profile. Files of the profile
// that its values no longer name are deleted, unless a booking of the customer does.
func (b *Batch) SaveProfile(tx *store.Tx, customerID string) error {
	if err := b.save(tx, &customerID, nil); err != nil {
		return err
	}
	named := append([]string{""}, b.kept...)
	for i := range b.files {
		named = append(named, b.files[i].ID)
	}
	return remove(tx, "organization_id = ? AND customer_id = ? AND booking_id IS NULL AND id NOT IN ? AND NOT "+namedByBooking,
		b.organizationID, customerID, named)
}

func (b *Batch) save(tx *store.Tx, customerID, bookingID *string) error {
	if len(b.files) == 0 {
		return nil
	}
	for i := range b.files {
		b.files[i].CustomerID, b.files[i].BookingID, b.files[i].CreatedAt = customerID, bookingID, tx.Now
	}
	if err := tx.Create(&b.files).Error; err != nil {
		return fmt.Errorf("insert the rows of files: %w", err)
	}
	return nil
}

// Discard removes the contents whose rows were not saved, because the transaction failed
// or did not begin. What it can't remove is removed as an orphan later.
func (b *Batch) Discard(ctx context.Context) {
	if len(b.files) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	keys := make([]string, len(b.files))
	for i := range b.files {
		keys[i] = b.files[i].key()
	}
	// A commit may have succeeded though the answer of the database was lost.
	orphans, err := b.service.orphans(ctx, keys)
	for _, key := range orphans {
		err = errors.Join(err, b.service.delete(ctx, key))
	}
	if err != nil {
		b.service.log.Warn("files of a refused request stay until orphans are removed", "error", err)
	}
}

// keyID returns the id in a key.
func keyID(key string) string { return path.Base(key) }
