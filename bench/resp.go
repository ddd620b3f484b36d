package bench

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// RESP is the Codec of the Redis serialization protocol, version 2: requests
// are arrays of bulk strings, replies simple strings, errors and bulk strings.
// PUT is SET. The greeting is a PING, so that a connection is known to be
// served, behind an AUTH where there are credentials.
type RESP struct {
	User, Secret string // credentials; empty for none, or for the user default
}

// Bounds of a RESP reply, so that a length that lies is found out: a line is
// not longer than an error message of any server, and a bulk string not longer
// than Redis allows (proto-max-bulk-len).
const (
	respLineBytesMax = 64 << 10
	respBulkBytesMax = 512 << 20
)

const (
	respPing = "*1\r\n$4\r\nPING\r\n"
	respAuth = "\r\n$4\r\nAUTH\r\n"
)

// Ordered returns true.
func (RESP) Ordered() bool { return true }

// AppendGreeting appends an AUTH, where there are credentials, and a PING.
func (c RESP) AppendGreeting(dst []byte) []byte {
	switch {
	case c.User != "":
		dst = appendBulk(appendBulk(append(append(dst, "*3"...), respAuth...), []byte(c.User)), []byte(c.Secret))
	case c.Secret != "":
		dst = appendBulk(append(append(dst, "*2"...), respAuth...), []byte(c.Secret))
	}
	return append(dst, respPing...)
}

// ParseGreeting reads the answers to AUTH and PING.
func (c RESP) ParseGreeting(b []byte) (int, error) {
	login := 0
	if c != (RESP{}) {
		n, err := c.parseGreeting(b, Put) // which is answered with OK, too
		if n == 0 || err != nil {
			return 0, err
		}
		login = n
	}
	n, err := c.parseGreeting(b[login:], Ping)
	if n == 0 || err != nil {
		return 0, err
	}
	return login + n, nil
}

func (c RESP) parseGreeting(b []byte, op Op) (int, error) {
	r, n, err := c.ParseReply(b, op)
	if err == nil && n > 0 && r.Outcome != OK {
		return 0, fmt.Errorf("%w: %s", ErrGreeting, r.Message)
	}
	return n, err
}

// AppendRequest appends a command.
func (RESP) AppendRequest(dst []byte, op Op, _ uint32, key, value []byte) []byte {
	switch op {
	case Get:
		return appendBulk(append(dst, "*2\r\n$3\r\nGET\r\n"...), key)
	case Put:
		return appendBulk(appendBulk(append(dst, "*3\r\n$3\r\nSET\r\n"...), key), value)
	}
	return append(dst, respPing...)
}

func appendBulk(dst, s []byte) []byte {
	dst = strconv.AppendUint(append(dst, '$'), uint64(len(s)), 10)
	dst = append(dst, '\r', '\n')
	dst = append(dst, s...)
	return append(dst, '\r', '\n')
}

// ParseReply reads a reply.
func (RESP) ParseReply(b []byte, op Op) (r Reply, n int, err error) {
	line, n, err := respLine(b)
	if n == 0 || err != nil {
		return r, 0, err
	}
	text := line[1:]
	switch {
	case line[0] == '-':
		r.Outcome, r.Message = Failed, text
		if bytes.HasPrefix(text, []byte("BUSY")) || bytes.HasPrefix(text, []byte("TRYAGAIN")) {
			r.Outcome = Busy
		}
		return r, n, nil
	case op == Get && line[0] == '$':
		return respBulk(b, text, n)
	case op == Put && string(line) == "+OK", op == Ping && string(line) == "+PONG":
		return r, n, nil
	}
	return r, 0, fmt.Errorf("%w: %v answered with %.40q", ErrProtocol, op, line)
}

// respLine returns the line at the start of b without its end, at least one
// byte long, and the bytes it takes with it.
func respLine(b []byte) (line []byte, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), respLineBytesMax)], '\r')
	switch {
	case end < 0 && len(b) >= respLineBytesMax:
		return nil, 0, fmt.Errorf("%w: no end of line in %d bytes", ErrProtocol, respLineBytesMax)
	case end == 0:
		return nil, 0, fmt.Errorf("%w: a reply is an empty line", ErrProtocol)
	case end < 0 || end+1 == len(b):
		return nil, 0, nil
	case b[end+1] != '\n':
		return nil, 0, fmt.Errorf("%w: carriage return within a line", ErrProtocol)
	}
	return b[:end], end + 2, nil
}

// respBulk reads a bulk string whose length stands in text and whose bytes
// begin at b[head:].
func respBulk(b, text []byte, head int) (r Reply, n int, err error) {
	if string(text) == "-1" {
		r.Outcome = NotFound
		return r, head, nil
	}
	size, ok := decimal(text)
	if !ok || size > respBulkBytesMax {
		return r, 0, fmt.Errorf("%w: bulk string of %.20q bytes", ErrProtocol, text)
	}
	end := head + size
	// The end is checked as soon as it is there, byte by byte, so that what
	// is wrong is wrong wherever the input happens to be cut.
	for i, want := range [...]byte{'\r', '\n'} {
		if len(b) > end+i && b[end+i] != want {
			return r, 0, fmt.Errorf("%w: bulk string of %d bytes does not end there", ErrProtocol, size)
		}
	}
	if len(b) < end+2 {
		return r, 0, nil
	}
	r.ValueBytes = size
	return r, end + 2, nil
}

// decimal reads a number without sign.
func decimal(text []byte) (v int, ok bool) {
	for _, d := range text {
		if d < '0' || d > '9' || v > math.MaxInt32 {
			return 0, false
		}
		v = v*10 + int(d-'0')
	}
	return v, len(text) > 0
}
