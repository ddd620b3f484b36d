//go:build linux

package main

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// proa is Proa on the parts named: "" is the default one.
type proa struct{ transport, engine string }

// parts are the parts that are not the default ones.
func (p proa) parts() []string {
	return slices.DeleteFunc([]string{p.transport, p.engine}, func(name string) bool { return name == "" })
}

func (p proa) name() string {
	if parts := p.parts(); len(parts) > 0 {
		return "Proa on " + strings.Join(parts, " and ")
	}
	return "Proa"
}

func (p proa) short() string { return strings.Join(append([]string{"proa"}, p.parts()...), "-") }

// supports leaves out clusters that differ from others only in the transport: what
// that costs shows on one node, and each further cluster makes a run longer.
func (p proa) supports(nodes int) bool { return nodes == 1 || p.transport == "" || p.engine != "" }

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

func (p proa) kind(program string) rig.Kind { return rig.Proa(p.short(), program, p.settings()...) }

// settings are the arguments that choose the parts. They name the default ones too,
// so that the environment chooses none.
func (p proa) settings() []string {
	return []string{"--set", "network.transport=" + cmp.Or(p.transport, "auto"), "--set", "raft.engine=" + cmp.Or(p.engine, "etcd")}
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
func (proa) connect(ctx context.Context, addresses []string, connections int) (rig.Driver, error) {
	return rig.ConnectProa(ctx, addresses, max(1, connections/len(addresses)))
}
