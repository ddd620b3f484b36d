//go:build linux

// Command lab measures Proa in ways that a load alone does not show, and writes
// the pages with the figures. Each of its commands starts every server itself,
// on loopback and in a temporary directory, and ends what it started:
//
//	lab onenode [flags]    one node beside Redis, disk and loopback
//	lab failover [flags]   what clients notice of changes of a cluster
//	lab growth [flags]     how cost grows, one condition at a time
//
// The package of a command describes its method; -h lists its flags.
package main

import (
	"github.com/proa-kv/proa/bench/lab/failover"
	"github.com/proa-kv/proa/bench/lab/growth"
	"github.com/proa-kv/proa/bench/lab/onenode"
	"github.com/proa-kv/proa/bench/rig"
)

func main() {
	rig.Main("lab", map[string]rig.Prepare{"onenode": onenode.Prepare, "failover": failover.Prepare, "growth": growth.Prepare})
}
