package environment

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/statemachine"
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

// beingSaved is in the path of a snapshot that dragonboat writes of a replica here.
const beingSaved = ".generating"

// unsaved is an error of the disk that has dragonboat give a snapshot up, and remove what
// there is of it. By other errors it panics. The log stays as it is, and the next snapshot
// may have more luck.
type unsaved struct{ error }

// Unwrap is how dragonboat tells.
func (unsaved) Unwrap() error { return statemachine.ErrSnapshotStopped }

// saving returns an error of a call that writes to a path.
func saving(path string, err error) error {
	if err == nil || !strings.Contains(path, beingSaved) {
		return err
	}
	return unsaved{err}
}

// Create implements lnivfs.FS.
func (f *fileSystem) Create(name string) (lnivfs.File, error) {
	created, err := f.FS.Create(name, writeCategory)
	if err != nil {
		return nil, saving(name, err)
	}
	// dragonboat goes back to write the header of a snapshot.
	if err := created.Close(); err != nil {
		return nil, saving(name, err)
	}
	w, err := f.OpenReadWrite(name, writeCategory)
	if err != nil {
		return nil, saving(name, err)
	}
	return &file{File: w, path: name}, nil
}

// MkdirAll implements lnivfs.FS.
func (f *fileSystem) MkdirAll(name string, mode os.FileMode) error {
	return saving(name, f.FS.MkdirAll(name, mode))
}

// Rename implements lnivfs.FS.
func (f *fileSystem) Rename(from, to string) error { return saving(from, f.FS.Rename(from, to)) }

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
func (f *fileSystem) OpenDir(name string) (lnivfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, saving(name, err)
	}
	return &file{File: d, path: name}, nil
}

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
	path string // of one that is written; empty: no matter
	at   int64
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

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, saving(f.path, err)
}

// Sync implements lnivfs.File.
func (f *file) Sync() error { return saving(f.path, f.File.Sync()) }

// Close implements lnivfs.File.
func (f *file) Close() error { return saving(f.path, f.File.Close()) }

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
