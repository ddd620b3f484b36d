package raftlog

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// directFile writes whole blocks past the page cache (O_DIRECT). The log is
// read back only by replay and for followers that lag; to copy it into the page
// cache, and to have the kernel look there for what an fdatasync has to write,
// costs more than to have the device take it from our memory. What is written
// is durable after an fdatasync, as ever. See docs/adr/0003.
type directFile struct{ f *os.File }

// openDirect opens path for direct writes. It returns nil where that is not
// possible, or fs is not the operating system's, wrapped or not.
func openDirect(fs vfs.FS, path string) *directFile {
	if vfs.Root(fs) != vfs.Default {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return &directFile{f}
}

// writeAt writes p, whose memory, length and offset are multiples of
// BlockBytes. It returns errNotDirect where the file system takes no such
// writes after all.
func (d *directFile) writeAt(p []byte, offset int64) (int, error) {
	n, err := d.f.WriteAt(p, offset)
	if errors.Is(err, unix.EINVAL) {
		return 0, errNotDirect
	}
	return n, err
}

func (d *directFile) close() error { return d.f.Close() }

// aligned reports whether p begins at a multiple of BlockBytes.
func aligned(p []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%BlockBytes == 0 }
