package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/internal/render"
)

// explainArgs has cmd, and the commands below it, name the arguments that they
// take where they are given too many or too few.
func explainArgs(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		explainArgs(c)
	}
	check := cmd.Args
	if check == nil || cmd.HasSubCommands() {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		given := "no argument is given"
		switch {
		case len(args) == 1:
			given = "1 argument is given"
		case len(args) > 1:
			given = fmt.Sprintf("%d arguments are given", len(args))
		}
		return fmt.Errorf("%s; write: %s", given, strings.TrimSpace(strings.TrimSuffix(cmd.UseLine(), " [flags]")))
	}
}

// negative is a word that begins as a negative number does. No flag begins with
// a digit, so such a word is a key, a value or a number wherever an argument may
// stand, and needs no -- before it.
var negative = regexp.MustCompile(`^-\.?[0-9]`)

// negativeNumbers rewrites a command line of root, so that its negative numbers
// are not taken for flags.
func negativeNumbers(root *cobra.Command, args []string) []string {
	if !slices.ContainsFunc(args, negative.MatchString) {
		return args
	}
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.DisableFlagParsing || !cmd.Runnable() {
		return args
	}
	path := strings.Fields(strings.TrimPrefix(cmd.CommandPath(), root.CommandPath()))
	return append(path, numbersLast(rest, allFlags(cmd))...)
}

// allFlags returns the flags that cmd takes, its own and inherited ones.
func allFlags(cmd *cobra.Command) *pflag.FlagSet {
	cmd.InheritedFlags() // adds them
	return cmd.Flags()
}

// numbersLast rewrites args, as they are given to a parser of the flags in set.
// Where a negative number stands among the arguments, flags go before a -- and
// arguments behind it, each in their order.
func numbersLast(args []string, set *pflag.FlagSet) []string {
	var flags, rest []string
	needed := false
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case negative.MatchString(arg):
			needed = true
			rest = append(rest, arg)
		case len(arg) < 2 || arg[0] != '-':
			rest = append(rest, arg)
		default:
			flags = append(flags, arg)
			if takesNext(arg, set) && i+1 < len(args) {
				i++
				flags = append(flags, args[i])
			}
		}
	}
	if !needed {
		return args
	}
	return slices.Concat(flags, []string{"--"}, rest)
}

// takesNext reports whether the word after a flag is the flag's value.
func takesNext(arg string, set *pflag.FlagSet) bool {
	needsValue := func(f *pflag.Flag) bool { return f != nil && f.NoOptDefVal == "" }
	if name, long := strings.CutPrefix(arg, "--"); long {
		return needsValue(set.Lookup(name))
	}
	letters := arg[1:]
	for i := range letters {
		if needsValue(set.ShorthandLookup(letters[i : i+1])) {
			return i == len(letters)-1 // otherwise the value is in the word
		}
	}
	return false
}

// formOf returns the form of output that args ask for, and otherwise form. It is
// for command lines that could not be parsed: their errors have a form as well.
func formOf(args []string, form string) string {
	for i, arg := range args {
		value, ok := strings.CutPrefix(arg, "--output=")
		switch {
		case ok:
		case (arg == "--output" || arg == "-o") && i+1 < len(args):
			value = args[i+1]
		case strings.HasPrefix(arg, "-o"):
			value = strings.TrimPrefix(arg[2:], "=")
		case arg == "--":
			return form
		}
		if value == render.AsJSON || value == render.AsJSONL {
			form = value
		}
	}
	return form
}

// again returns the command line that carries cmd out with all flags that it was
// given, with args, and with more, which are flags that it may have been given
// already. It can be pasted: its words are quoted as the command shell, or the
// shell of this program, needs it.
func again(a *app, cmd *cobra.Command, args []string, more ...string) string {
	words := strings.Fields(cmd.CommandPath())
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(more, "--"+f.Name) {
			words = append(words, flagWords(f)...)
		}
	})
	words = append(words, more...)
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-" }) {
		words = append(words, "--")
	}
	words = append(words, args...)
	if !a.shell {
		return strings.Join(shellQuoted(words), " ")
	}
	for i, word := range words {
		words[i] = render.QuoteWord([]byte(word))
	}
	return strings.Join(words, " ")
}

// shellQuoted returns words as a POSIX shell reads them.
func shellQuoted(words []string) []string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = render.ShellQuote(word)
	}
	return quoted
}

// flagWords returns the words that give f the value it has.
func flagWords(f *pflag.Flag) (words []string) {
	name := "--" + f.Name
	if list, ok := f.Value.(pflag.SliceValue); ok {
		for _, value := range list.GetSlice() {
			words = append(words, name, value)
		}
		return words
	}
	switch value := f.Value.String(); {
	case f.NoOptDefVal == "":
		return []string{name, value}
	case value == f.NoOptDefVal:
		return []string{name}
	default:
		return []string{name + "=" + value}
	}
}
