package durable

import (
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// read returns the content of a file, "" where there is none.
func read(t *testing.T, f vfs.FS, path string) string {
	file, err := f.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What the functions have done survives the loss of everything that is not synced.
func TestPowerFailure(t *testing.T) {
	f := vfs.NewCrashableMem()
	if err := MakeDir(f, "a/b/c", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(f, "a/b/c", 0o700); err != nil {
		t.Error("a directory that is there:", err)
	}
	for _, content := range []string{"first", "second, which is longer", ""} {
		if err := ReplaceFile(f, "a/b/c", "file", []byte(content)); err != nil {
			t.Fatal(err)
		}
		after := f.CrashClone(vfs.CrashCloneCfg{})
		if got := read(t, after, "a/b/c/file"); got != content {
			t.Errorf("the file holds %q, want %q", got, content)
		}
		if names, err := after.List("a/b/c"); err != nil || len(names) != 1 {
			t.Errorf("files %q, %v", names, err)
		}
	}
	if err := ReplaceFile(f, "a/b/missing", "file", nil); err == nil {
		t.Error("a file was made in a directory that is missing")
	}
	if err := SyncDir(f, "missing"); err == nil {
		t.Error("a directory that is missing was synced")
	}
}
