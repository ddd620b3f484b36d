package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// ScanOption tunes Scan and NewScanner.
type ScanOption interface{ applyScan(*Scanner) }

type scanOption func(*Scanner)

func (f scanOption) applyScan(s *Scanner) { f(s) }

// Range limits a scan to start <= key < end, bytewise. Empty means unbounded.
func Range(start, end []byte) ScanOption {
	return scanOption(func(s *Scanner) {
		s.start, s.end, s.flags = bytes.Clone(start), bytes.Clone(end), s.flags&^protocol.ScanPrefix
	})
}

// Prefix limits a scan to the keys that begin with prefix. It replaces an
// earlier Range, and vice versa.
func Prefix(prefix []byte) ScanOption {
	return scanOption(func(s *Scanner) {
		s.start, s.end, s.flags = bytes.Clone(prefix), nil, s.flags|protocol.ScanPrefix
	})
}

// Reverse scans from the end of the range to its start.
func Reverse() ScanOption { return scanOption(func(s *Scanner) { s.flags |= protocol.ScanReverse }) }

// KeysOnly leaves the values out.
func KeysOnly() ScanOption { return scanOption(func(s *Scanner) { s.flags |= protocol.ScanKeysOnly }) }

// Limit ends the scan after n items. 0 means no limit.
func Limit(n int) ScanOption {
	return scanOption(func(s *Scanner) {
		s.limit = n
		if n < 0 {
			s.call.invalid(fmt.Errorf("%w: limit of %d items", ErrBadRequest, n))
		}
	})
}

// PageSize asks the server for n items at a time, 1..protocol.ScanCountMax;
// by default 1000. Whatever the size, a page holds about 1 MiB at most, or one
// item.
func PageSize(n int) ScanOption {
	return scanOption(func(s *Scanner) {
		s.page = uint32(max(n, 0))
		if n < 1 || n > protocol.ScanCountMax {
			s.call.invalid(fmt.Errorf("%w: page of %d items, 1 to %d are allowed", ErrBadRequest, n, protocol.ScanCountMax))
		}
	})
}

// FromCursor continues where the scan that returned the cursor stopped (see
// [Scanner.Cursor]). The other options must be the same as in that scan. An
// empty cursor starts from the beginning.
func FromCursor(cursor []byte) ScanOption {
	return scanOption(func(s *Scanner) { s.resume = bytes.Clone(cursor) })
}

// Scanner reads a range of keys in bytewise order, page by page. It is made by
// NewScanner and must not be used by several goroutines at once.
type Scanner struct {
	c          *Client
	call       Operation // carries what all calls share
	flags      protocol.ScanFlags
	start, end []byte
	limit      int
	page       uint32
	resume     []byte // as FromCursor or the last All left it
	exhausted  bool
	yielded    int
	age        time.Duration // of the last page
	stale      bool          // the replies carry their age
}

// Kinds of cursor, the first byte of what Cursor returns.
const (
	cursorPage = 'p' // the server's own cursor follows
	cursorKey  = 'k' // the last key yielded by a forward scan follows
	cursorBack = 'r' // the last key yielded by a reverse scan follows
)

// NewScanner prepares a scan and sends nothing yet. Use it instead of Scan if
// the scan may have to be resumed later.
func (c *Client) NewScanner(opts ...ScanOption) *Scanner {
	s := &Scanner{c: c, call: Operation{code: protocol.OpScan}}
	for _, o := range opts {
		o.applyScan(s)
	}
	return s
}

// Scan yields the items of a range in bytewise order across all shards. An
// error is yielded once, with an empty Item, and ends the scan. Pages are read
// one after the other: a scan that spans several pages is not a snapshot. The
// items of one page share memory; clone the items that you keep for a long
// time.
func (c *Client) Scan(ctx context.Context, opts ...ScanOption) iter.Seq2[Item, error] {
	return c.NewScanner(opts...).All(ctx)
}

// Cursor returns a cursor behind the last item that All yielded: hand it to
// FromCursor, in this process or another, to go on there. It is nil before
// the first item and after the range is exhausted; Exhausted tells them apart.
func (s *Scanner) Cursor() []byte {
	if s.exhausted {
		return nil
	}
	return bytes.Clone(s.resume)
}

// Exhausted reports whether the whole range has been yielded.
func (s *Scanner) Exhausted() bool { return s.exhausted }

// All yields the items not yet yielded. After a break, a Limit or an error it
// may be called again and continues after the last item; Limit counts from the
// first.
func (s *Scanner) All(ctx context.Context) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for !s.exhausted && !s.full() {
			if more, err := s.nextPage(ctx, yield); err != nil {
				yield(Item{}, err)
				return
			} else if !more {
				return
			}
		}
	}
}

// nextPage reads one page and yields its items. It reports whether the caller
// wants more.
func (s *Scanner) nextPage(ctx context.Context, yield func(Item, error) bool) (bool, error) {
	asked, parts, err := s.fetch(ctx)
	if err != nil || s.exhausted {
		return true, err
	}
	var reply protocol.ScanReply
	rows := 0
	for _, part := range parts {
		if err := reply.Decode(part); err != nil {
			return false, malformed(protocol.OpScan, err)
		}
		rows += len(reply.Rows)
		for i := range reply.Rows {
			if s.full() {
				return false, nil
			}
			row := &reply.Rows[i]
			s.advance(row.Key)
			s.c.caller.observeRow(row.Key, row.Version)
			if !yield(Item{Key: row.Key, Value: row.Value, Version: row.Version, TTL: ttl(row.TTLMillis), Age: s.age, Stale: s.stale}, nil) {
				return false, nil
			}
		}
	}
	// Only the last frame of a page carries the cursor.
	if len(reply.Cursor) == 0 {
		s.exhausted = true
		return false, nil
	}
	if rows == 0 && string(reply.Cursor) == string(asked) {
		return false, malformed(protocol.OpScan, errors.New("the scan does not advance"))
	}
	s.resume = append([]byte{cursorPage}, reply.Cursor...)
	return true, nil
}

func (s *Scanner) full() bool { return s.limit > 0 && s.yielded >= s.limit }

// advance notes that the item of key is being handed out.
func (s *Scanner) advance(key []byte) {
	kind := byte(cursorKey)
	if s.flags&protocol.ScanReverse != 0 {
		kind = cursorBack
	}
	s.resume = append(append(s.resume[:0], kind), key...)
	s.yielded++
}

// fetch reads one page: the bodies of its frames, and the cursor it was asked
// with. It sets exhausted where nothing can be left to ask for.
func (s *Scanner) fetch(ctx context.Context) (asked []byte, parts [][]byte, err error) {
	if s.call.err != nil {
		return nil, nil, refused(protocol.OpScan, s.call.err)
	}
	m, err := s.request()
	if err != nil {
		return nil, nil, refused(protocol.OpScan, err)
	}
	if s.exhausted {
		return nil, nil, nil
	}
	ca := s.c.caller.newCall(ctx, &s.call)
	ca.frame = m.AppendTo(ca.frame)
	if err := s.c.caller.await(ctx, ca); err != nil {
		return nil, nil, err
	}
	parts, s.age, s.stale = append(ca.parts, ca.body), ca.age, ca.stale
	s.c.caller.release(ca)
	return bytes.Clone(m.Cursor), parts, nil
}

// request builds the message for the next page.
func (s *Scanner) request() (protocol.Scan, error) {
	m := protocol.Scan{Flags: s.flags, CountMax: s.page, Start: s.start, End: s.end}
	if len(s.start) > protocol.KeyBytesMax || len(s.end) > protocol.KeyBytesMax+1 {
		return m, fmt.Errorf("%w: scan bound over %d bytes", ErrTooLarge, protocol.KeyBytesMax)
	}
	if s.limit > 0 {
		// Ask for no more than can still be yielded.
		page := protocol.ScanCountDefault
		if s.page != 0 {
			page = int(s.page)
		}
		m.CountMax = uint32(min(page, s.limit-s.yielded))
	}
	if len(s.resume) == 0 {
		return m, nil
	}
	kind, rest := s.resume[0], s.resume[1:]
	reverse := s.flags&protocol.ScanReverse != 0
	switch {
	case len(rest) == 0:
		return m, fmt.Errorf("%w: it is cut off", ErrBadCursor)
	case kind == cursorPage && len(rest) <= protocol.CursorBytesMax:
		m.Cursor = rest
		return m, nil
	case len(rest) > protocol.KeyBytesMax || kind != cursorKey && kind != cursorBack:
		return m, ErrBadCursor
	case (kind == cursorBack) != reverse:
		return m, fmt.Errorf("%w: it belongs to the other direction", ErrBadCursor)
	case !s.contains(rest):
		return m, fmt.Errorf("%w: it lies outside the range", ErrBadCursor)
	}
	if m.Flags&protocol.ScanPrefix != 0 {
		m.Flags &^= protocol.ScanPrefix
		m.End = protocol.PrefixEnd(s.start)
	}
	if reverse {
		m.End = rest
	} else {
		m.Start = successor(rest)
		s.exhausted = len(m.Start) == 0
	}
	if len(m.End) != 0 && bytes.Compare(m.Start, m.End) >= 0 {
		s.exhausted = true
	}
	return m, nil
}

// contains reports whether key lies in the scan's range.
func (s *Scanner) contains(key []byte) bool {
	if s.flags&protocol.ScanPrefix != 0 {
		return bytes.HasPrefix(key, s.start)
	}
	return bytes.Compare(key, s.start) >= 0 && (len(s.end) == 0 || bytes.Compare(key, s.end) < 0)
}

// successor returns the smallest key above key. One of the greatest length
// has no room for another byte, so there it is the next one of that length.
func successor(key []byte) []byte {
	if len(key) < protocol.KeyBytesMax {
		return append(bytes.Clone(key), 0)
	}
	return protocol.PrefixEnd(key)
}
