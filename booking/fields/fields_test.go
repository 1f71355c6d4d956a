package fields_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/fields"
	"nowserving/models"
)

// parse reads JSON as requests are read.
func parse(t *testing.T, text string) models.Fields {
	t.Helper()
	var values models.Fields
	require.NoError(t, json.Unmarshal([]byte(text), &values))
	return values
}

// wrong returns the fields of an error.
func wrong(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*models.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, models.CodeInvalid, e.Code)
	if e.Field != "" {
		return []string{e.Field}
	}
	names := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		names[i] = f.Field
	}
	return names
}

// anything is a part in which every field belongs.
func anything(values models.Fields) fields.Part {
	return fields.Part{Member: "in", Values: values, Has: func(*models.FormField) bool { return true }}
}

func TestAValueOfAnotherTypeIsRefused(t *testing.T) {
	t.Parallel()
	const file = `{"fileName":"a.pdf","data":"data:application/pdf;base64,JVBE"}`
	good, bad := true, false
	for _, test := range []struct {
		field string // the definition, without id and enabled
		value string
		ok    bool
	}{
		{`"type":"text"`, `"a"`, good},
		{`"type":"text"`, `5`, bad},
		{`"type":"text"`, `["a"]`, bad},
		{`"type":"text"`, `"` + strings.Repeat("é", 1000) + `"`, good},
		{`"type":"text"`, `"` + strings.Repeat("é", 1001) + `"`, bad},
		{`"type":"text","textType":"email"`, `"Mona@example.com"`, good},
		{`"type":"text","textType":"email"`, `"mona"`, bad},
		{`"type":"text","textType":"phone"`, `"+966500000001"`, good},
		{`"type":"text","textType":"phone"`, `"0500000001"`, good},
		{`"type":"text","textType":"phone"`, `"12"`, bad},
		{`"type":"text","textType":"phone","defaultCountry":"GB"`, `"0500000001"`, bad},
		{`"type":"text","textType":"phone","defaultCountry":"GB"`, `"020 7946 0018"`, good},
		{`"type":"text","textType":"phone","allowedCountries":"specific","allowedCountriesList":["SA"]`, `"+966500000001"`, good},
		{`"type":"text","textType":"phone","allowedCountries":"specific","allowedCountriesList":["SA"]`, `"+442079460018"`, bad},
		{`"type":"text","textType":"phone","allowedCountries":"forbidden","forbiddenCountriesList":["SA"]`, `"+966500000001"`, bad},
		{`"type":"text","textType":"phone","allowedCountries":"forbidden","forbiddenCountriesList":["SA"]`, `"+442079460018"`, good},
		{`"type":"text","textType":"phone","allowedCountries":"all","forbiddenCountriesList":["SA"]`, `"+966500000001"`, good},
		{`"type":"paragraph"`, `"` + strings.Repeat("a", 10_000) + `"`, good},
		{`"type":"paragraph"`, `"` + strings.Repeat("a", 10_001) + `"`, bad},
		{`"type":"paragraph"`, `true`, bad},
		{`"type":"number"`, `12345678901234567890.5`, good},
		{`"type":"number"`, `-1e3`, good},
		{`"type":"number"`, `"5"`, bad},
		{`"type":"number"`, `1e999999999`, bad},
		{`"type":"number","minutes":5`, `-1`, bad},
		{`"type":"number","minutes":5`, `2.5`, good},
		{`"type":"number","price":"1.00"`, `100001`, bad},
		{`"type":"options","options":[{"value":"a"},{"value":"b"}]`, `"a"`, good},
		{`"type":"options","options":[{"value":"a"},{"value":"b"}]`, `"c"`, bad},
		{`"type":"options","options":[{"value":"a"},{"value":"b"}]`, `["a"]`, bad},
		{`"type":"options","options":[{"value":"a"},{"value":"b"}],"info":{"multiple":true}`, `["a","b"]`, good},
		{`"type":"options","options":[{"value":"a"},{"value":"b"}],"info":{"multiple":true}`, `["a","a"]`, bad},
		{`"type":"options","options":[{"value":"a"},{"value":"b"}],"info":{"filterResources":true}`, `["a","b"]`, good},
		{`"type":"location"`, `{"position":{"latitude":24.7,"longitude":46.6},"address":"Riyadh"}`, good},
		{`"type":"location"`, `{"position":{"latitude":90.1,"longitude":46.6}}`, bad},
		{`"type":"location"`, `{"address":"Riyadh"}`, bad},
		{`"type":"location"`, `"Riyadh"`, bad},
		{`"type":"photo"`, file, good},
		{`"type":"photo"`, `{"url":"https://clinic.example/1.png"}`, good},
		{`"type":"photo"`, `{"fileName":"a.png"}`, bad},
		{`"type":"file"`, `[` + file + `]`, bad},
		{`"type":"photos"`, `[` + file + `,` + file + `]`, good},
		{`"type":"files"`, file, bad},
		{`"type":"files"`, `[` + file + `,{}]`, bad},
		{`"type":"paragraph-readonly"`, `"a"`, bad},
	} {
		var f models.FormField
		require.NoError(t, json.Unmarshal([]byte(`{"id":"f","enabled":true,`+test.field+`}`), &f))
		answers, err := fields.Form{Fields: []models.FormField{f}, Country: "SA"}.Check(anything(parse(t, `{"f":`+test.value+`}`)))
		if test.ok {
			if assert.NoError(t, err, "%s: %.100s", test.field, test.value) {
				assert.Contains(t, answers.Of("in"), "f")
			}
		} else {
			assert.Equal(t, []string{"in.f"}, wrong(t, err), "%s: %.100s", test.field, test.value)
		}
	}
}

func TestValuesAreKeptInOneForm(t *testing.T) {
	t.Parallel()
	form := fields.Form{Country: "SA", Fields: []models.FormField{
		{ID: "phone", Type: models.FieldText, TextType: models.TextPhone, Enabled: true},
		{ID: "email", Type: models.FieldText, TextType: models.TextEmail, Enabled: true},
		{ID: "id", Type: models.FieldNumber, Enabled: true},
		{ID: "none", Type: models.FieldText, Enabled: true},
		{ID: "null", Type: models.FieldPhotos, Enabled: true},
	}}
	answers, err := form.Check(anything(parse(t, `{"phone":"٠٥٠٠٠٠٠١٢٣","email":" Mona@Example.com","id":12345678901234567890,"none":" ","null":null}`)))
	require.NoError(t, err)
	assert.Equal(t, models.Fields{"phone": "+966500000123", "email": "mona@example.com", "id": json.Number("12345678901234567890")}, answers.Of("in"))
}

func TestFieldsThatAreNotAskedTakeNoValue(t *testing.T) {
	t.Parallel()
	form := fields.Form{TypeID: "visit", Fields: []models.FormField{
		{ID: "pregnant", Type: models.FieldOptions, Enabled: true, Options: []models.FieldOption{{Value: "yes"}, {Value: "no"}}},
		{ID: "month", Type: models.FieldNumber, Enabled: true, Conditions: models.Fields{"pregnant": "yes"}},
		{ID: "late", Type: models.FieldText, Enabled: true, Conditions: models.Fields{"month": []any{json.Number("8"), json.Number("9")}}},
		{ID: "off", Type: models.FieldText},
		{ID: "other", Type: models.FieldText, Enabled: true, Types: []string{"scan"}},
		{ID: "chart", Type: models.FieldText, Enabled: true, Optional: true, Visibility: models.VisibleProviderOnly},
		{ID: "note", Type: models.FieldReadonly, Enabled: true},
	}}
	for i := range form.Fields {
		if f := &form.Fields[i]; f.Visibility == "" {
			f.Visibility = models.VisiblePublic
		}
	}
	for _, test := range []struct {
		values  string
		patient bool
		wrong   []string
	}{
		{`{"pregnant":"no"}`, true, nil},
		{`{}`, true, []string{"in.pregnant"}},
		{`{"pregnant":"yes"}`, true, []string{"in.month"}},
		{`{"pregnant":"yes","month":3}`, true, nil},
		{`{"pregnant":"yes","month":8.0}`, true, []string{"in.late"}},
		{`{"pregnant":"yes","month":9,"late":"a"}`, true, nil},
		{`{"pregnant":"no","month":3}`, true, []string{"in.month"}},
		{`{"pregnant":"no","month":9,"late":"a"}`, true, []string{"in.late", "in.month"}},
		{`{"pregnant":"no","off":"a","other":"a","chart":"a","note":"a","made up":"a"}`, true, []string{"in.chart", "in.made up", "in.note", "in.off", "in.other"}},
		{`{"pregnant":"no","chart":"a"}`, false, nil},
	} {
		form.Patient = test.patient
		part := anything(parse(t, test.values))
		part.Required = true
		_, err := form.Check(part)
		assert.Equal(t, test.wrong, wrong(t, err), test.values)
	}
}

func TestConditionsOnWhatIsNotAskedYetAreMet(t *testing.T) {
	t.Parallel()
	form := fields.Form{Fields: []models.FormField{
		{ID: "reason", Type: models.FieldText, Enabled: true},
		{ID: "units", Type: models.FieldNumber, Enabled: true, Minutes: 10, Conditions: models.Fields{"reason": "laser"}},
	}}
	only := func(use fields.Use, values models.Fields) fields.Part {
		return fields.Part{Member: "in", Values: values, Has: func(f *models.FormField) bool { return fields.UseOf(f) == use }}
	}
	adjusters := only(fields.Adjuster, models.Fields{"units": json.Number("3")})
	answers, err := form.Check(adjusters)
	require.NoError(t, err)
	assert.Equal(t, 30, answers.Adjust().Minutes)
	_, err = form.Check(adjusters, only(fields.Info, models.Fields{"reason": "cut"}))
	assert.Equal(t, []string{"in.units"}, wrong(t, err))
}

func TestAdjustersAddMinutesAndPrices(t *testing.T) {
	t.Parallel()
	form := fields.Form{Fields: []models.FormField{
		{ID: "units", Type: models.FieldNumber, Enabled: true, Minutes: 7, Price: "0.33"},
		{ID: "extras", Type: models.FieldOptions, Enabled: true, Info: models.Fields{"multiple": true}, Options: []models.FieldOption{
			{Value: "wash", Minutes: 10}, {Value: "dry", Price: "5.50"}, {Value: "cut", Minutes: 20, Price: "100.00"},
		}},
		{ID: "age", Type: models.FieldNumber, Enabled: true},
	}}
	for _, test := range []struct {
		values  string
		minutes int
		price   string
	}{
		{`{}`, 0, "0.00"},
		{`{"units":2}`, 14, "0.66"},
		{`{"units":0.1}`, 1, "0.03"},
		{`{"units":1.5}`, 11, "0.50"}, // 10.5 minutes and 0.495
		{`{"units":2e1}`, 140, "6.60"},
		{`{"extras":["wash","dry","cut"]}`, 30, "105.50"},
		{`{"extras":"dry","units":1,"age":90}`, 7, "5.83"},
	} {
		answers, err := form.Check(anything(parse(t, test.values)))
		require.NoError(t, err, test.values)
		assert.Equal(t, test.minutes, answers.Adjust().Minutes, test.values)
		assert.Equal(t, test.price, answers.Adjust().Price(), test.values)
	}
	_, err := form.Check(anything(parse(t, `{"units":206}`)))
	assert.Equal(t, []string{"in"}, wrong(t, err), "two minutes more than a day")
	// What an earlier request gave is not checked, and adds nothing if it is not valid.
	kept := anything(parse(t, `{"units":"many","extras":["wash","gone"],"unknown":1}`))
	kept.Kept = true
	answers, err := form.Check(kept)
	require.NoError(t, err)
	assert.Zero(t, answers.Adjust())
}

func TestFiltersCompareWithOneOrManyValues(t *testing.T) {
	t.Parallel()
	filters := models.Fields{"filterResources": true}
	form := fields.Form{Fields: []models.FormField{
		{ID: "skill", Type: models.FieldOptions, Enabled: true, Info: filters, Options: []models.FieldOption{{Value: "general"}, {Value: "heart"}}},
		{ID: "language", Type: models.FieldText, Enabled: true, Info: filters},
		{ID: "floor", Type: models.FieldNumber, Enabled: true, Info: filters},
	}}
	for _, test := range []struct {
		values, data string
		leaves       bool
	}{
		{`{}`, `{}`, true},
		{`{"skill":"heart"}`, `{"skill":"heart"}`, true},
		{`{"skill":"heart"}`, `{"skill":["general","heart"]}`, true},
		{`{"skill":["general","heart"]}`, `{"skill":"heart"}`, true},
		{`{"skill":"heart"}`, `{"skill":"general"}`, false},
		{`{"skill":"heart"}`, `{"skill":{"heart":true}}`, false},
		{`{"skill":"heart"}`, `{}`, false},
		{`{"language":" ARABIC "}`, `{"language":["English","Arabic"]}`, true},
		{`{"language":"العربية"}`, `{"language":"العربية "}`, true},
		{`{"language":"Arab"}`, `{"language":"Arabic"}`, false},
		{`{"floor":2}`, `{"floor":2.0}`, true},
		{`{"floor":2}`, `{"floor":3}`, false},
		{`{"floor":2,"skill":"heart"}`, `{"floor":2,"skill":"general"}`, false},
		{`{"floor":2,"skill":"heart"}`, `{"floor":2,"skill":"heart"}`, true},
		{`{"language":""}`, `{}`, true},
	} {
		answers, err := form.Check(anything(parse(t, test.values)))
		require.NoError(t, err, test.values)
		assert.Equal(t, test.leaves, answers.Filter().Leaves(parse(t, test.data)), "%s in %s", test.values, test.data)
	}
}

func TestADefinitionThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	const yes = `{"id":"yes","name":"Yes","type":"options","options":[{"value":"yes"}],"visibility":"public"}`
	for _, test := range []struct{ list, field string }{
		{yes, ""},
		{yes + `,` + yes, "[1].id"},
		{`{"id":"","name":"A","type":"text"}`, "[0].id"},
		{`{"id":"a","name":" ","type":"text"}`, "[0].name"},
		{`{"id":"a","name":"A","type":"date"}`, "[0].type"},
		{`{"id":"a","name":"A","type":"number","textType":"phone"}`, "[0].textType"},
		{`{"id":"a","name":"A","type":"options"}`, "[0].options"},
		{`{"id":"a","name":"A","type":"text","options":[{"value":"a"}]}`, "[0].options"},
		{`{"id":"a","name":"A","type":"options","options":[{"value":"a"},{"value":"a"}]}`, "[0].options[1].value"},
		{`{"id":"a","name":"A","type":"options","options":[{"value":"a","minutes":1441}]}`, "[0].options[0].minutes"},
		{`{"id":"a","name":"A","type":"options","options":[{"value":"a","price":"1.5"}]}`, "[0].options[0].price"},
		{`{"id":"a","name":"A","type":"number","minutes":1440,"price":"10"}`, ""},
		{`{"id":"a","name":"A","type":"number","minutes":-1}`, "[0].minutes"},
		{`{"id":"a","name":"A","type":"number","price":"-1.00"}`, "[0].price"},
		{`{"id":"a","name":"A","type":"text","minutes":5}`, "[0].minutes"},
		{`{"id":"a","name":"A","type":"paragraph-readonly","price":"5.00"}`, "[0].price"},
		{`{"id":"a","name":"A","type":"text","types":["visit","scan"]}`, "[0].types[1]"},
		{`{"id":"a","name":"A","type":"photo","info":{"filterResources":true}}`, "[0].info.filterResources"},
		{`{"id":"a","name":"A","type":"text","info":{"filterResources":"yes"}}`, "[0].info.filterResources"},
		{`{"id":"a","name":"A","type":"text","info":{"multiple":true}}`, "[0].info.multiple"},
		{`{"id":"a","name":"A","type":"text","info":{"filterResources":true,"icon":"star"}}`, ""},
		{`{"id":"a","name":"A","type":"text","defaultCountry":"sa"}`, ""},
		{`{"id":"a","name":"A","type":"text","defaultCountry":"XX"}`, "[0].defaultCountry"},
		{`{"id":"a","name":"A","type":"text","allowedCountries":"specific"}`, "[0].allowedCountriesList"},
		{`{"id":"a","name":"A","type":"text","allowedCountries":"some"}`, "[0].allowedCountries"},
		{`{"id":"a","name":"A","type":"text","forbiddenCountriesList":["SA","1"]}`, "[0].forbiddenCountriesList[1]"},
		{yes + `,{"id":"a","name":"A","type":"text","conditions":{"yes":"yes"}}`, ""},
		{yes + `,{"id":"a","name":"A","type":"text","conditions":{"yes":["yes","no"]}}`, "[1].conditions.yes"},
		{yes + `,{"id":"a","name":"A","type":"text","conditions":{"yes":[]}}`, "[1].conditions.yes"},
		{yes + `,{"id":"a","name":"A","type":"text","conditions":{"no":"yes"}}`, "[1].conditions.no"},
		{`{"id":"a","name":"A","type":"text","conditions":{"a":"a"}}`, "[0].conditions.a"},
		{`{"id":"a","name":"A","type":"text","conditions":{"b":"b"}},{"id":"b","name":"B","type":"text"}`, ""},
		{`{"id":"a","name":"A","type":"photo"},{"id":"b","name":"B","type":"text","conditions":{"a":"a"}}`, "[1].conditions.a"},
		{`{"id":"a","name":"A","type":"number"},{"id":"b","name":"B","type":"text","conditions":{"a":"5"}}`, "[1].conditions.a"},
		{`{"id":"a","name":"A","type":"text"},{"id":"b","name":"B","type":"text","visibility":"public","conditions":{"a":"a"}}`, "[1].conditions.a"},
	} {
		list := definitions(t, test.list)
		err := fields.CheckDefinitions(models.BookingFields, list, []string{"visit"})
		if test.field == "" {
			assert.NoError(t, err, test.list)
		} else {
			assert.Equal(t, []string{test.field}, wrong(t, err), test.list)
		}
	}
	circle := definitions(t, `{"id":"a","name":"A","type":"text","conditions":{"b":"b"}},{"id":"b","name":"B","type":"text","conditions":{"a":"a"}}`)
	assert.Equal(t, []string{"[0].conditions.b", "[1].conditions.a"}, wrong(t, fields.CheckDefinitions(models.BookingFields, circle, nil)))
	priced := definitions(t, `{"id":"a","name":"A","type":"number","price":"10","defaultCountry":"sa"}`)
	require.NoError(t, fields.CheckDefinitions(models.BookingFields, priced, nil))
	assert.Equal(t, "10.00", priced[0].Price)
	assert.Equal(t, "SA", priced[0].DefaultCountry)
}

// definitions reads definitions, which are for staff only by default.
func definitions(t *testing.T, text string) []models.FormField {
	t.Helper()
	var list []models.FormField
	require.NoError(t, json.Unmarshal([]byte("["+text+"]"), &list))
	for i := range list {
		if list[i].Visibility == "" {
			list[i].Visibility = models.VisibleProviderOnly
		}
	}
	return list
}

func TestPhoneNumberAndEmailFollowTheirRules(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		phoneOn, phoneOptional, emailOn, emailOptional bool
		wrong                                          []string
	}{
		{true, false, true, true, nil},
		{true, false, true, false, nil},
		{true, true, true, false, nil},
		{true, false, false, true, nil},
		{true, false, false, false, nil},
		{false, true, true, false, nil},
		{false, false, true, false, nil},
		{false, false, false, false, []string{"phoneNumber"}},
		{false, true, false, true, []string{"phoneNumber"}},
		{true, true, true, true, []string{"phoneNumber"}},
		{true, true, false, false, []string{"phoneNumber"}},
		{true, true, false, true, []string{"phoneNumber"}},
		{false, false, true, true, []string{"email"}},
		{false, true, true, true, []string{"email"}},
	} {
		list := fields.WithCore(nil, nil)
		for i := range list {
			switch f := &list[i]; f.ID {
			case models.FieldPhoneNumber:
				f.Enabled, f.Optional = test.phoneOn, test.phoneOptional
			case models.FieldEmail:
				f.Enabled, f.Optional = test.emailOn, test.emailOptional
			}
		}
		assert.Equal(t, test.wrong, wrong(t, fields.CheckDefinitions(models.CustomerFields, list, nil)), "%+v", test)
	}
}

func TestABookingFieldHasOneUse(t *testing.T) {
	t.Parallel()
	for text, use := range map[string]fields.Use{
		`{"type":"text"}`:                                                                          fields.Info,
		`{"type":"number"}`:                                                                        fields.Info,
		`{"type":"number","minutes":1}`:                                                            fields.Adjuster,
		`{"type":"number","price":"0.01"}`:                                                         fields.Adjuster,
		`{"type":"number","price":"0.00"}`:                                                         fields.Info,
		`{"type":"paragraph-readonly"}`:                                                            fields.Info,
		`{"type":"options","options":[{"value":"a"},{"value":"b"}]}`:                               fields.Info,
		`{"type":"options","options":[{"value":"a"},{"value":"b","minutes":1}]}`:                   fields.Adjuster,
		`{"type":"options","options":[{"value":"a"},{"value":"b","price":"1.00"}]}`:                fields.Adjuster,
		`{"type":"options","options":[{"value":"b","minutes":1}],"info":{"filterResources":true}}`: fields.Filter,
		`{"type":"text","info":{"filterResources":true}}`:                                          fields.Filter,
		`{"type":"text","info":{"filterResources":false}}`:                                         fields.Info,
	} {
		var f models.FormField
		require.NoError(t, json.Unmarshal([]byte(text), &f))
		assert.Equal(t, use, fields.UseOf(&f), text)
	}
}
