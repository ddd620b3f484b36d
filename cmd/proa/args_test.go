package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/internal/render"
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
		words, err := render.SplitLine(line)
		if err != nil {
			t.Fatal(err)
		}
		a := &app{in: strings.NewReader(""), Output: render.Output{Out: io.Discard, Err: io.Discard}}
		got := ""
		root := newRoot(a)
		imports, _, err := root.Find([]string{"import"})
		if err != nil {
			t.Fatal(err)
		}
		imports.RunE = func(cmd *cobra.Command, args []string) error {
			got = again(a, cmd, args, "--resume")
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
