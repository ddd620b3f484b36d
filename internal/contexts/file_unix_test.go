//go:build unix

package contexts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is no regular file is refused, without a wait for somebody to write it and
// without an end of memory.
func TestLoadRegularFilesOnly(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"large":     func(path string) error { return os.WriteFile(path, make([]byte, bytesMax+1), 0o600) },
	} {
		why := "not a regular file"
		if name == "large" {
			why = "larger than"
		}
		path := filepath.Join(t.TempDir(), "contexts.json")
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The file can be a link to one that is kept elsewhere, also before there is any.
func TestUpdateFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	path, elsewhere := filepath.Join(dir, "proa", "contexts.json"), filepath.Join(dir, "dotfiles", "contexts.json")
	for _, f := range []string{path, elsewhere} {
		if err := os.Mkdir(filepath.Dir(f), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../dotfiles/contexts.json", path); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := Update(path, func(s *Set) error {
			s.Contexts[name] = Context{Endpoints: []string{name}}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if s, err := Load(elsewhere); err != nil || len(s.Contexts) != 2 {
		t.Errorf("%v, %v", s, err)
	}
}

// What cannot be read again is not written.
func TestUpdateTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contexts.json")
	err := Update(path, func(s *Set) error {
		s.Contexts["a"] = Context{Endpoints: []string{strings.Repeat("x", bytesMax)}}
		return nil
	})
	if _, statErr := os.Stat(path); !errors.Is(err, errTooLarge) || !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("%v, %v", err, statErr)
	}
}
