package models_test

import (
	"fmt"
	"strings"

	"nowserving/models"
)

// The table of transitions says from where a step is legal and where it leads.
func ExampleTransitionOf() {
	t := models.TransitionOf(models.ActionAssign)
	fmt.Println(t.FromStatus, t.FromStage)
	fmt.Println(t.Status, t.Stage, t.Event)
	// Output:
	// [PENDING_ASSIGNMENT] [WAITING HELD]
	// CONFIRMED CALLED MY_BOOKING_ASSIGNED
}

// What one purpose seals, no other opens.
func ExampleSealer() {
	secret := []byte(strings.Repeat("k", 32))
	answers, err := models.NewSealer(secret, models.SealAnswers)
	if err != nil {
		panic(err)
	}
	pages, err := models.NewSealer(secret, models.SealPages)
	if err != nil {
		panic(err)
	}
	sealed := answers.Seal("an answer")
	plain, err := answers.Open(sealed)
	fmt.Println(plain, err)
	_, err = pages.Open(sealed)
	fmt.Println(err != nil)
	// Output:
	// an answer <nil>
	// true
}

// A translation falls back where a language is missing.
func ExampleTranslation_In() {
	room := models.Translation{En: "Room 1"}
	fmt.Println(room.In("en", "?"), room.In("ar", "Room 1"))
	// Output: Room 1 Room 1
}
