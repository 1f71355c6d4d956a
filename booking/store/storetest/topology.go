package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// do runs one command that must succeed.
func (s *RedisServer) do(ctx context.Context, command ...any) {
	s.t.Helper()
	client := s.client()
	err := client.Do(ctx, command...).Err()
	if err = errors.Join(err, client.Close()); err != nil {
		s.t.Fatalf("%v: %v", command, err)
	}
}

// ask asks again until the answer is nil.
func (s *RedisServer) ask(ctx context.Context, question func(*redis.Client) error) error {
	client := s.client()
	err := poll(ctx, func() error { return question(client) })
	return errors.Join(err, client.Close())
}
