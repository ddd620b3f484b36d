//go:build unix

package main

import (
	"os/signal"
	"syscall"
	"testing"
)

// TestSignalsAreKept: a signal that comes before the server looks is there when it
// does, and so is the one behind it.
func TestSignalsAreKept(t *testing.T) {
	s := catchSignals()
	defer signal.Stop(s.come)
	raise := func() {
		t.Helper()
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	raise() // as in the first milliseconds of a start
	come := s.take()
	s.letGo() // as the first signal has done for all other commands
	if got := <-come; got != syscall.SIGTERM {
		t.Errorf("the first signal is %v", got)
	}
	raise()
	if got := <-come; got != syscall.SIGTERM {
		t.Errorf("the second signal is %v", got)
	}
}
