package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

const (
	// progressInterval is the pause between two looks at a change that goes
	// on in the background.
	progressInterval = 500 * time.Millisecond

	// statusPatience is for how long no server need answer before waiting is
	// given up. It spans the change of a leader and the restart of a node.
	statusPatience = time.Minute

	// stallAfter is the time without progress after which the progress line says so.
	stallAfter = time.Minute
)

// step returns how far a change of the cluster is, and whether it is complete. An error ends the waiting: the change will not complete.
type step func(*command.ClusterStatus) (progress string, complete bool, err error)

// follow waits until a change is complete and shows how it goes on.
func follow(ctx context.Context, a *app, look step) error {
	line := a.Line()
	defer line.End()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	lastAnswer, lastChange := time.Now(), time.Now()
	for last := ""; ; {
		s, err := a.clusterStatus(ctx)
		switch {
		case ctx.Err() != nil:
			return &statusError{exitUnknown, errors.New("interrupted; the change goes on in the background, proa status shows how far it is")}
		case err != nil && time.Since(lastAnswer) > statusPatience:
			return &statusError{exitUnknown, fmt.Errorf("the change goes on in the background, but how far it is cannot be seen: %w", err)}
		case err == nil:
			lastAnswer = time.Now()
			text, complete, err := look(s)
			if err != nil || complete {
				return err
			}
			if text != last {
				last, lastChange = text, time.Now()
			}
			if still := time.Since(lastChange); still >= stallAfter {
				text += fmt.Sprintf(" (unchanged for %s; proa status may show why)", render.Age(still.Truncate(stallAfter)))
			}
			if !a.JSON() { // JSON has one object, at the end
				line.Show(text)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// obstruction notices that a change is kept from going on for longer than whoever
// waits for it is willing to wait.
type obstruction struct {
	patience time.Duration
	since    time.Time // zero: nothing does
}

// check takes in what hinders the change now, "" for nothing. It returns an error
// if the next look would come when patience has run out.
func (h *obstruction) check(reason string) error {
	now := time.Now()
	switch {
	case reason == "":
		h.since = time.Time{}
		return nil
	case h.since.IsZero():
		h.since = now
	}
	if now.Add(progressInterval).Sub(h.since) < h.patience {
		return nil
	}
	return errors.New(reason)
}

// change is a request that has its effect in the background.
type change struct {
	verb     string
	args     any
	wait     bool
	quiet    bool   // its message claims completion, which the node asked may not know of yet
	look     step   // until it is complete
	complete string // what to say then
}

// requestChange sends a request, shows its answer and, where it is to, waits until
// the change is complete.
func requestChange(ctx context.Context, a *app, c change) error {
	var done command.Done
	if err := a.administer(ctx, c.verb, c.args, &done); err != nil {
		return err
	}
	if !c.wait {
		return showDone(a, &done)
	}
	if a.Form == render.AsTable && !c.quiet {
		// JSON has one object, at the end.
		if err := showDone(a, &done); err != nil {
			return err
		}
	}
	if err := follow(ctx, a, c.look); err != nil {
		return err
	}
	return showDone(a, &command.Done{Message: c.complete})
}
