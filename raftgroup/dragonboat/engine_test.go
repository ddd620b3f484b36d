package dragonboat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/storage"
)

// counter writes 1, 2, 3 … to a row of each shard, as long as that is acknowledged.
type counter struct {
	c      *cluster
	acked  [testShards]atomic.Int64
	writes atomic.Int64
	ends   atomic.Bool
	wg     sync.WaitGroup
}

// stop has the writers end, and waits for them.
func (w *counter) stop() {
	w.ends.Store(true)
	w.wg.Wait()
	w.ends.Store(false)
}

func (w *counter) start() {
	for shard := range testShards {
		n := w.c.leader(shard)
		w.wg.Go(func() {
			for i := w.acked[shard].Load() + 1; !w.ends.Load(); i++ {
				put := command.Command{Kind: command.Put, Key: []byte("n"), Value: fmt.Append(nil, i)}
				if n.do(shard, &put).outcome != command.Applied {
					return
				}
				w.acked[shard].Store(i)
				w.writes.Add(1)
			}
		})
	}
}

func (w *counter) read(shard int) (i int64) {
	w.c.t.Helper()
	n := w.c.leader(shard)
	w.c.until("a read index", func() bool { return n.confirmed(shard) })
	_, _ = fmt.Sscan(n.read(shard, "n"), &i)
	return i
}

// TestAcknowledgedIsDurable has all nodes lose power at one moment, again and again, amid
// writes: whatever was acknowledged is there afterwards (D1).
func TestAcknowledgedIsDurable(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 3
	}
	for _, nodes := range [][]uint64{{1}, {1, 2, 3}} {
		t.Run(fmt.Sprint(len(nodes)), func(t *testing.T) {
			w := &counter{c: newCluster(t, nodes...)}
			for round := range rounds {
				w.writes.Store(0)
				w.start()
				w.c.until("writes", func() bool { return w.writes.Load() >= 20 })
				var promised [testShards]int64
				for shard := range promised {
					promised[shard] = w.acked[shard].Load()
				}
				w.c.crash(nodes...)
				w.stop()
				for shard, want := range promised {
					got := w.read(shard)
					if got < want {
						t.Fatalf("round %d: shard %d has %d, %d was acknowledged", round, shard, got, want)
					}
					w.acked[shard].Store(got)
				}
			}
		})
	}
}

// TestLeaderIsCutOff: a leader that reaches nobody answers no read, of a lease or of a
// read index, from the moment on when another has acknowledged a write (R1, R2).
func TestLeaderIsCutOff(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	c := newCluster(t, 1, 2, 3)
	for round := range rounds {
		old := c.leader(0)
		c.until("a lease", func() bool { return old.shards[0].Leased(old.Clock) })
		c.setCut(old.id, true)
		c.put(0, "k", fmt.Sprint(round))
		if old.shards[0].Leased(old.Clock) {
			t.Fatal("the leader of before has a lease yet")
		}
		heard := make(waiter, 1)
		if err := old.ReadIndex(0, heard, command.Tag{}); err == nil {
			if out := <-heard; out.outcome == command.Applied && old.read(0, "k") != fmt.Sprint(round) {
				t.Fatal("the leader of before confirms a read")
			}
		}
		c.setCut(old.id, false)
		c.until("the node of before to follow", func() bool { return old.confirmed(0) && old.read(0, "k") == fmt.Sprint(round) })
	}
}

// TestCrashedLeader: the others go on without a node that crashed, and it catches up.
func TestCrashedLeader(t *testing.T) {
	w := &counter{c: newCluster(t, 1, 2, 3)}
	for range 2 {
		w.writes.Store(0)
		w.start()
		w.c.until("writes", func() bool { return w.writes.Load() >= 20 })
		var promised [testShards]int64
		for shard := range promised {
			promised[shard] = w.acked[shard].Load()
		}
		w.c.crash(w.c.leader(0).id)
		w.stop()
		for shard, want := range promised {
			if got := w.read(shard); got < want {
				t.Fatalf("shard %d has %d, %d was acknowledged", shard, got, want)
			}
			w.acked[shard].Store(w.read(shard))
		}
	}
}

// TestLaggardGetsASnapshot: the log is cut while a node is away; it gets the state. One
// that crashes then has it.
func TestLaggardGetsASnapshot(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	away := c.leader(0).id%3 + 1
	c.put(0, "k", "before")
	c.setCut(away, true)
	first := func(n *node) uint64 {
		first, _ := n.db.Range(n.shards[0].id, n.shards[0].replicaID.Load())
		return first
	}
	value := strings.Repeat("v", 32<<10)
	for i := 0; first(c.leader(0)) < 30; i++ {
		c.put(0, fmt.Sprint("k", i%64), value)
	}
	c.setCut(away, false)
	n := c.node(away)
	c.until("the snapshot", func() bool { return n.confirmed(0) && n.read(0, "k0") == value })
	sum := func(n *node) uint64 {
		sum, _, err := n.store.Checksum(0)
		if err != nil {
			t.Error(err)
		}
		return sum
	}
	c.until("equal states", func() bool { return sum(n) == sum(c.leader(0)) })
	c.crash(away)
	n = c.node(away)
	c.until("equal states after a crash", func() bool { return n.confirmed(0) && sum(n) == sum(c.leader(0)) })
}

// TestCrashBeforeInstall: a node that crashes when it has received a snapshot, and the log
// begins behind it, but the state is not in place, installs it at the next start. Without
// the snapshot's file it does not start, and says so.
func TestCrashBeforeInstall(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	away := c.leader(0).id%3 + 1
	c.setCut(away, true)
	first := func(n *node) uint64 {
		first, _ := n.db.Range(n.shards[0].id, n.shards[0].replicaID.Load())
		return first
	}
	value := strings.Repeat("v", 32<<10)
	for i := 0; first(c.leader(0)) < 30; i++ {
		c.put(0, fmt.Sprint("k", i%64), value)
	}
	n := c.node(away)
	n.applying.Lock() // it waits before it puts the state in place
	c.setCut(away, false)
	var received pb.Snapshot
	c.until("the snapshot", func() bool {
		received, _ = n.db.GetSnapshot(n.shards[0].id, n.shards[0].replicaID.Load())
		return received.Index > 0
	})
	crashed := n.disk.crashed()
	c.setCut(away, true)
	n.applying.Unlock()
	c.stop(away)
	without := crashed.crashed()
	if err := without.RemoveAll(without.PathDir(received.Filepath)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.open(away, engine.Restarted, without); !errors.Is(err, datadir.ErrLogMissing) {
		if err == nil {
			n.end()
		}
		t.Errorf("without the file: %v", err)
	}
	c.disks[away] = crashed
	c.setCut(away, false)
	c.startAll(engine.Restarted)
	n = c.node(away)
	c.until("the state", func() bool { return n.confirmed(0) && n.read(0, "k0") == value })
}

// TestLeaseOfADeposedLeader: the first message of a later term ends the lease before it
// leaves the node, and no round that began before makes another.
func TestLeaseOfADeposedLeader(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	n := c.leader(0)
	s := n.shards[0]
	c.until("a lease", func() bool { return s.Leased(n.Clock) })
	term := s.Term.Load()
	watcher{n.Engine}.Sending(2, []pb.Message{{Type: pb.RequestPreVoteResp, ShardID: s.id, Term: term + 1}})
	if !s.Leased(n.Clock) {
		t.Error("the answer to a question about votes ended the lease")
	}
	done := make(chan bool)
	n.Post(func() {
		watcher{n.Engine}.Sending(2, []pb.Message{{Type: pb.RequestVoteResp, ShardID: s.id, Term: term + 1}})
		ended := !s.Leased(n.Clock)
		s.lease(n.Clock.Boot(), term)
		done <- ended && !s.Leased(n.Clock)
	})
	if !<-done {
		t.Error("a replica that has voted for another has a lease")
	}
}

// TestTransfer: a leadership goes where it is to go, and its leader has no lease from the
// moment on when it has begun.
func TestTransfer(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	for range 3 {
		n := c.leader(0)
		var to uint64
		c.until("a successor", func() bool {
			asked := make(chan []uint64, 1)
			n.Post(func() { asked <- n.Successors(0) })
			if voters := <-asked; len(voters) > 0 {
				to = voters[0]
			}
			return to != 0
		})
		c.until("the transfer", func() bool {
			n := c.leader(0)
			if n.id == placement.NodeOf(to) {
				return true
			}
			done := make(chan bool)
			n.Post(func() {
				n.TransferLeadership(0, to)
				done <- n.shards[0].transfer.holds() && n.shards[0].Leased(n.Clock)
			})
			if <-done {
				t.Error("there is a lease yet")
			}
			return false
		})
		c.put(0, "k", "v")
	}
}

// TestReadsAmidTransfers: while a leadership goes from node to node, reads of a replica that
// never leads are confirmed, each.
func TestReadsAmidTransfers(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.put(0, "k", "v")
	first := c.leader(0)
	reader := c.node(first.id%3 + 1)
	other := c.node(reader.id%3 + 1)
	var refused atomic.Int64
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				if !reader.confirmed(0) {
					refused.Add(1)
				}
			}
		})
	}
	for turn := range 8 {
		to := []*node{other, first}[turn%2]
		c.until("the transfer", func() bool {
			n := c.leader(0)
			n.Post(func() { n.TransferLeadership(0, placement.ReplicaID(to.id, 1)) })
			return n == to
		})
	}
	stop.Store(true)
	readers.Wait()
	if n := refused.Load(); n > 0 {
		t.Errorf("%d reads were not confirmed", n)
	}
}

// TestMembers: a node gets replicas, as learners first, and others lose theirs, until
// nothing of the first ones is left; a crash in between costs nothing.
func TestMembers(t *testing.T) {
	c := newCluster(t, 1)
	c.put(0, "k", "v")
	for to := uint64(2); to <= 4; to++ {
		from := to - 1
		row := placement.Shard{Incarnation: uint32(to), Replicas: []placement.Replica{{Node: from, Incarnation: uint32(from)}, {Node: to, Incarnation: uint32(to)}}}
		c.setRow(0, row)
		if c.node(to) == nil {
			c.disks[to] = newDisk()
			for shard := 1; shard <= testShards; shard++ {
				c.setRow(shard, placement.Shard{Incarnation: 1, Replicas: []placement.Replica{{Node: 1, Incarnation: 1}}})
			}
			c.start(to, engine.Joins)
		}
		replica, before := placement.ReplicaID(to, uint32(to)), placement.ReplicaID(from, uint32(from))
		c.change(0, engine.Changes{{Replica: replica, To: engine.Learner}})
		c.until("the learner has the state", func() bool { return c.node(to).read(0, "k") == "v" })
		c.crash(to)
		c.change(0, engine.Changes{{Replica: replica, To: engine.Voter}})
		c.until("the transfer", func() bool {
			n := c.leader(0)
			if n.id == to {
				return true
			}
			n.Post(func() { n.TransferLeadership(0, replica) })
			return false
		})
		c.until("the removal", func() bool { return c.leader(0).id == to })
		c.change(0, engine.Changes{{Replica: before, To: engine.Removed}})
		c.setRow(0, placement.Shard{Incarnation: uint32(to), Replicas: []placement.Replica{{Node: to, Incarnation: uint32(to)}}})
		old := c.node(from)
		c.until("the end of the replica", func() bool {
			gone := make(chan bool, 1)
			old.Post(func() {
				if err := old.Retire(0); err != nil {
					t.Error(err)
				}
				gone <- old.Replica(0).ID == 0 && !old.shards[0].changing
			})
			return <-gone
		})
		if applied := old.store.Applied(0); applied != 0 {
			t.Errorf("the state is still there, at %d", applied)
		}
		c.crash(from)
		if r := c.node(from).shards[0].replicaID.Load(); r != 0 {
			t.Errorf("replica %x is back", r)
		}
		c.until("a lease of the only voter", func() bool { return c.leader(0).shards[0].Lease.Load() == engine.LeaseForever })
	}
}

// TestLearnerAmidReads adds a replica to a group that has shrunk to one voter while a read
// waited to be confirmed, which none is then: dragonboat sends a learner no heartbeats.
func TestLearnerAmidReads(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.put(0, "k", "v")
	n := c.leader(0)
	c.until("the configuration", func() bool { return len(c.members(0).Voters) == 2 })
	old := placement.ReplicaID(3-n.id, 1)
	c.unconfirming.Store(true)
	c.until("a read that waits", func() bool {
		n.shards[0].ask()
		return c.unconfirmed.Load() > 0
	})
	c.change(0, engine.Changes{{Replica: old, To: engine.Removed}})
	c.disks[3] = newDisk()
	c.setRow(0, placement.Shard{Incarnation: 3, Replicas: []placement.Replica{{Node: n.id, Incarnation: 1}, {Node: 3, Incarnation: 3}}})
	c.start(3, engine.Joins)
	c.change(0, engine.Changes{{Replica: placement.ReplicaID(3, 3), To: engine.Learner}})
	c.until("the learner has the state", func() bool { return c.node(3).read(0, "k") == "v" })
	c.until("the learner is known to be as new", func() bool {
		caughtUp := make(chan bool, 1)
		n.Post(func() { caughtUp <- n.CaughtUp(0, placement.ReplicaID(3, 3)) })
		return <-caughtUp
	})
}

// TestRemovedTooEarly: a replica that was removed although its group still wants it, before
// it had anything, is told of as lost, and is replaced.
func TestRemovedTooEarly(t *testing.T) {
	c := newCluster(t, 1)
	c.put(0, "k", "v")
	join := func(incarnation uint32) uint64 {
		c.setRow(0, placement.Shard{Incarnation: incarnation, Replicas: []placement.Replica{{Node: 1, Incarnation: 1}, {Node: 2, Incarnation: incarnation}}})
		if c.node(2) == nil {
			c.disks[2] = newDisk()
			c.start(2, engine.Joins)
		}
		id := placement.ReplicaID(2, incarnation)
		c.change(0, engine.Changes{{Replica: id, To: engine.Learner}})
		c.until("the learner has the state", func() bool { return c.node(2).read(0, "k") == "v" })
		return id
	}
	id := join(2)
	n := c.node(2)
	is := func(what string, holds func(engine.Replica) bool) {
		t.Helper()
		c.until(what, func() bool {
			held := make(chan bool, 1)
			n.Post(func() { held <- holds(n.Replica(0)) })
			return <-held
		})
	}
	retire := func() {
		if err := n.Retire(0); err != nil {
			t.Error(err)
		}
	}
	n.Post(retire)
	is("the replica has gone", func(r engine.Replica) bool {
		gone := r.ID == 0 && !n.shards[0].changing
		if gone {
			n.shards[0].retired = 0 // as if it had had nothing
		}
		return gone
	})
	c.put(0, "l", "w") // of which the leader tells it
	is("the replica is lost", func(r engine.Replica) bool { return r.Lost == id })
	c.change(0, engine.Changes{{Replica: id, To: engine.Removed}})
	is("the lost replica has gone", func(r engine.Replica) bool {
		if r.Lost != 0 {
			retire()
		}
		return r.Lost == 0
	})
	join(3)
}

// TestCrashAmidRemoval: a replica whose removal a crash has cut off, behind any step, is
// gone after the next start.
func TestCrashAmidRemoval(t *testing.T) {
	for _, state := range []bool{false, true} {
		c := newCluster(t, 1, 2, 3)
		c.put(0, "k", "v")
		n := c.node(c.leader(0).id%3 + 1)
		id := n.shards[0].replicaID.Load()
		c.until("its state", func() bool { return n.read(0, "k") == "v" })
		if err := n.db.Depart(n.shards[0].id, id); err != nil {
			t.Fatal(err)
		}
		if state {
			n.applying.Lock()
			err := n.store.RemoveShard(0)
			n.applying.Unlock()
			if err != nil {
				t.Fatal(err)
			}
		}
		c.crash(n.id)
		n = c.node(n.id)
		if r, applied := n.shards[0].replicaID.Load(), n.store.Applied(0); r != 0 || applied != 0 {
			t.Errorf("replica %x is here, its state at %d", r, applied)
		}
		if _, err := n.db.GetBootstrapInfo(n.shards[0].id, id); err == nil {
			t.Error("its log is here")
		}
	}
}

// TestLogIsMissing: a state without its log, and one that is ahead of it, are refused.
func TestLogIsMissing(t *testing.T) {
	c := newCluster(t, 1)
	c.put(0, "k", "v")
	if err := c.node(1).store.Flush(); err != nil {
		t.Fatal(err)
	}
	disk := c.node(1).disk
	c.stop(1)
	if err := disk.RemoveAll(disk.PathJoin(testDir, "raft")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.open(1, engine.Restarted, disk); !errors.Is(err, datadir.ErrLogMissing) {
		t.Errorf("%v, want %v", err, datadir.ErrLogMissing)
	}
}

// TestLogFails: a log that cannot be written ends the node with its sentence, and what waits
// gets an outcome.
func TestLogFails(t *testing.T) {
	c := newCluster(t, 1)
	c.put(0, "k", "v")
	n := c.node(1)
	failing := errors.New("the disk is gone")
	n.db.Break(failing)
	out := n.do(0, &command.Command{Kind: command.Put, Key: []byte("k"), Value: []byte("w")})
	if out.outcome == command.Applied {
		t.Error("a write is acknowledged that the log does not have")
	}
	c.until("the failure", func() bool { return n.failure.Load() != nil })
	if err := n.failure.Load(); !errors.Is(*err, failing) {
		t.Errorf("failed with %v, want what the disk said", *err)
	}
	n.failure.Store(nil) // it was wanted
}

// TestStateFails: a state machine that cannot go on ends the node with its sentence, and
// nothing more is applied; dragonboat would end the process with what it returned.
func TestStateFails(t *testing.T) {
	c := newCluster(t, 1)
	c.put(0, "k", "v")
	n := c.node(1)
	n.Post(func() { n.shards[0].submit([]byte("no entry"), nil) })
	c.until("the failure", func() bool { return n.failure.Load() != nil })
	if err := *n.failure.Load(); !strings.Contains(err.Error(), "shard 0: ") {
		t.Errorf("failed with %v", err)
	}
	applied := n.store.Applied(1)
	if out := n.do(1, &command.Command{Kind: command.Put, Key: []byte("k"), Value: []byte("w")}); out.outcome == command.Applied || n.store.Applied(1) != applied {
		t.Errorf("another shard's command has the outcome %v, its state goes from %d to %d", out.outcome, applied, n.store.Applied(1))
	}
	c.mu.Lock()
	delete(c.nodes, n.id)
	c.mu.Unlock()
	n.end() // in order
}

// TestNames: a proposal is known by its end.
func TestNames(t *testing.T) {
	data, start, number, err := cutName(appendName([]byte("entry"), 7, 9))
	if string(data) != "entry" || start != 7 || number != 9 || err != nil {
		t.Error(data, start, number, err)
	}
	if _, _, _, err := cutName(make([]byte, nameBytes-1)); !errors.Is(err, errUnnamed) {
		t.Error(err)
	}
}

// openStore returns an empty store.
func openStore(t *testing.T) *storage.Store {
	s, err := storage.Open(storage.Options{Dir: "state", FS: vfs.NewMem(), Shards: 2, RowCacheBytes: 1 << 20, BlockCacheBytes: 1 << 20, MemtableBytes: 512 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// sentState returns what is sent of a shard in which k has a value.
func sentState(t *testing.T) []byte {
	from := openStore(t)
	entry := command.AppendEntryHeader(nil)
	put := command.Command{Kind: command.Put, Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 1000)}
	entry = put.AppendTo(entry)
	command.SealEntry(entry, 1, 1)
	a := engine.NewApplier(2)
	a.Add(storage.Entry{Shard: 0, Index: 5, Data: entry}, nil)
	if err := a.Apply(from, 0, 1); err != nil {
		t.Fatal(err)
	}
	view, err := from.OpenView(0)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var sent bytes.Buffer
	if err := writeState(&sent, view, nil); err != nil {
		t.Fatal(err)
	}
	return sent.Bytes()
}

// TestStagedState: a process that ends when it has staged a snapshot leaves that behind.
// The next one stages it once more, and installs it.
func TestStagedState(t *testing.T) {
	sent, to := sentState(t), openStore(t)
	for range 2 {
		_, in, err := readState(bytes.NewReader(sent), to, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Close(); err != nil { // what is staged stays
			t.Fatal(err)
		}
	}
	index, in, err := readState(bytes.NewReader(sent), to, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Install(in); err != nil || to.Applied(0) != index {
		t.Errorf("installed up to %d, want %d: %v", to.Applied(0), index, err)
	}
}

// TestDamagedStates: a snapshot whose bytes are not what was sent is refused, and leaves
// nothing behind.
func TestDamagedStates(t *testing.T) {
	sent := sentState(t)
	to := openStore(t)
	receive := func(p []byte) error {
		_, in, err := readState(bytes.NewReader(p), to, 0, nil)
		if err == nil {
			err = in.Abort()
		}
		return err
	}
	if err := receive(sent); err != nil {
		t.Error(err)
	}
	for n := range sent {
		if err := receive(sent[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken for all", n, len(sent))
		}
	}
	for i := stateHeadBytes; i < len(sent); i++ {
		p := bytes.Clone(sent)
		p[i] ^= 0x40
		if err := receive(p); err == nil {
			t.Fatalf("byte %d is turned over, and nobody notices", i)
		}
	}
	huge := binary.LittleEndian.AppendUint32(bytes.Clone(sent[:stateHeadBytes]), 1<<31)
	if err := receive(huge); !errors.Is(err, errState) {
		t.Error(err)
	}
}

// TestWhatIsKeptOut: messages that dragonboat must not get.
func TestWhatIsKeptOut(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	n := c.node(1)
	id, peer := n.shards[0].replicaID.Load(), placement.ReplicaID(2, 1)
	message := func(typ pb.MessageType) pb.Message {
		return pb.Message{Type: typ, ShardID: n.shards[0].id, From: peer, To: id, Term: 1}
	}
	w := watcher{n.Engine}
	for name, x := range map[string]struct {
		m       pb.Message
		refused bool
		kept    int
	}{
		"a heartbeat":                        {m: message(pb.Heartbeat), kept: 1},
		"a request for a transfer":           {m: message(pb.LeaderTransfer)},
		"a request for a vote":               {m: message(pb.RequestVote), kept: 1},
		"a replica that is not here":         {m: pb.Message{Type: pb.Heartbeat, ShardID: n.shards[0].id, From: peer, To: id + 1, Commit: 1}},
		"a shard that there is not":          {m: pb.Message{Type: pb.Heartbeat, ShardID: 99, From: peer, To: id}, refused: true},
		"another node's replica as sender":   {m: pb.Message{Type: pb.Heartbeat, ShardID: n.shards[0].id, From: placement.ReplicaID(3, 1), To: id}, refused: true},
		"another node's replica as receiver": {m: pb.Message{Type: pb.Heartbeat, ShardID: n.shards[0].id, From: peer, To: peer}, refused: true},
	} {
		kept, err := w.Received(2, []pb.Message{x.m})
		if (err != nil) != x.refused || len(kept) != x.kept {
			t.Errorf("%s: %d messages are kept, %v", name, len(kept), err)
		}
	}
	// Nor has what a refused one says, or one of a term that has passed, any effect.
	c.put(0, "k", "v")
	c.until("word of the leader", func() bool { return n.shards[0].Term.Load() > 1 })
	lie, known := message(pb.Replicate), n.shards[0].Committed.Load()
	lie.Commit = 1 << 60
	if kept, err := w.Received(2, []pb.Message{lie}); err != nil || len(kept) != 1 {
		t.Errorf("an old message: %d are kept, %v", len(kept), err)
	}
	lie.Term = n.shards[0].Term.Load()
	if _, err := w.Received(2, []pb.Message{lie, {Type: pb.Heartbeat, ShardID: 99, From: peer, To: id}}); err == nil {
		t.Error("a shard that there is not")
	}
	if got := n.shards[0].Committed.Load(); got > known+1000 {
		t.Errorf("entry %d is taken for committed", got)
	}
	c.crash(1)
	n = c.node(1)
	c.stop(2)
	c.stop(3) // nothing comes to node 1 any more but what follows
	vote := message(pb.RequestVote)
	if n.votesFrom <= n.started {
		t.Fatal("a node that was restarted has promised nothing")
	}
	n.votesFrom = n.Clock.Boot() + int64(time.Hour)
	if kept, err := (watcher{n.Engine}).Received(2, []pb.Message{vote}); err != nil || len(kept) != 0 {
		t.Error("a node that was restarted votes at once")
	}
}

// TestHeaderOfAnotherEngine: what etcd's engine sends ends the connection.
func TestHeaderOfAnotherEngine(t *testing.T) {
	c := newCluster(t, 1)
	if _, _, err := c.node(1).BeginSnapshot(2, []byte("raftpb")); !errors.Is(err, engine.ErrSnapshotUnwanted) {
		t.Error(err)
	}
	if err := c.node(1).ReceiveFrame(2, []byte{1}); err == nil {
		t.Error("damage is taken in")
	}
}

// TestStreamEnds: whoever writes a snapshot learns that the receiver wants no more.
func TestStreamEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{frames: make(chan []byte), ended: make(chan struct{}), ctx: ctx, cancel: cancel}
	s.Done(errCut)
	if err := s.Send(nil); err == nil {
		t.Error("nobody reads")
	}
	s.Close()
	s.Close()
}
