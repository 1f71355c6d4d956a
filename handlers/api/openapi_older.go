package api

import (
	"encoding/json"
	"maps"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// olderOpenAPI writes the document for tools that know OpenAPI 3.0 only. That has
// no webhooks. What only those use is left out too. What the framework's own conversion leaves of 3.1 is converted here.
func olderOpenAPI(api huma.OpenAPI) ([]byte, error) {
	api.Webhooks = nil
	operations, err := json.Marshal(api.Paths)
	if err != nil {
		return nil, err
	}
	components := *api.Components
	components.Parameters = maps.Clone(components.Parameters)
	maps.DeleteFunc(components.Parameters, func(name string, _ *huma.Param) bool {
		return !strings.Contains(string(operations), `"`+ParameterPrefix+name+`"`)
	})
	api.Components = &components
	written, err := api.Downgrade()
	if err != nil {
		return nil, err
	}
	var document any
	if err := json.Unmarshal(written, &document); err != nil {
		return nil, err
	}
	oneExample(document)
	WrapReferences(document)
	return json.Marshal(document)
}

// oneExample removes the lists of examples of schemas, of which the first is in
// example too.
func oneExample(value any) {
	eachObject(value, func(v map[string]any) {
		if _, several := v["examples"].([]any); several {
			delete(v, "examples")
		}
	})
}

// WrapReferences moves references that something stands beside, which would be ignored.
func WrapReferences(value any) {
	eachObject(value, func(v map[string]any) {
		if ref, ok := v["$ref"].(string); ok && len(v) > 1 {
			delete(v, "$ref")
			v["allOf"] = []any{map[string]any{"$ref": ref}}
		}
	})
}

// eachObject calls do with every object within a value, the outer ones first.
func eachObject(value any, do func(map[string]any)) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			eachObject(item, do)
		}
	case map[string]any:
		do(v)
		for _, member := range v {
			eachObject(member, do)
		}
	}
}
