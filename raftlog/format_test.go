package raftlog

import (
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// TestLayout fixes the bytes on disk. A change here needs a new formatVersion.
func TestLayout(t *testing.T) {
	header := make([]byte, segmentHeaderBytes)
	segmentHeader{seq: 0x0102, salt: 0x1112131415161718, size: 64 << 20}.encode(header)
	run := make([]byte, runHeaderBytes)
	run = appendEntriesHeader(run, 3, 7, 2)
	run = appendEntry(run, 5, raftpb.EntryNormal, []byte("ab"))
	run = appendEntry(run, 300, raftpb.EntryConfChangeV2, nil)
	run = appendHardState(run, 3, hardState{5, 1, 6})
	run = appendStart(run, 4, mark{9, 2}, true)
	run = appendStart(run, 4, mark{9, 2}, false)
	run = appendConfState(run, 4, []byte{8, 1})
	run = appendTruncate(run, 5, mark{6, 5})
	run = appendCheckpoint(run, 6, mark{1, 2}, 3, hardState{4, 5, 6}, nil)
	run = appendCheckpoint(run, 7, mark{1, 2}, 3, hardState{}, []byte{})
	run = appendRemove(run, 8)
	runHeader{flags: flagCheckpoint, seq: 0x0102, salt: 0x1112131415161718, run: 9, durable: 8}.sealRun(run)
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"segment header": {header, "50726f6153656731010000000201000000000000181716151413121100000004000000009dc4beaa"},
		"run header":     {run[:runHeaderBytes], "5052756e010001000201000000000000181716151413121109000000000000000800000000000000390000009d9aa6cb"},
		"metadata":       {appendMetadata(nil, 9, []byte("xyz")), "08090378797a"},
		"records":        {run[runHeaderBytes:], "010307020500026162ac0202000203050106030409020103040902000404020801050506050606010203040506000607010203000000010708"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	h, err := decodeSegmentHeader(header)
	if err != nil || h != (segmentHeader{0x0102, 0x1112131415161718, 64 << 20}) {
		t.Errorf("segment header: %+v, %v", h, err)
	}
	if !runIntact(run) {
		t.Error("run does not match its own checksum")
	}
	d := decoder{buf: run[runHeaderBytes:]}
	want := []record{
		{kind: kindEntries, group: 3, mark: mark{7, 5}, data: []byte("ab")},
		{kind: kindEntries, group: 3, mark: mark{8, 300}, typ: raftpb.EntryConfChangeV2, data: []byte{}},
		{kind: kindHardState, group: 3, hs: hardState{5, 1, 6}},
		{kind: kindStart, group: 4, mark: mark{9, 2}, reset: true},
		{kind: kindStart, group: 4, mark: mark{9, 2}},
		{kind: kindConfState, group: 4, data: []byte{8, 1}},
		{kind: kindTruncate, group: 5, mark: mark{6, 5}},
		{kind: kindCheckpoint, group: 6, mark: mark{1, 2}, last: 3, hs: hardState{4, 5, 6}},
		{kind: kindCheckpoint, group: 7, mark: mark{1, 2}, last: 3, data: []byte{}},
		{kind: kindRemove, group: 8},
		{kind: kindMetadata, group: 9, data: []byte("xyz")},
	}
	d.buf = append(d.buf, appendMetadata(nil, 9, []byte("xyz"))...)
	for i, r := range want {
		got, ok, err := d.next()
		got.offset = 0
		if !ok || err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("record %d: %+v, %v, %v, want %+v", i, got, ok, err, r)
		}
	}
	if _, ok, err := d.next(); ok || err != nil {
		t.Errorf("after the last record: %v, %v", ok, err)
	}
}

func TestMalformedRecords(t *testing.T) {
	u := func(kind byte, vs ...uint64) []byte { return appendUvarints([]byte{kind}, vs...) }
	for name, p := range map[string][]byte{
		"kind 0":                {0, 1},
		"kind unknown":          {9, 1},
		"no group":              {kindHardState},
		"endless varint":        {kindHardState, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
		"hard state cut":        u(kindHardState, 1, 2, 3),
		"no entries":            u(kindEntries, 1, 1, 0),
		"entry at 0":            append(u(kindEntries, 1, 0, 1), 1, 0, 0),
		"lying count":           append(u(kindEntries, 1, 1, math.MaxUint64), 1, 0, 0),
		"index overflows":       append(u(kindEntries, 1, math.MaxUint64, 1), 1, 0, 0),
		"entry type":            append(u(kindEntries, 1, 1, 1), 1, 3, 0),
		"lying data length":     append(u(kindEntries, 1, 1, 1), 1, 0, 1),
		"second entry missing":  append(u(kindEntries, 1, 1, 2), 1, 0, 3, 0, 0, 0),
		"start at the end":      u(kindStart, 1, math.MaxUint64, 1, 1),
		"remove nobody":         {kindRemove},
		"reset of 2":            u(kindStart, 1, 1, 1, 2),
		"conf state cut":        append(u(kindConfState, 1, 2), 8),
		"metadata cut":          append(u(kindMetadata, 1, 3), 1, 2),
		"checkpoint backwards":  u(kindCheckpoint, 1, 5, 1, 4, 0, 0, 0, 0),
		"checkpoint conf state": u(kindCheckpoint, 1, 5, 1, 5, 0, 0, 0, 2),
	} {
		d := decoder{buf: p}
		ok, err := true, error(nil)
		for ok && err == nil {
			_, ok, err = d.next()
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzRecords feeds the decoder of records: it neither panics nor goes on for
// ever, and what it accepts means the same when encoded again.
func FuzzRecords(f *testing.F) {
	f.Add(appendHardState(nil, 1, hardState{1, 2, 3}))
	f.Add(appendEntry(appendEntriesHeader(nil, 1, 2, 1), 3, raftpb.EntryNormal, []byte("data")))
	f.Add(appendConfState(appendStart(nil, 1, mark{2, 3}, true), 1, []byte{8, 1}))
	f.Add(appendStart(appendRemove(nil, 1), 1, mark{2, 3}, true))
	f.Add(appendMetadata(appendCheckpoint(nil, 1, mark{}, 0, hardState{}, nil), 1, []byte("data")))
	f.Add(appendTruncate(appendCheckpoint(nil, 1, mark{2, 3}, 4, hardState{5, 6, 7}, []byte{8, 1}), 9, mark{1, 1}))
	f.Fuzz(func(t *testing.T, p []byte) {
		rs, err := decodeAll(p)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range rs {
			again = appendRecord(again, r)
		}
		rs2, err := decodeAll(again)
		if err != nil || len(rs) != len(rs2) {
			t.Fatalf("%d records, encoded again %d, %v", len(rs), len(rs2), err)
		}
		for i := range rs {
			rs[i].offset, rs2[i].offset = 0, 0
			if !reflect.DeepEqual(rs[i], rs2[i]) {
				t.Fatalf("record %d: %+v, encoded again %+v", i, rs[i], rs2[i])
			}
		}
	})
}

func decodeAll(p []byte) (rs []record, err error) {
	d := decoder{buf: p}
	for {
		r, ok, err := d.next()
		if err != nil || !ok {
			return rs, err
		}
		rs = append(rs, r)
	}
}

func appendRecord(dst []byte, r record) []byte {
	switch r.kind {
	case kindEntries:
		return appendEntry(appendEntriesHeader(dst, r.group, r.mark.index, 1), r.mark.term, r.typ, r.data)
	case kindHardState:
		return appendHardState(dst, r.group, r.hs)
	case kindStart:
		return appendStart(dst, r.group, r.mark, r.reset)
	case kindConfState:
		return appendConfState(dst, r.group, r.data)
	case kindTruncate:
		return appendTruncate(dst, r.group, r.mark)
	case kindRemove:
		return appendRemove(dst, r.group)
	case kindMetadata:
		return appendMetadata(dst, r.group, r.data)
	}
	return appendCheckpoint(dst, r.group, r.mark, r.last, r.hs, r.data)
}

// fuzzSalt makes the fuzzer's segments the same in every process.
const fuzzSalt = 42

// FuzzOpen puts the fuzzer's bytes at a place in a sound segment, with a
// checksum that matches if it asks for it, and opens the log. Whatever comes
// out, it comes without a panic, and a log that opens can be used and opened
// again.
func FuzzOpen(f *testing.F) {
	base := fuzzSegment()
	f.Add(uint32(0), []byte{}, false)
	f.Add(uint32(8), []byte{2}, false)
	f.Add(uint32(BlockBytes+40), []byte{0xff, 0xff, 0xff}, false)
	f.Add(uint32(3*BlockBytes+runHeaderBytes), appendHardState(nil, 1, hardState{1, 1, 1}), true)
	f.Add(uint32(3*BlockBytes), base[2*BlockBytes:3*BlockBytes], false)
	f.Add(uint32(2*BlockBytes+runHeaderBytes), appendEntry(appendEntriesHeader(nil, 1, 5, 1), 1, 0, nil), true)
	f.Add(uint32(3*BlockBytes+runHeaderBytes), appendRemove(nil, 1), true)
	f.Add(uint32(3*BlockBytes+runHeaderBytes), appendStart(nil, 1, mark{0, 1}, false), true)
	f.Add(uint32(3*BlockBytes+runHeaderBytes), appendMetadata(nil, 1, []byte("data")), true)
	f.Add(uint32(BlockBytes+runHeaderBytes), appendMetadata(nil, 1, []byte("data")), true)
	f.Add(uint32(BlockBytes+runHeaderBytes), appendCheckpoint(nil, 1, mark{5, 1}, 1<<60, hardState{}, nil), true)
	f.Fuzz(func(t *testing.T, at uint32, p []byte, seal bool) {
		image := fuzzSegment()
		at %= uint32(len(image))
		n := copy(image[at:], p)
		if start := at &^ (BlockBytes - 1); seal && start >= BlockBytes {
			h, _ := decodeRunHeader(image[start:], segmentHeader{})
			end := max(at+uint32(n), start+runHeaderBytes)
			runHeader{flags: h.flags, seq: 1, salt: fuzzSalt, run: h.run, durable: h.durable}.sealRun(image[start:end])
		}
		fs := vfs.NewMem()
		if err := fs.MkdirAll(testDir, 0o755); err != nil {
			t.Fatal(err)
		}
		file, err := fs.Create(testDir+"/"+segmentName(1), writeCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(image); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		verr := Verify(testOptions(fs), func(string) {})
		o := testOptions(fs)
		o.SegmentBytes = int64(len(image))
		l, _, err := Open(o)
		if (err == nil) != (verr == nil) {
			t.Fatalf("Open: %v, Verify: %v", err, verr)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("Open: %v", err)
			}
			return
		}
		w := l.NewWrite()
		w.Append(l.Group(77), raftpb.HardState{Term: 1}, nil)
		mustSave(t, l, w, true)
		want := stateOf(t, l)
		mustClose(t, l)
		l, _ = mustOpen(t, o)
		if got := stateOf(t, l); !got.equal(want) {
			t.Fatalf("opened again: %v, want %v", got, want)
		}
		mustClose(t, l)
	})
}

// fuzzSegment is a segment with a checkpoint and two runs.
func fuzzSegment() []byte {
	image := make([]byte, 8*BlockBytes)
	segmentHeader{seq: 1, salt: fuzzSalt, size: int64(len(image))}.encode(image)
	run := func(n uint64, flags uint16, records []byte) {
		p := append(make([]byte, runHeaderBytes), records...)
		runHeader{flags: flags, seq: 1, salt: fuzzSalt, run: n, durable: n - 1}.sealRun(p)
		copy(image[n*BlockBytes:], p)
	}
	run(1, flagCheckpoint, nil)
	run(2, 0, appendConfState(appendStart(nil, 1, mark{1, 1}, true), 1, []byte{8, 1}))
	run(3, 0, appendEntry(appendEntriesHeader(nil, 1, 2, 1), 1, raftpb.EntryNormal, []byte("data")))
	return image
}
