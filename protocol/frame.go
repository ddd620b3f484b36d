// Package protocol is Proa's wire format: frames, opcodes, status codes,
// limits and one codec per message, used alike by server and client.
//
// A frame is a 16-byte little-endian header, optional extensions, and a body:
//
//	 0       4        5       6       8              16
//	+--------+--------+-------+-------+--------------+----------- - -
//	| length | version| code  | flags | request id   | [extensions] body
//	+--------+--------+-------+-------+--------------+----------- - -
//
// length counts the whole frame, header included. code is an opcode in a
// request and a status in a reply. Decoding is in place: every []byte a
// decoder yields is a view into the buffer it was given, valid as long as
// that buffer is, and nothing is copied. Decoders that fill slices of
// sub-messages reuse the slice's capacity, so a decoder kept between frames
// allocates nothing in the steady state; RoutesReply, which is rare, does not.
// A message that failed to decode holds no particular content.
//
// Encoders append to a caller's slice and check nothing: the caller that fills
// in a message must respect the limits (CheckKey, CheckValue, limits.go). A
// string too long for its 16-bit length is written with a length that every
// decoder refuses, so that it can never be taken for a shorter one.
//
// docs/protocol.md is the specification; testdata/ holds golden vectors.
package protocol

import (
	"encoding/binary"
	"fmt"
)

// Version is the protocol version this package speaks.
const Version = 1

// Flags of a frame header.
type Flags uint16

const (
	// FlagReply marks a reply; its code is a Status.
	FlagReply Flags = 1 << 0
	// FlagExtensions says that extensions stand between header and body.
	FlagExtensions Flags = 1 << 1
	// FlagMore says that a further frame continues this reply.
	FlagMore Flags = 1 << 2

	flagsKnown = FlagReply | FlagExtensions | FlagMore
)

// Errors of the frame layer, which only Next returns. After any of them the
// peer is out of step and the connection must be closed.
var (
	ErrFrameTooSmall   = refusal(StatusProtocol, "frame length is smaller than the header")
	ErrFrameTooLarge   = refusal(StatusProtocol, "frame length exceeds the limit")
	ErrVersion         = refusal(StatusProtocol, "unsupported protocol version")
	ErrUnknownFlag     = refusal(StatusProtocol, "unknown frame flag")
	ErrExtensionLength = refusal(StatusProtocol, "extensions do not fit in the frame")
)

// Errors of the Decode methods. The frame was sound, so the stream goes on
// behind it: the message is refused with StatusOf the error and the connection
// kept.
var (
	ErrBadExtension     = refusal(StatusBadRequest, "malformed frame extension")
	ErrUnknownExtension = refusal(StatusUnsupported, "unknown critical extension")
	ErrTruncated        = refusal(StatusBadRequest, "message is truncated")
	ErrTrailingBytes    = refusal(StatusBadRequest, "message has trailing bytes")
	ErrUnknownOption    = refusal(StatusBadRequest, "unknown option flag")
	ErrTooManyOps       = refusal(StatusBadRequest, "too many operations in one message")
	ErrOpcodeInBatch    = refusal(StatusBadRequest, "operation is not allowed inside a batch or transaction")
	ErrOutOfRange       = refusal(StatusBadRequest, "field is out of range")
	ErrTooLarge         = refusal(StatusTooLarge, "a size limit is exceeded")
)

// Header is the fixed part of a frame.
type Header struct {
	Length  uint32 // whole frame in bytes, HeaderBytes..FrameBytesMax
	Version uint8
	Code    uint8 // Opcode in a request, Status in a reply
	Flags   Flags
	ID      uint64 // chosen by the client, repeated in each reply frame; 0 is the server's own notices
}

// Frame is a view of one whole frame inside a read buffer.
type Frame struct {
	Header
	Extensions []byte // without their length prefix; nil without FlagExtensions
	Body       []byte
}

// Next finds the first frame in b. It returns the frame and the bytes it
// takes. Where b does not hold a whole frame yet it returns n = 0 and, in
// need, how many bytes from the start of b the frame takes as far as is known
// (at least HeaderBytes). lengthMax is the largest frame accepted, in bytes.
// An error (one of the frame layer's, above) means that the stream cannot be
// trusted any more. The header is filled in then if b holds one, so that an
// error reply can name the request; ID is 0 if it does not.
//
// Whether FlagReply and FlagMore make sense in the direction of the stream is
// for the caller to check: a server closes on either, a client on a frame
// without FlagReply.
func Next(b []byte, lengthMax uint32) (f Frame, n int, need int, err error) {
	if len(b) < HeaderBytes {
		// A length that can be read already may be refused at once.
		if len(b) >= 4 {
			if err := checkLength(binary.LittleEndian.Uint32(b), lengthMax); err != nil {
				return f, 0, 0, err
			}
		}
		return f, 0, HeaderBytes, nil
	}
	f.Length = binary.LittleEndian.Uint32(b)
	f.Version = b[4]
	f.Code = b[5]
	f.Flags = Flags(binary.LittleEndian.Uint16(b[6:]))
	f.ID = binary.LittleEndian.Uint64(b[8:])
	if err := checkLength(f.Length, lengthMax); err != nil {
		return f, 0, 0, err
	}
	if f.Version != Version {
		return f, 0, 0, fmt.Errorf("%w %d (this side speaks %d)", ErrVersion, f.Version, Version)
	}
	if f.Flags&^flagsKnown != 0 {
		return f, 0, 0, fmt.Errorf("%w 0x%04x", ErrUnknownFlag, uint16(f.Flags&^flagsKnown))
	}
	if uint32(len(b)) < f.Length {
		return f, 0, int(f.Length), nil
	}
	f.Body = b[HeaderBytes:f.Length:f.Length]
	if f.Flags&FlagExtensions != 0 {
		if len(f.Body) < 2 {
			return f, 0, 0, fmt.Errorf("%w: no room for their length", ErrExtensionLength)
		}
		x := int(binary.LittleEndian.Uint16(f.Body))
		if x > ExtensionBytesMax || x > len(f.Body)-2 {
			return f, 0, 0, fmt.Errorf("%w: %d bytes announced", ErrExtensionLength, x)
		}
		f.Extensions = f.Body[2 : 2+x : 2+x]
		f.Body = f.Body[2+x:]
	}
	return f, int(f.Length), int(f.Length), nil
}

func checkLength(length, lengthMax uint32) error {
	if length < FrameBytesMin {
		return fmt.Errorf("%w: %d bytes", ErrFrameTooSmall, length)
	}
	if length > lengthMax {
		return fmt.Errorf("%w: %d bytes announced, %d allowed", ErrFrameTooLarge, length, lengthMax)
	}
	return nil
}

// Begin appends a frame header whose length is not known yet. The caller
// appends extensions (Extensions.AppendTo, if flags has FlagExtensions) and body,
// and then calls End with len(dst) as it was before Begin.
func Begin(dst []byte, code uint8, flags Flags, id uint64) []byte {
	dst = append(dst, 0, 0, 0, 0, Version, code)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(flags))
	return binary.LittleEndian.AppendUint64(dst, id)
}

// End patches the length of the frame that starts at start. The caller has seen
// to it that the frame is no longer than the peer's FrameBytesMax.
func End(dst []byte, start int) []byte {
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}
