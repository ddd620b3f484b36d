package dragonboat

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/raftgroup/dragonboat/environment"
	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// Files is where dragonboat keeps what is not in the log: snapshots while they are being
// received, and records of its own.
type Files struct {
	FS       vfs.FS
	Dir      string // below the node's directory
	KeepFree int64  // bytes of the disk that snapshots leave to the log and the store
}

// nodeHost is dragonboat's NodeHost, and the goroutines beside it.
type nodeHost struct {
	engine *Engine
	files  Files
	nh     *dragonboat.NodeHost
	wire   *transport.Transport
	watch  transport.Watcher

	ctx     context.Context // ends when the goroutines must
	cancel  context.CancelFunc
	opening atomic.Bool // the node is being opened

	mu      sync.Mutex
	closing bool // no goroutine begins any more
	wg      sync.WaitGroup
}

// Of entries, what waits for the step worker in one replica, and what waits to be sent to
// one node in one of dragonboat's four queues for it; one message may always wait. Without
// a bound they are 1024 messages, of up to 64 MiB. dragonboat drops what is more, which
// Raft takes for what it is. What is to be sent goes at once, or is lost: see links.Send.
const (
	receiveBytesMax = 32 << 20
	sendBytesMax    = 64 << 20
)

// startHost starts the NodeHost, which has no replicas yet.
func (h *nodeHost) startHost() (err error) {
	defer recovered("dragonboat cannot start", &err)
	e := h.engine
	h.wire = transport.New(links{e}, h.watch)
	c := config.NodeHostConfig{
		NodeHostDir:         h.files.Dir,
		RTTMillisecond:      uint64(e.rtt / time.Millisecond),
		RaftAddress:         transport.Target(e.Node),
		RaftEventListener:   listener{engine: e},
		SystemEventListener: listener{engine: e},
	}
	c.MaxReceiveQueueSize, c.MaxSendQueueSize = receiveBytesMax, sendBytesMax
	c.Expert.LogDBFactory = factory{e}
	c.Expert.TransportFactory = h.wire
	c.Expert.LogDB = config.GetTinyMemLogDBConfig()
	// One step worker saves the entries of all shards with one fdatasync; one apply worker
	// is what the store is made for.
	c.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 4, CloseShards: 1}
	if e.adapted {
		e.Logger.Info("dragonboat demands an election timeout of more than two intervals of heartbeats", "heartbeat_interval", e.rtt*time.Duration(e.heartbeatTicks), "election_timeout", e.rtt*time.Duration(e.electionTicks))
	}
	environment.SetLogger(e.Logger)
	if err := environment.Prepare(&c, h.files.FS, logdb.Format); err != nil {
		return err
	}
	h.nh, err = dragonboat.NewNodeHost(c)
	return err
}

// closeHost stops dragonboat's workers, and waits for all goroutines.
func (h *nodeHost) closeHost() {
	h.mu.Lock()
	before := h.closing
	h.closing = true
	h.mu.Unlock()
	if before || h.nh == nil {
		return
	}
	h.engine.closeKeeper()
	if err := h.close(); err != nil {
		h.engine.Logger.Warn("dragonboat did not stop cleanly", "error", err)
	}
	h.wg.Wait()
}

func (h *nodeHost) close() (err error) {
	defer recovered("dragonboat", &err)
	h.nh.Close()
	return nil
}

// background runs f until the node is closed.
func (h *nodeHost) background(f func(context.Context)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closing {
		h.wg.Go(func() { f(h.ctx) })
	}
}

// recovered makes an error of a panic: dragonboat knows no other answer to an error of the
// disk.
func recovered(doing string, err *error) {
	if what := recover(); what != nil {
		if failure, ok := what.(error); ok {
			*err = fmt.Errorf("%s: %w", doing, failure)
			return
		}
		*err = fmt.Errorf("%s: %v", doing, what)
	}
}

// electNow has a replica that needs no other stand for election at once.
func (h *nodeHost) electNow(s *shard) {
	id := s.replicaID.Load()
	h.wire.Deliver(h.engine.Node, []pb.Message{{Type: pb.TimeoutNow, ShardID: s.id, To: id, From: id}})
}

// target is where a replica is, for dragonboat: its node.
func target(replica uint64) string { return strconv.FormatUint(placement.NodeOf(replica), 10) }

// factory gives dragonboat the log database of the engine.
type factory struct{ engine *Engine }

// Create returns the database.
func (f factory) Create(config.NodeHostConfig, config.LogDBCallback, []string, []string) (raftio.ILogDB, error) {
	return guarded{f.engine.db, f.engine}, nil
}

// Name returns what dragonboat records.
func (f factory) Name() string { return logdb.Factory{}.Name() }

// guarded is the log database for dragonboat's workers, which panic with the errors that it
// returns. So an error ends the node, and then nothing is saved any more, and nothing of
// what dragonboat makes of that leaves the node: see failed.
type guarded struct {
	*logdb.DB
	engine *Engine
}

// failed reports whether the node has failed. From then on dragonboat's workers are told
// that all goes well, until they are stopped: nothing is saved or applied, no message is
// sent, and nobody gets an outcome.
func (h *nodeHost) failed() bool { return h.engine.State.Is(engine.Failed) }

// SaveRaftState saves entries and states, for the step worker.
func (g guarded) SaveRaftState(updates []pb.Update, worker uint64) error {
	e := g.engine
	if e.failed() {
		return nil
	}
	before, start := e.Log.Position(), time.Now()
	if err := g.DB.SaveRaftState(updates, worker); err != nil {
		e.host.Fail(err)
		return nil
	}
	e.committed(updates)
	if e.Log.Position() != before {
		took := time.Since(start)
		e.fsyncs.Add(1)
		e.fsyncNanos.Add(uint64(took))
		e.host.NoteFsync(took)
		e.noteLogSize()
	}
	return nil
}

// SaveSnapshots saves records of snapshots.
func (g guarded) SaveSnapshots(updates []pb.Update) error {
	if g.engine.failed() {
		return nil
	}
	if err := g.DB.SaveSnapshots(updates); err != nil {
		g.engine.host.Fail(err)
	}
	return nil
}

// RemoveEntriesTo cuts a replica's log.
func (g guarded) RemoveEntriesTo(shard, id, index uint64) error {
	if g.engine.failed() {
		return nil
	}
	return g.DB.RemoveEntriesTo(shard, id, index)
}

// IterateEntries reads entries. Raft cannot go on without them: the worker ends.
func (g guarded) IterateEntries(entries []pb.Entry, size, shard, id, low, high, maxSize uint64) ([]pb.Entry, uint64, error) {
	entries, size, err := g.DB.IterateEntries(entries, size, shard, id, low, high, maxSize)
	if err != nil && !g.engine.opening.Load() {
		g.engine.host.Fail(err)
		<-g.engine.ctx.Done()
		runtime.Goexit()
	}
	return entries, size, err
}

// listener is told by dragonboat what has happened. Its methods are called by one
// goroutine, and must not wait.
type listener struct{ engine *Engine }

var (
	_ raftio.IRaftEventListener   = listener{}
	_ raftio.ISystemEventListener = listener{}
)

// LeaderUpdated takes in that a shard has another leader, or none.
func (l listener) LeaderUpdated(info raftio.LeaderInfo) {
	if s := l.engine.shardOf(info.ShardID); s != nil {
		l.engine.Post(func() { s.changeLeader(info) })
	}
}

// MembershipChanged takes in that the configuration of a shard has changed.
func (l listener) MembershipChanged(info raftio.NodeInfo) {
	if s := l.engine.shardOf(info.ShardID); s != nil {
		l.engine.Post(s.confChanged)
	}
}

// NodeHostShuttingDown does nothing, as all that follow.
func (listener) NodeHostShuttingDown() {}

// NodeUnloaded does nothing.
func (listener) NodeUnloaded(raftio.NodeInfo) {}

// NodeDeleted does nothing: the control plane says when a replica goes.
func (listener) NodeDeleted(raftio.NodeInfo) {}

// NodeReady has the configuration looked at.
func (l listener) NodeReady(info raftio.NodeInfo) { l.MembershipChanged(info) }

// ConnectionEstablished does nothing.
func (listener) ConnectionEstablished(raftio.ConnectionInfo) {}

// ConnectionFailed does nothing.
func (listener) ConnectionFailed(raftio.ConnectionInfo) {}

// SendSnapshotStarted says so.
func (l listener) SendSnapshotStarted(info raftio.SnapshotInfo) {
	l.logSnapshot("sending a snapshot", info)
}

// SendSnapshotCompleted says so.
func (l listener) SendSnapshotCompleted(info raftio.SnapshotInfo) {
	l.logSnapshot("snapshot delivered", info)
}

// SendSnapshotAborted says so.
func (l listener) SendSnapshotAborted(info raftio.SnapshotInfo) {
	l.logSnapshot("snapshot was not delivered", info)
}

func (l listener) logSnapshot(text string, info raftio.SnapshotInfo) {
	if s := l.engine.shardOf(info.ShardID); s != nil {
		s.logger.Info(text, "to", placement.NodeOf(info.ReplicaID))
	}
}

// SnapshotReceived does nothing.
func (listener) SnapshotReceived(raftio.SnapshotInfo) {}

// SnapshotRecovered does nothing.
func (listener) SnapshotRecovered(raftio.SnapshotInfo) {}

// SnapshotCreated does nothing.
func (listener) SnapshotCreated(raftio.SnapshotInfo) {}

// SnapshotCompacted does nothing.
func (listener) SnapshotCompacted(raftio.SnapshotInfo) {}

// LogCompacted does nothing.
func (listener) LogCompacted(raftio.EntryInfo) {}

// LogDBCompacted does nothing.
func (listener) LogDBCompacted(raftio.EntryInfo) {}
