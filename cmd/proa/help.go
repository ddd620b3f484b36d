package main

import (
	_ "embed" // of the texts
	"fmt"
	"regexp"
	"strings"
	"sync"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/internal/render"
)

// commandSource is commands.txt, a template.
//
//go:embed commands.txt
var commandSource string

var commandTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("commands").Parse(commandSource))
})

// helpText returns a text that commands.txt defines.
func helpText(name string, data any) string {
	var b strings.Builder
	if err := commandTemplate().ExecuteTemplate(&b, name, data); err != nil {
		panic(err) // the text and this program do not fit each other
	}
	return b.String()
}

// commandText is what help says of a command.
type commandText struct{ use, short, forms, long, example string }

// commandName is the name of a command, without what comes behind it on its line.
var commandName = regexp.MustCompile(`^[a-z]+(?: [a-z][a-z-]*)*`)

// commandTexts returns the texts of all commands by their names, as in "member add".
var commandTexts = sync.OnceValue(func() map[string]commandText {
	var workloads strings.Builder
	for _, w := range bench.Workloads() {
		fmt.Fprintf(&workloads, "  %-7s %s\n", w.Name, w.About)
	}
	all := helpText("commands", map[string]string{"BenchPrefix": bench.Prefix, "Workloads": workloads.String()})
	texts := map[string]commandText{}
	for _, text := range strings.Split("\n"+all, "\n# ")[1:] {
		var t commandText
		t.use, text, _ = strings.Cut(text, "\n")
		t.short, text, _ = strings.Cut(text, "\n")
		if rest, ok := strings.CutPrefix(text, "Output: "); ok {
			t.forms, text, _ = strings.Cut(rest, "\n")
		}
		t.long, t.example, _ = strings.Cut(text, "\nExamples:\n")
		t.long, t.example = strings.Trim(t.long, "\n"), strings.TrimRight(t.example, "\n")
		name := commandName.FindString(t.use)
		t.use = t.use[strings.LastIndex(name, " ")+1:]
		texts[name] = t
	}
	return texts
})

// newCommand returns the command of a name with its texts.
func newCommand(name string, args cobra.PositionalArgs, run func(*cobra.Command, []string) error) *cobra.Command {
	t, ok := commandTexts()[name]
	if !ok {
		panic("commands.txt has no text on " + name)
	}
	cmd := &cobra.Command{Use: t.use, Short: t.short, Long: t.long, Example: t.example, Args: args, RunE: run}
	if t.forms != "" {
		cmd.Annotations = map[string]string{outputForms: t.forms}
	}
	return cmd
}

// helpColumns is the width that help is written for where its output is no
// terminal. The texts of the commands have at most this width.
const helpColumns = 80

// formatHelp makes the help of root and of the commands below it fit the output.
func formatHelp(a *app, root *cobra.Command) {
	columns, ok := render.Terminal(a.Out)
	if !ok {
		columns = helpColumns
	}
	root.InitDefaultCompletionCmd() // now, so that its text is wrapped, too
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate(), columns, a.shell))
	forEachCommand(root, func(c *cobra.Command) {
		c.Long = render.Look{Columns: columns}.WrapEach(c.Long)
		if a.shell {
			c.Example = shellExamples(c.Example)
		}
	})
}

// usageTemplate changes the template for all commands. The root command of a
// shell has no name, so that the path of a command there begins with a blank.
func usageTemplate(template string, columns int, shell bool) string {
	template = strings.ReplaceAll(template, ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", columns))
	if !shell {
		return template
	}
	return strings.NewReplacer(
		"{{.UseLine}}", "{{trim .UseLine}}",
		"{{.CommandPath}} [command] --help", "help {{trim .CommandPath}} COMMAND",
		"{{.CommandPath}}", "{{trim .CommandPath}}",
	).Replace(template)
}

// commandShellOnly matches what a command shell does and Proa's does not: pipes,
// redirections, substitutions, and commands of others.
var commandShellOnly = regexp.MustCompile(`[|<>]|\$\(`)

// shellExamples returns the examples that work in Proa's shell, as they are
// written there.
func shellExamples(examples string) string {
	var kept []string
	for line := range strings.Lines(examples) {
		line = strings.TrimSuffix(line, "\n")
		if command, ok := strings.CutPrefix(line, "  proa "); ok && !commandShellOnly.MatchString(command) {
			kept = append(kept, "  "+command)
		}
	}
	return strings.Join(kept, "\n")
}

// forEachCommand calls f for a command and all commands below it.
func forEachCommand(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		forEachCommand(sub, f)
	}
}
