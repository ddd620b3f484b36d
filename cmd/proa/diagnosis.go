package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/render"
)

// diagnosis is the health of a cluster in words.
type diagnosis struct {
	state             string // of command.Health
	status            int    // exit status of the process that shows it
	verdict           string
	troubles, changes []string
	risk              string // what the loss of one more node means; "": that is in the verdict
	next              []string
	notes             []string // of what is no trouble of the cluster
}

// lines returns the diagnosis: a sentence, and further ones where needed.
func (d *diagnosis) lines() []string {
	lines := append([]string{d.verdict}, d.troubles...)
	if d.risk != "" {
		lines = append(lines, d.risk)
	}
	lines = append(lines, d.changes...)
	for _, step := range d.next {
		lines = append(lines, "next: "+step)
	}
	lines = append(lines, d.notes...)
	for i, line := range lines {
		lines[i] = render.OneLine(line) // it may contain what a server says
	}
	return lines
}

// text is lines on a terminal: the verdict in its colour, the others below it.
func (d *diagnosis) text(l render.Look) string {
	var b strings.Builder
	for i, line := range d.lines() {
		if i == 0 {
			b.WriteString(l.Paint(d.colour(), l.Wrap(line, "  ")) + "\n")
		} else {
			b.WriteString("  " + l.Wrap(line, "    ") + "\n")
		}
	}
	return b.String()
}

// colour is that of the verdict.
func (d *diagnosis) colour() string {
	switch d.state {
	case command.Healthy:
		return render.Green
	case command.Unavailable:
		return render.Red
	}
	return render.Yellow
}

// diagnose describes the health of the cluster.
func diagnose(s *command.ClusterStatus) *diagnosis {
	h := s.Health
	if h == nil { // from a server that leaves it to the reader
		assessed := s.Assess()
		h = &assessed
	}
	d := &diagnosis{state: h.State}
	all := len(s.Shards)
	d.troubles, d.changes = nodeConditions(s)
	if s.LeftOutBy != 0 {
		d.troubles = append([]string{fmt.Sprintf("node %d, which was asked, was left out when the cluster was recovered on node %d, and its data has diverged; what follows is the old cluster", s.Asked, s.LeftOutBy)}, d.troubles...)
	}
	for _, kind := range []struct {
		shards []int
		say    string
		list   *[]string
	}{
		{h.DamagedOnly, "%s have no replica but a damaged one, which refuses what it cannot read (proa status --node names the files)", &d.troubles},
		{h.Damaged, "%s have a damaged replica, which is being replaced by a copy of another one", &d.troubles},
		{h.Incomplete, "%s lack a replica without a vote", &d.troubles},
		{h.NotFollowing, "%s have a replica that does not follow the leader yet", &d.troubles},
		{h.Behind, "%s have a replica that is still catching up; until it has, the shard waits for it if another one is lost", &d.troubles},
		{h.Moving, "replicas of %s are being moved", &d.changes},
	} {
		if len(kind.shards) > 0 {
			*kind.list = append(*kind.list, ofShards(kind.say, kind.shards, all))
		}
	}
	d.troubles = append(d.troubles, shortages(s, h)...)
	d.status, d.verdict = judgeCluster(s, h)
	if h.State != command.HealthUnknown {
		d.risk = nextFailure(s, h)
	}
	d.next, d.notes = nextSteps(s, h), notes(s)
	return d
}

// judgeCluster returns the exit status, and the sentence at the top.
func judgeCluster(s *command.ClusterStatus, h *command.Health) (status int, verdict string) {
	const until = "refuse writes and linearizable reads until a majority of their replicas is back"
	all := len(s.Shards)
	switch n := len(h.Leaderless); {
	case all == 0 || len(s.Nodes) == 0:
		return exitFailed, "unknown: the node asked has not heard of the cluster's state yet"
	case n == all:
		return exitServer, fmt.Sprintf("UNAVAILABLE: none of the %d shards has a leader; they %s", n, until)
	case n > 0:
		return exitServer, fmt.Sprintf("UNAVAILABLE in part: no leader for %d of %d shards (%s); they %s", n, all, shardNames(h.Leaderless), until)
	case len(h.Unserved) > 0:
		return exitServer, fmt.Sprintf("UNAVAILABLE in part: no undamaged replica for %d of %d shards (%s): reads of the damaged blocks fail; restore a backup", len(h.Unserved), all, shardNames(h.Unserved))
	case h.State == command.HealthUnknown:
		return exitFailed, fmt.Sprintf("unknown: whether %d of %d shards have a leader cannot be told now (%s)", len(h.Unknown), all, shardNames(h.Unknown))
	case h.State != command.Healthy:
		return exitFailed, fmt.Sprintf("degraded: all %d shards have a leader, but", all)
	case len(s.Nodes) == 1:
		return exitDone, fmt.Sprintf("healthy, on one node: all %d shards have a leader, and no other node has a copy", all)
	case h.FailuresTolerated == 1:
		return exitDone, fmt.Sprintf("healthy: all %d shards have a leader and all replicas; any one node may fail", all)
	case h.FailuresTolerated > 1:
		return exitDone, fmt.Sprintf("healthy: all %d shards have a leader and all replicas; any %d nodes may fail", all, h.FailuresTolerated)
	}
	return exitDone, fmt.Sprintf("healthy: all %d shards have a leader and all replicas", all)
}

// shortages lists the shards that have fewer healthy voters than they must have,
// those without a leader aside.
func shortages(s *command.ClusterStatus, h *command.Health) (lines []string) {
	type shortage struct{ healthy, wanted int }
	var kinds []shortage
	shards := make(map[shortage][]int)
	for _, shard := range h.UnderReplicated {
		if slices.Contains(h.Leaderless, shard) || slices.Contains(h.Unserved, shard) {
			continue
		}
		r := s.Replication(findShard(s, shard))
		k := shortage{r.Healthy, r.Wanted}
		if shards[k] == nil {
			kinds = append(kinds, k)
		}
		shards[k] = append(shards[k], shard)
	}
	for _, k := range kinds {
		lines = append(lines, ofShards(fmt.Sprintf("%%s have %d of %d voting replicas", k.healthy, k.wanted), shards[k], len(s.Shards)))
	}
	return lines
}

// nextFailure describes what the loss of one more node means, "" where the cluster is
// healthy and bears it, or has no other node.
func nextFailure(s *command.ClusterStatus, h *command.Health) string {
	n := h.NextFailure.Shards
	switch {
	case s.Standalone, n == 0 && h.State != command.Degraded:
		return ""
	case n == 0:
		return "one more node lost: no shard loses its quorum"
	case len(h.NextFailure.Nodes) == 1 && h.State != command.Healthy:
		return fmt.Sprintf("node %d lost: no quorum for %s (no spare replica)", h.NextFailure.Nodes[0], countShards(n, len(s.Shards)))
	case h.State == command.Healthy:
		return fmt.Sprintf("one node lost: no quorum for %s (no spare replica)", countShards(n, len(s.Shards)))
	}
	return fmt.Sprintf("one more node lost: no quorum for %s (no spare replica)", countShards(n, len(s.Shards)))
}

// nodeConditions lists what is wrong with the nodes, and what is being changed.
func nodeConditions(s *command.ClusterStatus) (troubles, changes []string) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		line := fmt.Sprintf("node %d %s", n.ID, nodeIs(n))
		switch {
		case n.State == command.NodeExpected:
			changes = append(changes, fmt.Sprintf("node %d is expected and has not joined yet", n.ID))
		case n.State != command.NodeUp || n.Slow || n.ClockOff || n.Stale || n.DamagedFiles > 0:
			troubles = append(troubles, line)
		case n.Draining || n.Removing:
			changes = append(changes, line)
		}
	}
	return troubles, changes
}

// notes lists what an operator should know of a healthy cluster, too.
func notes(s *command.ClusterStatus) (lines []string) {
	var exposed []uint64
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Exposed && !n.Outdated() {
			exposed = append(exposed, n.ID)
		}
	}
	if len(exposed) > 0 {
		subject := render.Plural(len(exposed), "node") + " (" + numbers(exposed) + ")"
		if len(exposed) == 1 {
			subject = "node " + numbers(exposed)
		}
		lines = append(lines, fmt.Sprintf("warning: no access control, and clients can connect to %s from the network", subject))
	}
	return lines
}

// nextSteps lists what to do about nodes that are not up, and about too few nodes.
// Without a majority the only step is to bring nodes back: the cluster cannot
// change its members.
func nextSteps(s *command.ClusterStatus, h *command.Health) (steps []string) {
	if s.LeftOutBy != 0 {
		return []string{fmt.Sprintf("stop node %d, erase its data directory, and start it again, without --node-id, to join as a new node; do not start other nodes of the old cluster", s.Asked)}
	}
	if absent, need := lostMajority(s, h); need > 0 {
		return []string{majorityStep(absent, need)}
	}
	members := 0
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.State != command.NodeExpected && !n.Removing {
			members++
		}
		if n.State == command.NodeSuspect || n.State == command.NodeDown {
			if step := replaceStep(n); step != "" {
				steps = append(steps, step)
			}
		}
	}
	if lacking := s.ReplicationFactor - members; lacking > 0 && !s.Standalone && len(h.UnderReplicated) > 0 {
		steps = append(steps, fmt.Sprintf("start %s, so that each shard can have %d replicas: %s", render.Plural(lacking, "more node"), s.ReplicationFactor, joinCommand(s)))
	}
	return steps
}

// lostMajority returns the nodes that are not up and have voting replicas of shards
// whose majority is not up, and how many of them are needed, at least, until each
// of these shards can elect a leader; 0 where no shard has lost its majority.
func lostMajority(s *command.ClusterStatus, h *command.Health) (absent []uint64, need int) {
	for _, shard := range h.Leaderless {
		sh := findShard(s, shard)
		voters, down := sh.Voters, []uint64(nil)
		if len(voters) == 0 { // from a server of an earlier version
			voters = sh.Desired
		}
		for _, id := range voters {
			if n := s.Node(id); n == nil || n.State != command.NodeUp {
				down = append(down, id)
			}
		}
		lacking := len(voters)/2 + 1 - (len(voters) - len(down))
		if lacking <= 0 {
			continue
		}
		need = max(need, lacking)
		absent = append(absent, down...)
	}
	slices.Sort(absent)
	return slices.Compact(absent), need
}

// majorityStep describes how shards that have lost their majority become available again.
func majorityStep(absent []uint64, need int) string {
	nodes := "node " + numbers(absent)
	switch {
	case need < len(absent):
		nodes = fmt.Sprintf("at least %d of the nodes %s", need, numbers(absent))
	case len(absent) > 1:
		nodes = "nodes " + numbers(absent)
	}
	return "start " + nodes + " again: until a majority is up, no node can join or be removed. If they are lost for good, see \"When a majority is lost\" in docs/operations.md"
}

// replaceStep describes what to do about a node that is not up, and what happens
// otherwise.
func replaceStep(n *command.NodeInfo) string {
	r := n.Replace
	switch {
	case n.Removing:
		return ""
	case r == nil: // a server of an earlier version
		return fmt.Sprintf("start node %d again", n.ID)
	case r.Shards == 0:
		return fmt.Sprintf("start node %d again; it holds no replica of users' data, so if it is lost for good: proa member remove %d", n.ID, n.ID)
	case r.InMillis == 0:
		return fmt.Sprintf("none needed for node %d: its replicas are being rebuilt on other nodes", n.ID)
	case r.InMillis > 0 && r.Rebuildable == r.Shards:
		return fmt.Sprintf("start node %d again, or its replicas are rebuilt on other nodes in %s", n.ID, render.Age(time.Duration(r.InMillis)*time.Millisecond))
	case r.InMillis > 0:
		return fmt.Sprintf("start node %d again, or the replicas of %d of its %d shards are rebuilt on other nodes in %s; for the others there is no leader or no free node", n.ID, r.Rebuildable, r.Shards, render.Age(time.Duration(r.InMillis)*time.Millisecond))
	case r.Rebuildable > 0:
		return fmt.Sprintf("start node %d again; its replicas are not rebuilt by themselves (cluster.replace_after). If it is lost for good: proa member remove %d", n.ID, n.ID)
	}
	return fmt.Sprintf("start node %d again; no other node can take its replicas. If it is lost for good, start a new node, then: proa member remove %d", n.ID, n.ID)
}

// program is what this program was called as; main sets it.
var program = "proa"

// joinCommand is how a further node is started: in a directory of its own and,
// where the cluster is on this machine, at addresses of its own.
func joinCommand(s *command.ClusterStatus) string {
	at, endpoint, listen := "HOST:7401", "", ""
	if n := s.Node(s.Asked); n != nil {
		if n.Peer != "" {
			at = n.Peer
		}
		if n.Client != "" && n.Client != defaultEndpoint {
			endpoint = " -e " + n.Client
		}
	}
	if config.Loopback(at) {
		listen = " --listen 127.0.0.1:PORT --peer-listen 127.0.0.1:PORT"
	}
	return fmt.Sprintf("PROA_JOIN_TOKEN=$(%s%s member token) %s serve --data NEW_DIRECTORY%s --join %s", program, endpoint, program, listen, at)
}

// ofShards fills the number of some shards into a sentence, and adds their names unless
// they are all.
func ofShards(say string, shards []int, all int) string {
	text := fmt.Sprintf(say, countShards(len(shards), all))
	if len(shards) == 1 {
		text = strings.NewReplacer("shards have", "shards has", "shards lack", "shards lacks").Replace(text)
	}
	if len(shards) < all {
		text += ": " + shardNames(shards)
	}
	return text
}

// countShards counts some of all shards.
func countShards(n, all int) string {
	if n == all {
		return fmt.Sprintf("all %d shards", all)
	}
	return fmt.Sprintf("%d of %d shards", n, all)
}

// shardNames joins the names of some of many shards.
func shardNames(shards []int) string { return some(allShardNames(shards)) }

func allShardNames(shards []int) []string {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = shardName(shard)
	}
	return names
}

// thereAre says how many things there are.
func thereAre(n int, thing string) string {
	if n == 1 {
		return "is 1 " + thing
	}
	return "are " + render.Plural(n, thing)
}

// some lists the first of many names.
func some(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
