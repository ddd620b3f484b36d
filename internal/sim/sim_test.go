package sim

import (
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seedFlag     = flag.Uint64("seed", 1, "the first seed to run")
	seedsFlag    = flag.Int("seeds", 0, "how many seeds to run; 0: 250, or 20 with -short or the race detector")
	onlyFlag     = flag.String("only", "", "the one kind of fault to let happen")
	everyFlag    = flag.Duration("every", 0, "the mean time between faults; 0: as the seed draws it")
	foundersFlag = flag.Int("founders", 0, "how many nodes found the cluster; 0: as many as the seed draws")
	driftFlag    = flag.Float64("drift", 1, "how far clocks differ, against what nodes allow for")
)

// simulate runs one seed in a bubble of its own.
func simulate(t *testing.T, c Config) *Outcome {
	t.Helper()
	var o *Outcome
	synctest.Test(t, func(*testing.T) { o = Run(c) })
	return o
}

// TestSeed runs the one seed of -seed. With -v it shows every event, and what
// the nodes log.
func TestSeed(t *testing.T) {
	c := Config{Seed: *seedFlag, Only: *onlyFlag, Founders: *foundersFlag, Every: *everyFlag, Drift: *driftFlag, LogLevel: slog.LevelDebug}
	if testing.Verbose() {
		c.Trace = os.Stderr
	}
	o := simulate(t, c)
	report(t, o)
	t.Logf("%v of virtual time, %d events: %+v; trace %016x", o.Virtual, o.Events, o.Stats, o.Hash)
}

// report fails the test with what is wrong with a run.
func report(t *testing.T, o *Outcome) {
	t.Helper()
	problems := o.Check()
	if len(problems) == 0 {
		return
	}
	t.Errorf("seed %d:\n  %s\nlast events:\n%s\nreplay: go test ./internal/sim -run 'TestSeed$' -seed %d -v",
		o.Seed, strings.Join(problems, "\n  "), strings.Join(o.Recent[max(0, len(o.Recent)-60):], "\n"), o.Seed)
}

// TestOneFounder plays clusters of one founder that grow amid faults, and first the seeds in
// which one was not whole in the end: a removed node whose only successor was drained, a
// learner without a snapshot that was made a voter, a leadership on its way while counters
// were compared.
func TestOneFounder(t *testing.T) {
	seeds := []uint64{2265, 2661, 2624}
	if !testing.Short() {
		for seed := uint64(1); seed <= 40; seed++ {
			seeds = append(seeds, seed)
		}
	}
	for _, seed := range seeds {
		report(t, simulate(t, Config{Seed: seed, Founders: 1, Every: 150 * time.Millisecond}))
	}
}

// TestReplay checks that a seed is one run, whatever else the machine does.
func TestReplay(t *testing.T) {
	seeds := 12
	if testing.Short() || raceEnabled {
		seeds = 3
	}
	for seed := uint64(1); seed <= uint64(seeds); seed++ {
		first := simulate(t, Config{Seed: seed})
		again := simulate(t, Config{Seed: seed})
		if first.Hash != again.Hash || first.Events != again.Events {
			t.Errorf("seed %d: %d events, trace %016x; then %d events, trace %016x", seed, first.Events, first.Hash, again.Events, again.Hash)
		}
	}
}

// TestSeeds runs many seeds, in as many processes as there are processors: a
// run has its process to itself, for the source of Raft's randomness is one for
// the whole of it.
func TestSeeds(t *testing.T) {
	seeds := *seedsFlag
	if seeds == 0 {
		seeds = 250
		if testing.Short() || raceEnabled {
			seeds = 20
		}
	}
	workers := min(runtime.GOMAXPROCS(0), seeds)
	begun := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			j := job{Config: Config{Seed: *seedFlag + uint64(w), Only: *onlyFlag, Drift: *driftFlag}, Step: workers, Seeds: (seeds - w + workers - 1) / workers, Failures: 3}
			if out, err := work(os.Args[0], j); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds in %v", seeds, time.Since(begun).Round(time.Second))
}

// TestSeedsAlone runs clusters that one node founds, which carries out commands
// over all shards until others join.
func TestSeedsAlone(t *testing.T) {
	seeds := 60
	if testing.Short() || raceEnabled {
		seeds = 10
	}
	j := job{Config: Config{Seed: *seedFlag, Founders: 1}, Step: 1, Seeds: seeds, Failures: 3}
	if out, err := work(os.Args[0], j); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// job is what a process of its own runs: seeds that are a step apart, from the
// one of Config on, until so many have failed.
type job struct {
	Config
	Step, Seeds, Failures int
}

// jobEnv tells TestWorker what to run, as JSON.
const jobEnv = "PROA_SIM_JOB"

// work has a test binary of this package do a job, and returns its output.
func work(binary string, j job, env ...string) (string, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(binary, "-test.run=^TestWorker$", "-test.timeout=0")
	// One thread of Go code: a run has one goroutine that does something at a
	// time, and what it wakes comes after it.
	cmd.Env = append(append(os.Environ(), jobEnv+"="+string(b), "GOMAXPROCS=1"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestWorker is one process of those that work starts.
func TestWorker(t *testing.T) {
	text, ok := os.LookupEnv(jobEnv)
	if !ok {
		t.Skip("for processes that other tests start")
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		t.Fatal(err)
	}
	for range j.Seeds {
		ok := t.Run(strconv.FormatUint(j.Seed, 10), func(t *testing.T) { report(t, simulate(t, j.Config)) })
		if !ok {
			j.Failures--
		}
		if j.Failures == 0 {
			return
		}
		j.Seed += uint64(j.Step)
	}
}
