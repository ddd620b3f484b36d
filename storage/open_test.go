package storage

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A database that has lost a file, or whose file is cut, says so by ErrFiles,
// and names the file.
func TestLostFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file string // begins with it, or ends
		harm func(fs vfs.FS, path string) error
	}{
		"no manifest": {"MANIFEST-", func(fs vfs.FS, path string) error { return fs.Remove(path) }},
		"no table":    {".sst", func(fs vfs.FS, path string) error { return fs.Remove(path) }},
		"a table cut": {".sst", func(fs vfs.FS, path string) error {
			f, err := fs.Create(path, "test")
			if err != nil {
				return err
			}
			return f.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			damageable(t, mem)
			names, err := mem.List("data")
			if err != nil {
				t.Fatal(err)
			}
			lost := ""
			for _, n := range names {
				if strings.HasPrefix(n, c.file) || strings.HasSuffix(n, c.file) {
					lost = n
					if err := c.harm(mem, mem.PathJoin("data", n)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if s, err := Open(testOptions(mem)); !errors.Is(err, ErrFiles) {
				t.Errorf("opened: %v", err)
				if err == nil {
					closeStore(t, s)
				}
			} else {
				t.Log(err)
			}
			found := ""
			if _, err := Verify(Options{FS: mem, Dir: "data", Shards: 2}, func(s string) { found += s + "\n" }); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Verify: %v", err)
			}
			if !strings.Contains(found, strings.TrimSuffix(lost, ".sst")) {
				t.Errorf("Verify does not name %s: %s", lost, found)
			}
			t.Log(found)
		})
	}
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
