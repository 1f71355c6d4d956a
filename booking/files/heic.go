package files

import (
	"encoding/binary"
	"slices"
)

// errHEIC refuses a HEIC whose metadata can't be found for sure.
var errHEIC = refuse("The HEIC is damaged, or of a form that can't be cleaned of metadata. Send a JPEG.")

// cleanHEIC overwrites the metadata of a HEIC with zeros (ISO/IEC 14496-12, 23008-12): the
// items of EXIF and XMP, and the boxes that are not needed to show the photo. Nothing
// moves, because the file is full of offsets.
func cleanHEIC(raw []byte) ([]byte, error) {
	out := slices.Clone(raw)
	boxes, err := boxesOf(out)
	if err != nil || len(boxes) == 0 || boxes[0].name != "ftyp" {
		return nil, errHEIC
	}
	cleaned := false
	for _, b := range boxes {
		switch b.name {
		case "ftyp", "mdat":
		case "meta":
			if cleaned {
				return nil, errHEIC
			}
			if err := cleanMeta(out, b.payload); err != nil {
				return nil, err
			}
			cleaned = true
		default: // films, previews of makers and notes
			copy(b.header[4:8], "free")
			clear(b.payload)
		}
	}
	if !cleaned {
		return nil, errHEIC
	}
	return out, nil
}

// box is a box of an ISO file. Its slices are parts of the file.
type box struct {
	name            string
	header, payload []byte
}

// boxesOf returns the boxes that follow each other in data.
func boxesOf(data []byte) ([]box, error) {
	var list []box
	for len(data) > 0 {
		if len(data) < 8 {
			return nil, errHEIC
		}
		size, header := uint64(binary.BigEndian.Uint32(data)), uint64(8)
		switch size {
		case 0: // to the end
			size = uint64(len(data))
		case 1:
			if len(data) < 16 {
				return nil, errHEIC
			}
			size, header = binary.BigEndian.Uint64(data[8:]), 16
		}
		if size < header || size > uint64(len(data)) {
			return nil, errHEIC
		}
		list = append(list, box{string(data[4:8]), data[:header], data[header:size]})
		data = data[size:]
	}
	return list, nil
}

// fields reads the fields of a box in order. After the first that is missing, bad is set
// and all are 0.
type fields struct {
	data []byte
	bad  bool
}

// number reads a number of 0 to 8 bytes.
func (f *fields) number(size int) uint64 {
	if len(f.data) < size {
		f.bad = true
	}
	if f.bad {
		return 0
	}
	var n uint64
	for _, b := range f.data[:size] {
		n = n<<8 | uint64(b)
	}
	f.data = f.data[size:]
	return n
}

// text reads a text of a given size.
func (f *fields) text(size int) string {
	if len(f.data) < size {
		f.bad = true
	}
	if f.bad {
		return ""
	}
	text := string(f.data[:size])
	f.data = f.data[size:]
	return text
}

// versioned reads the version of a full box and skips its flags.
func (f *fields) versioned() uint64 {
	version := f.number(1)
	f.number(3)
	return version
}

// cleanMeta overwrites the items with metadata that the box meta names.
func cleanMeta(file, meta []byte) error {
	if len(meta) < 4 {
		return errHEIC
	}
	boxes, err := boxesOf(meta[4:])
	if err != nil {
		return err
	}
	var infos, locations, data *box
	for i := range boxes {
		var to **box
		switch boxes[i].name {
		case "iinf":
			to = &infos
		case "iloc":
			to = &locations
		case "idat":
			to = &data
		case "hdlr", "pitm", "iprp", "iref", "dinf", "grpl", "free", "skip":
			continue
		default:
			copy(boxes[i].header[4:8], "free")
			clear(boxes[i].payload)
			continue
		}
		if *to != nil {
			return errHEIC
		}
		*to = &boxes[i]
	}
	if infos == nil || locations == nil {
		return errHEIC
	}
	items, err := metadataItems(infos.payload)
	if err != nil {
		return err
	}
	var inside []byte
	if data != nil {
		inside = data.payload
	}
	return clearItems(file, inside, locations.payload, items)
}

// metadataItems returns the ids of the items of EXIF, XMP and other texts.
func metadataItems(payload []byte) (map[uint64]bool, error) {
	f := &fields{data: payload}
	size := 2
	if f.versioned() != 0 {
		size = 4
	}
	f.number(size) // the count
	if f.bad {
		return nil, errHEIC
	}
	entries, err := boxesOf(f.data)
	if err != nil {
		return nil, err
	}
	items := map[uint64]bool{}
	for _, e := range entries {
		f := &fields{data: e.payload}
		version := f.versioned()
		if e.name != "infe" || version < 2 || version > 3 {
			return nil, errHEIC // older entries have no type
		}
		size := 2
		if version == 3 {
			size = 4
		}
		id := f.number(size)
		f.number(2) // the protection
		kind := f.text(4)
		if f.bad {
			return nil, errHEIC
		}
		if kind == "Exif" || kind == "mime" || kind == "uri " {
			items[id] = true
		}
	}
	return items, nil
}

// clearItems overwrites the extents of items. inside is the payload of idat.
func clearItems(file, inside, payload []byte, items map[uint64]bool) error {
	f := &fields{data: payload}
	version := f.versioned()
	if version > 2 {
		return errHEIC
	}
	sizes := f.number(2)
	offsetSize, lengthSize, baseSize, indexSize := int(sizes>>12), int(sizes>>8&15), int(sizes>>4&15), int(sizes&15)
	if max(offsetSize, lengthSize, baseSize, indexSize) > 8 {
		return errHEIC
	}
	idSize := 2
	if version == 2 {
		idSize = 4
	}
	found := 0
	for count := f.number(idSize); count > 0 && !f.bad; count-- {
		id := f.number(idSize)
		method := uint64(0)
		if version > 0 {
			method = f.number(2) & 15
		}
		reference := f.number(2)
		base := f.number(baseSize)
		if items[id] {
			found++
		}
		for extents := f.number(2); extents > 0 && !f.bad; extents-- {
			if version > 0 {
				f.number(indexSize)
			}
			offset, length := f.number(offsetSize), f.number(lengthSize)
			if !items[id] || f.bad {
				continue
			}
			in := file
			switch {
			case reference != 0 || method > 1:
				return errHEIC // in another file, or within another item
			case method == 1:
				in = inside
			}
			// An extent without a length would be all of the file.
			from := base + offset
			if length == 0 || from < base || from > uint64(len(in)) || length > uint64(len(in))-from {
				return errHEIC
			}
			clear(in[from : from+length])
		}
	}
	if f.bad || found != len(items) {
		return errHEIC
	}
	return nil
}
