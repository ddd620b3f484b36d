package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"github.com/proa-kv/proa/internal/atomicfile"
	"github.com/proa-kv/proa/internal/symlink"
)

// writeFile writes the output of a command to a file, as a redirection by a command
// shell would, with this difference: a regular file, new or old, changes under its
// name only when the new content is complete and on disk. An old one keeps its mode,
// a new one gets perm. Symbolic links are followed. What is no regular file (a
// device, a named pipe, /dev/stdout) is written to directly.
func writeFile(ctx context.Context, name string, perm fs.FileMode, write func(io.Writer) error) error {
	path, through, err := symlink.Follow(name)
	if err != nil {
		return notDonef("%w", err)
	}
	info, err := os.Stat(name)
	switch {
	case through || err == nil && !info.Mode().IsRegular():
		return writeThrough(ctx, name, write)
	case err == nil:
		perm = info.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return notDonef("%w", err)
	}
	return replaceFile(path, perm, write)
}

// writeThrough writes to what is there. To open a named pipe takes until
// somebody reads it, or ctx ends.
func writeThrough(ctx context.Context, name string, write func(io.Writer) error) error {
	f, err := within(ctx, func() (*os.File, error) { return os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0) })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return usagef("%w", err)
	}
	return errors.Join(write(f), f.Close())
}

// readFile returns what read makes of a file that the command line names.
func readFile[T any](name string, read func(io.Reader) (T, error)) (value T, err error) {
	f, err := os.Open(name)
	if err != nil {
		return value, notDonef("%w", err)
	}
	defer f.Close()
	return read(f)
}

// replaceFile replaces a file when its new content is complete. Where the content
// cannot even be begun, the name is what is wrong.
func replaceFile(path string, mode fs.FileMode, write func(io.Writer) error) error {
	begun := false
	err := atomicfile.Replace(path, mode, func(w io.Writer) error {
		begun = true
		return write(w)
	})
	if err != nil && !begun {
		return notDonef("%w", err)
	}
	return err
}

// lineReader reads lines of any length up to a bound.
type lineReader struct {
	r      *bufio.Reader
	number int   // of the line returned last, from 1
	offset int64 // behind it
	buf    []byte
}

// lineBytesMax bounds a line: a value of 15 MiB in base64, its key and their
// wrapping, or the same with every byte escaped in JSON.
const lineBytesMax = 96 << 20

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 256<<10)}
}

// all returns the lines without their ends, each valid until the next. What ends them
// before the end of the input is returned last.
func (l *lineReader) all() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			line, err := l.next()
			if errors.Is(err, io.EOF) || !yield(line, err) || err != nil {
				return
			}
		}
	}
}

func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		l.offset += int64(len(part))
		switch {
		case len(l.buf) > lineBytesMax:
			return nil, fmt.Errorf("line %d is over %d bytes", l.number+1, lineBytesMax)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(l.buf) == 0):
			return nil, err
		}
		l.number++
		return bytes.TrimSuffix(l.buf, []byte{'\n'}), nil
	}
}
