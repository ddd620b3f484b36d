package demo

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// envServer makes the test binary a server that waits for SIGTERM, and says
// what it was given; or, with "fail", one that ends at once.
const envServer = "DEMO_TEST_SERVER"

func actAsServer() {
	switch os.Getenv(envServer) {
	case "":
		return
	case "fail":
		fmt.Println("cannot start: no reason")
		os.Exit(3)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println(os.Args[1:])
	if dir := os.Getenv("DEMO_TEST_READY"); dir != "" {
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprint(os.Getpid())), nil, 0o600)
	}
	<-stop
	fmt.Println("stopped in order")
	os.Exit(0)
}

func testFleet(t *testing.T) fleet {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFleet(program, t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f
}

func TestFleet(t *testing.T) {
	ready := t.TempDir()
	t.Setenv(envServer, "1")
	t.Setenv("DEMO_TEST_READY", ready)
	t.Setenv("PROA_NODE_ID", "9")
	f := testFleet(t)
	for node := 1; node <= 3; node++ {
		if err := f.start(node); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range f.Nodes {
		awaitFile(t, filepath.Join(ready, fmt.Sprint(p.PID())))
	}
	if err := f.trouble(); err != nil {
		t.Error(err)
	}
	pid := f.Nodes[1].PID()
	if err := f.kill(2); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the killed server is still there: %v", err)
	}
	if err := f.kill(2); err == nil {
		t.Error("a server was killed twice")
	}
	if err := f.trouble(); err != nil {
		t.Errorf("a killed server is trouble: %v", err)
	}
	if err := f.start(2); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, filepath.Join(ready, fmt.Sprint(f.Nodes[1].PID())))
	f.stop()
	for node := 1; node <= 3; node++ {
		text, err := os.ReadFile(f.Nodes[node-1].Data + ".log")
		if err != nil {
			t.Fatal(err)
		}
		log := string(text)
		peers := f.Nodes[0].Peer + "," + f.Nodes[1].Peer + "," + f.Nodes[2].Peer
		for _, want := range []string{"stopped in order", fmt.Sprintf("--node-id %d ", node), "--join " + peers, "--listen " + f.Nodes[node-1].Client} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in the log of server %d:\n%s", want, node, log)
			}
		}
	}
}

// awaitFile returns when a process has made a file.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("no %s", path)
		default:
		}
	}
}

func TestFleetTrouble(t *testing.T) {
	t.Setenv(envServer, "fail")
	f := testFleet(t)
	if err := f.start(3); err != nil {
		t.Fatal(err)
	}
	<-f.Nodes[2].Exited()
	if err := f.trouble(); err == nil || !strings.Contains(err.Error(), "server 3 has ended") || !strings.Contains(err.Error(), "no reason") {
		t.Errorf("trouble: %v", err)
	}
}

// Run cleans up where the servers cannot run, and keeps what tells why.
func TestRunFails(t *testing.T) {
	t.Setenv(envServer, "fail")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	var b strings.Builder
	err = Run(t.Context(), Options{Nodes: 3, Duration: DurationMin, Program: program, Parent: parent, Out: &b})
	if err == nil || !strings.Contains(err.Error(), "has ended") || !strings.Contains(err.Error(), parent) {
		t.Fatalf("%v\n%s", err, &b)
	}
	if logs, _ := filepath.Glob(filepath.Join(parent, "proa-demo-*", "node1.log")); len(logs) != 1 {
		t.Errorf("logs are gone: %v", logs)
	}
}
