package raftgroup

import (
	"bytes"
	"errors"
	"github.com/proa-kv/proa/raftgroup/placement"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// modes returns the permissions in and of dir that others than the owner have.
func modes(t *testing.T, dir string) (open []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a node that runs removes files
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.Mode()&0o077 != 0 {
			open = append(open, info.Mode().String()+" "+path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// TestDirectoryIsPrivate has a process whose umask hides nothing make a data
// directory, and then one that finds it open to all.
func TestDirectoryIsPrivate(t *testing.T) { onEngines(t, testDirectoryIsPrivate) }

func testDirectoryIsPrivate(t *testing.T, e placement.Engine) {
	for _, engine := range []string{"etcd", "dragonboat"} {
		t.Run(engine, func(t *testing.T) { testPrivate(t, engine) })
	}
}

func testPrivate(t *testing.T, engine string) {
	defer syscall.Umask(syscall.Umask(0))
	parent := t.TempDir()
	dir := filepath.Join(parent, "deep", "data")
	var log bytes.Buffer
	o := Options{Dir: dir, Engine: engine, RowCacheBytes: 1 << 20, BlockCacheBytes: 1 << 20, MemtableBytes: 512 << 10, SegmentBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	session := func() {
		t.Helper()
		n, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, n, "k", "v")
		if err := n.store.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := n.runs.Save(); err != nil {
			t.Fatal(err)
		}
		mustPut(t, n, "l", strings.Repeat("v", 1<<20)) // in a segment of its own
		open := modes(t, dir)
		for deadline := time.Now().Add(20 * time.Second); open != nil && time.Now().Before(deadline); {
			open = modes(t, dir) // a file that is being made is closed to others in a moment; the directory already is
		}
		if open != nil {
			t.Errorf("others may use\n%s", strings.Join(open, "\n"))
		}
		closeNode(t, n)
		if open := modes(t, dir); open != nil {
			t.Errorf("when it is stopped, others may use\n%s", strings.Join(open, "\n"))
		}
	}
	session()
	if info, err := os.Stat(filepath.Dir(dir)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the parent that was missing: %v, %v", info.Mode(), err)
	}
	if strings.Contains(log.String(), "accessible to other users") {
		t.Errorf("a new directory is said to have been open:\n%s", &log)
	}

	// As a version that did not care left it.
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	session()
	if n := strings.Count(log.String(), "accessible to other users"); n != 1 {
		t.Errorf("%d lines tell of it:\n%s", n, &log)
	}

	// A directory that is not the node's alone keeps its permissions, or a
	// server whose data directory is /tmp would take that from everybody.
	if err := os.WriteFile(filepath.Join(dir, "photo.jpg"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	n, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	closeNode(t, n)
	if open := modes(t, dir); len(open) != 2 {
		t.Errorf("others may use\n%s", strings.Join(open, "\n"))
	}
	if !strings.Contains(log.String(), "contains other files") {
		t.Errorf("nothing is said of it:\n%s", &log)
	}
}
