package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

// watchPatience is how long a picture that stands may wait for the next one before
// watch says that there is no answer.
const watchPatience = 2 * time.Second

// watchStatus shows something again and again until the context ends. While no server
// can be reached, or answers in time, it says so and tries again; another failure is
// returned if nothing could be shown before, and shown later.
func watchStatus(ctx context.Context, a *app, interval time.Duration, l render.Look, show func(context.Context, *app, io.Writer, render.Look) (int, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	if l.Columns > 0 {
		defer func() { _ = a.Printf("\n") }() // the picture stays
	}
	for frames, shown := 0, false; ; frames++ {
		var b bytes.Buffer
		l = l.Resized(a.Out)
		err := attempt(ctx, shown, interval, func(ctx context.Context) error {
			_, err := show(ctx, a, &b, l)
			return err
		})
		if ctx.Err() != nil {
			return nil // Control-C is how one leaves
		}
		absent := isType[*client.UnavailableError](err) || errors.Is(err, errNoAnswer)
		switch {
		case err == nil:
			shown = true
		case !absent && !shown:
			return err
		case a.Form != render.AsTable:
			a.showError(err)
		default:
			fmt.Fprintln(&b, l.WrapLines(describe(err, a)))
			if absent {
				fmt.Fprintf(&b, "Trying again every %v.\n", interval)
			}
		}
		if err := writeFrame(a, b.Bytes(), frames, interval, l); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

var errNoAnswer = errors.New("no answer")

// attempt calls show, and gives it a bounded time if a picture stands already.
func attempt(ctx context.Context, stands bool, interval time.Duration, show func(context.Context) error) error {
	if !stands {
		return show(ctx)
	}
	patience := max(interval, watchPatience)
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := show(bounded)
	if err != nil && bounded.Err() != nil && !isType[*client.UnavailableError](err) {
		return fmt.Errorf("%w for %v", errNoAnswer, patience)
	}
	return err
}

// writeFrame shows one of several pictures: in place on a terminal, below a line
// with the time of day, and cut to its width; one behind the other elsewhere.
func writeFrame(a *app, picture []byte, number int, interval time.Duration, l render.Look) error {
	var b bytes.Buffer
	switch {
	case l.Columns > 0:
		if number == 0 {
			b.WriteString("\x1b[2J")
		}
		clock := fmt.Sprintf("%s, every %v; Control-C ends", time.Now().Format(time.TimeOnly), interval)
		b.WriteString(l.Frame(l.Paint(render.Dim, clock) + "\n" + string(picture)))
	case number > 0 && a.Form == render.AsTable && len(picture) > 0:
		b.WriteByte('\n')
		fallthrough
	default:
		b.Write(picture)
	}
	_, err := a.Out.Write(b.Bytes())
	return err
}
