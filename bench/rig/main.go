//go:build linux

package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// Main is the main function of a program that measures: prepare reads the
// command line and returns what to run, which a signal ends. It exits with 2
// for a command line that makes no sense and with 1 for a failed run. Started
// with EchoArgument or BlobArgument the program serves as a floor of its own
// measurement.
func Main(name string, prepare func() (run func(context.Context) error, err error)) {
	if served, err := ServeFloor(os.Args[1:]); served {
		exitOn(os.Args[1], err, 1)
		return
	}
	run, err := prepare()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	exitOn(name, err, 2)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx)
	stop()
	exitOn(name, err, 1)
}

// Within runs measure, which may start processes, and gives it up after limit.
// It says so then instead of passing on what giving up has led to.
func Within(ctx context.Context, limit time.Duration, measure func(context.Context) error) error {
	// A child is told to die with the thread that started it, so this thread
	// has to live as long as they may.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not finished within %v; -limit sets another bound", limit))
	defer cancel()
	err := measure(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

func exitOn(name string, err error, status int) {
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(status)
	}
}
