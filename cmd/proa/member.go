package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

const noWaitHelp = "return when the cluster has accepted the change, which continues in the background"

func memberCommand(a *app) *cobra.Command {
	return commandGroup("member", memberListCommand(a), memberAddCommand(a), memberTokenCommand(a), memberRemoveCommand(a), memberDrainCommand(a))
}

// wideNodes is how wide a terminal must be for all that is known of a node.
const wideNodes = 130

func memberListCommand(a *app) *cobra.Command {
	return newCommand("member list", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		s, err := a.clusterStatus(cmd.Context())
		if err != nil {
			return err
		}
		if a.Form == render.AsTable {
			look := render.LookOf(a.Out)
			look.Wide = look.Columns == 0 || look.Columns >= wideNodes
			return showNodes(&a.Output, s, look)
		}
		list := a.Results()
		for i := range s.Nodes {
			if err := list.Add(&s.Nodes[i], fmt.Sprintln(s.Nodes[i].ID)); err != nil {
				return err
			}
		}
		return list.End()
	})
}

func memberAddCommand(a *app) *cobra.Command {
	return newCommand("member add", cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
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
	})
}

func memberTokenCommand(a *app) *cobra.Command {
	var args command.TokenArgs
	ttl := command.TokenTTLDefault
	cmd := newCommand("member token", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		switch {
		case ttl < command.TokenTTLMin || ttl > command.TokenTTLMax:
			return usagef("--ttl %v: a join token is valid for %v to %v", ttl, command.TokenTTLMin, command.TokenTTLMax)
		case args.New && args.Revoke:
			return usagef("--new and --revoke cannot be used together")
		}
		args.TTLMillis = uint64(ttl.Milliseconds())
		var t command.JoinToken
		if err := a.administer(cmd.Context(), command.AdminMemberToken, args, &t); err != nil {
			return err
		}
		if args.Revoke {
			return a.Show(&t, "no node can join any more until \"proa member token\" makes another token\n")
		}
		if t.ForMillis > 0 {
			a.Note("the token is valid for %s", render.TTL(time.Duration(t.ForMillis)*time.Millisecond))
		}
		return a.Show(&t, "%s\n", t.Token)
	})
	f := cmd.Flags()
	f.DurationVar(&ttl, "ttl", ttl, "`time` for which the token is valid at least")
	f.BoolVar(&args.New, "new", false, "replace the token")
	f.BoolVar(&args.Revoke, "revoke", false, "make the token invalid")
	return cmd
}

func memberRemoveCommand(a *app) *cobra.Command {
	var force, undo, noWait bool
	cmd := newCommand("member remove", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		id, err := parseNode(args[0])
		if err != nil {
			return err
		}
		if force && undo {
			return usagef("--force and --undo cannot be used together")
		}
		return removeMember(cmd.Context(), a, command.MemberArgs{Node: id, Force: force, Undo: undo}, !noWait && !undo)
	})
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
			return replicas.moved(m.Node, shardsWhere(s, func(sh *command.ShardInfo) bool { return sh.On(m.Node) != nil })), false, nil
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
	cmd := newCommand("member drain", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		id, err := parseNode(args[0])
		if err != nil {
			return err
		}
		return drainMember(cmd.Context(), a, command.MemberArgs{Node: id, Undo: undo}, !noWait && !undo)
	})
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
			led := shardsWhere(s, func(sh *command.ShardInfo) bool { return sh.Leader == m.Node })
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

// shardsWhere returns the names of the shards of which holds is true.
func shardsWhere(s *command.ClusterStatus, holds func(*command.ShardInfo) bool) (names []string) {
	for i := range s.Shards {
		if holds(&s.Shards[i]) {
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
