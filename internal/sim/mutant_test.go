package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The simulator is worth what it catches. Each test here breaks something on
// purpose and wants that noticed within a number of seeds.
//
// Where the world around the nodes can be made to lie (a disk, a clock, the
// network, a client), it is: see Break. What lies within the nodes is broken in
// their source, by an overlay of the build, so that production code has no
// switches for it: see mutants.

// breakSeeds is how many seeds may pass before one notices what is broken.
const breakSeeds = 1000

// breakEvery is how often a fault comes where something is broken: one that
// comes by itself says less than a second that comes before the first is over.
const breakEvery = 150 * time.Millisecond

// wantCaught runs seeds until one fails, which has to tell how.
func wantCaught(t *testing.T, binary string, c Config, how string, env ...string) {
	t.Helper()
	begun := time.Now()
	c.Seed = 1
	out, err := work(binary, job{Config: c, Step: 1, Seeds: breakSeeds, Failures: 1}, env...)
	if err == nil || !strings.Contains(out, "seed ") || !strings.Contains(out, how) {
		t.Fatalf("not caught: %v\n%s", err, out[max(0, len(out)-3000):])
	}
	t.Logf("caught in %v: %s", time.Since(begun).Round(100*time.Millisecond), problemIn(out))
}

// problemIn returns the first problem that a worker's output tells of.
func problemIn(out string) string {
	_, rest, _ := strings.Cut(out, "seed ")
	lines := strings.SplitN(rest, "\n", 3)
	if len(lines) < 2 {
		return out
	}
	return "seed " + lines[0] + " " + strings.TrimSpace(lines[1])
}

// skipBroken skips tests that say nothing about races, and take a minute.
func skipBroken(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes a minute")
	}
}

// atOnce bounds the processes that run at one time.
var atOnce = make(chan struct{}, runtime.GOMAXPROCS(0))

// TestBrokenWorld has the world lie to the nodes, or clients leave out what
// they owe.
func TestBrokenWorld(t *testing.T) {
	skipBroken(t)
	for _, test := range []struct {
		name string
		Config
		how string
	}{
		{"a disk that lies about fsync", Config{Break: Break{LyingDisk: true}}, ""},
		{"no dedupe", Config{Break: Break{NoDedupe: true}}, "not linearizable"},
		{"vote right after restart", Config{Break: Break{ForgottenVote: true}, Only: "pair,crash", Every: 100 * time.Millisecond}, "two leases"},
		{"read index skipped", Config{Break: Break{SkipReadIndex: true}}, "not linearizable"},
		{"commit by a minority", Config{Break: Break{ForgedAppends: true}}, ""},
		{"drift beyond the margin", Config{Drift: 20, Only: "partition,oneway,clock", Every: breakEvery}, "two leases"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			wantCaught(t, os.Args[0], test.Config, test.how)
		})
	}
}

// mutant is a change of the nodes' source that must be noticed.
type mutant struct {
	name string
	file string // below the module's root
	old  string // occurs there once
	new  string // %[1]s is true where this mutant is wanted
	only string // kinds of faults; all
	how  string // part of what is noticed; anything

	founders int // of the cluster; as many as the seed draws
}

var mutants = []mutant{
	{
		name: "acknowledged before fsync", file: "raftgroup/etcd/readyloop.go",
		old:  "l.engine.Log.Save(w.log, true)",
		new:  "l.engine.Log.Save(w.log, !%[1]s)",
		only: "crash,trap,crashall",
	},
	{
		name: "lease from reply time", file: "raftgroup/etcd/lease.go",
		old:  "ls.group.Lease.Store(r.list[closed].sent + e.leaseNanos)",
		new:  "if %[1]s { r.list[closed].sent = e.Clock.Boot() }; ls.group.Lease.Store(r.list[closed].sent + e.leaseNanos)",
		only: "slow,oneway,pause",
		how:  "two leases",
	},
	{
		name: "lease kept during a transfer", file: "raftgroup/etcd/lease.go",
		old:  "ls.rounds.voided = true",
		new:  "if %[1]s { return }; ls.rounds.voided = true",
		only: "transfer,slow,oneway",
		how:  "two leases",
	},
	{
		name: "leader behind its followers", file: "raftgroup/read.go",
		old:  "return n.store.Applied(shard) >= announced",
		new:  "return %[1]s || n.store.Applied(shard) >= announced",
		only: "stall,weather",
		how:  "not linearizable",
	},
	{
		name: "snapshot half installed", file: "raftgroup/etcd/snapshot.go",
		old: "e.Store.Install(ss.staged.install)",
		new: "func() error { if %[1]s { return nil }; return e.Store.Install(ss.staged.install) }()",
	},
	{
		name: "unknown told as failed", file: "raftgroup/etcd/proposals.go",
		old: "for _, p := range ps.inflight {\n\t\te.applier.Finish(p.done, command.TimedOut)",
		new: "for _, p := range ps.inflight {\n\t\tif %[1]s { e.applier.Finish(p.done, command.Dropped); continue }\n\t\te.applier.Finish(p.done, command.TimedOut)",
		how: "not linearizable",
	},
	{
		name: "proposals of two terms mixed up", file: "raftgroup/etcd/proposals.go",
		old:  "for at > 0 && ps.inflight[at-1].index >= p.index {",
		new:  "for !%[1]s && at > 0 && ps.inflight[at-1].index >= p.index {",
		only: "transfer,partition,oneway",
		how:  "not linearizable",
	},
	{
		name: "age from when the message came", file: "raftgroup/etcd/lease.go",
		old:  "ls.rounds.leaderCommit, ls.rounds.leaderTime = commit, at",
		new:  "if %[1]s { at = e.Clock.Boot() }; ls.rounds.leaderCommit, ls.rounds.leaderTime = commit, at",
		only: "slow,partition,crash",
		how:  "a stale read",
	},
	{
		name: "half a command over several shards", file: "raftgroup/etcd/across.go",
		old:      "for i := range p.parts {\n\t\tc := p.partCommand(i)",
		new:      "for i := range p.parts {\n\t\tif %[1]s && i == 1 { a.Complete(command.Tag{ID: 1}, command.Applied, &command.Result{}); continue }\n\t\tc := p.partCommand(i)",
		founders: 1,
	},
}

// mutantEnv names the mutant that a broken build is.
const mutantEnv = "PROA_SIM_MUTANT"

// TestMutants builds the simulator with all mutants in it, each behind a
// switch, and runs it with each in turn.
func TestMutants(t *testing.T) {
	skipBroken(t)
	binary := buildMutants(t)
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			wantCaught(t, binary, Config{Only: m.only, Founders: m.founders, Every: breakEvery}, m.how, mutantEnv+"="+m.name)
		})
	}
}

// buildMutants returns the path of a test binary of this package whose nodes
// can be broken.
func buildMutants(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sources := make(map[string]string) // changed, by file
	for _, m := range mutants {
		text, ok := sources[m.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, m.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if n := strings.Count(text, m.old); n != 1 {
			t.Fatalf("mutant %q: %q occurs %d times in %s; adapt the mutant to the present source", m.name, m.old, n, m.file)
		}
		sources[m.file] = strings.Replace(text, m.old, fmt.Sprintf(m.new, fmt.Sprintf("mutant(%q)", m.name)), 1)
		pkg := filepath.Dir(m.file)
		sources[pkg+"/mutant.go"] = "package " + filepath.Base(pkg) + "\n\nimport \"os\"\n\nvar mutation = os.Getenv(\"" + mutantEnv + "\")\n\nfunc mutant(name string) bool { return mutation == name }\n"
	}
	replace := make(map[string]string)
	for file, text := range sources {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayPath, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	if err := os.WriteFile(overlayPath, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlayPath, "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the mutants: %v\n%s", err, out)
	}
	return binary
}
