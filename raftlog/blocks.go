package raftlog

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// blockFile is a file that is written in whole blocks: directly, where that is
// possible and wanted, and by way of the page cache otherwise. It is for one
// goroutine at a time.
type blockFile struct {
	file   vfs.File
	direct *os.File // nil: by way of the page cache
	bounce []byte   // aligned memory, for what lies elsewhere
}

func (b *blockFile) writeAt(p []byte, offset int64) error {
	if b.direct != nil {
		if !aligned(p) {
			p = append(b.room(len(p)), p...)
		}
		_, err := b.direct.WriteAt(p, offset)
		if !errors.Is(err, syscall.EINVAL) {
			return err
		}
		_ = b.direct.Close() // the file system takes no such writes after all
		b.direct = nil
	}
	_, err := b.file.WriteAt(p, offset)
	return err
}

// room returns aligned memory for n bytes.
func (b *blockFile) room(n int) []byte {
	if cap(b.bounce) < n {
		b.bounce = alignedBytes(n + n/2)
	}
	return b.bounce[:0]
}

// aligned reports whether p begins at a multiple of BlockBytes.
func aligned(p []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%BlockBytes == 0 }

// alignedBytes returns n zero bytes that begin at a multiple of BlockBytes.
func alignedBytes(n int) []byte {
	b := make([]byte, n+BlockBytes)
	for at := 0; at < BlockBytes; at++ {
		if aligned(b[at:]) {
			return b[at : at+n : at+n]
		}
	}
	return b[:n:n]
}

func (b *blockFile) close() error {
	b.bounce = nil
	if b.direct == nil {
		return nil
	}
	err := b.direct.Close()
	b.direct = nil
	return err
}
