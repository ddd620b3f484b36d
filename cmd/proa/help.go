package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/internal/render"
)

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
