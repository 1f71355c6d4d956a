package contact_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/booking/contact"
)

func TestNumbersOfAllScripts(t *testing.T) {
	t.Parallel()
	for text, number := range map[string]string{
		"٠٠٩٦٦٥٠٠٠٠٠١٢٣": "+966500000123", "۰۰۹۶۶۵۰۰۰۰۰۱۲۳": "+966500000123", "+९६६५०००००१२३": "+966500000123",
		"\u200e+966 50 000 0123\u200f": "+966500000123", "\u2066+966-50-000-0123\u2069": "+966500000123", "00966500000123": "+966500000123",
	} {
		phone, err := contact.Phone(text)
		assert.NoError(t, err, text)
		assert.Equal(t, number, phone, text)
	}
	for _, text := range []string{"𝟬𝟬𝟵𝟲𝟲𝟱𝟬𝟬𝟬𝟬𝟬𝟭𝟮𝟯", "0500000123", "phone"} {
		_, err := contact.Phone(text)
		assert.Error(t, err, text)
	}
	for _, code := range []string{" ٤٢٤٢٤٢\u200f", "424 242", "424-242", "424\u00a0242"} {
		assert.Equal(t, "424242", contact.Code(code))
	}
}

// A local number is completed with the country of the clinic.
func ExampleInternational() {
	for _, typed := range []string{"٠٥٠٠٠٠٠١٢٣", "+44 20 7946 0018"} {
		number, err := contact.Phone(contact.International(typed, "SA"))
		fmt.Println(number, err)
	}
	// Output:
	// +966500000123 <nil>
	// +442079460018 <nil>
}
