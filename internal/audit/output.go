package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// output is where the lines go. It is the writer's.
type output struct {
	path string // empty: to w alone
	w    io.Writer

	file    *os.File  // what is open of path
	looked  time.Time // when path was looked for last
	dirty   bool      // file has lines that are not synced
	synced  time.Time
	partial bool // the last line may not be whole
}

// open opens the file anew. Where it cannot, the one before stays in use.
func (o *output) open(now time.Time) error {
	if o.path == "" {
		return nil
	}
	f, partial, err := openFile(o.path)
	if err != nil {
		return err
	}
	before := o.close()
	o.file, o.partial, o.looked = f, partial, now
	return before
}

// openFile opens a file to append to it, and finds out whether its last line lacks its end.
func openFile(path string) (f *os.File, partial bool, err error) {
	if there, err := os.Lstat(path); err == nil {
		if err := regular(path, there); err != nil {
			return nil, false, err
		}
	}
	// To be read as well, for the last byte; and a pipe that has just come would have to be
	// waited for otherwise.
	f, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("%w: make its directory first", err)
	}
	if err != nil {
		return nil, false, err
	}
	if partial, err = check(f, path); err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, partial, nil
}

func check(f *os.File, path string) (partial bool, err error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(path) // a link that has just come is another file
	if err != nil {
		return false, err
	}
	if err := regular(path, there); err != nil {
		return false, err
	}
	if !os.SameFile(mine, there) {
		return false, fmt.Errorf("%s was replaced while it was opened: try again", path)
	}
	if mine.Size() == 0 {
		syncDir(filepath.Dir(path))
		return false, nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], mine.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// regular returns why a file cannot be an audit log.
func regular(path string, fi os.FileInfo) error {
	switch mode := fi.Mode(); {
	case mode&os.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link: name the file that it leads to", path)
	case !mode.IsRegular():
		return fmt.Errorf("%s is no regular file: name a file, or stderr", path)
	}
	return nil
}

// syncDir makes the name of a new file durable, where the directory may be opened: if it
// may not, the file is there all the same.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// follow opens the file anew where it has been moved away or deleted. Where it cannot, the
// one before stays in use.
func (o *output) follow(now time.Time) error {
	if o.path == "" || now.Sub(o.looked) < interval {
		return nil
	}
	o.looked = now
	there, err := os.Lstat(o.path)
	mine, err2 := o.file.Stat()
	if err == nil && err2 == nil && os.SameFile(there, mine) {
		return nil
	}
	return o.open(now)
}

// write writes a line, after the end of one that may lack it.
func (o *output) write(line []byte) error {
	if o.partial {
		line = append([]byte{'\n'}, line...)
	}
	w := o.w
	if o.file != nil {
		w = o.file
	}
	n, err := w.Write(line)
	o.dirty = o.dirty || o.file != nil && n > 0
	switch {
	case err == nil:
		o.partial = false
	case o.partial:
		o.partial = n != 1 // the end of the line before, and nothing of this one
	default:
		o.partial = n > 0
	}
	return err
}

// sync syncs the file, where that is due. What could not be synced is not tried again: the
// kernel may have dropped it.
func (o *output) sync(now time.Time) error {
	if !o.dirty || now.Sub(o.synced) < interval {
		return nil
	}
	o.dirty, o.synced = false, now
	return o.file.Sync()
}

func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	var err error
	if o.dirty {
		err = o.file.Sync()
	}
	o.dirty = false
	err = errors.Join(err, o.file.Close())
	o.file = nil
	return err
}
