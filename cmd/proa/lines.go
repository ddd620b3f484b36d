package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// lineReader reads lines of any length up to a bound.
type lineReader struct {
	r      *bufio.Reader
	number int   // of the line returned last, from 1
	offset int64 // behind it
	buf    []byte
}

// lineBytesMax bounds a line: a value of 15 MiB in base64, its key and their
// wrapping, or the same with every byte escaped in JSON.
const lineBytesMax = 96 << 20

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 256<<10)}
}

// all returns the lines without their ends, each valid until the next. What ends them
// before the end of the input is returned last.
func (l *lineReader) all() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			line, err := l.next()
			if errors.Is(err, io.EOF) || !yield(line, err) || err != nil {
				return
			}
		}
	}
}

func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		l.offset += int64(len(part))
		switch {
		case len(l.buf) > lineBytesMax:
			return nil, fmt.Errorf("line %d is over %d bytes", l.number+1, lineBytesMax)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(l.buf) == 0):
			return nil, err
		}
		l.number++
		return bytes.TrimSuffix(l.buf, []byte{'\n'}), nil
	}
}
