package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// plainWord needs no quotes in a POSIX shell.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellQuote returns word so that a POSIX shell reads it as one word that is
// word, in printable text.
func shellQuote(word string) string {
	switch {
	case plainWord.MatchString(word):
		return word
	case oneLine(word) != word:
		return quoteUnprintable(word)
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// quoteUnprintable has the shell call printf, since $'…' is not known to every
// shell. A substitution drops line ends at its end: those are quoted behind it.
func quoteUnprintable(word string) string {
	head := strings.TrimRight(word, "\n")
	var b strings.Builder
	b.WriteString(`"$(printf '`)
	for _, c := range []byte(head) {
		if c == ' ' || c != '%' && c != '-' && plainWord.MatchString(string(rune(c))) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	b.WriteString(`')"`)
	if head != word {
		b.WriteString("'" + word[len(head):] + "'")
	}
	return b.String()
}

// again returns the command line that carries cmd out with all flags that it was
// given, with args, and with more, which are flags that it may have been given
// already. It can be pasted: its words are quoted as the command shell, or the
// shell of this program, needs it.
func (a *app) again(cmd *cobra.Command, args []string, more ...string) string {
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
			words[i] = quoteWord([]byte(word))
		} else {
			words[i] = shellQuote(word)
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
