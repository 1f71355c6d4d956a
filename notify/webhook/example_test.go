package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

// A receiver computes the signature from the secret, the id, the time and the body.
// Most use a library of Standard Webhooks instead.
func Example_verifyWebhook() {
	const (
		secret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		id        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
		timestamp = "1614265330"
		body      = `{"test": 2432232314}`
		signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "." + body))
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	fmt.Println(hmac.Equal([]byte(want), []byte(signature)))
	// Output: true
}

// A delivery is retried nine times within three days, each time up to a tenth
// earlier than planned, or later if the receiver asks for it.
func Example_retrySchedule() {
	for failures, planned := range retryWaits {
		wait := waitAfter(failures, 0)
		if wait > planned || wait <= planned-planned/10 {
			panic(wait)
		}
	}
	fmt.Println(retryWaits)
	fmt.Println(waitAfter(0, time.Hour))
	// Output:
	// [5s 5m0s 30m0s 2h0m0s 5h0m0s 10h0m0s 14h0m0s 20h0m0s 24h0m0s]
	// 1h0m0s
}
