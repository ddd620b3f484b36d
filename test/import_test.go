package test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// sourceTree lists the files of the Go toolchain's source tree: real content,
// of sizes from nothing to megabytes, under keys as long as paths are.
func sourceTree(t *testing.T) (root string, names []string) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(strings.TrimSpace(string(out)), "src")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		names = append(names, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		few := names[:0]
		for i := 0; i < len(names); i += 16 {
			few = append(few, names[i])
		}
		names = few
	}
	slices.Sort(names)
	return root, names
}

// TestImportSourceTree is the main job on real input: all of the tree goes in
// through the client with many requests in flight, the server is killed in the
// middle and right after the end, and every file is there.
func TestImportSourceTree(t *testing.T) {
	root, names := sourceTree(t)
	node := testcluster.Start(t, testcluster.Config{Settings: []string{"raft.log_segment_size=16MiB", "raft.log_size_max=64MiB"}})
	c := connect(t, node, nil)

	start := time.Now()
	im := &importer{c: c, root: root, names: names, killAt: int64(len(names) / 2), reached: make(chan struct{}), killed: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- im.run(256) }()
	select {
	case <-im.reached:
		node.Restart()
		close(im.killed)
	case err := <-done:
		t.Fatalf("the import ended before the server was killed: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	node.Restart()
	t.Logf("%d files imported in %v; %d requests had an unknown outcome and were sent again", len(names), time.Since(start).Round(time.Millisecond), im.unknown.Load())

	checkFiles(t, c, root, names)
	checkScan(t, c, names)
	node.Stop()
	node.Verify()
}

// importer puts files into the server from many goroutines.
type importer struct {
	c       *client.Client
	root    string
	names   []string
	killAt  int64
	reached chan struct{} // closed when killAt files have been acknowledged
	killed  chan struct{} // closed when the server has been killed: the import does not end before

	acked   atomic.Int64
	unknown atomic.Int64
}

func (im *importer) run(inFlight int) error {
	return forEach(im.names, inFlight, func(name string) error {
		content, err := os.ReadFile(filepath.Join(im.root, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		for {
			_, err := im.c.Put(context.Background(), []byte(name), content)
			switch {
			case err == nil:
				if im.acked.Add(1) == im.killAt {
					close(im.reached)
					<-im.killed
				}
				return nil
			case errors.Is(err, client.ErrOutcomeUnknown):
				im.unknown.Add(1) // a PUT of the same bytes may be repeated
			default:
				return err
			}
		}
	})
}

// forEach calls f for each item from so many goroutines and returns the first
// error.
func forEach[T any](items []T, goroutines int, f func(T) error) error {
	work := make(chan T)
	failed := make(chan struct{})
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for item := range work {
				if err := f(item); err != nil {
					once.Do(func() { first = err; close(failed) })
					return
				}
			}
		})
	}
feed:
	for _, item := range items {
		select {
		case work <- item:
		case <-failed:
			break feed
		}
	}
	close(work)
	wg.Wait()
	return first
}

func checkFiles(t *testing.T, c *client.Client, root string, names []string) {
	t.Helper()
	var wrong atomic.Int64
	err := forEach(names, 64, func(name string) error {
		want, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		item, err := c.Get(context.Background(), []byte(name))
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		if err != nil || !bytes.Equal(item.Value, want) {
			if wrong.Add(1) <= 10 {
				t.Errorf("%s has %d bytes (error: %v), want %d", name, len(item.Value), err, len(want))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d of %d acknowledged files are not what was written", n, len(names))
	}
}

// checkScan expects a scan over everything to yield exactly the names, which
// are sorted, in order, and backwards in reverse order.
func checkScan(t *testing.T, c *client.Client, names []string) {
	t.Helper()
	scan := func(opts ...client.ScanOption) []string {
		var got []string
		for item, err := range c.Scan(context.Background(), opts...) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(item.Key))
		}
		return got
	}
	if got := scan(); !slices.Equal(got, names) {
		t.Errorf("a scan yields %d keys, want the %d files in order", len(got), len(names))
	}
	back := scan(client.Reverse(), client.KeysOnly(), client.PageSize(337))
	slices.Reverse(back)
	if !slices.Equal(back, names) {
		t.Errorf("a reverse scan yields %d keys, want the %d files in order", len(back), len(names))
	}
}
