package api

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
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

// completeSchemas completes the schemas of answers: every member is required unless
// it is omitted when it is empty, no array is null, and later versions may add
// members. Requests are validated by their schemas, so a type of both requests and
// answers gets a second schema for answers.
func completeSchemas(api *huma.OpenAPI) {
	asked, answered := schemasIn{api, map[string]bool{}}, schemasIn{api, map[string]bool{}}
	answers := []map[string]*huma.MediaType{}
	for _, item := range api.Paths {
		for _, op := range OperationsOf(item) {
			if op.RequestBody != nil {
				asked.content(op.RequestBody.Content)
			}
			for _, response := range op.Responses {
				answers = append(answers, response.Content)
			}
		}
	}
	for _, response := range api.Components.Responses {
		answers = append(answers, response.Content)
	}
	for _, content := range answers {
		answered.content(content)
	}
	schemas := api.Components.Schemas.Map()
	for _, schema := range schemas {
		withoutOwnWords(schema)
	}
	second := map[string]string{} // by the reference that requests have
	for name := range answered.names {
		if asked.names[name] {
			second[SchemaPrefix+name] = SchemaPrefix + name + "View"
		}
	}
	for name := range answered.names {
		schema := schemas[name]
		if asked.names[name] {
			schema = copyOf(schema)
			schemas[name+"View"] = schema
		}
		refer(schema, second)
		for _, property := range schema.Properties {
			if property.Type == huma.TypeArray {
				property.Nullable = false
			}
		}
		schema.Required = alwaysThere(api.Components.Schemas.TypeFromRef(SchemaPrefix + name))
	}
	for name, schema := range schemas {
		if !asked.names[name] {
			open(schema)
		}
	}
	for _, content := range answers {
		for _, media := range content {
			refer(media.Schema, second)
		}
	}
}

// parts are the schemas within a schema.
func parts(schema *huma.Schema) []*huma.Schema {
	within := slices.Collect(maps.Values(schema.Properties))
	if schema.Items != nil {
		within = append(within, schema.Items)
	}
	if values, ok := schema.AdditionalProperties.(*huma.Schema); ok {
		within = append(within, values)
	}
	return within
}

// copyOf returns a copy that shares no part with the original.
func copyOf(schema *huma.Schema) *huma.Schema {
	made := *schema
	made.Properties = maps.Clone(schema.Properties)
	for name, property := range made.Properties {
		made.Properties[name] = copyOf(property)
	}
	if made.Items != nil {
		made.Items = copyOf(made.Items)
	}
	if values, ok := made.AdditionalProperties.(*huma.Schema); ok {
		made.AdditionalProperties = copyOf(values)
	}
	return &made
}

// open lets a schema, and those within it, have members that it does not name.
func open(schema *huma.Schema) {
	if schema.AdditionalProperties == false {
		schema.AdditionalProperties = true
	}
	for _, part := range parts(schema) {
		open(part)
	}
}

// refer replaces references.
func refer(schema *huma.Schema, to map[string]string) {
	schema.Ref = cmp.Or(to[schema.Ref], schema.Ref)
	for _, part := range parts(schema) {
		refer(part, to)
	}
}

// withoutOwnWords removes the framework's own keyword, which no other tool knows.
// The messages to callers that use it are made already.
func withoutOwnWords(schema *huma.Schema) {
	schema.PatternDescription = ""
	for _, part := range parts(schema) {
		withoutOwnWords(part)
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

// shareAnswers puts answers that several operations give alike in one place.
func shareAnswers(api *huma.OpenAPI) {
	uses := map[string]int{}
	each := func(do func(op *huma.Operation, name string)) {
		for _, item := range api.Paths {
			for _, op := range OperationsOf(item) {
				media := op.Responses["200"].Content["application/json"]
				if media != nil && media.Schema.Ref != "" {
					do(op, strings.TrimPrefix(media.Schema.Ref, SchemaPrefix))
				}
			}
		}
	}
	each(func(_ *huma.Operation, name string) { uses[name]++ })
	each(func(op *huma.Operation, name string) {
		if uses[name] > 1 {
			api.Components.Responses[name] = op.Responses["200"]
			op.Responses["200"] = &huma.Response{Ref: "#/components/responses/" + name}
		}
	})
}

// SchemaPrefix begins the references to schemas.
const SchemaPrefix = "#/components/schemas/"

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
	if name, ok := strings.CutPrefix(schema.Ref, SchemaPrefix); ok {
		if in.names[name] {
			return
		}
		in.names[name] = true
		schema = in.api.Components.Schemas.Map()[name]
	}
	for _, part := range parts(schema) {
		in.schema(part)
	}
}

// OperationsOf returns the operations of a path.
func OperationsOf(item *huma.PathItem) []*huma.Operation {
	var found []*huma.Operation
	for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
		if op != nil {
			found = append(found, op)
		}
	}
	return found
}
