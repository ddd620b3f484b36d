package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/dragonboat/environment"
	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// Verify checks a data directory that no server uses: every checksum of log
// and state, that the groups of the log are those of the directory's engine, that
// each shard's log goes on, without a gap, where its state ends, and that no other node has refused it as older than what it has
// confirmed. It changes nothing but the lock file. Progress and findings go to
// report, a line each; the error joins all findings. f nil is the real file system.
func Verify(f vfs.FS, dir string, report func(string)) error {
	f = fileSystem(f, dir)
	if _, err := f.Stat(f.PathJoin(dir, IdentityFile)); errors.Is(err, fs.ErrNotExist) {
		_, err := ReadIdentity(f, dir) // no lock for what is no data directory
		return err
	}
	lock, err := lock(f, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	id, err := ReadIdentity(f, dir)
	if err != nil {
		return err
	}
	report = id.nameMeta(report)
	report(fmt.Sprintf("node %d, cluster %016x, %d shards, engine %v", id.Node, id.Cluster, id.Shards, id.Engine))
	logErr := id.Explain(raftlog.Verify(id.LogOptions(f, dir), report))
	applied, stateErr := storage.Verify(id.StateOptions(f, dir), report)
	var engineErr error
	if id.Engine == placement.Dragonboat {
		engineErr = environment.Verify(f, f.PathJoin(dir, EngineDir))
	}
	_, runsErr := openRuns(f, dir)
	if errors.Is(runsErr, errRunsDamaged) {
		runsErr = fmt.Errorf("%w; the node starts without it: if another node was restored from an old copy, erase that node's data directory", runsErr)
	}
	if _, err := f.Stat(f.PathJoin(dir, RunsFile)); errors.Is(err, fs.ErrNotExist) && len(id.Members) > 1 {
		report(fmt.Sprintf("there is no %s: unless this node never connected to another node, its record of other nodes' runs is lost", RunsFile))
	}
	err = errors.Join(logErr, stateErr, engineErr, runsErr)
	if err == nil && id.Initialized {
		err = verifyContinuity(f, dir, id, applied, report)
	}
	if advice := id.damageAdvice(err); advice != "" {
		err = fmt.Errorf("%w; %s", err, advice)
	}
	if id.Removed {
		err = errors.Join(err, id.RemovedError(dir))
	}
	if id.RolledBack { // whole, and refused by a start all the same
		err = errors.Join(err, ErrRolledBack)
	}
	return err
}

// nameMeta gives the meta group its name in the lines of packages that know only
// its number.
func (id *Identity) nameMeta(report func(string)) func(string) {
	number := fmt.Sprintf("shard %d: ", id.Shards)
	return func(line string) {
		if rest, ok := strings.CutPrefix(line, number); ok {
			line = id.shardName(id.Shards) + ": " + rest
		}
		report(line)
	}
}

// shardOfGroup returns the number of the shard that a group of the log is of. dragonboat's
// shards are numbered from 1.
func (id *Identity) shardOfGroup(group uint64) int {
	if id.Engine == placement.Dragonboat {
		return int(logdb.ShardOf(group)) - 1
	}
	return int(min(group, math.MaxInt))
}

// shardName names a shard, or the meta group by its number.
func (id *Identity) shardName(shard int) string {
	if shard == id.Shards || shard == command.MetaShard {
		return "shard " + placement.MetaName
	}
	return fmt.Sprintf("shard %d", shard)
}

// verifyContinuity opens a copy of the log's bookkeeping in memory and checks
// each shard's state against it.
func verifyContinuity(f vfs.FS, dir string, id Identity, applied []uint64, report func(string)) error {
	spans, err := raftlog.Spans(id.LogOptions(f, dir))
	if err != nil {
		return err
	}
	if err := id.checkGroups(spans); err != nil {
		return id.Explain(err)
	}
	held := make(map[int][]raftlog.Span)
	for _, number := range slices.Sorted(maps.Keys(spans)) {
		shard := id.shardOfGroup(number)
		held[shard] = append(held[shard], spans[number])
	}
	var errs []error
	for shard, at := range applied {
		logs := held[shard]
		if len(logs) == 0 {
			if at != 0 {
				errs = append(errs, fmt.Errorf("%s: the state is at entry %d, but the log has no entries", id.shardName(shard), at))
			}
			continue // no replica here
		}
		if id.Engine == placement.Etcd {
			at = max(at, StartIndex)
		}
		from := func(s raftlog.Span) uint64 { return max(at, logdb.Covers(s.Metadata, at)) }
		i := slices.IndexFunc(logs, func(s raftlog.Span) bool { return at <= s.Last && from(s)+1 >= s.First })
		if i < 0 { // nor is it that of a replica that is being removed
			s := logs[len(logs)-1]
			errs = append(errs, fmt.Errorf("%s: the state is at entry %d, the log holds %d to %d", id.shardName(shard), at, s.First, s.Last))
			continue
		}
		report(fmt.Sprintf("%s: state at entry %d, log to %d, %d to replay", id.shardName(shard), at, logs[i].Last, logs[i].Last-from(logs[i])))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w; "+RejoinOrRestore, errors.Join(errs...))
}

// checkGroups checks that the groups of a log are those of the directory's engine.
func (id *Identity) checkGroups(spans map[uint64]raftlog.Span) error {
	metadata := make(map[uint64][]byte)
	var errs []error
	for number, s := range spans {
		metadata[number] = s.Metadata
		if id.Engine == placement.Etcd {
			errs = append(errs, checkEtcdGroup(number, s.Metadata))
		}
	}
	if id.Engine == placement.Dragonboat {
		errs = append(errs, logdb.Verify(metadata))
	}
	return errors.Join(errs...)
}
