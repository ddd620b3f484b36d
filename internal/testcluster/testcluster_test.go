package testcluster

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(envFake) != "" {
		fakeServer(os.Args[1:])
	}
	Main(m)
}

func TestLifeCycle(t *testing.T) {
	n := Start(t, Config{Args: []string{"--shards=2"}, Settings: []string{"concurrency.max_connections=100"}})
	first := n.PID()
	n.Restart()
	if n.PID() == first {
		t.Error("Restart kept the process")
	}
	n.Stop()
	if n.PID() != 0 {
		t.Errorf("PID is %d after Stop", n.PID())
	}
	n.Verify()
	n.Start()
	n.Kill()
	if log := n.Log(); !strings.Contains(log, "shards=2") || !strings.Contains(log, "stopped") {
		t.Errorf("the log does not hold what was written:\n%s", log)
	}
}

func TestUnixSocket(t *testing.T) {
	n := Start(t, Config{Address: "unix://" + t.TempDir() + "/s"})
	n.Stop()
}

func TestRun(t *testing.T) {
	t.Setenv("PROA_NODE_ID", "not a number")
	if r := Run(t, Command{Args: []string{"version"}}); r.Status != 0 || !strings.HasPrefix(r.Stdout, "proa ") {
		t.Errorf("proa version: %+v", r)
	}
	if r := Run(t, Command{Args: []string{"no-such-command"}}); r.Status != 2 || r.Stderr == "" {
		t.Errorf("an unknown command: %+v", r)
	}
	n := Start(t, Config{Env: []string{"PROA_NODE_ID=7"}})
	if !strings.Contains(n.Log(), "node=7") {
		t.Error("Env did not reach the server")
	}
}
