package redis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
)

// reply is one reply as it came, with its parts where it is an aggregate.
type reply struct {
	raw      []byte // all of it
	header   int    // length of the first line, with CRLF
	elements []reply
	pairs    bool // the elements are keys and values in turn
}

// errReply says that bytes are no reply at all.
var errReply = errors.New("not a RESP reply")

const (
	depthMax    = 32      // of aggregates in aggregates
	elementsMax = 1 << 20 // in one aggregate
	bulkMax     = 512 << 20
)

// readReply reads one reply, of RESP2 or RESP3. What was read before an error
// is in raw.
func readReply(r *bufio.Reader) (reply, error) { return readNested(r, 0) }

func readNested(r *bufio.Reader, depth int) (reply, error) {
	line, err := r.ReadBytes('\n')
	p := reply{raw: line, header: len(line)}
	if err != nil {
		return p, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' || depth > depthMax {
		return p, fmt.Errorf("%w: %q", errReply, line)
	}
	switch line[0] {
	case '+', '-', ':', ',', '(', '#', '_':
		return p, nil
	case '$', '=', '!':
		n, err := length(line, bulkMax)
		if err != nil || n < 0 {
			return p, err
		}
		return p, p.readBulk(r, n)
	case '*', '~', '>':
		n, err := length(line, elementsMax)
		if err != nil {
			return p, err
		}
		return p, p.readElements(r, n, depth)
	case '%':
		n, err := length(line, elementsMax)
		if err != nil {
			return p, err
		}
		p.pairs = true
		return p, p.readElements(r, 2*n, depth)
	}
	return p, fmt.Errorf("%w: %q", errReply, line)
}

// length returns the number in the first line of a bulk string or an aggregate,
// -1 for null.
func length(line []byte, most int) (int, error) {
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil || n < -1 || n > most {
		return 0, fmt.Errorf("%w: %q", errReply, line)
	}
	return n, nil
}

func (p *reply) readBulk(r io.Reader, n int) error {
	body := make([]byte, n+2)
	got, err := io.ReadFull(r, body)
	p.raw = append(p.raw, body[:got]...)
	if err == nil && !bytes.HasSuffix(body, []byte("\r\n")) {
		err = fmt.Errorf("%w: no CRLF behind %d bytes", errReply, n)
	}
	return err
}

func (p *reply) readElements(r *bufio.Reader, n, depth int) error {
	for range n {
		e, err := readNested(r, depth+1)
		p.raw = append(p.raw, e.raw...)
		if err != nil {
			return err
		}
		p.elements = append(p.elements, e)
	}
	return nil
}

// text returns the content of a bulk string, "" for anything else.
func (p *reply) text() string {
	if p.raw[0] != '$' || len(p.raw) == p.header {
		return ""
	}
	return string(p.raw[p.header : len(p.raw)-2])
}

// sorted returns the bytes of the reply with its elements in ascending order.
func (p *reply) sorted() []byte {
	step := 1
	if p.pairs {
		step = 2
	}
	var parts []string
	for part := range slices.Chunk(p.elements, step) {
		var b []byte
		for _, e := range part {
			b = append(b, e.raw...)
		}
		parts = append(parts, string(b))
	}
	if parts == nil {
		return p.raw
	}
	slices.Sort(parts)
	return append(slices.Clone(p.raw[:p.header]), strings.Join(parts, "")...)
}

const (
	lineShownMax  = 200 // bytes of a line that are shown in full
	lineShownHead = 40  // bytes that are shown of a longer one
)

// linesOf writes bytes as the lines of a transcript. Different bytes have
// different lines, but for long lines with the same beginning, length and
// checksum.
func linesOf(raw []byte) []string {
	if len(raw) == 0 {
		return nil
	}
	parts := bytes.Split(raw, []byte("\r\n"))
	last := len(parts) - 1
	var out []string
	for _, p := range parts[:last] {
		out = append(out, shown(p))
	}
	if len(parts[last]) > 0 {
		out = append(out, shown(parts[last])+noCRLF)
	}
	return out
}

// noCRLF marks bytes behind the last CRLF. The backslash cannot come from data.
const noCRLF = `\(no CRLF)`

func shown(line []byte) string {
	if len(line) > lineShownMax {
		return fmt.Sprintf(`%s\(%d bytes, CRC-32 %08x)`, escaped(line[:lineShownHead]), len(line), crc32.ChecksumIEEE(line))
	}
	return escaped(line)
}

// escaped leaves printable ASCII as it is, but for backslashes and a space at
// the end, which editors take away.
func escaped(line []byte) string {
	var b strings.Builder
	for i, c := range line {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c < ' ' || c > '~' || c == ' ' && i == len(line)-1:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
