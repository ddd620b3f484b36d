package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chzyer/readline"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

func shellCommand(a *app) *cobra.Command {
	return newCommand("shell", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		s := &shell{app: a}
		if _, ok := render.Terminal(a.in); ok {
			return s.interactive(cmd.Context())
		}
		return s.pipe(cmd.Context())
	})
}

// shell carries out lines.
type shell struct {
	app    *app
	timing bool
	leave  bool
}

// pipe carries out the lines of a file or pipe.
func (s *shell) pipe(ctx context.Context) error {
	lines := newLineReader(s.app.in)
	last := exitDone
	for line, err := range lines.all() {
		if err != nil {
			return err
		}
		if status := s.execute(ctx, string(line)); status != exitDone {
			s.app.Note("(line %d)", lines.number)
			last = status
		}
		if s.leave || ctx.Err() != nil {
			break
		}
	}
	return cmp.Or(silently(last), ctx.Err())
}

// interactive talks to a person.
func (s *shell) interactive(ctx context.Context) error {
	if _, err := s.app.clientConfig(ctx); err != nil { // asks for the password while nobody else reads the terminal
		return err
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	in := readline.NewCancelableStdin(readline.Stdin)
	rl, err := readline.NewEx(&readline.Config{
		Stdin:             in,
		Prompt:            s.prompt(s.app.link.client),
		HistoryFile:       historyFile(),
		HistorySearchFold: true,
		AutoComplete:      s,
		InterruptPrompt:   "^C",
		EOFPrompt:         "exit",
	})
	if err != nil {
		return err
	}
	defer rl.Close()
	// The process's own context is done after the first interrupt, which here ends
	// a command. From then on an interrupt would end the process wherever nobody
	// catches it: between two commands.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, os.Interrupt)
	defer signal.Stop(caught)
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, func() { in.Close() })() // ends Readline

	s.timing = true
	for !s.leave && ctx.Err() == nil {
		line, err := s.read(rl)
		switch {
		case errors.Is(err, readline.ErrInterrupt):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		s.interruptible(ctx, line)
	}
	return nil
}

// open connects, and greets. A cluster that does not answer is no reason to leave:
// each command tries again.
func (s *shell) open(ctx context.Context) error {
	c, err := s.line().connect(ctx)
	switch {
	case err == nil:
		s.greet(c)
		return nil
	case !errors.Is(err, client.ErrUnavailable), isAny(err, client.ErrHandshake, client.ErrWrongCluster, client.ErrUnauthenticated):
		return err
	}
	fmt.Fprintf(s.app.Err, "%s\nThe shell is not connected; each command tries again. Type help for help, exit to leave.\n", describe(err, s.app))
	return nil
}

func (s *shell) greet(c *client.Client) {
	i, ok := c.Server()
	if !ok {
		return // lost again already; the prompt says so
	}
	fmt.Fprintf(s.app.Out, "Connected to node %d (%s) of cluster %016x, %d shards. Type help for help, exit to leave.\n", i.Node, render.OneLine(i.Version), i.Cluster, i.Shards)
}

// prompt shows which cluster commands go to, and whether c is connected to it. A nil
// c is not.
func (s *shell) prompt(c *client.Client) string {
	t := s.app.link.target
	name, state := cmp.Or(t.context, t.endpoints[0]), " (disconnected)"
	if c != nil {
		if i, ok := c.Server(); ok {
			name, state = cmp.Or(t.context, i.Endpoint), ""
		}
	}
	return "proa " + name + state + "> "
}

// promptInterval is how often the prompt looks at the connection.
const promptInterval = 250 * time.Millisecond

// read reads a line. The prompt follows the state of the connection meanwhile.
func (s *shell) read(rl *readline.Instance) (string, error) {
	c := s.app.link.client
	prompt := s.prompt(c)
	rl.SetPrompt(prompt)
	var following sync.WaitGroup
	defer following.Wait()
	read := make(chan struct{})
	defer close(read)
	following.Go(func() {
		t := time.NewTicker(promptInterval)
		defer t.Stop()
		for {
			select {
			case <-read:
				return
			case <-t.C:
			}
			if p := s.prompt(c); p != prompt {
				prompt = p
				rl.SetPrompt(p)
				rl.Refresh()
			}
		}
	})
	return rl.Readline()
}

// noticeDelay is how long a command waits for a connection before it notes that.
const noticeDelay = time.Second

// notice notes that a command waits for a connection. It returns a
// function that ends it.
func (s *shell) notice() (stop func() bool) {
	c := s.app.link.client
	return time.AfterFunc(noticeDelay, func() {
		if c == nil {
			return // connecting; the error will say more
		}
		if _, ok := c.Server(); !ok {
			fmt.Fprintln(s.app.Err, "Not connected; trying again until the command times out. Control-C ends the wait.")
		}
	}).Stop
}

// interruptible carries out a line that Control-C can end.
func (s *shell) interruptible(ctx context.Context, line string) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	defer s.notice()()
	s.execute(ctx, line)
}

// execute carries out one line and returns its exit status.
func (s *shell) execute(ctx context.Context, line string) int {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return exitDone
	}
	words, err := render.SplitLine(line)
	if err != nil {
		return s.refuse("%v", err)
	}
	if len(words) == 0 {
		return exitDone
	}
	words[0] = strings.ToLower(words[0])
	if status, ok := s.builtin(words); ok {
		return status
	}
	begin := time.Now()
	status := s.line().run(ctx, words)
	if s.timing && words[0] != "help" {
		fmt.Fprintf(s.app.Err, "(%.2f ms)\n", float64(time.Since(begin))/float64(time.Millisecond))
	}
	return status
}

// line returns the app for one line.
func (s *shell) line() *app {
	line := *s.app
	line.shell, line.started = true, false
	// Words are unescaped already.
	line.escaped = false
	return &line
}

// builtin carries out what only a shell has.
func (s *shell) builtin(words []string) (status int, ok bool) {
	argument := ""
	if len(words) == 2 {
		argument = words[1]
	}
	switch words[0] {
	case "exit", "quit":
		s.leave = true
	case "clear":
		io.WriteString(s.app.Out, "\x1b[H\x1b[2J")
	case "timing":
		if argument != "on" && argument != "off" {
			return s.usage("timing on, or timing off"), true
		}
		s.timing = argument == "on"
	case "output":
		if !slices.Contains(usualForms, argument) {
			return s.usage("output table, output json, output jsonl, or output raw"), true
		}
		s.app.Form = argument
	case "help", "?":
		if len(words) > 1 {
			if c, _, err := newRoot(s.line()).Find(words[1:]); err != nil || !c.HasParent() {
				return s.refuse("there is no command %q; help lists them", strings.Join(words[1:], " ")), true
			}
			return 0, false
		}
		fmt.Fprintln(s.app.Out, helpText("shell", nil))
		fmt.Fprintln(s.app.Out)
		for _, c := range newRoot(s.line()).Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(s.app.Out, "  %-16s %s\n", c.Name(), c.Short)
			}
		}
	default:
		return s.outside(words[0])
	}
	return exitDone, true
}

// outside refuses a command that exists, but not in the shell.
func (s *shell) outside(name string) (status int, ok bool) {
	for _, root := range []*cobra.Command{newRoot(s.line()), newRoot(&app{link: s.app.link})} {
		c, _, err := root.Find([]string{name})
		switch {
		case err != nil || c == root:
		case root.Name() == "": // of the shell
			return 0, false
		default:
			return s.refuse("%s works outside the shell: %s …", c.Name(), c.CommandPath()), true
		}
	}
	return 0, false
}

func (s *shell) usage(text string) int { return s.refuse("write: %s", text) }

// refuse shows a mistake in a line before any command runs.
func (s *shell) refuse(format string, args ...any) int {
	s.app.showProblem(&problem{Class: classes[exitUsage], Code: classes[exitUsage], Message: fmt.Sprintf(format, args...), Exit: exitUsage})
	return exitUsage
}

// historyFile returns the path of the history, or "" where it cannot be kept.
// Its directory is private, because lines hold keys and values.
func historyFile() string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	dir := filepath.Join(state, "proa")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	path := filepath.Join(dir, "history")
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "" // to open a named pipe would take until somebody writes it
	}
	return path
}

// Do offers completions of the word at pos: commands, then options, then keys.
// It implements readline.AutoCompleter.
func (s *shell) Do(line []rune, pos int) (candidates [][]rune, length int) {
	words, word := openWord(string(line[:pos]))
	for _, c := range s.complete(words, word) {
		if rest, ok := strings.CutPrefix(c, word); ok {
			candidates = append(candidates, []rune(rest+" "))
		}
	}
	return candidates, len([]rune(word))
}

// openWord splits a line into its finished words and the one being typed, the
// latter as it stands, with its escapes.
func openWord(line string) (words []string, word string) {
	start := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case ' ', '\t':
			start = i + 1
		}
	}
	start = min(start, len(line))
	words, err := render.SplitLine(line[:start])
	if err != nil {
		return nil, "" // inside quotes: nothing to offer
	}
	return words, line[start:]
}

var builtins = []string{"help", "timing", "output", "clear", "exit"}

// complete returns the words that may stand after the finished ones.
func (s *shell) complete(words []string, word string) []string {
	line := s.line()
	root := newRoot(line)
	if len(words) == 0 || len(words) == 1 && words[0] == "help" {
		out := commandNames(root)
		if len(words) == 0 {
			out = append(out, builtins...)
		}
		return out
	}
	switch words[0] {
	case "timing":
		return []string{"on", "off"}
	case "output":
		return usualForms
	}
	cmd, rest, err := root.Find(words)
	switch {
	case err != nil || cmd == root:
		return nil
	case strings.HasPrefix(word, "-"):
		return flagNames(cmd)
	case cmd.GroupID != groupKeys:
		return completeOther(cmd, rest, word)
	case cmd.ValidArgsFunction == nil && cmd.Name() != "scan":
		return nil
	}
	prefix, err := render.Unescape(word)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	var out []string
	for _, k := range keysWith(ctx, line, prefix) {
		out = append(out, render.QuoteWord(k))
	}
	return out
}

// completeOther returns what may stand behind the arguments of a command that is not about
// keys: the commands below it, names, or the values of a flag.
func completeOther(cmd *cobra.Command, args []string, word string) (names []string) {
	complete := cmd.ValidArgsFunction
	if n := len(args); n > 0 && strings.HasPrefix(args[n-1], "--") {
		complete, _ = cmd.GetFlagCompletionFunc(args[n-1][2:])
	}
	switch {
	case cmd.HasSubCommands() && len(args) == 0:
		return commandNames(cmd)
	case complete != nil:
		names, _ = complete(cmd, args, word)
	}
	return names
}

func commandNames(root *cobra.Command) []string {
	var out []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c.Name())
		}
	}
	return out
}

func flagNames(cmd *cobra.Command) []string {
	var out []string
	add := func(f *pflag.Flag) { out = append(out, "--"+f.Name) }
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return out
}
