package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/proa-kv/proa/raftgroup/dragonboat/environment"
	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftlog"
)

// The replica of shard 1 that strangers write to is on node 1, and has two others beside
// it. The number of a replica is its node's and two digits.
const (
	shard = 1
	self  = 101
)

func nodeOf(replica uint64) uint64 { return replica / 100 }

var members = map[uint64]string{101: "1", 201: "2", 301: "3"}

// victim is a NodeHost that others, whom the test plays, send messages to.
type victim struct {
	t     testing.TB
	node  uint64
	fs    vfs.FS
	ticks uint64 // milliseconds between them
	sm    *absorber

	log  *raftlog.Log
	db   raftio.ILogDB
	nh   *dragonboat.NodeHost
	wire *Transport
	sent *Sent

	changes *Changes

	probes atomic.Uint64 // the number of the last that was answered
	probe  uint64
}

func newVictim(t testing.TB, ticks uint64) *victim {
	environment.SetLogger(slog.New(slog.DiscardHandler))
	v := &victim{t: t, node: 1, fs: vfs.NewMem(), ticks: ticks, sm: new(absorber)}
	v.start(v, members)
	return v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kept keeps the LogDB that a factory has made.
type kept struct {
	config.LogDBFactory
	db *raftio.ILogDB
}

func (k kept) Create(c config.NodeHostConfig, cb config.LogDBCallback, dirs, wals []string) (raftio.ILogDB, error) {
	db, err := k.LogDBFactory.Create(c, cb, dirs, wals)
	*k.db = db
	return db, err
}

// self is the number of the replica.
func (v *victim) self() uint64 { return v.node*100 + 1 }

func (v *victim) start(links Links, initial map[uint64]string) {
	var err error
	v.log, _, err = raftlog.Open(raftlog.Options{Dir: "/raft", FS: v.fs, SegmentBytes: 64 << 10})
	must(v.t, err)
	v.sent, v.changes = new(Sent), new(Changes)
	v.wire = New(links, nil)
	c := config.NodeHostConfig{NodeHostDir: "/host", RTTMillisecond: v.ticks, RaftAddress: Target(v.node)}
	c.Expert.LogDBFactory = kept{logdb.Factory{Log: v.log}, &v.db}
	c.Expert.TransportFactory = v.wire
	c.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 1, CloseShards: 1}
	c.Expert.LogDB = config.GetTinyMemLogDBConfig()
	must(v.t, environment.Prepare(&c, v.fs, logdb.Format))
	v.nh, err = dragonboat.NewNodeHost(c)
	must(v.t, err)
	must(v.t, v.nh.StartOnDiskReplica(initial, false, func(uint64, uint64) statemachine.IOnDiskStateMachine { return v.sm }, config.Config{
		ShardID: shard, ReplicaID: v.self(), ElectionRTT: 10, HeartbeatRTT: 1, CheckQuorum: true, PreVote: true,
	}))
}

func (v *victim) close() {
	v.nh.Close()
	must(v.t, v.log.Close())
}

// Connected implements Links: everybody is.
func (v *victim) Connected(uint64) error { return nil }

// Send implements Links: it looks for answers to probes.
func (v *victim) Send(_ uint64, frame []byte) error {
	ms, err := decodeMessages(frame)
	for i := range ms {
		m := &ms[i]
		v.sent.Note(m)
		if err := checkMessage(m); err != nil {
			v.t.Errorf("dragonboat sends what is refused: %+v: %v", m, err)
		}
		if m.Type == pb.RequestPreVoteResp && m.Term > probeTerm {
			v.probes.Store(m.Term - probeTerm)
		}
	}
	return err
}

// Stream implements Links.
func (v *victim) Stream(context.Context, uint64) (Stream, error) {
	return nil, errors.New("no snapshots are taken here")
}

// place is where the replica is.
func (v *victim) place() *Place {
	p := &Place{NodeOf: nodeOf, Sent: v.sent, Changes: v.changes, Votes: true, Pending: v.pending}
	if s, err := v.db.ReadRaftState(shard, v.self(), 0); err == nil {
		p.Term = s.State.Term
		if s.EntryCount > 0 {
			p.Last = s.FirstIndex + s.EntryCount - 1
		}
	}
	if s, err := v.db.GetSnapshot(shard, v.self()); err == nil {
		p.Last = max(p.Last, s.Index)
	}
	if leader, term, ok, err := v.nh.GetLeaderID(shard); err == nil && ok {
		p.Leader, p.LeaderTerm = leader, term
	}
	return p
}

func (v *victim) pending() int {
	n, err := Pending(v.db, shard, v.self())
	if err != nil && !errors.Is(err, raftio.ErrNoSavedLog) {
		v.t.Error(err)
	}
	return n
}

// receive hands a message over as a node's engine does. refused is why it does not.
func (v *victim) receive(from uint64, m pb.Message) (refused error) {
	m.ShardID, m.To = shard, self
	frame := appendMessage(nil, &m)
	ms, err := decodeMessages(frame)
	place := v.place()
	if err == nil {
		err = place.Check(from, &ms[0])
	}
	if err != nil || place.Ignores(&ms[0]) {
		return err
	}
	return v.wire.Receive(from, frame)
}

// probeTerm is beyond each term of a test; in it a vote is asked for that is not counted.
const probeTerm = 1 << 61

// settle waits until the replica has taken in what it was sent. It returns false if the
// replica is gone, removed from its group.
func (v *victim) settle() bool {
	v.probe++
	term := probeTerm + v.probe
	m := pb.Message{Type: pb.RequestPreVote, ShardID: shard, To: self, From: 301, Hint: 301, Term: term, LogTerm: term, LogIndex: positionMax}
	for i := 0; v.probes.Load() != v.probe; i++ {
		if i%100 == 0 {
			if _, _, _, err := v.nh.GetLeaderID(shard); err != nil {
				return false
			}
			must(v.t, v.wire.Receive(3, appendMessage(nil, &m)))
		}
		runtime.Gosched()
	}
	return true
}

// absorber is a state machine that takes everything.
type absorber struct {
	mu    sync.Mutex
	index uint64
}

func (a *absorber) reach(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index = max(a.index, index)
}

func (a *absorber) Open(<-chan struct{}) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.index, nil
}

func (a *absorber) Update(es []statemachine.Entry) ([]statemachine.Entry, error) {
	a.reach(es[len(es)-1].Index)
	return es, nil
}
func (a *absorber) Lookup(any) (any, error) { return nil, nil }
func (a *absorber) Sync() error             { return nil }
func (a *absorber) PrepareSnapshot() (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.index, nil
}

// SaveSnapshot writes what RecoverFromSnapshot reads.
func (a *absorber) SaveSnapshot(index any, w io.Writer, _ <-chan struct{}) error {
	return binary.Write(w, binary.LittleEndian, index)
}
func (a *absorber) Close() error { return nil }

// RecoverFromSnapshot reads the index that is in each snapshot of the test.
func (a *absorber) RecoverFromSnapshot(r io.Reader, _ <-chan struct{}) error {
	var index [8]byte
	if _, err := io.ReadFull(r, index[:]); err != nil {
		return err
	}
	a.reach(binary.LittleEndian.Uint64(index[:]))
	return nil
}

// snapshot is a stream of chunks that dragonboat takes for whole.
func snapshot(from, index, term uint64) []pb.Chunk {
	block := binary.LittleEndian.AppendUint64(nil, sessionsMax)
	block = binary.LittleEndian.AppendUint64(block, 0)
	block = binary.LittleEndian.AppendUint64(block, index)
	block = binary.BigEndian.AppendUint32(block, crc32.ChecksumIEEE(block))
	tail := binary.LittleEndian.AppendUint64(nil, uint64(len(block)))
	tail = append(tail, 0x3F, 0x5B, 0xCB, 0xF1, 0xFA, 0xBA, 0x81, 0x9F)
	cs := []pb.Chunk{chunk(0), chunk(1), chunk(2)}
	for i, data := range [][]byte{append(cs[0].Data[:headerBytes:headerBytes], block...), tail, nil} {
		c := &cs[i]
		c.ShardID, c.ReplicaID, c.From, c.Index, c.Term, c.OnDiskIndex = shard, self, from, index, term, index
		c.DeploymentId, c.BinVer = 1, raftio.TransportBinVersion
		c.Filepath = "snapshot-" + hex16(index) + ".gbsnap"
		c.Data, c.ChunkSize = data, uint64(len(data))
		c.Membership = pb.Membership{ConfigChangeId: 3, Addresses: members}
	}
	return cs
}

func hex16(n uint64) string {
	const digits = "0123456789ABCDEF"
	p := make([]byte, 16)
	for i := range p {
		p[i] = digits[n>>(60-4*i)&15]
	}
	return string(p)
}

// receiveChunk is receive for a chunk.
func (v *victim) receiveChunk(from uint64, c *pb.Chunk) (refused error) {
	if err := v.place().CheckChunk(from, c); err != nil {
		return err
	}
	_, err := v.wire.ReceiveChunk(encodeChunk(c), anyChunk)
	return err
}

// TestSnapshotOfStream: what the test calls a snapshot is one.
func TestSnapshotOfStream(t *testing.T) {
	v := newVictim(t, 1000)
	defer v.close()
	must(t, v.receive(2, pb.Message{Type: pb.Heartbeat, From: 201, Term: 5}))
	v.settle()
	for _, c := range snapshot(201, 50, 4) {
		must(t, v.receiveChunk(2, &c))
	}
	for v.place().Last != 50 {
		runtime.Gosched()
	}
	must(t, v.receive(2, pb.Message{Type: pb.Heartbeat, From: 201, Term: 5, Commit: 50}))
	v.settle()
	v.close()
	v.start(v, nil)
	for { // until it is the state machine's
		if index, _ := v.sm.Open(nil); index == 50 {
			return
		}
		runtime.Gosched()
	}
}

// TestSnapshotForNobody: a snapshot for a replica that is not here costs its sender the
// stream. The next one, for the one that is, is taken.
func TestSnapshotForNobody(t *testing.T) {
	v := newVictim(t, 100_000)
	defer v.close()
	for _, f := range []func(c *pb.Chunk){func(c *pb.Chunk) { c.ReplicaID = 102 }, func(c *pb.Chunk) { c.ShardID = 9 }} {
		for _, c := range snapshot(201, 50, 1) {
			f(&c)
			if wanted, err := v.wire.ReceiveChunk(encodeChunk(&c), anyChunk); wanted || c.ChunkId == 0 && !errors.Is(err, ErrRefused) {
				t.Errorf("chunk %d is wanted: %v, %v", c.ChunkId, wanted, err)
			}
		}
	}
	for _, c := range snapshot(201, 50, 1) {
		if wanted, err := v.wire.ReceiveChunk(encodeChunk(&c), anyChunk); !wanted || err != nil {
			t.Errorf("chunk %d: %v, %v", c.ChunkId, wanted, err)
		}
	}
	v.settle()
}

// TestDroppedSnapshots: of a snapshot that was dropped nothing is left, wherever it broke
// off and whatever is damaged in it; and it was not taken. dragonboat has 128 places.
func TestDroppedSnapshots(t *testing.T) {
	v := newVictim(t, 100_000)
	defer v.close()
	must(t, v.receive(2, pb.Message{Type: pb.Heartbeat, From: 201, Term: 5}))
	v.settle()
	ends := []struct {
		name   string
		chunks int
		filler int // bytes that are in chunks of their own, and no blocks
	}{{"the first chunk", 1, 0}, {"the last but one", 2, 0}, {"a block", 1, 2<<20 + 4}, {"two blocks and the next", 2, 4 << 20}, {"many", 1, 16 << 20}}
	for i := range uint64(130) {
		x := ends[int(i)%len(ends)]
		cs := snapshot(201, 50+i, 4)[:x.chunks]
		for filled := 0; filled < x.filler; {
			c := cs[len(cs)-1]
			c.ChunkId++
			c.FileChunkId = c.ChunkId
			c.Data = make([]byte, min(x.filler-filled, 4<<20-1024))
			c.ChunkSize = uint64(len(c.Data))
			filled += len(c.Data)
			cs = append(cs, c)
		}
		last := cs[0]
		for _, c := range cs {
			wanted, err := v.wire.ReceiveChunk(encodeChunk(&c), anyChunk)
			if err != nil || !wanted && c.ChunkId < uint64(x.chunks) {
				t.Fatalf("snapshot %d, %s: chunk %d is wanted: %v, %v", i, x.name, c.ChunkId, wanted, err)
			}
			if last = c; !wanted {
				break
			}
		}
		last.Data = nil
		v.wire.DropSnapshot(last)
	}
	for _, c := range snapshot(201, 50, 4) {
		must(t, v.receiveChunk(2, &c))
	}
	for v.place().Last < 50 {
		runtime.Gosched()
	}
	v.settle()
	if last := v.place().Last; last != 50 {
		t.Errorf("the log ends at %d: a snapshot that was dropped has been taken", last)
	}
	var left []string
	var look func(dir string)
	look = func(dir string) {
		names, _ := v.fs.List(dir)
		for _, name := range names {
			if left = append(left, dir+"/"+name); strings.HasPrefix(name, "snapshot-0") && !strings.HasPrefix(name, "snapshot-0000000000000032") {
				t.Errorf("%s/%s is left", dir, name)
			}
			look(dir + "/" + name)
		}
	}
	if look("/host"); len(left) < 5 {
		t.Errorf("only %v", left)
	}
}

// choices makes messages of bytes, which are what a fuzzer or a random number generator
// has chosen.
type choices struct {
	p []byte
	v *victim
}

func (c *choices) of(n int) int {
	if len(c.p) == 0 {
		return 0
	}
	b := int(c.p[0])
	c.p = c.p[1:]
	return b % n
}

func pick[T any](c *choices, values ...T) T { return values[c.of(len(values))] }

// term is near the replica's.
func (c *choices) term(p *Place) uint64 {
	return pick(c, p.Term, p.Term, p.Term, p.Term+1, p.Term+1, p.Term-min(p.Term, 1), 0, p.Term+7, 1<<33, math.MaxUint64)
}

// index is near the log's end.
func (c *choices) index(p *Place) uint64 {
	return pick(c, p.Last, p.Last, p.Last-min(p.Last, 1), p.Last-min(p.Last, 3), p.Last+1, p.Last+2, 0, 3, math.MaxUint64)
}

// termOf is mostly the term of an entry, as the log has it.
func (c *choices) termOf(index uint64, p *Place) uint64 {
	if c.of(8) == 7 {
		return c.term(p)
	}
	if es, _, err := c.v.db.IterateEntries(nil, 0, shard, self, index, index+1, math.MaxUint64); err == nil && len(es) == 1 {
		return es[0].Term
	}
	if s, err := c.v.db.GetSnapshot(shard, self); err == nil && s.Index == index {
		return s.Term
	}
	return uint64(c.of(2))
}

func (c *choices) message(p *Place) (from uint64, m pb.Message) {
	kinds := []pb.MessageType{
		pb.Replicate, pb.Replicate, pb.Replicate, pb.Heartbeat, pb.TimeoutNow, pb.RequestVoteResp, pb.RequestVoteResp, pb.RequestPreVoteResp, pb.RequestPreVoteResp,
		pb.ReplicateResp, pb.ReplicateResp, pb.HeartbeatResp, pb.Propose,
	}
	for kind := range pb.MessageType(30) {
		kinds = append(kinds, kind)
	}
	m = pb.Message{Type: pick(c, kinds...), From: pick[uint64](c, 201, 301, 201, 301, 202, 401, 101, 0)}
	from = nodeOf(m.From)
	if c.of(16) == 15 {
		from = 3
	}
	if m.Type != pb.Propose && m.Type != pb.ReadIndex && m.Type != pb.LeaderTransfer && m.Type != pb.SnapshotReceived || c.of(8) == 7 {
		m.Term = c.term(p)
	}
	switch m.Type {
	case pb.Replicate, pb.RequestVote, pb.RequestPreVote:
		m.LogIndex = c.index(p)
		m.LogTerm = c.termOf(m.LogIndex, p)
	case pb.ReplicateResp:
		m.LogIndex = c.index(p)
	}
	m.Commit = c.index(p)
	m.Reject = c.of(4) == 3 && m.Type != pb.Replicate && m.Type != pb.Heartbeat
	m.Hint = pick[uint64](c, 0, 1, 101, 201, m.From, p.Last, math.MaxUint64)
	m.HintHigh = uint64(c.of(3))
	if m.Type == pb.Replicate || m.Type == pb.Propose || c.of(16) == 15 {
		for i := range c.of(4) {
			e := c.entry(m.LogIndex+1+uint64(i), max(m.LogTerm, m.Term))
			m.Entries = append(m.Entries, e)
		}
	}
	return from, m
}

func (c *choices) entry(index, term uint64) pb.Entry {
	e := pb.Entry{Index: index, Term: term}
	switch c.of(6) {
	case 0:
		return e
	case 1, 2, 3:
		e = command(index, term)
	default:
		replica := pick[uint64](c, 101, 201, 202, 301, 401, 402, 0)
		e = change(index, term, pb.ConfigChange{
			Type: pick(c, pb.AddNode, pb.AddNonVoting, pb.RemoveNode, pb.AddWitness, 9), ReplicaID: replica,
			Address:    pick(c, Target(nodeOf(replica)), Target(nodeOf(replica)), Target(nodeOf(replica)), "7", "", "x:1"),
			Initialize: c.of(4) == 3, ConfigChangeId: uint64(c.of(3)),
		})
	}
	switch c.of(16) { // one thing may be wrong
	case 0, 8:
		e.Index += uint64(c.of(3))
	case 1:
		e.Term = pick[uint64](c, 0, 1, e.Term-1, e.Term+1, math.MaxUint64)
	case 2:
		e.Type = pb.EntryType(c.of(5))
	case 3:
		e.Key, e.ClientID = uint64(c.of(2)), uint64(c.of(2))
	case 4:
		e.SeriesID = pick[uint64](c, 1, math.MaxUint64, math.MaxUint64-1)
	case 5:
		e.Cmd = pick(c, nil, []byte{0}, []byte{1}, []byte{2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, []byte{0x10, 1}, []byte{2})
	case 6:
		e.RespondedTo = 1
	}
	return e
}

// chunks are those of a snapshot, as they are or not.
func (c *choices) chunks(p *Place) (from uint64, cs []pb.Chunk) {
	sender := pick[uint64](c, 201, 301, 202)
	cs = snapshot(sender, p.Last+uint64(c.of(4)), max(p.Term, 1)-min(uint64(c.of(2)), max(p.Term, 1)-1))
	switch i := c.of(3); c.of(12) {
	case 0:
		cs = slices.Delete(cs, i, i+1)
	case 1:
		cs = append(cs, cs...)
	case 2:
		slices.Reverse(cs)
	case 3:
		cs[i].From = 401
	case 4:
		cs[i].Index += uint64(c.of(2))
	case 5:
		if len(cs[i].Data) > 0 {
			cs[i].Data[c.of(256)*7%len(cs[i].Data)] ^= 1 << c.of(8)
		}
	case 6:
		cs[i].Filepath = pick(c, "", ".", "..", "a/b", "other")
	case 7:
		cs[i].FileChunkId, cs[i].ChunkCount = uint64(c.of(4)), uint64(c.of(4))
	case 8:
		cs[i].Membership = pb.Membership{ConfigChangeId: uint64(c.of(2)), NonVotings: map[uint64]string{101: "1"}, Addresses: map[uint64]string{201: pick(c, "2", "3", "")}}
	case 9:
		cs[i].HasFileInfo, cs[i].Witness = c.of(2) == 0, c.of(2) == 0
	}
	return nodeOf(sender), cs
}

// play sends what was chosen. It counts what was taken and what was refused.
func (v *victim) play(p []byte) (taken, refused int) {
	c := &choices{p, v}
	note := func(err error) {
		switch {
		case err == nil:
			taken++
		case errors.Is(err, ErrDamaged), errors.Is(err, ErrBehind):
			refused++
		default:
			v.t.Fatal(err)
		}
	}
	for len(c.p) > 0 {
		place := v.place()
		switch c.of(64) {
		case 63:
			from, cs := c.chunks(place)
			for i := range cs {
				note(v.receiveChunk(from, &cs[i]))
			}
		case 62, 61: // it is elected, if it follows
			note(v.receive(2, pb.Message{Type: pb.TimeoutNow, From: 201, Term: place.Term + 1}))
			v.settle()
			note(v.receive(3, pb.Message{Type: pb.RequestVoteResp, From: 301, Term: place.Term + 2}))
			v.settle()
			note(v.receive(3, pb.Message{Type: pb.ReplicateResp, From: 301, Term: place.Term + 2, LogIndex: place.Last + uint64(c.of(4))}))
		default:
			from, m := c.message(place)
			note(v.receive(from, m))
		}
		if c.of(4) == 0 && !v.settle() {
			break // the replica was removed
		}
	}
	v.settle()
	return taken, refused
}

// TestStrangers sends what random numbers say, to a replica of which the clock runs and to
// one of which it stands, and starts it again: it does not panic, and finds its log.
func TestStrangers(t *testing.T) {
	rounds, bytes := 12, 5000
	if testing.Short() {
		rounds, bytes = 2, 2000
	}
	r := rand.New(rand.NewPCG(1, 1))
	var taken, refused int
	for round := range rounds {
		v := newVictim(t, []uint64{1, 100_000}[round%2])
		for range 3 {
			p := make([]byte, bytes)
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			n, m := v.play(p)
			taken, refused = taken+n, refused+m
			v.close()
			v.start(v, nil)
		}
		v.close()
	}
	if t.Logf("%d messages taken, %d refused", taken, refused); taken < refused/20 || taken < 100 {
		t.Error("too few are taken")
	}
}

// FuzzStrangers has a fuzzer choose.
func FuzzStrangers(f *testing.F) {
	f.Add([]byte("a heartbeat or two, and what comes of it"))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 1, 1, 0, 1, 4, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		v := newVictim(t, 100_000)
		v.play(p[:min(len(p), 2000)])
		v.close()
		v.start(v, nil)
		v.settle()
		v.close()
	})
}

// TestReplicaThatLostItsLog has a leader say that more is committed than there is, of a log
// that has lost its end and of one that is new: it is the error that the engine stops with,
// and no panic.
func TestReplicaThatLostItsLog(t *testing.T) {
	v := newVictim(t, 100_000)
	behind := func(commit uint64) {
		t.Helper()
		for range 3 {
			if err := v.receive(2, pb.Message{Type: pb.Heartbeat, From: 201, Term: 5, Commit: commit}); !errors.Is(err, ErrBehind) {
				t.Errorf("%v", err)
			}
		}
		v.settle()
	}
	must(t, v.receive(2, pb.Message{Type: pb.Replicate, From: 201, Term: 5, LogIndex: 3, LogTerm: 1, Commit: 3, Entries: []pb.Entry{command(4, 5)}}))
	v.settle()
	must(t, v.receive(2, pb.Message{Type: pb.Heartbeat, From: 201, Term: 5, Commit: 4}))
	behind(5)
	v.close()
	v.start(v, nil)
	defer func() { v.close() }()
	behind(5)
	v.close()
	v.fs, v.sm = vfs.NewMem(), new(absorber)
	v.start(v, members)
	behind(4)
}
