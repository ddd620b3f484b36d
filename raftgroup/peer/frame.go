package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/proa-kv/proa/bufpool"
)

// A frame is a header and a payload:
//
//	u32  bytes of the payload
//	u8   type
//	u24  zero
//	u32  CRC32C of the eight bytes before and of the payload
//
// All integers are little-endian.
const headerBytes = 12

type frameType uint8

const (
	frameMessages       frameType = 1 // Raft messages
	frameReport         frameType = 2
	frameCall           frameType = 3
	frameReply          frameType = 4
	frameSnapshotHeader frameType = 5
	frameSnapshotResume frameType = 6 // the receiver's token
	frameSnapshotChunk  frameType = 7
	frameSnapshotEnd    frameType = 8
	frameAlive          frameType = 9  // says that the side works or waits, both ways
	frameSnapshotDone   frameType = 10 // the receiver has installed it
	frameSnapshotError  frameType = 11 // either side gives up, with a text
	frameEngine         frameType = 12 // of an engine with an encoding of its own
)

// payloadMax returns the largest payload of a type, -1 for an unknown type.
func (t frameType) payloadMax() int {
	switch t {
	case frameMessages, frameEngine:
		return frameBytesMax
	case frameReport:
		return ReportBytesMax
	case frameCall:
		return callHeadBytes + VerbBytesMax + CallBytesMax
	case frameReply:
		return replyHeadBytes + CallBytesMax
	case frameSnapshotHeader, frameSnapshotResume:
		return SnapshotHeaderBytesMax
	case frameSnapshotChunk:
		return SnapshotChunkBytesMax
	case frameSnapshotEnd, frameAlive, frameSnapshotDone:
		return 0
	case frameSnapshotError:
		return errorBytesMax
	}
	return -1
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// putHeader fills in the header of a frame whose payload is in one or more
// pieces elsewhere or right behind it.
func putHeader(h []byte, t frameType, payload []byte) {
	le.PutUint32(h[0:], uint32(len(payload)))
	le.PutUint32(h[4:], uint32(t))
	le.PutUint32(h[8:], crc32.Update(crc32.Checksum(h[:8], castagnoli), castagnoli, payload))
}

// newFrame returns a buffer with room for a payload behind the header's place.
// The caller appends the payload and calls seal.
func newFrame(payloadBytes int) *bufpool.Buffer {
	b := bufpool.Get(headerBytes + payloadBytes)
	b.B = b.B[:headerBytes]
	return b
}

// seal completes a frame begun with newFrame.
func seal(b *bufpool.Buffer, t frameType) { putHeader(b.B, t, b.B[headerBytes:]) }

// frameOf returns a whole frame.
func frameOf(t frameType, payload []byte) *bufpool.Buffer {
	b := newFrame(len(payload))
	b.Append(payload)
	seal(b, t)
	return b
}

// frameReader reads frames. It holds at most one at a time. close must be
// called when no more are wanted.
type frameReader struct {
	in       *bufio.Reader
	consumed int             // bytes of in that the payload handed out occupies
	large    *bufpool.Buffer // holds a payload that does not fit in

	payloadMax int // a limit of this connection's, 0: those of the types
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(r, readBufferBytes)}
}

// next returns the next frame. The payload is valid until the following call.
// The error is io.EOF only between frames, and wraps ErrDamaged where the bytes
// are at fault; after an error the reader is of no more use.
func (r *frameReader) next() (frameType, []byte, error) {
	r.close()
	h, err := r.in.Peek(headerBytes)
	if err != nil {
		if err == io.EOF && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	n, t, err := parseHeader(h)
	if err != nil {
		return 0, nil, err
	}
	if r.payloadMax != 0 && n > r.payloadMax {
		return 0, nil, damaged("a frame claims %d bytes; the limit is %d here", n, r.payloadMax)
	}
	crc, want := crc32.Checksum(h[:8], castagnoli), le.Uint32(h[8:]) // h is gone after the next read
	payload, err := r.payload(n)
	if err != nil {
		return 0, nil, noEOF(err)
	}
	if crc32.Update(crc, castagnoli, payload) != want {
		return 0, nil, damaged("checksum mismatch in a frame of type %d with %d bytes", t, n)
	}
	return t, payload, nil
}

// expect is next for a place where only one type of frame, which is named, may be.
func (r *frameReader) expect(want frameType, name string) ([]byte, error) {
	t, payload, err := r.next()
	if err == nil && t != want {
		err = damaged("a frame of type %d instead of %s", t, name)
	}
	return payload, err
}

func parseHeader(h []byte) (n int, t frameType, err error) {
	word := le.Uint32(h[4:])
	if word>>8 != 0 || frameType(word).payloadMax() < 0 {
		return 0, 0, damaged("unknown frame type %#x", word)
	}
	t = frameType(word)
	if length := le.Uint32(h); int64(length) > int64(t.payloadMax()) {
		return 0, 0, damaged("a frame of type %d claims %d bytes; the limit is %d", t, length, t.payloadMax())
	}
	return int(le.Uint32(h)), t, nil
}

func (r *frameReader) payload(n int) ([]byte, error) {
	if headerBytes+n <= readBufferBytes {
		b, err := r.in.Peek(headerBytes + n)
		if err != nil {
			return nil, err
		}
		r.consumed = headerBytes + n
		return b[headerBytes:], nil
	}
	r.in.Discard(headerBytes) // cannot fail: it was peeked
	r.large = bufpool.Get(min(n, trustBytes))
	for have := 0; have < n; {
		end := n
		if have == 0 {
			end = min(n, trustBytes)
		}
		r.large.Grow(end - have)
		r.large.B = r.large.B[:end]
		if _, err := io.ReadFull(r.in, r.large.B[have:]); err != nil {
			return nil, err
		}
		have = end
	}
	return r.large.B, nil
}

// close gives back the memory of the last payload.
func (r *frameReader) close() {
	r.in.Discard(r.consumed) // cannot fail: it was peeked
	r.consumed = 0
	if r.large != nil {
		r.large.Release()
		r.large = nil
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// deadlineReader reads from a connection, which must make progress within the
// timeout as long as one is set. It is for one goroutine.
type deadlineReader struct {
	conn    net.Conn
	timeout time.Duration // 0: none
}

func (r *deadlineReader) Read(p []byte) (int, error) {
	if r.timeout > 0 {
		if err := r.conn.SetReadDeadline(time.Now().Add(r.timeout)); err != nil {
			return 0, err
		}
	}
	return r.conn.Read(p)
}

// isTimeout reports whether an error comes from a deadline.
func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
