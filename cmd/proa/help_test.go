package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/internal/render"
)

// helpTexts returns what the help of each command of a says.
func helpTexts(t *testing.T, a *app) map[string]string {
	t.Helper()
	var out bytes.Buffer
	a.Out = &out
	root := newRoot(a)
	root.SetOut(&out)
	texts := map[string]string{}
	forEachCommand(root, func(c *cobra.Command) {
		out.Reset()
		c.InitDefaultHelpFlag()
		if err := c.Help(); err != nil {
			t.Fatalf("help of %s: %v", c.CommandPath(), err)
		}
		texts[strings.TrimSpace(c.CommandPath())] = out.String()
	})
	return texts
}

// TestHelpFits checks that help fits a terminal of the usual width, in the shell
// and outside.
func TestHelpFits(t *testing.T) {
	for _, shell := range []bool{false, true} {
		texts := helpTexts(t, &app{shell: shell, link: &connection{}})
		if len(texts) < 20 {
			t.Fatalf("shell %v: %d commands", shell, len(texts))
		}
		for name, text := range texts {
			for line := range strings.Lines(text) {
				line = strings.TrimRight(line, "\n")
				if n := utf8.RuneCountInString(line); n > helpColumns {
					t.Errorf("help of %q: %d columns: %s", name, n, line)
				}
			}
		}
	}
	var list bytes.Buffer
	s := &shell{app: &app{link: &connection{}, Output: render.Output{Out: &list}}}
	if status, ok := s.builtin([]string{"help"}); status != exitDone || !ok {
		t.Errorf("help in the shell: status %d, %v", status, ok)
	}
	for line := range strings.Lines(list.String()) {
		if n := utf8.RuneCountInString(line) - 1; n > helpColumns {
			t.Errorf("help of the shell: %d columns: %s", n, line)
		}
	}
}

// TestHelpNamesFlagArguments checks that help names the argument of each flag by
// what it is, not by its type in Go.
func TestHelpNamesFlagArguments(t *testing.T) {
	for name, text := range helpTexts(t, &app{link: &connection{}}) {
		for line := range strings.Lines(text) {
			if words := strings.Fields(line); len(words) > 2 && strings.HasPrefix(words[0], "-") {
				for _, word := range words[1:3] {
					switch word {
					case "string", "uint", "int", "strings", "float", "duration":
						t.Errorf("help of %q: %s", name, line)
					}
				}
			}
		}
	}
}

// TestHelpInShell checks that the shell's help shows commands as they are written
// in it.
func TestHelpInShell(t *testing.T) {
	texts := helpTexts(t, &app{shell: true, link: &connection{}})
	for name, wants := range map[string][]string{
		"get":    {"Usage:\n  get KEY [flags]\n", "Examples:\n  get greeting\n\n"},
		"member": {"\n  member [command]\n", `Use "help member COMMAND" for`},
	} {
		for _, want := range wants {
			if !strings.Contains(texts[name], want) {
				t.Errorf("help of %s lacks %q:\n%s", name, want, texts[name])
			}
		}
	}
	for name, text := range texts {
		if _, usage, _ := strings.Cut(text, "Usage:"); strings.Contains(usage, "  proa ") {
			t.Errorf("help of %s names proa:\n%s", name, usage)
		}
	}
}

// TestEachTextHasACommand checks that commands.txt has no text of a command that
// there is not.
func TestEachTextHasACommand(t *testing.T) {
	names := map[string]bool{"proa": true}
	forEachCommand(newRoot(&app{link: &connection{}}), func(c *cobra.Command) {
		names[strings.TrimPrefix(c.CommandPath(), "proa ")] = true
	})
	for name, text := range commandTexts() {
		if !names[name] || text.short == "" || !strings.HasSuffix(name, strings.Fields(text.use)[0]) {
			t.Errorf("%q: %+v", name, text)
		}
	}
}
