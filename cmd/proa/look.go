package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// look is how a picture of the cluster is drawn.
type look struct {
	columns int  // of the terminal; 0: none, nothing is wrapped or cut
	colour  bool // on a terminal, unless NO_COLOR is set
	wide    bool // all columns of tables, all shards
}

// lookOf returns how to draw on w.
func lookOf(w io.Writer) look {
	columns, ok := terminal(w)
	if !ok {
		return look{}
	}
	return look{columns: columns, colour: colours()}
}

// colours reports whether a terminal is to be written to in colour.
func colours() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// Terminal sequences for paint.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	unset  = "\x1b[0m"
)

// paint returns text in a colour, or as it is where there are none.
func (l look) paint(colour, text string) string {
	if !l.colour || colour == "" {
		return text
	}
	return colour + text + unset
}

// wrap breaks text at blanks so that no line passes the terminal's edge, as far
// as words allow. Lines after the first one begin with indent.
func (l look) wrap(text, indent string) string {
	if l.columns == 0 {
		return text
	}
	width := max(l.columns-len(indent), 20)
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > width:
			b.WriteString("\n" + indent)
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}

// cutLine cuts a line at the terminal's edge; terminal sequences take no room.
func cutLine(line string, columns int) string {
	used, painted := 0, false
	for i := 0; i < len(line); {
		if line[i] == '\x1b' {
			end := strings.IndexByte(line[i:], 'm')
			if end < 0 {
				return line[:i]
			}
			painted = line[i:i+end+1] != unset
			i += end + 1
			continue
		}
		if used == columns {
			if painted {
				return line[:i] + unset
			}
			return line[:i]
		}
		_, n := utf8.DecodeRuneInString(line[i:])
		i, used = i+n, used+1
	}
	return line
}

// wideLook is lookOf with all columns and shards.
func wideLook(w io.Writer) look {
	l := lookOf(w)
	l.wide = true
	return l
}
