package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

// showNodes shows the table of nodes: what fits 80 columns or, where the look is
// wide, all that is known.
func showNodes(o *render.Output, s *command.ClusterStatus, l render.Look) error {
	header := []string{"NODE", "STATE", "LEADS", "FSYNC", "FREE", "UP FOR", "CLIENTS AT"}
	if l.Wide {
		header = []string{"NODE", "STATE", "LEADERS", "REPLICAS", "CLIENT", "PEER", "FSYNC", "LOG", "DISK", "FREE", "UP FOR", "VERSION"}
	}
	t := stateTable(o, l, 1, header...)
	for i := range s.Nodes {
		cells := nodeCells(&s.Nodes[i], l.Wide)
		for i := range cells {
			cells[i] = render.Escape([]byte(cells[i]))
		}
		t.Row(cells...)
	}
	return t.Flush()
}

// stateTable returns a table whose cells in one column are states, in their colours.
func stateTable(o *render.Output, l render.Look, states int, header ...string) *render.Table {
	t := o.Table(header...)
	t.Columns = l.Columns
	t.Paint = func(column int, cell string) string {
		if column == states {
			return l.Paint(stateColour(cell), cell)
		}
		return cell
	}
	return t
}

// nodeCells returns a node's row. What it does not say of its present state is a
// dash.
func nodeCells(n *command.NodeInfo, wide bool) []string {
	leaders, replicas := strconv.Itoa(n.Leaders), strconv.Itoa(n.Replicas)
	leads := leaders + "/" + replicas
	fsync, disk, free := render.Micros(&n.FsyncMicros), render.Bytes(n.DiskUsedBytes), render.Bytes(n.DiskFreeBytes)
	log, uptime := render.Bytes(n.LogBytes), render.Age(time.Duration(n.UptimeSeconds)*time.Second)
	const none = "-"
	if n.Outdated() {
		leaders, replicas, leads, fsync, disk, free, log, uptime = none, none, none, none, none, none, none, none
	}
	id := strconv.FormatUint(n.ID, 10)
	if !wide {
		return []string{id, shortState(n), leads, fsync, free, uptime, cmp.Or(n.Client, none)}
	}
	return []string{id, nodeState(n), leaders, replicas, cmp.Or(n.Client, none), cmp.Or(n.Peer, none), fsync, log, disk, free, uptime, cmp.Or(n.Version, none)}
}

// stateColour returns the colour of the state of a node or a shard.
func stateColour(state string) string {
	switch {
	case state == "":
		return ""
	case state == command.NodeUp, state == stateOK:
		return render.Green
	case strings.HasPrefix(state, command.NodeDown), state == stateNoLeader:
		return render.Red
	}
	return render.Yellow
}

// nodeState describes a node's state in full.
func nodeState(n *command.NodeInfo) string {
	s := n.State
	switch {
	case n.State == command.NodeSuspect || n.State == command.NodeDown:
		s += " for " + render.Age(time.Duration(n.LastSeenMillis)*time.Millisecond)
	case n.State == command.NodeUp && n.Stale && n.AgeMillis < 0:
		s += ", no report yet"
	case n.State == command.NodeUp && n.Stale:
		s += ", last report " + render.Age(time.Duration(n.AgeMillis)*time.Millisecond) + " ago"
	}
	for _, f := range []struct {
		set  bool
		text string
	}{{n.Removing, "removing"}, {n.Draining && !n.Removing, "draining"}, {n.Slow, "slow disk"}, {n.ClockOff, clockText(n.ClockOffset)}, {n.DamagedFiles > 0, render.Plural(n.DamagedFiles, "damaged file")}} {
		if f.set {
			s += ", " + f.text
		}
	}
	return s
}

// nodeIs is nodeState as the end of a sentence that begins with the node.
func nodeIs(n *command.NodeInfo) string {
	if n.State == command.NodeSuspect || n.State == command.NodeDown {
		return "has been " + nodeState(n)
	}
	return "is " + nodeState(n)
}

// shortState describes a node's state in at most 16 characters. The rest is in the
// sentences above the table.
func shortState(n *command.NodeInfo) string {
	if n.State != command.NodeUp {
		m := *n
		m.Removing, m.Draining, m.Slow, m.ClockOff, m.DamagedFiles = false, false, false, false, 0
		return nodeState(&m)
	}
	for _, f := range []struct {
		set  bool
		text string
	}{
		{n.Stale, "no report"}, {n.DamagedFiles > 0, "damaged"}, {n.ClockOff, "clock off"}, {n.Slow, "slow disk"}, {n.Removing, "removing"}, {n.Draining, "draining"},
	} {
		if f.set {
			return n.State + ", " + f.text
		}
	}
	return n.State
}

// clockText describes how wrong a node's wall clock is.
func clockText(aheadMillis int64) string {
	d := time.Duration(aheadMillis) * time.Millisecond
	if d < 0 {
		return fmt.Sprintf("clock %v behind", -d)
	}
	return fmt.Sprintf("clock %v ahead", d)
}

// shardsShownMax is how many shards are shown that have nothing wrong with them.
const shardsShownMax = 16

// showShards shows the table of shards and explains its signs. Of many shards
// it shows those that are not all right, unless the look is wide.
func showShards(o *render.Output, s *command.ClusterStatus, l render.Look) error {
	t := stateTable(o, l, 5, "SHARD", "LEADER", "TERM", "APPLIED", "LAG", "STATE", "REPLICAS")
	few := l.Wide || len(s.Shards) <= shardsShownMax
	signs, left := "", 0
	for i := range s.Shards {
		sh := &s.Shards[i]
		state := shardState(s, sh)
		if !few && state == stateOK && sh.Shard != command.MetaShard {
			left++
			continue
		}
		leader := "none"
		switch sh.Leadership() {
		case command.ShardLed:
			leader = strconv.FormatUint(sh.Leader, 10)
		case command.ShardUnknown:
			leader = "unknown"
		}
		applied, lag := furthest(sh)
		replicas := replicaList(s, sh)
		signs += replicas
		t.Row(shardName(sh.Shard), leader, strconv.FormatUint(sh.Term, 10), strconv.FormatUint(applied, 10), strconv.FormatUint(lag, 10), state, replicas)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if left > 0 {
		if err := o.Printf("%d further shards are ok; proa shard list shows them\n", left); err != nil {
			return err
		}
	}
	if legend := legendOf(signs); legend != "" {
		return o.Printf("\n%s\n", l.Paint(render.Dim, l.Wrap("replicas: "+legend, "  ")))
	}
	return nil
}

// legendOf explains the signs that occur in lists of replicas.
func legendOf(lists string) string {
	var words []string
	for _, sign := range []struct{ mark, means string }{
		{"*", "* leader"}, {"?", "? not up, or no recent report"}, {"!", "! damaged"}, {"learner", "(learner) does not vote"}, {"-", "-n lacks n log entries"},
	} {
		if strings.Contains(lists, sign.mark) {
			words = append(words, sign.means)
		}
	}
	return strings.Join(words, ", ")
}

// furthest returns how far the furthest replica of a shard has come, and by how
// many entries the last one lags of those whose node reports.
func furthest(sh *command.ShardInfo) (applied, lag uint64) {
	for _, r := range sh.Replicas {
		applied = max(applied, r.Applied)
		if !r.Stale && r.Node != sh.Leader { // which has what there is: it counts what it has yet to apply
			lag = max(lag, r.Lag)
		}
	}
	return applied, lag
}

// Words for the state of a shard.
const (
	stateOK       = "ok"
	stateNoLeader = "no leader"
)

func shardState(s *command.ClusterStatus, sh *command.ShardInfo) string {
	absent, apart, behind, damaged, r := s.Missing(sh), sh.NotFollowing(), sh.BehindOn(), sh.DamagedOn(), s.Replication(sh)
	switch {
	case sh.Leadership() == command.ShardLeaderless && len(damaged) == 0:
		return stateNoLeader
	case sh.Leadership() == command.ShardUnknown:
		return "unknown"
	case len(damaged) > 0:
		return "damaged on " + numbers(damaged)
	case sh.Moving:
		return "moving to " + numbers(sh.Desired)
	case len(absent) > 0:
		return "without " + numbers(absent)
	case len(apart) > 0:
		return "not followed by " + numbers(apart)
	case len(behind) > 0:
		return "catching up on " + numbers(behind)
	case r.Short():
		return fmt.Sprintf("%d of %d voters", r.Healthy, r.Wanted)
	}
	return stateOK
}

// numbers joins numbers of nodes.
func numbers(ids []uint64) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ids), "[]"), " ", ",")
}

// replicaList shows the replicas of a shard, as the help of proa status explains it. What a replica
// lacks whose node does not report is not known.
func replicaList(s *command.ClusterStatus, sh *command.ShardInfo) string {
	var words []string
	for _, r := range sh.Replicas {
		n := s.Node(r.Node)
		silent := r.Stale || n == nil || n.State != command.NodeUp
		w := strconv.FormatUint(r.Node, 10)
		if r.Node == sh.Leader {
			w += "*"
		}
		if silent {
			w += "?"
		}
		if r.Damaged {
			w += "!"
		}
		if r.Role == "learner" {
			w += "(learner)"
		}
		if r.Lag > 0 && !silent && r.Node != sh.Leader {
			w += fmt.Sprintf("-%d", r.Lag)
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}
