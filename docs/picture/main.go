// Picture runs a command in a terminal and draws what is on the screen when it has
// ended, as an SVG file for a page of the documentation:
//
//	go run . -write ../demo.svg -in ../.. ./proa demo
//
// The text stays text. Colours are the terminal's sixteen, on a dark ground.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"html"
	"image/color"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// Measures of the picture, in pixels.
const (
	cellWidth  = 8.4
	cellHeight = 18
	margin     = 16
	titleBar   = 34
	fontSize   = 14
)

const (
	ground     = "#14171f"
	foreground = "#d6dae4"
	faintText  = "#7b8496"
)

func main() {
	log.SetFlags(0)
	write := flag.String("write", "screen.svg", "`file` to write")
	in := flag.String("in", ".", "`directory` to run the command in")
	columns := flag.Int("columns", 76, "width of the terminal in `characters`")
	rows := flag.Int("rows", 60, "height of the terminal in `lines`; empty ones at the end are left out")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("usage: picture [-write FILE] COMMAND…")
	}
	file, err := filepath.Abs(*write)
	if err != nil {
		log.Fatalf("picture: %v", err)
	}
	if err := os.Chdir(*in); err != nil {
		log.Fatalf("picture: %v", err)
	}
	screen, err := record(flag.Args(), *columns, *rows)
	if err != nil {
		log.Fatalf("picture: %v", err)
	}
	title := strings.Join(append([]string{filepath.Base(flag.Arg(0))}, flag.Args()[1:]...), " ")
	if err := os.WriteFile(file, draw(screen, title), 0o644); err != nil {
		log.Fatalf("picture: %v", err)
	}
}

// record runs a command to its end, and returns the terminal that it wrote to.
func record(command []string, columns, rows int) (*vt.Emulator, error) {
	screen := vt.NewEmulator(columns, rows)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "COLORTERM=")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)})
	if err != nil {
		return nil, err
	}
	defer terminal.Close()
	// What the emulator answers to questions goes back to the program.
	go func() { _, _ = io.Copy(terminal, screen) }()
	// Reading ends with EIO when the program has ended.
	if _, err := io.Copy(screen, terminal); err != nil && !errors.Is(err, syscall.EIO) {
		return nil, err
	}
	return screen, cmd.Wait()
}

// draw returns the screen as SVG.
func draw(screen *vt.Emulator, title string) []byte {
	var lines []string
	for y := range screen.Height() {
		lines = append(lines, drawLine(screen, y))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	width := 2*margin + cellWidth*float64(screen.Width())
	height := titleBar + margin + cellHeight*len(lines)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d" role="img" aria-label="%s">`+"\n", width, height, width, height, html.EscapeString(title))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="%s"/>`+"\n", ground)
	for i, fill := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="17" r="5" fill="%s"/>`+"\n", margin+5+i*18, fill)
	}
	fmt.Fprintf(&b, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="%d" fill="%s">`+"\n", fontSize, foreground)
	fmt.Fprintf(&b, `<text x="50%%" y="22" text-anchor="middle" fill="%s">%s</text>`+"\n", faintText, html.EscapeString(title))
	for y, line := range lines {
		if line != "" {
			fmt.Fprintf(&b, `<text y="%d" xml:space="preserve">%s</text>`+"\n", titleBar+cellHeight*(y+1)-5, line)
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.Bytes()
}

// drawLine returns a line of the screen as spans of one style each. Each says where
// it begins and how wide it is, so that the columns stand below each other whatever
// the reader's font is.
func drawLine(screen *vt.Emulator, y int) string {
	var line strings.Builder
	for x := 0; x < screen.Width(); {
		style, begin, text := styleOf(screen.CellAt(x, y)), x, ""
		for ; x < screen.Width() && styleOf(screen.CellAt(x, y)) == style; x++ {
			text += content(screen.CellAt(x, y))
		}
		left := len(text) - len(strings.TrimLeft(text, " "))
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		fmt.Fprintf(&line, `<tspan x="%.1f" textLength="%.1f"%s>%s</tspan>`, margin+cellWidth*float64(begin+left), cellWidth*float64(len([]rune(text))), style, html.EscapeString(text))
	}
	return line.String()
}

func content(c *uv.Cell) string {
	if c == nil || c.Content == "" {
		return " "
	}
	return c.Content
}

// styleOf returns the attributes of a cell's span.
func styleOf(c *uv.Cell) string {
	if c == nil {
		return ""
	}
	var s string
	switch {
	case c.Style.Fg != nil:
		s += fmt.Sprintf(` fill="%s"`, shade(c.Style.Fg))
	case c.Style.Attrs&uv.AttrFaint != 0:
		s += fmt.Sprintf(` fill="%s"`, faintText)
	}
	if c.Style.Attrs&uv.AttrBold != 0 {
		s += ` font-weight="bold"`
	}
	return s
}

// shade is a colour of the terminal, bright enough for the dark ground.
func shade(c color.Color) string {
	r, g, b, _ := c.RGBA()
	lift := func(v uint32) uint32 { return 70 + (v>>8)*185/255 }
	return fmt.Sprintf("#%02x%02x%02x", lift(r), lift(g), lift(b))
}
