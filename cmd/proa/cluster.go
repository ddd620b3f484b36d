package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

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
