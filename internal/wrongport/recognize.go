package wrongport

import (
	"bytes"

	"github.com/proa-kv/proa/protocol"
)

// Protocol is what a caller speaks.
type Protocol uint8

// The protocols that are recognized.
const (
	Unknown Protocol = iota
	Native           // of Proa's own clients
	RESP             // of Redis; words in plain text, too
	HTTP
	TLS
	Node // between nodes
)

var protocolNames = [...]string{"unknown", "Proa", "Redis", "HTTP", "TLS", "peer"}

// String names the protocol, for logs.
func (p Protocol) String() string { return protocolNames[p] }

// form is the protocol in which a caller is answered at a port.
func (p Protocol) form(at Port) Protocol {
	switch {
	case p == Native, p == RESP, p == HTTP:
		return p
	case at == Client:
		return Native
	case at == Redis:
		return RESP
	}
	return HTTP // a browser, most likely
}

// RecognizeBytes is how many bytes from the start of a connection are enough for
// Recognize to decide.
const RecognizeBytes = protocol.HeaderBytes

// Recognize tells by the first bytes of a connection, b, what the caller speaks.
// more says that further bytes may tell it, and that it is Unknown so far. It
// looks at RecognizeBytes bytes and takes the same time whatever they are.
func Recognize(b []byte) (p Protocol, more bool) {
	for _, s := range signatures {
		switch n := s.matches(b[:min(len(b), RecognizeBytes)]); {
		case n >= s.bytes:
			return s.protocol, false
		case n == len(b):
			more = true
		}
	}
	return Unknown, more
}

// signature tells a protocol by so many bytes.
type signature struct {
	protocol Protocol
	bytes    int
	// matches returns how many bytes of b, from the front, fit.
	matches func(b []byte) int
}

// nodeMagic begins every connection between nodes; see package raftgroup/peer.
const nodeMagic = "\xf1ProaPee"

// signatures are looked at in order: a method of HTTP is text, too.
var signatures = []signature{
	{Node, 4, literally(nodeMagic)},
	{TLS, 6, clientHello},
	{Native, protocol.HeaderBytes, nativeHello},
	{HTTP, 4, method},
	{RESP, 2, array},
	{RESP, 4, text},
}

func literally(s string) func([]byte) int {
	return func(b []byte) int { return common(b, s) }
}

// common is the length of what b and s have in common at their fronts.
func common(b []byte, s string) int {
	n := 0
	for n < len(b) && n < len(s) && b[n] == s[n] {
		n++
	}
	return n
}

// fits counts the bytes at the front of b that ok finds right.
func fits(b []byte, ok func(i int, c byte) bool) int {
	for i, c := range b {
		if !ok(i, c) {
			return i
		}
	}
	return len(b)
}

// clientHello matches the record of a handshake, of TLS 1.0 to 1.3, that begins
// with a ClientHello. A native HELLO has a zero where its minor version is.
func clientHello(b []byte) int {
	return fits(b, func(i int, c byte) bool {
		switch i {
		case 0:
			return c == 22
		case 1:
			return c == 3
		case 2:
			return c >= 1 && c <= 4
		case 5:
			return c == 1
		}
		return true
	})
}

// nativeHello matches the header of a HELLO, which is less than 64 KiB.
func nativeHello(b []byte) int {
	return fits(b, func(i int, c byte) bool {
		switch i {
		case 2, 3, 6, 7:
			return c == 0
		case 4:
			return c == protocol.Version
		case 5:
			return c == byte(protocol.OpHello)
		}
		return true
	})
}

// methods of HTTP, PRI being that of the preface of HTTP/2.
var methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI "}

func method(b []byte) int {
	most := 0
	for _, m := range methods {
		most = max(most, common(b, m))
	}
	return most
}

// array matches "*1".
func array(b []byte) int {
	return fits(b, func(i int, c byte) bool {
		return i == 0 && c == '*' || i > 0 && (c >= '0' && c <= '9' || i > 1)
	})
}

// text matches what people type.
func text(b []byte) int {
	return fits(b, func(_ int, c byte) bool { return c >= ' ' && c <= '~' || c == '\r' || c == '\n' })
}

// requestLineMax is the longest line that RequestLine takes for one, in bytes.
const requestLineMax = 8 << 10

// RequestLine tells, for a port where text is a request of its own, whether b
// begins with the first line of an HTTP request. more says that it may, once the
// line is whole.
func RequestLine(b []byte) (yes, more bool) {
	b = b[:min(len(b), requestLineMax)]
	if n := method(b); n < len(b) && (n == 0 || b[n-1] != ' ') {
		return false, false
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	if !whole {
		return false, len(b) < requestLineMax
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	_, version, ok := bytes.Cut(line[max(0, len(line)-len(" HTTP/1.1")):], []byte(" HTTP/"))
	return ok && len(version) == 3, false
}
