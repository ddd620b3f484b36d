package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

// fakeAdministrator answers requests as a test tells it to, and notes them.
type fakeAdministrator struct {
	requests []string
	answer   func(verb string, args []byte) (any, error)
}

func (f *fakeAdministrator) Admin(_ context.Context, verb string, args []byte) ([]byte, error) {
	if verb != command.AdminStatus {
		f.requests = append(f.requests, strings.TrimSpace(verb+" "+string(args)))
	}
	answer, err := f.answer(verb, args)
	if err != nil {
		return nil, err
	}
	if raw, ok := answer.(json.RawMessage); ok {
		return raw, nil
	}
	return json.Marshal(answer)
}

// cluster is three nodes with three shards and the meta group, all well.
func cluster() *command.ClusterStatus {
	s := &command.ClusterStatus{Cluster: "00d1f2a3b4c5d6e7", Epoch: 12, Asked: 1, MetaLeader: 1}
	for id := uint64(1); id <= 3; id++ {
		host := "n" + string('0'+rune(id))
		s.Nodes = append(s.Nodes, command.NodeInfo{
			ID: id, Peer: host + ":7401", Client: host + ":7400", State: command.NodeUp, Version: "v1.2.3", Leaders: 1, Replicas: 4,
			FsyncMicros: 127.4, LogBytes: 64 << 20, DiskUsedBytes: 3 << 30, DiskFreeBytes: 20_500_000_000, UptimeSeconds: 3700,
		})
	}
	for shard := command.MetaShard; shard < 3; shard++ {
		leader := uint64(max(shard, 0) + 1)
		sh := command.ShardInfo{Shard: shard, State: command.ShardLed, Leader: leader, Term: 4, Commit: 100, Desired: []uint64{1, 2, 3}}
		for id := uint64(1); id <= 3; id++ {
			r := command.ReplicaInfo{Node: id, Role: "follower", Follows: leader, Applied: 100}
			if id == leader {
				r.Role = "leader"
			}
			sh.Replicas = append(sh.Replicas, r)
		}
		s.Shards = append(s.Shards, sh)
	}
	return s
}

// runCluster runs one command line against a fake and returns what it wrote.
func runCluster(f *fakeAdministrator, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(""), link: &connection{administrator: f}, Output: render.Output{Out: &out, Err: &errs}}
	status = a.run(context.Background(), args)
	return status, out.String(), errs.String()
}

func answering(s *command.ClusterStatus) *fakeAdministrator {
	return &fakeAdministrator{answer: func(string, []byte) (any, error) { return s, nil }}
}

var update = flag.Bool("update", false, "rewrite golden files")

// lose has node 3 be away since a while, as node 1 sees it, with its leaderships
// taken over.
func lose(s *command.ClusterStatus, age int64) {
	n := &s.Nodes[2]
	n.State, n.LastSeenMillis, n.AgeMillis, n.Stale, n.Leaders = command.NodeDown, age, age, true, 0
	for i := range s.Shards {
		sh := &s.Shards[i]
		if sh.Leader == 3 {
			sh.Leader = 2
			s.Nodes[1].Leaders++
		}
		for k := range sh.Replicas {
			r := &sh.Replicas[k]
			r.Follows, r.Role = sh.Leader, "follower"
			if r.Node == sh.Leader {
				r.Role = "leader"
			}
		}
		r := &sh.Replicas[2]
		r.Role, r.Stale, r.Lag, r.Applied = "unreachable", true, 1, 99
	}
}

// shrink takes nodes out of a cluster.
func shrink(s *command.ClusterStatus, to int) {
	s.Nodes = s.Nodes[:to]
	for i := range s.Shards {
		sh := &s.Shards[i]
		sh.Desired, sh.Voters, sh.Replicas = sh.Desired[:to], sh.Voters[:to], sh.Replicas[:to]
		if sh.Leader > uint64(to) {
			sh.Leader = 1
			s.Nodes[0].Leaders++
		}
		for k := range sh.Replicas {
			r := &sh.Replicas[k]
			r.Follows, r.Role = sh.Leader, "follower"
			if r.Node == sh.Leader {
				r.Role = "leader"
			}
		}
	}
}

// TestStatusPictures compares what is shown of hand-made clusters with golden
// files: as written to a file, and on a terminal of 80 columns with colours.
func TestStatusPictures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		change func(*command.ClusterStatus)
	}{
		{"healthy", exitDone, func(s *command.ClusterStatus) { s.Engine = "dragonboat" }},
		{"alone", exitDone, func(s *command.ClusterStatus) { shrink(s, 1); s.Standalone = true }},
		{"exposed", exitDone, func(s *command.ClusterStatus) { s.Nodes[1].Exposed, s.Nodes[2].Exposed = true, true }},
		{"one-left", exitFailed, func(s *command.ClusterStatus) { shrink(s, 1) }},
		{"two-founders", exitFailed, func(s *command.ClusterStatus) { shrink(s, 2) }},
		{"alone-with-learner", exitFailed, func(s *command.ClusterStatus) {
			shrink(s, 2)
			for i := range s.Shards {
				sh := &s.Shards[i]
				sh.Leader, sh.Voters, sh.Replicas[0].Role, sh.Replicas[1].Role = 1, []uint64{1}, "leader", "learner"
				sh.Replicas[0].Follows, sh.Replicas[1].Follows = 1, 1
			}
		}},
		{"node-down", exitFailed, func(s *command.ClusterStatus) {
			lose(s, 130_000)
			s.Nodes[2].Replace = &command.Replacement{Shards: 3, InMillis: -1}
		}},
		{"node-down-rebuilt", exitFailed, func(s *command.ClusterStatus) {
			lose(s, 48_000)
			s.Nodes[2].Replace = &command.Replacement{Shards: 3, Rebuildable: 3, InMillis: 552_000}
			s.Nodes = append(s.Nodes, s.Nodes[1])
			s.Nodes[3].ID, s.Nodes[3].Client, s.Nodes[3].Leaders, s.Nodes[3].Replicas = 4, "n4:7400", 0, 0
		}},
		{"many-troubles", exitFailed, func(s *command.ClusterStatus) {
			for i := range s.Nodes {
				n := &s.Nodes[i]
				n.Client, n.Slow, n.ClockOff, n.ClockOffset, n.DamagedFiles, n.Draining = "192.168.100.10:7400", true, true, 12345, 12, true
				n.DiskUsedBytes, n.DiskFreeBytes, n.FsyncMicros, n.Leaders, n.Replicas = 300<<30, 400<<30, 9999, 500, 1024
			}
			s.Nodes[1].DamagedFiles, s.Nodes[1].Stale, s.Nodes[1].AgeMillis = 0, true, 3200
		}},
		{"trouble", exitServer, func(s *command.ClusterStatus) {
			lose(s, 130_000)
			s.Nodes[1].Slow, s.Nodes[1].Version = true, "\x1b[31m"
			s.Nodes = append(s.Nodes, command.NodeInfo{ID: 4, State: command.NodeExpected})
			s.Shards[1].Replicas[1].Lag, s.Shards[1].Replicas[1].Applied = 40, 60
			s.Shards[1].On(s.Shards[1].Leader).Lag = 50 // it commits while it reports: it lacks nothing
			s.Shards[2].State, s.Shards[2].Leader = command.ShardLeaderless, 0
			s.Shards[3].Desired, s.Shards[3].Moving = []uint64{1, 2, 4}, true
			s.Shards[3].Replicas = append(s.Shards[3].Replicas, command.ReplicaInfo{Node: 4, Role: "learner", Lag: 7, Stale: true})
		}},
	} {
		s := cluster()
		s.ReplicationFactor = 3
		for i := range s.Shards {
			s.Shards[i].Voters = []uint64{1, 2, 3}
		}
		tt.change(s)
		status, out, errs := runCluster(answering(s), "status")
		if status != tt.status || errs != "" {
			t.Errorf("%s: exit status %d, want %d; %s", tt.name, status, tt.status, errs)
		}
		var drawn bytes.Buffer
		if err := renderCluster(&render.Output{Out: &drawn, Form: render.AsTable}, s, "", render.Look{Columns: 80, Colour: true}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(drawn.String()) {
			if n := utf8.RuneCountInString(ansi.ReplaceAllString(line, "")) - 1; n > 80 {
				t.Errorf("%s: a line of %d columns: %s", tt.name, n, line)
			}
		}
		golden(t, filepath.Join("testdata", "status", tt.name+".txt"), out+"\n-- 80 columns --\n"+strings.ReplaceAll(drawn.String(), "\x1b", "␛"))
	}
}

// The command for a further node can be run as it is printed but for what the
// operator must choose: it asks the cluster shown for the token, and starts no
// server on a directory or at an address that another one has.
func TestJoinCommand(t *testing.T) {
	for _, tt := range []struct{ client, peer, want string }{
		{"n1:7400", "n1:7401", "PROA_JOIN_TOKEN=$(proa -e n1:7400 member token) proa serve --data NEW_DIRECTORY --join n1:7401"},
		{"127.0.0.1:7400", "127.0.0.1:7401", "PROA_JOIN_TOKEN=$(proa member token) proa serve --data NEW_DIRECTORY --listen 127.0.0.1:PORT --peer-listen 127.0.0.1:PORT --join 127.0.0.1:7401"},
		{"", "", "PROA_JOIN_TOKEN=$(proa member token) proa serve --data NEW_DIRECTORY --join HOST:7401"},
	} {
		s := cluster()
		s.Nodes[0].Client, s.Nodes[0].Peer = tt.client, tt.peer
		if got := joinCommand(s); got != tt.want {
			t.Errorf("%s, %s: %s; want %s", tt.client, tt.peer, got, tt.want)
		}
	}
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*m")

// golden compares text with a file, or writes it there.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-update rewrites it):\n%s", path, diff)
	}
}

func TestHealth(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*command.ClusterStatus)
		status int
		want   string
	}{
		{"all well", func(*command.ClusterStatus) {}, exitDone, "healthy: all 4 shards"},
		{"alone", func(s *command.ClusterStatus) {
			s.Nodes = s.Nodes[:1]
			for i := range s.Shards {
				s.Shards[i].Leader, s.Shards[i].Desired, s.Shards[i].Replicas = 1, []uint64{1}, s.Shards[i].Replicas[:1]
				s.Shards[i].Replicas[0].Follows = 1
			}
		}, exitDone, "healthy, on one node"},
		{"suspect", func(s *command.ClusterStatus) { s.Nodes[0].State = command.NodeSuspect }, exitFailed, "degraded"},
		{"damaged file", func(s *command.ClusterStatus) { s.Nodes[0].DamagedFiles = 1 }, exitFailed, "degraded: all 4 shards have a leader, but|node 1 is up, 1 damaged file"},
		{"damaged replica", func(s *command.ClusterStatus) { s.Shards[0].Replicas[0].Damaged = true }, exitFailed,
			"degraded: all 4 shards have a leader, but|1 of 4 shards has a damaged replica, which is being replaced by a copy of another one: meta"},
		{"damaged for good", func(s *command.ClusterStatus) {
			s.Shards[1].Replicas = s.Shards[1].Replicas[:1]
			s.Shards[1].Replicas[0].Damaged = true
		}, exitFailed, "degraded: all 4 shards have a leader, but|1 of 4 shards has no replica but a damaged one"},
		{"lost", func(s *command.ClusterStatus) {
			s.Shards[1].State, s.Shards[1].Leader = command.ShardLeaderless, 0
			s.Shards[1].Replicas = s.Shards[1].Replicas[:1]
			s.Shards[1].Replicas[0].Damaged = true
		}, exitServer, "UNAVAILABLE in part: no undamaged replica for 1 of 4 shards (0): reads of the damaged blocks fail"},
		{"slow", func(s *command.ClusterStatus) { s.Nodes[0].Slow = true }, exitFailed, "degraded"},
		{"report late", func(s *command.ClusterStatus) { s.Nodes[0].Stale, s.Nodes[0].AgeMillis = true, 3200 }, exitFailed, "degraded: all 4 shards have a leader, but|node 1 is up, last report 3.2s ago"},
		{"no report yet", func(s *command.ClusterStatus) { s.Nodes[0].Stale, s.Nodes[0].AgeMillis = true, -1 }, exitFailed, "degraded: all 4 shards have a leader, but|node 1 is up, no report yet"},
		{"draining", func(s *command.ClusterStatus) { s.Nodes[0].Draining = true }, exitDone, "healthy"},
		{"expected", func(s *command.ClusterStatus) {
			s.Nodes = append(s.Nodes, command.NodeInfo{ID: 9, State: command.NodeExpected})
		}, exitDone, "healthy"},
		{"replica not made yet", func(s *command.ClusterStatus) { s.Shards[0].Replicas = s.Shards[0].Replicas[:2] }, exitFailed, "degraded"},
		{"a node has not heard of the leader", func(s *command.ClusterStatus) { s.Shards[1].Replicas[2].Follows = 0 }, exitFailed,
			"degraded: all 4 shards have a leader, but|1 of 4 shards has a replica that does not follow the leader yet: 0"},
		{"a voter is behind", func(s *command.ClusterStatus) { s.Shards[1].Replicas[2].Behind = true }, exitFailed,
			"degraded: all 4 shards have a leader, but|1 of 4 shards has a replica that is still catching up; until it has, the shard waits for it if another one is lost: 0"},
		{"a node may not have heard of a new leader", func(s *command.ClusterStatus) {
			s.Shards[1].NewLeader, s.Shards[1].Replicas[2].Follows = true, 0
		}, exitDone, "healthy: all 4 shards"},
		{"moving", func(s *command.ClusterStatus) { s.Shards[0].Moving = true }, exitDone, "healthy"},
		{"leader not known", func(s *command.ClusterStatus) { s.Shards[2].State, s.Shards[2].Leader = command.ShardUnknown, 0 }, exitFailed,
			"unknown: whether 1 of 4 shards have a leader cannot be told now (1)"},
		{"no leader", func(s *command.ClusterStatus) { s.Shards[2].State, s.Shards[2].Leader = command.ShardLeaderless, 0 }, exitServer,
			"UNAVAILABLE in part: no leader for 1 of 4 shards (1)"},
		{"no leader anywhere", func(s *command.ClusterStatus) {
			for i := range s.Shards {
				s.Shards[i].State, s.Shards[i].Leader = command.ShardLeaderless, 0
			}
		}, exitServer, "UNAVAILABLE: none of the 4 shards has a leader"},
		{"majority lost", func(s *command.ClusterStatus) {
			s.ReplicationFactor = 3
			for i := range s.Shards {
				s.Shards[i].State, s.Shards[i].Leader, s.Shards[i].Voters = command.ShardLeaderless, 0, []uint64{1, 2, 3}
			}
			for i := range s.Nodes[1:] {
				s.Nodes[i+1].State, s.Nodes[i+1].LastSeenMillis = command.NodeDown, 20_000
				s.Nodes[i+1].Replace = &command.Replacement{Shards: 3, InMillis: -1}
			}
		}, exitServer, "UNAVAILABLE: none of the 4 shards has a leader; they refuse writes and linearizable reads until a majority of their replicas is back" +
			"|node 2 has been down for 20s|node 3 has been down for 20s|next: start at least 1 of the nodes 2,3 again: until a majority is up, no node can join or be removed. " +
			"If they are lost for good, see \"When a majority is lost\" in docs/operations.md"},
		{"left out by a recovery", func(s *command.ClusterStatus) {
			s.LeftOutBy = 3
			for i := range s.Shards {
				s.Shards[i].State, s.Shards[i].Leader = command.ShardLeaderless, 0
			}
			s.Nodes[1].State, s.Nodes[1].LastSeenMillis = command.NodeDown, 20_000
			s.Nodes[2].State, s.Nodes[2].LastSeenMillis = command.NodeDown, 20_000
		}, exitServer, "UNAVAILABLE: none of the 4 shards has a leader; they refuse writes and linearizable reads until a majority of their replicas is back" +
			"|node 1, which was asked, was left out when the cluster was recovered on node 3, and its data has diverged; what follows is the old cluster" +
			"|node 2 has been down for 20s|node 3 has been down for 20s" +
			"|next: stop node 1, erase its data directory, and start it again, without --node-id, to join as a new node; do not start other nodes of the old cluster"},
		{"nothing known", func(s *command.ClusterStatus) { *s = command.ClusterStatus{} }, exitFailed, "unknown"},
		{"a server of old", func(s *command.ClusterStatus) {
			for i := range s.Shards {
				s.Shards[i].State = ""
				for k := range s.Shards[i].Replicas {
					s.Shards[i].Replicas[k].Follows = 0
				}
			}
		}, exitDone, "healthy"},
		{"a server of old without a leader", func(s *command.ClusterStatus) { s.Shards[0].State, s.Shards[0].Leader = "", 0 }, exitServer, "UNAVAILABLE in part"},
	} {
		s := cluster()
		tt.change(s)
		d := diagnose(s)
		if got := strings.Join(d.lines(), "|"); !strings.HasPrefix(got, tt.want) || d.status != tt.status {
			t.Errorf("%s: status %d, %s; want %d, %s", tt.name, d.status, got, tt.status, tt.want)
		}
		for _, output := range []string{render.AsTable, render.AsJSON} {
			if status, _, _ := runCluster(answering(s), "status", "-o", output); status != tt.status {
				t.Errorf("%s: exit status %d with -o %s, want %d", tt.name, status, output, tt.status)
			}
		}
	}
}

// TestLeadsNone: a draining is done only when it is certain that the node leads
// nothing.
func TestLeadsNone(t *testing.T) {
	silent := func(s *command.ClusterStatus) {
		for i := range s.Shards {
			s.Shards[i].Replicas[1].Stale, s.Shards[i].Replicas[1].Role = true, "unreachable"
		}
	}
	unknown := func(shard int, state string) func(s *command.ClusterStatus) {
		return func(s *command.ClusterStatus) {
			sh := findShard(s, shard)
			sh.State, sh.Leader, sh.Replicas[1].Role = state, 0, "follower"
		}
	}
	elsewhere := func(s *command.ClusterStatus) {
		sh := findShard(s, 1)
		sh.Leader, sh.Replicas[1].Role, sh.Replicas[2].Role = 3, "follower", "leader"
	}
	for _, tt := range []struct {
		name    string
		changes []func(s *command.ClusterStatus)
		want    bool
	}{
		{"it leads", nil, false},
		{"another leads", []func(s *command.ClusterStatus){elsewhere}, true},
		{"it says that it does not", []func(s *command.ClusterStatus){unknown(1, command.ShardLeaderless)}, true},
		{"it has not said anything, nobody is known to lead", []func(s *command.ClusterStatus){unknown(1, command.ShardUnknown), silent}, false},
		{"it is gone and has no follower left", []func(s *command.ClusterStatus){unknown(1, command.ShardLeaderless), silent}, false},
		{"it is gone and others lead", []func(s *command.ClusterStatus){elsewhere, silent}, true},
	} {
		s := cluster()
		for _, f := range tt.changes {
			f(s)
		}
		if got := leadsNone(s, 2); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// JSON comes as the server sent it, with what this program does not know.
func TestClusterStatusJSON(t *testing.T) {
	f := &fakeAdministrator{answer: func(string, []byte) (any, error) {
		return json.RawMessage(`{"cluster":"x","future":{"a":1}}`), nil
	}}
	if _, out, _ := runCluster(f, "status", "-o", "json"); out != `{"cluster":"x","future":{"a":1}}`+"\n" {
		t.Errorf("%s", out)
	}
	if status, _, errs := runCluster(&fakeAdministrator{answer: func(string, []byte) (any, error) {
		return json.RawMessage(`{"nodes": 5}`), nil
	}}, "status"); status != exitServer || !strings.Contains(errs, "-o json") {
		t.Errorf("status %d, %s", status, errs)
	}
}

func TestListsOfMembersAndShards(t *testing.T) {
	for _, tt := range []struct {
		args  []string
		lines int
		first string
	}{
		{[]string{"member", "list"}, 4, "NODE"},
		{[]string{"member", "list", "-o", "raw"}, 3, "1"},
		{[]string{"member", "list", "-o", "json"}, 3, `[{"id":1,`},
		{[]string{"member", "list", "-o", "jsonl"}, 3, `{"id":1,`},
		{[]string{"shard", "list"}, 7, "SHARD"},
		{[]string{"shard", "list", "-o", "raw"}, 4, "meta"},
		{[]string{"shard", "list", "-o", "json"}, 4, `[{"shard":"meta",`},
	} {
		status, out, _ := runCluster(answering(cluster()), tt.args...)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if status != 0 || len(lines) != tt.lines || !strings.HasPrefix(lines[0], tt.first) {
			t.Errorf("%q: status %d, %d lines:\n%s", tt.args, status, len(lines), out)
		}
	}
}

func TestClusterUsage(t *testing.T) {
	for _, tt := range []struct{ line, says string }{
		{"status 5s", "such as 500ms"},
		{"status --watch soon", "such as 500ms"},
		{"status --watch=1ms", "at least 100ms"},
		{"member add", "write: proa member add ID [ADDRESS]\nSee: proa member add --help"},
		{"shard move meta --from 1 --to 2", "every node has a replica"},
		{"member add x", "not the number of a node"},
		{"member add 0", "not the number of a node"},
		{"member add 1099511627776", "not the number of a node"},
		{"member add 4 nowhere", "host:port"},
		{"member remove 3 --force --undo", "cannot be used together"},
		{"member drain -1", "not the number of a node"},
		{"shard move 1", "--from"},
		{"shard move 1 --from 1 --to 1", "same node"},
		{"shard move x --from 1 --to 2", "not a shard"},
		{"shard move 70000 --from 1 --to 2", "not a shard"},
		{"shard transfer 1", "--to"},
		{"shard checksum 1 --all", "cannot be used together"},
		{"shard recover --data .", "--unsafe"},
		{"shard recover --unsafe", "--data"},
		{"shard recover --unsafe --data . --shards 1,1", "twice"},
		{"shard recover --unsafe --data . --shards 1,x", "not a shard"},
		{"shard recover --unsafe --data nowhere", "not a data directory"},
	} {
		f := answering(cluster())
		status, out, errs := runCluster(f, strings.Fields(tt.line)...)
		if status != exitUsage || !strings.Contains(errs, tt.says) || out != "" || len(f.requests) > 0 {
			t.Errorf("%s: status %d, requests %q, output %q, error %s", tt.line, status, f.requests, out, errs)
		}
	}
}

// A request that names what does not exist says so in the words of the server, and
// does not call itself malformed.
func TestNoSuchThing(t *testing.T) {
	f := &fakeAdministrator{answer: func(string, []byte) (any, error) {
		return nil, &client.Error{Op: "ADMIN", Status: protocol.StatusBadRequest, Message: "there is no shard 77; shards are numbered 0 to 7", Err: client.ErrBadRequest}
	}}
	for _, line := range []string{"shard checksum 77", "shard transfer 77 --to 1", "member remove 9"} {
		status, _, errs := runCluster(f, strings.Fields(line)...)
		if status != exitUsage || errs != "proa: there is no shard 77; shards are numbered 0 to 7\n" {
			t.Errorf("%s: status %d, %s", line, status, errs)
		}
	}
}

func TestRefusedRequest(t *testing.T) {
	f := &fakeAdministrator{answer: func(string, []byte) (any, error) {
		return nil, &client.Error{Op: "ADMIN", Status: protocol.StatusRefused, Message: "node 3 holds the last replica", Err: client.ErrRefused}
	}}
	if status, _, errs := runCluster(f, "member", "remove", "3"); status != exitFailed || errs != "proa: node 3 holds the last replica\n" {
		t.Errorf("status %d, %s", status, errs)
	}
	f.answer = func(string, []byte) (any, error) { return nil, &client.Error{Op: "ADMIN", Err: client.ErrUnsupported} }
	if status, _, errs := runCluster(f, "status"); status != exitServer || !strings.Contains(errs, "proa status --node") {
		t.Errorf("status %d, %s", status, errs)
	}
}

// storyline answers each status request with the next state, and the last one
// for ever.
func storyline(states ...func(*command.ClusterStatus)) *fakeAdministrator {
	asked := 0
	return &fakeAdministrator{answer: func(verb string, _ []byte) (any, error) {
		if verb != command.AdminStatus {
			return command.Done{Message: "accepted"}, nil
		}
		s := cluster()
		states[min(asked, len(states)-1)](s)
		asked++
		return s, nil
	}}
}

// removeReplicas takes a node's replicas away from the shards given.
func removeReplicas(s *command.ClusterStatus, node uint64, shards ...int) {
	for _, shard := range shards {
		sh := findShard(s, shard)
		sh.Replicas = append(sh.Replicas[:node-1:node-1], sh.Replicas[node:]...)
	}
}

func TestChanges(t *testing.T) {
	well := func(*command.ClusterStatus) {}
	removing := func(s *command.ClusterStatus) { s.Nodes[2].Removing = true }
	three := func(s *command.ClusterStatus) { s.ReplicationFactor = 3 }
	for _, tt := range []struct {
		line    string
		states  []func(*command.ClusterStatus)
		request string
		status  int
		stdout  string
		stderr  string
	}{
		{
			line: "member remove 3",
			states: []func(*command.ClusterStatus){
				well, // looked at for a warning
				well, // of a node that does not know yet
				removing, removing,
				func(s *command.ClusterStatus) { removing(s); removeReplicas(s, 3, -1, 0, 2) },
				func(s *command.ClusterStatus) { s.Nodes = s.Nodes[:2] },
			},
			request: `member.remove {"node":3}`,
			stdout:  "accepted\nnode 3 is removed: its server stops, and its data directory can be erased\n",
			stderr:  "node 3: 0 of 4 replicas moved, left: meta, 0, 1, 2\nnode 3: 3 of 4 replicas moved, left: 1\n",
		},
		{
			line: "member remove 3 -o json", states: []func(*command.ClusterStatus){well, removing, func(s *command.ClusterStatus) { s.Nodes = s.Nodes[:2] }},
			request: `member.remove {"node":3}`,
			stdout:  `{"message":"node 3 is removed: its server stops, and its data directory can be erased"}` + "\n",
		},
		{
			line: "member remove 3 --force", states: []func(*command.ClusterStatus){well, removing, func(*command.ClusterStatus) {}},
			request: `member.remove {"node":3,"force":true}`,
			status:  exitServer,
			stdout:  "accepted\n",
			stderr:  "node 3: 0 of 4 replicas moved, left: meta, 0, 1, 2\nproa: node 3 stays: its removal was cancelled\n",
		},
		{line: "member remove 3 --undo", request: `member.remove {"node":3,"undo":true}`, stdout: "accepted\n"},
		{
			line: "member remove 3 --no-wait", states: []func(*command.ClusterStatus){three},
			request: `member.remove {"node":3}`, stdout: "accepted\n",
			stderr: "warning: without node 3 there are 2 nodes for 3 replicas of each shard: each keeps 2, and the loss of one more node then stops every shard; to keep all, start another node first (proa member add --help)\n",
		},
		{
			line: "member remove 3 --no-wait", states: []func(*command.ClusterStatus){func(s *command.ClusterStatus) {
				three(s)
				s.Nodes = s.Nodes[1:]
			}},
			request: `member.remove {"node":3}`, stdout: "accepted\n",
			stderr: "warning: without node 3 there is 1 node for 3 replicas of each shard: each keeps 1, and the loss of one more node then stops every shard; to keep all, start another node first (proa member add --help)\n",
		},
		{
			line: "member remove 3 --no-wait", states: []func(*command.ClusterStatus){func(s *command.ClusterStatus) {
				three(s)
				s.Nodes = append(s.Nodes, command.NodeInfo{ID: 4, State: command.NodeUp})
			}},
			request: `member.remove {"node":3}`, stdout: "accepted\n",
		},
		{line: "member remove 3 --no-wait", states: []func(*command.ClusterStatus){well}, request: `member.remove {"node":3}`, stdout: "accepted\n"},
		{ // The cluster refuses it.
			line: "member remove 3 --no-wait", states: []func(*command.ClusterStatus){func(s *command.ClusterStatus) { three(s); s.Nodes[2].State = command.NodeSuspect }},
			request: `member.remove {"node":3}`, stdout: "accepted\n",
		},
		{ // Of the two that remain one is down, too.
			line: "member remove 3 --no-wait --force", states: []func(*command.ClusterStatus){func(s *command.ClusterStatus) {
				three(s)
				s.Nodes[1].State, s.Nodes[2].State = command.NodeDown, command.NodeDown
			}},
			request: `member.remove {"node":3,"force":true}`, stdout: "accepted\n",
			stderr: "warning: without node 3 there are 2 nodes (1 up) for 3 replicas of each shard: each keeps 2, and the loss of one more node then stops every shard; to keep all, start another node first (proa member add --help)\n",
		},
		{ // Nothing is moved, and no server stops.
			line: "member remove 4", states: []func(*command.ClusterStatus){func(s *command.ClusterStatus) {
				s.Nodes = append(s.Nodes, command.NodeInfo{ID: 4, State: command.NodeExpected})
			}},
			request: `member.remove {"node":4}`, stdout: "accepted\n",
		},
		{line: "member add 4 n4:7401", request: `member.add {"node":4,"address":"n4:7401"}`, stdout: "accepted\n"},
		{
			line: "member drain 2",
			states: []func(*command.ClusterStatus){
				func(*command.ClusterStatus) {},
				func(s *command.ClusterStatus) { s.Nodes[1].Draining = true; s.Shards[2].Leader = 3 },
			},
			request: `member.drain {"node":2}`,
			stdout:  "accepted\nnode 2 leads no shard and accepts no leadership\n",
			stderr:  "node 2: 0 of 1 leaderships moved, left: 1\n",
		},
		{
			// What it leads is not known for a while.
			line: "member drain 2",
			states: []func(*command.ClusterStatus){
				func(s *command.ClusterStatus) {
					s.Nodes[1].Draining, s.Nodes[1].State, s.Nodes[1].Stale, s.Nodes[1].LastSeenMillis = true, command.NodeSuspect, true, 1500
					s.Shards[2].State, s.Shards[2].Leader = command.ShardUnknown, 0
					s.Shards[2].Replicas[1].Stale = true
				},
				func(s *command.ClusterStatus) { s.Nodes[1].Draining = true; s.Shards[2].Leader = 3 },
			},
			request: `member.drain {"node":2}`,
			stdout:  "accepted\nnode 2 leads no shard and accepts no leadership\n",
			stderr:  "node 2 has been suspect for 1.5s, draining: whether it leads shards is not known\n",
		},
		{
			line: "shard move 0 --from 2 --to 4",
			states: []func(*command.ClusterStatus){
				func(*command.ClusterStatus) {},
				moveState(func(sh *command.ShardInfo) {}),
				moveState(func(sh *command.ShardInfo) {
					sh.Replicas = append(sh.Replicas, command.ReplicaInfo{Node: 4, Role: "learner", Lag: 55})
				}),
				moveState(func(sh *command.ShardInfo) {
					sh.Replicas = append(sh.Replicas, command.ReplicaInfo{Node: 4, Role: "follower"})
				}),
				moveState(func(sh *command.ShardInfo) { sh.Replicas[1].Node = 4 }),
				moveState(func(sh *command.ShardInfo) { sh.Replicas[1].Node, sh.Moving = 4, false }),
			},
			request: `shard.move {"shard":0,"from":2,"to":4}`,
			stdout:  "accepted\nshard 0: the replica is on node 4 and no longer on node 2\n",
			stderr: "shard 0: waiting for the replica on node 4\nshard 0: the replica on node 4 is catching up, 55 log entries behind\n" +
				"shard 0: the replica on node 4 votes, the one on node 2 is being removed\nshard 0: finishing\n",
		},
		{
			line: "shard move 0 --from 2 --to 4 --timeout 2s",
			states: []func(*command.ClusterStatus){
				moveState(func(*command.ShardInfo) {}),
				down4(moveState(func(*command.ShardInfo) {})),
			},
			request: `shard.move {"shard":0,"from":2,"to":4}`,
			status:  exitServer,
			stdout:  "accepted\n",
			stderr: "shard 0: waiting for the replica on node 4\nproa: node 4, the destination of a replica of shard 0, has been down for 12s; " +
				"the move continues when it is back, or is cancelled by: proa member remove 4\n",
		},
		{
			line: "shard move 0 --from 2 --to 4 --timeout 2s",
			states: []func(*command.ClusterStatus){
				moveState(func(sh *command.ShardInfo) { sh.State, sh.Leader = command.ShardLeaderless, 0 }),
			},
			request: `shard.move {"shard":0,"from":2,"to":4}`,
			status:  exitServer,
			stdout:  "accepted\n",
			stderr:  "shard 0: waiting for the replica on node 4\nproa: shard 0 has no leader; the move continues when it has one\n",
		},
		{
			line: "shard move 1 --from 2 --to 4",
			states: []func(*command.ClusterStatus){
				func(s *command.ClusterStatus) { s.Shards[2].Desired = []uint64{1, 3, 4} },
				func(*command.ClusterStatus) {},
			},
			request: `shard.move {"shard":1,"from":2,"to":4}`,
			status:  exitServer,
			stdout:  "accepted\n",
			stderr:  "shard 1: waiting for the replica on node 4\nproa: the move of shard 1 to node 4 was cancelled\n",
		},
		{
			line: "shard transfer 1 --to 3", states: []func(*command.ClusterStatus){func(*command.ClusterStatus) {}, func(s *command.ClusterStatus) { s.Shards[2].Leader = 3 }},
			request: `shard.transfer {"shard":1,"to":3}`,
			stdout:  "shard 1 is led by node 3\n",
			stderr:  "shard 1: waiting for node 3 to lead\n",
		},
		{
			line: "shard transfer 1 --to 3 --timeout 2s", states: []func(*command.ClusterStatus){func(*command.ClusterStatus) {}},
			request: `shard.transfer {"shard":1,"to":3}`,
			status:  exitServer,
			stdout:  "",
			stderr:  "shard 1: waiting for node 3 to lead\nproa: shard 1 is not led by node 3 after 2s but by node 2: is its replica there behind (proa shard list tells), or has the cluster moved it on (cluster.balance_leaders)?\n",
		},
		{line: "shard split-leaders", request: "shard.split_leaders", stdout: "accepted\n"},
	} {
		t.Run(strings.ReplaceAll(tt.line, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := storyline(tt.states...)
				status, out, errs := runCluster(f, strings.Fields(tt.line)...)
				if status != tt.status {
					t.Errorf("status %d, want %d", status, tt.status)
				}
				if diff := cmp.Diff([]string{tt.request}, f.requests); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tt.stdout, out); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tt.stderr, errs); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// down4 is a state in which node 4 has been down for 12 s.
func down4(state func(*command.ClusterStatus)) func(*command.ClusterStatus) {
	return func(s *command.ClusterStatus) {
		state(s)
		s.Nodes[3].State, s.Nodes[3].Stale, s.Nodes[3].LastSeenMillis = command.NodeDown, true, 12_000
	}
}

// moveState is a cluster in which shard 0 moves from node 2 to node 4.
func moveState(change func(*command.ShardInfo)) func(*command.ClusterStatus) {
	return func(s *command.ClusterStatus) {
		s.Nodes = append(s.Nodes, command.NodeInfo{ID: 4, State: command.NodeUp})
		s.Shards[1].Desired, s.Shards[1].Moving = []uint64{1, 3, 4}, true
		change(&s.Shards[1])
	}
}

// Waiting outlasts a while without answers, says when nothing moves, and ends
// with an unknown outcome when nobody answers any more.
func TestFollowPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := &fakeAdministrator{}
		f.answer = func(verb string, _ []byte) (any, error) {
			past := time.Since(begin)
			switch {
			case verb != command.AdminStatus:
				return command.Done{Message: "accepted"}, nil
			case past > 20*time.Second && past < 70*time.Second, past > 200*time.Second:
				return nil, errors.New("gone")
			}
			s := cluster()
			s.Nodes[2].Removing = true
			return s, nil
		}
		status, _, errs := runCluster(f, "member", "remove", "3")
		if status != exitUnknown || !strings.Contains(errs, "gone") || !strings.Contains(errs, "unchanged for 1m; proa status") {
			t.Errorf("status %d, %s", status, errs)
		}
		if past := time.Since(begin); past < 255*time.Second || past > 265*time.Second {
			t.Errorf("gave up after %v", past)
		}
	})
}

func TestFollowInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		var out, errs bytes.Buffer
		f := storyline(func(s *command.ClusterStatus) { s.Nodes[2].Removing = true })
		a := &app{link: &connection{administrator: f}, Output: render.Output{Out: &out, Err: &errs}}
		if status := a.run(ctx, []string{"member", "remove", "3"}); status != exitUnknown || !strings.Contains(errs.String(), "goes on in the background") {
			t.Errorf("status %d, %s", status, &errs)
		}
	})
}

func TestChecksum(t *testing.T) {
	sums := map[int]command.ShardChecksum{
		-1: {Shard: -1, Index: 5, Equal: true, Replicas: []command.ReplicaChecksum{{Node: 1, Checksum: 0xab}, {Node: 2, Checksum: 0xab}}},
		0:  {Shard: 0, Index: 7, Replicas: []command.ReplicaChecksum{{Node: 1, Checksum: 1}, {Node: 2, Checksum: 2}, {Node: 3, Error: "down"}}},
		1:  {Shard: 1, Index: 9, Replicas: []command.ReplicaChecksum{{Node: 1, Checksum: 1}, {Node: 3, Error: "down"}}},
	}
	f := &fakeAdministrator{answer: func(verb string, args []byte) (any, error) {
		if verb == command.AdminStatus {
			return cluster(), nil
		}
		var m command.ShardArgs
		if err := json.Unmarshal(args, &m); err != nil {
			return nil, err
		}
		if sum, ok := sums[m.Shard]; ok {
			return sum, nil
		}
		return nil, errors.New("no leader")
	}}
	for line, want := range map[string]int{"meta": exitDone, "0": exitFailed, "1": exitServer, "2": exitServer, "--all": exitFailed, "": exitFailed} {
		if status, out, _ := runCluster(f, strings.Fields("shard checksum "+line)...); status != want {
			t.Errorf("checksum %s: status %d, want %d:\n%s", line, status, want, out)
		}
	}
	_, out, errs := runCluster(f, "shard", "checksum", "--all")
	want := `SHARD  ENTRY  RESULT     REPLICAS
meta   5      equal      1: 00000000000000ab  2: 00000000000000ab
0      7      DIFFERENT  1: 0000000000000001  2: 0000000000000002  3: down
1      9      unproven   1: 0000000000000001  3: down
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if errs != "proa: shard 2: no leader\n" {
		t.Errorf("%q", errs)
	}
}

// A verdict is this program's own: it believes no server that calls different
// checksums equal.
func TestJudge(t *testing.T) {
	a, b := command.ReplicaChecksum{Node: 1, Checksum: 1}, command.ReplicaChecksum{Node: 2, Checksum: 2}
	for _, tt := range []struct {
		sum  command.ShardChecksum
		want int
	}{
		{command.ShardChecksum{Equal: true, Replicas: []command.ReplicaChecksum{a, b}}, exitFailed},
		{command.ShardChecksum{Equal: false, Replicas: []command.ReplicaChecksum{a, a}}, exitFailed},
		{command.ShardChecksum{Equal: true, Replicas: []command.ReplicaChecksum{a, a}}, exitDone},
		{command.ShardChecksum{Equal: true}, exitServer},
	} {
		if _, got := judge(&tt.sum); got != tt.want {
			t.Errorf("judge(%+v) = %d, want %d", tt.sum, got, tt.want)
		}
	}
}

// TestWatch: it waits for a cluster that does not answer yet, shows later
// failures of every kind, and ends at once where waiting cannot help.
func TestWatch(t *testing.T) {
	absent := &client.UnavailableError{Endpoints: []client.EndpointError{{Endpoint: "n1:7400", Err: errors.New("connection refused")}}}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 4500*time.Millisecond)
		defer cancel()
		asked := 0
		f := &fakeAdministrator{answer: func(string, []byte) (any, error) {
			switch asked++; asked {
			case 1:
				return nil, absent
			case 3:
				return nil, errors.New("away")
			}
			return cluster(), nil
		}}
		var out, errs bytes.Buffer
		a := &app{link: &connection{administrator: f}, Output: render.Output{Out: &out, Err: &errs}}
		if status := a.run(ctx, []string{"status", "--watch", "1s"}); status != 0 || errs.Len() > 0 {
			t.Errorf("status %d, %s", status, &errs)
		}
		text := out.String()
		if n := strings.Count(text, "healthy"); n != 3 || !strings.Contains(text, "\nproa: away\n") || !strings.Contains(text, "n1:7400: connection refused\n") || !strings.Contains(text, "Trying again every 1s.\n") {
			t.Errorf("%d pictures:\n%s", n, text)
		}
	})
	status, _, errs := runCluster(&fakeAdministrator{answer: func(string, []byte) (any, error) { return nil, client.ErrUnsupported }}, "status", "--watch")
	if status != exitServer || !strings.Contains(errs, "proa status --node") {
		t.Errorf("a server that knows no clusters: status %d, %s", status, errs)
	}
}

// TestWatchOfSilence: a picture does not stand while nobody answers.
func TestWatchOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 3500*time.Millisecond)
		defer cancel()
		var out, errs bytes.Buffer
		a := &app{link: &connection{administrator: &silentAdministrator{}}, Output: render.Output{Out: &out, Err: &errs}}
		if status := a.run(ctx, []string{"status", "--watch", "1s"}); status != 0 || errs.Len() > 0 {
			t.Errorf("status %d, %s", status, &errs)
		}
		if _, after, ok := strings.Cut(out.String(), "healthy"); !ok || !strings.Contains(after, "proa: no answer for 2s\nTrying again every 1s.\n") {
			t.Errorf("shown:\n%s", &out)
		}
	})
}

// silentAdministrator answers once.
type silentAdministrator struct{ asked bool }

func (f *silentAdministrator) Admin(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	if f.asked {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.asked = true
	return json.Marshal(cluster())
}

// TestWatchJSON: what is written stays JSON while no server answers.
func TestWatchJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
		defer cancel()
		asked := 0
		f := &fakeAdministrator{answer: func(string, []byte) (any, error) {
			if asked++; asked == 1 {
				return nil, &client.UnavailableError{}
			}
			return json.RawMessage(`{"cluster":"x"}`), nil
		}}
		var out, errs bytes.Buffer
		a := &app{link: &connection{administrator: f}, Output: render.Output{Out: &out, Err: &errs}}
		if status := a.run(ctx, []string{"status", "--watch", "1s", "-o", "jsonl"}); status != 0 || out.String() != `{"cluster":"x"}`+"\n" || !strings.Contains(errs.String(), "no server") {
			t.Errorf("status %d, %q, %q", status, &out, &errs)
		}
	})
}

func TestWriteFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands still
		var b bytes.Buffer
		a := &app{Output: render.Output{Out: &b, Form: render.AsTable}}
		for i := range 2 {
			if err := writeFrame(a, []byte("a\nb23456789012345678901234567890123456789012345678\n"), i, time.Second, render.Look{Columns: 40}); err != nil {
				t.Fatal(err)
			}
		}
		head := time.Now().Format(time.TimeOnly) + ", every 1s; Control-C ends\x1b[K\r\n"
		frame := "\x1b[H" + head + "a\x1b[K\r\nb234567890123456789012345678901234567890\x1b[K\x1b[J"
		if diff := cmp.Diff("\x1b[2J"+frame+frame, b.String()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRecover(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "proa.json"), []byte(`{"format":2,"cluster_id":"59024815863912167","node_id":2,"shards":8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const cluster = "00d1b2c1de8056e7" // 59024815863912167
	var called [][]int
	real := recoverUnsafe
	defer func() { recoverUnsafe = real }()
	lost := []uint64{1, 3, 4}
	recoverUnsafe = func(o datadir.RecoverOptions) (datadir.Recovery, error) {
		if o.Dir != dir || o.CutLog {
			t.Errorf("%+v", o)
		}
		called = append(called, o.Shards)
		return datadir.Recovery{Shards: []datadir.RecoveredShard{{Shard: 1, Index: 77, Voters: []uint64{1, 2}}}, Lost: lost}, nil
	}
	recover := func(args ...string) (int, string, string) {
		return runCluster(&fakeAdministrator{}, append([]string{"shard", "recover", "--unsafe", "--data", dir}, args...)...)
	}
	if status, _, errs := recover(); status != exitUsage || !strings.Contains(errs, "standard input is not a terminal") {
		t.Errorf("status %d, %s", status, errs)
	}
	if status, _, errs := recover("--yes-i-lose-acknowledged-writes", "1"); status != exitUsage || !strings.Contains(errs, "nothing was changed") || !strings.Contains(errs, cluster) {
		t.Errorf("status %d, %s", status, errs)
	}
	if called != nil {
		t.Fatal("recovered without consent")
	}
	status, out, errs := recover("--yes-i-lose-acknowledged-writes", strings.ToUpper(cluster))
	if status != 0 || !strings.Contains(out, "77") || !strings.Contains(out, "without nodes 1, 3 and 4") {
		t.Errorf("status %d, %s%s", status, out, errs)
	}
	lost = nil
	if _, out, _ = recover("--yes-i-lose-acknowledged-writes", cluster, "--shards", "1, meta", "-o", "json"); out != `{"shards":[{"shard":1,"index":77,"voters_before":[1,2]}]}`+"\n" {
		t.Errorf("%s", out)
	}
	if diff := cmp.Diff([][]int{nil, {1, command.MetaShard}}, called); diff != "" {
		t.Error(diff)
	}
	var cut bool
	recoverUnsafe = func(o datadir.RecoverOptions) (datadir.Recovery, error) {
		cut = o.CutLog
		return datadir.Recovery{}, nil
	}
	if status, _, errs := recover("--yes-i-lose-acknowledged-writes", cluster, "--cut-log"); status != 0 || !cut {
		t.Errorf("--cut-log: status %d, %v, %s", status, cut, errs)
	}
	recoverUnsafe = func(datadir.RecoverOptions) (datadir.Recovery, error) {
		return datadir.Recovery{}, errors.New("in use")
	}
	if status, _, errs := recover("--yes-i-lose-acknowledged-writes", cluster); status != exitServer || !strings.Contains(errs, "in use") {
		t.Errorf("status %d, %s", status, errs)
	}
}

// The prompt tells of the log only where that is to be cut.
func TestRecoverText(t *testing.T) {
	o := datadir.RecoverOptions{Dir: "data"}
	if text := recoverText(&o); strings.Contains(text, "log") || !strings.Contains(text, "only voters of all their shards") {
		t.Error(text)
	}
	o.CutLog, o.Shards = true, []int{1}
	if text := recoverText(&o); !strings.Contains(text, "behind the first damage in data") || !strings.Contains(text, "only voters of shard 1") {
		t.Error(text)
	}
}
