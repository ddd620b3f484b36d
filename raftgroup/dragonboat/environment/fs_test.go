package environment

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	lnivfs "github.com/lni/vfs"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFileSystem has the same done to dragonboat's own file systems and to ours over those
// of Pebble: it must come to the same.
func TestFileSystem(t *testing.T) {
	systems := map[string]lnivfs.FS{
		"their memory": lnivfs.NewMem(),
		"their disk":   lnivfs.Default,
		"our memory":   newFileSystem(vfs.NewMem(), "", 1),
		"strict":       newFileSystem(vfs.NewCrashableMem(), "", 1),
		"our disk":     newFileSystem(vfs.Default, "", 1),
	}
	var want string
	for i, name := range []string{"their memory", "their disk", "our memory", "strict", "our disk"} {
		fs, dir := systems[name], t.TempDir()
		must(t, fs.MkdirAll(dir, 0o755))
		got := story(t, fs, dir)
		if i == 0 {
			want = got
		} else if got != want {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

// story tells what comes of a number of calls. Their file system in memory has files that
// are read or written, not both; so has the story.
func story(t *testing.T, fs lnivfs.FS, dir string) string {
	var s strings.Builder
	path := func(name string) string { return fs.PathJoin(dir, name) }
	say := func(what string, err error) {
		switch {
		case err == nil:
			fmt.Fprintf(&s, "%s\n", what)
		case oserror.IsNotExist(err):
			fmt.Fprintf(&s, "%s: does not exist\n", what)
		case oserror.IsExist(err):
			fmt.Fprintf(&s, "%s: exists\n", what)
		case err == io.EOF:
			fmt.Fprintf(&s, "%s: EOF\n", what)
		default:
			fmt.Fprintf(&s, "%s: fails\n", what)
		}
	}
	write := func(f lnivfs.File, err error, parts ...string) {
		say("opened for writing", err)
		if err != nil {
			return
		}
		for _, p := range parts {
			n, err := f.Write([]byte(p))
			say(fmt.Sprint("wrote ", n), err)
		}
		say("synced", f.Sync())
		say("closed", f.Close())
	}
	show := func(name string) {
		f, err := fs.Open(path(name))
		say("opened "+name, err)
		if err != nil {
			return
		}
		p, err := io.ReadAll(f)
		say(fmt.Sprintf("has %q", p), err)
		n, err := f.Read(make([]byte, 1))
		say(fmt.Sprint("at the end read ", n), err)
		_, err = f.Write([]byte("no"))
		say("writing", err)
		info, err := f.Stat()
		say(fmt.Sprint("it is ", info.Size(), info.IsDir()), err)
		say("closed", f.Close())
	}
	names := func(of string) {
		all, err := fs.List(of)
		slices.Sort(all)
		say(fmt.Sprint(fs.PathBase(of)[:1], all), err)
	}

	for _, name := range []string{"none", "none/of/it"} {
		_, err := fs.Open(path(name))
		say("Open "+name, err)
		_, err = fs.OpenDir(path(name))
		say("OpenDir", err)
		f, err := fs.OpenForAppend(path(name))
		write(f, err)
		_, err = fs.Stat(path(name))
		say("Stat", err)
		say("Remove", fs.Remove(path(name)))
		say("RemoveAll", fs.RemoveAll(path(name)))
		say("Rename", fs.Rename(path(name), path("other")))
		say("Link", fs.Link(path(name), path("other")))
		f, err = fs.ReuseForWrite(path(name), path("other"))
		write(f, err)
		if l, err := fs.List(path(name)); err == nil {
			t.Errorf("List: %v", l)
		}
	}
	f, err := fs.Create(path("none/file"))
	write(f, err)
	_, err = fs.Lock(path("none/LOCK"))
	say("Lock", err)

	f, err = fs.Create(path("file"))
	write(f, err, "hello", ", ", "", "world")
	show("file")
	info, err := fs.Stat(path("file"))
	say(fmt.Sprint(info.Name(), info.Size(), info.IsDir()), err)
	f, err = fs.OpenForAppend(path("file"))
	write(f, err, "!", "!")
	show("file")
	f, err = fs.Create(path("header"))
	say("created", err)
	_, err = f.Write([]byte("........content"))
	say("written", err)
	n, err := f.WriteAt([]byte("header"), 0)
	say(fmt.Sprint("written at 0: ", n), err)
	_, err = f.Write([]byte(", more"))
	say("written", err)
	say("closed", f.Close())
	show("header")

	f, err = fs.Open(path("header"))
	say("opened", err)
	p := make([]byte, 6)
	n, err = f.ReadAt(p, 8)
	say(fmt.Sprintf("%d %q", n, p), err)
	at, err := f.Seek(8, io.SeekStart)
	say(fmt.Sprint("at ", at), err)
	n, err = f.Read(p)
	say(fmt.Sprintf("%d %q", n, p), err)
	at, err = f.Seek(0, io.SeekCurrent)
	say(fmt.Sprint("at ", at), err)
	n, err = f.ReadAt(p, 100)
	say(fmt.Sprint("behind the end: ", n), err)
	say("closed", f.Close())

	f, err = fs.Create(path("file"))
	write(f, err, "anew")
	show("file")
	say("Link", fs.Link(path("file"), path("linked")))
	say("Link", fs.Link(path("file"), path("linked")))
	show("linked")
	say("Rename", fs.Rename(path("linked"), path("header")))
	show("header")
	f, err = fs.ReuseForWrite(path("header"), path("reused"))
	say("ReuseForWrite", err)
	say("closed", f.Close())
	show("header")
	names(dir)
	say("MkdirAll", fs.MkdirAll(path("a/b/c"), 0o755))
	say("MkdirAll", fs.MkdirAll(path("a/b/c"), 0o755))
	f, err = fs.Create(path("a/b/c/d"))
	write(f, err, "d")
	say("Remove of a directory with something in it", fs.Remove(path("a")))
	d, err := fs.OpenDir(path("a/b"))
	say("OpenDir", err)
	say("synced", d.Sync())
	info, err = d.Stat()
	say(fmt.Sprint(info.IsDir(), info.Name()), err)
	say("closed", d.Close())
	say("Rename", fs.Rename(path("a/b"), path("e")))
	names(path("a"))
	names(path("e"))
	show("e/c/d")
	say("Remove", fs.Remove(path("e/c/d")))
	say("RemoveAll", fs.RemoveAll(path("e")))
	names(dir)
	lock, err := fs.Lock(path("LOCK"))
	say("locked", err)
	say("unlocked", lock.Close())
	lock, err = fs.Lock(path("LOCK"))
	say("locked again", err)
	say("unlocked", lock.Close())
	names(dir)
	say(strings.Join([]string{fs.PathJoin("a", "", "b/", "../c"), fs.PathBase("a/b/"), fs.PathDir("a/b")}, " "), nil)
	return s.String()
}

// TestReadWhatIsWritten reads and writes one open file, from where the last call ended,
// as their disk has it.
func TestReadWhatIsWritten(t *testing.T) {
	for name, fs := range map[string]lnivfs.FS{
		"theirs": lnivfs.Default, "memory": newFileSystem(vfs.NewMem(), "", 1), "disk": newFileSystem(vfs.Default, "", 1),
	} {
		path := fs.PathJoin(t.TempDir(), "file")
		must(t, fs.MkdirAll(fs.PathDir(path), 0o755))
		f, err := fs.Create(path)
		must(t, err)
		_, err = f.Write([]byte("0123456789"))
		must(t, err)
		for _, c := range []struct {
			offset int64
			whence int
			want   int64
		}{{3, io.SeekStart, 3}, {-1, io.SeekCurrent, 2}, {-2, io.SeekEnd, 8}, {5, io.SeekEnd, 15}, {0, io.SeekStart, 0}} {
			if at, err := f.Seek(c.offset, c.whence); err != nil || at != c.want {
				t.Errorf("%s: Seek(%d, %d): %d, %v", name, c.offset, c.whence, at, err)
			}
		}
		if _, err := f.Seek(-1, io.SeekStart); !errors.Is(err, os.ErrInvalid) && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: before the beginning: %v", name, err)
		}
		p := make([]byte, 4)
		_, err = io.ReadFull(f, p)
		must(t, err)
		_, err = f.Write([]byte("xy"))
		must(t, err)
		if rest, err := io.ReadAll(f); err != nil || string(p)+string(rest) != "01236789" {
			t.Errorf("%s: %q %q, %v", name, p, rest, err)
		}
		must(t, f.Close())
	}
}

// TestErrorsOfFileSystem has each operation fail: the caller is told, and gets nothing.
func TestErrorsOfFileSystem(t *testing.T) {
	mem := vfs.NewMem()
	_, err := mem.Create("file", writeCategory)
	must(t, err)
	fs := newFileSystem(errorfs.Wrap(mem, errorfs.ErrInjected), "", 1)
	open := map[string]func() (lnivfs.File, error){
		"Create":        func() (lnivfs.File, error) { return fs.Create("new") },
		"Open":          func() (lnivfs.File, error) { return fs.Open("file") },
		"OpenDir":       func() (lnivfs.File, error) { return fs.OpenDir("/") },
		"OpenForAppend": func() (lnivfs.File, error) { return fs.OpenForAppend("file") },
		"ReuseForWrite": func() (lnivfs.File, error) { return fs.ReuseForWrite("file", "file") },
	}
	for name, f := range open {
		if f, err := f(); f != nil || !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("%s: %#v, %v", name, f, err)
		}
	}
	info, err := fs.Stat("file")
	if info != nil || !errors.Is(err, errorfs.ErrInjected) {
		t.Errorf("Stat: %#v, %v", info, err)
	}
}

// TestUsage: disk usage is the file system's.
func TestUsage(t *testing.T) {
	mem := vfs.NewMem()
	fs := newFileSystem(mem, "", 1)
	if _, err := fs.GetDiskUsage("/"); !errors.Is(err, vfs.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1, TotalBytes: 2, UsedBytes: 3})
	if u, err := fs.GetDiskUsage("/"); err != nil || u != (lnivfs.DiskUsage{AvailBytes: 1, TotalBytes: 2, UsedBytes: 3}) {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestOpenOptions: an option of theirs finds the descriptor.
func TestOpenOptions(t *testing.T) {
	path := t.TempDir() + "/file"
	must(t, os.WriteFile(path, nil, 0o600))
	var found uintptr
	f, err := newFileSystem(vfs.Default, "", 1).Open(path, optionFunc(func(f lnivfs.File) { found = f.(interface{ Fd() uintptr }).Fd() }))
	must(t, err)
	defer f.Close()
	if found == 0 || found == vfs.InvalidFd {
		t.Errorf("descriptor %d", found)
	}
}

type optionFunc func(lnivfs.File)

func (f optionFunc) Apply(file lnivfs.File) { f(file) }

// TestHostDirectory: what dragonboat joins of its directory, the host's name and the
// deployment does not depend on the name.
func TestHostDirectory(t *testing.T) {
	fs := newFileSystem(vfs.NewMem(), "/data/host", 7)
	const did = "00000000000000000007"
	for _, host := range []string{"a", "b.example", "../../etc", "LOCK", "node"} {
		if got := fs.PathJoin("/data/host", host, did, "snapshot-part-1"); got != "/data/host/node/"+did+"/snapshot-part-1" {
			t.Errorf("%s: %s", host, got)
		}
		if got := fs.PathJoin("/data/host", host); got != fs.FS.PathJoin("/data/host", host) {
			t.Errorf("%s: %s", host, got)
		}
	}
}

// TestUnsavedSnapshot has each write of a snapshot fail in turn: it is given up, the replica
// goes on, and the next one is saved.
func TestUnsavedSnapshot(t *testing.T) {
	var left, failed atomic.Int64 // writes until one fails; how many have
	left.Store(math.MaxInt64)
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, beingSaved) && op.Kind != errorfs.OpRemoveAll && left.Add(-1) == 0 {
			failed.Add(1)
			return syscall.ENOSPC
		}
		return nil
	}))
	h, err := startNodeHost(fs, nil)
	must(t, err)
	defer h.close(t)
	h.startReplica(t, 1, false, new(counter))
	for writes := int64(1); ; writes++ {
		left.Store(writes)
		err := h.snapshot(t, failed.Load)
		whole := failed.Load() < writes
		left.Store(math.MaxInt64)
		if whole {
			must(t, err)
			if writes < 8 {
				t.Errorf("only %d writes", writes)
			}
			break
		}
		if err == nil {
			t.Errorf("a snapshot was saved although write %d failed", writes)
		}
		must(t, h.snapshot(t, failed.Load))
	}
}
