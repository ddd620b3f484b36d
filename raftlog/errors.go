package raftlog

import (
	"errors"
	"fmt"
)

var (
	// ErrCorrupt says that the files do not hold what was written and synced:
	// a checksum that does not match before the log's end, a missing or
	// shortened segment. Errors that carry a place are a *CorruptionError,
	// which matches ErrCorrupt.
	ErrCorrupt = errors.New("raft log is corrupt")

	// ErrMissing says that there is no log although Options.Begun says that there
	// was one.
	ErrMissing = errors.New("raft log is missing")

	// ErrOwner says that the log is another's than Options.Owner.
	ErrOwner = errors.New("raft log belongs to another node")

	// ErrForeign says that the groups of a log are another engine's: they have metadata
	// where this one writes none, or none where it does.
	ErrForeign = errors.New("raft log was written by another engine")

	// ErrVersion says that a segment was written in a format this version of
	// the program does not know.
	ErrVersion = errors.New("raft log has an unknown format version")

	// ErrClosed is returned by calls after Close.
	ErrClosed = errors.New("raft log is closed")

	// ErrTooLarge is returned by Save for a Write above RunBytesMax. Nothing
	// was written, and the log can still be used.
	ErrTooLarge = errors.New("write to the raft log is too large")

	// ErrNoSpace says that the disk had no room for the next segment. What was
	// saved before is safe.
	ErrNoSpace = errors.New("no space for a raft log segment")
)

// CorruptionError is damage at a known place.
type CorruptionError struct {
	File   string // path of the segment
	Offset int64  // bytes from the start of File
	Reason string
	Lost   []LostSpan // what is known of the entries that were synced and are gone; nil: nothing is
}

// LostSpan are entries of a group that were synced and are gone.
type LostSpan struct{ Group, First, Last uint64 }

// Error implements error.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("raft log is corrupt: %s at byte %d: %s", e.File, e.Offset, e.Reason)
}

// Is reports true for ErrCorrupt.
func (e *CorruptionError) Is(target error) bool { return target == ErrCorrupt }
