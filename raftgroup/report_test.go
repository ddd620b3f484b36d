package raftgroup

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// known returns what node 1 of three knows, at a time after which nothing is
// due, with one shard and the meta group.
func knownBy1(replicas ...shardReport) (*clusterView, *placement.Shard) {
	const now = int64(time.Hour)
	n := &Node{resources: resources{id: 1, shards: 1, views: make([]*engine.View, 2)}}
	n.known.suspect = int64(staleAfter)
	v := &clusterView{node: n, now: now, nodes: make(map[uint64]*picture)}
	row := &placement.Shard{}
	for i, s := range replicas {
		node := uint64(i + 1)
		s.Replica = placement.ReplicaID(node, 1)
		v.nodes[node] = &picture{shards: []shardReport{s, {}}, heard: now, whole: now}
		row.Replicas = append(row.Replicas, placement.Replica{Node: node, Incarnation: 1})
	}
	return v, row
}

// TestStatusLeader: the leader of a shard, and whether its replicas move, is what
// the newest leader says, in whatever order the nodes' pictures are looked through.
func TestStatusLeader(t *testing.T) {
	v, row := knownBy1(
		shardReport{Role: engine.RoleFollower, Term: 7}, // has heard of an election
		shardReport{Role: engine.RoleLeader, Term: 6, Settled: true, Commit: 9, Applied: 8},
		shardReport{Role: engine.RoleLeader, Term: 5}, // has not heard of its end
	)
	for range 200 { // each in another order, since Go shuffles maps
		i := v.shardInfo(0, row)
		if i.Leader != 2 || i.Moving || i.Term != 7 || i.State != command.ShardLed {
			t.Fatalf("%+v; the newest known leader is node 2, settled, and the term 7", i)
		}
		if lag := []uint64{i.Replicas[0].Lag, i.Replicas[1].Lag}; lag[0] != 9 || lag[1] != 0 {
			t.Fatalf("the replicas are %d entries behind; a leader is not behind itself", lag)
		}
	}
}

// TestStatusOfSilentNodes: who leads is known from fresh words only, and where
// there are none the answer is "unknown" unless a majority has no leader.
func TestStatusOfSilentNodes(t *testing.T) {
	follower := shardReport{Role: engine.RoleFollower, Leader: 3, Term: 6}
	orphan := shardReport{Role: engine.RoleFollower, Term: 6}
	leader := shardReport{Role: engine.RoleLeader, Leader: 3, Term: 6}
	ago := func(d time.Duration) func(p *picture) {
		return func(p *picture) { p.heard, p.whole = p.heard-int64(d), p.whole-int64(d) }
	}
	late := func(p *picture) { p.whole -= int64(2 * time.Second) }
	lost := func(p *picture) { p.lost = true }
	const justNow = int64(time.Hour - staleAfter) // see knownBy1
	for _, tt := range []struct {
		name         string
		r1, r2, r3   shardReport
		f2, f3       func(*picture)
		state        string
		leader       uint64
		node3, role3 string
	}{
		{"all well", follower, follower, leader, nil, nil, command.ShardLed, 3, command.NodeUp, engine.RoleLeader},
		{"the leader's connection has broken this moment", follower, follower, leader, nil, lost, command.ShardUnknown, 0, command.NodeSuspect, roleUnreachable},
		{"the others have noticed", orphan, orphan, leader, nil, lost, command.ShardLeaderless, 0, command.NodeSuspect, roleUnreachable},
		{"it has been down for long", orphan, orphan, leader, nil, ago(time.Minute), command.ShardLeaderless, 0, command.NodeDown, roleUnreachable},
		{"its report is late", follower, follower, leader, nil, late, command.ShardUnknown, 0, command.NodeUp, engine.RoleLeader},
		{"nobody else is there", orphan, follower, leader, lost, ago(5 * time.Second), command.ShardLeaderless, 0, command.NodeSuspect, roleUnreachable},
		{"one has a leader that is cut off from here", orphan, follower, leader, nil, ago(5 * time.Second), command.ShardUnknown, 0, command.NodeSuspect, roleUnreachable},
		{"it has just handed over to node 2, which has yet to say so", follower, follower, shardReport{Role: engine.RoleFollower, Leader: 2, Term: 7, since: justNow}, nil, nil, command.ShardLed, 2, command.NodeUp, engine.RoleFollower},
		{"node 2 does not say so for longer than a report takes", follower, follower, shardReport{Role: engine.RoleFollower, Leader: 2, Term: 7}, nil, nil, command.ShardUnknown, 0, command.NodeUp, engine.RoleFollower},
		{"node 2 cannot be reached since", follower, follower, shardReport{Role: engine.RoleFollower, Leader: 2, Term: 7, since: justNow}, lost, nil, command.ShardUnknown, 0, command.NodeUp, engine.RoleFollower},
		{"a newer term has begun since", follower, shardReport{Role: engine.RoleCandidate, Term: 8}, shardReport{Role: engine.RoleFollower, Leader: 2, Term: 7, since: justNow}, nil, nil, command.ShardUnknown, 0, command.NodeUp, engine.RoleFollower},
		{"a leader is elected", orphan, shardReport{Role: engine.RoleLeader, Leader: 2, Term: 7}, leader, nil, lost, command.ShardLed, 2, command.NodeSuspect, roleUnreachable},
	} {
		v, row := knownBy1(tt.r1, tt.r2, tt.r3)
		for node, f := range map[uint64]func(*picture){2: tt.f2, 3: tt.f3} {
			if f != nil {
				f(v.nodes[node])
			}
		}
		i := v.shardInfo(0, row)
		role := ""
		for _, r := range i.Replicas {
			if r.Node == 3 {
				role = r.Role
			}
		}
		if i.State != tt.state || i.Leader != tt.leader || v.state(3) != tt.node3 || role != tt.role3 {
			t.Errorf("%s: %s, leader %d, node 3 %s, its replica %s; want %s, %d, %s, %s",
				tt.name, i.State, i.Leader, v.state(3), role, tt.state, tt.leader, tt.node3, tt.role3)
		}
	}
}

// TestNewLeader: what other nodes have said may be from before the leader's
// election for as long as a report counts, and no longer.
func TestNewLeader(t *testing.T) {
	p := &picture{shards: make([]shardReport, 2)}
	s := shardReport{Shard: 1, Role: engine.RoleFollower, Leader: 2, Term: 6}
	p.set(s, 100)
	s.Commit = 9
	if p.set(s, 200); p.shards[1].since != 100 || p.shards[1].Commit != 9 {
		t.Errorf("%+v: the leader is the same since 100", p.shards[1])
	}
	s.Role, s.Leader, s.Term = engine.RoleLeader, 3, 7
	if p.set(s, 300); p.shards[1].since != 300 {
		t.Errorf("%+v: it leads since 300", p.shards[1])
	}

	follower := shardReport{Role: engine.RoleFollower, Leader: 3, Term: 6}
	for age, newly := range map[time.Duration]bool{0: true, staleAfter: true, staleAfter + 1: false, time.Minute: false} {
		v, row := knownBy1(follower, follower, shardReport{Role: engine.RoleLeader, Leader: 3, Term: 6, Settled: true, since: int64(time.Hour - age)})
		if i := v.shardInfo(0, row); i.Leader != 3 || i.NewLeader != newly {
			t.Errorf("%v after its election: %+v", age, i)
		}
	}
}

// reporter is the sending side of reports, without a node.
type reporter struct {
	ownReports
	state []shardReport
}

func newReporter(run uint64, shards int) *reporter {
	return &reporter{ownReports{run: run, changed: make([]uint64, shards)}, make([]shardReport, shards)}
}

func (r *reporter) change(s shardReport) {
	r.newest++
	r.state[s.Shard], r.changed[s.Shard] = s, r.newest
}

func (r *reporter) reports(p *peerProgress, now int64) []encoded {
	c := changes{run: r.run, newest: r.newest}
	base := p.base(now)
	return c.encode(base, r.since(base), r.changed, r.state)
}

// TestReportsConverge: whatever reports are lost, doubled or late, and whoever
// starts anew, the receiver never takes something old for new, says that it knows
// everything only if it does, and gets there when reports come through.
func TestReportsConverge(t *testing.T) {
	const shards = 1025
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r, run := newReporter(1, shards), uint64(1)
		p, progress, now := &picture{}, &peerProgress{}, int64(1)
		var late [][]byte
		take := func(body []byte) {
			c, err := decodeChanges(body, shards)
			if err != nil {
				t.Fatal(err)
			}
			p.take(c, shards, now)
			if p.whole == now && p.run == r.run && p.have == r.newest {
				for shard := range r.state {
					if is, says := &r.state[shard], &p.shards[shard]; !says.same(is) || says.position() != is.position() {
						t.Fatalf("seed %d: the receiver believes that it knows everything, and %+v instead of %+v", seed, says, is)
					}
				}
			}
		}
		send := func(lose float64) {
			for _, b := range r.reports(progress, now) {
				if len(b.body) > 64<<10 {
					t.Fatalf("a report of %d bytes", len(b.body))
				}
				progress.sent = b.to
				switch x := rng.Float64(); {
				case x < lose/2:
				case x < lose:
					late = append(late, b.body)
				default:
					take(b.body)
				}
			}
			if p.run == r.run {
				progress.acknowledge(p.have, now)
			} else {
				progress.acknowledge(0, now)
			}
		}
		for range 60 {
			now += int64(reportEvery)
			for range rng.IntN(400) {
				s := shardReport{Shard: rng.IntN(shards)}
				if rng.IntN(5) > 0 {
					s.Replica, s.Role, s.Leader, s.Term = rng.Uint64N(1<<40)+1, engine.RoleLeader, rng.Uint64N(5), rng.Uint64()
					s.Commit, s.Applied, s.Members, s.Learners, s.Row = rng.Uint64(), rng.Uint64N(9), []uint64{1, rng.Uint64(), 3}, []uint64{3}, rng.Uint64N(99)
				}
				r.change(s)
			}
			switch rng.IntN(20) {
			case 0: // the sender starts anew
				run++
				state := r.state
				r, late = newReporter(run, shards), nil
				for _, s := range state {
					r.change(s)
				}
				progress = &peerProgress{}
			case 1: // the receiver does
				p = &picture{}
			}
			send(0.3)
			if len(late) > 0 && rng.IntN(2) == 0 {
				take(late[0])
				late = late[1:]
			}
		}
		for range 8 { // resendAfter passes
			now += int64(reportEvery)
			send(0)
		}
		if p.whole != now || p.have != r.newest {
			t.Fatalf("seed %d: at version %d of %d, whole %d of %d", seed, p.have, r.newest, p.whole, now)
		}
	}
}

// TestReportsHaveNoLargestNumber: the state of every shard that may be allowed goes
// through, with more replicas than any cluster has.
func TestReportsHaveNoLargestNumber(t *testing.T) {
	const shards = 16 << 10
	r := newReporter(1, shards)
	for shard := range shards {
		s := shardReport{Shard: shard, Replica: 1, Role: engine.RoleLeader, Leader: placement.NodeMax, Term: 1 << 62, Commit: 1 << 62, Applied: 1 << 62, Row: 1 << 62}
		for node := range uint64(9) {
			s.Members = append(s.Members, placement.ReplicaID(placement.NodeMax-node, 1<<24-1))
		}
		r.change(s)
	}
	p := &picture{}
	for _, b := range r.reports(&peerProgress{}, 1) {
		c, err := decodeChanges(b.body, shards)
		if err != nil || len(b.body) > 64<<10 {
			t.Fatal(err, len(b.body))
		}
		p.take(c, shards, 1)
	}
	if p.whole != 1 || p.leaders != shards || len(p.shards) != shards {
		t.Fatalf("%d of %d leaders", p.leaders, shards)
	}
}

// TestPositionsAreReported: what a replica has applied is known everywhere within a
// second or two, whichever of its reports it happened before.
func TestPositionsAreReported(t *testing.T) { slowlyOnEngines(t, testPositionsAreReported) }

func testPositionsAreReported(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 2)
	c.pass(2 * time.Second)
	known := func() bool {
		for _, n := range c.nodes {
			for _, sh := range n.ClusterStatus().Shards {
				for _, r := range sh.Replicas {
					if r.Applied != c.nodes[r.Node].store.Applied((sh.Shard+len(n.views))%len(n.views)) {
						return false
					}
				}
			}
		}
		return true
	}
	for i := range 8 {
		c.put(fmt.Sprint("key", i), "value")
		c.pass(reportEvery) // it may be in this report, or in the next
		begun := c.clock.Boot()
		c.until(fmt.Sprint("word of row ", i), known)
		if took := time.Duration(c.clock.Boot() - begun); e == placement.Etcd && took > 2*time.Second {
			t.Fatalf("row %d was known after %v", i, took)
		}
	}
}

// golden is a report as docs/peer-protocol.md describes it.
var golden = func() []byte {
	c := changes{run: 0x1122334455667788, ackRun: 0x99, ack: 7, newest: 3,
		about: nodeReport{Slow: true, ClockOff: true, Exposed: true, Wall: 1700000000000, Time: 1700000000300, Offset: -300, FsyncMicros: 127.5, LogBytes: 64 << 20, DiskUsed: 1 << 30, DiskFree: 2 << 30, Uptime: 3600, Position: 77, Damaged: 5}}
	state := []shardReport{
		{Shard: 0, Replica: placement.ReplicaID(1, 1), Role: engine.RoleLeader, Leader: 1, Term: 4, Commit: 300, Applied: 299,
			Members: []uint64{placement.ReplicaID(1, 1), placement.ReplicaID(2, 1)}, Learners: []uint64{placement.ReplicaID(2, 1)}, Settled: true, Row: 2},
		{Shard: 1},
		{Shard: 2, Replica: placement.ReplicaID(1, 2), Role: engine.RoleFollower, Leader: 2, Term: 9, Commit: 1, Applied: 1, Damaged: true},
	}
	return c.encode(0, []int{1, 0, 2}, []uint64{2, 1, 3}, state)[0].body
}()

const goldenText = "02" + "8877665544332211" + "9900000000000000" + "0700000000000000" + "0300000000000000" + "0000000000000000" + "0300000000000000" +
	"24" + "0e" + "8ce407" + "80808020" + "8080808004" + "8080808008" + "901c" + "80d095ffbc31" + "acd295ffbc31" + "d704" + "4d" + "05" +
	"02" + "0100" +
	"1c" + "00" + "81808008" + "01" + "03" + "01" + "04" + "ac02" + "ab02" + "02" + "81808008" + "81808010" + "01" + "81808010" + "02" +
	"0b" + "02" + "82808008" + "02" + "04" + "02" + "09" + "01" + "01"

func TestReportGolden(t *testing.T) {
	if got := fmt.Sprintf("%x", golden); got != goldenText {
		t.Errorf("\n%s, want\n%s", got, goldenText)
	}
}

// TestReportOfAnEarlierVersion: what a node that does not count damaged files
// sends is understood.
func TestReportOfAnEarlierVersion(t *testing.T) {
	earlier := strings.Replace(goldenText, "24"+"0e"+"8ce407", "23"+"06"+"8ce407", 1)
	earlier = strings.Replace(earlier, "d704"+"4d"+"05", "d704"+"4d", 1)
	body, err := hex.DecodeString(earlier)
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeChanges(body, 3)
	if err != nil || c.about.Position != 77 || c.about.Damaged != 0 || len(c.shards) != 3 || !c.shards[2].Damaged {
		t.Errorf("%v: %+v", err, c)
	}
}

func FuzzReport(f *testing.F) {
	f.Add(golden)
	f.Add(golden[:changesHeadBytes])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeChanges(body, 3)
		if err != nil {
			return
		}
		p := &picture{}
		p.take(c, 3, 1)
		state, changed := make([]shardReport, 3), make([]uint64, 3)
		var shards []int
		for _, s := range c.shards { // the last word on a shard counts
			shards = append(slices.DeleteFunc(shards, func(x int) bool { return x == s.Shard }), s.Shard)
			state[s.Shard], changed[s.Shard] = s, c.to
		}
		again := c.encode(c.from, shards, changed, state)
		q := &picture{}
		for _, b := range again {
			d, err := decodeChanges(b.body, 3)
			if err != nil {
				t.Fatal(err)
			}
			q.take(d, 3, 1)
		}
		if c.to == c.newest {
			if diff := cmp.Diff(p.shards, q.shards, cmpopts.IgnoreUnexported(shardReport{})); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}
