//go:build linux

package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/config"
)

// buildProa builds the server.
func buildProa(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the server and runs clusters of it")
	}
	path := filepath.Join(t.TempDir(), "proa")
	out, err := exec.Command("go", "build", "-o", path, "../../../cmd/proa").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// The smoke run goes through everything there is, against real servers, and
// leaves nothing behind.
func TestQuick(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "performance.md")
	o, err := parseFlags([]string{"-quick", "-proa", buildProa(t), "-dir", dir, "-write", file, "-limit", "10m"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatal(err, progress.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<!-- failover: begin", "## Targets", "median of 1, ms | ≤ 900 |", "longest pause of 8, ms | ≤ 50 |", "| acknowledged writes lost, all parts | ≤ 0 | 0 | met |",
		"| none | pause of one shard | 8 |", "| SIGKILL | pause of the others | 1 |", "| SIGKILL and start again | with a session |", "## 8 and 64 shards",
		"smoke run", "**Machine:**", "**Versions:** proa ", "**Date:**", "make failover", "## How failover was measured", "<!-- failover: end -->",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(text), dir) || strings.Contains(string(text), report.NotMeasured) {
		t.Errorf("the page names a directory of this machine, or lacks figures:\n%s", text)
	}
	checkNothingLeft(t, dir)
}

// checkNothingLeft checks that no data and no child process is left.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child process is left: %v", err)
	}
}

// Cancelled under load, a run ends what it has started.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	o, err := parseFlags([]string{"-quick", "-proa", buildProa(t), "-dir", dir}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	when := writerFunc(func(p []byte) {
		if bytes.Contains(p, []byte("SIGTERM")) {
			cancel()
		}
	})
	if err := run(ctx, o, io.Discard, when); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkNothingLeft(t, dir)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-kills", "0"}, {"-transfers", "0"}, {"-stops", "0"}, {"-rounds", "0"}, {"-calm", "0s"}, {"-step", "0s"}, {"-keys", "0"}, {"-limit", "0s"},
		{"-value", "19"}, {"-value", "1048577"}, {"more"}, {"-unknown"},
	} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	o, err := parseFlags([]string{"-kills", "3", "-value", "20"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseFlags(strings.Fields(o.command())[2:], io.Discard)
	if err != nil || again != o {
		t.Errorf("%q gives %+v, %v", o.command(), again, err)
	}
	o.Proa = filepath.Join(t.TempDir(), "absent")
	if err := run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without the program: %v", err)
	}
}

// The target is the issue's: one and a half of what the servers run with.
func TestElectionTimeout(t *testing.T) {
	c, err := config.Load(config.Options{Environ: func() []string { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if got := float64(c.Raft.ElectionTimeoutMax.Milliseconds()); got != electionTimeoutMax {
		t.Errorf("servers run with %v ms, the target is made from %v", got, electionTimeoutMax)
	}
}

// healthy returns the status of a cluster whose groups have the given leaders,
// the meta group first.
func healthy(leaders ...uint64) *command.ClusterStatus {
	s := &command.ClusterStatus{}
	for id := range uint64(size) {
		s.Nodes = append(s.Nodes, command.NodeInfo{ID: id + 1, State: command.NodeUp})
	}
	for i, leader := range leaders {
		s.Shards = append(s.Shards, command.ShardInfo{Shard: i - 1, Leader: leader, Replicas: make([]command.ReplicaInfo, size)})
	}
	return s
}

// The node that leads most shards is found, the meta group aside, and equals
// take turns.
func TestBusiest(t *testing.T) {
	for round := range 6 {
		if got := busiest(healthy(1, 1, 2, 2), round); got != 2 {
			t.Errorf("round %d: node %d", round, got)
		}
		if got := busiest(healthy(1, 1, 2, 3), round); got != uint64(round%size+1) {
			t.Errorf("of equals, round %d: node %d", round, got)
		}
	}
}

func TestSuccessor(t *testing.T) {
	s := healthy(1, 2, 3, 0)
	for shard, want := range []uint64{3, 1} {
		if _, next, err := successor(s, shard); next != want || err != nil {
			t.Errorf("shard %d goes to node %d, %v", shard, next, err)
		}
	}
	for _, shard := range []int{2, 7} {
		if _, _, err := successor(s, shard); err == nil {
			t.Errorf("shard %d has a leader", shard)
		}
	}
}

func TestClassOf(t *testing.T) {
	unknown := &client.Error{Op: "PUT", Outcome: client.Unknown, Err: fmt.Errorf("127.0.0.1:1: %w", client.ErrConnectionLost)}
	if got, want := classOf(unknown), client.ErrConnectionLost.Error()+", outcome unknown"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := classOf(io.EOF); got != "other" {
		t.Errorf("%q", got)
	}
}

// The verdict is on the ratio of the medians; the range is that of the rounds.
func TestRatioOfMedians(t *testing.T) {
	rates := func(v ...float64) (s rig.Series) {
		for _, rate := range v {
			s = append(s, rig.Sample{Rate: rate})
		}
		return s
	}
	got := ratioOfMedians(rates(1, 2, 3), rates(2, 1, 2), rig.Rate)
	if want := (report.Ratio{Median: 1, Low: 0.5, High: 2}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got := ratioOfMedians(nil, rates(1), rig.Rate); got != (report.Ratio{}) {
		t.Errorf("of nothing: %v", got)
	}
}

// Every target is held against the right figure.
func TestTargets(t *testing.T) {
	const ms = 1e6
	good := func() *measurement {
		return &measurement{
			Lab:  new(rig.Lab),
			back: figures{2000 * ms, 900 * ms, 100 * ms}, moved: figures{1 * ms, 50 * ms}, stopped: figures{50 * ms},
			many: rig.Series{{Rate: 85}}, few: rig.Series{{Rate: 100}},
		}
	}
	bad := map[int]func(*measurement){
		0: func(m *measurement) { m.back[1] = 901 * ms },
		1: func(m *measurement) { m.moved[0] = 51 * ms },
		2: func(m *measurement) { m.moving.writes[plain].failed = 1 },
		3: func(m *measurement) { m.stopped = append(m.stopped, 50.1*ms) },
		4: func(m *measurement) { m.stopping.writes[session].failed = 1 },
		5: func(m *measurement) { m.lost = 1 },
		6: func(m *measurement) { m.many[0].Rate = 84 },
	}
	rows := good().targetTable().Rows
	if len(rows) != len(bad) {
		t.Fatalf("%d targets, %d are tested", len(rows), len(bad))
	}
	for i, row := range rows {
		if row[3] != "met" {
			t.Errorf("at its bound: %q", row)
		}
		m := good()
		bad[i](m)
		for j, row := range m.targetTable().Rows {
			if got := row[3]; (got == "met") != (i != j) {
				t.Errorf("beyond bound %d: %q", i, row)
			}
		}
	}
}
