package main

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

const noWaitHelp = "return when the cluster has accepted the change, which continues in the background"

func memberCommand(a *app) *cobra.Command {
	return commandGroup("member", "List, add, remove and drain nodes", `List the nodes of the cluster, add nodes, remove nodes permanently, or drain a
node for maintenance.`,
		memberListCommand(a), memberAddCommand(a), memberTokenCommand(a), memberRemoveCommand(a), memberDrainCommand(a))
}

func memberListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the nodes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.clusterStatus(cmd.Context())
			if err != nil {
				return err
			}
			if a.Form == render.AsTable {
				return showNodes(&a.Output, s, render.WideLook(a.Out))
			}
			list := a.Results()
			for i := range s.Nodes {
				if err := list.Add(&s.Nodes[i], fmt.Sprintln(s.Nodes[i].ID)); err != nil {
					return err
				}
			}
			return list.End()
		},
	}
}

func memberAddCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "add ID [ADDRESS]",
		Short: "Allow a node to join under a number",
		Long: `Allow a node to join the cluster under the number ID. Then start it on an empty
data directory with the flags that this command prints: --node-id ID, --join
with the peer address of any member, and --join-token with the join token of the
cluster.

Once a second node has joined, atomic commands with keys in several shards are
refused unless the keys share a {tag} (see docs/operations.md).

ADDRESS is the address of its peer port, for information only. The number of a
removed node cannot be used again: a node that lost its disk joins as a new
node.`,
		Example: "  proa member add 4\n  proa serve --node-id 4 --join n1:7401 --join-token TOKEN --data /var/lib/proa",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			m := command.MemberArgs{Node: id}
			if len(args) == 2 {
				if host, port, err := net.SplitHostPort(args[1]); err != nil || host == "" || port == "" {
					return usagef("%q: write the address as host:port", args[1])
				}
				m.Address = args[1]
			}
			return requestChange(cmd.Context(), a, change{verb: command.AdminMemberAdd, args: m})
		},
	}
}

func memberTokenCommand(a *app) *cobra.Command {
	var renew bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print the join token of the cluster",
		Long: `Print the join token of the cluster. A new node needs it to join: start it with
--join-token or with PROA_JOIN_TOKEN in its environment. Members no longer need
it. Anyone who has the token can add a node, which receives copies of all data.

--new replaces the token; the old one becomes invalid.`,
		Example: "  proa member token\n  PROA_JOIN_TOKEN=$(proa -e n1:7400 member token) proa serve --join n1:7401",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var t command.JoinToken
			if err := a.administer(cmd.Context(), command.AdminMemberToken, command.TokenArgs{New: renew}, &t); err != nil {
				return err
			}
			return a.Show(&t, "%s\n", t.Token)
		},
	}
	cmd.Flags().BoolVar(&renew, "new", false, "replace the token")
	return cmd
}

func memberRemoveCommand(a *app) *cobra.Command {
	var force, undo, noWait bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a node from the cluster",
		Long: `Remove a node from the cluster permanently. Its replicas are moved to other
nodes first, and the command waits until that is complete. Interrupting the
command does not stop the removal; --undo does, until it is complete.

A node that is not up can be removed too: its replicas are rebuilt from others.
Use --force if it is not up and some replicas cannot be rebuilt because there
are not enough nodes; those shards then have fewer replicas. If fewer nodes
remain than cluster.replication_factor, the command warns and, on a terminal,
asks for confirmation.

The server of a removed node exits with status 3 and does not start again on its
data directory. To let it join as a new node, erase the directory and start it
without --node-id.`,
		Example: "  proa member remove 3\n  proa member remove 3 --no-wait\n  proa member remove 3 --undo",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			if force && undo {
				return usagef("--force and --undo cannot be used together")
			}
			return removeMember(cmd.Context(), a, command.MemberArgs{Node: id, Force: force, Undo: undo}, !noWait && !undo)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&force, "force", false, "remove it even if some replicas cannot be rebuilt elsewhere")
	f.BoolVar(&undo, "undo", false, "cancel a removal that is not complete")
	f.BoolVar(&noWait, "no-wait", false, noWaitHelp)
	return cmd
}

func removeMember(ctx context.Context, a *app, m command.MemberArgs, wait bool) error {
	if !m.Undo {
		s, err := a.clusterStatus(ctx)
		if err != nil {
			s = new(command.ClusterStatus) // the request itself will fail
		}
		if err := confirmRemove(ctx, a, s, m); err != nil {
			return err
		}
		if n := s.Node(m.Node); n != nil && n.State == command.NodeExpected {
			wait = false // there is nothing to move, and no server that stops
		}
	}
	replicas := counter{what: "replicas"}
	begun := false // as far as the node knows that is asked; it may be behind
	return requestChange(ctx, a, change{
		verb: command.AdminMemberRemove, args: m, wait: wait,
		complete: fmt.Sprintf("node %d is removed: its server stops, and its data directory can be erased", m.Node),
		look: func(s *command.ClusterStatus) (string, bool, error) {
			n := s.Node(m.Node)
			switch {
			case n == nil:
				return "", true, nil
			case begun && !n.Removing:
				return "", false, fmt.Errorf("node %d stays: its removal was cancelled", m.Node)
			}
			begun = n.Removing
			return replicas.moved(m.Node, holding(s, m.Node)), false, nil
		},
	})
}

// confirmRemove warns where a removal leaves shards with fewer replicas than
// they must have and, on a terminal, asks whether to go on.
func confirmRemove(ctx context.Context, a *app, s *command.ClusterStatus, m command.MemberArgs) error {
	warning := removalWarning(s, m)
	if warning == "" {
		return nil
	}
	a.Note("warning: %s", warning)
	if _, ok := render.Terminal(a.in); !ok || a.shell || m.Force {
		return nil
	}
	if !a.confirm(ctx, fmt.Sprintf("Remove node %d?", m.Node)) {
		return notDonef("node %d was not removed", m.Node)
	}
	return nil
}

// removalWarning describes which replicas a removal leaves shards without, "" for none, or
// where the cluster refuses it.
func removalWarning(s *command.ClusterStatus, m command.MemberArgs) string {
	if meta := findShard(s, command.MetaShard); meta != nil && meta.Leadership() == command.ShardLeaderless {
		return "" // no node can be removed now
	}
	n, left, up := s.Node(m.Node), 0, 0
	for i := range s.Nodes {
		if o := &s.Nodes[i]; o.ID != m.Node && o.State != command.NodeExpected && !o.Removing {
			left++
			if o.State == command.NodeUp {
				up++
			}
		}
	}
	if n == nil || n.State == command.NodeExpected || n.State != command.NodeUp && !m.Force || left == 0 || left >= s.ReplicationFactor {
		return ""
	}
	spare := "the loss of one more node then stops every shard"
	if left > 2 {
		spare = "one node less may fail then"
	}
	nodes := thereAre(left, "node")
	if up < left {
		nodes += fmt.Sprintf(" (%d up)", up)
	}
	return fmt.Sprintf("without node %d there %s for %d replicas of each shard: each keeps %d, and %s; to keep all, start another node first (proa member add --help)",
		m.Node, nodes, s.ReplicationFactor, left, spare)
}

func memberDrainCommand(a *app) *cobra.Command {
	var undo, noWait bool
	cmd := &cobra.Command{
		Use:   "drain ID",
		Short: "Move all leaderships off a node for maintenance",
		Long: `Transfer all leaderships of a node to other nodes, keep it from becoming leader,
and wait until it leads no shard. It keeps its replicas. Stopping it then leaves
no shard without a leader. SIGTERM transfers leaderships as well, but draining
stays in effect across restarts, until --undo.`,
		Example: "  proa member drain 2\n  proa member drain 2 --undo",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			return drainMember(cmd.Context(), a, command.MemberArgs{Node: id, Undo: undo}, !noWait && !undo)
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "allow it to lead shards again")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitHelp)
	return cmd
}

func drainMember(ctx context.Context, a *app, m command.MemberArgs, wait bool) error {
	leaders := counter{what: "leaderships"}
	begun := false
	return requestChange(ctx, a, change{
		verb: command.AdminMemberDrain, args: m, wait: wait,
		complete: fmt.Sprintf("node %d leads no shard and accepts no leadership", m.Node),
		look: func(s *command.ClusterStatus) (string, bool, error) {
			n := s.Node(m.Node)
			switch {
			case n == nil:
				return "", false, fmt.Errorf("node %d is not a member any more", m.Node)
			case begun && !n.Draining:
				return "", false, fmt.Errorf("node %d accepts leaderships again: the drain was cancelled", m.Node)
			}
			begun = n.Draining
			led := leading(s, m.Node)
			if len(led) == 0 && !leadsNone(s, m.Node) {
				return fmt.Sprintf("node %d %s: whether it leads shards is not known", m.Node, nodeIs(n)), false, nil
			}
			return leaders.moved(m.Node, led), begun && len(led) == 0, nil
		},
	})
}

// findShard returns a shard, or nil.
func findShard(s *command.ClusterStatus, shard int) *command.ShardInfo {
	i := slices.IndexFunc(s.Shards, func(sh command.ShardInfo) bool { return sh.Shard == shard })
	if i < 0 {
		return nil
	}
	return &s.Shards[i]
}

// holding returns the names of the shards of which a node has a replica.
func holding(s *command.ClusterStatus, node uint64) (names []string) {
	for i := range s.Shards {
		if s.Shards[i].On(node) != nil {
			names = append(names, shardName(s.Shards[i].Shard))
		}
	}
	return names
}

// leadsNone reports whether it is certain that a node leads no shard: it has said
// so just now, or another does lead every shard that it might.
func leadsNone(s *command.ClusterStatus, node uint64) bool {
	for i := range s.Shards {
		sh := &s.Shards[i]
		r := sh.On(node)
		switch {
		case sh.Leader == node:
			return false
		case r == nil && !slices.Contains(sh.Desired, node), sh.Leadership() == command.ShardLed:
		case r == nil || r.Stale || r.Role == "leader":
			return false
		}
	}
	return true
}

// leading returns the names of the shards a node leads.
func leading(s *command.ClusterStatus, node uint64) (names []string) {
	for i := range s.Shards {
		if s.Shards[i].Leader == node {
			names = append(names, shardName(s.Shards[i].Shard))
		}
	}
	return names
}

// counter counts down from the most it has seen.
type counter struct {
	what string
	most int
}

// moved describes how many things of a node have been moved and which are left.
func (c *counter) moved(node uint64, left []string) string {
	c.most = max(c.most, len(left))
	if len(left) == 0 {
		return fmt.Sprintf("node %d: all %s moved, finishing", node, c.what)
	}
	return fmt.Sprintf("node %d: %d of %d %s moved, left: %s", node, c.most-len(left), c.most, c.what, some(left))
}
