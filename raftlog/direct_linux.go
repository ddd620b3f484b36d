package raftlog

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// openDirect opens path for writes past the page cache (O_DIRECT). The log is
// read back only by replay and for followers that lag; to copy it into the page
// cache, and to have the kernel look there for what an fdatasync has to write,
// costs more than to have the device take it from our memory. What is written
// is durable after an fdatasync, as ever. See docs/adr/0003.
//
// It returns nil where that is not possible, or fs is not the operating system's,
// wrapped or not.
func openDirect(fs vfs.FS, path string) *os.File {
	if vfs.Root(fs) != vfs.Default {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return f
}
