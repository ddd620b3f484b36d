package raftgroup

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

var updateGolden = flag.Bool("update", false, "rewrite golden files")

func exampleIdentity() Identity {
	return Identity{
		Format: dataFormat, Cluster: 59024815863912167, Node: 2, UID: 18446744073709551615, Shards: 4, Replicas: 3, Founder: true, Initialized: true,
		Key: bytes.Repeat([]byte{7}, 32), Generation: 12,
		Members: []Member{
			{ID: 1, UID: 7, Key: bytes.Repeat([]byte{9}, 32), Peer: "10.0.0.1:7401", Client: "10.0.0.1:7400"},
			{ID: 2, UID: 18446744073709551615, Peer: "10.0.0.2:7401", Client: `a "crc32c": "12345678" b`, Redis: "10.0.0.2:7403"},
		},
	}
}

func TestIdentityGolden(t *testing.T) {
	b, err := encodeIdentity(exampleIdentity())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "proa.json")
	if *updateGolden {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(b)); diff != "" {
		t.Error(diff)
	}
	got, err := decodeIdentity(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleIdentity(), got); diff != "" {
		t.Error(diff)
	}
}

func FuzzIdentity(f *testing.F) {
	b, err := encodeIdentity(exampleIdentity())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":2,"node_id":1,"uid":"1","shards":8}`))
	f.Add([]byte(`{"format":3,"crc32c": "`))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		id, err := decodeIdentity(b)
		if !bytes.Equal(before, b) {
			t.Fatal("decoding changed its input")
		}
		if err != nil {
			return
		}
		again, err := encodeIdentity(id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeIdentity(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(id, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestIdentityFlips changes each bit of proa.json: no start may go on with what
// it says then, and verify must say so too. One bit in the number of shards is
// enough to have other shards answer for a key.
func TestIdentityFlips(t *testing.T) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 4})
	mustPut(t, n, "k", "v")
	closeNode(t, n)
	path := f.PathJoin(dir, identityFile)
	intact := readAll(t, f, path)
	for i := range len(intact) * 8 {
		damaged := bytes.Clone(intact)
		damaged[i/8] ^= 1 << (i % 8)
		writeAll(t, f, path, damaged)
		if n, err := openMem(f, Options{}); err == nil {
			closeNode(t, n)
			t.Fatalf("byte %d, %q instead of %q: the node starts", i/8, damaged[i/8], intact[i/8])
		} else if !errors.Is(err, ErrBadDirectory) && !errors.Is(err, ErrDataFormat) {
			t.Fatalf("byte %d: %v", i/8, err)
		}
		if err := verify(f, dir, func(string) {}); err == nil {
			t.Fatalf("byte %d, %q instead of %q: verify finds nothing", i/8, damaged[i/8], intact[i/8])
		}
	}
	writeAll(t, f, path, intact)
	again := memNode(t, f, Options{})
	if v, _ := read(t, again, "k"); v != "v" {
		t.Errorf("found %q", v)
	}
}

// TestIdentityCut cuts proa.json short, and lets it go on, at every byte.
func TestIdentityCut(t *testing.T) {
	b, err := encodeIdentity(exampleIdentity())
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(b) {
		if _, err := decodeIdentity(b[:i]); err == nil {
			t.Errorf("%d of %d bytes are accepted", i, len(b))
		}
		if _, err := decodeIdentity(append(bytes.Clone(b), b[:i+1]...)); err == nil {
			t.Errorf("%d bytes too many are accepted", i+1)
		}
	}
}

// TestIdentityOfEarlierFormat opens a directory whose proa.json has no checksum
// yet, as version 2 of the format wrote it, and finds one afterwards.
func TestIdentityOfEarlierFormat(t *testing.T) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 4})
	mustPut(t, n, "k", "v")
	closeNode(t, n)
	path := f.PathJoin(dir, identityFile)
	present := readAll(t, f, path)
	earlier := strings.Replace(string(present), `"format": 3`, `"format": 2`, 1)
	earlier = earlier[:strings.LastIndex(earlier, ",\n  "+identitySumField)] + "\n}\n"
	writeAll(t, f, path, []byte(earlier))
	again := memNode(t, f, Options{})
	if v, _ := read(t, again, "k"); v != "v" || again.Shards() != 4 {
		t.Errorf("found %q in %d shards", v, again.Shards())
	}
	closeNode(t, again)
	want, err := decodeIdentity(present)
	if err != nil {
		t.Fatal(err)
	}
	want.Generation++ // it was started once more
	present, err = encodeIdentity(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, f, path); !bytes.Equal(got, present) {
		t.Errorf("written anew:\n%s\nwant:\n%s", got, present)
	}
	// A format that has a checksum cannot be told to do without.
	writeAll(t, f, path, []byte(strings.Replace(earlier, `"format": 2`, `"format": 3`, 1)))
	if _, err := openMem(f, Options{}); !errors.Is(err, ErrBadDirectory) {
		t.Errorf("without a checksum: %v", err)
	}
}
