package render

import "fmt"

// Line is a line of a terminal, on standard error, that shows how something goes on.
type Line struct {
	o          *Output
	OnTerminal bool // otherwise each text is a line of its own
	last       string
}

// Line returns a line that shows nothing yet.
func (o *Output) Line() *Line {
	_, onTerminal := Terminal(o.Err)
	return &Line{o: o, OnTerminal: onTerminal}
}

// Show replaces the text of the line, unless it is the same.
func (l *Line) Show(text string) {
	text = OneLine(text)
	switch {
	case text == l.last:
		return
	case l.OnTerminal:
		fmt.Fprintf(l.o.Err, "\r%s\x1b[K", text)
	default:
		fmt.Fprintln(l.o.Err, text)
	}
	l.last = text
}

// End clears the line.
func (l *Line) End() {
	if l.OnTerminal && l.last != "" {
		fmt.Fprint(l.o.Err, "\r\x1b[K")
	}
}
