//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/internal/spawn"
)

// programs holds the servers that were built for the tests.
var programs struct {
	once sync.Once
	dir  string
	path map[string]string
	err  error
}

// The test program is an echo server where the program would be one.
func TestMain(m *testing.M) {
	if served, err := rig.ServeFloor(os.Args[1:]); served {
		if err != nil {
			panic(err)
		}
		return
	}
	status := m.Run()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	os.Exit(status)
}

// findPrograms builds or finds all servers, once.
func findPrograms(t *testing.T) map[string]string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds servers and runs them for some seconds")
	}
	programs.once.Do(func() {
		programs.path = map[string]string{}
		if programs.dir, programs.err = os.MkdirTemp("", "proa-peers-test-*"); programs.err != nil {
			return
		}
		for _, p := range peers {
			path, version, err := p.program(context.Background(), &options{redis: "redis-server"}, programs.dir)
			if errors.Is(err, errMissing) {
				continue
			}
			if err == nil && !strings.ContainsAny(version, "0123456789") {
				err = errors.New(p.name() + " says " + version)
			}
			programs.path[p.name()], programs.err = path, errors.Join(programs.err, err)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.path
}

// quick returns the options of a smoke run.
func quick(t *testing.T, args ...string) options {
	t.Helper()
	path := findPrograms(t)
	o, err := parseFlags(append([]string{"-quick", "-proa", path["Proa"], "-etcd", path["etcd"], "-dir", t.TempDir(), "-limit", "3m"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
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

// figuresOf runs the program with o, and returns what it wrote to o.JSON and to
// its output.
func figuresOf(t *testing.T, o options) (d document, out bytes.Buffer) {
	t.Helper()
	var progress bytes.Buffer
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatal(err, progress.String())
	}
	checkNothingLeft(t, o.Dir)
	b, err := os.ReadFile(o.JSON)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d, out
}

// The smoke run goes through real servers, one node of each and a cluster of
// etcd, and leaves nothing behind.
func TestQuick(t *testing.T) {
	files := t.TempDir()
	o := quick(t, "-only", "1 node|etcd", "-json", filepath.Join(files, "figures.json"), "-write", filepath.Join(files, "performance.md"), "-html", filepath.Join(files, "page.html"))
	d, out := figuresOf(t, o)
	if want := 4*len(d.Versions) + 3; len(d.Rows) != want || len(d.Versions) < 2 {
		t.Errorf("%d rows of %v, want %d", len(d.Rows), d.Versions, want)
	}
	if len(d.Starts) != len(d.Versions) {
		t.Errorf("%d starts of %v", len(d.Starts), d.Versions)
	}
	for _, s := range d.Starts {
		if len(s.First) != 1 || len(s.Again) != 1 || s.First[0] <= 0 || s.Again[0] <= 0 || s.ProgramBytes < 1<<20 || len(s.RestOne) != 1 || s.RestOne[0] < 0 {
			t.Errorf("start: %+v", s)
		}
	}
	for _, r := range d.Rows {
		if s := r.Rounds[0]; len(r.Rounds) != 1 || s.Ops == 0 || s.Rate <= 0 || s.P50 <= 0 || s.P50 > s.P99 || s.ServerCPU <= 0 || s.GeneratorCPU <= 0 || len(s.Failures) > 0 || r.TimesFloor <= 0 {
			t.Errorf("%s, %s: %+v", r.Operation, r.Server, r)
		}
	}
	page, err := os.ReadFile(o.Write)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<!-- compare: begin", "### GET, 3 nodes, 256 callers, 16 connections", "smoke run", "etcd 3."} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	checkPage(t, o)
	if strings.Contains(string(page), o.Dir) || !strings.Contains(out.String(), "an answer means") {
		t.Errorf("printed: %s, page: %s", out.String(), page)
	}
}

// checkPage checks the page with the curves.
func checkPage(t *testing.T, o options) {
	t.Helper()
	page, err := os.ReadFile(o.HTML)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<h2>PUT, 1 node, 512 callers, 16 connections: latency by percentile</h2>", "<h2>GET, 3 nodes, 256 callers, 16 connections: latency by percentile</h2>", "Floors beside one node", "smoke run"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page with the curves lacks %q", want)
		}
	}
	if got := strings.Count(string(page), "<figure"); got != len(rows)+len(sizes) || strings.Contains(string(page), o.Dir) {
		t.Errorf("%d charts of %d rows and the floors of %d sizes", got, len(rows), len(sizes))
	}
}

// Cancelled in the middle, a run ends what it has started.
func TestCancelled(t *testing.T) {
	o := quick(t, "-only", "PUT, 3 nodes.*etcd")
	ctx, cancel := context.WithCancel(t.Context())
	when := writerFunc(func(p []byte) {
		if bytes.Contains(p, []byte("round 1")) {
			cancel()
		}
	})
	if err := run(ctx, o, io.Discard, when); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkNothingLeft(t, o.Dir)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// A server that does not start is left out, and the run says so at its end.
func TestServerThatEnds(t *testing.T) {
	script := filepath.Join(t.TempDir(), "proa")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'no such disk' >&2; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := quick(t, "-only", "(start|PUT), 1 node.*(Proa|etcd)")
	o.Proa = script
	var out bytes.Buffer
	err := run(t.Context(), o, &out, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "Proa, one node") || !strings.Contains(err.Error(), "Proa, starting, from round 1 on") || !strings.Contains(err.Error(), "no such disk") {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "Proa, one node, could not be measured.") || !strings.Contains(out.String(), "etcd") {
		t.Error(out.String())
	}
	checkNothingLeft(t, o.Dir)
}

// The wait for rest, and the measurement of it, pass over a server that has ended.
func TestRestWithoutOneThatEnded(t *testing.T) {
	command := func(script string) *cluster {
		cl, err := rig.StartCluster(t.Context(), t.TempDir(), 1, rig.Kind{
			Name: "shell", Command: func(*rig.Cluster, *rig.Node) []string { return []string{"sh", "-c", script} },
			Ready: func(context.Context, *rig.Cluster) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cl.Stop() })
		return &cluster{peer: etcd{}, Cluster: cl}
	}
	ended, runs := command("exit 0"), command("exec sleep 600")
	ended.peer = redis{}
	<-ended.Nodes[0].Exited()
	c := synthetic(100)
	end := c.measureRest(1, []*cluster{ended, runs})
	if err := rest(t.Context(), []*cluster{ended, runs}); err != nil {
		t.Error(err)
	}
	end()
	if n, none := len(c.cells[cell{resting(1), "etcd"}]), len(c.cells[cell{resting(1), "Redis"}]); n != 1 || none != 0 {
		t.Errorf("%d figures of a server that runs, %d of one that ended", n, none)
	}
}

// What the clients of the servers make of answers and failures.
func TestDrivers(t *testing.T) {
	for _, p := range peers {
		program := findPrograms(t)[p.name()]
		if program == "" {
			continue
		}
		cl, err := rig.StartCluster(t.Context(), t.TempDir(), 1, complete(p, program))
		if err != nil {
			t.Fatal(err)
		}
		d, err := p.connect(t.Context(), cl.Endpoints(), 3)
		if err != nil {
			t.Fatal(err)
		}
		key, value := bench.AppendKey(nil, 5), bench.NewValue(128, 1)
		if _, err := d.Get(t.Context(), 7, key); err != rig.ErrAbsent {
			t.Errorf("%s: an absent key: %v", p.name(), err)
		}
		if err := d.Put(t.Context(), 4, key, value); err != nil {
			t.Errorf("%s: %v", p.name(), err)
		}
		if n, err := d.Get(t.Context(), 2, key); n != 128 || err != nil {
			t.Errorf("%s: a value of %d bytes, %v", p.name(), n, err)
		}
		if err := cl.Stop(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err = d.Put(ctx, 0, key, value); err == nil || !classified(d, err) {
			t.Errorf("%s: a write to a server that ended: %v, class %q", p.name(), err, d.Class(err))
		}
		cancel()
		if err := d.Close(); err != nil {
			t.Errorf("%s: %v", p.name(), err)
		}
	}
}

// classified reports whether an error has a class, without an address in it. A
// deadline has one in any case.
func classified(d rig.Driver, err error) bool {
	class := d.Class(err)
	return (class != "" || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF)) && !strings.Contains(class, "127.0.0.1")
}

// A cluster is told all its nodes, each its own addresses and directory.
func TestCommands(t *testing.T) {
	nodes := []*rig.Node{{ID: 1, Client: "c:1", Peer: "p:1", Data: "/d/1"}, {ID: 2, Client: "c:2", Peer: "p:2", Data: "/d/2"}, {ID: 3, Client: "c:3", Peer: "p:3", Data: "/d/3"}}
	for _, tc := range []struct {
		peer
		nodes int
		want  string
	}{
		{proa{}, 1, "server serve --data /d/1 --listen c:1 --admin-listen off --log-level warn --peer-listen off --set network.transport=auto --set raft.engine=etcd"},
		{proa{}, 3, "server serve --data /d/1 --listen c:1 --admin-listen off --log-level warn --node-id 1 --peer-listen p:1 --join p:1,p:2,p:3 --set network.transport=auto --set raft.engine=etcd"},
		{proa{transport: "netpoll"}, 1, "server serve --data /d/1 --listen c:1 --admin-listen off --log-level warn --peer-listen off --set network.transport=netpoll --set raft.engine=etcd"},
		{proa{engine: "dragonboat"}, 3, "server serve --data /d/1 --listen c:1 --admin-listen off --log-level warn --node-id 1 --peer-listen p:1 --join p:1,p:2,p:3 --set network.transport=auto --set raft.engine=dragonboat"},
		{proa{"netpoll", "dragonboat"}, 1, "server serve --data /d/1 --listen c:1 --admin-listen off --log-level warn --peer-listen off --set network.transport=netpoll --set raft.engine=dragonboat"},
		{etcd{}, 1, "server --name n1 --data-dir /d/1 --listen-client-urls http://c:1 --advertise-client-urls http://c:1 --listen-peer-urls http://p:1 --initial-advertise-peer-urls http://p:1 --initial-cluster n1=http://p:1 --initial-cluster-state new --quota-backend-bytes 8589934592 --log-level warn"},
		{etcd{}, 3, "server --name n1 --data-dir /d/1 --listen-client-urls http://c:1 --advertise-client-urls http://c:1 --listen-peer-urls http://p:1 --initial-advertise-peer-urls http://p:1 --initial-cluster n1=http://p:1,n2=http://p:2,n3=http://p:3 --initial-cluster-state new --quota-backend-bytes 8589934592 --log-level warn"},
		{redis{}, 1, "server --port 1 --bind 127.0.0.1 --daemonize no --dir /d --save  --auto-aof-rewrite-percentage 0 --appendonly yes --appendfsync always"},
	} {
		c := &rig.Cluster{Cluster: &spawn.Cluster{Nodes: nodes[:tc.nodes]}}
		if diff := cmp.Diff(tc.want, strings.Join(tc.kind("server").Command(c, nodes[0]), " ")); diff != "" {
			t.Errorf("%s, %d nodes: %s", tc.name(), tc.nodes, diff)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-duration", "0s"}, {"-keys", "0"}, {"-benchmark-keys", "0"}, {"-benchmark-keys", "1000000001"}, {"-value", "0"}, {"-value", "1048577"}, {"-limit", "0s"}, {"argument"}, {"-nonsense"}, {"-servers", ""}, {"-servers", "proa,Redis"}} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%q were accepted", args)
		}
	}
	o, err := parseFlags([]string{"-only", "GET", "-value", "1048576", "-servers", "proa-netpoll-dragonboat,etcd"}, io.Discard)
	if want := "peers -rounds 5 -duration 2s -keys 100000 -benchmark-keys 1000000 -value 1048576 -only 'GET' -servers proa-netpoll-dragonboat,etcd"; err != nil || o.command() != want {
		t.Errorf("%v, %v", o.command(), err)
	}
}

// -only chooses rows and servers, -servers these alone; what matches nothing is an
// error before anything is built.
func TestOnly(t *testing.T) {
	for _, tc := range []struct {
		only   string
		chosen list
		want   int
	}{
		{"", nil, 4*6 + 3*4}, {"3 nodes", nil, 12}, {"ETCD", nil, 7}, {"netpoll", nil, 11}, {"dragonboat", nil, 14},
		{"put, 1 node, 64 .*(proa|etcd)$", nil, 2}, {"redis", nil, 4}, {"nothing", nil, 0},
		{"", list{"proa", "proa-dragonboat", "etcd"}, 21}, {"", list{"proa-netpoll"}, 4}, {"3 nodes", list{"proa", "redis"}, 3}, {"etcd", list{"redis"}, 0},
	} {
		c, err := newComparison(options{only: tc.only, chosen: tc.chosen}, new(rig.Lab))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, r := range rows {
			for _, p := range peers {
				if p.supports(r.nodes) && c.wanted(r, p) {
					n++
				}
			}
		}
		if n != tc.want {
			t.Errorf("%q of %q matches %d, want %d", tc.only, tc.chosen, n, tc.want)
		}
	}
	o := options{Options: rig.Options{Dir: t.TempDir(), Rounds: 1, Step: time.Second, Limit: time.Minute}, only: "nothing", keys: 1, value: 1}
	if err := run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), `-only "nothing"`) {
		t.Error(err)
	}
	o.only = "("
	if err := run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "-only") {
		t.Error(err)
	}
	checkNothingLeft(t, o.Dir)
}

func TestProgramsMissing(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	o := &options{Options: rig.Options{Proa: none}, etcd: none, redis: none}
	if _, _, err := (proa{}).program(t.Context(), o, ""); err == nil || errors.Is(err, errMissing) || !strings.Contains(err.Error(), "make build") {
		t.Error(err)
	}
	for _, p := range []peer{etcd{}, redis{}} {
		if _, _, err := p.program(t.Context(), o, ""); !errors.Is(err, errMissing) {
			t.Errorf("%s: %v", p.name(), err)
		}
	}
	o.redis = ""
	if _, _, err := (redis{}).program(t.Context(), o, ""); !errors.Is(err, errMissing) {
		t.Error(err)
	}
	if err := build(t.Context(), t.TempDir(), none, "./cmd"); err == nil || !strings.Contains(err.Error(), "bench/peers") {
		t.Error(err)
	}
}
