package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/proa-kv/proa/command"
)

func TestMain(m *testing.M) {
	actAsServer()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/proa-kv/proa/internal/spawn.init.func1.1"))
}

const (
	fakeFailover = 400 * time.Millisecond
	fakeReturn   = 700 * time.Millisecond
	fakeCatchUp  = 300 * time.Millisecond
	fakeTrip     = 10 * time.Millisecond
	fakeCommit   = 50
)

// fakeCluster stands for servers and client. Time is that of the test's bubble.
// Its faults are what the story must find.
type fakeCluster struct {
	mu      sync.Mutex
	up      []bool
	leaders [shards]int
	rows    map[string][]byte
	killed  []int
	back    map[int]time.Time // when a node came up
	ended   error

	failover time.Duration

	loses     bool // forgets a key's last write at the kill
	stale     bool // answers the fourth read of a key with an old value
	differs   bool // has replicas that differ
	neverUp   bool // has no leaders
	noReturn  bool // does not let the killed node come back
	noCompare bool
	old       map[string][]byte
	reads     map[string]int
}

func newFakeCluster(nodes int) *fakeCluster {
	f := &fakeCluster{failover: fakeFailover, up: make([]bool, nodes), rows: map[string][]byte{}, old: map[string][]byte{}, reads: map[string]int{}, back: map[int]time.Time{}}
	for shard := range f.leaders {
		f.leaders[shard] = []int{2, 1, 2, 3, 2, 1, 2, 3}[shard]
	}
	return f
}

func (f *fakeCluster) start(node int) error {
	back := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.up[node-1] = !f.noReturn || len(f.killed) == 0
		f.back[node] = time.Now()
	}
	time.AfterFunc(fakeReturn, back)
	return nil
}

func (f *fakeCluster) kill(node int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.killed = append(f.killed, node)
	f.up[node-1] = false
	if f.loses {
		for k, old := range f.old {
			f.rows[k] = old
		}
	}
	for shard := range f.leaders {
		if f.leaders[shard] != node {
			continue
		}
		f.leaders[shard] = 0
		time.AfterFunc(f.failover, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.leaders[shard] = node%len(f.up) + 1
		})
	}
	return nil
}

func (f *fakeCluster) addresses() []string {
	return []string{"127.0.0.1:1001", "127.0.0.1:1002", "127.0.0.1:1003"}[:len(f.up)]
}

func (f *fakeCluster) trouble() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

// serve returns when the shard of a key has a leader, after one round trip.
func (f *fakeCluster) serve(ctx context.Context, key []byte) error {
	for {
		pause(context.Background(), fakeTrip)
		f.mu.Lock()
		leader := f.leaders[fakeShard(key)]
		f.mu.Unlock()
		if leader != 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (f *fakeCluster) put(ctx context.Context, key, value []byte) error {
	if err := f.serve(ctx, key); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.old[string(key)] = f.rows[string(key)]
	f.rows[string(key)] = bytes.Clone(value)
	return nil
}

func (f *fakeCluster) get(ctx context.Context, key []byte) (value []byte, found bool, err error) {
	if err := f.serve(ctx, key); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads[string(key)]++
	if f.stale && f.reads[string(key)] == 4 {
		old := f.old[string(key)]
		return old, old != nil, nil
	}
	value, found = f.rows[string(key)]
	return value, found && value != nil, nil
}

func (f *fakeCluster) status(context.Context) (*command.ClusterStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &command.ClusterStatus{}
	up := 0
	for i, u := range f.up {
		// Nobody has noticed yet that a node is down, or ever does.
		n := command.NodeInfo{ID: uint64(i + 1), State: command.NodeUp}
		if u {
			up++
		}
		c.Nodes = append(c.Nodes, n)
	}
	if up == 0 {
		return nil, errors.New("nobody there")
	}
	replicas := make([]command.ReplicaInfo, 3)
	for i := range replicas {
		replicas[i] = command.ReplicaInfo{Node: uint64(i + 1), Follows: 1, Applied: fakeCommit}
	}
	c.Shards = append(c.Shards, command.ShardInfo{Shard: command.MetaShard, Leader: 1, Commit: fakeCommit, Replicas: replicas})
	for shard, leader := range f.leaders {
		if f.neverUp && shard == 3 {
			leader = 0
		}
		c.Shards = append(c.Shards, command.ShardInfo{Shard: shard, Leader: uint64(leader), Commit: fakeCommit, Replicas: replicas})
	}
	return c, nil
}

// own is what a node says of itself: it needs a while to catch up after it has
// answered for the first time.
func (f *fakeCluster) own(ctx context.Context, node int) (*command.ClusterStatus, error) {
	f.mu.Lock()
	up, back := f.up[node-1], f.back[node]
	f.mu.Unlock()
	if !up {
		return nil, errors.New("connection refused")
	}
	c, err := f.status(ctx)
	if err != nil {
		return nil, err
	}
	c.Asked = uint64(node)
	if time.Since(back) < fakeCatchUp {
		for i := range c.Shards {
			c.Shards[i].Replicas[node-1].Applied--
		}
	}
	return c, nil
}

func fakeShard(key []byte) int {
	var n int
	if _, err := fmt.Sscanf(string(key), "demo:{%d}", &n); err != nil {
		return 0
	}
	return n
}

// tags are the numbers of the shards.
func (f *fakeCluster) tags(context.Context) (map[uint16]string, error) {
	tags := map[uint16]string{}
	for shard := range uint16(shards) {
		tags[shard] = fmt.Sprint(shard)
	}
	return tags, nil
}

func (f *fakeCluster) checksum(_ context.Context, shard int) (*command.ShardChecksum, error) {
	if f.noCompare {
		return nil, errors.New("a node is down")
	}
	return &command.ShardChecksum{Shard: shard, Equal: !f.differs || shard != 5}, nil
}

func (f *fakeCluster) close() {}

// tell runs a story on a fake and returns what it showed.
func tell(ctx context.Context, f *fakeCluster) (string, time.Duration, error) {
	var b bytes.Buffer
	s := &story{
		options: Options{Nodes: len(f.up), Duration: DurationMin, Command: "./proa"}, servers: f, dir: "/tmp/d",
		connect: func(context.Context) (store, error) { return f, nil }, screen: newScreen(&b, 0, false),
	}
	err := s.run(ctx)
	synctest.Wait()
	return b.String(), s.paused, err
}

func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(3)
		begin := time.Now()
		out, paused, err := tell(t.Context(), f)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(f.killed) != 1 || f.killed[0] != 2 {
			t.Errorf("killed %v, want the busiest, 2", f.killed)
		}
		if paused < fakeFailover || paused > fakeFailover+5*fakeTrip {
			t.Errorf("a pause of %v, want %v", paused, fakeFailover)
		}
		if past := time.Since(begin); past < DurationMin || past > DurationMin+8*time.Second {
			t.Errorf("took %v", past)
		}
		for _, want := range []string{
			"SIGKILL to node 2, which leads 4 of 8 shards",
			"all shards serve again: writes to the 4 it led paused for 4",
			"the longest pause of a shard it led was 4",
			", of the others 30ms",
			"node 2 is back: it has all that was committed before, after 1s", // fakeReturn and fakeCatchUp
			"writes were acknowledged, 0 of them are missing",
			"0 reads returned an older value than acknowledged; 0 calls failed",
			"the replicas of 8 of 8 shards were compared and are equal",
			"leaders 2/4/2\n",
			"leaders 2/KILLED/6\n",
			"and nothing was lost",
			"\n  ./proa bench ",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	})
}

// TestStoryTellsOneTime checks that the end of the failover stands in the story
// where the pause of the writes ended.
func TestStoryTellsOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(3)
		f.failover = 50 * time.Millisecond // long over when it can be told
		out, _, err := tell(t.Context(), f)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		said := regexp.MustCompile(`(?s) (\S+)s  SIGKILL.* (\S+)s  all shards serve again: [^\n]* paused for (\S+)s\n`).FindStringSubmatch(out)
		if said == nil {
			t.Fatalf("no failover in:\n%s", out)
		}
		var at [3]time.Duration
		for i := range at {
			if at[i], err = time.ParseDuration(said[i+1] + "s"); err != nil {
				t.Fatal(err)
			}
		}
		if took := at[1] - at[0]; (took - at[2]).Abs() > 110*time.Millisecond { // each is rounded
			t.Errorf("%v between kill and service, a pause of %v", took, at[2])
		}
	})
}

// A failover that takes longer than the story gives it is waited for and
// measured to its end.
func TestLongFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(3)
		f.failover = DurationMin / 2
		if out, paused, err := tell(t.Context(), f); err != nil || paused < f.failover || paused > f.failover+5*fakeTrip {
			t.Errorf("a pause of %v, want %v; %v\n%s", paused, f.failover, err, out)
		}
	})
}

// The story finds each fault.
func TestStoryFindsFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fault  func(*fakeCluster)
		broken bool
		says   string
	}{
		"lost write":    {func(f *fakeCluster) { f.loses = true }, true, "reads missed an acknowledged write"},
		"stale read":    {func(f *fakeCluster) { f.stale = true }, true, "reads missed an acknowledged write"},
		"different":     {func(f *fakeCluster) { f.differs = true }, true, "1 shards have replicas that differ"},
		"no leader":     {func(f *fakeCluster) { f.neverUp = true }, false, "all shards have leaders: shard 3 has no leader"},
		"no return":     {func(f *fakeCluster) { f.noReturn = true }, false, "node 2 has caught up: node 2 does not answer"},
		"server ended":  {func(f *fakeCluster) { f.ended = errors.New("server 3 ended by itself") }, false, "server 3 ended"},
		"no failover":   {func(f *fakeCluster) { f.failover = time.Hour }, false, "all shards serve writes again"},
		"not compared":  {func(f *fakeCluster) { f.noCompare = true }, false, ""},
		"nobody serves": {func(f *fakeCluster) { f.leaders = [shards]int{} }, false, "has no leader"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeCluster(3)
				tt.fault(f)
				out, _, err := tell(t.Context(), f)
				if errors.Is(err, ErrBroken) != tt.broken || (err == nil) != (tt.says == "") {
					t.Fatalf("error %v\n%s", err, out)
				}
				if err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, want %q", err, tt.says)
				}
			})
		})
	}
}

func TestStoryInterrupted(t *testing.T) {
	for _, after := range []time.Duration{100 * time.Millisecond, time.Second, 3100 * time.Millisecond, 6 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			begin := time.Now()
			if _, _, err := tell(ctx, newFakeCluster(3)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %v: %v", after, err)
			}
			if late := time.Since(begin) - after; late > time.Second {
				t.Errorf("after %v: %v late", after, late)
			}
		})
	}
}

// What a call that failed may have written is neither stale nor missing.
func TestUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(3)
		tags, _ := f.tags(t.Context())
		l := newLoad(f, tags)
		w := l.workers[0]
		r := w.keys[0]
		ctx := t.Context()
		l.mark()
		if !l.write(ctx, w.shard, r, make([]byte, valueBytes)) {
			t.Fatal("the write failed")
		}
		r.Tried++ // sent, and nothing heard of it
		if missing, err := l.verify(ctx); err != nil || missing != 0 {
			t.Errorf("not carried out: %d missing, %v", missing, err)
		}
		f.rows[string(r.Key)] = []byte("2   ")
		if missing, err := l.verify(ctx); err != nil || missing != 0 {
			t.Errorf("carried out: %d missing, %v", missing, err)
		}
		for _, wrong := range []string{"0   ", "3   ", "x", ""} {
			f.rows[string(r.Key)] = []byte(wrong)
			if missing, err := l.verify(ctx); err != nil || missing != 1 {
				t.Errorf("%q: %d missing, %v", wrong, missing, err)
			}
		}
		delete(f.rows, string(r.Key))
		if missing, err := l.verify(ctx); err != nil || missing != 1 {
			t.Errorf("gone: %d missing, %v", missing, err)
		}
	})
}
