// Command proa is the Proa key-value server, its command line client and its
// shell, in one binary. It holds flags and wiring only.
package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/proa-kv/proa/internal/render"
)

func main() { os.Exit(run()) }

// run carries out the command line and returns the exit status.
func run() int {
	program = os.Args[0]
	a := &app{in: os.Stdin, signals: catchSignals(), Output: render.Output{Out: os.Stdout, Err: os.Stderr}}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop, the second one kills as usual.
	context.AfterFunc(ctx, func() {
		stop()
		a.signals.letGo()
	})
	defer stop()
	defer a.close()
	return a.run(ctx, os.Args[1:])
}

// signals are those to stop that have come since the process began, for a server:
// it answers them itself, and none may be lost between.
type signals struct {
	come  chan os.Signal
	taken atomic.Bool
}

func catchSignals() *signals {
	s := &signals{come: make(chan os.Signal, 2)}
	signal.Notify(s.come, syscall.SIGTERM, os.Interrupt)
	return s
}

// take has all signals go to the caller until the process ends.
func (s *signals) take() chan os.Signal {
	s.taken.Store(true)
	return s.come
}

// letGo lets signals have their usual effect, unless a server has taken them.
func (s *signals) letGo() {
	if !s.taken.Load() {
		signal.Stop(s.come)
	}
}
