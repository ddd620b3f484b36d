// Package demo shows what a cluster does when its busiest node is killed: it
// runs several real servers on loopback under a load, kills the one that leads
// most shards, brings it back, and checks that no acknowledged write is
// missing.
//
// The story (story.go) knows servers and clients by two small interfaces; the
// processes are in fleet.go, the client in store.go. The load notes of each key
// what was acknowledged and what was tried, so that every read, and the check
// at the end, can tell a lost or stale value (load.go). What is seen of it is
// drawn from one view (screen.go).
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Bounds of Options.
const (
	NodesMin    = 3 // fewer have no majority without the one that is killed
	NodesMax    = 7
	DurationMin = 6 * time.Second
	DurationMax = time.Hour

	// DefaultDuration leaves ten seconds to each third of the story.
	DefaultDuration = 30 * time.Second
)

// shards is enough for each node to lead some.
const shards = 8

// ErrBroken is the error where the cluster lost a write that it had
// acknowledged, answered a read with an old value, or has replicas that differ.
var ErrBroken = errors.New("the cluster broke a promise")

// Options say what to run.
type Options struct {
	Nodes    int           // servers, NodesMin to NodesMax
	Duration time.Duration // of the load, DurationMin to DurationMax
	Keep     bool          // leave data and logs behind
	Program  string        // path of the proa binary
	Command  string        // how whoever runs the demo calls that
	Parent   string        // directory to make the demo's own in; empty: the system's for temporary files

	Out     io.Writer
	Columns int // of the terminal that Out is; 0: none, plain lines are written
	Colour  bool
}

// Run tells the story once. It returns nil if everything went as it should,
// ErrBroken (wrapped) if the cluster broke a promise, and the context's error if
// that ended. The servers are gone when it returns, and their directory is too
// unless Keep is set or something went wrong.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp(o.Parent, "proa-demo-")
	if err != nil {
		return err
	}
	f, err := newFleet(o.Program, dir, o.Nodes)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	log, closeLog := clientLog(dir)
	s := &story{
		options: o, servers: f, dir: dir,
		connect: func(ctx context.Context) (store, error) { return connect(ctx, f.addresses(), log) },
		screen:  newScreen(o.Out, o.Columns, o.Colour),
	}
	err = s.run(ctx)
	f.stop()
	closeLog()
	failed := err != nil && ctx.Err() == nil
	if failed {
		err = fmt.Errorf("%w\nData and logs are in %s", err, dir)
	}
	if o.Keep && !failed {
		fmt.Fprintf(o.Out, "Data and logs are in %s\n", dir)
	}
	if o.Keep || failed {
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// clientLog returns a log of what the client notices, beside those of the
// servers. Without it the demo works as well.
func clientLog(dir string) (log *slog.Logger, closeLog func()) {
	f, err := os.Create(filepath.Join(dir, "client.log"))
	if err != nil {
		return nil, func() {}
	}
	return slog.New(slog.NewTextHandler(f, nil)), func() { f.Close() }
}
