package protocol

import (
	"bytes"
	"testing"
)

// TestNoAllocations covers what a served request does on both sides: encode a
// frame, find it in a buffer, decode it with a decoder kept between requests.
func TestNoAllocations(t *testing.T) {
	key, value := []byte("user:1000"), bytes.Repeat([]byte("v"), 128)
	ext := Extensions{DeadlineMillis: 30_000, Session: 1, Sequence: 2, Acknowledged: 1, HasTrace: true, Consistency: Stale}
	ops := Ops{{OpPut, wire(&Put{Key: key, Value: value})}, {OpDelete, wire(&Delete{Key: key})}}
	results := OpResults{{StatusOK, wire(&WriteReply{Version: 1})}, {StatusNotFound, nil}}
	for _, tc := range []struct {
		name string
		code uint8
		ext  *Extensions
		m    message
	}{
		{"PING", uint8(OpPing), nil, nil},
		{"GET", uint8(OpGet), nil, &Key{key}},
		{"GET with extensions", uint8(OpGet), &ext, &Key{key}},
		{"PUT", uint8(OpPut), nil, &Put{Key: key, Value: value}},
		{"PUT with everything", uint8(OpPut), &ext, &Put{Flags: WriteTTL | WriteIfVersion, TTLMillis: 1, Key: key, Value: value}},
		{"DELETE", uint8(OpDelete), nil, &Delete{Key: key}},
		{"INCR", uint8(OpIncr), nil, &Incr{1, key}},
		{"EXPIRE", uint8(OpExpire), nil, &Expire{1, key}},
		{"APPEND", uint8(OpAppend), nil, &Append{key, value}},
		{"SETRANGE", uint8(OpSetRange), nil, &SetRange{1, key, value}},
		{"INCRFLOAT", uint8(OpIncrFloat), nil, &IncrFloat{key, []byte("0.1")}},
		{"SETEXPIRY", uint8(OpSetExpiry), nil, &SetExpiry{ExpiryReturnRow, 1, key}},
		{"RENAME", uint8(OpRename), nil, &Rename{0, key, key}},
		{"MGET", uint8(OpMGet), nil, &MGet{[][]byte{key, key}}},
		{"BATCH", uint8(OpBatch), nil, &Batch{Ops: ops}},
		{"TXN", uint8(OpTxn), nil, &Txn{Compares: []Compare{{CompareVersion, Equal, key, 1, nil}}, Then: ops}},
		{"SCAN", uint8(OpScan), nil, &Scan{Start: key}},
		{"row", uint8(StatusOK), nil, &RowReply{1, 0, value}},
		{"write", uint8(StatusOK), nil, &WriteReply{Version: 1, HasPrevious: true, PreviousValue: value}},
		{"counter", uint8(StatusOK), nil, &IncrReply{1, 2}},
		{"number", uint8(StatusOK), nil, &FloatReply{1, value}},
		{"expiry", uint8(StatusOK), nil, &ExpiryReply{1, 2}},
		{"GETRANGE", uint8(OpGetRange), nil, &GetRange{1, 2, key}},
		{"DELETE_RANGE", uint8(OpDeleteRange), nil, &DeleteRange{Start: key, End: value}},
		{"range", uint8(StatusOK), nil, &RangeReply{1, 2, value}},
		{"watch", uint8(StatusOK), nil, &WatchReply{1, 2}},
		{"rows", uint8(StatusOK), nil, &MGetReply{[]MGetRow{{StatusOK, 1, 0, value}, {Status: StatusNotFound}}}},
		{"page", uint8(StatusOK), nil, &ScanReply{Rows: []ScanRow{{1, 0, key, value}}}},
		{"batch results", uint8(StatusOK), nil, &BatchReply{results}},
		{"txn results", uint8(StatusOK), nil, &TxnReply{true, results}},
		{"error", uint8(StatusBusy), nil, &ErrorReply{5, value}},
	} {
		var decoded message
		if tc.m != nil {
			decoded = newLike(tc.m)
		}
		var got Extensions
		buf := make([]byte, 0, 4096)
		n := testing.AllocsPerRun(100, func() {
			var flags Flags
			if tc.ext != nil {
				flags = FlagExtensions
			}
			b := Begin(buf[:0], tc.code, flags, 1)
			if tc.ext != nil {
				b = tc.ext.AppendTo(b)
			}
			if tc.m != nil {
				b = tc.m.AppendTo(b)
			}
			b = End(b, 0)
			f, taken, _, err := Next(b, FrameBytesMax)
			if err != nil || taken != len(b) {
				t.Fatal(taken, err)
			}
			if err := got.Decode(f.Extensions); err != nil {
				t.Fatal(err)
			}
			if decoded == nil {
				return
			}
			if err := decoded.Decode(f.Body); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations, want 0", tc.name, n)
		}
	}
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { AppendError(buf, 1, StatusBusy, 5, "the queue is full") }); n != 0 {
		t.Errorf("AppendError: %v allocations, want 0", n)
	}
}

func BenchmarkGetRequest(b *testing.B) {
	key := Key{[]byte("user:1000")}
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		frame := End(key.AppendTo(Begin(buf, uint8(OpGet), 0, 7)), 0)
		f, _, _, err := Next(frame, FrameBytesMax)
		if err != nil || key.Decode(f.Body) != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutRequest(b *testing.B) {
	put := Put{Flags: WriteTTL, TTLMillis: 1000, Key: []byte("user:1000"), Value: make([]byte, 128)}
	ext := Extensions{Session: 1, Sequence: 2, DeadlineMillis: 1000}
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		frame := End(put.AppendTo(ext.AppendTo(Begin(buf, uint8(OpPut), FlagExtensions, 7))), 0)
		f, _, _, err := Next(frame, FrameBytesMax)
		if err != nil || ext.Decode(f.Extensions) != nil || put.Decode(f.Body) != nil {
			b.Fatal(err)
		}
	}
}
