package main

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

const (
	defaultEndpoint = "127.0.0.1:7400"
	defaultTimeout  = 10 * time.Second

	// shellBackoffMax is the longest pause between two tries to connect while no
	// command waits: the prompt of a shell shows whether it is connected.
	shellBackoffMax = 2 * time.Second
)

// app is what the commands of one process share. A shell makes one copy for
// each line, so that a flag on a line holds for that line only.
type app struct {
	render.Output
	in io.Reader

	endpoints   []string          // that --endpoints named; nil: none
	context     string            // that --context named
	given       map[string]string // options of how to log in that the command line has
	formChosen  bool              // --output is given
	consistency string
	timeout     time.Duration
	escaped     bool // arguments hold backslash escapes

	shell   bool           // commands come from a shell's line
	called  *cobra.Command // that a mistake is about
	started bool           // the command's own code runs: what fails now is no usage error
	link    *connection    // shared by the copies of one shell
	signals *signals       // for a server
	typist  *term.Terminal // at which secrets are typed; nil: none was yet
}

// connection is the client, connected at first use.
type connection struct {
	target        *target   // nil: not looked for yet
	security      *security // nil: not looked for yet
	client        *client.Client
	administrator administrator // the client, or what stands for it in tests
}

// run carries out one command line and returns its exit status. What is wrong
// is written to a.err.
func (a *app) run(ctx context.Context, args []string) int {
	if a.link == nil {
		a.link = &connection{}
	}
	root := newRoot(a)
	root.SetArgs(negativeNumbers(root, args))
	root.SetIn(a.in)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	called, err := root.ExecuteContextC(ctx)
	a.called = cmp.Or(a.called, called)
	if err != nil && !a.started {
		err = &usageError{unknownCommand(a, root, err)}
	}
	if !a.started {
		a.Form = formOf(args, a.Form)
	}
	a.showError(err)
	return exitStatus(err)
}

func (a *app) close() {
	if a.link != nil && a.link.client != nil {
		a.link.client.Close()
	}
}

// clientConfig returns how a client connects to the cluster. It may ask for a password.
func (a *app) clientConfig(ctx context.Context) (client.Config, error) {
	t, err := a.target()
	if err != nil {
		return client.Config{}, err
	}
	s, err := a.security(ctx, t)
	if err != nil {
		return client.Config{}, err
	}
	cfg := client.Config{
		Endpoints: t.endpoints, Cluster: uint64(t.cluster), RequestTimeout: a.timeout, DialTimeout: a.timeout, Name: "proa",
	}
	s.logIn(&cfg)
	return cfg, nil
}

// connect returns the shared client.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	if a.link.client != nil {
		return a.link.client, nil
	}
	cfg, err := a.clientConfig(ctx)
	if err != nil {
		return nil, err
	}
	cfg.SessionReads = a.shell || a.consistency == "session"
	if a.shell {
		cfg.BackoffMax = shellBackoffMax
	}
	t := a.link.target
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, err := client.New(ctx, cfg)
	if err == nil && learnCluster(a, c, t) {
		// From now on the context is of this cluster, for this client, too.
		c.Close()
		cfg.Cluster = uint64(t.cluster)
		c, err = client.New(ctx, cfg)
	}
	if err != nil {
		if asClientError(err) == nil { // an endpoint is not one
			err = &usageError{err}
		}
		return nil, err
	}
	a.link.client = c
	return c, nil
}

// callQuiet is how long a command waits for an answer before it notes that.
const callQuiet = time.Second

// noteSlowAnswer notes on a terminal that there is no answer yet, if that is so after
// callQuiet. done ends that.
func (a *app) noteSlowAnswer() (done func()) {
	_, watched := render.Terminal(a.Err)
	if !watched || a.timeout <= callQuiet {
		return func() {}
	}
	t := time.AfterFunc(callQuiet, func() {
		a.Note("no answer yet; the command repeats the request for up to %v (--timeout)", a.timeout)
	})
	return func() { t.Stop() }
}

// call connects and bounds what follows by the timeout.
func (a *app) call(ctx context.Context, f func(context.Context, *client.Client) error) error {
	if _, err := a.clientConfig(ctx); err != nil { // which a person may take long to answer
		return err
	}
	defer a.noteSlowAnswer()()
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return f(ctx, c)
}

var consistencies = map[string]client.Consistency{
	"linearizable": client.Linearizable, "session": client.SessionReads, "stale": client.Stale,
}

// consistent returns the option the user chose for reads.
func (a *app) consistent() client.ConsistencyOption {
	return client.WithConsistency(consistencies[a.consistency])
}

// bytes returns a key or value as it was meant on the command line.
func (a *app) bytes(arg string) ([]byte, error) {
	if !a.escaped {
		return []byte(arg), nil
	}
	b, err := render.Unescape(arg)
	if err != nil {
		return nil, usagef("%q: %v", arg, err)
	}
	return b, nil
}

// allBytes is bytes for several arguments.
func (a *app) allBytes(args []string) ([][]byte, error) {
	out := make([][]byte, len(args))
	for i, arg := range args {
		var err error
		if out[i], err = a.bytes(arg); err != nil {
			return nil, err
		}
	}
	return out, nil
}
