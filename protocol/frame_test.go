package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// header builds a frame header by hand.
func header(length uint32, version, code uint8, flags uint16, id uint64) []byte {
	return wire(length, version, code, flags, id)
}

// badFrames has each way in which a frame can be refused, and its neighbours
// that are not.
var badFrames = []struct {
	name string
	b    []byte
	max  uint32
	want error
}{
	{"header only", header(HeaderBytes, 1, 3, 0, 9), FrameBytesMax, nil},
	{"length 0", header(0, 1, 3, 0, 9), FrameBytesMax, ErrFrameTooSmall},
	{"length below the header", header(HeaderBytes-1, 1, 3, 0, 9), FrameBytesMax, ErrFrameTooSmall},
	{"length negative", header(math.MaxUint32, 1, 3, 0, 9), FrameBytesMax, ErrFrameTooLarge},
	{"length over the limit", header(FrameBytesMax+1, 1, 3, 0, 9), FrameBytesMax, ErrFrameTooLarge},
	{"length at the limit", append(header(HeaderBytes+4, 1, 3, 0, 9), "body"...), HeaderBytes + 4, nil},
	{"length over a lower limit", header(101, 1, 3, 0, 9), 100, ErrFrameTooLarge},
	{"version 0", header(HeaderBytes, 0, 3, 0, 9), FrameBytesMax, ErrVersion},
	{"version 2", header(HeaderBytes, 2, 3, 0, 9), FrameBytesMax, ErrVersion},
	{"unknown flag", header(HeaderBytes, 1, 3, 1<<3, 9), FrameBytesMax, ErrUnknownFlag},
	{"highest flag", header(HeaderBytes, 1, 3, 1<<15, 9), FrameBytesMax, ErrUnknownFlag},
	{"unknown flag before the rest arrived", header(1000, 1, 3, 1<<3, 9), FrameBytesMax, ErrUnknownFlag},
	{"no room for extensions", header(HeaderBytes, 1, 3, 2, 9), FrameBytesMax, ErrExtensionLength},
	{"half a length of extensions", append(header(HeaderBytes+1, 1, 3, 2, 9), 0), FrameBytesMax, ErrExtensionLength},
	{"no extensions", append(header(HeaderBytes+2, 1, 3, 2, 9), 0, 0), FrameBytesMax, nil},
	{"extensions beyond the frame", append(header(HeaderBytes+3, 1, 3, 2, 9), 2, 0, 0), FrameBytesMax, ErrExtensionLength},
	{"most extensions", append(header(HeaderBytes+2+ExtensionBytesMax, 1, 3, 2, 9), wire(u16(ExtensionBytesMax), make([]byte, ExtensionBytesMax))...), FrameBytesMax, nil},
	{"too many extensions", append(header(HeaderBytes+3+ExtensionBytesMax, 1, 3, 2, 9), wire(u16(ExtensionBytesMax+1), make([]byte, ExtensionBytesMax+1))...), FrameBytesMax, ErrExtensionLength},
}

func TestNextMalformed(t *testing.T) {
	for _, tc := range badFrames {
		f, n, _, err := Next(tc.b, tc.max)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
			continue
		}
		if err == nil {
			if n != len(tc.b) {
				t.Errorf("%s: takes %d of %d bytes", tc.name, n, len(tc.b))
			}
			continue
		}
		if n != 0 || f.ID != 9 || f.Code != 3 {
			t.Errorf("%s: n = %d, id = %d, code = %d; the error reply cannot name the request", tc.name, n, f.ID, f.Code)
		}
		if StatusOf(err) != StatusProtocol {
			t.Errorf("%s: refused with %v", tc.name, StatusOf(err))
		}
	}
}

// A length that cannot be true is refused as soon as it is there, before the
// rest of the header.
func TestNextRefusesLengthEarly(t *testing.T) {
	for _, length := range []uint32{0, HeaderBytes - 1, FrameBytesMax + 1, math.MaxUint32} {
		b := binary.LittleEndian.AppendUint32(nil, length)
		for n := 4; n < HeaderBytes; n++ {
			if f, _, _, err := Next(append(b, make([]byte, n-4)...), FrameBytesMax); err == nil || f.ID != 0 {
				t.Errorf("length %d with %d bytes: %v", length, n, err)
			}
		}
	}
}

// TestNextPartial cuts a stream of frames at every byte.
func TestNextPartial(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type sent struct {
			header Header
			ext    []byte
			body   []byte
		}
		var stream []byte
		var frames []sent
		for range rapid.IntRange(1, 4).Draw(t, "frames") {
			s := sent{body: anyBytes.Draw(t, "body")}
			s.header = Header{
				Version: Version, Code: rapid.Byte().Draw(t, "code"),
				Flags: Flags(rapid.Uint16Range(0, uint16(flagsKnown)).Draw(t, "flags")), ID: rapid.Uint64().Draw(t, "id"),
			}
			start := len(stream)
			stream = Begin(stream, s.header.Code, s.header.Flags, s.header.ID)
			if s.header.Flags&FlagExtensions != 0 {
				s.ext = anyBytes.Draw(t, "extensions")
				stream = appendString(stream, s.ext)
			}
			stream = End(append(stream, s.body...), start)
			s.header.Length = uint32(len(stream) - start)
			frames = append(frames, s)
		}
		for cut := 0; cut <= len(stream); cut++ {
			rest := stream[:cut:cut]
			for i := 0; ; i++ {
				f, n, need, err := Next(rest, FrameBytesMax)
				if err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if n == 0 {
					if need <= len(rest) {
						t.Fatalf("cut at %d: frame %d needs %d bytes of %d and is not yielded", cut, i, need, len(rest))
					}
					if i < len(frames) && (need > int(frames[i].header.Length)) {
						t.Fatalf("cut at %d: needs %d bytes, more than the frame's %d", cut, need, frames[i].header.Length)
					}
					break
				}
				want := frames[i]
				if f.Header != want.header || !bytes.Equal(f.Extensions, want.ext) || !bytes.Equal(f.Body, want.body) {
					t.Fatalf("cut at %d: frame %d is %+v, want %+v", cut, i, f, want)
				}
				if n != need || n != int(want.header.Length) {
					t.Fatalf("cut at %d: frame %d takes %d, needs %d, has %d", cut, i, n, need, want.header.Length)
				}
				if cap(f.Body) != len(f.Body) || f.Extensions != nil && cap(f.Extensions) != len(f.Extensions) {
					t.Fatal("an append to a view would overwrite its neighbour")
				}
				rest = rest[n:]
			}
		}
	})
}

// The largest request there can be passes through a frame.
func TestLargestPutFits(t *testing.T) {
	x := Extensions{
		DeadlineMillis: 1, Session: 1, Sequence: 2, Acknowledged: 1, Consistency: Stale,
		HasTrace: true, Epoch: 1, Leader: 1, HasAge: true, HasShard: true,
	}
	want := Put{Flags: WriteTTL | WriteIfVersion | WriteReturnPrevious, TTLMillis: 1, Version: 1, Key: []byte(longestKey), Value: longestValue}
	b := Begin(nil, uint8(OpPut), FlagExtensions, 1)
	b = End(want.AppendTo(x.AppendTo(b)), 0)
	f, n, _, err := Next(b, FrameBytesMax)
	if err != nil || n != len(b) {
		t.Fatalf("n = %d of %d, %v", n, len(b), err)
	}
	var got Put
	if err := got.Decode(f.Body); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Key, want.Key) || !bytes.Equal(got.Value, want.Value) || got.Flags != want.Flags {
		t.Fatal("the put changed on its way")
	}
}

func TestAppendError(t *testing.T) {
	b := AppendError([]byte("x"), 7, StatusBusy, 25, string(make([]byte, MessageBytesMax+1)))
	f, n, _, err := Next(b[1:], FrameBytesMax)
	if err != nil || n != len(b)-1 {
		t.Fatalf("n = %d of %d, %v", n, len(b)-1, err)
	}
	if Status(f.Code) != StatusBusy || f.Flags != FlagReply || f.ID != 7 {
		t.Errorf("header is %+v", f.Header)
	}
	var m ErrorReply
	if err := m.Decode(f.Body); err != nil || m.RetryAfterMillis != 25 || len(m.Message) != MessageBytesMax {
		t.Errorf("%v, delay %d, message of %d bytes", err, m.RetryAfterMillis, len(m.Message))
	}
	long := ErrorReply{Message: make([]byte, MessageBytesMax+1)}
	if err := m.Decode(long.AppendTo(nil)); err != nil || len(m.Message) != MessageBytesMax {
		t.Errorf("a long message is not cut: %v, %d bytes", err, len(m.Message))
	}
}
