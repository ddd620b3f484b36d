package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Names of the process's own open files are told from others, by whatever links
// they are reached.
func TestFollowLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"stdout": "/dev/stdout", "again": "stdout", "sub": ".", "file": filepath.Join(dir, "target"), "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"file": "target", "sub/file": "target", "sub/new": "new", "nowhere/file": "", "loop": ""} {
		path, through, err := followLinks(filepath.Join(dir, name))
		if (err != nil) != (want == "") || err == nil && (through || path != filepath.Join(dir, want)) {
			t.Errorf("%s leads to %s, through %v, %v", name, path, through, err)
		}
	}
	if _, err := os.Stat("/proc/self/fd/1"); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", filepath.Join(dir, "again")} {
		if path, through, err := followLinks(name); !through || err != nil {
			t.Errorf("%s leads to %s, through %v, %v", name, path, through, err)
		}
	}
}

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

// TestRounded checks that figures keep what a person reads, and what is no number
// with decimals is as it was.
func TestRounded(t *testing.T) {
	for value, want := range map[string]string{
		"3187.935272727273": "3187.935", "0.00049": "0", "1.9996": "2", "12.5": "12.5", "3": "3", "18446744073709551615": "18446744073709551615",
		"true": "true", "null": "null", `["tcp://127.0.0.1:7400"]`: `["tcp://127.0.0.1:7400"]`,
	} {
		if got := rounded(value); got != want {
			t.Errorf("%s became %s, want %s", value, got, want)
		}
	}
}
