package symlink

import (
	"os"
	"path/filepath"
	"testing"
)

// Names of the process's own open files are told from others, by whatever links
// they are reached.
func TestFollow(t *testing.T) {
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
		path, through, err := Follow(filepath.Join(dir, name))
		if (err != nil) != (want == "") || err == nil && (through || path != filepath.Join(dir, want)) {
			t.Errorf("%s leads to %s, through %v, %v", name, path, through, err)
		}
	}
	if _, err := os.Stat("/proc/self/fd/1"); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", filepath.Join(dir, "again")} {
		if path, through, err := Follow(name); !through || err != nil {
			t.Errorf("%s leads to %s, through %v, %v", name, path, through, err)
		}
	}
}
