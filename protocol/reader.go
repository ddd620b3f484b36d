package protocol

import "io"

const (
	readBufferBytes = 64 << 10
	// readBufferIdle is how many reads in a row must leave an enlarged buffer
	// mostly empty before it shrinks again.
	readBufferIdle = 32
)

// Reader takes frames from a stream, as views of its buffer. It is for one goroutine.
type Reader struct {
	src      io.Reader
	buf      []byte
	from, to int   // the bytes that have not been taken
	need     int   // of the frame they begin with, as far as is known
	idle     int   // reads in a row that left an enlarged buffer mostly empty
	err      error // of the stream, after the bytes that came with it
}

// NewReader returns a reader of src.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, readBufferBytes)}
}

// Fill reads once from the stream, which ends the validity of the frames that
// Next returned. The error is io.EOF only where the stream ends between frames.
func (r *Reader) Fill() error {
	if r.err == nil {
		r.arrange()
		var n int
		n, r.err = r.src.Read(r.buf[r.to:])
		if r.to += n; n > 0 {
			return nil
		}
	}
	if r.err == io.EOF && r.from < r.to {
		return io.ErrUnexpectedEOF
	}
	return r.err
}

// arrange moves what is left to the front of the buffer and makes room for the
// frame it begins with. It at most doubles the buffer at a time, so that a length
// alone, without the bytes, takes no memory.
func (r *Reader) arrange() {
	n := copy(r.buf, r.buf[r.from:r.to])
	r.from, r.to = 0, n
	switch {
	case n == len(r.buf):
		r.buf = append(make([]byte, 0, min(max(r.need, n+1), 2*n)), r.buf...)
		r.buf = r.buf[:cap(r.buf)]
	case len(r.buf) == readBufferBytes || n >= readBufferBytes || r.need > readBufferBytes:
		r.idle = 0
	default:
		if r.idle++; r.idle >= readBufferIdle {
			r.buf, r.idle = append(make([]byte, 0, readBufferBytes), r.buf[:n]...)[:readBufferBytes], 0
		}
	}
}

// Wait returns the next frame, reading for it as long as it takes.
func (r *Reader) Wait(frameMax uint32) (Frame, error) {
	for {
		if f, ok, err := r.Next(frameMax); ok || err != nil {
			return f, err
		}
		if err := r.Fill(); err != nil {
			return Frame{}, err
		}
	}
}

// Next returns the next whole frame, or false if the stream has to be read for
// it. A frame of more than frameMax bytes is an error, after which the stream
// cannot be trusted any more.
func (r *Reader) Next(frameMax uint32) (f Frame, ok bool, err error) {
	f, n, need, err := Next(r.buf[r.from:r.to], frameMax)
	r.from += n
	r.need = need
	return f, n > 0, err
}
