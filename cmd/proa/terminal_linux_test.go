package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/internal/render"
)

func init() { scriptTerminal = onTerminal }

// onTerminal is the script command "terminal FILE LINE COMMAND…": it runs a
// command with a terminal for all three standard files, on which somebody types
// the line, and writes what the terminal shows to the file.
func onTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: terminal FILE LINE COMMAND…")
	}
	here, there, err := openTerminal()
	ts.Check(err)
	defer here.Close()
	program, err := exec.LookPath(args[2])
	ts.Check(err)
	cmd := exec.Command(program, args[3:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), there, there, there
	cmd.Env = append(os.Environ(), "PROA_ENDPOINTS="+ts.Getenv("PROA_ENDPOINTS"))
	err = cmd.Start()
	ts.Check(there.Close())
	ts.Check(err)
	_, err = here.WriteString(args[1] + "\n")
	ts.Check(err)
	var shown []byte
	for buffer := make([]byte, 4096); ; {
		n, err := here.Read(buffer)
		shown = append(shown, buffer[:n]...)
		if err != nil { // EIO: the command has ended
			break
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), shown, 0o600))
	if err := cmd.Wait(); err != nil {
		ts.Fatalf("%v: %v\n%s", args[2:], err, shown)
	}
}

// A command that waits says so on a terminal, and one that has its answer does not.
func TestSaysItWaits(t *testing.T) {
	here, there, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	defer there.Close()
	synctest.Test(t, func(t *testing.T) {
		a := &app{timeout: 7 * time.Second, Output: render.Output{Err: there}}
		a.noteSlowAnswer()()
		time.Sleep(2 * callQuiet)
		a.timeout = 9 * time.Second
		done := a.noteSlowAnswer()
		time.Sleep(2 * callQuiet)
		done()
	})
	shown := make([]byte, 4096)
	n, err := here.Read(shown)
	if want := "no answer yet; the command repeats the request for up to 9s (--timeout)\r\n"; err != nil || string(shown[:n]) != want {
		t.Errorf("%q, %v; want %q", shown[:n], err, want)
	}
}

// A password that is asked for is not shown, and the terminal is as it was before
// afterwards, also where nobody answers.
func TestAskPassword(t *testing.T) {
	setUserConfig(t, nil)
	for name, tt := range map[string]struct{ typed, want, err string }{
		"answered":  {"s3cret word\r", "s3cret word", ""},
		"nothing":   {"\r", "", "the password is empty"},
		"too long":  {strings.Repeat("x", 257) + "\r", "", "is longer than 256 bytes"},
		"Control-C": {"s3cret\x03", "", "no password was typed"},
		"Control-D": {"\x04", "", "no password was typed"},
		"corrected": {"s3crer\x7ft\r", "s3cret", ""},
		"cancelled": {"", "", "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			here, there, err := openTerminal()
			if err != nil {
				t.Fatal(err)
			}
			defer here.Close()
			defer there.Close()
			settings := func() unix.Termios {
				s, err := unix.IoctlGetTermios(int(there.Fd()), unix.TCGETS)
				if err != nil {
					t.Fatal(err)
				}
				return *s
			}
			before := settings()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			type answer struct {
				password string
				err      error
			}
			answered := make(chan answer)
			go func() {
				a := &app{in: there, given: map[string]string{optUser: "ann"}, link: &connection{}, Output: render.Output{Err: there}}
				s, err := a.security(ctx, &target{})
				if err != nil {
					s = &security{}
				}
				answered <- answer{s.password, err}
			}()
			shown := make([]byte, 4096)
			n, err := here.Read(shown)
			if err != nil || string(shown[:n]) != "Password of ann: " {
				t.Fatalf("%q, %v", shown[:n], err)
			}
			if settings().Lflag&unix.ECHO != 0 {
				t.Fatal("what is typed at the prompt is shown")
			}
			if tt.typed == "" {
				cancel()
			} else if _, err := here.WriteString(tt.typed); err != nil {
				t.Fatal(err)
			}
			got := <-answered
			if got.password != tt.want && tt.err == "" || (got.err == nil) != (tt.err == "") || got.err != nil && !strings.Contains(got.err.Error(), tt.err) {
				t.Errorf("%q, %v", got.password, got.err)
			}
			if settings() != before {
				t.Error("the terminal is not as before")
			}
			if n, err = here.Read(shown); err != nil || string(shown[:n]) != "\r\n" {
				t.Errorf("the terminal shows %q, %v", shown[:n], err)
			}
			if tt.typed == "" {
				_, _ = here.WriteString("\r") // ends the read
			}
		})
	}
}

// openTerminal opens both ends of a pseudo-terminal.
func openTerminal() (here, there *os.File, err error) {
	here, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(here.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(here.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		there, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		here.Close()
	}
	return here, there, err
}

func init() {
	scriptTyping = typing
	newTypist = func() any { return new(*typist) }
}

// typist is somebody at the terminal of a command of a script.
type typist struct {
	cmd      *exec.Cmd
	terminal *os.File

	mu    sync.Mutex
	more  sync.Cond
	shown []byte // and not matched yet, without what moves the cursor
	over  bool   // nothing will be shown any more
}

// typing is the script command "typing start COMMAND…|type TEXT|see RE|stop|end": it runs
// a command on a terminal of its own in the background, types (\n ends a line, ^C
// interrupts, ^D ends the input), waits for what a regular expression matches behind
// what was seen before, sends SIGTERM, and waits for the end of the command, which must succeed.
func typing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: typing start COMMAND… | type TEXT | see RE | stop | end")
	}
	now := ts.Value("typist").(**typist)
	t := *now
	switch args[0] {
	case "start":
		t = new(typist)
		*now = t
		t.start(ts, args[1:])
	case "type":
		text := strings.NewReplacer(`\n`, "\r", "^C", "\x03", "^D", "\x04").Replace(args[1])
		_, err := t.terminal.WriteString(text)
		ts.Check(err)
	case "see":
		t.see(ts, args[1])
	case "stop":
		ts.Check(t.cmd.Process.Signal(syscall.SIGTERM))
	case "end":
		err := t.cmd.Wait()
		t.see(ts, `\z`)
		if err != nil {
			ts.Fatalf("%v\n%s", err, t.shown)
		}
	}
}

func (t *typist) start(ts *testscript.TestScript, command []string) {
	here, there, err := openTerminal()
	ts.Check(err)
	program, err := exec.LookPath(command[0])
	ts.Check(err)
	t.more.L = &t.mu
	t.terminal, t.cmd = here, exec.Command(program, command[1:]...)
	t.cmd.Dir, t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = ts.MkAbs("."), there, there, there
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // ^C is a signal then
	t.cmd.Env = append(os.Environ(), "PROA_ENDPOINTS="+ts.Getenv("PROA_ENDPOINTS"), "XDG_STATE_HOME="+ts.Getenv("XDG_STATE_HOME"), "TERM=xterm")
	err = t.cmd.Start()
	ts.Check(there.Close())
	ts.Check(err)
	go t.watch()
	ts.Defer(func() {
		_ = t.cmd.Process.Kill()
		t.terminal.Close()
	})
}

// moves are what a terminal does not show.
var moves = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]|\r`)

// watch keeps what the terminal shows.
func (t *typist) watch() {
	buffer := make([]byte, 4096)
	for {
		n, err := t.terminal.Read(buffer)
		t.mu.Lock()
		t.shown = moves.ReplaceAll(append(t.shown, buffer[:n]...), nil)
		t.over = err != nil // EIO: the command has ended
		t.more.Broadcast()
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// see waits until the terminal has shown what the expression matches; \z waits for the
// end.
func (t *typist) see(ts *testscript.TestScript, expression string) {
	re, err := regexp.Compile(expression)
	ts.Check(err)
	late := false
	guard := time.AfterFunc(eventuallyTimeout, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		late = true
		t.more.Broadcast()
	})
	defer guard.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if at := re.FindIndex(t.shown); at != nil && (expression != `\z` || t.over) {
			if expression != `\z` {
				t.shown = t.shown[at[1]:]
			}
			return
		}
		if late || t.over {
			ts.Fatalf("the terminal does not show %s, but %q", expression, t.shown)
		}
		t.more.Wait()
	}
}
