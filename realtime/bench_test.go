package realtime_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/realtime"
)

// BenchmarkEveryoneMoves measures one patient leaving or returning before 1,000
// others who all watch, until the last of them has heard of the new place.
func BenchmarkEveryoneMoves(b *testing.B) {
	const patients, each = 1000, 100
	w := newWorld(b, miniredis.RunT(b).Addr())
	n := w.node(realtime.Options{})
	first := w.join("r1")
	heard := make(chan int, patients)
	for range patients / each {
		ws, _, err := websocket.Dial(b.Context(), n.url, nil) //nolint:bodyclose // the connection took it over
		require.NoError(b, err)
		ws.SetReadLimit(1 << 20)
		defer func() { require.NoError(b, ws.CloseNow()) }()
		require.NoError(b, ws.Write(b.Context(), websocket.MessageText, []byte(`{"id":1,"connect":{"token":"a"}}`)))
		for i := range each {
			command := fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"booking:%s"}}`, i+2, w.join("r1"))
			require.NoError(b, ws.Write(b.Context(), websocket.MessageText, []byte(command)))
		}
		go func() {
			for {
				_, frame, err := ws.Read(b.Context())
				if err != nil {
					return
				}
				heard <- bytes.Count(frame, []byte(`"SNAPSHOT"`)) + bytes.Count(frame, []byte(`"QUEUE_POSITION_UPDATED"`))
			}
		}()
	}
	everyone := func() {
		for told := 0; told < patients; {
			told += <-heard
		}
	}
	everyone()
	for i := 0; b.Loop(); i++ {
		action := models.ActionHold
		if i%2 == 1 {
			action = models.ActionReturn
		}
		w.do(action, first)
		everyone()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/patients, "ns/patient")
}
