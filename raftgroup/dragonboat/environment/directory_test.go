package environment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/statemachine"
	"go.uber.org/goleak"

	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftlog"
)

func TestMain(m *testing.M) {
	SetLogger(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

const testDir = "/data/host"

// nodeHost is a NodeHost with its log, on a file system.
type nodeHost struct {
	*dragonboat.NodeHost
	log *raftlog.Log
}

// alone has no other nodes.
type alone struct{}

func (alone) Connected(uint64) error    { return errors.New("there is no other node") }
func (alone) Send(uint64, []byte) error { return errors.New("there is no other node") }
func (alone) Stream(context.Context, uint64) (transport.Stream, error) {
	return nil, errors.New("there is no other node")
}

func testConfig(log *raftlog.Log) config.NodeHostConfig {
	c := config.NodeHostConfig{NodeHostDir: testDir, RTTMillisecond: 5, RaftAddress: transport.Target(1)}
	c.Expert.LogDBFactory = logdb.Factory{Log: log}
	c.Expert.TransportFactory = transport.New(alone{}, nil)
	c.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 1, CloseShards: 1}
	c.Expert.LogDB = config.GetTinyMemLogDBConfig()
	return c
}

func startNodeHost(fs vfs.FS, change func(c *config.NodeHostConfig)) (*nodeHost, error) {
	l, _, err := raftlog.Open(raftlog.Options{Dir: "/data/raft", FS: fs, SegmentBytes: 32 << 10})
	if err != nil {
		return nil, err
	}
	c := testConfig(l)
	if change != nil {
		change(&c)
	}
	err = Prepare(&c, fs, logdb.Format)
	var h *dragonboat.NodeHost
	if err == nil {
		h, err = dragonboat.NewNodeHost(c)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &nodeHost{h, l}, nil
}

func (h *nodeHost) close(t testing.TB) {
	h.Close()
	must(t, h.log.Close())
}

// startReplica starts a shard's replica; join says that it has run before.
func (h *nodeHost) startReplica(t testing.TB, shard uint64, again bool, m statemachine.IOnDiskStateMachine) {
	members := map[uint64]string{1: transport.Target(1)}
	if again {
		members = nil
	}
	must(t, h.StartOnDiskReplica(members, false, func(uint64, uint64) statemachine.IOnDiskStateMachine { return m }, config.Config{
		ShardID: shard, ReplicaID: 1, ElectionRTT: 10, HeartbeatRTT: 1, CheckQuorum: true, PreVote: true,
	}))
}

// counter is a state machine that counts, and keeps nothing when it is closed.
type counter struct{ index uint64 }

func (c *counter) Open(<-chan struct{}) (uint64, error) { return c.index, nil }
func (c *counter) Update(es []statemachine.Entry) ([]statemachine.Entry, error) {
	c.index = es[len(es)-1].Index
	return es, nil
}
func (c *counter) Lookup(any) (any, error)                              { return c.index, nil }
func (c *counter) Sync() error                                          { return nil }
func (c *counter) PrepareSnapshot() (any, error)                        { return nil, nil }
func (c *counter) SaveSnapshot(any, io.Writer, <-chan struct{}) error   { return nil }
func (c *counter) RecoverFromSnapshot(io.Reader, <-chan struct{}) error { return nil }
func (c *counter) Close() error                                         { return nil }

// retry calls f until it succeeds: a leader may be missing for a while.
func retry(t testing.TB, f func(ctx context.Context) error) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, dragonboat.ErrTimeout) && !dragonboat.IsTempError(err) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// propose has a command be carried out.
func (h *nodeHost) propose(t testing.TB) {
	t.Helper()
	retry(t, func(ctx context.Context) error {
		_, err := h.SyncPropose(ctx, h.GetNoOPSession(1), []byte("command"))
		return err
	})
}

// snapshot has one be saved, of a state with another command. A request is rejected while
// dragonboat has not noted that the one before has ended, or that there is a new command, and
// when a write has failed, of which failed tells the number.
func (h *nodeHost) snapshot(t testing.TB, failed func() int64) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for before := failed(); ; {
		h.propose(t)
		_, err := h.SyncRequestSnapshot(ctx, 1, dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionOverhead: 1})
		if !errors.Is(err, dragonboat.ErrRejected) || failed() != before {
			return err
		}
	}
}

// none is the number of writes that have failed where none does.
func none() int64 { return 0 }

// TestStartAgain has a NodeHost use a directory, with a snapshot in it, and another one
// find it.
func TestStartAgain(t *testing.T) {
	fs := vfs.NewCrashableMem()
	must(t, fs.MkdirAll(fs.PathDir(testDir), 0o755))
	must(t, directory{fs: fs}.sync("/"))
	h, err := startNodeHost(fs, nil)
	must(t, err)
	m := new(counter)
	h.startReplica(t, 1, false, m)
	must(t, h.snapshot(t, none))
	survivor := fs.CrashClone(vfs.CrashCloneCfg{})
	h.close(t)
	names, err := survivor.List(testDir)
	must(t, err)
	slices.Sort(names)
	if want := []string{"LOCK", "NODEHOST.ID", "dragonboat.ds", "node"}; !slices.Equal(names, want) && !slices.Equal(names, want[1:]) {
		t.Errorf("in the directory are %q", names)
	}
	// The workers' number is no property of the directory.
	h, err = startNodeHost(survivor, func(c *config.NodeHostConfig) { c.Expert.Engine.ExecShards = 3 })
	must(t, err)
	defer h.close(t)
	h.startReplica(t, 1, true, m)
	retry(t, func(ctx context.Context) error {
		_, err := h.SyncRead(ctx, 1, nil)
		return err
	})
}

// TestOtherPurpose: a directory is not used for what it was not made for.
func TestOtherPurpose(t *testing.T) {
	fs := vfs.NewMem()
	h, err := startNodeHost(fs, nil)
	must(t, err)
	h.close(t)
	for name, change := range map[string]func(c *config.NodeHostConfig){
		"address":    func(c *config.NodeHostConfig) { c.RaftAddress = transport.Target(2) },
		"deployment": func(c *config.NodeHostConfig) { c.DeploymentID = 2 },
	} {
		if h, err := startNodeHost(fs, change); err == nil {
			h.close(t)
			t.Errorf("with another %s the directory is used", name)
		}
	}
	l, _, err := raftlog.Open(raftlog.Options{Dir: "/data/raft", FS: fs, SegmentBytes: 32 << 10})
	must(t, err)
	defer l.Close()
	c := testConfig(l)
	must(t, Prepare(&c, fs, logdb.Format+1))
	if h, err := dragonboat.NewNodeHost(c); err != nil {
		t.Errorf("with the format of before: %v", err)
	} else {
		h.Close()
	}
	other := vfs.NewMem()
	must(t, Prepare(&c, other, logdb.Format+1))
	if h, err := dragonboat.NewNodeHost(c); err == nil {
		h.Close()
		t.Error("with another format the directory is used")
	}
}

// TestPowerLoss takes the power before each operation on the file system: the directory is
// made ready the next time.
func TestPowerLoss(t *testing.T) {
	var survivors []*vfs.MemFS
	r := rand.New(rand.NewPCG(1, 2))
	lose := func(fs *vfs.MemFS) vfs.FS {
		return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				for _, percent := range []int{0, 50, 100} {
					survivors = append(survivors, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r}))
				}
			}
			return nil
		}))
	}
	fs := vfs.NewCrashableMem()
	must(t, fs.MkdirAll(fs.PathDir(testDir), 0o755))
	must(t, directory{fs: fs}.sync("/"))
	c := testConfig(nil)
	must(t, Prepare(&c, lose(fs), logdb.Format))
	c.Expert.Engine.ExecShards = 2
	must(t, Prepare(&c, lose(fs), logdb.Format))
	if len(survivors) < 30 {
		t.Fatalf("%d operations", len(survivors)/3)
	}
	for i, fs := range survivors {
		h, err := startNodeHost(fs, nil)
		if err != nil {
			t.Fatalf("survivor %d: %v", i, err)
		}
		h.close(t)
	}
	fs = fs.CrashClone(vfs.CrashCloneCfg{})
	before := fs.String()
	must(t, Prepare(&c, errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpRename {
			t.Errorf("%v although nothing has changed", op)
		}
		return nil
	})), logdb.Format))
	if after := fs.String(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestFailedOperations has each operation fail: the directory is not said to be ready.
func TestFailedOperations(t *testing.T) {
	for n := 0; ; n++ {
		left := n
		var failed string
		c := testConfig(nil)
		err := Prepare(&c, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			left--
			if left == -1 {
				failed = fmt.Sprintf("%+v", op)
				return errorfs.ErrInjected
			}
			return nil
		})), logdb.Format)
		if failed == "" {
			must(t, err)
			if t.Logf("%d operations", n); n < 15 {
				t.Error("too few")
			}
			return
		}
		if !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("%s: %v", failed, err)
		}
	}
}

// TestDamagedFiles: what dragonboat would panic over is said, and what to do about it.
func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{purposeFile, idFile} {
		for what, content := range map[string][]byte{
			"empty": {}, "short": {1, 2, 3}, "sum": []byte("12345678content"), "nothing": checksum(nil), "no such message": append(checksum([]byte{0xff}), 0xff),
		} {
			fs := vfs.NewMem()
			c := testConfig(nil)
			must(t, Prepare(&c, fs, logdb.Format))
			f, err := fs.Create(testDir+"/"+name, writeCategory)
			must(t, err)
			_, err = f.Write(slices.Clone(content))
			must(t, err)
			must(t, f.Close())
			err = Prepare(&c, fs, logdb.Format)
			if name == purposeFile && what == "nothing" && err == nil {
				continue // no field differs from zero
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), testDir+"/"+name+"; nothing in it is needed: remove it") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			must(t, fs.Remove(testDir+"/"+name))
			must(t, Prepare(&c, fs, logdb.Format))
		}
	}
}
