package spawn

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPortsAreFree(t *testing.T) {
	ports, err := FreePorts(14)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range ports {
		ln, err := net.Listen("tcp", Loopback(p))
		if err != nil {
			t.Error(err)
			continue
		}
		ln.Close()
		if claim(p) == nil {
			t.Errorf("another process may draw port %s, too", p)
		}
		if seen[p] {
			t.Errorf("port %s twice", p)
		}
		seen[p] = true
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, tt := range []struct{ text, want string }{
		{"a\nb\n", "a\nb"},
		{strings.Repeat("x", 3*tailBytes) + "\nlast\n", "last"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (&Process{log: path}).Tail(); got != tt.want {
			t.Errorf("Tail() = %.40q, want %q", got, tt.want)
		}
	}
}

// A process ends when it is told to, and what it wrote last is in the error.
func TestProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	launch := func(script string) *Process {
		t.Helper()
		p, err := Launch("sleeper", log, exec.Command("/bin/sh", "-c", script))
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	ended := launch("echo no reason; exit 3")
	<-ended.Exited()
	if err := ended.Alive(); !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "sleeper") || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no reason") {
		t.Error(err)
	}
	ps := []*Process{launch("exec sleep 60"), launch("exec sleep 60"), launch("exec sleep 60")}
	for _, p := range ps {
		if err := p.Alive(); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		ps[0].Kill()
		if err := ps[0].Result(); err == nil || err.Error() != "signal: killed" {
			t.Error(err)
		}
	}
	if err := StopAll(time.Minute, ps...); err != nil || ps[2].Alive() == nil {
		t.Error(err)
	}
	if err := ps[2].Signal(os.Interrupt); err != nil {
		t.Errorf("a signal for a process that has ended: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	for _, name := range []string{"PROA_LISTEN_CLIENT", "PROA_NETWORK_TRANSPORT", "PROA_RAFT_ENGINE", "GOGC", "SPAWN_TEST"} {
		t.Setenv(name, "1")
	}
	got := strings.Join(Environment("GOGC"), " ") + " "
	if strings.Contains(got, "PROA_LISTEN_CLIENT=") || strings.Contains(got, "GOGC=") || !strings.Contains(got, "SPAWN_TEST=1 ") || !strings.Contains(got, "PROA_NETWORK_TRANSPORT=1 ") || !strings.Contains(got, "PROA_RAFT_ENGINE=1 ") {
		t.Error(got)
	}
}
