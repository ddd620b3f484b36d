//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// etcd is etcd with its defaults, but for the size its data may grow to: 8 GiB,
// the most that its documentation suggests, for a run must not reach it. There
// is no TLS.
type etcd struct{}

func (etcd) name() string { return "etcd" }

func (etcd) short() string { return "etcd" }

func (etcd) supports(int) bool { return true }

// program builds etcd from the module that names its version, with exactly the
// dependencies that etcd itself names, unless -etcd names a program.
func (etcd) program(ctx context.Context, o *options, dir string) (path, version string, err error) {
	if o.etcd == "" {
		path = filepath.Join(dir, "etcd")
		err = build(ctx, "etcd", path, "go.etcd.io/etcd/server/v3")
	} else if path, err = exec.LookPath(o.etcd); err != nil {
		err = fmt.Errorf("%w: %w; without -etcd it is built", errMissing, err)
	}
	return path, strings.Replace(rig.VersionLine(path, "--version"), " Version:", "", 1), err
}

func (etcd) kind(program string) rig.Kind {
	name := func(id int) string { return fmt.Sprintf("n%d", id) }
	return rig.Kind{Name: "etcd", Command: func(c *rig.Cluster, n *rig.Node) []string {
		var all []string
		for _, p := range c.Nodes {
			all = append(all, name(p.ID)+"=http://"+p.Peer)
		}
		return []string{
			program, "--name", name(n.ID), "--data-dir", n.Data,
			"--listen-client-urls", "http://" + n.Client, "--advertise-client-urls", "http://" + n.Client,
			"--listen-peer-urls", "http://" + n.Peer, "--initial-advertise-peer-urls", "http://" + n.Peer,
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new",
			"--quota-backend-bytes", "8589934592", "--log-level", "warn",
		}
	}}
}

func (etcd) meaning(op bench.Op, nodes int) meaning {
	switch {
	case op == bench.Put && nodes == 1:
		return meaning{words: "fsynced on the only node"}
	case op == bench.Put:
		return meaning{words: "fsynced on a majority"}
	case nodes == 1:
		return meaning{words: "linearizable: ReadIndex, the only voter"}
	}
	return meaning{words: "linearizable: a ReadIndex round, not a lease", unlike: true}
}

// connect opens a client for each connection, to the leader: that spares the
// hop from another member. With clients spread over the members, as its own
// benchmark has them without --target-leader, etcd wrote more slowly when that
// was tried with all on one machine.
func (etcd) connect(ctx context.Context, addresses []string, connections int) (rig.Driver, error) {
	leader, err := etcdLeader(ctx, addresses)
	if err != nil {
		return nil, err
	}
	var d etcdDriver
	for range connections {
		c, err := etcdClient(leader)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d = append(d, c)
	}
	return d, nil
}

func etcdClient(address string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

// etcdLeader returns the address of the member that leads, when all members
// answer and agree.
func etcdLeader(ctx context.Context, addresses []string) (string, error) {
	leaders, address := map[uint64]bool{}, ""
	for _, a := range addresses {
		s, err := etcdStatus(ctx, a)
		if err != nil {
			return "", fmt.Errorf("status of %s: %w", a, err)
		}
		leaders[s.Leader] = true
		if s.Leader == s.Header.MemberId {
			address = a
		}
	}
	if address == "" || len(leaders) > 1 {
		return "", errors.New("the members do not agree on a leader")
	}
	return address, nil
}

func etcdStatus(ctx context.Context, address string) (*clientv3.StatusResponse, error) {
	c, err := etcdClient(address)
	if err != nil {
		return nil, err
	}
	s, err := c.Status(ctx, address)
	return s, errors.Join(err, c.Close())
}

type etcdDriver []*clientv3.Client

func (d etcdDriver) Put(ctx context.Context, caller int, key, value []byte) error {
	_, err := d[caller%len(d)].Put(ctx, string(key), string(value))
	return err
}

// Get is linearizable, as reads of etcd are unless they ask not to be.
func (d etcdDriver) Get(ctx context.Context, caller int, key []byte) (int, error) {
	r, err := d[caller%len(d)].Get(ctx, string(key))
	switch {
	case err != nil:
		return 0, err
	case len(r.Kvs) == 0:
		return 0, rig.ErrAbsent
	}
	return len(r.Kvs[0].Value), nil
}

func (etcdDriver) Class(err error) string {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Error()
	}
	if s, ok := status.FromError(err); ok {
		return s.Code().String()
	}
	return ""
}

func (d etcdDriver) Close() error { return rig.CloseAll(d, (*clientv3.Client).Close) }
