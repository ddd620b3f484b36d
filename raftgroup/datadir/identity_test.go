package datadir

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

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
