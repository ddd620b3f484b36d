package etcd

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// A follower that is behind the log gets a snapshot: the state of its shard as
// of one entry, seen through a view that costs the leader nothing to open, sent
// on a connection of its own. The follower stages it in files. Raft learns of it
// when all is there; then one pass puts it in the place of what was there.

// groupStorage is a group's log as Raft sees it.
type groupStorage struct {
	*raftlog.Group
	n       *Engine
	g       *group
	applied uint64 // at the start
	conf    raftpb.ConfState
}

// InitialState returns the group's hard state and configuration. The commit
// index is at least what the state machine has applied: it is written lazily
// and may be behind.
func (s *groupStorage) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	hs, _, err := s.Group.InitialState()
	hs.Commit = max(hs.Commit, s.applied)
	return hs, s.conf, err
}

// Snapshot returns the point that the state machine is at. Raft calls it to
// send it to a follower, which then gets the view that is opened here. The
// base method's point, where the log begins, is one that the state machine has
// left behind.
func (s *groupStorage) Snapshot() (raftpb.Snapshot, error) {
	return s.g.openSnapshot(s.n)
}

// outgoingSnapshot is a snapshot on its way to a follower; see engine.OutgoingSnapshot.
type outgoingSnapshot struct {
	engine *Engine
	group  *group
	to     uint64 // replica
	view   *storage.View
	msg    raftpb.Message
	sent   atomic.Int64
	once   sync.Once

	ctx    context.Context
	cancel context.CancelFunc
}

// snapshots is what a group's replica sends and receives of them. It belongs to the
// pass.
type snapshots struct {
	group     *group
	opened    *storage.View                // of the snapshot message that Raft is making
	sending   map[uint64]*outgoingSnapshot // by replica
	staged    *incomingSnapshot            // whose message is being stepped
	receiving *incomingSnapshot

	snapshotsFrom uint64 // tick before which none is sent
}

// openSnapshot opens a view for the message that Raft is about to make.
func (ss *snapshots) openSnapshot(e *Engine) (raftpb.Snapshot, error) {
	if ss.group.Broken.Load() || ss.group.at.index <= datadir.StartIndex && ss.group.at.conf == nil {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	if e.ticks < ss.snapshotsFrom {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable // one has just failed
	}
	if ss.opened != nil {
		ss.opened.Close()
	}
	view, err := e.Store.OpenView(ss.group.shard)
	if err != nil {
		ss.group.logger.Error("cannot open a view for a snapshot", "error", err)
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	ss.opened = view
	return raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: ss.group.at.index, Term: ss.group.at.term, ConfState: *ss.group.at.conf}}, nil
}

// sendSnapshot takes over a MsgSnap of Raft's.
func (ss *snapshots) sendSnapshot(e *Engine, m *raftpb.Message) {
	view := ss.opened
	ss.opened = nil
	if view == nil || m.Snapshot == nil || m.Snapshot.Metadata.Index != max(view.Applied(), datadir.StartIndex) {
		if view != nil {
			view.Close()
		}
		ss.group.node.ReportSnapshot(m.To, raft.SnapshotFailure)
		return
	}
	if old := ss.sending[m.To]; old != nil {
		old.cancel()
	}
	s := &outgoingSnapshot{engine: e, group: ss.group, to: m.To, view: view, msg: *m}
	s.ctx, s.cancel = context.WithCancel(e.Context)
	if ss.sending == nil {
		ss.sending = make(map[uint64]*outgoingSnapshot)
	}
	ss.sending[m.To] = s
	ss.group.logger.Info("sending a snapshot", "to", placement.NodeOf(m.To), "index", m.Snapshot.Metadata.Index)
	e.Transport.SendSnapshot(placement.NodeOf(m.To), s)
}

// dropSnapshots ends the transfers of a replica that leads no more.
func (ss *snapshots) dropSnapshots() {
	for _, s := range ss.sending {
		s.cancel()
	}
}

// Context ends when the transfer has lost its sense.
func (s *outgoingSnapshot) Context() context.Context { return s.ctx }

// Header returns what the receiver's BeginSnapshot takes.
func (s *outgoingSnapshot) Header() []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(s.group.shard))
	b = binary.LittleEndian.AppendUint64(b, s.view.ID())
	m, err := s.msg.Marshal()
	if err != nil {
		panic(err) // Raft made it
	}
	return append(b, m...)
}

// Export writes the snapshot from where token says that the receiver has it.
func (s *outgoingSnapshot) Export(token []byte, write func([]byte) error) error {
	if len(token) == 0 {
		token = nil // from the beginning
	}
	return s.view.Export(func(chunk []byte) error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		s.sent.Add(int64(len(chunk)))
		return write(chunk)
	}, token)
}

// Done says how the transfer has ended. It must be called once Export is not
// running any more.
func (s *outgoingSnapshot) Done(err error) {
	s.once.Do(func() {
		s.cancel()
		s.view.Close()
		s.engine.Post(func() { s.group.snapshotDone(s.engine, s, err) })
	})
}

// snapshotPause is how long a group sends no snapshot after one has failed.
const snapshotPause = time.Second

func (ss *snapshots) snapshotDone(e *Engine, s *outgoingSnapshot, err error) {
	if ss.sending[s.to] == s {
		delete(ss.sending, s.to)
	}
	if err != nil {
		ss.group.logger.Warn("snapshot was not delivered", "to", placement.NodeOf(s.to), "error", err)
		ss.snapshotsFrom = e.ticks + uint64(snapshotPause/e.tick)
	} else {
		ss.group.logger.Info("snapshot delivered", "to", placement.NodeOf(s.to), "bytes", s.sent.Load())
	}
	if ss.group.state != raft.StateLeader {
		return
	}
	status := raft.SnapshotFinish
	if err != nil {
		status = raft.SnapshotFailure
	}
	ss.group.node.ReportSnapshot(s.to, status)
}

// incomingSnapshot is a snapshot that is being received; see engine.IncomingSnapshot.
type incomingSnapshot struct {
	engine  *Engine
	group   *group
	msg     raftpb.Message
	install *storage.Install
	begun   atomic.Bool // install is there
	phase   atomic.Int32
}

const (
	snapshotReceiving = iota
	snapshotInstalling
	snapshotEnded
)

func (s *incomingSnapshot) installing() bool { return s.phase.Load() == snapshotInstalling }

// BeginSnapshot begins to receive a snapshot that another node sends; see
// engine.Receiver.
func (e *Engine) BeginSnapshot(from uint64, header []byte) (engine.IncomingSnapshot, []byte, error) {
	if len(header) < 12 {
		return nil, nil, fmt.Errorf("%w: its header is truncated", engine.ErrSnapshotUnwanted)
	}
	shard, view := binary.LittleEndian.Uint32(header), binary.LittleEndian.Uint64(header[4:])
	s := &incomingSnapshot{engine: e}
	if err := s.msg.Unmarshal(header[12:]); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", engine.ErrSnapshotUnwanted, err)
	}
	m := &s.msg
	if int(shard) >= len(e.groups) || m.Type != raftpb.MsgSnap || m.Snapshot == nil || placement.NodeOf(m.From) != from || placement.NodeOf(m.To) != e.Node {
		return nil, nil, fmt.Errorf("%w: its header is invalid", engine.ErrSnapshotUnwanted)
	}
	if err := checkForm(m); err != nil {
		e.blame(from, int(shard), err)
		return nil, nil, fmt.Errorf("%w: %w", engine.ErrSnapshotUnwanted, err)
	}
	s.group = e.groups[shard]
	claimed := make(chan bool, 1)
	e.Post(func() { claimed <- s.claim() })
	select {
	case ok := <-claimed:
		if !ok {
			return nil, nil, fmt.Errorf("%w: another snapshot is already being received, or this one is outdated", engine.ErrSnapshotUnwanted)
		}
	case <-e.Context.Done():
		return nil, nil, command.ErrStopped
	}
	meta := m.Snapshot.Metadata
	conf, err := meta.ConfState.Marshal()
	if err == nil {
		s.install, err = e.Store.BeginInstall(int(shard), view, storage.InstallMeta{Index: meta.Index, Term: meta.Term, Conf: conf})
	}
	if err != nil {
		s.release()
		return nil, nil, err
	}
	s.begun.Store(true)
	return s, s.install.Token(), nil
}

// claim makes s the one snapshot that the group receives, in the pass.
func (s *incomingSnapshot) claim() bool {
	g := s.group
	if g.node == nil {
		if err := g.beget(s.engine, &s.msg); err != nil {
			s.engine.host.Fail(err)
			return false
		}
	}
	if g.node == nil || s.msg.To != g.id || g.receiving != nil {
		return false
	}
	ok, err := g.vouched(s.engine, &s.msg)
	if err != nil {
		s.engine.host.Fail(err)
	}
	if !ok || err != nil {
		return false
	}
	if s.msg.Snapshot.Metadata.Index <= g.at.index {
		// All that is here already. Raft reports that to the leader, which does not
		// know: a new one whose first messages were lost begins from nothing.
		_ = g.node.Step(s.msg)
		return false
	}
	g.receiving = s
	return true
}

func (s *incomingSnapshot) release() {
	s.engine.Post(func() {
		if s.group.receiving == s {
			s.group.receiving = nil
		}
	})
}

// Write takes in a chunk.
func (s *incomingSnapshot) Write(chunk []byte) error { return s.install.Write(chunk) }

// Abort ends a transfer that broke off. What has been staged is kept for the
// next attempt.
func (s *incomingSnapshot) Abort() {
	_ = s.install.Close()
	s.release()
}

// Finish checks that all has come, and hands the snapshot to the group. It
// does not wait for the group to put it in place.
func (s *incomingSnapshot) Finish() error {
	if err := s.install.Finish(); err != nil {
		s.release()
		return err
	}
	s.phase.Store(snapshotInstalling)
	s.engine.schedule.addMessage(s.group, inbound{m: s.msg, staged: s})
	s.engine.schedule.request(messagesDue)
	s.engine.host.Kick()
	return nil
}

func (in *inbound) discard() {
	if in.staged != nil {
		in.staged.end()
	}
}

// end clears away a snapshot that is in place or of no use. For the pass.
func (s *incomingSnapshot) end() {
	if s.phase.Swap(snapshotEnded) != snapshotEnded {
		_ = s.install.Abort() // nothing is left to abort where it is in place
	}
	if s.group.receiving == s {
		s.group.receiving = nil
	}
}

// stepSnapshot gives Raft the message of a snapshot whose data are here.
func (ss *snapshots) stepSnapshot(e *Engine, in *inbound) error {
	ss.staged = in.staged
	defer func() {
		ss.staged.end()
		ss.staged = nil
	}()
	if ok, err := ss.group.freeEdges(e); !ok {
		return err // the leader sends it again
	}
	_ = ss.group.node.Step(in.m)
	return ss.group.collect(e) // where Raft wants it, install puts it in place
}

// install puts the staged snapshot in the place of the group's state. The log
// follows with the write being filled; should the node end in between, the
// state knows where the log has to begin.
func (ss *snapshots) install(e *Engine, snap *raftpb.Snapshot) error {
	m := snap.Metadata
	if ss.staged == nil || ss.staged.msg.Snapshot.Metadata.Index != m.Index {
		return fmt.Errorf("%s: snapshot %d, which Raft requires, is not staged here", e.ShardName(ss.group.shard), m.Index)
	}
	if err := e.apply(); err != nil { // what was collected before comes first
		return err
	}
	if err := e.Store.Install(ss.staged.install); err != nil {
		return err
	}
	e.filling.log.SetStart(ss.group.log, m.Index, m.Term, &m.ConfState)
	e.filling.mustSync = true
	ss.group.conf = m.ConfState
	conf := ss.group.conf
	ss.group.at = applyPoint{m.Index, m.Term, &conf}
	ss.group.Applied.Store(m.Index)
	ss.group.last = m.Index
	ss.group.LastStamp.Store(max(ss.group.LastStamp.Load(), e.Store.LastStamp(ss.group.shard)))
	// Whether what was proposed here before is part of it is not known.
	for len(ss.group.inflight) > 0 && ss.group.inflight[0].index <= m.Index {
		e.applier.Finish(ss.group.inflight[0].done, command.TimedOut)
		ss.group.inflight = ss.group.inflight[1:]
	}
	if ss.group.Broken.Load() {
		ss.group.recovered()
		ss.group.Held.Store(true)
	}
	ss.group.logger.Info("snapshot installed", "index", m.Index, "term", m.Term)
	if ss.group.shard == e.Meta() {
		return e.mapApplied()
	}
	return nil
}
