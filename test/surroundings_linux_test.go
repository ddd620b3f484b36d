package test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/proa-kv/proa/internal/testcluster"
)

// smallDisk mounts a file system of the given size, such as "1m".
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system is needed, and mounting one takes more privileges than this process has: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

func TestFullDiskAtStart(t *testing.T) {
	disk := smallDisk(t, "24m")
	data := filepath.Join(disk, "data")
	filler := filepath.Join(disk, "filler")
	fillDisk(t, filler)
	args := []string{"--data", data, "--set=raft.log_segment_size=4MiB", "--set=raft.log_size_max=16MiB", "--set=storage.memtable_size=1MiB"}
	full := refusal{args, []string{"no space left", disk, "is full", "MiB are needed", "free space", "--data"}}
	full.check(t, testcluster.Command{})
	// With room for a few files, but not for the log.
	if err := os.Truncate(filler, 22<<20); err != nil {
		t.Fatal(err)
	}
	full.check(t, testcluster.Command{})
	// With room the same directory starts: what was begun does not stand in
	// the way.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	node := testcluster.Start(t, testcluster.Config{Dir: data, Args: args[2:]})
	put(t, node, 10)
	node.Restart()
	expectRows(t, node, 10)
	node.Stop()
	node.Verify()
}

// fillDisk makes a file that takes all there is of its disk.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRestartOnFullDisk starts a server on its directory when the disk has
// become full: it says so, as often as it is tried, and does not panic. With
// room again everything is there.
func TestRestartOnFullDisk(t *testing.T) {
	disk := smallDisk(t, "64m")
	settings := []string{"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB", "storage.memtable_size=1MiB"}
	node := testcluster.Start(t, testcluster.Config{Dir: filepath.Join(disk, "data"), Settings: settings})
	put(t, node, 200)
	for name, end := range map[string]func(){"stopped": func() { node.Stop() }, "killed": node.Kill} {
		end()
		filler := filepath.Join(disk, "filler")
		fillDisk(t, filler)
		args := []string{"--data", node.Dir()}
		for _, s := range settings {
			args = append(args, "--set="+s)
		}
		for range 2 {
			refusal{args, []string{"cannot start", "no space left", disk, "is full", "MiB are free", "MiB are needed", "free space"}}.check(t, testcluster.Command{})
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		node.Start()
		t.Log(name)
		expectRows(t, node, 200)
	}
	node.Stop()
	node.Verify()
}

// TestDiskFillsUp writes until the disk is full. The server must not
// acknowledge what it could not keep, and must say why it stops; with more
// room everything acknowledged is there.
func TestDiskFillsUp(t *testing.T) {
	disk := smallDisk(t, "40m")
	node := testcluster.Start(t, testcluster.Config{Dir: filepath.Join(disk, "data"), Settings: []string{
		"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB", "storage.memtable_size=1MiB"}})
	c := connect(t, node, nil)
	running, ended := context.WithCancel(t.Context())
	exited := node.Exited()
	go func() { <-exited; ended() }()
	value := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(value) // incompressible; never fails
	acked := 0
	for ; acked < 2000; acked++ {
		copy(value, rowValue(acked))
		if _, err := c.Put(running, rowKey(acked), value); err != nil {
			t.Logf("%d rows of 100 KiB were acknowledged, then: %v", acked, err)
			break
		}
	}
	if acked == 2000 {
		t.Fatal("200 MB were stored on a disk of 40 MB")
	}
	if status := node.AwaitExit(); status != 3 {
		t.Errorf("the server ended with status %d, want 3", status)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	node.Start()
	c = connect(t, node, nil)
	for i := range acked {
		item, err := c.Get(t.Context(), rowKey(i))
		if err != nil || len(item.Value) != len(value) || string(item.Value[:len(rowValue(i))]) != string(rowValue(i)) {
			t.Fatalf("row %d: %d bytes, %v", i, len(item.Value), err)
		}
	}
	node.Stop()
	node.Verify()
}

func TestNoPermission(t *testing.T) {
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		// Root may do anything, so the server runs as nobody.
		attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(dir), 0o755) })
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755) })
	says := []string{"permission denied", dir, "permission there", "--data"}
	refusal{[]string{"--data", dir}, says}.check(t, testcluster.Command{SysProcAttr: attr})
	refusal{[]string{"--data", filepath.Join(dir, "deeper")}, says}.check(t, testcluster.Command{SysProcAttr: attr})
}
