package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// look is how a picture of the cluster is drawn.
type look struct {
	columns int  // of the terminal; 0: none, nothing is wrapped or cut
	rows    int  // of the terminal; 0: any number
	colour  bool // on a terminal, unless NO_COLOR is set
	wide    bool // all columns of tables, all shards
}

// lookOf returns how to draw on w.
func lookOf(w io.Writer) look {
	columns, ok := terminal(w)
	if !ok {
		return look{}
	}
	return look{columns: columns, rows: terminalRows(w), colour: colours()}
}

// resized returns l for a terminal that may have another size by now.
func (l look) resized(w io.Writer) look {
	if now := lookOf(w); l.columns > 0 && now.columns > 0 {
		l.columns, l.rows = now.columns, now.rows
	}
	return l
}

// terminalRows returns how many rows a terminal has, 0 where that is not known.
func terminalRows(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return rows
}

// frame makes a picture fit a terminal, in place of the one before: each line is
// cut at its edge, and what has no room at the end is left out, which the last
// line says.
func (l look) frame(picture string) string {
	lines := strings.Split(strings.TrimSuffix(picture, "\n"), "\n")
	if l.rows > 1 && len(lines) > l.rows {
		left := len(lines) - l.rows + 1
		lines = append(lines[:l.rows-1], l.paint(dim, plural(left, "more line")+": make the terminal taller"))
	}
	var b strings.Builder
	b.WriteString("\x1b[H") // home, then each line over the old one: no flicker
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(cutLine(line, l.columns) + "\x1b[K")
	}
	return b.String() + "\x1b[J"
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

// wrapLines wraps each line of a text, deeper than it begins.
func (l look) wrapLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		rest := strings.TrimLeft(line, " ")
		margin := line[:len(line)-len(rest)]
		lines[i] = margin + l.wrap(rest, margin+"  ")
	}
	return strings.Join(lines, "\n")
}

// wrapEach wraps the lines of a text that pass the terminal's edge, each as deep as
// it begins, and leaves the others as they are.
func (l look) wrapEach(text string) string {
	if l.columns == 0 {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) <= l.columns {
			continue
		}
		rest := strings.TrimLeft(line, " ")
		margin := line[:len(line)-len(rest)]
		if strings.HasPrefix(rest, "- ") {
			lines[i] = margin + l.wrap(rest, margin+"  ")
		} else {
			lines[i] = margin + l.wrap(rest, margin)
		}
	}
	return strings.Join(lines, "\n")
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

// takeTerminal has the terminal be the program's alone until leave is called: the
// screen before is kept, and keys come as they are pressed. keys is nil where they
// cannot be had; then Control-C ends the program as usual.
func (a *app) takeTerminal() (keys <-chan byte, leave func()) {
	_ = a.printf("\x1b[?1049h\x1b[?25l\x1b[2J") // another screen, no cursor
	restore := func() {}
	if in, ok := a.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		if before, err := term.MakeRaw(int(in.Fd())); err == nil {
			restore = func() { _ = term.Restore(int(in.Fd()), before) }
			pressed := make(chan byte)
			keys = pressed
			go readKeys(in, pressed) // ends with the process
		}
	}
	return keys, func() {
		restore()
		_ = a.printf("\x1b[?25h\x1b[?1049l")
	}
}

func readKeys(in io.Reader, keys chan<- byte) {
	defer close(keys)
	b := make([]byte, 1)
	for {
		if _, err := in.Read(b); err != nil {
			return
		}
		keys <- b[0]
	}
}
