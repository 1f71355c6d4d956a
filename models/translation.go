package models

// Translation holds a text in the languages of the product.
type Translation struct {
	En string `json:"en,omitempty"`
	Ar string `json:"ar,omitempty"`
}

// In returns the text in a language, or fallback if there is none.
func (t Translation) In(lang, fallback string) string {
	text := t.En
	if lang == "ar" {
		text = t.Ar
	}
	if text == "" {
		return fallback
	}
	return text
}
