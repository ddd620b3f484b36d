package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
)

// fakeStore stands for a server that answers when it is waited for, so that
// everything sent before is on its way at the same time.
type fakeStore struct {
	t        *testing.T
	sent     []string // key=value, in the order of sending
	inFlight map[string]int
	most     int                // records on their way at a time
	failures map[string][]error // answers to come before success, by key
	onWait   func(key string)
}

type fakePut struct {
	s *fakeStore
	r *record
}

func (s *fakeStore) put(r *record) acknowledgement {
	key := string(r.key)
	s.sent = append(s.sent, key+"="+string(r.value))
	s.inFlight[key]++
	if s.inFlight[key] > 1 {
		s.t.Errorf("two records of %s are on their way", key)
	}
	total := 0
	for _, n := range s.inFlight {
		total += n
	}
	s.most = max(s.most, total)
	return &fakePut{s, r}
}

func (p *fakePut) Wait(ctx context.Context) (client.WriteResult, error) {
	key := string(p.r.key)
	p.s.inFlight[key]--
	if p.s.onWait != nil {
		p.s.onWait(key)
	}
	if err := ctx.Err(); err != nil {
		return client.WriteResult{}, err
	}
	if f := p.s.failures[key]; len(f) > 0 {
		p.s.failures[key] = f[1:]
		return client.WriteResult{}, f[0]
	}
	return client.WriteResult{}, nil
}

// recordsOf yields key=value records whose end is their number, and then an error.
func recordsOf(end error, keys ...string) records {
	return func(yield func(record, error) bool) {
		for i, k := range keys {
			if !yield(record{key: []byte(k), value: fmt.Append(nil, i+1), end: int64(i + 1), where: fmt.Sprint("record ", i+1)}, nil) {
				return
			}
		}
		if end != nil {
			yield(record{}, end)
		}
	}
}

func newTestImporter(t *testing.T, inFlight int) (*importer, *fakeStore) {
	s := &fakeStore{t: t, inFlight: map[string]int{}, failures: map[string][]error{}}
	a := &app{Output: render.Output{Err: io.Discard}}
	return &importer{
		app: a, inFlight: inFlight, put: s.put, progress: newProgress(a, "", -1),
		state: &importState{}, statePath: filepath.Join(t.TempDir(), "state"),
	}, s
}

func unknown() error {
	return &client.Error{Op: "PUT", Outcome: client.Unknown, Err: client.ErrConnectionLost}
}

func TestImportKeepsTheOrderOfEachKey(t *testing.T) {
	i, s := newTestImporter(t, 100)
	keys := []string{"a", "b", "a", "c", "a", "b"}
	if err := i.transfer(t.Context(), recordsOf(nil, keys...)); err != nil {
		t.Fatal(err)
	}
	want := []string{"a=1", "b=2", "a=3", "c=4", "a=5", "b=6"}
	if diff := cmp.Diff(want, s.sent); diff != "" {
		t.Error(diff)
	}
	if i.state.Offset != 6 || i.state.Records != 6 || i.bytes != 0 || len(i.keys) != 0 {
		t.Errorf("state %+v, %d bytes and %d keys left", i.state, i.bytes, len(i.keys))
	}
}

func TestImportFillsItsWindowAndNoMore(t *testing.T) {
	i, s := newTestImporter(t, 7)
	var keys []string
	for n := range 50 {
		keys = append(keys, fmt.Sprint(n))
	}
	if err := i.transfer(t.Context(), recordsOf(nil, keys...)); err != nil {
		t.Fatal(err)
	}
	if s.most != 7 || len(s.sent) != 50 {
		t.Errorf("%d on their way at most, %d sent", s.most, len(s.sent))
	}
}

// A record whose outcome is unknown is stored again, before anything after it
// counts as stored.
func TestImportRepeatsUnknownOutcomes(t *testing.T) {
	i, s := newTestImporter(t, 3)
	s.failures["b"] = []error{unknown(), unknown()}
	if err := i.transfer(t.Context(), recordsOf(nil, "a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a=1", "b=2", "c=3", "b=2", "b=2"}, s.sent); diff != "" {
		t.Error(diff)
	}
}

func TestImportGivesUp(t *testing.T) {
	for name, failures := range map[string][]error{
		"at once":           {&client.Error{Op: "PUT", Outcome: client.NotDone, Err: client.ErrTooLarge}},
		"after some trials": slices.Repeat([]error{unknown()}, importAttemptsMax),
	} {
		t.Run(name, func(t *testing.T) {
			i, s := newTestImporter(t, 3)
			s.failures["b"] = failures
			err := i.transfer(t.Context(), recordsOf(nil, "a", "b", "c", "d"))
			if !errors.Is(err, failures[0]) && !errors.Is(err, client.ErrConnectionLost) {
				t.Errorf("error %v", err)
			}
			// c was stored, but stands behind a gap.
			if i.state.Offset != 1 || i.state.Records != 1 {
				t.Errorf("state %+v", i.state)
			}
		})
	}
}

// Whatever ends the source, what was read before it is waited for.
func TestImportFinishesWhatWasRead(t *testing.T) {
	i, _ := newTestImporter(t, 10)
	broken := errors.New("bad line")
	if err := i.transfer(t.Context(), recordsOf(broken, "a", "b")); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if i.state.Offset != 2 {
		t.Errorf("state %+v", i.state)
	}
}

func TestImportInterrupted(t *testing.T) {
	i, s := newTestImporter(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.onWait = func(key string) {
		if key == "b" {
			cancel()
		}
	}
	err := i.transfer(ctx, recordsOf(nil, "a", "b", "c", "d", "e"))
	if !errors.Is(err, context.Canceled) || i.state.Offset != 1 {
		t.Errorf("error %v, state %+v", err, i.state)
	}
}

// TestImportState: an import goes on only from a note that is what was written, since
// a wrong offset would leave records out. Notes of versions before have no checksum.
func TestImportState(t *testing.T) {
	i, _ := newTestImporter(t, 1)
	f, err := os.Create(filepath.Join(t.TempDir(), "rows"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Repeat("{}\n", 100)); err != nil {
		t.Fatal(err)
	}
	load := func() (*importState, error) { return i.loadState(f, 300, true) }
	if i.state, err = i.loadState(f, 300, false); err != nil {
		t.Fatal(err)
	}
	i.state.Offset, i.state.Records, i.state.Cluster = 30, 10, "ab"
	if err := i.saveState(); err != nil {
		t.Fatal(err)
	}
	if s, err := load(); err != nil || *s != *i.state {
		t.Fatalf("%+v, %v; want %+v", s, err, i.state)
	}
	note, err := os.ReadFile(i.statePath)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(i.statePath, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for at := range bytes.TrimSpace(note) {
		damaged := bytes.Clone(note)
		damaged[at] ^= 1
		write(damaged)
		if s, err := load(); err == nil {
			t.Errorf("a flipped bit in byte %d of %s is not noticed: %+v", at, note, s)
		}
	}
	i.state.Check = ""
	earlier, err := json.Marshal(i.state)
	if err != nil {
		t.Fatal(err)
	}
	write(earlier)
	if s, err := load(); err != nil || s.Offset != 30 {
		t.Errorf("a note of an earlier version: %+v, %v", s, err)
	}
}

// What is exported is imported as it was: key, value and time left, which ends
// where a time.Duration does.
func TestExportedRecordIsImported(t *testing.T) {
	piece := rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
		rapid.Map(rapid.SampledFrom([]string{"\uFFFD", `\ufffd`, "\u2028", "\xff", "<&>", `"`, `\\`, "\x00", "null", "\xed\xa0\x80"}), func(s string) []byte { return []byte(s) }))
	bytesOf := rapid.Map(rapid.SliceOf(piece), func(pieces [][]byte) []byte { return bytes.Join(pieces, nil) })
	const longest = math.MaxInt64 / int64(time.Millisecond)
	rapid.Check(t, func(t *rapid.T) {
		key := bytesOf.Filter(func(b []byte) bool { return len(b) > 0 && len(b) <= protocol.KeyBytesMax }).Draw(t, "key")
		value := bytesOf.Draw(t, "value")
		millis := rapid.OneOf(rapid.Just(int64(0)), rapid.Just(longest), rapid.Int64Range(1, longest)).Draw(t, "ms")
		item := client.Item{Key: key, Value: value, Version: 7, TTL: time.Duration(millis) * time.Millisecond}
		line, err := exportedRecord(&item)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseRecord(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !bytes.Equal(r.key, key) || !bytes.Equal(r.value, value) || r.ttl != item.TTL {
			t.Fatalf("%s: %+v", line, r)
		}
	})
}
