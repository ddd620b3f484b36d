package datadir

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/raftgroup/placement"
)

func TestRunFollows(t *testing.T) {
	last := remembered{Run: placement.Run{Generation: 4, Number: 44, Began: 100}, Position: 130}
	for name, tt := range map[string]struct {
		last remembered
		next placement.Run
		want string
	}{
		"the same":                         {last, placement.Run{Generation: 4, Number: 44, Began: 100}, ""},
		"the next":                         {last, placement.Run{Generation: 5, Number: 55, Began: 130}, ""},
		"the next, after more":             {last, placement.Run{Generation: 5, Number: 55, Began: 131}, ""},
		"after some that were not seen":    {last, placement.Run{Generation: 9, Number: 99, Began: 500}, ""},
		"nothing is remembered":            {remembered{}, placement.Run{Generation: 1, Number: 11, Began: 0}, ""},
		"an old copy":                      {last, placement.Run{Generation: 3, Number: 33, Began: 80}, "start 3, and start 4 has already connected here"},
		"a copy of before the last start":  {last, placement.Run{Generation: 4, Number: 45, Began: 100}, "start 4, and start 4 has already connected here"},
		"a copy made while it ran":         {last, placement.Run{Generation: 5, Number: 55, Began: 129}, "was at 129 when it started, and had been at 130"},
		"a new identity beside an old log": {last, placement.Run{Generation: 7, Number: 77, Began: 12}, "was at 12"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.last.follows(&tt.next)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRunsFile(t *testing.T) {
	f := vfs.NewMem()
	must(t, f.MkdirAll(dir, 0o755))
	runs, err := openRuns(f, dir)
	must(t, err)
	must(t, runs.Admit(2, 22, placement.Run{Generation: 1, Number: 11, Began: 5}, placement.Run{}))
	must(t, runs.Admit(3, 33, placement.Run{Generation: 7, Number: 77, Began: 50}, placement.Run{}))
	runs.Progress(2, 11, 9)
	runs.Progress(2, 11, 8) // late
	runs.Progress(2, 99, 900)
	if !runs.Dirty() {
		t.Error("progress is not to be written")
	}
	must(t, runs.Save())
	again, err := openRuns(f, dir)
	must(t, err)
	if !maps.Equal(runs.nodes, again.nodes) || again.nodes[2].Position != 9 {
		t.Errorf("read back %+v, want %+v", again.nodes, runs.nodes)
	}
	if err := again.Admit(2, 22, placement.Run{Generation: 2, Number: 12, Began: 8}, placement.Run{}); !errors.Is(err, ErrRolledBack) {
		t.Errorf("an older run is let in: %v", err)
	}
	must(t, again.Admit(2, 23, placement.Run{Generation: 1, Number: 1, Began: 0}, placement.Run{})) // another directory under that number
	must(t, again.Admit(3, 33, placement.Run{Generation: 8, Number: 88, Began: 50}, placement.Run{}))

	path := f.PathJoin(dir, RunsFile)
	intact := readAll(t, f, path)
	for i := range intact {
		damaged := bytes.Clone(intact)
		damaged[i] ^= 1
		if _, err := decodeRuns(damaged); err == nil {
			t.Fatalf("byte %d, %q instead of %q: taken for sound", i, damaged[i], intact[i])
		}
	}
}

// A damaged record of other nodes' runs stops a start no more than a missing one
// does. It is kept, and said.
func TestRunsDamaged(t *testing.T) {
	whole, err := encodeRuns(map[uint64]remembered{2: {Run: placement.Run{Generation: 1, Number: 2, Began: 3}, UID: 4, Position: 5}})
	must(t, err)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/3] ^= 1
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":   {nil, "it is empty"},
		"cut":     {whole[:len(whole)/2], "cut short"},
		"flipped": {flipped, "not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			f := vfs.NewMem()
			must(t, f.MkdirAll(dir, 0o755))
			path := f.PathJoin(dir, RunsFile)
			writeAll(t, f, path, bytes.Clone(c.content)) // which the file system may change
			var said bytes.Buffer
			d := &Dir{FS: f, Path: dir}
			runs, err := d.OpenRuns(slog.New(slog.NewTextHandler(&said, nil)))
			must(t, err)
			for _, part := range []string{"level=ERROR", path, c.want, "erase its data directory", RunsFile + damagedSuffix} {
				if !strings.Contains(said.String(), part) {
					t.Errorf("%q is missing in %s", part, &said)
				}
			}
			if kept := readAll(t, f, path+damagedSuffix); !bytes.Equal(kept, c.content) {
				t.Errorf("kept %q of %q", kept, c.content)
			}
			must(t, runs.Admit(2, 4, placement.Run{Generation: 2, Number: 3, Began: 3}, placement.Run{}))
			said.Reset()
			again, err := d.OpenRuns(slog.New(slog.NewTextHandler(&said, nil)))
			must(t, err)
			if !maps.Equal(again.nodes, runs.nodes) || said.Len() > 0 {
				t.Errorf("afterwards: %+v, want %+v; said %s", again.nodes, runs.nodes, &said)
			}
		})
	}
}

func FuzzRuns(f *testing.F) {
	b, err := encodeRuns(map[uint64]remembered{2: {Run: placement.Run{Generation: 1, Number: 2, Began: 3}, UID: 4, Position: 5}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if nodes, err := decodeRuns(b); err == nil {
			again, err := encodeRuns(nodes)
			must(t, err)
			if back, err := decodeRuns(again); err != nil || len(back) != len(nodes) {
				t.Fatal(back, err)
			}
		}
	})
}

const dir = "/proa"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, f vfs.FS, path string) []byte {
	t.Helper()
	file, err := f.Open(path)
	must(t, err)
	defer file.Close()
	b, err := io.ReadAll(file)
	must(t, err)
	return b
}

func writeAll(t testing.TB, f vfs.FS, path string, b []byte) {
	t.Helper()
	file, err := f.Create(path, "test")
	must(t, err)
	_, err = file.Write(b)
	must(t, errors.Join(err, file.Close()))
}
