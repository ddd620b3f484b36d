package protocol

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// fuzzMessage feeds a decoder: it must not panic, and what it accepts must be
// stable when encoded and decoded again. The decoder is kept between inputs,
// as a server keeps it, and has to agree with a fresh one.
func fuzzMessage(f *testing.F, m message) {
	f.Fuzz(func(t *testing.T, body []byte) {
		fresh := newLike(m)
		err := fresh.Decode(body)
		if keptErr := m.Decode(body); (keptErr == nil) != (err == nil) {
			t.Fatalf("a decoder used before says %v, a fresh one %v", keptErr, err)
		}
		if err != nil {
			if s := StatusOf(err); s == StatusInternal || s == StatusProtocol || s.Outcome() != NotDone {
				t.Fatalf("%v is refused with %v", err, s)
			}
			return
		}
		if d := diff(fresh, m); d != "" {
			t.Fatalf("a decoder used before reads something else: %s", d)
		}
		encoded := fresh.AppendTo(nil)
		if _, defaults := m.(*Scan); !defaults && !bytes.Equal(encoded, body) {
			t.Fatalf("not the only encoding: %x became %x", body, encoded)
		}
		again := newLike(m)
		if err := again.Decode(encoded); err != nil {
			t.Fatalf("what was accepted is refused when encoded again: %v", err)
		}
		if d := diff(fresh, again); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzKey(f *testing.F)         { fuzzMessage(f, new(Key)) }
func FuzzRowReply(f *testing.F)    { fuzzMessage(f, new(RowReply)) }
func FuzzPut(f *testing.F)         { fuzzMessage(f, new(Put)) }
func FuzzDelete(f *testing.F)      { fuzzMessage(f, new(Delete)) }
func FuzzWriteReply(f *testing.F)  { fuzzMessage(f, new(WriteReply)) }
func FuzzIncr(f *testing.F)        { fuzzMessage(f, new(Incr)) }
func FuzzIncrReply(f *testing.F)   { fuzzMessage(f, new(IncrReply)) }
func FuzzExpire(f *testing.F)      { fuzzMessage(f, new(Expire)) }
func FuzzAppend(f *testing.F)      { fuzzMessage(f, new(Append)) }
func FuzzSetRange(f *testing.F)    { fuzzMessage(f, new(SetRange)) }
func FuzzIncrFloat(f *testing.F)   { fuzzMessage(f, new(IncrFloat)) }
func FuzzFloatReply(f *testing.F)  { fuzzMessage(f, new(FloatReply)) }
func FuzzSetExpiry(f *testing.F)   { fuzzMessage(f, new(SetExpiry)) }
func FuzzExpiryReply(f *testing.F) { fuzzMessage(f, new(ExpiryReply)) }
func FuzzGetRange(f *testing.F)    { fuzzMessage(f, new(GetRange)) }
func FuzzDeleteRange(f *testing.F) { fuzzMessage(f, new(DeleteRange)) }
func FuzzRangeReply(f *testing.F)  { fuzzMessage(f, new(RangeReply)) }
func FuzzWatchReply(f *testing.F)  { fuzzMessage(f, new(WatchReply)) }
func FuzzRename(f *testing.F)      { fuzzMessage(f, new(Rename)) }
func FuzzMGet(f *testing.F)        { fuzzMessage(f, new(MGet)) }
func FuzzMGetReply(f *testing.F)   { fuzzMessage(f, new(MGetReply)) }
func FuzzBatch(f *testing.F)       { fuzzMessage(f, new(Batch)) }
func FuzzBatchReply(f *testing.F)  { fuzzMessage(f, new(BatchReply)) }
func FuzzTxn(f *testing.F)         { fuzzMessage(f, new(Txn)) }
func FuzzTxnReply(f *testing.F)    { fuzzMessage(f, new(TxnReply)) }
func FuzzScan(f *testing.F)        { fuzzMessage(f, new(Scan)) }
func FuzzScanReply(f *testing.F)   { fuzzMessage(f, new(ScanReply)) }
func FuzzHello(f *testing.F)       { fuzzMessage(f, new(Hello)) }
func FuzzHelloReply(f *testing.F)  { fuzzMessage(f, new(HelloReply)) }
func FuzzRoutesReply(f *testing.F) { fuzzMessage(f, new(RoutesReply)) }
func FuzzErrorReply(f *testing.F)  { fuzzMessage(f, new(ErrorReply)) }
func FuzzAdmin(f *testing.F)       { fuzzMessage(f, new(Admin)) }

func FuzzExtensions(f *testing.F) {
	f.Fuzz(func(t *testing.T, list []byte) {
		var x, again Extensions
		if err := x.Decode(list); err != nil {
			if s := StatusOf(err); s != StatusBadRequest && s != StatusUnsupported {
				t.Fatalf("%v is refused with %v", err, s)
			}
			return
		}
		encoded := x.AppendTo(nil)
		if n := len(encoded) - 2; n != int(encoded[0])|int(encoded[1])<<8 || n > ExtensionBytesMax {
			t.Fatalf("%d bytes of extensions announced as %x", n, encoded[:2])
		}
		if err := again.Decode(encoded[2:]); err != nil || again != x {
			t.Fatalf("%+v became %+v, %v", x, again, err)
		}
	})
}

// FuzzNext reads a stream as a server does, once whole and once a byte at a
// time. Both must see the same frames and the same end.
func FuzzNext(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream []byte) {
		const lengthMax = 1 << 12
		var whole [][]byte
		rest, failed := stream, false
		for {
			_, n, need, err := Next(rest, lengthMax)
			if failed = err != nil; failed || n == 0 {
				if !failed && (need <= len(rest) || need > lengthMax) {
					t.Fatalf("needs %d bytes of %d", need, len(rest))
				}
				break
			}
			whole = append(whole, rest[:n])
			rest = rest[n:]
		}
		var seen int
		rest = stream
		for have := 0; have <= len(rest); have++ {
			f, n, need, err := Next(rest[:have:have], lengthMax)
			if err != nil {
				if !failed {
					t.Fatalf("the parts fail, the whole does not: %v", err)
				}
				failed = false
				break
			}
			if n == 0 {
				if need <= have {
					t.Fatalf("needs %d bytes of %d", need, have)
				}
				continue
			}
			if seen == len(whole) || !bytes.Equal(rest[:n], whole[seen]) {
				t.Fatalf("frame %d differs between the parts and the whole", seen)
			}
			if n < HeaderBytes || n > lengthMax || int(f.Length) != n || f.Flags&FlagExtensions == 0 && f.Extensions != nil {
				t.Fatalf("frame %d of %d bytes: %+v", seen, n, f.Header)
			}
			seen++
			rest, have = rest[n:], -1
		}
		if seen != len(whole) || failed {
			t.Fatalf("%d frames of %d, failure missed: %v", seen, len(whole), failed)
		}
	})
}

// seeds returns the committed corpus of each target, by file name: the golden
// vectors and every case of the tables of malformed input.
func seeds() map[string]map[string][]byte {
	all := map[string]map[string][]byte{}
	add := func(target, name string, b []byte) {
		const seedBytesMax = 1 << 10 // the edges of large fields are the table's job
		if len(b) > seedBytesMax {
			return
		}
		target = "Fuzz" + target
		if all[target] == nil {
			all[target] = map[string][]byte{}
		}
		slug := strings.NewReplacer(" ", "-", ":", "", ",", "").Replace(strings.ToLower(name))
		all[target][slug] = b
	}
	typeName := func(m message) string { return reflect.TypeOf(m).Elem().Name() }
	var stream []byte
	for i := range vectors {
		v := &vectors[i]
		b := v.encode()
		stream = append(stream, b...)
		add("Next", v.name, b)
		f, _, _, _ := Next(b, FrameBytesMax)
		if v.m != nil {
			add(typeName(v.m), v.name, f.Body)
		}
		if f.Extensions != nil {
			add("Extensions", v.name, f.Extensions)
		}
	}
	add("Next", "pipelined", stream[:600])
	for _, tc := range boundaries {
		add(typeName(tc.into), tc.name, tc.body)
	}
	for _, tc := range badFrames {
		add("Next", tc.name, tc.b)
	}
	for _, tc := range badExtensions {
		add("Extensions", tc.name, tc.b)
	}
	return all
}

// TestFuzzSeeds sees to it that every decoder has a target with a committed
// corpus that holds at least the seeds. Files that fuzzing has found stay.
func TestFuzzSeeds(t *testing.T) {
	all := seeds()
	for _, k := range kinds {
		if len(all["Fuzz"+k.name]) == 0 {
			t.Errorf("no seeds for %s", k.name)
		}
	}
	for target, files := range all {
		dir := filepath.Join("testdata", "fuzz", target)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for name, b := range files {
			want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", b)
			path := filepath.Join(dir, name)
			if *update {
				if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("%s is missing or out of date (run go test with -update)", path)
			}
		}
	}
}
