package handlers_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/jpeg"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// smallPDF is a document.
const smallPDF = "%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\nstartxref\n0\n%%EOF\n"

// smallJPEG is a photo with a comment.
func smallJPEG(t testing.TB, comment string) string {
	t.Helper()
	var encoded bytes.Buffer
	require.NoError(t, jpeg.Encode(&encoded, image.NewGray(image.Rect(0, 0, 8, 8)), nil))
	segment := "\xff\xfe" + string([]byte{0, byte(len(comment) + 2)}) + comment
	return encoded.String()[:2] + segment + encoded.String()[2:]
}

// upload is a value of a custom field.
func upload(mime, name, content string) nodetest.Object {
	return nodetest.Object{"id": 4829371, "fileName": name, "data": "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString([]byte(content))}
}

// stored are the contents in the folder of files, by their paths.
func stored(h *nodetest.Node) map[string]string {
	h.T.Helper()
	found := map[string]string{}
	root := filepath.Join(h.Config.Data, "files")
	require.NoError(h.T, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found[path] = string(content)
		return err
	}))
	return found
}

// download gets a file by its permanent address.
func download(h *nodetest.Node, address any, header map[string]string) nodetest.Response {
	h.T.Helper()
	path, ok := strings.CutPrefix(fmt.Sprint(address), nodetest.PublicURL)
	require.True(h.T, ok, address)
	return h.Send(nodetest.Request{Method: get, Path: path, Header: header})
}

// withInfo is a request of the desk to join with custom fields.
func withInfo(typeID string, info nodetest.Object) nodetest.Object {
	return nodetest.Joining(typeID, nodetest.Object{"bookingInfoCustomFields": info})
}

func TestUploadsAreReplacedByPermanentAddresses(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, typeID, _ := h.NewQueue()
		photo := smallJPEG(t, "24.7136N 46.6753E")
		made := c.Staff(put, nodetest.JoinPath, withInfo(typeID, nodetest.Object{
			"17": upload("image/jpeg", "Röntgen 1.JPG", photo), "18": []any{upload("application/pdf", "a.pdf", smallPDF), upload("image/jpeg", "", photo)},
			"19": "text", "20": nodetest.Object{"data": "no upload"}, "21": nil,
		})).OK()
		info := c.Staff(get, "/management/bookings/"+made.Str("id"), nil).OK().Members("result.info")
		assert.Equal(t, "text", info["19"])
		assert.Equal(t, nodetest.Object{"data": "no upload"}, info["20"])
		assert.Regexp(t, `^https://clinic\.example/files/[0-9a-f]{32}/R%C3%B6ntgen%201\.JPG$`, nodetest.At(info["17"], "data"))
		assert.Regexp(t, `^https://clinic\.example/files/[0-9a-f]{32}/file\.jpg$`, nodetest.At(info["18"], "1.data"))
		assert.EqualValues(t, 4829371, nodetest.At(info["17"], "id"), "other members stay")
		assert.Equal(t, "Röntgen 1.JPG", nodetest.At(info["17"], "fileName"))
		assert.Equal(t, "application/pdf", nodetest.At(info["18"], "0.contentType"))
		assert.EqualValues(t, len(smallPDF), nodetest.At(info["18"], "0.size"))
		assert.Len(t, stored(h), 3)
		for path, content := range stored(h) {
			assert.Equal(t, c.ID, filepath.Base(filepath.Dir(path)))
			assert.NotContains(t, content, "24.7136N")
		}
		assert.NotContains(t, h.Contents(), "base64")
		assert.NotContains(t, h.Log.String(), "base64")

		// Who has the address needs no credential.
		shown := download(h, nodetest.At(info["17"], "data"), nil).OK()
		_, err := jpeg.Decode(bytes.NewReader(shown.Raw))
		require.NoError(t, err)
		for name, value := range map[string]string{
			"Content-Type": "image/jpeg", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'",
			"Content-Disposition": "inline; filename*=utf-8''R%C3%B6ntgen%201.JPG", "Cache-Control": "private, max-age=31536000, immutable",
		} {
			assert.Equal(t, value, shown.Header.Get(name))
		}
		document := nodetest.At(info["18"], "0.data")
		saved := download(h, document, nil).OK()
		assert.Equal(t, smallPDF, string(saved.Raw))
		assert.Equal(t, "attachment; filename=a.pdf", saved.Header.Get("Content-Disposition"))
		part := download(h, document, map[string]string{"Range": "bytes=1-3"})
		assert.Equal(t, http.StatusPartialContent, part.Status)
		assert.Equal(t, "PDF", string(part.Raw))
		assert.Equal(t, http.StatusNotModified, download(h, document, map[string]string{"If-None-Match": saved.Header.Get("ETag")}).Status)
		h.Send(nodetest.Request{Method: get, Path: "/files/" + strings.Repeat("0", 32) + "/a.pdf"}).Refused(http.StatusNotFound, models.CodeFileMissing)

		// An address is kept; that of another organization's file is none.
		again := c.Staff(put, nodetest.JoinPath, withInfo(typeID, nodetest.Object{"17": info["17"]})).OK()
		assert.Equal(t, nodetest.At(info["17"], "data"), again.At("info.17.data"))
		assert.Len(t, stored(h), 3)
		other, otherType, _ := h.NewQueue()
		a := other.Staff(put, nodetest.JoinPath, withInfo(otherType, nodetest.Object{"17": info["17"]}))
		assert.Equal(t, []string{"bookingInfoCustomFields.17"}, a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields())
	})
}

func TestWrongUploadsAreRefusedAndLeaveNothing(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, typeID, _ := h.NewQueue()
		patient := c.Patient("+966500000001")
		good := upload("application/pdf", "a.pdf", smallPDF)
		many := make([]any, 21)
		for i := range many {
			many[i] = good
		}
		for name, test := range map[string]struct {
			value any
			field string
		}{
			"HTML as a PDF":              {upload("application/pdf", "a.pdf", "<html><script>1</script></html>"), "17"},
			"HTML that begins like one":  {upload("application/pdf", "a.pdf", "%PDF-1.7\n<html><script>1</script></html>"), "17"},
			"SVG":                        {upload("image/svg+xml", "a.svg", `<svg xmlns="http://www.w3.org/2000/svg"/>`), "17"},
			"a PDF as a photo":           {upload("image/png", "a.png", smallPDF), "17"},
			"the second of a list":       {[]any{good, upload("image/png", "a.png", "no photo")}, "17[1]"},
			"no base64":                  {nodetest.Object{"data": "data:application/pdf;base64,%%%"}, "17"},
			"no base64 named":            {nodetest.Object{"data": "data:application/pdf,hello"}, "17"},
			"nothing":                    {upload("application/pdf", "a.pdf", ""), "17"},
			"a name with a slash":        {upload("application/pdf", "../a.pdf", smallPDF), "17"},
			"a name with a line":         {upload("application/pdf", "a\r\nb.pdf", smallPDF), "17"},
			"a name of dots":             {upload("application/pdf", "...", smallPDF), "17"},
			"a name that is no text":     {nodetest.Object{"fileName": 5, "data": good["data"]}, "17"},
			"21 files":                   {many, "17[20]"},
			"more than 10 MiB":           {upload("application/pdf", "a.pdf", smallPDF+strings.Repeat(" ", 10<<20)), "17"},
			"an address that is nothing": {nodetest.Object{"data": nodetest.PublicURL + "/files/none/a.pdf"}, "17"},
		} {
			for member, r := range map[string]nodetest.Request{
				"bookingInfoCustomFields": {Method: put, Path: "/customer/scheduling/new", Token: patient, Body: withInfo(typeID, nodetest.Object{"1": good, "17": test.value})},
				"data":                    {Method: put, Path: "/customer/profile", Token: patient, Body: nodetest.Object{"data": nodetest.Object{"17": test.value}}},
			} {
				if name == "21 files" && member != "data" {
					continue // "1" is the first of them
				}
				a := h.Unchanged(r).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
				assert.Equal(t, []string{member + "." + test.field}, a.WrongFields(), name)
			}
			assert.Empty(t, stored(h), name)
		}
		// What is refused for another reason leaves nothing either.
		off := c.NewType(nodetest.Object{"name": "Unserved"})
		h.Unchanged(nodetest.Request{Method: put, Path: nodetest.JoinPath, Token: c.Key, Body: withInfo(off, nodetest.Object{"17": good})}).
			Refused(http.StatusConflict, models.CodeNobodyServes)
		past := nodetest.Appointment(typeID, nodetest.Day(-3), 1000, nodetest.Object{"bookingInfoCustomFields": nodetest.Object{"17": good}})
		h.Unchanged(nodetest.Request{Method: put, Path: nodetest.JoinPath, Token: c.Key, Body: past}).Refused(http.StatusUnprocessableEntity, models.CodePast)
		assert.Empty(t, stored(h))
	})
}

func TestABodyOfMoreThanAMebibyteIsTakenWithFilesOnly(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	c, typeID, _ := h.NewQueue()
	patient := c.Patient("+966500000001")
	nine := upload("application/pdf", "a.pdf", smallPDF[:len(smallPDF)-6]+strings.Repeat(" ", 9<<20)+"%%EOF\n")
	customerID := c.Join(typeID, nil).Str("customerId")
	for path, r := range map[string]nodetest.Request{
		"/customer/scheduling/new":            {Token: patient, Body: withInfo(typeID, nodetest.Object{"1": nine})},
		"/management/scheduling/new":          {Token: c.Key, Body: withInfo(typeID, nodetest.Object{"1": nine}), Chunked: true},
		"/management/scheduling/temporary":    {Token: c.Key, Body: nodetest.Appointment(typeID, nodetest.Day(3), 1000, nodetest.Object{"bookingInfoCustomFields": nodetest.Object{"1": nine}})},
		"/customer/profile":                   {Token: patient, Body: nodetest.Object{"data": nodetest.Object{"1": nine}}},
		"/management/customers/" + customerID: {Token: c.Key, Body: nodetest.Object{"data": nodetest.Object{"1": nine}}},
	} {
		r.Method, r.Path = put, path
		h.Send(r).OK()
		for _, chunked := range []bool{false, true} {
			r.Body, r.Chunked = `{"data": "`+strings.Repeat("x", 25<<20)+`"}`, chunked
			h.Unchanged(r).Refused(http.StatusRequestEntityTooLarge, models.CodeTooLarge)
		}
	}
	assert.Len(t, stored(h), 5)
	h.Unchanged(nodetest.Request{Method: put, Path: "/management/types/" + typeID, Token: c.Key, Body: nodetest.Object{"photo": nine}}).
		Refused(http.StatusRequestEntityTooLarge, models.CodeTooLarge)
}

func TestFilesAreExportedAndErasedWithTheirCustomer(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, typeID, _ := h.NewQueue()
		phone := "+966500000001"
		patient := c.Patient(phone)
		profile := func(data nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: put, Path: "/customer/profile", Token: patient, Body: nodetest.Object{"data": data}}).OK()
		}
		first := profile(nodetest.Object{"card": upload("image/jpeg", "card.jpg", smallJPEG(t, "x"))}).At("result.data.card")
		booked := h.Send(nodetest.Request{Method: put, Path: "/customer/scheduling/new", Token: patient,
			Body: withInfo(typeID, nodetest.Object{"card": first, "letter": upload("application/pdf", "letter.pdf", smallPDF)})}).OK()
		duplicate := c.Join(typeID, nodetest.Object{
			"customerIdentifier": nodetest.Object{"phone": "+966500000002"}, "bookingInfoCustomFields": nodetest.Object{"scan": upload("application/pdf", "scan.pdf", smallPDF)},
		})
		stays := c.Join(typeID, nodetest.Object{"bookingInfoCustomFields": nodetest.Object{"theirs": upload("application/pdf", "theirs.pdf", smallPDF)}})
		c.Staff(post, "/management/customers/merge", nodetest.Object{"customerId": booked.Str("result.customerId"), "duplicateId": duplicate.Str("customerId")}).OK()

		// The booking still has the photo that the profile no longer has. A photo that nothing has is deleted.
		second := profile(nodetest.Object{"card": upload("image/jpeg", "second.jpg", smallJPEG(t, "y"))}).At("result.data.card.data")
		third := profile(nodetest.Object{"card": upload("image/jpeg", "third.jpg", smallJPEG(t, "z"))}).At("result.data.card.data")
		download(h, second, nil).Refused(http.StatusNotFound, models.CodeFileMissing)
		require.NoError(t, h.Files.Purge(t.Context()))
		assert.Len(t, stored(h), 5)

		export := h.Send(nodetest.Request{Method: get, Path: "/customer/profile/export", Token: patient}).OK()
		assert.ElementsMatch(t, []string{"card.jpg", "letter.pdf", "scan.pdf", "third.jpg"}, export.Pluck("files", "fileName"))
		assert.Contains(t, export.Pluck("files", "url"), third)
		h.Send(nodetest.Request{Method: del, Path: "/customer/profile", Token: patient}).OK()
		for _, address := range append(export.Pluck("files", "url"), fmt.Sprint(second)) {
			download(h, address, nil).Refused(http.StatusNotFound, models.CodeFileMissing)
		}
		assert.Len(t, stored(h), 1)
		assert.Equal(t, 0, nodetest.Scalar[int](h, "SELECT count(*) FROM file_removals"))
		download(h, stays.At("info.theirs.data"), nil).OK()

		// The files of an organization are deleted with it.
		h.Send(nodetest.Request{Method: del, Path: "/management/organizations/" + c.ID + "?hardDelete=true", Token: nodetest.BootstrapKey}).OK()
		assert.Empty(t, stored(h))
	})
}

func TestContentsThatNothingHasAreRemoved(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, typeID, _ := h.NewQueue()
		made := c.Staff(put, "/management/scheduling/temporary", nodetest.Appointment(typeID, nodetest.Day(3), 1000, nodetest.Object{
			"bookingInfoCustomFields": nodetest.Object{"1": upload("application/pdf", "a.pdf", smallPDF)},
		})).OK()
		kept := c.Join(typeID, nodetest.Object{"bookingInfoCustomFields": nodetest.Object{"1": upload("application/pdf", "b.pdf", smallPDF)}})
		folder := filepath.Join(h.Config.Data, "files", c.ID)
		long := time.Now().Add(-2 * time.Hour)
		for path := range stored(h) { // they are older than any request
			require.NoError(t, os.Chtimes(path, long, long))
		}
		for name, modified := range map[string]time.Time{"old": long, "new": time.Now()} {
			path := filepath.Join(folder, name)
			require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
			require.NoError(t, os.Chtimes(path, modified, modified))
		}
		require.NoError(t, h.Files.Sweep(t.Context()))
		assert.Len(t, stored(h), 3)
		assert.NoFileExists(t, filepath.Join(folder, "old"))

		h.Exec("UPDATE bookings SET reserved_until = ? WHERE id = ?", time.Now().UTC().Add(-time.Minute), made.Str("id"))
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE id = ?", made.Str("id")) == 0
		}, nodetest.Patience, 10*time.Millisecond)
		require.NoError(t, h.Files.Sweep(t.Context()))
		download(h, made.At("info.1.data"), nil).Refused(http.StatusNotFound, models.CodeFileMissing)
		download(h, kept.At("info.1.data"), nil).OK()
		assert.Len(t, stored(h), 2)
	})
}

func TestWithoutItsBucketTheServiceStillTakesBookings(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	c, typeID, _ := h.NewQueue()
	// The folder of the organization can't be made.
	require.NoError(t, os.WriteFile(filepath.Join(h.Config.Data, "files", c.ID), nil, 0o600))
	a := h.Unchanged(nodetest.Request{Method: put, Path: nodetest.JoinPath, Token: c.Key, Body: withInfo(typeID, nodetest.Object{"1": upload("application/pdf", "a.pdf", smallPDF)})})
	a.Refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	c.Join(typeID, nodetest.Object{"bookingInfoCustomFields": nodetest.Object{"1": "text"}})
}

// TestUploadFields_TakeOnlyTheirKindInAppointmentsAndQueues defines a field of each kind
// of upload.
func TestUploadFields_TakeOnlyTheirKindInAppointmentsAndQueues(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, typeID, _ := h.NewQueue()
		field := func(id, kind string) nodetest.Object {
			return nodetest.Object{"id": id, "name": id, "type": kind, "visibility": "public", "optional": true}
		}
		c.Staff(put, "/management/customFields/booking", []any{
			field("face", "photo"), field("scans", "photos"), field("letter", "file"), field("reports", "files"), field("reason", "text"),
		}).OK()
		photo, letter := upload("image/jpeg", "a.jpg", smallJPEG(t, "x")), upload("application/pdf", "a.pdf", smallPDF)
		bodies := []func(info nodetest.Object) nodetest.Object{
			func(info nodetest.Object) nodetest.Object { return withInfo(typeID, info) },
			func(info nodetest.Object) nodetest.Object {
				return nodetest.Appointment(typeID, nodetest.Day(3), 1000, nodetest.Object{"bookingInfoCustomFields": info})
			},
		}
		for _, body := range bodies {
			request := func(info nodetest.Object) nodetest.Request {
				return nodetest.Request{Method: put, Path: nodetest.JoinPath, Token: c.Key, Body: body(info)}
			}
			before := len(stored(h))
			for id, value := range map[string]any{
				"face": letter, "scans": []any{photo, letter}, "letter": []any{letter}, "reports": letter, "reason": photo,
			} {
				fields := h.Unchanged(request(nodetest.Object{id: value})).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields()
				require.Len(t, fields, 1)
				assert.True(t, strings.HasPrefix(fields[0], "bookingInfoCustomFields."+id), "%s: %s", id, fields[0])
			}
			h.Unchanged(request(nodetest.Object{"face": nodetest.Object{"fileName": "a.jpg", "data": "https://elsewhere.example/a.jpg"}})).
				Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Len(t, stored(h), before, "what is refused is not stored")
			made := h.Send(request(nodetest.Object{"face": photo, "scans": []any{photo}, "letter": letter, "reports": []any{letter, photo}})).OK()
			assert.Len(t, stored(h), before+5)
			for _, path := range []string{"face", "scans.0", "letter", "reports.0", "reports.1"} {
				download(h, made.At("info."+path+".data"), nil).OK()
			}
		}
	})
}
