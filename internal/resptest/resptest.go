// Package resptest is the client's side of the Redis protocol for tests: it
// writes requests and reads replies of RESP2 and RESP3, strictly. Unlike a
// client library it hides nothing: a reply keeps the kind it was sent as, and
// its bytes.
package resptest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a Reader accepts.
const (
	depthMax = 32        // aggregates inside one another
	bytesMax = 64 << 20  // bytes in one reply
	countMax = 1 << 20   // elements of one aggregate
	lineMax  = 128 << 10 // bytes in one line
)

// ErrMalformed is wrapped by what a Reader answers to bytes that are no reply.
var ErrMalformed = errors.New("malformed reply")

// Value is a reply.
type Value struct {
	Kind     byte    // the first byte of the reply: + - : $ * _ # , ( = % ~ >
	Null     bool    // null, in whatever form
	Text     string  // of + - : $ # , ( and =, the latter with its format and colon
	Elements []Value // of * ~ > and of %, there keys and values in turn
}

// Int is the number of an integer reply, or 0.
func (v Value) Int() int64 {
	n, _ := strconv.ParseInt(v.Text, 10, 64)
	return n
}

// IsError says whether the reply is an error.
func (v Value) IsError() bool { return v.Kind == '-' }

// Get returns the value of a key in a map, or in an array that stands for one.
func (v Value) Get(key string) (Value, bool) {
	for i := 0; i+1 < len(v.Elements); i += 2 {
		if v.Elements[i].Text == key {
			return v.Elements[i+1], true
		}
	}
	return Value{}, false
}

// String writes the reply on one line: +OK, "text", [1 2], {"k" => 1}.
func (v Value) String() string {
	switch {
	case v.Null:
		return string(v.Kind) + "null"
	case v.Kind == '$':
		return strconv.Quote(v.Text)
	case v.Kind == '*' || v.Kind == '~' || v.Kind == '>' || v.Kind == '%':
		parts := make([]string, len(v.Elements))
		for i := range v.Elements {
			parts[i] = v.Elements[i].String()
		}
		return string(v.Kind) + "[" + strings.Join(parts, " ") + "]"
	}
	return string(v.Kind) + v.Text
}

// Reader reads replies from a stream. It is not safe for concurrent use.
type Reader struct {
	r   *bufio.Reader
	raw []byte
}

// NewReader returns a Reader of a stream.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReader(r)} }

// Raw returns the bytes of the reply read last, valid until the next.
func (r *Reader) Raw() []byte { return r.raw }

// Buffered returns how many bytes behind the replies read so far are there
// already.
func (r *Reader) Buffered() int { return r.r.Buffered() }

// Read returns the next reply. At the end of the stream, and only between two
// replies, the error is io.EOF.
func (r *Reader) Read() (Value, error) {
	r.raw = r.raw[:0]
	v, err := r.value(0)
	if errors.Is(err, io.EOF) && len(r.raw) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return v, err
}

func (r *Reader) value(depth int) (Value, error) {
	if depth > depthMax {
		return Value{}, fmt.Errorf("%w: too deep", ErrMalformed)
	}
	line, err := r.line()
	if err != nil {
		return Value{}, err
	}
	v := Value{Kind: line[0], Text: line[1:]}
	switch v.Kind {
	case '+', '-':
		return v, nil
	case ':', '(':
		return v, v.check(isInteger(v.Text) && (v.Kind == '(' || fitsInt64(v.Text)))
	case ',':
		_, err := strconv.ParseFloat(v.Text, 64)
		return v, v.check(err == nil || errors.Is(err, strconv.ErrRange))
	case '#':
		return v, v.check(v.Text == "t" || v.Text == "f")
	case '_':
		v.Null = true
		return v, v.check(v.Text == "")
	case '$', '=':
		return r.bulk(v)
	case '*', '%', '~', '>':
		return r.aggregate(v, depth)
	}
	return v, v.check(false)
}

func (v Value) check(ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%w: line %q", ErrMalformed, string(v.Kind)+v.Text)
}

// line reads a line of at least one byte, without its CR and LF.
func (r *Reader) line() (string, error) {
	start := len(r.raw)
	for {
		c, err := r.r.ReadByte()
		if err != nil {
			return "", err
		}
		r.raw = append(r.raw, c)
		if c == '\n' || len(r.raw)-start > lineMax {
			break
		}
	}
	line, ok := bytes.CutSuffix(r.raw[start:], []byte("\r\n"))
	if !ok || len(line) == 0 || bytes.IndexByte(line, '\r') >= 0 {
		return "", fmt.Errorf("%w: line %q", ErrMalformed, r.raw[start:])
	}
	return string(line), nil
}

func (r *Reader) bulk(v Value) (Value, error) {
	if v.Kind == '$' && v.Text == "-1" {
		return Value{Kind: '$', Null: true}, nil
	}
	n, err := v.length(bytesMax)
	if err != nil {
		return v, err
	}
	var b bytes.Buffer // grows with what comes, not with what was announced
	if _, err := io.CopyN(&b, r.r, int64(n)+2); err != nil {
		return v, io.ErrUnexpectedEOF
	}
	r.raw = append(r.raw, b.Bytes()...)
	text, ok := strings.CutSuffix(b.String(), "\r\n")
	if !ok || v.Kind == '=' && (n < 4 || text[3] != ':') {
		return v, fmt.Errorf("%w: bulk of %d bytes", ErrMalformed, n)
	}
	v.Text = text
	return v, nil
}

func (r *Reader) aggregate(v Value, depth int) (Value, error) {
	if v.Kind == '*' && v.Text == "-1" {
		return Value{Kind: '*', Null: true}, nil
	}
	n, err := v.length(countMax)
	if err != nil {
		return v, err
	}
	if v.Kind == '%' {
		n *= 2
	}
	v.Text = ""
	for range n {
		e, err := r.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.Elements = append(v.Elements, e)
	}
	return v, nil
}

func (v Value) length(limit int) (int, error) {
	n, err := strconv.Atoi(v.Text)
	if err != nil || n < 0 || n > limit || !isInteger(v.Text) {
		return 0, v.check(false)
	}
	return n, nil
}

// isInteger says whether s is an integer as the protocol writes it.
func isInteger(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 1 && digits[0] == '0' || s == "-0" {
		return false
	}
	return strings.Trim(digits, "0123456789") == ""
}

func fitsInt64(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}

// AppendRequest appends a request as clients send it.
func AppendRequest(dst []byte, args ...string) []byte {
	dst = fmt.Appendf(dst, "*%d\r\n", len(args))
	for _, a := range args {
		dst = fmt.Appendf(dst, "$%d\r\n%s\r\n", len(a), a)
	}
	return dst
}

// Conn is a connection of a test to a server. It is not safe for concurrent
// use.
type Conn struct {
	*Reader
	net.Conn
}

// callTimeout bounds one call of a server, so that a test that hangs says where.
const callTimeout = 30 * time.Second

// Dial opens a connection ("tcp" or "unix").
func Dial(network, address string) (*Conn, error) {
	c, err := net.DialTimeout(network, address, callTimeout)
	if err != nil {
		return nil, err
	}
	return &Conn{Reader: NewReader(c), Conn: c}, nil
}

// Read returns the next reply.
func (c *Conn) Read() (Value, error) {
	if err := c.SetReadDeadline(time.Now().Add(callTimeout)); err != nil {
		return Value{}, err
	}
	return c.Reader.Read()
}

// Send writes a request and waits for nothing.
func (c *Conn) Send(args ...string) error {
	_, err := c.Write(AppendRequest(nil, args...))
	return err
}

// Do sends a request and returns its reply. A reply that is an error is a
// Value like any other.
func (c *Conn) Do(args ...string) (Value, error) {
	if err := c.Send(args...); err != nil {
		return Value{}, err
	}
	return c.Read()
}
