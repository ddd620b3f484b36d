package dragonboat

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"

	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
)

// proposal is what an engine proposes: commands and a name.
func proposal(cs ...command.Command) []byte {
	entry := command.AppendEntryHeader(nil)
	for i := range cs {
		entry = cs[i].AppendTo(entry)
	}
	command.SealEntry(entry, 1, len(cs))
	return appendName(entry, 7, 9)
}

func putOf(size int) command.Command {
	return command.Command{Kind: command.Put, Key: []byte("key:0123456789"), Value: bytes.Repeat([]byte("v"), size)}
}

// encoded is an entry with a proposal, as dragonboat makes it.
func encoded(index, term uint64, proposal []byte) pb.Entry {
	return pb.Entry{Index: index, Term: term, Type: pb.EncodedEntry, Key: 1, ClientID: 1, Cmd: append([]byte{0}, proposal...)}
}

// BenchmarkCheckCommands is what the check of a proposal costs a follower.
func BenchmarkCheckCommands(b *testing.B) {
	batch := command.Command{Kind: command.Batch}
	for range 16 {
		batch.Ops = append(batch.Ops, putOf(128))
	}
	for _, x := range []struct {
		name string
		of   []command.Command
	}{
		{"one", []command.Command{putOf(128)}},
		{"64", putsOf(64)},
		{"1000", putsOf(1000)},
		{"batches", []command.Command{batch, batch, batch, batch}},
	} {
		b.Run(x.name, func(b *testing.B) {
			p := proposal(x.of...)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if err := checkCommands(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func putsOf(n int) (cs []command.Command) {
	for range n {
		cs = append(cs, putOf(128))
	}
	return cs
}

// TestMessagesThatWait: what a leader sends without an end, while the step worker hangs in
// the disk, does not fill the memory. Afterwards the follower goes on.
func TestMessagesThatWait(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const messages, size = 200, 1 << 20
	c.steadily(0, func(n, leader *node) error {
		s, before := n.shards[0], n.stalled.Load()
		n.stall.Lock()
		defer n.stall.Unlock()
		put := command.Command{Kind: command.Put, Key: []byte("k"), Value: []byte("v")}
		if out := leader.do(0, &put).outcome; out != command.Applied {
			return fmt.Errorf("a write: %v", out)
		}
		c.until("the step worker to hang", func() bool { return n.stalled.Load() > before })
		place, start := s.place(), used()
		for range messages {
			n.wire.Deliver(leader.id, []pb.Message{{
				Type: pb.Replicate, ShardID: s.id, From: place.Leader, To: s.replicaID.Load(), Term: place.Term, LogIndex: 1 << 40, LogTerm: place.Term,
				Entries: []pb.Entry{encoded(1<<40+1, place.Term, make([]byte, size))},
			}})
		}
		if grown := int64(used() - start); grown > 2*receiveBytesMax {
			return fmt.Errorf("%d messages of %d MiB take %d MiB, want about %d", messages, size>>20, grown>>20, receiveBytesMax>>20)
		}
		return nil
	})
	c.put(0, "k", "w")
	for _, id := range c.running() {
		n := c.node(id)
		c.until("each node has it", func() bool { return n.confirmed(0) && n.read(0, "k") == "w" })
	}
}

// TestProposalsThatAreRefused: an entry that no engine proposes costs its sender the
// connection. It does not reach the log, where it would end each replica; nor do those
// beside it.
func TestProposalsThatAreRefused(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.put(0, "k", "v")
	n, leader := c.follower(0)
	s := n.shards[0]
	place := s.place()
	last := place.Last
	whole := proposal(putOf(10), putOf(20))
	entry := whole[:len(whole)-nameBytes]
	named := func(entry []byte) []byte { return appendName(bytes.Clone(entry), 7, 9) }
	changed := func(i int, b byte) []byte {
		p := bytes.Clone(whole)
		p[i] = b
		return p
	}
	send := func(proposal []byte) error {
		m := pb.Message{
			Type: pb.Replicate, ShardID: s.id, From: place.Leader, To: s.replicaID.Load(), Term: place.Term, LogIndex: last, LogTerm: place.Term,
			Entries: []pb.Entry{encoded(last+1, place.Term, whole), encoded(last+2, place.Term, proposal)},
		}
		kept, err := watcher{n.Engine}.Received(leader.id, []pb.Message{m})
		if (err == nil) != (len(kept) == 1) {
			t.Errorf("%d messages are kept, %v", len(kept), err)
		}
		return err
	}
	for name, p := range map[string][]byte{
		"no commands": named(nil), "commands": whole, "a mark": proposal(command.Command{Kind: command.Mark}),
	} {
		if err := send(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, p := range map[string][]byte{
		"no name":                 whole[:nameBytes-1],
		"a header that is cut":    named(entry[:command.EntryHeaderBytes-1]),
		"another format":          changed(0, 0xff),
		"a stamp beyond all time": changed(8, 0xff),
		"a command that is cut":   named(entry[:len(entry)-1]),
		"more commands than said": changed(9, 1),
		"fewer":                   changed(9, 3),
		"an unknown command":      changed(command.EntryHeaderBytes+4, 0xfe),
		"an unknown flag":         changed(command.EntryHeaderBytes+5, 0xff),
		"a command without a key": proposal(command.Command{Kind: command.Put}),
		"no name behind commands": entry,
	} {
		err := send(p)
		if !errors.Is(err, transport.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	c.put(0, "k", "w")
	c.until("the follower has applied it", func() bool { return n.read(0, "k") == "w" })
}
