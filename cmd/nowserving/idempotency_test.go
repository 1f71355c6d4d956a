package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// once joins the queue with an idempotency key. The status is 0 when there was
// no answer.
func (c *client) once(key, typeID string) (status int, answer []byte) {
	body, err := json.Marshal(object{"type": typeID, "assign": false})
	if err != nil {
		return 0, nil
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPut, c.url+"/management/scheduling/new", bytes.NewReader(body))
	if err != nil {
		return 0, nil
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer " + c.key, "X-APP-ID": c.appID, "Idempotency-Key": key,
	} {
		req.Header.Set(name, value)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil
	}
	answer, err = io.ReadAll(res.Body)
	if res.Body.Close() != nil || err != nil {
		return 0, nil
	}
	return res.StatusCode, answer
}

// A node is killed while many join: who repeats the request afterwards has
// joined once, and learns of it.
func TestAKilledRequestIsNotCarriedOutTwice(t *testing.T) {
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			node := startProcess(t, b.settings(t))
			typeID, _ := node.clinic()
			const patients = 100
			var mu sync.Mutex
			first := map[string]string{} // key to answer
			var crowd sync.WaitGroup
			some := make(chan struct{})
			for i := range patients {
				crowd.Go(func() {
					key := fmt.Sprintf("patient-%d", i)
					status, answer := node.once(key, typeID)
					if status != http.StatusOK {
						return // the node has died
					}
					mu.Lock()
					defer mu.Unlock()
					if first[key] = string(answer); len(first) == patients/4 {
						close(some)
					}
				})
			}
			<-some
			node.kill()
			crowd.Wait()
			if b.name == "postgres" {
				node.gone()
				node.longAgo("UPDATE idempotency_keys SET created_at = created_at - interval '31 seconds' WHERE state <> 'done'")
			}
			node.start()
			ids := map[string]bool{}
			lost := 0
			for i := range patients {
				key := fmt.Sprintf("patient-%d", i)
				status, answer := node.once(key, typeID)
				var told struct{ ID, Code, Detail string }
				require.NoError(t, json.Unmarshal(answer, &told))
				if before, ok := first[key]; ok {
					require.Equal(t, before, string(answer), "%s was answered otherwise before", key)
				}
				if status == http.StatusConflict {
					require.Equal(t, "IDM-ANSWER_LOST", told.Code)
					_, rest, _ := strings.Cut(told.Detail, "booking ")
					told.ID, _, _ = strings.Cut(rest, ",")
					lost++
				} else {
					require.Equal(t, http.StatusOK, status, "%s: %s", key, answer)
				}
				require.NotEmpty(t, told.ID)
				ids[told.ID] = true
				assert.Equal(t, told.ID, node.call("GET", "/management/bookings/"+told.ID, nil).text("id"))
			}
			t.Logf("%d answered before, %d lost their answers", len(first), lost)
			assert.Len(t, ids, patients)
			_, joined, err := node.try("GET", "/management/bookings?limit=500", nil)
			require.NoError(t, err)
			var all struct{ Result []object }
			require.NoError(t, json.Unmarshal(joined, &all))
			assert.Len(t, all.Result, patients)
		})
	}
}
