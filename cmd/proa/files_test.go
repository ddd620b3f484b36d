package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What fails half-way leaves everything as it was.
func TestReplaceFileFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("half-way")
	for _, name := range []string{path, path + "2"} {
		err := writeFile(t.Context(), name, 0o600, func(w io.Writer) error {
			_, err := w.Write([]byte("half"))
			return errors.Join(err, failure)
		})
		if !errors.Is(err, failure) {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if b, readErr := os.ReadFile(path); err != nil || readErr != nil || string(b) != "old" || len(entries) != 1 {
		t.Errorf("%q, %v, %v, %v", b, entries, err, readErr)
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
