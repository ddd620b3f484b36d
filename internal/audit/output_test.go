package audit

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// operations are those of the events in a file.
func operations(t *testing.T, path string) (all []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events(t, b) {
		all = append(all, e.Operation)
	}
	return all
}

func holds(t *testing.T, path string, want ...string) {
	t.Helper()
	if got := operations(t, path); !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", filepath.Base(path), got, want)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFile: a file is made for its owner alone, and appended to by the next process.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for _, operation := range []string{"one", "two"} {
		l := open(t, Config{Path: path})
		l.Log(Event{Kind: Admin, Operation: operation})
		closed(t, l)
	}
	holds(t, path, "one", "two")
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// TestRotation: a file that was moved away or deleted is replaced by a new one, which is
// noticed within a second.
func TestRotation(t *testing.T) {
	for _, remove := range []func(path string) error{os.Remove, func(path string) error { return os.Rename(path, path+".1") }} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			l := open(t, Config{Path: path})
			do(t, l.LogWait(t.Context(), Event{Kind: Admin, Operation: "one"}))
			do(t, remove(path))
			time.Sleep(interval - 1)
			do(t, l.LogWait(t.Context(), Event{Kind: Admin, Operation: "two"}))
			if _, err := os.Stat(path); err == nil {
				t.Error("the file is looked for more than once a second")
			}
			time.Sleep(time.Nanosecond)
			do(t, l.LogWait(t.Context(), Event{Kind: Admin, Operation: "three"}))
			closed(t, l)
			holds(t, path, "three")
			if _, err := os.Stat(path + ".1"); err == nil {
				holds(t, path+".1", "one", "two")
			}
			if l.Failed() != 0 {
				t.Errorf("%d failed", l.Failed())
			}
		})
	}
}

func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		l := open(t, Config{Path: path})
		l.Log(Event{Kind: Admin, Operation: "one"})
		do(t, l.Reopen()) // of the same file
		l.Log(Event{Kind: Admin, Operation: "two"})
		do(t, os.Rename(path, path+".1"))
		l.Log(Event{Kind: Admin, Operation: "three"}) // before
		do(t, l.Reopen())
		l.Log(Event{Kind: Admin, Operation: "four"})
		do(t, os.Rename(path, path+".2"))
		do(t, os.Mkdir(path, 0o700))
		if err := l.Reopen(); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Error(err)
		}
		l.Log(Event{Kind: Admin, Operation: "five"})
		closed(t, l)
		holds(t, path+".1", "one", "two", "three")
		holds(t, path+".2", "four", "five")
	})
}

// TestNoNewFile: while no new file can be opened, lines go to the one that was moved, and
// the log of the server says so.
func TestNoNewFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		path := filepath.Join(t.TempDir(), "audit.log")
		l := open(t, Config{Path: path, Logger: slog.New(slog.NewTextHandler(&told, nil))})
		do(t, os.Rename(path, path+".1"))
		do(t, os.Mkdir(path, 0o700))
		time.Sleep(interval)
		do(t, l.LogWait(t.Context(), Event{Kind: Admin, Operation: "one"}))
		do(t, l.LogWait(t.Context(), Event{Kind: Admin, Operation: "two"}))
		if l.Failed() != 1 || !strings.Contains(told.String(), "was moved away") {
			t.Errorf("%d failed: %s", l.Failed(), &told)
		}
		do(t, os.Remove(path))
		time.Sleep(interval)
		do(t, l.LogWait(t.Context(), Event{Kind: Admin, Operation: "three"}))
		closed(t, l)
		holds(t, path+".1", "one", "two")
		holds(t, path, "three")
	})
}

// TestTornLine: a line that a crash has left without its end does not swallow the next.
func TestTornLine(t *testing.T) {
	for torn, want := range map[string]string{"": "", "\n": "\n", "{}\n": "{}\n", "{": "{\n", "{}\n{\"time\":": "{}\n{\"time\":\n"} {
		path := filepath.Join(t.TempDir(), "audit.log")
		do(t, os.WriteFile(path, []byte(torn), 0o600))
		l := open(t, Config{Path: path})
		l.Log(Event{Kind: Start})
		l.Log(Event{Kind: Stop})
		closed(t, l)
		b, err := os.ReadFile(path)
		do(t, err)
		rest, ok := strings.CutPrefix(string(b), want)
		if all := events(t, []byte(rest)); !ok || len(all) != 2 {
			t.Errorf("%q has become %q", torn, b)
		}
	}
}

// TestRefusedFiles: what is no file of its own is no audit log, and nothing is made where
// a link leads.
func TestRefusedFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	do(t, os.WriteFile(at("file"), nil, 0o600))
	do(t, os.Symlink(at("file"), at("link")))
	do(t, os.Symlink(at("nowhere"), at("dangling")))
	for path, want := range map[string]string{
		at("link"): "symbolic link: name the file that it leads to", at("dangling"): "symbolic link: name the file that it leads to",
		dir: "no regular file: name a file, or stderr", os.DevNull: "no regular file: name a file, or stderr",
		at("none/audit.log"): "make its directory first", at("file/audit.log"): "not a directory",
	} {
		if _, err := Open(Config{Path: path}); err == nil || !strings.HasPrefix(err.Error(), "cannot open the audit log: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := os.Stat(at("nowhere")); err == nil {
		t.Error("a file was made through a link")
	}
	// A link, or another file, that takes the place of the file while it is opened.
	f, err := os.OpenFile(at("file"), os.O_RDWR, 0)
	do(t, err)
	defer f.Close()
	do(t, os.WriteFile(at("other"), nil, 0o600))
	for name, want := range map[string]string{"link": "symbolic link", "other": "was replaced while it was opened", "nowhere": "no such file"} {
		if _, err := check(f, at(name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// TestSync: a file is synced once a second at most while lines are written, and a second
// after the last one at the latest.
func TestSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{Path: filepath.Join(t.TempDir(), "audit.log")})
		start := time.Now()
		is := func(dirty bool, synced time.Duration) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock() // the writer does before it goes on
			defer l.mu.Unlock()
			if l.out.dirty != dirty || l.out.synced.Sub(start) != synced {
				t.Errorf("after %v dirty is %v, synced after %v; want %v, %v", time.Since(start), l.out.dirty, l.out.synced.Sub(start), dirty, synced)
			}
		}
		do(t, l.LogWait(t.Context(), Event{Kind: Start}))
		is(false, 0)
		for range 15 {
			time.Sleep(100 * time.Millisecond)
			do(t, l.LogWait(t.Context(), Event{Kind: Admin}))
		}
		is(true, time.Second)
		time.Sleep(interval)
		is(false, 2500*time.Millisecond)
		do(t, l.LogWait(t.Context(), Event{Kind: Stop}))
		is(true, 2500*time.Millisecond)
		closed(t, l)
		is(false, 2500*time.Millisecond)
	})
}

// TestSyncFails: what could not be synced is reported, and the log goes on.
func TestSyncFails(t *testing.T) {
	r, w, err := os.Pipe() // which cannot be synced
	do(t, err)
	defer r.Close()
	defer w.Close()
	o := output{path: "pipe", file: w}
	do(t, o.write([]byte("{}\n")))
	if err := o.sync(time.Now()); err == nil || o.dirty {
		t.Errorf("%v, dirty %v", err, o.dirty)
	}
	do(t, o.sync(time.Now()))
	do(t, o.write([]byte("{}\n")))
	if err := o.close(); err == nil || errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// TestPartial: the end of a torn line is written once, whatever of it comes through.
func TestPartial(t *testing.T) {
	for _, x := range []struct {
		rooms []int // of writes that fail
		want  string
	}{
		{nil, "ab\n"}, {[]int{0}, "ab\n"}, {[]int{1}, "a\nab\n"}, {[]int{1, 0}, "a\nab\n"}, {[]int{1, 1}, "a\nab\n"}, {[]int{1, 1, 0}, "a\nab\n"}, {[]int{1, 2}, "a\na\nab\n"}, {[]int{0, 1, 0, 2, 1}, "a\na\nab\n"},
	} {
		d := &disk{full: true}
		o := output{w: d}
		for _, d.room = range x.rooms {
			if err := o.write([]byte("ab\n")); err != errFull {
				t.Error(err)
			}
		}
		d.full = false
		if err := o.write([]byte("ab\n")); err != nil || d.String() != x.want {
			t.Errorf("%v: %q, %v, want %q", x.rooms, d, err, x.want)
		}
	}
}
