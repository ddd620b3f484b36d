package resp

import (
	"bytes"
	"fmt"
	"unsafe"
)

// Limits of a Parser that names none.
const (
	MultibulkMaxDefault    = 1 << 20  // arguments in one request, as Redis up to 6.2
	BulkBytesMaxDefault    = 15 << 20 // bytes in one argument; the largest value Proa stores
	InlineBytesMaxDefault  = 64 << 10 // bytes in an inline request or in a header line, as Redis
	RequestBytesMaxDefault = 64 << 20 // bytes in one request, headers included
)

// Limits of Redis for clients that have not authenticated.
const (
	unauthenticatedMultibulkMax = 10
	unauthenticatedBulkBytesMax = 16 << 10
)

// What a Parser keeps from one request to the next; what grew beyond is given
// back, so that one large request does not cost memory for ever.
const (
	argsKept         = 1024    // elements of Args and of the spans behind it
	scratchBytesKept = 4 << 10 // bytes of unquoted inline arguments
)

const (
	bulkBytesMin    = 6   // the shortest bulk: "$0\r\n\r\n"
	scratchBytesMin = 256 // first allocation for unquoted arguments
	shortDigitsMax  = 8   // digits of a number that shortHeader reads
)

// ProtocolError says that a stream of requests cannot be followed any further.
// The listener answers its text after "-ERR " and closes the connection.
type ProtocolError struct {
	Text string // as Redis words it, without "Protocol error: "
}

// Error returns the text of the reply, without the code ERR in front.
func (e *ProtocolError) Error() string { return "Protocol error: " + e.Text }

var (
	errMultibulkLength    = &ProtocolError{"invalid multibulk length"}
	errBulkLength         = &ProtocolError{"invalid bulk length"}
	errUnauthMultibulk    = &ProtocolError{"unauthenticated multibulk length"}
	errUnauthBulk         = &ProtocolError{"unauthenticated bulk length"}
	errQuotes             = &ProtocolError{"unbalanced quotes in request"}
	errInlineWords        = &ProtocolError{"too many words in an inline request"}
	errInlineTooBig       = &ProtocolError{"too big inline request"}
	errMultibulkStringBig = &ProtocolError{"too big mbulk count string"}
	errBulkStringBig      = &ProtocolError{"too big bulk count string"}
)

// Parser finds the requests in a stream of bytes: multibulk requests (arrays of
// bulk strings) and inline ones (a line of words). The zero Parser is ready,
// with the default limits. It is not safe for concurrent use.
//
// A request that comes in pieces is parsed once: the Parser remembers how far
// it got, as offsets from the front of the request, so that the buffer may move
// between two calls.
type Parser struct {
	// Args are the arguments of the request that Next found last, the command's
	// name first: views into the buffer Next was given or, where an inline
	// argument was quoted, into memory of the Parser. Valid until the next call
	// of Next, and no longer than that buffer.
	Args [][]byte

	MultibulkMax    int // arguments in one request, inline ones included; 0: MultibulkMaxDefault
	BulkBytesMax    int // bytes in one argument of a multibulk request; 0: BulkBytesMaxDefault
	InlineBytesMax  int // bytes in an inline request, or in a header line; 0: InlineBytesMaxDefault
	RequestBytesMax int // bytes in one multibulk request, headers included; 0: RequestBytesMaxDefault

	// Unauthenticated holds the client to ten arguments of 16 KiB, as Redis
	// does until a client has shown its password.
	Unauthenticated bool

	pos     int // the request is parsed up to here
	scanned int // there is no end of line between pos and here
	left    int // bulks still to come
	bulk    int // bytes of the bulk at pos, where inBulk
	inBulk  bool
	spans   []span // the arguments so far
	scratch []byte // unquoted inline arguments
}

// span is an argument as offsets from the front of its request.
type span struct{ start, end int }

// Next parses the request at the front of b.
//
// taken > 0: the request is whole and takes that many bytes; its arguments are
// in p.Args. A blank line and a multibulk request of no or a negative number of
// arguments have none; there is nothing to answer.
//
// taken == 0 and err == nil: the request is not whole yet. need is then how
// many bytes from the front of b it takes at least, or 0 where nothing is known
// about it. The next call must be given the same bytes and more behind them; b
// itself may lie elsewhere by then. Whoever gives up instead calls Reset.
//
// err is a *ProtocolError: the stream is out of step and has to be closed.
func (p *Parser) Next(b []byte) (taken, need int, err error) {
	p.Trim()
	switch {
	case len(b) == 0:
		return 0, 0, nil
	case b[0] == '*':
		taken, need, err = p.multibulk(b)
	default:
		taken, err = p.inline(b)
	}
	if err != nil {
		p.Reset()
		return 0, 0, err
	}
	if taken > 0 {
		p.Reset()
	}
	return taken, need, nil
}

// Sized reports whether the need that Next returned last is the size of the
// whole request, rather than of what is known of it.
func (p *Parser) Sized() bool { return p.inBulk && p.left == 1 }

// Reset forgets a request that was begun. The arguments stay as they are.
func (p *Parser) Reset() {
	p.pos, p.scanned, p.left, p.bulk, p.inBulk = 0, 0, 0, 0, false
	p.spans = p.spans[:0]
}

// Trim gives back what an unusual request has taken, and Args with it. Next
// does so first; whoever does not know when that will be calls Trim.
func (p *Parser) Trim() {
	p.Args = p.Args[:0]
	if cap(p.Args) > argsKept {
		p.Args = nil
	}
	if cap(p.spans) > argsKept && p.pos == 0 {
		p.spans = nil
	}
	if cap(p.scratch) > scratchBytesKept {
		p.scratch = nil
	}
}

// Forget is Trim that also lets go of the buffer in which the last request was
// found: without it the memory of Args views that buffer until other arguments
// take their places. For buffers that go to no pool.
func (p *Parser) Forget() {
	p.Args = nil
	p.Trim()
}

// Held is how much memory the Parser holds beyond what any has, in bytes: what
// it knows of a request of many arguments that is not whole yet.
func (p *Parser) Held() int {
	if cap(p.spans) <= argsKept {
		return 0
	}
	return cap(p.spans) * int(unsafe.Sizeof(span{}))
}

// multibulk parses "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".
//
// It is as lenient as Redis: of the two bytes that end a header line only the
// first has to be a CR, and the two bytes behind a bulk are skipped unseen.
// Stricter parsing would refuse streams that Redis accepts; a sender that is
// out of step is found out at the next header. One leniency is left out: for
// Redis a NUL hides the rest of a header line, and the client waits for ever.
func (p *Parser) multibulk(b []byte) (taken, need int, err error) {
	if p.pos == 0 {
		n, ok, err := p.header(b, errMultibulkStringBig, errMultibulkLength)
		if !ok {
			return 0, 0, err
		}
		if n <= 0 {
			return p.pos, 0, nil
		}
		if err := p.checkMultibulk(n); err != nil {
			return 0, 0, err
		}
		p.left = int(n)
	}
	for p.left > 0 {
		if !p.inBulk {
			// A request that cannot fit any more is refused as soon as that is known.
			if err := p.checkRequest(p.pos + p.left*bulkBytesMin); err != nil {
				return 0, 0, err
			}
			ok, err := p.bulkHeader(b)
			if !ok && err == nil {
				err = p.checkRequest(len(b) + 1) // the line is longer than it need be
			}
			if !ok {
				return 0, max(p.pos+p.left*bulkBytesMin, len(b)+1), err
			}
		}
		end := p.pos + p.bulk
		if len(b) < end+2 {
			return 0, end + 2 + (p.left-1)*bulkBytesMin, nil
		}
		p.spans = append(p.spans, span{p.pos, end})
		p.pos = end + 2
		p.inBulk = false
		p.left--
	}
	for _, s := range p.spans {
		p.Args = append(p.Args, b[s.start:s.end:s.end])
	}
	return p.pos, 0, nil
}

// bulkHeader reads the "$3\r\n" at p.pos; ok is false where it is not whole, or
// with an error.
func (p *Parser) bulkHeader(b []byte) (ok bool, err error) {
	// Redis looks at the $ only when it has the line.
	if p.pos < len(b) && b[p.pos] != '$' {
		if end, err := p.lineEnd(b, errBulkStringBig); end < 0 {
			return false, err
		}
		return false, unexpected(b[p.pos])
	}
	n, ok, err := p.header(b, errBulkStringBig, errBulkLength)
	if !ok {
		return false, err
	}
	if err := p.checkBulk(n); err != nil {
		return false, err
	}
	p.bulk, p.inBulk = int(n), true
	return true, nil
}

func unexpected(c byte) error {
	return &ProtocolError{"expected '$', got '" + string([]byte{c}) + "'"}
}

func (p *Parser) checkMultibulk(n int64) error {
	switch {
	case n > int64(max(p.MultibulkMax, MultibulkMaxDefault)):
		return errMultibulkLength
	case p.MultibulkMax > 0 && n > int64(p.MultibulkMax):
		return &ProtocolError{errMultibulkLength.Text + fmt.Sprintf(", more than %d arguments in one command; send several commands", p.MultibulkMax)}
	case p.Unauthenticated && n > unauthenticatedMultibulkMax:
		return errUnauthMultibulk
	}
	return nil
}

func (p *Parser) checkBulk(n int64) error {
	switch {
	case n < 0 || n > int64(orDefault(p.BulkBytesMax, BulkBytesMaxDefault)):
		return errBulkLength
	case p.Unauthenticated && n > unauthenticatedBulkBytesMax:
		return errUnauthBulk
	}
	return p.checkRequest(p.pos + int(n) + 2 + (p.left-1)*bulkBytesMin)
}

// checkRequest refuses a request that takes so many bytes.
func (p *Parser) checkRequest(n int) error {
	if limit := orDefault(p.RequestBytesMax, RequestBytesMaxDefault); n > limit {
		return &ProtocolError{fmt.Sprintf("too big request, more than %d bytes; send fewer or smaller arguments", limit)}
	}
	return nil
}

// header reads the number of the header line at p.pos and moves p.pos behind
// it. ok is false where the line is not whole, or with an error: tooBig for a
// line that does not end in time, invalid for one that holds no number.
func (p *Parser) header(b []byte, tooBig, invalid *ProtocolError) (n int64, ok bool, err error) {
	if n, size := shortHeader(b[p.pos:]); size > 0 {
		p.pos += size
		return n, true, nil
	}
	end, err := p.lineEnd(b, tooBig)
	if end < 0 {
		return 0, false, err
	}
	n, ok = ParseInt(b[p.pos+1 : end])
	if !ok {
		return 0, false, invalid
	}
	p.pos = end + 2
	return n, true, nil
}

// shortHeader reads an ordinary header line, its type byte unseen: a number of
// a few digits. size is the length of the line, or 0 where it is not whole or
// has to be looked at more closely.
func shortHeader(b []byte) (n int64, size int) {
	i := 1
	for ; i < len(b) && i <= shortDigitsMax; i++ {
		d := b[i] - '0'
		if d > 9 {
			break
		}
		n = n*10 + int64(d)
	}
	if i == 1 || i+1 >= len(b) || b[i] != '\r' || b[1] == '0' && i > 2 {
		return 0, 0
	}
	return n, i + 2
}

// lineEnd returns where the header line at p.pos ends, which is its CR, once
// the byte behind it is there too, and -1 before. It never looks at a byte
// twice.
func (p *Parser) lineEnd(b []byte, tooBig *ProtocolError) (end int, err error) {
	limit := p.pos + orDefault(p.InlineBytesMax, InlineBytesMaxDefault)
	from := max(p.scanned, p.pos)
	to := min(len(b), limit+1)
	i := bytes.IndexByte(b[from:max(from, to)], '\r')
	switch {
	case i < 0 && len(b) > limit:
		return -1, tooBig
	case i < 0:
		p.scanned = to
		return -1, nil
	}
	p.scanned = from + i
	if p.scanned+2 > len(b) {
		return -1, nil
	}
	return p.scanned, nil
}

func orDefault(limit, otherwise int) int {
	if limit == 0 {
		return otherwise
	}
	return limit
}
