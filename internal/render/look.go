package render

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// Terminal reports whether w is one, and how many columns it has.
func Terminal(w any) (columns int, ok bool) {
	columns, _, ok = terminalSize(w)
	return columns, ok
}

// terminalSize is Terminal with the number of rows, 0 where that is not known.
func terminalSize(w any) (columns, rows int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns, rows, true
}

// Look is how a picture of the cluster is drawn.
type Look struct {
	Columns int  // of the terminal; 0: none, nothing is wrapped or cut
	Rows    int  // of the terminal; 0: any number
	Colour  bool // on a terminal, unless NO_COLOR is set
	Wide    bool // all columns of tables, all shards
}

// LookOf returns how to draw on w.
func LookOf(w io.Writer) Look {
	columns, rows, ok := terminalSize(w)
	if !ok {
		return Look{}
	}
	return Look{Columns: columns, Rows: rows, Colour: Colours()}
}

// Resized returns l for a terminal that may have another size by now.
func (l Look) Resized(w io.Writer) Look {
	if now := LookOf(w); l.Columns > 0 && now.Columns > 0 {
		l.Columns, l.Rows = now.Columns, now.Rows
	}
	return l
}

// Frame makes a picture fit a terminal, in place of the one before: each line is
// cut at its edge, and what has no room at the end is left out, which the last
// line says.
func (l Look) Frame(picture string) string {
	lines := strings.Split(strings.TrimSuffix(picture, "\n"), "\n")
	if l.Rows > 1 && len(lines) > l.Rows {
		left := len(lines) - l.Rows + 1
		lines = append(lines[:l.Rows-1], l.Paint(Dim, Plural(left, "more line")+": make the terminal taller"))
	}
	var b strings.Builder
	b.WriteString("\x1b[H") // home, then each line over the old one: no flicker
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(cutLine(line, l.Columns) + "\x1b[K")
	}
	return b.String() + "\x1b[J"
}

// Colours reports whether a terminal is to be written to in colour.
func Colours() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// Terminal sequences for Paint.
const (
	Bold   = "\x1b[1m"
	Dim    = "\x1b[2m"
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	unset  = "\x1b[0m"
)

// Paint returns text in a colour, or as it is where there are none.
func (l Look) Paint(colour, text string) string {
	if !l.Colour || colour == "" {
		return text
	}
	return colour + text + unset
}

// Wrap breaks text at blanks so that no line passes the terminal's edge, as far
// as words allow. Lines after the first one begin with indent.
func (l Look) Wrap(text, indent string) string {
	if l.Columns == 0 {
		return text
	}
	width := max(l.Columns-len(indent), 20)
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

// WrapLines wraps each line of a text, deeper than it begins.
func (l Look) WrapLines(text string) string {
	return mapLines(text, func(_, margin, rest string) string { return margin + l.Wrap(rest, margin+"  ") })
}

// mapLines replaces each line of a text; rest is the line without its margin.
func mapLines(text string, replace func(line, margin, rest string) string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		rest := strings.TrimLeft(line, " ")
		lines[i] = replace(line, line[:len(line)-len(rest)], rest)
	}
	return strings.Join(lines, "\n")
}

// WrapEach wraps the lines of a text that pass the terminal's edge, each as deep as
// it begins, and leaves the others as they are.
func (l Look) WrapEach(text string) string {
	if l.Columns == 0 {
		return text
	}
	return mapLines(text, func(line, margin, rest string) string {
		switch {
		case utf8.RuneCountInString(line) <= l.Columns:
			return line
		case strings.HasPrefix(rest, "- "):
			return margin + l.Wrap(rest, margin+"  ")
		}
		return margin + l.Wrap(rest, margin)
	})
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

// WideLook is LookOf with all columns and shards.
func WideLook(w io.Writer) Look {
	l := LookOf(w)
	l.Wide = true
	return l
}
