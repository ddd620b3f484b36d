package raftgroup

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestEnginesPage: the page about the engines has what they lack from Engines, and nothing
// else.
func TestEnginesPage(t *testing.T) {
	b, err := os.ReadFile("../docs/engines.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page, ok := strings.Cut(string(b), "## Consensus")
	if !ok {
		t.Fatal("the page has no part about consensus")
	}
	rows := 0
	for _, e := range Engines {
		if !strings.Contains(page, fmt.Sprintf("| `%v` |", e.Name)) {
			t.Errorf("%v is missing", e.Name)
		}
		for capability, instead := range e.Lacks {
			rows++
			if row := fmt.Sprintf("| `%v` | %s | %s |", e.Name, capability, instead); !strings.Contains(page, row) {
				t.Errorf("missing: %s", row)
			}
		}
	}
	_, table, _ := strings.Cut(page, "| engine | lacks | instead |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if got := strings.Count(table, "\n| ") + 1; got != rows {
		t.Errorf("the page has %d rows of what is lacking, the table %d", got, rows)
	}
}
