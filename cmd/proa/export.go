package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

func exportCommand(a *app) *cobra.Command {
	var s scanFlags
	cmd := newCommand("export", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		options, err := s.options(a)
		if err != nil {
			return err
		}
		c, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		if len(args) == 0 || args[0] == "-" {
			return exportTo(cmd.Context(), a, c, a.Out, options)
		}
		return writeFile(cmd.Context(), args[0], 0o600, func(w io.Writer) error { return exportTo(cmd.Context(), a, c, w, options) })
	})
	s.addRange(cmd)
	return cmd
}

func exportTo(ctx context.Context, a *app, c *client.Client, w io.Writer, options []client.ScanOption) error {
	p := newProgress(a, "exporting", -1)
	b := bufio.NewWriterSize(w, 256<<10)
	for item, err := range c.Scan(ctx, options...) {
		if err != nil {
			p.stop()
			return err
		}
		line, err := exportedRecord(&item)
		if err != nil {
			return err
		}
		if _, err := b.Write(line); err != nil {
			p.stop()
			return err
		}
		p.add(1, int64(len(line)+1))
	}
	err := b.Flush()
	p.stop()
	if err != nil {
		return err
	}
	a.Note("exported %s", p.summary())
	return nil
}

// exportedRecord is a line that parseRecord reads.
func exportedRecord(i *client.Item) ([]byte, error) {
	r := rowOf(i)
	r.Value, r.Version = present(i.Value), 0
	line, err := render.MarshalJSON(r)
	return append(line, '\n'), err
}

// progress counts what a transfer has done and shows it on a terminal.
type progress struct {
	records, bytes int64
	start          time.Time
	bar            *progressbar.ProgressBar // nil where nobody watches
}

// newProgress begins to count; total is in bytes, -1 where it is not known.
func newProgress(a *app, what string, total int64) *progress {
	p := &progress{start: time.Now()}
	if _, ok := render.Terminal(a.Err); ok {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(a.Err), progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish())
	}
	return p
}

func (p *progress) add(records, bytes int64) {
	p.records += records
	p.bytes += bytes
	if p.bar != nil {
		// A bar that cannot be drawn is no reason to end the transfer.
		_ = p.bar.Add64(bytes)
	}
}

func (p *progress) stop() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// summary says what was done, how long it took and how fast it was.
func (p *progress) summary() string {
	took := time.Since(p.start)
	return fmt.Sprintf("%d records, %s in %s (%.0f records/s)",
		p.records, roundSize(p.bytes), took.Round(time.Millisecond), float64(p.records)/max(took.Seconds(), 1e-9))
}

// roundSize shows bytes to about three digits.
func roundSize(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
