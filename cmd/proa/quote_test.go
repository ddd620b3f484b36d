package main

import (
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// A command line that is given to be pasted means the same as the one that was
// typed.
func TestAgain(t *testing.T) {
	for line, want := range map[string]string{
		"import all.jsonl": "proa import --resume all.jsonl",
		"import -e a,b:7400 --timeout 3s all.jsonl --in-flight 7":        "proa import --endpoints a --endpoints b:7400 --in-flight 7 --timeout 3s --resume all.jsonl",
		"import --context prod 'my file.jsonl' --state \"it's\" -o json": `proa import --context prod --output json --state 'it'\''s' --resume 'my file.jsonl'`,
		"import --resume -x -- -file":                                    "proa import --escaped --resume -- -file",
		"import '$(rm -rf x)' --state ''":                                "proa import --state '' --resume '$(rm -rf x)'",
	} {
		words, err := splitLine(line)
		if err != nil {
			t.Fatal(err)
		}
		a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
		got := ""
		root := newRoot(a)
		imports, _, err := root.Find([]string{"import"})
		if err != nil {
			t.Fatal(err)
		}
		imports.RunE = func(cmd *cobra.Command, args []string) error {
			got = a.again(cmd, args, "--resume")
			return nil
		}
		root.SetArgs(words)
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for _, word := range []string{"plain", "", "two words", "it's", `"$HOME"`, "`id`", "a\nb", "\\", "*", "~", "ü", "-x", "a;b|c&d", "\x1b[31m 100% -\\n'$x", "-\u009b\n\n", "\n"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellQuote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q: %q, %v", word, out, err)
		}
	}
}
