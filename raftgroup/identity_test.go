package raftgroup

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/raftgroup/datadir"
)

// TestIdentityFlips changes each bit of proa.json: no start may go on with what
// it says then, and verify must say so too. One bit in the number of shards is
// enough to have other shards answer for a key.
func TestIdentityFlips(t *testing.T) {
	for _, engine := range []string{"etcd", "dragonboat"} {
		t.Run(engine, func(t *testing.T) { flipIdentity(t, engine) })
	}
}

func flipIdentity(t *testing.T, engine string) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 4, Engine: engine})
	mustPut(t, n, "k", "v")
	closeNode(t, n)
	path := f.PathJoin(dir, datadir.IdentityFile)
	intact := readAll(t, f, path)
	for i := range len(intact) * 8 {
		damaged := bytes.Clone(intact)
		damaged[i/8] ^= 1 << (i % 8)
		writeAll(t, f, path, damaged)
		if n, err := openMem(f, Options{}); err == nil {
			closeNode(t, n)
			t.Fatalf("byte %d, %q instead of %q: the node starts", i/8, damaged[i/8], intact[i/8])
		} else if !errors.Is(err, datadir.ErrBadDirectory) && !errors.Is(err, datadir.ErrDataFormat) {
			t.Fatalf("byte %d: %v", i/8, err)
		}
		if err := datadir.Verify(f, dir, func(string) {}); err == nil {
			t.Fatalf("byte %d, %q instead of %q: verify finds nothing", i/8, damaged[i/8], intact[i/8])
		}
	}
	writeAll(t, f, path, intact)
	again := memNode(t, f, Options{})
	if v, _ := read(t, again, "k"); v != "v" {
		t.Errorf("found %q", v)
	}
}

// TestIdentityOfEarlierFormat opens a directory whose proa.json has no checksum
// yet, as version 2 of the format wrote it, and finds one afterwards.
func TestIdentityOfEarlierFormat(t *testing.T) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 4})
	mustPut(t, n, "k", "v")
	closeNode(t, n)
	path := f.PathJoin(dir, datadir.IdentityFile)
	present := readAll(t, f, path)
	earlier := strings.Replace(string(present), `"format": 3`, `"format": 2`, 1)
	earlier = earlier[:strings.LastIndex(earlier, ",\n  \"crc32c\": ")] + "\n}\n"
	before := vfs.NewMem()
	must(t, before.MkdirAll(dir, 0o755))
	writeAll(t, before, path, present)
	writeAll(t, f, path, []byte(earlier))
	again := memNode(t, f, Options{})
	if v, _ := read(t, again, "k"); v != "v" || again.Shards() != 4 {
		t.Errorf("found %q in %d shards", v, again.Shards())
	}
	closeNode(t, again)
	want, err := datadir.ReadIdentity(before, dir)
	must(t, err)
	want.Generation++ // it was started once more
	must(t, want.Write(before, dir))
	present = readAll(t, before, path)
	if got := readAll(t, f, path); !bytes.Equal(got, present) {
		t.Errorf("written anew:\n%s\nwant:\n%s", got, present)
	}
	// A format that has a checksum cannot be told to do without.
	writeAll(t, f, path, []byte(strings.Replace(earlier, `"format": 2`, `"format": 3`, 1)))
	if _, err := openMem(f, Options{}); !errors.Is(err, datadir.ErrBadDirectory) {
		t.Errorf("without a checksum: %v", err)
	}
}
