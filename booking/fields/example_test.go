package fields_test

import (
	"encoding/json"
	"fmt"

	"nowserving/booking/fields"
	"nowserving/models"
)

// A deep conditioning takes half an hour, and each of two guests a quarter.
func ExampleForm_Check() {
	form := fields.Form{Fields: []models.FormField{
		{ID: "guests", Type: models.FieldNumber, Enabled: true, Minutes: 15, Price: "12.50"},
		{ID: "care", Type: models.FieldOptions, Enabled: true, Options: []models.FieldOption{{Value: "cut"}, {Value: "deep", Minutes: 30, Price: "40.00"}}},
	}}
	part := fields.Part{Member: "adjusters", Has: func(f *models.FormField) bool { return fields.UseOf(f) == fields.Adjuster }, Required: true}
	for _, values := range []models.Fields{
		{"guests": json.Number("2"), "care": "deep"},
		{"guests": "two"},
	} {
		part.Values = values
		answers, err := form.Check(part)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(answers.Adjust().Minutes, answers.Adjust().Price())
	}
	// Output:
	// 60 65.00
	// REQ-INVALID: 2 fields are missing or have a wrong value.
}
