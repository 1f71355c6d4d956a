package files

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/jpeg"
)

var errJPEG = refuse("The JPEG is damaged.")

// Markers of a JPEG (ITU-T T.81, table B.1).
const (
	markSOI  = 0xD8
	markEOI  = 0xD9
	markSOS  = 0xDA
	markAPP0 = 0xE0
	markAPP1 = 0xE1
	markAPP2 = 0xE2
	markAPPE = 0xEE
	markAPPF = 0xEF
	markCOM  = 0xFE
)

// jpegQuality is that of a photo which is encoded again.
const jpegQuality = 90

// cleanJPEG drops the metadata of a JPEG: EXIF, XMP, IPTC, comments, previews and what
// follows its end, such as the film of a live photo. The profile of its colours stays.
// If EXIF says that the photo is turned, it is turned and encoded again.
func cleanJPEG(raw []byte) ([]byte, error) {
	out := append(make([]byte, 0, len(raw)), 0xFF, markSOI)
	var profile []byte // the segments of the colours' profile
	orientation, sized, scanned := 1, false, false
	for at := 2; ; {
		marker, segment, next, err := nextSegment(raw, at)
		if err != nil {
			return nil, err
		}
		at = next
		switch {
		case marker == markEOI:
			if !sized || !scanned {
				return nil, errJPEG
			}
			out = append(out, 0xFF, markEOI)
			if orientation == 1 {
				return out, nil
			}
			return turn(out, orientation, profile)
		case marker == markAPP0 && bytes.HasPrefix(segment[4:], []byte("JFIF\x00")) && len(segment) >= 18:
			// Without its preview.
			out = append(out, 0xFF, markAPP0, 0, 16)
			out = append(append(out, segment[4:16]...), 0, 0)
			continue
		case marker == markAPP1:
			if found := exifOrientation(segment[4:]); found != 0 {
				orientation = found
			}
			continue
		case marker == markAPP2 && bytes.HasPrefix(segment[4:], []byte("ICC_PROFILE\x00")):
			profile = append(profile, segment...)
		case marker == markAPPE && bytes.HasPrefix(segment[4:], []byte("Adobe")): // how the colours are coded
		case marker >= markAPP0 && marker <= markAPPF, marker == markCOM:
			continue
		case marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC: // a frame
			if len(segment) < 9 {
				return nil, errJPEG
			}
			sized = true
			if err := checkPixels(int(binary.BigEndian.Uint16(segment[7:])), int(binary.BigEndian.Uint16(segment[5:]))); err != nil {
				return nil, err
			}
		}
		out = append(out, segment...)
		if marker == markSOS {
			scanned = true
			end := scanEnd(raw, at)
			out = append(out, raw[at:end]...)
			at = end
		}
	}
}

// nextSegment returns the segment at an offset with its marker, and the offset of the
// next one. A JPEG that was cut off ends at its end.
func nextSegment(raw []byte, at int) (marker byte, segment []byte, next int, err error) {
	for at+1 < len(raw) && raw[at] == 0xFF && raw[at+1] == 0xFF { // fill bytes
		at++
	}
	if at >= len(raw) {
		return markEOI, nil, at, nil
	}
	if at+1 >= len(raw) || raw[at] != 0xFF {
		return 0, nil, 0, errJPEG
	}
	marker = raw[at+1]
	if marker == markEOI {
		return marker, nil, at + 2, nil
	}
	if at+4 > len(raw) {
		return 0, nil, 0, errJPEG
	}
	next = at + 2 + int(binary.BigEndian.Uint16(raw[at+2:]))
	if next < at+4 || next > len(raw) {
		return 0, nil, 0, errJPEG
	}
	return marker, raw[at:next], next, nil
}

// scanEnd returns the offset of the marker after the coded data of a scan.
func scanEnd(raw []byte, at int) int {
	for ; at+1 < len(raw); at++ {
		if raw[at] != 0xFF {
			continue
		}
		if next := raw[at+1]; next != 0 && next != 0xFF && (next < 0xD0 || next > 0xD7) {
			return at
		}
	}
	return len(raw)
}

// exifOrientation returns the orientation that an APP1 segment names, 1 to 8, or 0.
func exifOrientation(payload []byte) int {
	const header, tag, entry = 6, 0x0112, 12
	if !bytes.HasPrefix(payload, []byte("Exif\x00\x00")) {
		return 0
	}
	tiff := payload[header:]
	if len(tiff) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.BigEndian
	if tiff[0] == 'I' {
		order = binary.LittleEndian
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return 0
	}
	count := int(order.Uint16(tiff[at:]))
	for entries := tiff[at+2:]; count > 0 && len(entries) >= entry; count, entries = count-1, entries[entry:] {
		if order.Uint16(entries) != tag {
			continue
		}
		if value := int(order.Uint16(entries[8:])); value >= 1 && value <= 8 {
			return value
		}
		return 0
	}
	return 0
}

// turn decodes a photo and encodes it upright, with its profile of colours.
func turn(raw []byte, orientation int, profile []byte) ([]byte, error) {
	photo, err := jpeg.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, errJPEG
	}
	photo = upright(photo, orientation)
	var encoded bytes.Buffer
	if err := jpeg.Encode(&encoded, photo, &jpeg.Options{Quality: jpegQuality}); err != nil {
		return nil, errJPEG
	}
	// The encoder writes no APP segments, so the profile is the first.
	out := append(make([]byte, 0, encoded.Len()+len(profile)), 0xFF, markSOI)
	return append(append(out, profile...), encoded.Bytes()[2:]...), nil
}

// upright returns a photo that is shown as its orientation says.
func upright(photo image.Image, orientation int) image.Image {
	size := photo.Bounds().Size()
	width, height := size.X, size.Y
	if orientation >= 5 {
		width, height = height, width
	}
	box := image.Rect(0, 0, width, height)
	switch p := photo.(type) {
	case *image.Gray:
		to := image.NewGray(box)
		turnPlane(plane{to.Pix, to.Stride, width, height}, plane{p.Pix, p.Stride, size.X, size.Y}, orientation)
		return to
	case *image.YCbCr:
		ratio, ok := turnedRatio(p.SubsampleRatio, orientation)
		if !ok {
			break
		}
		to := image.NewYCbCr(box, ratio)
		turnPlane(plane{to.Y, to.YStride, width, height}, plane{p.Y, p.YStride, size.X, size.Y}, orientation)
		chroma := func(stride int, pix []byte, of *image.YCbCr) plane {
			return plane{pix, stride, of.COffset(of.Rect.Max.X-1, of.Rect.Min.Y) + 1, of.COffset(of.Rect.Min.X, of.Rect.Max.Y-1)/stride + 1}
		}
		turnPlane(chroma(to.CStride, to.Cb, to), chroma(p.CStride, p.Cb, p), orientation)
		turnPlane(chroma(to.CStride, to.Cr, to), chroma(p.CStride, p.Cr, p), orientation)
		return to
	}
	to := image.NewRGBA(box)
	for y := range height {
		for x := range width {
			fromX, fromY := source(x, y, width, height, orientation)
			to.Set(x, y, photo.At(photo.Bounds().Min.X+fromX, photo.Bounds().Min.Y+fromY))
		}
	}
	return to
}

// turnedRatio is how the chroma of a turned photo is sampled.
func turnedRatio(ratio image.YCbCrSubsampleRatio, orientation int) (image.YCbCrSubsampleRatio, bool) {
	switch ratio {
	case image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio420:
		return ratio, true
	case image.YCbCrSubsampleRatio422:
		if orientation >= 5 {
			return image.YCbCrSubsampleRatio440, true
		}
		return ratio, true
	case image.YCbCrSubsampleRatio440:
		if orientation >= 5 {
			return image.YCbCrSubsampleRatio422, true
		}
		return ratio, true
	default:
		return ratio, false
	}
}

// plane is one component of a photo, a byte for each sample.
type plane struct {
	pix                   []byte
	stride, width, height int
}

func turnPlane(to, from plane, orientation int) {
	for y := range to.height {
		for x := range to.width {
			fromX, fromY := source(x, y, to.width, to.height, orientation)
			to.pix[y*to.stride+x] = from.pix[fromY*from.stride+fromX]
		}
	}
}

// source returns where the sample at x, y of an upright photo is in the photo as it was
// taken (TIFF 6.0, "Orientation"). width and height are those of the upright photo.
func source(x, y, width, height, orientation int) (fromX, fromY int) {
	switch orientation {
	case 2:
		return width - 1 - x, y
	case 3:
		return width - 1 - x, height - 1 - y
	case 4:
		return x, height - 1 - y
	case 5:
		return y, x
	case 6:
		return y, width - 1 - x
	case 7:
		return height - 1 - y, width - 1 - x
	case 8:
		return height - 1 - y, x
	default:
		return x, y
	}
}
