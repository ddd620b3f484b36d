package raftlog

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCheckpointMetadata has a segment whose checkpoint says something else about
// metadata than the segment before it.
func TestCheckpointMetadata(t *testing.T) {
	group := func(id uint64) []byte { return appendCheckpoint(nil, id, mark{}, 0, hardState{}, nil) }
	for name, c := range map[string]struct {
		checkpoint []byte
		says       string
	}{
		"the same":      {appendMetadata(group(1), 1, []byte("data")), ""},
		"left out":      {group(1), "the checkpoint has metadata of 0 groups, the runs before it of 1"},
		"different":     {appendMetadata(group(1), 1, []byte("Data")), "contradict"},
		"group unknown": {append(appendMetadata(group(1), 1, []byte("data")), appendMetadata(nil, 2, nil)...), "the checkpoint has 1 groups, the runs before it 2"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			writeSegment(t, fs, 1, 1, nil, appendMetadata(nil, 1, []byte("data")))
			writeSegment(t, fs, 2, 3, c.checkpoint)
			l, _, err := Open(testOptions(fs))
			if c.says != "" {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("Open: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, l)
			if got := string(l.Group(1).Metadata()); got != "data" {
				t.Errorf("metadata %q", got)
			}
		})
	}
}

// writeSegment makes a segment of a checkpoint, whose run has the number first, and
// further runs.
func writeSegment(t *testing.T, fs vfs.FS, seq, first uint64, checkpoint []byte, more ...[]byte) {
	t.Helper()
	image := make([]byte, SegmentBytesMin)
	segmentHeader{seq: seq, salt: fuzzSalt, size: int64(len(image))}.encode(image)
	for i, records := range append([][]byte{checkpoint}, more...) {
		h := runHeader{seq: seq, salt: fuzzSalt, run: first + uint64(i), durable: first + uint64(i) - 1}
		if i == 0 {
			h.flags = flagCheckpoint
		}
		run := append(make([]byte, runHeaderBytes), records...)
		h.sealRun(run)
		copy(image[(i+1)*BlockBytes:], run)
	}
	if err := fs.MkdirAll(testDir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(testDir+"/"+segmentName(seq), writeCategory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(image); err != nil {
		t.Fatal(err)
	}
}
