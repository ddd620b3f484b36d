package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

// administrator carries out administrative requests: names and arguments are
// those of package command, in JSON.
type administrator interface {
	Admin(ctx context.Context, verb string, args []byte) ([]byte, error)
}

// administer carries out one request and decodes its answer into answer. args
// may be nil.
func (a *app) administer(ctx context.Context, verb string, args, answer any) error {
	raw, err := a.administerRaw(ctx, verb, args)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("cannot decode the server's answer to %s: %w; compare the versions of client and server: proa version, proa status", verb, err)
	}
	return nil
}

func (a *app) administerRaw(ctx context.Context, verb string, args any) ([]byte, error) {
	var arguments []byte
	if args != nil {
		var err error
		if arguments, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	if a.link.administrator == nil {
		c, err := a.connect(ctx)
		if err != nil {
			return nil, err
		}
		a.link.administrator = c
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.link.administrator.Admin(ctx, verb, arguments)
}

// clusterStatus asks for the whole cluster's state.
func (a *app) clusterStatus(ctx context.Context) (*command.ClusterStatus, error) {
	s := new(command.ClusterStatus)
	if err := a.administer(ctx, command.AdminStatus, nil, s); err != nil {
		return nil, unsupportedStatus(err)
	}
	return s, nil
}

// unsupportedStatus adds to an error how to ask a server that knows no clusters.
func unsupportedStatus(err error) error {
	if errors.Is(err, client.ErrUnsupported) {
		return fmt.Errorf("%w; this server knows no clusters, ask it with: proa status --node", err)
	}
	return err
}

// showDone shows what was done, or what goes on.
func showDone(a *app, d *command.Done) error {
	return a.Show(d, "%s\n", render.OneLine(strings.TrimSpace(d.Message)))
}

// parseNode reads the number of a node.
func parseNode(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 40)
	if err != nil || id == 0 {
		return 0, usagef("%q is not the number of a node; proa member list shows them", text)
	}
	return id, nil
}

// checkNode checks the number of a node that a flag gave.
func checkNode(flag string, id uint64) error {
	if id == 0 || id >= 1<<40 {
		return usagef("--%s: name a node by its number; proa member list shows them", flag)
	}
	return nil
}

const metaName = "meta"

// parseShard reads the number of a shard, or the name of the meta group.
func parseShard(text string) (int, error) {
	if strings.EqualFold(text, metaName) {
		return command.MetaShard, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, usagef("%q is not a shard: give its number, or %s; proa shard list shows them", text, metaName)
	}
	return int(n), nil
}

// shardName is what parseShard reads.
func shardName(shard int) string {
	if shard == command.MetaShard {
		return metaName
	}
	return strconv.Itoa(shard)
}

// namedMeta is a value of package command, or one like it, whose JSON calls the
// meta group by its name.
type namedMeta struct{ value any }

// MarshalJSON implements json.Marshaler.
func (n namedMeta) MarshalJSON() ([]byte, error) {
	b, err := render.MarshalJSON(n.value)
	return nameMeta(b), err
}

// nameMeta gives the meta group its name in JSON without spaces. Only fields are
// changed: within a string quotation marks have a backslash before them.
func nameMeta(compact []byte) []byte {
	number, name := fmt.Sprintf(`"shard":%d`, command.MetaShard), fmt.Sprintf(`"shard":%q`, metaName)
	return bytes.ReplaceAll(compact, []byte(number), []byte(name))
}

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

// obstruction detects that a change has been held up for longer than patience.
type obstruction struct {
	patience time.Duration
	since    time.Time // zero: it is not held up
}

// check notes the reason why the change is held up now, "" for none. It returns an
// error if patience ends before the next check.
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
