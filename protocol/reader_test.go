package protocol

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func replyFrame(id uint64, body int) []byte {
	return End(append(Begin(nil, 0, FlagReply, id), make([]byte, body)...), 0)
}

// However the bytes come, the frames are the same, and the buffer is as large as
// the largest of the last reads needs.
func TestReader(t *testing.T) {
	sizes := []int{0, 10, 200 << 10, 1, 70 << 10, 3}
	for range 5 * readBufferIdle {
		sizes = append(sizes, 60<<10)
	}
	var stream []byte
	for i, n := range sizes {
		stream = append(stream, replyFrame(uint64(i+1), n)...)
	}
	for name, src := range map[string]io.Reader{
		"whole": bytes.NewReader(stream), "halves": iotest.HalfReader(bytes.NewReader(stream)),
		"end with data": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		r := NewReader(src)
		next, largest := 0, 0
		var err error
		for err == nil {
			err = r.Fill()
			for f, ok, bad := r.Next(FrameBytesMax); ok || bad != nil; f, ok, bad = r.Next(FrameBytesMax) {
				if bad != nil || f.ID != uint64(next+1) || len(f.Body) != sizes[next] {
					t.Fatalf("%s: frame %d is %d of %d bytes, %v", name, next+1, f.ID, len(f.Body), bad)
				}
				next++
			}
			largest = max(largest, len(r.buf))
		}
		if err != io.EOF || next != len(sizes) {
			t.Errorf("%s: %d of %d frames, %v", name, next, len(sizes), err)
		}
		if largest < 200<<10 || largest > 400<<10 || len(r.buf) != readBufferBytes {
			t.Errorf("%s: a buffer of up to %d bytes, %d in the end", name, largest, len(r.buf))
		}
	}
}

func TestReaderErrors(t *testing.T) {
	whole := replyFrame(1, 100)
	read := func(src io.Reader) (frames int, err error) {
		r := NewReader(src)
		for {
			if err := r.Fill(); err != nil {
				return frames, err
			}
			for {
				_, ok, err := r.Next(1000)
				if err != nil {
					return frames, err
				}
				if !ok {
					break
				}
				frames++
			}
		}
	}
	r := NewReader(iotest.OneByteReader(bytes.NewReader(whole)))
	if f, err := r.Wait(1000); f.ID != 1 || err != nil {
		t.Errorf("a frame byte by byte: %d, %v", f.ID, err)
	}
	if _, err := r.Wait(1000); err != io.EOF {
		t.Errorf("after the last frame: %v", err)
	}
	cut := append(bytes.Clone(whole), whole[:50]...)
	if n, err := read(bytes.NewReader(cut)); n != 1 || err != io.ErrUnexpectedEOF {
		t.Errorf("a frame that is cut off: %d frames, %v", n, err)
	}
	if n, err := read(strings.NewReader("HTTP/1.1 200 OK and so on")); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("another protocol: %d frames, %v", n, err)
	}
	if n, err := read(bytes.NewReader(replyFrame(1, 1001))); n != 0 || !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("too large: %d frames, %v", n, err)
	}
	// A length alone takes no memory.
	r = NewReader(bytes.NewReader(replyFrame(1, 10<<20)[:100]))
	r.Fill()
	r.Next(FrameBytesMax)
	if r.Fill(); len(r.buf) != readBufferBytes {
		t.Errorf("100 bytes get a buffer of %d", len(r.buf))
	}
}
