package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

// recoverUnsafe stands for datadir.Recover, so that tests need no
// directory.
var recoverUnsafe = datadir.Recover

func recoverCommand(a *app) *cobra.Command {
	var unsafe, cutLog bool
	var dir, which, consent string
	cmd := newCommand("shard recover", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		if !unsafe {
			return usagef("recover can lose acknowledged writes; read proa shard recover --help, then add --unsafe")
		}
		if dir == "" {
			return usagef("--data is missing: name the data directory of the stopped node")
		}
		shards, err := parseShards(which)
		if err != nil {
			return err
		}
		return recoverShards(cmd.Context(), a, datadir.RecoverOptions{Dir: dir, Shards: shards, CutLog: cutLog}, consent)
	})
	f := cmd.Flags()
	f.BoolVar(&unsafe, "unsafe", false, "accept that acknowledged writes may be lost")
	f.BoolVar(&cutLog, "cut-log", false, "discard the log behind the first damage")
	f.StringVar(&dir, "data", "", "data `directory` of the stopped node")
	f.StringVar(&which, "shards", "all", "`shards` to recover: all, or numbers and meta separated by commas")
	f.StringVar(&consent, "yes-i-lose-acknowledged-writes", "", "do not ask for confirmation; the value is the `id` of the cluster")
	return cmd
}

// parseShards reads a list of shards; nil stands for all.
func parseShards(text string) ([]int, error) {
	if strings.EqualFold(strings.TrimSpace(text), "all") {
		return nil, nil
	}
	var shards []int
	seen := map[int]bool{}
	for word := range strings.SplitSeq(text, ",") {
		shard, err := parseShard(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		if seen[shard] {
			return nil, usagef("--shards: %s is named twice", shardName(shard))
		}
		seen[shard] = true
		shards = append(shards, shard)
	}
	return shards, nil
}

func recoverShards(ctx context.Context, a *app, o datadir.RecoverOptions, consent string) error {
	dir := o.Dir
	cluster, err := directoryCluster(dir)
	if err != nil {
		return err
	}
	if err := confirmRecovery(ctx, a, &o, cluster, consent); err != nil {
		return err
	}
	recovered, err := recoverUnsafe(o)
	if err != nil {
		return fmt.Errorf("recover %s: %w", dir, err)
	}
	if a.Form != render.AsTable {
		return a.WriteJSON(namedMeta{recovered})
	}
	raw, err := render.MarshalJSON(recovered.Shards)
	if err != nil {
		return err
	}
	if err := a.Objects(nameMeta(raw)); err != nil {
		return err
	}
	return a.Printf("\n%s\n", afterRecovery(&recovered))
}

// afterRecovery describes what to do next.
func afterRecovery(r *datadir.Recovery) string {
	others := slices.ContainsFunc(r.Shards, func(s datadir.RecoveredShard) bool { return len(s.Voters) > 1 })
	switch {
	case len(r.Lost) == 1:
		return fmt.Sprintf("Start this node now. It goes on without node %d, refuses it, and removes it from the\ncluster. Erase that node's directory before it joins again as a new node.", r.Lost[0])
	case len(r.Lost) > 1:
		return fmt.Sprintf("Start this node now. It goes on without nodes %s, refuses them, and removes\nthem from the cluster. Erase their directories before they join again as new nodes.", listed(r.Lost))
	case others:
		return "Start this node now. Then remove the lost nodes, before any of them can run again:\nproa member remove ID --force"
	}
	return "Start this node now."
}

// listed returns several numbers as in "1, 2 and 3".
func listed(ids []uint64) string {
	last := len(ids) - 1
	return fmt.Sprintf("%s and %d", strings.ReplaceAll(numbers(ids[:last]), ",", ", "), ids[last])
}

// directoryCluster reads the id of the cluster a data directory belongs to, as
// proa status shows it.
func directoryCluster(dir string) (string, error) {
	id, err := datadir.ReadIdentity(nil, dir)
	switch {
	case errors.Is(err, datadir.ErrNotDataDir):
		return "", &usageError{err}
	case err != nil:
		return "", err
	case id.Cluster == 0:
		return "", fmt.Errorf("the node of %s is not part of a cluster yet", dir)
	}
	return fmt.Sprintf("%016x", id.Cluster), nil
}

// confirmRecovery has the operator name the cluster, unless given does, so that it
// is not recovered by mistake.
func confirmRecovery(ctx context.Context, a *app, o *datadir.RecoverOptions, cluster, given string) error {
	if given == "" {
		if _, ok := render.Terminal(a.in); !ok {
			return usagef("standard input is not a terminal, so there is no confirmation; read proa shard recover --help first, then pass --yes-i-lose-acknowledged-writes with the id of the cluster")
		}
		fmt.Fprint(a.Err, recoverText(o))
		var answered bool
		if given, answered = a.ask(ctx, fmt.Sprintf("To go on, type the id of the cluster, %s: ", cluster)); !answered {
			return notDonef("nothing was changed: no answer")
		}
	}
	if !strings.EqualFold(given, cluster) {
		return notDonef("nothing was changed: %s belongs to cluster %s, not to %q", o.Dir, cluster, given)
	}
	return nil
}

// recoverText describes what a recovery will do.
func recoverText(o *datadir.RecoverOptions) string {
	return helpText("recover", map[string]any{"Dir": o.Dir, "Shards": shardWords(o.Shards), "CutLog": o.CutLog})
}

// shardWords names shards in a sentence.
func shardWords(shards []int) string {
	if shards == nil {
		return "all their shards"
	}
	names := allShardNames(shards)
	if len(names) == 1 {
		return "shard " + names[0]
	}
	return strconv.Itoa(len(names)) + " shards (" + strings.Join(names, ", ") + ")"
}
