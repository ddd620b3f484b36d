//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/redis/rueidis"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// redis is one Redis server that fsyncs every write. Its replication does not
// wait for a majority, so there is nothing to compare with a cluster.
type redis struct{}

func (redis) name() string { return "Redis" }

func (redis) short() string { return "redis" }

func (redis) supports(nodes int) bool { return nodes == 1 }

func (redis) program(_ context.Context, o *options, _ string) (path, version string, err error) {
	if o.redis == "" {
		return "", "", fmt.Errorf("%w: it was left out on request", errMissing)
	}
	if path, err = exec.LookPath(o.redis); err != nil {
		return "", "", fmt.Errorf("%w: %w; on Debian and Ubuntu: apt-get install redis-server", errMissing, err)
	}
	return path, rig.VersionLine(path, "--version"), nil
}

func (redis) kind(program string) rig.Kind { return rig.Redis("redis", program, rig.FsyncAlways...) }

func (redis) meaning(op bench.Op, _ int) meaning {
	if op == bench.Put {
		return meaning{words: "fsynced by the only server; no consensus", unlike: true}
	}
	return meaning{words: "what the only server has in memory; no consensus", unlike: true}
}

// connect gives each client one connection, on which the library pipelines by
// itself what its callers ask at the same time.
func (redis) connect(_ context.Context, addresses []string, connections int) (rig.Driver, error) {
	var d redisDriver
	for range connections {
		c, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: addresses, ForceSingleClient: true, PipelineMultiplex: -1, DisableCache: true,
		})
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d = append(d, c)
	}
	return d, nil
}

type redisDriver []rueidis.Client

func (d redisDriver) Put(ctx context.Context, caller int, key, value []byte) error {
	c := d[caller%len(d)]
	return c.Do(ctx, c.B().Set().Key(string(key)).Value(string(value)).Build()).Error()
}

func (d redisDriver) Get(ctx context.Context, caller int, key []byte) (int, error) {
	c := d[caller%len(d)]
	value, err := c.Do(ctx, c.B().Get().Key(string(key)).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		err = rig.ErrAbsent
	}
	return len(value), err
}

func (redisDriver) Class(err error) string {
	if e, ok := rueidis.IsRedisErr(err); ok {
		kind, _, _ := strings.Cut(e.Error(), " ")
		return kind
	}
	return ""
}

func (d redisDriver) Close() error {
	return rig.CloseAll(d, func(c rueidis.Client) error { c.Close(); return nil })
}
