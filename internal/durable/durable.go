// Package durable changes directories so that they are what they should be after a
// power failure, too.
package durable

import (
	"errors"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SyncDir makes the names in a directory durable.
func SyncDir(f vfs.FS, dir string) error {
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MakeDir creates a directory, with its parents, and makes the names of those it
// creates durable.
func MakeDir(f vfs.FS, dir string, mode fs.FileMode) error {
	// The directory itself may be left over from a start that came no further.
	parents := []string{f.PathDir(dir)}
	for d := parents[0]; d != f.PathDir(d); d = f.PathDir(d) {
		if _, err := f.Stat(d); err == nil {
			break
		}
		parents = append(parents, f.PathDir(d))
	}
	if err := f.MkdirAll(dir, mode); err != nil {
		return err
	}
	for _, p := range parents {
		// A parent that may not be opened is not one of those made here.
		if err := SyncDir(f, p); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// ReplaceFile replaces a file of a directory, or makes it: after a crash it is there
// as it was, or as it is to be. Meanwhile its content is in a file beside it, with
// the suffix ".tmp".
func ReplaceFile(f vfs.FS, dir, name string, content []byte) error {
	path := f.PathJoin(dir, name)
	file, err := f.Create(path+".tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = file.Write(content); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := f.Rename(path+".tmp", path); err != nil {
		return err
	}
	return SyncDir(f, dir)
}
