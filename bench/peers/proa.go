//go:build linux

package main

import (
	"context"
	"path/filepath"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// proa is Proa with its defaults.
type proa struct{}

func (proa) name() string { return "Proa" }

func (proa) supports(int) bool { return true }

// program builds Proa from the tree this module stands in, unless -proa names
// one.
func (proa) program(ctx context.Context, o *options, dir string) (path, version string, err error) {
	if path = o.Proa; path == "" {
		path = filepath.Join(dir, "proa")
		err = build(ctx, "../..", path, "./cmd/proa")
	} else {
		err = rig.FindProa(path)
	}
	return path, rig.VersionLine(path, "version"), err
}

func (proa) kind(program string) rig.Kind { return rig.Proa("proa", program) }

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
func (proa) connect(ctx context.Context, addresses []string, connections int) (rig.Driver, error) {
	return rig.ConnectProa(ctx, addresses, max(1, connections/len(addresses)))
}

// proaOn is Proa with a network transport that is not its default.
type proaOn struct {
	proa
	transport string
}

func (p proaOn) name() string { return "Proa on " + p.transport }

func (p proaOn) kind(program string) rig.Kind {
	return rig.Proa("proa-"+p.transport, program, "--set", "network.transport="+p.transport)
}
