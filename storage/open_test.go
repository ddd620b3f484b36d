package storage

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pebblerecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A database that has lost a file, or whose file is cut or damaged, says so by an
// error of its own, and names the file. What is left of it stays.
func TestLostFiles(t *testing.T) {
	remove := func(_ *testing.T, fs vfs.FS, path string) { must(t, fs.Remove(path)) }
	flip := func(at int) func(t *testing.T, fs vfs.FS, path string) {
		return func(t *testing.T, fs vfs.FS, path string) { flipByte(t, fs, path, at) }
	}
	empty := func(t *testing.T, fs vfs.FS, path string) { writeFile(t, fs, path, nil) }
	cut := func(t *testing.T, fs vfs.FS, path string) {
		content := readWhole(t, fs, path)
		writeFile(t, fs, path, content[:len(content)/2])
	}
	beginning := func(t *testing.T, fs vfs.FS, path string) { // its first record, of an empty database
		r := pebblerecord.NewReader(bytes.NewReader(readWhole(t, fs, path)), 0)
		_, err := r.Next()
		must(t, err)
		writeFile(t, fs, path, readWhole(t, fs, path)[:r.Offset()])
	}
	for name, c := range map[string]struct {
		file string // begins with it, or ends
		harm func(t *testing.T, fs vfs.FS, path string)
		want error
	}{
		"no manifest":            {"MANIFEST-", remove, ErrFiles},
		"a manifest's first bit": {"MANIFEST-", flip(0), ErrFiles},
		"an empty manifest":      {"MANIFEST-", empty, ErrFiles},
		"half a manifest":        {"MANIFEST-", cut, ErrFiles},
		"a manifest's beginning": {"MANIFEST-", beginning, ErrCorrupt},
		"no marker":              {"marker.manifest.", remove, ErrFiles},
		"no format":              {"marker.format-version.", remove, ErrFiles},
		"no table":               {".sst", remove, ErrFiles},
		"a table cut":            {".sst", cut, ErrFiles},
		"an empty table":         {".sst", empty, ErrFiles},
		"options":                {"OPTIONS-", flip(0), ErrOptionsFile},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			o := testOptions(mem)
			o.Owner = Owner{Cluster: 1, Node: 2, UID: 3}
			s := open(t, o)
			o.Begun = true
			for i := range uint64(10) {
				var d delivered
				must(t, s.Apply([]Entry{{Shard: 0, Index: i + 1, Data: entryOf(1, in(1, i+1, 0, put(rowKey(int(i)), "value")))}}, &d))
				must(t, s.Flush())
			}
			closeStore(t, s)
			harmed := ""
			for n := range content(t, mem) {
				if strings.HasPrefix(n, c.file) || strings.HasSuffix(n, c.file) {
					c.harm(t, mem, mem.PathJoin("data", n))
					harmed = n
				}
			}
			before := content(t, mem)
			if name == "half a manifest" && opensAsBefore(t, o, mem) {
				return
			}
			found := ""
			if _, err := Verify(o, func(s string) { found += s + "\n" }); !errors.Is(err, ErrCorrupt) && !errors.Is(err, c.want) {
				t.Errorf("Verify: %v", err)
			} else if errors.Is(err, ErrOptionsFile) {
				found += err.Error()
			}
			named := strings.TrimSuffix(harmed, ".sst")
			if c.file == "marker.manifest." || c.file == "marker.format-version." || c.want == ErrCorrupt {
				named = c.file
			}
			if !strings.Contains(found, named) {
				t.Errorf("Verify does not name %s: %s", harmed, found)
			}
			for range 2 {
				s, err := Open(o)
				if err == nil {
					closeStore(t, s)
				}
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), named) {
					t.Errorf("opened, with %s harmed: %v", harmed, err)
				}
			}
			after := content(t, mem)
			for n, b := range before {
				if kept, ok := after[n]; !strings.HasPrefix(n, "marker.") && (!ok || !bytes.Equal(kept, b)) {
					t.Errorf("%s was there before the start", n)
				}
			}
		})
	}
}

// opensAsBefore reports whether a copy of a database can be opened: half a manifest may
// be all of an earlier one, where no compaction has removed tables of then.
func opensAsBefore(t *testing.T, o Options, mem *vfs.MemFS) bool {
	t.Helper()
	copied := vfs.NewMem()
	_, err := vfs.Clone(mem, copied, "data", "data")
	must(t, err)
	o.FS = copied
	s, err := Open(o)
	if err == nil {
		closeStore(t, s)
	}
	return err == nil
}

// content returns the files of the database, but for its lock.
func content(t *testing.T, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("data")
	must(t, err)
	files := map[string][]byte{}
	for _, n := range names {
		if info, err := fs.Stat(fs.PathJoin("data", n)); err == nil && !info.IsDir() && n != "LOCK" {
			files[n] = readWhole(t, fs, fs.PathJoin("data", n))
		}
	}
	return files
}

func readWhole(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	b, err := readText(fs, path)
	must(t, err)
	return []byte(b)
}

// What is wrong with the last record of the manifest is told, and no finding.
func TestVerifyTornManifest(t *testing.T) {
	mem := vfs.NewMem()
	damageable(t, mem)
	report := func() (said string) {
		if _, err := Verify(Options{FS: mem, Dir: "data", Shards: 2}, func(s string) { said += s }); err != nil {
			t.Error(err)
		}
		return said
	}
	if said := report(); said != "" {
		t.Errorf("of a whole one: %s", said)
	}
	found, err := pebble.Peek("data", mem)
	if err != nil {
		t.Fatal(err)
	}
	info, err := mem.Stat(found.ManifestFilename)
	if err != nil {
		t.Fatal(err)
	}
	flipByte(t, mem, found.ManifestFilename, int(info.Size())-1)
	if said := report(); !strings.Contains(said, mem.PathBase(found.ManifestFilename)) {
		t.Errorf("of a torn one: %q", said)
	}
}

// A compaction may replace a file between the look at which files there are and the
// look into it. That is no reason to fail, where it is not lost.
func TestEdgesOfReplacedTables(t *testing.T) {
	for name, c := range map[string]struct {
		failures int32
		want     error
	}{
		"replaced": {1, nil},
		"lost":     {100, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			var left atomic.Int32
			s := open(t, testOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpOpen && strings.HasSuffix(op.Path, ".sst") && left.Add(-1) >= 0 {
					return &fs.PathError{Op: "open", Path: op.Path, Err: fs.ErrNotExist}
				}
				return nil
			}))))
			defer closeStore(t, s)
			for shard := range 2 {
				var d delivered
				must(t, s.Apply([]Entry{{Shard: shard, Index: 1, Data: entryOf(1, in(1, 1, 0, put("key", "value")))}}, &d))
			}
			must(t, s.Flush())
			left.Store(c.failures)
			if err := s.CheckEdges(0); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if left.Load() == c.failures {
				t.Error("no table was looked into")
			}
			left.Store(0)
		})
	}
}
