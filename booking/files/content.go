package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// maxPixels bounds a photo, whose decoding takes up to 6 bytes for each pixel.
const maxPixels = 50_000_000

// kindOfContent is a type of content that is accepted.
type kindOfContent struct {
	mime  string
	image bool
	// extensions are those of names, the usual one first.
	extensions []string
	// clean checks the content and returns it without metadata.
	clean func(raw []byte) ([]byte, error)
}

// accepted are the types of content by what mimetype detects. SVG is not among them: it
// is a document with scripts.
var accepted = map[string]kindOfContent{
	"image/jpeg":      {"image/jpeg", true, []string{".jpg", ".jpeg", ".jpe", ".jfif"}, cleanJPEG},
	"image/png":       {"image/png", true, []string{".png", ".apng"}, cleanPNG},
	"image/webp":      {"image/webp", true, []string{".webp"}, cleanWebP},
	"image/heic":      {"image/heic", true, []string{".heic", ".heif"}, cleanHEIC},
	"image/heif":      {"image/heif", true, []string{".heif", ".heic"}, cleanHEIC},
	"application/pdf": {"application/pdf", false, []string{".pdf"}, checkPDF},
}

// refusal says why a content is refused.
type refusal struct{ why string }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// Error implements error.
func (r *refusal) Error() string { return r.why }

// clean detects what a content is, compares it with the declared type and returns it
// without metadata. It fails with a refusal.
func (s *Service) clean(ctx context.Context, declared string, raw []byte) (kindOfContent, []byte, error) {
	var t kindOfContent
	known := false
	for m := mimetype.Detect(raw); m != nil && !known; m = m.Parent() {
		t, known = accepted[strings.ToLower(m.String())]
	}
	if !known {
		return t, nil, refuse("The content is no JPEG, PNG, WebP, HEIC or PDF.")
	}
	if strings.HasPrefix(declared, "image/") != t.image || !t.image && declared != "application/pdf" {
		return t, nil, refuse("The content is %s, but %q was declared.", t.mime, declared)
	}
	select {
	case s.decoding <- struct{}{}:
		defer func() { <-s.decoding }()
	case <-ctx.Done():
		return t, nil, ctx.Err()
	}
	cleaned, err := t.clean(raw)
	if err == nil && !t.stays(cleaned) {
		// A metadata item of a HEIC may name bytes of the file's own structure.
		return t, nil, refuse("The file is damaged.")
	}
	if err == nil && len(cleaned) > MaxSize { // a rotated photo is encoded again
		err = refuse("A file has at most %d MiB.", MaxSize>>20)
	}
	return t, cleaned, err
}

// stays reports whether a cleaned content is of the same kind, and clean.
func (t kindOfContent) stays(cleaned []byte) bool {
	for m := mimetype.Detect(cleaned); m != nil; m = m.Parent() {
		if same, known := accepted[strings.ToLower(m.String())]; known {
			again, err := t.clean(cleaned)
			return err == nil && same.mime == t.mime && bytes.Equal(again, cleaned)
		}
	}
	return false
}

func checkPixels(width, height int) error {
	if width < 1 || height < 1 {
		return refuse("The photo has no size.")
	}
	if width > maxPixels || height > maxPixels || width*height > maxPixels {
		return refuse("A photo has at most %d megapixels.", maxPixels/1_000_000)
	}
	return nil
}

var (
	pdfHeader = regexp.MustCompile(`^%PDF-[0-9]\.[0-9][ \t]*[\r\n]`)
	markup    = regexp.MustCompile(`(?i)<(!doctype|html|head|body|script|svg|iframe|object|embed|form)[\s>/]`)
)

// pdfEnd is how far from the end of a PDF its last line may be, in bytes. Readers accept
// it in the last kilobyte.
const pdfEnd = 1024

// checkPDF refuses what only begins like a PDF. A PDF keeps its metadata.
func checkPDF(raw []byte) ([]byte, error) {
	if !pdfHeader.Match(raw) || !bytes.Contains(raw[max(0, len(raw)-pdfEnd):], []byte("%%EOF")) {
		return nil, refuse("The file is no whole PDF.")
	}
	if markup.Match(raw[:min(len(raw), pdfEnd)]) {
		return nil, refuse("The file is a page of HTML that begins like a PDF.")
	}
	return raw, nil
}

var errPNG = refuse("The PNG is damaged.")

// pngChunks are the chunks of a PNG that say how it looks. All others are dropped: texts,
// EXIF, times and what only some programs know.
var pngChunks = map[string]bool{
	"IHDR": true, "PLTE": true, "IDAT": true, "IEND": true, "tRNS": true, "cHRM": true, "gAMA": true, "iCCP": true, "sBIT": true,
	"sRGB": true, "bKGD": true, "hIST": true, "pHYs": true, "sPLT": true, "cICP": true, "mDCV": true, "cLLI": true,
	"acTL": true, "fcTL": true, "fdAT": true,
}

// cleanPNG drops the chunks with metadata and what follows the end.
func cleanPNG(raw []byte) ([]byte, error) {
	const signature, overhead = 8, 12
	out := make([]byte, 0, len(raw))
	out = append(out, raw[:signature]...)
	seen := map[string]bool{}
	for rest := raw[signature:]; ; {
		if len(rest) < overhead {
			return nil, errPNG
		}
		size := uint64(binary.BigEndian.Uint32(rest))
		if size > uint64(len(rest)-overhead) {
			return nil, errPNG
		}
		name, chunk := string(rest[4:8]), rest[:size+overhead]
		rest = rest[size+overhead:]
		if len(seen) == 0 {
			if name != "IHDR" || size != 13 {
				return nil, errPNG
			}
			width, height := binary.BigEndian.Uint32(chunk[8:]), binary.BigEndian.Uint32(chunk[12:])
			if err := checkPixels(int(width), int(height)); err != nil {
				return nil, err
			}
		}
		seen[name] = true
		if pngChunks[name] {
			out = append(out, chunk...)
		}
		if name == "IEND" {
			if !seen["IDAT"] {
				return nil, errPNG
			}
			return out, nil
		}
	}
}

var errWebP = refuse("The WebP is damaged.")

// vp8 is the name of the chunk of a photo with loss.
const vp8 = "VP8 "

// webpChunks are the chunks of a WebP that say how it looks.
var webpChunks = map[string]bool{
	"VP8X": true, vp8: true, "VP8L": true, "ALPH": true, "ANIM": true, "ANMF": true, "ICCP": true,
}

const (
	riffHeader = 8 // a name and a size
	// frameHeader is what stands before the chunks of a frame of an animation.
	frameHeader = 16
	// webpMetadata are the flags of EXIF and XMP in VP8X.
	webpMetadata = 0x08 | 0x04
)

// cleanWebP drops the chunks with metadata and clears their flags.
func cleanWebP(raw []byte) ([]byte, error) {
	const container = 12
	if len(raw) < container || string(raw[:4]) != "RIFF" || string(raw[8:12]) != "WEBP" {
		return nil, errWebP
	}
	size := uint64(binary.LittleEndian.Uint32(raw[4:])) + riffHeader
	if size > uint64(len(raw)) || size < container {
		return nil, errWebP
	}
	out, err := cleanRIFF(append(make([]byte, 0, len(raw)), raw[:container]...), raw[container:size], true)
	if err != nil {
		return nil, err
	}
	if len(out) == container {
		return nil, errWebP
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-riffHeader))
	return out, nil
}

// cleanRIFF appends the chunks that stay to out.
func cleanRIFF(out, chunks []byte, outermost bool) ([]byte, error) {
	for len(chunks) > 0 {
		if len(chunks) < riffHeader {
			return nil, errWebP
		}
		name, size := string(chunks[:4]), uint64(binary.LittleEndian.Uint32(chunks[4:]))
		if size > uint64(len(chunks)-riffHeader) {
			return nil, errWebP
		}
		payload := chunks[riffHeader : riffHeader+size]
		chunks = chunks[min(uint64(len(chunks)), riffHeader+size+size&1):]
		if !webpChunks[name] {
			continue
		}
		if err := checkWebP(name, payload); err != nil {
			return nil, err
		}
		began := len(out)
		out = append(append(out, name...), 0, 0, 0, 0)
		if name == "ANMF" && outermost {
			if len(payload) < frameHeader {
				return nil, errWebP
			}
			var err error
			if out, err = cleanRIFF(append(out, payload[:frameHeader]...), payload[frameHeader:], false); err != nil {
				return nil, err
			}
		} else {
			out = append(out, payload...)
		}
		if name == "VP8X" {
			out[began+riffHeader] &^= webpMetadata
		}
		length := len(out) - began - riffHeader
		binary.LittleEndian.PutUint32(out[began+4:], uint32(length))
		if length%2 == 1 {
			out = append(out, 0)
		}
	}
	return out, nil
}

// checkWebP checks the size of a picture in a chunk.
func checkWebP(name string, payload []byte) error {
	three := func(at int) int { return int(payload[at]) | int(payload[at+1])<<8 | int(payload[at+2])<<16 }
	switch {
	case name == "VP8X" && len(payload) >= 10:
		return checkPixels(three(4)+1, three(7)+1)
	case name == vp8 && len(payload) >= 10:
		const mask = 1<<14 - 1
		return checkPixels(int(binary.LittleEndian.Uint16(payload[6:]))&mask, int(binary.LittleEndian.Uint16(payload[8:]))&mask)
	case name == "VP8L" && len(payload) >= 5:
		const mask = 1<<14 - 1
		bits := binary.LittleEndian.Uint32(payload[1:])
		return checkPixels(int(bits&mask)+1, int(bits>>14&mask)+1)
	case name == "VP8X", name == vp8, name == "VP8L":
		return errWebP
	}
	return nil
}
