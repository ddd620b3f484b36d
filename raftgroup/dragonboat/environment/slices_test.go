package environment

import (
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestSlices: a proposal to an idle replica costs no slice of 512 entries, as it would with
// dragonboat's own settings.
func TestSlices(t *testing.T) {
	size, least := entrySliceSize, minEntrySliceSize
	defer func() { entrySliceSize, minEntrySliceSize = size, least }()
	ours := bytesOfAProposal(t)
	entrySliceSize, minEntrySliceSize = 512, 96
	if theirs := bytesOfAProposal(t); ours+(20<<10) > theirs {
		t.Errorf("%d bytes for each proposal, %d with dragonboat's settings", ours, theirs)
	}
}

// bytesOfAProposal returns what is allocated for one, on average.
func bytesOfAProposal(t *testing.T) uint64 {
	t.Helper()
	h, err := startNodeHost(vfs.NewMem(), nil)
	must(t, err)
	defer h.close(t)
	h.startReplica(t, 1, false, new(counter))
	const proposals = 500
	var before, after runtime.MemStats
	h.propose(t)
	runtime.ReadMemStats(&before)
	for range proposals {
		h.propose(t)
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / proposals
}
