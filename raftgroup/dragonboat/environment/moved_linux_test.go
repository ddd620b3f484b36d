package environment

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestMovedDisk starts a NodeHost, with a replica and its snapshot, under another name of
// the host.
func TestMovedDisk(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	if err := syscall.Unshare(syscall.CLONE_NEWUTS); err != nil {
		t.Skip("the host cannot be given another name: ", err)
	}
	fs := vfs.NewMem()
	m := new(counter)
	for i, name := range []string{"first.example", "second", "../../third"} {
		if err := syscall.Sethostname([]byte(name)); err != nil {
			t.Skip(err)
		}
		if got, err := os.Hostname(); got != name {
			t.Fatal(got, err)
		}
		h, err := startNodeHost(fs, nil)
		must(t, err)
		h.startReplica(t, 1, i > 0, m)
		must(t, h.snapshot(t, none))
		h.close(t)
	}
	for dir, want := range map[string][]string{"/": {"data"}, testDir: {"LOCK", idFile, purposeFile, hostDir}} {
		names, err := fs.List(dir)
		must(t, err)
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Errorf("in %s are %q", dir, names)
		}
	}
}
