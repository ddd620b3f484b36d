package datadir

import (
	"cmp"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What a data directory holds is nobody's business but the server's user's.
const (
	privateDirMode  fs.FileMode = 0o700
	privateFileMode fs.FileMode = 0o600
)

// privateFS is the real file system for a data directory: what is created below
// dir is for its owner alone, whatever the process's umask, which belongs to
// the process. Its parents are made as they are asked for.
type privateFS struct {
	vfs.FS
	dir string
}

// fileSystem returns f, or the real file system where f is nil, for the data
// directory dir.
func fileSystem(f vfs.FS, dir string) vfs.FS {
	if f == nil {
		return privateFS{vfs.Default, dir}
	}
	return f
}

func (p privateFS) Unwrap() vfs.FS { return p.FS }

func (p privateFS) MkdirAll(dir string, mode os.FileMode) error {
	if err := p.FS.MkdirAll(p.PathDir(p.dir), mode); err != nil {
		return err
	}
	return p.FS.MkdirAll(dir, privateDirMode)
}

func (p privateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := p.FS.Create(name, c)
	return file, closeToOthers(name, err)
}

func (p privateFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := p.FS.OpenReadWrite(name, c, o...)
	return file, closeToOthers(name, err)
}

func (p privateFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := p.FS.ReuseForWrite(from, to, c)
	return file, closeToOthers(to, err)
}

func (p privateFS) Lock(name string) (io.Closer, error) {
	lock, err := p.FS.Lock(name)
	return lock, closeToOthers(name, err)
}

// closeToOthers takes the permissions of everybody but the owner from a file
// that was opened with err, which it returns. Not every file system has
// permissions, and an older file may be somebody else's; so it is no error if
// that fails: the directory lets nobody in, and tighten reports it.
func closeToOthers(name string, err error) error {
	if err == nil {
		_ = os.Chmod(name, privateFileMode)
	}
	return err
}

// tighten takes the permissions that earlier versions, or an operator's copy,
// gave to others in a data directory, and says so. Where the directory holds
// other things as well, its own permissions are left to who put them there.
func tighten(f vfs.FS, logger *slog.Logger) {
	p, ok := f.(privateFS)
	if !ok {
		return
	}
	t := tightening{}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return // whoever reads it next has a better message
	}
	foreign := false
	for _, e := range entries {
		switch {
		case slices.Contains(dirEntries, e.Name()):
			t.walk(filepath.Join(p.dir, e.Name()))
		case e.Name() != "lost+found":
			foreign = true
		}
	}
	if foreign {
		logger.Warn("data directory contains other files, so its permissions were not changed; restrict it to the server's user", "data", p.dir)
	} else {
		t.one(p.dir)
	}
	if t.changed > 0 {
		logger.Info("data directory was accessible to other users; corrected its permissions", "data", p.dir, "changed", t.changed)
	}
	if t.err != nil {
		logger.Warn("data directory is accessible to other users and its permissions cannot be changed; run the server as the directory's owner", "data", p.dir, "error", t.err)
	}
}

// dirEntries are the names of what a data directory holds.
var dirEntries = []string{IdentityFile, IdentityFile + ".tmp", RunsFile, RunsFile + ".tmp", RunsFile + damagedSuffix, lockFile, LogDir, StateDir, EngineDir}

// tightening is what a walk through a directory has changed.
type tightening struct {
	changed int
	err     error // the first one
}

func (t *tightening) walk(path string) {
	_ = filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			t.err = cmp.Or(t.err, err)
		} else if e.IsDir() || e.Type().IsRegular() {
			t.one(path)
		}
		return nil
	})
}

// one takes from everybody but the owner of path what they may do.
func (t *tightening) one(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode()&0o077 == 0 {
		return
	}
	if err == nil {
		err = os.Chmod(path, info.Mode()&^0o077)
	}
	if err == nil {
		t.changed++
	}
	t.err = cmp.Or(t.err, err)
}
