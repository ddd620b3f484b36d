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
	for i, word := range words {
		if a.shell {
			words[i] = render.QuoteWord([]byte(word))
		} else {
			words[i] = render.ShellQuote(word)
		}
	}
	return strings.Join(words, " ")
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
