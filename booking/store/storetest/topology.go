package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slots is how many hash slots a Redis Cluster has.
const slots = 16384

// RedisCluster is a Redis Cluster of three shards without replicas.
type RedisCluster struct {
	// URL is as REDIS_URL takes it.
	URL    string
	Shards []*RedisServer
}

// Cluster starts a Redis Cluster for this test. When a shard is down, the
// others go on serving their slots.
func Cluster(t testing.TB) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	buses := map[*RedisServer]string{}
	for range 3 {
		c.Shards = append(c.Shards, startRedis(t, func(s *RedisServer) {
			_, bus, _ := net.SplitHostPort(freeAddress(t))
			buses[s] = bus
			s.args = slices.Concat(forget, []string{
				"--cluster-enabled", "yes", "--cluster-port", bus,
				"--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
			})
		}))
	}
	c.URL = fmt.Sprintf("redis+cluster://%s?addr=%s&addr=%s", c.Shards[0].address, c.Shards[1].address, c.Shards[2].address)

	ctx, cancel := context.WithTimeout(t.Context(), redisTimeout)
	defer cancel()
	for i, s := range c.Shards {
		share := slots / len(c.Shards)
		first, last := i*share, (i+1)*share-1
		if i == len(c.Shards)-1 {
			last = slots - 1
		}
		s.do(ctx, "CLUSTER", "ADDSLOTSRANGE", first, last)
		host, port, _ := net.SplitHostPort(s.address)
		if i > 0 {
			c.Shards[0].do(ctx, "CLUSTER", "MEET", host, port, buses[s])
		}
	}
	for _, s := range c.Shards {
		err := s.ask(ctx, func(client *redis.Client) error {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots))) {
				err = errors.New(info)
			}
			return err
		})
		if err != nil {
			t.Fatalf("join a Redis Cluster: %v", err)
		}
	}
	return c
}

// Shard returns the place in Shards of the one that a key belongs to.
func (c *RedisCluster) Shard(key string) int {
	ctx, cancel := c.timeout()
	defer cancel()
	slot := c.slot(ctx, key)
	for i, s := range c.Shards {
		ids := s.do(ctx, "CLUSTER", "MYID")
		owned, _ := s.do(ctx, "CLUSTER", "SLOTS").([]any)
		for _, share := range owned {
			share, _ := share.([]any)
			first, _ := share[0].(int64)
			last, _ := share[1].(int64)
			master, _ := share[2].([]any)
			if first <= slot && slot <= last && master[2] == ids {
				return i
			}
		}
	}
	return -1
}

// Move moves the slot of a key to another shard, with everything in it.
func (c *RedisCluster) Move(key string, to int) {
	ctx, cancel := c.timeout()
	defer cancel()
	slot := c.slot(ctx, key)
	source, target := c.Shards[c.Shard(key)], c.Shards[to]
	sourceID, targetID := source.do(ctx, "CLUSTER", "MYID"), target.do(ctx, "CLUSTER", "MYID")
	target.do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID)
	source.do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", targetID)
	host, port, _ := net.SplitHostPort(target.address)
	for {
		keys, _ := source.do(ctx, "CLUSTER", "GETKEYSINSLOT", slot, 100).([]any)
		if len(keys) == 0 {
			break
		}
		source.do(ctx, append([]any{"MIGRATE", host, port, "", 0, 5000, "KEYS"}, keys...)...)
	}
	target.do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", targetID)
	for _, s := range c.Shards {
		if s != target {
			s.do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", targetID)
		}
	}
}

func (c *RedisCluster) slot(ctx context.Context, key string) int64 {
	slot, _ := c.Shards[0].do(ctx, "CLUSTER", "KEYSLOT", key).(int64)
	return slot
}

func (c *RedisCluster) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Shards[0].t.Context(), redisTimeout)
}

// RedisSentinel is a master with a replica, and a Sentinel that replaces the
// one by the other when the master dies.
type RedisSentinel struct {
	// URL is as REDIS_URL takes it.
	URL                       string
	Master, Replica, Sentinel *RedisServer
}

// Sentinel starts a master with its replica and a Sentinel for this test.
func Sentinel(t testing.TB) *RedisSentinel {
	t.Helper()
	s := &RedisSentinel{}
	s.Master = startRedis(t, func(r *RedisServer) {
		r.args = slices.Concat(forget, []string{"--repl-diskless-sync-delay", "0"})
	})
	host, port, err := net.SplitHostPort(s.Master.address)
	if err != nil {
		t.Fatal(err)
	}
	s.Replica = startRedis(t, func(r *RedisServer) {
		r.args = slices.Concat(forget, []string{"--replicaof", host, port})
	})
	ctx, cancel := context.WithTimeout(t.Context(), redisTimeout)
	defer cancel()
	err = s.Replica.ask(ctx, func(client *redis.Client) error {
		info, err := client.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errors.New(info)
		}
		return err
	})
	if err != nil {
		t.Fatalf("follow the master: %v", err)
	}
	s.Sentinel = startRedis(t, func(r *RedisServer) {
		settings := fmt.Sprintf("sentinel monitor main %s %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n", host, port)
		file := filepath.Join(filepath.Dir(r.log), "sentinel.conf") // it writes what it learns there
		if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
		r.args = []string{file, "--sentinel"}
	})
	err = s.Sentinel.ask(ctx, func(client *redis.Client) error {
		known, err := client.Do(ctx, "SENTINEL", "REPLICAS", "main").Slice()
		if err == nil && len(known) == 0 {
			err = errors.New("the Sentinel does not know the replica yet")
		}
		return err
	})
	if err != nil {
		t.Fatalf("watch the master: %v", err)
	}
	s.URL = "redis+sentinel://" + s.Sentinel.address + "/0?master_name=main"
	return s
}

// Calls returns how often the server has run each command since it started,
// also from within scripts.
func (s *RedisServer) Calls() map[string]int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), redisTimeout)
	defer cancel()
	calls := map[string]int{}
	info, _ := s.do(ctx, "INFO", "commandstats").(string)
	for line := range strings.Lines(info) {
		name, stats, found := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !found {
			continue
		}
		n, _, _ := strings.Cut(stats, ",")
		count, err := strconv.Atoi(n)
		if err != nil {
			s.t.Fatalf("read the statistics of Redis: %v", err)
		}
		calls[name] = count
	}
	return calls
}

// do runs one command that must succeed, and returns its answer.
func (s *RedisServer) do(ctx context.Context, command ...any) any {
	s.t.Helper()
	client := s.client()
	answer, err := client.Do(ctx, command...).Result()
	if err = errors.Join(err, client.Close()); err != nil {
		s.t.Fatalf("%v: %v", command, err)
	}
	return answer
}

// ask asks again until the answer is nil.
func (s *RedisServer) ask(ctx context.Context, question func(*redis.Client) error) error {
	client := s.client()
	err := poll(ctx, func() error { return question(client) })
	return errors.Join(err, client.Close())
}
