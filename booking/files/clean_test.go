package files_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/files"
)

// secret is in all metadata of these tests, such as where a photo was taken.
const secret = "24.7136N 46.6753E"

// exif is metadata with an orientation.
func exif(orientation uint16) []byte {
	out := []byte("II*\x00\x08\x00\x00\x00\x01\x00")
	out = binary.LittleEndian.AppendUint16(out, 0x0112)
	out = binary.LittleEndian.AppendUint16(out, 3)
	out = binary.LittleEndian.AppendUint32(out, 1)
	out = binary.LittleEndian.AppendUint32(out, uint32(orientation))
	return append(append(out, 0, 0, 0, 0), secret...)
}

// picture is 48 by 32 pixels: red at the top left, blue elsewhere.
func picture() image.Image {
	p := image.NewRGBA(image.Rect(0, 0, 48, 32))
	for y := range 32 {
		for x := range 48 {
			c := color.RGBA{B: 255, A: 255}
			if x < 16 && y < 16 {
				c = color.RGBA{R: 255, A: 255}
			}
			p.Set(x, y, c)
		}
	}
	return p
}

func segment(marker byte, payload string) []byte {
	out := binary.BigEndian.AppendUint16([]byte{0xFF, marker}, uint16(len(payload)+2))
	return append(out, payload...)
}

// photo is a JPEG of the picture with metadata of every kind.
func photo(t *testing.T, p image.Image, orientation uint16) []byte {
	t.Helper()
	var encoded bytes.Buffer
	require.NoError(t, jpeg.Encode(&encoded, p, nil))
	out := []byte{0xFF, 0xD8}
	out = append(out, segment(0xE0, "JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00")...)
	out = append(out, segment(0xE1, "Exif\x00\x00"+string(exif(orientation)))...)
	out = append(out, segment(0xE1, "http://ns.adobe.com/xap/1.0/\x00<x>"+secret)...)
	out = append(out, segment(0xE2, "MPF\x00"+secret)...)
	out = append(out, segment(0xE2, "ICC_PROFILE\x00\x01\x01colours")...)
	out = append(out, segment(0xED, "Photoshop 3.0\x00"+secret)...)
	out = append(out, segment(0xFE, secret)...)
	out = append(out, encoded.Bytes()[2:]...)
	return append(out, "a film "+secret...)
}

func TestJPEGLosesItsMetadataAndKeepsItsColours(t *testing.T) {
	t.Parallel()
	raw := photo(t, picture(), 1)
	mime, cleaned, err := files.Clean("image/jpeg", raw)
	require.NoError(t, err)
	assert.Equal(t, "image/jpeg", mime)
	for _, gone := range []string{secret, "Exif", "adobe", "Photoshop", "MPF", "film"} {
		assert.NotContains(t, string(cleaned), gone)
	}
	assert.Contains(t, string(cleaned), "ICC_PROFILE")
	before, err := jpeg.Decode(bytes.NewReader(raw))
	require.NoError(t, err)
	after, err := jpeg.Decode(bytes.NewReader(cleaned))
	require.NoError(t, err)
	assert.Equal(t, before, after, "a photo that is upright is not encoded again")
	again, twice, err := files.Clean("image/jpg", cleaned)
	require.NoError(t, err)
	assert.Equal(t, mime, again)
	assert.Equal(t, cleaned, twice)
}

// gray is a picture without colours: white at the top left.
func gray(p image.Image) image.Image {
	g := image.NewGray(p.Bounds())
	for y := range p.Bounds().Dy() {
		for x := range p.Bounds().Dx() {
			if r, _, _, _ := p.At(x, y).RGBA(); r > 0 {
				g.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	return g
}

func TestJPEGThatIsTurnedIsTurnedUpright(t *testing.T) {
	t.Parallel()
	// Where the top left of the photo as it was taken belongs.
	for orientation, corner := range map[uint16]string{
		1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left", 5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left",
	} {
		for name, p := range map[string]image.Image{"colours": picture(), "gray": gray(picture())} {
			_, cleaned, err := files.Clean("image/jpeg", photo(t, p, orientation))
			require.NoError(t, err)
			assert.NotContains(t, string(cleaned), secret)
			assert.Equal(t, 1, strings.Count(string(cleaned), "ICC_PROFILE"))
			upright, err := jpeg.Decode(bytes.NewReader(cleaned))
			require.NoError(t, err)
			width, height := 48, 32
			if orientation >= 5 {
				width, height = height, width
			}
			require.Equal(t, image.Pt(width, height), upright.Bounds().Size(), orientation)
			for place, at := range map[string]image.Point{
				"top left": {6, 6}, "top right": {width - 7, 6}, "bottom right": {width - 7, height - 7}, "bottom left": {6, height - 7},
			} {
				red, _, _, _ := upright.At(at.X, at.Y).RGBA()
				assert.Equal(t, place == corner, red > 0x8000, "%s, orientation %d, %s", name, orientation, place)
			}
		}
	}
}

func chunk(name, payload string) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	out = append(append(out, name...), payload...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

func TestPNGLosesItsMetadata(t *testing.T) {
	t.Parallel()
	var encoded bytes.Buffer
	require.NoError(t, png.Encode(&encoded, picture()))
	const header = 8 + 12 + 13
	raw := bytes.Clone(encoded.Bytes()[:header])
	for _, name := range []string{"eXIf", "tEXt", "zTXt", "iTXt", "tIME", "maKr"} {
		raw = append(raw, chunk(name, secret)...)
	}
	raw = append(raw, chunk("gAMA", "\x00\x00\xb1\x8f")...)
	raw = append(append(raw, encoded.Bytes()[header:]...), secret...)
	mime, cleaned, err := files.Clean("image/png", raw)
	require.NoError(t, err)
	assert.Equal(t, "image/png", mime)
	assert.NotContains(t, string(cleaned), secret)
	assert.Contains(t, string(cleaned), "gAMA")
	after, err := png.Decode(bytes.NewReader(cleaned))
	require.NoError(t, err)
	assert.Equal(t, picture(), after)
}

func riff(name, payload string) string {
	out := string(binary.LittleEndian.AppendUint32([]byte(name), uint32(len(payload)))) + payload
	if len(payload)%2 == 1 {
		out += "\x00"
	}
	return out
}

// lossless is the chunk of a WebP of one pixel.
func lossless(t *testing.T) string {
	t.Helper()
	whole, err := base64.StdEncoding.DecodeString("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
	require.NoError(t, err)
	return string(whole[12:])
}

func TestWebPLosesItsMetadata(t *testing.T) {
	t.Parallel()
	pixel := lossless(t)
	extended := func(flags string) string { return riff("VP8X", flags+"\x00\x00\x00\x00\x00\x00\x00\x00\x00") }
	frame := strings.Repeat("\x00", 16)
	build := func(chunks ...string) []byte { return []byte(riff("RIFF", "WEBP"+strings.Join(chunks, ""))) }
	for name, test := range map[string]struct{ raw, cleaned []byte }{
		"simple": {build(pixel), build(pixel)},
		"extended": {
			build(extended("\x2c"), riff("ICCP", "colours"), pixel, riff("EXIF", string(exif(1))), riff("XMP ", "<x>"+secret), riff("MAKR", secret)),
			build(extended("\x20"), riff("ICCP", "colours"), pixel),
		},
		"animation": {
			build(extended("\x0a"), riff("ANIM", "\x00\x00\x00\x00\x00\x00"), riff("ANMF", frame+pixel+riff("MAKR", secret)), riff("EXIF", secret)),
			build(extended("\x02"), riff("ANIM", "\x00\x00\x00\x00\x00\x00"), riff("ANMF", frame+pixel)),
		},
	} {
		mime, cleaned, err := files.Clean("image/webp", append(test.raw, secret...))
		require.NoError(t, err, name)
		assert.Equal(t, "image/webp", mime)
		assert.Equal(t, test.cleaned, cleaned, name)
	}
}

func isoBox(name string, payload ...string) string {
	all := strings.Join(payload, "")
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(all)+8))) + name + all
}

// heic builds a file with the items of a picture, EXIF in mdat and XMP in idat. method is
// how the location of the XMP is given.
func heic(brand string, method byte, more ...string) []byte {
	const full = "\x00\x00\x00\x00"
	item := func(id byte, kind, rest string) string {
		return isoBox("infe", "\x02\x00\x00\x00\x00"+string([]byte{id})+"\x00\x00"+kind+"\x00"+rest)
	}
	build := func(start uint32) (meta string) {
		// The location of an item: 4 bytes for an offset, 4 for a length, none for a base.
		location := func(id, method byte, offset, length int) string {
			out := []byte{0, id, 0, method, 0, 0, 0, 1}
			out = binary.BigEndian.AppendUint32(out, uint32(offset))
			return string(binary.BigEndian.AppendUint32(out, uint32(length)))
		}
		at := int(start)
		return isoBox("meta", full,
			isoBox("hdlr", full+"\x00\x00\x00\x00pict"+strings.Repeat("\x00", 13)),
			isoBox("pitm", full+"\x00\x01"),
			isoBox("iinf", full+"\x00\x03", item(1, "hvc1", ""), item(2, "Exif", ""), item(3, "mime", "application/rdf+xml\x00")),
			isoBox("iloc", "\x01\x00\x00\x00\x44\x00\x00\x03"+location(1, 0, at, 7)+location(2, 0, at+7, len(secret))+location(3, method, 0, len(secret))),
			isoBox("idat", secret), isoBox("iprp", "properties"), isoBox("xml ", full+secret))
	}
	head := isoBox("ftyp", brand, "\x00\x00\x00\x00", "mif1heic")
	start := len(head) + len(build(0)) + 8
	return []byte(head + build(uint32(start)) + isoBox("mdat", "picture", secret) + strings.Join(more, ""))
}

func TestHEICLosesItsMetadata(t *testing.T) {
	t.Parallel()
	for brand, is := range map[string]string{"heic": "image/heic", "mif1": "image/heif"} {
		raw := heic(brand, 1, isoBox("mpvd", "a film "+secret))
		require.Equal(t, 4, strings.Count(string(raw), secret))
		mime, cleaned, err := files.Clean("image/heic", raw)
		require.NoError(t, err)
		assert.Equal(t, is, mime)
		assert.NotContains(t, string(cleaned), secret)
		assert.NotContains(t, string(cleaned), "film")
		assert.Contains(t, string(cleaned), "picture")
		assert.Contains(t, string(cleaned), "properties")
		assert.Len(t, cleaned, len(raw), "offsets stay right")
	}
}

func TestHEICThatCannotBeCleanedIsRefused(t *testing.T) {
	t.Parallel()
	whole := heic("heic", 1)
	for name, raw := range map[string][]byte{
		"an item within an item":     heic("heic", 2),
		"no boxes":                   []byte(isoBox("ftyp", "heic", "\x00\x00\x00\x00", "mif1heic")),
		"cut off":                    whole[:len(whole)-3],
		"two boxes meta":             append(bytes.Clone(whole), isoBox("meta", "\x00\x00\x00\x00")...),
		"a location beyond the file": bytes.Replace(whole, []byte("\x00\x00\x00\x11"), []byte("\x7f\x00\x00\x11"), 1),
		"an item without a location": bytes.Replace(whole, []byte("\x44\x00\x00\x03"), []byte("\x44\x00\x00\x01"), 1),
	} {
		_, _, err := files.Clean("image/heic", raw)
		assert.Error(t, err, name)
	}
}

const pdf = "%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\nstartxref\n0\n%%EOF\n"

func dataURL(mime, content string) string {
	return "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString([]byte(content))
}

func TestContentDecides(t *testing.T) {
	t.Parallel()
	jpg := photo(t, picture(), 1)
	huge := bytes.Clone(jpg)
	at := bytes.Index(huge, []byte{0xFF, 0xC0})
	copy(huge[at+5:], []byte{0xFF, 0xFF, 0xFF, 0xFF})
	mime, cleaned, err := files.Clean("application/pdf", []byte(pdf))
	require.NoError(t, err)
	assert.Equal(t, "application/pdf", mime)
	assert.Equal(t, pdf, string(cleaned))
	for name, test := range map[string]struct{ declared, raw, why string }{
		"HTML as a PDF":                   {"application/pdf", "<html><script>alert(1)</script></html>", "no JPEG"},
		"HTML that begins like a PDF":     {"application/pdf", "%PDF-1.7\n<html><script>alert(1)</script>", "no whole PDF"},
		"HTML between the ends of a PDF":  {"application/pdf", "%PDF-1.7\n<script>alert(1)</script>\n%%EOF", "HTML"},
		"HTML before a PDF":               {"application/pdf", "<!doctype html>" + pdf, "no whole PDF"},
		"a PDF that is cut off":           {"application/pdf", pdf[:40], "no whole PDF"},
		"SVG":                             {"image/svg+xml", `<svg xmlns="http://www.w3.org/2000/svg"></svg>`, "no JPEG"},
		"SVG as a PNG":                    {"image/png", `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>`, "no JPEG"},
		"GIF":                             {"image/gif", "GIF89a\x01\x00\x01\x00\x00\x00\x00;", "no JPEG"},
		"text":                            {"image/png", "hello", "no JPEG"},
		"a photo as a PDF":                {"application/pdf", string(jpg), "declared"},
		"a PDF as a photo":                {"image/jpeg", pdf, "declared"},
		"a PDF as a page":                 {"text/html", pdf, "declared"},
		"a photo of too many pixels":      {"image/jpeg", string(huge), "50 megapixels"},
		"the begin of a JPEG":             {"image/jpeg", string(jpg[:30]), "damaged"},
		"the begin of a PNG":              {"image/png", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "damaged"},
		"a WebP that is cut off":          {"image/webp", "RIFF\xff\xff\x00\x00WEBPVP8 ", "damaged"},
		"a PNG that says it is very wide": {"image/png", "\x89PNG\r\n\x1a\n" + string(chunk("IHDR", "\xff\xff\xff\xff\x00\x00\x00\x01\x08\x06\x00\x00\x00")), "50 megapixels"},
	} {
		_, _, err := files.Clean(test.declared, []byte(test.raw))
		require.Error(t, err, name)
		assert.Contains(t, err.Error(), test.why, name)
	}
}

// FuzzClean looks for contents that make the parsers panic, and for metadata that is
// left in a cleaned photo when it is cleaned again.
func FuzzClean(f *testing.F) {
	f.Add("image/heic", heic("heic", 1))
	f.Add("image/png", []byte("\x89PNG\r\n\x1a\n"))
	f.Add("image/webp", []byte(riff("RIFF", "WEBP"+riff("VP8X", "\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00"))))
	f.Add("image/jpeg", append([]byte{0xFF, 0xD8}, segment(0xE1, "Exif\x00\x00"+string(exif(6)))...))
	f.Fuzz(func(t *testing.T, declared string, raw []byte) {
		_, cleaned, err := files.Clean(declared, raw)
		if err != nil {
			return
		}
		_, twice, err := files.Clean(declared, cleaned)
		if err != nil || !bytes.Equal(cleaned, twice) {
			t.Errorf("cleaned twice, it is another: %v", err)
		}
	})
}
