//go:build linux

package rig

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
)

// Options are the flags that all programs have.
type Options struct {
	Proa              string // program
	Dir               string // for data; "" for the system's temporary directory
	Write, HTML, JSON string // files to write; "" for none
	Rounds            int
	Step              time.Duration // one measurement
	Limit             time.Duration
	Quick             bool
}

// FlagSet returns the flags of a program, but for -json and that of the step, which
// not all programs have or call the same. Defaults are what the options hold.
func (o *Options) FlagSet(program string, output io.Writer) *flag.FlagSet {
	set := flag.NewFlagSet(program, flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.Proa, "proa", o.Proa, "the proa `program`")
	set.StringVar(&o.Dir, "dir", "", "`directory` on the disk to measure (default: a temporary one)")
	set.StringVar(&o.Write, "write", "", "regenerate the section of this Markdown `page`")
	set.StringVar(&o.HTML, "html", "", "write tables and charts to this HTML `file`, which needs nothing else")
	set.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of measurements")
	set.DurationVar(&o.Limit, "limit", o.Limit, "give up after this long")
	set.BoolVar(&o.Quick, "quick", false, "a smoke run of seconds, whose figures mean nothing")
	return set
}

// Check returns what is wrong with the flags of a set that was parsed.
func (o *Options) Check(set *flag.FlagSet) error {
	if o.Rounds < 1 || o.Step < time.Millisecond || o.Limit <= 0 || set.NArg() > 0 {
		return errors.New("rounds and limit must be positive, a measurement must take 1ms at least, and there are no arguments")
	}
	return nil
}

// Warmup is how long the load of a measurement is made before its measured part. A
// smoke run has none, so that its first operation counts, however slow that is.
func (o *Options) Warmup(measured time.Duration) time.Duration {
	if o.Quick {
		return 0
	}
	return measured / 5
}

// Prepare reads a command line and returns what to run.
type Prepare func(args []string) (run func(context.Context) error, err error)

// Command returns the Prepare of a program whose flags parse reads. run prints the
// tables to out and how far it is to progress.
func Command[O any](parse func(args []string, output io.Writer) (O, error), run func(ctx context.Context, o O, out, progress io.Writer) error) Prepare {
	return func(args []string) (func(context.Context) error, error) {
		o, err := parse(args, os.Stderr)
		return func(ctx context.Context) error { return run(ctx, o, os.Stdout, os.Stderr) }, err
	}
}

// Main is the main function of a program that measures: it chooses a command by
// the first argument, or takes the one called "". It exits with 2 for a command
// line that makes no sense and with 1 for a failed run. A signal ends a run.
// Started with EchoArgument or BlobArgument the program serves as a floor of its
// own measurement.
func Main(name string, commands map[string]Prepare) {
	args := os.Args[1:]
	if served, err := ServeFloor(args); served {
		exitOn(name, err, 1)
		return
	}
	prepare := commands[""]
	if prepare == nil {
		var names []string
		for name := range commands {
			names = append(names, name)
		}
		slices.Sort(names)
		if len(args) > 0 {
			prepare = commands[args[0]]
		}
		if prepare == nil {
			exitOn(name, fmt.Errorf("the first argument must be one of %s; -h behind it lists the flags", strings.Join(names, ", ")), 2)
		}
		name, args = name+" "+args[0], args[1:]
	}
	run, err := prepare(args)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	exitOn(name, err, 2)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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

// Lab is where one run measures: a directory, what was started in it, and what
// there is to say about the run.
type Lab struct {
	Data    string   // directory, removed at the end
	Notes   []string // what a reader has to know about this run
	Started time.Time

	progress io.Writer
	cleanup  []func() error
}

// Outcome is what a run found.
type Outcome struct {
	Page     *report.Comparison
	Section  report.Section // of the Markdown page
	Markdown string         // that the section is to hold
	JSON     any
	Err      error // of the run, although there are figures
}

// Run measures in a lab and publishes the outcome: it prints the tables to out
// and writes the files that were asked for. It says on progress how far it is.
// All that was started has ended when it returns.
func (o *Options) Run(ctx context.Context, out, progress io.Writer, measure func(context.Context, *Lab) (*Outcome, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limit, fmt.Errorf("not finished within %v; -limit sets another bound", o.Limit))
	defer cancel()
	err := o.run(ctx, out, progress, measure)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause // instead of what giving up has led to
	}
	return err
}

func (o *Options) run(ctx context.Context, out, progress io.Writer, measure func(context.Context, *Lab) (*Outcome, error)) (err error) {
	l, err := o.newLab(progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	outcome, err := measure(ctx, l)
	if err != nil {
		return err
	}
	return errors.Join(outcome.Publish(o, out, progress), outcome.Err)
}

func (o *Options) newLab(progress io.Writer) (*Lab, error) {
	dir, err := DataDirectory(o.Dir)
	if err != nil {
		return nil, err
	}
	l := &Lab{progress: progress, Started: time.Now()}
	if l.Data, err = os.MkdirTemp(dir, "proa-lab-*"); err != nil {
		return nil, err
	}
	if InMemory(l.Data) {
		l.Note("The data directory is on a file system in memory: nothing here is durable, and no figure of a PUT means anything.")
	}
	if o.Quick {
		l.Note("This was a smoke run. Its figures mean nothing.")
	}
	return l, nil
}

// Cleanup has f called at the end, before what was to be called earlier.
func (l *Lab) Cleanup(f func() error) { l.cleanup = append(l.cleanup, f) }

func (l *Lab) close() (err error) {
	for _, f := range slices.Backward(l.cleanup) {
		err = errors.Join(err, f())
	}
	return errors.Join(err, os.RemoveAll(l.Data))
}

// Progress prints how far the run is.
func (l *Lab) Progress(format string, args ...any) {
	fmt.Fprintf(l.progress, "%5.0f s  %s\n", time.Since(l.Started).Seconds(), fmt.Sprintf(format, args...))
}

// Note adds a note.
func (l *Lab) Note(format string, args ...any) {
	l.Notes = append(l.Notes, fmt.Sprintf(format, args...))
}

// StartCluster starts a cluster that ends with the lab at the latest.
func (l *Lab) StartCluster(ctx context.Context, nodes int, k Kind) (*Cluster, error) {
	c, err := StartCluster(ctx, l.Data, nodes, k)
	if err == nil {
		l.Cleanup(c.Stop)
	}
	return c, err
}

// StartServer starts a server that speaks a protocol and ends with the lab at
// the latest.
func (l *Lab) StartServer(ctx context.Context, k Kind, codec bench.Codec) (*Server, error) {
	if k.Ready == nil {
		k.Ready = greets(codec)
	}
	c, err := l.StartCluster(ctx, 1, k)
	if err != nil {
		return nil, err
	}
	return newServer(c, codec), nil
}

// Conditions returns what the figures of a finished run depend on, one thing to
// a line: machine, versions, date, and how to make them again.
func (l *Lab) Conditions(target, command string, versions ...string) []string {
	machine := Describe(l.Data)
	return []string{
		fmt.Sprintf("Machine: %v", machine),
		fmt.Sprintf("Versions: %s; generator built with %s", strings.Join(versions, "; "), machine.GoVersion),
		fmt.Sprintf("Date: %s; the run took %v", l.Started.UTC().Format("2006-01-02 15:04 UTC"), time.Since(l.Started).Round(time.Second)),
		fmt.Sprintf("Command: make %s, which runs %s", target, command),
	}
}

// Publish prints the tables and writes the files that were asked for.
func (r *Outcome) Publish(o *Options, out, progress io.Writer) error {
	if err := r.Page.Print(out); err != nil {
		return err
	}
	for _, f := range []struct {
		path  string
		write func(path string) error
	}{
		{o.JSON, r.writeJSON},
		{o.HTML, r.Page.WriteHTML},
		{o.Write, func(path string) error { return r.Section.Write(path, r.Markdown) }},
	} {
		if f.path == "" {
			continue
		}
		if err := f.write(f.path); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", f.path)
	}
	return nil
}

func (r *Outcome) writeJSON(path string) error {
	b, err := json.MarshalIndent(r.JSON, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
