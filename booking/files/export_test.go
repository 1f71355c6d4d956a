package files

import "context"

// Clean is the check of a content, and the content without metadata.
func Clean(declared string, raw []byte) (mime string, cleaned []byte, err error) {
	s := &Service{decoding: make(chan struct{}, 1)}
	t, cleaned, err := s.clean(context.Background(), declared, raw)
	return t.mime, cleaned, err
}
