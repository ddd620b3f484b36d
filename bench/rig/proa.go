package rig

import (
	"slices"
	"strconv"
	"strings"
)

// Proa is a server of Proa that a bench starts: with default settings but for
// what Args is told, and with warnings alone in its log.
type Proa struct {
	Program string
	Data    string   // directory
	Client  string   // address for clients, host:port
	Peers   []string // addresses of all nodes for each other; one or none: a node by itself
	ID      int      // of this node among them, from 1
}

// Args returns the command line, for Start. more are arguments at its end.
func (p *Proa) Args(more ...string) []string {
	args := []string{p.Program, "serve", "--data", p.Data, "--listen", p.Client, "--admin-listen", "off", "--log-level", "warn"}
	if len(p.Peers) <= 1 {
		args = append(args, "--peer-listen", "off")
	} else {
		args = append(args, "--node-id", strconv.Itoa(p.ID), "--peer-listen", p.Peers[p.ID-1], "--join", strings.Join(p.Peers, ","))
	}
	return slices.Concat(args, more)
}
