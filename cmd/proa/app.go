package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
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
	in       io.Reader
	out, err io.Writer

	endpoints   []string // that --endpoints named; nil: none
	context     string   // that --context named
	output      string   // table, json, raw
	formChosen  bool     // --output is given
	consistency string
	timeout     time.Duration
	escaped     bool // arguments hold backslash escapes

	shell   bool           // commands come from a shell's line
	called  *cobra.Command // that a mistake is about
	started bool           // the command's own code runs: what fails now is no usage error
	link    *connection    // shared by the copies of one shell
	signals *signals       // for a server
}

// connection is the client, connected at first use.
type connection struct {
	target        *target // nil: not looked for yet
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
	root.SetOut(a.out)
	root.SetErr(a.err)
	called, err := root.ExecuteContextC(ctx)
	if a.called == nil {
		a.called = called
	}
	if err != nil && !a.started {
		err = &usageError{a.unknownCommand(root, err)}
	}
	if !a.started {
		a.output = formOf(args, a.output)
	}
	a.complain(err)
	return exitStatus(err)
}

func (a *app) close() {
	if a.link != nil && a.link.client != nil {
		a.link.client.Close()
	}
}

// connect returns the shared client.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	if a.link.client != nil {
		return a.link.client, nil
	}
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	cfg := client.Config{
		Endpoints: t.endpoints, Cluster: uint64(t.cluster), RequestTimeout: a.timeout, DialTimeout: a.timeout,
		Name: "proa", SessionReads: a.shell || a.consistency == "session",
	}
	if a.shell {
		cfg.BackoffMax = shellBackoffMax
	}
	c, err := client.New(ctx, cfg)
	if err == nil && a.meet(c, t) {
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

// callQuiet is how long a command waits for an answer before it says so.
const callQuiet = time.Second

// saysItWaits says on a terminal that the command waits, if it still does after
// callQuiet. done ends that.
func (a *app) saysItWaits() (done func()) {
	_, watched := terminal(a.err)
	if !watched || a.timeout <= callQuiet {
		return func() {}
	}
	t := time.AfterFunc(callQuiet, func() {
		a.note("no answer yet; the command repeats the request for up to %v (--timeout)", a.timeout)
	})
	return func() { t.Stop() }
}

// call connects and bounds what follows by the timeout.
func (a *app) call(ctx context.Context, f func(context.Context, *client.Client) error) error {
	defer a.saysItWaits()()
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return f(ctx, c)
}

var consistencies = map[string]client.Consistency{
	"linearizable": client.Linearizable, "session": client.Session, "stale": client.Stale,
}

// consistent returns the option the user chose for reads.
func (a *app) consistent() client.ConsistencyOption {
	return client.WithConsistency(consistencies[a.consistency])
}

// outputForms annotates a command that has other forms of output than most.
const outputForms = "output"

// checkFlags checks the flags all commands share.
func (a *app) checkFlags(cmd *cobra.Command) error {
	if _, ok := consistencies[a.consistency]; !ok {
		return usagef("--consistency %s: choose linearizable, session or stale", a.consistency)
	}
	forms := []string{outputTable, outputJSON, outputJSONL, outputRaw}
	if own := cmd.Annotations[outputForms]; own != "" {
		forms = strings.Fields(own)
	}
	if last := len(forms) - 1; !slices.Contains(forms, a.output) {
		if last == 0 {
			return usagef("--output %s: %s has one form of output", a.output, cmd.CommandPath())
		}
		return usagef("--output %s: choose %s or %s", a.output, strings.Join(forms[:last], ", "), forms[last])
	}
	if a.timeout <= 0 {
		return usagef("--timeout %v: must be above 0", a.timeout)
	}
	if a.endpoints != nil && a.context != "" {
		return usagef("--endpoints and --context cannot be used together")
	}
	return checkEndpoints("--endpoints", a.endpoints)
}

// bytes returns a key or value as it was meant on the command line.
func (a *app) bytes(arg string) ([]byte, error) {
	if !a.escaped {
		return []byte(arg), nil
	}
	b, err := unescape(arg)
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

// terminal reports whether w is one, and how many columns it has.
func terminal(w any) (columns int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns, true
}

// newRoot builds the tree of commands around a.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "proa",
		Short: "Proa, a fast and durable key-value store",
		Long: `Proa is a key-value store that acknowledges a write when it is on disk.

Start a server:    proa serve
Then talk to it:   proa put greeting hello
                   proa get greeting
                   proa shell
See a cluster:     proa demo
Measure it:        proa bench

Exit status: 0 done, 1 not found or condition failed, 2 usage,
3 server or network error, 4 outcome unknown.`,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // unknownCommand has its own
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.checkFlags(cmd); err != nil {
				return err
			}
			a.formChosen = cmd.Flags().Changed("output")
			a.started = true
			return nil
		},
	}
	if a.shell {
		root.Use, root.Long = "", "Commands of the shell. HELP COMMAND tells more about one."
		root.CompletionOptions.DisableDefaultCmd = true
	} else {
		root.Version = versionText()
		root.SetVersionTemplate("proa {{.Version}}\n")
	}
	a.addFlags(root)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(a.helpCommand(root))
	root.AddGroup(
		&cobra.Group{ID: groupKeys, Title: "Keys:"},
		&cobra.Group{ID: groupServer, Title: "Server:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
	)
	if !a.shell {
		root.AddGroup(&cobra.Group{ID: groupData, Title: "Data:"})
	}
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupKeys, a.getCommand(), a.putCommand(), a.delCommand(), a.incrCommand(), a.expireCommand(), a.persistCommand(),
		a.existsCommand(), a.mgetCommand(), a.scanCommand(), a.batchCommand(), a.txnCommand())
	add(groupServer, a.pingCommand(), a.versionCommand())
	add(groupCluster, a.statusCommand(), a.memberCommand(), a.shardCommand())
	if a.shell {
		a.finish(root)
		return root
	}
	serve, demo, verify := a.serveCommand(), a.demoCommand(), a.verifyCommand()
	needServerSystem(serve, demo, verify)
	add(groupKeys, a.shellCommand())
	add(groupServer, serve, a.configCommand(), a.benchCommand())
	add(groupCluster, a.topCommand(), a.contextCommand(), demo)
	add(groupData, a.exportCommand(), a.importCommand(), verify)
	a.finish(root)
	return root
}

// finish does for all commands what does not depend on which they are.
func (a *app) finish(root *cobra.Command) {
	explainArgs(root)
	a.formatHelp(root)
}

func (a *app) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show help on a command",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 && c.HasSubCommands() {
				err = fmt.Errorf("unknown command %q for %q", rest[0], c.CommandPath())
			}
			if err != nil {
				a.called = root
				return &usageError{a.unknownCommand(root, err)}
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return commandNames(c), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

const (
	groupKeys    = "keys"
	groupServer  = "server"
	groupCluster = "cluster"
	groupData    = "data"
)

func (a *app) addFlags(root *cobra.Command) {
	if a.output == "" {
		a.output, a.consistency, a.timeout = outputTable, "linearizable", defaultTimeout
	}
	f := root.PersistentFlags()
	if !a.shell {
		f.StringSliceVarP(&a.endpoints, "endpoints", "e", a.endpoints, "`servers`: host:port or unix:///path; also "+config.EnvEndpoints+" (default "+defaultEndpoint+")")
		f.StringVar(&a.context, "context", a.context, "`name` of the cluster, see proa context; also "+config.EnvContext)
		_ = root.RegisterFlagCompletionFunc("context", completeContexts)
		f.BoolVarP(&a.escaped, "escaped", "x", a.escaped, `keys and values contain escapes such as \n or \x00`)
	}
	f.StringVarP(&a.output, "output", "o", a.output, "output `form`: table, json, jsonl or raw")
	f.StringVar(&a.consistency, "consistency", a.consistency, "consistency `mode` of reads: linearizable, session or stale")
	f.DurationVar(&a.timeout, "timeout", a.timeout, "`time` to wait for an answer")
	for flag, values := range map[string][]string{
		"output": {outputTable, outputJSON, outputJSONL, outputRaw}, "consistency": {"linearizable", "session", "stale"},
	} {
		// The error could only say that the flag does not exist.
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}
