package loadtest

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFloorDeliversEveryPosition(t *testing.T) {
	for name, change := range map[string]func(opts *FloorOptions){
		"at a rate":       func(*FloorOptions) {},
		"at its own pace": func(opts *FloorOptions) { opts.Rate = 0 },
		"in bursts":       func(opts *FloorOptions) { opts.Burst, opts.Rate = 3, 0 },
		"two queues":      func(opts *FloorOptions) { opts.Queues = 2 },
		"protobuf":        func(opts *FloorOptions) { opts.Protocol, opts.Watch = "protobuf", 3 },
		"shared phones":   func(opts *FloorOptions) { opts.Watch = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			opts := FloorOptions{Traffic: Traffic{Patients: 200, Rate: 40, Duration: 200 * time.Millisecond}}
			change(&opts)
			result, err := floor(t.Context(), opts, false)
			require.NoError(t, err)
			require.True(t, result.OK, "%+v", result.Problems)
			require.Positive(t, result.Figure("deliveries").Value)
			require.Positive(t, result.Curve(headToLast).Count)
			require.InDelta(t, max(1, float64(opts.Watch)), result.Figure("deliveries").Value/result.Figure("frames").Value, 0.5)
		})
	}
}

func TestFloorRefusesBadOptions(t *testing.T) {
	_, err := Floor(t.Context(), FloorOptions{})
	require.ErrorContains(t, err, "0 patients are too few")
}

func TestWorkAnswersEveryCommand(t *testing.T) {
	var out bytes.Buffer
	in := `{"truth":{"until":1}}` + "\n" + `{"bare":{"serve":1}}` + "\n" + `{"fleet":{"nodes":["http://127.0.0.1:1"]}}` + "\n"
	require.NoError(t, Work(t.Context(), bytes.NewBufferString(in), &out))
	require.Equal(t, 3, bytes.Count(out.Bytes(), []byte("\n")))
	require.Contains(t, out.String(), "the first command must start a checker")
	require.Contains(t, out.String(), "nothing listens yet")
	require.ErrorContains(t, Work(t.Context(), bytes.NewBufferString("no order"), io.Discard), "read a command")
}
