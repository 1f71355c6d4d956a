package handlers

import "nowserving/models"

// translationBody is a text in two languages.
type translationBody struct {
	En string `json:"en" maxLength:"5000"`
	Ar string `json:"ar" maxLength:"5000"`
}

// NamedBody changes the name and the description of a booking type or a resource.
type NamedBody struct {
	Name                    *string          `json:"name" maxLength:"200"`
	NameTranslations        *translationBody `json:"name_translations"`
	Description             *string          `json:"description" maxLength:"5000"`
	DescriptionTranslations *translationBody `json:"description_translations"`
}

// renaming describes in the API reference how a name and its translations change.
const renaming = "A name or description is in the language of the header lang: a translation for that language changes with it, unless the request has one too."

// rename changes a name and a description, and their translations. A text without
// translations is in lang.
func (b NamedBody) rename(name *string, names *models.Translation, description *string, descriptions *models.Translation, lang string) {
	setText(name, names, b.Name, b.NameTranslations, lang)
	if *name == "" { // one language is enough
		*name = names.In("en", names.Ar)
	}
	setText(description, descriptions, b.Description, b.DescriptionTranslations, lang)
}

// setText changes a text and its translations. A reader sees the translation of
// their language before the text, so a new text changes that of lang if there is
// one, unless the request has one too. The text itself is in English or, without
// translations, in the only language there is.
func setText(text *string, translations *models.Translation, given *string, translated *translationBody, lang string) {
	if translated != nil {
		*translations = models.Translation{En: translated.En, Ar: translated.Ar}
	}
	if given == nil {
		return
	}
	shown := &translations.En
	if lang == "ar" {
		shown = &translations.Ar
	}
	if *shown == "" || lang != "ar" || *text == "" {
		*text = *given
	}
	if *shown != "" && translated == nil {
		*shown = *given
	}
}

// NamedView is the id, the name and the description of a booking type or a resource.
type NamedView struct {
	ID                      string             `json:"id"`
	Name                    string             `json:"name" doc:"In the language asked for."`
	NameTranslations        models.Translation `json:"name_translations"`
	Description             string             `json:"description"`
	DescriptionTranslations models.Translation `json:"description_translations"`
}

// in returns the view with the name and the description in lang, if there are
// translations for it.
func (v NamedView) in(lang string) NamedView {
	v.Name, v.Description = v.NameTranslations.In(lang, v.Name), v.DescriptionTranslations.In(lang, v.Description)
	return v
}
