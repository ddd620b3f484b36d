// Command proa is the Proa key-value server, its command line client and its
// shell, in one binary. It holds flags and wiring only.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run carries out the command line and returns the exit status.
func run() int {
	// The first signal asks to stop, the second one kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	defer a.close()
	return a.run(ctx, os.Args[1:])
}
