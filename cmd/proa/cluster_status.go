package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
)

const defaultWatch = 2 * time.Second

func (a *app) statusCommand() *cobra.Command {
	var node bool
	watch := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "status [--watch [INTERVAL]] [--node]",
		Short: "Show the state of the cluster, its nodes and shards",
		Long: `Show the state of the whole cluster as one of its nodes sees it: a sentence that
says how it fares, its nodes, and its shards with leader, term and lag. What is
shown as the present state is at most a second old: of a node that has said
nothing for longer its age is shown, and dashes for its figures.

In the list of replicas * marks the leader, ? a node that is not up or has not reported
lately, ! a replica whose files are damaged; what a replica lacks of the newest
entries stands behind it. The shard named meta holds
the cluster's own data: nodes, places of replicas, slot map.

With -o json the whole answer is one object on one line. --watch repeats it until
Control-C. --node shows what one server says about itself alone.

The exit status is 0 if the cluster is healthy; 1 if it is degraded, or if that is
not known; 3 if some shards are unavailable, or no server answers. With --watch
and --node it tells only whether a server answered.`,
		Example: "  proa status\n  proa status --watch\n  proa status --watch 500ms\n  proa status -o json | jq '.nodes[] | {id, state}'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			watching := cmd.Flags().Changed("watch")
			if len(args) == 1 {
				d, err := time.ParseDuration(args[0])
				if err != nil || !watching {
					return usagef("%q: only an interval such as 500ms can stand here, behind --watch", args[0])
				}
				watch = d
			}
			switch {
			case watching && watch < 100*time.Millisecond:
				return usagef("--watch %v: the interval must be at least 100ms", watch)
			case watching && a.shell:
				return usagef("--watch works outside of the shell: proa status --watch")
			}
			show := a.showCluster
			if node {
				show = a.showNode
			}
			if watching {
				return a.watch(cmd.Context(), watch, show)
			}
			status, err := show(cmd.Context(), a.out)
			if err == nil && status != exitDone {
				err = &statusError{status, errSilent}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&node, "node", false, "what one server says about itself alone")
	f.DurationVarP(&watch, "watch", "w", 0, "repeat, each `interval` (2s if none is given)")
	f.Lookup("watch").NoOptDefVal = defaultWatch.String()
	return cmd
}

// showNode shows the status of one server.
func (a *app) showNode(ctx context.Context, w io.Writer) (status int, err error) {
	return exitDone, a.call(ctx, func(ctx context.Context, c *client.Client) error {
		raw, err := c.Status(ctx)
		if err != nil {
			return err
		}
		return a.to(w).showStatus(raw)
	})
}

// to returns a copy of a that writes to w.
func (a *app) to(w io.Writer) *app {
	b := *a
	b.out = w
	return &b
}

// showCluster shows the status of the cluster and returns the exit status that
// stands for how it fares.
func (a *app) showCluster(ctx context.Context, w io.Writer) (status int, err error) {
	raw, err := a.administerRaw(ctx, command.AdminStatus, nil)
	if err != nil {
		return exitServer, unsupportedStatus(err)
	}
	s := new(command.ClusterStatus)
	err = json.Unmarshal(raw, s)
	if a.output != outputTable {
		// As it came: a newer server may say more than this program knows.
		if _, err := w.Write(append(bytes.TrimSpace(raw), '\n')); err != nil {
			return exitServer, err
		}
	}
	if err != nil {
		return exitServer, fmt.Errorf("the server's status cannot be read: %w; -o json shows it as it is", err)
	}
	h := findHealth(s)
	if a.output != outputTable {
		return h.status, nil
	}
	return h.status, a.to(w).renderCluster(s, h)
}

// watch shows something again and again until the context ends. The first
// failure is returned if nothing could be shown before; later ones are shown.
func (a *app) watch(ctx context.Context, interval time.Duration, show func(context.Context, io.Writer) (int, error)) error {
	_, onTerminal := terminal(a.out)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for shown := 0; ; shown++ {
		var b bytes.Buffer
		_, err := show(ctx, &b)
		if ctx.Err() != nil {
			return nil // Control-C is how one leaves
		}
		if err != nil {
			if shown == 0 {
				return err
			}
			fmt.Fprintln(&b, describe(err, a))
		}
		if err := a.writeFrame(b.Bytes(), shown, onTerminal); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// writeFrame shows one of several pictures: in place on a terminal, one behind
// the other elsewhere.
func (a *app) writeFrame(picture []byte, number int, onTerminal bool) error {
	var b bytes.Buffer
	switch {
	case onTerminal:
		// Home, then each line over the old one: no flicker.
		if number == 0 {
			b.WriteString("\x1b[2J")
		}
		b.WriteString("\x1b[H")
		picture = bytes.ReplaceAll(picture, []byte("\n"), []byte("\x1b[K\n"))
	case number > 0 && a.output == outputTable:
		b.WriteByte('\n')
	}
	b.Write(picture)
	if onTerminal {
		b.WriteString("\x1b[J")
	}
	_, err := a.out.Write(b.Bytes())
	return err
}

// renderCluster shows header, nodes and shards.
func (a *app) renderCluster(s *command.ClusterStatus, h *health) error {
	named := ""
	if a.link != nil && a.link.target != nil && a.link.target.context != "" {
		named = ", context " + a.link.target.context
	}
	if err := a.printf("cluster %s, epoch %d, seen by node %d%s\n", s.Cluster, s.Epoch, s.Asked, named); err != nil {
		return err
	}
	for i, line := range h.lines() {
		if i > 0 {
			line = "  " + line
		}
		if err := a.printf("%s\n", line); err != nil {
			return err
		}
	}
	if err := a.printf("\n"); err != nil {
		return err
	}
	if err := a.showNodes(s); err != nil {
		return err
	}
	if err := a.printf("\n"); err != nil {
		return err
	}
	return a.showShards(s)
}

func (a *app) showNodes(s *command.ClusterStatus) error {
	t := a.newTable("NODE", "STATE", "LEADERS", "REPLICAS", "CLIENT", "PEER", "FSYNC", "LOG", "DISK", "FREE", "UP FOR", "VERSION")
	for i := range s.Nodes {
		n := &s.Nodes[i]
		leaders, replicas := strconv.Itoa(n.Leaders), strconv.Itoa(n.Replicas)
		figures := []string{fmt.Sprintf("%.0f µs", n.FsyncMicros), formatBytes(n.LogBytes), formatBytes(n.DiskUsedBytes),
			formatBytes(n.DiskFreeBytes), formatAge(time.Duration(n.UptimeSeconds) * time.Second)}
		if outdated(n) {
			leaders, replicas, figures = "-", "-", []string{"-", "-", "-", "-", "-"}
		}
		cells := append([]string{strconv.FormatUint(n.ID, 10), nodeState(n), leaders, replicas, orDash(n.Client), orDash(n.Peer)}, figures...)
		cells = append(cells, orDash(n.Version))
		for i := range cells {
			cells[i] = escape([]byte(cells[i]))
		}
		if err := t.row(cells...); err != nil {
			return err
		}
	}
	return t.flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// outdated reports whether what a node last said of itself does not count as its
// present state.
func outdated(n *command.NodeInfo) bool {
	return n.Stale || n.State == command.NodeExpected
}

// nodeState says all there is to say about a node's state.
func nodeState(n *command.NodeInfo) string {
	s := n.State
	switch {
	case n.State == command.NodeSuspect || n.State == command.NodeDown:
		s += " for " + formatAge(time.Duration(n.LastSeenMillis)*time.Millisecond)
	case n.State == command.NodeUp && n.Stale && n.AgeMillis < 0:
		s += ", no report yet"
	case n.State == command.NodeUp && n.Stale:
		s += ", last report " + formatAge(time.Duration(n.AgeMillis)*time.Millisecond) + " ago"
	}
	for _, f := range []struct {
		set  bool
		text string
	}{{n.Removing, "removing"}, {n.Draining && !n.Removing, "draining"}, {n.Slow, "slow disk"}, {n.ClockOff, clockText(n.ClockOffset)}, {n.DamagedFiles > 0, plural(n.DamagedFiles, "damaged file")}} {
		if f.set {
			s += ", " + f.text
		}
	}
	return s
}

func (a *app) showShards(s *command.ClusterStatus) error {
	states := nodeStates(s)
	t := a.newTable("SHARD", "LEADER", "TERM", "APPLIED", "LAG", "STATE", "REPLICAS")
	for i := range s.Shards {
		sh := &s.Shards[i]
		leader := "none"
		switch leadership(sh) {
		case command.ShardLed:
			leader = strconv.FormatUint(sh.Leader, 10)
		case command.ShardUnknown:
			leader = "unknown"
		}
		applied, lag := furthest(sh)
		if err := t.row(shardName(sh.Shard), leader, strconv.FormatUint(sh.Term, 10), strconv.FormatUint(applied, 10),
			strconv.FormatUint(lag, 10), shardState(sh, states), replicaList(sh, states)); err != nil {
			return err
		}
	}
	return t.flush()
}

// nodeStates maps nodes to their states.
func nodeStates(s *command.ClusterStatus) map[uint64]string {
	states := make(map[uint64]string, len(s.Nodes))
	for i := range s.Nodes {
		states[s.Nodes[i].ID] = s.Nodes[i].State
	}
	return states
}

// furthest returns how far the furthest replica of a shard has come, and by how
// many entries the last one lags.
func furthest(sh *command.ShardInfo) (applied, lag uint64) {
	for _, r := range sh.Replicas {
		applied, lag = max(applied, r.Applied), max(lag, r.Lag)
	}
	return applied, lag
}

// missing returns the nodes that shall hold a replica of the shard and have
// none, or are not up.
func missing(sh *command.ShardInfo, states map[uint64]string) (out []uint64) {
	for _, id := range sh.Desired {
		has := slices.ContainsFunc(sh.Replicas, func(r command.ReplicaInfo) bool { return r.Node == id })
		if !has || states[id] != command.NodeUp {
			out = append(out, id)
		}
	}
	return out
}

// leadership returns whether a shard has a leader, which servers of old do not
// say in one word.
func leadership(sh *command.ShardInfo) string {
	switch {
	case sh.State != "":
		return sh.State
	case sh.Leader == 0:
		return command.ShardLeaderless
	}
	return command.ShardLed
}

// notFollowing returns the nodes whose replica of a shard follows another leader than
// the shard's, or none, as it says itself: clients that ask there are refused.
// Servers of old do not tell.
func notFollowing(sh *command.ShardInfo) (out []uint64) {
	for _, r := range sh.Replicas {
		if sh.State != "" && !r.Stale && r.Follows != sh.Leader && slices.Contains(sh.Desired, r.Node) {
			out = append(out, r.Node)
		}
	}
	return out
}

// damagedOn returns the nodes whose replica of a shard is damaged.
func damagedOn(sh *command.ShardInfo) (out []uint64) {
	for _, r := range sh.Replicas {
		if r.Damaged {
			out = append(out, r.Node)
		}
	}
	return out
}

func shardState(sh *command.ShardInfo, states map[uint64]string) string {
	absent, apart := missing(sh, states), notFollowing(sh)
	switch {
	case leadership(sh) == command.ShardLeaderless && len(damagedOn(sh)) == 0:
		return "no leader"
	case leadership(sh) == command.ShardUnknown:
		return "unknown"
	case len(damagedOn(sh)) > 0:
		return "damaged on " + numbers(damagedOn(sh))
	case sh.Moving:
		return "moving to " + numbers(sh.Desired)
	case len(absent) > 0:
		return "without " + numbers(absent)
	case len(apart) > 0:
		return "not followed by " + numbers(apart)
	}
	return "ok"
}

// numbers joins numbers of nodes.
func numbers(ids []uint64) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(id, 10))
	}
	return b.String()
}

// replicaList shows the replicas of a shard: * marks the leader, ? a node that
// is not up, ! a damaged one, -n the entries a replica lacks.
func replicaList(sh *command.ShardInfo, states map[uint64]string) string {
	var words []string
	for _, r := range sh.Replicas {
		w := strconv.FormatUint(r.Node, 10)
		if r.Node == sh.Leader {
			w += "*"
		}
		if r.Stale || states[r.Node] != command.NodeUp {
			w += "?"
		}
		if r.Damaged {
			w += "!"
		}
		if r.Role == "learner" {
			w += "(learner)"
		}
		if r.Lag > 0 {
			w += fmt.Sprintf("-%d", r.Lag)
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// health is how the cluster fares.
type health struct {
	status            int // of the process that says so
	verdict           string
	troubles, changes []string
	shards            int
	leaderless        []string // names of shards
	unknown           []string // whether they have a leader
	lost              []string // have no replica that can be opened
	damaged, hurt     []string // have a replica that is damaged: another is sound; it is the only one
	short, unfollowed []string // lack a replica; have one without the leader
	moving            []string
}

// lines says it: in a sentence, and where needed some more.
func (h *health) lines() []string {
	return append(append([]string{h.verdict}, h.troubles...), h.changes...)
}

func findHealth(s *command.ClusterStatus) *health {
	h := &health{shards: len(s.Shards)}
	h.troubles, h.changes = nodeNews(s)
	h.sort(s)
	for _, kind := range []struct {
		shards []string
		say    string
		list   *[]string
	}{
		{h.hurt, "%d of %d shards have no replica but a damaged one, which refuses what it cannot read (proa status --node names the files): %s", &h.troubles},
		{h.damaged, "%d of %d shards have a damaged replica, which is being replaced by a copy of another one: %s", &h.troubles},
		{h.short, "%d of %d shards lack a replica: %s", &h.troubles},
		{h.unfollowed, "%d of %d shards have a replica that does not follow the leader yet: %s", &h.troubles},
		{h.moving, "replicas of %d of %d shards are being moved: %s", &h.changes},
	} {
		if n := len(kind.shards); n > 0 {
			*kind.list = append(*kind.list, fmt.Sprintf(kind.say, n, h.shards, some(kind.shards)))
		}
	}
	h.status, h.verdict = h.judge(len(s.Nodes))
	return h
}

// sort puts each shard where it belongs.
func (h *health) sort(s *command.ClusterStatus) {
	states := nodeStates(s)
	for i := range s.Shards {
		sh := &s.Shards[i]
		list := (*[]string)(nil)
		hurt := len(damagedOn(sh)) > 0 && len(damagedOn(sh)) == len(sh.Replicas)
		switch {
		case hurt && leadership(sh) == command.ShardLeaderless:
			list = &h.lost
		case leadership(sh) == command.ShardLeaderless:
			list = &h.leaderless
		case leadership(sh) == command.ShardUnknown:
			list = &h.unknown
		case hurt:
			list = &h.hurt
		case len(damagedOn(sh)) > 0:
			list = &h.damaged
		case sh.Moving:
			list = &h.moving
		case len(missing(sh, states)) > 0:
			list = &h.short
		case len(notFollowing(sh)) > 0:
			list = &h.unfollowed
		default:
			continue
		}
		*list = append(*list, shardName(sh.Shard))
	}
}

// judge returns the sentence at the top, and the exit status.
func (h *health) judge(nodes int) (status int, verdict string) {
	const until = "refuse writes and linearizable reads until a majority of their replicas is back"
	switch n := len(h.leaderless); {
	case h.shards == 0 || nodes == 0:
		return exitFailed, "unknown: the node asked has not heard of the cluster's state yet"
	case n == h.shards:
		return exitServer, fmt.Sprintf("UNAVAILABLE: none of the %d shards has a leader; they %s", n, until)
	case n > 0:
		return exitServer, fmt.Sprintf("UNAVAILABLE in part: %d of %d shards have no leader (%s); they %s", n, h.shards, some(h.leaderless), until)
	case len(h.lost) > 0:
		return exitServer, fmt.Sprintf("UNAVAILABLE in part: %d of %d shards are not served (%s): their only replicas are damaged where it matters; restore a backup", len(h.lost), h.shards, some(h.lost))
	case len(h.unknown) > 0:
		return exitFailed, fmt.Sprintf("unknown: whether %d of %d shards have a leader cannot be told now (%s)", len(h.unknown), h.shards, some(h.unknown))
	case len(h.troubles) > 0:
		return exitFailed, fmt.Sprintf("degraded: all %d shards have a leader, but", h.shards)
	case nodes == 1:
		return exitDone, fmt.Sprintf("healthy, on one node: all %d shards have a leader, and no replica elsewhere", h.shards)
	}
	return exitDone, fmt.Sprintf("healthy: all %d shards have a leader and all their replicas", h.shards)
}

// nodeNews lists what is wrong with the nodes, and what is being changed.
func nodeNews(s *command.ClusterStatus) (troubles, changes []string) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		line := fmt.Sprintf("node %d is %s", n.ID, nodeState(n))
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

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// some lists the first of many names.
func some(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// clockText says how wrong a node's wall clock is.
func clockText(aheadMillis int64) string {
	d := time.Duration(aheadMillis) * time.Millisecond
	if d < 0 {
		return fmt.Sprintf("clock %v behind", -d)
	}
	return fmt.Sprintf("clock %v ahead", d)
}
