package datadir

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftpb"
	etcdpb "go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

var silence = slog.New(slog.DiscardHandler)

// foundAlone makes a directory of a cluster of one node, as raftgroup.Open does.
func foundAlone(t *testing.T, engine string) *vfs.MemFS {
	t.Helper()
	disk := vfs.NewMem()
	asked := Asked{Shards: 2, Engine: engine}
	d, err := Open(disk, dir, asked, 0, silence)
	must(t, err)
	must(t, d.FoundAlone(Member{}, asked, silence))
	must(t, d.Close())
	return disk
}

// The engine is fixed when a cluster is founded: whatever else is asked for later is
// refused, with what to do.
func TestEngineIsFixed(t *testing.T) {
	for _, c := range []struct {
		founded, asked string
		want           placement.Engine
		err            error
	}{
		{"", "", placement.Etcd, nil},
		{"", "etcd", placement.Etcd, nil},
		{"etcd", "", placement.Etcd, nil},
		{"dragonboat", "", placement.Dragonboat, nil},
		{"dragonboat", "dragonboat", placement.Dragonboat, nil},
		{"", "dragonboat", placement.Etcd, ErrOtherEngine},
		{"etcd", "dragonboat", placement.Etcd, ErrOtherEngine},
		{"dragonboat", "etcd", placement.Dragonboat, ErrOtherEngine},
	} {
		disk := foundAlone(t, c.founded)
		d, err := Open(disk, dir, Asked{Engine: c.asked}, 0, silence)
		if !errors.Is(err, c.err) {
			t.Errorf("founded with %q, started with %q: %v, want %v", c.founded, c.asked, err, c.err)
		}
		if err != nil {
			for _, says := range []string{"has " + c.want.String(), c.asked + " was requested", "leave raft.engine out or set it to " + c.want.String(), "empty directory (--data)", "proa export"} {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v; want %q in it", err, says)
				}
			}
			continue
		}
		if d.Engine != c.want {
			t.Errorf("founded with %q, started with %q: %v, want %v", c.founded, c.asked, d.Engine, c.want)
		}
		must(t, d.Close())
	}
	if _, err := Open(vfs.NewMem(), dir, Asked{Engine: "etcdraft"}, 0, silence); err == nil || !strings.Contains(err.Error(), `no engine "etcdraft", only etcd and dragonboat`) {
		t.Errorf("an unknown engine: %v", err)
	}
}

// A directory of etcd is what versions that know no other engine write and read. One of
// another engine has a format that they refuse, and so it stays.
func TestEngineInIdentity(t *testing.T) {
	for engine, want := range map[string]struct {
		format string
		named  bool
	}{"etcd": {`"format": 3`, false}, "dragonboat": {`"format": 4`, true}} {
		disk := foundAlone(t, engine)
		d, err := Open(disk, dir, Asked{}, 0, silence)
		must(t, err)
		must(t, d.Begin(silence))
		must(t, d.Close())
		b, ok, err := readFile(disk, disk.PathJoin(dir, IdentityFile))
		if err != nil || !ok || !strings.Contains(string(b), want.format) || strings.Contains(string(b), `"engine": "dragonboat"`) != want.named || strings.Contains(string(b), "etcd") {
			t.Errorf("%s: %v, %v\n%s", engine, ok, err, b)
		}
	}
	id := exampleIdentity()
	id.Format, id.Engine = dataFormatEngine, "hashicorp"
	b, err := encodeIdentity(id)
	must(t, err)
	if _, err := decodeIdentity(b); !errors.Is(err, ErrDataFormat) || !strings.Contains(err.Error(), `"hashicorp"`) {
		t.Errorf("an engine of later: %v", err)
	}
}

// A node that joins takes the cluster's engine, and asks for no number before it is known
// that the engine is what it was told.
func TestJoinTakesTheEngine(t *testing.T) {
	for _, c := range []struct {
		cluster placement.Engine
		asked   string
		says    string
	}{
		{placement.Etcd, "", ""},
		{placement.Etcd, "etcd", ""},
		{placement.Dragonboat, "", ""},
		{placement.Dragonboat, "dragonboat", ""},
		{placement.Etcd, "dragonboat", "the cluster has the engine etcd, but dragonboat was requested; the engine is fixed"},
		{placement.Dragonboat, "etcd", "the cluster has the engine dragonboat, but etcd was requested; the engine is fixed"},
		{"hashicorp", "", `the cluster has the engine "hashicorp", which this version of proa does not have`},
	} {
		var requests []placement.Engine
		f, err := formWith(t, FormOptions{FS: vfs.NewMem(), Engine: c.asked, Join: []string{"n1"}}, func(verb string, body []byte) ([]byte, error) {
			if verb == call.Probe {
				return json.Marshal(Probe{Cluster: 7, Node: 1, UID: 1, Peer: "n1", Shards: 1, Replicas: 3, Engine: c.cluster})
			}
			var a placement.Request
			must(t, json.Unmarshal(body, &a))
			requests = append(requests, a.Engine)
			b, err := json.Marshal(JoinReply{Cluster: 7, ID: 4, Shards: 1, Replicas: 3})
			must(t, err)
			return call.Pack(b, nil)
		})
		if c.says != "" {
			if !errors.Is(err, ErrJoin) || !strings.Contains(err.Error(), c.says) || requests != nil {
				t.Errorf("%v, asked for %q: %v, requests %v", c.cluster, c.asked, err, requests)
			}
			continue
		}
		if id := f.Identity(); err != nil || id.Engine != c.cluster || id.Format != id.format() || !slices.Equal(requests, []placement.Engine{c.cluster}) {
			t.Errorf("%v, asked for %q: %v, has %v with format %d, requests %v", c.cluster, c.asked, err, id.Engine, id.Format, requests)
		}
	}
}

// All founders have one engine, or there is no cluster.
func TestFoundersAgreeOnTheEngine(t *testing.T) {
	for _, c := range []struct {
		engines [2]string
		want    placement.Engine
		says    string
	}{
		{[2]string{"", ""}, placement.Etcd, ""},
		{[2]string{"", "etcd"}, placement.Etcd, ""},
		{[2]string{"dragonboat", "dragonboat"}, placement.Dragonboat, ""},
		{[2]string{"dragonboat", ""}, placement.Etcd, "creates the cluster with the engine dragonboat, but the node at n2 with etcd"},
		{[2]string{"etcd", "dragonboat"}, placement.Etcd, "creates the cluster with the engine etcd, but the node at n2 with dragonboat"},
	} {
		formers := make(map[string]*Former)
		names := []string{"n1", "n2"}
		join := names
		if c.says != "" {
			join = []string{"n1", "n2", "n3"} // which does not answer, and is not waited for
		}
		for i, name := range names {
			f, err := NewFormer(FormOptions{Dir: dir, FS: vfs.NewMem(), ID: uint64(i + 1), Engine: c.engines[i], Join: join, PeerAddress: name, RetryEvery: time.Millisecond,
				Call: func(_ context.Context, address, verb string, _ []byte) ([]byte, error) {
					if f := formers[address]; f != nil {
						return f.Answer(verb)
					}
					return nil, errors.New("connection refused")
				}})
			must(t, err)
			formers[name] = f
		}
		ctx, cancel := context.WithCancel(t.Context())
		for _, name := range names {
			id, err := formers[name].Form(ctx)
			if err != nil {
				cancel() // nothing is left to wait for
			}
			switch {
			case c.says == "" && (err != nil || id.Cluster == 0 || id.Engine != c.want):
				t.Errorf("%q, %s: %v, cluster %x with %v", c.engines, name, err, id.Cluster, id.Engine)
			case c.says != "" && (!errors.Is(err, ErrJoin) || id.Cluster != 0 || !strings.Contains(err.Error(), "same raft.engine")):
				t.Errorf("%q, %s: %v, cluster %x", c.engines, name, err, id.Cluster)
			case c.says != "" && name == "n1" && !strings.Contains(err.Error(), c.says):
				t.Errorf("%q: %v", c.engines, err)
			}
		}
		cancel()
		for _, f := range formers {
			must(t, f.Close())
		}
	}
}

// An engine other than etcd begins its groups by itself. Only after that is a log that has
// nothing a log that was lost.
func TestBootstrapOfAnotherEngine(t *testing.T) {
	disk := foundAlone(t, "dragonboat")
	d, err := Open(disk, dir, Asked{}, 0, silence)
	must(t, err)
	log := openLog(t, d.LogOptions(disk, dir))
	for range 2 {
		if err := d.Bootstrap(log, 0); err != nil || d.Initialized || len(log.Groups()) != 0 {
			t.Fatalf("%v, begun %v, groups %v", err, d.Initialized, log.Groups())
		}
	}
	if rows := d.FirstShards(); len(rows) != 3 || len(rows[0].Replicas) != 1 {
		t.Errorf("first shards %v", rows)
	}
	must(t, d.Begun())
	if err := d.Bootstrap(log, 0); !errors.Is(err, ErrLogMissing) {
		t.Errorf("nothing in the log of before: %v", err)
	}
	must(t, errors.Join(log.Close(), d.Close()))
}

func openLog(t *testing.T, o raftlog.Options) *raftlog.Log {
	t.Helper()
	o.SegmentBytes = raftlog.SegmentBytesMin
	log, _, err := raftlog.Open(o)
	must(t, err)
	return log
}

// withLog makes a directory of an engine that has run, with a log that write writes to.
func withLog(t *testing.T, engine string, write func(*raftlog.Log)) *vfs.MemFS {
	t.Helper()
	disk := foundAlone(t, engine)
	d, err := Open(disk, dir, Asked{}, 0, silence)
	must(t, err)
	log := openLog(t, d.LogOptions(disk, dir))
	store, err := storage.Open(d.StateOptions(disk, dir))
	must(t, err)
	must(t, d.Bootstrap(log, 1))
	must(t, d.Begun())
	write(log)
	must(t, errors.Join(store.Close(), log.Close(), d.Close()))
	return disk
}

// setMetadata writes the metadata of a group.
func setMetadata(t *testing.T, log *raftlog.Log, number uint64, data []byte) {
	t.Helper()
	w := log.NewWrite()
	w.Append(log.Group(number), etcdpb.HardState{Term: 1}, nil)
	if data != nil {
		w.SetMetadata(log.Group(number), data)
	}
	must(t, log.Save(w, true))
}

// dragonboatGroup has dragonboat write what it writes of a new replica.
func dragonboatGroup(t *testing.T, log *raftlog.Log, shard, replica uint64) {
	t.Helper()
	db, err := logdb.New(log)
	must(t, err)
	must(t, db.SaveBootstrapInfo(shard, replica, raftpb.Bootstrap{Type: raftpb.OnDiskStateMachine}))
	must(t, db.Close())
}

func TestVerifyEngine(t *testing.T) {
	for name, c := range map[string]struct {
		engine string
		write  func(*raftlog.Log)
		err    error
		says   []string // in the report, or in the error
	}{
		"etcd": {"etcd", func(*raftlog.Log) {}, nil, []string{"2 shards, engine etcd", "shard 1: state at entry"}},
		"etcd, foreign group": {"etcd", func(l *raftlog.Log) { foreignGroup(t, l) }, raftlog.ErrForeign,
			[]string{"proa.json says that the engine is etcd", "group 7 has metadata", "restore the matching files", "join again as a new node"}},
		"dragonboat": {"dragonboat", func(l *raftlog.Log) { dragonboatGroup(t, l, 1, 5); dragonboatGroup(t, l, 1, 6) }, nil,
			[]string{"engine dragonboat", "shard 0: state at entry 0, log to 0, 0 to replay"}},
		"dragonboat, metadata deleted": {"dragonboat", func(l *raftlog.Log) { dragonboatGroup(t, l, 1, 5); setMetadata(t, l, 2, nil) }, raftlog.ErrForeign,
			[]string{"proa.json says that the engine is dragonboat", "group 2 has no metadata", "restore the matching files", "join again as a new node"}},
		"dragonboat, metadata damaged": {"dragonboat", func(l *raftlog.Log) { dragonboatGroup(t, l, 1, 5); setMetadata(t, l, 1, []byte{1, 5, 9}) }, raftlog.ErrCorrupt,
			[]string{"metadata of group 1", "join again as a new node"}},
		"dragonboat, metadata of another group": {"dragonboat", func(l *raftlog.Log) {
			dragonboatGroup(t, l, 1, 5)
			setMetadata(t, l, 1+1<<32, l.Group(1).Metadata())
		}, raftlog.ErrCorrupt, []string{"two groups say that they are of shard 1, replica 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := withLog(t, c.engine, c.write)
			var report []string
			err := Verify(disk, dir, func(line string) { report = append(report, line) })
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			text := strings.Join(report, "\n")
			if err != nil {
				text += err.Error()
			}
			for _, says := range c.says {
				if !strings.Contains(text, says) {
					t.Errorf("%q is missing in\n%s", says, text)
				}
			}
			if c.engine != "etcd" && strings.Contains(text, "--cut-log") {
				t.Errorf("advice that does not work with %s:\n%s", c.engine, text)
			}
		})
	}
}

// foreignGroup adds a group of dragonboat to a log of etcd's.
func foreignGroup(t *testing.T, log *raftlog.Log) {
	t.Helper()
	other := openLog(t, raftlog.Options{Dir: "/other", FS: vfs.NewMem()})
	dragonboatGroup(t, other, 7, 1)
	setMetadata(t, log, 7, other.Group(7).Metadata())
	must(t, other.Close())
}

// etcdGroup adds a group of etcd to a log.
func etcdGroup(t *testing.T, log *raftlog.Log, number uint64) {
	t.Helper()
	setMetadata(t, log, number, nil)
}

// Recover does nothing with what it does not understand.
func TestRecoverRefusesForeignLogs(t *testing.T) {
	for engine, group := range map[string]func(*raftlog.Log){
		"etcd":       func(l *raftlog.Log) { foreignGroup(t, l) },
		"dragonboat": func(l *raftlog.Log) { etcdGroup(t, l, 1) },
	} {
		disk := withLog(t, engine, group)
		if _, err := Recover(RecoverOptions{Dir: dir, FS: disk}); !errors.Is(err, raftlog.ErrForeign) {
			t.Errorf("%s, with a group of the other engine: %v", engine, err)
		}
	}
}

// TestSurvivor: the log says which replica stands alone, unless it has lost its end.
func TestSurvivor(t *testing.T) {
	id := placement.ReplicaID
	row := &placement.Shard{Incarnation: 3, Replicas: []placement.Replica{{Node: 1, Incarnation: 1}, {Node: 2, Incarnation: 3}, {Node: 4, Incarnation: 2, Learner: true}}}
	known := []uint64{id(1, 1), id(2, 1), id(3, 1)}
	for name, c := range map[string]struct {
		found   logdb.Found
		applied uint64
		row     *placement.Shard
		replica uint64
		voters  []uint64
	}{
		"whole":                            {logdb.Found{Replica: id(2, 3), Last: 9, Voters: []uint64{id(1, 1), id(2, 3)}, Member: true}, 9, row, id(2, 3), []uint64{1, 2}},
		"ahead of the map":                 {logdb.Found{Replica: id(2, 4), Last: 9, Voters: known, Member: true}, 5, row, id(2, 4), []uint64{1, 2, 3}},
		"an earlier replica with entries":  {logdb.Found{Replica: id(2, 1), Last: 9, Voters: known, Member: true}, 5, row, id(2, 1), []uint64{1, 2, 3}},
		"cut":                              {logdb.Found{Replica: id(2, 3), Last: 4, Voters: known, Member: true}, 9, row, id(2, 3), []uint64{1, 2}},
		"cut to an earlier replica":        {logdb.Found{Replica: id(2, 1), Last: 4, Voters: known, Member: true}, 9, row, id(2, 3), []uint64{1, 2}},
		"recovered so before":              {logdb.Found{Replica: id(2, 1), Last: 9, Voters: []uint64{id(2, 1)}, Member: true}, 9, row, id(2, 3), []uint64{1, 2}},
		"cut to nothing":                   {logdb.Found{}, 9, row, id(2, 3), []uint64{1, 2}},
		"cut to a bootstrap record":        {logdb.Found{Replica: id(2, 3)}, 9, row, id(2, 3), []uint64{1, 2}},
		"cut, and not in the map":          {logdb.Found{}, 9, &placement.Shard{}, 0, nil},
		"a snapshot that is not installed": {logdb.Found{Replica: id(2, 1), Last: 5, Voters: known, Member: true, Staged: "file"}, 6, row, id(2, 1), []uint64{1, 2, 3}},
		"nothing heard yet":                {logdb.Found{Replica: id(2, 3)}, 0, row, 0, nil},
		"being removed":                    {logdb.Found{Replica: id(2, 3), Last: 9, Voters: known}, 9, row, 0, nil},
		"not here":                         {logdb.Found{}, 0, row, 0, nil},
	} {
		if replica, voters := survivor(&c.found, c.applied, c.row, 2); replica != c.replica || !slices.Equal(voters, c.voters) {
			t.Errorf("%s: replica %x, before %v; want %x, %v", name, replica, voters, c.replica, c.voters)
		}
	}
}
