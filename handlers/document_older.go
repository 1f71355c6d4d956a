package handlers

import (
	"encoding/json"
	"maps"

	"github.com/danielgtaylor/huma/v2"
)

// olderOpenAPI writes the document for tools that know OpenAPI 3.0 only. That has
// no webhooks. What the framework's own conversion leaves of 3.1 is converted here.
func olderOpenAPI(api huma.OpenAPI) ([]byte, error) {
	api.Webhooks = nil
	components := *api.Components
	components.Parameters = maps.Clone(components.Parameters)
	for _, h := range webhookHeaders {
		delete(components.Parameters, h.Name)
	}
	api.Components = &components
	written, err := api.Downgrade()
	if err != nil {
		return nil, err
	}
	var document any
	if err := json.Unmarshal(written, &document); err != nil {
		return nil, err
	}
	toOpenAPI30(document)
	return json.Marshal(document)
}

func toOpenAPI30(value any) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			toOpenAPI30(item)
		}
	case map[string]any:
		if _, several := v["examples"].([]any); several { // the first is in example
			delete(v, "examples")
		}
		// What stands beside a reference is ignored in 3.0.
		if ref, ok := v["$ref"].(string); ok && len(v) > 1 {
			delete(v, "$ref")
			v["allOf"] = []any{map[string]any{"$ref": ref}}
		}
		for _, member := range v {
			toOpenAPI30(member)
		}
	}
}
