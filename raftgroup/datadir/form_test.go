package datadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// formWith starts a former that is answered by answer.
func formWith(t *testing.T, o FormOptions, answer func(verb string, body []byte) ([]byte, error)) (*Former, error) {
	t.Helper()
	o.Dir, o.RetryEvery = dir, time.Millisecond
	if o.PeerAddress == "" {
		o.PeerAddress = "n9"
	}
	o.Call = func(_ context.Context, _, verb string, body []byte) ([]byte, error) { return answer(verb, body) }
	f, err := NewFormer(o)
	must(t, err)
	_, err = f.Form(t.Context())
	must(t, f.Close())
	return f, err
}

// A number that the cluster refuses leaves no trace in the directory: the next
// start may ask for another one, or for none.
func TestRefusedNumberLeavesNoTrace(t *testing.T) {
	disk := vfs.NewMem()
	_, err := formWith(t, FormOptions{FS: disk, ID: 3, Join: []string{"n1"}}, func(verb string, _ []byte) ([]byte, error) {
		if verb == call.Probe {
			return json.Marshal(Probe{Cluster: 7, Node: 1, UID: 1, Peer: "n1", Shards: 1, Replicas: 3})
		}
		return call.Pack(nil, fmt.Errorf("%w: node 3 has been removed", command.ErrRefused))
	})
	if !errors.Is(err, ErrJoin) {
		t.Fatalf("the refusal: %v", err)
	}
	id, err := ReadIdentity(disk, dir)
	must(t, err)
	if id.Node != 0 {
		t.Errorf("the directory says it is node %d, which was refused", id.Node)
	}
	asked := ^uint64(0)
	f, err := formWith(t, FormOptions{FS: disk, Join: []string{"n1"}}, func(verb string, body []byte) ([]byte, error) {
		if verb == call.Probe {
			return json.Marshal(Probe{Cluster: 7, Node: 1, UID: 1, Peer: "n1", Shards: 1, Replicas: 3})
		}
		var a placement.Request
		must(t, json.Unmarshal(body, &a))
		asked = a.ID
		b, err := json.Marshal(JoinReply{Cluster: 7, ID: 4, Shards: 1, Replicas: 3})
		must(t, err)
		return call.Pack(b, nil)
	})
	must(t, err)
	if asked != 0 || f.Identity().Node != 4 {
		t.Errorf("asked for number %d, and is node %d; want none, and 4", asked, f.Identity().Node)
	}
}

// A founder that ended before it had written down the new cluster finds itself
// by its directory, with whatever number it is started again.
func TestFounderFindsItself(t *testing.T) {
	for asked, want := range map[uint64]error{0: nil, 2: nil, 5: ErrJoin} {
		disk := vfs.NewMem()
		first, err := NewFormer(FormOptions{Dir: dir, FS: disk, ID: 2})
		must(t, err)
		must(t, first.Close())
		uid := first.Identity().UID
		f, err := formWith(t, FormOptions{FS: disk, ID: asked, Join: []string{"n1"}}, func(string, []byte) ([]byte, error) {
			return json.Marshal(Probe{Cluster: 7, Node: 1, UID: 1, Peer: "n1", Shards: 1, Replicas: 3, Members: []Member{{ID: 1, UID: 1}, {ID: 2, UID: uid}}})
		})
		if !errors.Is(err, want) {
			t.Errorf("--node-id %d: %v, want %v", asked, err, want)
		}
		if id := f.Identity(); want == nil && (id.Node != 2 || !id.Founder || id.Cluster != 7) {
			t.Errorf("--node-id %d: node %d of cluster %d, founder %v", asked, id.Node, id.Cluster, id.Founder)
		}
	}
}

// A directory of one cluster is not started to join another: the operator would
// get a node of the cluster of old, and the other cluster none. One answer of the
// directory's own cluster, or no answer at all, lets it start.
func TestDirectoryOfAnotherClusterIsRefused(t *testing.T) {
	none := errors.New("connection refused")
	probed := func(cluster, uid uint64) func() ([]byte, error) {
		return func() ([]byte, error) {
			return json.Marshal(Probe{Cluster: cluster, Node: 1, UID: uid, Peer: "n1", Shards: 1, Replicas: 3})
		}
	}
	silent := func() ([]byte, error) { return nil, none }
	disk := vfs.NewMem()
	f, err := formWith(t, FormOptions{FS: disk}, func(string, []byte) ([]byte, error) { return nil, none })
	must(t, err)
	own, uid := f.Identity().Cluster, f.Identity().UID
	for name, c := range map[string]struct {
		answers map[string]func() ([]byte, error)
		want    error
	}{
		"no answer":                    {map[string]func() ([]byte, error){"a": silent}, nil},
		"its own cluster":              {map[string]func() ([]byte, error){"a": probed(own, 5)}, nil},
		"another cluster":              {map[string]func() ([]byte, error){"a": probed(own+1, 5)}, ErrJoin},
		"another cluster and itself":   {map[string]func() ([]byte, error){"a": probed(own+1, 5), "b": probed(own, uid)}, ErrJoin},
		"another cluster and silence":  {map[string]func() ([]byte, error){"a": probed(own+1, 5), "b": silent}, ErrJoin},
		"another cluster and its own":  {map[string]func() ([]byte, error){"a": probed(own+1, 5), "b": probed(own, 6)}, nil},
		"a node without a cluster yet": {map[string]func() ([]byte, error){"a": probed(0, 5)}, nil},
	} {
		o := FormOptions{Dir: dir, FS: disk, PeerAddress: "n9", Call: func(_ context.Context, address, _ string, _ []byte) ([]byte, error) {
			return c.answers[address]()
		}}
		for address := range c.answers {
			o.Join = append(o.Join, address)
		}
		f, err := NewFormer(o)
		must(t, err)
		id, err := f.Form(t.Context())
		must(t, f.Close())
		if !errors.Is(err, c.want) || id.Cluster != own {
			t.Errorf("%s: %v, want %v; cluster %x", name, err, c.want, id.Cluster)
		}
		if c.want != nil && !strings.Contains(err.Error(), "empty directory with --data") {
			t.Errorf("%s: %v; want advice in it", name, err)
		}
	}
}

// smallDisk says how much of a disk is free.
type smallDisk struct {
	vfs.FS
	free uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: 1 << 40}, nil
}

// No cluster is created on a disk on which the node cannot start. A node that has
// a cluster may start: its log is there.
func TestNoClusterWithoutRoom(t *testing.T) {
	disk := &smallDisk{vfs.NewMem(), 64<<20 - 1}
	o := FormOptions{FS: disk, Dir: dir, Room: 640 << 20, RoomMin: 64 << 20}
	_, err := NewFormer(o)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "64.0 MiB are free, up to 640 MiB are needed to start; free space there") {
		t.Fatalf("on a small disk: %v", err)
	}
	if _, ok, err := readIdentity(disk, dir); ok || err != nil {
		t.Errorf("the directory has an identity: %v, %v", ok, err)
	}
	for _, free := range []uint64{64 << 20, 0} {
		disk.free = free
		f, err := NewFormer(o)
		if err != nil {
			t.Fatalf("with %d bytes free: %v", free, err)
		}
		if id, err := f.Form(t.Context()); err != nil || id.Cluster == 0 {
			t.Errorf("with %d bytes free: %v", free, err)
		}
		must(t, f.Close())
	}
}
