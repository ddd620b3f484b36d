package report

import "io"

// HTML writes the report as a page.
func (l *Load) HTML(out io.Writer) error {
	_, err := io.WriteString(out, "<!doctype html>")
	return err
}
