package environment

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	lnivfs "github.com/lni/vfs"
)

// writeCategory is what dragonboat's files are counted as.
const writeCategory vfs.DiskWriteCategory = "dragonboat"

// fileSystem is a node's file system as dragonboat sees it. Errors are passed on as they
// are.
type fileSystem struct {
	vfs.FS
	dir        string // of the NodeHost
	deployment string // the directory that dragonboat has for it
}

var _ lnivfs.FS = (*fileSystem)(nil)

func newFileSystem(fs vfs.FS, dir string, deployment uint64) *fileSystem {
	return &fileSystem{FS: fs, dir: dir, deployment: fmt.Sprintf("%020d", deployment)}
}

// hostDir stands where dragonboat has the name of the host.
const hostDir = "node"

// PathJoin implements lnivfs.FS. It is where dragonboat puts the name of the host into its
// paths: between the NodeHost's directory and the deployment's.
func (f *fileSystem) PathJoin(elem ...string) string {
	if len(elem) >= 3 && elem[0] == f.dir && elem[2] == f.deployment {
		elem = slices.Clone(elem)
		elem[1] = hostDir
	}
	return f.FS.PathJoin(elem...)
}

// Create implements lnivfs.FS.
func (f *fileSystem) Create(name string) (lnivfs.File, error) {
	created, err := f.FS.Create(name, writeCategory)
	if err != nil {
		return nil, err
	}
	// dragonboat goes back to write the header of a snapshot.
	if err := created.Close(); err != nil {
		return nil, err
	}
	return opened(f.OpenReadWrite(name, writeCategory))
}

// Open implements lnivfs.FS.
func (f *fileSystem) Open(name string, opts ...lnivfs.OpenOption) (lnivfs.File, error) {
	r, err := opened(f.FS.Open(name))
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(r)
	}
	return r, nil
}

// OpenDir implements lnivfs.FS.
func (f *fileSystem) OpenDir(name string) (lnivfs.File, error) { return opened(f.FS.OpenDir(name)) }

// OpenForAppend implements lnivfs.FS.
func (f *fileSystem) OpenForAppend(name string) (lnivfs.File, error) {
	info, err := f.FS.Stat(name) // OpenReadWrite would create it
	if err != nil {
		return nil, err
	}
	r, err := f.OpenReadWrite(name, writeCategory)
	if err != nil {
		return nil, err
	}
	return &file{File: r, at: info.Size()}, nil
}

// ReuseForWrite implements lnivfs.FS.
func (f *fileSystem) ReuseForWrite(oldname, newname string) (lnivfs.File, error) {
	if err := f.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return opened(f.OpenReadWrite(newname, writeCategory))
}

// Stat implements lnivfs.FS.
func (f *fileSystem) Stat(name string) (os.FileInfo, error) {
	info, err := f.FS.Stat(name)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// GetDiskUsage implements lnivfs.FS.
func (f *fileSystem) GetDiskUsage(path string) (lnivfs.DiskUsage, error) {
	u, err := f.FS.GetDiskUsage(path)
	return lnivfs.DiskUsage(u), err
}

// file is an open file with a position, for one goroutine at a time.
type file struct {
	vfs.File
	at int64
}

func opened(f vfs.File, err error) (lnivfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &file{File: f}, nil
}

// Read implements io.Reader.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Write implements io.Writer.
func (f *file) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		info, err := f.File.Stat()
		if err != nil {
			return 0, err
		}
		offset += info.Size()
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d: %w", offset, os.ErrInvalid)
	}
	f.at = offset
	return offset, nil
}

// Stat implements lnivfs.File.
func (f *file) Stat() (os.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return info, nil
}
