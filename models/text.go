package models

// Text returns the text at s, or "" if s is nil.
func Text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
