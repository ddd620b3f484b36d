package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/proa-kv/proa/internal/atomicfile"
	"github.com/proa-kv/proa/internal/symlink"
)

// writeFile writes what a command was told to write to the file name, as a
// redirection by a command shell would, with this difference: a regular file, new
// or old, changes under its name only when the new content is complete and on
// disk. An old one keeps its mode, a new one gets perm. Symbolic links are
// followed. What is no regular file (a device, a named pipe, /dev/stdout) is
// written through as it is.
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
