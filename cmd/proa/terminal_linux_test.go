package main

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
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
