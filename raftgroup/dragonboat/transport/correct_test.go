package transport

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/raftgroup/dragonboat/environment"
)

// group is three nodes that look at every message between them as an engine does.
type group struct {
	nodes   [4]*victim // by number
	up      [4]atomic.Bool
	checked atomic.Uint64
}

// TestCorrectNodes: nothing that correct nodes send one another is refused, through
// elections, crashes, transfers of the leadership and snapshots.
func TestCorrectNodes(t *testing.T) {
	environment.SetLogger(slog.New(slog.DiscardHandler))
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	g := new(group)
	for node := uint64(1); node <= 3; node++ {
		g.nodes[node] = &victim{t: t, node: node, fs: vfs.NewCrashableMem(), ticks: 5, sm: new(absorber)}
	}
	for node := uint64(1); node <= 3; node++ {
		g.start(node, members)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for round := range rounds {
		for range 20 {
			g.propose(t, 1+r.Uint64N(3))
		}
		down := 1 + uint64(round)%3
		g.up[down].Store(false)
		v := g.nodes[down]
		index, _ := v.sm.Open(nil)
		survivor := v.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (round % 3), RNG: r})
		v.close()
		v.fs, v.sm = survivor, &absorber{index: index}
		for range 20 {
			g.propose(t, 1+down%3)
		}
		for node := uint64(1); node <= 3; node++ {
			if node != down && round%2 == 0 { // what is missing below is in a snapshot alone
				g.retry(t, func(ctx context.Context) error {
					_, err := g.nodes[node].nh.SyncRequestSnapshot(ctx, shard, dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionOverhead: 1})
					return err
				})
			}
		}
		g.start(down, nil)
		g.propose(t, down)
		if leader, _, ok, err := v.nh.GetLeaderID(shard); err == nil && ok {
			must(t, g.nodes[nodeOf(leader)].nh.RequestLeaderTransfer(shard, 101+100*(nodeOf(leader)%3)))
		}
	}
	for node := uint64(1); node <= 3; node++ {
		g.up[node].Store(false)
	}
	for node := uint64(1); node <= 3; node++ {
		g.nodes[node].close()
	}
	t.Logf("%d messages and chunks", g.checked.Load())
}

func (g *group) start(node uint64, initial map[uint64]string) {
	g.nodes[node].start(wire{g, node}, initial)
	g.up[node].Store(true)
}

func (g *group) propose(t *testing.T, node uint64) {
	t.Helper()
	nh := g.nodes[node].nh
	g.retry(t, func(ctx context.Context) error {
		_, err := nh.SyncPropose(ctx, nh.GetNoOPSession(shard), []byte("command"))
		return err
	})
}

func (g *group) retry(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := f(ctx)
		cancel()
		switch {
		case err == nil, errors.Is(err, dragonboat.ErrRejected):
			return // there is such a snapshot already
		case !errors.Is(err, dragonboat.ErrTimeout) && !dragonboat.IsTempError(err):
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// wire is a node's end of the links between them.
type wire struct {
	*group
	node uint64
}

func (w wire) Connected(node uint64) error {
	if !w.up[w.node].Load() || !w.up[node].Load() {
		return errDown
	}
	return nil
}

func (w wire) Send(node uint64, frame []byte) error {
	if err := w.Connected(node); err != nil {
		return err
	}
	ms, err := decodeMessages(frame)
	if err != nil {
		return err
	}
	from, to := w.nodes[w.node], w.nodes[node]
	for i := range ms {
		from.sent.Note(&ms[i])
	}
	for i := range ms {
		w.checked.Add(1)
		place := to.place()
		if err := place.Check(w.node, &ms[i]); err != nil || place.Ignores(&ms[i]) {
			to.t.Errorf("%+v: %v", ms[i], err)
		}
	}
	if err := to.wire.Receive(w.node, frame); err != nil {
		to.t.Errorf("%+v: %v", ms, err)
	}
	return nil
}

func (w wire) Stream(_ context.Context, node uint64) (Stream, error) {
	return wireStream{w, node}, w.Connected(node)
}

type wireStream struct {
	wire
	node uint64
}

func (s wireStream) Send(frame []byte) error {
	if err := s.Connected(s.node); err != nil {
		return err
	}
	var c pb.Chunk
	must(s.nodes[s.node].t, c.Unmarshal(frame))
	s.checked.Add(1)
	to := s.nodes[s.node]
	if err := to.place().CheckChunk(s.wire.node, &c); err != nil {
		to.t.Errorf("chunk %d of %d: %v", c.ChunkId, c.Index, err)
	}
	wanted, err := to.wire.ReceiveChunk(frame, anyChunk)
	if errors.Is(err, ErrDamaged) {
		to.t.Errorf("chunk %d of %d: %v", c.ChunkId, c.Index, err)
	}
	if !wanted {
		return errDown
	}
	return nil
}

func (s wireStream) Close() {}
