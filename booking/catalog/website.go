package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// maxFixedTimes bounds the fixed times of a website, as calendar.NewGrid does.
	maxFixedTimes = 200
	// minutesOfDay are the minutes of a day.
	minutesOfDay = 24 * 60
	// maxSuggestedTimes bounds how many times of a day a website suggests.
	maxSuggestedTimes = 50
	// maxWebsiteObjects bounds the objects of a website together, in bytes of JSON.
	maxWebsiteObjects = 64 << 10
)

// Website returns a version of an organization's website. A draft that was never stored
// is the default version; a default version that was never stored is made from o.
func (c *Catalog) Website(ctx context.Context, o *models.Organization, version models.VersionName) (models.Website, error) {
	return websiteOf(c.store.Read(ctx), o, version)
}

func websiteOf(db *gorm.DB, o *models.Organization, version models.VersionName) (models.Website, error) {
	stored, err := websitesOf(db, o.ID)
	for _, name := range []models.VersionName{version, models.VersionDefault} {
		if w, ok := stored[name]; ok {
			return w, err
		}
	}
	return models.DefaultWebsite(o), err
}

// websitesOf returns the versions that an organization has stored.
func websitesOf(db *gorm.DB, organizationID string) (map[models.VersionName]models.Website, error) {
	var rows []models.WebsiteVersion
	if err := db.Where("organization_id = ?", organizationID).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("read a website: %w", err)
	}
	stored := make(map[models.VersionName]models.Website, len(rows))
	for _, row := range rows {
		stored[row.Version] = row.Data
	}
	return stored, nil
}

// ChangeWebsite changes a version of an organization's website.
func (c *Catalog) ChangeWebsite(
	ctx context.Context, organizationID string, version models.VersionName, change func(w *models.Website) error,
) (w models.Website, err error) {
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		// A website that is not there yet can't be locked, but its organization can.
		o, err := organization(tx.DB, c.store.Lock(tx), organizationID)
		if err != nil {
			return err
		}
		if w, err = websiteOf(tx.DB, o, version); err != nil {
			return err
		}
		if err := change(&w); err != nil {
			return err
		}
		if err := checkWebsite(&w); err != nil {
			return err
		}
		return saveWebsite(tx, models.WebsiteVersion{OrganizationID: organizationID, Version: version, Data: w}, "updateWebsite")
	})
	return w, err
}

// PublishWebsite copies the draft of a website over the default version, and returns that
// version. Without a stored draft nothing is changed.
func (c *Catalog) PublishWebsite(ctx context.Context, organizationID string) (w models.Website, err error) {
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		o, err := organization(tx.DB, c.store.Lock(tx), organizationID)
		if err != nil {
			return err
		}
		stored, err := websitesOf(tx.DB, organizationID)
		if err != nil {
			return err
		}
		draft, ok := stored[models.VersionDraft]
		if !ok {
			w, err = websiteOf(tx.DB, o, models.VersionDefault)
			return err
		}
		w = draft
		return saveWebsite(tx, models.WebsiteVersion{OrganizationID: organizationID, Version: models.VersionDefault, Data: w}, "publishWebsite")
	})
	return w, err
}

func saveWebsite(tx *store.Tx, row models.WebsiteVersion, action string) error {
	row.UpdatedAt = tx.Now
	if err := tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(&row).Error; err != nil {
		return fmt.Errorf("store a website: %w", err)
	}
	return tx.Audit(row.OrganizationID, action, "website", string(row.Version))
}

func checkWebsite(w *models.Website) error {
	if err := checkTimezone(w.Timezone); err != nil {
		return err
	}
	if w.SuggestedTimes < 1 || w.SuggestedTimes > maxSuggestedTimes {
		return models.Invalid("suggestedTimes", "A website suggests 1 to %d times of a day.", maxSuggestedTimes)
	}
	if len(w.FixedTimes) > maxFixedTimes {
		return models.Invalid("fixedTimes", "Give at most %d times.", maxFixedTimes)
	}
	for _, minute := range w.FixedTimes {
		if minute < 0 || minute >= minutesOfDay {
			return models.Invalid("fixedTimes", "Give minutes from midnight, 0 to %d.", minutesOfDay-1)
		}
	}
	if w.EmailSupport != "" {
		address, err := mail.ParseAddress(w.EmailSupport)
		if err != nil || address.Address != w.EmailSupport {
			return models.Invalid("emailSupport", "This is not an e-mail address.")
		}
	}
	size := 0
	for _, object := range []models.Fields{w.Theme, w.Map, w.Logo, w.LogoFavIcon} {
		text, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("read an object of a website: %w", err)
		}
		size += len(text)
	}
	if size > maxWebsiteObjects {
		return models.Invalid("theme", "Theme, map, logo and logoFavIcon take at most %d bytes together.", maxWebsiteObjects)
	}
	return checkColors("theme", false, map[string]any(w.Theme))
}

// checkColors refuses texts that are no colours in the members of a theme that hold
// colours, because pages write them into style sheets.
func checkColors(name string, colors bool, value any) error {
	switch v := value.(type) {
	case map[string]any:
		for key, member := range v {
			lower := strings.ToLower(key)
			holds := colors || strings.HasSuffix(lower, "color") || strings.HasSuffix(lower, "colors")
			if err := checkColors(name+"."+key, holds, member); err != nil {
				return err
			}
		}
	case []any:
		for _, item := range v {
			if err := checkColors(name, colors, item); err != nil {
				return err
			}
		}
	case string:
		if colors && v != "" && !isColor(v) {
			return models.Invalid(name, "Give a colour such as #09f, #0099ff or teal.")
		}
	}
	return nil
}

var hexColor = regexp.MustCompile(`^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6}|[0-9A-Fa-f]{8})$`)

func isColor(text string) bool {
	return hexColor.MatchString(text) || slices.Contains(colorNames, strings.ToLower(text))
}

// colorNames are the named colours of CSS Color Module Level 4, and transparent.
var colorNames = strings.Fields(`
	aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond blue blueviolet brown burlywood cadetblue
	chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue darkcyan darkgoldenrod darkgray darkgreen
	darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid darkred darksalmon darkseagreen darkslateblue
	darkslategray darkslategrey darkturquoise darkviolet deeppink deepskyblue dimgray dimgrey dodgerblue firebrick
	floralwhite forestgreen fuchsia gainsboro ghostwhite gold goldenrod gray green greenyellow grey honeydew hotpink
	indianred indigo ivory khaki lavender lavenderblush lawngreen lemonchiffon lightblue lightcoral lightcyan
	lightgoldenrodyellow lightgray lightgreen lightgrey lightpink lightsalmon lightseagreen lightskyblue lightslategray
	lightslategrey lightsteelblue lightyellow lime limegreen linen magenta maroon mediumaquamarine mediumblue mediumorchid
	mediumpurple mediumseagreen mediumslateblue mediumspringgreen mediumturquoise mediumvioletred midnightblue mintcream
	mistyrose moccasin navajowhite navy oldlace olive olivedrab orange orangered orchid palegoldenrod palegreen
	paleturquoise palevioletred papayawhip peachpuff peru pink plum powderblue purple rebeccapurple red rosybrown royalblue
	saddlebrown salmon sandybrown seagreen seashell sienna silver skyblue slateblue slategray slategrey snow springgreen
	steelblue tan teal thistle tomato transparent turquoise violet wheat white whitesmoke yellow yellowgreen`)

// IDAtOrigin returns the id of the organization that allows a web origin; of several,
// that of the oldest, so that a later one can't take its address. It fails with
// CodeOrgMissing if there is none.
func (c *Catalog) IDAtOrigin(ctx context.Context, origin string) (string, error) {
	var ids []string
	err := c.store.Read(ctx).Table("organization_origins AS p").Joins("JOIN organizations o ON o.id = p.organization_id").
		Where("p.origin = ? AND o.deleted_at IS NULL", origin).Order("o.created_at, o.id").Limit(1).Pluck("o.id", &ids).Error
	if err != nil {
		return "", fmt.Errorf("look for an origin: %w", err)
	}
	if len(ids) == 0 {
		return "", models.Errorf(models.CodeOrgMissing, "No organization has a website at this address.")
	}
	return ids[0], nil
}
