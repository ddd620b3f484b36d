package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/internal/render"
)

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
