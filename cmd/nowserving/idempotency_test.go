package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// A node is killed while patients join. A repeated request gets the booking of the first.
func TestARequestOfAKilledNodeIsNotCarriedOutTwice(t *testing.T) {
	t.Parallel()
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		node := startProcess(t, environ(t, b))
		c, typeID, _ := node.NewQueue()
		once := func(i int) (key string, r nodetest.Request) {
			key = fmt.Sprintf("patient-%d", i)
			return key, nodetest.Request{
				Method: http.MethodPut, Path: nodetest.JoinPath, Token: c.Key, Body: nodetest.Joining(typeID, nil), Header: map[string]string{"Idempotency-Key": key},
			}
		}
		const patients = 100
		var mu sync.Mutex
		first := map[string]string{} // key to answer
		var joining sync.WaitGroup
		some := make(chan struct{})
		for i := range patients {
			joining.Go(func() {
				key, r := once(i)
				a, err := c.Try(r)
				if err != nil || a.Status != http.StatusOK {
					return // the node was killed
				}
				mu.Lock()
				defer mu.Unlock()
				if first[key] = string(a.Raw); len(first) == patients/4 {
					close(some)
				}
			})
		}
		<-some
		node.kill()
		joining.Wait()
		node.awaitNoSessions()
		node.exec("UPDATE idempotency_keys SET created_at = created_at - interval '31 seconds' WHERE state <> 'done'")
		node.start()
		ids := map[string]bool{}
		lost := 0
		for i := range patients {
			key, r := once(i)
			a := c.Send(r)
			if before, ok := first[key]; ok {
				require.Equal(t, before, string(a.Raw), "%s had another answer before", key)
			}
			id := a.Str("id")
			if a.Status == http.StatusConflict {
				_, rest, _ := strings.Cut(a.Refused(http.StatusConflict, models.CodeAnswerLost).Str("detail"), "booking ")
				id, _, _ = strings.Cut(rest, ",")
				lost++
			} else {
				a.OK()
			}
			require.NotEmpty(t, id)
			ids[id] = true
			assert.Equal(t, id, c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK().Str("result.id"))
		}
		t.Logf("%d answered before, %d lost their answers", len(first), lost)
		assert.Len(t, ids, patients)
		assert.Len(t, c.Staff(http.MethodGet, "/management/bookings?limit=500", nil).OK().List("result"), patients)
	})
}
