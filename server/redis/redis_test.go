package redis

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/resp"
)

// TestTableIsComplete: whatever the table of commands has can be carried
// out.
func TestTableIsComplete(t *testing.T) {
	loadHandlers()
	for _, cmd := range resp.Commands() {
		list := cmd.Subcommands
		if list == nil {
			list = []*resp.Command{cmd}
		}
		for _, cmd := range list {
			if h := &handlers[cmd.ID]; (h.translate == nil) == (h.control == nil) && cmd.Name != "hello" {
				t.Errorf("%s has no handler, or two", cmd.Name)
			}
		}
	}
}

// TestRanges: a node listed as a master is nobody's replica, and
// neighbours with the same nodes are one range.
func TestRanges(t *testing.T) {
	nodes := []command.Member{{ID: 1, Redis: "a:1"}, {ID: 2, Redis: "a:2"}, {ID: 3, Redis: "a:3"}, {ID: 4}}
	for _, x := range []struct {
		name    string
		leaders []uint64
		want    string
	}{
		{"one leads all", []uint64{1, 1, 1, 1}, "0-16383:1,2,3"},
		{"neighbours", []uint64{1, 1, 2, 2}, "0-8191:1,3 8192-16383:2,3"},
		{"in turn", []uint64{1, 2, 1, 2}, "0-4095:1,3 4096-8191:2,3 8192-12287:1,3 12288-16383:2,3"},
		{"all lead", []uint64{1, 2, 3, 3}, "0-4095:1 4096-8191:2 8192-16383:3"},
		{"no leader", []uint64{0, 2, 3, 3}, "0-4095:1 4096-8191:2 8192-16383:3"},
		{"a leader that serves no Redis protocol", []uint64{4, 4, 2, 2}, "0-8191:1,3 8192-16383:2,3"},
	} {
		topology := command.Topology{Nodes: nodes}
		for i, leader := range x.leaders {
			topology.Shards = append(topology.Shards, command.ShardRoute{Leader: leader, Replicas: []uint64{1, 2, 3, 4}, Slots: [][2]uint16{{uint16(4096 * i), uint16(4096*i + 4095)}}})
		}
		for node := uint64(1); node <= 3; node++ {
			l := &Listener{cfg: &server.Config{Node: node}, redirect: true}
			var got []string
			for _, r := range l.ranges(&topology) {
				text := fmt.Sprintf("%d-%d:%d", r.first, r.last, r.master.ID)
				for _, n := range r.replicas {
					text += fmt.Sprintf(",%d", n.ID)
				}
				got = append(got, text)
			}
			if text := strings.Join(got, " "); text != x.want {
				t.Errorf("%s, asked node %d: %s, want %s", x.name, node, text, x.want)
			}
		}
	}
}

func TestCursorTableIsBounded(t *testing.T) {
	var table cursorTable
	first := table.put(position{})
	for range cursorsMax {
		table.put(position{})
	}
	if _, ok := table.get(first); ok || len(table.positions) != cursorsMax {
		t.Errorf("%d cursors, the first is there: %v", len(table.positions), ok)
	}
	if last := table.put(position{}); last >= 1<<53 {
		t.Errorf("%d cannot be held by every client", last)
	}
}

// TestOrderKnowsRows: what a read behind writes yields at most is known or
// said not to be.
func TestOrderKnowsRows(t *testing.T) {
	for _, x := range []struct{ before, made, want uint32 }{
		{5, 9, 9}, {9, 5, 9}, {5, bytesOnTop | 3, 8}, {bytesOnTop | 3, bytesOnTop | 4, bytesOnTop | 7},
		{bytesOnTop | 3, 9, bytesOnTop | 9}, {bytesUnknown, 5, bytesUnknown}, {5, bytesUnknown, bytesUnknown},
		{bytesUnknown, bytesOnTop | 1, bytesUnknown},
	} {
		if got := laterBytes(x.before, x.made); got != x.want {
			t.Errorf("%x after %x: %x, want %x", x.made, x.before, got, x.want)
		}
	}
}

// TestOvertaken: whatever is large in the log is held to be so here.
func TestOvertaken(t *testing.T) {
	for _, n := range []int{1, 100, 400, 800, 5000} {
		var x plan
		args := [][]byte{[]byte("MSET")}
		cmd := command.Command{Kind: command.Batch}
		for i := range n {
			key := fmt.Append(nil, i)
			args = append(args, key, []byte("v"))
			cmd.Ops = append(cmd.Ops, command.Command{Kind: command.Put, Key: key, Value: []byte("v")})
		}
		x.reset(&conn{}, resp.Lookup(args[0]), args, false)
		cmdMSet(nil, &x)
		if large := cmd.EncodedBytesMax() >= engine.LargeBytes; large && !x.mayBeOvertaken() {
			t.Errorf("an MSET of %d keys is large in the log, and said not to be", n)
		} else if n <= 100 && x.mayBeOvertaken() {
			t.Errorf("an MSET of %d keys is said to be large", n)
		}
	}
}

// Shards that refuse a FLUSHALL for the moment are asked again, and no others.
func TestFlushAsksAgain(t *testing.T) {
	const busy, moved, lost, ok = protocol.StatusBusy, protocol.StatusNotLeader, protocol.StatusTimeout, protocol.StatusOK
	frame := func(s protocol.Status, results ...protocol.Status) []byte {
		b := protocol.Begin(nil, uint8(s), protocol.FlagReply, 1)
		if s != ok {
			return protocol.End((&protocol.ErrorReply{Message: []byte("why")}).AppendTo(b), 0)
		}
		var m protocol.BatchReply
		for _, r := range results {
			m.Results = append(m.Results, protocol.OpResult{Status: r})
		}
		return protocol.End(m.AppendTo(b), 0)
	}
	confined := func(shards ...uint16) position { return position{confined: true, shards: shards} }
	for _, x := range []struct {
		name    string
		at      position
		frames  []byte
		late    bool
		waits   bool
		then    position
		problem string
	}{
		{"done", position{}, frame(ok, ok, ok), false, false, position{}, ""},
		{"some refuse", position{}, frame(ok, moved, ok, busy), false, true, confined(0, 2), ""},
		{"some refuse for too long", position{}, frame(ok, moved, ok, busy), true, false, position{}, "UNKNOWN "},
		{"all refuse for too long", position{}, frame(ok, moved, moved), true, false, position{}, "CLUSTERDOWN "},
		{"one is lost", position{}, frame(ok, moved, lost), false, false, position{}, "UNKNOWN "},
		{"the whole is refused", position{}, frame(busy), false, true, position{}, ""},
		{"the whole is lost", position{}, frame(lost), false, false, position{}, "UNKNOWN "},
		{"of several shards the first is done", confined(4, 7), frame(ok, ok), false, false, confined(4, 7), ""},
		{"of several shards the first refuses", confined(4, 7), frame(moved), false, true, confined(4, 7), ""},
		{"of several shards the first is refused here", confined(4, 7), frame(ok, busy), false, true, confined(4, 7), ""},
		{"it cannot be done", position{}, frame(ok, protocol.StatusRefused, protocol.StatusRefused), false, false, position{}, "ERR "},
	} {
		w := &walk{flush: true, begun: time.Now(), at: x.at}
		patience := time.Hour
		if x.late {
			patience = 0
		}
		problem := w.loadFlush(x.frames, patience)
		if w.waits != x.waits || w.at.confined != x.then.confined || !slices.Equal(w.at.shards, x.then.shards) || (problem == "") != (x.problem == "") || !strings.HasPrefix(problem, x.problem) {
			t.Errorf("%s: %q, waits %v at %+v", x.name, problem, w.waits, w.at)
		}
	}
}

// TestWalkIsBounded: a turn of a walk looks at a bounded part of a page, counted
// in steps of the pattern, whatever pattern and keys.
func TestWalkIsBounded(t *testing.T) {
	const turnCredit = 1024
	p := &processor{Processor: new(server.Processor)}
	key := bytes.Repeat([]byte("z"), protocol.KeyBytesMax)
	for name, tt := range map[string]struct {
		pattern string
		key     []byte
		turns   int // at least, for 2000 keys
	}{
		"ordinary":      {"user:*", key[:20], 1},
		"hostile":       {"*" + strings.Repeat("?", 1023) + "b*", key, 500},
		"a large class": {"*[" + strings.Repeat("y", 8000) + "]", key, 20},
	} {
		pattern, ok := resp.CompilePattern([]byte(tt.pattern), false)
		if !ok {
			t.Fatal(name)
		}
		w := &walk{pattern: pattern, limit: 1 << 20, take: takeKeys}
		for range walkRows {
			w.keys = append(w.keys, tt.key)
		}
		turns := 0
		for over := false; !over; turns++ {
			p.Spend(p.Credit() - turnCredit)
			before := w.next
			_, over = w.takeSome(p)
			// The last keys that are looked at may overdraw the turn.
			most := turnCredit*stepsPerCredit + keysAtATime*pattern.Cost(len(tt.key))
			if steps := (w.next - before) * pattern.Cost(len(tt.key)); steps > most {
				t.Errorf("%s: a turn took %d steps, at most %d are allowed", name, steps, most)
			}
		}
		if turns < tt.turns {
			t.Errorf("%s: %d keys took %d turns", name, walkRows, turns)
		}
	}
}

// countedShards are six shards of ten keys, of which node 1 leads and has two.
type countedShards struct{ server.Backend }

func (countedShards) Shards() int { return 6 }

func (countedShards) Topology(string) (t command.Topology) {
	for node := uint64(1); node <= 3; node++ {
		t.Nodes = append(t.Nodes, command.Member{ID: node, Redis: "a:1"})
	}
	for shard := range uint64(6) {
		t.Shards = append(t.Shards, command.ShardRoute{Leader: shard%3 + 1})
	}
	return t
}

func (countedShards) Scan(s *command.Scan, visit func(key, value []byte, row command.Row) bool) error {
	if s.Shards[0]%3 != 0 {
		return command.ErrNotLeader
	}
	for i := range 10 {
		if key := fmt.Appendf(nil, "%d", i); string(key) >= string(s.Start) && !visit(key, nil, command.Row{}) {
			break
		}
	}
	return nil
}

// A census is the same however few rows a scan looks at; shards without a replica
// here count as the others do, and with resp.redirect a node counts what it is the
// master of.
func TestCountKeys(t *testing.T) {
	for _, redirect := range []bool{false, true} {
		s := &Listener{srv: new(server.Server), cfg: &server.Config{Node: 1}, backend: countedShards{}, redirect: redirect}
		for _, rows := range []int{1, 3, 10, 11} {
			if n, err := s.countShard(context.Background(), 3, rows); err != nil || n.keys != 10 || n.expires != 0 {
				t.Errorf("%d rows at a time: %+v, %v", rows, n, err)
			}
		}
		want := int64(60)
		if redirect {
			want = 20
		}
		if n, ok := s.countKeys(context.Background()); !ok || n.keys != want {
			t.Errorf("redirect %v: %+v, %v", redirect, n, ok)
		}
		ended, end := context.WithCancel(context.Background())
		end()
		if n, ok := s.countKeys(ended); ok {
			t.Errorf("counted %+v when the server had stopped", n)
		}
	}
}

// A count takes a small part of the time only.
func TestCensusPauses(t *testing.T) {
	l := &Listener{srv: new(server.Server)}
	l.counter.next = time.Now().Add(time.Hour)
	if l.keyCount(); l.counter.running {
		t.Error("it is counted again too soon")
	}
}
