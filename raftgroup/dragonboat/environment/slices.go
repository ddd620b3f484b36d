package environment

import _ "unsafe" // for go:linkname

// dragonboat makes the slice for a replica's newest entries anew whenever all of them have
// been carried out: of 512 entries, 45 KiB, which a node with few callers fills with one
// proposal. That is a setting of its own (InMemEntrySliceSize, MinEntrySliceFreeSize), but it
// reads it from a file in the working directory alone, before any code of ours. So the
// variables that it keeps it in are set here. Larger slices grow as any does.
//
// If a version of dragonboat has no such variables, this sets nothing: TestSlices fails.

//go:linkname entrySliceSize github.com/lni/dragonboat/v4/internal/raft.entrySliceSize
var entrySliceSize uint64

//go:linkname minEntrySliceSize github.com/lni/dragonboat/v4/internal/raft.minEntrySliceSize
var minEntrySliceSize uint64

func init() { entrySliceSize, minEntrySliceSize = 32, 8 }
