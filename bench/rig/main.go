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
	// A child is told to die with the thread that started it, so this thread
	// has to live as long as they may.
	runtime.LockOSThread()
	err = run(ctx)
	stop()
	exitOn(name, err, 1)
}

func exitOn(name string, err error, status int) {
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(status)
	}
}
