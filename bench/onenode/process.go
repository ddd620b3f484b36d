//go:build linux

package main

import (
	"context"
	"errors"
	"net"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// process is a server that was started here.
type process struct {
	*rig.Process
	target bench.Target
}

// startServer starts a server on a free port and waits until it greets. args
// gets the port and returns the command line.
func startServer(ctx context.Context, name, dir string, codec bench.Codec, args func(port string) []string) (*process, error) {
	var p *process
	err := rig.OnFreePorts(1, func(ports []string) error {
		started, err := rig.Start(name, dir, args(ports[0]))
		if err != nil {
			return err
		}
		p = &process{started, bench.Target{Address: net.JoinHostPort("127.0.0.1", ports[0]), Codec: codec}}
		if err := rig.Await(ctx, p.greets, p.Process); err != nil {
			return errors.Join(err, p.Stop())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// greets returns nil if the server does.
func (p *process) greets(ctx context.Context) error {
	idle, err := bench.OpenIdle(ctx, p.target, 1)
	if err != nil {
		return err
	}
	return idle.Close()
}

// startEcho starts the echo server.
func startEcho(bytes int) (*process, error) {
	p, address, err := rig.StartEcho()
	if err != nil {
		return nil, err
	}
	return &process{p, bench.Target{Address: address, Codec: rig.Echo{Bytes: bytes}}}, nil
}
