package redis

import (
	"slices"
	"testing"

	"github.com/proa-kv/proa/server/resp"
)

// TestClusterRightsAreComplete: of each command that Redis counts among the admin or dangerous
// ones it is said which rights of the cluster it takes, or that it takes none.
func TestClusterRightsAreComplete(t *testing.T) {
	known := map[string]bool{}
	for _, cmd := range resp.Commands() {
		for _, c := range append([]*resp.Command{cmd}, cmd.Subcommands...) {
			known[c.Name] = true
			_, takes := clusterRights[c.Name]
			is := c.Flags&resp.FlagAdmin != 0 || c.Categories&(resp.CategoryAdmin|resp.CategoryDangerous) != 0
			if free := slices.Contains(harmless, c.Name); is && takes == free {
				t.Errorf("%s: say which rights of the cluster it takes, or that it is harmless", c.Name)
			}
		}
	}
	for name := range clusterRights {
		if !known[name] {
			t.Errorf("%s is no command", name)
		}
	}
	for _, name := range harmless {
		if !known[name] {
			t.Errorf("%s is no command", name)
		}
	}
}
