// Package atomicfile replaces a file so that it is complete at any moment.
package atomicfile

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace puts a file in the place of what has this path, a symbolic link too, when
// write has written its content and it is on disk. Until then the file has a name of
// its own beside the path, which nobody can have prepared: it is drawn, and never
// opened if it is there. Where Replace fails, what was there stays.
func Replace(path string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	for _, step := range []func() error{
		func() error { return write(f) },
		func() error { return f.Chmod(mode) },
		f.Sync,
		f.Close,
		func() error { return os.Rename(f.Name(), path) },
	} {
		if err = step(); err != nil {
			return err
		}
	}
	return nil
}
