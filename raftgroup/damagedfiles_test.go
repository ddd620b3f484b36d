package raftgroup

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// harm is what a disk does to a file.
type harm string

const (
	flipFirst  harm = "its first bit"
	flipMiddle harm = "a bit in its middle"
	flipLast   harm = "its last bit"
	half       harm = "its second half"
	empty      harm = "all its content"
	missing    harm = "the file"
)

var harms = []harm{flipFirst, flipMiddle, flipLast, half, empty, missing}

func (h harm) apply(t *testing.T, f vfs.FS, name string) {
	t.Helper()
	if h == missing {
		must(t, f.Remove(name))
		return
	}
	b := readAll(t, f, name)
	switch h {
	case flipFirst:
		b[0] ^= 1
	case flipMiddle:
		b[len(b)/2] ^= 1
	case flipLast:
		b[len(b)-1] ^= 1
	case half:
		b = b[:len(b)/2]
	case empty:
		b = nil
	}
	writeAll(t, f, name, b)
}

// damagedKind is a kind of file in a data directory, and what keeps a node from
// starting: then the error has to name the file, and to say what to do.
type damagedKind struct {
	pattern string // of the path in the directory
	refused []harm // from starting
	advice  string
}

var damagedKinds = []damagedKind{
	{"proa.json", harms, datadir.RejoinOrRestore},
	{"runs.json", nil, ""},
	// What is in the middle of this large file, and at its end, was never written.
	{"raft/*1.seg", []harm{flipFirst, half, empty, missing}, datadir.RejoinOrRestore},
	{"raft/SYNCED", []harm{empty, missing}, datadir.RejoinOrRestore},
	// Cut short it is an earlier one, which may do where the log goes back so far.
	{"state/MANIFEST-*", []harm{flipFirst, empty, missing}, datadir.RejoinOrRestore},
	{"state/OPTIONS-*", []harm{flipFirst, half}, "holds no data: delete it and start again"},
	{"state/marker.manifest.*", []harm{missing}, datadir.RejoinOrRestore},
	{"state/marker.format-version.*", []harm{missing}, datadir.RejoinOrRestore},
	{"state/*.sst", []harm{half, empty, missing}, datadir.RejoinOrRestore},
	{"state/*.log", nil, ""},
	{"LOCK", nil, ""},
	{"raft/LOCK", nil, ""},
	{"state/LOCK", nil, ""},
}

// TestDamagedFiles damages each file of a data directory in each way.
func TestDamagedFiles(t *testing.T) { onEngines(t, testDamagedFiles) }

func testDamagedFiles(t *testing.T, e placement.Engine) {
	whole := vfs.NewMem()
	n := memNode(t, whole, Options{Engine: e.String(), Shards: 2})
	for i := range 20 {
		mustPut(t, n, fmt.Sprint("k", i), "value")
		if i == 10 {
			must(t, n.store.Flush())
		}
	}
	must(t, n.runs.Admit(2, 22, placement.Run{Generation: 1, Number: 11, Began: 5}, placement.Run{}))
	closeNode(t, n)
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(tree(t, whole, dir))) {
		rel := strings.TrimPrefix(name, dir+"/")
		kind := slices.IndexFunc(damagedKinds, func(k damagedKind) bool {
			matches, err := path.Match(k.pattern, rel)
			return matches && err == nil
		})
		if kind < 0 {
			continue // like raft/*2.seg, which is empty
		}
		k := damagedKinds[kind]
		seen[k.pattern] = true
		for _, h := range harms {
			if h != missing && len(tree(t, whole, dir)[name]) == 0 {
				continue
			}
			t.Run(rel+" has lost "+string(h), func(t *testing.T) {
				f := vfs.NewMem()
				_, err := vfs.Clone(whole, f, dir, dir)
				must(t, err)
				h.apply(t, f, name)
				before := tree(t, f, dir)
				verified := datadir.Verify(f, dir, func(string) {})
				for name, b := range tree(t, f, dir) {
					if !bytes.Equal(before[name], b) {
						t.Errorf("Verify has changed %s", name)
					}
				}
				n, err := openMem(f, Options{Engine: e.String()})
				earlier := strings.Contains(rel, "MANIFEST-") && (h == flipMiddle || h == flipLast || h == half)
				if refused := slices.Contains(k.refused, h); refused != (err != nil) && !earlier {
					t.Errorf("Open: %v", err)
				}
				if err == nil {
					defer closeNode(t, n)
					for i := range 20 {
						if strings.HasSuffix(rel, ".sst") {
							break // rows in the damaged blocks are refused
						}
						if v, ok := read(t, n, fmt.Sprint("k", i)); !ok || v != "value" {
							t.Errorf("row %d: %q, %v", i, v, ok)
						}
					}
					return
				}
				if verified == nil || !strings.Contains(verified.Error(), k.advice) {
					t.Errorf("verify: %v", verified)
				}
				named := strings.TrimSuffix(path.Base(rel), ".sst")
				if h == missing && (strings.HasPrefix(rel, "raft/") || strings.Contains(rel, "marker.")) { // its number is not known
					named = strings.Trim(path.Base(k.pattern), "*0123456789")
				}
				if strings.Contains(err.Error(), "the state is at entry") { // opened as an earlier one
					named = "the log holds"
				}
				for _, part := range []string{named, k.advice} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q is missing in: %v", part, err)
					}
				}
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("several lines: %v", err)
				}
				after := tree(t, f, dir)
				for name, b := range before {
					kept, ok := after[name]
					// The log is opened first and goes on, and the start is counted.
					alters := strings.HasPrefix(name, dir+"/raft/") || strings.Contains(name, "marker.manifest.") || name == dir+"/proa.json" && earlier
					if !ok && !strings.Contains(name, "marker.manifest.") || !alters && !bytes.Equal(kept, b) {
						t.Errorf("%s is not what it was before the start", name)
					}
				}
			})
		}
	}
	for _, k := range damagedKinds {
		if !seen[k.pattern] {
			t.Errorf("the directory has no %s", k.pattern)
		}
	}
}

// tree returns the content of all files below a directory, by path.
func tree(t *testing.T, f vfs.FS, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	names, err := f.List(dir)
	must(t, err)
	for _, name := range names {
		name = f.PathJoin(dir, name)
		info, err := f.Stat(name)
		must(t, err)
		if !info.IsDir() {
			files[name] = readAll(t, f, name)
			continue
		}
		for name, b := range tree(t, f, name) {
			files[name] = b
		}
	}
	return files
}
