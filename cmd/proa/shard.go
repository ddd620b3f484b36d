package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

func shardCommand(a *app) *cobra.Command {
	cmd := commandGroup("shard", shardListCommand(a), shardMoveCommand(a), shardTransferCommand(a), splitLeadersCommand(a), checksumCommand(a))
	if !a.shell {
		recovery := recoverCommand(a)
		needServerSystem(recovery)
		cmd.AddCommand(recovery)
	}
	return cmd
}

func shardListCommand(a *app) *cobra.Command {
	return newCommand("shard list", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		s, err := a.clusterStatus(cmd.Context())
		if err != nil {
			return err
		}
		if a.Form == render.AsTable {
			return showShards(&a.Output, s, render.WideLook(a.Out))
		}
		list := a.Results()
		for i := range s.Shards {
			if err := list.Add(namedMeta{&s.Shards[i]}, shardName(s.Shards[i].Shard)+"\n"); err != nil {
				return err
			}
		}
		return list.End()
	})
}

func shardMoveCommand(a *app) *cobra.Command {
	var from, to uint64
	var noWait bool
	cmd := newCommand("shard move", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		shard, err := parseShard(args[0])
		if err != nil {
			return err
		}
		if shard == command.MetaShard {
			return usagef("the meta group cannot be moved: every node has a replica of it")
		}
		if err := errors.Join(checkNode("from", from), checkNode("to", to)); err != nil {
			return &usageError{err}
		}
		if from == to {
			return usagef("--from and --to are the same node")
		}
		return moveShard(cmd.Context(), a, command.ShardArgs{Shard: shard, From: from, To: to}, !noWait)
	})
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "`node` that has the replica")
	f.Uint64Var(&to, "to", 0, "`node` to move it to")
	f.BoolVar(&noWait, "no-wait", false, noWaitHelp)
	return cmd
}

func moveShard(ctx context.Context, a *app, m command.ShardArgs, wait bool) error {
	name := shardName(m.Shard)
	begun := false // as far as the node knows that is asked; it may be behind
	h := obstruction{patience: a.timeout}
	return requestChange(ctx, a, change{
		verb: command.AdminShardMove, args: m, wait: wait,
		complete: fmt.Sprintf("shard %s: the replica is on node %d and no longer on node %d", name, m.To, m.From),
		look: func(s *command.ClusterStatus) (string, bool, error) {
			sh := findShard(s, m.Shard)
			switch {
			case sh == nil:
				return "", false, fmt.Errorf("there is no shard %s", name)
			case begun && !slices.Contains(sh.Desired, m.To):
				return "", false, fmt.Errorf("the move of shard %s to node %d was cancelled", name, m.To)
			}
			begun = slices.Contains(sh.Desired, m.To)
			if err := h.check(moveObstruction(s, sh, m.To)); err != nil {
				return "", false, err
			}
			filled, old := sh.On(m.To), sh.On(m.From)
			switch {
			case filled == nil:
				return fmt.Sprintf("shard %s: waiting for the replica on node %d", name, m.To), false, nil
			case filled.Role == "learner":
				return fmt.Sprintf("shard %s: the replica on node %d is catching up, %d log entries behind", name, m.To, filled.Lag), false, nil
			case old != nil:
				return fmt.Sprintf("shard %s: the replica on node %d votes, the one on node %d is being removed", name, m.To, m.From), false, nil
			}
			return fmt.Sprintf("shard %s: finishing", name), begun && !sh.Moving, nil
		},
	})
}

// moveObstruction returns what keeps a replica from moving to a node, "" where
// nothing does.
func moveObstruction(s *command.ClusterStatus, sh *command.ShardInfo, to uint64) string {
	n := s.Node(to)
	switch {
	case n == nil:
		return fmt.Sprintf("node %d, the destination of a replica of shard %s, has left the cluster", to, shardName(sh.Shard))
	case n.State != command.NodeUp:
		return fmt.Sprintf("node %d, the destination of a replica of shard %s, %s; the move continues when it is back, or is cancelled by: proa member remove %d", to, shardName(sh.Shard), nodeIs(n), to)
	case sh.Leadership() == command.ShardLeaderless:
		return fmt.Sprintf("shard %s has no leader; the move continues when it has one", shardName(sh.Shard))
	}
	return ""
}

func shardTransferCommand(a *app) *cobra.Command {
	var to uint64
	var noWait bool
	cmd := newCommand("shard transfer", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		shard, err := parseShard(args[0])
		if err != nil {
			return err
		}
		if err := checkNode("to", to); err != nil {
			return err
		}
		return transferShard(cmd.Context(), a, command.ShardArgs{Shard: shard, To: to}, !noWait)
	})
	cmd.Flags().Uint64Var(&to, "to", 0, "`node` to lead the shard")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitHelp)
	return cmd
}

func transferShard(ctx context.Context, a *app, m command.ShardArgs, wait bool) error {
	name := shardName(m.Shard)
	begin := time.Now()
	return requestChange(ctx, a, change{
		verb: command.AdminTransfer, args: m, wait: wait, quiet: true,
		complete: fmt.Sprintf("shard %s is led by node %d", name, m.To),
		look: func(s *command.ClusterStatus) (string, bool, error) {
			sh := findShard(s, m.Shard)
			switch {
			case sh == nil:
				return "", false, fmt.Errorf("there is no shard %s", name)
			case sh.Leader == m.To:
				return "", true, nil
			case time.Since(begin) > a.timeout:
				return "", false, fmt.Errorf("shard %s is not led by node %d after %v but by node %d: is its replica there behind (proa shard list tells), or has the cluster moved it on (cluster.balance_leaders)?", name, m.To, a.timeout, sh.Leader)
			}
			return fmt.Sprintf("shard %s: waiting for node %d to lead", name, m.To), false, nil
		},
	})
}

func splitLeadersCommand(a *app) *cobra.Command {
	return newCommand("shard split-leaders", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		return requestChange(cmd.Context(), a, change{verb: command.AdminSplitLeaders})
	})
}

func checksumCommand(a *app) *cobra.Command {
	all := false
	cmd := newCommand("shard checksum", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return checksumAll(cmd.Context(), a)
		}
		if all {
			return usagef("SHARD and --all cannot be used together")
		}
		shard, err := parseShard(args[0])
		if err != nil {
			return err
		}
		return checksums(cmd.Context(), a, []int{shard})
	})
	cmd.Flags().BoolVar(&all, "all", false, "check all shards, as without SHARD")
	return cmd
}

func checksumAll(ctx context.Context, a *app) error {
	s, err := a.clusterStatus(ctx)
	if err != nil {
		return err
	}
	shards := make([]int, len(s.Shards))
	for i := range s.Shards {
		shards[i] = s.Shards[i].Shard
	}
	return checksums(ctx, a, shards)
}

// checksums checks one shard after the other and returns the worst finding.
func checksums(ctx context.Context, a *app, shards []int) error {
	list := a.Results("SHARD", "ENTRY", "RESULT", "REPLICAS")
	worst := exitDone
	for _, shard := range shards {
		var sum command.ShardChecksum
		if err := a.administer(ctx, command.AdminChecksum, command.ShardArgs{Shard: shard}, &sum); err != nil {
			if ctx.Err() != nil || errors.Is(err, client.ErrBadRequest) { // there is no such shard
				return err
			}
			worst = worseStatus(worst, exitServer)
			if err := showUnchecked(a, list, shard, explain(err, a)); err != nil {
				return err
			}
			continue
		}
		verdict, status := judge(&sum)
		worst = worseStatus(worst, status)
		if err := showChecksum(list, &sum, verdict); err != nil {
			return err
		}
	}
	return cmp.Or(list.End(), silently(worst))
}

// judge returns what checksums prove. A replica that did not answer proves
// nothing, but two that differ are a finding whatever the others say.
func judge(sum *command.ShardChecksum) (verdict string, status int) {
	var first *command.ReplicaChecksum
	silent := 0
	for i := range sum.Replicas {
		r := &sum.Replicas[i]
		switch {
		case r.Error != "":
			silent++
		case first == nil:
			first = r
		case r.Checksum != first.Checksum:
			return "DIFFERENT", exitFailed
		}
	}
	switch {
	case silent > 0 || first == nil:
		return "unproven", exitServer
	case !sum.Equal:
		return "DIFFERENT", exitFailed
	}
	return "equal", exitDone
}

// worseStatus returns the exit status that counts of two: different replicas before
// unknown ones.
func worseStatus(a, b int) int {
	switch {
	case a == exitFailed || b == exitFailed:
		return exitFailed
	case a == exitDone:
		return b
	}
	return a
}

// showUnchecked shows why a shard could not be checked.
func showUnchecked(a *app, list *render.Results, shard int, why *problem) error {
	if a.JSON() {
		return list.AddJSON(namedMeta{struct {
			Shard int      `json:"shard"`
			Error *problem `json:"error"`
		}{shard, why}})
	}
	why.Message = fmt.Sprintf("shard %s: %s", shardName(shard), why.Message)
	_, err := fmt.Fprintln(a.Err, why.text())
	return err
}

func showChecksum(list *render.Results, sum *command.ShardChecksum, verdict string) error {
	replicas := make([]string, len(sum.Replicas))
	for i, r := range sum.Replicas {
		said := fmt.Sprintf("%016x", r.Checksum)
		if r.Error != "" {
			said = render.Escape([]byte(r.Error))
		}
		replicas[i] = fmt.Sprintf("%d: %s", r.Node, said)
	}
	name := shardName(sum.Shard)
	return list.Add(namedMeta{sum}, name+"\t"+verdict+"\n", name, strconv.FormatUint(sum.Index, 10), verdict, strings.Join(replicas, "  "))
}
