package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/internal/spawn"
	"github.com/proa-kv/proa/raftgroup/placement"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"proa": main})
}

// The scripts run the real binary against a real server process. They know
// some commands more:
//
//	server start [FLAG…]   starts a server on $WORK/data and sets PROA_ENDPOINTS
//	server stop|kill       ends it with SIGTERM, which must succeed, or SIGKILL
//	server port VAR TEXT   sets VAR to the address of the log line that contains TEXT
//	[!] server logged RE   checks the log of a server that has ended
//	exits N COMMAND…       runs a command that must end with this status
//	flip FILE OFFSET       inverts a byte of a file
//	certificates HOST…     makes ca.crt, server.crt for the hosts, admin.crt and
//	                       eve.crt of the users, with keys, and other.crt of another authority
//	eventually RE COMMAND… runs a command until its output matches
//	terminal FILE LINE COMMAND… (Linux) runs a command on a terminal, types the
//	                       line, and writes what is shown to the file
//	typing …               (Linux) somebody at the terminal of a command, see typing
//
// and the conditions [cluster]: the client can administer clusters; [chosen]: the environment
// says which Raft engine servers have; [etcd]: that or the default is etcd.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			s := &scriptServer{}
			e.Values["server"] = s
			e.Values["typist"] = newTypist()
			e.Defer(s.kill)
			e.Vars = append(e.Vars, "PROA_ENDPOINTS=127.0.0.1:1", "XDG_STATE_HOME="+filepath.Join(e.WorkDir, "state"),
				"XDG_CONFIG_HOME="+filepath.Join(e.WorkDir, "config"))
			e.Vars = append(e.Vars, partSettings()...)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server": scriptServerCommand, "exits": scriptExits, "flip": scriptFlip, "certificates": scriptCertificates, "eventually": scriptEventually,
			"terminal": scriptTerminal, "typing": scriptTyping,
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "cluster":
				_, ok := any((*client.Client)(nil)).(administrator)
				return ok, nil
			case "chosen":
				return os.Getenv("PROA_RAFT_ENGINE") != "", nil
			case "etcd":
				engine, err := placement.ParseEngine(cmp.Or(os.Getenv("PROA_RAFT_ENGINE"), "etcd"))
				return engine == placement.Etcd, err
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
		RequireUniqueNames: true,
	})
}

// partSettings returns those of spawn.PartSettings that are set.
func partSettings() (env []string) {
	for _, name := range spawn.PartSettings {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// scriptTerminal and scriptTyping are nil where no terminal can be made, and
// newTypist returns nothing.
var (
	scriptTerminal, scriptTyping func(*testscript.TestScript, bool, []string)
	newTypist                    = func() any { return nil }
)

// scriptServer is the server process of one script.
type scriptServer struct {
	cmd  *exec.Cmd
	log  strings.Builder
	at   chan listening // what the log says about each port
	done chan struct{}  // closed when the process has ended
	err  error          // how
}

// listening is a line of the log that says where the server listens.
type listening struct{ Msg, Network, Address string }

func scriptServerCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || neg && args[0] != "logged" {
		ts.Fatalf("usage: server start [FLAG…] | stop | kill | logged RE | port VAR TEXT")
	}
	s := ts.Value("server").(*scriptServer)
	switch args[0] {
	case "start":
		s.start(ts, args[1:])
	case "stop":
		ts.Check(s.stop())
	case "kill":
		s.kill()
	case "logged": // of a server that has ended
		if regexp.MustCompile(args[1]).MatchString(s.log.String()) == neg {
			ts.Fatalf("in the server's log there is %s: %t\n%s", args[1], neg, s.log.String())
		}
	case "port":
		l, err := s.find(args[2])
		ts.Check(err)
		ts.Setenv(args[1], strings.TrimPrefix(l.Address, "http://"))
	default:
		ts.Fatalf("unknown: server %s", args[0])
	}
}

// start returns when the server says that it serves.
func (s *scriptServer) start(ts *testscript.TestScript, flags []string) {
	address, err := s.launch(ts.MkAbs("."), flags)
	ts.Check(err)
	ts.Setenv("PROA_ENDPOINTS", address)
	ts.Setenv("ADDRESS", address)
}

// launch starts a server on dir/data, and returns its address when it says that
// it serves.
func (s *scriptServer) launch(dir string, flags []string) (string, error) {
	program, err := exec.LookPath("proa")
	if err != nil {
		return "", err
	}
	// Nobody else takes it while the server is down.
	ports, err := spawn.FreePorts(1)
	if err != nil {
		return "", err
	}
	s.cmd = exec.Command(program, append([]string{
		"serve", "--data", filepath.Join(dir, "data"), "--listen", spawn.Loopback(ports[0]), "--peer-listen", "off", "--log-format", "json",
		"--set", "memory.max_memory_usage=384MiB", "--set", "raft.log_segment_size=1MiB",
	}, flags...)...)
	s.cmd.Dir = dir
	s.cmd.Env = append(partSettings(), "PATH="+os.Getenv("PATH"), "HOME="+dir)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := s.cmd.Start(); err != nil {
		return "", err
	}
	s.done, s.log, s.at = make(chan struct{}), strings.Builder{}, make(chan listening, 16)
	go func() {
		s.follow(stderr)
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	for {
		l, err := s.find("serving clients")
		if err != nil || l.Network == "tcp" {
			return l.Address, err
		}
	}
}

// find waits for a line of the log that says where the server listens.
func (s *scriptServer) find(text string) (listening, error) {
	for {
		select {
		case l := <-s.at:
			if strings.Contains(l.Msg, text) {
				return l, nil
			}
		case <-s.done:
			return listening{}, fmt.Errorf("the server did not start: %v; its log:\n%s", s.err, s.log.String())
		}
	}
}

// stop ends the server with SIGTERM, which must succeed.
func (s *scriptServer) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-s.done
	if s.err != nil {
		return fmt.Errorf("server ended with %v; its log:\n%s", s.err, s.log.String())
	}
	return nil
}

// follow keeps the server's log, and sends what it says about each port.
func (s *scriptServer) follow(stderr io.Reader) {
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		s.log.WriteString(lines.Text() + "\n")
		var l listening
		if json.Unmarshal(lines.Bytes(), &l) == nil && strings.HasPrefix(l.Msg, "serving ") {
			select {
			case s.at <- l:
			default: // nobody asks for so many
			}
		}
	}
}

func (s *scriptServer) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		// An error says that it has ended already.
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// eventuallyTimeout is far above what anything takes that is waited for.
const eventuallyTimeout = 30 * time.Second

func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually RE COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for begin := time.Now(); ; {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Since(begin) > eventuallyTimeout {
			ts.Fatalf("no match for %s within %v (%v)", args[0], eventuallyTimeout, err)
		}
	}
}

func scriptCertificates(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: certificates HOST…")
	}
	dir, ca := ts.MkAbs("."), certtest.NewAuthority("tests")
	ts.Check(ca.Write(dir, "ca"))
	ts.Check(certtest.NewAuthority("somebody else").Write(dir, "other"))
	ts.Check(certtest.Write(dir, "server", ca.Server(args...)))
	ts.Check(certtest.Write(dir, "admin", ca.Client("admin")))
	ts.Check(certtest.Write(dir, "eve", ca.Client("eve")))
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	names, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	b, err := os.ReadFile(names[0])
	ts.Check(err)
	b[offset] ^= 0xff
	ts.Check(os.WriteFile(names[0], b, 0o600))
}
