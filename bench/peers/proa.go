//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/client"
)

// proa is Proa with its defaults.
type proa struct{}

func (proa) name() string { return "Proa" }

func (proa) supports(int) bool { return true }

// program builds Proa from the tree this module stands in, unless told which to
// take.
func (proa) program(ctx context.Context, o *options, dir string) (path, version string, err error) {
	if path, err = o.proa, nil; path == "" {
		path = filepath.Join(dir, "proa")
		err = build(ctx, "../..", path, "./cmd/proa")
	} else if path, err = exec.LookPath(o.proa); err != nil {
		err = fmt.Errorf("%w; build it first, with make build", err)
	}
	return path, rig.VersionLine(path, "version"), err
}

func (proa) command(s *site, n *node) []string {
	p := rig.Proa{Program: s.program, Data: n.data, Client: n.client, ID: n.id}
	for i := range s.nodes {
		p.Peers = append(p.Peers, s.nodes[i].peer)
	}
	return p.Args()
}

func (proa) meaning(op bench.Op, nodes int) meaning {
	switch {
	case op == bench.Put && nodes == 1:
		return meaning{words: "fsynced on the only node"}
	case op == bench.Put:
		return meaning{words: "fsynced on a majority"}
	case nodes == 1:
		return meaning{words: "linearizable: the only voter answers"}
	}
	return meaning{words: "linearizable: the leader answers under its lease"}
}

// connect opens clients, each of which has a connection to each node.
func (proa) connect(ctx context.Context, addresses []string, connections int) (driver, error) {
	var d proaDriver
	for range max(1, connections/len(addresses)) {
		c, err := client.New(ctx, client.Config{Endpoints: addresses})
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
		d = append(d, c)
	}
	return d, nil
}

type proaDriver []*client.Client

func (d proaDriver) put(ctx context.Context, caller int, key, value []byte) error {
	_, err := d[caller%len(d)].Put(ctx, key, value)
	return err
}

func (d proaDriver) get(ctx context.Context, caller int, key []byte) (int, error) {
	item, err := d[caller%len(d)].Get(ctx, key)
	if errors.Is(err, client.ErrNotFound) {
		err = errAbsent
	}
	return len(item.Value), err
}

// proaFailures are the kinds of failure that a run may meet.
var proaFailures = []error{
	client.ErrBusy, client.ErrNoQuorum, client.ErrNotLeader, client.ErrDropped, client.ErrShuttingDown, client.ErrTooManyConnections,
	client.ErrUnavailable, client.ErrConnectionLost, client.ErrDeadlineExceeded, client.ErrStorageFailed, client.ErrInternal,
}

func (proaDriver) class(err error) string {
	for _, kind := range proaFailures {
		if !errors.Is(err, kind) {
			continue
		}
		if errors.Is(err, client.ErrOutcomeUnknown) {
			return "outcome unknown: " + kind.Error()
		}
		return kind.Error()
	}
	return ""
}

func (d proaDriver) close() error { return closeAll(d, (*client.Client).Close) }
