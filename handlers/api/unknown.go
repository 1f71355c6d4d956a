package api

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/agnivade/levenshtein"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
)

// strictNames makes the framework compare the names of members exactly. By
// default it takes Name for name. The setting is global to the process.
var strictNames = sync.OnceFunc(func() { huma.ValidateStrictCasing = true })

// unknownField is the message for a member that an operation does not know.
const unknownField = "Unknown member"

// unknownMember reports whether an error of the framework is about a member that
// the operation does not know, and says which known member was probably meant.
func (a *API) unknownMember(op *huma.Operation, d *huma.ErrorDetail) (message string, unknown bool) {
	if d.Message != validation.MsgUnexpectedProperty || op == nil || op.RequestBody == nil {
		return "", false
	}
	schema := op.RequestBody.Content["application/json"].Schema
	rest, _ := strings.CutPrefix(d.Location, "body.")
	schema = a.resolved(schema)
	if schema != nil && schema.Type == huma.TypeArray { // the location is body[0].name
		schema = a.resolved(schema.Items)
		_, rest, _ = strings.Cut(rest, ".")
	}
	for schema != nil {
		name, further, more := strings.Cut(rest, ".")
		next := a.member(schema, name)
		if !more || next == nil || next.Type != huma.TypeObject {
			break // the name of the unknown member may itself have dots
		}
		schema, rest = next, further
	}
	if schema == nil {
		return unknownField + ".", true
	}
	known := make([]string, 0, len(schema.Properties))
	for name := range schema.Properties {
		known = append(known, name)
	}
	slices.Sort(known)
	if meant := nearest(rest, known); meant != "" {
		return unknownField + "; did you mean " + meant + "?", true
	}
	return unknownField + ".", true
}

func (a *API) resolved(schema *huma.Schema) *huma.Schema {
	for schema != nil && schema.Ref != "" {
		schema = a.huma.OpenAPI().Components.Schemas.SchemaFromRef(schema.Ref)
	}
	return schema
}

var index = regexp.MustCompile(`\[\d+\]`)

// member is the schema of a member, or of an item if the name ends in an index;
// nil if there is none.
func (a *API) member(schema *huma.Schema, name string) *huma.Schema {
	plain := index.ReplaceAllString(name, "")
	items := len(index.FindAllString(name, -1))
	next := schema.Properties[plain]
	if next == nil {
		next, _ = schema.AdditionalProperties.(*huma.Schema)
	}
	for next = a.resolved(next); items > 0 && next != nil; items-- {
		next = a.resolved(next.Items)
	}
	return next
}

// nearest is the known name that a caller probably meant, or "" if none is close.
// It is the one that differs in the fewest letters, at most a third of them, without
// regard to case; failing that, the longest that contains the name or is part of it.
func nearest(name string, known []string) string {
	name = strings.ToLower(name)
	closest, fewest := "", len(name)/3
	part := ""
	for _, k := range known {
		other := strings.ToLower(k)
		if max(len(name)-len(other), len(other)-len(name)) <= fewest { // else it differs in more
			if d := levenshtein.ComputeDistance(name, other); d < fewest || d == fewest && closest == "" {
				closest, fewest = k, d
			}
		}
		if min(len(name), len(other)) > 2 && len(other) > len(part) && (strings.Contains(name, other) || strings.Contains(other, name)) {
			part = k
		}
	}
	return cmp.Or(closest, part)
}
