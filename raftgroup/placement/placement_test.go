package placement

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestStories runs testdata: a cluster of which only rows and reports exist. A row
// reads "1 2 (3)": replicas on nodes 1 and 2, a learner on node 3; "2'3" is a replica
// of incarnation 3. Its commands:
//
//	found nodes=(N,...) shards=N [replicas=N] [replace-after=D]
//	join [id=N] uid=N peer=S      a node asks to join
//	down nodes=(N,...), up nodes=(N,...)
//	wait for=D
//	damage node=N shard=N         the replica reports that its state is damaged
//	lost node=N                   the cluster was recovered without the node
//	plan                          one decision; the changed rows
//	carry-out [except=(N,...)]    shards get the configurations that their rows ask for
//	run                           plan and carry-out until nothing changes
//	expect node=N, drain node=N [undo], remove node=N [force], keep node=N
//	move shard=N from=N to=N
//	rows                          all shards
//	promote, with lines of input: factor, most voters, and a row; node 9 is down
//	handover [leaves] [unwell] [spread], and lines of input:
//	    node N [leaders=N] [well|able]
//	    shard N [must-go] [busy] to N...
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{now: time.Hour}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

type story struct {
	m       *Map
	r       Reports
	now     time.Duration
	policy  Policy
	down    map[uint64]bool
	damaged []uint64
	version uint64
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	number := func(name string) (v uint64) {
		d.MaybeScanArgs(t, name, &v)
		return v
	}
	text := func(name string) (v string) {
		d.MaybeScanArgs(t, name, &v)
		return v
	}
	numbers := func(name string) (list []uint64) {
		for _, a := range d.CmdArgs {
			for _, v := range a.Vals {
				if a.Key == name {
					n, err := strconv.ParseUint(v, 10, 64)
					if err != nil {
						t.Fatal(err)
					}
					list = append(list, n)
				}
			}
		}
		return list
	}
	duration := func(name string) time.Duration {
		v, err := time.ParseDuration(text(name))
		if err != nil && text(name) != "" {
			t.Fatal(err)
		}
		return v
	}
	done := func(c Change, message string, err error) string {
		if err != nil {
			return err.Error()
		}
		return strings.TrimPrefix(message+"\n"+s.take([]Change{c}), "\n")
	}
	switch d.Cmd {
	case "found":
		return s.found(numbers("nodes"), int(number("shards")), int(max(number("replicas"), 1)), duration("replace-after"))
	case "join":
		row, err := Join(s.m, &Request{ID: number("id"), UID: number("uid"), Peer: text("peer")})
		return done(row.Put(), "", err)
	case "down", "up":
		for _, node := range numbers("nodes") {
			s.down[node] = d.Cmd == "down"
		}
		s.report()
	case "wait":
		s.now += duration("for")
		s.report()
	case "damage":
		r, _ := s.m.Replica(int(number("shard")), number("node"))
		s.damaged = append(s.damaged, r.ID())
		s.report()
	case "lost":
		s.policy.Lost = append(s.policy.Lost, number("node"))
	case "plan":
		return s.plan()
	case "carry-out":
		s.carryOut(numbers("except"))
	case "run":
		all := ""
		for range 100 {
			changes := s.plan()
			if changes == "" {
				return all
			}
			all += changes
			s.carryOut(nil)
		}
		return all + "no end\n"
	case "expect":
		c, err := Expect(s.m, number("node"), "")
		return done(c, "", err)
	case "drain":
		return done(Drain(s.m, number("node"), d.HasArg("undo")))
	case "remove":
		return done(Remove(s.m, &s.r, s.now, number("node"), d.HasArg("force")))
	case "keep":
		return done(Keep(s.m, number("node")))
	case "move":
		c, err := Move(s.m, &s.r, s.now, int(number("shard")), number("from"), number("to"))
		return done(c, "", err)
	case "rows":
		out := ""
		for shard := range s.m.Shards {
			out += fmt.Sprintf("%s: %s\n", s.m.name(shard), rowText(&s.m.Shards[shard]))
		}
		return out
	case "promote":
		return promoteAll(t, d.Input)
	case "handover":
		return handover(t, d)
	default:
		t.Fatalf("unknown command %q", d.Cmd)
	}
	return ""
}

func (s *story) found(nodes []uint64, shards, replicas int, replaceAfter time.Duration) string {
	*s = story{m: NewMap(shards), now: time.Hour, down: make(map[uint64]bool), policy: Policy{ReplaceAfter: replaceAfter}}
	s.r.Shards = make([]ShardReport, shards+1)
	var rows []Node
	for _, id := range nodes {
		rows = append(rows, Node{ID: id, UID: id, Peer: fmt.Sprint("n", id)})
	}
	out := s.take(Found(Cluster{Replicas: replicas}, rows, shards))
	s.carryOut(nil)
	return out
}

// take carries out changes of the map, which becomes another one, and shows them.
func (s *story) take(changes []Change) (out string) {
	m := *s.m
	m.Nodes, m.Shards, m.Versions = slices.Clone(m.Nodes), slices.Clone(m.Shards), maps.Clone(m.Versions)
	s.m = &m
	for _, c := range changes {
		s.version++
		m.Versions[c.Key] = s.version
		m.Nodes = slices.DeleteFunc(m.Nodes, func(r Node) bool { return nodeKey(r.ID) == c.Key })
		switch r := c.Row.(type) {
		case Node:
			m.Nodes = append(m.Nodes, r)
			slices.SortFunc(m.Nodes, func(a, b Node) int { return int(a.ID) - int(b.ID) })
			out += nodeText(&r)
		case Shard:
			for shard := range m.Shards {
				if m.shardKey(shard) == c.Key {
					m.Shards[shard] = r
					out += fmt.Sprintf("%s: %s\n", m.name(shard), rowText(&r))
				}
			}
		case Cluster:
			m.Cluster = r
		}
	}
	s.report()
	return out
}

func (s *story) plan() string { return s.take(Plan(s.m, &s.r, s.now, s.policy)) }

// carryOut gives all shards the configurations that their rows ask for.
func (s *story) carryOut(except []uint64) {
	for shard := range s.m.Shards {
		if slices.Contains(except, uint64(shard)) {
			continue
		}
		r := ShardReport{Settled: true, Row: s.m.Version(shard)}
		for _, x := range s.m.Shards[shard].Replicas {
			r.Members = append(r.Members, x.ID())
			if x.Learner {
				r.Learners = append(r.Learners, x.ID())
			}
		}
		s.r.Shards[shard] = r
	}
	s.report()
}

func (s *story) report() {
	old := s.r.Nodes
	s.r.Nodes = make(map[uint64]NodeReport)
	for r := range s.m.Members() {
		s.r.Nodes[r.ID] = NodeReport{Heard: s.now, Up: true}
		if s.down[r.ID] {
			s.r.Nodes[r.ID] = NodeReport{Heard: old[r.ID].Heard}
		}
	}
	for shard := range s.r.Shards {
		s.r.Shards[shard].Damaged = nil
		for _, r := range s.m.Shards[shard].Replicas {
			if slices.Contains(s.damaged, r.ID()) {
				s.r.Shards[shard].Damaged = append(s.r.Shards[shard].Damaged, r.ID())
			}
		}
	}
}

func rowText(row *Shard) string {
	var parts []string
	for _, r := range row.Replicas {
		text := fmt.Sprint(r.Node)
		if r.Incarnation > 1 {
			text += fmt.Sprint("'", r.Incarnation)
		}
		if r.Learner {
			text = "(" + text + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func nodeText(r *Node) string {
	out := fmt.Sprintf("node %d: ", r.ID)
	switch {
	case r.Removed:
		out += "removed"
	case r.UID == 0:
		out += "expected"
	default:
		out += "member at " + r.Peer
	}
	if r.Draining {
		out += ", draining"
	}
	if r.Removing {
		out += ", being removed"
	}
	return out + "\n"
}

// promoteAll shows what becomes of the rows of an input, each with the replication
// factor and the bound of voters before it.
func promoteAll(t *testing.T, input string) (out string) {
	for line := range strings.Lines(input) {
		head, row, _ := strings.Cut(line, ":")
		var factor, most int
		if _, err := fmt.Sscan(head, &factor, &most); err != nil {
			t.Fatal(err)
		}
		var s Shard
		for _, part := range strings.Fields(row) {
			r := Replica{Learner: part[0] == '('}
			if _, err := fmt.Sscan(strings.Trim(part, "()"), &r.Node); err != nil {
				t.Fatal(err)
			}
			s.Replicas = append(s.Replicas, r)
		}
		got := s.promote(factor, most, func(node uint64) bool { return node < 9 })
		out += rowText(&got) + "\n"
	}
	return out
}

func handover(t *testing.T, d *datadriven.TestData) (out string) {
	nodes := make(map[uint64]Candidate)
	var led []Led
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		id, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		if f[0] == "node" {
			c := Candidate{Well: slices.Contains(f, "well"), Able: slices.Contains(f, "well") || slices.Contains(f, "able")}
			for _, x := range f[2:] {
				_, _ = fmt.Sscanf(x, "leaders=%d", &c.Leaders)
			}
			nodes[uint64(id)] = c
			continue
		}
		l := Led{Shard: id, MustGo: slices.Contains(f, "must-go"), Busy: slices.Contains(f, "busy")}
		for _, x := range f[slices.Index(f, "to")+1:] {
			node, err := strconv.Atoi(x)
			if err != nil {
				t.Fatal(err)
			}
			l.Successors = append(l.Successors, ReplicaID(uint64(node), 1))
		}
		led = append(led, l)
	}
	for _, x := range Handover(led, nodes, Own{Leaves: d.HasArg("leaves"), Unwell: d.HasArg("unwell"), Spread: d.HasArg("spread")}) {
		out += fmt.Sprintf("shard %d to node %d\n", x.Shard, NodeOf(x.To))
	}
	return out
}

// A row of an unknown kind is left to later versions, one that cannot be read is an
// error.
func TestAdd(t *testing.T) {
	m := NewMap(1)
	for _, row := range []struct {
		key, value string
		ok         bool
	}{
		{"node/3", `{"id":3,"uid":"7"}`, true}, {"node/1", `{"id":1,"uid":"5","key":"AAEC"}`, true},
		{"shard/0", `{"replicas":[{"node":1,"incarnation":1}],"incarnation":1}`, true}, {"shard/meta", `{}`, true},
		{"cluster", `{"replicas":3}`, true}, {"other", `?`, true}, {"shard/1", `{}`, false}, {"shard/x", `{}`, false}, {"node/2", `?`, false},
	} {
		if err := m.Add(row.key, []byte(row.value), 4); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.key, err)
		}
	}
	if len(m.Nodes) != 2 || m.Nodes[0].ID != 1 || len(m.Nodes[0].Key) != 3 || rowText(&m.Shards[0]) != "1" || m.Version(0) != 4 || !m.Begun() {
		t.Errorf("%+v", m)
	}
}
