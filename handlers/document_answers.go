package handlers

import (
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/models"
)

// TransformSchema implements huma.SchemaTransformer: a code is one of the catalogue.
func (*Problem) TransformSchema(_ huma.Registry, schema *huma.Schema) *huma.Schema {
	code := schema.Properties["code"]
	for _, f := range models.Failures {
		code.Enum = append(code.Enum, string(f.Code))
	}
	return schema
}

// completeSchemas adds to the schemas of answers what the framework does not say:
// every member is required unless it is omitted when it is empty, and no array is
// null. Schemas that requests use too stay as they are, because the framework
// checks requests by them.
func completeSchemas(api *huma.OpenAPI) {
	asked, answered := schemasIn{api, map[string]bool{}}, schemasIn{api, map[string]bool{}}
	for _, item := range api.Paths {
		for _, op := range operationsOf(item) {
			if op.RequestBody != nil {
				asked.content(op.RequestBody.Content)
			}
			for _, response := range op.Responses {
				answered.content(response.Content)
			}
		}
	}
	for _, response := range api.Components.Responses {
		answered.content(response.Content)
	}
	for name, schema := range api.Components.Schemas.Map() {
		for _, property := range schema.Properties {
			withoutOwnWords(property)
			if answered.names[name] && !asked.names[name] && property.Type == huma.TypeArray {
				property.Nullable = false
			}
		}
		if answered.names[name] && !asked.names[name] {
			schema.Required = alwaysThere(api.Components.Schemas.TypeFromRef(schemaPrefix + name))
		}
	}
}

// withoutOwnWords removes the framework's own keyword, which no other tool knows.
// The messages to callers that use it are made already.
func withoutOwnWords(schema *huma.Schema) {
	schema.PatternDescription = ""
	if schema.Items != nil {
		withoutOwnWords(schema.Items)
	}
}

// alwaysThere lists the members of a type that its JSON never omits.
func alwaysThere(t reflect.Type) []string {
	var names []string
	for _, field := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "" || name == "-" || strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") {
			continue
		}
		names = append(names, name)
	}
	return names
}

const schemaPrefix = "#/components/schemas/"

// schemasIn collects the names of the schemas that something refers to.
type schemasIn struct {
	api   *huma.OpenAPI
	names map[string]bool
}

func (in schemasIn) content(content map[string]*huma.MediaType) {
	for _, media := range content {
		in.schema(media.Schema)
	}
}

func (in schemasIn) schema(schema *huma.Schema) {
	if schema == nil {
		return
	}
	if name, ok := strings.CutPrefix(schema.Ref, schemaPrefix); ok {
		if in.names[name] {
			return
		}
		in.names[name] = true
		schema = in.api.Components.Schemas.Map()[name]
	}
	in.schema(schema.Items)
	for _, property := range schema.Properties {
		in.schema(property)
	}
	if values, ok := schema.AdditionalProperties.(*huma.Schema); ok {
		in.schema(values)
	}
}

func operationsOf(item *huma.PathItem) []*huma.Operation {
	var found []*huma.Operation
	for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
		if op != nil {
			found = append(found, op)
		}
	}
	return found
}
