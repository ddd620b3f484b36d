package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// clientsTimeout bounds what one client does.
const clientsTimeout = 30 * time.Second

// startCluster starts three nodes with eight shards, whose leaders are spread,
// and returns it, and where its nodes speak Redis's protocol.
func startCluster(t *testing.T, redirect bool) (c *testcluster.Cluster, addresses []string) {
	t.Helper()
	c = testcluster.NewCluster(t, testcluster.ClusterConfig{Settings: []string{
		fmt.Sprintf("resp.redirect=%t", redirect),
		// On a busy machine, too, leaders change when a node is killed and not before.
		"raft.election_timeout_min=3s", "raft.election_timeout_max=6s", "raft.replication_timeout=10s", "cluster.slow_disk_after=0",
	}})
	for _, n := range c.Nodes() {
		address := testcluster.FreeAddress(t)
		addresses = append(addresses, address)
		n.Configure(func(cfg *testcluster.Config) { cfg.Args = append(slices.Clip(cfg.Args), "--resp-listen", address) })
	}
	c.Start()
	for _, a := range addresses {
		awaitAnswer(t, a)
	}
	c.Admin(command.AdminSplitLeaders, struct{}{})
	c.AwaitStatus(c.Node(1), "leaders that are spread evenly", evenlyLed)
	if redirect {
		awaitSlots(t, addresses)
	}
	return c, addresses
}

// evenlyLed reports whether no node leads much more than another: no leader
// moves any more.
func evenlyLed(s *command.ClusterStatus) bool {
	led := map[uint64]int{}
	for _, n := range s.Nodes {
		led[n.ID] = 0
	}
	for _, g := range s.Shards {
		led[g.Leader]++
	}
	counts := slices.Collect(maps.Values(led))
	return len(led) == len(s.Nodes) && slices.Max(counts)-slices.Min(counts) <= 1
}

// awaitSlots returns when all nodes tell the same of all slots, and each of them
// leads some.
func awaitSlots(t *testing.T, addresses []string) {
	t.Helper()
	ctx := limited(t)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		told := map[string]bool{}
		for _, a := range addresses {
			told[leadersOfSlots(ctx, a)] = true
		}
		if len(told) == 1 && containsAll(slices.Collect(maps.Keys(told))[0], addresses) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the nodes tell of slots: %v", told)
		case <-poll.C:
		}
	}
}

// leadersOfSlots returns what a node says, with a line for each range of slots.
func leadersOfSlots(ctx context.Context, address string) string {
	c := goredis.NewClient(&goredis.Options{Addr: address})
	defer c.Close()
	slots, err := c.ClusterSlots(ctx).Result()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, s := range slots {
		if len(s.Nodes) > 0 {
			fmt.Fprintf(&b, "%d-%d at %s\n", s.Start, s.End, s.Nodes[0].Addr)
		}
	}
	return b.String()
}

func containsAll(text string, all []string) bool {
	return !slices.ContainsFunc(all, func(s string) bool { return !strings.Contains(text, s) })
}

// silent is a logger of go-redis, which tells of each connection that fails.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// TestClients has the libraries that people use do what people do with them.
func TestClients(t *testing.T) {
	goredis.SetLogger(silent{})
	for _, redirect := range []bool{false, true} {
		t.Run(fmt.Sprintf("redirect=%t", redirect), func(t *testing.T) {
			nodes, addresses := startCluster(t, redirect)
			for _, protocol := range []int{2, 3} {
				t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) {
					clusterClients(t, addresses, protocol)
					if !redirect {
						singleClients(t, addresses, protocol)
					}
				})
			}
			t.Run("moved", func(t *testing.T) { moved(t, addresses, redirect) })
			t.Run("several shards", func(t *testing.T) { severalShards(t, addresses[0], redirect) })
			t.Run("cluster commands", func(t *testing.T) { clusterCommands(t, addresses, redirect) })
			if redirect {
				t.Run("tools", func(t *testing.T) { awaitSlots(t, addresses); clusterTools(t, addresses[0]) })
			}
			t.Run("killed node", func(t *testing.T) { killedNode(t, nodes, addresses) })
		})
	}
}

// TestClientsOfOneNode has the same libraries use a node that is alone, with eight
// shards, as a single Redis and as a cluster.
func TestClientsOfOneNode(t *testing.T) {
	goredis.SetLogger(silent{})
	for _, redirect := range []bool{false, true} {
		addresses := []string{startAlone(t, redirect)}
		for _, protocol := range []int{2, 3} {
			t.Run(fmt.Sprintf("redirect=%t, RESP%d", redirect, protocol), func(t *testing.T) {
				clusterClients(t, addresses, protocol)
				singleClients(t, addresses, protocol)
			})
		}
	}
}

func clusterClients(t *testing.T, addresses []string, protocol int) {
	t.Run("go-redis cluster", func(t *testing.T) {
		c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: addresses, Protocol: protocol})
		defer c.Close()
		useGoRedis(t, c)
		pipelineOfManySlots(t, c)
		scanOfMasters(t, c)
	})
	t.Run("go-redis replicas", func(t *testing.T) {
		readReplicas(t, goredis.ClusterOptions{Addrs: addresses, Protocol: protocol})
	})
	t.Run("rueidis cluster", func(t *testing.T) {
		useRueidis(t, rueidis.ClientOption{InitAddress: addresses, DisableCache: true, AlwaysRESP2: protocol == 2, ShuffleInit: true})
	})
}

// singleClients calls each node for all keys.
func singleClients(t *testing.T, addresses []string, protocol int) {
	for i, a := range addresses {
		t.Run(fmt.Sprintf("go-redis node %d", i+1), func(t *testing.T) {
			c := goredis.NewClient(&goredis.Options{Addr: a, Protocol: protocol})
			defer c.Close()
			useGoRedis(t, c)
			pipelineOfManySlots(t, c)
			severalSlots(t, c, len(addresses) == 1)
			scanAll(t, c)
		})
	}
	t.Run("rueidis node 1", func(t *testing.T) {
		useRueidis(t, rueidis.ClientOption{InitAddress: addresses[:1], ForceSingleClient: true, DisableCache: true, AlwaysRESP2: protocol == 2})
	})
}

// limited returns a context for one client.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientsTimeout)
	t.Cleanup(cancel)
	return ctx
}

// keyspace returns keys that only this test has, in one slot.
func keyspace(t *testing.T) func(name string) string {
	return func(name string) string { return "{" + t.Name() + "}" + name }
}

// must returns what a call returned, or fails the test.
func must[T any](t *testing.T, what string) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// useGoRedis makes single calls, a pipeline, a transaction and a race of
// transactions.
func useGoRedis(t *testing.T, c goredis.UniversalClient) {
	ctx, key := limited(t), keyspace(t)
	expect(t, "PING", must[string](t, "PING")(c.Ping(ctx).Result()), "PONG")
	if _, err := c.Get(ctx, key("absent")).Result(); !errors.Is(err, goredis.Nil) {
		t.Errorf("GET of an absent key: %v", err)
	}
	must[string](t, "SET")(c.Set(ctx, key("a"), "one", time.Minute).Result())
	expect(t, "GET", must[string](t, "GET")(c.Get(ctx, key("a")).Result()), "one")
	if ttl := must[time.Duration](t, "TTL")(c.TTL(ctx, key("a")).Result()); ttl <= 50*time.Second || ttl > time.Minute {
		t.Errorf("TTL is %v", ttl)
	}
	expect(t, "SETNX", must[bool](t, "SETNX")(c.SetNX(ctx, key("a"), "two", 0).Result()), false)
	expect(t, "INCRBY", must[int64](t, "INCRBY")(c.IncrBy(ctx, key("n"), 42).Result()), 42)
	expect(t, "INCRBYFLOAT", must[float64](t, "INCRBYFLOAT")(c.IncrByFloat(ctx, key("n"), 0.5).Result()), 42.5)
	if err := c.Incr(ctx, key("a")).Err(); err == nil || err.Error() != "ERR value is not an integer or out of range" {
		t.Errorf("INCR of text: %v", err)
	}
	large := strings.Repeat("0123456789abcdef", 1<<16)
	must[string](t, "SET")(c.Set(ctx, key("large"), large, 0).Result())
	if got := must[string](t, "GET")(c.Get(ctx, key("large")).Result()); got != large {
		t.Errorf("GET of 1 MiB: %d bytes, or others", len(got))
	}
	values := must[[]any](t, "MGET")(c.MGet(ctx, key("a"), key("absent"), key("n")).Result())
	if !slices.Equal(values, []any{"one", nil, "42.5"}) {
		t.Errorf("MGET: %v", values)
	}
	expect(t, "DEL", must[int64](t, "DEL")(c.Del(ctx, key("a"), key("large"), key("absent")).Result()), 2)
	transactGoRedis(ctx, t, c, key)
	raceGoRedis(ctx, t, c, key("race"))
}

func transactGoRedis(ctx context.Context, t *testing.T, c goredis.UniversalClient, key func(string) string) {
	t.Helper()
	var get *goredis.StringCmd
	var incr *goredis.IntCmd
	_, err := c.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		p.Set(ctx, key("x"), 7, 0)
		incr = p.Incr(ctx, key("x"))
		get = p.Get(ctx, key("x"))
		return nil
	})
	if err != nil {
		t.Fatalf("MULTI: %v", err)
	}
	expect(t, "INCR inside", incr.Val(), 8)
	expect(t, "GET inside", get.Val(), "8")
	// A change between WATCH and EXEC.
	err = c.Watch(ctx, func(tx *goredis.Tx) error {
		if err := c.Set(ctx, key("x"), "other", 0).Err(); err != nil {
			return err
		}
		_, err := tx.TxPipelined(ctx, func(p goredis.Pipeliner) error { p.Set(ctx, key("x"), "mine", 0); return nil })
		return err
	}, key("x"))
	if !errors.Is(err, goredis.TxFailedErr) {
		t.Errorf("EXEC after a change of what was watched: %v", err)
	}
	expect(t, "GET", must[string](t, "GET")(c.Get(ctx, key("x")).Result()), "other")
}

const (
	racers = 4
	laps   = 10 // of each racer
)

// raceGoRedis increments a counter by WATCH, GET and SET, from several
// goroutines: none of the increments may be lost.
func raceGoRedis(ctx context.Context, t *testing.T, c goredis.UniversalClient, key string) {
	t.Helper()
	var racing sync.WaitGroup
	for range racers {
		racing.Go(func() {
			for range laps {
				if err := incrementGoRedis(ctx, c, key); err != nil {
					t.Errorf("incrementing with WATCH: %v", err)
					return
				}
			}
		})
	}
	racing.Wait()
	expect(t, "the counter", must[int](t, "GET")(c.Get(ctx, key).Int()), racers*laps)
}

func incrementGoRedis(ctx context.Context, c goredis.UniversalClient, key string) error {
	for {
		err := c.Watch(ctx, func(tx *goredis.Tx) error {
			n, err := tx.Get(ctx, key).Int()
			if err != nil && !errors.Is(err, goredis.Nil) {
				return err
			}
			_, err = tx.TxPipelined(ctx, func(p goredis.Pipeliner) error { p.Set(ctx, key, n+1, 0); return nil })
			return err
		}, key)
		if !errors.Is(err, goredis.TxFailedErr) {
			return err
		}
	}
}

// pipelineOfManySlots writes and reads keys of all shards in pipelines.
func pipelineOfManySlots(t *testing.T, c goredis.UniversalClient) {
	const keys = 300
	ctx := limited(t)
	name := func(i int) string { return fmt.Sprintf("%s %d", t.Name(), i) }
	writes := must[[]goredis.Cmder](t, "a pipeline of SET")(c.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range keys {
			p.Set(ctx, name(i), i, 0)
		}
		return nil
	}))
	expect(t, "answers", len(writes), keys)
	reads := must[[]goredis.Cmder](t, "a pipeline of GET")(c.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range keys {
			p.Get(ctx, name(i))
		}
		return nil
	}))
	for i, r := range reads {
		expect(t, name(i), r.(*goredis.StringCmd).Val(), strconv.Itoa(i))
	}
}

// readReplicas reads from any replica, after READONLY: what was written arrives
// there in time.
func readReplicas(t *testing.T, o goredis.ClusterOptions) {
	const keys = 50
	ctx := limited(t)
	leaders := goredis.NewClusterClient(&o)
	defer leaders.Close()
	random := o
	random.RouteRandomly = true
	replicas := goredis.NewClusterClient(&random)
	defer replicas.Close()
	for i := range keys {
		key := fmt.Sprintf("%s %d", t.Name(), i)
		must[string](t, "SET")(leaders.Set(ctx, key, i, 0).Result())
		got, err := replicas.Get(ctx, key).Result()
		for (got != strconv.Itoa(i) || err != nil) && ctx.Err() == nil {
			if err != nil && !errors.Is(err, goredis.Nil) {
				t.Fatalf("GET from a replica: %v", err)
			}
			got, err = replicas.Get(ctx, key).Result()
		}
		expect(t, key, got, strconv.Itoa(i))
	}
}

// severalSlots calls one node with keys of several shards in one command. Only a
// node that is alone writes them so.
func severalSlots(t *testing.T, c *goredis.Client, alone bool) {
	ctx := limited(t)
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("%s several %d", t.Name(), i))
		must[string](t, "SET")(c.Set(ctx, keys[i], i, 0).Result())
	}
	values := must[[]any](t, "MGET")(c.MGet(ctx, keys...).Result())
	for i, v := range values {
		expect[any](t, keys[i], v, strconv.Itoa(i))
	}
	expect(t, "EXISTS", must[int64](t, "EXISTS")(c.Exists(ctx, keys...).Result()), 20)
	expect(t, "TOUCH", must[int64](t, "TOUCH")(c.Touch(ctx, keys...).Result()), 20)
	want := "0"
	if alone {
		want = "a"
	}
	if err := c.MSet(ctx, keys[0], "a", keys[1], "b", keys[2], "c", keys[3], "d").Err(); alone != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), "CROSSSLOT") {
		t.Errorf("MSET over several shards: %v", err)
	}
	expect(t, "GET", must[string](t, "GET")(c.Get(ctx, keys[0]).Result()), want)
	expect(t, "DEL", must[int64](t, "DEL")(c.Del(ctx, keys...).Result()), 20)
}

// scanAll finds all keys of a prefix, of all shards, through one node.
func scanAll(t *testing.T, c *goredis.Client) {
	ctx := limited(t)
	want := writeMany(ctx, t, c)
	got := map[string]bool{}
	if err := collectKeys(ctx, c, t.Name()+" scan *", got); err != nil {
		t.Fatal(err)
	}
	expect(t, "keys that SCAN finds", strings.Join(slices.Sorted(maps.Keys(got)), "\n"), want)
}

// scanOfMasters finds them through all nodes together.
func scanOfMasters(t *testing.T, c *goredis.ClusterClient) {
	ctx := limited(t)
	want := writeMany(ctx, t, c)
	var mu sync.Mutex
	got := map[string]bool{}
	err := c.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		return collectKeys(ctx, node, t.Name()+" scan *", got)
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "keys that SCAN finds", strings.Join(slices.Sorted(maps.Keys(got)), "\n"), want)
}

// writeMany writes keys that scans find, and returns them sorted.
func writeMany(ctx context.Context, t *testing.T, c goredis.UniversalClient) string {
	t.Helper()
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("%s scan %02d", t.Name(), i))
		must[string](t, "SET")(c.Set(ctx, keys[i], i, 0).Result())
	}
	return strings.Join(keys, "\n")
}

func collectKeys(ctx context.Context, c *goredis.Client, pattern string, into map[string]bool) error {
	it := c.Scan(ctx, 0, pattern, 7).Iterator()
	for it.Next(ctx) {
		into[it.Val()] = true
	}
	return it.Err()
}

// useRueidis makes single calls, a pipeline, a transaction and a race.
func useRueidis(t *testing.T, o rueidis.ClientOption) {
	ctx, key := limited(t), keyspace(t)
	c, err := rueidis.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(ctx, c.B().Set().Key(key("a")).Value("one").ExSeconds(60).Build()).Error(); err != nil {
		t.Fatalf("SET: %v", err)
	}
	expect(t, "GET", must[string](t, "GET")(c.Do(ctx, c.B().Get().Key(key("a")).Build()).ToString()), "one")
	if err := c.Do(ctx, c.B().Get().Key(key("absent")).Build()).Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("GET of an absent key: %v", err)
	}
	expect(t, "INCRBY", must[int64](t, "INCRBY")(c.Do(ctx, c.B().Incrby().Key(key("n")).Increment(5).Build()).AsInt64()), 5)
	pipelineRueidis(ctx, t, c)
	var racing sync.WaitGroup
	for range racers {
		racing.Go(func() {
			for range laps {
				if err := incrementRueidis(ctx, c, key("race")); err != nil {
					t.Errorf("incrementing with WATCH: %v", err)
					return
				}
			}
		})
	}
	racing.Wait()
	expect(t, "the counter", must[int64](t, "GET")(c.Do(ctx, c.B().Get().Key(key("race")).Build()).AsInt64()), racers*laps)
}

// pipelineRueidis sends keys of all shards at once.
func pipelineRueidis(ctx context.Context, t *testing.T, c rueidis.Client) {
	t.Helper()
	const keys = 300
	name := func(i int) string { return fmt.Sprintf("%s many %d", t.Name(), i) }
	var writes, reads rueidis.Commands
	for i := range keys {
		writes = append(writes, c.B().Set().Key(name(i)).Value(strconv.Itoa(i)).Build())
		reads = append(reads, c.B().Get().Key(name(i)).Build())
	}
	for i, r := range c.DoMulti(ctx, writes...) {
		if err := r.Error(); err != nil {
			t.Fatalf("SET %s: %v", name(i), err)
		}
	}
	for i, r := range c.DoMulti(ctx, reads...) {
		expect(t, name(i), must[int64](t, "GET")(r.AsInt64()), int64(i))
	}
}

// incrementRueidis adds one by WATCH, GET, MULTI, SET and EXEC.
func incrementRueidis(ctx context.Context, c rueidis.Client, key string) error {
	for {
		done, err := tryIncrement(ctx, c, key)
		if done || err != nil {
			return err
		}
	}
}

func tryIncrement(ctx context.Context, c rueidis.Client, key string) (done bool, err error) {
	err = c.Dedicated(func(c rueidis.DedicatedClient) error {
		if err := c.Do(ctx, c.B().Watch().Key(key).Build()).Error(); err != nil {
			return err
		}
		n, err := c.Do(ctx, c.B().Get().Key(key).Build()).AsInt64()
		if err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
		answers := c.DoMulti(ctx, c.B().Multi().Build(), c.B().Set().Key(key).Value(strconv.FormatInt(n+1, 10)).Build(), c.B().Exec().Build())
		err = answers[len(answers)-1].Error()
		done = err == nil
		if rueidis.IsRedisNil(err) {
			err = nil
		}
		return err
	})
	return done, err
}

// moved asks each node for keys of all shards. Where the cluster redirects, all
// but one of the nodes name the same one; where it does not, each answers.
func moved(t *testing.T, addresses []string, redirect bool) {
	ctx := limited(t)
	for i := range 20 {
		key := fmt.Sprintf("moved %d", i)
		problem := whoServes(t, addresses, redirect, key)
		for problem != "" && ctx.Err() == nil { // on a busy machine a leader may have changed
			problem = whoServes(t, addresses, redirect, key)
		}
		if problem != "" {
			t.Errorf("%q: %s", key, problem)
		}
	}
}

// whoServes writes a key at each node. It returns what is wrong with the answers, "" if
// nothing is.
func whoServes(t *testing.T, addresses []string, redirect bool, key string) (problem string) {
	t.Helper()
	var served []string
	targets := map[string]bool{}
	for _, a := range addresses {
		c := connectTo(t, a)
		got := c.ask(t, "SET", key, "v")
		c.close()
		words := strings.Fields(got)
		switch {
		case got == "+OK\r\n":
			served = append(served, a)
		case len(words) == 3 && words[0] == "-MOVED":
			targets[words[2]] = true
		default:
			return fmt.Sprintf("SET at %s: %q", a, got)
		}
	}
	switch {
	case !redirect && len(served) != len(addresses):
		return fmt.Sprintf("only %v answer", served)
	case redirect && (len(served) != 1 || len(targets) != 1 || !targets[served[0]]):
		return fmt.Sprintf("%v answer, the others name %v", served, slices.Collect(maps.Keys(targets)))
	}
	return ""
}

// severalShards has one command, and one transaction, name keys of several
// shards. Nothing of it may be done.
func severalShards(t *testing.T, address string, redirect bool) {
	const refused = "-CROSSSLOT Keys in request don't hash to the same slot\r\n"
	c := connectTo(t, address)
	defer c.close()
	mset, msetnx := []string{"MSET"}, []string{"MSETNX"}
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("shards %d", i))
		mset, msetnx = append(mset, keys[i], "v"), append(msetnx, keys[i], "v")
	}
	expect(t, "MSET", c.ask(t, mset...), refused)
	expect(t, "MSETNX", c.ask(t, msetnx...), refused)
	expect(t, "MULTI", c.ask(t, "MULTI"), "+OK\r\n")
	if redirect {
		// Each command is sent where it belongs before it is queued.
		return
	}
	for _, k := range keys {
		expect(t, "SET", c.ask(t, "SET", k, "v"), "+QUEUED\r\n")
	}
	expect(t, "EXEC", c.ask(t, "EXEC"), refused)
	expect(t, "EXISTS", c.ask(t, append([]string{"EXISTS"}, keys...)...), ":0\r\n")
	expect(t, "WATCH and all of it again", c.ask(t, "SET", keys[0], "v"), "+OK\r\n")
	// A key of another shard is found, since not all twenty are in one.
	answers := map[string]bool{}
	for _, k := range keys[1:] {
		answers[c.ask(t, "COPY", keys[0], k)] = true
	}
	if !answers[refused] || !answers[":1\r\n"] || len(answers) != 2 {
		t.Errorf("COPY over several shards: %v", answers)
	}
}

// clusterCommands asks what cluster clients ask: every node tells the same, of
// all slots and all nodes.
func clusterCommands(t *testing.T, addresses []string, redirect bool) {
	ctx := limited(t)
	ids := map[string]bool{}
	for _, a := range addresses {
		c := goredis.NewClient(&goredis.Options{Addr: a})
		defer c.Close()
		var covered int
		for _, s := range must[[]goredis.ClusterSlot](t, "CLUSTER SLOTS")(c.ClusterSlots(ctx).Result()) {
			covered += s.End - s.Start + 1
			// Without redirect each node stands for all; with it each leads some.
			nodes, masters := len(addresses), []string{a}
			if redirect {
				nodes, masters = 1, addresses
			}
			if len(s.Nodes) != nodes || !slices.Contains(masters, s.Nodes[0].Addr) {
				t.Errorf("%s: slots %d-%d are at %v", a, s.Start, s.End, s.Nodes)
			}
		}
		expect(t, "slots that CLUSTER SLOTS covers", covered, 16384)
		covered = 0
		for _, s := range must[[]goredis.ClusterShard](t, "CLUSTER SHARDS")(c.ClusterShards(ctx).Result()) {
			for _, r := range s.Slots {
				covered += int(r.End - r.Start + 1)
			}
		}
		expect(t, "slots that CLUSTER SHARDS covers", covered, 16384)
		info := must[string](t, "CLUSTER INFO")(c.ClusterInfo(ctx).Result())
		for _, want := range []string{"cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:3"} {
			if !strings.Contains(info, want) {
				t.Errorf("CLUSTER INFO lacks %q: %s", want, info)
			}
		}
		id := must[string](t, "CLUSTER MYID")(c.ClusterMyID(ctx).Result())
		ids[id] = true
		nodes := must[string](t, "CLUSTER NODES")(c.ClusterNodes(ctx).Result())
		if strings.Count(nodes, "\n") != len(addresses) || !strings.Contains(nodes, id+" "+a) || strings.Count(nodes, "myself") != 1 {
			t.Errorf("CLUSTER NODES at %s: %s", a, nodes)
		}
		for key, slot := range map[string]int64{"foo": 12182, "{user1000}.following": 3443, "foo{}{bar}": 8363, "foo{{bar}}zap": 4015} {
			expect(t, "CLUSTER KEYSLOT "+key, must[int64](t, "CLUSTER KEYSLOT")(c.ClusterKeySlot(ctx, key).Result()), slot)
		}
	}
	expect(t, "different MYID", len(ids), len(addresses))
}

// killedNode kills a node: cluster clients find the new leaders, and every
// acknowledged write.
func killedNode(t *testing.T, nodes *testcluster.Cluster, addresses []string) {
	const keys = 100
	ctx := limited(t)
	c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: addresses, DialTimeout: time.Second, DialerRetries: 1})
	defer c.Close()
	name := func(i int) string { return fmt.Sprintf("killed %d", i) }
	for i := range keys {
		must[string](t, "SET")(c.Set(ctx, name(i), i, 0).Result())
	}
	nodes.Node(3).Kill()
	for i := range keys {
		got, err := c.Get(ctx, name(i)).Result()
		for err != nil && ctx.Err() == nil {
			// By itself it does so every ten seconds.
			c.ReloadState(ctx)
			got, err = c.Get(ctx, name(i)).Result()
		}
		expect(t, name(i), got, strconv.Itoa(i))
	}
	for i := range keys {
		if err := c.Set(ctx, name(i), "again", 0).Err(); err != nil {
			t.Errorf("SET with all leaders found: %v", err)
		}
	}
	nodes.Start()
}
